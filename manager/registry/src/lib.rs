//! A client of the OCI distribution interface.
#![forbid(unsafe_code)]
