//! Pull and push, with Debian's docker-registry.

use std::process::Command;

use hull_manager_archive::compression::Compression;
use hull_manager_core::{ErrorKind, Result};
use hull_specs_api::v1::{self, progress::Phase};
use hull_specs_image::Digest;
use tokio::sync::mpsc;

use crate::{
    fixture::{Manager, Sample, noise, tar, wait_for},
    registry::{Proxy, Registry},
};

fn request(reference: &str) -> v1::PullRequest {
    v1::PullRequest {
        reference: reference.into(),
        platform: "linux/amd64".into(),
        ..Default::default()
    }
}

/// What was reported: of which blob, and how far it was.
type Phases = Vec<(String, Phase)>;

/// What was pulled, and the phases that were told.
fn pull_all(manager: &Manager, request: v1::PullRequest) -> Result<(Vec<v1::Pulled>, Phases)> {
    let answers = manager.answers(|answers| manager.images.pull(request, answers))?;
    let (mut pulled, mut phases) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer.event.unwrap() {
            v1::pull_response::Event::Pulled(one) => pulled.push(one),
            v1::pull_response::Event::Progress(told) => {
                phases.push((told.id.clone(), told.phase()));
            }
        }
    }
    Ok((pulled, phases))
}

pub(crate) fn pull(
    manager: &Manager,
    reference: &str,
) -> Result<(v1::Pulled, Vec<(String, Phase)>)> {
    let (mut pulled, phases) = pull_all(manager, request(reference))?;
    assert_eq!(pulled.len(), 1);
    Ok((pulled.remove(0), phases))
}

fn push_all(
    manager: &Manager,
    reference: &str,
    all_tags: bool,
) -> Result<(Vec<v1::Pushed>, Vec<Phase>)> {
    let request = v1::PushRequest { reference: reference.into(), all_tags, ..Default::default() };
    let answers = manager.answers(|answers| manager.images.push(request, answers))?;
    let (mut pushed, mut phases) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer.event.unwrap() {
            v1::push_response::Event::Pushed(one) => pushed.push(one),
            v1::push_response::Event::Progress(told) => phases.push(told.phase()),
        }
    }
    Ok((pushed, phases))
}

fn push(manager: &Manager, reference: &str) -> v1::Pushed {
    push_all(manager, reference, false).unwrap().0.remove(0)
}

/// Loads and pushes a sample as this reference.
pub(crate) fn publish(reference: &str, sample: &Sample) -> v1::Pushed {
    let manager = Manager::new();
    manager.load(&sample.archive(&[reference])).unwrap();
    push(&manager, reference)
}

pub(crate) fn what_is_pushed_is_pulled_as_it_was() {
    let registry = Registry::start();
    let (one, other) = (Manager::new(), Manager::new());
    let sample = Sample::usual("a", Compression::None);
    let name = format!("{}/a/b:1", registry.address);
    one.load(&sample.archive(&[&name])).unwrap();
    let pushed = push(&one, &name);
    let (pulled, _) = pull(&other, &name).unwrap();
    assert_eq!((&pulled.image_id, &pulled.digest), (&sample.id(), &pushed.digest));
    assert!(!pulled.up_to_date);
    assert_eq!(pulled.reference, name);
    assert_eq!(other.read(&name, "changed").unwrap(), b"new");
    let by_digest = format!("{}/a/b@{}", registry.address, pushed.digest);
    for manager in [&one, &other] {
        let summary = manager.list(&[]).unwrap().remove(0);
        assert_eq!((&summary.references[0], &summary.repo_digests[0]), (&name, &by_digest));
    }
    let (ours, theirs) = (one.inspect(&name).unwrap(), other.inspect(&name).unwrap());
    assert_eq!(ours.manifest_json, theirs.manifest_json);
    let manifest: hull_specs_image::Manifest = serde_json::from_slice(&ours.manifest_json).unwrap();
    assert!(manifest.layers.iter().all(|layer| layer.media_type.ends_with("tar+gzip")));
    // Pushed again from elsewhere, under another name: the same, and nothing moves.
    let second = format!("{}/c:2", registry.address);
    other.tag(&name, &second).unwrap();
    let (again, phases) = push_all(&other, &second, false).unwrap();
    assert_eq!(again[0].digest, pushed.digest);
    assert!(phases.contains(&Phase::Mounted) && !phases.contains(&Phase::Uploading), "{phases:?}");
    assert_eq!(other.events(), ["pull", "tag", "push"]);
    // By digest; and the reference with a digest goes with the last tag.
    let third = Manager::new();
    let (pulled, _) = pull(&third, &by_digest).unwrap();
    assert_eq!(pulled.image_id, sample.id());
    assert_eq!(third.names(), [""; 0]);
    assert_eq!(third.remove(&by_digest, false).unwrap()[0], format!("-{by_digest}"));
    third.assert_empty();
    other.remove(&second, false).unwrap();
    other.remove(&name, false).unwrap();
    other.assert_empty();
}

pub(crate) fn content_that_was_lost_is_pulled_again() {
    let registry = Registry::start();
    let sample = Sample::usual("a", Compression::None);
    let name = format!("{}/a:1", registry.address);
    publish(&name, &sample);
    let manager = Manager::new();
    pull(&manager, &name).unwrap();
    let problems = |repair| -> Vec<String> {
        let checked = manager.run(manager.images.check(repair)).unwrap();
        checked.findings.into_iter().map(|finding| finding.problem).collect()
    };
    assert_eq!(problems(false), [""; 0]);
    let blobs = std::fs::read_dir(manager.directory.path().join("content/blobs/sha256")).unwrap();
    for blob in blobs {
        std::fs::write(blob.unwrap().path(), "damaged").unwrap();
    }
    // A configuration, a manifest and two layers; then what they were to the image, and the
    // list of images, which is made of what can be read.
    problems(true);
    let found = problems(false);
    let says = format!("hull pull {name} brings it back");
    assert!(!found.is_empty() && found.iter().all(|found| found.ends_with(&says)), "{found:?}");
    assert_eq!(manager.snapshots.list().unwrap().len(), 2, "what runs needs its layers only");
    pull(&manager, &name).unwrap();
    assert_eq!(problems(true), [""; 0]);
    assert_eq!(manager.read(&name, "changed").unwrap(), b"new");
}

pub(crate) fn skopeo_reads_what_is_pushed_and_the_reverse() {
    let registry = Registry::start();
    let sample = Sample::usual("a", Compression::None);
    let name = format!("{}/a:1", registry.address);
    let pushed = publish(&name, &sample);
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("skopeo").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let source = format!("docker://{name}");
    let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &source]);
    assert_eq!(Digest::of(&manifest).to_string(), pushed.digest);
    for (format, tag) in [("v2s2", "s2"), ("oci", "oci")] {
        let target = format!("docker://{}/theirs:{tag}", registry.address);
        let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&["copy", "--format", format, tls[0], tls[1], &source, &target]);
        let manager = Manager::new();
        let theirs = format!("{}/theirs:{tag}", registry.address);
        let (pulled, _) = pull(&manager, &theirs).unwrap();
        let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &target]);
        assert_eq!(pulled.digest, Digest::of(&manifest).to_string(), "{format}");
        assert_eq!(manager.read(&theirs, "added").unwrap(), b"a");
        let id = skopeo(&["inspect", "--config", "--raw", "--tls-verify=false", &target]);
        assert_eq!(pulled.image_id, Digest::of(&id).to_string(), "{format}");
    }
}

pub(crate) fn a_second_pull_moves_nothing_and_a_shared_layer_is_not_moved() {
    let registry = Registry::start();
    let proxy = Proxy::before(&registry);
    let base = tar(&[("base", &noise(1, 300_000))]);
    let a = Sample::new("a", Compression::None, std::slice::from_ref(&base));
    let b = Sample::new("b", Compression::None, &[base, tar(&[("b", b"x")])]);
    publish(&format!("{}/a", registry.address), &a);
    publish(&format!("{}/b", registry.address), &b);
    let manager = Manager::new();
    pull(&manager, &format!("{}/a", proxy.address)).unwrap();
    assert_eq!(proxy.seen("get /v2/a/blobs/").len(), 2, "configuration and layer");
    let (pulled, phases) = pull(&manager, &format!("{}/a", proxy.address)).unwrap();
    assert!(pulled.up_to_date);
    assert!(phases.iter().all(|(_, phase)| *phase != Phase::Downloading), "{phases:?}");
    assert_eq!(proxy.seen("get /v2/a/blobs/"), [""; 0]);
    let (_, phases) = pull(&manager, &format!("{}/b", proxy.address)).unwrap();
    assert_eq!(phases.iter().filter(|(_, phase)| *phase == Phase::AlreadyExists).count(), 1);
    assert_eq!(proxy.seen("get /v2/b/blobs/").len(), 2, "configuration and upper layer");
    assert_eq!(manager.snapshots.list().unwrap().len(), 2);
    // A layer that was lost is brought again, from what was kept.
    manager.remove(&format!("{}/b", proxy.address), false).unwrap();
    assert_eq!(manager.snapshots.list().unwrap().len(), 1);
}

/// A layer of a few MiB that does not compress.
fn large() -> Sample {
    let layers = [1, 2].map(|seed| tar(&[("large", &noise(seed, 3 << 20))]));
    Sample::new("large", Compression::None, &layers)
}

pub(crate) fn a_pull_that_is_given_up_goes_on_where_it_was() {
    let registry = Registry::start();
    let proxy = Proxy::before(&registry);
    publish(&format!("{}/large", registry.address), &large());
    let name = format!("{}/large", proxy.address);
    let manager = Manager::new();
    let fetched = || manager.ingests().iter().map(|(_, bytes)| bytes).sum::<u64>();
    // Not enough for one of the layers.
    proxy.allow(Some(2 << 20));
    let (answers, _kept) = mpsc::channel(1000);
    let images = manager.images.clone();
    let wanted = request(&name);
    let running = manager.runtime.spawn(async move { images.pull(wanted, answers).await });
    wait_for("a part is there", || fetched() > 1 << 20);
    running.abort();
    assert!(manager.run(running).unwrap_err().is_cancelled());
    assert_eq!(manager.list(&[]).unwrap(), []);
    wait_for("nothing staged is left", || manager.snapshots.list().unwrap().is_empty());
    assert!(fetched() > 1 << 20, "{:?}", manager.ingests());
    let manager = manager.again();
    proxy.allow(None);
    proxy.seen("");
    let (pulled, _) = pull(&manager, &name).unwrap();
    assert_eq!(pulled.image_id, large().id());
    let ranges = proxy.seen("range: bytes=");
    assert!(ranges.iter().any(|range| !range.ends_with("=0-")), "{ranges:?}");
    assert_eq!(manager.read(&name, "large").unwrap(), noise(2, 3 << 20));
    manager.assert_no_ingest();
    assert_eq!(manager.snapshots.list().unwrap().len(), 2);
}

pub(crate) fn two_pulls_of_one_image_share_the_work() {
    let registry = Registry::start();
    let proxy = Proxy::before(&registry);
    publish(&format!("{}/large:1", registry.address), &large());
    publish(&format!("{}/large:2", registry.address), &large());
    let manager = Manager::new();
    proxy.allow(Some(1 << 20));
    let (answers, mut one) = mpsc::channel(1000);
    let images = manager.images.clone();
    let name = format!("{}/large:1", proxy.address);
    let first = manager.runtime.spawn(async move { images.pull(request(&name), answers).await });
    // Lets more through as long as nothing is told: the second hears only of what comes after it.
    let began = |told: &mut mpsc::Receiver<v1::PullResponse>| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        manager.run(async {
            loop {
                let patience = std::time::Duration::from_millis(100);
                match tokio::time::timeout(patience, told.recv()).await {
                    Err(_) => proxy.allow(Some(64 << 10)),
                    Ok(Some(answer)) => {
                        if let Some(v1::pull_response::Event::Progress(told)) = answer.event
                            && told.phase() == Phase::Downloading
                        {
                            return true;
                        }
                    }
                    Ok(None) => return false,
                }
                assert!(std::time::Instant::now() < deadline);
            }
        })
    };
    if !began(&mut one) {
        panic!("the first ended: {:?}", manager.run(first));
    }
    let images = manager.images.clone();
    let name = format!("{}/large:2", proxy.address);
    let (answers, mut other) = mpsc::channel(1000);
    let second = manager.runtime.spawn(async move { images.pull(request(&name), answers).await });
    if !began(&mut other) {
        panic!("the second ended: {:?}", manager.run(second));
    }
    // The first goes away; the second gets it all.
    first.abort();
    proxy.allow(None);
    manager.run(second).unwrap().unwrap();
    let blobs = proxy.seen("get /v2/large/blobs/");
    assert_eq!(blobs.len(), 3, "{blobs:?}");
    assert_eq!(manager.names(), [format!("{}/large:2", proxy.address)]);
    assert_eq!(manager.snapshots.list().unwrap().len(), 2);
    manager.assert_no_ingest();
}

pub(crate) fn a_damaged_layer_makes_no_image() {
    let registry = Registry::start();
    let sample = large();
    let name = format!("{}/large", registry.address);
    let maker = Manager::new();
    maker.load(&sample.archive(&[&name])).unwrap();
    push(&maker, &name);
    let manifest = maker.inspect(&name).unwrap().manifest_json;
    let manifest: hull_specs_image::Manifest = serde_json::from_slice(&manifest).unwrap();
    let path = registry.blob(&manifest.layers[1].digest.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1 << 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let manager = Manager::new();
    let error = pull(&manager, &name).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::InvalidArgument), "{error:?}");
    assert_eq!(manager.list(&[]).unwrap(), []);
    wait_for("nothing staged is left", || manager.snapshots.list().unwrap().is_empty());
}

pub(crate) fn names_that_are_not_there_are_told_in_dockers_words() {
    let registry = Registry::start();
    let manager = Manager::new();
    publish(&format!("{}/a:1", registry.address), &Sample::usual("a", Compression::None));
    let name = format!("{}/a:2", registry.address);
    let error = pull(&manager, &name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let sentence = format!("manifest for {name} not found: manifest unknown: manifest unknown");
    assert_eq!(error.to_string(), sentence);
    let error = pull(&manager, "A:b").unwrap_err();
    assert!(error.to_string().starts_with("invalid reference format"), "{error}");
    let mut other = request(&format!("{}/a:1", registry.address));
    other.platform = "linux/amd64/x/y".into();
    assert_eq!(pull_all(&manager, other).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let error = push_all(&manager, "localhost:1/a", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "An image does not exist locally with the tag: localhost:1/a:latest"
    );
    manager.assert_empty();
}

pub(crate) fn all_tags_are_pushed_and_pulled() {
    let registry = Registry::start();
    let (one, other) = (Manager::new(), Manager::new());
    let repository = format!("{}/a", registry.address);
    let sample = Sample::usual("a", Compression::None);
    let tags = ["1", "2", "latest"].map(|tag| format!("{repository}:{tag}"));
    one.load(&sample.archive(&[&tags[0], &tags[1], &tags[2], "other:1"])).unwrap();
    assert_eq!(push_all(&one, &repository, true).unwrap().0.len(), 3);
    let all = v1::PullRequest { all_tags: true, ..request(&repository) };
    assert_eq!(pull_all(&other, all).unwrap().0.len(), 3);
    assert_eq!(other.names(), tags);
    let all = v1::PullRequest { all_tags: true, ..request(&tags[0]) };
    let error = pull_all(&other, all).unwrap_err();
    assert_eq!(error.message(), "tag can't be used with --all-tags/-a");
}
