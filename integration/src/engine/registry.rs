//! Debian's docker-registry on this machine, and what it says that it sent.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::stock;
use crate::{SOON, wait_until};

/// A registry that ends with its value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    log: PathBuf,
    /// `127.0.0.1:PORT`.
    pub address: String,
    _places: tempfile::TempDir,
}

impl Registry {
    /// Starts one on what is in a directory.
    pub fn start(data: &Path) -> Self {
        let places = tempfile::tempdir().expect("the temporary directory is writable");
        // Free a moment ago: the registry does not say which one it took before it serves.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port is free")
            .port();
        let address = format!("127.0.0.1:{port}");
        let configuration = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\nstorage:\n  \
             filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  \
             addr: {address}\n",
            data.display()
        );
        let path = places.path().join("config.yml");
        fs::write(&path, configuration).expect("the directory is ours");
        let log = places.path().join("log");
        let file = File::create(&log).expect("the directory is ours");
        let child = Command::new(stock("docker-registry"))
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor is free"))
            .stderr(file)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { child, log, address, _places: places };
        wait_until("the registry listens", SOON, || TcpStream::connect(&registry.address).is_ok());
        registry
    }

    /// Bytes of blobs that it sent so far, by its log.
    pub fn sent(&self) -> u64 {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter_map(sent).sum()
    }
}

/// Bytes of a line of the log that is about a blob that was sent: `HOST - - [TIME] "GET PATH
/// HTTP/1.1" STATUS BYTES …`.
fn sent(line: &str) -> Option<u64> {
    let (path, rest) = line.split_once("\"GET ")?.1.split_once(" HTTP/")?;
    let bytes = rest.split(' ').nth(2)?.parse().ok()?;
    path.contains("/blobs/").then_some(bytes)
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::sent;

    #[test]
    fn blobs_are_counted_and_manifests_are_not() {
        let line = |what: &str| {
            format!("127.0.0.1 - - [21/Nov/2026:20:00:00 +0000] \"{what}\" 200 527 \"\" \"hull\"")
        };
        assert_eq!(sent(&line("GET /v2/a/blobs/sha256:1 HTTP/1.1")), Some(527));
        assert_eq!(sent(&line("GET /v2/a/manifests/1 HTTP/1.1")), None);
        assert_eq!(sent(&line("HEAD /v2/a/blobs/sha256:1 HTTP/1.1")), None);
        assert_eq!(sent("time=x level=error"), None);
    }
}
