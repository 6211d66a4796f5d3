//! `hull-cni` as another manager executes it, in a network namespace that stands for the host's.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::{
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use hull_manager_cni::{Addition, Attachment, Cni, Network, Settings};
use hull_runtime_sys as sys;
use serde_json::{Value, json};

struct Lab {
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    cni: Cni,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for directory in ["run/netns", "containers"] {
            let entries = std::fs::read_dir(self.directory.path().join(directory));
            for entry in entries.into_iter().flatten().flatten() {
                drop(sys::mount::unmount(entry.path(), true));
            }
        }
    }
}

fn on_a_host(work: impl FnOnce(&Lab) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            sys::netlink::raise_loopback().unwrap();
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("containers")).unwrap();
            let program = Path::new(env!("CARGO_BIN_EXE_hull-cni"));
            let mut settings = Settings::new(directory.path().join("records"));
            settings.path = vec![program.parent().unwrap().to_owned()];
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            work(&Lab { directory, runtime, cni: Cni::open(settings).unwrap() });
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

impl Lab {
    fn network(&self, change: impl FnOnce(&mut Value)) -> Network {
        let mut plugin = json!({
            "type": "hull-cni",
            "bridge": "cni0",
            "ipMasq": true,
            "dataDir": self.directory.path().join("data"),
            "runDir": self.directory.path().join("run"),
            "capabilities": { "portMappings": true, "ips": true, "mac": true },
            "ipam": { "type": "hull-cni", "ranges": [[{ "subnet": "10.40.0.0/24" }]] },
        });
        change(&mut plugin);
        let list = json!({ "cniVersion": "1.0.0", "name": "lan", "plugins": [plugin] });
        Network::parse(list.to_string().as_bytes()).unwrap()
    }

    /// A namespace that somebody else has made.
    fn namespace(&self, id: &str) -> PathBuf {
        let path = self.directory.path().join("containers").join(id);
        std::fs::write(&path, "").unwrap();
        let target = path.clone();
        std::thread::spawn(move || {
            sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
            sys::netlink::raise_loopback().unwrap();
            let ours = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            let copy = sys::mount::copy_of(&ours, false).unwrap();
            let target = sys::path::open_without_links(&target, libc::O_PATH).unwrap();
            sys::mount::attach(copy, target).unwrap();
        })
        .join()
        .unwrap();
        path
    }

    fn attachment(&self, id: &str, capabilities: Value) -> Attachment {
        Attachment {
            container_id: id.into(),
            netns: self.directory.path().join("containers").join(id),
            interface: "net1".into(),
            args: Vec::new(),
            capabilities: capabilities.as_object().cloned().unwrap_or_default(),
        }
    }

    fn add(
        &self,
        network: &Network,
        attachment: Attachment,
    ) -> hull_manager_core::Result<Addition> {
        self.runtime.block_on(self.cni.add(network, attachment))
    }

    fn inside<T: Send>(&self, id: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = self.directory.path().join("containers").join(id);
        let namespace: OwnedFd = std::fs::File::open(path).unwrap().into();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sys::namespace::setns(&namespace, libc::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("run/netns")).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn another_managers_containers_are_connected_checked_and_disconnected() {
    on_a_host(|lab| {
        let network = lab.network(|_| {});
        lab.namespace("aa");
        lab.namespace("bb");
        lab.runtime.block_on(lab.cni.status(&network)).unwrap();
        let a = lab.add(&network, lab.attachment("aa", json!({}))).unwrap();
        let asked = json!({ "ips": ["10.40.0.9"], "mac": "02:11:22:33:44:55" });
        let b = lab.add(&network, lab.attachment("bb", asked)).unwrap();
        assert_eq!(a.ips[0].address, "10.40.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(a.ips[0].gateway, Some("10.40.0.1".parse().unwrap()));
        assert_eq!(b.ips[0].address, "10.40.0.9".parse::<IpAddr>().unwrap());
        assert_eq!(b.interfaces[2].mac, "02:11:22:33:44:55");
        assert_eq!(
            (b.interfaces[0].name.as_str(), b.interfaces[2].name.as_str()),
            ("cni0", "net1")
        );
        let address = b.ips[0].address;
        let listener = lab.inside("bb", move || TcpListener::bind((address, 80)).unwrap());
        let limit = Duration::from_secs(3);
        let connect = move || TcpStream::connect_timeout(&(address, 80).into(), limit).is_ok();
        assert!(lab.inside("aa", connect));
        drop(listener);
        for id in ["aa", "bb"] {
            lab.runtime.block_on(lab.cni.check("lan", id, "net1")).unwrap();
            lab.runtime.block_on(lab.cni.del("lan", id, "net1")).unwrap();
        }
        assert_eq!(lab.left(), [""; 0]);
        // What was given back can be had again.
        let again = json!({ "ips": ["10.40.0.9/24"] });
        lab.add(&network, lab.attachment("aa", again.clone())).unwrap();
        let error = lab.add(&network, lab.attachment("bb", again)).unwrap_err();
        assert!(error.to_string().contains("Address already in use"), "{error}");
        lab.runtime.block_on(lab.cni.gc(&network, Vec::new())).unwrap();
        assert_eq!(lab.left(), [""; 0]);
    });
}

#[test]
fn a_published_port_leads_to_the_container() {
    on_a_host(|lab| {
        let network = lab.network(|_| {});
        lab.namespace("aa");
        let ports = json!({ "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }
        ] });
        let a = lab.add(&network, lab.attachment("aa", ports)).unwrap();
        let address = a.ips[0].address;
        let listener = lab.inside("aa", move || TcpListener::bind((address, 80)).unwrap());
        let connect = || {
            let host = "127.0.0.1:8080".parse().unwrap();
            TcpStream::connect_timeout(&host, Duration::from_secs(3)).is_ok()
        };
        assert!(connect());
        // Another call leaves the first one's rules as they are.
        lab.namespace("bb");
        lab.add(&network, lab.attachment("bb", json!({}))).unwrap();
        assert!(connect());
        lab.runtime.block_on(lab.cni.del("lan", "aa", "net1")).unwrap();
        assert!(!connect());
        drop(listener);
        lab.runtime.block_on(lab.cni.del("lan", "bb", "net1")).unwrap();
    });
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_in_one_sentence() {
    on_a_host(|lab| {
        lab.namespace("aa");
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 4] = [
            (|plugin| plugin["vlan"] = json!(5), "unknown field `vlan`"),
            (|plugin| plugin["driver"] = json!("ptp"), "no driver is called"),
            (|plugin| plugin["ipam"]["ranges"] = json!([]), "ipam.ranges has no subnet"),
            (|plugin| plugin["bridge"] = json!("a/b"), "invalid interface name"),
        ];
        for (change, says) in cases {
            let network = lab.network(change);
            let error = lab.add(&network, lab.attachment("aa", json!({}))).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    });
}
