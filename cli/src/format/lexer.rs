//! A template's text and the words of its actions, each with its place in the source.

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// As it stands in the source; for an error, what is wrong.
    pub(super) text: String,
    /// Where it begins, in bytes.
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// `{{`.
    Left,
    /// `}}`.
    Right,
    Space,
    /// `.Name`.
    Field,
    /// `$` or `$name`.
    Variable,
    /// A dot by itself.
    Dot,
    /// The name of a function.
    Word,
    Keyword,
    Bool,
    Nil,
    Number,
    /// `'a'`.
    Char,
    /// `"a"`.
    Quoted,
    /// Between backquotes.
    Raw,
    Pipe,
    Open,
    Close,
    /// `:=`.
    Declare,
    /// `=`.
    Assign,
    /// Another printable letter.
    Other,
    Error,
    End,
}

const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

/// All words, to the end or to the first error.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { source, at: 0, tokens: Vec::new(), open: 0 };
    let last = match lexer.text() {
        Ok(()) => (Kind::End, String::new()),
        Err(why) => (Kind::Error, why),
    };
    lexer.tokens.push(Token { kind: last.0, text: last.1, at: lexer.at });
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Token>,
    /// Parentheses that are open.
    open: usize,
}

/// Whether a `-` and a blank come next, which take the blanks before an action away.
fn trims(action: &str) -> bool {
    action.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
}

fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

fn is_name(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = self.rest().get(..length).unwrap_or_default().to_owned();
        self.tokens.push(Token { kind, text, at: self.at });
        self.at += length;
    }

    fn text(&mut self) -> Result<(), String> {
        let mut trim = false;
        loop {
            if trim {
                self.at += self.rest().len() - self.rest().trim_start_matches(is_space).len();
            }
            let begin = self.rest().find("{{");
            let length = begin.unwrap_or(self.rest().len());
            let action = self.rest().get(length + 2..).unwrap_or_default();
            let trim_left = begin.is_some() && trims(action);
            let (text, at) = (self.rest().get(..length).unwrap_or_default(), self.at);
            let text = if trim_left { text.trim_end_matches(is_space) } else { text };
            if !text.is_empty() {
                let text = text.to_owned();
                self.tokens.push(Token { kind: Kind::Text, text, at });
            }
            self.at += length;
            if begin.is_none() {
                return Ok(());
            }
            let marker = if trim_left { 4 } else { 2 };
            trim = match self.rest().get(marker..).is_some_and(|rest| rest.starts_with("/*")) {
                true => self.comment(marker)?,
                false => {
                    self.push(Kind::Left, marker);
                    self.action()?
                }
            };
        }
    }

    /// Passes a comment over: whether the blanks after it go, too.
    fn comment(&mut self, marker: usize) -> Result<bool, String> {
        let body = self.rest().get(marker..).unwrap_or_default();
        let end = body.find("*/").ok_or("unclosed comment")?;
        let after = body.get(end + 2..).unwrap_or_default();
        let (length, trim) = match after.strip_prefix("}}") {
            Some(_) => (2, false),
            None if after.starts_with(is_space) && after.get(1..4) == Some("-}}") => (4, true),
            None => return Err("comment ends before closing delimiter".to_owned()),
        };
        self.at += marker + end + 2 + length;
        Ok(trim)
    }

    /// To the end of an action: whether the blanks after it go.
    fn action(&mut self) -> Result<bool, String> {
        self.open = 0;
        loop {
            let rest = self.rest();
            let trim = rest.starts_with(is_space) && rest.get(1..4) == Some("-}}");
            if trim || rest.starts_with("}}") {
                if self.open > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                self.at += if trim { 2 } else { 0 };
                self.push(Kind::Right, 2);
                return Ok(trim);
            }
            let Some(first) = rest.chars().next() else {
                return Err("unclosed action".to_owned());
            };
            self.word(first)?;
        }
    }

    fn word(&mut self, first: char) -> Result<(), String> {
        let rest = self.rest();
        let next = rest.get(first.len_utf8()..).and_then(|rest| rest.chars().next());
        let digit = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_digit());
        match first {
            _ if is_space(first) => {
                // The last of them may belong to ` -}}`.
                let blanks = rest.len() - rest.trim_start_matches(is_space).len();
                let ends = rest.get(blanks..).is_some_and(|rest| rest.starts_with("-}}"));
                let blanks = if ends { blanks - 1 } else { blanks };
                self.push(Kind::Space, blanks);
            }
            '"' => self.quoted('"', Kind::Quoted, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::Char, "unterminated character constant")?,
            '`' => {
                let inner = rest.get(1..).and_then(|rest| rest.find('`'));
                let length = inner.ok_or("unterminated raw quoted string")? + 2;
                self.push(Kind::Raw, length);
            }
            '$' => self.name(Kind::Variable)?,
            '.' if digit(next) => self.number()?,
            '.' if next.is_some_and(is_name) => self.name(Kind::Field)?,
            '.' => self.push(Kind::Dot, 1),
            '+' | '-' | '0'..='9' => self.number()?,
            '|' => self.push(Kind::Pipe, 1),
            '=' => self.push(Kind::Assign, 1),
            ':' if next == Some('=') => self.push(Kind::Declare, 2),
            ':' => return Err("expected :=".to_owned()),
            '(' => {
                self.open += 1;
                self.push(Kind::Open, 1);
            }
            ')' => {
                self.open = self.open.checked_sub(1).ok_or("unexpected right paren")?;
                self.push(Kind::Close, 1);
            }
            _ if is_name(first) => self.name(Kind::Word)?,
            _ if first.is_ascii_graphic() => self.push(Kind::Other, 1),
            _ => return Err(format!("unrecognized character in action: {}", code_point(first))),
        }
        Ok(())
    }

    fn quoted(&mut self, mark: char, kind: Kind, open: &str) -> Result<(), String> {
        let mut escaped = false;
        for (at, letter) in self.rest().char_indices().skip(1) {
            match letter {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                letter if letter == mark => {
                    self.push(kind, at + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(open.to_owned())
    }

    /// A name, or a mark and a name.
    fn name(&mut self, kind: Kind) -> Result<(), String> {
        let mark = usize::from(kind != Kind::Word);
        let rest = self.rest();
        let name = rest.get(mark..).unwrap_or_default();
        let length = mark + name.find(|letter| !is_name(letter)).unwrap_or(name.len());
        if let Some(bad) = rest.get(length..).and_then(|rest| rest.chars().next())
            && !(is_space(bad) || matches!(bad, '.' | ',' | '|' | ':' | ')' | '(' | '}' | '='))
        {
            return Err(format!("bad character {}", code_point(bad)));
        }
        let kind = match rest.get(..length).unwrap_or_default() {
            word if kind == Kind::Word && KEYWORDS.contains(&word) => Kind::Keyword,
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            _ => kind,
        };
        self.push(kind, length);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['+', '-']));
        let unsigned = rest.get(sign..).unwrap_or_default();
        let mut length = sign;
        let mut before = ' ';
        for letter in unsigned.chars() {
            let exponent = matches!(before, 'e' | 'E' | 'p' | 'P') && matches!(letter, '+' | '-');
            if !(letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_') || exponent) {
                break;
            }
            before = letter;
            length += 1;
            // The first letter that no number has is told with what is before it.
            if !is_numeral(letter, unsigned) && !exponent {
                let bad = rest.get(..length).unwrap_or_default();
                return Err(format!("bad number syntax: {bad:?}"));
            }
        }
        self.push(Kind::Number, length);
        Ok(())
    }
}

fn is_numeral(letter: char, number: &str) -> bool {
    let prefix = number.get(..2).unwrap_or_default().to_ascii_lowercase();
    match prefix.as_str() {
        "0x" => letter.is_ascii_hexdigit() || matches!(letter, 'x' | 'X' | '_' | '.' | 'p' | 'P'),
        "0b" | "0o" => letter.is_ascii_digit() || "bBoO_".contains(letter),
        _ => letter.is_ascii_digit() || matches!(letter, '_' | '.' | 'e' | 'E' | 'i'),
    }
}

/// `U+0040 '@'`.
fn code_point(letter: char) -> String {
    format!("U+{:04X} '{letter}'", letter as u32)
}
