//! What commands answer, as the documents that callers parse.

use std::collections::BTreeMap;

use hull_specs_oci as oci;
use serde::Serialize;

/// What `state` and `list` say of a container. The order of the fields is that of runc's
/// document, which is the specification's state with three additions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    /// The version of the specification that the bundle was written for.
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// The first process, or 0 where it has ended.
    pub(crate) pid: i32,
    pub(crate) status: oci::Status,
    pub(crate) bundle: String,
    /// The absolute path of the root file system.
    pub(crate) rootfs: String,
    /// When the container was created, as [`oci::time::rfc3339_nano`] prints it.
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// The user that owns the container's state: a name, `#` and a number where there is
    /// none, or nothing where nobody asked (`state`).
    pub(crate) owner: String,
}
