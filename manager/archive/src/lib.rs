//! Archives of file systems: the one applier, the one writer, and the confined process they run in
//! (R11).
//!
//! [`apply()`], [`pack()`], [`diff`] and [`changes()`] work in the calling thread; the manager calls
//! them through [`worker`], which does the same in a process that can reach nothing else. Errors
//! whose chain has [`Refused`] are the archive's fault.
#![forbid(unsafe_code)]

mod apply;
mod budget;
mod changes;
pub mod compression;
mod error;
mod pack;
mod removal;
pub mod scaffold;
mod source;
pub mod tar;
pub mod worker;

pub use apply::{
    Applied, Ids, OPAQUE_ATTRIBUTE, OPAQUE_MARK, Options, Owners, Whiteouts, apply, apply_at,
    is_whiteout,
};
pub use budget::Budgets;
pub use changes::{Change, ChangeKind, Source, changes};
pub use error::Refused;
pub use pack::{Packed, diff, pack};
pub use removal::remove;
