//! Containers.
#![forbid(unsafe_code)]
