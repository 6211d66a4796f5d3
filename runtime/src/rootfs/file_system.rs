//! Mounts of file systems: procfs, sysfs, tmpfs, devpts, mqueue, overlay and all others.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};
use hull_runtime_sys::{
    fd::openat,
    mount::{self, Attributes, Classic, VALUE_LIMIT_BYTES},
    path::{self, Links, Missing, Target},
    process::change_directory,
};

use super::{
    Root, bind, copy_up,
    options::Flags,
    propagate,
    steps::{FileSystem, Parameter, Remount},
    target,
    target::What,
};

/// File systems without storage, whose mounts are read-only each on its own. Others are
/// told, because they may want to write while they are being mounted.
const PSEUDO: [&str; 7] = ["cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs", "tmpfs"];

pub(super) fn apply(root: &mut Root, fs: &FileSystem, label: &str) -> Result<()> {
    let kind = fs.kind.as_str();
    let plain = matches!(kind, "proc" | "sysfs");
    let target = if plain {
        target::open_plain(root, &fs.destination, kind)?
    } else {
        target::open(root, &fs.destination, false, What::Other)?
    };
    // procfs and sysfs have labels of their own, mqueue's root gets its label below.
    let label = if plain { "" } else { label };
    let context = if kind == "mqueue" { "" } else { label };

    let mut parameters = fs.parameters.clone();
    if kind == "tmpfs" && !target.created && !parameters.iter().any(|p| p.key == "mode") {
        let mode = path::stat(&target.fd)?.st_mode & 0o7777;
        parameters.push(Parameter { key: "mode".to_owned(), value: Some(format!("{mode:04o}")) });
    }
    if !context.is_empty() {
        let value = Some(context.to_owned());
        parameters.push(Parameter { key: "context".to_owned(), value });
    }

    let mount = if needs_classic(fs, &parameters) {
        ensure!(!fs.copy_up, "tmpcopyup cannot be combined with iversion or very long options");
        classic(root, fs, &parameters, &target)?
    } else {
        let mount = create(fs, &parameters)?;
        bind::set_below(&mount, fs.below)?;
        if fs.copy_up {
            copy_up::copy(&target.fd, &mount).context("tmpcopyup")?;
        }
        mount::attach(&mount, &target.fd)?;
        mount
    };
    if kind == "mqueue" && !label.is_empty() {
        let directory = openat(&mount, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        path::set_attribute(directory, c"security.selinux", label.as_bytes())?;
    }
    propagate(&mount, &fs.propagation)?;
    if fs.read_only_late {
        root.late.push(mount);
    }
    Ok(())
}

/// A detached mount of a new file system.
fn create(fs: &FileSystem, parameters: &[Parameter]) -> Result<OwnedFd> {
    let context = mount::Context::open(&fs.kind)?;
    if !fs.source.is_empty() {
        context.set("source", &fs.source)?;
    }
    // mount(2) takes "fuse.sshfs" apart by itself.
    if let Some((_, subtype)) = fs.kind.split_once('.') {
        context.set("subtype", subtype)?;
    }
    configure(&context, fs.flags, !PSEUDO.contains(&fs.kind.as_str()), parameters)?;
    context.create()?;
    Ok(context.mount(fs.attributes)?)
}

/// A new detached file system without storage: what this module's callers make for
/// themselves.
pub(super) fn pseudo(
    kind: &str,
    source: &str,
    parameters: &[(&str, &str)],
    attributes: Attributes,
) -> Result<OwnedFd> {
    let context = mount::Context::open(kind)?;
    context.set("source", source)?;
    for (key, value) in parameters {
        if value.is_empty() {
            context.set_flag(key)?;
        } else {
            context.set(key, value)?;
        }
    }
    context.create()?;
    Ok(context.mount(attributes)?)
}

fn configure(
    context: &mount::Context,
    flags: Flags,
    storage: bool,
    parameters: &[Parameter],
) -> Result<()> {
    // `silent` needs no word: messages of a configured file system go to its descriptor.
    let words = [
        (Flags::READ_ONLY, "ro", storage),
        (Flags::SYNCHRONOUS, "sync", true),
        (Flags::SYNCHRONOUS_DIRECTORIES, "dirsync", true),
        (Flags::MANDATORY_LOCKS, "mand", true),
        (Flags::LAZY_TIME, "lazytime", true),
    ];
    for (_, word, _) in words.iter().filter(|(flag, _, applies)| *applies && flags.has(*flag)) {
        context.set_flag(word)?;
    }
    for Parameter { key, value } in parameters {
        match value {
            Some(value) => context.set(key, value)?,
            None => context.set_flag(key)?,
        }
    }
    Ok(())
}

/// Whether fsconfig(2) cannot say what is asked for.
fn needs_classic(fs: &FileSystem, parameters: &[Parameter]) -> bool {
    let long = |text: &str| text.len() >= VALUE_LIMIT_BYTES;
    fs.flags.has(Flags::INODE_VERSION)
        || long(&fs.source)
        || parameters.iter().any(|p| long(&p.key) || p.value.as_deref().is_some_and(long))
}

/// Mounts by mount(2) on the mount point as current directory, then finds the new mount
/// where the mount point was and checks that this is what it found.
fn classic(
    root: &Root,
    fs: &FileSystem,
    parameters: &[Parameter],
    target: &Target,
) -> Result<OwnedFd> {
    let data: Vec<String> = parameters.iter().map(text).collect();
    change_directory(&target.fd)?;
    let how = Classic { attributes: fs.attributes, ..how(fs.flags) };
    let result = mount::mount_here(&fs.source, &fs.kind, how, &data.join(","));
    change_directory(&root.fd)?;
    result?;
    let mount = path::open_in_root(&root.fd, &target.path, libc::O_PATH, 0, Links::Refuse)?;
    let (below, above) = (path::stat(&target.fd)?, path::stat(&mount)?);
    ensure!(
        path::is_mount_root(&mount)? && below.st_dev != above.st_dev,
        "the mountpoint was moved while mounting"
    );
    bind::set_below(&mount, fs.below)?;
    Ok(mount)
}

fn how(flags: Flags) -> Classic {
    Classic {
        inode_version: flags.has(Flags::INODE_VERSION),
        synchronous: flags.has(Flags::SYNCHRONOUS),
        synchronous_directories: flags.has(Flags::SYNCHRONOUS_DIRECTORIES),
        mandatory_locks: flags.has(Flags::MANDATORY_LOCKS),
        lazy_time: flags.has(Flags::LAZY_TIME),
        ..Classic::default()
    }
}

/// A parameter as mount(2) takes it; labels are quoted because they may hold commas.
fn text(parameter: &Parameter) -> String {
    match (parameter.key.as_str(), &parameter.value) {
        ("context", Some(value)) => format!("context=\"{value}\""),
        (key, Some(value)) => format!("{key}={value}"),
        (key, None) => key.to_owned(),
    }
}

/// Changes what is mounted at a destination: the mount's flags, and, unless it is a bind
/// remount, its file system.
pub(super) fn remount(root: &Root, remount: &Remount) -> Result<()> {
    let target = path::resolve(&root.fd, &remount.destination, Missing::Fail)?;
    ensure!(path::is_mount_root(&target.fd)?, "nothing is mounted there");
    ensure!(!target.path.as_os_str().is_empty(), "the container's root is not a mount to change");
    let flags = remount.change.set;
    if !remount.bind {
        if flags.has(Flags::INODE_VERSION) {
            change_directory(&target.fd)?;
            let how = Classic { remount: true, attributes: flags.attributes(), ..how(flags) };
            let data: Vec<String> = remount.parameters.iter().map(text).collect();
            let result = mount::mount_here("", "", how, &data.join(","));
            change_directory(&root.fd)?;
            result?;
        } else {
            let context = mount::Context::pick(&target.fd)?;
            for (flag, word) in [
                (Flags::READ_ONLY, "rw"),
                (Flags::SYNCHRONOUS, "async"),
                (Flags::MANDATORY_LOCKS, "nomand"),
                (Flags::LAZY_TIME, "nolazytime"),
            ] {
                if remount.change.cleared.has(flag) {
                    context.set_flag(word)?;
                }
            }
            configure(&context, flags, true, &remount.parameters)?;
            context.reconfigure()?;
        }
    }
    bind::set_flags(&target.fd, remount.change, false)?;
    bind::set_below(&target.fd, remount.below)?;
    propagate(&target.fd, &remount.propagation)
}
