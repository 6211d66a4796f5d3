//! Paths as text, where only text is known: targets in a container.

/// A path without `.`, `..` and double slashes, as Go's path.Clean gives it. It resolves nothing:
/// the runtime looks links up beneath the container's root.
#[must_use]
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => drop(parts.pop()),
                _ if absolute => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Whether a relative path stays beneath where it begins.
#[must_use]
pub fn is_local(path: &str) -> bool {
    let cleaned = clean(path);
    !path.is_empty() && !path.starts_with('/') && cleaned != ".." && !cleaned.starts_with("../")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("/a/./b/..", "/a"),
            ("/../../a", "/a"),
            ("../a", "../a"),
            ("a/../..", ".."),
            ("./a", "a"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn what_leaves_its_directory_is_not_local() {
        for (path, local) in [
            ("a", true),
            ("a/../b", true),
            ("a/..", true),
            ("..", false),
            ("a/../../b", false),
            ("/a", false),
            ("", false),
        ] {
            assert_eq!(is_local(path), local, "{path}");
        }
    }
}
