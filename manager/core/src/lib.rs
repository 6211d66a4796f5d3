//! What every part of the manager has in common: errors, the metadata store, the event journal,
//! files that are whole or absent, names. Knows no image, no container and no protocol.
#![forbid(unsafe_code)]

pub mod error;
pub mod files;
pub mod filter;
pub mod journal;
pub mod name;
mod reserve;
pub mod store;

pub use error::{Error, ErrorKind, Result};
pub use journal::Journal;
pub use store::Store;
