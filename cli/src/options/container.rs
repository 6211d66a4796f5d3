//! From the options of `run` and `create` to the one message that the manager takes.

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_specs_api::v1;

use super::{device::Device, env, health, keyvalue, network, publish, security, volume};
use crate::args::options::{ContainerArgs, RefusedArgs};

/// Lowers them. Reads the files that they name, and our environment.
pub(crate) fn lower(args: &ContainerArgs, here: &Path) -> Result<v1::ContainerOptions> {
    refuse(&args.refused)?;
    let (image, command) = args.words.split_first().context("no image")?;
    let restart = args.restart_policy().map_err(|why| anyhow!(why))?;
    let restarts = restart.name() != v1::restart_policy::Name::No;
    if args.rm && restarts {
        bail!("conflicting options: cannot specify both --restart and --rm");
    }
    let security = security::lower(&args.security_opt, |path| {
        std::fs::read(path).with_context(|| format!("open {}", path.display()))
    })?;
    let all_paths = security.all_paths.then(v1::Words::default);
    let (devices, cdi_devices) = devices(args);
    let (network_mode, networks) = networks(args)?;
    let (publish, expose) = ports(args)?;
    let interactive = args.interactive;
    Ok(v1::ContainerOptions {
        left_network: false,
        name: args.name.clone().unwrap_or_default(),
        image: image.clone(),
        platform: args.platform().map_err(|why| anyhow!(why))?,
        command: command.to_vec(),
        entrypoint: args.entrypoint.as_ref().map(|word| v1::Words {
            words: if word.is_empty() { Vec::new() } else { vec![word.clone()] },
        }),
        env: variables(&args.env_file, &args.env)?,
        working_dir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        group_add: args.group_add.clone(),
        tty: args.tty,
        open_stdin: interactive,
        stdin_once: interactive,
        init: args.init.then_some(true),
        stop_signal: args.stop_signal.clone().unwrap_or_default(),
        stop_timeout: args
            .stop_timeout
            .map(|seconds| prost_types::Duration { seconds: seconds.into(), nanos: 0 }),
        hostname: args.hostname.clone().unwrap_or_default(),
        domainname: args.domainname.clone().unwrap_or_default(),
        labels: labels(args)?,
        annotations: keyvalue::map(&args.annotation),
        auto_remove: args.rm,
        restart: restarts.then_some(restart),
        health: health(args)?,
        log: log(args),
        runtime: args.runtime.clone().unwrap_or_default(),
        read_only: args.read_only,
        mounts: mounts(args, here)?,
        volumes_from: args.volumes_from.clone(),
        shm_size_bytes: args.shm_size.unwrap_or_default(),
        storage_options: keyvalue::map(&args.storage_opt),
        privileged: args.privileged,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        security_options: security.options,
        devices,
        device_cgroup_rules: args.device_cgroup_rule.clone(),
        cdi_devices,
        sysctls: keyvalue::map(&args.sysctl),
        ulimits: args.ulimit.clone(),
        masked_paths: all_paths.clone(),
        readonly_paths: all_paths,
        ipc_mode: args.ipc.clone().unwrap_or_default(),
        pid_mode: args.pid.clone().unwrap_or_default(),
        uts_mode: args.uts.clone().unwrap_or_default(),
        userns_mode: args.userns.clone().unwrap_or_default(),
        cgroupns_mode: args.cgroupns.clone().unwrap_or_default(),
        network_mode,
        cgroup_parent: args.cgroup_parent.clone().unwrap_or_default(),
        resources: Some(resources(args)?),
        oom_score_adj: args.oom_score_adj,
        expose,
        networks,
        publish,
        publish_all: args.publish_all,
        dns: args.dns.clone(),
        dns_search: args.dns_search.clone(),
        dns_options: args.dns_option.clone(),
        extra_hosts: args.add_host.clone(),
    })
}

fn refuse(args: &RefusedArgs) -> Result<()> {
    let others = [
        ("--isolation", args.isolation.iter().any(|mode| !mode.is_empty() && mode != "default")),
        ("--cpu-count", !args.cpu_count.is_empty()),
        ("--cpu-percent", !args.cpu_percent.is_empty()),
        ("--io-maxbandwidth", !args.io_maxbandwidth.is_empty()),
        ("--io-maxiops", !args.io_maxiops.is_empty()),
    ];
    if let Some((option, _)) = others.iter().find(|(_, given)| *given) {
        bail!("{option} is an option of Windows, which hull does not run on");
    }
    if !args.kernel_memory.is_empty() {
        bail!("--kernel-memory is not supported: the kernel has given it up (5.16)");
    }
    if args.use_api_socket {
        bail!("--use-api-socket is not supported");
    }
    Ok(())
}

/// The variables of files, then those of options.
pub(crate) fn variables(files: &[impl AsRef<Path>], options: &[String]) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in files {
        variables.extend(env::file(path.as_ref(), env::ours)?);
    }
    for option in options {
        variables.push(env::variable(option, env::ours)?);
    }
    Ok(variables)
}

fn labels(args: &ContainerArgs) -> Result<HashMap<String, String>> {
    let mut labels = HashMap::new();
    for path in &args.label_file {
        for line in env::file(path, |_| Some(String::new()))? {
            let (key, value) = keyvalue::label(&line).map_err(|why| anyhow!(why))?;
            labels.insert(key, value);
        }
    }
    labels.extend(args.label.iter().cloned());
    Ok(labels)
}

fn devices(args: &ContainerArgs) -> (Vec<v1::Device>, Vec<String>) {
    let (mut nodes, mut cdi) = (Vec::new(), Vec::new());
    for device in &args.device {
        match device {
            Device::Node(node) => nodes.push(node.clone()),
            Device::Cdi(name) => cdi.push(name.clone()),
        }
    }
    cdi.extend(args.gpus.iter().flat_map(|names| names.0.iter().cloned()));
    (nodes, cdi)
}

fn mounts(args: &ContainerArgs, here: &Path) -> Result<Vec<v1::Mount>> {
    let mut mounts = Vec::new();
    for (at, text) in args.volume.iter().enumerate() {
        // The same words twice are one wish, as for docker.
        if args.volume[..at].contains(text) {
            continue;
        }
        let mut mount = volume::parse(text, here).map_err(|why| anyhow!(why))?;
        if mount.r#type() == v1::mount::Type::Volume {
            mount.volume_driver = args.volume_driver.clone().unwrap_or_default();
        }
        mounts.push(mount);
    }
    for text in &args.tmpfs {
        mounts.push(volume::tmpfs(text).map_err(|why| anyhow!(why))?);
    }
    mounts.extend(args.mount.iter().cloned());
    let mut targets: Vec<_> =
        mounts.iter().map(|mount| mount.target.trim_end_matches('/')).collect();
    targets.sort_unstable();
    if let Some(pair) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("Duplicate mount point: {}", pair[0]);
    }
    Ok(mounts)
}

fn networks(args: &ContainerArgs) -> Result<(String, Vec<v1::EndpointOptions>)> {
    let first = network::First {
        aliases: &args.network_alias,
        links: &args.link,
        ip: args.ip.as_deref(),
        ip6: args.ip6.as_deref(),
        link_local_ips: &args.link_local_ip,
        mac_address: args.mac_address.as_deref(),
    };
    network::lower(&args.network, &first).map_err(|why| anyhow!(why))
}

/// What is published, and what is exposed: also what is published.
fn ports(args: &ContainerArgs) -> Result<(Vec<v1::PublishOptions>, Vec<String>)> {
    let (mut published, mut exposed) = (Vec::new(), Vec::new());
    for text in &args.publish {
        published.extend(publish::parse(text).map_err(|why| anyhow!(why))?);
    }
    for text in &args.expose {
        exposed.extend(publish::expose(text).map_err(|why| anyhow!(why))?);
    }
    for port in &published {
        let name = format!("{}/{}", port.container_port, port.protocol);
        if !exposed.contains(&name) {
            exposed.push(name);
        }
    }
    Ok((published, exposed))
}

fn health(args: &ContainerArgs) -> Result<Option<v1::Health>> {
    health::lower(&health::Given {
        disabled: args.no_healthcheck,
        command: args.health_cmd.as_deref(),
        interval: args.health_interval.unwrap_or_default(),
        timeout: args.health_timeout.unwrap_or_default(),
        start_period: args.health_start_period.unwrap_or_default(),
        start_interval: args.health_start_interval.unwrap_or_default(),
        retries: args.health_retries,
    })
    .map_err(|why| anyhow!(why))
}

fn log(args: &ContainerArgs) -> Option<v1::LogOptions> {
    (args.log_driver.is_some() || !args.log_opt.is_empty()).then(|| v1::LogOptions {
        driver: args.log_driver.clone().unwrap_or_default(),
        options: keyvalue::map(&args.log_opt),
    })
}

fn resources(args: &ContainerArgs) -> Result<v1::Resources> {
    if args.cpus.is_some() && (args.cpu_period > 0 || args.cpu_quota > 0) {
        bail!("Conflicting options: Nano CPUs and CPU Period cannot both be set.");
    }
    Ok(v1::Resources {
        memory_bytes: args.memory.unwrap_or_default(),
        memory_swap_bytes: args.memory_swap.unwrap_or_default(),
        memory_reservation_bytes: args.memory_reservation.unwrap_or_default(),
        memory_swappiness: u64::try_from(args.memory_swappiness).ok(),
        oom_kill_disable: args.oom_kill_disable,
        nano_cpus: args.cpus.unwrap_or_default(),
        cpu_shares: args.cpu_shares,
        cpu_period_us: args.cpu_period,
        cpu_quota_us: args.cpu_quota,
        cpu_realtime_period_us: args.cpu_rt_period,
        cpu_realtime_runtime_us: args.cpu_rt_runtime,
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        pids_limit: args.pids_limit,
        blkio_weight: args.blkio_weight.into(),
        blkio_weight_device: args.blkio_weight_device.clone(),
        device_read_bps: args.device_read_bps.clone(),
        device_write_bps: args.device_write_bps.clone(),
        device_read_iops: args.device_read_iops.clone(),
        device_write_iops: args.device_write_iops.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, container, parse::parse};

    fn options(line: &str) -> Result<v1::ContainerOptions> {
        let words: Vec<_> = format!("hull create {line}").split(' ').map(str::to_owned).collect();
        match parse(&words).map(|cli| cli.command) {
            Ok(Command::Container(container::Command::Create(args))) => {
                lower(&args.container, Path::new("/here"))
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_become_the_message() {
        let of = options(
            "-it --name n --rm -e A=b -v ./x:/x --tmpfs /t --entrypoint= --cpus 1.5 -m 64m --device /dev/null \
             --device v.com/c=x --gpus all --label a=b --security-opt systempaths=unconfined --expose 80-81 \
             --network host --stop-timeout 3 busybox echo hi",
        )
        .unwrap();
        assert!(of.tty && of.open_stdin && of.stdin_once && of.auto_remove);
        assert_eq!(
            (of.image.as_str(), of.command.as_slice()),
            ("busybox", &["echo".to_owned(), "hi".to_owned()][..])
        );
        assert_eq!(of.entrypoint, Some(v1::Words::default()));
        assert_eq!((of.mounts.len(), of.mounts[0].source.as_str()), (2, "/here/x"));
        let resources = of.resources.unwrap();
        assert_eq!((resources.nano_cpus, resources.memory_bytes), (1_500_000_000, 64 << 20));
        assert_eq!(of.cdi_devices, ["v.com/c=x", "nvidia.com/gpu=all"]);
        assert_eq!(of.devices.len(), 1);
        assert_eq!(of.masked_paths, Some(v1::Words::default()));
        assert_eq!(of.expose, ["80/tcp", "81/tcp"]);
        assert_eq!((of.network_mode.as_str(), of.stop_timeout.unwrap().seconds), ("host", 3));
    }

    #[test]
    fn networks_and_ports_become_the_message() {
        let of = options(
            "--network foo --network-alias a --link b:c -p 8080:80 -p 53/udp --expose 80 -P --dns 1.1.1.1 \
             --dns-opt ndots:2 --dns-search x.y --add-host h=1.2.3.4 busybox",
        )
        .unwrap();
        assert_eq!((of.network_mode.as_str(), of.networks.len()), ("foo", 1));
        assert_eq!(
            (of.networks[0].aliases[0].as_str(), of.networks[0].links[0].as_str()),
            ("a", "b:c")
        );
        assert_eq!((of.publish.len(), of.publish_all), (2, true));
        assert_eq!(of.expose, ["80/tcp", "53/udp"]);
        assert_eq!((of.dns[0].as_str(), of.dns_options[0].as_str()), ("1.1.1.1", "ndots:2"));
        assert_eq!((of.dns_search[0].as_str(), of.extra_hosts[0].as_str()), ("x.y", "h:1.2.3.4"));
    }

    #[test]
    fn what_contradicts_or_is_not_there_is_refused() {
        for (line, words) in [
            (
                "--restart always --rm a",
                "conflicting options: cannot specify both --restart and --rm",
            ),
            ("--restart foo a", "invalid restart policy 'foo'"),
            ("-p x:80 a", "invalid hostPort: x"),
            (
                "--network none --network foo a",
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ),
            (
                "--isolation hyperv a",
                "--isolation is an option of Windows, which hull does not run on",
            ),
            ("-v a:/x -v b:/x a", "Duplicate mount point: /x"),
            ("--expose x a", "invalid range format for --expose: x"),
            ("--env-file /nosuch a", "open /nosuch: No such file or directory (os error 2)"),
            (
                "--platform foo a",
                "error parsing specified platform: \"foo\": unknown operating system or architecture: invalid argument",
            ),
            (
                "--cpus 1 --cpu-quota 5 a",
                "Conflicting options: Nano CPUs and CPU Period cannot both be set.",
            ),
        ] {
            assert_eq!(format!("{:#}", options(line).unwrap_err()), words, "{line}");
        }
    }
}
