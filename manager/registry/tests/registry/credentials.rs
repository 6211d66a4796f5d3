//! Where credentials go (R17): a registry, its token server and whatever they name try to have
//! them sent elsewhere. A marked secret may only be seen at its origin.

use base64::Engine as _;
use bytes::Bytes;
use hull_manager_registry::{Credentials, Registry, Settings};
use hull_specs_image::{Reference, media_type};

use crate::{
    lab::{Certificate, Lab, Reply, Request},
    sample,
};

const USER: &str = "alice";
const PASSWORD: &str = "marked-password-5ecr37";
const IDENTITY: &str = "marked-identity-5ecr37";
const TOKEN: &str = "marked-token-5ecr37";
const HOME: &str = "https://reg.site.test:443";
const TOKENS: &str = "https://auth.site.test:443";

/// Does something else than an honest registry, or nothing special.
type Trick = fn(&Request) -> Option<Reply>;

/// An honest registry with a token server, and a blob, a manifest, uploads.
fn honest(request: &Request) -> Reply {
    let sample = sample::image(1, &[100]);
    let authorized = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
    if !authorized {
        return challenge("https://auth.site.test/token");
    }
    let path = request.path();
    match request.method.as_str() {
        "GET" | "HEAD" if path.ends_with("/tags/list") => Reply::new(200, r#"{"tags":["1"]}"#),
        "GET" | "HEAD" if path.contains("/manifests/") => {
            Reply::new(200, sample.manifest).header("Content-Type", media_type::MANIFEST)
        }
        "GET" if path.contains("/blobs/") => match sample
            .blobs
            .iter()
            .find(|(descriptor, _)| path.ends_with(&descriptor.digest.to_string()))
        {
            Some((_, bytes)) => Reply::new(200, bytes.clone()),
            None => Reply::new(404, ""),
        },
        "POST" => Reply::new(202, "").header("Location", "/v2/a/blobs/uploads/1"),
        "PATCH" => {
            let range = request.header("content-range").unwrap_or_default();
            Reply::new(202, "")
                .header("Location", "/v2/a/blobs/uploads/1")
                .header("Range", format!("0-{}", range.split('-').nth(1).unwrap_or_default()))
        }
        "PUT" => Reply::new(201, ""),
        _ if path == "/v2/" => Reply::new(200, "{}"),
        _ => Reply::new(404, ""),
    }
}

fn challenge(realm: &str) -> Reply {
    Reply::new(401, "")
        .header("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
}

fn honest_tokens(request: &Request) -> Reply {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let by_password = request.header("authorization") == Some(&format!("Basic {pair}"));
    let body = String::from_utf8_lossy(&request.body);
    if by_password || body.contains(&format!("refresh_token={IDENTITY}")) {
        Reply::new(200, format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#))
    } else {
        Reply::new(401, "")
    }
}

/// Takes whatever comes and asks for more.
fn greedy(request: &Request) -> Reply {
    if request.header("authorization").is_none() && request.method != "POST" {
        return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"give\"");
    }
    Reply::new(200, r#"{"token":"evil"}"#).header("Location", "https://evil.test/more")
}

fn to(status: u16, location: &str) -> Option<Reply> {
    Some(Reply::new(status, "").header("Location", location))
}

fn authorized(request: &Request) -> bool {
    request.header("authorization").is_some()
}

/// For requests that were authorized: sends them to a place.
macro_rules! redirect {
    ($status:literal, $location:literal) => {
        |request| if authorized(request) { to($status, $location) } else { None }
    };
}

/// Names a token server.
macro_rules! realm {
    ($realm:literal) => {
        |request| (!authorized(request)).then(|| challenge($realm))
    };
}

/// Has an upload go on elsewhere.
macro_rules! location {
    ($method:literal, $status:literal, $location:literal) => {
        |request| {
            (authorized(request) && request.method == $method)
                .then(|| to($status, $location))
                .flatten()
        }
    };
}

/// What registries try.
const TRICKS: &[(&str, Trick)] = &[
    ("realm of another site", realm!("https://evil.test/token")),
    ("realm over http", realm!("http://reg.site.test/token")),
    ("realm of another site over http", realm!("http://evil.test/token")),
    ("realm that is an address", realm!("https://127.0.0.1:8443/token")),
    ("realm that is an address of six", realm!("https://[::1]:8443/token")),
    ("realm that is a number", realm!("https://2130706433/token")),
    ("realm with a user", realm!("https://reg.site.test@evil.test/token")),
    ("realm with a user and a password", realm!("https://reg.site.test:443@evil.test/token")),
    ("realm with our name before its own", realm!("https://reg.site.test.evil.test/token")),
    ("realm with a backslash", realm!("https://evil.test\\\\@reg.site.test/token")),
    ("realm without scheme", realm!("//evil.test/token")),
    ("realm in capitals", realm!("HTTPS://EVIL.TEST/token")),
    ("realm with a port", realm!("https://evil.test:8443/token")),
    ("realm with a tab", realm!("https://evil.test/\ttoken")),
    ("realm of another protocol", realm!("ftp://evil.test/token")),
    ("two realms", |request| {
        (!authorized(request)).then(|| {
            challenge("https://auth.site.test/token")
                .header("WWW-Authenticate", "Bearer realm=\"https://evil.test/token\"")
        })
    }),
    ("a second realm after the token", |request| {
        authorized(request).then(|| challenge("https://evil.test/token"))
    }),
    ("redirect 301", redirect!(301, "https://evil.test/x")),
    ("redirect 302", redirect!(302, "https://evil.test/x")),
    ("redirect 303", redirect!(303, "https://evil.test/x")),
    ("redirect 307", redirect!(307, "https://evil.test/x")),
    ("redirect 308", redirect!(308, "https://evil.test/x")),
    ("redirect without scheme", redirect!(307, "//evil.test/x")),
    ("redirect to http of the same host", redirect!(307, "http://reg.site.test/x")),
    ("redirect to http elsewhere", redirect!(307, "http://evil.test/x")),
    ("redirect to another port", redirect!(307, "https://reg.site.test:8443/x")),
    ("redirect to a host of the same site", redirect!(307, "https://auth.site.test/x")),
    ("redirect with a user", redirect!(307, "https://alice@evil.test/x")),
    ("redirect with our name as user", redirect!(307, "https://reg.site.test@evil.test/x")),
    ("redirect with our name before its own", redirect!(307, "https://reg.site.test.evil.test/")),
    ("redirect to an address", redirect!(307, "https://127.0.0.1:8443/x")),
    ("redirect through another host and back", |request| {
        if request.target.starts_with("/back") {
            return Some(Reply::new(if authorized(request) { 299 } else { 401 }, ""));
        }
        if authorized(request) { to(307, "https://cdn.test/back") } else { None }
    }),
    ("redirect round and round", |request| {
        if authorized(request) { to(307, &format!("{}x", request.target)) } else { None }
    }),
    ("upload goes on elsewhere", location!("POST", 202, "https://evil.test/upload")),
    ("upload goes on over http", location!("POST", 202, "http://reg.site.test/upload")),
    ("upload goes on elsewhere over http", location!("POST", 202, "http://evil.test/upload")),
    ("upload goes on at another port", location!("POST", 202, "https://reg.site.test:8443/u")),
    ("upload goes on with a user", location!("POST", 202, "https://x:y@evil.test/upload")),
    ("upload is redirected at its begin", location!("POST", 307, "https://evil.test/upload")),
    ("upload is redirected at its end", location!("PUT", 307, "https://evil.test/upload")),
    ("a piece goes on elsewhere", location!("PATCH", 202, "https://evil.test/upload")),
    ("a piece is redirected", location!("PATCH", 308, "https://evil.test/upload")),
    ("the next page is elsewhere", |request| {
        (authorized(request) && request.path().ends_with("/tags/list")).then(|| {
            Reply::new(200, r#"{"tags":["1"]}"#)
                .header("Link", "<https://evil.test/v2/a/tags/list>; rel=\"next\"")
        })
    }),
    ("no realm at all", |_| Some(Reply::new(401, ""))),
    ("errors that repeat what was sent", |request| {
        let sent = request.header("authorization")?;
        Some(Reply::new(403, format!(r#"{{"errors":[{{"message":"not {sent}"}}]}}"#)))
    }),
];

/// What token servers try.
const TOKEN_TRICKS: &[(&str, Trick)] = &[
    ("token server redirects", |_| to(302, "https://evil.test/token")),
    ("token server redirects what is posted", |_| to(307, "https://evil.test/token")),
    ("token server redirects to http", |_| to(307, "http://auth.site.test/token")),
    ("token server repeats what was sent", |request| {
        let text = format!(
            "{:?} {:?}",
            request.header("authorization"),
            request.body.escape_ascii().to_string()
        );
        Some(Reply::new(401, serde_json::json!({ "details": text }).to_string()))
    }),
    ("token server wants a token itself", |_| Some(challenge("https://evil.test/token"))),
];

/// All that may be seen of secrets, and where.
fn leaks(seen: &[Request]) -> Vec<String> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let mut leaks = Vec::new();
    for request in seen {
        let text = String::from_utf8_lossy(&request.bytes);
        for (secret, places) in [
            (PASSWORD, &[TOKENS][..]),
            (IDENTITY, &[TOKENS]),
            (encoded.as_str(), &[TOKENS]),
            (TOKEN, &[HOME]),
        ] {
            if text.contains(secret) && !places.contains(&request.place.as_str()) {
                leaks.push(format!("{} {} {}", request.place, request.method, request.target));
            }
        }
        // A bounce through another host must not be authorized at home either.
        if request.target.starts_with("/back") && authorized(request) {
            leaks.push(format!("{} after a bounce", request.place));
        }
    }
    leaks
}

async fn world(lab: &mut Lab, home: Trick, tokens: Trick) {
    lab.serve(HOME, Certificate::Good, move |r| home(r).unwrap_or_else(|| honest(r))).await;
    lab.serve(TOKENS, Certificate::Good, move |r| tokens(r).unwrap_or_else(|| honest_tokens(r)))
        .await;
    for place in [
        "https://evil.test:443",
        "http://evil.test:80",
        "https://evil.test:8443",
        "https://reg.site.test.evil.test:443",
        "http://reg.site.test:80",
        "http://auth.site.test:80",
        "https://reg.site.test:8443",
    ] {
        lab.serve(place, Certificate::Good, greedy).await;
    }
    let back = |_: &Request| to(307, "https://reg.site.test/back").unwrap();
    lab.serve("https://cdn.test:443", Certificate::Good, back).await;
}

/// Everything that sends something, whatever comes of it. Gives the errors' texts.
async fn everything(settings: Settings, credentials: &Credentials) -> Vec<String> {
    let registry = Registry::new(settings).unwrap();
    let reference: Reference = "reg.site.test/a:1".parse().unwrap();
    let sample = sample::image(1, &[100]);
    let mut texts = Vec::new();
    macro_rules! attempt {
        ($what:expr) => {
            if let Err(error) = $what.await {
                texts.push(format!("{error} {error:?}"));
            }
        };
    }
    let talk = || registry.repository(&reference, credentials).unwrap();
    let platform = "linux/amd64".parse().unwrap();
    attempt!(talk().image(&platform));
    let layer = &sample.blobs[1];
    attempt!(talk().push_blob(&layer.0, sample::file(&layer.1), Some("b"), |_| {}));
    if !matches!(credentials, Credentials::Password { .. }) {
        // What follows differs in nothing that other credentials would change.
        return texts;
    }
    attempt!(talk().head());
    attempt!(talk().small_blob(&sample.blobs[1].0, 1000));
    attempt!(talk().tags());
    let manifest = Bytes::from(sample.manifest.clone());
    attempt!(talk().put_manifest("1", media_type::MANIFEST, manifest));
    attempt!(registry.check_credentials("reg.site.test", credentials));
    attempt!(registry.catalog("reg.site.test", credentials, 10));
    attempt!(registry.search("reg.site.test/a", 10, credentials));
    texts
}

fn hasty(lab: &Lab) -> Settings {
    let mut settings = lab.settings();
    settings.limits.retries = 0;
    settings.limits.upload_chunk_bytes = 40;
    settings
}

#[tokio::test]
async fn secrets_are_seen_at_their_origin_only() {
    let tricks = TRICKS.iter().map(|(name, trick)| (*name, *trick, (|_| None) as Trick));
    let of_tokens = TOKEN_TRICKS.iter().map(|(name, trick)| (*name, (|_| None) as Trick, *trick));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    for (name, home, tokens) in tricks.chain(of_tokens) {
        let mut lab = Lab::new().await;
        world(&mut lab, home, tokens).await;
        for credentials in [
            Credentials::new(USER, PASSWORD, "", ""),
            Credentials::new("", "", IDENTITY, ""),
            Credentials::new("", "", "", TOKEN),
        ] {
            let texts = everything(hasty(&lab), &credentials).await;
            let seen = lab.seen();
            assert!(!seen.is_empty(), "{name}: nobody was asked");
            assert_eq!(leaks(&seen), Vec::<String>::new(), "{name} {credentials:?}");
            for text in texts {
                for secret in [PASSWORD, IDENTITY, TOKEN] {
                    assert!(!text.contains(secret), "{name}: {text}");
                }
            }
        }
    }
    let log = log.0.lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("trying again") || log.contains("certificates of the system"), "{log}");
    for secret in [PASSWORD, IDENTITY, TOKEN] {
        assert!(!log.contains(secret), "in the log");
    }
}

/// All that is logged.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_honest_registry_gets_what_it_needs() {
    let mut lab = Lab::new().await;
    world(&mut lab, |_| None, |_| None).await;
    for credentials in
        [Credentials::new(USER, PASSWORD, "", ""), Credentials::new("", "", IDENTITY, "")]
    {
        let texts = everything(hasty(&lab), &credentials).await;
        // It has no catalogue, and so no search.
        let refused = if matches!(credentials, Credentials::Password { .. }) { 2 } else { 0 };
        assert_eq!(texts.len(), refused, "{texts:#?}");
        let seen = lab.seen();
        assert!(seen.iter().any(|request| request.place == TOKENS));
        assert_eq!(leaks(&seen), Vec::<String>::new());
    }
}

/// The control: a client of the usual kind on the same tricks. If nothing leaks from it, the
/// test above can't find leaks.
#[tokio::test]
async fn a_trusting_client_leaks() {
    let mut leaking = Vec::new();
    for (name, trick) in TRICKS {
        let mut lab = Lab::new().await;
        world(&mut lab, *trick, |_| None).await;
        trusting(&lab).await;
        if !leaks(&lab.seen()).is_empty() {
            leaking.push(*name);
        }
    }
    for name in ["realm of another site", "realm over http", "upload goes on elsewhere"] {
        assert!(leaking.contains(&name), "{name} is not among {leaking:?}");
    }
    assert!(leaking.len() >= 10, "{leaking:?}");
}

/// Asks whom it is told to ask, with what it has; redirects are the library's.
async fn trusting(lab: &Lab) {
    use tokio_rustls::rustls::crypto::ring;
    let _ = ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .proxy(reqwest::Proxy::all(lab.proxy_url()).unwrap())
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let Ok(answer) = client.get("https://reg.site.test/v2/a/manifests/1").send().await else {
        return;
    };
    let text = answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
    let realm = text.and_then(|text| text.split('"').nth(1)).unwrap_or_default().to_owned();
    let token = client.get(realm).basic_auth(USER, Some(PASSWORD)).send().await;
    if !token.is_ok_and(|token| token.url().host_str() == Some("auth.site.test")) {
        return;
    }
    let _ = client.get("https://reg.site.test/v2/a/manifests/1").bearer_auth(TOKEN).send().await;
    for method in [reqwest::Method::POST, reqwest::Method::PATCH, reqwest::Method::PUT] {
        let begin = client.request(method, "https://reg.site.test/v2/a/blobs/uploads/");
        let Ok(answer) = begin.bearer_auth(TOKEN).send().await else { continue };
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
        if let Some(location) = location {
            let _ = client.put(location).bearer_auth(TOKEN).send().await;
        }
    }
}
