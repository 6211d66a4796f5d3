//! Plans against tables.

use super::*;

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
