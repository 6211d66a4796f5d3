//! The fields of Docker's structures that JSON leaves out, or has as `null`, while they are zero.
//! Templates read the structures: there such a field is an empty text, list or map, or a nil
//! pointer, and no error (github.com/moby/moby, api/types, version 20.10).

use super::value::{Value, Zero};

/// A field's place below the document, and what it is while it has no value. `[]` stands for each
/// item of a list, `{}` for each entry of a map.
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
    ("HostConfig.LogConfig.Config", MAP),
    ("HostConfig.Mounts[].Source", TEXT),
    ("HostConfig.Mounts[].ReadOnly", BOOL),
    ("HostConfig.Mounts[].BindOptions", POINTER),
    ("HostConfig.Mounts[].TmpfsOptions", POINTER),
    ("HostConfig.Mounts[].VolumeOptions", POINTER),
    ("NetworkSettings.Networks", MAP),
    ("NetworkSettings.Networks{}.Aliases", LIST),
    ("NetworkSettings.Networks{}.DriverOpts", MAP),
    ("NetworkSettings.Networks{}.IPAMConfig", POINTER),
    ("NetworkSettings.Networks{}.Links", LIST),
    ("NetworkSettings.Ports", MAP),
    ("NetworkSettings.Ports{}", LIST),
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
    ("IPAM.Config[].AuxiliaryAddresses", MAP),
    ("IPAM.Config[].Gateway", TEXT),
    ("IPAM.Config[].IPRange", TEXT),
    ("IPAM.Config[].Subnet", TEXT),
    ("IPAM.Options", MAP),
    ("Labels", MAP),
    ("Options", MAP),
];

const VOLUME: &[Field] =
    &[("Labels", MAP), ("Options", MAP), ("Status", MAP), ("UsageData", POINTER)];

/// A container's document, as templates see it.
pub(crate) fn container(document: Value) -> Value {
    with(with(with_whole_mounts(with_id(document)), CONTAINER), CONFIG)
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

/// Docker's order of a mount's fields, some of which JSON leaves out.
fn with_whole_mounts(mut document: Value) -> Value {
    const ORDER: [&str; 4] = ["Type", "Name", "Source", "Destination"];
    if let Value::Object(fields) = &mut document
        && let Some((_, Value::List(mounts))) = fields.iter_mut().find(|(name, _)| name == "Mounts")
    {
        for mount in mounts {
            put(mount, "Name", &TEXT);
            put(mount, "Driver", &TEXT);
            if let Value::Object(fields) = mount {
                let place = |name: &str| match ORDER.iter().position(|known| *known == name) {
                    Some(place) => place,
                    None if name == "Driver" => ORDER.len(),
                    None => ORDER.len() + 1,
                };
                fields.sort_by_key(|(name, _)| place(name));
            }
        }
    }
    document
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
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let name = step.trim_end_matches("[]").trim_end_matches("{}");
    let found = fields.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value);
    match (found, rest) {
        (Some(there), "") if step == name => complete(there, zero),
        (Some(Value::Map(entries)), "") => {
            entries.iter_mut().for_each(|(_, entry)| complete(entry, zero));
        }
        (Some(Value::List(items)), rest) if !rest.is_empty() => {
            items.iter_mut().for_each(|item| put(item, rest, zero));
        }
        (Some(Value::Map(entries)), rest) => {
            entries.iter_mut().for_each(|(_, entry)| put(entry, rest, zero));
        }
        (Some(inner), rest) if !rest.is_empty() => put(inner, rest, zero),
        (None, "") if step == name => {
            fields.push((name.to_owned(), Value::Omitted(Box::new(zero.clone()))));
        }
        _ => {}
    }
}

/// Gives a value its type: of nil, and of what JSON does not tell from a structure.
fn complete(value: &mut Value, zero: &Value) {
    match value {
        Value::Nil => *value = zero.clone(),
        Value::Object(fields) if *zero == MAP => *value = Value::Map(std::mem::take(fields)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Template;

    #[test]
    fn what_json_leaves_out_templates_read() {
        let json = r#"{"Id":"abc","State":{"Status":"running"},"Config":{"Cmd":["sh"],"Entrypoint":null,"Labels":{"a":"1"}},"HostConfig":{"PidsLimit":null,"Binds":null},"Mounts":[{"Type":"bind","Source":"/a","Destination":"/b","Mode":"","RW":true}]}"#;
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
            (
                "{{range .Mounts}}{{.Type}}:{{.Name}}:{{end}} {{.Mounts}}",
                "bind:: [{bind  /a /b   true}]",
            ),
            ("{{with .Config.Labels}}{{.none}}{{end}}", "<no value>"),
            ("{{with .SizeRw}}{{.}}{{else}}-{{end}}{{range .Config.OnBuild}}x{{end}}", "-"),
        ] {
            let rendered =
                Template::parse(template).unwrap().render_document(&document, &|text| text);
            assert_eq!(rendered.as_deref(), Ok(text), "{template}");
        }
        for template in ["{{.Nosuch}}", "{{.State.Nosuch}}", "{{.State.Health.Status}}"] {
            let rendered =
                Template::parse(template).unwrap().render_document(&document, &|text| text);
            assert!(rendered.is_err(), "{template}");
        }
    }
}
