//! Networks by plugins.

use super::{names::resolve, *};

#[test]
fn plugins_of_a_users_list_connect_and_disconnect() {
    if !Path::new("/usr/lib/cni/bridge").exists() {
        eprintln!("not run: no reference plugins in /usr/lib/cni");
        return;
    }
    on_a_host(|lab| {
        let networks = lab.start(&[]);
        let data = lab.directory.path().join("host-local");
        let list = serde_json::json!({
            "cniVersion": "1.0.0", "name": "ref", "plugins": [{
                "type": "bridge", "bridge": "cni7", "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": data,
                    "ranges": [[{"subnet": "10.77.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}]
                }
            }]
        });
        let file = lab.settings.definitions.join("ref.conflist");
        std::fs::write(&file, list.to_string()).unwrap();
        let a = networks.0.attach(&container("aa", "ref", &[])).unwrap();
        let b = networks.0.attach(&container("bb", "ref", &["bridge"])).unwrap();
        assert_eq!(a.endpoints[0].ipv4_address, "10.77.0.2");
        assert_eq!(a.endpoints[0].ipv4_gateway, "10.77.0.1");
        assert_eq!(b.endpoints[1].network, "bridge");
        assert!(reaches(&networks, "aa", "bb", &b.endpoints[0].ipv4_address));
        assert_eq!(resolve(&networks, "bb", "name-aa").as_deref(), Some("10.77.0.2"));
        // Also when the list has gone, and after the manager.
        std::fs::remove_file(&file).unwrap();
        kill(networks);
        let networks = lab.start(&["bb"]);
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
        let left: Vec<_> = std::fs::read_dir(data.join("ref"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("10."))
            .collect();
        assert_eq!(left, [""; 0]);
        networks.0.host.socket.remove_link("cni7").unwrap();
    });
}

#[test]
fn a_users_plugin_is_asked_everything_that_the_specification_has() {
    on_a_host(|mut lab| {
        let directory = lab.directory.path().join("plugins");
        std::fs::create_dir(&directory).unwrap();
        let log = lab.directory.path().join("log");
        let script = format!(
            r#"#!/bin/sh
            echo "$CNI_COMMAND $CNI_CONTAINERID" >> {log}
            case $CNI_COMMAND in
            VERSION) echo '{{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}}' ;;
            ADD) echo '{{"cniVersion":"1.1.0","interfaces":[],"ips":[]}}' ;;
            STATUS) if [ -e {log}.busy ]; then
                echo '{{"cniVersion":"1.1.0","code":50,"msg":"come back later"}}'; exit 1
            fi ;;
            esac"#,
            log = log.display()
        );
        let plugin = directory.join("noop");
        std::fs::write(&plugin, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&plugin, mode).unwrap();
        lab.settings.cni.path = vec![directory];
        let networks = lab.start(&[]);
        let list = r#"{"cniVersion":"1.1.0","name":"own","plugins":[{"type":"noop"}]}"#;
        std::fs::write(lab.settings.definitions.join("own.conflist"), list).unwrap();
        let asked = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            drop(std::fs::remove_file(&log));
            let asked = text.lines().map(|line| line.trim().to_owned());
            asked.filter(|line| !line.starts_with("VERSION")).collect::<Vec<_>>()
        };
        let mut publishes = container("aa", "own", &[]);
        publishes.options.publish.push(v1::PublishOptions {
            host_port: 8080,
            container_port: 80,
            ..Default::default()
        });
        let error = networks.0.attach(&publishes).unwrap_err().to_string();
        assert!(error.contains("network own has no plugin that publishes ports"), "{error}");
        assert_eq!(asked(), [""; 0]);
        networks.0.attach(&container("aa", "own", &[])).unwrap();
        assert_eq!(asked(), ["STATUS", "ADD aa"]);
        kill(networks);
        // Nobody is in this one: there is nothing of ours to collect.
        let unused = list.replace("own", "unused");
        std::fs::write(lab.settings.definitions.join("unused.conflist"), unused).unwrap();
        let networks = lab.open();
        networks.0.recover(&["aa".to_owned()]).unwrap();
        assert_eq!(asked(), [""; 0], "a start waits for no plugin");
        networks.0.collect().unwrap();
        eventually("the plugin collects", Duration::from_secs(20), || {
            std::fs::read_to_string(&log).is_ok_and(|text| text.contains("GC"))
        });
        assert_eq!(asked(), ["GC"]);
        networks.0.check("aa").unwrap();
        let mut checked = Vec::new();
        eventually("the plugin is asked", Duration::from_secs(20), || {
            checked.extend(asked());
            !checked.is_empty()
        });
        assert_eq!(checked, ["CHECK aa"]);
        networks.0.detach("aa").unwrap();
        assert_eq!(asked(), ["DEL aa"]);
        std::fs::write(format!("{}.busy", log.display()), "").unwrap();
        let error = networks.0.attach(&container("aa", "own", &[])).unwrap_err().to_string();
        assert!(error.contains("network own") && error.contains("come back later"), "{error}");
        assert_eq!(asked(), ["STATUS"]);
        lab.assert_clean(&networks, "after a refusal");
        std::fs::remove_file(format!("{}.busy", log.display())).unwrap();
        // What has died meanwhile is deleted, but no start waits for it either.
        networks.0.attach(&container("bb", "own", &[])).unwrap();
        assert_eq!(asked(), ["STATUS", "ADD bb"]);
        kill(networks);
        let networks = lab.open();
        networks.0.recover(&[]).unwrap();
        assert_eq!(asked(), [""; 0], "a start waits for no plugin");
        networks.0.collect().unwrap();
        assert_eq!(asked(), ["DEL bb"]);
        lab.assert_clean(&networks, "after a collection");
    });
}

#[test]
fn a_list_has_plugins_in_files_of_their_own_and_says_how_names_are_resolved() {
    on_a_host(|mut lab| {
        let directory = lab.directory.path().join("plugins");
        std::fs::create_dir(&directory).unwrap();
        let log = lab.directory.path().join("log");
        let script = format!(
            r#"#!/bin/sh
            case $CNI_COMMAND in
            VERSION) echo '{{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}}' ;;
            ADD) cat >> {log}
                echo '{{"cniVersion":"1.0.0","interfaces":[],"ips":[],"dns":{{
                    "nameservers":["192.0.2.53"],"domain":"corp.example","options":["ndots:3"]}}}}' ;;
            esac"#,
            log = log.display()
        );
        let plugin = directory.join("noop");
        std::fs::write(&plugin, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&plugin, mode).unwrap();
        lab.settings.cni.path = vec![directory];
        // Nobody asks the machine's own.
        lab.settings.resolv_conf = lab.directory.path().join("resolv.conf");
        lab.settings.dns = vec!["192.0.2.99".parse().unwrap()];
        let networks = lab.start(&[]);
        let own = lab.settings.definitions.join("own");
        std::fs::create_dir(&own).unwrap();
        let noop = r#"{"type":"noop","capabilities":{"dns":true}}"#;
        std::fs::write(own.join("1.conf"), noop).unwrap();
        let list = r#"{"cniVersions":["0.4.0","1.0.0","7.0.0"],"name":"own"}"#;
        std::fs::write(lab.settings.definitions.join("own.conflist"), list).unwrap();
        assert_eq!(networks.0.inspect("own").unwrap().plugins, ["noop"]);

        let mut asked = container("aa", "own", &[]);
        let a = networks.0.attach(&asked).unwrap();
        assert!(a.resolv_conf.contains("search corp.example\n"), "{}", a.resolv_conf);
        assert!(a.resolv_conf.contains("ndots:3"), "{}", a.resolv_conf);
        let forwards = |id: &str| format!("{:?}", networks.0.names.view(id).unwrap().forward);
        assert!(forwards("aa").contains("192.0.2.53:53"), "{}", forwards("aa"));
        asked.id = "bb".into();
        asked.options.dns = vec!["192.0.2.54".into()];
        asked.options.dns_search = vec!["b.example".into()];
        let b = networks.0.attach(&asked).unwrap();
        assert!(b.resolv_conf.contains("search b.example\n"), "{}", b.resolv_conf);
        assert!(forwards("bb").contains("192.0.2.54:53"), "{}", forwards("bb"));
        let said = std::fs::read_to_string(&log).unwrap();
        let dns = r#""runtimeConfig":{"dns":{"searches":["b.example"],"servers":["192.0.2.54"]}}"#;
        assert_eq!(said.matches("runtimeConfig").count(), 1, "{said}");
        assert!(said.contains(dns) && said.contains(r#""cniVersion":"1.0.0""#), "{said}");
        for id in ["aa", "bb"] {
            networks.0.detach(id).unwrap();
        }
        lab.assert_clean(&networks, "after detach");
    });
}
