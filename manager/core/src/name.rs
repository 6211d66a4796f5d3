//! Names and ids: which are allowed, which are made up, and what a prefix means.

use std::{fmt::Write as _, io::Read as _};

use crate::error::{Error, Result};

/// The longest name; names are hostnames and directories.
const MAX_NAME: usize = 128;

/// 64 random hexadecimal digits.
///
/// # Errors
/// If the kernel gives no random bytes.
pub fn random_id() -> Result<String> {
    Ok(random(32)?.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// A name for what was given none: two words, and from the third attempt on a number.
///
/// # Errors
/// If the kernel gives no random bytes.
pub fn random_name(attempt: u32) -> Result<String> {
    let bytes = random(3)?;
    let word = |words: &[&'static str], byte: u8| words[usize::from(byte) % words.len()];
    let name = format!("{}_{}", word(&MOODS, bytes[0]), word(&SHIPS, bytes[1]));
    Ok(if attempt < 2 { name } else { format!("{name}{}", bytes[2]) })
}

fn random(bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut buffer))
        .map_err(|cause| Error::internal("/dev/urandom").because(cause))?;
    Ok(buffer)
}

/// A name that a user gave to a container or a volume: docker's alphabet, one path component.
///
/// # Errors
/// If it is not one, in docker's words.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let word = |b: u8| b.is_ascii_alphanumeric();
    // Networks' may be shorter, as docker's.
    let shortest = if what == "network" { 1 } else { 2 };
    let valid = (shortest..=MAX_NAME).contains(&name.len())
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || matches!(b, b'_' | b'.' | b'-'));
    if valid {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).flat_map(char::escape_default).collect();
    Err(Error::invalid(format!(
        "Invalid {what} name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, {shortest} to {MAX_NAME} of them"
    )))
}

/// Whether a text can be an id or the start of one.
#[must_use]
pub fn is_id_prefix(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

const MOODS: [&str; 64] = [
    "able", "agile", "amber", "apt", "azure", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "clear", "clever", "coral", "crisp", "daring", "deft", "eager", "early", "fair",
    "fleet", "fond", "frank", "free", "fresh", "gentle", "glad", "golden", "grand", "hardy",
    "hearty", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky",
    "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "proud", "quick",
    "quiet", "ready", "robust", "serene", "sharp", "silver", "steady", "sturdy", "sunny", "swift",
    "tidy", "upright", "witty",
];

const SHIPS: [&str; 64] = [
    "barge", "bark", "barque", "brig", "canoe", "caravel", "carrack", "catboat", "clipper",
    "coaster", "cog", "coracle", "corvette", "cruiser", "currach", "cutter", "dhow", "dinghy",
    "dory", "drifter", "ferry", "felucca", "frigate", "galleon", "galley", "gig", "gondola", "hoy",
    "junk", "kayak", "keel", "ketch", "launch", "lighter", "longship", "lugger", "mistral",
    "packet", "pilot", "pinnace", "pontoon", "praam", "punt", "raft", "sampan", "schooner", "scow",
    "shallop", "skiff", "sloop", "smack", "snow", "tartane", "tender", "trawler", "trimaran",
    "trireme", "tug", "umiak", "wherry", "xebec", "yacht", "yawl", "zabra",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_two_and_more_characters_of_the_alphabet() {
        for good in [
            "ab",
            "a_",
            "0.-_",
            &"a".repeat(128),
            &random_name(0).unwrap(),
            &random_name(5).unwrap(),
        ] {
            check_name("container", good).unwrap();
        }
        for bad in ["", "a", ".a", "-a", "a/b", "a b", "..", "a\n", "\u{e4}b", &"a".repeat(129)] {
            assert!(check_name("container", bad).is_err(), "{bad:?}");
            assert_eq!(check_name("network", bad).is_ok(), bad == "a", "{bad:?}");
        }
    }

    #[test]
    fn ids_differ() {
        let (a, b) = (random_id().unwrap(), random_id().unwrap());
        assert!(a != b && a.len() == 64 && is_id_prefix(&a) && is_id_prefix("a1"));
        assert!(!is_id_prefix("A1") && !is_id_prefix("") && !is_id_prefix("xyz"));
    }
}
