//! Files and directories of the manager's own: private, and whole or absent.
//!
//! Only for paths that are made of configuration and checked names. What comes from an image or
//! a container goes through directory descriptors instead (R1).

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use crate::error::{Error, IoContext as _, Result};

/// Makes a directory with its parents, and brings its mode to `mode`, whoever changed it (R10).
///
/// # Errors
/// If it can't be made, is not ours, or is no directory.
pub fn private_directory(path: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(parent).about(parent.display())?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).about(path.display());
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(path).about(path.display())?;
    if !metadata.is_dir() {
        return Err(Error::conflict(format!("{} is not a directory", path.display())));
    }
    if metadata.uid() != hull_runtime_sys::process::effective_uid() {
        return Err(Error::conflict(format!("{} belongs to another user", path.display())));
    }
    if metadata.mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).about(path.display())?;
    }
    Ok(())
}

/// The end of what is written and not yet in its place.
const UNFINISHED: &str = ".tmp";

/// Removes what a killed manager was writing in a directory by [`write_atomic`]. Only where
/// nobody else writes.
///
/// # Errors
/// If the directory can't be read, or such a file not removed.
pub fn remove_unfinished(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).about(directory.display())? {
        let entry = entry.about(directory.display())?;
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(UNFINISHED));
        let process = stem.and_then(|stem| stem.rsplit_once('.')).map(|(_, process)| process);
        if process.is_some_and(|process| process.parse::<u32>().is_ok()) {
            fs::remove_file(entry.path()).about(entry.path().display())?;
        }
    }
    Ok(())
}

/// Replaces a file: whoever reads it finds the old content or the new, whole.
///
/// # Errors
/// If it can't be written; then the old one is as it was.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}{UNFINISHED}", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary))).about(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_was_changed_is_repaired_and_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        private_directory(&path, 0o700).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        private_directory(&path, 0o700).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(private_directory(&link, 0o700).is_err());
    }

    #[test]
    fn what_was_being_written_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["index.json", "index.json.4711.tmp", "my.tmp", "of.user.tmp", ".tmp"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        remove_unfinished(directory.path()).unwrap();
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, [".tmp", "index.json", "my.tmp", "of.user.tmp"]);
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
