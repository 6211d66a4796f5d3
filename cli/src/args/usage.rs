//! What clap found wrong, in docker's words and with docker's exit codes: 125 for an option, 1
//! for a wrong number of arguments or an unknown command.

use clap::{
    Command,
    error::{ContextKind, ContextValue, Error, ErrorKind},
};

use super::parse::Stop;

/// Says it, with the usage of the command that was meant.
pub(crate) fn explain(error: &Error, root: &Command, words: &[String]) -> Stop {
    let (command, path) = meant(root, words);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let Some(name) = text(ContextKind::InvalidSubcommand) else {
                return Stop::Wrong(
                    command.clone().render_help().to_string().trim_end().to_owned(),
                    1,
                );
            };
            let message = format!("hull: unknown command: {path} {name}");
            Stop::Wrong(format!("{message}\n\nRun '{path} --help' for more information"), 1)
        }
        ErrorKind::UnknownArgument if arg.starts_with("--") => {
            wrong(&format!("unknown flag: {arg}"), command, &path, 125)
        }
        ErrorKind::UnknownArgument if arg.starts_with('-') => {
            let letter = arg.chars().nth(1).unwrap_or('-');
            let whole = words.iter().find(|word| is_group_with(word, letter)).unwrap_or(&arg);
            wrong(&format!("unknown shorthand flag: '{letter}' in {whole}"), command, &path, 125)
        }
        ErrorKind::UnknownArgument
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues => {
            wrong(&format!("hull: '{path}' {}", arguments(command)), command, &path, 1)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
            if text(ContextKind::InvalidValue).is_none_or(|value| value.is_empty())
                && std::error::Error::source(error).is_none() =>
        {
            wrong(&needs_argument(&arg, words), command, &path, 125)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let why = std::error::Error::source(error)
                .map_or_else(|| format!("must be one of {}", choices(error)), ToString::to_string);
            let flag = flag(command, root, &arg);
            let message = format!("invalid argument {value:?} for \"{flag}\" flag: {why}");
            wrong(&message, command, &path, 125)
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            wrong(first.strip_prefix("error: ").unwrap_or(first), command, &path, 125)
        }
    }
}

fn wrong(message: &str, command: &Command, path: &str, code: u8) -> Stop {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let usage = if usage.starts_with("hull ") { usage } else { format!("hull {usage}") };
    Stop::Wrong(
        format!("{message}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information"),
        code,
    )
}

/// The command that the words lead to, and its name in full.
fn meant<'a>(root: &'a Command, words: &[String]) -> (&'a Command, String) {
    let mut command = root;
    let mut path = "hull".to_owned();
    for word in words.iter().skip(1) {
        match command.find_subcommand(word) {
            Some(sub) => {
                path = format!("{path} {}", sub.get_name());
                command = sub;
            }
            None if word.starts_with('-') || command.get_name() == "hull" => {}
            None => break,
        }
        if !command.has_subcommands() {
            break;
        }
    }
    (command, path)
}

fn is_group_with(word: &str, letter: char) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word[1..].contains(letter)
}

/// How many arguments a command takes.
fn arguments(command: &Command) -> String {
    let (mut min, mut max) = (0, 0);
    for arg in command.get_positionals() {
        let range = arg.get_num_args();
        let least = range.map_or(1, |range| range.min_values().max(1));
        min += if arg.is_required_set() { least } else { 0 };
        let many = matches!(arg.get_action(), clap::ArgAction::Append)
            || range.is_some_and(|range| range.max_values() > 1);
        max = if many { usize::MAX } else { usize::saturating_add(max, 1) };
    }
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    match (min, max) {
        (0, 0) => "accepts no arguments".to_owned(),
        (min, max) if min == max => format!("requires {min} {}", plural(min)),
        (min, usize::MAX) => format!("requires at least {min} {}", plural(min)),
        (0, max) => format!("requires at most {max} {}", plural(max)),
        (min, max) => format!("requires at least {min} and at most {max} {}", plural(max)),
    }
}

/// `-m, --memory` for clap's `--memory <bytes>`.
fn flag(command: &Command, root: &Command, arg: &str) -> String {
    let name = arg.split([' ', '=', '[']).next().unwrap_or(arg);
    let long = name.trim_start_matches('-');
    let found = command
        .get_arguments()
        .chain(root.get_arguments())
        .find(|arg| arg.get_long() == Some(long));
    match found.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, --{long}"),
        None => name.to_owned(),
    }
}

fn needs_argument(arg: &str, words: &[String]) -> String {
    let long = arg.split([' ', '=', '[']).next().unwrap_or(arg);
    match words.last() {
        Some(last) if last.starts_with('-') && !last.starts_with("--") => {
            let letter = last.chars().last().unwrap_or('-');
            format!("flag needs an argument: '{letter}' in {last}")
        }
        _ => format!("flag needs an argument: {long}"),
    }
}

fn choices(error: &Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => values.join(", "),
        _ => "the values in --help".to_owned(),
    }
}
