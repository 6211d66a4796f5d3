use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use hull_manager_core::ErrorKind;
use hull_specs_image::{Descriptor, Digest, Index, media_type};

use crate::{Claim, Content};

struct Fixture {
    directory: tempfile::TempDir,
    content: Content,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let content = Content::open(&directory.path().join("content")).unwrap();
    Fixture { directory, content }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

impl Fixture {
    fn claim(&self, digest: Digest) -> Claim {
        run(self.content.claim(digest))
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let path = self.directory.path().join("content").join(directory);
        let entries = fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn age(&self, path: &str, seconds: u64) {
        let path = self.directory.path().join("content").join(path);
        let then = SystemTime::now() - Duration::from_secs(seconds);
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }
}

#[test]
fn a_blob_is_there_once_whole_and_private() {
    let f = fixture();
    let digest = Digest::of(b"hello");
    let mut ingest = f.claim(digest).open(5, |_| unreachable!()).unwrap();
    ingest.write(b"hel").unwrap();
    assert!(!f.content.has(&digest));
    ingest.write(b"lo").unwrap();
    ingest.commit().unwrap();
    assert_eq!(f.content.read(&digest, 5).unwrap(), b"hello");
    assert_eq!(f.content.read(&digest, 4).unwrap_err().kind(), ErrorKind::ResourceExhausted);
    assert_eq!(fs::metadata(f.content.path(&digest)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(f.names("ingest"), [""; 0]);
    let lease = f.content.lease();
    assert_eq!(f.content.add(b"hello", &lease).unwrap(), digest);
    assert_eq!(f.names("blobs/sha256"), [digest.hex()]);
}

#[test]
fn what_is_not_what_its_digest_says_is_refused_and_forgotten() {
    let f = fixture();
    let digest = Digest::of(b"hello");
    for wrong in [&b"hellx"[..], b"hello world"] {
        let mut ingest = f.claim(digest).open(5, |_| Ok(())).unwrap();
        let error = ingest.write(wrong).and_then(|()| ingest.commit()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
        assert!(!f.content.has(&digest) && f.names("ingest").is_empty());
    }
    let mut short = f.claim(digest).open(5, |_| Ok(())).unwrap();
    short.write(b"hell").unwrap();
    assert_eq!(short.commit().unwrap_err().kind(), ErrorKind::DataLoss);
    assert_eq!(f.names("ingest"), [digest.hex()], "the next one goes on");
}

#[test]
fn an_unfinished_blob_goes_on_where_it_stopped_also_in_another_manager() {
    let f = fixture();
    let digest = Digest::of(b"hello");
    let mut ingest = f.claim(digest).open(5, |_| Ok(())).unwrap();
    ingest.write(b"hel").unwrap();
    drop(ingest);
    let again = Content::open(&f.directory.path().join("content")).unwrap();
    let mut replayed = Vec::new();
    let mut ingest = run(again.claim(digest))
        .open(5, |piece| {
            replayed.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    assert_eq!((ingest.offset(), &*replayed), (3, &b"hel"[..]));
    ingest.write(b"lo").unwrap();
    ingest.commit().unwrap();
    assert!(again.has(&digest));
    // One that is longer than it may be begins anew.
    let other = Digest::of(b"x");
    fs::write(f.directory.path().join("content/ingest").join(other.hex()), b"long").unwrap();
    assert_eq!(f.claim(other).open(1, |_| unreachable!()).unwrap().offset(), 0);
}

#[test]
fn a_second_writer_waits_and_finds_the_blob() {
    let f = fixture();
    let digest = Digest::of(b"hello");
    run(async {
        let first = f.content.claim(digest).await;
        let second = {
            let content = f.content.clone();
            async move {
                let _claim = content.claim(digest).await;
                content.has(&digest)
            }
        };
        let work = async {
            let mut ingest = first.open(5, |_| Ok(())).unwrap();
            tokio::task::yield_now().await;
            ingest.write(b"hello").unwrap();
            ingest.commit().unwrap();
        };
        // The second is asked first, and still sees what the first did.
        assert!(tokio::join!(second, work).0);
    });
    assert!(!f.content.is_busy(), "no lock is left behind");
}

#[test]
fn only_what_nobody_refers_to_or_holds_is_collected() {
    let f = fixture();
    let lease = f.content.lease();
    let [kept, held, gone] = [b"kept", b"held", b"gone"].map(|b| f.content.add(b, &lease).unwrap());
    drop(lease);
    let lease = f.content.lease();
    lease.add(held);
    let second = f.content.lease();
    second.add(held);
    drop(second);
    let keep = || Ok(HashSet::from([kept]));
    let collected = f.content.collect(keep, |_, age| age >= Duration::from_secs(60)).unwrap();
    assert_eq!(collected.blobs, 0, "too young");
    let collected = f.content.collect(keep, |_, _| true).unwrap();
    assert_eq!((collected.blobs, collected.bytes), (1, 4));
    assert!(f.content.has(&kept) && f.content.has(&held) && !f.content.has(&gone));
    // Leased during the collection and let go before its end: somebody may refer to it now.
    drop(lease);
    let touch = || {
        f.content.lease().add(held);
        Ok(HashSet::new())
    };
    f.content.collect(touch, |_, _| true).unwrap();
    assert!(f.content.has(&held) && !f.content.has(&kept));
    f.content.collect(|| Ok(HashSet::new()), |_, _| true).unwrap();
    assert!(!f.content.has(&held));
}

#[test]
fn unfinished_blobs_are_kept_a_day() {
    let f = fixture();
    let [young, old, used] = [b"young", b"olddd", b"usedd"].map(|b| Digest::of(b));
    for digest in [young, old, used] {
        f.claim(digest).open(5, |_| Ok(())).unwrap().write(b"xyz").unwrap();
    }
    for digest in [old, used] {
        f.age(&format!("ingest/{}", digest.hex()), 25 * 3600);
    }
    let _claim = f.claim(used);
    let collected = f.content.collect(|| Ok(HashSet::new()), |_, _| true).unwrap();
    assert_eq!((collected.blobs, collected.bytes), (0, 3));
    let mut left = f.names("ingest");
    left.sort();
    let mut expected = [young.hex(), used.hex()];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn a_blob_without_a_name_is_gone_with_who_wrote_it() {
    let f = fixture();
    let mut blob = f.content.create().unwrap();
    blob.write(b"half").unwrap();
    assert_eq!(f.names("ingest").len(), 1);
    // As after SIGKILL: its writer was not dropped.
    Content::open(&f.directory.path().join("content")).unwrap();
    assert_eq!(f.names("ingest").len(), 0);
    drop(blob);
    let lease = f.content.lease();
    let mut blob = f.content.create().unwrap();
    blob.write(b"whole").unwrap();
    assert_eq!(blob.finish(&lease).unwrap(), (Digest::of(b"whole"), 5));
    assert!(f.content.has(&Digest::of(b"whole")) && f.names("ingest").is_empty());
}

#[test]
fn check_finds_damage_and_strays_and_repairs() {
    let f = fixture();
    let lease = f.content.lease();
    let good = f.content.add(b"good", &lease).unwrap();
    let bad = f.content.add(b"bad", &lease).unwrap();
    fs::write(f.content.path(&bad), b"bat").unwrap();
    assert_eq!(f.content.read(&bad, 9).unwrap_err().kind(), ErrorKind::DataLoss);
    fs::write(f.content.path(&bad).with_file_name("stray"), b"").unwrap();
    let mut read = 0;
    let found = f.content.check(false, |bytes| read += bytes).unwrap();
    assert_eq!((found.len(), read), (2, 7), "{found:?}");
    assert!(found.iter().all(|finding| finding.repaired.is_empty()));
    let found = f.content.check(true, |_| ()).unwrap();
    assert!(found.iter().all(|finding| finding.repaired == "removed"), "{found:?}");
    assert_eq!(f.content.check(false, |_| ()).unwrap(), []);
    assert_eq!(f.names("blobs/sha256"), [good.hex()]);
}

#[test]
fn the_layout_is_one_that_others_read() {
    let f = fixture();
    let root = f.directory.path().join("content");
    let layout: serde_json::Value =
        serde_json::from_slice(&fs::read(root.join("oci-layout")).unwrap()).unwrap();
    assert_eq!(layout, serde_json::json!({"imageLayoutVersion": "1.0.0"}));
    let manifest = Descriptor::of(media_type::MANIFEST, b"{}");
    f.content.write_index(|| Ok(vec![manifest.clone()])).unwrap();
    let index: Index = serde_json::from_slice(&fs::read(root.join("index.json")).unwrap()).unwrap();
    assert_eq!(index.manifests, std::slice::from_ref(&manifest));
    assert!(f.content.index_lists(vec![manifest]) && !f.content.index_lists(vec![]));
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert_eq!(Content::open(&root).err().unwrap().kind(), ErrorKind::FailedPrecondition);
}
