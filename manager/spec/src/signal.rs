//! Signals by name or number.

use crate::error::{Result, refuse};

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// The number of a signal: `9`, `KILL`, `sigkill`, `RTMIN+3`.
///
/// # Errors
/// If there is no such signal.
pub fn parse(text: &str) -> Result<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return match number {
            1..=RTMAX => Ok(number),
            _ => refuse!("invalid signal: {text}"),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = match name {
        "CLD" => Some(17),
        "IOT" => Some(6),
        "POLL" => Some(29),
        name => {
            NAMES.iter().position(|&known| known == name).and_then(|at| u32::try_from(at + 1).ok())
        }
    };
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<u32>().ok(),
        None if rest.is_empty() => Some(0),
        _ => None,
    };
    let real_time = || {
        if let Some(rest) = name.strip_prefix("RTMIN") {
            return offset(rest, '+')?.checked_add(RTMIN);
        }
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)
    };
    match named.or_else(|| real_time().filter(|number| (RTMIN..=RTMAX).contains(number))) {
        Some(number) => Ok(number),
        None => refuse!("invalid signal: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("SIGSYS", 31),
            ("WINCH", 28),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in [
            "", "0", "65", "-1", "SIG", "RTMIN+31", "RTMAX-31", "RTMIN+", "RTMIN-1", "FOO",
            "RTMIN++1",
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("invalid signal: {text}"));
        }
    }
}
