//! A template's text and actions, and the words of an action.

use super::Value;

#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Literal(Value),
    /// `.`, `.A.B`.
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Word(String),
    Pipe,
    Open,
    Close(Vec<String>),
    Comma,
    Assign,
}

/// Text and actions, the blanks beside `{{-` and `-}}` taken away.
pub(super) fn split(mut text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut trim = false;
    loop {
        let (before, rest) = match text.split_once("{{") {
            Some((before, rest)) => (before, Some(rest)),
            None => (text, None),
        };
        let mut before = if trim { before.trim_start() } else { before };
        let Some(mut rest) = rest else {
            pieces.push(Piece::Text(before.to_owned()));
            return Ok(pieces);
        };
        if let Some(after) =
            rest.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace))
        {
            before = before.trim_end();
            rest = after;
        }
        pieces.push(Piece::Text(before.to_owned()));
        let end = end_of_action(rest).ok_or("template: :1: unclosed action")?;
        let mut action = &rest[..end];
        text = &rest[end + 2..];
        trim = action.ends_with('-') && action[..action.len() - 1].ends_with(char::is_whitespace);
        if trim {
            action = &action[..action.len() - 1];
        }
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(action)?));
        }
    }
}

/// Where `}}` is that is not in a string.
fn end_of_action(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some('"'), '\\') => {
                letters.next();
            }
            (Some(open), letter) if open == letter => quote = None,
            (None, '"' | '`') => quote = Some(letter),
            (None, '}') if text[at..].starts_with("}}") => return Some(at),
            _ => {}
        }
    }
    None
}

fn tokens(action: &str) -> Result<Vec<Token>, String> {
    let unexpected = |what: &str| format!("template: :1: unexpected {what:?} in command");
    let mut tokens = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let word_end = |from: usize| {
            rest[from..]
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .map_or(rest.len(), |at| at + from)
        };
        let (token, used) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => {
                let (fields, end) = fields(rest, 1);
                (Token::Close(fields), end)
            }
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Assign, 2),
            '=' => (Token::Assign, 1),
            '"' | '`' => {
                let end = rest[1..]
                    .char_indices()
                    .scan(false, |escaped, (at, letter)| {
                        let ends = letter == first && !*escaped;
                        *escaped = first == '"' && letter == '\\' && !*escaped;
                        Some((at, ends))
                    })
                    .find(|(_, ends)| *ends)
                    .map(|(at, _)| at + 1)
                    .ok_or("template: :1: unterminated quoted string")?;
                let inner = &rest[1..end];
                let text = if first == '"' { unescape(inner) } else { inner.to_owned() };
                (Token::Literal(Value::Text(text)), end + 1)
            }
            '$' => {
                let end = word_end(1);
                let (names, used) = fields(rest, end);
                (Token::Variable(rest[1..end].to_owned(), names), used)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let (names, used) = fields(rest, 0);
                (Token::Field(names), used.max(1))
            }
            '-' | '0'..='9' | '.' => {
                let end = rest[1..]
                    .find(|c: char| !(c.is_ascii_digit() || c == '.'))
                    .map_or(rest.len(), |at| at + 1);
                let number = &rest[..end];
                let value = number.parse().map(Value::Int).or_else(|_| {
                    number.parse().map(Value::Float).map_err(|_| unexpected(number))
                })?;
                (Token::Literal(value), end)
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = word_end(0);
                let token = match &rest[..end] {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Nil),
                    word => Token::Word(word.to_owned()),
                };
                (token, end)
            }
            other => return Err(unexpected(&other.to_string())),
        };
        tokens.push(token);
        rest = rest[used..].trim_start();
    }
    Ok(tokens)
}

/// `.A.B` from a place on: the names, and where they end.
fn fields(text: &str, from: usize) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    let mut at = from;
    while let Some(rest) = text[at..].strip_prefix('.') {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        names.push(rest[..end].to_owned());
        at += end + 1;
    }
    (names, at)
}

/// The escapes of a Go string that are of use in a format.
pub(crate) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => plain.push('\n'),
                Some('t') => plain.push('\t'),
                Some('r') => plain.push('\r'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            (letter, _) => plain.push(letter),
        }
    }
    plain
}
