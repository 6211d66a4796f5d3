//! hull-cni as others execute it: by the protocol, alone and with the reference plugins. The host
//! is a network namespace of each test's own.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use hull_manager_cni::{Attachment, Cni, Network, Settings};
use hull_manager_core::ErrorKind;
use hull_runtime_sys::namespace;
use serde_json::{Value, json};

const REFERENCE: &str = "/usr/lib/cni";

struct Lab {
    directory: tempfile::TempDir,
    cni: Cni,
    runtime: tokio::runtime::Runtime,
}

fn lab(test: impl FnOnce(&Lab)) {
    if hull_runtime_sys::process::effective_uid() != 0 || !Path::new(REFERENCE).is_dir() {
        let required = std::env::var("HULL_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "root and Debian's package containernetworking-plugins are required");
        eprintln!("skipped: needs root and Debian's package containernetworking-plugins");
        return;
    }
    namespace::unshare(libc::CLONE_NEWNET).unwrap();
    run("ip", &["link", "set", "lo", "up"]);
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(directory.path().join("records"));
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_hull-cni"));
    settings.path = vec![ours.parent().unwrap().into(), REFERENCE.into()];
    let cni = Cni::open(settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    test(&Lab { directory, cni, runtime });
}

impl Lab {
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A network on the bridge hc0; `more` is over our plugin's fields, `chain` behind it.
    fn network(&self, more: Value, chain: Value) -> Network {
        let mut plugin = json!({"type": "hull-cni", "driver": "bridge", "bridge": "hc0",
            "ipMasq": true, "dataDir": self.directory.path().join("data"),
            "capabilities": {"portMappings": true},
            "ipam": {"type": "hull-cni", "ranges": [
                [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}],
                [{"subnet": "fd99::/64", "gateway": "fd99::1"}]]}});
        plugin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut plugins = vec![plugin];
        plugins.extend(chain.as_array().unwrap().clone());
        let text = json!({"name": "net", "cniVersion": "1.1.0",
            "cniVersions": ["0.4.0", "1.0.0"], "plugins": plugins});
        Network::parse(text.to_string().as_bytes()).unwrap()
    }

    fn tables(&self) -> String {
        run("nft", &["list", "tables"])
    }

    /// Our plugin, by hand.
    fn call(&self, command: &str, container: &Container, request: &Value) -> std::process::Child {
        let attachment = container.attachment("a");
        let mut child = Command::new(env!("CARGO_BIN_EXE_hull-cni"))
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", attachment.container_id)
            .env("CNI_NETNS", attachment.netns)
            .env("CNI_IFNAME", attachment.interface)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
        child
    }

    fn request(&self) -> Value {
        let network = self.network(json!({}), json!([]));
        let mut request = network.plugins[0].fields.clone();
        request.insert("name".into(), "net".into());
        request.insert("cniVersion".into(), "1.1.0".into());
        Value::Object(request)
    }
}

struct Container {
    namespace: File,
}

impl Container {
    fn new() -> Self {
        let namespace = thread::spawn(|| {
            namespace::unshare(libc::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self { namespace: namespace.join().unwrap() }
    }

    fn attachment(&self, id: &str) -> Attachment {
        Attachment {
            container_id: id.into(),
            netns: format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into(),
            interface: "eth0".into(),
            ..Attachment::default()
        }
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                namespace::setns(&self.namespace, libc::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    fn ip(&self, words: &[&str]) -> String {
        self.inside(|| run("ip", words))
    }

    fn greet(&self, greeting: &'static str) {
        let listener = self.inside(|| TcpListener::bind(("::", 80)).unwrap());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                drop(stream.write_all(greeting.as_bytes()));
            }
        });
    }
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn greeting(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn published(container: &Container, id: &str, host_port: u16) -> Attachment {
    let ports = json!({"portMappings": [
        {"hostPort": host_port, "containerPort": 80, "protocol": "tcp"}]});
    Attachment { capabilities: ports.as_object().unwrap().clone(), ..container.attachment(id) }
}

#[test]
fn containers_are_connected_published_checked_and_disconnected() {
    lab(|lab| {
        let network = lab.network(json!({}), json!([]));
        let (web, client) = (Container::new(), Container::new());
        web.greet("web");
        let made = lab.wait(lab.cni.add(&network, published(&web, "web", 8080))).unwrap();
        lab.wait(lab.cni.add(&network, client.attachment("client"))).unwrap();
        assert_eq!(made.raw["cniVersion"], "1.1.0");
        assert_eq!(made.ips[0].address.to_string(), "10.9.0.2");
        assert_eq!(made.ips[1].address.to_string(), "fd99::2");
        assert_eq!(made.interfaces[made.ips[0].interface.unwrap()].name, "eth0");
        for (from, address) in [
            (Some(&client), "10.9.0.2:80"),
            (Some(&client), "[fd99::2]:80"),
            (Some(&client), "10.9.0.1:8080"),
            (None, "10.9.0.1:8080"),
            (None, "127.0.0.1:8080"),
        ] {
            let said = match from {
                Some(container) => container.inside(|| greeting(address)),
                None => greeting(address),
            };
            assert_eq!(
                said.as_deref(),
                Some("web"),
                "{address} from a container: {}",
                from.is_some()
            );
        }
        lab.wait(lab.cni.check("net", "web", "eth0")).unwrap();
        web.ip(&["link", "set", "eth0", "down"]);
        let error = lab.wait(lab.cni.check("net", "web", "eth0")).unwrap_err().to_string();
        assert_eq!(error, "plugin hull-cni: eth0 is down");

        lab.wait(lab.cni.del("net", "web", "eth0")).unwrap();
        assert_eq!(greeting("10.9.0.1:8080"), None);
        assert!(!web.ip(&["link"]).contains("eth0"));
        assert!(lab.tables().contains("hull-cni-"));
        lab.wait(lab.cni.del("net", "client", "eth0")).unwrap();
        assert_eq!(lab.tables(), "");
    });
}

#[test]
fn it_stands_at_the_head_of_the_reference_plugins() {
    lab(|lab| {
        let chain = json!([
            {"type": "tuning", "dataDir": lab.directory.path().join("tuning"),
                "sysctl": {"net.core.somaxconn": "500"}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            {"type": "firewall", "backend": "iptables"}
        ]);
        let network = lab.network(json!({}), chain);
        assert_eq!(lab.wait(lab.cni.version(&network)).unwrap().to_string(), "1.0.0");
        let container = Container::new();
        let rates = json!({"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000}});
        let capabilities = rates.as_object().unwrap().clone();
        let attachment = Attachment { capabilities, ..container.attachment("a") };
        lab.wait(lab.cni.add(&network, attachment)).unwrap();
        assert!(run("tc", &["qdisc"]).contains("tbf"));
        let somaxconn = container.inside(|| run("cat", &["/proc/sys/net/core/somaxconn"]));
        assert_eq!(somaxconn.trim(), "500");
        lab.wait(lab.cni.check("net", "a", "eth0")).unwrap();
        lab.wait(lab.cni.del("net", "a", "eth0")).unwrap();
        assert!(!run("ip", &["link"]).contains("hv"));
    });
}

#[test]
fn addresses_are_asked_for_taken_and_at_an_end() {
    lab(|lab| {
        let ranges = json!({"ipam": {"type": "hull-cni",
            "ranges": [[{"subnet": "10.9.0.0/29", "gateway": "10.9.0.1"}]]}});
        let network = lab.network(ranges, json!([]));
        let containers: Vec<_> = (0..5).map(|_| Container::new()).collect();
        let args = vec![("IP".to_owned(), "10.9.0.4".to_owned())];
        let fixed = Attachment { args: args.clone(), ..containers[0].attachment("c0") };
        let made = lab.wait(lab.cni.add(&network, fixed)).unwrap();
        assert_eq!(made.ips[0].address.to_string(), "10.9.0.4");
        let same = Attachment { args, ..containers[1].attachment("c1") };
        let error = lab.wait(lab.cni.add(&network, same)).unwrap_err().to_string();
        assert!(error.contains("Address already in use"), "{error}");
        for (number, container) in containers.iter().enumerate().skip(1) {
            lab.wait(lab.cni.status(&network)).unwrap();
            lab.wait(lab.cni.add(&network, container.attachment(&format!("c{number}")))).unwrap();
        }
        let error = lab.wait(lab.cni.status(&network)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let one_more = Container::new();
        let error = lab.wait(lab.cni.add(&network, one_more.attachment("more"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "plugin hull-cni: network net has no such address that is free"
        );
        let valid = vec![("c0".to_owned(), "eth0".to_owned())];
        lab.wait(lab.cni.gc(&network, valid)).unwrap();
        lab.wait(lab.cni.add(&network, one_more.attachment("more"))).unwrap();
        assert_eq!(run("ip", &["link"]).matches("hv").count(), 2);
    });
}

#[test]
fn collection_takes_what_nobody_else_remembers() {
    lab(|lab| {
        let container = Container::new();
        let added = lab.call("ADD", &container, &lab.request()).wait().unwrap();
        assert!(added.success());
        let network = lab.network(json!({}), json!([]));
        lab.wait(lab.cni.gc(&network, Vec::new())).unwrap();
        assert!(!run("ip", &["link"]).contains("hv"));
        assert_eq!(lab.tables(), "");
    });
}

#[test]
fn who_is_killed_at_any_moment_leaves_nothing_behind_its_deletion() {
    lab(|lab| {
        let request = lab.request();
        let mut cut = 0;
        for round in 0..30 {
            let container = Container::new();
            let mut child = lab.call("ADD", &container, &request);
            thread::sleep(Duration::from_micros(round * 1000));
            child.kill().unwrap();
            cut += u32::from(!child.wait().unwrap().success());
            assert!(lab.call("DEL", &container, &request).wait().unwrap().success());
            assert!(!run("ip", &["link"]).contains("hv"), "round {round}");
            assert!(!container.ip(&["link"]).contains("eth0"), "round {round}");
            assert_eq!(lab.tables(), "", "round {round}");
        }
        assert!(cut > 3, "only {cut} were killed before their end");
        let container = Container::new();
        let output = lab.call("ADD", &container, &request).wait_with_output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.9.0.2/24", "all addresses are free again");
    });
}

#[test]
fn a_macvlan_is_made_on_its_parent() {
    lab(|lab| {
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        run("ip", &["link", "set", "up0", "up"]);
        let ipam = json!({"type": "hull-cni", "ranges": [[{"subnet": "10.8.0.0/24"}]]});
        let text = json!({"name": "mac", "cniVersion": "1.0.0", "plugins": [{"type": "hull-cni",
            "driver": "macvlan", "master": "up0", "mode": "bridge",
            "dataDir": lab.directory.path().join("data"), "ipam": ipam}]});
        let network = Network::parse(text.to_string().as_bytes()).unwrap();
        let container = Container::new();
        lab.wait(lab.cni.add(&network, container.attachment("a"))).unwrap();
        assert!(container.ip(&["-d", "link", "show", "eth0"]).contains("macvlan"));
        lab.wait(lab.cni.check("mac", "a", "eth0")).unwrap();
        lab.wait(lab.cni.del("mac", "a", "eth0")).unwrap();
        assert!(!container.ip(&["link"]).contains("eth0"));
    });
}

#[test]
fn what_makes_no_sense_is_refused_in_a_sentence() {
    lab(|lab| {
        let container = Container::new();
        let with = |key: &str, value: Value| {
            let mut request = lab.request();
            request[key] = value;
            request
        };
        for (command, request, code, sentence) in [
            ("ADD", with("cniVersion", json!("0.2.0")), 1, "is not one of"),
            ("ADD", with("prevResult", json!({})), 7, "first plugin"),
            ("ADD", with("driver", json!("none")), 7, "no driver is called"),
            ("ADD", with("nonsense", json!(1)), 7, "nonsense"),
            ("ADD", with("dataDir", json!("relative")), 7, "not an absolute path"),
            ("ADD", with("bridge", json!("a/b")), 7, "invalid interface name"),
            (
                "ADD",
                with(
                    "runtimeConfig",
                    json!({"portMappings": [{"hostPort": 0, "containerPort": 1}]}),
                ),
                7,
                "no host port",
            ),
            ("ADD", json!([]), 6, "the request"),
            ("CHECK", lab.request(), 3, "is not connected"),
            ("EAT", lab.request(), 4, "EAT"),
        ] {
            let output = lab.call(command, &container, &request).wait_with_output().unwrap();
            assert!(!output.status.success(), "{sentence}");
            let failure: Value = serde_json::from_slice(&output.stdout).unwrap();
            let said = failure["msg"].as_str().unwrap();
            assert!(failure["code"] == code && said.contains(sentence), "{sentence}: {failure}");
        }
        let output = lab.call("VERSION", &container, &json!({"cniVersion": "1.1.0"}));
        let output = output.wait_with_output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["supportedVersions"][4], "1.1.0");
        assert!(!run("ip", &["link"]).contains("hc0"), "nothing was made");
    });
}
