//! `checkpoint`: saves a container's processes to files, by CRIU.
//!
//! The container is held until CRIU has ended: nobody else changes it meanwhile. If the
//! runtime is killed, CRIU finds its socket closed, undoes what it has done, and the
//! container runs on.

use std::{
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::{self as oci, NamespaceKind, Status};

use super::{Failure, Held, Record, delete, hold, plan, status};
use crate::{
    cgroup::{self, Cgroup},
    criu::{self, Features, Images, Kind, Notice, Options, Session, Streams, Version},
    log,
    request::{Checkpoint, Global},
    rootfs,
};

/// How long the saved processes may take to end, in milliseconds.
const END_TIMEOUT_MS: i32 = 10_000;

/// Saves a container, and removes it unless it is to run on.
pub(crate) fn checkpoint(global: &Global, request: &Checkpoint) -> Result<()> {
    warn_without_privileges("checkpoint");
    let held = hold(global, &request.id)?;
    let status = status::observe(&held.dir, &held.record)?;
    if !matches!(status, Status::Running | Status::Paused) {
        bail!("Container cannot be checkpointed in {status} state");
    }
    let version = criu::version()?;
    version.require(criu::OLDEST)?;
    let record = &held.record;
    let init = record.init.as_ref().context(Failure::NotRunning)?;
    let pidfd = init.open().context(Failure::NotRunning)?;
    let spec = held.dir.spec()?;
    let images = Images::make(&request.criu)?;
    let mut options = Options {
        pid: Some(init.pid),
        root: record.rootfs.clone(),
        leave_running: request.leave_running,
        auto_dedup: request.auto_dedup,
        parent_img: request.criu.parent_path.as_deref().map(utf8).transpose()?,
        page_server: request.page_server.as_deref().map(page_server).transpose()?,
        ..images.options(&request.criu, &spec.annotations)?
    };
    external_namespaces(&spec, version, &mut options)?;
    // Without a freezer CRIU stops the processes by ptrace, one by one.
    let cgroup = Cgroup::open(&record.cgroup);
    if record.cgroup.mode != cgroup::Mode::V2 || version >= Version(31_400) {
        options.freeze_cgroup = cgroup.freezer_dir().map(utf8).transpose()?;
    }
    if request.pre_dump {
        criu::require_features(Features { mem_track: true, lazy_pages: false })?;
    }
    if request.criu.lazy_pages {
        criu::require_features(Features { mem_track: false, lazy_pages: true })?;
    }
    let mut ready = request.criu.status_fd.map(status_descriptor).transpose()?;
    if request.criu.lazy_pages && version < Version(31_500) {
        // Later versions say `status-ready` instead.
        options.status_fd = ready.as_ref().map(AsRawFd::as_raw_fd);
    }
    // A pre-dump saves nothing but memory.
    if !request.pre_dump {
        external_mounts(record, &spec, init.pid, &mut options)?;
        images.write_descriptors(&record.descriptors)?;
    }

    let kind = if request.pre_dump { Kind::PreDump } else { Kind::Dump };
    let done = Session::start(Streams::Null, &[])?.carry_out(kind, &options, &mut |notice| {
        heed(&notice, &mut ready);
        Ok(())
    });
    if let Err(error) = done {
        images.quote_log();
        let log = images.log();
        return Err(error.context(format!(
            "cannot checkpoint the container (criu's log is {})",
            log.display()
        )));
    }
    if !request.leave_running && !request.pre_dump {
        let paused = status == Status::Paused;
        if let Err(error) = remove(held, &pidfd, paused) {
            log::warning(format!("the container is saved, but cannot be removed: {error:#}"));
        }
    }
    Ok(())
}

/// What the runtime does while CRIU saves. That the network is to be locked and unlocked is
/// for whoever made its devices; this runtime makes none.
fn heed(notice: &Notice<'_>, ready: &mut Option<OwnedFd>) {
    if notice.stage == "status-ready"
        && let Some(fd) = ready.take()
        && let Err(error) = sys::fd::write_all(fd, b"\0")
    {
        log::warning(format!("cannot write to --status-fd: {error}"));
    }
}

fn remove(held: Held, pidfd: &OwnedFd, paused: bool) -> Result<()> {
    if paused {
        // CRIU leaves the freezer as it found it, and a frozen process does not end.
        Cgroup::open(&held.record.cgroup).thaw()?;
    }
    if !sys::process::wait_readable(pidfd, END_TIMEOUT_MS)? {
        bail!("container init still running");
    }
    delete::destroy(held.dir, &held.record, true, None)
}

/// As under runc: it may work, and nobody has tried.
pub(super) fn warn_without_privileges(command: &str) {
    if sys::process::effective_uid() != 0 || plan::in_user_namespace() {
        log::warning(format!("{command} is untested with rootless containers"));
    }
}

pub(super) fn utf8(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

/// The command line has checked the form.
fn page_server(text: &str) -> Result<(String, u16)> {
    let (address, port) = text.rsplit_once(':').context("invalid page server")?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    Ok((address.to_owned(), port.parse().context("invalid port number")?))
}

fn status_descriptor(number: i32) -> Result<OwnedFd> {
    let what = || format!("invalid --status-fd argument {number}");
    if number < 3 {
        bail!("{}: a standard stream", what());
    }
    let fd = sys::fd::take(number).with_context(what)?;
    if !sys::fd::is_writable(&fd).with_context(what)? {
        bail!("{}: not writable", what());
    }
    Ok(fd)
}

/// The kinds of namespaces that CRIU can leave to somebody else, its word for each, and the
/// version from which it can.
pub(super) const EXTERNAL_NAMESPACES: [(NamespaceKind, &str, &str, Version); 2] = [
    (NamespaceKind::Network, "net", "extRootNetNS", Version(31_100)),
    (NamespaceKind::Pid, "pid", "extRootPidNS", Version(31_500)),
];

/// The path of the namespace that a container joins, if it joins one.
fn joined(linux: &oci::Linux, kind: NamespaceKind) -> Option<&str> {
    let namespace = linux.namespaces.iter().find(|namespace| namespace.kind == kind)?;
    Some(namespace.path.as_str()).filter(|path| !path.is_empty())
}

/// A namespace that the container was put into is not the container's to save.
fn external_namespaces(spec: &oci::Spec, version: Version, options: &mut Options) -> Result<()> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    for (kind, word, key, oldest) in EXTERNAL_NAMESPACES {
        let Some(path) = joined(linux, kind) else { continue };
        version
            .require(oldest)
            .with_context(|| format!("criu lacks support for an external {word} namespace"))?;
        let inode = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?.ino();
        options.external.push(format!("{word}[{inode}]:{key}"));
    }
    Ok(())
}

/// A mount from outside is not the container's to save: CRIU gets a name for each.
fn external_mounts(
    record: &Record,
    spec: &oci::Spec,
    pid: i32,
    options: &mut Options,
) -> Result<()> {
    let privileged = sys::process::effective_uid() == 0;
    let facts = rootfs::Facts::observe(!privileged, false)?;
    let plan = rootfs::plan(spec, Path::new(&record.bundle), facts)?;
    let cgroups = plan::cgroup_mounts(&cgroup::Host::observe()?, &record.cgroup);
    for external in plan.external(&cgroups)? {
        let name = utf8(&external.destination)?;
        options.ext_mnt.push((name.clone(), name));
    }
    let root = sys::path::c_path(PathBuf::from(format!("/proc/{pid}/root")))?;
    let root = sys::fd::openat(sys::fd::AT_FDCWD, &root, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    for masked in plan.masked_files(&root)? {
        options.ext_mnt.push((utf8(masked)?, "/dev/null".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        assert_eq!(page_server("10.0.0.1:27").unwrap(), ("10.0.0.1".to_owned(), 27));
        assert_eq!(page_server("[::1]:27").unwrap(), ("::1".to_owned(), 27));
        assert!(page_server("x:70000").is_err());
    }

    #[test]
    fn a_namespace_of_others_is_external() {
        let linux = |path: &str| {
            serde_json::from_value(serde_json::json!({
                "ociVersion": "1.2.0",
                "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": path}]},
            }))
            .unwrap()
        };
        let mut options = Options::default();
        external_namespaces(&linux("/proc/self/ns/net"), Version(31_701), &mut options).unwrap();
        let [external] = &options.external[..] else { panic!("{options:?}") };
        assert!(external.starts_with("net[4") && external.ends_with("]:extRootNetNS"));
        let mut options = Options::default();
        external_namespaces(&linux(""), Version(30_000), &mut options).unwrap();
        assert!(options.external.is_empty());
        let old = external_namespaces(&linux("/proc/self/ns/net"), Version(31_000), &mut options);
        assert!(old.is_err());
    }
}
