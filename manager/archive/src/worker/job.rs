//! What a worker is told, and what it tells.

use std::io;

use anyhow::{Result, anyhow};
use hull_runtime_sys as sys;
use hull_specs_image::{Digest, media_type::Compression};
use serde::{Deserialize, Serialize};

use super::confine::Access;
use crate::{apply::Options, budget::Budgets, error::Refused};

/// More than the longest report.
pub(super) const MAX_REPORT_BYTES: u64 = 1 << 20;

/// What a worker does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Decompresses an archive and applies it to the root.
    Unpack {
        /// How.
        options: Options,
    },
    /// As `Unpack`, at a directory beneath the root.
    CopyIn {
        /// The directory, resolved as if the root were `/`.
        at: Vec<u8>,
        /// How.
        options: Options,
    },
    /// Packs what is at a path beneath the root: [`crate::pack()`].
    Pack {
        /// The path, resolved as if the root were `/`.
        at: Vec<u8>,
        /// Its name in the archive; empty for what is in a directory.
        name: Vec<u8>,
        /// Follow `at` if it is a link.
        follow: bool,
        /// How the archive is written.
        packing: Packing,
    },
    /// Packs what changed: [`crate::diff()`].
    Diff {
        /// What the root is.
        changed: Changed,
        /// How the archive is written.
        packing: Packing,
    },
    /// Decompresses an archive and applies it nowhere. The root is [`super::nowhere`].
    Decompress {
        /// How much the archive may ask for.
        budgets: Budgets,
    },
}

impl Job {
    pub(super) fn reads(&self) -> bool {
        matches!(self, Self::Unpack { .. } | Self::CopyIn { .. } | Self::Decompress { .. })
    }

    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Pack { .. } | Self::Diff { .. } | Self::Decompress { .. })
    }

    /// In whose name it makes files: a file system that is mounted with other ids has none for
    /// the host's root.
    pub(super) fn files_of(&self) -> Option<u32> {
        match self {
            Self::CopyIn { options, .. } => options.ids.map(|ids| ids.first),
            _ => None,
        }
    }

    /// What it does with files beneath the root.
    pub(super) fn access(&self) -> Access {
        match self {
            Self::Unpack { .. } | Self::CopyIn { .. } => Access::All,
            Self::Pack { .. } | Self::Diff { .. } => Access::Read,
            Self::Decompress { .. } => Access::Nothing,
        }
    }
}

/// What a worker reads first.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) job: Job,
    /// It is given a tree to compare with.
    pub(super) has_base: bool,
    /// Where the mounts go that it is given after that.
    pub(super) mounts: Vec<String>,
}

/// How an archive is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packing {
    /// As tar.
    #[default]
    Plain,
    /// As tar in gzip.
    Gzip,
    /// As tar in zstd.
    Zstd,
}

impl From<Packing> for Compression {
    fn from(packing: Packing) -> Self {
        match packing {
            Packing::Plain => Self::None,
            Packing::Gzip => Self::Gzip,
            Packing::Zstd => Self::Zstd,
        }
    }
}

/// Where changes are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// The root is the upper directory of an overlay.
    Upper,
    /// The root is a tree that was copied from the base, if there is one.
    Tree,
}

/// What a worker has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The digest of the archive, not compressed: of a layer, its diff id.
    pub diff_id: Digest,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of regular files, hard links once: what is called the size of a layer.
    pub file_bytes: u64,
    /// Bytes of the archive, not compressed.
    pub plain_bytes: u64,
    /// Bytes of the archive as it came or went.
    pub archive_bytes: u64,
    /// Extended attributes that were not applied.
    pub dropped_attributes: u64,
}

/// The one line on the pipe.
#[derive(Serialize, Deserialize)]
pub(super) enum Report {
    Done(Outcome),
    Refused(String),
    Failed { what: String, errno: Option<i32> },
}

impl Report {
    pub(super) fn of(result: &Result<Outcome>) -> Self {
        let error = match result {
            Ok(outcome) => return Self::Done(*outcome),
            Err(error) => error,
        };
        let mut sentence: Vec<String> = error.chain().map(ToString::to_string).collect();
        // An error inside of an `io::Error` is told by both.
        sentence.dedup();
        if Refused::of(error).is_some() {
            return Self::Refused(sentence.join(": "));
        }
        let errno = error.chain().find_map(|cause| {
            let system = cause.downcast_ref::<sys::Error>().map(sys::Error::errno);
            system.or_else(|| cause.downcast_ref::<io::Error>()?.raw_os_error())
        });
        Self::Failed { what: sentence.join(": "), errno }
    }

    pub(super) fn into_result(self) -> Result<Outcome> {
        match self {
            Self::Done(outcome) => Ok(outcome),
            Self::Refused(text) => Err(Refused(text).into()),
            // Callers tell full disks, and that they read no more, from other failures by the
            // `io::Error`.
            Self::Failed {
                what,
                errno: Some(errno @ (libc::ENOSPC | libc::EDQUOT | libc::EPIPE)),
            } => Err(anyhow::Error::new(io::Error::from_raw_os_error(errno)).context(what)),
            Self::Failed { what, .. } => Err(anyhow!(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn told(error: anyhow::Error) -> anyhow::Error {
        let line = serde_json::to_vec(&Report::of(&Err(error))).unwrap();
        serde_json::from_slice::<Report>(&line).unwrap().into_result().unwrap_err()
    }

    #[test]
    fn a_refusal_and_a_full_disk_arrive_as_what_they_are() {
        let error = told(anyhow::Error::new(Refused("a bomb".into())).context("\"x\""));
        assert_eq!(Refused::of(&error).map(|r| r.0.as_str()), Some("\"x\": a bomb"));
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, Refused("zstd: bad".into()));
        let error = told(anyhow::Error::new(wrapped).context("read the archive"));
        assert_eq!(error.to_string(), "read the archive: zstd: bad");
        assert!(Refused::of(&error).is_some());
        let full = Err::<(), _>(sys::Error::new("write", libc::ENOSPC)).context("\"x\"");
        let error = told(full.unwrap_err());
        assert!(error.chain().any(|cause| cause.is::<io::Error>()), "{error:#}");
        assert_eq!(told(anyhow!("y").context("x")).to_string(), "x: y");
    }
}
