//! The whole, in a network namespace of each test's own that stands for the host's.

use std::{
    collections::BTreeSet,
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use hull_runtime_sys as sys;

use super::*;
use crate::{plan, sysctl};

mod addresses;
mod apart;
mod definitions;
mod healing;
mod interfaces;
mod life;
mod names;
mod places;
mod plugins;
mod publishing;
mod switching;
mod sysctls;
mod wires;

/// A data root, an exec root that is a mount of its own, and the networks in them.
struct Lab {
    directory: tempfile::TempDir,
    settings: Settings,
}

/// Does something in a new network namespace, on a thread that ends with it. Threads that it
/// starts are in it, too.
fn on_a_host<T: Send>(work: impl FnOnce(Lab) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            sys::netlink::raise_loopback().unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let _entered = runtime.enter();
            let directory = tempfile::tempdir().unwrap();
            let settings =
                Settings::new(directory.path().join("data"), directory.path().join("netns"));
            work(Lab { directory, settings })
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.settings.namespaces).into_iter().flatten().flatten() {
            drop(sys::mount::unmount(entry.path(), true));
        }
    }
}

impl Lab {
    /// As a manager that starts. Its predecessor may have been killed.
    fn open(&self) -> Networks {
        let store = Store::open(&self.directory.path().join("meta.db")).unwrap();
        let journal = Journal::open(&store).unwrap();
        Networks::open(self.settings.clone(), &store, &journal).unwrap()
    }

    fn start(&self, live: &[&str]) -> Networks {
        let networks = self.open();
        networks.0.recover(&live.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()).unwrap();
        networks.0.collect().unwrap();
        networks
    }

    /// The interfaces of the host, without its loopback.
    fn links(&self) -> BTreeSet<String> {
        let socket = netlink::Socket::open().unwrap();
        let links = socket.links(false).unwrap().into_iter().map(|link| link.name);
        links.filter(|name| name != "lo").collect()
    }

    fn namespaces(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.settings.namespaces).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Nothing of any container is there: no interface, no namespace, no row.
    fn assert_clean(&self, networks: &Networks, when: &str) {
        let ports: Vec<_> =
            self.links().into_iter().filter(|name| name.starts_with("hv")).collect();
        assert_eq!(ports, [""; 0], "interfaces {when}");
        assert_eq!(self.namespaces(), [""; 0], "namespaces {when}");
        assert_eq!(networks.0.records.all().unwrap(), [], "rows {when}");
        assert_eq!(networks.0.records.sandboxes().unwrap(), [], "rows {when}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.settings.namespaces.display().to_string();
        assert!(!mounts.contains(&root), "mounts {when}");
    }
}

fn container(id: &str, mode: &str, networks: &[&str]) -> Container {
    let endpoint =
        |name: &&str| v1::EndpointOptions { network: (*name).into(), ..Default::default() };
    Container {
        id: id.into(),
        name: format!("name-{id}"),
        hostname: format!("host-{id}"),
        options: v1::ContainerOptions {
            network_mode: mode.into(),
            networks: networks.iter().map(endpoint).collect(),
            ..Default::default()
        },
    }
}

fn network(
    name: &str,
    change: impl FnOnce(&mut v1::CreateNetworkRequest),
) -> v1::CreateNetworkRequest {
    let mut request = v1::CreateNetworkRequest { name: name.into(), ..Default::default() };
    change(&mut request);
    request
}

/// Does something in a container.
fn inside<T: Send>(networks: &Networks, id: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = networks.0.host.namespaces.open(id).unwrap().unwrap();
    namespace::inside(namespace.as_fd(), |_| Ok(work())).unwrap()
}

/// Whether a connection from within `from` reaches a listener within `to` at its address.
fn reaches(networks: &Networks, from: &str, to: &str, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let listener = inside(networks, to, || TcpListener::bind((address, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    inside(networks, from, || {
        TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(2500)).is_ok()
    })
}

/// Waits until something holds.
fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "{what} not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a manager as if it were killed: what is its process's own is gone, and nothing else.
fn kill(networks: Networks) {
    for sandbox in networks.0.records.sandboxes().unwrap() {
        networks.0.runtime.block_on(networks.0.names.stop(&sandbox.container));
    }
    let ports: Vec<_> = networks.0.firewall.rules().endpoints.into_values().collect();
    drop(networks);
    // Proxies close their sockets in their own time.
    for port in ports.iter().flat_map(|endpoint| &endpoint.ports) {
        let address = (port.host_address, port.host_port);
        eventually("a proxy ends", Duration::from_secs(3), || TcpListener::bind(address).is_ok());
    }
}
