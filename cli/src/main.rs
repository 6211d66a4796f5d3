//! hull, the command line, with docker's grammar.
#![forbid(unsafe_code)]

fn main() {}
