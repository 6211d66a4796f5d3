//! Applies for real.

use super::*;

#[test]
fn a_whole_container_is_mounted_entered_and_sealed() {
    if !alone("mounts::a_whole_container_is_mounted_entered_and_sealed") {
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
    if !alone("mounts::links_of_the_image_lead_nowhere_outside") {
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
    if !alone("mounts::what_hides_proc_is_refused") {
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
    if !alone("mounts::masks_do_not_use_the_null_device_of_the_image") {
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
    if !alone("mounts::recursive_flags_reach_the_mounts_below") {
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
    let name = "mounts::a_tmpfs_takes_the_mode_and_on_request_the_content_of_what_it_covers";
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
    if !alone("mounts::long_and_old_options_go_by_the_old_call") {
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
    if !alone("mounts::errors_say_what_the_kernel_says") {
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
    if !alone("mounts::hierarchies_are_mounted_in_a_namespace_and_bound_without") {
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

#[test]
fn without_pivot_the_root_is_moved_over_the_old_one() {
    if !alone("mounts::without_pivot_the_root_is_moved_over_the_old_one") {
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
    let name = "mounts::nothing_spreads_to_the_host_whatever_the_propagation";
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

#[test]
fn a_mount_point_that_keeps_changing_stays_inside() {
    const ROUNDS: u32 = 200;
    if !alone("mounts::a_mount_point_that_keeps_changing_stays_inside") {
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
