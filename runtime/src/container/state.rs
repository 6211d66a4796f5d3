//! `state`, and what `list` shows of one container.

use std::collections::BTreeMap;

use anyhow::Result;
use hull_specs_oci as oci;
use serde::Serialize;

use super::{Dir, Record, find, status};
use crate::request::Global;

/// The specification's state document with runc's additions, in runc's order.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Described {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// 0 when the container has stopped.
    pub(crate) pid: i32,
    pub(crate) status: oci::Status,
    pub(crate) bundle: String,
    pub(crate) rootfs: String,
    /// RFC 3339, UTC.
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// The name of the user who made it; empty for one that the host does not name.
    pub(crate) owner: String,
}

/// Describes a container.
pub(crate) fn state(global: &Global, id: &oci::ContainerId) -> Result<Described> {
    let (dir, record) = find(global, id)?;
    describe(&dir, record)
}

pub(super) fn describe(dir: &Dir, record: Record) -> Result<Described> {
    let status = status::observe(dir, &record)?;
    let pid = match status {
        oci::Status::Stopped => 0,
        _ => record.init.as_ref().map_or(0, |init| init.pid),
    };
    Ok(Described {
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
