//! The manager's directories: made, their modes repaired, and held by one manager at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use hull_manager_core::files;

use crate::config::Config;

/// How long a lock is waited for, and the time between two attempts.
const LINGER: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// The locks, and the pid file, which goes with them.
pub(crate) struct Roots {
    _locks: [File; 2],
    pidfile: PathBuf,
}

/// Makes the directories and takes them.
///
/// # Errors
/// If one can't be made, or another manager has it.
pub(crate) fn claim(config: &Config) -> Result<Roots> {
    // Containers of other users enter their own directories below, so others may pass, but list
    // nothing; what is below is private by its own mode.
    for root in [&config.data_root, &config.exec_root] {
        files::private_directory(root, 0o711).map_err(anyhow::Error::new)?;
    }
    for private in ["content", "snapshots", "containers"] {
        files::private_directory(&config.data_root.join(private), 0o710)
            .map_err(anyhow::Error::new)?;
    }
    files::private_directory(&config.data_root.join("volumes"), 0o711)
        .map_err(anyhow::Error::new)?;
    files::private_directory(&config.exec_root.join("containers"), 0o711)
        .map_err(anyhow::Error::new)?;
    let locks = [lock(&config.data_root)?, lock(&config.exec_root)?];
    let parent = config.pidfile.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    files::write_atomic(&config.pidfile, format!("{}\n", std::process::id()).as_bytes(), 0o644)
        .map_err(anyhow::Error::new)?;
    Ok(Roots { _locks: locks, pidfile: config.pidfile.clone() })
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("hulld.lock");
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
    };
    let mut file = open().with_context(|| format!("open {}", path.display()))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            // A child of a manager that was just killed has the lock from its fork to its exec.
            Err(TryLockError::WouldBlock) if begun.elapsed() < LINGER => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                bail!("{} is in use by another hulld (process {})", root.display(), pid.trim());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
    }
    // Over what is there: on a full disk there is no room for anything else.
    let pid = format!("{}\n", std::process::id());
    file.write_all(pid.as_bytes())
        .and_then(|()| file.set_len(pid.len() as u64))
        .context("write the lock")?;
    Ok(file)
}

impl Drop for Roots {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.pidfile));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_manager() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        let refusal = format!("{:#}", lock(directory.path()).unwrap_err());
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(held);
        lock(directory.path()).unwrap();
    }
}
