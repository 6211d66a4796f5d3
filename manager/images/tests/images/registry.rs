//! Debian's docker-registry, and a proxy before it that counts and stops.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
};

pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
    pub(crate) root: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// One that only `alice` with `opensesame` may use.
    pub(crate) fn with_password() -> Self {
        Self::start_with("auth:\n  htpasswd: {realm: test, path: PLACE/htpasswd}\n")
    }

    fn start_with(more: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let hash = "alice:$2y$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi\n";
        std::fs::write(root.path().join("htpasswd"), hash).unwrap();
        let more = more.replace("PLACE", root.path().to_str().unwrap());
        let data = root.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: 127.0.0.1:0\n{more}",
            data.display()
        );
        let path = root.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("docker-registry runs").unwrap();
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
        };
        // Its log must go on being read, or it stands still.
        std::thread::spawn(move || for _ in lines.map_while(Result::ok) {});
        Self { child, address, root }
    }

    /// The file of a blob.
    pub(crate) fn blob(&self, hex: &str) -> std::path::PathBuf {
        let directory = self.root.path().join("data/docker/registry/v2/blobs/sha256");
        directory.join(&hex[..2]).join(hex).join("data")
    }
}

/// Of each connection so much passes always: what is small is not what is stopped.
const FREE_BYTES: u64 = 64 << 10;

#[derive(Default)]
struct State {
    /// Bytes that may still go to clients; none: all.
    allowed: Option<u64>,
    lines: Vec<String>,
}

/// Passes connections on.
pub(crate) struct Proxy {
    pub(crate) address: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Proxy {
    pub(crate) fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let (upstream, shared) = (registry.address.clone(), state.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&upstream) else { return };
                let (to_server, from_server) = (server.try_clone().unwrap(), server);
                let (from_client, to_client) = (client.try_clone().unwrap(), client);
                let state = shared.clone();
                std::thread::spawn(move || forward(from_client, to_server, &state));
                let state = shared.clone();
                std::thread::spawn(move || back(from_server, to_client, &state));
            }
        });
        Self { address, state }
    }

    /// Lets so many more bytes through to clients; none: all.
    pub(crate) fn allow(&self, bytes: Option<u64>) {
        self.state.0.lock().unwrap().allowed = bytes;
        self.state.1.notify_all();
    }

    /// The lines of requests since the last question that begin so.
    pub(crate) fn seen(&self, start: &str) -> Vec<String> {
        let lines = std::mem::take(&mut self.state.0.lock().unwrap().lines);
        lines.into_iter().filter(|line| line.to_lowercase().starts_with(start)).collect()
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, state: &(Mutex<State>, Condvar)) {
    let mut piece = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let text = String::from_utf8_lossy(&piece[..count]).into_owned();
        state.0.lock().unwrap().lines.extend(text.lines().map(str::to_owned));
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn back(mut from: TcpStream, mut to: TcpStream, state: &(Mutex<State>, Condvar)) {
    let mut piece = [0; 16 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let mut sent = 0;
        passed += count as u64;
        while sent < count {
            let mut locked = state.0.lock().unwrap();
            while locked.allowed == Some(0) && passed > FREE_BYTES {
                locked = state.1.wait(locked).unwrap();
            }
            let part = match &mut locked.allowed {
                _ if passed <= FREE_BYTES => count - sent,
                None => count - sent,
                Some(left) => {
                    let part = (count - sent).min(usize::try_from(*left).unwrap());
                    *left -= part as u64;
                    part
                }
            };
            drop(locked);
            if to.write_all(&piece[sent..sent + part]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            sent += part;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
