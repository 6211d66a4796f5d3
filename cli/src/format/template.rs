//! Go's text/template: all of it but complex numbers and calls of functions that are values, of
//! which documents have none.

use std::collections::HashMap;

use super::{
    Value, function, parser,
    text::quote,
    tree::{Branch, Command, Kind, Node, Operand, Pipeline},
    value::Zero,
};

/// A template that was read.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    source: String,
    nodes: Vec<Node>,
    templates: Templates,
}

/// What `define` gave a name.
pub(super) type Templates = HashMap<String, Vec<Node>>;

/// The most nesting: formats are short.
pub(super) const MAX_DEPTH: usize = 64;
/// The most bytes of output, and rounds of all loops: a template can repeat itself without end.
const MAX_OUTPUT_BYTES: usize = 64 << 20;
const MAX_ROUNDS: usize = 1_000_000;

impl Template {
    /// Reads a template.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let (nodes, templates) = parser::parse(source)?;
        Ok(Self { source: source.to_owned(), nodes, templates })
    }

    /// Writes it with a value as the dot. Values pass through `show` when they are printed.
    pub(crate) fn render(
        &self,
        dot: &Value,
        show: &dyn Fn(String) -> String,
    ) -> Result<String, String> {
        self.run(dot, show, Mode::Typed)
    }

    /// As [`Self::render`]; where that fails, with the document as its JSON has it, as docker's
    /// `inspect` does.
    pub(crate) fn render_document(
        &self,
        document: &Value,
        show: &dyn Fn(String) -> String,
    ) -> Result<String, String> {
        self.render(document, show).or_else(|_| self.run(&document.raw(), show, Mode::Raw))
    }

    /// The line above a table: each field is what `heading` says.
    pub(crate) fn heading(&self, heading: &dyn Fn(&str) -> String) -> Result<String, String> {
        let mut names = Vec::new();
        let all = self.templates.values().flatten().chain(&self.nodes);
        all.for_each(|node| first_names(node, &mut names));
        let dot = names.iter().map(|name| (name.clone(), Value::Text(heading(name))));
        self.run(&Value::Object(dot.collect()), &|text| text, Mode::Heading)
    }

    fn run(
        &self,
        dot: &Value,
        show: &dyn Fn(String) -> String,
        mode: Mode,
    ) -> Result<String, String> {
        let mut scope = Scope {
            template: self,
            name: "",
            mode,
            variables: vec![(String::new(), dot.clone())],
            show,
            out: String::new(),
            depth: 0,
            rounds: 0,
        };
        scope.nodes(&self.nodes, dot)?;
        Ok(scope.out)
    }

    /// Whether a field is used anywhere.
    pub(crate) fn uses(&self, name: &str) -> bool {
        format!("{:?}{:?}", self.nodes, self.templates).contains(&format!("{name:?}"))
    }
}

/// What the dot is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// Structures, whose fields are known, and maps, which have or have not.
    Typed,
    /// Maps that must have what is asked for.
    Raw,
    /// Headings: functions leave them as they are.
    Heading,
}

/// Names of fields that stand first, wherever.
fn first_names(node: &Node, names: &mut Vec<String>) {
    match node {
        Node::Print(pipeline) => pipeline_names(pipeline, names),
        Node::If(branch) | Node::With(branch) | Node::Range(branch) => {
            pipeline_names(&branch.pipeline, names);
            branch.body.iter().chain(&branch.other).for_each(|node| first_names(node, names));
        }
        Node::Template(_, _, Some(pipeline)) => pipeline_names(pipeline, names),
        Node::Template(..) | Node::Text(_) | Node::Break | Node::Continue => {}
    }
}

fn pipeline_names(pipeline: &Pipeline, names: &mut Vec<String>) {
    for operand in pipeline.commands.iter().flat_map(|command| &command.operands) {
        match &operand.kind {
            Kind::Field(fields) | Kind::Variable(_, fields) => {
                names.extend(fields.first().cloned());
            }
            Kind::Group(inner) | Kind::Chain(inner, _) => pipeline_names(inner, names),
            Kind::Dot | Kind::Nil | Kind::Literal(..) | Kind::Function(_) => {}
        }
    }
}

/// How a list of nodes ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Scope<'a> {
    template: &'a Template,
    /// Of the template that runs.
    name: &'a str,
    mode: Mode,
    /// `$` has the empty name.
    variables: Vec<(String, Value)>,
    show: &'a dyn Fn(String) -> String,
    out: String,
    depth: usize,
    rounds: usize,
}

impl<'a> Scope<'a> {
    /// An error, with its place.
    fn wrong<T>(&self, at: usize, node: &str, why: &str) -> Result<T, String> {
        let before = self.template.source.get(..at).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let column = match before.rfind('\n') {
            Some(end) => at - end - 1,
            None => at,
        };
        let name = quote(self.name);
        Err(format!("template: :{line}:{column}: executing {name} at <{node}>: {why}"))
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::Next
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.print(&value);
                    }
                    Flow::Next
                }
                Node::If(branch) => {
                    let known = self.variables.len();
                    let value = self.pipeline(&branch.pipeline, dot)?;
                    let body = if value.truth() { &branch.body } else { &branch.other };
                    let flow = self.nodes(body, dot)?;
                    self.variables.truncate(known);
                    flow
                }
                Node::With(branch) => {
                    let known = self.variables.len();
                    let value = self.pipeline(&branch.pipeline, dot)?;
                    let flow = match value.truth() {
                        true => self.nodes(&branch.body, &value)?,
                        false => self.nodes(&branch.other, dot)?,
                    };
                    self.variables.truncate(known);
                    flow
                }
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Template(at, name, pipeline) => {
                    self.call(*at, name, pipeline.as_ref(), dot)?;
                    Flow::Next
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
            if self.out.len() > MAX_OUTPUT_BYTES {
                return Err("template: the output is too long".to_owned());
            }
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, value: &Value) {
        let text = match value {
            // What text/template prints where there is nothing.
            Value::Nil => "<no value>".to_owned(),
            value => value.to_string(),
        };
        let shown = (self.show)(text);
        self.out.push_str(&shown);
    }

    fn range(&mut self, branch: &'a Branch, dot: &Value) -> Result<Flow, String> {
        let known = self.variables.len();
        let pipeline = &branch.pipeline;
        let list = self.evaluate(pipeline, dot)?;
        let last = pipeline.commands.last();
        let items: Vec<(Value, Value)> = match list {
            Value::List(items) => (0_i64..).map(Value::Int).zip(items).collect(),
            Value::Map(mut fields) | Value::Object(mut fields) => {
                fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                fields.into_iter().map(|(key, value)| (Value::Text(key), value)).collect()
            }
            Value::Int(count) if count <= 0 => Vec::new(),
            Value::Int(count) if count <= 1 << 20 => {
                (0..count).map(|at| (Value::Int(at), Value::Int(at))).collect()
            }
            Value::Nil | Value::Zero(Zero::List | Zero::Map) => Vec::new(),
            other => {
                let at = last.map_or(0, |command| command.at);
                let why = format!("range can't iterate over {other}");
                return self.wrong(at, &pipeline.to_string(), &why);
            }
        };
        if items.is_empty() {
            let flow = self.nodes(&branch.other, dot)?;
            self.variables.truncate(known);
            return Ok(flow);
        }
        for (key, item) in items {
            self.rounds += 1;
            if self.rounds > MAX_ROUNDS {
                return Err("template: it repeats itself too often".to_owned());
            }
            match (pipeline.variables.as_slice(), pipeline.assigns) {
                ([index, element], assigns) => {
                    self.set(index, key, assigns, last)?;
                    self.set(element, item.clone(), assigns, last)?;
                }
                ([element], assigns) => self.set(element, item.clone(), assigns, last)?,
                _ => {}
            }
            let flow = self.nodes(&branch.body, &item)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn set(
        &mut self,
        name: &str,
        value: Value,
        assigns: bool,
        at: Option<&Command>,
    ) -> Result<(), String> {
        if !assigns {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, there)) => {
                *there = value;
                Ok(())
            }
            None => {
                let (at, node) = at.map_or((0, String::new()), |at| (at.at, at.to_string()));
                self.wrong(at, &node, &format!("undefined variable: ${name}"))
            }
        }
    }

    /// Runs another template.
    fn call(
        &mut self,
        at: usize,
        name: &'a str,
        pipeline: Option<&'a Pipeline>,
        dot: &Value,
    ) -> Result<(), String> {
        let node = || match pipeline {
            Some(pipeline) => format!("{{{{template {} {pipeline}}}}}", quote(name)),
            None => format!("{{{{template {}}}}}", quote(name)),
        };
        let template = self.template;
        let Some(nodes) = template.templates.get(name) else {
            return self.wrong(at, &node(), &format!("template {} not defined", quote(name)));
        };
        if self.depth == MAX_DEPTH {
            return self.wrong(
                at,
                &node(),
                &format!("exceeded maximum template depth ({MAX_DEPTH})"),
            );
        }
        let dot = match pipeline {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nil,
        };
        let own = vec![(String::new(), dot.clone())];
        let (variables, outer) = (std::mem::replace(&mut self.variables, own), self.name);
        (self.name, self.depth) = (name, self.depth + 1);
        self.nodes(nodes, &dot)?;
        (self.name, self.depth, self.variables) = (outer, self.depth - 1, variables);
        Ok(())
    }

    /// A pipeline's value, which its variables get.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.evaluate(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(name, value.clone(), pipeline.assigns, pipeline.commands.last())?;
        }
        Ok(value)
    }

    fn evaluate(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    /// `last` is the value of the command before.
    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, String> {
        let Some((first, rest)) = command.operands.split_first() else { return Ok(Value::Nil) };
        let has_arguments = !rest.is_empty() || last.is_some();
        match &first.kind {
            Kind::Function(name) => self.function(name, first, command, dot, last),
            Kind::Field(names) | Kind::Variable(_, names) | Kind::Chain(_, names)
                if !names.is_empty() =>
            {
                let (name, path) =
                    names.split_last().map_or(("", names.as_slice()), |(n, p)| (n, p));
                let start = match &first.kind {
                    Kind::Variable(variable, _) => self.variable(variable, first)?,
                    Kind::Chain(pipeline, _) => self.pipeline(pipeline, dot)?,
                    _ => dot.clone(),
                };
                let receiver = self.descend(start, path, first)?;
                match receiver.field(name) {
                    Some(Value::Hidden(entries)) => {
                        self.method(name, entries, first, rest, dot, last)
                    }
                    Some(_) if has_arguments && self.mode == Mode::Heading => {
                        self.method(name, &[], first, rest, dot, last)
                    }
                    Some(_) if has_arguments => {
                        let why = format!("{name} is not a method but has arguments");
                        self.wrong(first.at, &first.to_string(), &why)
                    }
                    _ => self.descend(receiver, &[name.to_owned()], first),
                }
            }
            _ if has_arguments => {
                let why = format!("can't give argument to non-function {first}");
                self.wrong(first.at, &first.to_string(), &why)
            }
            Kind::Nil => self.wrong(first.at, "nil", "nil is not a command"),
            _ => self.operand(first, dot),
        }
    }

    /// `.Label "key"`.
    fn method(
        &mut self,
        name: &str,
        entries: &[(String, Value)],
        first: &Operand,
        rest: &[Operand],
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, String> {
        let mut arguments = Vec::new();
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        match arguments.as_slice() {
            [Value::Text(key)] if self.mode == Mode::Heading => {
                let last = key.rsplit('.').next().unwrap_or_default();
                Ok(Value::Text(last.replace(['-', '_'], " ")))
            }
            [Value::Text(key)] => {
                let found = entries.iter().find(|(known, _)| known == key);
                Ok(found.map_or_else(|| Value::Text(String::new()), |(_, value)| value.clone()))
            }
            [other] => {
                let why = format!("expected string; found {other}");
                self.wrong(first.at, &first.to_string(), &why)
            }
            others => {
                let count = others.len();
                let why = format!("wrong number of args for {name}: want 1 got {count}");
                self.wrong(first.at, &first.to_string(), &why)
            }
        }
    }

    fn function(
        &mut self,
        name: &str,
        first: &Operand,
        command: &Command,
        dot: &Value,
        last: Option<Value>,
    ) -> Result<Value, String> {
        let rest = command.operands.get(1..).unwrap_or_default();
        let count = rest.len() + usize::from(last.is_some());
        if let Err(want) = function::takes(name, count) {
            let why = format!("wrong number of args for {name}: want {want} got {count}");
            return self.wrong(first.at, name, &why);
        }
        // These two look no further than they must.
        if let "and" | "or" = name {
            let mut value = Value::Nil;
            for operand in rest {
                value = self.operand(operand, dot)?;
                if value.truth() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut arguments = Vec::new();
        for (at, operand) in rest.iter().enumerate() {
            let value = self.operand(operand, dot)?;
            let is_literal = matches!(operand.kind, Kind::Literal(..));
            if let Err(why) = function::accepts(name, at, &value, is_literal.then_some(operand)) {
                return self.wrong(operand.at, &operand.to_string(), &why);
            }
            arguments.push(value);
        }
        if let Some(value) = last {
            if let Err(why) = function::accepts(name, arguments.len(), &value, None) {
                return self.wrong(command.at, &command.to_string(), &why);
            }
            arguments.push(value);
        }
        // A heading names the column, whatever is done with its values.
        if self.mode == Mode::Heading && function::is_of_values(name) {
            return Ok(arguments.into_iter().next().unwrap_or(Value::Nil));
        }
        match function::call(name, arguments) {
            Ok(value) => Ok(value),
            Err(why) => {
                let why = format!("error calling {name}: {why}");
                self.wrong(command.at, &command.to_string(), &why)
            }
        }
    }

    fn variable(&self, name: &str, operand: &Operand) -> Result<Value, String> {
        match self.variables.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => Ok(value.clone()),
            None => {
                let why = format!("undefined variable: ${name}");
                self.wrong(operand.at, &operand.to_string(), &why)
            }
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match &operand.kind {
            Kind::Dot => Ok(dot.clone()),
            Kind::Nil => Ok(Value::Nil),
            Kind::Literal(value, _) => Ok(value.clone()),
            Kind::Group(pipeline) => self.pipeline(pipeline, dot),
            Kind::Variable(name, names) if names.is_empty() => self.variable(name, operand),
            _ => {
                let command = Command { at: operand.at, operands: vec![operand.clone()] };
                self.command(&command, dot, None)
            }
        }
    }

    fn descend(&self, start: Value, names: &[String], node: &Operand) -> Result<Value, String> {
        let mut value = start;
        for name in names {
            let why = match (&value, value.field(name)) {
                (_, Some(field)) => {
                    value = field.clone();
                    continue;
                }
                (Value::Map(_) | Value::Zero(Zero::Map), None) if self.mode == Mode::Typed => {
                    value = Value::Nil;
                    continue;
                }
                // As Go: what is not in a map can be asked for more.
                (Value::Nil, None) if self.mode == Mode::Typed => {
                    value = Value::Nil;
                    continue;
                }
                (Value::Map(_), None) => format!("map has no entry for key {}", quote(name)),
                (Value::Nil | Value::Zero(Zero::Pointer), None) => {
                    format!("nil pointer evaluating interface {{}}.{name}")
                }
                (Value::Object(_), None) => format!("can't evaluate field {name}"),
                (value, None) => {
                    let kind = match self.mode {
                        Mode::Raw if !matches!(node.kind, Kind::Chain(..)) => "interface {}",
                        _ => value.type_name(),
                    };
                    format!("can't evaluate field {name} in type {kind}")
                }
            };
            return self.wrong(node.at, &node.to_string(), &why);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
