//! From functions that are called to patterns of their names. A pattern is the beginning of a
//! name: a module's or a type's functions mostly go together, and what is added to them goes with
//! them.

use std::collections::{BTreeMap, BTreeSet};

use crate::sections::Section;

/// So much code that is not called is worth a pattern less.
const PATTERN_BYTES: u64 = 600;

/// Where names part.
#[derive(Default)]
struct Node {
    next: BTreeMap<String, Node>,
    bytes: u64,
    called_bytes: u64,
}

impl Node {
    fn add(&mut self, words: &[String], bytes: u64, called_bytes: u64) {
        self.bytes += bytes;
        self.called_bytes += called_bytes;
        if let [first, rest @ ..] = words {
            self.next.entry(first.clone()).or_default().add(rest, bytes, called_bytes);
        }
    }

    /// The cheapest patterns for all that is called below a name, and what they cost.
    fn patterns(&self, name: &str) -> (u64, Vec<String>) {
        if self.called_bytes == 0 {
            return (0, Vec::new());
        }
        let (mut many, mut patterns) = (0, Vec::new());
        for (word, node) in &self.next {
            let (cost, mut of_node) = node.patterns(&format!("{name}{word}"));
            many += cost;
            patterns.append(&mut of_node);
        }
        let one = PATTERN_BYTES + self.bytes - self.called_bytes;
        if self.next.is_empty() || one <= many {
            return (one, vec![format!("{name}*")]);
        }
        (many, patterns)
    }
}

/// Patterns by file for the functions at these addresses. Where one serves for all of a file, it
/// is `*`.
pub(crate) fn of(sections: &[Section], called: &BTreeSet<u64>) -> BTreeMap<String, Vec<String>> {
    let mut files: BTreeMap<String, Node> = BTreeMap::new();
    // The linker keeps what is unlikely (the compiler's word for panics) together by itself.
    for section in sections.iter().filter(|section| !section.name.starts_with("unlikely.")) {
        let called_bytes = if called.contains(&section.address) { section.bytes } else { 0 };
        let file = files.entry(section.file.clone()).or_default();
        file.add(&words(&section.name), section.bytes, called_bytes);
    }
    let mut patterns = BTreeMap::new();
    for (file, node) in files {
        let (_, of_file) = node.patterns("");
        if !of_file.is_empty() {
            patterns.insert(file, of_file);
        }
    }
    patterns
}

/// A mangled name without what changes from one compiler to the next, in pieces.
fn words(name: &str) -> Vec<String> {
    let name = match name.rsplit_once("17h") {
        Some((start, hash)) if hash.len() > 16 => format!("{start}17h"),
        _ => without_hashes(name),
    };
    let mut words = Vec::new();
    let mut rest = name.as_str();
    let kind = |c: char| match c {
        '0'..='9' => 1,
        'a'..='z' | 'A'..='Z' | '_' => 2,
        _ => 3,
    };
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        words.push(word.to_owned());
        rest = behind;
    }
    words
}

/// The standard library's names have a hash for each crate: `Cs`, letters and digits, `_`.
fn without_hashes(name: &str) -> String {
    let mut parts = name.split("Cs");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hash = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(0);
        let is_hash = hash >= 9 && part[hash..].starts_with('_');
        out.push_str("Cs");
        out.push_str(if is_hash { "*" } else { &part[..hash] });
        out.push_str(&part[hash..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(address: u64, bytes: u64, name: &str) -> Section {
        Section { address, bytes, name: name.to_owned(), file: "f".to_owned() }
    }

    #[test]
    fn names_lose_hashes_and_lengths() {
        for (name, expected) in [
            ("_ZN5tokio4time5sleep17h0123456789abcdefE", "_ZN5tokio4time5sleep17h"),
            (
                "_ZN41_$LT$a..B$u20$as$u20$c..D$GT$1e17h0123456789abcdefE.llvm.1",
                "_ZN41_$LT$a..B$u20$as$u20$c..D$GT$1e17h",
            ),
            ("_RNvNtCsaz6eC2DG7lh_3std2fs4read", "_RNvNtCs*_3std2fs4read"),
            ("aCsomeName", "aCsomeName"),
        ] {
            assert_eq!(words(name).concat(), expected);
        }
    }

    #[test]
    fn what_is_called_is_named_and_little_else() {
        let sections = [
            section(1, 900, "_ZN1a1b1c17h0123456789abcdefE"),
            section(2, 900, "_ZN1a1b1d17h0123456789abcdefE"),
            section(3, 100, "_ZN1a1b1e17h0123456789abcdefE"),
            section(4, 9000, "_ZN1a1f1g17h0123456789abcdefE"),
            section(5, 10, "unlikely._ZN1a1f1h17h0123456789abcdefE"),
        ];
        let of = |called: &[u64]| of(&sections, &called.iter().copied().collect()).remove("f");
        assert_eq!(of(&[1, 2]).unwrap(), ["_ZN1a1b*"]);
        assert_eq!(of(&[1]).unwrap(), ["_ZN1a1b1c*"]);
        assert_eq!(of(&[1, 2, 3, 4]).unwrap(), ["*"]);
        assert_eq!(of(&[5]), None);
    }
}
