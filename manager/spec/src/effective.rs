//! Options, image and defaults, put together and checked.

use hull_specs_api::v1::{self, restart_policy::Name};
use hull_specs_image::ImageConfig;

use crate::{
    capabilities, cdi,
    defaults::Defaults,
    devices, env,
    error::{Result, must, refuse},
    health, logging, mounts, names, path, resources, security, signal, sysctl, ulimit, user,
    volumes_from,
};

/// What is in effect, and what a person should know about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    /// Every value that the container will have, but those that only exist with it: its hostname,
    /// the names of anonymous volumes, the mounts of `volumes_from`.
    pub options: v1::ContainerOptions,
    /// Sentences.
    pub warnings: Vec<String>,
}

/// The most words and bytes of a command; execve(2) takes two megabytes with the environment.
const MAX_WORDS: usize = 65_536;
const MAX_COMMAND_BYTES: usize = 1 << 20;

/// Checks what was asked for, and adds what the image and the manager say besides.
///
/// # Errors
/// In docker's words, for the first thing that is wrong.
pub fn effective(
    asked: &v1::ContainerOptions,
    image: &ImageConfig,
    defaults: &Defaults,
) -> Result<Effective> {
    let mut options = asked.clone();
    let mut warnings = Vec::new();
    let host = &defaults.host;
    merge(&mut options, image);
    process(&mut options)?;
    names::check(&options)?;
    fill(&mut options, defaults);
    names::check_modes(&options)?;
    let publishes = !options.publish.is_empty() || options.publish_all;
    if let mode @ ("host" | "none") = options.network_mode.as_str()
        && publishes
    {
        warnings.push(format!("Published ports are discarded when using {mode} network mode"));
    }
    life(&options, defaults)?;
    if let Some(health) = &options.health {
        health::check(health)?;
    }
    mounts::check(&mut options.mounts, image.config.volumes.keys(), host)?;
    for other in &options.volumes_from {
        volumes_from::parse(other)?;
    }
    capabilities::check(&mut options.cap_add, &mut options.cap_drop, host.capabilities)?;
    security::check(&options.security_options, host)?;
    for paths in [&options.masked_paths, &options.readonly_paths].into_iter().flatten() {
        let absolute = paths.words.iter().all(|path| path.starts_with('/') && !path.contains('\0'));
        must!(absolute, "masked and read-only paths must be absolute");
    }
    devices::check(&mut options)?;
    for name in &options.cdi_devices {
        cdi::parse_name(name)?;
    }
    sysctl::check(&options)?;
    ulimit::check(&options.ulimits)?;
    options.ulimits = ulimit::merge(&options.ulimits, &defaults.ulimits);
    if let Some(limits) = &mut options.resources {
        warnings.extend(resources::check(limits, host, false)?);
    }
    let score = options.oom_score_adj.unwrap_or(0);
    must!(
        (-1000..=1000).contains(&score),
        "Invalid value {score}, range for oom score adj is [-1000, 1000]"
    );
    texts(&options)?;
    cgroup_parent(&options.cgroup_parent, defaults.systemd_cgroups)?;
    Ok(Effective { options, warnings })
}

/// What runs: entrypoint and command.
#[must_use]
pub fn args(effective: &v1::ContainerOptions) -> Vec<String> {
    let entrypoint = effective.entrypoint.iter().flat_map(|words| &words.words);
    entrypoint.chain(&effective.command).cloned().collect()
}

fn merge(options: &mut v1::ContainerOptions, image: &ImageConfig) {
    let image = &image.config;
    // An entrypoint of the user's, an empty one too, is not meant for the image's command.
    match &options.entrypoint {
        None => {
            if options.command.is_empty() {
                options.command.clone_from(&image.cmd);
            }
            options.entrypoint = Some(v1::Words { words: image.entrypoint.clone() });
        }
        // The command line's `--entrypoint ""`.
        Some(v1::Words { words }) if *words == [""] => {
            options.entrypoint = Some(v1::Words::default());
        }
        Some(_) => {}
    }
    options.env = env::merge(&options.env, &image.env);
    if options.working_dir.is_empty() {
        options.working_dir.clone_from(&image.working_dir);
    }
    if options.user.is_empty() {
        options.user.clone_from(&image.user);
    }
    if options.stop_signal.is_empty() {
        options.stop_signal.clone_from(&image.stop_signal);
    }
    for (key, value) in &image.labels {
        options.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    options.health = health::merge(options.health.take(), image.healthcheck.as_ref());
    // With another container's network it listens there.
    if names::container_of(&options.network_mode).is_none() {
        options.expose.extend(image.exposed_ports.keys().cloned());
        options.expose.sort();
        options.expose.dedup();
    }
}

fn process(options: &mut v1::ContainerOptions) -> Result<()> {
    let args = args(options);
    must!(!args.is_empty(), "no command specified");
    let bytes: usize = args.iter().map(String::len).sum();
    must!(args.len() <= MAX_WORDS && bytes <= MAX_COMMAND_BYTES, "the command is too long");
    must!(!args.iter().any(|arg| arg.contains('\0')), "the command has a zero byte");
    env::check(&options.env)?;
    if !options.working_dir.is_empty() {
        let directory = &options.working_dir;
        must!(
            directory.starts_with('/'),
            "the working directory '{directory}' is invalid, it needs to be an absolute path"
        );
        must!(!directory.contains('\0'), "the working directory {directory:?} is invalid");
        options.working_dir = path::clean(directory);
    }
    user::check(&options.user, &options.group_add)?;
    if !options.stop_signal.is_empty() {
        signal::parse(&options.stop_signal)?;
    }
    Ok(())
}

fn fill(options: &mut v1::ContainerOptions, defaults: &Defaults) {
    let put = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    put(&mut options.runtime, &defaults.runtime);
    put(&mut options.network_mode, "default");
    put(&mut options.ipc_mode, &defaults.ipc_mode);
    // On v1 the namespace hides little, and programs look for the host's paths.
    let cgroupns = match defaults.cgroupns_mode.as_str() {
        _ if options.privileged && !defaults.host.cgroup_v2 => "host",
        "" if defaults.host.cgroup_v2 => "private",
        "" => "host",
        mode => mode,
    };
    put(&mut options.cgroupns_mode, cgroupns);
    if options.shm_size_bytes == 0 {
        options.shm_size_bytes = defaults.shm_size_bytes;
    }
    if options.init.is_none() {
        options.init = Some(defaults.init);
    }
    options.log = Some(logging::merge(options.log.take(), &defaults.log));
    if options.restart.is_none() {
        options.restart = Some(v1::RestartPolicy::default());
    }
}

fn life(options: &v1::ContainerOptions, defaults: &Defaults) -> Result<()> {
    must!(
        defaults.runtimes.contains(&options.runtime) || options.runtime == defaults.runtime,
        "unknown or invalid runtime name: {}",
        options.runtime
    );
    let restart = options.restart.unwrap_or_default();
    let Ok(name) = Name::try_from(restart.name) else {
        refuse!("invalid restart policy: unknown policy '{}'", restart.name);
    };
    must!(
        restart.max_retries == 0 || name == Name::OnFailure,
        "invalid restart policy: maximum retry count can only be used with 'on-failure'"
    );
    must!(
        !options.auto_remove || name == Name::No,
        "can't create 'AutoRemove' container with restart policy"
    );
    if let Some(log) = &options.log {
        logging::check(log)?;
    }
    Ok(())
}

fn texts(options: &v1::ContainerOptions) -> Result<()> {
    must!(
        !options.annotations.contains_key(""),
        "invalid Annotations: the empty string is not permitted as an annotation key"
    );
    must!(!options.labels.contains_key(""), "invalid label: the key is empty");
    for port in &options.expose {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let (first, last) = number.split_once('-').unwrap_or((number, number));
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        must!(
            is_port(first) && is_port(last) && matches!(protocol, "tcp" | "udp" | "sctp"),
            "invalid port specification: {port:?}"
        );
    }
    Ok(())
}

/// Checks the cgroup below which a container's is.
///
/// # Errors
/// If it leaves its directory, or is none of systemd's where that makes the cgroups.
pub fn cgroup_parent(parent: &str, systemd: bool) -> Result<()> {
    must!(!parent.contains(char::is_control), "invalid cgroup-parent: {parent:?}");
    must!(
        !parent.split('/').any(|part| part == ".."),
        "invalid cgroup-parent: {parent} leaves its directory"
    );
    let is_slice = parent.len() > ".slice".len() && parent.ends_with(".slice");
    must!(
        parent.is_empty() || !systemd || is_slice,
        "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\""
    );
    Ok(())
}

#[cfg(test)]
mod tests;
