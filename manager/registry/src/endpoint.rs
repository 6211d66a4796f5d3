//! Which places are asked for a registry's content, in which order, how, and with what. The plan
//! is pure; [`crate::remote::Remote`] carries it out.

use http::HeaderMap;
use hull_manager_core::{Error, Result};
use hull_specs_image::reference::DEFAULT_DOMAIN;
use reqwest::Url;

use crate::{
    hosts::{self, Capabilities, Host, HostConfig, Trust},
    origin::{Cidr, Origin, address, host_of, is_loopback},
};

/// Where Docker Hub's registry is.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// How a place is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Https,
    /// The operator wrote `http://`.
    Http,
    /// https, and http if nobody there speaks TLS.
    Either,
}

/// One place to ask.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// https, unless the wire is [`Wire::Http`]; ends with a slash.
    pub(crate) base: Url,
    pub(crate) wire: Wire,
    pub(crate) can: Capabilities,
    pub(crate) trust: Trust,
    pub(crate) headers: HeaderMap,
    /// Whether it is the registry that the caller's credentials are for.
    pub(crate) credentials: bool,
    /// A mirror of several registries is told which is meant (containerd's `ns`).
    pub(crate) namespace: Option<String>,
}

/// The operator's words about insecure registries, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Insecure {
    names: Vec<String>,
    ranges: Vec<Cidr>,
}

impl Insecure {
    pub(crate) fn parse(entries: &[String]) -> Result<Self> {
        let mut insecure = Self::default();
        for entry in entries {
            if entry.contains('/') {
                let range = Cidr::parse(entry).ok_or_else(|| {
                    Error::invalid(format!(
                        "insecure-registries: {entry:?} is neither host[:port] nor a range of addresses"
                    ))
                })?;
                insecure.ranges.push(range);
            } else {
                insecure.names.push(entry.to_ascii_lowercase());
            }
        }
        Ok(insecure)
    }

    pub(crate) fn contains(&self, authority: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(authority))
            || address(host_of(authority))
                .is_some_and(|address| self.ranges.iter().any(|range| range.contains(address)))
    }
}

/// Whether the operator's words about insecure registries can be read.
///
/// # Errors
/// With the entry that can't.
pub fn check_insecure(entries: &[String]) -> Result<()> {
    Insecure::parse(entries).map(drop)
}

/// The places for `domain`. `mirrors` are Docker Hub's; `config` is what the operator wrote about
/// the domain; `trust_of` gives what is known about any other host.
pub(crate) fn plan(
    domain: &str,
    mirrors: &[Url],
    insecure: &Insecure,
    config: Option<HostConfig>,
    trust_of: &dyn Fn(&str) -> Result<Trust>,
) -> Result<Vec<Endpoint>> {
    let mut endpoints = Vec::new();
    let own_authority = if domain == DEFAULT_DOMAIN { DOCKER_HUB } else { domain };
    let own_base = hosts::base(own_authority, false)
        .map_err(|cause| Error::invalid(format!("registry {domain:?}")).because(cause))?;
    let own_host = Origin::of(&own_base).map(|origin| origin.authority());
    let configured = |host: Host| {
        let origin = Origin::of(&host.base);
        let own = origin.as_ref().map(Origin::authority) == own_host;
        let authority = authority_of(&host.base);
        let mut trust = host.trust;
        trust.skip_verify |= insecure.contains(&authority);
        let wire = match host.base.scheme() {
            "http" => Wire::Http,
            _ if insecure.contains(&authority) => Wire::Either,
            _ => Wire::Https,
        };
        Endpoint {
            wire,
            can: host.can,
            trust,
            headers: host.headers,
            credentials: own,
            namespace: (!own).then(|| domain.to_owned()),
            base: host.base,
        }
    };
    let config = config.unwrap_or_default();
    // hosts.toml says more than registry-mirrors can; certificates alone say nothing about them.
    if domain == DEFAULT_DOMAIN && config.hosts.is_empty() && config.server.is_none() {
        for base in mirrors {
            let mirror = configured(Host {
                base: base.clone(),
                can: Capabilities::MIRROR,
                trust: trust_of(&authority_of(base))?,
                headers: HeaderMap::new(),
            });
            endpoints.push(Endpoint { namespace: None, ..mirror });
        }
    }
    endpoints.extend(config.hosts.into_iter().map(configured));
    endpoints.push(match config.server {
        Some(server) => configured(server),
        None => {
            let mut trust = config.trust;
            trust.skip_verify |= insecure.contains(domain);
            let either = insecure.contains(domain) || is_loopback(host_of(domain));
            Endpoint {
                base: own_base,
                wire: if either { Wire::Either } else { Wire::Https },
                can: config.can.unwrap_or(Capabilities::ALL),
                trust,
                headers: config.headers,
                credentials: true,
                namespace: None,
            }
        }
    });
    Ok(endpoints)
}

/// As the operator would write it: without the port where it is the scheme's own.
pub(crate) fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints
            .iter()
            .map(|endpoint| {
                format!(
                    "{} {:?}{}{}{}",
                    endpoint.base,
                    endpoint.wire,
                    if endpoint.credentials { " credentials" } else { "" },
                    if endpoint.trust.skip_verify { " unverified" } else { "" },
                    endpoint.namespace.as_ref().map_or(String::new(), |ns| format!(" ns={ns}")),
                )
            })
            .collect()
    }

    fn check(domain: &str, config: Option<HostConfig>, expected: &[&str]) {
        let mirrors = [
            hosts::base("https://m.x", false).unwrap(),
            hosts::base("http://n.x:1", false).unwrap(),
        ];
        let insecure =
            Insecure::parse(&["in.x:5000".into(), "10.0.0.0/8".into(), "bare.x".into()]).unwrap();
        let endpoints =
            plan(domain, &mirrors, &insecure, config, &|_| Ok(Trust::default())).unwrap();
        assert_eq!(show(&endpoints), expected, "{domain}");
    }

    #[test]
    fn places_without_configuration() {
        check(
            "docker.io",
            None,
            &[
                "https://m.x/v2/ Https",
                "http://n.x:1/v2/ Http",
                "https://registry-1.docker.io/v2/ Https credentials",
            ],
        );
        for (domain, expected) in [
            ("quay.io", "https://quay.io/v2/ Https credentials"),
            ("localhost:5000", "https://localhost:5000/v2/ Either credentials"),
            ("127.0.0.1:5000", "https://127.0.0.1:5000/v2/ Either credentials"),
            ("[::1]:5000", "https://[::1]:5000/v2/ Either credentials"),
            ("in.x:5000", "https://in.x:5000/v2/ Either credentials unverified"),
            ("in.x", "https://in.x/v2/ Https credentials"),
            ("in.x:5001", "https://in.x:5001/v2/ Https credentials"),
            ("bare.x", "https://bare.x/v2/ Either credentials unverified"),
            ("bare.x:1", "https://bare.x:1/v2/ Https credentials"),
            ("10.1.2.3:5000", "https://10.1.2.3:5000/v2/ Either credentials unverified"),
            ("11.1.2.3:5000", "https://11.1.2.3:5000/v2/ Https credentials"),
        ] {
            check(domain, None, &[expected]);
        }
    }

    #[test]
    fn configured_hosts_come_first_and_only_the_registry_itself_gets_credentials() {
        let host = |name: &str, skip_verify| Host {
            base: hosts::base(name, false).unwrap(),
            can: Capabilities::ALL,
            trust: Trust { skip_verify, ..Trust::default() },
            headers: HeaderMap::new(),
        };
        let mut config = HostConfig {
            hosts: vec![host("https://a.x", true), host("https://quay.io", false)],
            ..HostConfig::default()
        };
        check(
            "quay.io",
            Some(config.clone()),
            &[
                "https://a.x/v2/ Https unverified ns=quay.io",
                "https://quay.io/v2/ Https credentials",
                "https://quay.io/v2/ Https credentials",
            ],
        );
        config.hosts.clear();
        config.server = Some(host("https://b.x", false));
        check("quay.io", Some(config.clone()), &["https://b.x/v2/ Https ns=quay.io"]);
        config.server = Some(host("http://quay.io", false));
        check("quay.io", Some(config), &["http://quay.io/v2/ Http ns=quay.io"]);
    }
}
