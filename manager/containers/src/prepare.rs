//! What a container needs before it can be made: files, mounts, namespaces, its configuration.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_manager_snapshots::Mount;
use hull_manager_spec::{self as spec, Files, Input, Join, cdi, mounts};
use hull_runtime_sys::{
    fd,
    path::{self, Links},
};
use hull_specs_api::v1;
use hull_specs_oci as oci;

use crate::{
    Inner, apparmor, bundle, devices,
    handle::Handle,
    links,
    network::{Attached, Attachment, Namespace},
    record::Record,
    volumes,
};

/// Files that are mounted over the image's.
pub(crate) const HOSTS: &str = "hosts";
pub(crate) const HOSTNAME: &str = "hostname";
pub(crate) const RESOLV_CONF: &str = "resolv.conf";

/// The runtime's configuration, in the bundle.
pub(crate) const CONFIG: &str = "config.json";

/// What networks must know of a container that outlived the manager.
pub(crate) fn attachment(record: &Record) -> Attachment<'_> {
    let options = &record.effective;
    Attachment {
        id: record.id(),
        name: record.name(),
        hostname: &options.hostname,
        options,
        joined: None,
    }
}

/// Prepares everything, and gives what the shim mounts as the root.
pub(crate) async fn prepare(inner: &Arc<Inner>, handle: &Handle) -> Result<Vec<Mount>> {
    let record = handle.record();
    let options = &record.effective;
    let joined = Joined::find(inner, options)?;
    let host = host_name();
    let hostname = match &joined.network {
        // It is the other's in every way.
        Some(other) => hostname_of(&other.record(), &host),
        None => spec::hostname(options, record.id(), &host),
    };
    let links = links::Links::find(inner, record.name(), options)?;
    let network_path = joined.network.as_ref().map(|other| namespace(other, "net")).transpose()?;
    let attached = inner
        .parts
        .network
        .attach(Attachment {
            id: record.id(),
            name: record.name(),
            hostname: &hostname,
            options,
            joined: network_path.as_deref(),
        })
        .await?;
    handle.set_attached(Some(attached.clone()));
    let inner = Arc::clone(inner);
    let work = move || {
        let files = match &joined.network {
            Some(other) => files_of(&inner.directory(&other.id)),
            None => write_files(&inner, &record, &hostname, &attached, &links.hosts)?,
        };
        let mut join = joined.paths()?;
        if let Namespace::Path(path) = attached.namespace {
            join.network = Some(text(path));
        }
        let shm = joined.shm(&inner, &record)?;
        let mut record = Record::clone(&record);
        record.effective.env.extend(links.env);
        let range = inner.ranges.of(record.id())?;
        let sys = match (&join.network, range) {
            (Some(network), Some(_)) => {
                let path = inner.bundle(record.id()).join(bundle::SYS);
                bundle::mount_sysfs(&path, Path::new(network))?;
                Some(text(path))
            }
            _ => None,
        };
        let places = Places { shm: shm.as_deref(), sys: sys.as_deref() };
        configure(&inner, &record, &hostname, files, join, places)?;
        let mut mounts = inner.parts.snapshots.mounts(record.id())?;
        if let Some(map) = range {
            bundle::open_to(&inner.bundle(record.id()), map.host_id)?;
            // On the disk are the image's own ids: the shim shows them as the container's.
            let map = format!("{}:{}:{}", map.container_id, map.host_id, map.size);
            for mount in &mut mounts {
                mount.options.extend([format!("uidmap={map}"), format!("gidmap={map}")]);
            }
        }
        Ok(mounts)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|cause| Error::internal("prepare").because(cause))?
}

/// What is mounted in the bundle for it.
struct Places<'a> {
    shm: Option<&'a str>,
    sys: Option<&'a str>,
}

fn configure(
    inner: &Inner,
    record: &Record,
    hostname: &str,
    files: Files,
    join: Join,
    places: Places<'_>,
) -> Result<()> {
    let (id, options) = (record.id(), &record.effective);
    let settings = inner.settings();
    let root = inner.parts.snapshots.mount_detached(id, true)?;
    let user = resolve_user(&root, &options.user, &options.group_add)?;
    drop(root);
    let mut input =
        Input::new(id, options, &settings.defaults, user, hostname).map_err(Error::invalid)?;
    input.mounts = volumes::resolve(inner, record)?;
    let mountinfo;
    if mounts::needs_mountinfo(&options.mounts) {
        mountinfo = fs::read_to_string("/proc/self/mountinfo").about("mountinfo")?;
        input.mountinfo = &mountinfo;
    }
    let range = inner.ranges.of(id)?;
    input.uid_mappings = range.into_iter().collect();
    input.gid_mappings = range.into_iter().collect();
    input.files = files;
    input.shm = places.shm;
    input.sys = places.sys;
    input.join = join;
    let documents = devices::cdi_documents(&settings.cdi_dirs, &options.cdi_devices)?;
    input.cdi = &documents;
    let mut wanted = spec::wanted_devices(options);
    wanted.extend(cdi::wanted_devices(&options.cdi_devices, &documents).map_err(Error::invalid)?);
    input.devices = wanted
        .into_iter()
        .map(|path| Ok((path.clone(), devices::at(&path)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    let all = if options.privileged { devices::at("/dev")? } else { Vec::new() };
    input.host_devices = &all;
    let init = settings.init_path.clone().map(text).unwrap_or_default();
    input.init = &init;
    let config = spec::config(&input).map_err(Error::invalid)?;
    if let Some(process) = &config.process {
        apparmor::ensure(&process.apparmor_profile)?;
    }
    let json = serde_json::to_vec(&config)
        .map_err(|cause| Error::internal("the configuration").because(cause))?;
    // The shim starts at the same time and looks for it: it is there whole, or not yet.
    let path = inner.bundle(id).join(CONFIG);
    let begun = inner.bundle(id).join("config.json.begun");
    fs::write(&begun, json).about(begun.display())?;
    fs::rename(&begun, &path).about(path.display())
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

/// The host's own name.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn hostname_of(record: &Record, host: &str) -> String {
    spec::hostname(&record.effective, record.id(), host)
}

/// A namespace of a running container.
fn namespace(handle: &Handle, kind: &str) -> Result<PathBuf> {
    let state = handle.now();
    if !state.is_live() || state.pid == 0 {
        return Err(Error::conflict(format!(
            "cannot join {kind} namespace of a non running container: {}",
            handle.id
        )));
    }
    Ok(PathBuf::from(format!("/proc/{}/ns/{kind}", state.pid)))
}

/// The containers whose namespaces this one shares.
#[derive(Default)]
pub(crate) struct Joined {
    network: Option<Arc<Handle>>,
    pid: Option<Arc<Handle>>,
    ipc: Option<Arc<Handle>>,
    uts: Option<Arc<Handle>>,
}

impl Joined {
    pub(crate) fn find(inner: &Inner, options: &v1::ContainerOptions) -> Result<Self> {
        let find = |mode: &str| spec::container_of(mode).map(|other| inner.find(other)).transpose();
        Ok(Self {
            network: find(&options.network_mode)?,
            pid: find(&options.pid_mode)?,
            ipc: find(&options.ipc_mode)?,
            uts: find(&options.uts_mode)?,
        })
    }

    fn paths(&self) -> Result<Join> {
        let path = |other: &Option<Arc<Handle>>, kind| {
            other.as_ref().map(|other| namespace(other, kind).map(text)).transpose()
        };
        Ok(Join {
            ipc: path(&self.ipc, "ipc")?,
            pid: path(&self.pid, "pid")?,
            uts: path(&self.uts, "uts")?,
            network: path(&self.network, "net")?,
            user: None,
        })
    }

    /// Where the shared memory is that it has with others.
    fn shm(&self, inner: &Inner, record: &Record) -> Result<Option<String>> {
        if let Some(other) = &self.ipc {
            let theirs = inner.bundle(&other.id).join(bundle::SHM);
            if !theirs.is_dir() {
                return Err(Error::conflict(format!(
                    "cannot join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.id
                )));
            }
            return Ok(Some(text(theirs)));
        }
        if record.effective.ipc_mode != "shareable" {
            return Ok(None);
        }
        let path = inner.bundle(record.id()).join(bundle::SHM);
        bundle::mount_shm(&path, record.effective.shm_size_bytes)?;
        Ok(Some(text(path)))
    }
}

/// Where the files are that are mounted over the image's, by where they are mounted. Before the
/// first start they are not there.
pub(crate) fn mounted_files(inner: &Inner, record: &Record) -> Vec<(&'static str, PathBuf)> {
    let directory = match spec::container_of(&record.effective.network_mode) {
        Some(other) => inner.find(other).ok().map(|other| inner.directory(&other.id)),
        None => Some(inner.directory(record.id())),
    };
    let files =
        [("/etc/resolv.conf", RESOLV_CONF), ("/etc/hostname", HOSTNAME), ("/etc/hosts", HOSTS)];
    let at = |directory: PathBuf| files.map(|(target, name)| (target, directory.join(name)));
    directory.into_iter().flat_map(at).collect()
}

fn files_of(directory: &Path) -> Files {
    let path = |name: &str| Some(text(directory.join(name)));
    Files { hostname: path(HOSTNAME), hosts: path(HOSTS), resolv_conf: path(RESOLV_CONF) }
}

/// The lines that every container's `/etc/hosts` begins with.
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Writes the files that are mounted over the image's.
fn write_files(
    inner: &Inner,
    record: &Record,
    hostname: &str,
    attached: &Attached,
    links: &[String],
) -> Result<Files> {
    let directory = inner.directory(record.id());
    let root = inner.ranges.of(record.id())?.map(|map| map.host_id);
    let write = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, content).about(path.display())?;
        match root {
            Some(root) => std::os::unix::fs::chown(&path, Some(root), Some(root)),
            None => Ok(()),
        }
        .about(path.display())
    };
    write(HOSTNAME, format!("{hostname}\n").as_bytes())?;
    let mut hosts = match attached.namespace {
        Namespace::Host => fs::read("/etc/hosts").unwrap_or_default(),
        _ => LOOPBACK.as_bytes().to_vec(),
    };
    for line in attached.hosts.iter().chain(links) {
        hosts.extend_from_slice(line.as_bytes());
        hosts.push(b'\n');
    }
    write(HOSTS, &hosts)?;
    write(RESOLV_CONF, attached.resolv_conf.as_bytes())?;
    Ok(files_of(&directory))
}

/// The user by the container's own files.
pub(crate) fn resolve_user(root: &OwnedFd, user: &str, groups: &[String]) -> Result<oci::User> {
    let passwd = read_in(root, "etc/passwd")?;
    let group = read_in(root, "etc/group")?;
    spec::user::resolve(user, &passwd, &group, groups).map_err(Error::invalid)
}

/// A file of the container's, if it is a regular one, up to the limit; empty if it is not there.
pub(crate) fn read_in(root: &OwnedFd, name: &str) -> Result<Vec<u8>> {
    // A FIFO or a device in its place must not hold us up.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match path::open_in_root(root.as_fd(), name, flags, 0, Links::Follow) {
        Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR | libc::ENXIO) => {
            return Ok(Vec::new());
        }
        file => file.map_err(anyhow::Error::new)?,
    };
    let stat = path::stat(&file).map_err(anyhow::Error::new)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(Vec::new());
    }
    fd::set_nonblocking(&file, false).map_err(anyhow::Error::new)?;
    let mut content = Vec::new();
    fs::File::from(file)
        .take(spec::user::MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)
        .about(name)?;
    if content.len() as u64 > spec::user::MAX_FILE_BYTES {
        return Err(Error::invalid(format!("the container's /{name} is too large")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(place: &Path) -> OwnedFd {
        fs::File::open(place).unwrap().into()
    }

    #[test]
    fn the_user_is_the_containers_own_also_through_a_link_that_stays_inside() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("etc")).unwrap();
        fs::create_dir_all(place.path().join("usr")).unwrap();
        fs::write(place.path().join("usr/passwd"), "app:x:7:8::/:/bin/sh\n").unwrap();
        std::os::unix::fs::symlink("/usr/passwd", place.path().join("etc/passwd")).unwrap();
        let user = resolve_user(&root(place.path()), "app", &[]).unwrap();
        assert_eq!((user.uid, user.gid), (7, 8));
        assert!(resolve_user(&root(place.path()), "root", &[]).is_err(), "not the host's");
    }

    #[test]
    fn what_is_no_regular_file_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("etc/group")).unwrap();
        let name = place.path().join("etc/passwd");
        fd::mkfifoat(fd::AT_FDCWD, &path::c_path(&name).unwrap(), 0o600).unwrap();
        let user = resolve_user(&root(place.path()), "", &[]).unwrap();
        assert_eq!(user.uid, 0);
    }
}
