use std::{
    fs::File,
    os::unix::fs::symlink,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use hull_runtime_sys::mount::Classic;

use super::*;
use crate::mountinfo::tests::in_own_mounts;

/// Makes mounts of which none runs a program.
fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    futures_executor::block_on(super::mount_all(mounts, rootfs))
}

fn described(kind: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    Mount {
        type_: kind.into(),
        source: source.into(),
        target: target.into(),
        options: options.iter().map(|word| (*word).to_owned()).collect(),
        ..Mount::default()
    }
}

#[test]
fn each_mount_comes_down_to_one_plan() {
    let read_only = Classic { attributes: Attributes::READ_ONLY, ..Classic::default() };
    for (mount, expected) in [
        (
            described("bind", "/a", "", &["rbind", "ro"]),
            Plan::Bind {
                recursive: true,
                attributes: Attributes::READ_ONLY,
                id_map: IdMap::default(),
            },
        ),
        (
            described("any", "/a", "", &["bind", "rw"]),
            Plan::Bind { recursive: false, attributes: Attributes::NONE, id_map: IdMap::default() },
        ),
        (
            described("overlay", "overlay", "", &["ro", "lowerdir=/a:/b", "index=off"]),
            Plan::FileSystem {
                options: Options {
                    how: read_only,
                    data: vec!["lowerdir=/a:/b".into(), "index=off".into()],
                    ..Options::default()
                },
                data: "lowerdir=/a:/b,index=off".into(),
            },
        ),
        (
            described("fuse3.fuse-overlayfs", "overlay", "x", &["lowerdir=/a", "ro"]),
            Plan::Helper {
                program: "mount.fuse3",
                words: ["overlay", "-o", "lowerdir=/a", "-o", "ro", "-t", "fuse-overlayfs"]
                    .map(str::to_owned)
                    .to_vec(),
            },
        ),
    ] {
        assert_eq!(plan(&mount).unwrap(), expected);
    }
}

#[test]
fn what_cannot_be_mounted_is_said_before_anything_is_done() {
    let long = format!("x={}", "y".repeat(DATA_LIMIT_BYTES));
    for (mount, text) in [
        (
            described("bind", "/a", "", &["bind", "size=5"]),
            "a bind mount does not take the option \"size=5\"",
        ),
        (
            described("tmpfs", "tmpfs", "", &[&long]),
            "mount options are too long: 4097 bytes of 4095",
        ),
        (
            described("ext4", "/dev/x", "", &["X-containerd.y"]),
            "internal mount option \"X-containerd.y\" was not consumed by the mount manager",
        ),
    ] {
        assert_eq!(plan(&mount).unwrap_err().to_string(), text);
    }
}

/// A directory with a root file system to be, and directories beside it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rootfs", "lower/sub", "upper", "work", "outside"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    fn overlay(&self) -> Mount {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| self.text(name));
        let words =
            [format!("workdir={work}"), format!("upperdir={upper}"), format!("lowerdir={lower}")];
        described("overlay", "overlay", "", &words.each_ref().map(String::as_str))
    }

    /// The places beneath this directory at which something is mounted, with its type.
    fn mounted(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let dir = self.path("");
        mountinfo::each(|mount| {
            if let Ok(below) = mount.point.strip_prefix(&dir) {
                found.push((below.to_str().unwrap().to_owned(), mount.kind));
            }
        })
        .unwrap();
        found.sort();
        found
    }
}

impl Drop for Place {
    /// With a mount in it the directory would stay.
    fn drop(&mut self) {
        let _ = unmount_all(self.0.path());
    }
}

fn tmpfs(target: &str) -> Mount {
    described("tmpfs", "tmpfs", target, &["size=64k", "nosuid"])
}

#[test]
fn an_overlay_is_mounted_and_unmounted() {
    in_own_mounts(|| {
        let place = Place::new();
        fs::write(place.path("lower/file"), "below").unwrap();
        mount_all(&[place.overlay()], &place.rootfs()).unwrap();
        assert_eq!(fs::read_to_string(place.path("rootfs/file")).unwrap(), "below");
        fs::write(place.path("rootfs/file"), "above").unwrap();
        assert_eq!(fs::read_to_string(place.path("upper/file")).unwrap(), "above");
        unmount_all(&place.rootfs()).unwrap();
        assert!(place.mounted().is_empty());
        unmount_all(&place.rootfs()).unwrap();
    });
}

/// The kernel mounts it read-only, and says that this is well.
#[test]
fn an_overlay_for_which_there_is_no_room_is_refused() {
    in_own_mounts(|| {
        let place = Place::new();
        let full = place.path("full");
        fs::create_dir(&full).unwrap();
        let tmpfs = described("tmpfs", "tmpfs", "", &["nr_inodes=7"]);
        mount_all(&[tmpfs], &full).unwrap();
        for name in ["upper", "work", "a", "b", "c", "d"] {
            fs::create_dir(full.join(name)).unwrap();
        }
        let options = [
            format!("lowerdir={}", place.text("lower")),
            format!("upperdir={}", full.join("upper").display()),
            format!("workdir={}", full.join("work").display()),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let overlay = described("overlay", "overlay", "", &options);
        let error = mount_all(std::slice::from_ref(&overlay), &place.rootfs()).unwrap_err();
        assert!(format!("{error:#}").contains("No space left on device"), "{error:#}");
        assert!(unmount_only(&place.rootfs()), "nothing is mounted");
        for name in ["a", "b", "c", "d"] {
            fs::remove_dir(full.join(name)).unwrap();
        }
        mount_all(&[overlay], &place.rootfs()).unwrap();
        fs::write(place.path("rootfs/file"), "").unwrap();
        unmount_all(&place.rootfs()).unwrap();
        unmount_all(&full).unwrap();
    });
}

#[test]
fn files_have_the_ids_of_the_map() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    in_own_mounts(|| {
        for kind in ["overlay", "bind"] {
            let place = Place::new();
            fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(place.path("lower/file"), "below").unwrap();
            chown(place.path("lower/file"), Some(7), Some(8)).unwrap();
            let mut mount = match kind {
                "overlay" => place.overlay(),
                _ => described("bind", &place.text("lower"), "", &["rbind", "rw"]),
            };
            let map = ["uidmap=0:100000:1000", "gidmap=0:200000:1000"];
            mount.options.extend(map.map(str::to_owned));
            mount_all(&[mount], &place.rootfs()).unwrap();
            let ids = |name: &str| {
                let found = fs::metadata(place.path(name)).unwrap();
                (found.uid(), found.gid())
            };
            assert_eq!(ids("rootfs/file"), (100_007, 200_008), "{kind}");
            let made = Command::new("setpriv")
                .args(["--reuid=100000", "--regid=200000", "--clear-groups", "touch"])
                .arg(place.path("rootfs/made"))
                .status()
                .unwrap();
            assert!(made.success(), "{kind}");
            let above = if kind == "overlay" { "upper/made" } else { "lower/made" };
            assert_eq!((ids(above), ids("lower/file")), ((0, 0), (7, 8)), "{kind}");
            unmount_all(&place.rootfs()).unwrap();
            assert!(place.mounted().is_empty());
        }
    });
}

#[test]
fn no_mounts_are_no_work() {
    let place = Place::new();
    mount_all(&[], &place.path("not there")).unwrap();
    unmount_all(&place.path("not there")).unwrap();
    unmount_all(&place.path("not/there")).unwrap();
    unmount_all(&place.rootfs()).unwrap();
}

#[test]
fn a_read_only_bind_does_not_change_its_source() {
    in_own_mounts(|| {
        let place = Place::new();
        let source = place.text("lower");
        let mounts = [described("bind", &source, "", &["rbind", "ro", "nosuid", "noatime"])];
        mount_all(&mounts, &place.rootfs()).unwrap();
        let error = fs::write(place.path("rootfs/file"), "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        let attributes = Attributes::of(File::open(place.rootfs()).unwrap()).unwrap();
        let wanted = Attributes::READ_ONLY | Attributes::NO_SUID | Attributes::NO_ACCESS_TIME;
        assert!(attributes.contains(wanted), "{attributes:?}");
        fs::write(place.path("lower/file"), "").unwrap();
    });
}

#[test]
fn only_a_recursive_bind_takes_what_is_mounted_below() {
    in_own_mounts(|| {
        for (word, kinds) in [("bind", 1), ("rbind", 2)] {
            let place = Place::new();
            mount_all(&[tmpfs("sub")], &place.path("lower")).unwrap();
            let bind = described("bind", &place.text("lower"), "", &[word]);
            mount_all(&[bind], &place.rootfs()).unwrap();
            let below = place.mounted().iter().filter(|(at, _)| at.starts_with("rootfs")).count();
            assert_eq!(below, kinds, "{word}");
            unmount_all(&place.rootfs()).unwrap();
            assert_eq!(place.mounted(), [("lower/sub".to_owned(), "tmpfs".to_owned())]);
        }
    });
}

#[test]
fn a_later_mount_finds_its_place_in_the_one_before() {
    in_own_mounts(|| {
        let place = Place::new();
        let file = place.text("outside/file");
        fs::write(&file, "shown").unwrap();
        fs::write(place.path("lower/file"), "").unwrap();
        let mounts = [
            place.overlay(),
            tmpfs("/sub"),
            described("bind", &file, "file", &["bind", "ro"]),
            tmpfs(""),
        ];
        mount_all(&mounts[..3], &place.rootfs()).unwrap();
        assert_eq!(fs::read_to_string(place.path("rootfs/file")).unwrap(), "shown");
        mount_all(&mounts[3..], &place.rootfs()).unwrap();
        assert_eq!(fs::read_dir(place.rootfs()).unwrap().count(), 0);
        // What is covered is unmounted too, though its path leads elsewhere by now.
        unmount_all(&place.rootfs()).unwrap();
        assert!(place.mounted().is_empty(), "{:?}", place.mounted());
    });
}

#[test]
fn a_link_in_the_image_does_not_lead_out() {
    in_own_mounts(|| {
        let place = Place::new();
        symlink(place.path("outside"), place.path("lower/absolute")).unwrap();
        symlink("../outside", place.path("lower/relative")).unwrap();
        for name in ["absolute", "relative", "../outside"] {
            let mounts = [place.overlay(), tmpfs(name)];
            assert!(mount_all(&mounts, &place.rootfs()).is_err(), "{name}");
            assert!(place.mounted().is_empty(), "{name}");
        }
    });
}

#[test]
fn a_failing_mount_undoes_those_before_it() {
    in_own_mounts(|| {
        let place = Place::new();
        for bad in [
            described("tmpfs", "tmpfs", "not/there", &[]),
            described("no-such-fs", "x", "", &[]),
            described("overlay", "overlay", "", &["lowerdir=/not/there"]),
            described("bind", "/not/there", "", &["bind"]),
            described("ext4", "/x", "", &["remount"]),
            described("ext4", "/x", "", &["loop"]),
        ] {
            let error = mount_all(&[tmpfs(""), bad], &place.rootfs()).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.starts_with(&place.text("rootfs")), "{text}");
            assert!(place.mounted().is_empty(), "{text}");
        }
    });
}

#[test]
fn a_link_in_place_of_the_root_file_system_is_not_followed() {
    in_own_mounts(|| {
        let place = Place::new();
        mount_all(&[tmpfs("")], &place.path("outside")).unwrap();
        let link = place.path("link");
        symlink("outside", &link).unwrap();
        unmount_all(&link).unwrap();
        assert_eq!(place.mounted(), [("outside".to_owned(), "tmpfs".to_owned())]);
        assert!(mount_all(&[tmpfs("")], &link).is_err());
        // A link on the way there is the host's, and followed.
        symlink(".", place.path("way")).unwrap();
        unmount_all(&place.path("way/outside")).unwrap();
        assert!(place.mounted().is_empty());
    });
}

#[test]
fn neighbours_with_a_longer_name_stay() {
    in_own_mounts(|| {
        let place = Place::new();
        fs::create_dir(place.path("rootfs2")).unwrap();
        mount_all(&[tmpfs("")], &place.path("rootfs2")).unwrap();
        unmount_all(&place.rootfs()).unwrap();
        assert_eq!(place.mounted().len(), 1);
    });
}

#[test]
fn stacked_and_busy_mounts_go_at_once() {
    in_own_mounts(|| {
        let place = Place::new();
        let rootfs = place.rootfs();
        mount_all(&[tmpfs(""), tmpfs(""), tmpfs("")], &rootfs).unwrap();
        fs::create_dir(place.path("rootfs/a b\\c")).unwrap();
        mount_all(&[tmpfs("a b\\c")], &rootfs).unwrap();
        assert_eq!(place.mounted().len(), 4);
        let _used = File::create(place.path("rootfs/a b\\c/file")).unwrap();
        let start = Instant::now();
        unmount_all(&rootfs).unwrap();
        assert!(place.mounted().is_empty(), "{:?}", place.mounted());
        assert!(start.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn a_file_is_mounted_by_a_loop_device_that_goes_with_the_mount() {
    in_own_mounts(|| {
        let place = Place::new();
        let image = place.text("image");
        File::create(&image).unwrap().set_len(4 << 20).unwrap();
        match Command::new("mkfs.ext4").args(["-q", &image]).status() {
            Ok(status) => assert!(status.success()),
            Err(_) => return eprintln!("skipped: needs mkfs.ext4"),
        }
        for (words, writable) in [(&["loop"][..], true), (&["loop", "ro"], false)] {
            mount_all(&[described("ext4", &image, "", words)], &place.rootfs()).unwrap();
            let write = fs::write(place.path("rootfs/file"), "");
            assert_eq!(write.is_ok(), writable, "{words:?}");
            assert!(place.path("rootfs/file").exists(), "what the first one wrote");
            unmount_all(&place.rootfs()).unwrap();
            // The kernel frees the device when it gets to it.
            let shown = || {
                let devices = fs::read_dir("/sys/block").unwrap();
                devices.filter_map(|device| {
                    fs::read_to_string(device.ok()?.path().join("loop/backing_file")).ok()
                })
            };
            let end = Instant::now() + Duration::from_secs(10);
            while shown().any(|file| file.trim_end() == image) {
                assert!(Instant::now() < end, "{words:?}");
                sleep(Duration::from_millis(5));
            }
        }
    });
}
