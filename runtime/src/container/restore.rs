//! `restore`: a container from a checkpoint, by CRIU.
//!
//! What the container is comes from the bundle, as for `create`; what its processes are
//! comes from the images. CRIU wants the container's root as a mount of its own. That mount
//! is made in a mount namespace that only CRIU is in: whatever happens to us, nothing of it
//! stays on the host, and the container's directory can be removed without a look at what
//! is mounted in it.
//!
//! If the runtime is killed meanwhile, CRIU finds its socket closed and ends what it has
//! restored so far; the record, which is written first, lets `delete` find the rest.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{self as oci, NamespaceKind, Status};

use super::{
    Dir, Record, Store,
    checkpoint::{EXTERNAL_NAMESPACES, utf8, warn_without_privileges},
    create, delete, foreground, hook_state, notify,
    plan::{self, Prepared},
    record::{Phase, ProcessIdentity},
};
use crate::{
    attachment::{self, Attached},
    cgroup::{self, Cgroup},
    criu::{self, Images, Kind, Notice, Options, Session, Streams, Version},
    hooks, net_devices,
    request::{Global, Restore},
    rootfs,
};

/// Where CRIU finds the root, in the container's directory.
const ROOT: &str = "criu-root";

/// The largest /proc/PID/cgroup that is read, in bytes.
const MAX_CGROUP_FILE_BYTES: usize = 64 << 10;

/// Restores a container; returns its exit code, or 0 when detached.
pub(crate) fn restore(global: &Global, request: &Restore) -> Result<i32> {
    warn_without_privileges("restore");
    let version = criu::version()?;
    version.require(criu::OLDEST)?;
    let create = &request.run.create;
    let detach = create.attachment.detach;
    let prepared = plan::prepare(global, create, create::Waits::ForUs)?;
    if !prepared.namespaces.has(NamespaceKind::Mount) {
        bail!("a container without a mount namespace cannot be restored");
    }
    if prepared.rdt.is_some() {
        bail!("a container with intelRdt cannot be restored: CRIU does not put it back");
    }
    let images = Images::find(&request.criu)?;
    let mut plan = plan(request, &prepared, &images, version)?;
    let mut attached = attachment::attach(&create.attachment, prepared.process.terminal, detach)?;
    if !detach {
        if !request.run.no_subreaper {
            sys::process::set_subreaper(true)?;
        }
        sys::signal::block_all()?;
    }

    let (dir, lock) = Store::new(&global.root).create(&create.id)?;
    let mut record = create::record(create, &prepared);
    let mut own_cgroup = false;
    // The plan mounts it, as for a new container.
    let directory = prepared.notify.as_ref().map_or(Ok(()), |_| notify::make_directory(&dir));
    let revived = directory.and_then(|()| {
        revive(&dir, &mut record, request, &prepared, &mut plan, &mut attached, &mut own_cgroup)
    });
    let finished = revived.and_then(|(pid, pidfd)| {
        attached.finish(&pidfd, pid)?;
        Ok((pid, pidfd))
    });
    let (pid, pidfd) = match finished {
        Ok(process) => process,
        Err(error) => {
            images.quote_log();
            end(&record);
            return Err(create::undo(dir, &record, error, own_cgroup));
        }
    };
    drop(lock);
    if detach {
        return Ok(0);
    }
    let code = foreground::wait(pid, &pidfd, &mut attached, !request.run.no_subreaper, None);
    if request.run.keep {
        return code;
    }
    if code.is_err() {
        delete::end(&record)?;
    }
    delete::destroy_ended(dir, &record, Some(&prepared.spec))?;
    code
}

/// Ends what was restored: it is our child.
fn end(record: &Record) {
    let Some(init) = &record.init else { return };
    if let Some(pidfd) = init.open() {
        let _ = sys::process::send_signal(&pidfd, libc::SIGKILL);
    }
    let _ = sys::process::wait(init.pid);
}

/// What CRIU is asked, but for what is known only once it runs.
struct Plan {
    options: Options,
    /// What CRIU inherits under its number here.
    passed: Vec<OwnedFd>,
    log: String,
}

fn plan(request: &Restore, prepared: &Prepared, images: &Images, version: Version) -> Result<Plan> {
    let default = oci::Linux::default();
    let linux = prepared.spec.linux.as_ref().unwrap_or(&default);
    for (option, value) in
        [("lsm-profile", &request.lsm_profile), ("lsm-mount-context", &request.lsm_mount_context)]
    {
        if value.is_some() && version < Version(31_600) {
            bail!("--{option} requires at least CRIU 3.16");
        }
    }
    let mut options = Options {
        evasive_devices: true,
        rst_sibling: true,
        auto_dedup: request.auto_dedup,
        lsm_profile: request.lsm_profile.clone(),
        lsm_mount_context: request.lsm_mount_context.clone(),
        inherit_fd: images.pipes()?,
        ..images.options(&request.criu, &prepared.spec.annotations)?
    };
    let passed = namespaces(linux, prepared, version, &mut options)?;
    let cgroups = plan::cgroup_mounts(&prepared.host, &prepared.location);
    for external in prepared.rootfs.external(&cgroups)? {
        options.ext_mnt.push((utf8(&external.destination)?, utf8(&external.source)?));
    }
    if prepared.rootfs.masks() {
        options.ext_mnt.push(("/dev/null".to_owned(), "/dev/null".to_owned()));
    }
    Ok(Plan { options, passed, log: images.log().display().to_string() })
}

/// Namespaces that the container joins: a network or pid namespace was left out of the
/// checkpoint and is handed to CRIU; any other CRIU joins by its path.
fn namespaces(
    linux: &oci::Linux,
    prepared: &Prepared,
    version: Version,
    options: &mut Options,
) -> Result<Vec<OwnedFd>> {
    let mut passed = Vec::new();
    for namespace in linux.namespaces.iter().filter(|namespace| !namespace.path.is_empty()) {
        let kind = namespace.kind;
        let external = EXTERNAL_NAMESPACES.into_iter().find(|(external, ..)| *external == kind);
        if let Some((_, word, key, oldest)) = external {
            version
                .require(oldest)
                .with_context(|| format!("criu lacks support for an external {word} namespace"))?;
            let fd = prepared.namespaces.joins(kind).context("the namespace is not open")?;
            let fd = sys::fd::duplicate(fd, 3)?;
            options.inherit_fd.push((key.to_owned(), fd.as_raw_fd()));
            passed.push(fd);
            continue;
        }
        let word = match kind {
            NamespaceKind::Mount => "mnt",
            NamespaceKind::Cgroup => bail!("criu cannot restore into a cgroup namespace by path"),
            kind => kind.as_str(),
        };
        options.join_ns.push((word, namespace.path.clone()));
    }
    Ok(passed)
}

fn revive(
    dir: &Dir,
    record: &mut Record,
    request: &Restore,
    prepared: &Prepared,
    plan: &mut Plan,
    attached: &mut Attached,
    own_cgroup: &mut bool,
) -> Result<(i32, OwnedFd)> {
    let spec = &prepared.spec;
    let default = oci::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    dir.save_spec(&prepared.content)?;
    dir.save(record)?;
    let rules = cgroup::device_rules(linux.resources.as_ref(), &linux.devices);
    let wanted = cgroup::Wanted {
        resources: linux.resources.as_ref(),
        devices: (!plan::in_user_namespace()).then_some(rules.as_slice()),
        owner_uid: plan::owner_of_cgroup(spec, linux),
    };
    let cgroup = Cgroup::create(prepared.location.clone(), &wanted)?;
    *own_cgroup = true;
    record.cgroup = cgroup.location().clone();

    let root = dir.path.join(ROOT);
    fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let root = fs::canonicalize(&root).context("cannot find the container's directory")?;
    plan.options.root = utf8(&root)?;
    let streams = if prepared.process.terminal { Streams::Null } else { Streams::Ours };
    let (session, images) = in_own_mount_namespace(|| {
        mount_root(&prepared.rootfs, &root)?;
        // Opened again: CRIU mounts beneath its working directory, which therefore must be
        // one of its own namespace.
        let images = Images::find(&request.criu)?;
        let passed: Vec<BorrowedFd<'_>> = plan.passed.iter().map(AsFd::as_fd).collect();
        Ok((Session::start(streams, &passed)?, images))
    })?;
    images.lend(&mut plan.options);
    // What it restores is born in its cgroups.
    let pid = session.pid()?;
    cgroup.adopt(pid, &wanted)?;
    plan.options.cg_root = cgroups_of(pid)?;
    if !prepared.process.terminal {
        record.descriptors = criu::descriptors_of(pid);
    }

    let hooks = spec.hooks.clone().unwrap_or_default();
    let done = session.carry_out(Kind::Restore, &plan.options, &mut |notice| {
        heed(notice, dir, record, linux, &hooks, attached)
    });
    done.with_context(|| format!("cannot restore the container (criu's log is {})", plan.log))?;
    fs::remove_dir(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    let init = record.init.as_ref().context("criu did not tell what it has restored")?;
    let pidfd = init.open().context("the restored process has ended at once")?;
    Ok((init.pid, pidfd))
}

/// What the runtime does while CRIU restores.
fn heed(
    notice: Notice<'_>,
    dir: &Dir,
    record: &mut Record,
    linux: &oci::Linux,
    hooks: &oci::Hooks,
    attached: &mut Attached,
) -> Result<()> {
    let process = || notice.pid.filter(|pid| *pid > 0).context("criu named no process");
    match notice.stage {
        "setup-namespaces" => {
            let pid = process()?;
            net_devices::move_into(pid, &linux.net_devices)?;
            let state = oci::State { pid, ..hook_state(record, Status::Creating) };
            hooks::run("prestart", &hooks.prestart, &state, &[])?;
            hooks::run("createRuntime", &hooks.create_runtime, &state, &[])
        }
        "post-restore" => {
            let pid = process()?;
            record.init = Some(ProcessIdentity::of(pid)?);
            record.phase = Phase::Created;
            record.created = oci::time::rfc3339_nano(std::time::SystemTime::now());
            // CRIU gives clocks that go on where they stopped.
            if !record.namespaces.contains(&NamespaceKind::Time) && has_own_clocks(pid) {
                record.namespaces.push(NamespaceKind::Time);
            }
            dir.save(record)
        }
        "orphan-pts-master" => {
            let master = notice.fd.context("criu sent no terminal")?;
            let socket = attached.console.take().context("the terminal has nowhere to go")?;
            sys::socket::send(socket, b"orphan-pts-master", &[master.as_raw_fd()])
                .context("cannot send the terminal")
        }
        // The network is locked and unlocked by whoever made its devices.
        _ => Ok(()),
    }
}

fn has_own_clocks(pid: i32) -> bool {
    let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/time")).ok();
    link(&pid.to_string()) != link("self")
}

/// Controller and path of each cgroup that a process is in.
fn cgroups_of(pid: i32) -> Result<Vec<(String, String)>> {
    let path = sys::path::c_path(format!("/proc/{pid}/cgroup"))?;
    let file = sys::fd::openat(sys::fd::AT_FDCWD, &path, libc::O_RDONLY, 0)?;
    let text = sys::fd::read_to_end(file, MAX_CGROUP_FILE_BYTES)?;
    parse_cgroups(&String::from_utf8_lossy(&text))
}

fn parse_cgroups(text: &str) -> Result<Vec<(String, String)>> {
    let mut roots = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            bail!("/proc/PID/cgroup has an unknown form: {line:?}");
        };
        roots.extend(controllers.split(',').map(|name| (name.to_owned(), path.to_owned())));
    }
    Ok(roots)
}

/// The root as CRIU wants it: a mount, with all mount points, and nothing mounted on them.
fn mount_root(plan: &rootfs::Plan, directory: &Path) -> Result<()> {
    let open = || {
        let path = sys::path::c_path(directory)?;
        sys::fd::openat(
            sys::fd::AT_FDCWD,
            &path,
            libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW,
            0,
        )
    };
    let stub = open()?;
    let root = rootfs::mount_at(plan, &stub)?;
    let umask = sys::process::set_umask(0o022);
    let made = rootfs::make_mount_points(plan, root);
    sys::process::set_umask(umask);
    made?;
    // With all that was mounted in it on the way.
    sys::process::change_directory(open()?)?;
    sys::mount::detach_here()?;
    rootfs::mount_at(plan, &stub).map(drop)
}

/// Does something, such as starting a program, in a mount namespace of its own, whose
/// mounts follow the host's and do not show there; then comes back.
fn in_own_mount_namespace<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let open = |path, flags| sys::fd::openat(sys::fd::AT_FDCWD, path, flags, 0);
    let directory = libc::O_PATH | libc::O_DIRECTORY;
    let (root, here) = (open(c"/", directory)?, open(c".", directory)?);
    let ours = open(c"/proc/self/ns/mnt", libc::O_RDONLY)?;
    sys::namespace::unshare(libc::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let change = sys::mount::Change {
        propagation: Some(sys::mount::Propagation::Slave),
        ..sys::mount::Change::default()
    };
    let done = open(c"/", directory)
        .and_then(|root| sys::mount::set_attributes(root, change, true))
        .map_err(|error| anyhow!(error).context("cannot close the mount namespace"))
        .and_then(|()| work());
    // Entering it also takes its root and that as the current directory.
    sys::namespace::setns(ours, libc::CLONE_NEWNS)
        .and_then(|()| sys::process::change_directory(root))
        .and_then(|()| sys::namespace::chroot_here())
        .and_then(|()| sys::process::change_directory(here))
        .context("cannot leave a mount namespace")?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_its_cgroup() {
        let text = "5:cpu,cpuacct:/a:b\n1:name=systemd:/c\n0::/d\n";
        let expected = [("cpu", "/a:b"), ("cpuacct", "/a:b"), ("name=systemd", "/c"), ("", "/d")];
        let expected = expected.map(|(name, path)| (name.to_owned(), path.to_owned()));
        assert_eq!(parse_cgroups(text).unwrap(), expected);
        assert!(parse_cgroups("x").is_err());
    }
}
