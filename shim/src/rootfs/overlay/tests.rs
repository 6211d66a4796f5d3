use std::{
    fs::{self, File},
    os::fd::AsFd,
};

use super::*;
use crate::{mountinfo::tests::in_own_mounts, rootfs::unmount_all};

const PLAIN: Classic = Classic {
    attributes: Attributes::NONE,
    remount: false,
    inode_version: false,
    synchronous: false,
    synchronous_directories: false,
    mandatory_locks: false,
    lazy_time: false,
};

#[test]
fn layers_are_named_from_the_directory_that_holds_them_all() {
    for (data, dir, short) in [
        (
            "index=off,workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=/s/2/fs:/s/1/fs,userxattr",
            "/s",
            "index=off,workdir=/s/9/work,upperdir=/s/9/fs,lowerdir=2/fs:1/fs,userxattr",
        ),
        ("lowerdir=/a/b/1:/a/b/12", "/a/b", "lowerdir=1:12"),
        ("lowerdir=/a/b/c:/a/d", "/a", "lowerdir=b/c:d"),
        ("lowerdir=/a:/b", "/", "lowerdir=a:b"),
        ("lowerdir=/only/one", "/only", "lowerdir=one"),
    ] {
        assert_eq!(short_names(data), Some((dir.into(), short.to_owned())), "{data}");
    }
}

#[test]
fn names_that_would_mean_something_else_stay() {
    for data in [
        "upperdir=/a",
        "lowerdir=a:b",
        "lowerdir=/a/b:/a",
        "lowerdir=/a/1::/a/2",
        r"lowerdir=/a/1\:2:/a/3",
        "lowerdir=/a/1:/a/2,upperdir=up,workdir=/w",
        "lowerdir=/a/1:/a/2,context=\"x,y\"",
        &format!("lowerdir=/a/{}:/a/b", "x".repeat(DATA_LIMIT_BYTES)),
    ] {
        assert_eq!(short_names(data), None, "{data}");
    }
}

#[test]
fn layers_are_given_one_by_one() {
    let data = "index=off,userxattr,lowerdir=/s/2:/s/1,upperdir=/u,workdir=/w,";
    assert_eq!(
        one_by_one(PLAIN, data).unwrap(),
        [
            ("index", Some("off")),
            ("userxattr", None),
            ("lowerdir+", Some("/s/2")),
            ("lowerdir+", Some("/s/1")),
            ("upperdir", Some("/u")),
            ("workdir", Some("/w")),
        ]
    );
    assert!(one_by_one(Classic { synchronous: true, ..PLAIN }, data).is_none());
    for data in [
        r"lowerdir=/a\:b:/c",
        "lowerdir=/a,context=\"x,y\"",
        "lowerdir=/a::/b",
        &format!("lowerdir=/{}:/b", "x".repeat(VALUE_LIMIT_BYTES)),
    ] {
        assert!(one_by_one(PLAIN, data).is_none(), "{data}");
    }
}

/// `count` layers, each with a file of its own name, the first on top; an upper directory.
struct Layers {
    dir: tempfile::TempDir,
    data: String,
}

impl Layers {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // As long as containerd's own.
        let root = dir.path().join("io.containerd.snapshotter.v1.overlayfs").join("snapshots");
        let root = root.display().to_string();
        let names: Vec<_> = (0..count).map(|n| format!("{root}/layer-{n}/fs")).collect();
        for (n, name) in names.iter().enumerate() {
            fs::create_dir_all(name).unwrap();
            fs::write(format!("{name}/file-{n}"), "").unwrap();
            fs::write(format!("{name}/top"), n.to_string()).unwrap();
        }
        for name in ["upper", "work", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let [upper, work] = ["upper", "work"].map(|name| dir.path().join(name));
        let (upper, work) = (upper.display(), work.display());
        let data = format!("upperdir={upper},workdir={work},lowerdir={}", names.join(":"));
        Self { dir, data }
    }

    fn merged(&self) -> PathBuf {
        self.dir.path().join("merged")
    }

    fn check(&self, count: usize) {
        let merged = self.merged();
        assert_eq!(fs::read_to_string(merged.join("top")).unwrap(), "0");
        assert_eq!(fs::read_dir(&merged).unwrap().count(), count + 1);
        fs::write(merged.join("new"), "").unwrap();
        assert!(self.dir.path().join("upper/new").exists());
    }
}

impl Drop for Layers {
    /// With a mount in it the directory would stay.
    fn drop(&mut self) {
        let _ = unmount_all(self.dir.path());
    }
}

#[test]
fn an_overlay_of_many_layers_is_mounted() {
    in_own_mounts(|| {
        let layers = Layers::new(400);
        assert!(layers.data.len() > 2 * DATA_LIMIT_BYTES && short_names(&layers.data).is_none());
        let target = File::open(layers.merged()).unwrap();
        match mount("overlay", target.as_fd(), PLAIN, &layers.data) {
            // Kernels before 6.7 cannot.
            Err(error) => assert!(format!("{error:#}").contains("invalid argument"), "{error:#}"),
            Ok(()) => layers.check(400),
        }
    });
}

#[test]
fn an_overlay_of_short_names_is_mounted_on_every_kernel() {
    in_own_mounts(|| {
        let layers = Layers::new(120);
        assert!(layers.data.len() > DATA_LIMIT_BYTES);
        let before = std::env::current_dir().unwrap();
        let target = File::open(layers.merged()).unwrap();
        let (dir, data) = short_names(&layers.data).unwrap();
        mount_from(&dir, "overlay", target.as_fd(), PLAIN, &data).unwrap();
        layers.check(120);
        // The threads of this program share no directory with the one in its own namespace.
        assert_eq!(std::env::current_dir().unwrap(), before);
    });
}

#[test]
fn a_failing_mount_returns_to_the_working_directory() {
    in_own_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let before = std::env::current_dir().unwrap();
        let target = File::open(dir.path()).unwrap();
        let error = mount_from(dir.path(), "x", target.as_fd(), PLAIN, "lowerdir=no").unwrap_err();
        assert!(error.to_string().ends_with("no such file or directory"), "{error}");
        assert_eq!(std::env::current_dir().unwrap(), before);
    });
}
