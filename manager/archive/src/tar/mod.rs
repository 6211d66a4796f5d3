//! The tar format: POSIX.1-2001 (ustar, pax), GNU's and star's extensions as they are found in
//! the wild. What two readers could understand in two ways is refused (RUSTSEC-2025-0111 and
//! others of its class).

mod header;
mod name;
mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use name::{clean, split};
pub use reader::Reader;
pub use sparse::Extent;
pub use writer::Writer;

pub use hull_runtime_sys::entry::Time;

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, from the root: components joined by single slashes, none of them `.` or `..`;
    /// empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with set-id and sticky bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content changed last.
    pub modified: Time,
    /// Extended attributes: names and values, in the archive's order.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Bytes, holes included.
        size: u64,
        /// What is not a hole, if it has any: the entry's data is that of these, one after
        /// another.
        data: Option<Vec<Extent>>,
    },
    /// Another name of the file at this path, which is cleaned as [`Entry::path`] is.
    HardLink(Vec<u8>),
    /// A symbolic link: its target, as it is.
    SymbolicLink(Vec<u8>),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}
