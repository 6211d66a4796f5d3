//! Archives written byte by byte, and what is left of the places around the target.

#![allow(dead_code, unreachable_pub, reason = "each suite uses a part of it")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use hull_manager_archive::{
    Applied, Options, Refused, Whiteouts, apply,
    worker::{Files, Job, Outcome, spawn_program},
};

/// A header that may lie: every field is what the test says.
#[derive(Clone)]
pub struct Forged {
    pub name: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub size: u64,
    pub kind: u8,
    pub link: Vec<u8>,
    pub magic: &'static [u8],
    pub device: (u32, u32),
    pub content: Vec<u8>,
}

pub fn file(name: &str, content: &str) -> Forged {
    Forged {
        name: name.into(),
        mode: 0o644,
        uid: 0,
        size: content.len() as u64,
        kind: b'0',
        link: Vec::new(),
        magic: b"ustar\x0000",
        device: (0, 0),
        content: content.into(),
    }
}

pub fn entry(kind: u8, name: &str) -> Forged {
    Forged { kind, mode: 0o755, ..file(name, "") }
}

pub fn directory(name: &str) -> Forged {
    entry(b'5', name)
}

pub fn symlink(name: &str, target: &str) -> Forged {
    Forged { link: target.into(), ..entry(b'2', name) }
}

pub fn hard_link(name: &str, target: &str) -> Forged {
    Forged { link: target.into(), ..entry(b'1', name) }
}

/// An extended header of these records.
pub fn pax(records: &[(&str, &str)]) -> Forged {
    let content: String = records.iter().map(|(key, value)| record(key, value)).collect();
    Forged { kind: b'x', ..file("PaxHeaders/x", &content) }
}

fn record(key: &str, value: &str) -> String {
    let body = format!(" {key}={value}\n");
    let mut length = body.len() + 1;
    while format!("{length}{body}").len() != length {
        length += 1;
    }
    format!("{length}{body}")
}

/// A GNU header of a long name (`L`) or link (`K`).
pub fn long(kind: u8, name: &str) -> Forged {
    Forged { kind, magic: b"ustar  \0", ..file("././@LongLink", &format!("{name}\0")) }
}

impl Forged {
    pub fn bytes(&self) -> Vec<u8> {
        let mut block = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, format!("{:07o}\0", self.uid).as_bytes());
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", self.size).as_bytes());
        put(136, b"14000000000\0");
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, self.magic);
        if self.magic.starts_with(b"ustar") {
            put(329, format!("{:07o}\0", self.device.0).as_bytes());
            put(337, format!("{:07o}\0", self.device.1).as_bytes());
        }
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(&self.content);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }
}

pub fn archive(entries: &[Forged]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Forged::bytes).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A target directory, and a canary beside it.
pub struct Place {
    pub directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    /// In memory, where there is a place for it: for what is done thousands of times.
    pub fn in_memory() -> Self {
        Self::in_directory(
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
        )
    }

    fn in_directory(directory: tempfile::TempDir) -> Self {
        let canary = directory.path().join("canary");
        fs::create_dir_all(canary.join("below")).unwrap();
        fs::create_dir(directory.path().join("target")).unwrap();
        fs::write(canary.join("secret"), "secret").unwrap();
        fs::set_permissions(canary.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { directory }
    }

    pub fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    pub fn canary(&self) -> PathBuf {
        self.directory.path().join("canary")
    }

    pub fn root(&self) -> OwnedFd {
        File::open(self.target()).unwrap().into()
    }

    /// Applies in this process, whose code is the worker's.
    pub fn apply(&self, archive: &[u8], whiteouts: Whiteouts) -> anyhow::Result<Applied> {
        let options = Options { whiteouts, ..Options::default() };
        apply(self.root().as_fd(), archive, &options)
    }

    pub fn tree(&self) -> BTreeMap<String, String> {
        tree(&self.target())
    }
}

/// Everything that can be seen of a tree, but access times, inode numbers and the times of
/// directories.
pub fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut first = BTreeMap::new();
    look(root, root, &mut seen, &mut first);
    seen
}

fn look(
    root: &Path,
    at: &Path,
    seen: &mut BTreeMap<String, String>,
    first: &mut BTreeMap<u64, String>,
) {
    let metadata = fs::symlink_metadata(at).unwrap();
    let name = at.strip_prefix(root).unwrap().display().to_string();
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        let opaque = xattr(at, c"trusted.overlay.opaque").is_some();
        if opaque { "directory, opaque".into() } else { "directory".to_string() }
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(at).unwrap().display())
    } else if kind.is_file() {
        let content = fs::read(at).unwrap();
        let digest = hull_specs_image::Digest::of(&content);
        let capability = xattr(at, c"security.capability");
        let user = xattr(at, c"user.test");
        format!("file {} {digest} {capability:?} {user:?} {}", content.len(), metadata.mtime())
    } else if kind.is_fifo() {
        "fifo".into()
    } else {
        let device = metadata.rdev();
        let letter = if kind.is_char_device() { 'c' } else { 'b' };
        format!("device {letter} {}:{}", libc::major(device), libc::minor(device))
    };
    let mode = format!("{:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    let links = match (kind.is_dir(), metadata.nlink()) {
        (false, 2..) => {
            let first = first.entry(metadata.ino()).or_insert_with(|| name.clone());
            format!(", is {first}")
        }
        _ => String::new(),
    };
    seen.insert(name, format!("{what} {mode}{links}"));
    if kind.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(at).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            look(root, &entry, seen, first);
        }
    }
}

pub fn xattr(path: &Path, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    hull_runtime_sys::entry::attribute(&file, name).unwrap()
}

/// Runs the worker on an archive that it is given as a file.
pub fn work(
    job: &Job,
    root: &Path,
    input: Option<&Path>,
    output: Option<&Path>,
) -> anyhow::Result<Outcome> {
    let root = File::open(root)?;
    let input = input.map(File::open).transpose()?;
    let output = output.map(File::create).transpose()?;
    let files = Files {
        root: root.as_fd(),
        base: None,
        input: input.as_ref().map(|file| file.as_fd()),
        output: output.as_ref().map(|file| file.as_fd()),
    };
    spawn_program(program().as_c_str(), job, files)?.finish()
}

pub fn program() -> std::ffi::CString {
    std::ffi::CString::new(env!("CARGO_BIN_EXE_hull-archive")).unwrap()
}

pub fn is_refused<T>(result: &anyhow::Result<T>) -> bool {
    result.as_ref().err().is_some_and(|error| Refused::of(error).is_some())
}
