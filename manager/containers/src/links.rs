//! `--link` in the default network: lines of `/etc/hosts`, and variables, of other containers.
//! In a network of the user's the name service answers links.

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_specs_api::v1;

use crate::{
    Inner,
    handle::{Handle, Request},
    owner::Owner,
    prepare,
};

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

/// Tells the containers that run and link to this one, which has just started, that it may have
/// other addresses now.
pub(crate) fn renew(inner: &Inner, target: &Handle) {
    for other in inner.all() {
        let record = other.record();
        let is_meant = |name: &str| inner.find(name).is_ok_and(|found| found.id == target.id);
        if other.now().is_live() && asked(&record.effective).any(|(name, _)| is_meant(name)) {
            tokio::spawn(async move {
                if let Err(error) = other.order(Request::Relink, &other.id).await {
                    tracing::debug!(container = %other.id, %error, "its links are not renewed");
                }
            });
        }
    }
}

impl Owner {
    /// Writes down where those are now that it links to. Lines of one that does not run stay.
    pub(crate) async fn relink(&mut self) -> Result<()> {
        let record = self.record();
        let linked = asked(&record.effective).filter_map(|(name, alias)| {
            let handle = self.inner.find(name).ok()?;
            linked(&handle, alias)
        });
        let lines: Vec<String> = linked.flat_map(|linked| hosts(&linked)).collect();
        let path = self.inner.directory(&self.handle.id).join(prepare::HOSTS);
        let write = move || {
            let text = std::fs::read_to_string(&path).about(path.display())?;
            // In place: it is mounted in the container.
            std::fs::write(&path, renewed(&text, &lines)).about(path.display())
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|cause| Error::internal("links").because(cause))?
    }
}

/// The alias and the id of a link's line.
fn link_of(line: &str) -> Option<(&str, &str)> {
    let (_, names) = line.split_once('\t')?;
    let mut names = names.split(' ');
    Some((names.next()?, names.next()?))
}

/// The lines of `/etc/hosts` with new ones of links in place of the old.
fn renewed(text: &str, links: &[String]) -> String {
    let same =
        |line: &str, other: &str| link_of(line).is_some_and(|link| link_of(other) == Some(link));
    let is_old = |line: &&str| links.iter().any(|link| same(line, link));
    let at = text.lines().position(|line| is_old(&line)).unwrap_or(text.lines().count());
    let mut lines: Vec<&str> = text.lines().filter(|line| !is_old(line)).collect();
    lines.splice(at..at, links.iter().map(String::as_str));
    lines.iter().map(|line| format!("{line}\n")).collect()
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
    fn a_links_lines_change_with_its_target() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n\
                    172.17.0.5\tdb 0123 redis\nfd00::5\tdb 0123 redis\n# mine\n1.2.3.4\tdb 9999\n";
        let links = ["172.17.0.9\tdb 0123 other".to_owned(), "172.17.0.3\tx 4567".to_owned()];
        assert_eq!(
            renewed(text, &links),
            "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n172.17.0.9\tdb 0123 other\n\
             172.17.0.3\tx 4567\n# mine\n1.2.3.4\tdb 9999\n"
        );
        assert_eq!(renewed(text, &[]), text);
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
