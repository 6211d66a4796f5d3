//! Debian's docker-registry, with skopeo as the other client.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hull_manager_core::ErrorKind;
use hull_manager_registry::{BlobEvent, Credentials, Document, Pushed, Registry, Repository};
use hull_specs_image::{Digest, Reference, media_type};

use crate::{sample, sample::Sample, settings};

/// bcrypt of `opensesame`.
const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi\n";

/// A docker-registry that ends with the test.
struct Debian {
    child: Child,
    address: String,
    root: tempfile::TempDir,
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Debian {
    fn start(more: impl Fn(&Path) -> String) -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:0\n{}",
            root.path().join("data").display(),
            more(root.path()),
        );
        let path = root.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts (make deps)");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let address = loop {
            let line =
                lines.next().unwrap_or_else(|| panic!("docker-registry ended: {seen}")).unwrap();
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
            seen += &line;
        };
        // Its log must go on being read, or it stands still.
        std::thread::spawn(move || for _ in lines.map_while(Result::ok) {});
        Self { child, address, root }
    }

    fn with_password() -> Self {
        Self::start(|root| {
            let path = root.join("htpasswd");
            fs::write(&path, HTPASSWD).unwrap();
            format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", path.display())
        })
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }
}

fn repository(reference: &Reference, credentials: &Credentials) -> Repository {
    Registry::new(settings()).unwrap().repository(reference, credentials).unwrap()
}

fn alice() -> Credentials {
    Credentials::new("alice", "opensesame", "", "")
}

async fn push(repository: &Repository, sample: &Sample) {
    for (descriptor, bytes) in &sample.blobs {
        let pushed = repository.push_blob(descriptor, sample::file(bytes), None, |_| {}).await;
        assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    }
    let name = repository.reference().tag().unwrap();
    let manifest = Bytes::from(sample.manifest.clone());
    let digest = repository.put_manifest(name, media_type::MANIFEST, manifest).await.unwrap();
    assert_eq!(digest, sample.descriptor.digest);
}

async fn pull(repository: &Repository, sample: &Sample) {
    let image = repository.image(&"linux/amd64".parse().unwrap()).await.unwrap();
    assert_eq!(image.bytes, sample.manifest);
    assert_eq!(image.root.descriptor, sample.descriptor);
    for (descriptor, bytes) in &sample.blobs {
        for offset in [0, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
            let mut found = bytes[..offset].to_vec();
            let mut blob = repository.blob(descriptor, offset as u64);
            while let Some(event) = blob.next().await.unwrap() {
                match event {
                    BlobEvent::Data(piece) => found.extend_from_slice(&piece),
                    BlobEvent::Retrying(why) => panic!("{why}"),
                }
            }
            assert_eq!(Digest::of(&found), descriptor.digest, "from {offset}");
        }
    }
}

fn skopeo(words: &[&str]) {
    let output = Command::new("skopeo").args(words).output().expect("skopeo starts (make deps)");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn what_skopeo_pushed_is_pulled_and_the_reverse() {
    for (debian, credentials, user) in [
        (Debian::start(|_| String::new()), Credentials::Anonymous, None),
        (Debian::with_password(), alice(), Some("alice:opensesame")),
    ] {
        let theirs = sample::image(1, &[10, 300_000]);
        let from = debian.root.path().join("from");
        sample::layout(&theirs, &from);
        let reference = debian.reference("theirs/a:1");
        let (source, target) = (format!("oci:{}", from.display()), format!("docker://{reference}"));
        let mut words =
            vec!["copy", "--preserve-digests", "--dest-tls-verify=false", &source, &target];
        words.extend(user.iter().flat_map(|user| ["--dest-creds", user]));
        skopeo(&words);
        let repository_ = repository(&reference, &credentials);
        pull(&repository_, &theirs).await;
        assert_eq!(repository_.head().await.unwrap().unwrap(), theirs.descriptor);

        let ours = sample::image(2, &[1, 1_000_000]);
        let reference = debian.reference("ours:2");
        push(&repository(&reference, &credentials), &ours).await;
        let to = debian.root.path().join("to");
        let (source, target) = (format!("docker://{reference}"), format!("oci:{}", to.display()));
        let mut words =
            vec!["copy", "--preserve-digests", "--src-tls-verify=false", &source, &target];
        words.extend(user.iter().flat_map(|user| ["--src-creds", user]));
        skopeo(&words);
        for (descriptor, bytes) in &ours.blobs {
            let path = to.join("blobs/sha256").join(descriptor.digest.hex());
            assert_eq!(&fs::read(path).unwrap(), bytes);
        }
    }
}

#[tokio::test]
async fn blobs_are_uploaded_in_pieces_mounted_and_found() {
    let debian = Debian::start(|_| String::new());
    let ours = sample::image(3, &[1_000_001]);
    let mut settings = settings();
    settings.limits.upload_chunk_bytes = 300_000;
    let registry = Registry::new(settings).unwrap();
    let at =
        |name: &str| registry.repository(&debian.reference(name), &Credentials::Anonymous).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = &ours.blobs[1];
    let progress = {
        let seen = Arc::clone(&seen);
        move |bytes| seen.lock().unwrap().push(bytes)
    };
    let a = at("a:1");
    assert!(!a.has_blob(&layer.0).await.unwrap());
    let pushed = a.push_blob(&layer.0, sample::file(&layer.1), None, progress).await.unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    assert_eq!(seen.lock().unwrap().last(), Some(&1_000_001));
    assert!(seen.lock().unwrap().len() >= 4);
    assert!(a.has_blob(&layer.0).await.unwrap());
    let again = a.push_blob(&layer.0, sample::file(&layer.1), None, |_| {}).await.unwrap();
    assert_eq!(again, Pushed::Exists);
    let b = at("b:1");
    let mounted = b.push_blob(&layer.0, sample::file(b""), Some("a"), |_| {}).await.unwrap();
    assert_eq!(mounted, Pushed::Mounted);
    let from_nowhere = &ours.blobs[0];
    let sent = b
        .push_blob(&from_nowhere.0, sample::file(&from_nowhere.1), Some("none"), |_| {})
        .await
        .unwrap();
    assert_eq!(sent, Pushed::Uploaded);
    push_manifest_and_index(&b, &ours).await;
    // A file that is not what the descriptor says is not taken.
    let wrong = sample::noise(9, 5000);
    let descriptor = hull_specs_image::Descriptor::of(media_type::LAYER_GZIP, &wrong);
    let error = a.push_blob(&descriptor, sample::file(&[0; 5000]), None, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
}

async fn push_manifest_and_index(repository: &Repository, sample: &Sample) {
    let digest = sample.descriptor.digest;
    let bytes = Bytes::from(sample.manifest.clone());
    repository
        .put_manifest(&digest.to_string(), media_type::MANIFEST, bytes.clone())
        .await
        .unwrap();
    let other = Digest::of(b"").to_string();
    let refused = repository.put_manifest(&other, media_type::MANIFEST, bytes);
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::DataLoss);
    let index = Bytes::from(sample::index(&[("linux/amd64", sample)]));
    repository.put_manifest("1", media_type::INDEX, index.clone()).await.unwrap();
    let root = repository.resolve().await.unwrap();
    assert!(matches!(root.document, Document::Index(_)) && root.bytes == index);
    let image = repository.image(&"linux/amd64".parse().unwrap()).await.unwrap();
    assert_eq!((image.descriptor.digest, image.root), (digest, root));
    let none = repository.image(&"linux/s390x".parse().unwrap()).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let debian = Debian::start(|_| String::new());
    let ours = sample::image(4, &[1]);
    push(&repository(&debian.reference("list/one:0"), &Credentials::Anonymous), &ours).await;
    let two = repository(&debian.reference("list/two:0"), &Credentials::Anonymous);
    push(&two, &ours).await;
    for tag in ["b", "a"] {
        let bytes = Bytes::from(ours.manifest.clone());
        two.put_manifest(tag, media_type::MANIFEST, bytes).await.unwrap();
    }
    let mut tags = two.tags().await.unwrap();
    tags.sort();
    assert_eq!(tags, ["0", "a", "b"]);
    let registry = Registry::new(settings()).unwrap();
    let anonymous = Credentials::Anonymous;
    let names = registry.catalog(&debian.address, &anonymous, 10).await.unwrap();
    assert_eq!(names, ["list/one", "list/two"]);
    assert_eq!(registry.catalog(&debian.address, &anonymous, 1).await.unwrap(), ["list/one"]);
    let found = registry.search(&format!("{}/TWO", debian.address), 5, &anonymous).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, format!("{}/list/two", debian.address));
    let none = repository(&debian.reference("list/three:0"), &anonymous);
    assert_eq!(none.tags().await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = none.resolve().await.unwrap_err().to_string();
    assert!(error.contains("manifest for ") && error.contains("not found"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_right_ones_taken() {
    let debian = Debian::with_password();
    let registry = Registry::new(settings()).unwrap();
    assert!(registry.check_credentials(&debian.address, &alice()).await.unwrap().is_none());
    for wrong in [Credentials::new("alice", "opensesam", "", ""), Credentials::Anonymous] {
        let error = registry.check_credentials(&debian.address, &wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let repository = repository(&debian.reference("a:1"), &wrong);
        let error = repository.resolve().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().starts_with("pull access denied for "), "{error}");
        let blob = &sample::image(5, &[1]).blobs[0];
        let error = repository.push_blob(&blob.0, sample::file(&blob.1), None, |_| {}).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
