//! Snapshots on overlayfs: a layer is a directory, a container's root is a mount of all of them.
//!
//! `ROOT/NUMBER/fs` is what the layer or snapshot adds, `ROOT/NUMBER/work` the kernel's own.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use hull_manager_archive::{OPAQUE_ATTRIBUTE, worker::Changed};
use hull_manager_core::{Error, Result, Store, error::IoContext as _};
use hull_runtime_sys::{
    fd::is_unwritable,
    mount::{Attributes, Context, VALUE_LIMIT_BYTES},
    path::set_attribute,
};
use hull_specs_image::Digest;

use crate::{
    Changes, Finding, Info, Kind, Mount, Snapshotter, Staged, Usage,
    directory::{bind, detached, make, open},
    gone,
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
            .map(|below| fs::metadata(self.fs(below.number)).map_err(|cause| gone(parent, cause)))
            .transpose()?;
        let record = self.records.insert(key, kind, parent, |directory| {
            make(directory, 0o711)?;
            make(&directory.join("fs"), 0o755)?;
            make(&directory.join("work"), 0o700)?;
            if let Some(root) = &root {
                let fs_dir = directory.join("fs");
                chown(&fs_dir, Some(root.uid()), Some(root.gid())).about(fs_dir.display())?;
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
            (Some(upper), []) => vec![bind(upper, false)],
            (None, [single]) => vec![bind(single, true)],
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
            return detached(single, read_only);
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
        let mounted = context.mount(attributes).map_err(internal)?;
        // Where the kernel can't make its own directory in `work`, it mounts read-only and says
        // nothing: mostly the disk is full.
        if upper.is_some() && is_unwritable(&mounted).map_err(internal)? {
            let place = self.work.join("room");
            fs::create_dir(&place).and_then(|()| fs::remove_dir(&place)).about(place.display())?;
            return Err(Error::unavailable("the kernel mounts the overlay read-only"));
        }
        Ok(mounted)
    }
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
        // Without such attributes it mounts, and can't hide directories.
        set_attribute(open(&upper)?, OPAQUE_ATTRIBUTE, b"y").map_err(anyhow::Error::new)?;
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
        Ok(Staged { dir: open(&path)?, path })
    }

    fn commit_layer(&self, key: &str, chain_id: &Digest, parent: Option<&Digest>) -> Result<()> {
        if self.records.commit(key, chain_id, parent, |_, _| Ok(()))? {
            return Ok(());
        }
        self.remove(key)
    }

    fn has_layer(&self, chain_id: &Digest) -> Result<bool> {
        self.records.has_layer(chain_id)
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
        let lowers = self.lowers(&record)?;
        let below = Stack { upper: None, work: PathBuf::new(), lowers };
        Ok(Changes {
            root: open(&self.fs(record.number))?,
            below: record.parent.map(|_| below.detached(true)).transpose()?,
            form: Changed::Upper,
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
        measure(open(&self.fs(self.records.get(key)?.number))?)
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
