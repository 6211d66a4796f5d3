//! Published and exposed ports, as `docker ps`, `docker port` and `docker inspect` tell them.

use std::{collections::BTreeMap, net::IpAddr};

use hull_specs_api::v1;
use serde_json::{Value, json};

/// `ADDRESS:PORT`, with brackets around IPv6.
#[must_use]
pub fn host(port: &v1::PublishedPort) -> String {
    match port.host_ip.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", port.host_port),
        _ => format!("{}:{}", port.host_ip, port.host_port),
    }
}

/// The published ports in the order of docker's lists.
#[must_use]
pub fn sorted(of: &v1::Container) -> Vec<&v1::PublishedPort> {
    let mut ports: Vec<_> = of.published.iter().collect();
    ports.sort_by(|a, b| {
        let key = |port: &v1::PublishedPort| {
            (port.container_port, port.protocol.clone(), port.host_ip.contains(':'))
        };
        key(a).cmp(&key(b)).then_with(|| host(a).cmp(&host(b)))
    });
    ports
}

/// Whether its exposed ports mean something: it runs in a network of its own.
fn is_reachable(of: &v1::Container) -> bool {
    of.endpoints.iter().any(|at| !at.ipv4_address.is_empty() || !at.ipv6_address.is_empty())
}

fn exposed(of: &v1::Container) -> Vec<(u32, &str)> {
    let mut ports: Vec<_> = of
        .ports
        .iter()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/')?;
            Some((number.parse().ok()?, protocol))
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A run of ports with the same address and protocol, and the same number on both sides.
#[derive(Debug, PartialEq)]
struct Run {
    host_ip: String,
    protocol: String,
    first: u32,
    last: u32,
}

impl Run {
    fn text(&self) -> String {
        let ports = if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        };
        match self.host_ip.as_str() {
            "" => format!("{ports}/{}", self.protocol),
            ip if ip.contains(':') => format!("[{ip}]:{ports}->{ports}/{}", self.protocol),
            ip => format!("{ip}:{ports}->{ports}/{}", self.protocol),
        }
    }
}

/// The column PORTS: `0.0.0.0:8080->80/tcp, 443/tcp`.
#[must_use]
pub fn column(of: &v1::Container) -> String {
    if !is_reachable(of) {
        return String::new();
    }
    let published = sorted(of);
    let (mut runs, mut mapped): (Vec<Run>, Vec<String>) = (Vec::new(), Vec::new());
    let mut add = |host_ip: &str, protocol: &str, port: u32| {
        let mut open = runs.iter_mut().rev();
        match open.find(|run| run.host_ip == host_ip && run.protocol == protocol) {
            Some(run) if run.last.checked_add(1) == Some(port) => run.last = port,
            _ => runs.push(Run {
                host_ip: host_ip.to_owned(),
                protocol: protocol.to_owned(),
                first: port,
                last: port,
            }),
        }
    };
    for (number, protocol) in exposed(of) {
        let is =
            |port: &&v1::PublishedPort| port.container_port == number && port.protocol == protocol;
        if !published.iter().copied().any(|port| is(&port)) {
            add("", protocol, number);
        }
    }
    for port in published {
        if port.host_port == port.container_port {
            add(&port.host_ip, &port.protocol, port.container_port);
        } else {
            mapped.push(format!("{}->{}/{}", host(port), port.container_port, port.protocol));
        }
    }
    let mut all: Vec<_> = runs.iter().map(Run::text).collect();
    all.extend(mapped);
    all.join(", ")
}

/// `NetworkSettings.Ports`: what is exposed, and where it is published.
#[must_use]
pub fn map(of: &v1::Container) -> BTreeMap<String, Value> {
    let mut ports = BTreeMap::new();
    if is_reachable(of) {
        ports.extend(
            exposed(of).iter().map(|(port, protocol)| (format!("{port}/{protocol}"), Value::Null)),
        );
    }
    for port in sorted(of) {
        let binding = json!({ "HostIp": port.host_ip, "HostPort": port.host_port.to_string() });
        let name = format!("{}/{}", port.container_port, port.protocol);
        match ports.entry(name).or_insert(Value::Null) {
            Value::Array(bindings) => bindings.push(binding),
            none => *none = json!([binding]),
        }
    }
    ports
}

/// `HostConfig.PortBindings`: what was asked for.
#[must_use]
pub fn bindings(publish: &[v1::PublishOptions]) -> BTreeMap<String, Value> {
    let mut ports: BTreeMap<String, Value> = BTreeMap::new();
    for port in publish {
        let host_port = match (port.host_port, port.host_port_last) {
            (0, _) => String::new(),
            (first, 0) => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let binding = json!({ "HostIp": port.host_ip, "HostPort": host_port });
        let name = format!("{}/{}", port.container_port, port.protocol);
        match ports.entry(name).or_insert(Value::Null) {
            Value::Array(bindings) => bindings.push(binding),
            none => *none = json!([binding]),
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(exposed: &[&str], published: &[(&str, u32, u32, &str)]) -> v1::Container {
        v1::Container {
            endpoints: vec![v1::Endpoint {
                ipv4_address: "172.17.0.2".into(),
                ..Default::default()
            }],
            ports: exposed.iter().map(|&port| port.to_owned()).collect(),
            published: published
                .iter()
                .map(|&(host_ip, host_port, container_port, protocol)| v1::PublishedPort {
                    host_ip: host_ip.into(),
                    host_port,
                    container_port,
                    protocol: protocol.into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_column_is_dockers() {
        for (exposed, published, text) in [
            (&[][..], &[][..], ""),
            (&["80/tcp", "443/tcp"], &[], "80/tcp, 443/tcp"),
            (&["82/tcp", "80/tcp", "81/tcp", "80/udp"], &[], "80-82/tcp, 80/udp"),
            (
                &["80/tcp"],
                &[("::", 8080, 80, "tcp"), ("0.0.0.0", 8080, 80, "tcp")],
                "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
            ),
            (
                &["80/tcp", "443/tcp"],
                &[("127.0.0.1", 8080, 80, "tcp")],
                "443/tcp, 127.0.0.1:8080->80/tcp",
            ),
            (
                &[],
                &[("0.0.0.0", 80, 80, "tcp"), ("0.0.0.0", 81, 81, "tcp"), ("::", 80, 80, "tcp")],
                "0.0.0.0:80-81->80-81/tcp, [::]:80->80/tcp",
            ),
            (
                &[],
                &[("0.0.0.0", 80, 80, "tcp"), ("0.0.0.0", 80, 80, "udp")],
                "0.0.0.0:80->80/tcp, 0.0.0.0:80->80/udp",
            ),
        ] {
            assert_eq!(column(&container(exposed, published)), text);
        }
        let mut stopped = container(&["80/tcp"], &[]);
        stopped.endpoints.clear();
        assert_eq!(column(&stopped), "");
    }

    #[test]
    fn the_maps_are_dockers() {
        let of = container(
            &["80/tcp", "443/tcp"],
            &[("::", 8080, 80, "tcp"), ("0.0.0.0", 8080, 80, "tcp")],
        );
        assert_eq!(
            serde_json::to_string(&map(&of)).unwrap(),
            r#"{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}"#
        );
        let publish = |host_port, host_port_last| v1::PublishOptions {
            host_port,
            host_port_last,
            container_port: 80,
            protocol: "tcp".into(),
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&bindings(&[publish(0, 0), publish(80, 90), publish(7, 0)]))
                .unwrap(),
            r#"{"80/tcp":[{"HostIp":"","HostPort":""},{"HostIp":"","HostPort":"80-90"},{"HostIp":"","HostPort":"7"}]}"#
        );
    }
}
