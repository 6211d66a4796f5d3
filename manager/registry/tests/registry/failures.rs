//! Registries that are not there, that say nothing, or that say to come again: what a person is
//! told, and how often they are asked.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hull_manager_core::Error;
use hull_manager_registry::{Credentials, Proxies, Registry, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::AbortHandle,
};

/// What is answered to a path, for the nth connection that asks without TLS; nothing keeps
/// silent, an empty one hangs up.
type Script = fn(path: &str, host: &str, nth: usize) -> Option<String>;

/// A registry of plain http that answers TLS as such servers do, one request a connection.
struct Plain {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plain {
    async fn serve(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                connections.spawn(async move {
                    let mut head = vec![0; 8192];
                    let n = stream.read(&mut head).await.unwrap_or(0);
                    let head = String::from_utf8_lossy(&head[..n]).into_owned();
                    let answer = match head.split(' ').nth(1) {
                        Some(path) if head.starts_with(|c: char| c.is_ascii_uppercase()) => {
                            let nth = count.fetch_add(1, Ordering::Relaxed);
                            script(path, &address.to_string(), nth)
                        }
                        _ => Some("HTTP/1.0 400 Bad Request\r\n\r\nnot https".to_owned()),
                    };
                    match answer {
                        Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, asked, task: task.abort_handle() }
    }

    async fn login(&self) -> Result<(), Error> {
        let mut settings = crate::settings();
        settings.limits.document = Duration::from_millis(200);
        let registry = Registry::new(settings).unwrap();
        let address = self.address.to_string();
        registry.check_credentials(&address, &Credentials::Anonymous).await.map(drop)
    }
}

fn answer(status: &str, header: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\n{header}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
}

#[tokio::test]
async fn a_plain_registry_that_hangs_up_once_is_asked_again() {
    let once = |_: &str, _: &str, nth| match nth {
        0 => Some(String::new()),
        _ => answer("200 OK", "X: y"),
    };
    Plain::serve(once).await.login().await.unwrap();
    let always = Plain::serve(|_, _, _| Some(String::new())).await;
    let error = always.login().await.unwrap_err().to_string();
    assert!(error.contains("http://") && !error.contains("InvalidContentType"), "{error}");
}

#[tokio::test]
async fn a_token_server_that_says_nothing_is_asked_twice_and_named() {
    let silent = Plain::serve(|path, host, _| match path {
        "/v2/" => answer("401 No", &format!("WWW-Authenticate: Bearer realm=\"http://{host}/t\"")),
        _ => None,
    })
    .await;
    let error = silent.login().await.unwrap_err().to_string();
    let told = format!("a token from http://{}/t: no answer within 0.2 s", silent.address);
    assert!(error.ends_with(&told), "{error}");
    // Whether it speaks plainly, what it wants, and the two.
    assert_eq!(silent.asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn how_long_a_registry_asks_to_wait_is_told() {
    let busy = Plain::serve(|_, _, _| answer("429 Slow", "Retry-After: 86400")).await;
    let error = busy.login().await.unwrap_err().to_string();
    assert!(error.ends_with("toomanyrequests: the registry asks to wait 24 h"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_leads_in_a_circle_is_told_as_that() {
    let circle = Plain::serve(|path, _, _| match path {
        "/v2/" => answer("200 OK", "X: y"),
        path => answer("302 Found", &format!("Location: {path}")),
    })
    .await;
    let registry = Registry::new(crate::settings()).unwrap();
    let name = format!("{}/a:1", circle.address).parse().unwrap();
    let repository = registry.repository(&name, &Credentials::Anonymous).unwrap();
    let error = repository.resolve().await.unwrap_err().to_string();
    assert!(error.starts_with("GET http://") || error.starts_with("HEAD http://"), "{error}");
    assert!(error.contains("from one place to the next"), "{error}");
}

#[tokio::test]
async fn a_name_without_an_address_is_told_also_if_it_is_a_proxys() {
    // Too long to be asked for: no server of names has a say.
    let host = format!("{}.invalid", "a".repeat(64));
    let proxy = format!("http://{host}:3128");
    let settings =
        Settings { proxies: Proxies::new(&proxy, &proxy, "").unwrap(), ..crate::settings() };
    let registry = Registry::new(settings).unwrap();
    let error = registry.check_credentials("reg.test", &Credentials::Anonymous).await.unwrap_err();
    let told = format!(": the name {host} can't be resolved: ");
    assert!(error.to_string().contains(&told), "{error}");
}
