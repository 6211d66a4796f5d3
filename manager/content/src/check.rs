//! Whether the disk has what the store says.

use std::{fs, io::Read as _, path::Path};

use hull_manager_core::{Result, error::IoContext as _};
use hull_specs_api::v1;
use hull_specs_image::{Digest, Hasher};

use crate::{Content, lease::lock};

impl Content {
    /// Reads every blob and compares it with its digest. A damaged one is removed if `repair`:
    /// it is of no use, and a pull brings it again. Files that are no blobs are removed as well.
    /// `tell` is called with the bytes of each blob that was read.
    ///
    /// # Errors
    /// If the disk can't be read at all.
    pub fn check(&self, repair: bool, mut tell: impl FnMut(u64)) -> Result<Vec<v1::Finding>> {
        let mut findings = Vec::new();
        for (directory, what) in [(&self.shared.blobs, "blobs"), (&self.shared.ingests, "ingest")] {
            for name in strays(directory)? {
                findings.push(finding(
                    format!("file content/{what}/{name}"),
                    "it is not the content store's".into(),
                    repair && fs::remove_file(directory.join(&name)).is_ok(),
                ));
            }
        }
        for (digest, size) in self.list()? {
            let problem = match self.hash(&digest) {
                Ok(found) if found == digest => None,
                Ok(found) => Some(format!("its digest is {found}")),
                // Collected since.
                Err(_) if !self.has(&digest) => None,
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = problem {
                let removed = repair && fs::remove_file(self.path(&digest)).is_ok();
                findings.push(finding(format!("blob {digest}"), problem, removed));
            }
            tell(size);
        }
        Ok(findings)
    }

    fn hash(&self, digest: &Digest) -> Result<Digest> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = Hasher::default();
        let mut piece = vec![0; 256 << 10];
        loop {
            match file.read(&mut piece).about(format!("read blob {digest}"))? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(piece.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Bytes of all blobs.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn usage(&self) -> Result<u64> {
        Ok(self.list()?.iter().map(|(_, size)| size).sum())
    }

    /// Whether somebody writes or waits for any blob.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !lock(&self.shared.writers).is_empty()
    }
}

fn finding(subject: String, problem: String, removed: bool) -> v1::Finding {
    let repaired = if removed { "removed".into() } else { String::new() };
    v1::Finding { subject, problem, repaired }
}

/// Names in a directory of blobs that are neither a digest nor ours to write.
fn strays(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).about(directory.display())? {
        let entry = entry.about(directory.display())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let digest = format!("sha256:{name}").parse::<Digest>().is_ok();
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !(regular && (digest || name.starts_with("new-"))) {
            found.push(name);
        }
    }
    Ok(found)
}
