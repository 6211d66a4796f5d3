//! Go's text/template, as far as people use it for `--format`: fields, pipelines, variables,
//! `if`/`else`/`range`/`with`/`end`, comments, trimming, and docker's functions.

use super::{Value, function, lexer, parser::Parser, value::Zero};

/// A template that was read.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
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
pub(super) type Pipeline = Vec<Vec<Operand>>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Literal(Value),
    /// Names after the dot; none is the dot itself.
    Field(Vec<String>),
    /// A variable and fields of it; `$` has the empty name.
    Variable(String, Vec<String>),
    Function(String),
    Group(Pipeline, Vec<String>),
}

/// The most nesting: formats are short.
pub(super) const MAX_DEPTH: usize = 64;

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { pieces: lexer::split(text)?.into(), depth: 0 };
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
                        Value::Nil | Value::Zero(Zero::List | Zero::Map) => Vec::new(),
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

/// Fields that are maps of whatever people name: what is not in them is no error.
const MAPS: [&str; 5] = [".Actor.Attributes", ".Labels", ".Options", ".Ports", ".Networks"];

fn descend(value: &Value, names: &[String]) -> Result<Value, String> {
    let mut value = value;
    let mut path = String::new();
    for name in names {
        let is_map = MAPS.iter().any(|map| path.ends_with(map));
        path = format!("{path}.{name}");
        value = match value {
            Value::Object(_) | Value::Hidden(_) => match value.field(name) {
                Some(field) => field,
                None if is_map => &Value::Nil,
                None => {
                    return Err(format!("at <{path}>: map has no entry for key \"{name}\""));
                }
            },
            Value::Zero(Zero::Map) => &Value::Nil,
            Value::Nil | Value::Zero(Zero::Pointer) => {
                return Err(format!("at <{path}>: nil pointer evaluating {name}"));
            }
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
