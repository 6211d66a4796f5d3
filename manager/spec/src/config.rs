//! The document that the runtime gets.

use std::collections::BTreeMap;

use hull_specs_api::v1;
use hull_specs_oci::{self as oci, NamespaceKind};

use crate::{
    capabilities, cdi,
    defaults::Defaults,
    devices::{self, HostDevice},
    effective, env,
    error::{Result, must, refuse},
    mounts::{self, Resolved},
    names::container_of,
    path, resources,
    seccomp::{self, Facts},
    security::{self, Seccomp},
    sysctl, ulimit,
};

/// The version that every runtime in use reads: what came later is not used here.
const OCI_VERSION: &str = "1.0.2";

/// All that a container's configuration is made of.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The container's id.
    pub id: &'a str,
    /// As [`crate::effective()`] gave them.
    pub options: &'a v1::ContainerOptions,
    /// The machine, and the manager's configuration.
    pub defaults: &'a Defaults,
    /// The root file system, as the bundle's configuration names it.
    pub root: &'a str,
    /// As [`crate::user::resolve`] gave it.
    pub user: oci::User,
    /// What the container calls itself.
    pub hostname: &'a str,
    /// Every mount of the options, and those of `volumes_from`, with where its source is.
    pub mounts: Vec<Resolved>,
    /// `/proc/self/mountinfo`, if [`mounts::needs_mountinfo`].
    pub mountinfo: &'a str,
    /// The files that the manager keeps for it.
    pub files: Files,
    /// Of ipc mode `shareable`, a tmpfs of the manager's; of `container:`, the other's /dev/shm.
    pub shm: Option<&'a str>,
    /// Of a user namespace that does not own the network namespace: a sysfs of that, to be looked
    /// at; the container may mount none.
    pub sys: Option<&'a str>,
    /// Namespaces of others.
    pub join: Join,
    /// Of its user namespace, if it has one of its own.
    pub uid_mappings: Vec<oci::IdMapping>,
    /// Of its user namespace.
    pub gid_mappings: Vec<oci::IdMapping>,
    /// What [`crate::wanted_devices`] and [`cdi::wanted_devices`] ask for.
    pub devices: BTreeMap<String, Vec<HostDevice>>,
    /// All nodes below /dev, by their whole path in `below`; only for a privileged container.
    pub host_devices: &'a [HostDevice],
    /// The host's CDI documents.
    pub cdi: &'a [cdi::Document],
    /// Where our init is on the host.
    pub init: &'a str,
    /// Of its terminal: columns, rows.
    pub terminal_size: Option<(u32, u32)>,
    /// What `security_options` say. Made by [`Input::new`].
    pub(crate) security: security::Options,
}

/// Files on the host that are mounted over the image's. None: the image's stay.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// /etc/hostname.
    pub hostname: Option<String>,
    /// /etc/hosts.
    pub hosts: Option<String>,
    /// /etc/resolv.conf.
    pub resolv_conf: Option<String>,
}

/// Paths of namespaces to join: of a mode `container:NAME` that container's (`/proc/PID/ns/…`), of
/// the network also one that was made for this container.
#[derive(Clone, Debug, Default)]
pub struct Join {
    /// `ipc_mode`.
    pub ipc: Option<String>,
    /// `pid_mode`.
    pub pid: Option<String>,
    /// `uts_mode`.
    pub uts: Option<String>,
    /// `network_mode`.
    pub network: Option<String>,
    /// Of the container that one of the others is joined of, if that has one of its own.
    pub user: Option<String>,
}

impl<'a> Input<'a> {
    /// With nothing that the options don't say.
    ///
    /// # Errors
    /// If they are none that [`crate::effective()`] gave.
    pub fn new(
        id: &'a str,
        options: &'a v1::ContainerOptions,
        defaults: &'a Defaults,
        user: oci::User,
        hostname: &'a str,
    ) -> Result<Self> {
        Ok(Self {
            id,
            options,
            defaults,
            root: "rootfs",
            user,
            hostname,
            mounts: Vec::new(),
            mountinfo: "",
            files: Files::default(),
            shm: None,
            sys: None,
            join: Join::default(),
            uid_mappings: Vec::new(),
            gid_mappings: Vec::new(),
            devices: BTreeMap::new(),
            host_devices: &[],
            cdi: &[],
            init: "",
            terminal_size: None,
            security: security::parse(&options.security_options)?,
        })
    }
}

/// Whether the container has a user namespace that is not the host's.
pub(crate) fn is_private_user_namespace(input: &Input<'_>) -> bool {
    !input.uid_mappings.is_empty() || input.join.user.is_some()
}

/// The configuration.
///
/// # Errors
/// If something that it needs is not there: a device, a shared mount, a CDI device.
pub fn config(input: &Input<'_>) -> Result<oci::Spec> {
    let options = input.options;
    let host = &input.defaults.host;
    let security = &input.security;
    let init = init_of(input)?;
    let names = capabilities::of_container(
        &options.cap_add,
        &options.cap_drop,
        options.privileged,
        host.capabilities,
    );
    let plan = mounts::lower(input, init)?;
    let devices = devices::lower(options, &input.devices, input.host_devices)?;
    let limits = options.resources.clone().unwrap_or_default();
    let number = |path: &str| {
        let device = input.devices.get(path)?.first()?;
        Some((i64::from(device.major), i64::from(device.minor)))
    };
    let resources = oci::Resources { devices: devices.rules, ..resources::lower(&limits, number)? };
    let system = security::system_paths(options, security, host);
    let namespaces = namespaces(input)?;
    let own =
        |kind| namespaces.iter().any(|ns: &oci::Namespace| ns.kind == kind && ns.path.is_empty());
    let facts =
        Facts { architecture: &host.architecture, kernel: host.kernel, capabilities: &names };
    let linux = oci::Linux {
        uid_mappings: input.uid_mappings.clone(),
        gid_mappings: input.gid_mappings.clone(),
        sysctl: sysctl::lower(
            options,
            own(NamespaceKind::Network),
            is_private_user_namespace(input),
            |name| host.network_sysctls.contains(name),
        ),
        resources: Some(resources),
        cgroups_path: cgroups_path(input),
        namespaces,
        devices: devices.nodes,
        seccomp: seccomp(security, options.privileged, host.seccomp, &facts)?,
        rootfs_propagation: plan.root_propagation,
        masked_paths: system.masked,
        readonly_paths: system.read_only,
        ..Default::default()
    };
    let mut args = effective::args(options);
    if init.is_some() {
        args.splice(0..0, [mounts::INIT.to_owned(), "--".to_owned()]);
    }
    let directory = if options.working_dir.is_empty() { "/" } else { &options.working_dir };
    let process = oci::Process {
        terminal: options.tty,
        console_size: input
            .terminal_size
            .filter(|_| options.tty)
            .map(|(width, height)| oci::ConsoleSize { height, width }),
        user: input.user.clone(),
        args,
        env: env::of_process(&options.env, input.hostname, options.tty),
        cwd: directory.to_owned(),
        capabilities: Some(capabilities::sets(&names, input.user.uid)),
        rlimits: ulimit::lower(&options.ulimits),
        no_new_privileges: security.no_new_privileges.unwrap_or(input.defaults.no_new_privileges),
        apparmor_profile: apparmor(input),
        // The runtime sets the score where there is one, so that the manager's own is not inherited.
        oom_score_adj: Some(options.oom_score_adj.unwrap_or(0)),
        ..Default::default()
    };
    let own_uts =
        linux.namespaces.iter().any(|ns| ns.kind == NamespaceKind::Uts && ns.path.is_empty());
    let mut spec = oci::Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Some(process),
        root: Some(oci::Root { path: input.root.to_owned(), readonly: options.read_only }),
        // One that is shared has a name.
        hostname: if own_uts { input.hostname.to_owned() } else { String::new() },
        mounts: plan.mounts,
        annotations: options.annotations.clone().into_iter().collect(),
        linux: Some(linux),
        ..Default::default()
    };
    cdi::inject(&mut spec, &options.cdi_devices, input.cdi, &input.devices)?;
    Ok(spec)
}

/// Our init, if it is asked for, and if the container has processes of its own.
fn init_of<'a>(input: &Input<'a>) -> Result<Option<&'a str>> {
    let private = matches!(input.options.pid_mode.as_str(), "" | "private");
    if !private || input.options.init != Some(true) {
        return Ok(None);
    }
    must!(!input.init.is_empty(), "the init program is not there");
    Ok(Some(input.init))
}

pub(crate) fn apparmor(input: &Input<'_>) -> String {
    let Some(default) = &input.defaults.host.apparmor else { return String::new() };
    match input.security.apparmor.as_str() {
        "" if input.options.privileged => "unconfined".to_owned(),
        "" => default.clone(),
        asked => asked.to_owned(),
    }
}

fn seccomp(
    security: &security::Options,
    privileged: bool,
    supported: bool,
    facts: &Facts<'_>,
) -> Result<Option<oci::Seccomp>> {
    match &security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Unset if privileged => Ok(None),
        Seccomp::Unset | Seccomp::Builtin if !supported => Ok(None),
        Seccomp::Unset | Seccomp::Builtin => Ok(Some(seccomp::builtin(facts))),
        Seccomp::Profile(json) => seccomp::of_profile(json, facts),
    }
}

fn namespaces(input: &Input<'_>) -> Result<Vec<oci::Namespace>> {
    let options = input.options;
    let mut namespaces = vec![oci::Namespace { kind: NamespaceKind::Mount, path: String::new() }];
    let kinds = [
        (NamespaceKind::Network, &options.network_mode, &input.join.network),
        (NamespaceKind::Uts, &options.uts_mode, &input.join.uts),
        (NamespaceKind::Pid, &options.pid_mode, &input.join.pid),
        (NamespaceKind::Ipc, &options.ipc_mode, &input.join.ipc),
    ];
    for (kind, mode, join) in kinds {
        let path = match (container_of(mode), join) {
            (Some(_), Some(path)) => path.clone(),
            (Some(other), None) => {
                refuse!(
                    "cannot join the {} namespace of container {other}: it has none",
                    kind.as_str()
                )
            }
            (None, _) if mode == "host" => continue,
            // One that was made for this container before it starts.
            (None, Some(path)) if kind == NamespaceKind::Network => path.clone(),
            (None, _) => String::new(),
        };
        namespaces.push(oci::Namespace { kind, path });
    }
    if options.cgroupns_mode == "private" {
        namespaces.push(oci::Namespace { kind: NamespaceKind::Cgroup, path: String::new() });
    }
    if is_private_user_namespace(input) {
        // What another user namespace owns can only be joined from inside that.
        let path = input.join.user.clone().unwrap_or_default();
        namespaces.push(oci::Namespace { kind: NamespaceKind::User, path });
    }
    if options.ipc_mode == "shareable" || container_of(&options.ipc_mode).is_some() {
        must!(input.shm.is_some(), "ipc mode {} needs a shared /dev/shm", options.ipc_mode);
    }
    Ok(namespaces)
}

/// Where the container's cgroups are, as the driver writes it.
fn cgroups_path(input: &Input<'_>) -> String {
    let Defaults { systemd_cgroups, cgroup_parent: default, .. } = input.defaults;
    let asked = &input.options.cgroup_parent;
    let parent = if asked.is_empty() { default } else { asked };
    match (systemd_cgroups, parent.as_str()) {
        (true, "") => format!("system.slice:hull:{}", input.id),
        (true, parent) => format!("{parent}:hull:{}", input.id),
        (false, "") => format!("/hull/{}", input.id),
        (false, parent) => path::clean(&format!("/{parent}/{}", input.id)),
    }
}

#[cfg(test)]
mod tests;
