//! Device nodes of the host, and the vendors' documents about devices (CDI).

use std::{
    ffi::OsStr,
    fs,
    io::Read as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_manager_spec::{HostDevice, cdi};

/// So deep are directories looked into; /dev has less.
const MAX_DEPTH: u32 = 8;

/// The device at a path, or those below a directory.
pub(crate) fn at(path: &str) -> Result<Vec<HostDevice>> {
    let data = fs::metadata(path).map_err(|_| {
        Error::invalid(format!(
            "error gathering device information while adding custom device \"{path}\": no such file or directory"
        ))
    })?;
    let mut found = Vec::new();
    if data.is_dir() {
        walk(Path::new(path), Path::new(path), path == "/dev", 0, &mut found)?;
    } else {
        let device = of(&data, String::new());
        found.push(device.ok_or_else(|| {
            Error::invalid(format!(
                "error gathering device information while adding custom device \"{path}\": not a device node"
            ))
        })?);
    }
    Ok(found)
}

fn of(data: &fs::Metadata, below: String) -> Option<HostDevice> {
    let kind = match data.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return None,
    };
    let number = data.rdev();
    Some(HostDevice {
        below,
        kind,
        major: libc::major(number),
        minor: libc::minor(number),
        mode: data.mode() & 0o7777,
        uid: data.uid(),
        gid: data.gid(),
    })
}

/// `whole`: names in full, without what each container has of its own.
fn walk(
    top: &Path,
    directory: &Path,
    whole: bool,
    depth: u32,
    found: &mut Vec<HostDevice>,
) -> Result<()> {
    for entry in fs::read_dir(directory).about(directory.display())? {
        let entry = entry.about(directory.display())?;
        let path = entry.path();
        // Gone since it was listed.
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        if data.is_dir() {
            let name = entry.file_name();
            let own = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"]
                .iter()
                .any(|own| name == *own);
            if depth < MAX_DEPTH && !(whole && own) {
                walk(top, &path, whole, depth + 1, found)?;
            }
        } else {
            let below = if whole { &path } else { path.strip_prefix(top).unwrap_or(&path) };
            if whole && path == Path::new("/dev/console") {
                continue;
            }
            found.extend(of(&data, below.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

/// The host's documents, if a device of one is wanted. Later directories come later.
pub(crate) fn cdi_documents(
    directories: &[PathBuf],
    wanted: &[String],
) -> Result<Vec<cdi::Document>> {
    let mut documents = Vec::new();
    if wanted.is_empty() {
        return Ok(documents);
    }
    for directory in directories {
        let mut names = crate::bundle::names(directory)?;
        names.sort();
        for name in names {
            let path = directory.join(&name);
            // Other names are not documents (CDI, "location").
            let parse = match path.extension().and_then(OsStr::to_str) {
                Some("json") => cdi::Document::parse_json,
                Some("yaml") => cdi::Document::parse_yaml,
                _ => continue,
            };
            let mut text = Vec::new();
            fs::File::open(&path)
                .and_then(|file| file.take(cdi::MAX_DOCUMENT_BYTES).read_to_end(&mut text))
                .about(path.display())?;
            let document = parse(&text).map_err(|cause| {
                Error::invalid(format!("CDI specification {}", path.display())).because(cause)
            })?;
            documents.push(document);
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cdi_specification_is_read_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (places, wanted) = ([directory.path().to_owned()], ["a.b/c=d".to_owned()]);
        fs::write(directory.path().join("notes.txt"), "x").unwrap();
        assert!(cdi_documents(&places, &wanted).unwrap().is_empty());
        let yaml = directory.path().join("gpu.yaml");
        fs::write(&yaml, "cdiVersion: 0.6.0\nkind: a.b/c\ndevices: []\n").unwrap();
        assert_eq!(cdi_documents(&places, &wanted).unwrap().len(), 1);
        fs::write(&yaml, "kind: *x").unwrap();
        assert!(cdi_documents(&places, &[]).unwrap().is_empty(), "none is wanted");
        let refused = format!("{:#}", cdi_documents(&places, &wanted).unwrap_err());
        assert!(refused.contains("gpu.yaml"), "{refused}");
    }

    #[test]
    fn a_device_has_its_numbers_and_a_directory_those_below() {
        let null = at("/dev/null").unwrap();
        assert_eq!((null[0].kind, null[0].major, null[0].minor), ('c', 1, 3));
        assert_eq!(null[0].below, "");
        let all = at("/dev").unwrap();
        assert!(all.iter().any(|device| device.below == "/dev/null"));
        assert!(!all.iter().any(|device| device.below.starts_with("/dev/pts/")));
        assert!(at("/etc/passwd").unwrap_err().to_string().contains("not a device node"));
        assert!(at("/nonexistent").is_err());
    }
}
