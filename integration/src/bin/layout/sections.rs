//! The functions of a program, by the map that the linker wrote: one section each, named after it.

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    /// Behind `.text.`.
    pub(crate) name: String,
    /// A pattern of the file that it comes from: of each crate there is one, of a library in C an
    /// archive.
    pub(crate) file: String,
}

/// All of them, by address.
pub(crate) fn of(map: &str) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut name = None;
    // A long name has a line for itself.
    for line in map.lines() {
        let mut words = line.split_whitespace().peekable();
        if let Some(found) = words.next_if(|word| word.starts_with(".text.")) {
            name = found.strip_prefix(".text.");
        }
        if words.peek().is_none() {
            continue;
        }
        sections.extend(name.take().and_then(|name| section(name, words)));
    }
    sections.sort_by_key(|section| section.address);
    sections
}

/// `ADDRESS BYTES FILE`. What is not in the program has the address 0.
fn section<'a>(name: &str, mut words: impl Iterator<Item = &'a str>) -> Option<Section> {
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (address, bytes) = (number()?, number()?);
    let file = pattern_of(words.next()?)?;
    (address > 0 && bytes > 0).then(|| Section { address, bytes, name: name.to_owned(), file })
}

/// Hashes change with the compiler.
fn pattern_of(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    if let Some((archive, _)) = name.split_once('(') {
        let stem = archive.rsplit_once('-').map(|(stem, _)| format!("{stem}-*"));
        return Some(format!("*{}:*", stem.as_deref().unwrap_or(archive)));
    }
    // `hulld-HASH.CRATE-HASH.…`, and of hulld itself `hulld-HASH.hulld.…`.
    let part = name.split('.').nth(1)?;
    match part.rsplit_once('-') {
        Some((of, _)) => Some(format!("*.{of}-*")),
        None => name.starts_with(&format!("{part}-")).then(|| format!("*.{part}.*")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_names_functions_and_where_they_are_from() {
        let map = "\
 *(.text.hot .text.hot.*)
 .text._ZN3abc17h0123456789abcdefE
                0x0000000000401040       0x1f /d/hulld-12.h2-34.h2.56-cgu.0.rcgu.o
 .text.main     0x0000000000402000       0x10 /d/hulld-12.hulld.34-cgu.0.rcgu.o
                0x0000000000402000                main
 .text.f        0x0000000000403000       0x10 /d/libsqlite3_sys-12.rlib(34-sqlite3.o)
 .text.gone     0x0000000000000000       0x10 /d/hulld-12.h2-34.h2.56-cgu.0.rcgu.o
 .text          0x0000000000404000       0x10 /d/libc.a(memset.lo)
 .text.crt      0x0000000000405000       0x10 /d/crt1.o
";
        let found: Vec<_> =
            of(map).into_iter().map(|s| (s.address, s.bytes, s.name, s.file)).collect();
        let expected = [
            (0x401040, 0x1f, "_ZN3abc17h0123456789abcdefE", "*.h2-*"),
            (0x402000, 0x10, "main", "*.hulld.*"),
            (0x403000, 0x10, "f", "*libsqlite3_sys-*:*"),
        ];
        assert_eq!(found, expected.map(|(a, b, n, f)| (a, b, n.to_owned(), f.to_owned())));
    }
}
