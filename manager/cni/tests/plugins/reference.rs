//! The reference plugins, unchanged, by configuration lists as they are found in the field.

use hull_manager_cni::Attachment;
use hull_manager_core::ErrorKind;
use serde_json::{Value, json};

use crate::lab::{Container, Lab, eventually, greeting, lab, network, run};

/// `10.9.0.0/24` on the bridge cni9; `more` are further plugins.
fn bridge(lab: &Lab, versions: &[&str], more: Value) -> hull_manager_cni::Network {
    let mut plugins = vec![json!({
        "type": "bridge", "bridge": "cni9", "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": lab.path("ipam"),
            "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd99::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}
    })];
    plugins.extend(more.as_array().unwrap().clone());
    network(json!({"name": "net9", "cniVersion": versions[0], "cniVersions": versions,
        "plugins": plugins}))
}

fn usual(lab: &Lab) -> Value {
    json!([
        {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        {"type": "firewall", "backend": "iptables"},
        {"type": "tuning", "dataDir": lab.path("tuning"), "sysctl": {"net.core.somaxconn": "500"}}
    ])
}

fn published(container: &Container, id: &str, host: u16, inside: u16) -> Attachment {
    let ports = json!([{"hostPort": host, "containerPort": inside, "protocol": "tcp"}]);
    let capabilities = json!({"portMappings": ports});
    Attachment {
        capabilities: capabilities.as_object().unwrap().clone(),
        ..container.attachment(id)
    }
}

#[test]
fn containers_on_a_bridge_reach_each_other_and_are_published_until_they_are_deleted() {
    lab(|lab| {
        let network = bridge(lab, &["0.4.0", "1.0.0", "1.1.0"], usual(lab));
        assert_eq!(lab.wait(lab.cni().version(&network)).unwrap().to_string(), "1.0.0");
        let (web, client) = (Container::new(), Container::new());
        web.greet(80, "web");
        let made = lab.add(&network, published(&web, "web", 8080, 80)).unwrap();
        lab.add(&network, client.attachment("client")).unwrap();

        assert_eq!(made.ips[0].address.to_string(), "10.9.0.2");
        assert_eq!(made.ips[1].address.to_string(), "fd99::2");
        assert_eq!(made.ips[0].gateway.unwrap().to_string(), "10.9.0.1");
        assert_eq!(made.interfaces[made.ips[0].interface.unwrap()].name, "eth0");
        assert_eq!(made.routes[0].destination.1, 0);
        assert_eq!(client.inside(|| greeting("10.9.0.2:80")).as_deref(), Some("web"));
        assert_eq!(greeting("10.9.0.1:8080").as_deref(), Some("web"));
        let somaxconn = web.inside(|| run("cat", &["/proc/sys/net/core/somaxconn"]));
        assert_eq!(somaxconn.trim(), "500");
        // Not of "web": this portmap looks for rules of IPv6 among those of IPv4.
        lab.check(&network, "client").unwrap();
        assert!(run("iptables", &["-S"]).contains("10.9.0.2"), "the firewall plugin's rules");

        lab.del(&network, "web").unwrap();
        assert_eq!(greeting("10.9.0.1:8080"), None);
        assert!(!web.ip(&["link"]).contains("eth0"));
        assert!(
            !lab.path("ipam/net9/10.9.0.2").exists() && lab.path("ipam/net9/10.9.0.3").exists()
        );
        assert!(!run("iptables", &["-S"]).contains("10.9.0.2"));
        lab.del(&network, "client").unwrap();
        lab.del(&network, "client").unwrap();
        assert_eq!(lab.records(), 0);
    });
}

#[test]
fn check_tells_what_somebody_else_has_changed() {
    lab(|lab| {
        let network = bridge(lab, &["1.0.0"], json!([]));
        let container = Container::new();
        assert_eq!(lab.check(&network, "a").unwrap_err().kind(), ErrorKind::NotFound);
        lab.add(&network, container.attachment("a")).unwrap();
        lab.check(&network, "a").unwrap();
        container.ip(&["addr", "del", "10.9.0.2/24", "dev", "eth0"]);
        let error = lab.check(&network, "a").unwrap_err().to_string();
        assert!(error.starts_with("plugin bridge: "), "{error}");
        lab.del(&network, "a").unwrap();
    });
}

#[test]
fn bandwidth_is_limited_by_its_capability() {
    lab(|lab| {
        let shaped = json!([{"type": "bandwidth", "capabilities": {"bandwidth": true}}]);
        let network = bridge(lab, &["1.0.0"], shaped);
        let container = Container::new();
        let rates = json!({"bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 8_000_000, "egressBurst": 800_000}});
        let capabilities = rates.as_object().unwrap().clone();
        lab.add(&network, Attachment { capabilities, ..container.attachment("a") }).unwrap();
        assert_eq!(run("tc", &["qdisc"]).matches("tbf").count(), 2);
        lab.check(&network, "a").unwrap();
        lab.del(&network, "a").unwrap();
        assert!(!run("tc", &["qdisc"]).contains("tbf"));
        // A container that asks for none has none.
        lab.add(&network, container.attachment("a")).unwrap();
        assert!(!run("tc", &["qdisc"]).contains("tbf"));
        lab.del(&network, "a").unwrap();
    });
}

#[test]
fn macvlan_ptp_and_loopback_make_their_interfaces() {
    lab(|lab| {
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        run("ip", &["link", "set", "up0", "up"]);
        let ipam =
            |subnet| json!({"type": "host-local", "dataDir": lab.path("ipam"), "subnet": subnet});
        for (name, plugin, kind) in [
            (
                "mac",
                json!({"type": "macvlan", "master": "up0", "mode": "bridge", "ipam": ipam("10.8.0.0/24")}),
                "macvlan",
            ),
            ("ptp", json!({"type": "ptp", "ipMasq": true, "ipam": ipam("10.7.0.0/24")}), "veth"),
        ] {
            let network =
                network(json!({"name": name, "cniVersion": "1.0.0", "plugins": [plugin]}));
            let container = Container::new();
            let made = lab.add(&network, container.attachment("a")).unwrap();
            let shown = container.ip(&["-d", "addr", "show", "eth0"]);
            assert!(
                shown.contains(&made.ips[0].address.to_string()) && shown.contains(kind),
                "{shown}"
            );
            lab.check(&network, "a").unwrap();
            lab.del(&network, "a").unwrap();
            assert!(!container.ip(&["link"]).contains("eth0"));
        }
        let network = network(json!({"name": "lo", "type": "loopback", "cniVersion": "1.0.0"}));
        let container = Container::new();
        let attachment = Attachment { interface: "lo".into(), ..container.attachment("a") };
        lab.add(&network, attachment).unwrap();
        assert!(container.ip(&["link", "show", "lo"]).contains("LOOPBACK,UP"));
        lab.wait(lab.cni().del("lo", "a", "lo")).unwrap();
    });
}

#[test]
fn a_static_address_is_asked_for_by_argument() {
    lab(|lab| {
        let network = bridge(lab, &["1.0.0"], json!([]));
        let container = Container::new();
        let args = vec![("IgnoreUnknown".into(), "1".into()), ("IP".into(), "10.9.0.77".into())];
        let made = lab.add(&network, Attachment { args, ..container.attachment("a") }).unwrap();
        assert_eq!(made.ips[0].address.to_string(), "10.9.0.77");
        lab.del(&network, "a").unwrap();
    });
}

#[test]
fn a_version_that_a_plugin_does_not_speak_is_refused_in_a_sentence() {
    lab(|lab| {
        let container = Container::new();
        lab.plugin("old", r#"echo '{"cniVersion": "0.4.0", "supportedVersions": ["0.2.0"]}'"#);
        for (versions, more, sentence) in [
            (
                &["1.1.0"][..],
                json!([]),
                "allows CNI version 1.1.0, but plugin bridge speaks 0.1.0, ",
            ),
            (
                &["0.4.0", "1.0.0"],
                json!([{"type": "old"}]),
                "allows CNI version 0.4.0, 1.0.0, but plugin old speaks 0.2.0",
            ),
        ] {
            let error =
                lab.add(&bridge(lab, versions, more), container.attachment("a")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().starts_with(&format!("network net9 {sentence}")), "{error}");
        }
        let missing = bridge(lab, &["1.0.0"], json!([{"type": "absent"}]));
        let error = lab.add(&missing, container.attachment("a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(lab.records(), 0);
        assert!(!container.ip(&["link"]).contains("eth0"));
    });
}

#[test]
fn a_configuration_that_a_plugin_never_takes_leaves_no_record() {
    lab(|lab| {
        let ipam = json!({"type": "host-local", "subnet": "nonsense"});
        let plugins = json!([{"type": "bridge", "ipam": ipam}]);
        let network = network(json!({"name": "n", "cniVersion": "1.0.0", "plugins": plugins}));
        let error = lab.add(&network, Container::new().attachment("a")).unwrap_err().to_string();
        assert!(error.starts_with("plugin bridge: "), "{error}");
        assert_eq!(lab.records(), 0);
    });
}

#[test]
fn garbage_collection_before_1_1_deletes_what_is_not_valid() {
    lab(|lab| {
        let network = bridge(lab, &["1.0.0"], usual(lab));
        let (kept, lost) = (Container::new(), Container::new());
        lost.greet(80, "lost");
        lab.add(&network, kept.attachment("kept")).unwrap();
        lab.add(&network, published(&lost, "lost", 8081, 80)).unwrap();
        assert_eq!(greeting("10.9.0.1:8081").as_deref(), Some("lost"));
        let valid = vec![("kept".to_owned(), "eth0".to_owned())];
        lab.wait(lab.cni().gc(&network, || Ok(valid))).unwrap();
        assert_eq!(greeting("10.9.0.1:8081"), None);
        lab.check(&network, "kept").unwrap();
        let recorded = lab.cni().attachments().unwrap();
        assert_eq!(recorded.len(), 1);
        assert_eq!(recorded[0].addition.as_ref().unwrap().ips[0].address.to_string(), "10.9.0.2");
        lab.wait(lab.cni().status(&network)).unwrap();
        lab.del(&network, "kept").unwrap();
    });
}

#[test]
fn what_is_left_is_deleted_after_the_namespaces_end() {
    lab(|lab| {
        let network = bridge(lab, &["1.0.0"], usual(lab));
        let container = Container::new();
        let mut attachment = published(&container, "a", 8082, 80);
        // A file that outlives the namespace, as a pinned one does after a reboot.
        let file = lab.path("netns");
        std::fs::write(&file, "").unwrap();
        run("mount", &["--bind", attachment.netns.to_str().unwrap(), file.to_str().unwrap()]);
        attachment.netns = file.clone();
        let added = lab.add(&network, attachment);
        run("umount", &[file.to_str().unwrap()]);
        added.unwrap();
        drop(container);
        eventually("the kernel removes the interface", || !run("ip", &["link"]).contains("veth"));
        lab.del(&network, "a").unwrap();
        assert!(!lab.path("ipam/net9/10.9.0.2").exists());
        assert!(!run("iptables", &["-t", "nat", "-S"]).contains("8082"));
        assert_eq!(lab.records(), 0);
    });
}

#[test]
fn a_second_add_replaces_the_first() {
    lab(|lab| {
        let network = bridge(lab, &["1.0.0"], json!([]));
        let container = Container::new();
        lab.add(&network, container.attachment("a")).unwrap();
        let made = lab.add(&network, container.attachment("a")).unwrap();
        assert_eq!(container.ip(&["-4", "addr", "show", "eth0"]).matches("inet ").count(), 1);
        assert_eq!(made.ips[0].address.to_string(), "10.9.0.3", "host-local goes on");
        assert!(!lab.path("ipam/net9/10.9.0.2").exists());
        lab.del(&network, "a").unwrap();
    });
}
