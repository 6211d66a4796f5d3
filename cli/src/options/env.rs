//! Environment variables and labels, from options and from files.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The most bytes of a file of variables.
const MAX_FILE_BYTES: usize = 16 << 20;

/// A variable as the manager takes it: one without a value gets ours. If there is none either,
/// the name alone takes the image's variable away.
pub(crate) fn variable(text: &str, ours: impl Fn(&str) -> Option<String>) -> Result<String> {
    if text.is_empty() || text.starts_with('=') {
        bail!("invalid environment variable: {text}");
    }
    Ok(match ours(text) {
        Some(value) if !text.contains('=') => format!("{text}={value}"),
        _ => text.to_owned(),
    })
}

/// The lines of a file of variables or labels: blank lines and those that begin with `#` are
/// passed over.
pub(crate) fn lines(content: &[u8], ours: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let text = std::str::from_utf8(text).context("contains invalid utf8 bytes")?;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.is_empty() {
            bail!("no variable name on line '{line}'");
        }
        if name.contains([' ', '\t']) {
            bail!("variable '{name}' contains whitespaces");
        }
        match value {
            Some(_) => found.push(line.to_owned()),
            None => found.extend(ours(name).map(|value| format!("{name}={value}"))),
        }
    }
    Ok(found)
}

/// The lines of a file.
pub(crate) fn file(path: &Path, ours: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let content = std::fs::read(path).with_context(|| format!("open {}", path.display()))?;
    if content.len() > MAX_FILE_BYTES {
        bail!("{}: larger than 16 MiB", path.display());
    }
    lines(&content, ours).with_context(|| format!("poorly formatted file {}", path.display()))
}

/// Our own environment.
pub(crate) fn ours(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Option<String> {
        (name == "HOST").then(|| "1".to_owned())
    }

    #[test]
    fn a_variable_without_value_is_ours_or_unset() {
        for (text, value) in
            [("A=b", "A=b"), ("A=", "A="), ("HOST", "HOST=1"), ("HOST=2", "HOST=2"), ("NO", "NO")]
        {
            assert_eq!(variable(text, host).unwrap(), value);
        }
        for bad in ["", "=", "=x"] {
            let words = format!("invalid environment variable: {bad}");
            assert_eq!(variable(bad, host).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn files() {
        let content = b"\xef\xbb\xbfA=1\n# comment\n\n  B=x y\r\nHOST\nNO\n";
        assert_eq!(lines(content, host).unwrap(), ["A=1", "B=x y", "HOST=1"]);
        for (bad, words) in [
            (&b"=x"[..], "no variable name on line '=x'"),
            (b"A B=1", "variable 'A B' contains whitespaces"),
            (b"\xff", "contains invalid utf8 bytes"),
        ] {
            assert_eq!(lines(bad, host).unwrap_err().to_string(), words);
        }
    }
}
