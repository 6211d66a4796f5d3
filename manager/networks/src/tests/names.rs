//! Names are answered.

use super::*;

/// A question of a resolver's to 127.0.0.11 within a container: the IPv4 address, if any.
pub(super) fn resolve(networks: &Networks, id: &str, name: &str) -> Option<String> {
    inside(networks, id, || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        socket.send_to(&question, "127.0.0.11:53").unwrap();
        let mut answer = [0; 512];
        let n = socket.recv(&mut answer).unwrap();
        // One answer; its data are the last four bytes, or the next record's follow.
        let answers = u16::from_be_bytes([answer[6], answer[7]]);
        let at = question.len() + 12;
        (answers > 0 && n >= at + 4)
            .then(|| IpAddr::from(<[u8; 4]>::try_from(&answer[at..at + 4]).unwrap()).to_string())
    })
}

#[test]
fn containers_find_each_other_by_name_on_their_networks_also_after_the_manager() {
    on_a_host(|mut lab| {
        // No resolver of the test's machine is asked.
        lab.settings.resolv_conf = lab.directory.path().join("resolv.conf");
        let networks = lab.start(&[]);
        networks.0.create(&network("n1", |_| {})).unwrap();
        networks.0.create(&network("n2", |request| request.internal = true)).unwrap();
        let mut a = container("aa", "n1", &["n1"]);
        a.options.networks[0].aliases = vec!["db".into()];
        a.options.networks[0].links = vec!["name-bb:web".into()];
        let a = networks.0.attach(&a).unwrap();
        assert!(a.resolv_conf.contains("nameserver 127.0.0.11\n"), "{}", a.resolv_conf);
        let b = networks.0.attach(&container("bb", "n1", &["n2"])).unwrap();
        let (a, b) = (&a.endpoints[0].ipv4_address, &b.endpoints[0].ipv4_address);
        assert_eq!(resolve(&networks, "bb", "db").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "bb", "name-aa").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "bb", "name-aa.n1").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "aa", "web").as_ref(), Some(b));
        networks.0.attach(&container("cc", "n2", &[])).unwrap();
        assert_eq!(resolve(&networks, "cc", "db"), None);
        kill(networks);

        let networks = lab.start(&["aa", "bb"]);
        for id in ["aa", "bb"] {
            networks.0.check(id).unwrap();
        }
        assert_eq!(resolve(&networks, "bb", "db").as_ref(), Some(a));
        networks.0.detach("aa").unwrap();
        assert_eq!(resolve(&networks, "bb", "db"), None);
        networks.0.detach("bb").unwrap();
        lab.assert_clean(&networks, "after detach");
    });
}

#[test]
fn a_container_with_another_name_is_found_by_that_alone() {
    on_a_host(|mut lab| {
        lab.settings.resolv_conf = lab.directory.path().join("resolv.conf");
        let networks = lab.start(&[]);
        networks.0.create(&network("n1", |_| {})).unwrap();
        let a = networks.0.attach(&container("aa", "n1", &[])).unwrap();
        networks.0.attach(&container("bb", "n1", &[])).unwrap();
        let a = &a.endpoints[0].ipv4_address;
        networks.0.rename("aa", "old").unwrap();
        assert_eq!(resolve(&networks, "bb", "old").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "bb", "name-aa"), None);
        let members = networks.0.inspect("n1").unwrap().members;
        let mut members: Vec<_> = members.into_iter().map(|member| member.name).collect();
        members.sort();
        assert_eq!(members, ["name-bb", "old"]);
        let mut next = container("cc", "n1", &[]);
        next.name = "name-aa".into();
        let c = networks.0.attach(&next).unwrap();
        let c = &c.endpoints[0].ipv4_address;
        assert_eq!(resolve(&networks, "bb", "name-aa").as_ref(), Some(c));
        // One that is in no network, or not running.
        networks.0.rename("dd", "x").unwrap();
        kill(networks);

        let networks = lab.start(&["aa", "bb", "cc"]);
        networks.0.check("aa").unwrap();
        networks.0.check("bb").unwrap();
        assert_eq!(resolve(&networks, "bb", "old").as_ref(), Some(a));
        // Its manager was killed while it gave it another name: the container's own is told again.
        let checked = networks.0.runtime.block_on(networks.check("aa", "older"));
        assert_eq!(&checked.unwrap().endpoints[0].ipv4_address, a);
        assert_eq!(resolve(&networks, "bb", "older").as_ref(), Some(a));
        assert_eq!(resolve(&networks, "bb", "old"), None);
    });
}
