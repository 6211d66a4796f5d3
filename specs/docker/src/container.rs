//! `docker container inspect`.
//!
//! What hull has no such thing for has Docker's empty value, because templates name the fields.
//! Who was attached at creation is not kept: `AttachStdout` and `AttachStderr` are false.
#![expect(missing_docs, reason = "the fields are Docker's, documented in its API reference")]

use std::collections::BTreeMap;

use hull_specs_api::v1;
use hull_specs_image::Health;
use serde::Serialize;
use serde_json::Value;

use crate::{
    host_config::{HostConfig, nanoseconds},
    image::set,
    network_settings::NetworkSettings,
    status, time,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    pub id: String,
    pub created: String,
    pub path: String,
    pub args: Vec<String>,
    pub state: State,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: u32,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    pub mounts: Vec<MountPoint>,
    pub config: Config,
    pub network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    pub status: String,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: u32,
    pub exit_code: i32,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthState {
    pub status: String,
    pub failing_streak: u32,
    pub log: Vec<HealthProbe>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthProbe {
    pub start: String,
    pub end: String,
    pub exit_code: i32,
    pub output: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    pub data: BTreeMap<String, String>,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountPoint {
    #[serde(rename = "Type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
}

/// Of a container, and of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Health>,
    pub image: String,
    pub volumes: Option<BTreeMap<String, Value>>,
    pub working_dir: String,
    pub entrypoint: Option<Vec<String>>,
    pub on_build: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// The document of a container.
#[must_use]
pub fn inspect(answer: &v1::InspectContainerResponse) -> Container {
    let of = answer.container.clone().unwrap_or_default();
    let given = of.options.clone().unwrap_or_default();
    let effective = answer.effective.clone().unwrap_or_else(|| given.clone());
    let state = of.state.clone().unwrap_or_default();
    let mut args = of.args.clone().into_iter();
    Container {
        created: time::nano(of.created.as_ref()),
        path: args.next().unwrap_or_default(),
        args: args.collect(),
        state: (&state).into(),
        image: of.image_id.clone(),
        resolv_conf_path: answer.resolv_conf_path.clone(),
        hostname_path: answer.hostname_path.clone(),
        hosts_path: answer.hosts_path.clone(),
        log_path: answer.log_path.clone(),
        name: format!("/{}", of.name),
        restart_count: state.restart_count,
        driver: answer.snapshotter.clone(),
        platform: "linux".to_owned(),
        app_armor_profile: apparmor_profile(&answer.oci_spec_json, &given.security_options),
        exec_ids: (!answer.exec_ids.is_empty()).then(|| answer.exec_ids.clone()),
        host_config: HostConfig::of(&given, &effective),
        graph_driver: GraphDriver {
            data: answer.snapshot_data.clone().into_iter().collect(),
            name: answer.snapshotter.clone(),
        },
        size_rw: of.size_rw_bytes,
        size_root_fs: of.size_root_bytes,
        mounts: of
            .mounts
            .iter()
            .filter(|point| !is_of_tmpfs_option(point, &given.mounts))
            .map(Into::into)
            .collect(),
        config: Config::of_container(&of, effective),
        network_settings: NetworkSettings::new(&of, &answer.network_namespace_path),
        id: of.id,
        ..Container::default()
    }
}

impl From<&v1::ContainerState> for State {
    fn from(state: &v1::ContainerState) -> Self {
        let is = |status| state.status() == status;
        let (paused, restarting) = (is(v1::Status::Paused), is(v1::Status::Restarting));
        Self {
            status: status::word(state.status()).to_owned(),
            // Docker's paused and restarting containers run.
            running: is(v1::Status::Running) || paused || restarting,
            paused,
            restarting,
            oom_killed: state.oom_killed,
            dead: is(v1::Status::Dead),
            pid: state.pid,
            exit_code: state.exit_code,
            error: state.error.clone(),
            started_at: time::nano(state.started.as_ref()),
            finished_at: time::nano(state.finished.as_ref()),
            health: state.health.as_ref().map(|health| HealthState {
                status: health.status.clone(),
                failing_streak: health.failing_streak,
                log: health
                    .log
                    .iter()
                    .map(|probe| HealthProbe {
                        start: time::nano(probe.start.as_ref()),
                        end: time::nano(probe.end.as_ref()),
                        exit_code: probe.exit_code,
                        output: probe.output.clone(),
                    })
                    .collect(),
            }),
        }
    }
}

impl From<&v1::MountPoint> for MountPoint {
    fn from(mount: &v1::MountPoint) -> Self {
        Self {
            kind: kind(mount.r#type()),
            name: mount.name.clone(),
            source: mount.source.clone(),
            destination: mount.destination.clone(),
            driver: mount.driver.clone(),
            mode: mount.mode.clone(),
            rw: mount.read_write,
            propagation: match mount.r#type() {
                v1::mount::Type::Bind if mount.propagation.is_empty() => "rprivate".to_owned(),
                _ => mount.propagation.clone(),
            },
        }
    }
}

/// Whether it is of `--tmpfs`, which docker has beside the mounts.
fn is_of_tmpfs_option(point: &v1::MountPoint, given: &[v1::Mount]) -> bool {
    let clean = |target: &str| target.trim_end_matches('/').to_owned();
    point.r#type() == v1::mount::Type::Tmpfs
        && given.iter().any(|mount| {
            !mount.short_form.is_empty() && clean(&mount.target) == clean(&point.destination)
        })
}

/// Docker's word for a type of mount.
#[must_use]
pub fn kind(kind: v1::mount::Type) -> &'static str {
    match kind {
        v1::mount::Type::Bind => "bind",
        v1::mount::Type::Volume => "volume",
        v1::mount::Type::Tmpfs => "tmpfs",
        v1::mount::Type::Image => "image",
    }
}

impl Config {
    fn of_container(container: &v1::Container, of: v1::ContainerOptions) -> Self {
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let short: String = container.id.chars().take(12).collect();
        // Of `-v /TARGET`, and of the image.
        let anonymous = of.mounts.iter().filter(|mount| {
            mount.r#type() == v1::mount::Type::Volume
                && mount.short_form.starts_with('/')
                && !mount.short_form.contains(':')
        });
        let volumes = set(anonymous.map(|mount| mount.target.clone()));
        Self {
            hostname: if of.hostname.is_empty() { short } else { of.hostname },
            domainname: of.domainname,
            user: of.user,
            attach_stdin: of.open_stdin && of.stdin_once,
            exposed_ports: set(of.expose),
            tty: of.tty,
            open_stdin: of.open_stdin,
            stdin_once: of.stdin_once,
            env: some(of.env),
            cmd: some(of.command),
            healthcheck: of.health.filter(|health| !health.test.is_empty()).map(|health| Health {
                test: health.test,
                interval: nanoseconds(health.interval),
                timeout: nanoseconds(health.timeout),
                start_period: nanoseconds(health.start_period),
                start_interval: nanoseconds(health.start_interval),
                retries: health.retries.into(),
            }),
            image: container.image.clone(),
            volumes: (!volumes.is_empty()).then_some(volumes),
            working_dir: of.working_dir,
            entrypoint: of.entrypoint.and_then(|words| some(words.words)),
            labels: Some(container.labels.clone().into_iter().collect()),
            stop_signal: of.stop_signal,
            stop_timeout: of.stop_timeout.map(|timeout| timeout.seconds),
            ..Self::default()
        }
    }
}

/// The profile that was asked for, or that the runtime was told: before the first start none is.
fn apparmor_profile(config: &[u8], given: &[String]) -> String {
    let asked = |option: &String| {
        option
            .strip_prefix("apparmor")
            .and_then(|rest| rest.strip_prefix(['=', ':']))
            .map(Into::into)
    };
    if let Some(profile) = given.iter().rev().find_map(asked) {
        return profile;
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Process {
        apparmor_profile: String,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Config {
        process: Process,
    }
    serde_json::from_slice::<Config>(config).unwrap_or_default().process.apparmor_profile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_the_runtimes() {
        let told = r#"{"ociVersion":"1.2.0","process":{"cwd":"/","apparmorProfile":"p"}}"#;
        let asked = ["label=disable", "apparmor:unconfined"].map(str::to_owned);
        assert_eq!(apparmor_profile(b"", &asked), "unconfined");
        for (config, expected) in [(told, "p"), (r#"{"process":{}}"#, ""), ("{}", ""), ("", "")] {
            assert_eq!(apparmor_profile(config.as_bytes(), &[]), expected, "{config}");
        }
    }

    #[test]
    fn a_container_is_told_as_docker_tells_it() {
        let options = v1::ContainerOptions {
            command: vec!["sh".into()],
            env: vec!["X=1".into()],
            network_mode: "none".into(),
            hostname: "h".into(),
            mounts: vec![v1::Mount {
                r#type: v1::mount::Type::Volume.into(),
                target: "/v".into(),
                short_form: "/v".into(),
                ..v1::Mount::default()
            }],
            ..v1::ContainerOptions::default()
        };
        let container = v1::Container {
            id: "0123456789abcdef".into(),
            name: "one".into(),
            image: "busybox".into(),
            args: vec!["sh".into(), "-c".into()],
            state: Some(v1::ContainerState {
                status: v1::Status::Paused.into(),
                pid: 5,
                ..v1::ContainerState::default()
            }),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            options: Some(options),
            ..v1::Container::default()
        };
        let answer = v1::InspectContainerResponse {
            container: Some(container),
            ..v1::InspectContainerResponse::default()
        };
        let json = serde_json::to_value(inspect(&answer)).unwrap();
        for (pointer, value) in [
            ("/Name", "\"/one\""),
            ("/Path", "\"sh\""),
            ("/Args", "[\"-c\"]"),
            ("/State/Status", "\"paused\""),
            ("/State/Running", "true"),
            ("/State/StartedAt", "\"0001-01-01T00:00:00Z\""),
            ("/Config/Labels/a", "\"b\""),
            ("/Config/Entrypoint", "null"),
            ("/Config/Volumes", "{\"/v\":{}}"),
            ("/NetworkSettings/IPAddress", "\"\""),
            ("/NetworkSettings/Networks/none/IPAddress", "\"\""),
            ("/HostConfig/NetworkMode", "\"none\""),
            ("/ExecIDs", "null"),
        ] {
            assert_eq!(
                json.pointer(pointer).map(ToString::to_string).as_deref(),
                Some(value),
                "{pointer}"
            );
        }
        assert!(json.pointer("/State/Health").is_none() && json.pointer("/SizeRw").is_none());
    }
}
