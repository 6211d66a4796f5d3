//! `hull inspect`: the documents of containers, images, networks and volumes.

use std::io::{IsTerminal as _, stdout};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_specs_api::v1::{
    InspectContainerRequest, InspectImageRequest, InspectNetworkRequest, InspectVolumeRequest,
};
use hull_specs_docker::{container, image, network, volume};

use crate::{
    args::{container as container_args, system::InspectArgs},
    connect::Manager,
    failure::{BAD_TEMPLATE, Failure, is_not_found, is_unreachable, refused},
    format::{Template, Value, fields, text},
    report,
    terminal::output::print,
};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

/// `inspect`: whatever has the name; containers first, as docker has it.
pub(crate) async fn any(manager: &Manager, args: &InspectArgs) -> Result<u8> {
    let kinds = match args.kind.as_str() {
        "" => vec![Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
        "container" => vec![Kind::Container],
        "image" => vec![Kind::Image],
        "network" => vec![Kind::Network],
        "volume" => vec![Kind::Volume],
        other => {
            bail!("{other:?} is not a valid value for --type: container, image, network, volume")
        }
    };
    if args.size && !kinds.contains(&Kind::Container) {
        report::line(&format!("WARNING: --size ignored for {}s", args.kind));
    }
    let ask = Ask { kinds: &kinds, size: args.size, platform: "", traffic: false };
    documents(manager, &ask, &args.names, args.format.as_deref()).await
}

/// `container inspect`.
pub(crate) async fn containers(
    manager: &Manager,
    args: &container_args::InspectArgs,
) -> Result<u8> {
    let ask = Ask { kinds: &[Kind::Container], size: args.size, platform: "", traffic: false };
    documents(manager, &ask, &args.containers, args.format.as_deref()).await
}

/// How objects are looked for.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) kinds: &'a [Kind],
    pub(crate) size: bool,
    pub(crate) platform: &'a str,
    /// Of networks: what went through their members' interfaces.
    pub(crate) traffic: bool,
}

/// Prints the documents of all names that there are, and tells of the others.
pub(crate) async fn documents(
    manager: &Manager,
    ask: &Ask<'_>,
    names: &[String],
    format: Option<&str>,
) -> Result<u8> {
    let template = match format {
        None | Some("" | "json") => None,
        Some(format) => Some(Template::parse(format).map_err(|why| Failure {
            code: BAD_TEMPLATE,
            message: format!("template parsing error: {why}"),
        })?),
    };
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match document(manager, ask, name).await {
            Ok(value) => found.push(value),
            Err(error) if is_unreachable(&error) => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    print(&text(&found, template.as_ref(), format)?)?;
    for error in &failures {
        report::error(error);
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::quiet(1)) }
}

fn text(found: &[Value], template: Option<&Template>, format: Option<&str>) -> Result<String> {
    let show = |value: String| if stdout().is_terminal() { text::escape(&value) } else { value };
    match (template, format) {
        (Some(template), _) => {
            let mut lines = String::new();
            for value in found {
                let line = template.render_document(value, &show);
                lines.push_str(&line.map_err(|why| anyhow!("template parsing error: {why}"))?);
                lines.push('\n');
            }
            Ok(lines)
        }
        (None, Some("json")) => Ok(format!("{}\n", serde_json::to_string(found)?)),
        (None, _) => Ok(format!("{}\n", pretty(found)?)),
    }
}

/// Indented by four blanks, as docker indents.
fn pretty(found: &[Value]) -> Result<String> {
    let mut json = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, indent);
    serde::Serialize::serialize(found, &mut serializer)?;
    String::from_utf8(json).context("the document is not UTF-8")
}

async fn document(manager: &Manager, ask: &Ask<'_>, name: &str) -> Result<Value> {
    let mut absent = None;
    for kind in ask.kinds {
        match one(manager, *kind, ask, name).await {
            Err(error) if is_not_found(&error) => absent = Some(error),
            answer => return answer,
        }
    }
    match absent {
        Some(error) if ask.kinds.len() == 1 => Err(error),
        _ => bail!("No such object: {name}"),
    }
}

async fn one(manager: &Manager, kind: Kind, ask: &Ask<'_>, name: &str) -> Result<Value> {
    let name = name.to_owned();
    Ok(match kind {
        Kind::Container => {
            let request = InspectContainerRequest { container: name, size: ask.size };
            let answer = manager.containers().inspect(request).await.map_err(refused)?;
            fields::container(Value::of(&container::inspect(&answer.into_inner()))?)
        }
        Kind::Image => {
            let request = InspectImageRequest { image: name, platform: ask.platform.to_owned() };
            let answer = manager.images().inspect(request).await.map_err(refused)?;
            let document = image::inspect(&answer.into_inner());
            fields::image(Value::of(&document.context("the image's configuration")?)?)
        }
        Kind::Network => {
            let request = InspectNetworkRequest { network: name, traffic: ask.traffic };
            let answer = manager.networks().inspect(request).await.map_err(refused)?;
            fields::network(Value::of(&network::Network::from(&answer.into_inner()))?)
        }
        Kind::Volume => {
            let request = InspectVolumeRequest { name };
            let answer = manager.volumes().inspect(request).await.map_err(refused)?;
            fields::volume(Value::of(&volume::Volume::from(&answer.into_inner()))?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_printed_as_docker_prints_them() {
        let value: Value =
            serde_json::from_str(r#"{"Name":"/one","Args":["a"],"Empty":[]}"#).unwrap();
        let found = [value];
        let plain = text(&found, None, None).unwrap();
        assert_eq!(
            plain,
            "[\n    {\n        \"Name\": \"/one\",\n        \"Args\": [\n            \"a\"\n        ],\n        \"Empty\": []\n    }\n]\n"
        );
        assert_eq!(text(&[], None, None).unwrap(), "[]\n");
        assert_eq!(
            text(&found, None, Some("json")).unwrap(),
            "[{\"Name\":\"/one\",\"Args\":[\"a\"],\"Empty\":[]}]\n"
        );
        let template = Template::parse("{{.Name}} {{len .Args}}").unwrap();
        assert_eq!(text(&found, Some(&template), Some("x")).unwrap(), "/one 1\n");
        let wrong = Template::parse("{{.Nosuch}}").unwrap();
        assert_eq!(
            text(&found, Some(&wrong), Some("x")).unwrap_err().to_string(),
            "template parsing error: template: :1:2: executing \"\" at <.Nosuch>: map has no entry for key \"Nosuch\""
        );
    }
}
