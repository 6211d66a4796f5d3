//! Bulk data between files and streams of messages.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use tokio::sync::mpsc;

/// The most bytes of one message.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// Where an archive is written: standard output, or a file that appears whole.
#[derive(Debug)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// A file beside the one that is wanted, and the wanted one.
    File(File, PathBuf, PathBuf),
}

impl Target {
    /// An archive is not for a person to read.
    pub(crate) fn refuse_terminal(path: Option<&Path>, option: &str) -> Result<()> {
        if path.is_none() && io::stdout().is_terminal() {
            bail!("cowardly refusing to save to a terminal. Use the {option} flag or redirect");
        }
        Ok(())
    }

    /// Opens it.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        // A device or a pipe is written as it is.
        if path.symlink_metadata().is_ok_and(|file| !file.is_file()) {
            let file = File::options().write(true).open(path);
            let file = file.with_context(|| format!("open {}", path.display()))?;
            return Ok(Self::File(file, path.to_owned(), path.to_owned()));
        }
        let mut name = path.file_name().context("the output has no file name")?.to_owned();
        name.push(format!(".hull-{}", std::process::id()));
        let beside = path.with_file_name(name);
        let file = File::create_new(&beside).with_context(|| format!("open {}", path.display()))?;
        Ok(Self::File(file, beside, path.to_owned()))
    }

    /// Writes a chunk.
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<()> {
        match self {
            Self::Stdout => Ok(io::stdout().lock().write_all(chunk)?),
            Self::File(file, _, path) => {
                file.write_all(chunk).with_context(|| format!("write {}", path.display()))
            }
        }
    }

    /// All is written.
    pub(crate) fn finish(mut self) -> Result<()> {
        match &mut self {
            Self::Stdout => Ok(io::stdout().lock().flush()?),
            Self::File(_, beside, path) => {
                if beside != path {
                    std::fs::rename(&*beside, &*path)
                        .with_context(|| format!("write {}", path.display()))?;
                }
                // Nothing is left to take away.
                beside.clone_from(path);
                Ok(())
            }
        }
    }
}

impl Drop for Target {
    /// What was not finished is taken away.
    fn drop(&mut self) {
        if let Self::File(_, beside, path) = self
            && beside != path
        {
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// Reads a source on a thread of its own, in chunks that become messages. An error ends the
/// stream, and is then in the receiver.
pub(crate) fn upload<M: Send + 'static>(
    mut source: impl Read + Send + 'static,
    first: Option<M>,
    message: impl Fn(Vec<u8>) -> M + Send + 'static,
) -> (mpsc::Receiver<M>, tokio::sync::oneshot::Receiver<io::Error>) {
    let (sender, receiver) = mpsc::channel(4);
    let (failure, failed) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        if let Some(first) = first
            && sender.blocking_send(first).is_err()
        {
            return;
        }
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            match source.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
                Ok(0) => return,
                Ok(_) => {
                    if sender.blocking_send(message(chunk)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // The one who waits for messages hears of it by their end.
                    let _ = failure.send(error);
                    return;
                }
            }
        }
    });
    (receiver, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        let mut target = Target::open(Some(&path)).unwrap();
        target.write(b"x").unwrap();
        assert!(!path.exists());
        drop(target);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut target = Target::open(Some(&path)).unwrap();
        target.write(b"abc").unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_source_comes_in_bounded_chunks() {
        let content = vec![7; CHUNK_BYTES + 5];
        let (mut chunks, _) = upload(io::Cursor::new(content), Some(Vec::new()), |chunk| chunk);
        let sizes: Vec<_> =
            std::iter::from_fn(|| chunks.blocking_recv()).map(|chunk| chunk.len()).collect();
        assert_eq!(sizes, [0, CHUNK_BYTES, 5]);
    }
}
