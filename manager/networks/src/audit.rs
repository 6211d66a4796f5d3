//! Who reaches what, port by port, and why. Pure, from the same facts that the packet filter's
//! rules are made of.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use hull_manager_core::Result;
use hull_manager_firewall::HostChain;
use hull_specs_api::v1;

use crate::{
    Inner,
    definition::{Definition, Driver},
    records::Sandbox,
};

/// What of the host makes a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Situation {
    /// The manager makes rules.
    pub(crate) filtered: bool,
    /// Chains of other tables that drop whatever arrives by default.
    pub(crate) arriving: Vec<HostChain>,
    /// The same of what comes in, which the manager respects.
    pub(crate) input: Vec<HostChain>,
    /// The same of what is forwarded.
    pub(crate) forward: Vec<HostChain>,
    /// The kernel forwards IPv4, and IPv6.
    pub(crate) forwards: [bool; 2],
    /// The host's interfaces may have IPv6.
    pub(crate) ipv6: bool,
}

/// A running container's place, with the ports that lead to it.
pub(crate) struct Member<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) published: &'a [v1::PublishedPort],
}

fn reach(
    from: impl Into<String>,
    network: &Definition,
    allowed: bool,
    why: impl Into<String>,
) -> v1::Reach {
    v1::Reach {
        from: from.into(),
        network: network.name.clone(),
        allowed,
        why: why.into(),
        ..Default::default()
    }
}

/// Who reaches all ports of a network's containers.
fn everybody(network: &Definition, situation: &Situation) -> Vec<v1::Reach> {
    if matches!(network.driver, Driver::Configuration(_)) {
        return Vec::new();
    }
    let own = format!("network {}", network.name);
    let Driver::Bridge(bridge) = &network.driver else {
        let what = match &network.driver {
            Driver::Plugins(_) => "its plugins decide; hull adds no rule".to_owned(),
            _ => format!(
                "it is on the wire of {}: no packet passes the host's filter",
                network.interface()
            ),
        };
        return vec![reach("anywhere", network, true, what)];
    };
    let among = match bridge.icc {
        true => reach(own, network, true, "containers of a network reach each other"),
        false => reach(own, network, false, "communication within it is off (icc)"),
    };
    let host = format!("the host is on the bridge {}", bridge.interface);
    let outside = if network.internal {
        reach("anywhere", network, !situation.filtered, "it is internal: nothing is forwarded")
    } else if situation.filtered {
        reach("anywhere", network, false, "ports that are not published are closed from outside")
    } else {
        let forwards = situation.forwards.contains(&true);
        let why = match forwards {
            true => "hull makes no rules (iptables=false), and the host forwards",
            false => "the host does not forward",
        };
        reach("anywhere", network, forwards, why)
    };
    vec![among, reach("host", network, true, host), outside]
}

/// Who reaches a published port.
fn published(
    network: &Definition,
    member: &Member<'_>,
    port: &v1::PublishedPort,
    situation: &Situation,
) -> v1::Reach {
    let to = port.host_ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let by_proxy = port.via() == v1::publish_options::Via::Proxy || !situation.filtered;
    // While the host drops what comes in, its rules are asked as for any service: packets go to
    // a proxy, not through the host.
    let (chains, what) = match by_proxy || !situation.input.is_empty() {
        true => (&situation.input, "comes in"),
        false => (&situation.forward, "is forwarded"),
    };
    let is_sctp = port.protocol == "sctp";
    let before = situation.arriving.iter().map(|chain| (chain, "arrives"));
    let mut chains = before.chain(chains.iter().map(|chain| (chain, what)));
    let chain = chains.find(|(chain, _)| chain.sees(to)).filter(|_| !to.is_loopback());
    let (chain, what) = chain.map_or((None, what), |(chain, what)| (Some(chain), what));
    let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
    let forwarded = !by_proxy && situation.input.is_empty();
    let stays = forwarded && !situation.forwards[usize::from(to.is_ipv6())] && !to.is_loopback();
    let disabled = to.is_ipv6() && !situation.ipv6;
    let (from, why) = match (chain, by_proxy) {
        _ if disabled => ("anywhere", "IPv6 is off on the host (disable_ipv6)".to_owned()),
        _ if to.is_loopback() => {
            ("loopback", "it is published on the host's loopback only".to_owned())
        }
        _ if stays => ("anywhere", format!("the kernel does not forward {family}")),
        _ if is_sctp && !situation.filtered => {
            ("anywhere", "hull makes no rules (iptables=false), and sctp has no proxy".into())
        }
        (Some(chain), _) if is_sctp => (
            "anywhere",
            format!("the host's chain {chain} drops what {what}, and sctp has no proxy"),
        ),
        (Some(chain), _) => (
            "anywhere",
            format!("the host's chain {chain} drops what {what} unless one of its rules takes it"),
        ),
        (None, _) if !situation.filtered => {
            ("anywhere", "it is published by a proxy: hull makes no rules (iptables=false)".into())
        }
        (None, true) => ("anywhere", "it is published by a proxy".into()),
        (None, false) => ("anywhere", "it is published".into()),
    };
    let no_proxy = is_sctp
        && !to.is_loopback()
        && (!situation.filtered || !situation.input.is_empty() && chain.is_some());
    let lost = disabled || stays || no_proxy;
    v1::Reach {
        host_decides: chain.is_some() && !lost,
        container: member.sandbox.name.clone(),
        container_id: member.sandbox.container.clone(),
        address: port.host_ip.clone(),
        port: port.host_port,
        protocol: port.protocol.clone(),
        container_port: port.container_port,
        ..reach(from, network, chain.is_none() && !lost, why)
    }
}

/// Everything about one network.
pub(crate) fn network(
    network: &Definition,
    members: &[Member<'_>],
    situation: &Situation,
) -> Vec<v1::Reach> {
    let mut reaches = everybody(network, situation);
    for member in members {
        for port in member.published {
            reaches.push(published(network, member, port, situation));
        }
    }
    reaches
}

/// What a reader must know besides.
pub(crate) fn notes(situation: &Situation) -> Vec<String> {
    let mut notes = Vec::new();
    if !situation.filtered {
        notes.push(
            "hull makes no rules (iptables=false): the host's own rules are all there are".into(),
        );
    }
    for chain in &situation.arriving {
        notes.push(format!(
            "the host's chain {chain} drops what arrives by default: nothing is reached but what it lets through"
        ));
    }
    for chain in &situation.input {
        notes.push(format!(
            "the host's chain {chain} drops what comes in by default: published ports are open only where it lets them"
        ));
    }
    for chain in &situation.forward {
        notes.push(format!(
            "the host's chain {chain} drops what is forwarded by default: containers reach the world only where it lets them"
        ));
    }
    for (forwards, name) in situation.forwards.into_iter().zip(["IPv4", "IPv6"]) {
        if !forwards {
            notes.push(format!(
                "the kernel does not forward {name}: containers do not reach the world by it"
            ));
        }
    }
    notes
}

impl Inner {
    pub(crate) fn audit(
        &self,
        request: &v1::AuditNetworksRequest,
    ) -> Result<v1::AuditNetworksResponse> {
        let networks: Vec<Arc<Definition>> = {
            let mut state = self.state();
            state.catalog.refresh()?;
            match request.network.as_str() {
                "" => state.catalog.all().map(|known| Arc::clone(&known.definition)).collect(),
                text => vec![state.catalog.find(text)?.definition],
            }
        };
        self.firewall.follow_the_host()?;
        let situation = self.situation();
        let mut response =
            v1::AuditNetworksResponse { reaches: Vec::new(), notes: notes(&situation) };
        for definition in networks {
            let mut rows = Vec::new();
            for endpoint in self.records.members(&definition.id)? {
                let Some(sandbox) = self.records.sandbox(&endpoint.container)? else { continue };
                let published = match self.publishes(&endpoint)? {
                    true => self.records.ports(&endpoint.container)?,
                    false => Vec::new(),
                };
                rows.push((sandbox, published));
            }
            let members: Vec<_> =
                rows.iter().map(|(sandbox, published)| Member { sandbox, published }).collect();
            response.reaches.extend(network(&definition, &members, &situation));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::SystemTime};

    use super::*;
    use crate::{definition::Bridge, ipam::Pool};

    fn definition(change: impl FnOnce(&mut Definition, &mut Bridge)) -> Definition {
        let mut bridge = Bridge {
            interface: "b0".into(),
            owned: true,
            masquerade: true,
            icc: true,
            mtu: None,
            bind: None,
        };
        let mut definition = Definition {
            id: "ab".repeat(32),
            name: "n1".into(),
            created: SystemTime::UNIX_EPOCH,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            internal: false,
            attachable: false,
            config_from: String::new(),
            driver: Driver::Plugins(serde_json::Value::Null),
            pools: vec![Pool::new("10.0.0.0/24".parse().unwrap(), true)],
        };
        change(&mut definition, &mut bridge);
        definition.driver = Driver::Bridge(bridge);
        definition
    }

    const USUAL: Situation = Situation {
        filtered: true,
        arriving: Vec::new(),
        input: Vec::new(),
        forward: Vec::new(),
        forwards: [true, true],
        ipv6: true,
    };

    fn chain(family: u8) -> Vec<HostChain> {
        vec![HostChain { family, table: "filter".into(), name: "own".into() }]
    }

    fn said(definition: &Definition, host_ip: &str, situation: &Situation) -> Vec<String> {
        let sandbox = Sandbox {
            container: "c".into(),
            name: "web".into(),
            hostname: String::new(),
            options: Default::default(),
        };
        let published = [v1::PublishedPort {
            host_ip: host_ip.into(),
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            via: 0,
        }];
        let members = [Member { sandbox: &sandbox, published: &published }];
        network(definition, &members, situation)
            .iter()
            .map(|r| {
                let verb = match (r.host_decides, r.allowed) {
                    (true, _) => "may reach",
                    (false, true) => "reaches",
                    (false, false) => "does not reach",
                };
                assert_eq!(
                    r.host_decides,
                    r.why.contains("host's chain ip filter own"),
                    "{}",
                    r.why
                );
                format!("{} {verb} {} {}", r.from, r.container, r.port)
            })
            .collect()
    }

    #[test]
    fn each_answer_follows_from_the_network_the_port_and_the_host() {
        let plain = definition(|_, _| {});
        let usual = [
            "network n1 reaches  0",
            "host reaches  0",
            "anywhere does not reach  0",
            "anywhere reaches web 8080",
        ];
        assert_eq!(said(&plain, "0.0.0.0", &USUAL), usual);
        assert_eq!(said(&plain, "127.0.0.1", &USUAL)[3], "loopback reaches web 8080");
        // 2 is IPv4.
        let closed = Situation { input: chain(2), ..USUAL };
        assert_eq!(said(&plain, "0.0.0.0", &closed)[3], "anywhere may reach web 8080");
        assert_eq!(said(&plain, "::", &closed)[3], "anywhere reaches web 8080");
        assert_eq!(said(&plain, "127.0.0.1", &closed)[3], "loopback reaches web 8080");
        let shut = Situation { forward: chain(2), ..USUAL };
        assert_eq!(said(&plain, "0.0.0.0", &shut)[3], "anywhere may reach web 8080");
        assert_eq!(said(&plain, "::", &shut)[3], "anywhere reaches web 8080");
        let early = Situation { arriving: chain(2), ..USUAL };
        assert_eq!(said(&plain, "0.0.0.0", &early)[3], "anywhere may reach web 8080");
        assert_eq!(said(&plain, "127.0.0.1", &early)[3], "loopback reaches web 8080");
        let mut still = Situation { forwards: [false, true], ..USUAL };
        assert_eq!(said(&plain, "0.0.0.0", &still)[3], "anywhere does not reach web 8080");
        assert_eq!(said(&plain, "::", &still)[3], "anywhere reaches web 8080");
        assert_eq!(said(&plain, "127.0.0.1", &still)[3], "loopback reaches web 8080");
        // The proxy's: nothing is forwarded.
        still.filtered = false;
        assert_eq!(said(&plain, "0.0.0.0", &still)[3], "anywhere reaches web 8080");
        let without = Situation { ipv6: false, ..USUAL };
        assert_eq!(said(&plain, "::", &without)[3], "anywhere does not reach web 8080");
        assert_eq!(said(&plain, "0.0.0.0", &without)[3], "anywhere reaches web 8080");
        let by_proxy = Situation { filtered: false, ..shut };
        assert_eq!(said(&plain, "0.0.0.0", &by_proxy)[3], "anywhere reaches web 8080");
        let bare = Situation { filtered: false, ..USUAL };
        assert_eq!(said(&plain, "0.0.0.0", &bare)[2], "anywhere reaches  0");
        let apart = definition(|_, bridge| bridge.icc = false);
        assert_eq!(said(&apart, "0.0.0.0", &USUAL)[0], "network n1 does not reach  0");
        let internal = definition(|definition, _| definition.internal = true);
        assert_eq!(said(&internal, "0.0.0.0", &USUAL)[2], "anywhere does not reach  0");
    }

    #[test]
    fn notes_are_about_what_is_unusual() {
        assert_eq!(notes(&USUAL), [""; 0]);
        let all = Situation {
            filtered: false,
            arriving: chain(1),
            input: chain(1),
            forward: chain(2),
            forwards: [false, false],
            ipv6: false,
        };
        assert_eq!(notes(&all).len(), 6);
    }
}
