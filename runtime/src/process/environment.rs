//! The environment, and where the user's home is.
//!
//! `/etc/passwd` belongs to the container, so it may be anything: a link, a pipe, a device,
//! a file without end. It is opened within the root, must be a regular file, and only so
//! much of it is read. Whatever is wrong with it, the home is `/`; it never fails a start.

use std::{collections::BTreeSet, ffi::CString, os::fd::AsFd};

use anyhow::{Result, bail};
use hull_runtime_sys::{self as sys, path::Links};

/// How much of `/etc/passwd` is read.
const PASSWD_BYTES: usize = 1 << 20;

/// The longest line of `/etc/passwd` that is looked at.
const LINE_BYTES: usize = 64 << 10;

/// The configured environment, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) variables: Vec<CString>,
    /// `HOME` was not given or empty: it comes from the container's `/etc/passwd`.
    pub(crate) needs_home: bool,
    /// Which of the variables is `PATH`.
    path: Option<usize>,
}

impl Environment {
    /// Checks the variables; of several with one name the last counts, in its place.
    pub(super) fn plan(configured: &[String]) -> Result<Self> {
        let mut variables = Vec::with_capacity(configured.len() + 1);
        let mut seen = BTreeSet::new();
        let mut needs_home = true;
        let mut path = None;
        for variable in configured.iter().rev() {
            let Some((name, value)) = variable.split_once('=') else {
                bail!("invalid environment variable: missing '='");
            };
            if name.is_empty() {
                bail!("invalid environment variable: name cannot be empty");
            }
            if !seen.insert(name) {
                continue;
            }
            let Ok(text) = CString::new(variable.as_str()) else {
                bail!("invalid environment variable {name:?}: contains nul byte (\\x00)");
            };
            match name {
                "PATH" => path = Some(variables.len()),
                "HOME" if value.is_empty() => continue,
                "HOME" => needs_home = false,
                _ => {}
            }
            variables.push(text);
        }
        variables.reverse();
        let path = path.map(|place| variables.len() - 1 - place);
        Ok(Self { variables, needs_home, path })
    }

    /// The value of `PATH`; without one there is nowhere to search.
    pub(crate) fn path(&self) -> &[u8] {
        let variable = self.path.and_then(|place| self.variables.get(place));
        variable.and_then(|text| text.as_bytes().get("PATH=".len()..)).unwrap_or_default()
    }

    /// Adds `HOME` from the container's `/etc/passwd`, if it is needed.
    pub(crate) fn add_home(&mut self, uid: u32, root: impl AsFd) {
        if self.needs_home {
            let home = home_of(uid, root).unwrap_or_else(|| b"/".to_vec());
            let variable = [b"HOME=", home.as_slice()].concat();
            // A line read from a file may hold a NUL; such a home was refused with the
            // other control characters.
            let variable = CString::new(variable).unwrap_or_else(|_| c"HOME=/".to_owned());
            self.variables.push(variable);
            self.needs_home = false;
        }
    }
}

fn home_of(uid: u32, root: impl AsFd) -> Option<Vec<u8>> {
    // Opening a pipe must not wait for a writer, nor a terminal become ours.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = sys::path::open_in_root(root, "/etc/passwd", flags, 0, Links::Follow).ok()?;
    if sys::path::stat(&file).ok()?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    find_home(uid, |buffer| sys::fd::read(&file, buffer).ok())
}

/// Reads passwd lines until one has the uid. `None` where runc takes `/`: there is none,
/// or the file is not what it should be.
fn find_home(uid: u32, mut read: impl FnMut(&mut [u8]) -> Option<usize>) -> Option<Vec<u8>> {
    let mut pending = Vec::new();
    let mut buffer = [0; 4096];
    let mut left = PASSWD_BYTES;
    loop {
        let wanted = buffer.len().min(left);
        let n = read(&mut buffer[..wanted])?;
        if n == 0 {
            // The end of the file, unless it is only the end of what we read of it.
            return if left == 0 { None } else { home_in_line(uid, &pending).flatten() };
        }
        left -= n;
        pending.extend_from_slice(&buffer[..n]);
        let mut start = 0;
        while let Some(end) = pending[start..].iter().position(|byte| *byte == b'\n') {
            if let Some(home) = home_in_line(uid, &pending[start..start + end]) {
                return home;
            }
            start += end + 1;
        }
        pending.drain(..start);
        if pending.len() > LINE_BYTES {
            return None;
        }
    }
}

/// `None` when the line is not that user's; `Some(None)` when it is but the home is unfit.
fn home_in_line(uid: u32, line: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut fields = line.trim_ascii().split(|byte| *byte == b':');
    let number = std::str::from_utf8(fields.nth(2)?).ok()?;
    if number.parse() != Ok(uid) {
        return None;
    }
    let home = fields.nth(2).unwrap_or_default();
    Some((!home.iter().any(u8::is_ascii_control)).then(|| home.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        path::Path,
        process::Command,
        time::{Duration, Instant},
    };

    use super::*;

    fn planned(variables: &[&str]) -> Result<Environment> {
        let variables: Vec<String> = variables.iter().map(|v| (*v).to_owned()).collect();
        Environment::plan(&variables)
    }

    fn shown(environment: &Environment) -> Vec<&str> {
        environment.variables.iter().map(|v| v.to_str().unwrap()).collect()
    }

    #[test]
    fn the_last_of_a_name_counts_in_its_place() {
        for (variables, kept, path, needs_home) in [
            (&[][..], &[][..], "", true),
            (&["A=1", "B=2", "A=3"], &["B=2", "A=3"], "", true),
            (&["PATH=/a", "HOME=/x", "PATH=/b:/c"], &["HOME=/x", "PATH=/b:/c"], "/b:/c", false),
            (&["HOME=/x", "Z=", "HOME="], &["Z="], "", true),
            (&["HOME=", "PATH=", "HOME=/x"], &["PATH=", "HOME=/x"], "", false),
            (&["A=b=c", "PATHX=1"], &["A=b=c", "PATHX=1"], "", true),
            (&["PATH=/p", "A=1", "HOME="], &["PATH=/p", "A=1"], "/p", true),
        ] {
            let environment = planned(variables).unwrap();
            assert_eq!(shown(&environment), kept);
            assert_eq!(environment.path(), path.as_bytes());
            assert_eq!(environment.needs_home, needs_home);
        }
    }

    #[test]
    fn bad_variables_are_refused() {
        for (variable, why) in [
            ("A", "invalid environment variable: missing '='"),
            ("", "invalid environment variable: missing '='"),
            ("=1", "invalid environment variable: name cannot be empty"),
            ("A=\0", r#"invalid environment variable "A": contains nul byte (\x00)"#),
            ("A\0B=1", r#"invalid environment variable "A\0B": contains nul byte (\x00)"#),
        ] {
            assert_eq!(planned(&["X=1", variable]).unwrap_err().to_string(), why);
        }
    }

    fn home(passwd: &[u8], uid: u32) -> Option<String> {
        let mut rest = passwd;
        let home = find_home(uid, |buffer| std::io::Read::read(&mut rest, buffer).ok());
        home.map(|home| String::from_utf8(home).unwrap())
    }

    #[test]
    fn the_home_is_the_sixth_field_of_the_first_line_with_the_uid() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n\n# comment\nshort:x\nbad:x:abc:0::/bad:\n \
            app:x:1000:1000::/srv/app\r\napp2:x:1000:1::/other:/bin/sh\nnone:x:5:5::\nnohome:x:6\n\
            last:x:7:7::/last";
        for (uid, expected) in [
            (0, Some("/root")),
            (1000, Some("/srv/app")),
            (5, Some("")),
            (6, Some("")),
            (7, Some("/last")),
            (8, None),
        ] {
            assert_eq!(home(passwd, uid).as_deref(), expected, "{uid}");
        }
    }

    #[test]
    fn control_characters_in_a_home_are_refused() {
        for byte in (0..32).chain([127]) {
            let mut line = b"a:x:1:1::/h".to_vec();
            line.extend([byte]);
            line.extend(b"x:/bin/sh\n");
            let got = home(&line, 1);
            // A newline ends the line instead.
            assert_eq!(got.as_deref(), (byte == b'\n').then_some("/h"), "{byte}");
        }
    }

    #[test]
    fn only_so_much_is_read() {
        let mut long_line = vec![b'x'; LINE_BYTES + 5000];
        long_line.extend(b"\na:x:1:1::/h:\n");
        assert_eq!(home(&long_line, 1), None);

        let line = b"u:x:2:2::/u:/bin/sh\n";
        let mut large: Vec<u8> = line.iter().copied().cycle().take(PASSWD_BYTES + 999).collect();
        large.extend(b"\na:x:1:1::/h:\n");
        assert_eq!(home(&large, 1), None);
        assert_eq!(home(&large, 2).as_deref(), Some("/u"));

        let mut total = 0;
        find_home(1, |buffer| {
            buffer.fill(b'\n');
            total += buffer.len();
            Some(buffer.len())
        });
        assert_eq!(total, PASSWD_BYTES);
    }

    fn home_beneath(root: &Path) -> String {
        let started = Instant::now();
        let mut environment = planned(&["A=1"]).unwrap();
        environment.add_home(0, fs::File::open(root).unwrap());
        assert!(started.elapsed() < Duration::from_secs(1));
        shown(&environment)[1].to_owned()
    }

    #[test]
    fn hostile_passwd_files_make_the_home_the_root() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let passwd = etc.join("passwd");
        let check = |expected: &str| assert_eq!(home_beneath(root.path()), expected);
        check("HOME=/");

        fs::write(&passwd, "root:x:0:0::/root:/bin/sh\n").unwrap();
        check("HOME=/root");

        // 4 GiB of zeros, with what would be found after the limit.
        let file = fs::File::create(&passwd).unwrap();
        file.set_len(4 << 30).unwrap();
        check("HOME=/");

        fs::remove_file(&passwd).unwrap();
        assert!(Command::new("mkfifo").arg(&passwd).status().unwrap().success());
        check("HOME=/");

        fs::remove_file(&passwd).unwrap();
        fs::create_dir(&passwd).unwrap();
        check("HOME=/");
        fs::remove_dir(&passwd).unwrap();

        // A link to the host's file finds nothing, as its target is resolved in the root.
        symlink("/etc/passwd-of-host", &passwd).unwrap();
        check("HOME=/");
        fs::remove_file(&passwd).unwrap();
        symlink("../../../../real", &passwd).unwrap();
        fs::write(root.path().join("real"), "root:x:0:0::/inside:/bin/sh\n").unwrap();
        check("HOME=/inside");
        fs::remove_file(&passwd).unwrap();
        symlink("passwd", &passwd).unwrap();
        check("HOME=/");
        fs::remove_file(&passwd).unwrap();

        // Endless, where we may make one.
        let zero = Command::new("mknod").arg(&passwd).args(["c", "1", "5"]).output().unwrap();
        if zero.status.success() {
            check("HOME=/");
        }
    }

    #[test]
    fn links_of_procfs_do_not_lead_out() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("passwd"), "root:x:0:0::/inside:/bin/sh\n").unwrap();
        let outside = fs::File::open(root.path().join("passwd")).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&outside);
        // The root is the real one here, so that /proc exists beneath it.
        let link = root.path().join("link");
        symlink(format!("/proc/self/fd/{number}"), &link).unwrap();
        assert!(fs::read(&link).is_ok());
        let host = fs::File::open("/").unwrap();
        let error = sys::path::open_in_root(host, &link, libc::O_RDONLY, 0, Links::Follow);
        let error = error.unwrap_err();
        assert_eq!(error.errno(), libc::ELOOP);
    }
}
