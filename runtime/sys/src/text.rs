//! The program's own code, as it lies in memory.

use std::fs;

use crate::{Error, Result, check};

/// Takes the pages of code out of this process; those that are used again come back from the
/// kernel's cache, a window of some at each fault. They stop counting as resident, and memory
/// pressure takes them from the cache first.
///
/// # Errors
/// If `/proc` is not there.
pub fn unmap_idle() -> Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|error| Error::new("open", error.raw_os_error().unwrap_or(libc::EIO)))?;
    for (start, length) in maps.lines().filter_map(code) {
        let start = std::ptr::without_provenance_mut(start);
        // SAFETY: the pages are of a file, private, and can't be written, so that none differs
        // from the file: code is not relocated, neither of fixed nor of moving programs. Nobody
        // unmaps them while the program runs.
        let result = unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
        check("madvise", result.into())?;
    }
    Ok(())
}

/// Start and length of a line of `maps`, if it is of code from a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let inode = words.nth(2)?;
    if rights != "r-xp" || inode == "0" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_taken() {
        for (line, expected) in [
            ("00401000-00403000 r-xp 00001000 fe:00 10 /usr/bin/x", Some((0x40_1000, 0x2000))),
            ("00401000-00403000 r-xp 00001000 fe:00 10 /a b (deleted)", Some((0x40_1000, 0x2000))),
            ("00401000-00403000 r--p 00001000 fe:00 10 /usr/bin/x", None),
            ("00401000-00403000 rwxp 00001000 fe:00 10 /usr/bin/x", None),
            ("00401000-00403000 r-xs 00001000 fe:00 10 /usr/bin/x", None),
            ("7ffd0000-7ffd1000 r-xp 00000000 00:00 0 [vdso]", None),
            ("", None),
        ] {
            assert_eq!(code(line), expected, "{line}");
        }
    }

    #[test]
    fn the_program_goes_on_and_takes_less() {
        let resident = || {
            let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        let mut least = before;
        // Other tests run meanwhile and bring pages back.
        for _ in 0..20 {
            unmap_idle().unwrap();
            least = least.min(resident());
        }
        assert!(least < before, "{least} of {before} kB");
    }
}
