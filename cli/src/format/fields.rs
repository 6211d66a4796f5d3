//! The fields of Docker's structures that JSON leaves out, or has as `null`, while they are zero.
//! Templates read the structures: there such a field is an empty text, list or map, or a nil
//! pointer, and no error (github.com/moby/moby, api/types, version 20.10).

use super::value::{Value, Zero};

/// A field's place below the document, and what it is while it has no value.
type Field = (&'static str, Value);

const BOOL: Value = Value::Bool(false);
const TEXT: Value = Value::Text(String::new());
const LIST: Value = Value::Zero(Zero::List);
const MAP: Value = Value::Zero(Zero::Map);
const POINTER: Value = Value::Zero(Zero::Pointer);

/// The configuration of a container or of an image.
const CONFIG: &[Field] = &[
    ("Config.ArgsEscaped", BOOL),
    ("Config.Cmd", LIST),
    ("Config.Entrypoint", LIST),
    ("Config.Env", LIST),
    ("Config.ExposedPorts", MAP),
    ("Config.Healthcheck", POINTER),
    ("Config.Labels", MAP),
    ("Config.MacAddress", TEXT),
    ("Config.NetworkDisabled", BOOL),
    ("Config.OnBuild", LIST),
    ("Config.Shell", LIST),
    ("Config.StopSignal", TEXT),
    ("Config.StopTimeout", POINTER),
    ("Config.Volumes", MAP),
];

const CONTAINER: &[Field] = &[
    ("State.Health", POINTER),
    ("ExecIDs", LIST),
    ("SizeRootFs", POINTER),
    ("SizeRw", POINTER),
    ("GraphDriver.Data", MAP),
    ("HostConfig.Annotations", MAP),
    ("HostConfig.Binds", LIST),
    ("HostConfig.BlkioDeviceReadBps", LIST),
    ("HostConfig.BlkioDeviceReadIOps", LIST),
    ("HostConfig.BlkioDeviceWriteBps", LIST),
    ("HostConfig.BlkioDeviceWriteIOps", LIST),
    ("HostConfig.BlkioWeightDevice", LIST),
    ("HostConfig.CapAdd", LIST),
    ("HostConfig.CapDrop", LIST),
    ("HostConfig.DeviceCgroupRules", LIST),
    ("HostConfig.DeviceRequests", LIST),
    ("HostConfig.Devices", LIST),
    ("HostConfig.Dns", LIST),
    ("HostConfig.DnsOptions", LIST),
    ("HostConfig.DnsSearch", LIST),
    ("HostConfig.ExtraHosts", LIST),
    ("HostConfig.GroupAdd", LIST),
    ("HostConfig.Init", POINTER),
    ("HostConfig.Links", LIST),
    ("HostConfig.MaskedPaths", LIST),
    ("HostConfig.MemorySwappiness", POINTER),
    ("HostConfig.Mounts", LIST),
    ("HostConfig.OomKillDisable", POINTER),
    ("HostConfig.PidsLimit", POINTER),
    ("HostConfig.PortBindings", MAP),
    ("HostConfig.ReadonlyPaths", LIST),
    ("HostConfig.SecurityOpt", LIST),
    ("HostConfig.StorageOpt", MAP),
    ("HostConfig.Sysctls", MAP),
    ("HostConfig.Tmpfs", MAP),
    ("HostConfig.Ulimits", LIST),
    ("HostConfig.VolumesFrom", LIST),
    ("NetworkSettings.Networks", MAP),
    ("NetworkSettings.Ports", MAP),
];

const IMAGE: &[Field] = &[
    ("RepoDigests", LIST),
    ("RepoTags", LIST),
    ("RootFS.Layers", LIST),
    ("GraphDriver.Data", MAP),
];

const NETWORK: &[Field] = &[
    ("Containers", MAP),
    ("IPAM.Config", LIST),
    ("IPAM.Options", MAP),
    ("Labels", MAP),
    ("Options", MAP),
];

const VOLUME: &[Field] =
    &[("Labels", MAP), ("Options", MAP), ("Status", MAP), ("UsageData", POINTER)];

/// A container's document, as templates see it.
pub(crate) fn container(document: Value) -> Value {
    with(with(with_id(document), CONTAINER), CONFIG)
}

/// An image's.
pub(crate) fn image(document: Value) -> Value {
    with(with(with_id(document), IMAGE), CONFIG)
}

/// A network's.
pub(crate) fn network(document: Value) -> Value {
    with(with_id(document), NETWORK)
}

/// A volume's.
pub(crate) fn volume(document: Value) -> Value {
    with(document, VOLUME)
}

/// The structures' field is `ID`, which JSON has as `Id`.
fn with_id(mut document: Value) -> Value {
    if let Some(id) = document.field("Id").cloned()
        && let Value::Object(fields) = &mut document
    {
        fields.push(("ID".to_owned(), Value::Omitted(Box::new(id))));
    }
    document
}

fn with(mut document: Value, fields: &[Field]) -> Value {
    for (path, zero) in fields {
        put(&mut document, path, zero);
    }
    document
}

fn put(value: &mut Value, path: &str, zero: &Value) {
    let Value::Object(fields) = value else { return };
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    match (fields.iter_mut().find(|(key, _)| key == name), rest) {
        (Some((_, there @ Value::Nil)), "") => *there = zero.clone(),
        (None, "") => {
            fields.push((name.to_owned(), Value::Omitted(Box::new(zero.clone()))));
        }
        (Some((_, inner)), rest) if !rest.is_empty() => put(inner, rest, zero),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Template;

    #[test]
    fn what_json_leaves_out_templates_read() {
        let json = r#"{"Id":"abc","State":{"Status":"running"},"Config":{"Cmd":["sh"],"Entrypoint":null,"Labels":{"a":"1"}},"HostConfig":{"PidsLimit":null,"Binds":null}}"#;
        let document = container(serde_json::from_str(json).unwrap());
        assert_eq!(document.json(), json);
        for (template, text) in [
            ("{{.ID}} {{.Id}}", "abc abc"),
            ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
            ("{{json .State.Health}} {{.State.Health}}", "null <nil>"),
            ("{{range $p, $c := .Config.ExposedPorts}}{{$p}}{{end}}.", "."),
            ("{{.HostConfig.Tmpfs}} {{.Config.Entrypoint}}", "map[] []"),
            ("{{.Config.StopSignal}}|{{.Config.NetworkDisabled}}", "|false"),
            ("{{len .HostConfig.Binds}} {{len .HostConfig.Sysctls}}", "0 0"),
            ("{{json .HostConfig.Binds}} {{json .Config.StopSignal}}", r#"null """#),
            (
                "{{.HostConfig.PidsLimit}} {{json .HostConfig}}",
                r#"<nil> {"PidsLimit":null,"Binds":null}"#,
            ),
            ("{{.Config.Cmd}} {{.Config.Labels.a}} {{.Config.Labels.b}}", "[sh] 1 <no value>"),
            ("{{index .Config.Labels \"a\"}} {{join .Config.Entrypoint \",\"}}", "1 "),
            ("{{with .SizeRw}}{{.}}{{else}}-{{end}}{{range .Config.OnBuild}}x{{end}}", "-"),
        ] {
            let rendered = Template::parse(template).unwrap().render(&document, &|text| text);
            assert_eq!(rendered.as_deref(), Ok(text), "{template}");
        }
        for template in ["{{.Nosuch}}", "{{.State.Nosuch}}", "{{.State.Health.Status}}"] {
            let rendered = Template::parse(template).unwrap().render(&document, &|text| text);
            assert!(rendered.is_err(), "{template}");
        }
    }
}
