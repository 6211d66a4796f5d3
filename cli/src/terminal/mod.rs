//! The person's terminal: raw mode, its size, keys to detach, streams to and from a process,
//! signals.

pub(crate) mod detach;
pub(crate) mod output;
pub(crate) mod raw;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod stdin;
