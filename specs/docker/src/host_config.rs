//! `HostConfig`: the options of a container that depend on the host.
//!
//! hull keeps one list of mounts. Here it is told apart as `-v`, `--tmpfs` and `--mount` would
//! have been: a mount that `-v` can say is a bind.
#![expect(missing_docs, reason = "the fields are Docker's, documented in its API reference")]

use std::collections::BTreeMap;

use hull_specs_api::v1;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{container::kind, ports};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostConfig {
    pub binds: Option<Vec<String>>,
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    pub log_config: LogConfig,
    pub network_mode: String,
    pub port_bindings: BTreeMap<String, Value>,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub volume_driver: String,
    pub volumes_from: Option<Vec<String>>,
    pub console_size: [u32; 2],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub cap_add: Option<Vec<String>>,
    pub cap_drop: Option<Vec<String>>,
    pub cgroupns_mode: String,
    pub dns: Vec<String>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    pub extra_hosts: Option<Vec<String>>,
    pub group_add: Option<Vec<String>>,
    pub ipc_mode: String,
    pub cgroup: String,
    pub links: Option<Vec<String>>,
    pub oom_score_adj: i32,
    pub pid_mode: String,
    pub privileged: bool,
    pub publish_all_ports: bool,
    pub readonly_rootfs: bool,
    pub security_opt: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    pub userns_mode: String,
    pub shm_size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    pub runtime: String,
    pub isolation: String,
    pub cpu_shares: u64,
    pub memory: u64,
    pub nano_cpus: u64,
    pub cgroup_parent: String,
    pub blkio_weight: u32,
    pub blkio_weight_device: Vec<Value>,
    pub blkio_device_read_bps: Vec<Value>,
    pub blkio_device_write_bps: Vec<Value>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Vec<Value>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Vec<Value>,
    pub cpu_period: u64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: u64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: Vec<Device>,
    pub device_cgroup_rules: Option<Vec<String>>,
    pub device_requests: Option<Vec<Value>>,
    pub memory_reservation: u64,
    pub memory_swap: i64,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub kind: String,
    pub config: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    pub name: &'static str,
    pub maximum_retry_count: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    pub path_on_host: String,
    pub path_in_container: String,
    pub cgroup_permissions: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}

impl HostConfig {
    /// Of what the user gave, and what was made of it.
    #[must_use]
    pub fn of(given: &v1::ContainerOptions, effective: &v1::ContainerOptions) -> Self {
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let words = |words: &Option<v1::Words>| words.as_ref().map(|words| words.words.clone());
        let of = effective.resources.clone().unwrap_or_default();
        let log = effective.log.clone().unwrap_or_default();
        let requests: Vec<_> = given
            .cdi_devices
            .iter()
            .map(|id| json!({"Driver": "cdi", "DeviceIDs": [id]}))
            .collect();
        let limits = |list: &[v1::DeviceLimit]| -> Vec<Value> {
            list.iter().map(|limit| json!({"Path": limit.path, "Rate": limit.value})).collect()
        };
        let (binds, mounts, tmpfs) = split(&given.mounts);
        Self {
            binds: some(&binds),
            log_config: LogConfig { kind: log.driver, config: log.options.into_iter().collect() },
            port_bindings: ports::bindings(&given.publish),
            publish_all_ports: given.publish_all,
            dns: given.dns.clone(),
            dns_options: given.dns_options.clone(),
            dns_search: given.dns_search.clone(),
            extra_hosts: some(&given.extra_hosts),
            links: some(&links(given, &effective.name)),
            network_mode: if given.network_mode.is_empty() {
                "default".to_owned()
            } else {
                given.network_mode.clone()
            },
            restart_policy: restart(effective.restart),
            auto_remove: given.auto_remove,
            volumes_from: some(&given.volumes_from),
            annotations: given.annotations.clone().into_iter().collect(),
            cap_add: some(&given.cap_add),
            cap_drop: some(&given.cap_drop),
            cgroupns_mode: effective.cgroupns_mode.clone(),
            group_add: some(&given.group_add),
            ipc_mode: effective.ipc_mode.clone(),
            oom_score_adj: effective.oom_score_adj.unwrap_or_default(),
            pid_mode: given.pid_mode.clone(),
            privileged: given.privileged,
            readonly_rootfs: given.read_only,
            security_opt: some(&given.security_options),
            storage_opt: given.storage_options.clone().into_iter().collect(),
            tmpfs,
            uts_mode: given.uts_mode.clone(),
            userns_mode: given.userns_mode.clone(),
            shm_size: match effective.shm_size_bytes {
                0 => 64 << 20,
                bytes => bytes,
            },
            sysctls: given.sysctls.clone().into_iter().collect(),
            runtime: effective.runtime.clone(),
            cpu_shares: of.cpu_shares,
            memory: of.memory_bytes,
            nano_cpus: of.nano_cpus,
            cgroup_parent: given.cgroup_parent.clone(),
            blkio_weight: of.blkio_weight,
            blkio_weight_device: of
                .blkio_weight_device
                .iter()
                .map(|device| json!({"Path": device.path, "Weight": device.value}))
                .collect(),
            blkio_device_read_bps: limits(&of.device_read_bps),
            blkio_device_write_bps: limits(&of.device_write_bps),
            blkio_device_read_iops: limits(&of.device_read_iops),
            blkio_device_write_iops: limits(&of.device_write_iops),
            cpu_period: of.cpu_period_us,
            cpu_quota: of.cpu_quota_us,
            cpu_realtime_period: of.cpu_realtime_period_us,
            cpu_realtime_runtime: of.cpu_realtime_runtime_us,
            cpuset_cpus: of.cpuset_cpus,
            cpuset_mems: of.cpuset_mems,
            devices: given.devices.iter().map(Into::into).collect(),
            device_cgroup_rules: some(&given.device_cgroup_rules),
            device_requests: (!requests.is_empty()).then_some(requests),
            memory_reservation: of.memory_reservation_bytes,
            memory_swap: of.memory_swap_bytes,
            memory_swappiness: of.memory_swappiness,
            oom_kill_disable: of.oom_kill_disable,
            pids_limit: of.pids_limit,
            ulimits: effective.ulimits.iter().map(Into::into).collect(),
            mounts,
            init: given.init,
            masked_paths: words(&effective.masked_paths),
            readonly_paths: words(&effective.readonly_paths),
            ..Self::default()
        }
    }
}

impl From<&v1::Device> for Device {
    fn from(device: &v1::Device) -> Self {
        Self {
            path_on_host: device.host_path.clone(),
            path_in_container: device.container_path.clone(),
            cgroup_permissions: device.permissions.clone(),
        }
    }
}

impl From<&v1::Ulimit> for Ulimit {
    fn from(limit: &v1::Ulimit) -> Self {
        Self { name: limit.name.clone(), hard: limit.hard, soft: limit.soft }
    }
}

fn restart(policy: Option<v1::RestartPolicy>) -> RestartPolicy {
    use v1::restart_policy::Name;
    let policy = policy.unwrap_or_default();
    let name = match policy.name() {
        Name::No => "no",
        Name::Always => "always",
        Name::UnlessStopped => "unless-stopped",
        Name::OnFailure => "on-failure",
    };
    RestartPolicy { name, maximum_retry_count: policy.max_retries }
}

/// `/OTHER:/CONTAINER/ALIAS`.
fn links(given: &v1::ContainerOptions, name: &str) -> Vec<String> {
    let links = given.networks.iter().flat_map(|endpoint| &endpoint.links);
    links
        .map(|link| {
            let (other, alias) = link.split_once(':').unwrap_or((link, link));
            let (other, alias) = (other.trim_start_matches('/'), alias.trim_start_matches('/'));
            format!("/{other}:/{name}/{alias}")
        })
        .collect()
}

/// Binds, mounts, tmpfs.
fn split(mounts: &[v1::Mount]) -> (Vec<String>, Vec<Value>, BTreeMap<String, String>) {
    let (mut binds, mut others, mut tmpfs) = (Vec::new(), Vec::new(), BTreeMap::new());
    for mount in mounts {
        match mount.r#type() {
            v1::mount::Type::Tmpfs => {
                tmpfs.insert(mount.target.clone(), tmpfs_options(mount));
            }
            // `-v /target`: in the configuration's `Volumes`.
            v1::mount::Type::Volume if mount.source.is_empty() && plain(mount) => {}
            v1::mount::Type::Bind if mount.create_source => binds.push(bind(mount)),
            v1::mount::Type::Volume if plain(mount) => binds.push(bind(mount)),
            _ => others.push(json!({
                "Type": kind(mount.r#type()),
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": mount.read_only,
            })),
        }
    }
    (binds, others, tmpfs)
}

/// Whether `-v` can say it.
fn plain(mount: &v1::Mount) -> bool {
    mount.volume_labels.is_empty()
        && mount.volume_options.is_empty()
        && mount.volume_driver.is_empty()
        && mount.subpath.is_empty()
}

fn bind(mount: &v1::Mount) -> String {
    let options: Vec<_> = [
        if mount.read_only { "ro" } else { "" },
        &mount.propagation,
        &mount.selinux_relabel,
        if mount.no_copy { "nocopy" } else { "" },
    ]
    .into_iter()
    .filter(|option| !option.is_empty())
    .collect();
    let text = format!("{}:{}", mount.source, mount.target);
    if options.is_empty() { text } else { format!("{text}:{}", options.join(",")) }
}

fn tmpfs_options(mount: &v1::Mount) -> String {
    let mut options = Vec::new();
    if mount.read_only {
        options.push("ro".to_owned());
    }
    if mount.tmpfs_size_bytes > 0 {
        options.push(format!("size={}", mount.tmpfs_size_bytes));
    }
    options.extend(mount.tmpfs_mode.map(|mode| format!("mode={mode:o}")));
    options.extend(mount.tmpfs_options.iter().cloned());
    options.join(",")
}

/// A span in nanoseconds, as Go has it.
pub(crate) fn nanoseconds(span: Option<prost_types::Duration>) -> i64 {
    span.map_or(0, |span| {
        span.seconds.saturating_mul(1_000_000_000).saturating_add(span.nanos.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart_by_who_could_have_said_them() {
        use v1::mount::Type;
        let mount = |kind: Type, source: &str, target: &str| v1::Mount {
            r#type: kind.into(),
            source: source.into(),
            target: target.into(),
            ..v1::Mount::default()
        };
        let given = v1::ContainerOptions {
            mounts: vec![
                v1::Mount { create_source: true, read_only: true, ..mount(Type::Bind, "/a", "/b") },
                mount(Type::Bind, "/c", "/d"),
                mount(Type::Volume, "vol", "/v"),
                mount(Type::Volume, "", "/anonymous"),
                v1::Mount { subpath: "x".into(), ..mount(Type::Volume, "vol", "/w") },
                v1::Mount { tmpfs_size_bytes: 5, ..mount(Type::Tmpfs, "", "/t") },
            ],
            ..v1::ContainerOptions::default()
        };
        let config = HostConfig::of(&given, &given);
        assert_eq!(config.binds.unwrap(), ["/a:/b:ro", "vol:/v"]);
        let targets: Vec<_> = config.mounts.iter().map(|mount| mount["Target"].clone()).collect();
        assert_eq!(targets, ["/d", "/w"]);
        assert_eq!(config.tmpfs, [("/t".to_owned(), "size=5".to_owned())].into());
        assert_eq!((config.shm_size, config.network_mode.as_str()), (64 << 20, "default"));
    }
}
