//! Which file the process executes: the search along `PATH`, and whether it can work.
//!
//! For the container's own process, inside its root, as its user: the answers are the
//! kernel's. A file can change before it is executed; [`super::diagnose()`] then says why
//! the exec failed.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;

use super::diagnose;

/// The path to execute for `name`: itself if it has a slash, else the first executable file
/// of that name along `path`. The texts are those callers of runc know.
pub(crate) fn find_executable(name: &CStr, path: &[u8]) -> Result<CString> {
    let bytes = name.to_bytes();
    if bytes.contains(&b'/') {
        preflight(name)?;
        return Ok(name.to_owned());
    }
    for directory in path.split(|byte| *byte == b':') {
        if path.is_empty() {
            break;
        }
        let directory = if directory.is_empty() { b"." } else { directory };
        let mut candidate = Vec::with_capacity(directory.len() + bytes.len() + 2);
        candidate.extend_from_slice(directory);
        if !directory.ends_with(b"/") {
            candidate.push(b'/');
        }
        candidate.extend_from_slice(bytes);
        let candidate = CString::new(candidate).context("PATH holds a NUL")?;
        if check(&candidate).is_ok() {
            if !directory.starts_with(b"/") {
                bail!(
                    "exec: {}: cannot run executable found relative to current directory",
                    quoted(name)
                );
            }
            return Ok(candidate);
        }
    }
    bail!("exec: {}: executable file not found in $PATH", quoted(name))
}

/// Says early why `path` cannot be executed, as far as two system calls tell.
fn preflight(path: &CStr) -> Result<()> {
    check(path).map_err(|error| {
        let subject = format!("exec: {}", quoted(path));
        match error.call() {
            "stat" => anyhow!(error).context(subject),
            _ => match diagnose::reason(path, &error) {
                Some(reason) => anyhow!("{subject}: {}: {reason}", error.reason()),
                None => anyhow!("{subject}: {}", error.reason()),
            },
        }
    })
}

/// A file this user may execute, and no directory. A failing `stat` is told apart from a
/// refused execution, as Go's `exec.LookPath` does.
fn check(path: &CStr) -> sys::Result<()> {
    let permission = sys::process::may_execute(path);
    let stat = match &permission {
        Err(error) if error.errno() == libc::ENOENT => {
            return Err(sys::Error::new("stat", libc::ENOENT).on(path.to_string_lossy()));
        }
        _ => sys::process::stat(path)?,
    };
    if sys::path::is_directory(&stat) {
        return Err(sys::Error::new("exec", libc::EISDIR));
    }
    match permission {
        // A seccomp filter, already loaded, that does not know the call: the mode has to do.
        Err(error) if matches!(error.errno(), libc::ENOSYS | libc::EPERM) => {
            match stat.st_mode & 0o111 {
                0 => Err(sys::Error::new("exec", libc::EACCES)),
                _ => Ok(()),
            }
        }
        result => result,
    }
}

fn quoted(name: &CStr) -> String {
    format!("{:?}", Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::PathBuf,
    };

    use super::*;

    fn c(text: impl AsRef<Path>) -> CString {
        CString::new(text.as_ref().as_os_str().as_bytes()).unwrap()
    }

    fn file(path: PathBuf, mode: u32) {
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn tree() -> (tempfile::TempDir, String) {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        for directory in ["one", "two", "two/tool", "three"] {
            fs::create_dir(at(directory)).unwrap();
        }
        file(at("one/tool"), 0o644);
        file(at("three/tool"), 0o755);
        symlink("nothing", at("one/dangling")).unwrap();
        let shown = top.path().to_str().unwrap().to_owned();
        (top, shown)
    }

    #[test]
    fn the_first_executable_file_along_the_path_is_found() {
        let (_top, at) = tree();
        let path = format!("{at}/none:{at}/one:{at}/two:{at}/three/:/bin");
        let found = find_executable(c"tool", path.as_bytes()).unwrap();
        assert_eq!(found, c(format!("{at}/three/tool")));
        assert_eq!(find_executable(c"sh", path.as_bytes()).unwrap(), c("/bin/sh"));
    }

    #[test]
    fn the_texts_are_those_that_callers_match() {
        let (_top, at) = tree();
        let check = |name: &str, path: &str, text: String| {
            let error = find_executable(&c(name), path.as_bytes()).unwrap_err();
            assert_eq!(format!("{error:#}"), text);
        };
        let missing = |name: &str| format!("exec: {name:?}: executable file not found in $PATH");
        check("tool", &format!("{at}/one:{at}/two"), missing("tool"));
        check("dangling", &format!("{at}/one"), missing("dangling"));
        for (name, path) in [("sh", ""), ("", "/bin"), (".", "/bin"), ("..", "/bin")] {
            check(name, path, missing(name));
        }
        let gone = format!("{at}/gone");
        check(&gone, "", format!("exec: {gone:?}: stat {gone}: no such file or directory"));
        check(
            "./gone",
            "/bin",
            r#"exec: "./gone": stat ./gone: no such file or directory"#.to_owned(),
        );
        let below = format!("{at}/one/tool/x");
        check(&below, "", format!("exec: {below:?}: stat {below}: not a directory"));
        let directory = format!("{at}/two");
        check(&directory, "", format!("exec: {directory:?}: is a directory"));
        let plain = format!("{at}/one/tool");
        check(
            &plain,
            "",
            format!("exec: {plain:?}: permission denied: the file is not executable (mode 0644)"),
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_text() {
        let error = find_executable(c"a\x1b[31m\n", b"/bin").unwrap_err().to_string();
        assert!(!error.chars().any(char::is_control), "{error}");
    }
}
