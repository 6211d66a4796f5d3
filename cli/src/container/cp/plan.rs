//! What `cp` means: which end is where, and under which name things arrive. Docker's rules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use hull_specs_api::v1::PathStat;

/// One end.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// Standard input or output: a tar.
    Stream,
    Here(PathBuf),
    /// A container, and an absolute path in it.
    There(String, String),
}

/// Reads `CONTAINER:PATH`, `PATH` or `-`. A path that begins with `/` or `.` is ours, whatever
/// colons are in it.
pub(super) fn end(text: &str) -> End {
    if text == "-" {
        return End::Stream;
    }
    match text.split_once(':') {
        Some((container, path)) if !container.is_empty() && !text.starts_with(['/', '.']) => {
            End::There(container.to_owned(), format!("/{}", path.trim_start_matches('/')))
        }
        _ => End::Here(text.into()),
    }
}

/// What a path ends with says what is meant: `/.` is the content of a directory.
pub(super) fn is_content(path: &str) -> bool {
    path.ends_with("/.") || path == "."
}

/// How what comes is put where it was asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Unpacking {
    /// Beneath a directory that is there, under its own name.
    Beneath(PathBuf),
    /// As this path: unpacked beside it, and renamed.
    As(PathBuf, String),
    /// The content of the directory with this name, beneath a directory that is there.
    Content(PathBuf, String),
}

/// Docker's rules for a local target.
pub(super) fn unpacking(stat: &PathStat, content: bool, target: &Path) -> Result<Unpacking> {
    let name = stat.name.clone();
    let is_directory = stat.mode & libc::S_IFMT == libc::S_IFDIR;
    let wants_directory = target.as_os_str().to_string_lossy().ends_with(['/', '.']);
    match fs::metadata(target) {
        Ok(there) if there.is_dir() && content && is_directory => {
            Ok(Unpacking::Content(target.to_owned(), name))
        }
        Ok(there) if there.is_dir() => Ok(Unpacking::Beneath(target.to_owned())),
        Ok(_) if is_directory => bail!("cannot copy directory"),
        Ok(_) => Ok(Unpacking::As(target.to_owned(), name)),
        Err(_) if wants_directory && !is_directory => bail!("no such directory"),
        Err(_) => Ok(Unpacking::As(target.to_owned(), name)),
    }
}

pub(super) fn is_dir(stat: &PathStat) -> bool {
    stat.mode & libc::S_IFMT == libc::S_IFDIR
}

/// Where in the container it is unpacked, and under which name: docker's rules.
pub(super) fn packing(
    is_directory: bool,
    content: bool,
    own_name: &str,
    path: &str,
    there: Option<&PathStat>,
) -> Result<(String, String)> {
    let split = || {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (if parent.is_empty() { "/".to_owned() } else { parent.to_owned() }, name.to_owned())
    };
    match there {
        Some(there) if is_dir(there) && is_directory && content => {
            Ok((path.to_owned(), String::new()))
        }
        Some(there) if is_dir(there) => Ok((path.to_owned(), own_name.to_owned())),
        Some(_) if is_directory => bail!("cannot copy directory"),
        Some(_) => Ok(split()),
        None if path.ends_with('/') && !is_directory => bail!("no such directory"),
        None => Ok(split()),
    }
}

/// A name that came from the manager, as one component.
pub(super) fn component(name: &str) -> Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        bail!("the manager sent a name that is not one: {name:?}");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let there = |container: &str, path: &str| End::There(container.into(), path.into());
        for (text, expected) in [
            ("-", End::Stream),
            ("a", End::Here("a".into())),
            ("a:/b", there("a", "/b")),
            ("a:b", there("a", "/b")),
            ("a:", there("a", "/")),
            ("./a:b", End::Here("./a:b".into())),
            ("/a:b", End::Here("/a:b".into())),
        ] {
            assert_eq!(end(text), expected, "{text}");
        }
    }

    fn file(name: &str, mode: u32) -> PathStat {
        PathStat { name: name.into(), mode, ..PathStat::default() }
    }

    #[test]
    fn into_a_container_by_dockers_rules() {
        let (dir, plain) = (file("d", libc::S_IFDIR), file("f", libc::S_IFREG));
        for (is_directory, content, path, there, expected) in [
            (false, false, "/d", Some(&dir), Some(("/d", "own"))),
            (false, false, "/d/f", Some(&plain), Some(("/d", "f"))),
            (false, false, "/d/new", None, Some(("/d", "new"))),
            (false, false, "/new", None, Some(("/", "new"))),
            (false, false, "/new/", None, None),
            (true, false, "/d", Some(&dir), Some(("/d", "own"))),
            (true, true, "/d", Some(&dir), Some(("/d", ""))),
            (true, false, "/d/new/", None, Some(("/d", "new"))),
            (true, false, "/f", Some(&plain), None),
        ] {
            let got = packing(is_directory, content, "own", path, there).ok();
            let expected = expected.map(|(at, name)| (at.to_owned(), name.to_owned()));
            assert_eq!(got, expected, "{path}");
        }
    }

    #[test]
    fn out_of_a_container_by_dockers_rules() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        fs::write(here.join("f"), "").unwrap();
        let (dir, plain) = (file("x", libc::S_IFDIR), file("x", libc::S_IFREG));
        let as_ = |path: PathBuf| Unpacking::As(path, "x".into());
        assert_eq!(unpacking(&plain, false, here).unwrap(), Unpacking::Beneath(here.into()));
        assert_eq!(unpacking(&plain, false, &here.join("f")).unwrap(), as_(here.join("f")));
        assert_eq!(unpacking(&plain, false, &here.join("n")).unwrap(), as_(here.join("n")));
        assert!(unpacking(&plain, false, &here.join("n/")).is_err());
        assert_eq!(
            unpacking(&dir, true, here).unwrap(),
            Unpacking::Content(here.into(), "x".into())
        );
        assert_eq!(unpacking(&dir, false, &here.join("n")).unwrap(), as_(here.join("n")));
        assert!(unpacking(&dir, false, &here.join("f")).is_err());
        for bad in ["", ".", "..", "a/b"] {
            assert!(component(bad).is_err());
        }
    }
}
