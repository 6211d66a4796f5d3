//! Garbage: what no reference leads to and nobody holds.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use hull_manager_core::{Result, error::IoContext as _};
use hull_specs_image::Digest;

use crate::{Content, lease::lock};

/// How long what was fetched of an unfinished blob is kept.
const UNFINISHED: Duration = Duration::from_secs(24 * 3600);

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: u64,
    /// Of blobs and unfinished ones.
    pub bytes: u64,
}

impl Content {
    /// Removes blobs that are `eligible` by digest and age, not among `keep`, and not leased; and
    /// unfinished ones of yesterday. `keep` is asked after the collection has begun to note who
    /// leases what: a reference that is made later is of leased blobs.
    ///
    /// # Errors
    /// If the disk refuses, or `keep` does.
    pub fn collect(
        &self,
        keep: impl FnOnce() -> Result<HashSet<Digest>>,
        eligible: impl Fn(&Digest, Duration) -> bool,
    ) -> Result<Collected> {
        let _one = lock(&self.shared.collection);
        lock(&self.shared.leases).begin();
        let collected = keep().and_then(|keep| self.sweep(&keep, eligible));
        lock(&self.shared.leases).end();
        collected
    }

    fn sweep(
        &self,
        keep: &HashSet<Digest>,
        eligible: impl Fn(&Digest, Duration) -> bool,
    ) -> Result<Collected> {
        let now = SystemTime::now();
        let mut collected = Collected::default();
        for (digest, size, age) in blobs(&self.shared.blobs, now)? {
            if keep.contains(&digest) || !eligible(&digest, age) {
                continue;
            }
            // Under the lock: who leases it afterwards sees that it is gone.
            let leases = lock(&self.shared.leases);
            if !leases.spare(&digest) {
                fs::remove_file(self.path(&digest)).about(format!("remove blob {digest}"))?;
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
        collected.bytes += self.forget_unfinished(UNFINISHED)?;
        Ok(collected)
    }

    /// Removes unfinished blobs of at least this age that nobody is at work on; their bytes.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn forget_unfinished(&self, least: Duration) -> Result<u64> {
        let mut bytes = 0;
        for (digest, size, age) in blobs(&self.shared.ingests, SystemTime::now())? {
            if age >= least && !self.is_claimed(&digest) {
                fs::remove_file(self.shared.ingests.join(digest.hex()))
                    .about(format!("remove what there is of blob {digest}"))?;
                bytes += size;
            }
        }
        Ok(bytes)
    }

    /// All blobs with their sizes.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let found = blobs(&self.shared.blobs, SystemTime::now())?;
        Ok(found.into_iter().map(|(digest, size, _)| (digest, size)).collect())
    }
}

/// The files that are called as a digest is: digest, bytes, age. What is called otherwise is
/// `check`'s business.
pub(crate) fn blobs(directory: &Path, now: SystemTime) -> Result<Vec<(Digest, u64, Duration)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).about(directory.display())? {
        let entry = entry.about(directory.display())?;
        let name = entry.file_name();
        let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse() else { continue };
        // Gone since: renamed to its place, or collected.
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|at| now.duration_since(at).ok());
        found.push((digest, metadata.len(), age.unwrap_or_default()));
    }
    Ok(found)
}
