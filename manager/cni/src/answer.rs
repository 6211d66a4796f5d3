//! What a plugin has answered: a result, an error, or neither (specification 1.1, section 5).
//! Pure.

use std::net::IpAddr;

use hull_manager_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{network::shown, version::Version};

/// How a plugin's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its exit code; none: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) output: Vec<u8>,
    /// The last of what it said on standard error.
    pub(crate) complaint: String,
}

/// What ADD has made. The fields of the specification; whatever else a plugin says is in `raw`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Addition {
    /// Interfaces, also those outside the container.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Address>,
    /// Routes.
    pub routes: Vec<Route>,
    /// For the container's `resolv.conf`.
    pub dns: Dns,
    /// The result as the last plugin gave it.
    pub raw: Value,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, or nothing.
    pub mac: String,
    /// Its MTU (1.1), or 0.
    pub mtu: u32,
    /// The namespace's file; nothing: it is on the host.
    pub sandbox: String,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The bits of its network.
    pub prefix: u8,
    /// The gateway, if there is one.
    pub gateway: Option<IpAddr>,
    /// Which of `interfaces` has it, if that was said.
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to, with the bits of the network.
    pub destination: (IpAddr, u8),
    /// The next hop; none: the gateway of an address.
    pub gateway: Option<IpAddr>,
}

/// Name resolution as the network wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Resolvers.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: String,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

#[derive(Deserialize)]
struct Failure {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

/// The output of a plugin that had to say something; `plugin` is for the sentence.
pub(crate) fn value(plugin: &str, ended: &Ended) -> Result<Value> {
    succeeded(plugin, ended)?;
    match serde_json::from_slice(&ended.output) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(Error::internal(format!(
            "plugin {plugin} answered with no result: {}",
            excerpt(&ended.output)
        ))),
    }
}

/// Whether a plugin did what it was asked to.
pub(crate) fn succeeded(plugin: &str, ended: &Ended) -> Result<()> {
    if ended.code == Some(0) {
        return Ok(());
    }
    if let Some(signal) = ended.signal {
        return Err(Error::internal(format!(
            "plugin {plugin} was killed by signal {signal}{}",
            complaint(ended)
        )));
    }
    let Ok(failure) = serde_json::from_slice::<Failure>(&ended.output) else {
        let code = ended.code.unwrap_or(-1);
        return Err(Error::internal(format!(
            "plugin {plugin} failed with exit code {code}{}",
            complaint(ended)
        )));
    };
    let words: Vec<String> =
        [failure.msg, failure.details].iter().filter(|s| !s.is_empty()).map(|s| plain(s)).collect();
    let words =
        if words.is_empty() { format!("error code {}", failure.code) } else { words.join("; ") };
    Err(Error::new(kind(failure.code), format!("plugin {plugin}: {words}")))
}

/// The specification's error codes.
fn kind(code: u32) -> ErrorKind {
    match code {
        1 | 2 | 7 => ErrorKind::InvalidArgument,
        3 => ErrorKind::NotFound,
        11 | 50 | 51 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn complaint(ended: &Ended) -> String {
    let text = ended.complaint.trim();
    match (text.is_empty(), ended.output.trim_ascii().is_empty()) {
        (false, _) => format!(": {}", plain(text)),
        (true, false) => format!(": {}", excerpt(&ended.output)),
        (true, true) => String::new(),
    }
}

fn excerpt(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(&bytes[..bytes.len().min(400)]))
}

/// A plugin's sentence: one line, without control characters (R26), not endless.
fn plain(text: &str) -> String {
    let line = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(1000).collect()
}

/// The versions that a plugin says it speaks.
pub(crate) fn versions(plugin: &str, ended: &Ended) -> Result<Vec<Version>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Supported {
        supported_versions: Vec<String>,
    }
    let value = value(plugin, ended)?;
    let supported: Supported = serde_json::from_value(value).map_err(|error| {
        Error::internal(format!("plugin {plugin} does not say its versions")).because(error)
    })?;
    let versions = supported.supported_versions.iter().filter_map(|text| text.parse().ok());
    Ok(versions.filter(|version: &Version| version.spoken()).collect())
}

impl Addition {
    /// Reads a result of any version.
    pub(crate) fn read(raw: Value) -> Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Wire {
            interfaces: Vec<Interface>,
            ips: Vec<WireIp>,
            routes: Vec<WireRoute>,
            dns: Dns,
            ip4: Option<OldIp>,
            ip6: Option<OldIp>,
        }
        #[derive(Deserialize)]
        struct WireIp {
            address: String,
            gateway: Option<String>,
            interface: Option<i64>,
        }
        #[derive(Deserialize)]
        struct WireRoute {
            dst: String,
            gw: Option<String>,
        }
        /// Before 0.3.0.
        #[derive(Deserialize)]
        struct OldIp {
            ip: String,
            gateway: Option<String>,
            #[serde(default)]
            routes: Vec<WireRoute>,
        }
        let wire: Wire = serde_json::from_value(raw.clone())
            .map_err(|error| Error::internal("not a result").because(error))?;
        let mut addition =
            Self { interfaces: wire.interfaces, dns: wire.dns, raw, ..Self::default() };
        let mut routes = wire.routes;
        for ip in wire.ips {
            let (address, prefix) = network(&ip.address)?;
            let interface = ip.interface.and_then(|index| usize::try_from(index).ok());
            let interface = interface.filter(|index| *index < addition.interfaces.len());
            let gateway = hop(ip.gateway)?;
            addition.ips.push(Address { address, prefix, gateway, interface });
        }
        for old in [wire.ip4, wire.ip6].into_iter().flatten() {
            let (address, prefix) = network(&old.ip)?;
            let gateway = hop(old.gateway)?;
            addition.ips.push(Address { address, prefix, gateway, interface: None });
            routes.extend(old.routes);
        }
        for route in routes {
            let (destination, gateway) = (network(&route.dst)?, hop(route.gw)?);
            addition.routes.push(Route { destination, gateway });
        }
        Ok(addition)
    }
}

/// `10.1.0.5/16`.
fn network(text: &str) -> Result<(IpAddr, u8)> {
    let parse = || {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        Some((address, bits.parse().ok().filter(|bits| *bits <= most)?))
    };
    parse().ok_or_else(|| Error::internal(format!("{} is no address with a prefix", shown(text))))
}

fn hop(text: Option<String>) -> Result<Option<IpAddr>> {
    match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(Error::internal(format!("{} is no address", shown(text)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(code: Option<i32>, output: &str, complaint: &str) -> Ended {
        let signal = code.is_none().then_some(9);
        Ended { code, signal, output: output.into(), complaint: complaint.into() }
    }

    #[test]
    fn a_failure_is_one_sentence() {
        let error =
            r#"{"cniVersion": "1.0.0", "code": 11, "msg": "busy", "details": "later\n\u001b[1m"}"#;
        for (ended, kind, sentence) in [
            (ended(Some(1), error, "noise"), ErrorKind::Unavailable, "plugin x: busy; later [1m"),
            (
                ended(Some(1), r#"{"code": 7, "msg": "bad"}"#, ""),
                ErrorKind::InvalidArgument,
                "plugin x: bad",
            ),
            (
                ended(Some(1), r#"{"code": 999}"#, ""),
                ErrorKind::Internal,
                "plugin x: error code 999",
            ),
            (
                ended(Some(3), "", "it\nbroke\n"),
                ErrorKind::Internal,
                "plugin x failed with exit code 3: it broke",
            ),
            (ended(Some(3), "", ""), ErrorKind::Internal, "plugin x failed with exit code 3"),
            (
                ended(Some(3), "\u{7}x", ""),
                ErrorKind::Internal,
                "plugin x failed with exit code 3: \"\\u{7}x\"",
            ),
            (
                ended(None, "", "panic"),
                ErrorKind::Internal,
                "plugin x was killed by signal 9: panic",
            ),
            (
                ended(Some(0), "<html>", ""),
                ErrorKind::Internal,
                "plugin x answered with no result: \"<html>\"",
            ),
            (ended(Some(0), "", ""), ErrorKind::Internal, "plugin x answered with no result: \"\""),
            (
                ended(Some(0), "[1]", ""),
                ErrorKind::Internal,
                "plugin x answered with no result: \"[1]\"",
            ),
        ] {
            let error = value("x", &ended).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, sentence));
        }
    }

    #[test]
    fn a_result_of_any_version_is_read() {
        let new = Addition::read(json!({"cniVersion": "1.1.0",
            "interfaces": [{"name": "cni0", "mac": "00:11:22:33:44:55"},
                {"name": "eth0", "mac": "99:88:77:66:55:44", "mtu": 1450, "sandbox": "/run/netns/a"}],
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
                {"address": "fd00::5/64", "interface": 7}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.0.9"}],
            "dns": {"nameservers": ["10.1.0.1"]}, "more": 1}))
        .unwrap();
        assert_eq!((new.interfaces[1].mtu, new.raw["more"].as_i64()), (1450, Some(1)));
        assert_eq!(
            (new.ips[0].prefix, new.ips[0].interface, new.ips[1].interface),
            (16, Some(1), None)
        );
        assert_eq!(new.routes[1].gateway, Some("10.1.0.9".parse().unwrap()));
        assert_eq!(new.dns.nameservers, ["10.1.0.1"]);
        let old = Addition::read(json!({"ip4": {"ip": "10.2.0.5/24", "gateway": "10.2.0.1",
            "routes": [{"dst": "0.0.0.0/0"}]}}))
        .unwrap();
        assert_eq!(
            (old.ips[0].prefix, old.ips[0].gateway, old.routes.len()),
            (24, Some("10.2.0.1".parse().unwrap()), 1)
        );
        for bad in [
            json!({"ips": [{"address": "10.1.0.5"}]}),
            json!({"ips": [{"address": "10.1.0.5/33"}]}),
            json!({"ips": [{"address": "10.1.0.5/16", "gateway": "x"}]}),
            json!({"ips": 1}),
            json!({"routes": [{}]}),
        ] {
            assert!(Addition::read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plugins_versions_are_those_that_we_speak_too() {
        let said = ended(Some(0), r#"{"supportedVersions": ["0.4.0", "1.0.0", "7.0.0", "x"]}"#, "");
        assert_eq!(crate::version::list(&versions("x", &said).unwrap()), "0.4.0, 1.0.0");
        assert!(versions("x", &ended(Some(0), "{}", "")).is_err());
    }
}
