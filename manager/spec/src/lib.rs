//! From an image and what was asked to the OCI runtime configuration. Pure.
#![forbid(unsafe_code)]
