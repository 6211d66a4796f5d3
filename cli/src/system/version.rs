//! `hull version`.

use anyhow::{Result, anyhow};
use hull_specs_api::v1::{VersionRequest, VersionResponse};
use serde_json::json;

use crate::{
    args::system::FormatArgs,
    connect::Manager,
    failure::{BAD_TEMPLATE, Failure, refused},
    format::{Template, Value},
    terminal::output::print,
};

/// Prints our version and the manager's. Without a manager, ours, and then why.
pub(crate) async fn version(manager: &Manager, args: &FormatArgs) -> Result<u8> {
    let answer = manager.system().version(VersionRequest {}).await;
    let (server, failure) = match answer {
        Ok(server) => (Some(server.into_inner()), None),
        Err(status) => (None, Some(refused(status))),
    };
    let text = match args.format.as_deref() {
        None | Some("") => table(server.as_ref()),
        Some(format) => {
            templated(format, with_names_of_go(Value::of(&document(server.as_ref()))?))?
        }
    };
    print(&text)?;
    failure.map_or(Ok(0), Err)
}

/// A line of a template or of JSON.
pub(crate) fn templated(format: &str, value: Value) -> Result<String> {
    if format == "json" {
        return Ok(format!("{}\n", value.json()));
    }
    let template = Template::parse(format).map_err(|why| Failure {
        code: BAD_TEMPLATE,
        message: format!("template parsing error: {why}"),
    })?;
    let line = template.render(&value, &|text| text);
    Ok(format!("{}\n", line.map_err(|why| anyhow!(why))?))
}

fn commit() -> &'static str {
    option_env!("HULL_COMMIT").unwrap_or_default()
}

/// Go's names of the machine.
fn architecture() -> String {
    hull_specs_image::Platform::host().architecture
}

fn table(server: Option<&VersionResponse>) -> String {
    let line = |name: &str, value: &str| format!(" {:<18} {value}\n", format!("{name}:"));
    let mut text = String::from("Client:\n");
    text += &line("Version", env!("CARGO_PKG_VERSION"));
    text += &line("API version", "hull.v1");
    text += &line("Git commit", commit());
    text += &line("OS/Arch", &format!("linux/{}", architecture()));
    if let Some(of) = server {
        text += "\nServer:\n";
        text += &line("Version", &of.version);
        text += &line("API version", &of.apis.join(", "));
        text += &line("Git commit", &of.commit);
        text += &line("OS/Arch", &format!("{}/{}", of.os, of.architecture));
        text += &line("Kernel", &of.kernel);
        text += &line("Shim", &of.shim_version);
        text += &line("Runtime", of.runtime_version.lines().next().unwrap_or_default());
    }
    text
}

fn document(server: Option<&VersionResponse>) -> serde_json::Value {
    json!({
        "Client": {
            "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": "hull.v1",
            "DefaultAPIVersion": "hull.v1", "GitCommit": commit(), "Os": "linux",
            "Arch": architecture(), "Context": "default", "Platform": {"Name": "hull"},
        },
        "Server": server.map(|of| json!({
            "Version": of.version, "ApiVersion": of.apis.first(), "MinAPIVersion": of.apis.last(),
            "GitCommit": of.commit, "Os": of.os, "Arch": of.architecture,
            "KernelVersion": of.kernel, "Platform": {"Name": "hull"},
            "Components": [
                component("shim", &of.shim_version),
                component("runtime", of.runtime_version.lines().next().unwrap_or_default()),
            ],
        })),
    })
}

fn component(name: &str, version: &str) -> serde_json::Value {
    json!({ "Name": name, "Version": version, "Details": {} })
}

/// Templates know docker's fields by the names that they have in Go. hull is not written in it, and
/// keeps no time of its making: these are empty, as docker's are where nobody set them.
fn with_names_of_go(mut document: Value) -> Value {
    if let Value::Object(sides) = &mut document {
        let is_there = sides.iter().any(|(name, side)| name == "Server" && side.truth());
        for (_, side) in sides.iter_mut() {
            side.push_alias("APIVersion", "ApiVersion");
            side.push_omitted("GoVersion", Value::Text(String::new()));
            side.push_omitted("BuildTime", Value::Text(String::new()));
            side.push_omitted("Experimental", Value::Bool(false));
        }
        document.push_omitted("ServerOK", Value::Bool(is_there));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_dockers_names() {
        let server = VersionResponse {
            version: "9".into(),
            apis: vec!["hull.v1".into()],
            ..VersionResponse::default()
        };
        let document = || with_names_of_go(Value::of(&document(Some(&server))).unwrap());
        let template = "{{.Server.Version}} {{.Client.Os}} {{.Server.APIVersion}} {{.ServerOK}} {{.Server.Experimental}}";
        assert_eq!(templated(template, document()).unwrap(), "9 linux hull.v1 true false\n");
        let json = templated("json", document()).unwrap();
        assert!(json.contains("\"ApiVersion\":\"hull.v1\"") && !json.contains("\"APIVersion\""));
        assert!(table(Some(&server)).contains("\nServer:\n Version:           9\n"));
        assert!(templated("{{.X}}", document()).is_err());
    }
}
