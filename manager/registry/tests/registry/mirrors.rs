//! Mirrors, and what the operator wrote about hosts.

use std::fs;

use hull_manager_registry::{Credentials, Registry, Settings};
use hull_specs_image::media_type;

use crate::{
    lab::{Certificate, Lab, Reply, Request},
    sample,
};

const HUB: &str = "https://registry-1.docker.io:443";
const MIRROR: &str = "https://mirror.test:443";

fn image(_: &Request) -> Reply {
    Reply::new(200, sample::image(1, &[1]).manifest).header("Content-Type", media_type::MANIFEST)
}

/// Takes a password, and only with it gives something.
fn protected(request: &Request) -> Reply {
    if request.header("authorization").is_some() {
        return image(request);
    }
    Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")
}

async fn resolve(settings: Settings, name: &str) -> hull_manager_core::Result<()> {
    let registry = Registry::new(settings).unwrap();
    let credentials = Credentials::new("u", "p", "", "");
    let repository = registry.repository(&name.parse().unwrap(), &credentials).unwrap();
    repository.resolve().await.map(drop)
}

#[tokio::test]
async fn the_mirror_is_asked_first_and_the_registry_if_it_fails() {
    type Script = fn(&Request) -> Reply;
    let scripts: [(Script, bool); 4] = [
        (image, true),
        (|_| Reply::new(404, ""), false),
        (|_| Reply::new(500, ""), false),
        // It may not have Docker Hub's password.
        (protected, false),
    ];
    for (script, serves) in scripts {
        let mut lab = Lab::new().await;
        lab.serve(MIRROR, Certificate::Good, script).await;
        lab.serve(HUB, Certificate::Good, protected).await;
        let mut settings = lab.settings();
        settings.mirrors = vec!["https://mirror.test".into()];
        resolve(settings, "busybox").await.unwrap();
        let seen = lab.seen();
        let at = |place: &str| seen.iter().filter(|request| request.place == place).count();
        assert!(at(MIRROR) > 0);
        assert_eq!(at(HUB) > 0, !serves);
        for request in seen.iter().filter(|request| request.place == MIRROR) {
            assert_eq!(request.header("authorization"), None);
        }
    }
}

#[tokio::test]
async fn hosts_toml_says_where_to_ask_and_what_with() {
    let mut lab = Lab::new().await;
    lab.serve(MIRROR, Certificate::Good, image).await;
    lab.serve("https://reg.site.test:443", Certificate::Good, protected).await;
    let directory = lab.config().join("reg.site.test");
    let authority = lab.config().join("mirror.test/ca.crt");
    let write = |capabilities: &str| {
        let text = format!(
            "ca = {authority:?}\n[host.\"https://mirror.test/prefix\"]\ncapabilities = {capabilities}\n\
             ca = [{authority:?}]\noverride_path = true\n[host.\"https://mirror.test/prefix\".header]\n\
             x-key = \"marked\"\n"
        );
        fs::write(directory.join("hosts.toml"), text).unwrap();
    };
    write(r#"["pull", "resolve"]"#);
    resolve(lab.settings(), "reg.site.test/a:1").await.unwrap();
    let seen = lab.seen();
    let request = seen.iter().find(|request| request.place == MIRROR).unwrap();
    assert_eq!(request.target, "/prefix/a/manifests/1?ns=reg.site.test");
    assert_eq!((request.header("x-key"), request.header("authorization")), (Some("marked"), None));
    assert!(!seen.iter().any(|request| request.place.contains("reg.site.test")));
    // A mirror that may not resolve is not asked what a tag means.
    write(r#"["pull"]"#);
    resolve(lab.settings(), "reg.site.test/a:1").await.unwrap();
    let seen = lab.seen();
    assert!(!seen.iter().any(|request| request.place == MIRROR));
    let request = seen.iter().rfind(|request| request.place.contains("reg.site.test")).unwrap();
    assert_eq!((request.header("x-key"), request.header("authorization").is_some()), (None, true));
}

#[tokio::test]
async fn docker_hub_is_searched_where_its_search_is() {
    let mut lab = Lab::new().await;
    lab.serve("https://index.docker.io:443", Certificate::Good, |_| {
        Reply::new(
            200,
            r#"{"results":[{"name":"busybox","description":"tools","star_count":7,"is_official":true},
                           {"name":"a/b"}]}"#,
        )
    })
    .await;
    let registry = Registry::new(lab.settings()).unwrap();
    let credentials = Credentials::new("u", "p", "", "");
    let found = registry.search("busy box", 2, &credentials).await.unwrap();
    assert_eq!((found[0].stars, found[0].official, found[1].name.as_str()), (7, true, "a/b"));
    let request = lab.seen().pop().unwrap();
    assert_eq!(request.target, "/v1/search?q=busy+box&n=2");
    assert_eq!(request.header("authorization"), None);
    assert!(registry.search("x", 101, &credentials).await.is_err());
}
