//! Our drivers as a CNI plugin, for other container managers (specification 1.1, section 2).
//!
//! A configuration's fields are those of our definitions (`definition`), and `dataDir`: where the
//! rows are. Nothing stays running, so a port is published by translation only, from the host's
//! loopback too; where the host's own input rules are closed it is reached from inside only. Each
//! network has its own table in the packet filter, made anew by each call out of the rows.
//!
//! Calls of one data directory come one after the other. Rows come before what they name and go
//! after it; a killed ADD is healed by DEL or GC.

use std::{
    collections::BTreeSet,
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;
use hull_manager_core::{
    Error, Result, Store, error::IoContext as _, files::private_directory, name::random_id,
};
use hull_manager_firewall as firewall;
use hull_specs_api::v1;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    definition::{Definition, Driver, check_interface},
    exposure::network_rule,
    host::Host,
    mac::Mac,
    namespace::{self, Namespaces},
    plan::{self, Interface, Step},
    ports,
    records::{self, Endpoint, Records, Sandbox},
};

/// Where rows are if the configuration does not say.
const DATA: &str = "/var/lib/hull-cni";

/// The parameters of a call.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_NETNS`; none: it is gone.
    pub netns: Option<PathBuf>,
    /// The addresses of `CNI_ARGS`.
    pub addresses: Vec<IpAddr>,
    /// The request.
    pub request: Map<String, Value>,
}

/// What the runtime adds to a request for the plugins that take it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Runtime {
    port_mappings: Vec<Mapping>,
    ips: Vec<String>,
    mac: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_port: u32,
    container_port: u32,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

/// A network that a call is about, with everything locked.
struct Network {
    definition: Definition,
    host: Host,
    records: Records,
    /// Released by its closing.
    _lock: File,
}

impl Call {
    /// The attachment's row.
    fn key(&self, network: &Definition) -> String {
        key(&self.container, &self.interface, &network.name)
    }

    fn runtime(&self) -> Result<Runtime> {
        match self.request.get("runtimeConfig") {
            None => Ok(Runtime::default()),
            Some(config) => serde_json::from_value(config.clone())
                .map_err(|error| Error::invalid("runtimeConfig").because(error)),
        }
    }

    fn open(&self) -> Result<Network> {
        if !self.interface.is_empty() {
            check_interface(self.interface.clone())?;
        }
        let mut plugin = self.request.clone();
        let data = match plugin.remove("dataDir") {
            None => PathBuf::from(DATA),
            Some(Value::String(path)) if path.starts_with('/') => path.into(),
            Some(_) => return Err(Error::invalid("dataDir is not an absolute path")),
        };
        let name = plugin.remove("name").unwrap_or_default();
        plugin.retain(|key, _| {
            let runtimes = ["cniVersion", "cniVersions", "prevResult", "runtimeConfig", "args"];
            !runtimes.contains(&key.as_str()) && !key.starts_with("cni.dev/")
        });
        let list = json!({"cniVersion": "1.1.0", "name": name, "plugins": [plugin]});
        let list = list.to_string();
        let definition = Definition::from_list(list.as_bytes(), SystemTime::UNIX_EPOCH)?;
        if matches!(definition.driver, Driver::Plugins(_)) {
            return Err(Error::invalid("the type is not hull-cni"));
        }
        private_directory(&data, 0o700)?;
        let lock = data.join("lock");
        let lock = File::create(&lock)
            .and_then(|file| file.lock().map(|()| file))
            .about(lock.display())?;
        Ok(Network {
            definition,
            host: Host::new(Namespaces::new(data.join("netns")), true)?,
            records: Records::open(&Store::open(&data.join("meta.db"))?)?,
            _lock: lock,
        })
    }
}

fn key(container: &str, interface: &str, network: &str) -> String {
    format!("{network}@{container}@{interface}")
}

/// Connects a container; what it gives is the result of version 1.1.
///
/// # Errors
/// One sentence; then nothing of it is left.
pub fn add(call: &Call) -> Result<Value> {
    let network = call.open()?;
    let netns = namespace_of(call)?
        .ok_or_else(|| Error::invalid("CNI_NETNS names no network namespace"))?;
    let there = namespace::inside(&netns, |socket| Ok(socket.link(&call.interface)?.is_some()))?;
    if there {
        return Err(Error::already_exists(format!(
            "{} is in the container already",
            call.interface
        )));
    }
    let key = call.key(&network.definition);
    // What an ADD that was killed has left.
    network.remove(&key, None)?;
    let endpoint = network.reserve(call, &key)?;
    network.connect(call, &netns, &endpoint).inspect_err(|_| {
        if let Err(left) = network.remove(&key, Some(&netns)) {
            tracing::warn!("not taken away: {left}");
        }
    })
}

/// Whether a container is connected as [`add`] has done it.
///
/// # Errors
/// The first difference.
pub fn check(call: &Call) -> Result<()> {
    let network = call.open()?;
    let key = call.key(&network.definition);
    let endpoints = network.records.of_container(&key)?;
    let (Some(endpoint), Some(netns)) = (endpoints.first(), namespace_of(call)?) else {
        return Err(Error::not_found(format!("{} is not connected", call.container)));
    };
    let name = &call.interface;
    let wanted: BTreeSet<IpNet> = endpoint.addresses().collect();
    namespace::inside(&netns, |socket| {
        let link = socket.link(name)?.with_context(|| format!("{name} is not there"))?;
        anyhow::ensure!(link.up, "{name} is down");
        anyhow::ensure!(link.mac == Some(endpoint.mac), "{name} has another hardware address");
        let has: BTreeSet<IpNet> = socket.addresses(link.index)?.into_iter().collect();
        for address in wanted.difference(&has) {
            anyhow::bail!("{name} does not have {address}");
        }
        Ok(())
    })?;
    if let Driver::Bridge(bridge) = &network.definition.driver {
        let link = |name: &str| network.host.socket.link(name).map_err(anyhow::Error::new);
        let master = link(&bridge.interface)?.map(|link| link.index);
        let port = link(&endpoint.host_interface())?.and_then(|link| link.master);
        if master.is_none() || master != port {
            return Err(Error::conflict(format!("{name} is not on {}", bridge.interface)));
        }
    }
    Ok(())
}

/// Disconnects a container. Idempotent.
///
/// # Errors
/// What can't be taken away; then its addresses stay its own.
pub fn del(call: &Call) -> Result<()> {
    let network = call.open()?;
    let netns = namespace_of(call)?;
    network.remove(&call.key(&network.definition), netns.as_ref())
}

/// Disconnects all that are not among the request's valid attachments.
///
/// # Errors
/// What can't be taken away, after everything else is.
pub fn gc(call: &Call) -> Result<()> {
    #[derive(Deserialize)]
    struct Valid {
        #[serde(rename = "containerID")]
        container: String,
        ifname: String,
    }
    let network = call.open()?;
    let name = &network.definition.name;
    let valid = call.request.get("cni.dev/valid-attachments").cloned().unwrap_or(json!([]));
    let valid: Vec<Valid> = serde_json::from_value(valid)
        .map_err(|error| Error::invalid("cni.dev/valid-attachments").because(error))?;
    let valid: BTreeSet<String> =
        valid.iter().map(|one| key(&one.container, &one.ifname, name)).collect();
    let mut failed = None;
    for endpoint in network.records.of_network(&network.definition.id)? {
        if !valid.contains(&endpoint.container) {
            failed = network.remove(&endpoint.container, None).err().or(failed);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether [`add`] could be called now.
///
/// # Errors
/// Why not.
pub fn status(call: &Call) -> Result<()> {
    let network = call.open()?;
    network.records.write(|t| {
        network.choose(t, &[], true)?;
        network.choose(t, &[], false).map(drop)
    })
}

fn namespace_of(call: &Call) -> Result<Option<File>> {
    let Some(path) = &call.netns else { return Ok(None) };
    match File::open(path) {
        Ok(file) => Ok(namespace::is_namespace(&file).then_some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).about(path.display()),
    }
}

impl Network {
    /// Writes down an endpoint with its addresses and ports.
    fn reserve(&self, call: &Call, key: &str) -> Result<Endpoint> {
        let runtime = call.runtime()?;
        let mut wanted = call.addresses.clone();
        for text in &runtime.ips {
            let address = text.split_once('/').map_or(text.as_str(), |(address, _)| address);
            wanted.push(crate::options::address("address", address)?);
        }
        let options = v1::ContainerOptions {
            publish: runtime.port_mappings.iter().map(Mapping::option).collect::<Result<_>>()?,
            ..Default::default()
        };
        let bind = match &self.definition.driver {
            Driver::Bridge(bridge) => bridge.bind,
            _ => None,
        };
        let sandbox = Sandbox {
            container: key.into(),
            name: call.container.clone(),
            hostname: call.interface.clone(),
            options: options.clone(),
        };
        let endpoint = self.records.write(|t| {
            records::add_sandbox(t, &sandbox)?;
            let (ipv4, ipv6) = (self.choose(t, &wanted, true)?, self.choose(t, &wanted, false)?);
            let id = random_id()?;
            let mac = match (&runtime.mac, ipv4.or(ipv6)) {
                (Some(text), _) => text.parse()?,
                (None, Some(net)) => Mac::of(net.addr()),
                (None, None) => Mac::random(&id),
            };
            let endpoint = Endpoint {
                id,
                container: key.into(),
                network: self.definition.id.clone(),
                number: 0,
                mac,
                ipv4,
                ipv6,
                gateways: Vec::new(),
                options: v1::EndpointOptions::default(),
            };
            records::add_endpoint(t, &endpoint)?;
            Ok(endpoint)
        })?;
        let wanted = ports::wanted(&options, bind)?;
        let published: Vec<v1::PublishedPort> = wanted
            .iter()
            .flat_map(|port| leading(port, &endpoint))
            .map(|p| ports::message(&p))
            .collect();
        self.records.set_ports(key, &published)?;
        Ok(endpoint)
    }

    /// The address of a family: one that is wanted, or the first that is free. None: the network
    /// has none.
    fn choose(
        &self,
        t: &rusqlite::Transaction<'_>,
        wanted: &[IpAddr],
        ipv4: bool,
    ) -> Result<Option<IpNet>> {
        let mut has_pool = false;
        for pool in self.definition.pools(ipv4) {
            has_pool = true;
            let used =
                |address| records::is_used(t, &self.definition.id, pool.with_prefix(address));
            if let Some(address) = wanted.iter().find(|address| pool.subnet.contains(*address)) {
                pool.check_static(*address, used)?;
                return Ok(Some(pool.with_prefix(*address)));
            }
            if wanted.iter().all(|address| address.is_ipv4() != ipv4)
                && let Some(address) = pool.choose(used, None)?
            {
                return Ok(Some(pool.with_prefix(address)));
            }
        }
        match has_pool {
            false => Ok(None),
            true => Err(Error::exhausted(format!(
                "network {} has no such address that is free",
                self.definition.name
            ))),
        }
    }

    fn connect(&self, call: &Call, netns: &File, endpoint: &Endpoint) -> Result<Value> {
        let definition = &self.definition;
        self.host.ensure(definition)?;
        let mut interface = Interface::of((endpoint, definition))
            .ok_or_else(|| Error::internal("a network of ours has no interface"))?;
        interface.name.clone_from(&call.interface);
        let mut routes = plan::routes(&[(endpoint, definition)]);
        for route in [&mut routes.ipv4, &mut routes.ipv6].into_iter().flatten() {
            route.interface.clone_from(&call.interface);
        }
        // Before there is anything that it could filter too late.
        self.filter(None)?;
        if let Driver::Bridge(bridge) = &definition.driver
            && bridge.owned
            && !definition.internal
        {
            self.host.forward(endpoint.ipv6.is_some())?;
        }
        let (link, inside) =
            (Step::Link(interface.clone()), Step::Inside(vec![interface.clone()], routes.clone()));
        self.host.apply_in(netns, &link)?;
        self.host.apply_in(netns, &inside)?;
        if !interface.host_name.is_empty() {
            self.host.apply_in(netns, &Step::Port(interface.clone()))?;
        }
        self.result(call, endpoint, &interface, &routes)
    }

    fn result(
        &self,
        call: &Call,
        endpoint: &Endpoint,
        interface: &Interface,
        routes: &plan::Routes,
    ) -> Result<Value> {
        let mut interfaces = Vec::new();
        for name in [self.definition.interface(), interface.host_name.as_str()] {
            if interface.host_name.is_empty() || name.is_empty() {
                continue;
            }
            let link = self.host.socket.link(name).map_err(anyhow::Error::new)?;
            let mac = link.as_ref().and_then(|link| link.mac).map(|mac| mac.to_string());
            interfaces.push(json!({"name": name, "mac": mac.unwrap_or_default()}));
        }
        let sandbox = call.netns.as_deref().unwrap_or(Path::new("")).to_string_lossy();
        interfaces.push(json!({"name": call.interface, "mac": endpoint.mac.to_string(),
            "sandbox": sandbox}));
        let ips: Vec<Value> = endpoint
            .addresses()
            .map(|net| {
                let gateway = self.definition.pool_of(net.addr()).and_then(|pool| pool.gateway);
                let mut ip = json!({"address": net.to_string(), "interface": interfaces.len() - 1});
                if let Some(gateway) = gateway {
                    ip["gateway"] = json!(gateway);
                }
                ip
            })
            .collect();
        let route = |dst: &str, route: &Option<plan::Default>| {
            let route = route.as_ref()?;
            Some(match route.gateway {
                Some(gateway) => json!({"dst": dst, "gw": gateway}),
                None => json!({"dst": dst}),
            })
        };
        let routes: Vec<Value> = [route("0.0.0.0/0", &routes.ipv4), route("::/0", &routes.ipv6)]
            .into_iter()
            .flatten()
            .collect();
        Ok(json!({"cniVersion": "1.1.0", "interfaces": interfaces, "ips": ips, "routes": routes,
            "dns": {}}))
    }

    /// Takes away an attachment, its row last.
    fn remove(&self, key: &str, netns: Option<&File>) -> Result<()> {
        let (Some(sandbox), endpoints) =
            (self.records.sandbox(key)?, self.records.of_container(key)?)
        else {
            return Ok(());
        };
        for endpoint in &endpoints {
            let bridged = matches!(self.definition.driver, Driver::Bridge(_));
            let socket = &self.host.socket;
            if bridged {
                socket.remove_link(&endpoint.host_interface()).map_err(anyhow::Error::new)?;
            } else if let Some(netns) = netns {
                namespace::inside(netns, |socket| Ok(socket.remove_link(&sandbox.hostname)?))?;
            }
        }
        self.filter(Some(key))?;
        self.records.remove_sandbox(key)
    }

    /// The network's table, as its rows are but for one attachment's.
    fn filter(&self, without: Option<&str>) -> Result<()> {
        let Some(rule) = network_rule(&self.definition) else { return Ok(()) };
        let settings = firewall::Settings {
            table: format!("hull-cni-{}", self.definition.id.get(..16).unwrap_or_default()),
            loopback: firewall::Loopback::Translate,
            ..firewall::Settings::default()
        };
        let filter = firewall::Firewall::open(settings)?;
        let mut rules = firewall::Rules::default();
        let bridge = rule.bridge.clone();
        rules.networks.insert(bridge.clone(), rule);
        for endpoint in self.records.of_network(&self.definition.id)? {
            if without == Some(endpoint.container.as_str()) {
                continue;
            }
            let published = ports::again(&self.records.ports(&endpoint.container)?)?;
            let one = firewall::Endpoint {
                interface: endpoint.host_interface(),
                bridge: bridge.clone(),
                mac: firewall::Mac(endpoint.mac.0),
                addresses: endpoint.addresses().map(|net| net.addr()).collect(),
                may_spoof: false,
                links: Vec::new(),
                ports: published.iter().flat_map(|port| leading(port, &endpoint)).collect(),
            };
            rules.endpoints.insert(one.interface.clone(), one);
        }
        if rules.endpoints.is_empty() {
            return Ok(filter.remove()?);
        }
        Ok(filter.replace(rules)?)
    }
}

/// The ports of the packet filter for what is wanted: to the endpoint's address of the family.
fn leading(wanted: &firewall::Wanted, endpoint: &Endpoint) -> Vec<firewall::Port> {
    let address = |ipv4: bool| {
        let net = if ipv4 { endpoint.ipv4 } else { endpoint.ipv6 };
        net.map(|net| net.addr())
    };
    wanted
        .host_addresses
        .iter()
        .filter_map(|host| {
            Some(firewall::Port {
                protocol: wanted.protocol,
                host_address: *host,
                host_port: *wanted.host_ports.start(),
                container_address: address(host.is_ipv4())?,
                container_port: wanted.container_port,
                publish: firewall::Publish::Nat,
                open: wanted.open,
            })
        })
        .collect()
}

impl Mapping {
    fn option(&self) -> Result<v1::PublishOptions> {
        if self.host_port == 0 {
            return Err(Error::invalid("a port mapping has no host port"));
        }
        Ok(v1::PublishOptions {
            host_ip: self.host_ip.clone(),
            host_port: self.host_port,
            host_port_last: self.host_port,
            container_port: self.container_port,
            protocol: self.protocol.clone(),
            ..Default::default()
        })
    }
}
