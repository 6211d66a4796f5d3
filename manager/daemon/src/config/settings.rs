//! The keys of `daemon.json`. Flags are brought to the same form, and both are joined here.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Deserialize;

/// A runtime's entry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Runtime {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) runtime_args: Vec<String>,
}

/// A limit's entry, as dockerd writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub(crate) struct Limit {
    #[serde(default)]
    #[expect(dead_code, reason = "dockerd's file repeats the name; the key decides")]
    name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

/// Where subnets of networks are taken from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    pub(crate) base: String,
    /// The prefix length of each subnet.
    pub(crate) size: u32,
}

impl Limit {
    pub(super) fn new(soft: i64, hard: i64) -> Self {
        Self { name: String::new(), soft, hard }
    }
}

/// The keys, each with its type; one list for reading and for joining.
macro_rules! settings {
    ($($(#[$attribute:meta])* $key:ident ($name:literal): $kind:ty),* $(,)?) => {
        /// What was given, by the file or by flags.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Settings {
            $($(#[$attribute])* #[serde(rename = $name, default)] pub(crate) $key: Option<$kind>,)*
        }

        impl Settings {
            /// Both together.
            ///
            /// # Errors
            /// Names the keys that both give.
            pub(super) fn join(self, other: Self) -> Result<Self> {
                let mut both: Vec<&str> = Vec::new();
                $(if self.$key.is_some() && other.$key.is_some() {
                    both.push($name);
                })*
                ensure!(
                    both.is_empty(),
                    "the following directives are specified both as a flag and in the configuration file: {}",
                    both.join(", ")
                );
                Ok(Self { $($key: self.$key.or(other.$key),)* })
            }
        }
    };
}

settings! {
    hosts("hosts"): Vec<String>,
    group("group"): String,
    tls("tls"): bool,
    tlsverify("tlsverify"): bool,
    tlscacert("tlscacert"): String,
    tlscert("tlscert"): String,
    tlskey("tlskey"): String,
    data_root("data-root"): String,
    exec_root("exec-root"): String,
    pidfile("pidfile"): String,
    debug("debug"): bool,
    log_level("log-level"): String,
    log_format("log-format"): String,
    labels("labels"): Vec<String>,
    storage_driver("storage-driver"): String,
    registry_mirrors("registry-mirrors"): Vec<String>,
    insecure_registries("insecure-registries"): Vec<String>,
    registry_config_dirs("registry-config-dirs"): Vec<String>,
    default_runtime("default-runtime"): String,
    runtimes("runtimes"): BTreeMap<String, Runtime>,
    default_ulimits("default-ulimits"): BTreeMap<String, Limit>,
    log_driver("log-driver"): String,
    log_opts("log-opts"): BTreeMap<String, String>,
    exec_opts("exec-opts"): Vec<String>,
    cgroup_parent("cgroup-parent"): String,
    init("init"): bool,
    init_path("init-path"): String,
    userns_auto_user("userns-auto-user"): String,
    shim_path("shim-path"): String,
    shutdown_timeout("shutdown-timeout"): u64,
    metrics_addr("metrics-addr"): String,
    bridge("bridge"): String,
    bip("bip"): String,
    bip6("bip6"): String,
    fixed_cidr("fixed-cidr"): String,
    fixed_cidr_v6("fixed-cidr-v6"): String,
    default_gateway("default-gateway"): String,
    default_gateway_v6("default-gateway-v6"): String,
    default_address_pools("default-address-pools"): Vec<Pool>,
    dns("dns"): Vec<String>,
    dns_search("dns-search"): Vec<String>,
    dns_opts("dns-opts"): Vec<String>,
    host_gateway_ips("host-gateway-ips"): Vec<String>,
    icc("icc"): bool,
    ip("ip"): String,
    ip_forward("ip-forward"): bool,
    ip_masq("ip-masq"): bool,
    iptables("iptables"): bool,
    ipv6("ipv6"): bool,
    mtu("mtu"): u32,
    userland_proxy("userland-proxy"): bool,
}

impl Settings {
    /// Reads the file's text.
    ///
    /// # Errors
    /// For what is not JSON, an unknown key, a value of another type.
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }
}
