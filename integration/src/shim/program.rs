//! Which shim is driven.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::engine::stock;

/// The shim under test.
#[derive(Debug)]
pub struct Program {
    /// Its executable.
    pub path: PathBuf,
    /// Whether it is containerd's own.
    pub reference: bool,
    /// Whether it is that of containerd 2.
    pub containerd_2: bool,
    /// Its name and version.
    pub banner: String,
}

/// The shim under test, found once.
pub fn shim() -> &'static Program {
    static PROGRAM: LazyLock<Program> = LazyLock::new(find);
    &PROGRAM
}

/// The directory that `HULL_CONTAINERD` names.
pub fn containerd_directory() -> Option<PathBuf> {
    let directory = env::var_os("HULL_CONTAINERD").filter(|name| !name.is_empty())?;
    Some(std::path::absolute(directory).expect("the working directory can be read"))
}

fn find() -> Program {
    let asked = env::var_os("HULL_SHIM").unwrap_or_default();
    let reference = asked == "runc";
    let path = match (reference, containerd_directory()) {
        (true, Some(directory)) => directory.join("containerd-shim-runc-v2"),
        (true, None) => PathBuf::from(stock("containerd-shim-runc-v2")),
        _ => std::path::absolute(Path::new(&asked)).unwrap_or_default(),
    };
    assert!(path.is_file(), "HULL_SHIM names no shim: {} is not a file", path.display());
    let output = Command::new(&path)
        .arg("-v")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", path.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .split_whitespace()
        .find(|word| word.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or("of no version");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let containerd_2 = reference && version.trim_start_matches('v').starts_with('2');
    Program { banner: format!("{name} {version}"), reference, containerd_2, path }
}
