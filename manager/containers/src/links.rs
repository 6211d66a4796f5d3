//! `--link` in the default network: lines of `/etc/hosts`, and variables, of other containers.
//! In a network of the user's the name service answers links.

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;

use crate::{Inner, handle::Handle};

/// Another container, as this one knows it.
#[derive(Debug, Default, PartialEq)]
struct Linked {
    id: String,
    name: String,
    alias: String,
    /// Its addresses in the default network.
    addresses: Vec<String>,
    /// `80/tcp`.
    ports: Vec<String>,
    env: Vec<String>,
}

/// What links give to a container.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Links {
    pub(crate) hosts: Vec<String>,
    pub(crate) env: Vec<String>,
}

/// `CONTAINER[:ALIAS]`, for the default network only.
fn asked(options: &v1::ContainerOptions) -> impl Iterator<Item = (&str, &str)> {
    let default = |network: &str| matches!(network, "" | "default" | "bridge");
    let endpoints = options.networks.iter().filter(move |endpoint| default(&endpoint.network));
    endpoints.flat_map(|endpoint| &endpoint.links).map(|link| {
        let (other, alias) = link.split_once(':').unwrap_or((link, link));
        (other.trim_start_matches('/'), alias.trim_start_matches('/'))
    })
}

impl Links {
    /// Looks the others up; they must run.
    pub(crate) fn find(inner: &Inner, name: &str, options: &v1::ContainerOptions) -> Result<Self> {
        let mut links = Self::default();
        for (other, alias) in asked(options) {
            let handle = inner
                .find(other)
                .map_err(|error| error.context(format!("could not get container for {other}")))?;
            let linked = linked(&handle, alias).ok_or_else(|| {
                Error::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{name}/{alias}",
                    handle.record().name()
                ))
            })?;
            links.hosts.extend(hosts(&linked));
            links.env.extend(variables(&linked, name));
        }
        Ok(links)
    }
}

fn linked(handle: &Handle, alias: &str) -> Option<Linked> {
    let attached = handle.attached().filter(|_| handle.now().is_live())?;
    let endpoint = attached.endpoints.iter().find(|endpoint| endpoint.network == "bridge")?;
    let addresses = [&endpoint.ipv4_address, &endpoint.ipv6_address];
    let record = handle.record();
    Some(Linked {
        id: handle.id.clone(),
        name: record.name().to_owned(),
        alias: alias.to_owned(),
        addresses: addresses.into_iter().filter(|text| !text.is_empty()).cloned().collect(),
        ports: record.effective.expose.clone(),
        env: record.effective.env.clone(),
    })
}

fn hosts(of: &Linked) -> Vec<String> {
    let short = of.id.get(..12).unwrap_or(&of.id);
    let name = if of.name == of.alias { String::new() } else { format!(" {}", of.name) };
    of.addresses.iter().map(|address| format!("{address}\t{} {short}{name}", of.alias)).collect()
}

/// The variables that docker made for links, before there were networks.
fn variables(of: &Linked, parent: &str) -> Vec<String> {
    let prefix = of.alias.to_uppercase().replace('-', "_");
    let address = of.addresses.first().map_or("", String::as_str);
    let mut ports: Vec<(&str, u16)> = of
        .ports
        .iter()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/')?;
            Some((protocol, number.parse().ok()?))
        })
        .collect();
    ports.sort_by_key(|(protocol, port)| (*port, *protocol != "tcp"));
    ports.dedup();
    let mut env = Vec::new();
    if let Some((protocol, port)) = ports.first() {
        env.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (protocol, port) in &ports {
        let key = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        env.push(format!("{key}={protocol}://{address}:{port}"));
        env.push(format!("{key}_ADDR={address}"));
        env.push(format!("{key}_PORT={port}"));
        env.push(format!("{key}_PROTO={protocol}"));
    }
    env.push(format!("{prefix}_NAME=/{parent}/{}", of.alias));
    for variable in &of.env {
        let name = variable.split('=').next().unwrap_or_default();
        if !matches!(name, "HOME" | "PATH") {
            env.push(format!("{prefix}_ENV_{variable}"));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked() -> Linked {
        Linked {
            id: "0123456789abcdef".into(),
            name: "redis".into(),
            alias: "my-db".into(),
            addresses: vec!["172.17.0.5".into(), "fd00::5".into()],
            ports: vec!["6379/tcp".into(), "53/udp".into()],
            env: vec!["A=b".into(), "PATH=/bin".into()],
        }
    }

    #[test]
    fn a_link_is_lines_and_variables() {
        assert_eq!(
            hosts(&linked()),
            ["172.17.0.5\tmy-db 0123456789ab redis", "fd00::5\tmy-db 0123456789ab redis"]
        );
        assert_eq!(
            variables(&linked(), "web"),
            [
                "MY_DB_PORT=udp://172.17.0.5:53",
                "MY_DB_PORT_53_UDP=udp://172.17.0.5:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.5",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_6379_TCP=tcp://172.17.0.5:6379",
                "MY_DB_PORT_6379_TCP_ADDR=172.17.0.5",
                "MY_DB_PORT_6379_TCP_PORT=6379",
                "MY_DB_PORT_6379_TCP_PROTO=tcp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_A=b",
            ]
        );
    }

    #[test]
    fn only_links_of_the_default_network_are_ours() {
        let options = v1::ContainerOptions {
            networks: ["default", "web"]
                .map(|network| v1::EndpointOptions {
                    network: network.into(),
                    links: vec![format!("/{network}-db:db"), "x".into()],
                    ..Default::default()
                })
                .to_vec(),
            ..Default::default()
        };
        let found: Vec<_> = asked(&options).collect();
        assert_eq!(found, [("default-db", "db"), ("x", "x")]);
    }
}
