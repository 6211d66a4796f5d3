//! Transfers through registries that cut, stall, lie about lengths and want to be left alone.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hull_manager_core::{ErrorKind, Result};
use hull_manager_registry::{BlobEvent, Credentials, Registry, Repository, Settings};
use hull_specs_image::{Descriptor, Digest, media_type};

use crate::{
    lab::{Certificate, Lab, Reply, Request},
    sample,
};

fn content() -> Vec<u8> {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    CONTENT.get_or_init(|| sample::noise(7, 400_000)).clone()
}

fn descriptor() -> Descriptor {
    Descriptor::of(media_type::LAYER_GZIP, &content())
}

/// The byte that a request wants first.
fn first(request: &Request) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// An honest answer to a request for a blob.
fn serve(request: &Request) -> Reply {
    let content = content();
    match first(request) {
        None => Reply::new(200, content),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            Reply::new(206, &content[from..]).header("Content-Range", range)
        }
    }
}

async fn registry(
    lab: &mut Lab,
    settings: impl FnOnce(&mut Settings),
    script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Repository {
    lab.serve("https://reg.site.test:443", Certificate::Good, script).await;
    let mut chosen = lab.settings();
    settings(&mut chosen);
    let reference = "reg.site.test/a:1".parse().unwrap();
    Registry::new(chosen).unwrap().repository(&reference, &Credentials::Anonymous).unwrap()
}

/// All bytes, and how often it was tried again.
async fn fetch(repository: &Repository, offset: usize) -> Result<(Vec<u8>, usize)> {
    let mut bytes = content()[..offset].to_vec();
    let mut retries = 0;
    let mut blob = repository.blob(&descriptor(), offset as u64);
    while let Some(event) = blob.next().await? {
        match event {
            BlobEvent::Data(piece) => bytes.extend_from_slice(&piece),
            BlobEvent::Retrying(_) => retries += 1,
        }
    }
    Ok((bytes, retries))
}

#[tokio::test]
async fn a_blob_that_is_cut_anywhere_goes_on_where_it_was() {
    for seed in 0..4_usize {
        let mut lab = Lab::new().await;
        let count = AtomicUsize::new(0);
        let repository = registry(&mut lab, many_retries, move |r| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let mut reply = serve(r);
            if number < 20 {
                // Also after nothing, and after all but one byte.
                let noise = sample::noise((seed * 100 + number) as u64, 2);
                let length = reply.body.len();
                reply.cut = Some(match number {
                    3 => 0,
                    19 => length - 1,
                    _ => usize::from(noise[0]) * 256 * usize::from(noise[1]) / 256 % length,
                });
            }
            reply
        })
        .await;
        let (bytes, retries) = fetch(&repository, seed * 1000).await.unwrap();
        assert_eq!(Digest::of(&bytes), descriptor().digest);
        assert_eq!(retries, 20);
        let seen = lab.seen();
        let resumed = seen.iter().filter(|request| first(request).is_some()).count();
        assert!(resumed >= 15, "{resumed} of {}", seen.len());
    }
}

#[tokio::test]
async fn a_registry_that_knows_no_ranges_is_read_over() {
    let mut lab = Lab::new().await;
    let count = AtomicUsize::new(0);
    let repository = registry(
        &mut lab,
        |_| {},
        move |_| {
            let cut = (count.fetch_add(1, Ordering::Relaxed) == 0).then_some(250_000);
            Reply { cut, ..Reply::new(200, content()) }
        },
    )
    .await;
    let (bytes, retries) = fetch(&repository, 100_000).await.unwrap();
    assert_eq!((Digest::of(&bytes), retries), (descriptor().digest, 1));
}

#[tokio::test]
async fn cuts_without_end_are_borne_for_a_while_only() {
    let mut lab = Lab::new().await;
    let repository = registry(&mut lab, |_| {}, |r| Reply { cut: Some(1), ..serve(r) }).await;
    let error = fetch(&repository, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(lab.seen().iter().filter(|request| request.method == "GET").count(), 6);
}

#[tokio::test]
async fn wrong_lengths_and_ranges_are_refused() {
    type Script = fn(&Request) -> Reply;
    let scripts: &[(&str, usize, Script)] = &[
        ("shorter", 0, |_| Reply::new(200, &content()[1..])),
        ("longer", 0, |_| Reply::new(200, [content(), vec![0]].concat())),
        ("longer without a length", 0, |_| {
            let mut body = format!("{:x}\r\n", 400_001).into_bytes();
            body.extend(content());
            body.extend(b"x\r\n0\r\n\r\n");
            Reply::new(200, body).header("Transfer-Encoding", "chunked")
        }),
        ("another range", 100, |r| {
            let body = &content()[99..];
            let _ = r;
            Reply::new(206, body).header("Content-Range", "bytes 99-399999/400000")
        }),
        ("a range nobody asked for", 0, |_| {
            Reply::new(206, content()).header("Content-Range", "bytes 0-399999/400000")
        }),
        ("a range of something larger", 100, |_| {
            Reply::new(206, &content()[100..]).header("Content-Range", "bytes 100-399999/500000")
        }),
        ("no range", 100, |_| Reply::new(206, &content()[100..])),
        ("compressed", 0, |r| serve(r).header("Content-Encoding", "gzip")),
    ];
    for (name, offset, script) in scripts {
        let mut lab = Lab::new().await;
        let repository = registry(&mut lab, |_| {}, script).await;
        let error = fetch(&repository, *offset).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{name}: {error}");
    }
}

#[tokio::test]
async fn whoever_is_too_busy_is_asked_again_when_it_says() {
    for (asked, again) in [("0", true), ("1", true), ("3600", false)] {
        let mut lab = Lab::new().await;
        let count = AtomicUsize::new(0);
        let repository = registry(
            &mut lab,
            |_| {},
            move |r| match count.fetch_add(1, Ordering::Relaxed) {
                0 => Reply::new(429, "").header("Retry-After", asked),
                1 => Reply::new(503, ""),
                _ => serve(r),
            },
        )
        .await;
        let began = std::time::Instant::now();
        let result = fetch(&repository, 0).await;
        assert_eq!(result.is_ok(), again, "{asked}: {result:?}");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        } else {
            assert!(began.elapsed().as_secs() >= asked.parse().unwrap());
        }
    }
}

#[tokio::test]
async fn whoever_stalls_or_trickles_is_left() {
    let short = |settings: &mut Settings| {
        settings.limits.retries = 1;
        settings.limits.idle = Duration::from_millis(300);
        settings.limits.trickle = Duration::from_millis(600);
        settings.limits.document = Duration::from_millis(600);
    };
    // One byte each 20 ms would take two hours, one each 2 s is silence.
    for pause_ms in [20, 2000] {
        let mut lab = Lab::new().await;
        let drip = Some(Duration::from_millis(pause_ms));
        let repository = registry(&mut lab, short, move |r| Reply { drip, ..serve(r) }).await;
        let began = std::time::Instant::now();
        let error = fetch(&repository, 0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let error = repository.resolve().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test]
async fn documents_must_have_their_digest_and_end() {
    let sample = sample::image(1, &[10]);
    let other = sample::image(2, &[10]);
    let by_digest = format!("reg.site.test/a@{}", sample.descriptor.digest);
    let typed = |bytes: &[u8]| Reply::new(200, bytes).header("Content-Type", media_type::MANIFEST);
    let endless = vec![b' '; 5 << 20];
    for (name, reference, reply, kind) in [
        ("another one", by_digest.as_str(), typed(&other.manifest), ErrorKind::DataLoss),
        (
            "another one by tag",
            "reg.site.test/a:1",
            typed(&other.manifest)
                .header("Docker-Content-Digest", sample.descriptor.digest.to_string()),
            ErrorKind::DataLoss,
        ),
        ("too large", "reg.site.test/a:1", typed(&endless), ErrorKind::ResourceExhausted),
        (
            "an index as a manifest",
            "reg.site.test/a:1",
            Reply::new(200, sample.manifest.clone()).header("Content-Type", media_type::INDEX),
            ErrorKind::InvalidArgument,
        ),
        (
            "cut",
            "reg.site.test/a:1",
            Reply { cut: Some(9), ..typed(&sample.manifest) },
            ErrorKind::Unavailable,
        ),
        (
            "schema 1",
            "reg.site.test/a:1",
            Reply::new(200, r#"{"schemaVersion":1}"#),
            ErrorKind::Unimplemented,
        ),
    ] {
        let mut lab = Lab::new().await;
        lab.serve("https://reg.site.test:443", Certificate::Good, move |_| reply.clone()).await;
        let registry = Registry::new(lab.settings()).unwrap();
        let repository =
            registry.repository(&reference.parse().unwrap(), &Credentials::Anonymous).unwrap();
        let error = repository.resolve().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

#[tokio::test]
async fn an_index_within_an_index_within_an_index_is_refused() {
    let mut lab = Lab::new().await;
    let image = sample::image(1, &[10]);
    let platform = Some("linux/amd64".parse().unwrap());
    let mut documents = vec![(media_type::MANIFEST, image.manifest.clone())];
    for _ in 0..4 {
        let (kind, bytes) = documents.last().unwrap();
        let entry = Descriptor { platform: Clone::clone(&platform), ..Descriptor::of(kind, bytes) };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
        documents.push((media_type::INDEX, index.to_string().into_bytes()));
    }
    let served = documents.clone();
    let repository = registry(
        &mut lab,
        |_| {},
        move |r| {
            let found =
                served.iter().find(|(_, bytes)| r.path().ends_with(&Digest::of(bytes).to_string()));
            let (kind, bytes) = found.unwrap_or(&served[0]);
            Reply::new(200, bytes.clone()).header("Content-Type", *kind)
        },
    )
    .await;
    for (depth, (_, bytes)) in documents.iter().enumerate() {
        let reference = repository.reference().with_digest(Digest::of(bytes));
        let registry = Registry::new(lab.settings()).unwrap();
        let repository = registry.repository(&reference, &Credentials::Anonymous).unwrap();
        let image = repository.image(&"linux/amd64".parse().unwrap()).await;
        assert_eq!(image.is_ok(), depth <= 2, "{depth}: {image:?}");
    }
}

#[tokio::test]
async fn an_upload_that_fails_goes_on_where_the_registry_is() {
    for knows_where in [true, false] {
        let mut lab = Lab::new().await;
        let stored = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&stored);
        let failures = AtomicUsize::new(0);
        let script = move |request: &Request| {
            let mut stored = store.lock().unwrap();
            let at = |reply: Reply| reply.header("Location", "/v2/a/blobs/uploads/1");
            match request.method.as_str() {
                "HEAD" => Reply::new(404, ""),
                "POST" => {
                    stored.clear();
                    at(Reply::new(202, ""))
                }
                "PATCH" => {
                    let range = request.header("content-range").unwrap_or_default();
                    if !range.starts_with(&format!("{}-", stored.len())) {
                        return Reply::new(416, "");
                    }
                    // The second piece gets lost half-way, once.
                    if !stored.is_empty() && failures.fetch_add(1, Ordering::Relaxed) == 0 {
                        stored.extend_from_slice(&request.body[..request.body.len() / 2]);
                        return Reply::new(503, "");
                    }
                    stored.extend_from_slice(&request.body);
                    at(Reply::new(202, "")).header("Range", format!("0-{}", stored.len() - 1))
                }
                "GET" if knows_where => {
                    at(Reply::new(204, "")).header("Range", format!("0-{}", stored.len() - 1))
                }
                "PUT" if request.target.contains("digest=sha256") => {
                    stored.extend_from_slice(&request.body);
                    Reply::new(201, "")
                }
                _ => Reply::new(404, ""),
            }
        };
        let chunk = |settings: &mut Settings| settings.limits.upload_chunk_bytes = 100_000;
        let repository = registry(&mut lab, chunk, script).await;
        let file = sample::file(&content());
        repository.push_blob(&descriptor(), file, None, |_| {}).await.unwrap();
        assert!(*stored.lock().unwrap() == content());
        let sent: usize = lab.seen().iter().map(|request| request.body.len()).sum();
        assert_eq!(sent, if knows_where { 450_000 } else { 600_000 });
    }
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_cancelled() {
    let mut lab = Lab::new().await;
    let script = |request: &Request| match request.method.as_str() {
        "POST" => Reply::new(202, "").header("Location", "/v2/a/blobs/uploads/1?state=x"),
        "PUT" => Reply::new(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#),
        "DELETE" => Reply::new(204, ""),
        _ => Reply::new(404, ""),
    };
    let repository = registry(&mut lab, |_| {}, script).await;
    let file = sample::file(&content());
    let error = repository.push_blob(&descriptor(), file, None, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("digest invalid"), "{error}");
    let seen = lab.seen();
    let put = seen.iter().find(|request| request.method == "PUT").unwrap();
    assert!(
        put.target.starts_with("/v2/a/blobs/uploads/1?state=x&digest=sha256"),
        "{}",
        put.target
    );
    assert!(seen.iter().any(|request| request.method == "DELETE"));
}

#[tokio::test]
async fn lists_go_on_and_end() {
    let mut lab = Lab::new().await;
    let repository = registry(
        &mut lab,
        |_| {},
        |request| {
            let page = Reply::new(200, r#"{"tags":["t"]}"#);
            match request.target.as_str() {
                "/v2/a/tags/list?n=1000" => {
                    page.header("Link", "</v2/a/tags/list?last=t>; rel=\"next\"")
                }
                "/v2/a/tags/list?last=t" => page,
                _ => page.header("Link", format!("<{}x>; rel=\"next\"", request.target)),
            }
        },
    )
    .await;
    assert_eq!(repository.tags().await.unwrap(), ["t", "t"]);
    let registry = Registry::new(lab.settings()).unwrap();
    let endless =
        registry.repository(&"reg.site.test/b:1".parse().unwrap(), &Credentials::Anonymous);
    let error = endless.unwrap().tags().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
}

#[tokio::test]
async fn manifests_are_put_again_after_a_failure() {
    let mut lab = Lab::new().await;
    let count = AtomicUsize::new(0);
    let repository = registry(
        &mut lab,
        |_| {},
        move |_| Reply::new(if count.fetch_add(1, Ordering::Relaxed) == 0 { 502 } else { 201 }, ""),
    )
    .await;
    repository.put_manifest("1", media_type::MANIFEST, Bytes::from_static(b"{}")).await.unwrap();
}

fn many_retries(settings: &mut Settings) {
    settings.limits.retries = 30;
    settings.limits.backoff_max = Duration::from_millis(20);
}
