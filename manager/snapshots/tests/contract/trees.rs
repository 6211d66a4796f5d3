//! What a snapshot shows of its layers, to the last attribute.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use crate::{
    fixture::{Fixture, at, sh, tree},
    with_each_driver,
};

/// Everything that a layer can have.
const RICH: &str = r"
    mkdir d d/sub; echo one > d/one; ln d/one d/two; ln -s ../one d/link; ln -s /etc/passwd absolute
    chown -h 7:8 d/link; mknod d/null c 1 3; chmod 666 d/null; mknod fifo p; chown 3:4 fifo
    truncate -s 1M holes; printf x | dd of=holes bs=1 seek=524288 conv=notrunc status=none
    : > empty; chmod 6755 d/one; chown 1000:100 d; chmod 1777 d/sub
    echo capable > capable; chmod 4711 empty
    find . -exec touch -h -d '2000-01-01 UTC' {} +
    touch -d '2001-02-03 04:05:06.789012345 UTC' d/one holes capable d/sub d absolute fifo .
    touch -h -d '2002-03-04 05:06:07 UTC' d/link
";

fn rich(root: &Path) {
    sh(root, RICH);
    let set = |name: &str, key: &std::ffi::CStr, value: &[u8]| {
        let file = fs::File::open(root.join(name)).unwrap();
        hull_runtime_sys::path::set_attribute(file, key, value).unwrap();
    };
    set("capable", c"user.note", b"hello");
    // cap_net_raw=ep, version 2.
    let capability: Vec<u8> =
        [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    set("capable", c"security.capability", &capability);
    set("d", c"user.of-directory", b"x");
}

/// Hides, replaces and merges what [`RICH`] has.
fn over(root: &Path) {
    sh(
        root,
        "mkdir d; echo new > d/new; mknod d/two c 0 0; mknod fifo c 0 0; mknod never c 0 0
         mkdir opaque empty holes; echo inside > empty/inside; chmod 710 d; chown 9:9 d
         echo file > absolute; touch -d '2003-01-01 UTC' d .",
    );
    for name in ["opaque", "holes"] {
        let directory = fs::File::open(root.join(name)).unwrap();
        let key = hull_manager_archive::OPAQUE_ATTRIBUTE;
        hull_runtime_sys::path::set_attribute(directory, key, b"y").unwrap();
    }
    sh(root, "touch -d '2003-01-01 UTC' opaque empty holes .");
}

/// What `key` shows.
fn shown(fixture: &Fixture, key: &str) -> BTreeMap<String, String> {
    let mut tree = tree(&at(&fixture.snapshots.mount_detached(key, true).unwrap()));
    // A new snapshot's own time is its own.
    let root = tree.get_mut("").unwrap();
    *root = root.split(' ').take(2).collect::<Vec<_>>().join(" ");
    tree
}

with_each_driver! {
    fn a_snapshot_is_the_layer_in_everything(fixture: &mut Fixture) {
        let plain = tempfile::tempdir().unwrap();
        fs::set_permissions(plain.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        rich(plain.path());
        let low = fixture.layer("low", None, rich);
        let high = fixture.layer("high", Some(&low), |root| sh(root, "touch -d '2001-02-03 04:05:06.789012345 UTC' ."));
        for (key, layer) in [("one", &low), ("two", &high)] {
            fixture.snapshots.prepare(key, Some(layer)).unwrap();
            let (mut ours, mut theirs) = (shown(fixture, key), tree(plain.path()));
            assert_eq!(ours.remove("").map(|root| root.len() > 4), theirs.remove("").map(|_| true));
            assert_eq!(ours, theirs, "{key}");
            let root = fixture.snapshots.mount_detached(key, true).unwrap();
            let holes = fs::metadata(at(&root).join("holes")).unwrap();
            assert!(holes.blocks() * 512 < 65536, "holes stay holes: {}", holes.blocks());
        }
    }

    fn layers_hide_and_replace_what_is_below(fixture: &mut Fixture) {
        let low = fixture.layer("low", None, |root| {
            rich(root);
            sh(root, "mkdir opaque opaque/deep; echo gone > opaque/gone; echo gone > opaque/deep/gone");
        });
        let high = fixture.layer("high", Some(&low), over);
        fixture.snapshots.prepare("one", Some(&high)).unwrap();
        let tree = shown(fixture, "one");
        let names: Vec<&str> = tree.keys().map(String::as_str).collect();
        assert_eq!(names, [
            "", "absolute", "capable", "d", "d/link", "d/new", "d/null", "d/one", "d/sub", "empty",
            "empty/inside", "holes", "opaque",
        ]);
        assert!(tree["d"].starts_with("40710 9:9 1041379200.0"), "{}", tree["d"]);
        // Neither attributes of overlayfs nor those of what it hides.
        assert!(!tree.values().any(|line| line.contains("overlay") || line.contains("of-directory")));
        assert!(tree["absolute"].ends_with(&hull_specs_image::Digest::of(b"file\n").to_string()));
    }
}

#[test]
fn both_drivers_show_the_same() {
    let [one, other] = ["overlayfs", "vfs"].map(|driver| {
        let fixture = Fixture::new(driver);
        let low = fixture.layer("low", None, |root| {
            rich(root);
            sh(
                root,
                "mkdir opaque; echo gone > opaque/gone; touch -d '2001-01-01 UTC' empty d/sub",
            );
        });
        let high = fixture.layer("high", Some(&low), over);
        let top = fixture.layer("top", Some(&high), |root| {
            sh(root, "mkdir d; mknod d/one c 0 0; touch -d '2004-01-01 UTC' d .")
        });
        fixture.snapshots.prepare("one", Some(&top)).unwrap();
        let mut tree = shown(&fixture, "one");
        // Made a moment ago.
        for line in tree.values_mut() {
            let time = line.split(' ').nth(2).unwrap_or_default().to_owned();
            if time
                .split('.')
                .next()
                .and_then(|s| s.parse::<i64>().ok())
                .is_some_and(|s| s > 1_500_000_000)
            {
                *line = line.replace(&time, "now");
            }
            // overlayfs counts the names that layers have, hidden ones too.
            if let Some(at) = line.find(" is ") {
                line.truncate(at);
            }
        }
        tree
    });
    assert_eq!(one, other);
}

#[test]
fn directories_are_hidden_where_there_are_no_attributes() {
    // ramfs has neither attributes nor a way to carry overlays.
    let directory = tempfile::tempdir().unwrap();
    let context = hull_runtime_sys::mount::Context::open("ramfs").unwrap();
    context.create().unwrap();
    let mount = context.mount(hull_runtime_sys::mount::Attributes::NONE).unwrap();
    let root = at(&mount);
    let store = hull_manager_core::Store::open(&directory.path().join("meta.db")).unwrap();
    let snapshots = hull_manager_snapshots::open(None, &root, &store).unwrap();
    assert_eq!(snapshots.name(), "vfs");
    let mut below = None;
    for (name, entries) in [("low", ["d/gone", "kept"]), ("high", ["d/.wh..wh..opq", "d/new"])] {
        let staged = snapshots.stage(name).unwrap();
        let mut writer = hull_manager_archive::tar::Writer::new(Vec::new());
        for path in entries {
            writer
                .entry(&hull_manager_archive::tar::Entry {
                    path: path.into(),
                    kind: hull_manager_archive::tar::Kind::File { size: 0, data: None },
                    mode: 0o644,
                    uid: 0,
                    gid: 0,
                    modified: Default::default(),
                    attributes: Vec::new(),
                })
                .unwrap();
        }
        crate::fixture::unpack(&staged.dir, &writer.finish().unwrap().0);
        let chain_id = hull_specs_image::Digest::of(name.as_bytes());
        snapshots.commit_layer(name, &chain_id, below.as_ref()).unwrap();
        below = Some(chain_id);
    }
    snapshots.prepare("one", below.as_ref()).unwrap();
    let found = tree(Path::new(&snapshots.mounts("one").unwrap()[0].source));
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["", "d", "d/new", "kept"]);
}
