//! Opening what the caller named.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    rc::Rc,
};

use anyhow::{Context, Result, bail};

use super::carry::Target;
use crate::reactor::Source;

/// The caller's FIFO for stdin.
pub(super) struct Input {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Input {
    /// # Errors
    /// The path is no FIFO, or cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let context = || format!("failed to open stdin fifo {}", path.display());
        if !is_fifo(path).with_context(context)? {
            bail!("failed to open stdin fifo {}: not a fifo", path.display());
        }
        let mut options = OpenOptions::new();
        options.custom_flags(libc::O_NONBLOCK);
        let reader = options.clone().read(true).open(path).with_context(context)?;
        let writer = options.write(true).open(path).with_context(context)?;
        Ok(Self { reader: reader.into(), writer: writer.into() })
    }

    /// The end to read from, and what keeps it from ending.
    pub(super) fn split(self) -> (Source, OwnedFd) {
        (Source::new(self.reader), self.writer)
    }
}

fn is_fifo(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.file_type().is_fifo())
}

/// A FIFO, both ends of which we hold, so that it never ends nor breaks while its reader is
/// away; or a file that is there.
///
/// # Errors
/// It cannot be opened.
pub(super) fn output(path: &Path) -> Result<Target> {
    let context = || format!("cannot open {} for output", path.display());
    if !is_fifo(path).with_context(context)? {
        return append(path, false).map(|file| Target::File(Rc::new(file)));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let fifo = options.open(path).with_context(context)?;
    Ok(Target::Pipe(Source::new(fifo.into())))
}

/// A file to append to. With `make`, it and its directories are made if missing.
///
/// # Errors
/// It cannot be opened.
pub(super) fn append(path: &Path, make: bool) -> Result<File> {
    if make && let Some(parent) = path.parent() {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    OpenOptions::new()
        .append(true)
        .create(make)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("cannot open {} for output", path.display()))
}
