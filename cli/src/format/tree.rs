//! What a template says, and how its parts are written in errors.

use std::fmt;

use super::Value;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    /// Another template: its place, its name, and the dot that it gets.
    Template(usize, String, Option<Pipeline>),
    Break,
    Continue,
}

/// A condition or a list, what comes for it, and what comes else.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) other: Vec<Node>,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline {
    /// Variables that get the value.
    pub(super) variables: Vec<String>,
    /// They are there already.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// A function, a field or a value, with arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) operands: Vec<Operand>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Dot,
    Nil,
    /// A literal and its source.
    Literal(Value, String),
    /// Names after a dot.
    Field(Vec<String>),
    /// A variable's name without `$`, and fields of it.
    Variable(String, Vec<String>),
    Function(String),
    Group(Pipeline),
    /// Fields of a group.
    Chain(Pipeline, Vec<String>),
}

fn fields(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    names.iter().try_for_each(|name| write!(f, ".{name}"))
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Dot => f.write_str("."),
            Kind::Nil => f.write_str("nil"),
            Kind::Literal(_, source) => f.write_str(source),
            Kind::Field(names) => fields(f, names),
            Kind::Variable(name, names) => {
                write!(f, "${name}")?;
                fields(f, names)
            }
            Kind::Function(name) => f.write_str(name),
            Kind::Group(pipeline) => write!(f, "({pipeline})"),
            Kind::Chain(pipeline, names) => {
                write!(f, "({pipeline})")?;
                fields(f, names)
            }
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, operand) in self.operands.iter().enumerate() {
            write!(f, "{}{operand}", if at > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.variables.iter().enumerate() {
            write!(f, "{}${name}", if at > 0 { ", " } else { "" })?;
        }
        if !self.variables.is_empty() {
            f.write_str(if self.assigns { " = " } else { " := " })?;
        }
        for (at, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if at > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}
