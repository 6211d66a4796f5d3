//! Load and save.

use std::process::Command;

use hull_manager_archive::compression::Compression;
use hull_specs_api::v1::save_request::Format;
use hull_specs_image::Digest;

use crate::fixture::{Manager, Sample, archive, compress, tar};

fn loaded(manager: &Manager, bytes: &[u8]) -> Vec<(String, String)> {
    let loaded = manager.load(bytes).unwrap();
    loaded.into_iter().map(|one| (one.reference, one.image_id)).collect()
}

pub(crate) fn an_archive_is_loaded_and_saved_as_it_was() {
    let (one, other) = (Manager::new(), Manager::new());
    let sample = Sample::usual("a", Compression::Gzip);
    let names = loaded(&one, &sample.archive(&["a:1"]));
    assert_eq!(names, [("docker.io/library/a:1".to_owned(), sample.id())]);
    for format in [Format::DockerArchive, Format::OciArchive] {
        let saved = one.save(&["a:1"], format).unwrap();
        assert_eq!(saved, one.save(&["a:1"], format).unwrap(), "the same bytes again");
        assert_eq!(loaded(&other, &saved), names);
        let (ours, theirs) = (one.inspect("a:1").unwrap(), other.inspect("a:1").unwrap());
        assert_eq!(ours.manifest_digest, theirs.manifest_digest);
        assert_eq!(ours.config_json, theirs.config_json);
        assert_eq!(other.read("a:1", "changed").unwrap(), b"new");
        assert_eq!(other.read("a:1", "kept").unwrap(), b"below");
        assert_eq!(other.read("a:1", "hidden"), None);
        other.remove("a:1", false).unwrap();
        other.assert_empty();
    }
    assert_eq!(one.events(), ["load", "save", "save", "save", "save"]);
    let size: u64 = one.list(&[]).unwrap()[0].size_bytes;
    assert_eq!(size, 5 + 3 + 1 + 3 + 1, "files of all layers");
}

pub(crate) fn the_id_is_that_of_the_configuration() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::None);
    manager.load(&sample.archive(&[])).unwrap();
    let summary = manager.list(&[]).unwrap().remove(0);
    assert_eq!((summary.id.clone(), summary.references.len()), (sample.id(), 0));
    let hex = &sample.id()[7..];
    for text in [&sample.id(), hex, &hex[..12], &hex[..3], &sample.id()[..12]] {
        assert_eq!(manager.images.resolve(text, "").unwrap().id.to_string(), sample.id(), "{text}");
    }
    let image = manager.images.resolve(hex, "linux/amd64").unwrap();
    assert_eq!(&*image.config_json, &sample.config[..]);
    let error = manager.images.resolve(hex, "linux/arm64").err().unwrap();
    assert!(error.message().contains("does not match the specified platform"), "{error}");
    for (text, sentence) in [
        ("nope", "No such image: nope:latest"),
        ("nope:1", "No such image: nope:1"),
        (
            "a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "No such image: a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ] {
        assert_eq!(manager.images.resolve(text, "").err().unwrap().message(), sentence);
    }
    let error = manager.images.resolve("A:b:c", "").err().unwrap();
    assert!(error.message().starts_with("invalid reference format"), "{error}");
}

pub(crate) fn all_forms_of_layers_and_archives_are_loaded() {
    let manager = Manager::new();
    for layers in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let sample = Sample::usual("a", layers);
        for outer in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let bytes = compress(outer, &sample.archive(&["a"]));
            assert_eq!(loaded(&manager, &bytes)[0].1, sample.id());
            assert_eq!(manager.read("a", "added").unwrap(), b"a");
            manager.remove("a", false).unwrap();
        }
    }
    // As dockers before 1.10 linked equal layers.
    let layer = tar(&[("f", b"x")]);
    let sample = Sample::new("linked", Compression::None, &[layer.clone(), layer.clone()]);
    let config = serde_json::json!([{"Config": "c.json", "RepoTags": null,
        "Layers": ["x/layer.tar", "y/layer.tar"]}]);
    let mut bytes = tar(&[
        ("c.json", &sample.config),
        ("x/layer.tar", &layer),
        ("manifest.json", &serde_json::to_vec(&config).unwrap()),
    ]);
    bytes.truncate(bytes.len() - 1024);
    let link = crate::fixture::entry(
        "y/layer.tar",
        hull_manager_archive::tar::Kind::SymbolicLink(b"../x/layer.tar".to_vec()),
    );
    let mut writer = hull_manager_archive::tar::Writer::new(bytes);
    writer.entry(&link).unwrap();
    let bytes = writer.finish().unwrap().0;
    assert_eq!(loaded(&manager, &bytes), [(String::new(), sample.id())]);
    manager.assert_no_ingest();
}

pub(crate) fn several_images_share_layers() {
    let (one, other) = (Manager::new(), Manager::new());
    let base = tar(&[("base", b"12345")]);
    let a = Sample::new("a", Compression::None, std::slice::from_ref(&base));
    let b = Sample::new("b", Compression::None, &[base, tar(&[("b", b"67")])]);
    let bytes = archive(&[(&a, &["a:1", "a:2"]), (&b, &["b"])]);
    assert_eq!(loaded(&one, &bytes).len(), 3);
    assert_eq!(one.snapshots.list().unwrap().len(), 2);
    let list = one.list(&[("reference", "b")]).unwrap();
    assert_eq!((list[0].size_bytes, list[0].shared_bytes), (7, 5));
    // A name alone is all its tags.
    let saved = one.save(&["a", "b"], Format::DockerArchive).unwrap();
    let names: Vec<_> = loaded(&other, &saved).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(one.names(), other.names());
    // A name that is loaded again moves.
    let c = Sample::new("c", Compression::None, &[tar(&[("c", b"")])]);
    loaded(&one, &c.archive(&["b"]));
    assert_eq!(one.images.resolve("b", "").unwrap().id.to_string(), c.id());
    assert_eq!(one.list(&[("dangling", "true")]).unwrap()[0].id, b.id());
    // What both have stays with one.
    other.remove("b", false).unwrap();
    assert_eq!(other.snapshots.list().unwrap().len(), 1);
    assert_eq!(other.read("a:1", "base").unwrap(), b"12345");
}

pub(crate) fn umoci_and_skopeo_read_what_is_saved() {
    let manager = Manager::new();
    let sample = Sample::usual("a", Compression::Gzip);
    manager.load(&sample.archive(&["a:1"])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("saved.tar");
    std::fs::write(&path, manager.save(&["a:1"], Format::DockerArchive).unwrap()).unwrap();
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("skopeo").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for transport in ["docker-archive", "oci-archive"] {
        let source = format!("{transport}:{}", path.display());
        let config = skopeo(&["inspect", "--config", "--raw", &source]);
        assert_eq!(Digest::of(&config).to_string(), sample.id(), "{transport}");
    }
    // The content store is a layout as well.
    let source =
        format!("oci:{}:docker.io/library/a:1", manager.directory.path().join("content").display());
    let config = skopeo(&["inspect", "--config", "--raw", &source]);
    assert_eq!(Digest::of(&config).to_string(), sample.id());
    let layout = directory.path().join("layout");
    let target = format!("oci:{}:tag", layout.display());
    skopeo(&["copy", &format!("docker-archive:{}", path.display()), &target]);
    let umoci = Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:tag", layout.display()))
        .arg(directory.path().join("bundle"))
        .output()
        .unwrap();
    assert!(umoci.status.success(), "{}", String::from_utf8_lossy(&umoci.stderr));
    let root = directory.path().join("bundle/rootfs");
    assert_eq!(std::fs::read(root.join("changed")).unwrap(), b"new");
    assert!(!root.join("hidden").exists());
    // And the reverse: a layout of skopeo's, in a tar.
    let packed = directory.path().join("oci.tar");
    let target = format!("oci-archive:{}:b:2", packed.display());
    skopeo(&["copy", &format!("docker-archive:{}", path.display()), &target]);
    let other = Manager::new();
    let found = loaded(&other, &std::fs::read(packed).unwrap());
    assert_eq!(found[0].0, "docker.io/library/b:2");
    assert_eq!(other.read("b:2", "added").unwrap(), b"a");
}
