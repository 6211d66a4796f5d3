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

    /// The plugin, by hand.
    fn call(&self, command: &str, id: &str) -> std::process::Child {
        self.call_with(command, id, |_| {})
    }

    fn call_with(
        &self,
        command: &str,
        id: &str,
        change: impl FnOnce(&mut serde_json::Map<String, Value>),
    ) -> std::process::Child {
        let plugin = &self.network(|_| {}).plugins[0];
        let mut request = plugin.fields.clone();
        change(&mut request);
        request.insert("cniVersion".into(), "1.0.0".into());
        request.insert("name".into(), "lan".into());
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hull-cni"))
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", self.directory.path().join("containers").join(id))
            .env("CNI_IFNAME", "net1")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let text = Value::Object(request).to_string();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        child
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
        lab.runtime.block_on(lab.cni.gc(&network, || Ok(Vec::new()))).unwrap();
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
        // Another call leaves the first one's rules as they are, also when who called holds the
        // port, as podman does.
        let held = TcpListener::bind("0.0.0.0:8080").unwrap();
        lab.namespace("bb");
        lab.add(&network, lab.attachment("bb", json!({}))).unwrap();
        assert!(connect());
        let again = json!({ "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }
        ] });
        lab.namespace("cc");
        let error = lab.add(&network, lab.attachment("cc", again)).unwrap_err().to_string();
        assert!(
            error.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"),
            "{error}"
        );
        drop(held);
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

/// Debian's reference plugins; none where they are not installed.
fn reference() -> Option<PathBuf> {
    let directory = PathBuf::from("/usr/lib/cni");
    if directory.join("tuning").is_file() {
        return Some(directory);
    }
    let required = std::env::var("HULL_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!required, "Debian's package containernetworking-plugins is required");
    eprintln!("skipped: needs Debian's package containernetworking-plugins");
    None
}

#[test]
fn it_stands_before_the_reference_plugins() {
    let Some(reference) = reference() else { return };
    on_a_host(|lab| {
        let program = Path::new(env!("CARGO_BIN_EXE_hull-cni"));
        let mut settings = Settings::new(lab.directory.path().join("records"));
        settings.path = vec![program.parent().unwrap().to_owned(), reference.clone()];
        let cni = Cni::open(settings).unwrap();
        let first = lab.network(|_| {}).plugins[0].fields.clone();
        let list = json!({ "cniVersion": "1.0.0", "name": "lan", "plugins": [
            first,
            { "type": "tuning", "dataDir": lab.directory.path().join("tuning"),
              "sysctl": { "net.core.somaxconn": "500" } },
            { "type": "bandwidth", "capabilities": { "bandwidth": true } },
            { "type": "firewall", "backend": "iptables" },
        ] });
        let network = Network::parse(list.to_string().as_bytes()).unwrap();
        lab.namespace("aa");
        let rates = json!({ "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 800_000 } });
        lab.runtime.block_on(cni.add(&network, lab.attachment("aa", rates))).unwrap();
        let somaxconn = || std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        assert_eq!(lab.inside("aa", somaxconn).trim(), "500");
        assert!(run("tc", &["qdisc"]).contains("tbf"));
        lab.runtime.block_on(cni.check("lan", "aa", "net1")).unwrap();
        lab.runtime.block_on(cni.del("lan", "aa", "net1")).unwrap();
        assert!(!run("ip", &["link"]).contains("hv"));
        assert_eq!(lab.left(), [""; 0]);
    });
}

#[test]
fn what_is_killed_at_any_moment_leaves_nothing_after_a_deletion() {
    const ROUNDS: u32 = 20;
    on_a_host(|lab| {
        let timed = |command: &str| {
            let begin = std::time::Instant::now();
            assert!(lab.call(command, "aa").wait().unwrap().success(), "{command}");
            begin.elapsed()
        };
        lab.namespace("aa");
        for command in ["ADD", "DEL"] {
            let mut killed = 0;
            for round in 0..ROUNDS {
                let whole = timed("ADD");
                let whole = if command == "DEL" { whole } else { timed("DEL").max(whole) };
                let mut child = lab.call(command, "aa");
                // Each round a little later, to a little before its end.
                std::thread::sleep(whole * round / ROUNDS);
                child.kill().unwrap();
                killed += u32::from(!child.wait().unwrap().success());
                timed("DEL");
                assert!(!run("ip", &["link"]).contains("hv"), "{command}, round {round}");
                let inside = lab.inside("aa", || run("ip", &["link"]));
                assert!(!inside.contains("net1"), "{command}, round {round}: {inside}");
                assert_eq!(lab.left(), [""; 0], "{command}, round {round}");
            }
            assert!(killed > ROUNDS / 4, "only {killed} were killed before the end of {command}");
        }
        let output = lab.call("ADD", "aa").wait_with_output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.40.0.2/24", "all addresses are free");
        timed("DEL");
    });
}

#[test]
fn a_macvlan_is_made_on_its_parent() {
    on_a_host(|lab| {
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        run("ip", &["link", "set", "up0", "up"]);
        let network = lab.network(|plugin| {
            plugin["driver"] = json!("macvlan");
            plugin["master"] = json!("up0");
            plugin["mode"] = json!("bridge");
            for field in ["bridge", "ipMasq"] {
                plugin.as_object_mut().unwrap().remove(field);
            }
        });
        lab.namespace("aa");
        lab.add(&network, lab.attachment("aa", json!({}))).unwrap();
        let link = lab.inside("aa", || run("ip", &["-d", "address", "show", "net1"]));
        assert!(link.contains("macvlan mode bridge") && link.contains("10.40.0."), "{link}");
        lab.runtime.block_on(lab.cni.check("lan", "aa", "net1")).unwrap();
        lab.runtime.block_on(lab.cni.del("lan", "aa", "net1")).unwrap();
        assert!(!lab.inside("aa", || run("ip", &["link"])).contains("net1"));
    });
}

fn run(program: &str, words: &[&str]) -> String {
    let output = std::process::Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn published_ports_of_both_families_are_checked_and_put_back() {
    on_a_host(|lab| {
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "up0"]);
        run("ip", &["address", "add", "2001:db8::1/64", "dev", "up0", "nodad"]);
        for name in ["up0", "up1"] {
            run("ip", &["link", "set", name, "up"]);
        }
        let ranges = json!([[{ "subnet": "10.40.0.0/24" }], [{ "subnet": "2001:db8:40::/64" }]]);
        let network = lab.network(|plugin| plugin["ipam"]["ranges"] = ranges);
        lab.namespace("aa");
        let ports = json!({ "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
            { "hostPort": 8443, "containerPort": 80, "protocol": "tcp", "hostIP": "2001:db8::1" },
        ] });
        let a = lab.add(&network, lab.attachment("aa", ports)).unwrap();
        assert_eq!(a.ips.len(), 2);
        let _listener = lab.inside("aa", || TcpListener::bind("[::]:80").unwrap());
        let connects = || {
            ["192.0.2.1:8080", "[2001:db8::1]:8080", "[2001:db8::1]:8443"].map(|at| {
                TcpStream::connect_timeout(&at.parse().unwrap(), Duration::from_secs(3)).is_ok()
            })
        };
        let check = || lab.runtime.block_on(lab.cni.check("lan", "aa", "net1"));
        assert_eq!(connects(), [true; 3]);
        check().unwrap();
        assert_eq!(connects(), [true; 3]);
        // Somebody takes the rules away, and then the interface.
        run("nft", &["flush", "ruleset"]);
        assert_eq!(connects(), [false; 3], "the control");
        check().unwrap();
        assert_eq!(connects(), [true; 3]);
        lab.inside("aa", || run("ip", &["link", "delete", "net1"]));
        check().unwrap();
        assert_eq!(connects(), [true; 3]);
        lab.runtime.block_on(lab.cni.del("lan", "aa", "net1")).unwrap();
        let error = check().unwrap_err();
        assert_eq!(error.kind(), hull_manager_core::ErrorKind::NotFound, "{error}");
    });
}

#[test]
fn what_is_valid_must_be_named_before_anything_is_collected() {
    on_a_host(|lab| {
        lab.namespace("aa");
        assert!(lab.call("ADD", "aa").wait().unwrap().success());
        let output = lab.call("GC", "aa").wait_with_output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["msg"], "cni.dev/valid-attachments is not a list");
        assert_eq!(lab.left().len(), 1);
        // By either name.
        let valid = json!([{ "containerID": "aa", "ifname": "net1" }]);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            for (list, left) in [(&valid, 1), (&json!([]), 0)] {
                let call = |fields: &mut serde_json::Map<_, _>| {
                    fields.insert(key.into(), list.clone());
                };
                assert!(lab.call_with("GC", "aa", call).wait().unwrap().success(), "{key}");
                assert_eq!(lab.left().len(), left, "{key}");
            }
            assert!(lab.call("ADD", "aa").wait().unwrap().success());
        }
        assert!(lab.call("DEL", "aa").wait().unwrap().success());
    });
}

#[test]
fn an_address_is_asked_for_in_each_way_of_the_conventions() {
    on_a_host(|lab| {
        let args = json!({ "cni": { "ips": ["10.40.0.77"], "labels": [] } });
        for (ips, expected) in
            [(json!(null), "10.40.0.77/24"), (json!(["10.40.0.9"]), "10.40.0.9/24")]
        {
            lab.namespace("aa");
            let call = |fields: &mut serde_json::Map<String, Value>| {
                fields.insert("args".into(), args.clone());
                fields.insert("runtimeConfig".into(), json!({ "ips": ips }));
            };
            let output = lab.call_with("ADD", "aa", call).wait_with_output().unwrap();
            let result: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(result["ips"][0]["address"], expected, "{result}");
            assert!(lab.call("DEL", "aa").wait().unwrap().success());
            drop(sys::mount::unmount(lab.directory.path().join("containers/aa"), true));
        }
    });
}
