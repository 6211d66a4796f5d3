//! How much an archive may ask for (R14).

use serde::{Deserialize, Serialize};

/// Limits of one archive. The defaults are far above what people ship, and far below what hurts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// Entries.
    pub entries: u64,
    /// Bytes of content, holes included.
    pub content_bytes: u64,
    /// Components of a name.
    pub depth: usize,
    /// Bytes of a name; the kernel takes 4095.
    pub name_bytes: usize,
    /// Bytes of one extended header.
    pub header_bytes: u64,
    /// How many times larger than the compressed archive the plain one may be. gzip cannot do
    /// more than 1032.
    pub expansion: u64,
    /// Bytes of the plain archive from which `expansion` counts: runs of zeros in zstd can be
    /// much smaller.
    pub free_bytes: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            content_bytes: 1 << 40,
            depth: MAX_DEPTH,
            name_bytes: 4095,
            header_bytes: 1 << 20,
            expansion: 2000,
            free_bytes: 1 << 30,
        }
    }
}

/// Components of a name: what is read and what is written. Each may cost a descriptor.
pub(crate) const MAX_DEPTH: usize = 1024;
