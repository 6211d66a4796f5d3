//! A small internet of hostile hosts (H4): names that lead to servers on loopback through a
//! proxy, TLS of an authority of its own, and a record of every byte that each host was sent.

use std::{
    collections::HashMap,
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use hull_manager_registry::{Proxies, Settings};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// Names with a certificate.
const NAMES: &str = "subjectAltName=DNS:reg.site.test,DNS:auth.site.test,DNS:cdn.test,\
    DNS:evil.test,DNS:reg.site.test.evil.test,DNS:mirror.test,DNS:index.docker.io,\
    DNS:registry-1.docker.io,DNS:auth.docker.io,DNS:localhost,IP:127.0.0.1";

/// Which certificate a host shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    Good,
    Expired,
    OtherHost,
    SelfSigned,
    /// Of an authority that nobody knows.
    Stranger,
}

/// What a host was sent.
#[derive(Clone)]
pub(crate) struct Request {
    /// `https://host:port`.
    pub(crate) place: String,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    head: String,
    /// All of it, as it came.
    pub(crate) bytes: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What it answers.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The Content-Length, if it is not the body's.
    pub(crate) length: Option<usize>,
    /// Hangs up after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Sends single bytes with so long a pause between them.
    pub(crate) drip: Option<Duration>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

pub(crate) type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

#[derive(Default)]
struct World {
    routes: HashMap<String, SocketAddr>,
    seen: Vec<Request>,
}

/// The hosts end with it.
pub(crate) struct Lab {
    world: Arc<Mutex<World>>,
    proxy: SocketAddr,
    tasks: Vec<AbortHandle>,
    config: tempfile::TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let of_proxy = Arc::clone(&world);
        let task =
            tokio::spawn(accept(listener, move |stream| relay(stream, Arc::clone(&of_proxy))));
        let config = tempfile::tempdir().unwrap();
        let names = NAMES.trim_start_matches("subjectAltName=").split(',');
        let names = names.map(|name| name.trim().split_once(':').unwrap().1);
        for name in names.chain(["docker.io"]) {
            let directory = config.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::copy(authority().join("ca.pem"), directory.join("ca.crt")).unwrap();
        }
        Self { world, proxy, tasks: vec![task.abort_handle()], config }
    }

    /// A host: `https://name:port` or `http://name:port`. Gives where it really is.
    pub(crate) async fn serve(
        &mut self,
        place: &str,
        certificate: Certificate,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (scheme, authority) = place.split_once("://").unwrap();
        let acceptor = (scheme == "https").then(|| acceptor(certificate));
        let (world, place): (_, String) = (Arc::clone(&self.world), place.to_owned());
        world.lock().unwrap().routes.insert(authority.to_owned(), address);
        let script: Script = Arc::new(script);
        let task = tokio::spawn(accept(listener, move |stream| {
            let (world, place, script) = (Arc::clone(&world), place.clone(), Arc::clone(&script));
            let acceptor = acceptor.clone();
            async move {
                match acceptor {
                    None => converse(stream, &place, &world, &script).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            converse(stream, &place, &world, &script).await;
                        }
                    }
                }
            }
        }));
        self.tasks.push(task.abort_handle());
        address
    }

    /// Settings that know the proxy and the authority.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            proxies: Proxies::new(&self.proxy_url(), &self.proxy_url(), "").unwrap(),
            config_dirs: vec![self.config.path().to_owned()],
            ..crate::settings()
        }
    }

    pub(crate) fn proxy_url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    pub(crate) fn config(&self) -> &Path {
        self.config.path()
    }

    /// Whether a host was ever sent a request.
    pub(crate) fn world_saw(&self, place: &str) -> bool {
        self.world.lock().unwrap().seen.iter().any(|request| request.place == place)
    }

    /// What was sent since the last time.
    pub(crate) fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.world.lock().unwrap().seen)
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream));
    }
}

/// Speaks HTTP/1.1 until somebody has enough.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    place: &str,
    world: &Mutex<World>,
    script: &Script,
) {
    while let Some(request) = read(&mut stream, place).await {
        world.lock().unwrap().seen.push(request.clone());
        let reply = script(&request);
        if !write(&mut stream, &request, reply).await {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut (impl AsyncRead + Unpin), place: &str) -> Option<Request> {
    let (mut bytes, end) = read_head(stream).await?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut words = head.lines().next()?.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    // A proxy is asked for the whole URL.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest[rest.find('/').unwrap_or(rest.len())..].to_owned(),
        None => target,
    };
    let place = place.to_owned();
    let mut request = Request { place, method, target, head, bytes: vec![], body: vec![] };
    let length: usize = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            break;
        }
    }
    request.body = bytes[end..].to_vec();
    request.bytes = bytes;
    Some(request)
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            return Some((bytes, at + 4));
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 || !bytes[0].is_ascii_uppercase() {
            return None;
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), request: &Request, reply: Reply) -> bool {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let length = reply.length.unwrap_or(reply.body.len());
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        head += &format!("Content-Length: {length}\r\n");
    }
    head += "\r\n";
    let mut body = if request.method == "HEAD" { &[][..] } else { &reply.body[..] };
    if let Some(cut) = reply.cut {
        body = &body[..cut.min(body.len())];
    }
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    match reply.drip {
        None => {
            if stream.write_all(body).await.is_err() {
                return false;
            }
        }
        Some(pause) => {
            for byte in body {
                if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                    return false;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
    stream.flush().await.is_ok() && reply.cut.is_none()
}

/// The proxy: leads names to where they are, and records what it is told.
async fn relay(mut stream: TcpStream, world: Arc<Mutex<World>>) {
    let Some((bytes, end)) = read_head(&mut stream).await else { return };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let tunnel = method == "CONNECT";
    let authority = if tunnel {
        target.to_owned()
    } else {
        let authority = target.trim_start_matches("http://").split('/').next().unwrap_or_default();
        if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") }
    };
    let address = {
        let mut world = world.lock().unwrap();
        if tunnel {
            world.seen.push(Request {
                place: "proxy".into(),
                method: method.into(),
                target: target.into(),
                head: head.clone(),
                bytes: bytes.clone(),
                body: vec![],
            });
        }
        world.routes.get(&authority).copied()
    };
    let Some(address) = address else {
        let _ = stream.write_all(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n").await;
        return;
    };
    let Ok(mut server) = TcpStream::connect(address).await else { return };
    if tunnel {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    } else if server.write_all(&bytes).await.is_err() {
        return;
    }
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
}

fn acceptor(certificate: Certificate) -> TlsAcceptor {
    let directory = authority();
    let name = match certificate {
        Certificate::Good => "good.pem",
        Certificate::Expired => "expired.pem",
        Certificate::OtherHost => "other.pem",
        Certificate::SelfSigned => "self.pem",
        Certificate::Stranger => "stranger.pem",
    };
    let chain = CertificateDer::pem_file_iter(directory.join(name)).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// An authority and the certificates of all hosts, made once.
fn authority() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("registry-certificates");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let openssl = |line: &str| {
            let output =
                Command::new("openssl").args(line.split(' ')).current_dir(&directory).output();
            let output = output.expect("openssl starts (make deps)");
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "openssl {line}: {why}");
        };
        fs::write(directory.join("names"), NAMES).unwrap();
        fs::write(directory.join("other"), "subjectAltName=DNS:somebody.test").unwrap();
        openssl("ecparam -name prime256v1 -genkey -noout -out key.pem");
        for (name, file) in [("lab", "ca.pem"), ("stranger", "unknown.pem")] {
            openssl(&format!(
                "req -x509 -key key.pem -subj /CN={name} -days 2 -out {file} \
                 -addext basicConstraints=critical,CA:TRUE"
            ));
        }
        openssl("req -new -key key.pem -subj /CN=host -out request.pem");
        for (file, by, days, names) in [
            ("good.pem", "ca.pem", "2", "names"),
            ("expired.pem", "ca.pem", "-1", "names"),
            ("other.pem", "ca.pem", "2", "other"),
            ("stranger.pem", "unknown.pem", "2", "names"),
        ] {
            openssl(&format!(
                "x509 -req -in request.pem -CA {by} -CAkey key.pem -set_serial 1 -days {days} \
                 -extfile {names} -out {file}"
            ));
        }
        openssl("x509 -req -in request.pem -signkey key.pem -days 2 -extfile names -out self.pem");
        directory
    })
    .clone()
}
