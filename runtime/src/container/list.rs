//! `list`: every container below the root directory.

use anyhow::Result;

use super::{
    Failure, Store,
    state::{Described, describe},
};
use crate::request::Global;

/// A container, or why it could not be described.
pub(crate) type Listed = Described;

/// Describes every container. One whose `create` was killed before it wrote anything is
/// passed over, as there is nothing to say of it; one that cannot be read is a warning.
pub(crate) fn list(global: &Global) -> Result<(Vec<Listed>, Vec<String>)> {
    let store = Store::new(&global.root);
    let (mut listed, mut warnings) = (Vec::new(), Vec::new());
    for id in store.ids()? {
        let described = store.open(&id).and_then(|dir| {
            let record = dir.record()?.ok_or(Failure::NotExist)?;
            describe(&dir, record)
        });
        match described {
            Ok(described) => listed.push(described),
            // Deleted meanwhile.
            Err(error) if Failure::NotExist.is(&error) => {}
            Err(error) => warnings.push(format!("container {id}: {error:#}")),
        }
    }
    Ok((listed, warnings))
}
