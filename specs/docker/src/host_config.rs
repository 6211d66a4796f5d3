//! `HostConfig`: the options of a container that depend on the host.
//!
//! hull keeps one list of mounts. Here it is told apart by how each was asked for: `-v`, `--tmpfs`
//! or `--mount`.
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
            cap_add: some(&effective.cap_add),
            cap_drop: some(&effective.cap_drop),
            cgroupns_mode: effective.cgroupns_mode.clone(),
            group_add: some(&given.group_add),
            ipc_mode: effective.ipc_mode.clone(),
            oom_score_adj: effective.oom_score_adj.unwrap_or_default(),
            pid_mode: given.pid_mode.clone(),
            privileged: given.privileged,
            readonly_rootfs: given.read_only,
            security_opt: some(&security_options(given)),
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
            ulimits: {
                let mut limits: Vec<Ulimit> = effective.ulimits.iter().map(Into::into).collect();
                limits.sort_by(|a, b| a.name.cmp(&b.name));
                limits
            },
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

/// Binds, mounts, tmpfs: by how they were asked for.
fn split(mounts: &[v1::Mount]) -> (Vec<String>, Vec<Value>, BTreeMap<String, String>) {
    use v1::mount::Type;
    let (mut binds, mut others, mut tmpfs) = (Vec::new(), Vec::new(), BTreeMap::new());
    for mount in mounts {
        match (mount.short_form.split_once(':'), mount.r#type()) {
            _ if mount.short_form.is_empty() => others.push(long_form(mount)),
            (options, Type::Tmpfs) => {
                let options = options.map_or("", |(_, options)| options);
                tmpfs.insert(mount.target.clone(), options.to_owned());
            }
            (Some(_), _) => binds.push(mount.short_form.clone()),
            // `-v /target`: in the configuration's `Volumes`.
            (None, _) => {}
        }
    }
    (binds, others, tmpfs)
}

/// A mount as docker's API has it: without what has no value.
fn long_form(mount: &v1::Mount) -> Value {
    let of_volume = !mount.volume_driver.is_empty() || !mount.volume_options.is_empty();
    let driver = of_volume
        .then(|| filled(json!({"Name": mount.volume_driver, "Options": mount.volume_options})));
    let (family, options) = match mount.r#type() {
        v1::mount::Type::Bind => (
            "BindOptions",
            json!({
                "Propagation": mount.propagation,
                "NonRecursive": mount.non_recursive,
                "CreateMountpoint": mount.create_source,
                "ReadOnlyNonRecursive": mount.read_only_non_recursive,
                "ReadOnlyForceRecursive": mount.read_only_force_recursive,
            }),
        ),
        v1::mount::Type::Volume => (
            "VolumeOptions",
            json!({
                "NoCopy": mount.no_copy,
                "Labels": mount.volume_labels,
                "Subpath": mount.subpath,
                "DriverConfig": driver,
            }),
        ),
        v1::mount::Type::Tmpfs => (
            "TmpfsOptions",
            json!({
                "SizeBytes": mount.tmpfs_size_bytes,
                "Mode": mount.tmpfs_mode,
                "Options": mount.tmpfs_options.iter().map(|option| option_words(option)).collect::<Vec<_>>(),
            }),
        ),
        v1::mount::Type::Image => ("ImageOptions", json!({"Subpath": mount.subpath})),
    };
    filled(json!({
        "Type": kind(mount.r#type()),
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        family: filled(options),
    }))
}

/// `uid=0` as docker has it: a list of one or two words.
fn option_words(option: &str) -> Vec<&str> {
    option.splitn(2, '=').collect()
}

/// An object without its empty fields.
fn filled(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.retain(|_, value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Number(number) => number.as_u64() != Some(0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Bool(true) => true,
        });
    }
    object
}

/// What was given, and what docker adds of itself: where processes or memory are shared with
/// everybody, labels of SELinux are off.
fn security_options(given: &v1::ContainerOptions) -> Vec<String> {
    const OFF: &str = "label=disable";
    let mut options = given.security_options.clone();
    let shared = given.privileged || given.pid_mode == "host" || given.ipc_mode == "host";
    if shared && !options.iter().any(|option| option.starts_with("label")) {
        options.push(OFF.to_owned());
    }
    options
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
    fn mounts_are_told_apart_by_how_they_were_asked_for() {
        use v1::mount::Type;
        let mount = |kind: Type, source: &str, target: &str, short: &str| v1::Mount {
            r#type: kind.into(),
            source: source.into(),
            target: target.into(),
            short_form: short.into(),
            ..v1::Mount::default()
        };
        let given = v1::ContainerOptions {
            mounts: vec![
                mount(Type::Bind, "/a", "/b", "/a:/b:ro"),
                v1::Mount {
                    read_only: true,
                    propagation: "rslave".into(),
                    ..mount(Type::Bind, "/c", "/d", "")
                },
                mount(Type::Volume, "vol", "/v", "vol:/v"),
                mount(Type::Volume, "", "/anonymous", "/anonymous"),
                v1::Mount { no_copy: true, ..mount(Type::Volume, "vol", "/w", "") },
                mount(Type::Tmpfs, "", "/t", "/t:size=1m"),
                mount(Type::Tmpfs, "", "/u", "/u"),
                v1::Mount {
                    tmpfs_size_bytes: 5,
                    tmpfs_mode: Some(0o700),
                    ..mount(Type::Tmpfs, "", "/x", "")
                },
            ],
            ..v1::ContainerOptions::default()
        };
        let config = HostConfig::of(&given, &given);
        assert_eq!(config.binds.unwrap(), ["/a:/b:ro", "vol:/v"]);
        assert_eq!(
            Value::from(config.mounts),
            json!([
                {"Type": "bind", "Source": "/c", "Target": "/d", "ReadOnly": true,
                 "BindOptions": {"Propagation": "rslave"}},
                {"Type": "volume", "Source": "vol", "Target": "/w",
                 "VolumeOptions": {"NoCopy": true}},
                {"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": 5, "Mode": 448}},
            ])
        );
        let tmpfs = [("/t".to_owned(), "size=1m".to_owned()), ("/u".to_owned(), String::new())];
        assert_eq!(config.tmpfs, tmpfs.into());
        assert_eq!((config.shm_size, config.network_mode.as_str()), (64 << 20, "default"));
    }

    #[test]
    fn where_much_is_shared_labels_are_off() {
        let of = |pid: &str, options: &[&str]| {
            security_options(&v1::ContainerOptions {
                pid_mode: pid.into(),
                security_options: options.iter().map(|&option| option.to_owned()).collect(),
                ..v1::ContainerOptions::default()
            })
        };
        assert_eq!(of("", &["no-new-privileges"]), ["no-new-privileges"]);
        assert_eq!(of("host", &["seccomp=unconfined"]), ["seccomp=unconfined", "label=disable"]);
        assert_eq!(of("host", &["label:disable"]), ["label:disable"]);
    }
}
