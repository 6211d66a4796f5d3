//! The host's resolvers: whom `resolv.conf` names at this time.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::DNS_PORT;

/// As many as the C library asks (resolv.conf(5), MAXNS).
const MAX_SERVERS: usize = 3;
/// The file is looked at again after this time, when somebody asks.
const FRESH: Duration = Duration::from_secs(1);
/// More of the file is not read.
const MAX_BYTES: u64 = 64 * 1024;

/// The resolvers of a `resolv.conf`, in its order. A file without any means the host itself, as
/// resolv.conf(5) says.
#[must_use]
pub fn parse(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("nameserver")
            && let Some(server) = words.next().and_then(address)
            && !servers.contains(&server)
        {
            servers.push(server);
        }
    }
    servers.truncate(MAX_SERVERS);
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    servers
}

/// An address with or without a scope: `fe80::1%eth0`, `fe80::1%2`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|address| (address, DNS_PORT).into());
    };
    let index = scope.parse().ok().or_else(|| {
        let name = Path::new(scope).file_name().filter(|name| *name == scope)?;
        let index = Path::new("/sys/class/net").join(name).join("ifindex");
        fs::read_to_string(index).ok()?.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, index).into())
}

/// A `resolv.conf` that is read again when it has changed.
#[derive(Debug)]
pub(crate) struct Resolvers {
    path: PathBuf,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    servers: Arc<[SocketAddr]>,
    looked: Instant,
    version: Option<(u64, u64, i64, i64)>,
}

impl Resolvers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    pub(crate) fn servers(&self) -> Arc<[SocketAddr]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref()
            && known.looked.elapsed() < FRESH
        {
            return Arc::clone(&known.servers);
        }
        let version = fs::metadata(&self.path)
            .ok()
            .map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        let servers = match known.as_ref() {
            Some(known) if known.version == version => Arc::clone(&known.servers),
            _ => parse(&read(&self.path)).into(),
        };
        *known = Some(Known { servers: Arc::clone(&servers), looked: Instant::now(), version });
        servers
    }
}

fn read(path: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    if let Err(error) = file {
        tracing::warn!("{}: {error}; asking the host itself", path.display());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_those_that_the_c_library_asks() {
        for (text, expected) in [
            ("nameserver 10.0.0.1\nnameserver\t::1 # x\n", "10.0.0.1:53 [::1]:53"),
            ("search a\n#nameserver 1.1.1.1\n;nameserver 1.1.1.1\n", "127.0.0.1:53"),
            ("nameserver x\nnameserver 1.2.3.4 y\nnameserver 1.2.3.4\n", "1.2.3.4:53"),
            (
                "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4",
                "1.0.0.1:53 1.0.0.2:53 1.0.0.3:53",
            ),
            ("nameserver fe80::1%7\n", "[fe80::1%7]:53"),
            ("nameserver fe80::1%../lo\nnameserver 9.9.9.9", "9.9.9.9:53"),
            ("", "127.0.0.1:53"),
        ] {
            let servers: Vec<_> = parse(text).iter().map(SocketAddr::to_string).collect();
            assert_eq!(servers.join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let resolvers = Resolvers::new(path.clone());
        assert_eq!(resolvers.servers()[0].to_string(), "10.0.0.1:53");
        fs::write(&path, "nameserver 10.0.0.22\n").unwrap();
        assert_eq!(resolvers.servers()[0].to_string(), "10.0.0.1:53", "within a second");
        resolvers.known.lock().unwrap().as_mut().unwrap().looked -= FRESH;
        assert_eq!(resolvers.servers()[0].to_string(), "10.0.0.22:53");
    }
}
