//! hull's drivers as a CNI plugin (specification 1.1), for other managers: the program `hull-cni`.
//!
//! A configuration has the fields of a network's definition, and besides:
//!
//! | field | |
//! | --- | --- |
//! | `driver` | bridge (the default), macvlan, ipvlan |
//! | `dataDir` | where addresses are remembered; `/var/lib/hull-cni` |
//! | `runDir` | where namespaces are held; `/run/hull-cni` |
//!
//! Each call is alone: they take turns by a lock on the data directory. Published ports
//! (`portMappings`) are translated by the kernel; nothing of hull's goes on running.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use hull_manager_core::{Error, Journal, Result, Store, error::IoContext as _};
use hull_specs_api::v1;
use serde_json::{Map, Value, json};

use crate::{
    Attached, Container, Inner, Networks,
    definition::{Definition, Driver, OWN, id_of},
    ipam::Pool,
    settings::Settings,
};

/// The versions that are spoken, oldest first.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What the runtime adds to a configuration.
const ADDED: [&str; 9] = [
    "cniVersion",
    "name",
    "prevResult",
    "runtimeConfig",
    "args",
    "dataDir",
    "runDir",
    ATTACHMENTS[0],
    ATTACHMENTS[1],
];

/// What of a GC says which attachments are valid: the specification's key, and that of libcni's
/// first versions.
const ATTACHMENTS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// Error codes of the specification, section 5.
const UNSUPPORTED_VERSION: u32 = 1;
const INVALID_ENVIRONMENT: u32 = 4;
const UNDECODABLE: u32 = 6;
const INVALID_CONFIGURATION: u32 = 7;
const FAILED: u32 = 100;

struct Refusal(u32, Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(FAILED, error)
    }
}

/// One call of the plugin.
struct Call<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    fields: Map<String, Value>,
    version: String,
    name: String,
}

/// Does what the environment and the standard input of a CNI plugin ask for, and gives what is
/// printed; the second part: whether it is an error.
pub fn run(environment: &dyn Fn(&str) -> Option<String>, input: &[u8]) -> (String, bool) {
    let version = serde_json::from_slice::<Value>(input)
        .ok()
        .and_then(|fields| Some(fields["cniVersion"].as_str()?.to_owned()))
        .unwrap_or_else(|| VERSIONS[VERSIONS.len() - 1].into());
    match answer(environment, input) {
        Ok(Value::Null) => (String::new(), false),
        Ok(value) => (value.to_string(), false),
        Err(Refusal(code, error)) => {
            let said = json!({ "cniVersion": version, "code": code, "msg": error.to_string() });
            (said.to_string(), true)
        }
    }
}

fn answer(environment: &dyn Fn(&str) -> Option<String>, input: &[u8]) -> Result<Value, Refusal> {
    let command = environment("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        return Ok(json!({
            "cniVersion": VERSIONS[VERSIONS.len() - 1],
            "supportedVersions": VERSIONS,
        }));
    }
    let undecodable = |what: &str| Refusal(UNDECODABLE, Error::invalid(what));
    let fields: Map<String, Value> = serde_json::from_slice(input)
        .map_err(|_| undecodable("the configuration is no JSON object"))?;
    let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
    let version = text("cniVersion").unwrap_or_else(|| "0.1.0".into());
    if !VERSIONS.contains(&version.as_str()) {
        return Err(Refusal(
            UNSUPPORTED_VERSION,
            Error::invalid(format!("CNI version {} is not spoken", version.escape_debug())),
        ));
    }
    let name = text("name").ok_or_else(|| undecodable("the network has no name"))?;
    let call = Call { environment, fields, version, name };
    match command.as_str() {
        "ADD" => call.add(),
        "CHECK" => call.check(),
        "DEL" => call.delete(),
        "GC" => call.collect(),
        "STATUS" => call.definition().map(|_| Value::Null),
        other => Err(Refusal(
            INVALID_ENVIRONMENT,
            Error::invalid(format!("unknown CNI_COMMAND: {}", other.escape_debug())),
        )),
    }
}

/// The networks of a data directory, while nobody else has them.
struct Open {
    networks: Networks,
    // In this order: the runtime must outlive what runs in it.
    runtime: tokio::runtime::Runtime,
    _lock: fs::File,
}

impl Call<'_> {
    fn variable(&self, name: &str) -> Result<String, Refusal> {
        (self.environment)(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            Refusal(INVALID_ENVIRONMENT, Error::invalid(format!("{name} is not set")))
        })
    }

    /// Whose interface it is: by this name its rows and its namespace are found again.
    fn key(&self) -> Result<String, Refusal> {
        let key = format!(
            "{}.{}.{}",
            self.name,
            self.variable("CNI_CONTAINERID")?,
            self.variable("CNI_IFNAME")?
        );
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        match key.len() <= 255 && key.bytes().all(plain) {
            true => Ok(key),
            false => Err(Refusal(
                INVALID_ENVIRONMENT,
                Error::invalid("CNI_CONTAINERID or CNI_IFNAME is no name"),
            )),
        }
    }

    fn directory(&self, field: &str, default: &str) -> PathBuf {
        self.fields.get(field).and_then(Value::as_str).unwrap_or(default).into()
    }

    fn definition(&self) -> Result<Definition, Refusal> {
        let mut plugin = self.fields.clone();
        plugin.retain(|key, _| !ADDED.contains(&key.as_str()));
        plugin.entry("driver").or_insert_with(|| "bridge".into());
        plugin.insert("type".into(), OWN.into());
        let list = json!({
            "cniVersion": self.version,
            "name": self.name,
            "plugins": [plugin],
            "hull": { "id": id_of(&self.name), "created": 0 },
        });
        let mut definition =
            Definition::from_list(list.to_string().as_bytes(), SystemTime::UNIX_EPOCH)
                .map_err(|error| Refusal(INVALID_CONFIGURATION, error))?;
        if matches!(definition.driver, Driver::Bridge(_)) {
            for pool in &mut definition.pools {
                // As host-local has it.
                pool.gateway = pool.gateway.or(Pool::new(pool.subnet, true).gateway);
            }
        }
        if definition.pools.is_empty() {
            let error = Error::invalid("ipam.ranges has no subnet");
            return Err(Refusal(INVALID_CONFIGURATION, error));
        }
        Ok(definition)
    }

    fn open(&self) -> Result<Open> {
        let data = self.directory("dataDir", "/var/lib/hull-cni");
        let run = self.directory("runDir", "/run/hull-cni");
        hull_manager_core::files::private_directory(&data, 0o700)?;
        let lock = fs::File::create(data.join("lock")).about(data.display())?;
        lock.lock().about(data.display())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .about("an asynchronous runtime")?;
        let store = Store::open(&data.join("meta.db"))?;
        let settings = Settings {
            default: None,
            table: OWN.into(),
            // A proxy or a name service would have to go on running.
            userland_proxy: false,
            names: false,
            // Who called holds them: podman does, in the container's monitor.
            hold_ports: false,
            ..Settings::new(data.join("networks"), run.join("netns"))
        };
        let entered = runtime.enter();
        let networks = Networks::open(settings, &store, &Journal::open(&store)?)?;
        drop(entered);
        Ok(Open { networks, runtime, _lock: lock })
    }

    fn add(&self) -> Result<Value, Refusal> {
        let previous = self.fields.get("prevResult").is_some_and(|result| !result.is_null());
        if previous {
            let error = Error::invalid("it makes interfaces, and must be the first plugin");
            return Err(Refusal(INVALID_CONFIGURATION, error));
        }
        let definition = self.definition()?;
        let (key, interface) = (self.key()?, self.variable("CNI_IFNAME")?);
        let namespace = self.variable("CNI_NETNS")?;
        let container = self.container(key, &definition)?;
        let open = self.open()?;
        let _entered = open.runtime.enter();
        let inner = &open.networks.0;
        let known = inner.state().catalog.by_name(&self.name).cloned();
        let network = match known.filter(|known| *known.definition == definition) {
            Some(known) => known.definition,
            None => inner.state().catalog.put(definition)?,
        };
        inner.establish(&network)?;
        // What other calls have made: this process knows nothing of it.
        inner.replace_rules()?;
        let attached =
            inner.attach_in(&container, Some((Path::new(&namespace), interface.as_str())))?;
        Ok(self.result(inner, &attached, &namespace)?)
    }

    /// What is asked for, as a container of hull's would.
    fn container(&self, key: String, network: &Definition) -> Result<Container, Refusal> {
        let runtime = &self.fields.get("runtimeConfig").cloned().unwrap_or_default();
        let arguments = (self.environment)("CNI_ARGS").unwrap_or_default();
        let argument = |key: &str| {
            let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
        };
        let mut endpoint = v1::EndpointOptions {
            network: network.id.clone(),
            mac_address: runtime["mac"]
                .as_str()
                .map(str::to_owned)
                .or_else(|| argument("MAC"))
                .unwrap_or_default(),
            ..Default::default()
        };
        // The conventions' three ways; the runtime's own word comes last, and counts.
        let listed = |list: &Value| -> Vec<String> {
            let all = list.as_array().into_iter().flatten();
            all.filter_map(|ip| ip.as_str().map(str::to_owned)).collect()
        };
        let arguments = self.fields.get("args").map(|args| listed(&args["cni"]["ips"]));
        let asked = argument("IP").into_iter().chain(arguments.into_iter().flatten());
        for text in asked.chain(listed(&runtime["ips"])) {
            let plain = text.split_once('/').map_or(text.as_str(), |(address, _)| address);
            match plain.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => endpoint.ipv4_address = plain.to_owned(),
                Ok(IpAddr::V6(_)) => endpoint.ipv6_address = plain.to_owned(),
                Err(_) => {
                    let said = format!("invalid address: {}", text.escape_debug());
                    return Err(Refusal(INVALID_CONFIGURATION, Error::invalid(said)));
                }
            }
        }
        let mappings = runtime["portMappings"].as_array().into_iter().flatten();
        if mappings.clone().any(|mapping| mapping["hostPort"].as_u64().unwrap_or(0) == 0) {
            let error = Error::invalid("a port mapping has no host port");
            return Err(Refusal(INVALID_CONFIGURATION, error));
        }
        let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        let publish = |mapping: &Value| v1::PublishOptions {
            host_ip: mapping["hostIP"].as_str().unwrap_or_default().into(),
            host_port: number(&mapping["hostPort"]).unwrap_or_default(),
            container_port: number(&mapping["containerPort"]).unwrap_or_default(),
            protocol: mapping["protocol"].as_str().unwrap_or("tcp").to_ascii_lowercase(),
            ..Default::default()
        };
        Ok(Container {
            id: key,
            name: self.variable("CNI_CONTAINERID")?,
            hostname: String::new(),
            options: v1::ContainerOptions {
                network_mode: network.id.clone(),
                networks: vec![endpoint],
                publish: mappings.map(publish).collect(),
                ..Default::default()
            },
        })
    }

    fn result(&self, inner: &Inner, attached: &Attached, namespace: &str) -> Result<Value> {
        let endpoint =
            attached.endpoints.first().ok_or_else(|| Error::internal("nothing was made"))?;
        let bridge = inner.state().catalog.find(&endpoint.network_id)?.definition;
        let mac = |name: &str| {
            let link = inner.host.socket.link(name).ok().flatten();
            link.and_then(|link| link.mac).map(|mac| mac.to_string()).unwrap_or_default()
        };
        let mut interfaces = Vec::new();
        if matches!(bridge.driver, Driver::Bridge(_)) {
            let host = format!("hv{}", endpoint.id.get(..12).unwrap_or_default());
            for name in [bridge.interface(), host.as_str()] {
                interfaces.push(json!({ "name": name, "mac": mac(name) }));
            }
        }
        let index = interfaces.len();
        interfaces.push(json!({
            "name": endpoint.interface,
            "mac": endpoint.mac_address,
            "sandbox": namespace,
        }));
        let families = [
            (&endpoint.ipv4_address, endpoint.ipv4_prefix_length, &endpoint.ipv4_gateway, "4"),
            (&endpoint.ipv6_address, endpoint.ipv6_prefix_length, &endpoint.ipv6_gateway, "6"),
        ];
        let (mut ips, mut routes) = (Vec::new(), Vec::new());
        for (address, prefix, gateway, version) in families {
            if address.is_empty() {
                continue;
            }
            let mut ip = json!({ "address": format!("{address}/{prefix}"), "interface": index });
            if !gateway.is_empty() {
                ip["gateway"] = json!(gateway);
                let everything = if version == "4" { "0.0.0.0/0" } else { "::/0" };
                routes.push(json!({ "dst": everything, "gw": gateway }));
            }
            if self.version.starts_with("0.") {
                ip["version"] = json!(version);
            }
            ips.push(ip);
        }
        Ok(json!({
            "cniVersion": self.version,
            "interfaces": interfaces,
            "ips": ips,
            "routes": routes,
            "dns": {},
        }))
    }

    fn check(&self) -> Result<Value, Refusal> {
        let key = self.key()?;
        let open = self.open()?;
        let _entered = open.runtime.enter();
        let inner = &open.networks.0;
        inner.replace_rules()?;
        inner.sandbox(&key)?;
        inner.check(&key)?;
        Ok(Value::Null)
    }

    fn delete(&self) -> Result<Value, Refusal> {
        let key = self.key()?;
        let open = self.open()?;
        let _entered = open.runtime.enter();
        open.networks.0.detach(&key)?;
        open.networks.0.replace_rules()?;
        Ok(Value::Null)
    }

    /// What is not among the valid attachments goes.
    fn collect(&self) -> Result<Value, Refusal> {
        let named = |key| self.fields.get(key).and_then(Value::as_array);
        let valid = ATTACHMENTS.into_iter().find_map(named).ok_or_else(|| {
            // None at all would mean that all go.
            let said = format!("{} is not a list", ATTACHMENTS[0]);
            Refusal(INVALID_CONFIGURATION, Error::invalid(said))
        })?;
        let valid: Vec<_> = valid
            .iter()
            .filter_map(|attachment| {
                let container = attachment["containerID"].as_str()?;
                Some(format!("{}.{container}.{}", self.name, attachment["ifname"].as_str()?))
            })
            .collect();
        let open = self.open()?;
        let _entered = open.runtime.enter();
        let inner = &open.networks.0;
        let id = id_of(&self.name);
        for endpoint in inner.records.of_network(&id)? {
            if !valid.contains(&endpoint.container) {
                inner.detach(&endpoint.container)?;
            }
        }
        inner.replace_rules()?;
        Ok(Value::Null)
    }
}
