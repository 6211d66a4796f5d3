//! Archives of file systems: one applier, one writer, and the confined process they run in.
#![forbid(unsafe_code)]
