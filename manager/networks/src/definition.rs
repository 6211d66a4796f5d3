//! What a network is, as a CNI configuration list (specification 1.1, section 1).
//!
//! The file is the whole definition and its only owner, so it is there or not there. A list whose
//! one plugin is `hull-cni` is done by us, without executing anything; its fields are named as
//! those of the reference plugins bridge, macvlan and host-local. Any other list is done by its
//! plugins. What CNI has no place for is under the key `hull`.

use std::{collections::BTreeMap, net::IpAddr, time::SystemTime};

use hull_manager_core::{Error, Result, name::check_name};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ipam::{self, Pool};

/// The plugin that is built in.
pub(crate) const OWN: &str = "hull-cni";

/// The version of the specification that we write.
const VERSION: &str = "1.1.0";

/// A network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: SystemTime,
    pub(crate) labels: BTreeMap<String, String>,
    /// The driver's options as they were given.
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    /// The configuration that it was made from; empty: none.
    pub(crate) config_from: String,
    pub(crate) driver: Driver,
    pub(crate) pools: Vec<Pool>,
}

/// How it is made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Driver {
    Bridge(Bridge),
    Macvlan(Parent),
    Ipvlan(Parent),
    /// Not at all: others are made as it says.
    Configuration(Families),
    /// By plugins: the list as it is in its file.
    Plugins(Value),
}

/// Which families a configuration asks for; none: what the manager does by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Families {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ipv4: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ipv6: Option<bool>,
}

/// A bridge of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) interface: String,
    /// It is ours: we make it, and it has the gateways' addresses. If not, it is only used.
    pub(crate) owned: bool,
    /// Containers have the host's address outside.
    pub(crate) masquerade: bool,
    /// Containers reach each other.
    pub(crate) icc: bool,
    /// None: the uplink's.
    pub(crate) mtu: Option<u32>,
    /// Where ports are published that name no address; none: the manager's default.
    pub(crate) bind: Option<IpAddr>,
}

/// An interface of the host's that others are made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) interface: String,
    /// bridge, vepa, private, passthru; or l2, l3, l3s.
    pub(crate) mode: String,
    pub(crate) mtu: Option<u32>,
    /// It is ours: we make it, and it goes with the network.
    pub(crate) owned: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    #[serde(default)]
    cni_version: String,
    name: String,
    #[serde(default)]
    plugins: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hull: Option<Own>,
}

/// What CNI has no place for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Own {
    id: String,
    /// Seconds since 1970.
    created: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_false")]
    attachable: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    config_from: String,
    /// Of a configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    families: Option<Families>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The configuration of the plugin that is built in.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    #[serde(rename = "type")]
    kind: String,
    driver: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_gateway: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_masq: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icc: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master: Option<String>,
    /// The manager has made the master.
    #[serde(default, skip_serializing_if = "is_false")]
    own_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "is_false")]
    internal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<BTreeMap<String, bool>>,
    ipam: Ipam,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ipam {
    #[serde(rename = "type")]
    kind: String,
    ranges: Vec<Vec<Range>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Range {
    subnet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_start: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    aux_addresses: BTreeMap<String, IpAddr>,
}

impl Range {
    fn of(pool: &Pool) -> Self {
        let whole = Pool::new(pool.subnet, false);
        Self {
            subnet: pool.subnet.to_string(),
            range_start: (whole.first != pool.first).then_some(pool.first),
            range_end: (whole.last != pool.last).then_some(pool.last),
            gateway: pool.gateway,
            aux_addresses: pool.auxiliary.clone(),
        }
    }

    fn pool(self) -> Result<Pool> {
        let subnet = ipam::parse_subnet(&self.subnet)?;
        let mut pool = Pool::new(subnet, false);
        let inside = |address: IpAddr| match subnet.contains(&address) {
            true => Ok(address),
            false => Err(Error::invalid(format!("{address} is not in {subnet}"))),
        };
        if let Some(first) = self.range_start {
            pool.first = inside(first)?;
        }
        if let Some(last) = self.range_end {
            pool.last = inside(last)?;
        }
        pool.gateway = self.gateway.map(inside).transpose()?;
        pool.auxiliary = self.aux_addresses;
        for address in pool.auxiliary.values() {
            inside(*address)?;
        }
        Ok(pool)
    }
}

impl Definition {
    /// The file's content.
    pub(crate) fn to_list(&self) -> Result<Vec<u8>> {
        let mut plugin = Plugin {
            kind: OWN.into(),
            driver: self.driver.name().into(),
            internal: self.internal,
            ipam: Ipam {
                kind: OWN.into(),
                ranges: self.pools.iter().map(|pool| vec![Range::of(pool)]).collect(),
            },
            ..Plugin::default()
        };
        match &self.driver {
            Driver::Bridge(bridge) => {
                plugin.bridge = Some(bridge.interface.clone());
                plugin.is_gateway = Some(bridge.owned);
                plugin.ip_masq = Some(bridge.masquerade);
                plugin.icc = Some(bridge.icc);
                plugin.host_ip = bridge.bind;
                plugin.mtu = bridge.mtu;
                plugin.capabilities = Some(BTreeMap::from([("portMappings".into(), true)]));
            }
            Driver::Macvlan(parent) | Driver::Ipvlan(parent) => {
                plugin.master = Some(parent.interface.clone());
                plugin.own_master = parent.owned;
                plugin.mode = Some(parent.mode.clone());
                plugin.mtu = parent.mtu;
            }
            Driver::Configuration(_) => {}
            Driver::Plugins(_) => {
                return Err(Error::internal(format!("network {} is its user's file", self.name)));
            }
        }
        let created = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let list = List {
            cni_version: VERSION.into(),
            name: self.name.clone(),
            plugins: vec![serde_json::to_value(plugin).map_err(anyhow::Error::new)?],
            hull: Some(Own {
                id: self.id.clone(),
                created: created.as_secs(),
                labels: self.labels.clone(),
                options: self.options.clone(),
                attachable: self.attachable,
                config_from: self.config_from.clone(),
                families: match self.driver {
                    Driver::Configuration(families) => Some(families),
                    _ => None,
                },
            }),
        };
        let mut text = serde_json::to_vec_pretty(&list).map_err(anyhow::Error::new)?;
        text.push(b'\n');
        Ok(text)
    }

    /// What a file says. One that is not ours has an id that follows from its name, and the
    /// file's time.
    ///
    /// # Errors
    /// If it is no configuration list, or one of ours that makes no sense.
    pub(crate) fn from_list(content: &[u8], modified: SystemTime) -> Result<Self> {
        let whole: Value = serde_json::from_slice(content)
            .map_err(|cause| Error::invalid("a configuration list").because(cause))?;
        let list: List = serde_json::from_value(whole.clone())
            .map_err(|cause| Error::invalid("a configuration list").because(cause))?;
        check_name("network", &list.name)?;
        let kinds = || list.plugins.iter().map(|plugin| plugin["type"].as_str().unwrap_or(""));
        if kinds().next().is_none() || kinds().any(str::is_empty) {
            return Err(Error::invalid(format!("network {} has a plugin without type", list.name)));
        }
        let own = list.hull.unwrap_or_else(|| Own {
            id: id_of(&list.name),
            created: modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            attachable: false,
            config_from: String::new(),
            families: None,
        });
        let mut definition = Self {
            id: own.id,
            name: list.name,
            created: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(own.created),
            labels: own.labels,
            options: own.options,
            internal: false,
            attachable: own.attachable,
            config_from: own.config_from,
            driver: Driver::Plugins(whole),
            pools: Vec::new(),
        };
        if let [plugin] = &list.plugins[..]
            && plugin["type"] == OWN
        {
            let plugin: Plugin = serde_json::from_value(plugin.clone()).map_err(|cause| {
                Error::invalid(format!("network {}", definition.name)).because(cause)
            })?;
            definition
                .read(plugin, own.families)
                .map_err(|error| error.context(format!("network {}", definition.name)))?;
        }
        Ok(definition)
    }

    fn read(&mut self, plugin: Plugin, families: Option<Families>) -> Result<()> {
        let missing = |field: &str| Error::invalid(format!("the field {field} is missing"));
        if plugin.ipam.kind != OWN {
            return Err(Error::invalid(format!("its ipam is not {OWN}")));
        }
        self.internal = plugin.internal;
        let ranges = plugin.ipam.ranges.into_iter().flatten();
        self.pools = ranges.map(Range::pool).collect::<Result<_>>()?;
        let parent = |interface: Option<String>, mode: Option<String>| {
            Ok::<_, Error>(Parent {
                interface: check_interface(interface.ok_or_else(|| missing("master"))?)?,
                mode: mode.ok_or_else(|| missing("mode"))?,
                mtu: plugin.mtu,
                owned: plugin.own_master,
            })
        };
        self.driver = match plugin.driver.as_str() {
            "bridge" => Driver::Bridge(Bridge {
                interface: check_interface(plugin.bridge.ok_or_else(|| missing("bridge"))?)?,
                owned: plugin.is_gateway.unwrap_or(true),
                masquerade: plugin.ip_masq.unwrap_or(false),
                icc: plugin.icc.unwrap_or(true),
                mtu: plugin.mtu,
                bind: plugin.host_ip,
            }),
            "macvlan" => Driver::Macvlan(parent(plugin.master, plugin.mode)?),
            "ipvlan" => Driver::Ipvlan(parent(plugin.master, plugin.mode)?),
            "null" if families.is_some() => Driver::Configuration(families.unwrap_or_default()),
            other => return Err(Error::invalid(format!("no driver is called {other:?}"))),
        };
        if let Driver::Macvlan(parent) | Driver::Ipvlan(parent) = &self.driver {
            crate::options::slave(self.driver.name(), &parent.mode)?;
        }
        Ok(())
    }

    /// The interface of the host's that it is on.
    pub(crate) fn interface(&self) -> &str {
        match &self.driver {
            Driver::Bridge(bridge) => &bridge.interface,
            Driver::Macvlan(parent) | Driver::Ipvlan(parent) => &parent.interface,
            Driver::Configuration(_) => "",
            Driver::Plugins(list) => list["plugins"][0]["bridge"].as_str().unwrap_or_default(),
        }
    }

    /// Whether plugins of it lead ports of the host to containers.
    pub(crate) fn maps_ports(&self) -> bool {
        let Driver::Plugins(list) = &self.driver else { return false };
        let plugins = list["plugins"].as_array().into_iter().flatten();
        let mut wanted = plugins.map(|plugin| &plugin["capabilities"]["portMappings"]);
        wanted.any(|wanted| wanted == true)
    }

    /// The pools of a family.
    pub(crate) fn pools(&self, ipv4: bool) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter(move |pool| pool.is_ipv4() == ipv4)
    }

    /// The pool that an address is of.
    pub(crate) fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.contains(&address))
    }

    /// The gateway of who has an address of it.
    pub(crate) fn route(&self, address: IpAddr) -> Option<IpAddr> {
        let pool = self.pool_of(address)?;
        match self.driver {
            Driver::Bridge(_) => pool.route(),
            _ => pool.gateway,
        }
    }
}

impl Driver {
    /// Its name; that of plugins is the first one's type.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Bridge(_) => "bridge",
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(_) => "ipvlan",
            Self::Configuration(_) => "null",
            Self::Plugins(list) => list["plugins"][0]["type"].as_str().unwrap_or_default(),
        }
    }
}

/// A name that the kernel takes for an interface, and that is one component of a path.
pub(crate) fn check_interface(name: String) -> Result<String> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
    match valid {
        true => Ok(name),
        false => {
            Err(Error::invalid(format!("invalid interface name: \"{}\"", name.escape_debug())))
        }
    }
}

/// The id of a network that nobody gave one: the same as long as it has its name.
pub(crate) fn id_of(name: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge() -> Definition {
        let pool = |subnet: &str| Pool::new(subnet.parse().unwrap(), true);
        Definition {
            id: "ab".repeat(32),
            name: "mynet".into(),
            created: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            options: BTreeMap::from([("com.docker.network.driver.mtu".into(), "1400".into())]),
            internal: true,
            attachable: true,
            config_from: "cfg".into(),
            driver: Driver::Bridge(Bridge {
                interface: "hl-abababababab".into(),
                owned: true,
                masquerade: true,
                icc: false,
                mtu: Some(1400),
                bind: Some("127.0.0.1".parse().unwrap()),
            }),
            pools: vec![pool("172.18.0.0/16"), pool("fd00::/64")],
        }
    }

    #[test]
    fn a_definition_survives_its_file() {
        let mut definition = bridge();
        definition.pools[0].first = "172.18.5.0".parse().unwrap();
        definition.pools[0].auxiliary.insert("r".into(), "172.18.9.9".parse().unwrap());
        let file = definition.to_list().unwrap();
        assert_eq!(Definition::from_list(&file, SystemTime::now()).unwrap(), definition);
        definition.driver = Driver::Macvlan(Parent {
            interface: "eth0.50".into(),
            mode: "bridge".into(),
            mtu: None,
            owned: true,
        });
        let file = definition.to_list().unwrap();
        assert_eq!(Definition::from_list(&file, SystemTime::now()).unwrap(), definition);
    }

    #[test]
    fn the_file_is_a_configuration_list() {
        let list: Value = serde_json::from_slice(&bridge().to_list().unwrap()).unwrap();
        assert_eq!(list["cniVersion"], "1.1.0");
        assert_eq!(list["name"], "mynet");
        let plugin = &list["plugins"][0];
        assert_eq!(plugin["type"], "hull-cni");
        assert_eq!(plugin["ipam"]["ranges"][1][0]["gateway"], "fd00::1");
        assert_eq!((&plugin["mtu"], &plugin["isGateway"]), (&1400.into(), &true.into()));
    }

    #[test]
    fn a_users_list_is_left_to_its_plugins() {
        let list = br#"{"cniVersion":"0.4.0","name":"old","plugins":[{"type":"ptp","x":1},{"type":"portmap"}]}"#;
        let a = Definition::from_list(list, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((a.name.as_str(), a.driver.name(), a.id.len()), ("old", "ptp", 64));
        assert_eq!(a, Definition::from_list(list, SystemTime::UNIX_EPOCH).unwrap());
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused() {
        for (list, says) in [
            ("", "a configuration list"),
            (r#"{"cniVersion":"1.1.0","name":"..","plugins":[{"type":"a"}]}"#, "network name"),
            (r#"{"cniVersion":"1.1.0","name":"aa","plugins":[]}"#, "without type"),
            (r#"{"cniVersion":"1.1.0","name":"aa","plugins":[{}]}"#, "without type"),
            (
                r#"{"cniVersion":"1.1.0","name":"aa","plugins":[{"type":"hull-cni","driver":"bridge","bridge":"a/b","ipam":{"type":"hull-cni","ranges":[]}}]}"#,
                "invalid interface name",
            ),
            (
                r#"{"cniVersion":"1.1.0","name":"aa","plugins":[{"type":"hull-cni","driver":"bridge","vlan":5,"bridge":"b","ipam":{"type":"hull-cni","ranges":[]}}]}"#,
                "unknown field `vlan`",
            ),
            (
                r#"{"cniVersion":"1.1.0","name":"aa","plugins":[{"type":"hull-cni","driver":"bridge","bridge":"b","ipam":{"type":"hull-cni","ranges":[[{"subnet":"10.0.0.0/24","gateway":"10.1.0.1"}]]}}]}"#,
                "10.1.0.1 is not in",
            ),
        ] {
            let error = Definition::from_list(list.as_bytes(), SystemTime::now()).unwrap_err();
            assert!(error.to_string().contains(says), "{list}: {error}");
        }
    }
}
