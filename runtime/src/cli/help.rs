//! `--help`: the table, for people.

use super::table::{COMMANDS, Command, GLOBAL, Opt, Takes};

/// Where the column of explanations starts, and where lines end.
const COLUMN: usize = 30;
const WIDTH: usize = 96;

/// The help of a command, or of the program.
pub(super) fn of(command: Option<&Command>) -> String {
    match command {
        Some(command) => of_command(command),
        None => of_program(),
    }
}

/// `hull-runtime [OPTION...] create [OPTION...] CONTAINER`
pub(super) fn synopsis(command: &Command) -> String {
    let mut line = format!("hull-runtime [GLOBAL-OPTION...] {}", command.name);
    if command.options.iter().any(|option| !option.hidden) {
        line.push_str(" [OPTION...]");
    }
    if !command.synopsis.is_empty() {
        line.push(' ');
        line.push_str(command.synopsis);
    }
    line
}

/// What an option takes, in words: `FILE`, or `text|json`.
pub(super) fn value(option: &Opt) -> Option<String> {
    match option.takes {
        Takes::Nothing => None,
        Takes::Text(name) | Takes::Whole(name) | Takes::File(name) | Takes::Directory(name) => {
            Some(name.to_owned())
        }
        Takes::OneOf(_, words) => Some(words.join("|")),
    }
}

/// What an option does, with its default.
pub(super) fn explanation(option: &Opt) -> String {
    let mut text = option.help.to_owned();
    if let Some(default) = option.default {
        text.push_str(&format!(" (default: {default})"));
    }
    if option.repeats {
        text.push_str(" (may be repeated)");
    }
    text
}

fn of_program() -> String {
    let mut text = String::from(
        "hull-runtime runs containers from OCI bundles, as runc does.\n\n\
         Usage: hull-runtime [GLOBAL-OPTION...] COMMAND [OPTION...] [ARGUMENT...]\n\nCommands:\n",
    );
    for command in COMMANDS {
        line(&mut text, command.name, command.summary);
    }
    text.push_str("\nGlobal options:\n");
    options(&mut text, GLOBAL);
    line(&mut text, "-h, --help", "explain the program, or the command before it");
    line(&mut text, "-v, --version", "print the version");
    text
}

fn of_command(command: &Command) -> String {
    let mut text = format!("{}: {}\n\nUsage: ", command.name, command.summary);
    text.push_str(&synopsis(command));
    text.push('\n');
    if !command.description.is_empty() {
        text.push('\n');
        wrap(&mut text, command.description, 0, 0);
    }
    if command.options.iter().any(|option| !option.hidden) {
        text.push_str("\nOptions:\n");
        options(&mut text, command.options);
    }
    text
}

fn options(text: &mut String, options: &[Opt]) {
    for option in options.iter().filter(|option| !option.hidden) {
        let letter = option.letter.map(|letter| format!("-{letter}, ")).unwrap_or_default();
        let value = value(option).map(|value| format!(" {value}")).unwrap_or_default();
        line(text, &format!("{letter}--{}{value}", option.name), &explanation(option));
    }
}

/// A term and its explanation, side by side.
fn line(text: &mut String, term: &str, explanation: &str) {
    let at = text.len();
    text.push_str(&format!("  {term}"));
    let width = text[at..].chars().count();
    if width + 2 > COLUMN {
        text.push('\n');
        text.push_str(&" ".repeat(COLUMN));
    } else {
        text.push_str(&" ".repeat(COLUMN - width));
    }
    wrap(text, explanation, COLUMN, COLUMN);
}

/// Fills lines with words; the first line is already `used` wide.
fn wrap(text: &mut String, words: &str, used: usize, indent: usize) {
    let (mut column, mut first) = (used, true);
    for word in words.split_whitespace() {
        let width = word.chars().count();
        if !first && column + 1 + width > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            (column, first) = (indent, true);
        }
        if !first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
        first = false;
    }
    text.push('\n');
}
