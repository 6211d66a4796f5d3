//! `tag`: what a log's entries are called, by docker's template.
//!
//! Of Go's templates it has what tags are made of: text, a field, a function of a field before
//! it or after a `|`, and `(.ExtraAttributes nil).NAME`. The rest is refused, by name.

use std::collections::BTreeMap;

use hull_manager_core::{Error, Result};

/// The template of a log that is given none, where a tag is needed.
pub(super) const DEFAULT: &str = "{{.ID}}";

/// What a tag can say.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    pub(super) image_id: &'a str,
    pub(super) command: String,
    pub(super) attributes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Value { source: Source, functions: Vec<Function> },
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Field(&'static str),
    Attribute(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Lower,
    Upper,
    Title,
    Json,
    /// To so many letters.
    Truncate(usize),
}

const FIELDS: [&str; 13] = [
    "ID",
    "FullID",
    "Name",
    "ImageID",
    "ImageFullID",
    "ImageName",
    "DaemonName",
    "Command",
    "Hostname",
    "ContainerID",
    "ContainerName",
    "ContainerImageID",
    "ContainerImageName",
];

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tag(Vec<Part>);

impl Tag {
    /// Reads a template.
    pub(super) fn parse(template: &str) -> Result<Self> {
        let refuse = |what: String| Error::invalid(format!("log opt tag: {what}"));
        let (mut parts, mut rest) = (Vec::new(), template);
        while let Some((text, after)) = rest.split_once("{{") {
            let (action, after) =
                after.split_once("}}").ok_or_else(|| refuse("unclosed action".to_owned()))?;
            let mut text = text;
            let mut action = action;
            rest = after;
            if let Some(trimmed) = action.strip_prefix("- ") {
                (text, action) = (text.trim_end(), trimmed);
            }
            if let Some(trimmed) = action.strip_suffix(" -") {
                (rest, action) = (rest.trim_start(), trimmed);
            }
            parts.push(Part::Text(text.to_owned()));
            let value = value(action)
                .map_err(|what| refuse(format!("{{{{{}}}}}: {what}", action.trim())))?;
            parts.push(value);
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// The tag, without control characters, which would end a message.
    pub(super) fn text(&self, facts: &Facts<'_>) -> String {
        let text: String = self.0.iter().map(|part| part.text(facts)).collect();
        text.replace(char::is_control, "_")
    }
}

/// What stands between `{{` and `}}`.
fn value(action: &str) -> Result<Part, String> {
    let mut stages = action.split('|');
    let (source, mut functions) = operand(stages.next().unwrap_or_default().trim())?;
    for stage in stages {
        functions.push(match function(stage.trim())? {
            Function::Truncate(_) => return Err("truncate has its text before its number".into()),
            function => function,
        });
    }
    Ok(Part::Value { source, functions })
}

fn operand(text: &str) -> Result<(Source, Vec<Function>), String> {
    if let Some(rest) = text.strip_prefix("(.ExtraAttributes nil).") {
        return Ok((Source::Attribute(rest.to_owned()), Vec::new()));
    }
    if let Some(name) = text.strip_prefix('.') {
        let known = FIELDS.iter().find(|field| **field == name);
        let field = known.ok_or_else(|| {
            format!("there is no field {name:?}; there are {}", FIELDS.join(", "))
        })?;
        return Ok((Source::Field(field), Vec::new()));
    }
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    if rest.is_empty() {
        return Err("a field begins with a dot".to_owned());
    }
    let (rest, count) = match name {
        "truncate" => rest.rsplit_once(' ').unwrap_or((rest, "")),
        _ => (rest, ""),
    };
    let (source, mut functions) = operand(rest.trim())?;
    functions.push(match name {
        "truncate" => {
            Function::Truncate(count.parse().map_err(|_| "truncate needs a number".to_owned())?)
        }
        _ => function(name)?,
    });
    Ok((source, functions))
}

fn function(name: &str) -> Result<Function, String> {
    Ok(match name {
        "lower" => Function::Lower,
        "upper" => Function::Upper,
        "title" => Function::Title,
        "json" => Function::Json,
        "truncate" => Function::Truncate(0),
        _ => {
            return Err(format!(
                "there is no function {name:?}; there are lower, upper, title, json, truncate"
            ));
        }
    })
}

impl Part {
    fn text(&self, facts: &Facts<'_>) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Value { source, functions } => {
                functions.iter().fold(source.value(facts), |text, function| function.of(&text))
            }
        }
    }
}

impl Source {
    fn value(&self, facts: &Facts<'_>) -> String {
        let short = |text: &str| text.get(..12).unwrap_or(text).to_owned();
        match self {
            Self::Attribute(name) => {
                // As Go prints what a map does not have.
                facts.attributes.get(name).cloned().unwrap_or_default()
            }
            Self::Field(name) => match *name {
                "ID" => short(facts.id),
                "Name" => facts.name.to_owned(),
                "ContainerName" => format!("/{}", facts.name),
                "FullID" | "ContainerID" => facts.id.to_owned(),
                "ImageID" => short(facts.image_id),
                "ImageFullID" | "ContainerImageID" => facts.image_id.to_owned(),
                "ImageName" | "ContainerImageName" => facts.image.to_owned(),
                "Command" => facts.command.clone(),
                "Hostname" => crate::prepare::host_name(),
                // DaemonName: docker's is "docker".
                _ => "hull".to_owned(),
            },
        }
    }
}

impl Function {
    fn of(self, text: &str) -> String {
        match self {
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Title => {
                let mut after_letter = false;
                let title = |c: char| {
                    let first = !std::mem::replace(&mut after_letter, c.is_alphanumeric());
                    if first { c.to_uppercase().collect() } else { c.to_string() }
                };
                text.chars().map(title).collect()
            }
            Self::Json => serde_json::Value::from(text).to_string(),
            Self::Truncate(count) => text.chars().take(count).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            id: "0123456789abcdef",
            name: "web\n1",
            image: "Busybox",
            image_id: "sha256:eb073510",
            command: "echo x".into(),
            attributes: [("V".to_owned(), "v1".to_owned())].into(),
        }
    }

    #[test]
    fn tags_are_dockers() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            (DEFAULT, "0123456789ab"),
            ("{{.FullID}}/{{ .Name }}!", "0123456789abcdef/web_1!"),
            ("{{.ImageName}}{{.ImageID}}{{.ImageFullID}}", "Busyboxsha256:eb073sha256:eb073510"),
            ("a {{- .Command -}} b", "aecho xb"),
            ("{{upper .Command}} {{.ImageName | lower}}", "ECHO X busybox"),
            ("{{title .Command | json}}", "\"Echo X\""),
            ("{{truncate .ImageName 4}}{{.ContainerName}}", "Busy/web_1"),
            ("{{(.ExtraAttributes nil).V}}{{ (.ExtraAttributes nil).W }}", "v1"),
            ("{{.DaemonName}}", "hull"),
        ] {
            assert_eq!(Tag::parse(template).unwrap().text(&facts()), expected, "{template}");
        }
    }

    #[test]
    fn what_a_tag_cannot_say_is_named() {
        for (template, expected) in [
            ("{{", "log opt tag: unclosed action"),
            ("{{.Foo}}", "log opt tag: {{.Foo}}: there is no field \"Foo\"; there are ID, "),
            ("{{x .ID}}", "log opt tag: {{x .ID}}: there is no function \"x\"; there are lower"),
            ("{{.ID|truncate}}", "log opt tag: {{.ID|truncate}}: truncate has its text"),
            ("{{truncate .ID x}}", "log opt tag: {{truncate .ID x}}: truncate needs a number"),
            ("{{}}", "log opt tag: {{}}: a field begins with a dot"),
            ("{{if .ID}}x{{end}}", "log opt tag: {{if .ID}}: there is no function \"if\""),
        ] {
            let error = Tag::parse(template).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
