//! hulld, the manager.
#![forbid(unsafe_code)]

fn main() {}
