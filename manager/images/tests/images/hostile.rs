//! Archives that lie.

use futures_util::{StreamExt as _, stream};
use hull_manager_archive::{
    compression::Compression,
    tar::{Kind, Writer},
};
use hull_manager_core::{Error, ErrorKind};
use hull_specs_api::v1;
use hull_specs_image::Digest;
use tokio::sync::mpsc;

use crate::fixture::{Manager, Sample, compress, entry, noise, tar, wait_for};

fn with_entry(path: &str, kind: Kind) -> Vec<u8> {
    let mut bytes = Sample::usual("a", Compression::None).archive(&["a"]);
    bytes.truncate(bytes.len() - 1024);
    let mut writer = Writer::new(bytes);
    writer.entry(&entry(path, kind)).unwrap();
    writer.finish().unwrap().0
}

fn manifest(item: &serde_json::Value, more: &[(&str, &[u8])]) -> Vec<u8> {
    let json = serde_json::to_vec(&serde_json::json!([item])).unwrap();
    let mut files: Vec<(&str, &[u8])> = vec![("manifest.json", &json)];
    files.extend(more);
    tar(&files)
}

fn oci(manifest: &[u8], named: Digest, more: &[(String, Vec<u8>)]) -> Vec<u8> {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": named, "size": manifest.len()}]});
    let index = serde_json::to_vec(&index).unwrap();
    let path = format!("blobs/sha256/{}", named.hex());
    let mut files: Vec<(&str, &[u8])> = vec![
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index),
        (&path, manifest),
    ];
    files.extend(more.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    tar(&files)
}

/// The archive, its name, and a part of the sentence.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let sample = Sample::usual("a", Compression::None);
    let good = sample.archive(&["a"]);
    let config = &sample.config[..];
    let layers: Vec<&[u8]> = sample.layers.iter().map(Vec::as_slice).collect();
    let item = serde_json::json!({"Config": "c", "RepoTags": ["a"], "Layers": ["0", "1"]});
    let with = |key: &str, value: serde_json::Value| {
        let mut item = item.clone();
        item[key] = value;
        manifest(&item, &[("c", config), ("0", layers[0]), ("1", layers[1])])
    };
    let mut many = Writer::new(Vec::new());
    for number in 0..100_000 {
        let name = format!("{number}");
        many.whole(&entry(&name, Kind::File { size: 0, data: None }), b"").unwrap();
    }
    let bomb = Sample::new("b", Compression::Gzip, &[vec![1; 10_000]]);
    let wrong = sample.config.clone();
    let text = String::from_utf8(wrong).unwrap();
    let first = Digest::of(&sample.layers[0]).to_string();
    let wrong = text.replace(&first, &Digest::of(b"other").to_string()).into_bytes();
    let layer = |index: usize| {
        let bytes = &sample.layers[index];
        serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": Digest::of(bytes), "size": bytes.len()})
    };
    let oci_manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sample.id(), "size": config.len()},
        "layers": [layer(0), layer(1)]}))
    .unwrap();
    let blob = |bytes: &[u8], content: &[u8]| {
        (format!("blobs/sha256/{}", Digest::of(bytes).hex()), content.to_vec())
    };
    let mut damaged = sample.layers[0].clone();
    damaged[1000] ^= 1;
    let file = |size| Kind::File { size, data: None };
    vec![
        ("empty", Vec::new(), "manifest.json"),
        ("text", b"this is not an archive".repeat(50), "invalid archive"),
        ("truncated", good[..good.len() / 2].to_vec(), "invalid archive"),
        ("truncated gzip", compress(Compression::Gzip, &good)[..400].to_vec(), "invalid archive"),
        ("traversal", with_entry("../../etc/cron.d/x", file(0)), "invalid archive"),
        (
            "link out",
            with_entry("l", Kind::SymbolicLink(b"../../etc/passwd".to_vec())),
            "leads out",
        ),
        ("device", with_entry("d", Kind::Character(1, 3)), "something else"),
        ("twice", with_entry("manifest.json", file(0)), "is there twice"),
        ("100,000 entries", many.finish().unwrap().0, "more than"),
        ("no documents", tar(&[("x", b"y")]), "manifest.json"),
        ("not JSON", tar(&[("manifest.json", b"{")]), "manifest.json"),
        ("no configuration", with("Config", "x".into()), "there is no x"),
        ("configuration outside", with("Config", "../c".into()), "there is no ../c"),
        ("absolute layer", with("Layers", serde_json::json!(["/etc/passwd", "1"])), "there is no"),
        ("fewer layers", with("Layers", serde_json::json!(["0"])), "layers length mismatch"),
        ("layers exchanged", with("Layers", serde_json::json!(["1", "0"])), "unpacks to"),
        ("bad tag", with("RepoTags", serde_json::json!(["../x"])), "invalid reference format"),
        (
            "digest as tag",
            with("RepoTags", serde_json::json!([format!("a@{first}")])),
            "invalid tag",
        ),
        (
            "wrong diff id",
            manifest(&item, &[("c", &wrong), ("0", layers[0]), ("1", layers[1])]),
            "unpacks to",
        ),
        ("layer is none", bomb.archive(&["b"]), "refused"),
        (
            "wrong manifest digest",
            oci(&oci_manifest, Digest::of(b"x"), &[]),
            "not what its descriptor says",
        ),
        ("no blobs", oci(&oci_manifest, Digest::of(&oci_manifest), &[]), "there is no blobs"),
        (
            "damaged layer",
            oci(
                &oci_manifest,
                Digest::of(&oci_manifest),
                &[
                    blob(config, config),
                    blob(&sample.layers[0], &damaged),
                    blob(&sample.layers[1], &sample.layers[1]),
                ],
            ),
            "has",
        ),
        (
            "link loop",
            {
                let mut writer = Writer::new(Vec::new());
                writer.entry(&entry("manifest.json", Kind::SymbolicLink(b"b".to_vec()))).unwrap();
                writer.entry(&entry("b", Kind::SymbolicLink(b"manifest.json".to_vec()))).unwrap();
                writer.finish().unwrap().0
            },
            "manifest.json",
        ),
    ]
}

pub(crate) fn archives_are_refused_and_leave_nothing() {
    let manager = Manager::new();
    for (name, bytes, word) in cases() {
        let error = manager.load(&bytes).expect_err(name);
        assert!(error.to_string().contains(word), "{name}: {error}");
        assert!(
            matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::DataLoss),
            "{name}: {error:?}"
        );
        manager.assert_empty();
    }
    // The control: what they are made of is taken.
    let sample = Sample::usual("a", Compression::None);
    assert_eq!(manager.load(&sample.archive(&["a"])).unwrap().len(), 1);
}

/// Whoever waits for an answer before he goes on gets it.
pub(crate) fn a_refusal_does_not_wait_for_the_client() {
    let manager = Manager::new();
    // Long enough that nobody keeps it back to make a whole piece.
    let more = noise(1, 1 << 20);
    let bad = tar(&[("manifest.json", b"{}"), ("manifest.json", b"{}"), ("more", &more)]);
    for form in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let request = v1::LoadRequest { chunk: compress(form, &bad), platform: String::new() };
        let refusal = manager.run(async {
            let (answers, _kept) = mpsc::channel(8);
            let requests = stream::iter([Ok(request)]).chain(stream::pending()).boxed();
            let load = manager.images.load(requests, answers);
            tokio::time::timeout(std::time::Duration::from_secs(20), load).await
        });
        let error = refusal.expect("it waits").unwrap_err();
        assert!(error.to_string().contains("is there twice"), "{form:?}: {error}");
        manager.assert_empty();
    }
}

pub(crate) fn a_client_that_goes_away_leaves_nothing() {
    let manager = Manager::new();
    let archive = Sample::usual("a", Compression::None).archive(&["a"]);
    for form in [Compression::None, Compression::Gzip] {
        let chunk = compress(form, &archive);
        let whole = v1::LoadRequest { chunk, platform: String::new() };
        // It says so, …
        let requests = stream::iter([Ok(whole.clone()), Err(Error::cancelled("gone"))]);
        let error = manager.answers(|answers| manager.images.load(requests, answers)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{form:?}: {error}");
        manager.assert_empty();
        // … or its request is dropped.
        manager.run(async {
            let (answers, _kept) = mpsc::channel(8);
            let requests = stream::iter([Ok(whole)]).chain(stream::pending()).boxed();
            let load = manager.images.load(requests, answers);
            let _ = tokio::time::timeout(std::time::Duration::from_millis(200), load).await;
        });
        wait_for("what was read of it is gone", || manager.ingests().is_empty());
        manager.assert_empty();
    }
}
