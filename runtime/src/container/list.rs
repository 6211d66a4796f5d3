//! `list`: every container below the root directory.

use anyhow::Result;

use super::{Failure, Store, state::describe};
use crate::{log, report::Listed, request::Global};

/// Describes every container. One whose `create` was killed before it wrote anything is
/// passed over, as there is nothing to say of it; one that cannot be read is a warning.
pub(crate) fn list(global: &Global) -> Result<Vec<Listed>> {
    let store = Store::new(&global.root);
    let mut listed = Vec::new();
    for id in store.ids()? {
        let described = store.open(&id).and_then(|dir| {
            let record = dir.record()?.ok_or(Failure::NotExist)?;
            describe(&dir, record)
        });
        match described {
            Ok(described) => listed.push(described),
            // Deleted meanwhile.
            Err(error) if Failure::NotExist.is(&error) => {}
            Err(error) => log::warning(format!("container {id}: {error:#}")),
        }
    }
    Ok(listed)
}
