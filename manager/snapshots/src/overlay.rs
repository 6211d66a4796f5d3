//! Snapshots on overlayfs: a layer is a directory, a container's root is a mount of all of them.
//!
//! `ROOT/NUMBER/fs` is what the layer or snapshot adds, `ROOT/NUMBER/work` the kernel's own.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use hull_manager_core::{Error, Result, Store, error::IoContext as _};
use hull_runtime_sys::mount::{Attributes, Change, Context, VALUE_LIMIT_BYTES, set_attributes};
use hull_specs_image::Digest;

use crate::{
    Changes, Finding, Info, Kind, Mount, Snapshotter, Staged, Usage,
    measure::measure,
    records::{Record, Records},
};

/// The snapshotter.
pub struct Overlay {
    records: Records,
}

/// The directories that a mount is made of.
struct Stack {
    /// Absent for a view.
    upper: Option<PathBuf>,
    work: PathBuf,
    /// The uppermost first.
    lowers: Vec<PathBuf>,
}

impl Overlay {
    /// Snapshots in `root`.
    ///
    /// # Errors
    /// If the directory can't be used.
    pub fn open(root: &Path, store: &Store) -> Result<Self> {
        Ok(Self { records: Records::open(store, "overlayfs", root)? })
    }

    fn fs(&self, number: i64) -> PathBuf {
        self.records.directory(number).join("fs")
    }

    fn lowers(&self, record: &Record) -> Result<Vec<PathBuf>> {
        Ok(self.records.below(record)?.into_iter().map(|number| self.fs(number)).collect())
    }

    fn stack(&self, record: &Record) -> Result<Stack> {
        Ok(Stack {
            upper: (record.kind == Kind::Active).then(|| self.fs(record.number)),
            work: self.records.directory(record.number).join("work"),
            lowers: match record.kind {
                // What lies on nothing lies on its own empty directory.
                Kind::View if record.parent.is_none() => vec![self.fs(record.number)],
                _ => self.lowers(record)?,
            },
        })
    }

    fn insert(&self, key: &str, kind: Kind, parent: Option<&Digest>) -> Result<Vec<Mount>> {
        // A container's root has the mode and owner of the image's: overlayfs shows those of the
        // uppermost directory.
        let below = parent.map(|parent| self.records.layer(parent)).transpose()?;
        let root = below
            .map(|below| fs::metadata(self.fs(below.number)).about("a layer's root"))
            .transpose()?;
        let record = self.records.insert(key, kind, parent, |directory| {
            make(directory, 0o711)?;
            make(&directory.join("fs"), 0o755)?;
            make(&directory.join("work"), 0o700)?;
            if let Some(root) = &root {
                use std::os::unix::fs::MetadataExt as _;
                let fs_dir = directory.join("fs");
                std::os::unix::fs::chown(&fs_dir, Some(root.uid()), Some(root.gid()))
                    .about(fs_dir.display())?;
                fs::set_permissions(&fs_dir, fs::Permissions::from_mode(root.mode() & 0o7777))
                    .about(fs_dir.display())?;
            }
            Ok(())
        })?;
        Ok(self.stack(&record)?.mounts())
    }
}

impl Stack {
    fn mounts(&self) -> Vec<Mount> {
        let text = |path: &Path| path.display().to_string();
        match (&self.upper, self.lowers.as_slice()) {
            (Some(upper), []) => vec![bind(upper, "rw")],
            (None, [single]) => vec![bind(single, "ro")],
            (upper, lowers) => {
                let mut options = vec!["index=off".to_owned()];
                if let Some(upper) = upper {
                    options.push(format!("workdir={}", text(&self.work)));
                    options.push(format!("upperdir={}", text(upper)));
                }
                let lowers: Vec<String> = lowers.iter().map(|path| text(path)).collect();
                options.push(format!("lowerdir={}", lowers.join(":")));
                vec![Mount { kind: "overlay".into(), source: "overlay".into(), options }]
            }
        }
    }

    /// A mount of the stack that is attached nowhere.
    fn detached(&self, read_only: bool) -> Result<OwnedFd> {
        let internal = |error: hull_runtime_sys::Error| Error::from(anyhow::Error::new(error));
        let attributes = if read_only { Attributes::READ_ONLY } else { Attributes::default() };
        let mut lowers: Vec<&PathBuf> = self.lowers.iter().collect();
        let upper = match (&self.upper, read_only) {
            // To read, the changes are but one more layer: nothing is written by looking.
            (Some(upper), true) => {
                lowers.insert(0, upper);
                None
            }
            (upper, _) => upper.as_ref(),
        };
        if upper.is_none() && lowers.len() == 1 || lowers.is_empty() {
            let single = upper
                .or(lowers.first().copied())
                .ok_or_else(|| Error::internal("an empty stack"))?;
            let mount = hull_runtime_sys::mount::copy_at(single, false).map_err(internal)?;
            if read_only {
                let change = Change { set: Attributes::READ_ONLY, ..Change::default() };
                set_attributes(mount.as_fd(), change, false).map_err(internal)?;
            }
            return Ok(mount);
        }
        let context = Context::open("overlay").map_err(internal)?;
        if let Some(upper) = upper {
            context.set("upperdir", &upper.display().to_string()).map_err(internal)?;
            context.set("workdir", &self.work.display().to_string()).map_err(internal)?;
        }
        context.set("index", "off").map_err(internal)?;
        let joined =
            lowers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        if joined.len() < VALUE_LIMIT_BYTES {
            context.set("lowerdir", &joined).map_err(internal)?;
        } else {
            for lower in lowers {
                // Linux 6.5.
                context.set("lowerdir+", &lower.display().to_string()).map_err(|error| {
                    Error::unimplemented("this kernel can't mount so many layers without a place")
                        .because(error)
                })?;
            }
        }
        context.create().map_err(internal)?;
        context.mount(attributes).map_err(internal)
    }
}

fn bind(path: &Path, access: &str) -> Mount {
    Mount {
        kind: "bind".into(),
        source: path.display().to_string(),
        options: vec!["rbind".into(), access.into()],
    }
}

fn make(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().mode(mode).create(path).about(path.display())?;
    // Whatever the umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).about(path.display())
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    Ok(fs::File::open(path).about(path.display())?.into())
}

/// Whether overlayfs works with its upper directory below `root`.
///
/// # Errors
/// The kernel's, if not.
pub(crate) fn probe(root: &Path) -> Result<()> {
    let directory = root.join(format!("probe-{}", std::process::id()));
    fs::create_dir_all(&directory).about(directory.display())?;
    let attempt = || -> Result<()> {
        let names = ["lower", "upper", "work"].map(|name| directory.join(name));
        for name in &names {
            make(name, 0o700)?;
        }
        let [lower, upper, work] = names;
        let stack = Stack { upper: Some(upper), work, lowers: vec![lower] };
        stack.detached(false).map(drop)
    };
    let result = attempt();
    drop(fs::remove_dir_all(&directory));
    result
}

impl Snapshotter for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn stage(&self, key: &str) -> Result<Staged> {
        if self.records.find(key)?.is_some_and(|record| record.kind == Kind::Staged) {
            self.remove(key)?;
        }
        let record = self.records.insert(key, Kind::Staged, None, |directory| {
            make(directory, 0o711)?;
            make(&directory.join("fs"), 0o755)
        })?;
        let path = self.fs(record.number);
        Ok(Staged { dir: open_directory(&path)?, path })
    }

    fn commit_layer(&self, key: &str, chain_id: &Digest, parent: Option<&Digest>) -> Result<()> {
        if self.records.commit(key, chain_id, parent, |_, _| Ok(()))? {
            return Ok(());
        }
        self.remove(key)
    }

    fn has_layer(&self, chain_id: &Digest) -> Result<bool> {
        Ok(self
            .records
            .find(&chain_id.to_string())?
            .is_some_and(|record| record.kind == Kind::Layer))
    }

    fn remove_layer(&self, chain_id: &Digest) -> Result<()> {
        match self.records.remove(&chain_id.to_string(), true)? {
            true => Ok(()),
            false => Err(Error::not_found(format!("no layer {chain_id}"))),
        }
    }

    fn prepare(&self, key: &str, parent: Option<&Digest>) -> Result<Vec<Mount>> {
        self.insert(key, Kind::Active, parent)
    }

    fn view(&self, key: &str, parent: Option<&Digest>) -> Result<Vec<Mount>> {
        self.insert(key, Kind::View, parent)
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        Ok(self.stack(&self.records.get(key)?)?.mounts())
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.records.remove(key, false).map(drop)
    }

    fn changes(&self, key: &str) -> Result<Changes> {
        let record = self.records.get(key)?;
        Ok(Changes {
            upper: open_directory(&self.fs(record.number))?,
            lowers: self.lowers(&record)?,
        })
    }

    fn mount_detached(&self, key: &str, read_only: bool) -> Result<OwnedFd> {
        let record = self.records.get(key)?;
        self.stack(&record)?.detached(read_only || record.kind == Kind::View)
    }

    fn mount_layer(&self, chain_id: &Digest) -> Result<OwnedFd> {
        let record = self.records.layer(chain_id)?;
        let mut lowers = vec![self.fs(record.number)];
        lowers.extend(self.lowers(&record)?);
        Stack { upper: None, work: PathBuf::new(), lowers }.detached(true)
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        measure(open_directory(&self.fs(self.records.get(key)?.number))?)
    }

    fn layer_usage(&self, chain_id: &Digest) -> Result<Usage> {
        self.usage(&chain_id.to_string())
    }

    fn data(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let record = self.records.get(key)?;
        let text = |path: PathBuf| path.display().to_string();
        let directory = self.records.directory(record.number);
        let mut data = BTreeMap::from([
            ("UpperDir".to_owned(), text(directory.join("fs"))),
            ("WorkDir".to_owned(), text(directory.join("work"))),
        ]);
        let lowers: Vec<String> = self.lowers(&record)?.into_iter().map(text).collect();
        if !lowers.is_empty() {
            data.insert("LowerDir".into(), lowers.join(":"));
        }
        Ok(data)
    }

    fn layer_data(&self, chain_id: &Digest) -> Result<BTreeMap<String, String>> {
        self.data(&chain_id.to_string())
    }

    fn list(&self) -> Result<Vec<Info>> {
        Ok(self.records.list()?.into_iter().map(|(info, _)| info).collect())
    }

    fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        self.records.check(repair)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    struct Fixture {
        _directory: tempfile::TempDir,
        root: PathBuf,
        store: Store,
        overlay: Overlay,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("overlayfs");
        let store = Store::open(&directory.path().join("meta.db")).unwrap();
        let overlay = Overlay::open(&root, &store).unwrap();
        Fixture { _directory: directory, root, store, overlay }
    }

    fn layer(overlay: &Overlay, name: &str, parent: Option<&Digest>) -> Digest {
        let staged = overlay.stage(name).unwrap();
        fs::write(staged.path.join(name), name).unwrap();
        let chain_id = Digest::of(name.as_bytes());
        overlay.commit_layer(name, &chain_id, parent).unwrap();
        chain_id
    }

    fn names(root: &OwnedFd) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(format!("/proc/self/fd/{}", root.as_raw_fd()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_snapshot_shows_its_layers_and_keeps_its_changes() {
        let Fixture { overlay, _directory, .. } = fixture();
        let low = layer(&overlay, "low", None);
        let high = layer(&overlay, "high", Some(&low));
        let mounts = overlay.prepare("one", Some(&high)).unwrap();
        assert_eq!(mounts[0].kind, "overlay");
        let mounted = overlay.mount_detached("one", false).unwrap();
        assert_eq!(names(&mounted), ["high", "low"]);
        fs::write(format!("/proc/self/fd/{}/made", mounted.as_raw_fd()), "x").unwrap();
        drop(mounted);
        assert_eq!(names(&overlay.changes("one").unwrap().upper), ["made"]);
        assert_eq!(names(&overlay.mount_detached("one", true).unwrap()), ["high", "low", "made"]);
        assert_eq!(names(&overlay.mount_layer(&low).unwrap()), ["low"]);
        assert!(overlay.usage("one").unwrap().inodes == 2);
        let layer = overlay.mount_layer(&high).unwrap();
        assert!(fs::write(format!("/proc/self/fd/{}/x", layer.as_raw_fd()), "x").is_err());
    }

    #[test]
    fn a_layer_in_use_is_not_removed() {
        let Fixture { overlay, root, _directory, .. } = fixture();
        let low = layer(&overlay, "low", None);
        let high = layer(&overlay, "high", Some(&low));
        overlay.prepare("one", Some(&high)).unwrap();
        assert!(overlay.remove_layer(&low).is_err() && overlay.remove_layer(&high).is_err());
        assert!(overlay.prepare("one", None).is_err(), "a key is used once");
        overlay.remove("one").unwrap();
        overlay.remove("one").unwrap();
        overlay.remove_layer(&high).unwrap();
        overlay.remove_layer(&low).unwrap();
        assert_eq!((overlay.list().unwrap(), fs::read_dir(root).unwrap().count()), (vec![], 0));
    }

    #[test]
    fn the_same_layer_twice_is_one() {
        let Fixture { overlay, root, _directory, .. } = fixture();
        let first = layer(&overlay, "low", None);
        assert_eq!(layer(&overlay, "low", None), first);
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
        assert!(
            overlay.has_layer(&first).unwrap() && !overlay.has_layer(&Digest::of(b"")).unwrap()
        );
    }

    #[test]
    fn what_a_killed_manager_has_left_is_removed() {
        let Fixture { overlay, root, store, _directory } = fixture();
        let low = layer(&overlay, "low", None);
        overlay.stage("half").unwrap();
        fs::create_dir(root.join("77")).unwrap();
        fs::create_dir(root.join("trash-5")).unwrap();
        let again = Overlay::open(&root, &store).unwrap();
        assert!(again.has_layer(&low).unwrap());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
        fs::remove_dir_all(again.fs(1)).unwrap();
        assert_eq!(again.check(true).unwrap().len(), 1);
    }

    #[test]
    fn a_hundred_layers_are_mounted() {
        let Fixture { overlay, _directory, .. } = fixture();
        let mut below = None;
        for number in 0..100 {
            below = Some(layer(&overlay, &format!("l{number}"), below.as_ref()));
        }
        overlay.prepare("one", below.as_ref()).unwrap();
        assert_eq!(names(&overlay.mount_detached("one", false).unwrap()).len(), 100);
    }

    #[test]
    fn the_roots_mode_is_the_images() {
        let Fixture { overlay, _directory, .. } = fixture();
        let staged = overlay.stage("low").unwrap();
        fs::set_permissions(&staged.path, fs::Permissions::from_mode(0o700)).unwrap();
        let chain_id = Digest::of(b"low");
        overlay.commit_layer("low", &chain_id, None).unwrap();
        overlay.prepare("one", Some(&chain_id)).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let root = overlay.mount_detached("one", true).unwrap();
        assert_eq!(
            fs::metadata(format!("/proc/self/fd/{}", root.as_raw_fd())).unwrap().mode() & 0o7777,
            0o700
        );
    }

    #[test]
    fn overlayfs_works_here() {
        let directory = tempfile::tempdir().unwrap();
        probe(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
