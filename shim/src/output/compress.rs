//! Compressing a rotated file: what a child process does, so that the shim does not wait.
//!
//! Meanwhile the shim goes on rotating, and the file may get another number. So its present
//! name is looked for at the end, by its inode, while a lock on the directory keeps the shim
//! from renaming (it does not wait for the lock: it rotates later).
//!
//! A kill leaves the file as it was, or both forms of it, of which the plain one is read, and
//! the other removed by the next rotation or replaced by the next compression.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufWriter},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, write::GzEncoder};

use super::rotation;

/// Replaces the rotated file `FILE.N` by `FILE.N.gz`; `N` may become another one meanwhile.
///
/// # Errors
/// If `path` is not so named, another process compresses a file of this log, or a file can't
/// be read or written. The file is then as it was.
pub(crate) fn compress_file(path: &Path) -> Result<()> {
    let log = log_of(path).with_context(|| format!("{} is not a rotated log", path.display()))?;
    let source = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let metadata = source.metadata().with_context(|| format!("stat {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is not a regular file", path.display());
    let temporary = rotation::with_suffix(&log, ".gz.tmp");
    let target = take_temporary(&temporary)?;
    let result = fill(source, &target)
        .with_context(|| format!("compress {}", path.display()))
        .and_then(|()| publish(&log, metadata.ino(), &temporary));
    if result.is_err() {
        rotation::remove(&temporary)?;
    }
    result
}

/// `FILE` of `FILE.N`.
fn log_of(path: &Path) -> Option<PathBuf> {
    is_number(path.extension()?).then(|| path.with_extension(""))
}

fn is_number(text: &OsStr) -> bool {
    !text.is_empty() && text.as_bytes().iter().all(u8::is_ascii_digit)
}

/// Opens the temporary file, empty and locked. One that a killed process has left is taken over.
fn take_temporary(path: &Path) -> Result<File> {
    // Each time it was renamed after we had opened it, by a process that had the lock.
    for _ in 0..8 {
        let file = rotation::open(path, false)?;
        if file.try_lock().is_err() {
            bail!("another process compresses a file of this log");
        }
        let ours = file.metadata().context("stat the temporary file")?.ino();
        if fs::symlink_metadata(path).is_ok_and(|named| named.ino() == ours) {
            file.set_len(0).with_context(|| format!("truncate {}", path.display()))?;
            return Ok(file);
        }
    }
    bail!("{} does not stay", path.display())
}

fn fill(mut source: File, target: &File) -> Result<()> {
    let mut encoder = GzEncoder::new(BufWriter::new(target), Compression::default());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    // The plain file is removed after this, which a power cut could otherwise outrun.
    target.sync_all().context("sync")
}

/// Gives the temporary file the name of the file with this inode, and removes that. If the
/// limit of files has removed it already, there is nothing to replace.
fn publish(log: &Path, inode: u64, temporary: &Path) -> Result<()> {
    let directory = rotation::open_directory(log)?;
    directory.lock().context("lock the log's directory")?;
    let Some(plain) = name_of(log, inode)? else { return rotation::remove(temporary) };
    let compressed = rotation::with_suffix(&plain, ".gz");
    fs::rename(temporary, &compressed)
        .with_context(|| format!("rename to {}", compressed.display()))?;
    directory.sync_all().context("sync the log's directory")?;
    rotation::remove(&plain)
}

/// The rotated file with this inode.
fn name_of(log: &Path, inode: u64) -> Result<Option<PathBuf>> {
    let directory = log.parent().context("a log needs a directory")?;
    let entries =
        fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", directory.display()))?.path();
        if log_of(&path).as_deref() == Some(log)
            && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.ino() == inode)
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
