//! From the pieces of a template to its tree.

use std::collections::VecDeque;

use super::{
    function,
    lexer::{Piece, Token},
    template::{MAX_DEPTH, Node, Operand, Pipeline},
};

/// Reads pieces from the front.
pub(super) struct Parser {
    pub(super) pieces: VecDeque<Piece>,
    pub(super) depth: usize,
}

impl Parser {
    /// Nodes to the next `end` or `else`, whose words are returned.
    pub(super) fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>), String> {
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
