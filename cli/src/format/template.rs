//! Go's text/template, as far as people use it for `--format`: fields, pipelines, variables,
//! `if`/`else`/`range`/`with`/`end`, comments, trimming, and docker's functions.

use super::{Value, function};

/// A template that was read.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    /// The variable, and its value.
    Set(String, Pipeline),
    If(Vec<(Option<Pipeline>, Vec<Node>)>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// Index and element variables, the list, the body, and what there is for an empty one.
    Range(Option<String>, Option<String>, Pipeline, Vec<Node>, Vec<Node>),
}

/// Commands, each of which gets the value of the one before as its last argument.
type Pipeline = Vec<Vec<Operand>>;

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    /// Names after the dot; none is the dot itself.
    Field(Vec<String>),
    /// A variable and fields of it; `$` has the empty name.
    Variable(String, Vec<String>),
    Function(String),
    Group(Pipeline, Vec<String>),
}

/// The most nesting, and the most steps of one execution: formats are short.
const MAX_DEPTH: usize = 64;

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { pieces: split(text)?.into(), depth: 0 };
        let (nodes, end) = parser.nodes()?;
        match end {
            None => Ok(Self { nodes }),
            Some(word) => Err(format!("template: :1: unexpected {{{{{word}}}}}")),
        }
    }

    /// Writes it with a value as the dot. Values pass through `show` when they are printed.
    pub(crate) fn render(
        &self,
        dot: &Value,
        show: &dyn Fn(String) -> String,
    ) -> Result<String, String> {
        let mut scope = Scope { root: dot, variables: Vec::new(), show, out: String::new() };
        scope.run(&self.nodes, dot)?;
        Ok(scope.out)
    }

    /// The fields that are printed for themselves, each with its argument, if any: a table's
    /// heading is made of them.
    pub(crate) fn map_fields(&self, heading: &dyn Fn(&str, Option<&str>) -> String) -> String {
        let mut line = String::new();
        for node in &self.nodes {
            match node {
                Node::Text(text) => line.push_str(text),
                Node::Print(pipeline) => {
                    if let Some((name, argument)) = first_field(pipeline) {
                        line.push_str(&heading(&name, argument.as_deref()));
                    }
                }
                _ => {}
            }
        }
        line
    }

    /// Whether a field is used anywhere at the top.
    pub(crate) fn uses(&self, name: &str) -> bool {
        format!("{:?}", self.nodes).contains(&format!("{name:?}"))
    }
}

fn first_field(pipeline: &Pipeline) -> Option<(String, Option<String>)> {
    for command in pipeline {
        for (at, operand) in command.iter().enumerate() {
            match operand {
                Operand::Field(names) if !names.is_empty() => {
                    let argument = match command.get(at + 1) {
                        Some(Operand::Literal(Value::Text(text))) if at == 0 => Some(text.clone()),
                        _ => None,
                    };
                    return names.last().map(|name| (name.clone(), argument));
                }
                Operand::Group(inner, _) => {
                    if let Some(found) = first_field(inner) {
                        return Some(found);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
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
fn split(mut text: &str) -> Result<Vec<Piece>, String> {
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

struct Parser {
    pieces: std::collections::VecDeque<Piece>,
    depth: usize,
}

impl Parser {
    /// Nodes to the next `end` or `else`, whose words are returned.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("template: :1: nested too deeply".to_owned());
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.pop_front() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            match tokens.first() {
                None => return Err("template: :1: missing value for command".to_owned()),
                Some(Token::Word(word)) => match word.as_str() {
                    "end" | "else" => {
                        self.depth -= 1;
                        if word == "else" && tokens.len() > 1 {
                            // `else if` is an `if` within, that ends with the same `end`.
                            self.pieces.push_front(Piece::Action(tokens[1..].to_vec()));
                            return Ok((nodes, Some("else if".to_owned())));
                        }
                        return Ok((nodes, Some(word.clone())));
                    }
                    "if" => nodes.push(self.condition(&tokens[1..])?),
                    "with" => {
                        let pipeline = pipeline(&tokens[1..])?;
                        let (body, other) = self.bodies()?;
                        nodes.push(Node::With(pipeline, body, other));
                    }
                    "range" => nodes.push(self.range(&tokens[1..])?),
                    _ => nodes.push(Node::Print(pipeline(&tokens)?)),
                },
                Some(Token::Variable(name, names))
                    if names.is_empty() && tokens.get(1) == Some(&Token::Assign) =>
                {
                    nodes.push(Node::Set(name.clone(), pipeline(&tokens[2..])?));
                }
                Some(_) => nodes.push(Node::Print(pipeline(&tokens)?)),
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    fn condition(&mut self, tokens: &[Token]) -> Result<Node, String> {
        let mut branches = Vec::new();
        let mut condition = Some(pipeline(tokens)?);
        loop {
            let (body, end) = self.nodes()?;
            let last = condition.is_none();
            branches.push((condition.take(), body));
            match end.as_deref() {
                Some("end") => return Ok(Node::If(branches)),
                Some("else") if !last => {}
                Some("else if") if !last => match self.pieces.pop_front() {
                    Some(Piece::Action(tokens))
                        if tokens.first() == Some(&Token::Word("if".to_owned())) =>
                    {
                        condition = Some(pipeline(&tokens[1..])?);
                    }
                    _ => return Err("template: :1: unexpected {{else}}".to_owned()),
                },
                Some(_) => return Err("template: :1: unexpected {{else}}".to_owned()),
                None => return Err("template: :1: unexpected EOF".to_owned()),
            }
        }
    }

    fn range(&mut self, tokens: &[Token]) -> Result<Node, String> {
        let (index, element, rest) = match tokens {
            [
                Token::Variable(index, _),
                Token::Comma,
                Token::Variable(element, _),
                Token::Assign,
                rest @ ..,
            ] => (Some(index.clone()), Some(element.clone()), rest),
            [Token::Variable(element, _), Token::Assign, rest @ ..] => {
                (None, Some(element.clone()), rest)
            }
            rest => (None, None, rest),
        };
        let list = pipeline(rest)?;
        let (body, other) = self.bodies()?;
        Ok(Node::Range(index, element, list, body, other))
    }

    /// A body and what comes after `else`.
    fn bodies(&mut self) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (body, end) = self.nodes()?;
        match end.as_deref() {
            Some("end") => Ok((body, Vec::new())),
            Some("else") => match self.nodes()? {
                (other, Some(end)) if end == "end" => Ok((body, other)),
                _ => Err("template: :1: unexpected EOF".to_owned()),
            },
            _ => Err("template: :1: unexpected EOF".to_owned()),
        }
    }
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let mut rest = tokens;
    let pipeline = commands(&mut rest, 0)?;
    if rest.is_empty() {
        Ok(pipeline)
    } else {
        Err("template: :1: unexpected right paren".to_owned())
    }
}

/// Reads to the end, or to a parenthesis that closes.
fn commands(tokens: &mut &[Token], depth: usize) -> Result<Pipeline, String> {
    if depth > MAX_DEPTH {
        return Err("template: :1: nested too deeply".to_owned());
    }
    let mut pipeline = vec![Vec::new()];
    while let Some((token, rest)) = tokens.split_first() {
        let operand = match token {
            Token::Close(_) => break,
            Token::Pipe => {
                pipeline.push(Vec::new());
                *tokens = rest;
                continue;
            }
            Token::Open => {
                *tokens = rest;
                let inner = commands(tokens, depth + 1)?;
                let Some((Token::Close(names), _)) = tokens.split_first() else {
                    return Err("template: :1: unclosed left paren".to_owned());
                };
                Operand::Group(inner, names.clone())
            }
            Token::Literal(value) => Operand::Literal(value.clone()),
            Token::Field(names) => Operand::Field(names.clone()),
            Token::Variable(name, names) => Operand::Variable(name.clone(), names.clone()),
            Token::Word(word) if function::known(word) => Operand::Function(word.clone()),
            Token::Word(word) => {
                return Err(format!("template: :1: function {word:?} not defined"));
            }
            Token::Comma | Token::Assign => {
                return Err("template: :1: unexpected operator in operand".to_owned());
            }
        };
        if let Some(command) = pipeline.last_mut() {
            command.push(operand);
        }
        *tokens = tokens.get(1..).unwrap_or_default();
    }
    if pipeline.iter().any(Vec::is_empty) {
        return Err("template: :1: missing value for command".to_owned());
    }
    Ok(pipeline)
}

struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    show: &'a dyn Fn(String) -> String,
    out: String,
}

impl Scope<'_> {
    fn run(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let outer = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = match self.evaluate(pipeline, dot)? {
                        // What text/template prints where there is nothing.
                        Value::Nil => "<no value>".to_owned(),
                        value => value.to_string(),
                    };
                    let shown = (self.show)(value);
                    self.out.push_str(&shown);
                }
                Node::Set(name, pipeline) => {
                    let value = self.evaluate(pipeline, dot)?;
                    self.variables.push((name.clone(), value));
                }
                Node::If(branches) => {
                    for (condition, body) in branches {
                        let holds = match condition {
                            Some(condition) => self.evaluate(condition, dot)?.truth(),
                            None => true,
                        };
                        if holds {
                            self.run(body, dot)?;
                            break;
                        }
                    }
                }
                Node::With(pipeline, body, other) => {
                    let value = self.evaluate(pipeline, dot)?;
                    if value.truth() { self.run(body, &value)? } else { self.run(other, dot)? }
                }
                Node::Range(index, element, list, body, other) => {
                    let items: Vec<(Value, Value)> = match self.evaluate(list, dot)? {
                        Value::List(items) => (0_i64..).map(Value::Int).zip(items).collect(),
                        Value::Object(fields) | Value::Hidden(fields) => {
                            let mut fields = fields;
                            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                            fields
                                .into_iter()
                                .map(|(key, value)| (Value::Text(key), value))
                                .collect()
                        }
                        Value::Nil => Vec::new(),
                        other => return Err(format!("range can't iterate over {other}")),
                    };
                    if items.is_empty() {
                        self.run(other, dot)?;
                    }
                    for (at, item) in items {
                        let here = self.variables.len();
                        self.variables.extend(index.clone().map(|name| (name, at)));
                        self.variables.extend(element.clone().map(|name| (name, item.clone())));
                        self.run(body, &item)?;
                        self.variables.truncate(here);
                    }
                }
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn evaluate(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in pipeline {
            let mut arguments = Vec::new();
            let Some((first, rest)) = command.split_first() else { continue };
            for operand in rest {
                arguments.push(self.operand(operand, dot)?);
            }
            arguments.extend(last.take());
            last = Some(match first {
                Operand::Function(name) => function::call(name, arguments)?,
                // `.Label "key"`: docker's one method with an argument is an entry of a map.
                first => match (self.operand(first, dot)?, arguments.as_slice()) {
                    (value, []) => value,
                    (value @ (Value::Object(_) | Value::Hidden(_)), [Value::Text(key)]) => {
                        value.field(key).cloned().unwrap_or_else(|| Value::Text(String::new()))
                    }
                    (value, _) => {
                        return Err(format!("can't give argument to non-function {value}"));
                    }
                },
            });
        }
        last.ok_or_else(|| "missing value for command".to_owned())
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Field(names) => descend(dot, names),
            Operand::Variable(name, names) if name.is_empty() => descend(self.root, names),
            Operand::Variable(name, names) => {
                let (_, value) = self
                    .variables
                    .iter()
                    .rev()
                    .find(|(known, _)| known == name)
                    .ok_or_else(|| format!("undefined variable \"${name}\""))?;
                descend(value, names)
            }
            Operand::Function(name) => function::call(name, Vec::new()),
            Operand::Group(pipeline, names) => descend(&self.evaluate(pipeline, dot)?, names),
        }
    }
}

fn descend(value: &Value, names: &[String]) -> Result<Value, String> {
    let mut value = value;
    let mut path = String::new();
    for name in names {
        path = format!("{path}.{name}");
        value = match value {
            Value::Object(_) | Value::Hidden(_) => value
                .field(name)
                .ok_or_else(|| format!("at <{path}>: map has no entry for key \"{name}\""))?,
            Value::Nil => return Err(format!("at <{path}>: nil pointer evaluating {name}")),
            _ => return Err(format!("at <{path}>: can't evaluate field {name}")),
        };
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let dot: Value = serde_json::from_str(
            r#"{"Name":"one","N":5,"On":true,"Off":false,"Empty":"","List":["a","b"],"Nil":null,
                "Labels":{"x.y":"1","a":"<b>"},"Mounts":[{"D":"/x"},{"D":"/y"}],"Config":{"Cmd":["sh","-c"]}}"#,
        )
        .unwrap();
        Template::parse(template)?.render(&dot, &|text| text)
    }

    #[test]
    fn templates_print_what_go_prints() {
        for (template, text) in [
            ("{{.Name}}", "one"),
            ("a {{ .N }} b", "a 5 b"),
            ("{{.List}} {{.Labels}} {{.Config.Cmd}}", "[a b] map[a:<b> x.y:1] [sh -c]"),
            ("{{json .Labels}}", r#"{"x.y":"1","a":"\u003cb\u003e"}"#),
            ("{{json .Name}}{{json .Nil}}", "\"one\"null"),
            ("{{.Nil}}", "<no value>"),
            ("{{index .Labels \"x.y\"}} {{index .List 1}}", "1 b"),
            ("{{.Labels \"x.y\"}}|{{.Labels \"no\"}}", "1|"),
            ("{{index .Labels \"none\"}}", ""),
            ("{{range .Mounts}}{{.D}} {{end}}", "/x /y "),
            ("{{range $i, $m := .Mounts}}{{$i}}={{$m.D}};{{end}}", "0=/x;1=/y;"),
            ("{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}", "a:<b> x.y:1 "),
            ("{{range .Nil}}x{{else}}none{{end}}", "none"),
            ("{{if .On}}yes{{else}}no{{end}}", "yes"),
            ("{{if .Off}}a{{else if eq .N 5}}b{{else}}c{{end}}", "b"),
            ("{{if and .On (not .Off)}}x{{end}}", "x"),
            ("{{if or .Off .Empty}}x{{else}}y{{end}}", "y"),
            ("{{with .Config}}{{len .Cmd}}{{end}}", "2"),
            ("{{.Name | upper | printf \"%s-%s\" \"x\"}}", "x-ONE"),
            ("{{upper .Name}}{{lower \"ABC\"}}{{title .Name}}", "ONEabcOne"),
            ("{{join .List \",\"}}", "a,b"),
            ("{{split \"a,b\" \",\"}}", "[a b]"),
            ("{{println .Name .N}}", "one 5\n"),
            ("{{printf \"%-5s|%5d|%q|%v\" .Name .N .Name .On}}", "one  |    5|\"one\"|true"),
            ("{{truncate .Name 2}}{{pad .Name 1 2}}", "on one  "),
            ("{{slice .Name 1 2}}", "n"),
            ("{{eq .Name \"x\" \"one\"}}{{ne .N 5}}{{lt .N 6}}{{ge .N 6}}", "truefalsetruefalse"),
            ("{{$x := .Name}}{{$x}}{{$.N}}", "one5"),
            ("a  {{- /* c */ -}}  b {{- .N -}} c", "ab5c"),
            ("{{(index .Mounts 0).D}}", "/x"),
            ("{{\"\\\"q\\\"\"}}{{`r\\n`}}", "\"q\"r\\n"),
            ("{{\"}}\"}}", "}}"),
            ("{{len .Name}}{{.}}", "3"),
        ] {
            let rendered = render(template).unwrap_or_else(|error| panic!("{template}: {error}"));
            if template.ends_with("{{.}}") {
                assert!(rendered.starts_with("3map[Config:map["), "{rendered}");
            } else {
                assert_eq!(rendered, text, "{template}");
            }
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (template, words) in [
            ("{{.ID", "template: :1: unclosed action"),
            ("{{foo .}}", "template: :1: function \"foo\" not defined"),
            ("{{if .On}}", "template: :1: unexpected EOF"),
            ("{{end}}", "template: :1: unexpected {{end}}"),
            ("{{.Nosuch}}", "at <.Nosuch>: map has no entry for key \"Nosuch\""),
            ("{{.Config.X}}", "at <.Config.X>: map has no entry for key \"X\""),
            ("{{$x}}", "undefined variable \"$x\""),
            ("{{}}", "template: :1: missing value for command"),
            ("{{(.N}}", "template: :1: unclosed left paren"),
            ("{{index .List 9}}", "error calling index: index out of range: 9"),
        ] {
            assert_eq!(render(template).unwrap_err(), words, "{template}");
        }
        assert!(render(&"{{if .On}}".repeat(100)).is_err());
        assert!(render(&format!("{{{{{}1}}}}", "(".repeat(100))).is_err());
    }
}
