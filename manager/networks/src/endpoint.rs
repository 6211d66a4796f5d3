//! What docker's driver options ask of a container's place in a network. Pure.

use hull_manager_core::{Error, Result};
use hull_specs_api::v1;

use crate::{
    definition::{Definition, check_interface},
    options,
};

const NAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What stands for the interface in the name of a sysctl.
const INTERFACE: &str = "IFNAME";

/// The options of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// What the interface is called in the container.
    name: Option<String>,
    pub(crate) sysctls: Vec<Sysctl>,
}

/// `net.FAMILY.GROUP.IFNAME.KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sysctl {
    family: String,
    group: String,
    key: String,
    value: String,
}

impl Options {
    pub(crate) fn of(endpoint: &v1::EndpointOptions) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in &endpoint.driver_options {
            match key.as_str() {
                NAME => options.name = Some(check_interface(value.clone())?),
                SYSCTLS => {
                    options.sysctls = value.split(',').map(sysctl).collect::<Result<_>>()?;
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "an endpoint has no driver option {}",
                        key.escape_debug()
                    )));
                }
            }
        }
        if options.name.as_deref() == Some("lo") {
            return Err(Error::invalid("an endpoint is not called lo: that is the loopback"));
        }
        Ok(options)
    }

    /// The sysctls of an interface: paths below `net`, with their values.
    pub(crate) fn sysctls_of(&self, interface: &str) -> Vec<(String, String)> {
        let path = |of: &Sysctl| format!("{}/{}/{interface}/{}", of.family, of.group, of.key);
        self.sysctls.iter().map(|of| (path(of), of.value.clone())).collect()
    }
}

fn sysctl(text: &str) -> Result<Sysctl> {
    let text = text.trim();
    let plain = |word: &&str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let read = || {
        let (name, value) = text.split_once('=')?;
        let parts: Vec<_> = name.split('.').collect();
        let ["net", family @ ("ipv4" | "ipv6" | "mpls"), group, INTERFACE, key] = parts[..] else {
            return None;
        };
        let is_value = !value.is_empty() && !value.chars().any(char::is_control);
        ([group, key].iter().all(plain) && is_value).then(|| Sysctl {
            family: family.into(),
            group: group.into(),
            key: key.into(),
            value: value.into(),
        })
    };
    read().ok_or_else(|| {
        Error::invalid(format!(
            "unrecognised network interface sysctl '{}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
            text.escape_debug()
        ))
    })
}

/// What a new interface is called in a container that has others: as it was asked, or with the
/// first free number.
pub(crate) fn interface(
    network: &Definition,
    endpoint: &v1::EndpointOptions,
    taken: &[&str],
) -> Result<String> {
    let prefix = options::interface_prefix(network);
    match Options::of(endpoint)?.name {
        Some(name) if taken.contains(&name.as_str()) => Err(Error::conflict(format!(
            "the interface {name} is of another network of the container"
        ))),
        Some(name) => Ok(name),
        None => {
            let mut names = (0_u32..).map(|number| format!("{prefix}{number}"));
            let free = |name: &String| !taken.contains(&name.as_str());
            names.find(free).ok_or_else(|| Error::exhausted("no interface's name is free"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(options: &[(&str, &str)]) -> v1::EndpointOptions {
        let driver_options =
            options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        v1::EndpointOptions { driver_options, ..Default::default() }
    }

    #[test]
    fn sysctls_are_the_interfaces_own() {
        let text = "net.ipv4.conf.IFNAME.log_martians=1, net.ipv6.neigh.IFNAME.mcast_solicit=5";
        let options = Options::of(&asked(&[(SYSCTLS, text)])).unwrap();
        let sysctls = options.sysctls_of("foo0");
        let shown: Vec<_> = sysctls.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["ipv4/conf/foo0/log_martians=1", "ipv6/neigh/foo0/mcast_solicit=5"]);
    }

    #[test]
    fn what_is_none_is_refused() {
        let sysctl = "unrecognised network interface sysctl";
        for (key, value, says) in [
            (SYSCTLS, "", sysctl),
            (SYSCTLS, "net.ipv4.conf.IFNAME.log_martians", sysctl),
            (SYSCTLS, "net.ipv4.conf.eth0.log_martians=1", sysctl),
            (SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,", sysctl),
            (SYSCTLS, "net.core.conf.IFNAME.x=1", sysctl),
            (SYSCTLS, "kernel.ipv4.conf.IFNAME.x=1", sysctl),
            (SYSCTLS, "net.ipv4.IFNAME.x=1", sysctl),
            (SYSCTLS, "net.ipv4.../.IFNAME.x=1", sysctl),
            (SYSCTLS, "net.ipv4.conf.IFNAME./../x=1", sysctl),
            (SYSCTLS, "net.ipv4.conf.IFNAME.x=1\n2", sysctl),
            (SYSCTLS, "net.ipv4.conf.IFNAME.x=", sysctl),
            (NAME, "a/b", "invalid interface name"),
            (NAME, "lo", "that is the loopback"),
            (NAME, "", "invalid interface name"),
            ("foo", "bar", "an endpoint has no driver option foo"),
        ] {
            let error = Options::of(&asked(&[(key, value)])).unwrap_err().to_string();
            assert!(error.contains(says), "{key} {value:?}: {error}");
        }
    }

    #[test]
    fn interfaces_are_called_as_their_network_or_they_themselves_say() {
        let network = |prefix: Option<&str>| {
            let mut list = r#"{"cniVersion":"1.0.0","name":"aa","plugins":[{"type":"ptp"}],"hull":{"id":"ab","created":0,"options":{"#.to_owned();
            if let Some(prefix) = prefix {
                list += &format!(r#""com.docker.network.container_iface_prefix":"{prefix}""#);
            }
            list += "}}}";
            Definition::from_list(list.as_bytes(), std::time::SystemTime::UNIX_EPOCH).unwrap()
        };
        let taken = ["eth0", "eth1", "foo0"];
        let plain = asked(&[]);
        for (prefix, taken, expected) in [
            (None, &[][..], "eth0"),
            (None, &taken, "eth2"),
            (Some(""), &taken, "eth2"),
            (Some("foo"), &taken, "foo1"),
            (Some("bar"), &taken, "bar0"),
        ] {
            assert_eq!(interface(&network(prefix), &plain, taken).unwrap(), expected);
        }
        let own = asked(&[(NAME, "eth1")]);
        assert_eq!(interface(&network(Some("foo")), &own, &taken[..1]).unwrap(), "eth1");
        assert!(interface(&network(None), &own, &taken).is_err());
    }
}
