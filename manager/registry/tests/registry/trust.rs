//! Certificates, on every path on which something is fetched or sent.

use bytes::Bytes;
use hull_manager_core::Result;
use hull_manager_registry::{Credentials, Registry, Settings};
use hull_specs_image::media_type;

use crate::{
    lab::{Certificate, Lab, Reply, Request},
    sample,
};

const REGISTRY: &str = "https://reg.site.test:443";
const TOKENS: &str = "https://auth.site.test:443";
const ELSEWHERE: &str = "https://cdn.test:443";

fn script(request: &Request) -> Reply {
    let sample = sample::image(1, &[100]);
    if request.header("authorization").is_none() {
        let challenge = "Bearer realm=\"https://auth.site.test/token\"";
        return Reply::new(401, "").header("WWW-Authenticate", challenge);
    }
    match request.method.as_str() {
        "GET" if request.path().contains("/manifests/") => {
            Reply::new(200, sample.manifest).header("Content-Type", media_type::MANIFEST)
        }
        "GET" => Reply::new(307, "").header("Location", "https://cdn.test/blob"),
        "POST" => Reply::new(202, "").header("Location", "https://cdn.test/upload"),
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(404, ""),
    }
}

fn elsewhere(request: &Request) -> Reply {
    match request.method.as_str() {
        "GET" => Reply::new(200, sample::image(1, &[100]).blobs[1].1.clone()),
        _ => Reply::new(201, ""),
    }
}

async fn world(registry: Certificate, tokens: Certificate, other: Certificate) -> Lab {
    let mut lab = Lab::new().await;
    lab.serve(REGISTRY, registry, script).await;
    lab.serve(TOKENS, tokens, |_| Reply::new(200, r#"{"token":"t"}"#)).await;
    lab.serve(ELSEWHERE, other, elsewhere).await;
    lab
}

/// Resolve, blob, push of a blob, push of a manifest, login: whether each goes well.
async fn paths(settings: Settings) -> [Result<()>; 5] {
    let registry = Registry::new(settings).unwrap();
    let reference = "reg.site.test/a:1".parse().unwrap();
    let credentials = Credentials::new("u", "p", "", "");
    let talk = || registry.repository(&reference, &credentials).unwrap();
    let sample = sample::image(1, &[100]);
    let layer = &sample.blobs[1];
    let manifest = Bytes::from(sample.manifest.clone());
    [
        talk().resolve().await.map(drop),
        talk().small_blob(&layer.0, 1000).await.map(drop),
        talk().push_blob(&layer.0, sample::file(&layer.1), None, |_| {}).await.map(drop),
        talk().put_manifest("1", media_type::MANIFEST, manifest).await.map(drop),
        talk().resolve().await.map(drop),
    ]
}

#[tokio::test]
async fn a_bad_certificate_is_refused_on_every_path() {
    use Certificate::*;
    let all = [true; 5];
    for (registry, tokens, other, expected) in [
        (Good, Good, Good, all),
        (Expired, Good, Good, [false; 5]),
        (OtherHost, Good, Good, [false; 5]),
        (SelfSigned, Good, Good, [false; 5]),
        (Stranger, Good, Good, [false; 5]),
        (Good, Expired, Good, [false; 5]),
        (Good, OtherHost, Good, [false; 5]),
        (Good, SelfSigned, Good, [false; 5]),
        (Good, Stranger, Good, [false; 5]),
        // Only blobs come from there and go there.
        (Good, Good, Expired, [true, false, false, true, true]),
        (Good, Good, OtherHost, [true, false, false, true, true]),
        (Good, Good, SelfSigned, [true, false, false, true, true]),
        (Good, Good, Stranger, [true, false, false, true, true]),
    ] {
        let lab = world(registry, tokens, other).await;
        let results = paths(lab.settings()).await;
        let name = format!("{registry:?} {tokens:?} {other:?}");
        assert_eq!(results.each_ref().map(Result::is_ok), expected, "{name}: {results:?}");
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert!(error.to_string().contains("certificate"), "{name}: {error}");
        }
        for (place, certificate) in [(REGISTRY, registry), (TOKENS, tokens), (ELSEWHERE, other)] {
            let asked = lab.world_saw(place);
            assert!(!asked || certificate == Good, "{name}: {place} was spoken to");
            assert!(asked || expected != all, "{name}: {place} was not asked");
        }
    }
}

#[tokio::test]
async fn an_insecure_registry_is_one_by_name_and_nobody_else_with_it() {
    let lab = world(Certificate::SelfSigned, Certificate::Good, Certificate::SelfSigned).await;
    let mut settings = lab.settings();
    settings.insecure = vec!["reg.site.test".into()];
    let results = paths(settings).await;
    let good = results.each_ref().map(Result::is_ok);
    assert_eq!(good, [true, false, false, true, true], "{results:?}");
}

async fn resolves(lab: &Lab, settings: Settings, authority: &str) -> Result<()> {
    let _ = lab;
    let registry = Registry::new(settings).unwrap();
    let reference = format!("{authority}/a:1").parse().unwrap();
    let credentials = Credentials::new("u", "p", "", "");
    registry.repository(&reference, &credentials).unwrap().resolve().await.map(drop)
}

fn plain(_: &Request) -> Reply {
    Reply::new(200, sample::image(1, &[1]).manifest).header("Content-Type", media_type::MANIFEST)
}

#[tokio::test]
async fn only_this_machine_and_named_hosts_are_spoken_to_plainly() {
    let mut lab = Lab::new().await;
    let address = lab.serve("http://127.0.0.1:1", Certificate::Good, plain).await;
    lab.serve("http://evil.test:443", Certificate::Good, plain).await;
    lab.serve("http://evil.test:5000", Certificate::Good, plain).await;
    resolves(&lab, lab.settings(), &address.to_string()).await.unwrap();
    let local = format!("localhost:{}", address.port());
    resolves(&lab, lab.settings(), &local).await.unwrap();
    lab.seen();
    for host in ["evil.test", "evil.test:5000"] {
        resolves(&lab, lab.settings(), host).await.unwrap_err();
        let seen = lab.seen();
        assert!(seen.iter().all(|request| request.place == "proxy"), "{host} was spoken to");
    }
    let mut settings = lab.settings();
    settings.insecure = vec!["evil.test:5000".into()];
    resolves(&lab, settings, "evil.test:5000").await.unwrap();
}

#[tokio::test]
async fn a_bad_certificate_on_this_machine_is_no_reason_to_speak_plainly() {
    let mut lab = Lab::new().await;
    let address = lab.serve("https://127.0.0.1:1", Certificate::SelfSigned, plain).await;
    let error = resolves(&lab, lab.settings(), &address.to_string()).await.unwrap_err();
    assert!(error.to_string().contains("insecure-registries"), "{error}");
    assert!(lab.seen().is_empty());
    let mut settings = lab.settings();
    settings.insecure = vec!["127.0.0.0/8".into()];
    resolves(&lab, settings, &address.to_string()).await.unwrap();
}
