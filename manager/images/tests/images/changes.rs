//! Commit, import, tags, lists, removal.

use std::{os::fd::AsRawFd as _, sync::Arc};

use futures_util::stream;
use hull_manager_archive::compression::Compression;
use hull_manager_core::ErrorKind;
use hull_manager_images::{Commit, User};
use hull_specs_api::v1;
use hull_specs_image::{ContainerConfig, Digest, ImageConfig};
use tokio::sync::mpsc;

use crate::fixture::{Manager, Sample, filters, tar, told};

fn parse(manager: &Manager, image: &str) -> ImageConfig {
    serde_json::from_slice(&manager.inspect(image).unwrap().config_json).unwrap()
}

fn commit(manager: &Manager, commit: Commit) -> hull_manager_core::Result<Digest> {
    let (progress, _kept) = mpsc::channel(8);
    manager.run(manager.images.commit(commit, progress))
}

pub(crate) fn a_container_is_committed() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::Gzip);
    manager.load(&sample.archive(&["a"])).unwrap();
    let image = manager.images.resolve("a", "").unwrap();
    manager.snapshots.prepare("c1", image.chain_id.as_ref()).unwrap();
    {
        let root = manager.snapshots.mount_detached("c1", false).unwrap();
        let path = format!("/proc/self/fd/{}", root.as_raw_fd());
        std::fs::write(format!("{path}/made"), "by the container").unwrap();
        std::fs::remove_file(format!("{path}/kept")).unwrap();
    }
    let wanted = Commit {
        parent: Some(image.id),
        snapshot: "c1".into(),
        container: "c".repeat(64),
        config: ContainerConfig {
            cmd: vec!["sh".into(), "-c".into(), "make".into()],
            env: vec!["A=1".into()],
            ..ContainerConfig::default()
        },
        reference: "b:2".into(),
        author: "somebody".into(),
        message: "why".into(),
        changes: vec!["ENV B=2".into(), "CMD [\"run\"]".into()],
    };
    let id = commit(&manager, wanted.clone()).unwrap();
    assert_eq!(manager.read("b:2", "made").unwrap(), b"by the container");
    assert_eq!(manager.read("b:2", "kept"), None);
    assert_eq!(manager.read("b:2", "changed").unwrap(), b"new");
    let config = parse(&manager, "b:2");
    assert_eq!((config.author.as_str(), config.comment.as_str()), ("somebody", "why"));
    assert_eq!(
        (config.config.cmd, config.config.env),
        (vec!["run".to_owned()], vec!["A=1".to_owned(), "B=2".into()])
    );
    assert_eq!(config.rootfs.diff_ids.len(), 3);
    let request = v1::ImageHistoryRequest { image: "b:2".into(), platform: String::new() };
    let history = manager.run(manager.images.history(request)).unwrap().entries;
    let ids: Vec<_> = history.iter().map(|entry| entry.image_id.clone()).collect();
    assert_eq!(ids, [id.to_string(), image.id.to_string(), String::new()]);
    assert_eq!((history[0].created_by.as_str(), history[0].size_bytes), ("sh -c make", 16));
    // The same changes are the same layer.
    let again = commit(&manager, Commit { reference: String::new(), ..wanted.clone() }).unwrap();
    let again = parse(&manager, &again.to_string());
    assert_eq!(again.rootfs.diff_ids, config.rootfs.diff_ids);
    // No changes: no layer.
    manager.snapshots.prepare("c2", image.chain_id.as_ref()).unwrap();
    let empty = Commit { snapshot: "c2".into(), reference: "e".into(), ..wanted.clone() };
    commit(&manager, empty).unwrap();
    let config = parse(&manager, "e");
    assert_eq!(
        (config.rootfs.diff_ids.len(), config.history.last().unwrap().empty_layer),
        (2, true)
    );
    for (change, why) in [
        ("RUN x", "RUN is not a valid change command"),
        ("USER", "USER requires at least one argument"),
    ] {
        let wrong = Commit { changes: vec![change.into()], ..wanted.clone() };
        assert_eq!(commit(&manager, wrong).unwrap_err().message(), why);
    }
    manager.assert_no_ingest();
    let staged = manager.snapshots.list().unwrap().len();
    assert_eq!(staged, 2 + 1 + 2, "layers of a, the new one, two containers");
}

fn import(
    manager: &Manager,
    options: v1::ImportOptions,
    bytes: &[u8],
) -> hull_manager_core::Result<v1::LoadedImage> {
    use v1::import_request::Part;
    let parts = std::iter::once(Part::Options(options))
        .chain(bytes.chunks(1000).map(|chunk| Part::Chunk(chunk.to_vec())));
    let requests: Vec<_> = parts.map(|part| Ok(v1::ImportRequest { part: Some(part) })).collect();
    let answers =
        manager.answers(|answers| manager.images.import(stream::iter(requests), answers))?;
    Ok(answers
        .into_iter()
        .find_map(|answer| match answer.event {
            Some(v1::import_response::Event::Imported(imported)) => Some(imported),
            _ => None,
        })
        .unwrap())
}

pub(crate) fn a_root_file_system_is_imported() {
    let manager = Manager::new();
    let root = tar(&[("bin/sh", b"#!"), ("etc/x", b"y")]);
    for form in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options = v1::ImportOptions {
            reference: "root".into(),
            changes: vec!["ENTRYPOINT [\"/bin/sh\"]".into(), "LABEL a=b".into()],
            platform: "linux/arm64".into(),
            ..v1::ImportOptions::default()
        };
        let imported = import(&manager, options, &crate::fixture::compress(form, &root)).unwrap();
        assert_eq!(imported.reference, "docker.io/library/root:latest");
        assert_eq!(manager.read("root", "etc/x").unwrap(), b"y");
        let config = parse(&manager, "root");
        assert_eq!(config.rootfs.diff_ids, [Digest::of(&root)]);
        assert_eq!(config.platform().to_string(), "linux/arm64");
        assert_eq!(
            (config.config.entrypoint[0].as_str(), config.comment.as_str()),
            ("/bin/sh", "Imported from -")
        );
    }
    let options = v1::ImportOptions { changes: vec!["FROM x".into()], ..Default::default() };
    let error = import(&manager, options, &root).unwrap_err();
    assert_eq!(error.message(), "FROM is not a valid change command");
    let error =
        import(&manager, v1::ImportOptions::default(), b"this is no archive at all").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    manager.assert_no_ingest();
}

pub(crate) fn references_are_moved_and_removed() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::None);
    manager.load(&sample.archive(&["a:1"])).unwrap();
    manager.tag("a:1", "localhost:5000/b").unwrap();
    manager.tag(&sample.id()[7..19], "c").unwrap();
    assert_eq!(
        manager.names(),
        ["docker.io/library/a:1", "docker.io/library/c:latest", "localhost:5000/b:latest"]
    );
    assert_eq!(manager.tag("nope", "x").unwrap_err().message(), "No such image: nope:latest");
    assert!(manager.tag("a:1", "X").unwrap_err().message().starts_with("invalid reference format"));
    let digest = format!("a@{}", Digest::of(b""));
    assert_eq!(
        manager.tag("a:1", &digest).unwrap_err().message(),
        "refusing to create a tag with a digest reference"
    );
    let image = manager.images.resolve("a:1", "").unwrap().id;
    manager.images.set_users(Arc::new(move || {
        vec![User { image, container: "d".repeat(64), running: false }]
    }));
    assert_eq!(manager.remove("a:1", false).unwrap(), ["-a:1"]);
    assert_eq!(manager.remove("c", false).unwrap(), ["-c:latest"]);
    let error = manager.remove("localhost:5000/b", false).unwrap_err();
    assert!(error.message().contains("(must force) - container dddddddddddd is using"), "{error}");
    assert_eq!(manager.list(&[]).unwrap()[0].containers, 1);
    let removed = manager.remove("localhost:5000/b", true).unwrap();
    assert_eq!(removed[..2], ["-localhost:5000/b:latest".to_owned(), format!("!{}", sample.id())]);
    assert_eq!(removed.len(), 4, "two layers: {removed:?}");
    manager.assert_empty();
    assert_eq!(manager.remove("a:1", true).unwrap_err().message(), "No such image: a:1");
}

pub(crate) fn lists_are_filtered() {
    let manager = Manager::new();
    let (a, b) = (Sample::usual("a", Compression::None), Sample::usual("b", Compression::None));
    manager.load(&a.archive(&["a:1", "x.y/z/a:2"])).unwrap();
    manager.load(&b.archive(&[])).unwrap();
    for (pairs, count) in [
        (&[][..], 2),
        (&[("dangling", "true")], 1),
        (&[("dangling", "false")], 1),
        (&[("label", "label=a")], 1),
        (&[("label", "label")], 2),
        (&[("reference", "a")], 1),
        (&[("reference", "*:1")], 1),
        (&[("reference", "x.y/*/*:2")], 1),
        (&[("reference", "b*")], 0),
        (&[("before", "a:1")], 0),
        (&[("until", "2026-01-02T03:04:06Z")], 2),
        (&[("until", "2026-01-02T03:04:05Z")], 0),
        (&[("until", "10m")], 2),
    ] {
        assert_eq!(manager.list(pairs).unwrap().len(), count, "{pairs:?}");
    }
    let shown = manager.list(&[("reference", "a")]).unwrap().remove(0).references;
    assert_eq!(shown, ["docker.io/library/a:1"]);
    for (pairs, sentence) in [
        (&[("x", "y")], "invalid filter 'x'"),
        (&[("dangling", "perhaps")], "invalid filter 'dangling=perhaps'"),
        (&[("until", "x")], "invalid filter 'until=x'"),
        (&[("before", "nope")], "No such image: nope:latest"),
    ] {
        assert_eq!(manager.list(pairs).unwrap_err().message(), sentence);
    }
}

pub(crate) fn what_nobody_uses_is_pruned() {
    let manager = Manager::new();
    let samples = ["a", "b", "c"].map(|label| Sample::usual(label, Compression::None));
    for (sample, tags) in samples.iter().zip([&["a"][..], &[], &["c"]]) {
        manager.load(&sample.archive(tags)).unwrap();
    }
    let image = manager.images.resolve("c", "").unwrap().id;
    manager.images.set_users(Arc::new(move || {
        vec![User { image, container: "d".repeat(64), running: true }]
    }));
    let prune = |pairs: &[(&str, &str)]| {
        let request = v1::PruneImagesRequest { filters: filters(pairs) };
        let pruned = manager.run(manager.images.prune(request)).unwrap();
        (told(pruned.removed), pruned.reclaimed_bytes)
    };
    assert_eq!(prune(&[("label", "label=a")]).0, [""; 0]);
    let (removed, bytes) = prune(&[]);
    assert_eq!(removed[0], format!("!{}", samples[1].id()));
    assert!(bytes > 1000, "{bytes}");
    assert_eq!(prune(&[("dangling", "false"), ("until", "2020-01-01T00:00:00Z")]).0, [""; 0]);
    assert_eq!(prune(&[("dangling", "false")]).0[0], "-a:latest");
    assert_eq!(manager.names(), ["docker.io/library/c:latest"]);
    manager.read("c", "added").unwrap();
}

pub(crate) fn what_a_killed_manager_left_is_collected() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::None);
    manager.load(&sample.archive(&["a"])).unwrap();
    // Layers were put in, and the manager died before the row was written.
    let orphan = Digest::of(b"orphan");
    manager.snapshots.stage("s").unwrap();
    manager.snapshots.commit_layer("s", &orphan, None).unwrap();
    manager.snapshots.stage("s").unwrap();
    let above = Digest::of(b"above");
    manager.snapshots.commit_layer("s", &above, Some(&orphan)).unwrap();
    let lease = manager.content.lease();
    let blob = manager.content.add(b"nobody's", &lease).unwrap();
    drop(lease);
    std::fs::write(manager.directory.path().join("content/index.json"), "{}").unwrap();
    let manager = manager.again();
    assert_eq!(manager.snapshots.list().unwrap().len(), 4);
    manager.run(manager.images.collect()).unwrap();
    assert_eq!(manager.snapshots.list().unwrap().len(), 2);
    assert!(manager.content.has(&blob), "of a pull that may go on");
    let path = manager.content.path(&blob);
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    std::fs::File::open(path).unwrap().set_modified(yesterday).unwrap();
    manager.run(manager.images.collect()).unwrap();
    assert!(!manager.content.has(&blob));
    assert_eq!(manager.read("a", "changed").unwrap(), b"new");
    let index = std::fs::read(manager.directory.path().join("content/index.json")).unwrap();
    assert!(String::from_utf8(index).unwrap().contains("docker.io/library/a:latest"));
}

pub(crate) fn what_did_not_end_is_pruned_and_what_is_at_work_is_not() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::None);
    manager.load(&sample.archive(&["a"])).unwrap();
    let orphan = Digest::of(b"orphan");
    manager.snapshots.stage("s").unwrap();
    manager.snapshots.commit_layer("s", &orphan, None).unwrap();
    let lease = manager.content.lease();
    let left = vec![b'l'; 5000];
    let blob = manager.content.add(&left, &lease).unwrap();
    drop(lease);
    let at_work = manager.content.lease();
    let wanted = manager.content.add(b"being pulled", &at_work).unwrap();
    // Two that are half there: somebody writes one of them.
    let parts = [b"one", b"two"].map(|bytes| Digest::of(bytes));
    let [given_up, begun] = parts.map(|digest| {
        let claim = manager.run(manager.content.claim(digest));
        let mut ingest = claim.open(1000, |_| Ok(())).unwrap();
        ingest.write(&[b'p'; 700]).unwrap();
        ingest
    });
    drop(given_up);
    let prune = |pairs: &[(&str, &str)]| {
        let request = v1::PruneImagesRequest { filters: filters(pairs) };
        manager.run(manager.images.prune(request)).unwrap().reclaimed_bytes
    };
    assert_eq!(prune(&[("label", "none")]), 0);
    assert!(manager.content.has(&blob), "a filter is of images");
    let bytes = prune(&[]);
    assert!((5700..50_000).contains(&bytes), "{bytes}");
    assert!(!manager.content.has(&blob) && manager.content.has(&wanted));
    assert_eq!(manager.ingests(), [(parts[1].hex().to_owned(), 700)]);
    assert!(!manager.snapshots.has_layer(&orphan).unwrap());
    assert_eq!(manager.read("a", "changed").unwrap(), b"new");
    drop((begun, at_work));
    assert_eq!(prune(&[]), 712);
}

pub(crate) fn a_held_image_keeps_its_layers() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::None);
    manager.load(&sample.archive(&["a"])).unwrap();
    let image = manager.images.resolve("a", "").unwrap();
    manager.remove("a", false).unwrap();
    manager.run(manager.images.collect()).unwrap();
    manager.snapshots.prepare("c", image.chain_id.as_ref()).unwrap();
    drop(image);
    manager.run(manager.images.collect()).unwrap();
    assert_eq!(manager.snapshots.list().unwrap().len(), 3, "a container is on them");
    manager.snapshots.remove("c").unwrap();
    manager.run(manager.images.collect()).unwrap();
    manager.assert_empty();
}

pub(crate) fn damage_is_found_and_repaired() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::None);
    manager.load(&sample.archive(&["a"])).unwrap();
    let check = |repair| manager.run(manager.images.check(repair)).unwrap();
    let checked = check(false);
    assert_eq!((checked.findings, checked.blobs, checked.images), (vec![], 4, 1));
    // A layer is lost, and index.json is somebody else's.
    let top = manager.images.resolve("a", "").unwrap().chain_id.unwrap();
    manager.snapshots.remove_layer(&top).unwrap();
    std::fs::write(manager.directory.path().join("content/index.json"), "{}").unwrap();
    let told = |repair| -> Vec<(String, String)> {
        check(repair).findings.into_iter().map(|one| (one.problem, one.repaired)).collect()
    };
    assert_eq!(told(false).len(), 2);
    let repaired: Vec<_> = told(true).into_iter().map(|(_, repaired)| repaired).collect();
    assert_eq!(repaired, ["unpacked again", "written again"]);
    assert_eq!(told(false), []);
    assert_eq!(manager.read("a", "changed").unwrap(), b"new");
    // A layer's directory is lost, below another that stays.
    let low = manager.snapshots.list().unwrap()[0].name.clone();
    let directories = std::fs::read_dir(manager.directory.path().join("snapshots/overlayfs"));
    let lost = directories.unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    std::fs::remove_dir_all(lost).unwrap();
    assert!(told(false)[0].0.contains(&low), "{:?}", told(false));
    assert_eq!(told(true)[0].1, "unpacked again");
    assert_eq!(told(false), []);
    assert_eq!(manager.read("a", "kept").unwrap(), b"below");
    // A blob is damaged: it goes, and what it was for is named.
    let blob = manager.content.path(&Digest::of(&sample.layers[0]));
    std::fs::write(blob, b"x").unwrap();
    let found = told(true);
    assert_eq!((found.len(), found[0].1.as_str()), (2, "removed"), "{found:?}");
    assert!(found[1].0.contains("pull it again"), "{found:?}");
    manager.load(&sample.archive(&["a"])).unwrap();
    assert_eq!(told(false), []);
}

pub(crate) fn what_images_take_is_counted_once() {
    let manager = Manager::new();
    let base = tar(&[("base", b"12345")]);
    let a = Sample::new("a", Compression::None, std::slice::from_ref(&base));
    let b = Sample::new("b", Compression::None, &[base, tar(&[("b", b"67")])]);
    manager.load(&crate::fixture::archive(&[(&a, &["a"]), (&b, &["b"])])).unwrap();
    let image = manager.images.resolve("a", "").unwrap().id;
    manager.images.set_users(Arc::new(move || {
        vec![User { image, container: "d".repeat(64), running: true }]
    }));
    let usage = manager.run(manager.images.usage()).unwrap();
    assert_eq!((usage.count, usage.active), (2, 1));
    assert_eq!((usage.size_bytes, usage.reclaimable_bytes), (7, 2));
}
