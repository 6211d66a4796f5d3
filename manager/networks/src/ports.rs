//! Which ports a container wants at the host. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hull_manager_core::{Error, Result};
use hull_manager_firewall::{Port, Protocol, Publish, Wanted};
use hull_specs_api::v1;

use crate::options::address;

fn number(port: u32) -> Result<u16> {
    u16::try_from(port).map_err(|_| Error::invalid(format!("invalid port: {port}")))
}

fn protocol(text: &str) -> Result<Protocol> {
    let text = if text.is_empty() { "tcp" } else { text };
    text.parse().map_err(|error: anyhow::Error| Error::invalid(error.to_string()))
}

/// A port that the image or the user says it listens on, `80/tcp` or `8000-8010/udp`.
fn exposed(text: &str) -> Result<(std::ops::RangeInclusive<u16>, Protocol)> {
    let invalid = || Error::invalid(format!("invalid exposed port: {}", text.escape_debug()));
    let (ports, kind) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first..=last, protocol(kind)?)),
        _ => Err(invalid()),
    }
}

/// All ports that are exposed.
pub(crate) fn all_exposed(options: &v1::ContainerOptions) -> Result<Vec<(u16, Protocol)>> {
    let mut all = BTreeSet::new();
    for text in &options.expose {
        let (ports, protocol) = exposed(text)?;
        all.extend(ports.map(|port| (protocol, port)));
    }
    Ok(all.into_iter().map(|(protocol, port)| (port, protocol)).collect())
}

/// What a container publishes; `bind` is where ports go that name no address.
pub(crate) fn wanted(options: &v1::ContainerOptions, bind: Option<IpAddr>) -> Result<Vec<Wanted>> {
    let everywhere = || match bind {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let mut wanted = Vec::new();
    let mut published = BTreeSet::new();
    for port in &options.publish {
        let protocol = protocol(&port.protocol)?;
        let container_port = number(port.container_port)?;
        if container_port == 0 {
            return Err(Error::invalid("the port of a container is not 0".to_owned()));
        }
        let first = number(port.host_port)?;
        let last = number(port.host_port_last.max(port.host_port))?;
        published.insert((protocol, container_port));
        wanted.push(Wanted {
            protocol,
            host_addresses: match port.host_ip.as_str() {
                "" => everywhere(),
                text => vec![address("host address", text)?],
            },
            host_ports: first..=last,
            container_port,
            publish: match port.via() {
                v1::publish_options::Via::Forward => Publish::Nat,
                v1::publish_options::Via::Proxy => Publish::Proxy,
            },
        });
    }
    if options.publish_all {
        for (container_port, protocol) in all_exposed(options)? {
            if published.contains(&(protocol, container_port)) {
                continue;
            }
            wanted.push(Wanted {
                protocol,
                host_addresses: everywhere(),
                host_ports: 0..=0,
                container_port,
                publish: Publish::Nat,
            });
        }
    }
    Ok(wanted)
}

/// What was published, wanted again as it is: for a container that outlived the manager.
pub(crate) fn again(ports: &[v1::PublishedPort]) -> Result<Vec<Wanted>> {
    let again = |port: &v1::PublishedPort| {
        let host_port = number(port.host_port)?;
        Ok(Wanted {
            protocol: protocol(&port.protocol)?,
            host_addresses: vec![address("host address", &port.host_ip)?],
            host_ports: host_port..=host_port,
            container_port: number(port.container_port)?,
            publish: match port.via() {
                v1::publish_options::Via::Forward => Publish::Nat,
                v1::publish_options::Via::Proxy => Publish::Proxy,
            },
        })
    };
    ports.iter().map(again).collect()
}

/// A port in force as a message.
pub(crate) fn message(port: &Port) -> v1::PublishedPort {
    let via = match port.publish {
        Publish::Nat => v1::publish_options::Via::Forward,
        Publish::Proxy => v1::publish_options::Via::Proxy,
    };
    v1::PublishedPort {
        host_ip: port.host_address.to_string(),
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        protocol: port.protocol.to_string(),
        via: via.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(host_ip: &str, host: (u32, u32), container_port: u32) -> v1::PublishOptions {
        v1::PublishOptions {
            host_ip: host_ip.into(),
            host_port: host.0,
            host_port_last: host.1,
            container_port,
            protocol: "udp".into(),
            ..Default::default()
        }
    }

    fn shown(options: &v1::ContainerOptions, bind: Option<IpAddr>) -> Vec<String> {
        let show = |w: &Wanted| {
            format!("{:?} {:?} {}/{}", w.host_addresses, w.host_ports, w.container_port, w.protocol)
        };
        wanted(options, bind).unwrap().iter().map(show).collect()
    }

    #[test]
    fn a_port_goes_where_it_says_or_everywhere() {
        let mut options = v1::ContainerOptions {
            publish: vec![
                publish("", (8080, 0), 80),
                publish("127.0.0.1", (0, 0), 81),
                publish("::1", (9000, 9009), 82),
            ],
            expose: vec!["80/udp".into(), "80/tcp".into(), "90-91".into()],
            ..Default::default()
        };
        let published = [
            "[0.0.0.0, ::] 8080..=8080 80/udp",
            "[127.0.0.1] 0..=0 81/udp",
            "[::1] 9000..=9009 82/udp",
        ];
        assert_eq!(shown(&options, None), published);
        options.publish_all = true;
        let all = shown(&options, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(all[0], "[10.0.0.1] 8080..=8080 80/udp");
        assert_eq!(
            all[3..],
            ["[10.0.0.1] 0..=0 80/tcp", "[10.0.0.1] 0..=0 90/tcp", "[10.0.0.1] 0..=0 91/tcp"]
        );
    }

    #[test]
    fn what_is_no_port_is_refused() {
        let refused = |change: fn(&mut v1::ContainerOptions)| {
            let mut options = v1::ContainerOptions {
                publish: vec![publish("", (1, 0), 1)],
                publish_all: true,
                ..Default::default()
            };
            change(&mut options);
            wanted(&options, None).unwrap_err().to_string()
        };
        for (error, says) in [
            (refused(|o| o.publish[0].container_port = 0), "is not 0"),
            (refused(|o| o.publish[0].container_port = 65536), "invalid port: 65536"),
            (refused(|o| o.publish[0].protocol = "icmp".into()), "invalid protocol"),
            (refused(|o| o.publish[0].host_ip = "x".into()), "invalid host address"),
            (refused(|o| o.expose = vec!["0/tcp".into()]), "invalid exposed port"),
            (refused(|o| o.expose = vec!["9-8".into()]), "invalid exposed port"),
        ] {
            assert!(error.contains(says), "{error}");
        }
    }
}
