//! podman with `--runtime`.

pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod namespaces;
pub(crate) mod pods;
pub(crate) mod process;
pub(crate) mod storage;
