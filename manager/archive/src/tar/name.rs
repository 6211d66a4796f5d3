//! Names of entries.

use anyhow::Result;

use crate::{
    budget::Budgets,
    error::{Shown, refuse},
};

/// The path that a name means: beneath the root, without empty components, `.` and a slash at an
/// end. `..` has no use in an archive but to leave it, and readers differ in what they make of it.
pub(crate) fn clean(name: &[u8], budgets: &Budgets) -> Result<Vec<u8>> {
    if name.is_empty() {
        refuse!("an entry has no name");
    }
    if name.len() > budgets.name_bytes {
        refuse!("the name {} has {} bytes of {}", Shown(name), name.len(), budgets.name_bytes);
    }
    if name.contains(&0) {
        refuse!("the name {} contains NUL", Shown(name));
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for component in name.split(|b| *b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => refuse!("the name {} contains \"..\"", Shown(name)),
            _ if component.len() > 255 => {
                refuse!("a component of the name {} has more than 255 bytes", Shown(name));
            }
            _ => {}
        }
        depth += 1;
        if depth > budgets.depth {
            refuse!("the name {} has more than {} components", Shown(name), budgets.depth);
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path)
}

/// A cleaned path's parent, empty for the root, and its last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_beneath_the_root_or_refused() {
        let long = "a/".repeat(1025);
        for (name, path) in [
            ("a/b", Some("a/b")),
            ("./a//b/./c/", Some("a/b/c")),
            ("/etc/passwd", Some("etc/passwd")),
            ("./", Some("")),
            ("/", Some("")),
            ("..a/b..", Some("..a/b..")),
            ("", None),
            ("..", None),
            ("a/../b", None),
            ("a\0b", None),
            (&long[..2048], Some(&long[..2047])),
            (&long, None),
            (&"x".repeat(255), Some(&"x".repeat(255))),
            (&"x".repeat(256), None),
        ] {
            let cleaned = clean(name.as_bytes(), &Budgets::default()).ok();
            assert_eq!(cleaned.as_deref(), path.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn a_path_is_split_at_its_last_slash() {
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
