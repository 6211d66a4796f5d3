//! The container's file system: a plan of mounts, and its apply.
