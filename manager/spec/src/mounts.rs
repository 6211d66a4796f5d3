//! Mounts: what may be asked for, and what the runtime is told.

mod check;
mod plan;
mod propagation;
mod tmpfs;

pub(crate) use check::check;
pub use check::{is_anonymous, kind};
pub use plan::Resolved;
pub(crate) use plan::{INIT, lower};
pub use propagation::needs_mountinfo;
