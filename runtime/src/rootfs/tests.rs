//! Plans against tables, and applies for real: each of the latter runs this test program
//! again, alone, in a mount namespace that ends with it.

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use hull_runtime_sys::{fd::openat, namespace, path::stat, process::set_umask};
use serde_json::{Value, json};

use hull_specs_oci as oci;

use super::*;
use crate::rootfs::{
    plan::{Entry, Start},
    steps::Bind,
};

fn spec(change: impl FnOnce(&mut Value)) -> oci::Spec {
    let mut spec = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        ],
        "linux": {"namespaces": [{"type": "mount"}]},
    });
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

fn mount(value: Value) -> impl FnOnce(&mut Value) {
    move |spec| spec["mounts"] = json!([value])
}

fn planned(spec: &oci::Spec) -> Result<Plan> {
    plan(spec, Path::new("/bundle"), Facts::default())
}

fn first(value: Value) -> Result<Step> {
    planned(&spec(mount(value))).map(|mut plan| plan.steps.remove(0))
}

fn first_bind(value: Value) -> Bind {
    match first(value).unwrap() {
        Step::Bind(bind) => bind,
        other => panic!("not a bind mount: {other:?}"),
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (value, message) in [
        (json!({"destination": "/x", "type": "bind", "source": "/s"}), "needs the option bind"),
        (json!({"destination": "/x"}), "neither a type nor"),
        (json!({"destination": "/x", "options": ["bind"]}), "needs a source"),
        (json!({"destination": "", "type": "tmpfs"}), "no destination"),
        (json!({"destination": "/../.", "type": "tmpfs"}), "over the container's root"),
        (json!({"destination": "/x\u{0}", "type": "tmpfs"}), "null byte"),
        (
            json!({"destination": "/x", "source": "/s", "options": ["rbind", "size=1k"]}),
            "filesystem-specific options applied (found size=1k)",
        ),
        (
            json!({"destination": "/x", "type": "proc", "options": ["tmpcopyup"]}),
            "for tmpfs mounts",
        ),
        (json!({"destination": "/x", "type": "tmpfs", "options": ["idmap"]}), "for bind-mounts"),
        (
            json!({"destination": "/x", "source": "/s", "options": ["bind", "idmap"]}),
            "both uid and gid mappings",
        ),
        (
            json!({"destination": "/x", "source": "/s", "options": ["bind"],
                   "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "both uid and gid mappings",
        ),
    ] {
        let error = format!("{:#}", first(value.clone()).unwrap_err());
        assert!(error.contains(message), "{value}: {error}");
    }
}

#[test]
fn sources_are_relative_to_the_bundle_and_destinations_to_the_root() {
    let bind = first_bind(json!({"destination": "a/../b", "source": "data", "options": ["rbind"]}));
    assert_eq!(bind.source, Path::new("/bundle/data"));
    assert_eq!(bind.destination, Path::new("b"));
    assert!(bind.recursive && bind.change.is_empty());
    let spec = spec(mount(json!({"destination": "b", "type": "tmpfs"})));
    let plan = planned(&spec).unwrap();
    assert_eq!(plan.root, Path::new("/bundle/rootfs"));
    assert!(plan.warnings.iter().any(|w| w.contains("destination b is not absolute")));
}

#[test]
fn a_read_only_tmpfs_waits_until_everything_is_in_place() {
    for (value, late) in [
        (json!({"destination": "/x", "type": "tmpfs", "options": ["ro"]}), true),
        (json!({"destination": "/dev/", "type": "devtmpfs", "options": ["ro"]}), true),
        (json!({"destination": "/x", "type": "sysfs", "options": ["ro"]}), false),
        (json!({"destination": "/x", "type": "tmpfs"}), false),
    ] {
        let Step::FileSystem(fs) = first(value.clone()).unwrap() else { panic!("{value}") };
        assert_eq!(fs.read_only_late, late, "{value}");
    }
}

#[test]
fn parameters_are_split_at_commas_that_are_not_escaped() {
    for (kind, words, expected) in [
        ("tmpfs", vec!["size=1k,mode=755", "inode64"], vec!["size=1k", "mode=755", "inode64"]),
        ("overlay", vec![r"lowerdir=/a\,b:/c,volatile"], vec![r"lowerdir=/a\,b:/c", "volatile"]),
        ("tmpfs", vec![",,"], vec![]),
    ] {
        let value = json!({"destination": "/x", "type": kind, "options": words});
        let Step::FileSystem(fs) = first(value).unwrap() else { panic!("{kind}") };
        let texts: Vec<String> = fs
            .parameters
            .iter()
            .map(|p| match &p.value {
                Some(value) => format!("{}={value}", p.key),
                None => p.key.clone(),
            })
            .collect();
        assert_eq!(texts, expected);
    }
}

#[test]
fn propagation_never_leaves_a_shared_mount_to_pivot_on() {
    let pivot = |old_root_shared, propagation| Entry::Pivot { old_root_shared, propagation };
    let own = |namespace, parent_may_be_shared, root| Start::OwnNamespace {
        namespace,
        parent_may_be_shared,
        root,
    };
    use Propagation::{Private, Shared, Slave, Unbindable};
    for (word, start, entry) in [
        ("", own((Slave, true), false, Private), pivot(false, None)),
        ("rslave", own((Slave, true), false, Slave), pivot(false, None)),
        ("slave", own((Slave, false), true, Slave), pivot(true, None)),
        ("rprivate", own((Private, true), false, Private), pivot(false, None)),
        ("private", own((Private, false), true, Private), pivot(true, None)),
        ("shared", own((Shared, false), true, Private), pivot(true, Some((Shared, false)))),
        ("rshared", own((Shared, true), true, Private), pivot(true, Some((Shared, true)))),
        ("unbindable", own((Slave, true), false, Private), pivot(false, Some((Unbindable, false)))),
    ] {
        let plan = planned(&spec(|s| s["linux"]["rootfsPropagation"] = json!(word))).unwrap();
        assert_eq!((plan.start, plan.entry), (start, entry), "{word}");
    }
    let error = planned(&spec(|s| s["linux"]["rootfsPropagation"] = json!("ro"))).unwrap_err();
    assert_eq!(error.to_string(), "rootfsPropagation=ro is not supported");
    let facts = Facts { no_pivot: true, ..Facts::default() };
    let private = spec(|s| s["linux"]["rootfsPropagation"] = json!("rprivate"));
    let error = plan(&private, Path::new("/b"), facts).unwrap_err();
    assert!(error.to_string().contains("not safe without pivot_root"));
}

#[test]
fn without_a_mount_namespace_nothing_can_be_restricted() {
    for change in [
        json!({"namespaces": [], "maskedPaths": ["/proc/kcore"]}),
        json!({"namespaces": [], "readonlyPaths": ["/proc/sys"]}),
        json!({"namespaces": [], "rootfsPropagation": "slave"}),
    ] {
        assert!(planned(&spec(|s| s["linux"] = change.clone())).is_err(), "{change}");
    }
    let plan = planned(&spec(|s| s["linux"] = json!({}))).unwrap();
    assert_eq!((plan.start, plan.entry), (Start::HostNamespace, Entry::Chroot));
    assert!(plan.warnings.iter().any(|w| w.contains("no mount namespace")));
}

#[test]
fn id_mappings_come_from_the_mount_or_the_container() {
    let ids = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let mapping = |linux: Value, mount: Value| {
        let spec = spec(|s| {
            s["mounts"] = json!([mount]);
            s["linux"] = linux;
        });
        let Step::Bind(bind) = planned(&spec).unwrap().steps.remove(0) else { panic!() };
        bind.id_map.unwrap()
    };
    let plain = json!({"destination": "/x", "source": "/s", "options": ["rbind", "ridmap"]});
    let own = json!({"namespaces": [{"type": "mount"}, {"type": "user"}],
                     "uidMappings": ids, "gidMappings": ids});
    assert!(matches!(mapping(own, plain.clone()).mapping, steps::Mapping::Ids { uids, .. }
                     if uids[0].host_id == 1000));
    let joined = json!({"namespaces": [{"type": "mount"}, {"type": "user", "path": "/ns"}]});
    assert_eq!(
        mapping(joined.clone(), plain),
        steps::IdMap { recursive: true, mapping: steps::Mapping::Namespace("/ns".into()) }
    );
    let explicit = json!({"destination": "/x", "source": "/s", "options": ["rbind"],
                          "uidMappings": ids, "gidMappings": ids});
    let map = mapping(joined, explicit);
    assert!(!map.recursive && matches!(map.mapping, steps::Mapping::Ids { .. }));
}

#[test]
fn configured_devices_replace_the_defaults_of_their_path() {
    let plan = planned(&spec(|s| {
        s["linux"]["devices"] = json!([
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7},
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
            {"path": "/run/pipe", "type": "p"},
        ]);
    }))
    .unwrap();
    let Some(Step::Dev(dev)) = plan.steps.last() else { panic!("no /dev") };
    let null: Vec<_> = dev.devices.iter().filter(|d| d.path == Path::new("dev/null")).collect();
    assert_eq!(null.len(), 1);
    assert_eq!((null[0].mode, null[0].uid), (libc::S_IFCHR | 0o600, 7));
    assert!(!dev.devices.iter().any(|d| d.path == Path::new("dev/ptmx")));
    assert_eq!(dev.devices.len(), 7);
    for device in [
        json!({"path": "/dev/x", "type": "z"}),
        json!({"path": "/dev/x", "type": "c", "major": -1, "minor": 0}),
        json!({"path": "/", "type": "p"}),
    ] {
        let spec = spec(|s| s["linux"]["devices"] = json!([device]));
        assert!(planned(&spec).is_err(), "{device}");
    }
}

#[test]
fn a_dev_from_the_host_is_left_alone() {
    let value = json!({"destination": "/dev/.", "source": "/dev", "options": ["rbind"]});
    let plan = planned(&spec(mount(value))).unwrap();
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Dev(_))));
}

#[test]
fn the_plan_can_be_told() {
    let plan = planned(&spec(|s| {
        s["root"]["readonly"] = json!(true);
        s["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
        let bind =
            json!({"destination": "/data", "source": "/srv", "options": ["rbind", "ro", "rslave"]});
        s["mounts"].as_array_mut().unwrap().push(bind);
    }))
    .unwrap();
    let text = plan.describe().join("\n");
    for line in [
        "make the namespace's mounts rslave",
        "bind /bundle/rootfs on itself as the root, private",
        "mount tmpfs at /dev (nosuid,strictatime,mode=755,size=65536k)",
        "bind with all below /srv at /data (ro), rslave",
        "pivot into the root and detach the old one",
        "make the root read-only",
        "mask /proc/kcore",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// Set in the program that a test has started.
const INSIDE: &str = "HULL_TEST_IN_MOUNT_NAMESPACE";

/// Runs the test of this name again in a mount namespace of its own; true in there.
fn alone(name: &str) -> bool {
    alone_as(name, r#"exec "$@""#, "")
}

/// As [`alone`], started by a script in the new namespace, with a word for the test.
fn alone_as(name: &str, script: &str, word: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // Who has entered a root cannot tidy up behind itself.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("rootfs::tests::{name}"), "--nocapture", "--test-threads=1"])
        .env(INSIDE, word)
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}");
    false
}

/// A bundle with an empty root, beside a directory that nothing may reach.
struct Bundle(tempfile::TempDir);

impl Bundle {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rootfs", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn root(&self, path: &str) -> PathBuf {
        self.path().join("rootfs").join(path)
    }

    fn outside_is_untouched(&self) {
        assert_eq!(fs::read_dir(self.path().join("outside")).unwrap().count(), 0);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let outside = self.path().join("outside");
        assert!(!table.contains(outside.to_str().unwrap()), "{table}");
    }

    fn plan(&self, spec: &oci::Spec) -> Plan {
        plan(spec, self.path(), Facts { kcore: true, ..Facts::default() }).unwrap()
    }

    fn mount(&self, spec: &oci::Spec) -> Result<(Plan, Root)> {
        set_umask(0o022);
        let plan = self.plan(spec);
        let mut join_cgroup = || panic!("no cgroup mount is planned");
        let context = Context { join_cgroup: &mut join_cgroup, sources: Sources::default() };
        let root = mount_all(&plan, context)?;
        Ok((plan, root))
    }
}

fn options_of(mount_point: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == mount_point.to_str())
        .unwrap_or_else(|| panic!("nothing at {}: {table}", mount_point.display()));
    line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

fn has(mount_point: &Path, word: &str) -> bool {
    options_of(mount_point).iter().any(|option| option == word)
}

#[test]
fn a_whole_container_is_mounted_entered_and_sealed() {
    if !alone("a_whole_container_is_mounted_entered_and_sealed") {
        return;
    }
    let bundle = Bundle::new();
    fs::create_dir(bundle.path().join("data")).unwrap();
    fs::write(bundle.path().join("data/file"), "data").unwrap();
    fs::write(bundle.path().join("hosts"), "hosts").unwrap();
    let spec = spec(|s| {
        s["root"]["readonly"] = json!(true);
        let mounts = s["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
                           "options": ["nosuid", "noexec", "nodev", "ro"]}));
        mounts.push(json!({"destination": "/data", "source": "data", "options": ["rbind", "ro"]}));
        mounts.push(json!({"destination": "etc/hosts", "source": "hosts", "options": ["bind"]}));
        mounts.push(json!({"destination": "/ro", "type": "tmpfs", "options": ["ro", "size=4k"]}));
        s["linux"]["maskedPaths"] = json!([
            "/proc/keys",
            "/proc/scsi",
            "/proc/timer_list",
            "/sys/firmware",
            "/proc/acpi",
            "/proc/missing",
            "/proc/keys"
        ]);
        s["linux"]["readonlyPaths"] = json!(["/proc/sys", "/proc/irq", "/missing"]);
    });
    let (plan, root) = bundle.mount(&spec).unwrap();
    enter(&plan, &root).unwrap();
    seal(&plan, &root).unwrap();

    let shown = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places: Vec<_> = shown.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let outside = |place: &&str| {
        !["/proc", "/dev", "/sys", "/data", "/etc/hosts", "/ro"]
            .iter()
            .any(|known| place.starts_with(known))
    };
    assert_eq!(places.into_iter().filter(outside).collect::<Vec<_>>(), ["/"], "{shown}");
    assert!(fs::write("/new", "").is_err() && has(Path::new("/"), "ro"));
    assert_eq!(fs::read_to_string("/data/file").unwrap(), "data");
    assert!(fs::write("/data/file", "").is_err());
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), "hosts");
    for (path, words) in [
        ("/sys", ["ro", "nosuid", "noexec"]),
        ("/dev/shm", ["rw", "nodev", "noexec"]),
        ("/dev", ["rw", "nosuid", "rw"]),
        ("/ro", ["ro", "relatime", "ro"]),
        ("/proc/sys", ["ro", "relatime", "ro"]),
        ("/proc/irq", ["ro", "relatime", "ro"]),
    ] {
        for word in words {
            assert!(has(Path::new(path), word), "{path} is not {word}");
        }
    }
    for path in ["/proc/keys", "/proc/timer_list"] {
        assert!(fs::metadata(path).unwrap().file_type().is_char_device(), "{path}");
        assert_eq!(fs::read(path).unwrap(), b"", "{path}");
    }
    for path in ["/proc/scsi", "/sys/firmware", "/proc/acpi"] {
        if Path::new(path).exists() {
            assert_eq!(fs::read_dir(path).unwrap().count(), 0, "{path}");
            assert!(has(Path::new(path), "ro") && fs::write(format!("{path}/x"), "").is_err());
        }
    }
    for (name, number) in
        [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("tty", (5, 0))]
    {
        let metadata = fs::symlink_metadata(format!("/dev/{name}")).unwrap();
        assert_eq!(metadata.rdev(), libc::makedev(number.0, number.1), "{name}");
        assert_eq!(metadata.mode(), libc::S_IFCHR | 0o666, "{name}");
    }
    for (name, target) in [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("core", "/proc/kcore")] {
        assert_eq!(fs::read_link(format!("/dev/{name}")).unwrap(), Path::new(target));
    }
    // R8: the console, from a pty of this devpts.
    let ptmx = openat(&root.fd, c"dev/pts/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0).unwrap();
    let (_master, peer, _) = hull_runtime_sys::tty::open_pair(ptmx).unwrap();
    use std::os::fd::AsFd;
    attach_console(&root, peer.as_fd()).unwrap();
    assert_eq!(fs::metadata("/dev/console").unwrap().rdev(), stat(&peer).unwrap().st_rdev);
}

#[test]
fn links_of_the_image_lead_nowhere_outside() {
    if !alone("links_of_the_image_lead_nowhere_outside") {
        return;
    }
    for link in ["/../../outside", "../outside", "../outside/missing"] {
        for place in ["proc", "sys"] {
            let bundle = Bundle::new();
            symlink(link, bundle.root(place)).unwrap();
            let kind = if place == "sys" { "sysfs" } else { "proc" };
            let value = json!({"destination": format!("/{place}"), "type": kind, "source": kind});
            let error = bundle.mount(&spec(mount(value))).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains("must be mounted on ordinary directory"), "{text}");
            bundle.outside_is_untouched();
        }
        let bundle = Bundle::new();
        symlink(link, bundle.root("dev")).unwrap();
        symlink(link, bundle.root("data")).unwrap();
        symlink("/outside", bundle.root("run")).unwrap();
        fs::create_dir(bundle.path().join("source")).unwrap();
        let spec = spec(|s| {
            s["mounts"].as_array_mut().unwrap().push(
                json!({"destination": "/data/deep", "source": "source", "options": ["bind"]}),
            );
            s["linux"]["devices"] = json!([{"path": "/run/pipe", "type": "p"}]);
        });
        let (_, root) = bundle.mount(&spec).unwrap();
        assert!(root.null.is_some());
        bundle.outside_is_untouched();
        let inside = fs::metadata(bundle.root("outside/pipe"));
        assert!(link.ends_with("missing") || inside.unwrap().file_type().is_fifo());
    }
}

#[test]
fn what_hides_proc_is_refused() {
    if !alone("what_hides_proc_is_refused") {
        return;
    }
    let bundle = Bundle::new();
    fs::create_dir(bundle.path().join("source")).unwrap();
    fs::write(bundle.path().join("meminfo"), "lxcfs").unwrap();
    symlink("/proc/self/attr", bundle.root("attr")).unwrap();
    symlink("proc", bundle.root("alias")).unwrap();
    let with = |value: Value| spec(move |s| s["mounts"].as_array_mut().unwrap().push(value));
    for (destination, message) in [
        ("/proc", "not of type proc"),
        ("/alias", "not of type proc"),
        ("/proc/sys", "inside /proc"),
        ("/attr", "inside /proc"),
        ("/alias/sys", "inside /proc"),
    ] {
        let value = json!({"destination": destination, "source": "source", "options": ["bind"]});
        let text = format!("{:#}", bundle.mount(&with(value)).unwrap_err());
        assert!(text.contains(message), "{destination}: {text}");
    }
    let allowed = json!({"destination": "/proc/meminfo", "source": "meminfo", "options": ["bind"]});
    bundle.mount(&with(allowed)).unwrap();
    assert_eq!(fs::read_to_string(bundle.root("proc/meminfo")).unwrap(), "lxcfs");
    let bound = json!({"destination": "/proc", "source": "/proc", "options": ["rbind"]});
    let (_, root) = bundle.mount(&spec(mount(bound))).unwrap();
    assert!(root.warnings.is_empty());
}

#[test]
fn masks_do_not_use_the_null_device_of_the_image() {
    if !alone("masks_do_not_use_the_null_device_of_the_image") {
        return;
    }
    for hostile in ["file", "device", "bound", "replaced"] {
        let bundle = Bundle::new();
        fs::create_dir(bundle.root("dev")).unwrap();
        fs::write(bundle.root("secret"), "secret").unwrap();
        fs::write(bundle.root("other"), "other").unwrap();
        match hostile {
            "file" => fs::write(bundle.root("dev/null"), "hostile").unwrap(),
            "device" => {
                let dev = fs::File::open(bundle.root("dev")).unwrap();
                let zero = libc::makedev(1, 5);
                path::mknod(&dev, c"null", libc::S_IFCHR | 0o666, zero).unwrap();
            }
            "bound" => fs::write(bundle.root("dev/null"), "hostile").unwrap(),
            _ => {}
        }
        let spec = spec(|s| {
            s["mounts"] = if hostile == "bound" {
                let image = bundle.root("dev");
                json!([{"destination": "/dev", "source": image, "options": ["bind"]}])
            } else {
                json!([])
            };
            s["linux"]["maskedPaths"] = json!(["/secret", "/other"]);
        });
        let (plan, root) = bundle.mount(&spec).unwrap();
        if hostile == "replaced" {
            fs::rename(bundle.root("dev/null"), bundle.root("dev/moved")).unwrap();
            fs::write(bundle.root("dev/null"), "hostile").unwrap();
        }
        seal(&plan, &root).unwrap();
        for path in ["secret", "other"] {
            let metadata = fs::metadata(bundle.root(path)).unwrap();
            assert_eq!(metadata.rdev(), libc::makedev(1, 3), "{hostile} {path}");
            assert_eq!(fs::read(bundle.root(path)).unwrap(), b"", "{hostile} {path}");
        }
    }
    // A link is not ours to delete, and cannot be covered.
    let bundle = Bundle::new();
    fs::create_dir(bundle.root("dev")).unwrap();
    symlink("/dev/zero", bundle.root("dev/null")).unwrap();
    let text = format!("{:#}", bundle.mount(&spec(|s| s["mounts"] = json!([]))).unwrap_err());
    assert!(text.contains("symbolic link"), "{text}");
}

#[test]
fn recursive_flags_reach_the_mounts_below() {
    if !alone("recursive_flags_reach_the_mounts_below") {
        return;
    }
    let bundle = Bundle::new();
    let source = bundle.path().join("source");
    fs::create_dir_all(source.join("below")).unwrap();
    let below = file_system::pseudo("tmpfs", "t", &[], mount::Attributes::NONE).unwrap();
    mount::attach(below, fs::File::open(source.join("below")).unwrap()).unwrap();
    for (options, top, below) in [
        (json!(["rbind", "rro"]), "ro", "ro"),
        (json!(["rbind", "ro"]), "ro", "rw"),
        (json!(["rbind", "ro", "rrw"]), "rw", "rw"),
        (json!(["rbind", "rnoexec"]), "noexec", "noexec"),
        (json!(["rbind", "rnoatime"]), "noatime", "noatime"),
        (json!(["rbind", "noatime"]), "noatime", "relatime"),
        (json!(["rbind", "strictatime", "nodiratime"]), "nodiratime", "relatime"),
    ] {
        let value = json!({"destination": "/x", "source": "source", "options": options});
        let (_, _root) = bundle.mount(&spec(mount(value))).unwrap();
        assert!(has(&bundle.root("x"), top), "{options}: {:?}", options_of(&bundle.root("x")));
        let inner = bundle.root("x/below");
        assert!(has(&inner, below), "{options}: {:?}", options_of(&inner));
    }
}

#[test]
fn a_tmpfs_takes_the_mode_and_on_request_the_content_of_what_it_covers() {
    let name = "a_tmpfs_takes_the_mode_and_on_request_the_content_of_what_it_covers";
    if !alone(name) {
        return;
    }
    let bundle = Bundle::new();
    fs::create_dir_all(bundle.root("x/inner")).unwrap();
    fs::write(bundle.root("x/inner/file"), "content").unwrap();
    fs::set_permissions(bundle.root("x/inner/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(bundle.root("x/inner"), Some(12), Some(34)).unwrap();
    symlink("/../outside", bundle.root("x/link")).unwrap();
    fs::set_permissions(bundle.root("x"), fs::Permissions::from_mode(0o1750)).unwrap();
    let tmpfs = |options: Value, path: &str| {
        spec(mount(json!({"destination": path, "type": "tmpfs", "options": options})))
    };
    for (options, path, mode) in [
        (json!(["tmpcopyup"]), "x", 0o1750),
        (json!(["mode=700"]), "x", 0o700),
        (json!([]), "new", 0o1777),
    ] {
        let (_, _root) = bundle.mount(&tmpfs(options.clone(), path)).unwrap();
        let found = fs::metadata(bundle.root(path)).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{options}");
        let count = fs::read_dir(bundle.root(path)).unwrap().count();
        assert_eq!(count, if options == json!(["tmpcopyup"]) { 2 } else { 0 }, "{options}");
        if count == 2 {
            let file = fs::metadata(bundle.root("x/inner/file")).unwrap();
            assert_eq!((file.mode() & 0o7777, file.len()), (0o4751, 7));
            let inner = fs::metadata(bundle.root("x/inner")).unwrap();
            assert_eq!((inner.uid(), inner.gid()), (12, 34));
            assert_eq!(fs::read_link(bundle.root("x/link")).unwrap(), Path::new("/../outside"));
        }
    }
    bundle.outside_is_untouched();
}

#[test]
fn long_and_old_options_go_by_the_old_call() {
    if !alone("long_and_old_options_go_by_the_old_call") {
        return;
    }
    let bundle = Bundle::new();
    let mut layers = Vec::new();
    for index in 0..12 {
        let layer = bundle.path().join(format!("layer-with-a-rather-long-name-{index}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("file{index}")), "").unwrap();
        layers.push(layer.to_str().unwrap().to_owned());
    }
    let lower = format!("lowerdir={}", layers.join(":"));
    assert!(lower.len() > mount::VALUE_LIMIT_BYTES);
    let spec = spec(|s| {
        s["mounts"] = json!([
            {"destination": "/o", "type": "overlay", "source": "overlay", "options": [lower, "nosuid"]},
            {"destination": "/v", "type": "tmpfs", "options": ["iversion", "size=64k", "noexec"]},
            {"destination": "/v", "type": "tmpfs", "options": ["remount", "size=128k", "ro"]},
        ]);
    });
    let (_, _root) = bundle.mount(&spec).unwrap();
    assert_eq!(fs::read_dir(bundle.root("o")).unwrap().count(), 12);
    assert!(has(&bundle.root("o"), "nosuid"));
    assert!(has(&bundle.root("v"), "ro"));
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(table.contains("size=128k"), "{table}");
}

#[test]
fn errors_say_what_the_kernel_says() {
    if !alone("errors_say_what_the_kernel_says") {
        return;
    }
    let bundle = Bundle::new();
    fs::write(bundle.path().join("file"), "").unwrap();
    fs::write(bundle.root("plain"), "").unwrap();
    fs::create_dir(bundle.root("dir")).unwrap();
    for (value, message) in [
        (
            json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["nonsense=1"]}),
            "nonsense=1 (tmpfs: Unknown parameter 'nonsense'): invalid argument",
        ),
        (json!({"destination": "/x", "type": "nofs"}), "fsopen nofs: no such device"),
        (
            json!({"destination": "/x", "source": "missing", "options": ["bind"]}),
            "missing: no such file or directory",
        ),
        (json!({"destination": "/dir", "source": "file", "options": ["bind"]}), "not a directory"),
        (json!({"destination": "/plain", "type": "tmpfs"}), "not a directory"),
    ] {
        let text = format!("{:#}", bundle.mount(&spec(mount(value.clone()))).unwrap_err());
        assert!(text.contains(message), "{value}: {text}");
    }
}

#[test]
fn a_root_reached_by_a_link_is_refused() {
    let bundle = Bundle::new();
    symlink("rootfs", bundle.path().join("link")).unwrap();
    let spec = spec(|s| {
        s["root"]["path"] = json!("link");
        s["linux"]["namespaces"] = json!([]);
    });
    let text = format!("{:#}", bundle.mount(&spec).unwrap_err());
    assert!(text.contains("invalid rootfs: not an absolute path, or a symlink"), "{text}");
}

#[test]
fn hierarchies_are_mounted_in_a_namespace_and_bound_without() {
    if !alone("hierarchies_are_mounted_in_a_namespace_and_bound_without") {
        return;
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v1: Vec<Hierarchy> = table
        .lines()
        .filter(|line| line.contains(" - cgroup "))
        .map(|line| {
            let place = PathBuf::from(line.split(' ').nth(4).unwrap());
            let name = place.file_name().unwrap().to_str().unwrap().to_owned();
            let option = if name == "systemd" { "name=systemd".into() } else { name.clone() };
            Hierarchy {
                directory: name,
                options: option.split(',').map(str::to_owned).collect(),
                own: place,
            }
        })
        .collect();
    let mounts = if v1.is_empty() {
        let place = PathBuf::from("/sys/fs/cgroup");
        let unified = Unified { mount_point: place.clone(), own: place };
        CgroupMounts { v1, unified: Some(unified) }
    } else {
        CgroupMounts { v1, unified: None }
    };
    for own_namespace in [false, true] {
        let bundle = Bundle::new();
        set_umask(0o022);
        let spec = spec(|s| {
            s["mounts"] = json!([{"destination": "/sys/fs/cgroup", "type": "cgroup",
                                  "source": "cgroup", "options": ["ro", "nosuid"]}]);
            if own_namespace {
                s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
            }
        });
        let plan = bundle.plan(&spec);
        let calls = RefCell::new(0);
        let mut join_cgroup = || {
            *calls.borrow_mut() += 1;
            if own_namespace {
                namespace::unshare(libc::CLONE_NEWCGROUP)?;
            }
            Ok(mounts.clone())
        };
        let context = Context { join_cgroup: &mut join_cgroup, sources: Sources::default() };
        let _root = mount_all(&plan, context).unwrap();
        assert_eq!(*calls.borrow(), 1);
        let view = bundle.root("sys/fs/cgroup");
        assert!(has(&view, "ro"));
        for hierarchy in &mounts.v1 {
            let place = view.join(&hierarchy.directory);
            assert!(has(&place, "ro"), "{}", place.display());
            assert!(place.join("tasks").exists(), "{}", place.display());
        }
    }
}

/// A host mount with flags, then a user namespace in which they are locked.
const USER_NAMESPACE: &str = r#"
mount -t tmpfs -o nosuid,nodev,noatime none /mnt
exec unshare --user --map-root-user --mount --propagation slave "$@"
"#;

#[test]
fn locked_flags_stay_in_a_user_namespace() {
    if !alone_as("locked_flags_stay_in_a_user_namespace", USER_NAMESPACE, "") {
        return;
    }
    let bundle = Bundle::new();
    let bind = |options: &Value| {
        first_bind(json!({"destination": "/x", "source": "/mnt", "options": options}))
    };
    for given in [false, true] {
        let given = || {
            let tree = mount::copy_at("/mnt", true).unwrap();
            given.then_some(bind::Given { tree, lock: true })
        };
        for (options, word) in [
            (json!(["rbind", "ro"]), "ro"),
            (json!(["rbind", "noexec"]), "noexec"),
            (json!(["rbind", "noatime", "ro"]), "ro"),
            (json!(["rbind"]), "rw"),
        ] {
            let mut root = pivot::prepare(&bundle.plan(&spec(|_| {}))).unwrap();
            bind::apply(&mut root, &bind(&options), given()).unwrap();
            let place = bundle.root("x");
            for word in [word, "nosuid", "nodev", "noatime"] {
                assert!(has(&place, word), "{options} {word}: {:?}", options_of(&place));
            }
        }
        for (options, message) in [
            (json!(["rbind", "suid"]), "cannot clear locked flags (among nosuid)"),
            (json!(["rbind", "dev", "ro"]), "cannot clear locked flags (among nodev)"),
            (json!(["rbind", "relatime"]), "cannot change locked access-time flags"),
        ] {
            let mut root = pivot::prepare(&bundle.plan(&spec(|_| {}))).unwrap();
            let error = bind::apply(&mut root, &bind(&options), given()).unwrap_err();
            assert!(format!("{error:#}").contains(message), "{options}: {error:#}");
        }
    }
}

#[test]
fn devices_and_masks_work_in_a_user_namespace() {
    if !alone_as("devices_and_masks_work_in_a_user_namespace", USER_NAMESPACE, "") {
        return;
    }
    let bundle = Bundle::new();
    fs::write(bundle.root("secret"), "secret").unwrap();
    fs::create_dir(bundle.root("private")).unwrap();
    fs::write(bundle.root("private/file"), "secret").unwrap();
    let spec = spec(|s| {
        s["mounts"] = json!([
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs"},
        ]);
        s["root"]["readonly"] = json!(true);
        s["linux"] = json!({
            "namespaces": [{"type": "mount"}, {"type": "user"}],
            "maskedPaths": ["/secret", "/private", "/run"],
            // The name differs from the host's: the number decides.
            "devices": [{"path": "/dev/nothing", "type": "c", "major": 1, "minor": 3},
                        {"path": "/dev/pipe", "type": "p"}],
        });
    });
    let result = bundle.mount(&spec);
    let (plan, root) = match result {
        Ok(mounted) => mounted,
        // Without udev the host has no names by number.
        Err(error) if !Path::new("/dev/char/1:3").exists() => {
            assert!(format!("{error:#}").contains("the host has no such device"), "{error:#}");
            let mut spec = spec;
            spec.linux.as_mut().unwrap().devices.remove(0);
            bundle.mount(&spec).unwrap()
        }
        Err(error) => panic!("{error:#}"),
    };
    enter(&plan, &root).unwrap();
    seal(&plan, &root).unwrap();
    assert_eq!(fs::metadata("/dev/zero").unwrap().rdev(), libc::makedev(1, 5));
    assert_eq!(fs::read("/secret").unwrap(), b"");
    assert_eq!(fs::read_dir("/private").unwrap().count(), 0);
    assert!(fs::write("/private/x", "").is_err() && fs::write("/run/x", "").is_err());
    assert!(fs::metadata("/dev/pipe").unwrap().file_type().is_fifo());
}

#[test]
fn without_pivot_the_root_is_moved_over_the_old_one() {
    if !alone("without_pivot_the_root_is_moved_over_the_old_one") {
        return;
    }
    let bundle = Bundle::new();
    fs::write(bundle.root("here"), "").unwrap();
    let spec = spec(|_| {});
    let facts = Facts { no_pivot: true, ..Facts::default() };
    let plan = plan(&spec, bundle.path(), facts).unwrap();
    let mut join_cgroup = || panic!("no cgroup mount is planned");
    let context = Context { join_cgroup: &mut join_cgroup, sources: Sources::default() };
    let root = mount_all(&plan, context).unwrap();
    enter(&plan, &root).unwrap();
    assert!(Path::new("/here").exists() && Path::new("here").exists());
    assert!(!Path::new("/usr").exists() && !Path::new("/../usr").exists());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let whole = table.lines().filter(|line| line.contains(" - proc ")).count();
    assert_eq!(whole, 1, "{table}");
}

/// A namespace whose mounts are shared with the test's, which must see none of them.
const SHARED: &str = r#"
mount -t tmpfs none "$TMPDIR"
mount --make-rshared /
unshare --mount --propagation unchanged "$@"
grep -q ' /proc ' /proc/self/mountinfo
! grep "$TMPDIR/" /proc/self/mountinfo
"#;

#[test]
fn nothing_spreads_to_the_host_whatever_the_propagation() {
    let name = "nothing_spreads_to_the_host_whatever_the_propagation";
    let words = [
        ("", ""),
        ("slave", "master:"),
        ("rslave", "master:"),
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ];
    for (word, tag) in words {
        if !alone_as(name, SHARED, word) {
            continue;
        }
        let word = std::env::var(INSIDE).unwrap();
        let tag = words.iter().find(|(known, _)| *known == word).map_or(tag, |(_, tag)| tag);
        let bundle = Bundle::new();
        let spec = spec(|s| s["linux"]["rootfsPropagation"] = json!(word));
        let (plan, root) = bundle.mount(&spec).unwrap();
        enter(&plan, &root).unwrap();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let tags = line.split(' ').skip(6).take_while(|field| *field != "-");
        let tags: Vec<_> = tags.collect();
        assert_eq!(tags.len(), usize::from(!tag.is_empty()), "{word}: {line}");
        assert!(tags.iter().all(|found| found.starts_with(tag)), "{word}: {line}");
        return;
    }
}

/// Maps ids with the help of a process of util-linux.
struct Unshare;

impl UserNamespaces for Unshare {
    fn user_namespace(
        &mut self,
        uids: &[oci::IdMapping],
        gids: &[oci::IdMapping],
    ) -> Result<OwnedFd> {
        let mut child = Command::new("unshare")
            .args(["--user", "sh", "-c", "echo; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0])?;
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        for (name, ids) in [("uid_map", uids), ("gid_map", gids)] {
            let ids = &ids[0];
            let line = format!("{} {} {}", ids.container_id, ids.host_id, ids.size);
            fs::write(proc.join(name), line)?;
        }
        let namespace = fs::File::open(proc.join("ns/user"))?;
        drop(child.stdin.take());
        child.wait()?;
        Ok(namespace.into())
    }
}

#[test]
fn an_id_mapped_mount_shows_other_owners() {
    if !alone("an_id_mapped_mount_shows_other_owners") {
        return;
    }
    let bundle = Bundle::new();
    fs::create_dir(bundle.path().join("source")).unwrap();
    std::os::unix::fs::chown(bundle.path().join("source"), Some(3), Some(4)).unwrap();
    let spec = spec(mount(json!({
        "destination": "/x", "source": "source", "options": ["rbind", "ro", "ridmap"],
        "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 200_000, "size": 10}],
    })));
    let plan = bundle.plan(&spec);
    let sources = Sources::open(&plan, &mut Unshare).unwrap();
    let mut join_cgroup = || panic!("no cgroup mount is planned");
    let _root = mount_all(&plan, Context { join_cgroup: &mut join_cgroup, sources }).unwrap();
    let metadata = fs::metadata(bundle.root("x")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (100_003, 200_004));
    assert!(has(&bundle.root("x"), "ro"));
}

#[test]
fn only_what_others_cannot_reach_is_opened_before() {
    if !alone("only_what_others_cannot_reach_is_opened_before") {
        return;
    }
    let bundle = Bundle::new();
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["open", "closed/inner"] {
        fs::create_dir_all(bundle.path().join(name)).unwrap();
    }
    let closed = bundle.path().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    symlink("closed/inner", bundle.path().join("link")).unwrap();
    let spec = spec(|s| {
        s["mounts"] = json!([
            {"destination": "/a", "source": "open", "options": ["bind"]},
            {"destination": "/b", "source": "closed/inner", "options": ["bind"]},
            {"destination": "/c", "source": "link", "options": ["bind"]},
            {"destination": "/d", "source": "closed", "options": ["bind"]},
        ]);
        s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    });
    let mut sources = Sources::open(&bundle.plan(&spec), &mut Unshare).unwrap();
    let given = [0, 1, 2, 3].map(|index| sources.take(index).is_some_and(|given| given.lock));
    assert_eq!(given, [false, true, true, false]);
}

#[test]
fn a_mount_point_that_keeps_changing_stays_inside() {
    const ROUNDS: u32 = 200;
    if !alone("a_mount_point_that_keeps_changing_stays_inside") {
        return;
    }
    let bundle = Bundle::new();
    fs::create_dir_all(bundle.root("swap/deep")).unwrap();
    fs::create_dir(bundle.path().join("source")).unwrap();
    fs::create_dir(bundle.path().join("outside/deep")).unwrap();
    let spec = spec(|s| {
        s["mounts"] = json!([
            {"destination": "/swap/deep/a", "source": "source", "options": ["bind"]},
            {"destination": "/swap/deep", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/swap/new/b", "source": "source", "options": ["bind"]},
        ]);
        s["linux"]["devices"] = json!([{"path": "/swap/pipe", "type": "p"}]);
    });
    let done = std::sync::atomic::AtomicBool::new(false);
    let swap = bundle.root("swap");
    let mut mounted = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // What the mounting makes in a gap is moved away with the next turn.
            for turn in 0.. {
                let away = bundle.root(&format!("away{turn}"));
                let _ = fs::rename(&swap, &away);
                let _ = symlink("../outside", &swap);
                std::thread::yield_now();
                let _ = fs::remove_file(&swap);
                let _ = fs::rename(&away, &swap);
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..ROUNDS {
            // That one fails in the middle of a change is the adversary's own affair.
            if let Ok((_, root)) = bundle.mount(&spec) {
                hull_runtime_sys::process::change_directory(&root.fd).unwrap();
                mount::detach_here().unwrap();
                mounted += 1;
            } else {
                let top = fs::File::open(bundle.path().join("rootfs")).unwrap();
                hull_runtime_sys::process::change_directory(&top).unwrap();
                mount::detach_here().unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(mounted > 0);
    let outside = bundle.path().join("outside");
    assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 0);
    fs::remove_dir(outside.join("deep")).unwrap();
    bundle.outside_is_untouched();
}
