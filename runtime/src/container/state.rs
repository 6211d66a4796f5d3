//! `state`, and what `list` shows of one container.

use anyhow::Result;
use hull_specs_oci as oci;

use super::{Dir, Record, find, status};
use crate::{report::Listed, request::Global};

/// Describes a container.
pub(crate) fn state(global: &Global, id: &oci::ContainerId) -> Result<Listed> {
    let (dir, record) = find(global, id)?;
    describe(&dir, record)
}

pub(super) fn describe(dir: &Dir, record: Record) -> Result<Listed> {
    let status = status::observe(dir, &record)?;
    let pid = match status {
        oci::Status::Stopped => 0,
        _ => record.init.as_ref().map_or(0, |init| init.pid),
    };
    Ok(Listed {
        oci_version: record.oci_version,
        id: record.id,
        pid,
        status,
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        annotations: record.annotations,
        owner: user_name(record.owner),
    })
}

/// The host's name of a user. The file is the host's own; nothing of a container's is read.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == wanted).then(|| name.to_owned())
        })
        .unwrap_or(wanted)
}
