//! Applies in a user namespace, and with mapped ids.

use super::*;

/// A host mount with flags, then a user namespace in which they are locked.
const USER_NAMESPACE: &str = r#"
mount -t tmpfs -o nosuid,nodev,noatime none /mnt
exec unshare --user --map-root-user --mount --propagation slave "$@"
"#;

#[test]
fn locked_flags_stay_in_a_user_namespace() {
    if !alone_as("user_namespaces::locked_flags_stay_in_a_user_namespace", USER_NAMESPACE, "") {
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
    if !alone_as("user_namespaces::devices_and_masks_work_in_a_user_namespace", USER_NAMESPACE, "")
    {
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
    if !alone("user_namespaces::an_id_mapped_mount_shows_other_owners") {
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
    if !alone("user_namespaces::only_what_others_cannot_reach_is_opened_before") {
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
