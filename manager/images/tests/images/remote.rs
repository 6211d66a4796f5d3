//! Questions to registries, files by URL, and mirrors that lie.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::PathBuf,
};

use futures_util::stream;
use hull_manager_archive::compression::Compression;
use hull_manager_core::{ErrorKind, Result};
use hull_manager_registry::Settings;
use hull_specs_api::v1::{self, import_request::Part};
use hull_specs_image::Manifest;

use crate::{
    fixture::{Manager, Sample, compress, filters, noise, settings, tar, wait_for},
    registry::{Proxy, Registry},
    transfers::{publish, pull},
};

fn search(manager: &Manager, term: &str, pairs: &[(&str, &str)]) -> Result<Vec<String>> {
    let request = v1::SearchRequest {
        term: term.into(),
        filters: filters(pairs),
        ..v1::SearchRequest::default()
    };
    let found = manager.run(manager.images.search(request))?.results;
    Ok(found.into_iter().map(|one| one.name).collect())
}

pub(crate) fn a_search_asks_the_catalogue() {
    let registry = Registry::start();
    let address = &registry.address;
    for name in ["team/app", "team/other", "tool"] {
        publish(&format!("{address}/{name}"), &Sample::usual(name, Compression::None));
    }
    let manager = Manager::new();
    let full = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("{address}/{name}")).collect()
    };
    let all = full(&["team/app", "team/other", "tool"]);
    assert_eq!(search(&manager, &format!("{address}/"), &[]).unwrap(), all);
    assert_eq!(search(&manager, &format!("{address}/TEAM"), &[]).unwrap(), all[..2]);
    assert_eq!(search(&manager, &format!("{address}/none"), &[]).unwrap(), full(&[]));
    // Nobody has given them stars, and they are nobody's official ones.
    let term = format!("{address}/tool");
    for (pairs, count) in [
        (&[("stars", "0")][..], 1),
        (&[("stars", "1")], 0),
        (&[("is-official", "false")], 1),
        (&[("is-official", "true")], 0),
    ] {
        assert_eq!(search(&manager, &term, pairs).unwrap().len(), count, "{pairs:?}");
    }
    for bad in [("stars", "x"), ("is-official", "x"), ("none", "1")] {
        let error = search(&manager, &term, &[bad]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}: {error}");
    }
    let request = v1::SearchRequest { term, limit: 101, ..v1::SearchRequest::default() };
    let error = manager.run(manager.images.search(request)).unwrap_err();
    assert!(error.to_string().contains("[1, 100]"), "{error}");
}

pub(crate) fn credentials_are_checked_where_they_are_for() {
    let registry = Registry::with_password();
    let manager = Manager::new();
    let check = |registry: &str, password: &str| {
        let credentials = v1::Credentials {
            username: "alice".into(),
            password: password.into(),
            ..v1::Credentials::default()
        };
        let request = v1::CheckCredentialsRequest {
            registry: registry.into(),
            credentials: Some(credentials),
        };
        manager.run(manager.images.check_credentials(request))
    };
    assert_eq!(check(&registry.address, "opensesame").unwrap().identity_token, "");
    let error = check(&registry.address, "marked-secret").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(!format!("{error} {error:?}").contains("marked-secret"), "{error:?}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(check(&nobody, "opensesame").unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(check("no host/", "x").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// What a file of the mirror becomes.
type Damage = fn(&mut Vec<u8>);

pub(crate) fn a_mirror_that_serves_something_else_is_left() {
    let (registry, mirror) = (Registry::start(), Registry::start());
    let proxy = Proxy::before(&mirror);
    let layers = [1, 2].map(|seed| tar(&[("large", &noise(seed, 1 << 20))]));
    let sample = Sample::new("mirrored", Compression::None, &layers);
    let name = format!("{}/mirrored", registry.address);
    for place in [&registry, &mirror] {
        publish(&format!("{}/mirrored", place.address), &sample);
    }
    let words = tempfile::tempdir().unwrap();
    let directory = words.path().join(&registry.address);
    fs::create_dir(&directory).unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        registry.address, proxy.address
    );
    fs::write(directory.join("hosts.toml"), text).unwrap();
    let known = manager(&words);
    pull(&known, &name).unwrap();
    let manifest = known.inspect(&name).unwrap().manifest_json;
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    let place = |registry: &Registry, blob: usize| -> PathBuf {
        let blob = [&manifest.layers[0], &manifest.layers[1], &manifest.config][blob];
        registry.blob(&blob.digest.hex())
    };
    let damages: [(&str, usize, Damage); 5] = [
        ("the end of a layer", 0, |bytes| bytes[1 << 20] ^= 1),
        ("the beginning of a layer", 1, |bytes| bytes[..512].fill(b'x')),
        ("a layer that is too short", 1, |bytes| bytes.truncate(1000)),
        ("a layer that is too long", 0, |bytes| bytes.extend([0; 1000])),
        ("a configuration", 2, |bytes| bytes[20] ^= 1),
    ];
    for (what, blob, damage) in damages {
        let path = place(&mirror, blob);
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let other = manager(&words);
        proxy.seen("");
        let (pulled, _) = pull(&other, &name).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(pulled.image_id, sample.id(), "{what}");
        assert_eq!(other.read(&name, "large").unwrap(), noise(2, 1 << 20), "{what}");
        assert!(!proxy.seen("get /v2/mirrored/blobs/").is_empty(), "{what}: it was asked first");
        other.assert_no_ingest();
        // The control: where the registry itself has it so, there is nobody left.
        fs::copy(&path, place(&registry, blob)).unwrap();
        let error = pull(&manager(&words), &name).expect_err(what);
        assert!(
            matches!(error.kind(), ErrorKind::DataLoss | ErrorKind::InvalidArgument),
            "{what}: {error:?}"
        );
        for registry in [&registry, &mirror] {
            fs::write(place(registry, blob), &good).unwrap();
        }
    }
}

fn manager(words: &tempfile::TempDir) -> Manager {
    Manager::with(Settings { config_dirs: vec![words.path().to_owned()], ..settings() })
}

/// What was fetched of a layer and is wrong keeps nobody from pulling it later.
pub(crate) fn a_wrong_part_of_a_layer_is_no_hindrance() {
    let registry = Registry::start();
    // Compressed, so that the registry has it as it is here.
    let sample = Sample::usual("parts", Compression::Gzip);
    let name = format!("{}/parts", registry.address);
    publish(&name, &sample);
    for content in [&b"x"[..], &[b'x'; 100]] {
        let manager = Manager::new();
        for layer in &sample.layers {
            let file = hull_specs_image::Digest::of(layer).hex().to_string();
            fs::write(manager.directory.path().join("content/ingest").join(file), content).unwrap();
        }
        let pulled = pull(&manager, &name).or_else(|_| pull(&manager, &name)).unwrap();
        assert_eq!(pulled.0.image_id, sample.id());
        assert_eq!(manager.read(&name, "changed").unwrap(), b"new");
        manager.assert_no_ingest();
    }
}

/// A host that answers each request with this.
fn host(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            // Who has enough hangs up.
            let _ = stream.write_all(&answer);
        }
    });
    format!("http://{address}")
}

fn answer(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn import(manager: &Manager, url: &str) -> Result<()> {
    let options = v1::ImportOptions {
        reference: "fetched".into(),
        url: url.into(),
        ..v1::ImportOptions::default()
    };
    let requests = vec![Ok(v1::ImportRequest { part: Some(Part::Options(options)) })];
    manager.answers(|answers| manager.images.import(stream::iter(requests), answers)).map(drop)
}

pub(crate) fn a_root_file_system_is_fetched_from_a_url() {
    let manager = Manager::new();
    let bytes = compress(Compression::Gzip, &tar(&[("fetched", b"yes")]));
    let good = answer("200 OK", bytes.len(), &bytes);
    let place = host(vec![good.clone()]);
    import(&manager, &format!("{place}/x.tar")).unwrap();
    assert_eq!(manager.read("fetched", "fetched").unwrap(), b"yes");
    let shown = String::from_utf8(manager.inspect("fetched").unwrap().config_json).unwrap();
    assert!(shown.contains(&format!("Imported from {place}/x.tar")), "{shown}");
    manager.remove("fetched", false).unwrap();
    // From one path of the host to the next.
    let to = |location: &str| {
        let text = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nConnection: close\r\n");
        format!("{text}Content-Length: 0\r\n\r\n").into_bytes()
    };
    import(&manager, &host(vec![to("/there"), good.clone()])).unwrap();
    manager.remove("fetched", false).unwrap();
    let half = answer("200 OK", bytes.len(), &bytes[..bytes.len() / 2]);
    for (what, url, kind) in [
        ("cut", host(vec![half]), ErrorKind::Unavailable),
        ("not there", host(vec![answer("404 Not Found", 0, b"")]), ErrorKind::NotFound),
        ("endless", host(vec![to("/again"); 20]), ErrorKind::PermissionDenied),
        ("another host", host(vec![to("http://example.test/")]), ErrorKind::PermissionDenied),
        ("a file", host(vec![to("file:///etc/passwd")]), ErrorKind::PermissionDenied),
        ("no archive", host(vec![answer("200 OK", 5, b"hello")]), ErrorKind::InvalidArgument),
        ("a path", "file:///etc/passwd".into(), ErrorKind::InvalidArgument),
        ("a password", "http://a:marked@127.0.0.1:1/".into(), ErrorKind::InvalidArgument),
    ] {
        let error = import(&manager, &url).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(!error.to_string().contains("marked"), "{error}");
        wait_for("nothing of it stays", || manager.ingests().is_empty());
        manager.assert_empty();
    }
}
