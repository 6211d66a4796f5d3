//! The command line of hulld, with dockerd's names.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;

use super::settings::{Limit, Pool, Runtime, Settings};

/// The manager of the hull container stack.
///
/// Every option but --config-file and --validate is also a key of the configuration file.
#[derive(Debug, Parser)]
#[command(name = "hulld", version, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Flags {
    /// The configuration file [default: /etc/hull/daemon.json, if it is there]
    #[arg(long, visible_alias = "config", value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,
    /// Check the configuration, say "configuration OK", and exit
    #[arg(long)]
    pub(crate) validate: bool,

    /// Socket to listen on: unix:///PATH or tcp://ADDRESS:PORT; may be repeated
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// The same as --host unix://PATH
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Group that owns the unix sockets; its members are as good as root
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    tls: bool,
    /// Use TLS, and ask clients for a certificate
    #[arg(long)]
    tlsverify: bool,
    /// Trust clients' certificates that this one signed
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<String>,
    /// The manager's certificate
    #[arg(long, value_name = "FILE")]
    tlscert: Option<String>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    tlskey: Option<String>,
    /// Where images, containers and volumes are kept [default: /var/lib/hull]
    #[arg(long, visible_alias = "root", value_name = "DIR")]
    data_root: Option<String>,
    /// Where what ends with the host's uptime is kept [default: /run/hull]
    #[arg(long, visible_alias = "state", value_name = "DIR")]
    exec_root: Option<String>,
    /// The file with the manager's process number [default: EXEC-ROOT/hulld.pid]
    #[arg(short = 'p', long, value_name = "FILE")]
    pidfile: Option<String>,
    /// Log more
    #[arg(short = 'D', long)]
    debug: bool,
    /// trace, debug, info, warn or error [default: info]
    #[arg(short = 'l', long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A label of this manager: KEY=VALUE; may be repeated
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// overlayfs or vfs [default: overlayfs where the file system can]
    #[arg(short = 's', long, value_name = "DRIVER")]
    storage_driver: Option<String>,
    /// Ask this address first for images of Docker Hub; may be repeated
    #[arg(long = "registry-mirror", value_name = "URL")]
    registry_mirrors: Vec<String>,
    /// A registry or network whose TLS is not checked; may be repeated
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]|CIDR")]
    insecure_registries: Vec<String>,
    /// A directory of HOST/hosts.toml or HOST/*.crt; may be repeated; the first that knows a host
    /// counts [default: certs.d in /etc/hull, /etc/docker and /etc/containerd]
    #[arg(long = "registry-config-dir", value_name = "DIR")]
    registry_config_dirs: Vec<String>,
    /// The runtime for containers that name none [default: hull]
    #[arg(long, value_name = "NAME")]
    default_runtime: Option<String>,
    /// A runtime: NAME=PATH; may be repeated
    #[arg(long = "add-runtime", value_name = "NAME=PATH")]
    runtimes: Vec<String>,
    /// A limit for containers that give none: NAME=SOFT or NAME=SOFT:HARD; may be repeated
    #[arg(long = "default-ulimit", value_name = "LIMIT")]
    default_ulimits: Vec<String>,
    /// Log driver for containers that name none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// An option of the default log driver: KEY=VALUE; may be repeated
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    log_opts: Vec<String>,
    /// Who makes containers' cgroups: native.cgroupdriver=cgroupfs or native.cgroupdriver=systemd
    /// [default: cgroupfs]
    #[arg(long = "exec-opt", value_name = "KEY=VALUE")]
    exec_opts: Vec<String>,
    /// The cgroup below which containers get theirs, unless they name one; with systemd a slice
    /// [default: /hull, or system.slice]
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Give containers an init unless they say otherwise
    #[arg(long)]
    init: bool,
    /// The init program [default: hull-init beside this program]
    #[arg(long, value_name = "FILE")]
    init_path: Option<String>,
    /// Whose ids of /etc/subuid and /etc/subgid `--userns=auto` takes, or which
    /// [default: containers]
    #[arg(long, value_name = "USER|FIRST:SIZE")]
    userns_auto_user: Option<String>,
    /// The shim [default: containerd-shim-hull-v2 beside this program]
    #[arg(long, value_name = "FILE")]
    shim_path: Option<String>,
    /// Seconds that connections have to close when the manager ends; requests that go on are
    /// ended after one second, and containers go on [default: 15]
    #[arg(long, value_name = "SECONDS")]
    shutdown_timeout: Option<u64>,
    /// Serve OpenMetrics there: ADDRESS:PORT of the loopback, or unix:///PATH
    #[arg(long, value_name = "ADDRESS")]
    metrics_addr: Option<String>,
    #[command(flatten)]
    network: NetworkFlags,
}

#[derive(Debug, clap::Args)]
struct NetworkFlags {
    /// The bridge of the default network, made by somebody else; none: no default network
    /// [default: hull0, made by hulld]
    #[arg(short = 'b', long, value_name = "NAME")]
    bridge: Option<String>,
    /// Address and subnet of the default bridge: ADDRESS/PREFIX
    #[arg(long, value_name = "CIDR")]
    bip: Option<String>,
    /// The same for IPv6
    #[arg(long, value_name = "CIDR")]
    bip6: Option<String>,
    /// The part of its subnet that containers get addresses of
    #[arg(long, value_name = "CIDR")]
    fixed_cidr: Option<String>,
    /// The same for IPv6; without --bip6 it is the subnet
    #[arg(long, value_name = "CIDR")]
    fixed_cidr_v6: Option<String>,
    /// Containers' gateway in the default network, if it is not the bridge
    #[arg(long, value_name = "ADDRESS")]
    default_gateway: Option<String>,
    /// The same for IPv6
    #[arg(long, value_name = "ADDRESS")]
    default_gateway_v6: Option<String>,
    /// Where subnets are taken from: base=CIDR,size=PREFIX; may be repeated
    #[arg(long = "default-address-pool", value_name = "POOL", value_parser = pool)]
    default_address_pools: Vec<Pool>,
    /// A name server for containers, in place of the host's; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// A search domain for containers; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option for containers' resolvers; may be repeated
    #[arg(long = "dns-opt", value_name = "OPTION")]
    dns_opts: Vec<String>,
    /// The address that host-gateway of --add-host stands for; may be repeated
    #[arg(long = "host-gateway-ip", value_name = "ADDRESS")]
    host_gateway_ips: Vec<String>,
    /// Containers of the default network reach each other [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    icc: Option<bool>,
    /// The host's address for published ports that name none [default: all]
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Turn on forwarding in the kernel [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ip_forward: Option<bool>,
    /// Containers have the host's address outside [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ip_masq: Option<bool>,
    /// Make packet filter rules; false: not one [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    iptables: Option<bool>,
    /// Networks have IPv6, too, unless they say otherwise [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// MTU of the bridges [default: the uplink's]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Published ports answer on the host's loopback by a proxy [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    userland_proxy: Option<bool>,
}

impl Flags {
    /// The flags as settings; what was not given is absent.
    ///
    /// # Errors
    /// If a value is not of its form.
    pub(super) fn settings(&self) -> Result<Settings> {
        let network = &self.network;
        let mut hosts = self.hosts.clone();
        hosts.extend(self.socket.iter().map(|path| format!("unix://{path}")));
        Ok(Settings {
            hosts: list(&hosts),
            group: self.group.clone(),
            tls: self.tls.then_some(true),
            tlsverify: self.tlsverify.then_some(true),
            tlscacert: self.tlscacert.clone(),
            tlscert: self.tlscert.clone(),
            tlskey: self.tlskey.clone(),
            data_root: self.data_root.clone(),
            exec_root: self.exec_root.clone(),
            pidfile: self.pidfile.clone(),
            debug: self.debug.then_some(true),
            log_level: self.log_level.clone(),
            log_format: self.log_format.clone(),
            labels: list(&self.labels),
            storage_driver: self.storage_driver.clone(),
            registry_mirrors: list(&self.registry_mirrors),
            insecure_registries: list(&self.insecure_registries),
            registry_config_dirs: list(&self.registry_config_dirs),
            default_runtime: self.default_runtime.clone(),
            runtimes: map("add-runtime", &self.runtimes, |path| {
                Ok(Runtime { path: path.to_owned(), runtime_args: Vec::new() })
            })?,
            default_ulimits: map("default-ulimit", &self.default_ulimits, limit)?,
            log_driver: self.log_driver.clone(),
            log_opts: map("log-opt", &self.log_opts, |value| Ok(value.to_owned()))?,
            exec_opts: list(&self.exec_opts),
            cgroup_parent: self.cgroup_parent.clone(),
            init: self.init.then_some(true),
            init_path: self.init_path.clone(),
            userns_auto_user: self.userns_auto_user.clone(),
            shim_path: self.shim_path.clone(),
            shutdown_timeout: self.shutdown_timeout,
            metrics_addr: self.metrics_addr.clone(),
            bridge: network.bridge.clone(),
            bip: network.bip.clone(),
            bip6: network.bip6.clone(),
            fixed_cidr: network.fixed_cidr.clone(),
            fixed_cidr_v6: network.fixed_cidr_v6.clone(),
            default_gateway: network.default_gateway.clone(),
            default_gateway_v6: network.default_gateway_v6.clone(),
            default_address_pools: (!network.default_address_pools.is_empty())
                .then(|| network.default_address_pools.clone()),
            dns: list(&network.dns),
            dns_search: list(&network.dns_search),
            dns_opts: list(&network.dns_opts),
            host_gateway_ips: list(&network.host_gateway_ips),
            icc: network.icc,
            ip: network.ip.clone(),
            ip_forward: network.ip_forward,
            ip_masq: network.ip_masq,
            iptables: network.iptables,
            ipv6: network.ipv6,
            mtu: network.mtu,
            userland_proxy: network.userland_proxy,
        })
    }
}

/// `base=CIDR,size=PREFIX`, in any order.
fn pool(text: &str) -> Result<Pool, String> {
    let invalid = || format!("{text:?} is not base=CIDR,size=PREFIX");
    let (mut base, mut size) = (None, None);
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(invalid)? {
            ("base", value) => base = Some(value.to_owned()),
            ("size", value) => size = value.parse().ok(),
            _ => return Err(invalid()),
        }
    }
    Ok(Pool { base: base.ok_or_else(invalid)?, size: size.ok_or_else(invalid)? })
}

fn list(given: &[String]) -> Option<Vec<String>> {
    (!given.is_empty()).then(|| given.to_vec())
}

fn map<T>(
    flag: &str,
    given: &[String],
    value: impl Fn(&str) -> Result<T>,
) -> Result<Option<BTreeMap<String, T>>> {
    let pairs = given.iter().map(|pair| {
        let (key, text) =
            pair.split_once('=').with_context(|| format!("--{flag} {pair:?} is not NAME=VALUE"))?;
        Ok((key.to_owned(), value(text).with_context(|| format!("--{flag} {pair:?}"))?))
    });
    let map = pairs.collect::<Result<BTreeMap<_, _>>>()?;
    Ok((!map.is_empty()).then_some(map))
}

fn limit(text: &str) -> Result<Limit> {
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let number =
        |text: &str| text.parse::<i64>().with_context(|| format!("{text:?} is not a number"));
    Ok(Limit::new(number(soft)?, number(hard)?))
}
