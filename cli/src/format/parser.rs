//! From the words of a template to its tree.

use super::{
    Value, function,
    lexer::{self, Kind as Word, Token},
    literal,
    template::{MAX_DEPTH, Templates},
    text::quote,
    tree::{Branch, Command, Kind, Node, Operand, Pipeline},
};

/// Reads a template and those that it defines.
pub(super) fn parse(source: &str) -> Result<(Vec<Node>, Templates), String> {
    let mut parser = Parser {
        tokens: lexer::tokens(source),
        next: 0,
        variables: vec![String::new()],
        depth: 0,
        ranges: 0,
        templates: Templates::new(),
    };
    parser.root().map_err(|why| {
        let at = parser.tokens.get(parser.next.saturating_sub(1)).map_or(0, |token| token.at);
        let line = 1 + source.get(..at).unwrap_or_default().matches('\n').count();
        format!("template: :{line}: {why}")
    })
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    /// Names of the variables that there are, without `$`.
    variables: Vec<String>,
    depth: usize,
    /// `range`s around.
    ranges: usize,
    templates: Templates,
}

/// What ended a list of nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Close {
    End,
    Else,
}

impl Parser {
    /// The next word. The last one is for ever the next.
    fn take(&mut self) -> Token {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    fn peek(&self) -> Token {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.next.min(last)).cloned().unwrap_or(Token {
            kind: Word::End,
            text: String::new(),
            at: 0,
        })
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Word::Space {
            self.next += 1;
        }
    }

    /// The next that is no blank.
    fn solid(&mut self) -> Token {
        self.skip_space();
        self.take()
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("nested too deeply".to_owned());
        }
        Ok(())
    }

    fn root(&mut self) -> Result<(Vec<Node>, Templates), String> {
        let mut nodes = Vec::new();
        while self.peek().kind != Word::End {
            if self.begins_definition() {
                self.definition()?;
                continue;
            }
            match self.node()? {
                Ok(node) => nodes.push(node),
                Err(Close::End) => return Err("unexpected {{end}}".to_owned()),
                Err(Close::Else) => return Err("unexpected {{else}}".to_owned()),
            }
        }
        Ok((nodes, std::mem::take(&mut self.templates)))
    }

    fn begins_definition(&mut self) -> bool {
        let begin = self.next;
        let is_action = self.take().kind == Word::Left;
        let word = self.solid();
        let found = is_action && word.kind == Word::Keyword && word.text == "define";
        if !found {
            self.next = begin;
        }
        found
    }

    fn definition(&mut self) -> Result<(), String> {
        let name = self.solid();
        let name = string(&name).ok_or_else(|| unexpected(&name, "define clause"))?;
        self.right("define clause")?;
        let body = self.of_its_own(|parser| parser.nodes())?;
        match body {
            (nodes, Close::End) => self.define(name, nodes),
            (_, Close::Else) => Err("unexpected {{else}} in define clause".to_owned()),
        }
    }

    /// Reads what sees no variables from around it, and no `range`.
    fn of_its_own<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let variables = std::mem::replace(&mut self.variables, vec![String::new()]);
        let ranges = std::mem::take(&mut self.ranges);
        let result = read(self)?;
        self.variables = variables;
        self.ranges = ranges;
        Ok(result)
    }

    /// An empty template does not replace one.
    fn define(&mut self, name: String, nodes: Vec<Node>) -> Result<(), String> {
        let is_empty = |nodes: &[Node]| {
            nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.templates.get(&name) {
            Some(_) if is_empty(&nodes) => Ok(()),
            Some(there) if !is_empty(there) => {
                Err(format!("multiple definition of template {}", quote(&name)))
            }
            _ => {
                self.templates.insert(name, nodes);
                Ok(())
            }
        }
    }

    /// Nodes to the next `end` or `else`.
    fn nodes(&mut self) -> Result<(Vec<Node>, Close), String> {
        self.deeper()?;
        let mut nodes = Vec::new();
        while self.peek().kind != Word::End {
            match self.node()? {
                Ok(node) => nodes.push(node),
                Err(close) => {
                    self.depth -= 1;
                    return Ok((nodes, close));
                }
            }
        }
        self.take();
        Err("unexpected EOF".to_owned())
    }

    /// A text or an action; or an end.
    fn node(&mut self) -> Result<Result<Node, Close>, String> {
        let token = self.take();
        match token.kind {
            Word::Text => Ok(Ok(Node::Text(token.text))),
            Word::Left => self.action(),
            _ => Err(unexpected(&token, "input")),
        }
    }

    fn action(&mut self) -> Result<Result<Node, Close>, String> {
        self.skip_space();
        let token = self.peek();
        if token.kind != Word::Keyword {
            let pipeline = self.pipeline("command", Word::Right)?;
            return Ok(Ok(Node::Print(pipeline)));
        }
        self.take();
        Ok(Ok(match token.text.as_str() {
            "end" => {
                self.right("end")?;
                return Ok(Err(Close::End));
            }
            "else" => {
                // What `else` begins with is left for who reads it.
                self.skip_space();
                let next = self.peek();
                if !(next.kind == Word::Keyword && matches!(next.text.as_str(), "if" | "with")) {
                    self.right("else")?;
                }
                return Ok(Err(Close::Else));
            }
            "if" => Node::If(self.branch("if")?),
            "with" => Node::With(self.branch("with")?),
            "range" => Node::Range(self.branch("range")?),
            "template" => self.template()?,
            "block" => self.block()?,
            word @ ("break" | "continue") => {
                self.right(word)?;
                if self.ranges == 0 {
                    return Err(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                if word == "break" { Node::Break } else { Node::Continue }
            }
            _ => return Err(unexpected(&token, "command")),
        }))
    }

    fn right(&mut self, context: &str) -> Result<(), String> {
        let token = self.solid();
        if token.kind == Word::Right { Ok(()) } else { Err(unexpected(&token, context)) }
    }

    fn branch(&mut self, word: &str) -> Result<Branch, String> {
        let known = self.variables.len();
        let pipeline = self.pipeline(word, Word::Right)?;
        let inside = usize::from(word == "range");
        self.ranges += inside;
        let (body, close) = self.nodes()?;
        self.ranges -= inside;
        let mut other = Vec::new();
        if close == Close::Else {
            let next = self.peek();
            if next.kind == Word::Keyword {
                // `else if` is an `if` in the `else`, and ends with the same `end`.
                let is_same = next.text == word && word != "range";
                if !is_same {
                    self.take();
                    return Err(unexpected(&next, "else"));
                }
                self.take();
                self.deeper()?;
                let branch = self.branch(word)?;
                self.depth -= 1;
                other.push(if word == "if" { Node::If(branch) } else { Node::With(branch) });
            } else {
                let (nodes, close) = self.nodes()?;
                if close != Close::End {
                    return Err("expected end; found {{else}}".to_owned());
                }
                other = nodes;
            }
        }
        self.variables.truncate(known);
        Ok(Branch { pipeline, body, other })
    }

    fn template(&mut self) -> Result<Node, String> {
        let token = self.solid();
        let name = string(&token).ok_or_else(|| unexpected(&token, "template clause"))?;
        self.skip_space();
        let dot = if self.peek().kind == Word::Right {
            self.take();
            None
        } else {
            Some(self.pipeline("template clause", Word::Right)?)
        };
        Ok(Node::Template(token.at, name, dot))
    }

    /// A definition that is used at once.
    fn block(&mut self) -> Result<Node, String> {
        let token = self.solid();
        let name = string(&token).ok_or_else(|| unexpected(&token, "block clause"))?;
        let dot = self.pipeline("block clause", Word::Right)?;
        let (nodes, close) = self.of_its_own(|parser| parser.nodes())?;
        if close != Close::End {
            return Err("unexpected {{else}} in block clause".to_owned());
        }
        self.define(name.clone(), nodes)?;
        Ok(Node::Template(token.at, name, Some(dot)))
    }

    fn pipeline(&mut self, context: &str, end: Word) -> Result<Pipeline, String> {
        self.deeper()?;
        let (variables, assigns) = self.declarations(context)?;
        let mut commands: Vec<Command> = Vec::new();
        loop {
            self.skip_space();
            let token = self.peek();
            if token.kind == end {
                self.take();
                break;
            }
            if !begins_operand(token.kind) {
                self.take();
                return Err(unexpected(&token, context));
            }
            commands.push(self.command()?);
        }
        if commands.is_empty() {
            return Err(format!("missing value for {context}"));
        }
        for (at, command) in commands.iter().enumerate().skip(1) {
            if let Some(Operand { kind: Kind::Dot | Kind::Nil | Kind::Literal(..), .. }) =
                command.operands.first()
            {
                return Err(format!("non executable command in pipeline stage {}", at + 1));
            }
        }
        self.depth -= 1;
        Ok(Pipeline { variables, assigns, commands })
    }

    /// `$a := `, `$a = `, and of a range `$a, $b := `.
    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), String> {
        self.skip_space();
        let begin = self.next;
        let mut names = Vec::new();
        loop {
            let variable = self.solid();
            if variable.kind != Word::Variable {
                break;
            }
            names.push(variable.text.trim_start_matches('$').to_owned());
            let next = self.solid();
            match next.kind {
                Word::Declare | Word::Assign => {
                    let assigns = next.kind == Word::Assign;
                    if !assigns {
                        self.variables.extend(names.iter().cloned());
                    }
                    return Ok((names, assigns));
                }
                Word::Other if next.text == "," => {
                    if context != "range" || names.len() > 1 {
                        return Err(format!("too many declarations in {context}"));
                    }
                }
                _ => break,
            }
        }
        self.next = begin;
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Result<Command, String> {
        self.skip_space();
        let at = self.peek().at;
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                operands.push(operand);
            }
            let token = self.peek();
            match token.kind {
                Word::Space => {}
                Word::Right | Word::Close => break,
                Word::Pipe => {
                    self.take();
                    break;
                }
                _ => {
                    self.take();
                    return Err(unexpected(&token, "operand"));
                }
            }
        }
        if operands.is_empty() {
            return Err("empty command".to_owned());
        }
        Ok(Command { at, operands })
    }

    /// A term with the fields that follow it.
    fn operand(&mut self) -> Result<Option<Operand>, String> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        let mut names = Vec::new();
        let at = self.peek().at;
        while self.peek().kind == Word::Field {
            names.push(self.take().text.trim_start_matches('.').to_owned());
        }
        if names.is_empty() {
            return Ok(Some(operand));
        }
        operand.kind = match operand.kind {
            Kind::Field(first) => Kind::Field(first.into_iter().chain(names).collect()),
            Kind::Variable(name, _) => Kind::Variable(name, names),
            Kind::Group(pipeline) => Kind::Chain(pipeline, names),
            kind => {
                let operand = Operand { at, kind };
                return Err(format!("unexpected . after term {}", quote(&operand.to_string())));
            }
        };
        operand.at = at;
        Ok(Some(operand))
    }

    fn term(&mut self) -> Result<Option<Operand>, String> {
        let token = self.peek();
        let literal = |value| Kind::Literal(value, token.text.clone());
        if !begins_operand(token.kind) {
            return Ok(None);
        }
        self.take();
        let kind = match token.kind {
            Word::Word if function::known(&token.text) => Kind::Function(token.text.clone()),
            Word::Word => return Err(format!("function {} not defined", quote(&token.text))),
            Word::Dot => Kind::Dot,
            Word::Nil => Kind::Nil,
            Word::Bool => literal(Value::Bool(token.text == "true")),
            Word::Number => literal(literal::number(&token.text)?),
            Word::Char => literal(Value::Int(
                literal::character(&token.text)
                    .ok_or_else(|| format!("malformed character constant: {}", token.text))?,
            )),
            Word::Quoted | Word::Raw => {
                literal(Value::Text(string(&token).ok_or("invalid syntax")?))
            }
            Word::Field => Kind::Field(vec![token.text.trim_start_matches('.').to_owned()]),
            Word::Variable => {
                let name = token.text.trim_start_matches('$');
                if !self.variables.iter().any(|known| known == name) {
                    return Err(format!("undefined variable {}", quote(&token.text)));
                }
                Kind::Variable(name.to_owned(), Vec::new())
            }
            _ => Kind::Group(self.pipeline("parenthesized pipeline", Word::Close)?),
        };
        Ok(Some(Operand { at: token.at, kind }))
    }
}

fn begins_operand(kind: Word) -> bool {
    matches!(
        kind,
        Word::Word
            | Word::Dot
            | Word::Nil
            | Word::Bool
            | Word::Number
            | Word::Char
            | Word::Quoted
            | Word::Raw
            | Word::Field
            | Word::Variable
            | Word::Open
    )
}

/// What a string says.
fn string(token: &Token) -> Option<String> {
    match token.kind {
        Word::Quoted => literal::unquote(&token.text),
        Word::Raw => Some(token.text.trim_matches('`').to_owned()),
        _ => None,
    }
}

fn unexpected(token: &Token, context: &str) -> String {
    match token.kind {
        Word::Error => token.text.clone(),
        Word::End => "unexpected EOF".to_owned(),
        Word::Keyword | Word::Dot | Word::Nil => {
            format!("unexpected <{}> in {context}", token.text)
        }
        _ => format!("unexpected {} in {context}", quote(&token.text)),
    }
}
