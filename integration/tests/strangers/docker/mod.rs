//! dockerd with the runtime as its default.

pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod network;
pub(crate) mod process;
pub(crate) mod storage;
