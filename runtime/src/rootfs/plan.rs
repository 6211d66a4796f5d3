//! From config.json to an ordered list of what will be done to the file system.
//!
//! Pure: nothing here looks at the host. What contradicts itself or cannot be honoured is
//! an error here, before a process exists; what only a kernel can judge is left to it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use hull_runtime_sys::{mount::Propagation, path::clean};
use hull_specs_oci as oci;

use super::{
    devices,
    options::{self, Flags, Options},
    steps::{Bind, Cgroup, FileSystem, FlagChange, IdMap, Mapping, Parameter, Remount, Step},
};

/// What the plan needs to know beside the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// The runtime itself is in a user namespace, where device files cannot be made.
    pub(crate) in_user_namespace: bool,
    /// The runtime is not root (runc's "rootless"): id-mapped mounts cannot be had.
    pub(crate) rootless: bool,
    /// `--no-pivot`.
    pub(crate) no_pivot: bool,
    /// The host has `/proc/kcore`.
    pub(crate) kcore: bool,
}

/// The whole plan.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The root file system on the host, absolute.
    pub(crate) root: PathBuf,
    pub(crate) start: Start,
    /// In order, before the root is entered.
    pub(crate) steps: Vec<Step>,
    pub(crate) entry: Entry,
    /// In order of the fields, after the root is entered.
    pub(crate) seal: Seal,
    /// The SELinux label of file systems made here; empty without one.
    pub(crate) label: String,
    /// The container has a user namespace of its own: the sources of bind mounts may be
    /// out of its reach.
    pub(crate) user_namespace: bool,
    pub(crate) cgroup_namespace: bool,
    /// Sentences for the user.
    pub(crate) warnings: Vec<String>,
}

/// How the mount namespace and the root are made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The host's own mount namespace: it stays as it is, and mounts are made in the root
    /// where it is.
    HostNamespace,
    /// The container's mount namespace.
    OwnNamespace {
        /// What the namespace's mounts become, all of them if true.
        namespace: (Propagation, bool),
        /// The mount above the root may still be shared, which pivot_root(2) refuses and
        /// which would show the container's mounts on the host.
        parent_may_be_shared: bool,
        /// What the root becomes: never shared at first, for pivot_root(2).
        root: Propagation,
    },
}

/// How the root is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// pivot_root(2), then the old root is detached.
    Pivot {
        /// The old root is still shared and must not pass its detaching on to the host.
        old_root_shared: bool,
        /// The propagation of the root from then on.
        propagation: Option<(Propagation, bool)>,
    },
    /// The root is moved over `/`, then chroot(2): for hosts that run from an initramfs.
    Move { propagation: Option<(Propagation, bool)> },
    /// chroot(2) alone, in the host's mount namespace.
    Chroot,
}

/// What is closed when everything is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) read_only_root: bool,
    pub(crate) read_only_paths: Vec<PathBuf>,
    pub(crate) masked_paths: Vec<PathBuf>,
}

/// Plans the file system of a container.
pub(crate) fn plan(spec: &oci::Spec, bundle: &Path, facts: Facts) -> Result<Plan> {
    let none = oci::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    let namespace = |kind| linux.namespaces.iter().find(|n| n.kind == kind);
    let own_namespace = namespace(oci::NamespaceKind::Mount).is_some();
    let user_namespace = namespace(oci::NamespaceKind::User);
    let mut warnings = Vec::new();

    let root = spec.root.as_ref().context("root must be specified")?;
    ensure!(!root.path.is_empty(), "root.path must be specified");
    ensure!(!root.path.contains('\0'), "root.path contains a null byte");
    let seal = Seal {
        read_only_root: root.readonly && own_namespace,
        read_only_paths: linux.readonly_paths.iter().map(PathBuf::from).collect(),
        masked_paths: linux.masked_paths.iter().map(PathBuf::from).collect(),
    };
    if !own_namespace {
        ensure!(
            seal.masked_paths.is_empty() && seal.read_only_paths.is_empty(),
            "unable to restrict sys entries without a private MNT namespace"
        );
        if root.readonly {
            bail!("root.readonly needs a mount namespace of the container's own");
        }
        if !spec.mounts.is_empty() {
            warnings.push(
                "the configuration has no mount namespace: its mounts are made on the host and \
                 stay there when the container is gone"
                    .to_owned(),
            );
        }
    }
    let (start, entry) = propagation(&linux.rootfs_propagation, own_namespace, facts.no_pivot)?;

    let mut steps = Vec::with_capacity(spec.mounts.len() + 1);
    let mut dev_from_host = false;
    for mount in &spec.mounts {
        let step = step(mount, bundle, linux, user_namespace, facts, &mut warnings)
            .with_context(|| format!("invalid mount at {:?}", mount.destination))?;
        if let Step::Bind(bind) = &step {
            dev_from_host |= bind.destination == Path::new("dev");
        }
        steps.push(step);
    }
    // A /dev that is bound from the host is the host's business, as in runc.
    if !dev_from_host {
        let bind = user_namespace.is_some() || facts.in_user_namespace;
        steps.push(Step::Dev(devices::plan(&linux.devices, bind, facts.kcore)?));
    }
    Ok(Plan {
        root: bundle.join(&root.path),
        start,
        steps,
        entry,
        seal,
        label: linux.mount_label.clone(),
        user_namespace: user_namespace.is_some(),
        cgroup_namespace: namespace(oci::NamespaceKind::Cgroup).is_some(),
        warnings,
    })
}

/// What `rootfsPropagation` means for the namespace, the root and the entry.
fn propagation(word: &str, own_namespace: bool, no_pivot: bool) -> Result<(Start, Entry)> {
    let wanted = match word {
        "" => None,
        word => Some(
            options::propagation(word)
                .with_context(|| format!("rootfsPropagation={word} is not supported"))?,
        ),
    };
    if no_pivot && matches!(wanted, Some((Propagation::Private, _))) {
        bail!("rootfsPropagation of [r]private is not safe without pivot_root");
    }
    if !own_namespace {
        ensure!(
            wanted.is_none(),
            "rootfsPropagation needs a mount namespace of the container's own"
        );
        return Ok((Start::HostNamespace, Entry::Chroot));
    }
    // An unbindable namespace would make every bind mount fail, so unbindable, like shared
    // (which pivot_root refuses), waits until the root is entered.
    let (namespace, root, later) = match wanted {
        None => ((Propagation::Slave, true), Propagation::Private, None),
        Some((Propagation::Unbindable, _)) => {
            ((Propagation::Slave, true), Propagation::Private, wanted)
        }
        Some(shared @ (Propagation::Shared, _)) => (shared, Propagation::Private, wanted),
        Some(other) => (other, other.0, None),
    };
    let all_closed = namespace.1 && namespace.0 != Propagation::Shared;
    let start = Start::OwnNamespace { namespace, parent_may_be_shared: !all_closed, root };
    let entry = if no_pivot {
        Entry::Move { propagation: later }
    } else {
        Entry::Pivot { old_root_shared: !all_closed, propagation: later }
    };
    Ok((start, entry))
}

fn step(
    mount: &oci::Mount,
    bundle: &Path,
    linux: &oci::Linux,
    user_namespace: Option<&oci::Namespace>,
    facts: Facts,
    warnings: &mut Vec<String>,
) -> Result<Step> {
    for field in [&mount.destination, &mount.source, &mount.kind] {
        ensure!(!field.contains('\0'), "mount field contains null byte");
    }
    ensure!(!mount.destination.is_empty(), "it has no destination");
    if !mount.destination.starts_with('/') {
        warnings.push(format!(
            "mount destination {} is not absolute: it is taken as relative to /, which is deprecated",
            mount.destination
        ));
    }
    let destination = clean(Path::new(&mount.destination));
    ensure!(
        !destination.as_os_str().is_empty(),
        "nothing can be mounted over the container's root"
    );

    let options = options::parse(&mount.options);
    let id_map = id_map(mount, &options, linux, user_namespace, facts)?;
    let Options { set, cleared, propagation, below, copy_up, parameters, .. } = options;
    let change = FlagChange { set: set.without(Flags::ACTION), cleared };

    if set.has(Flags::BIND) {
        ensure!(
            parameters.is_empty(),
            "bind mounts cannot have any filesystem-specific options applied (found {})",
            parameters.join(",")
        );
        ensure!(!copy_up, "tmpcopyup is for tmpfs mounts only");
        let ignored = change.set.words_of(Flags::FILE_SYSTEM);
        if !ignored.is_empty() {
            warnings.push(format!(
                "mount at {}: the kernel does not apply {ignored} to bind mounts",
                mount.destination
            ));
        }
        if set.has(Flags::REMOUNT) {
            let parameters = Vec::new();
            return Ok(Step::Remount(Remount {
                destination,
                bind: true,
                change,
                parameters,
                below,
                propagation,
            }));
        }
        ensure!(!mount.source.is_empty(), "a bind mount needs a source");
        return Ok(Step::Bind(Bind {
            source: bundle.join(&mount.source),
            destination,
            recursive: set.has(Flags::RECURSIVE),
            change,
            below,
            propagation,
            id_map,
        }));
    }

    ensure!(mount.kind != "bind", "a bind mount needs the option bind or rbind");
    let parameters = split_parameters(&mount.kind, &parameters);
    if set.has(Flags::REMOUNT) {
        return Ok(Step::Remount(Remount {
            destination,
            bind: false,
            change,
            parameters,
            below,
            propagation,
        }));
    }
    ensure!(!mount.kind.is_empty(), "it has neither a type nor the option bind or rbind");
    ensure!(!copy_up || mount.kind == "tmpfs", "tmpcopyup is for tmpfs mounts only");
    if mount.kind == "cgroup" {
        let source = mount.source.clone();
        return Ok(Step::Cgroup(Cgroup { source, destination, change, parameters, propagation }));
    }
    let late = mount.kind == "tmpfs" || destination == Path::new("dev");
    let read_only_late = late && set.has(Flags::READ_ONLY);
    let set = if late { set.without(Flags::READ_ONLY) } else { set };
    Ok(Step::FileSystem(FileSystem {
        kind: mount.kind.clone(),
        source: mount.source.clone(),
        destination,
        attributes: set.attributes(),
        flags: set,
        parameters,
        below,
        propagation,
        copy_up,
        read_only_late,
    }))
}

fn id_map(
    mount: &oci::Mount,
    options: &Options,
    linux: &oci::Linux,
    user_namespace: Option<&oci::Namespace>,
    facts: Facts,
) -> Result<Option<IdMap>> {
    let explicit = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if options.id_map.is_none() && !explicit {
        return Ok(None);
    }
    ensure!(options.set.has(Flags::BIND), "id-mapped mounts are only supported for bind-mounts");
    ensure!(!options.set.has(Flags::REMOUNT), "a remount cannot change the id mapping");
    ensure!(!facts.rootless, "id-mapped mounts are not supported for rootless containers");
    let mapping = match user_namespace {
        _ if explicit => {
            Mapping::Ids { uids: mount.uid_mappings.clone(), gids: mount.gid_mappings.clone() }
        }
        Some(namespace) if !namespace.path.is_empty() => {
            Mapping::Namespace(PathBuf::from(&namespace.path))
        }
        Some(_) => {
            Mapping::Ids { uids: linux.uid_mappings.clone(), gids: linux.gid_mappings.clone() }
        }
        None => Mapping::Ids { uids: Vec::new(), gids: Vec::new() },
    };
    if let Mapping::Ids { uids, gids } = &mapping {
        ensure!(
            !uids.is_empty() && !gids.is_empty(),
            "id-mapped mounts must have both uid and gid mappings specified"
        );
    }
    Ok(Some(IdMap { recursive: options.id_map == Some(true), mapping }))
}

/// Splits words at commas, as the kernel splits the data of mount(2). Overlay's list of
/// layers may hold an escaped comma.
fn split_parameters(kind: &str, words: &[String]) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for word in words {
        let mut start = 0;
        let mut escaped = false;
        for (at, c) in word.char_indices().chain([(word.len(), ',')]) {
            if c == ',' && (!escaped || at == word.len()) {
                parameters.extend(parameter(&word[start..at]));
                start = at + 1;
            }
            escaped = kind == "overlay" && c == '\\' && !escaped;
        }
    }
    parameters
}

fn parameter(word: &str) -> Option<Parameter> {
    if word.is_empty() {
        return None;
    }
    Some(match word.split_once('=') {
        Some((key, value)) => Parameter { key: key.to_owned(), value: Some(value.to_owned()) },
        None => Parameter { key: word.to_owned(), value: None },
    })
}
