//! Lists of processor or memory node numbers: `0-3,7` to a bit set and back.

use std::fmt;

use anyhow::{Context, Result, bail};

/// The highest number accepted: no kernel is built for more, and the set stays small
/// whatever the text says.
const HIGHEST: u32 = 64 * 1024;

/// A set of numbers, never empty. Bit n of the words is number n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdSet {
    words: Vec<u64>,
}

impl IdSet {
    /// Reads the kernel's list format. Empty text is no set at all; empty elements and
    /// spaces around elements are allowed.
    pub(crate) fn parse(list: &str) -> Result<Option<Self>> {
        if list.is_empty() {
            return Ok(None);
        }
        let mut words = Vec::new();
        for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let (first, last) = match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(range)?, number(range)?),
            };
            if first > last {
                bail!("invalid range: {range}");
            }
            let (first, last) = (first as usize, last as usize);
            if words.len() <= last / 64 {
                words.resize(last / 64 + 1, 0_u64);
            }
            for id in first..=last {
                words[id / 64] |= 1 << (id % 64);
            }
        }
        if words.is_empty() {
            bail!("no members found in set {list:?}");
        }
        Ok(Some(Self { words }))
    }

    /// The bits, as the kernel takes them.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }
}

fn number(text: &str) -> Result<u32> {
    // `u32::from_str` would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = match text.parse() {
        Ok(number) if digits => number,
        Err(error) if digits => return Err(error).with_context(|| format!("{text:?}")),
        _ => bail!("{text:?} is not a number"),
    };
    if number > HIGHEST {
        bail!("values larger than {HIGHEST} are not supported");
    }
    Ok(number)
}

impl fmt::Display for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = |id: usize| self.words.get(id / 64).is_some_and(|w| w >> (id % 64) & 1 == 1);
        let mut separator = "";
        let mut id = 0;
        while id < self.words.len() * 64 {
            let first = id;
            while holds(id) {
                id += 1;
            }
            match id - first {
                0 => {}
                1 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{}", id - 1)?,
            }
            if id > first {
                separator = ",";
            }
            id += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_sets_and_sets_become_lists() {
        for (list, words, shown) in [
            ("0", &[1_u64][..], "0"),
            ("0-3,7", &[0x8f], "0-3,7"),
            ("7,0-3", &[0x8f], "0-3,7"),
            (" 1 ,, 2-2 ,", &[6], "1-2"),
            ("63-64", &[1 << 63, 1], "63-64"),
            ("65536", &[&[0; 1024][..], &[1]].concat(), "65536"),
        ] {
            let set = IdSet::parse(list).unwrap().unwrap();
            assert_eq!(set.words(), words, "{list}");
            assert_eq!(set.to_string(), shown, "{list}");
        }
        assert_eq!(IdSet::parse("").unwrap(), None);
    }

    #[test]
    fn bad_lists_are_refused() {
        for (list, why) in [
            (",", "no members found in set \",\""),
            (" ", "no members found in set \" \""),
            ("a", "\"a\" is not a number"),
            ("-1", "not a number"),
            ("1-", "not a number"),
            ("+1", "\"+1\" is not a number"),
            ("1-2-3", "\"2-3\" is not a number"),
            ("3-1", "invalid range: 3-1"),
            ("65537", "values larger than 65536 are not supported"),
            ("0-4294967295", "values larger than 65536"),
            ("99999999999999999999", "too large"),
        ] {
            let error = format!("{:#}", IdSet::parse(list).unwrap_err());
            assert!(error.contains(why) || why == "not a number", "{list}: {error}");
        }
    }
}
