//! Volumes: directories that outlive the containers that use them.
//!
//! A volume is `ROOT/NAME/_data` and a record in the metadata store. The directory is what counts:
//! one without a record that holds something becomes a volume again; a record without a directory
//! and without users goes.
//!
//! | killed in … after … | left | `open` |
//! | --- | --- | --- |
//! | create, the directory | an empty directory without a record | removes it |
//! | remove, its rename into `ROOT/.removed` | a record, and a tree out of sight | removes both |
//! | remove, the record | a tree out of sight | removes it |
//! | mount | a mount, and a user that has it mounted | the containers' recovery unmounts it |
//! | fill | see `fill` | the next use |
//!
//! The local driver is the only one. With `type`, `device` and `o` a file system or directory is
//! mounted on `_data` while a container runs that uses it.
#![forbid(unsafe_code)]

mod fill;
mod measure;
mod options;
mod place;
mod records;

use std::{
    fs,
    io::ErrorKind::NotFound,
    net::ToSocketAddrs as _,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use anyhow::Context as _;
use hull_manager_core::{
    Error, Journal, Result, Store, error::IoContext as _, files::private_directory,
    filter::Filters, name,
};
use hull_runtime_sys::{
    mount::{self, Change},
    path,
};
use hull_specs_api::v1;

use crate::{options::Source, records::Records};

/// The one driver.
const LOCAL: &str = "local";

/// What is being removed; no volume's name begins with a dot.
const REMOVED: &str = ".removed";

/// All volumes; clones share them.
#[derive(Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    places: PathBuf,
    records: Records,
    journal: Journal,
    /// Held while volumes come, go, or change their users.
    changing: Mutex<()>,
}

impl Volumes {
    /// The volumes below `root`, with places for mounts below `places`, which is not on a disk:
    /// both are made, and what a killed manager left is settled.
    ///
    /// # Errors
    /// If the directories or the store refuse.
    pub fn open(root: &Path, places: &Path, store: &Store, journal: &Journal) -> Result<Self> {
        private_directory(root, 0o700)?;
        private_directory(places, 0o700)?;
        private_directory(&root.join(REMOVED), 0o700)?;
        let inner = Inner {
            root: root.to_owned(),
            places: places.to_owned(),
            records: Records::open(store)?,
            journal: journal.clone(),
            changing: Mutex::new(()),
        };
        inner.settle()?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a volume, or gives the one that is there.
    ///
    /// # Errors
    /// If its name or options are wrong, or there is one with other options.
    pub fn create(&self, request: &v1::CreateVolumeRequest) -> Result<v1::Volume> {
        let _changing = self.inner.lock();
        self.inner.create(request)
    }

    /// Those that pass the filters, by name.
    ///
    /// # Errors
    /// If a filter is none.
    pub fn list(&self, request: &v1::ListVolumesRequest) -> Result<v1::ListVolumesResponse> {
        let known = ["dangling", "driver", "label", "label!", "name"];
        let filters = Filters::parse(&request.filters, &known)?;
        let dangling = match filters.has("dangling") {
            true => Some(filters.flag("dangling", false)?),
            false => None,
        };
        let mut volumes = self.inner.records.all()?;
        let names = filters.names()?;
        volumes.retain(|volume| {
            dangling.is_none_or(|wanted| wanted == volume.containers.is_empty())
                && filters.any("driver", |driver| *driver == volume.driver)
                && names.have(&volume.name)
                && filters.labels(|key| volume.labels.get(key))
        });
        for volume in &mut volumes {
            volume.mountpoint = self.inner.mountpoint(&volume.name);
        }
        Ok(v1::ListVolumesResponse { volumes })
    }

    /// One volume.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn inspect(&self, request: &v1::InspectVolumeRequest) -> Result<v1::Volume> {
        self.inner.get(&request.name)
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// If there is none, or it is in use.
    pub fn remove(&self, request: &v1::RemoveVolumeRequest) -> Result<v1::RemoveVolumeResponse> {
        let _changing = self.inner.lock();
        match self.inner.get(&request.name) {
            Ok(volume) => self.inner.remove(&volume)?,
            Err(error)
                if request.force && error.kind() == hull_manager_core::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(v1::RemoveVolumeResponse {})
    }

    /// Removes those that no container uses: anonymous ones, with the filter `all` named ones too.
    ///
    /// # Errors
    /// If a filter is none, or the disk refuses.
    pub fn prune(&self, request: &v1::PruneVolumesRequest) -> Result<v1::PruneVolumesResponse> {
        let filters = Filters::parse(&request.filters, &["all", "label", "label!"])?;
        let all = filters.flag("all", false)?;
        let mut response = v1::PruneVolumesResponse::default();
        for volume in self.inner.records.all()? {
            let meant = (all || volume.anonymous) && filters.labels(|key| volume.labels.get(key));
            if !meant || !volume.containers.is_empty() {
                continue;
            }
            let size = self.size(&volume.name).unwrap_or(0);
            let _changing = self.inner.lock();
            // Somebody may have begun to use it.
            let Ok(volume) = self.inner.get(&volume.name) else { continue };
            if volume.containers.is_empty() {
                self.inner.remove(&volume)?;
                response.removed.push(volume.name);
                response.reclaimed_bytes += size;
            }
        }
        let reclaimed = response.reclaimed_bytes.to_string();
        self.inner.journal.record("volume", "prune", "", &[("reclaimed", &reclaimed)]);
        Ok(response)
    }

    /// What a volume takes on the disk, in bytes. Looks at every file.
    ///
    /// # Errors
    /// If there is none, or the disk refuses.
    pub fn size(&self, name: &str) -> Result<u64> {
        self.inner.get(name)?;
        Ok(measure::bytes(self.inner.data(name)?)?)
    }

    /// A container will use the volume of a mount, which is made if it is not there; without a
    /// name, an anonymous one is. To be called when the container is created.
    ///
    /// # Errors
    /// As of [`Self::create`].
    pub fn acquire(&self, mount: &v1::Mount, container: &str) -> Result<v1::Volume> {
        let _changing = self.inner.lock();
        let (volume, is_new) = match self.inner.records.get(&mount.source)? {
            // The options of a mount are for a volume that is made now (docker ignores them, too,
            // where it is there).
            Some(_) => (self.inner.get(&mount.source)?, false),
            None => {
                let volume = self.inner.create(&v1::CreateVolumeRequest {
                    name: mount.source.clone(),
                    driver: mount.volume_driver.clone(),
                    labels: mount.volume_labels.clone(),
                    options: mount.volume_options.clone(),
                })?;
                (volume, true)
            }
        };
        if let Err(error) = self.inner.records.add_user(&volume.name, container) {
            if is_new && let Err(error) = self.inner.remove(&volume) {
                tracing::warn!(%error, volume = volume.name, "a volume that nobody uses stays");
            }
            return Err(error);
        }
        self.inner.get(&volume.name)
    }

    /// The container is gone: it uses no volume any more. With `anonymous`, anonymous volumes that
    /// nobody else uses are removed.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn release(&self, container: &str, anonymous: bool) -> Result<()> {
        self.unmount(container)?;
        let _changing = self.inner.lock();
        let volumes = self.inner.records.of_container(container)?;
        self.inner.records.remove_user(container)?;
        for name in volumes.iter().filter(|_| anonymous) {
            let volume = self.inner.get(name)?;
            if volume.anonymous && volume.containers.is_empty() {
                self.inner.remove(&volume)?;
            }
        }
        Ok(())
    }

    /// Fills the volume if it is empty: `write` gets a new directory and writes into it what the
    /// image has at the mount's place, the directory's own owner and mode included. Whatever
    /// happens, the volume is empty or whole. The container has acquired and mounted it. Blocks.
    ///
    /// # Errors
    /// What `write` gives, or if the disk refuses.
    pub fn fill(
        &self,
        name: &str,
        write: impl FnOnce(&OwnedFd) -> anyhow::Result<()>,
    ) -> Result<bool> {
        let root = self.inner.data(name)?;
        fill::fill(&root, write).map_err(|error| Error::from(error).context(format!("fill {name}")))
    }

    /// The container starts: mounts what the volume's options say, and gives the path for the
    /// runtime. Below a volume's root that is a place of its own, where the directory itself is
    /// mounted (`place`). Blocks.
    ///
    /// # Errors
    /// If the container did not acquire it, the mount fails, or there is nothing at `subpath`.
    pub fn mount(&self, name: &str, subpath: &str, container: &str) -> Result<PathBuf> {
        let volume = self.inner.get(name)?;
        if !volume.containers.iter().any(|user| user == container) {
            return Err(Error::conflict(format!("{container} does not use volume {name}")));
        }
        let _changing = self.inner.lock();
        // First the record: who is not known to have it mounted would lose it to another's stop.
        self.inner.records.set_mounted(name, container, true)?;
        if let Some(source) = options::source(&volume.options)? {
            self.inner.mount(name, &source)?;
        }
        self.inner.journal.record(
            "volume",
            "mount",
            name,
            &[("driver", LOCAL), ("container", container)],
        );
        if subpath.is_empty() {
            return Ok(self.inner.path(name));
        }
        let found = place::find(self.inner.data(name)?, subpath)?;
        place::put(&self.inner.places, container, found)
    }

    /// Attaches a mount of somebody else's (an image's root) at a place of the container's, or what
    /// is at `subpath` beneath it, and gives the path for the runtime.
    ///
    /// # Errors
    /// If there is nothing at `subpath`, or the kernel refuses.
    pub fn place(&self, detached: impl AsFd, subpath: &str, container: &str) -> Result<PathBuf> {
        let _changing = self.inner.lock();
        let whole = place::attach(&self.inner.places, container, &detached)?;
        if subpath.is_empty() {
            return Ok(whole);
        }
        place::put(&self.inner.places, container, place::find(&detached, subpath)?)
    }

    /// The container has ended: its places go, and what nobody else has mounted. Blocks. What is
    /// not there is no error, so that this is also how a recovery begins.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn unmount(&self, container: &str) -> Result<()> {
        let _changing = self.inner.lock();
        place::clear(&self.inner.places, container)?;
        for name in self.inner.records.of_container(container)? {
            let users = self.inner.records.mounted_by(&name)?;
            if !users.iter().any(|user| user == container) {
                continue;
            }
            if users.len() == 1 && !self.inner.get(&name)?.options.is_empty() {
                place::unmount_all(&self.inner.path(&name))?;
            }
            self.inner.records.set_mounted(&name, container, false)?;
            self.inner.journal.record(
                "volume",
                "unmount",
                &name,
                &[("driver", LOCAL), ("container", container)],
            );
        }
        Ok(())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    fn mountpoint(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// The volume's root. No component of its path is anybody's but ours.
    fn data(&self, name: &str) -> Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        Ok(path::open_without_links(self.path(name), flags)
            .with_context(|| format!("volume {name}"))?)
    }

    fn get(&self, name: &str) -> Result<v1::Volume> {
        let volume = self.records.get(name)?;
        let mut volume =
            volume.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))?;
        volume.mountpoint = self.mountpoint(name);
        Ok(volume)
    }

    fn create(&self, request: &v1::CreateVolumeRequest) -> Result<v1::Volume> {
        let anonymous = request.name.is_empty();
        let name = if anonymous { name::random_id()? } else { request.name.clone() };
        name::check_name("volume", &name)?;
        if !matches!(request.driver.as_str(), "" | LOCAL) {
            let driver = &request.driver;
            return Err(Error::not_found(format!(
                "create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
            )));
        }
        options::source(&request.options)
            .map_err(|error| error.context(format!("create {name}")))?;
        if let Ok(there) = self.get(&name) {
            return match request.options.is_empty() || request.options == there.options {
                true => Ok(there),
                false => Err(Error::conflict(format!(
                    "create {name}: a volume of this name with other options exists"
                ))),
            };
        }
        let volume = v1::Volume {
            name: name.clone(),
            driver: LOCAL.to_owned(),
            labels: request.labels.clone(),
            options: request.options.clone(),
            created: Some(SystemTime::now().into()),
            anonymous,
            ..Default::default()
        };
        // What is empty goes again; more than that was there before.
        let made = self.make_directory(&name).and_then(|()| self.records.insert(&volume));
        made.inspect_err(|_| self.discard_empty(&name))?;
        self.journal.record("volume", "create", &name, &[("driver", LOCAL)]);
        self.get(&name)
    }

    fn make_directory(&self, name: &str) -> Result<()> {
        private_directory(&self.root.join(name), 0o700)?;
        let data = self.path(name);
        match fs::create_dir(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).about(data.display());
            }
            _ => {}
        }
        // Whatever the umask is: users of the container are not root.
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).about(data.display())
    }

    /// Removes the directories of a volume if there is nothing in them.
    fn discard_empty(&self, name: &str) {
        drop(fs::remove_dir(self.path(name)));
        drop(fs::remove_dir(self.root.join(name)));
    }

    fn remove(&self, volume: &v1::Volume) -> Result<()> {
        let name = &volume.name;
        if !volume.containers.is_empty() {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                volume.containers.join(", ")
            )));
        }
        // What would be mounted there still is not the volume's to remove.
        place::unmount_all(&self.path(name))?;
        let aside = self.root.join(REMOVED).join(name::random_id()?);
        match fs::rename(self.root.join(name), &aside) {
            Err(error) if error.kind() != NotFound => return Err(error).about(name),
            _ => {}
        }
        self.records.delete(name)?;
        self.journal.record("volume", "destroy", name, &[("driver", LOCAL)]);
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != NotFound => Err(error).about(format!("remove {name}")),
            _ => Ok(()),
        }
    }

    fn mount(&self, name: &str, source: &Source) -> Result<()> {
        let target = self.data(name)?;
        if path::is_mount_root(&target).context("statx")? {
            return Ok(());
        }
        let result: anyhow::Result<()> = match source {
            Source::Bind { device, recursive, attributes } => (|| {
                let copy = mount::copy_at(device, *recursive)?;
                let change = Change { set: *attributes, ..Change::default() };
                if !attributes.is_empty() {
                    mount::set_attributes(&copy, change, *recursive)?;
                }
                Ok(mount::attach(&copy, &target)?)
            })(),
            Source::FileSystem { kind, device, how, data } => (|| {
                let data = resolved(kind, data)?;
                mount::mount_on(&target, device, kind, *how, &data)
                    .with_context(|| format!("{device} with {:?}", options::shown(&data)))
            })(),
        };
        result.map_err(|cause| {
            Error::internal(format!("failed to mount local volume {name}")).because(cause)
        })
    }

    /// Brings directories and records together.
    fn settle(&self) -> Result<()> {
        let removed = self.root.join(REMOVED);
        for left in fs::read_dir(&removed).about(removed.display())? {
            let left = left.about(removed.display())?.path();
            if let Err(error) = fs::remove_dir_all(&left) {
                tracing::warn!(%error, path = %left.display(), "what is left of a volume stays");
            }
        }
        for entry in fs::read_dir(&self.root).about(self.root.display())? {
            let name = entry.about(self.root.display())?.file_name();
            let Some(name) = name.to_str().filter(|name| *name != REMOVED) else { continue };
            if name::check_name("volume", name).is_err() || self.records.get(name)?.is_some() {
                continue;
            }
            self.adopt(name)?;
        }
        for volume in self.records.all()? {
            match self.path(&volume.name).symlink_metadata() {
                Ok(_) => {}
                Err(_) if volume.containers.is_empty() => self.records.delete(&volume.name)?,
                Err(_) => {
                    tracing::warn!(volume = volume.name, "a volume's directory was gone");
                    self.make_directory(&volume.name)?;
                }
            }
        }
        Ok(())
    }

    /// A directory without a record: nothing but what a killed creation leaves, or a volume of
    /// which only the directory was kept.
    fn adopt(&self, name: &str) -> Result<()> {
        // Neither holds anything if they can be removed; otherwise they stay.
        self.discard_empty(name);
        let Ok(metadata) = self.path(name).symlink_metadata() else { return Ok(()) };
        if !metadata.is_dir() {
            return Ok(());
        }
        let (name, driver) = (name.to_owned(), LOCAL.to_owned());
        let anonymous = name.len() == 64 && name::is_id_prefix(&name);
        let created = metadata.modified().ok().map(Into::into);
        self.records.insert(&v1::Volume { name, driver, created, anonymous, ..Default::default() })
    }
}

/// Options with the server's address in the place of its name.
fn resolved(kind: &str, data: &str) -> anyhow::Result<String> {
    let Some(host) = options::address(kind, data) else { return Ok(data.to_owned()) };
    let address =
        (host.as_str(), 0_u16).to_socket_addrs().with_context(|| format!("resolve {host}"))?;
    let address = address.into_iter().next().with_context(|| format!("{host} has no address"))?;
    Ok(data.replace(&format!("addr={host}"), &format!("addr={}", address.ip())))
}

#[cfg(test)]
mod tests;
