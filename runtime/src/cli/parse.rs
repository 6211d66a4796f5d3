//! Splits the command line into options and arguments, by the table.
//!
//! Written by hand, not with clap: this program starts for every single operation on a
//! container, so that clap's size and start time would be paid each time; and clap cannot
//! take `-no-subreaper`, which callers of runc send. The grammar is that of runc 1.5:
//! - every option may be written with one dash or two, as `--name value` or `--name=value`;
//!   one that takes nothing also as `--name=false`;
//! - options may follow arguments, except in commands that stop at the first argument;
//! - global options may follow the command; `--` ends the options;
//! - `-`, and a dash before something that is no letter, are arguments.
//!
//! It checks names and the form of values, and gives them no meaning: `lower` does.

use std::{ffi::OsStr, ffi::OsString, os::unix::ffi::OsStrExt};

use anyhow::{Result, anyhow, bail};

use super::table::{self, Command, Opt, Takes};

/// The options that were given, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given<'a>(Vec<(&'static Opt, &'a OsStr)>);

/// A command line, split.
#[derive(Debug, Default)]
pub(crate) struct Parsed<'a> {
    pub(crate) global: Given<'a>,
    pub(crate) command: Option<&'static Command>,
    pub(crate) options: Given<'a>,
    pub(crate) args: Vec<&'a OsStr>,
    pub(crate) help: bool,
    pub(crate) version: bool,
}

impl<'a> Given<'a> {
    /// Whether the option was given at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(option, _)| option.name == name)
    }

    /// Every value of a repeated option.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &'a OsStr> {
        self.0.iter().filter(move |(option, _)| option.name == name).map(|(_, value)| *value)
    }

    /// The last value; an empty one is none, as callers clear options that way.
    pub(crate) fn value(&self, name: &str) -> Option<&'a OsStr> {
        self.all(name).last().filter(|value| !value.is_empty())
    }

    /// The last value, as text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.value(name).map(|value| utf8(value, name)).transpose()
    }

    /// Whether a flag is set.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.all(name).last().is_some_and(|value| truth(value) == Some(true))
    }

    /// The last value, as a number; the parser has checked its form.
    pub(crate) fn whole(&self, name: &str) -> Result<Option<i64>> {
        self.value(name).map(|value| number(value, name)).transpose()
    }
}

/// The text of a value that must be UTF-8, because it ends up in JSON.
pub(crate) fn utf8<'a>(value: &'a OsStr, name: &str) -> Result<&'a str> {
    value.to_str().ok_or_else(|| anyhow!("invalid value {value:?} for flag -{name}: not UTF-8"))
}

/// The whole number that an option's value spells.
pub(crate) fn number(value: &OsStr, name: &str) -> Result<i64> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| anyhow!("invalid value {value:?} for flag -{name}: not a whole number"))
}

/// The spellings of true and false that Go knows, since callers print theirs with Go.
pub(crate) fn truth(value: &OsStr) -> Option<bool> {
    match value.as_bytes() {
        b"" | b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

/// Splits the words after the program's name. On an error, `parsed` holds what came before
/// it, so that the error reaches the log that the caller asked for.
pub(crate) fn parse<'a>(words: &'a [OsString], parsed: &mut Parsed<'a>) -> Result<()> {
    let mut words = words.iter().map(OsString::as_os_str);
    while let Some(word) = words.next() {
        let stops = parsed.command.is_some_and(|command| command.stops_at_first);
        if word == "--" {
            return finish(parsed, words);
        }
        if stops && !parsed.args.is_empty() {
            parsed.args.push(word);
            return finish(parsed, words);
        }
        match option_name(word) {
            Some((name, value)) => take_option(parsed, word, name, value, &mut words)?,
            None if parsed.command.is_none() => {
                let command = word.to_str().and_then(table::command);
                parsed.command = Some(command.ok_or_else(|| anyhow!("unknown command {word:?}"))?);
            }
            None => parsed.args.push(word),
        }
    }
    check_count(parsed)
}

/// The rest are arguments, whatever they look like.
fn finish<'a>(parsed: &mut Parsed<'a>, rest: impl Iterator<Item = &'a OsStr>) -> Result<()> {
    for word in rest {
        if parsed.command.is_none() {
            let command = word.to_str().and_then(table::command);
            parsed.command = Some(command.ok_or_else(|| anyhow!("unknown command {word:?}"))?);
        } else {
            parsed.args.push(word);
        }
    }
    check_count(parsed)
}

/// The name in `-name`, `--name` or `--name=value`, and the value; `None` for an argument.
fn option_name(word: &OsStr) -> Option<(&OsStr, Option<&OsStr>)> {
    let bytes = word.as_bytes();
    let name = match bytes {
        [b'-', b'-', rest @ ..] => rest,
        [b'-', first, ..] if first.is_ascii_alphabetic() => &bytes[1..],
        _ => return None,
    };
    let equals = name.iter().position(|byte| *byte == b'=');
    let (name, value) = match equals {
        Some(at) => (&name[..at], Some(OsStr::from_bytes(&name[at + 1..]))),
        None => (name, None),
    };
    Some((OsStr::from_bytes(name), value))
}

fn take_option<'a>(
    parsed: &mut Parsed<'a>,
    word: &'a OsStr,
    name: &OsStr,
    value: Option<&'a OsStr>,
    rest: &mut impl Iterator<Item = &'a OsStr>,
) -> Result<()> {
    let of = |options: &'static [Opt]| {
        options.iter().find(|o| name == o.name || o.letter.is_some_and(|letter| name == letter))
    };
    let own = parsed.command.and_then(|command| of(command.options));
    // A command's option hides the global one of that name: `spec --rootless`.
    let Some(option) = own.or_else(|| of(table::GLOBAL)) else {
        if name == "help" || name == "h" {
            parsed.help = true;
            return Ok(());
        }
        if parsed.command.is_none() && (name == "version" || name == "v") {
            parsed.version = true;
            return Ok(());
        }
        bail!("flag provided but not defined: -{}", name.to_string_lossy());
    };
    let value = match (option.takes, value) {
        (Takes::Nothing, value) => value.unwrap_or(OsStr::new("true")),
        (_, Some(value)) => value,
        (_, None) => rest
            .next()
            .ok_or_else(|| anyhow!("flag needs an argument: {}", word.to_string_lossy()))?,
    };
    check_value(option, value)?;
    let given = if own.is_some() { &mut parsed.options } else { &mut parsed.global };
    given.0.push((option, value));
    Ok(())
}

/// Whether a value has the form that its option asks for.
fn check_value(option: &Opt, value: &OsStr) -> Result<()> {
    let name = option.name;
    match option.takes {
        Takes::Nothing if truth(value).is_none() => {
            bail!("invalid boolean value {value:?} for flag -{name}: not true or false")
        }
        Takes::Whole(_) => number(value, name).map(|_| ()),
        _ => Ok(()),
    }
}

fn check_count(parsed: &Parsed<'_>) -> Result<()> {
    let Some(command) = parsed.command.filter(|_| !parsed.help && !parsed.version) else {
        return Ok(());
    };
    let (min, max, name) = (command.min_args, command.max_args, command.name);
    let count = parsed.args.len();
    if min == max && count != min {
        bail!("hull-runtime: {name:?} requires exactly {min} argument(s)");
    }
    if count < min {
        bail!("hull-runtime: {name:?} requires a minimum of {min} argument(s)");
    }
    if count > max {
        bail!("hull-runtime: {name:?} requires a maximum of {max} argument(s)");
    }
    Ok(())
}
