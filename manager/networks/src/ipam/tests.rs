use std::collections::BTreeSet;

use super::*;

/// Numbers that look random and are the same each time (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn asked(subnet: &str, range: &str, gateway: &str, aux: &[(&str, &str)]) -> v1::IpamPool {
    v1::IpamPool {
        subnet: subnet.into(),
        ip_range: range.into(),
        gateway: gateway.into(),
        aux_addresses: aux.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
    }
}

#[test]
fn a_pool_is_what_was_asked_for() {
    for (asked, first, last, gateway) in [
        (asked("172.18.0.0/16", "", "", &[]), "172.18.0.1", "172.18.255.254", "172.18.0.1"),
        (
            asked("172.18.0.0/16", "172.18.5.0/24", "172.18.5.254", &[]),
            "172.18.5.0",
            "172.18.5.255",
            "172.18.5.254",
        ),
        (asked("10.0.0.0/30", "", "10.0.0.2", &[]), "10.0.0.1", "10.0.0.2", "10.0.0.2"),
        (asked("10.0.0.0/24", "10.0.0.0/25", "", &[]), "10.0.0.1", "10.0.0.127", "10.0.0.1"),
        (asked("fd00::/64", "", "", &[]), "fd00::1", "fd00::ffff:ffff:ffff:ffff", "fd00::1"),
        (asked("10.0.0.0/24", "", "", &[("r", "10.0.0.9")]), "10.0.0.1", "10.0.0.254", "10.0.0.1"),
    ] {
        let pool = Pool::parse(&asked, true).unwrap();
        assert_eq!(
            (pool.first, pool.last, pool.gateway),
            (ip(first), ip(last), Some(ip(gateway))),
            "{asked:?}"
        );
        let message = pool.to_message();
        assert_eq!((&message.subnet, &message.ip_range), (&asked.subnet, &asked.ip_range));
    }
}

#[test]
fn a_wrong_pool_is_refused_in_one_sentence() {
    for (asked, says) in [
        (asked("", "", "", &[]), "invalid subnet: \"\""),
        (asked("10.0.0.1/24", "", "", &[]), "it should be 10.0.0.0/24"),
        (asked("0.0.0.0/0", "", "", &[]), "everything"),
        (asked("10.0.0.0/24", "10.0.1.0/25", "", &[]), "no matching subnet for range"),
        (asked("10.0.0.0/24", "fd00::/80", "", &[]), "no matching subnet for range"),
        (asked("10.0.0.0/24", "", "10.0.1.1", &[]), "no matching subnet for gateway"),
        (asked("10.0.0.0/24", "", "fd00::1", &[]), "no matching subnet for gateway"),
        (asked("10.0.0.0/24", "", "x", &[]), "invalid gateway"),
        (asked("10.0.0.0/24", "", "10.0.0.255", &[]), "not an address for a host"),
        (asked("10.0.0.0/24", "", "10.0.0.0", &[]), "not an address for a host"),
        (asked("fd00::/64", "", "fd00::", &[]), "not an address for a host"),
        (asked("10.0.0.0/31", "", "10.0.0.1", &[]), "no addresses for a gateway and a container"),
        (asked("10.0.0.0/32", "", "", &[]), "no addresses for a gateway and a container"),
        (asked("fd00::/127", "", "", &[]), "no addresses for a gateway and a container"),
        (asked("224.0.0.0/24", "", "", &[]), "multicast"),
        (asked("10.0.0.0/24", "", "", &[("a", "10.1.0.1")]), "no matching subnet for aux-address"),
        (asked("10.0.0.0/24", "", "", &[("a", "10.0.0.1")]), "the gateway's"),
    ] {
        let error = Pool::parse(&asked, true).unwrap_err().to_string();
        assert!(error.contains(says), "{asked:?}: {error}");
    }
}

#[test]
fn the_way_out_is_the_bridge_unless_another_address_was_named() {
    let mut pool = Pool::new(net("10.0.0.0/24"), true);
    assert_eq!(pool.route(), Some(ip("10.0.0.1")));
    pool.set_route(ip("10.0.0.1")).unwrap();
    assert!(pool.auxiliary.is_empty());
    pool.set_route(ip("10.0.0.254")).unwrap();
    assert_eq!((pool.gateway, pool.route()), (Some(ip("10.0.0.1")), Some(ip("10.0.0.254"))));
    assert!(pool.check_static(ip("10.0.0.254"), |_| Ok(false)).is_err(), "it is reserved");
    for wrong in ["10.0.0.255", "1.2.3.4", "fd00::1"] {
        let error = pool.set_route(ip(wrong)).unwrap_err().to_string();
        assert!(error.contains("default-gateway"), "{wrong}: {error}");
    }
}

#[test]
fn the_next_address_is_behind_the_last_one_and_then_from_the_start() {
    let mut pool = Pool::new(net("10.0.0.0/29"), true);
    pool.auxiliary.insert("router".into(), ip("10.0.0.3"));
    let mut used = BTreeSet::new();
    let mut after = None;
    let mut given = Vec::new();
    while let Some(next) = pool.choose(|a| Ok(used.contains(&a)), after).unwrap() {
        used.insert(next);
        after = Some(next);
        given.push(next.to_string());
    }
    assert_eq!(given, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    used.remove(&ip("10.0.0.4"));
    let next = pool.choose(|a| Ok(used.contains(&a)), after).unwrap();
    assert_eq!(next, Some(ip("10.0.0.4")));
}

#[test]
fn a_fixed_address_is_one_of_the_subnet_that_is_free() {
    let pool = Pool::parse(&asked("10.0.0.0/24", "10.0.0.128/25", "", &[]), true).unwrap();
    let used = BTreeSet::from([ip("10.0.0.7")]);
    for (wanted, says) in [
        ("10.0.0.9", None),
        ("10.0.0.200", None),
        ("10.0.0.7", Some("Address already in use")),
        ("10.0.0.128", Some("Address already in use")),
        ("10.0.0.255", Some("not an address for a host")),
        ("10.0.0.0", Some("not an address for a host")),
        ("10.0.1.1", Some("not an address for a host")),
    ] {
        let error = pool
            .check_static(ip(wanted), |a| Ok(used.contains(&a)))
            .err()
            .map(|error| error.to_string());
        match (error, says) {
            (None, None) => {}
            (Some(error), Some(says)) if error.contains(says) => {}
            (error, _) => panic!("{wanted}: {error:?}"),
        }
    }
}

/// Whatever is taken and given back: no address twice, none that is reserved or outside, and an
/// end only when none is left.
#[test]
fn no_address_is_given_out_twice() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..300 {
        let prefix = 24 + u8::try_from(random.below(7)).unwrap();
        let base = ip(&format!("10.{}.{}.0", random.below(256), random.below(256)));
        let mut pool = Pool::new(IpNet::new(base, prefix).unwrap().trunc(), true);
        if random.below(2) == 0 {
            pool.auxiliary.insert("a".into(), pool.last);
        }
        let usable = number(pool.last) - number(pool.first) + 1
            - 1
            - u128::try_from(pool.auxiliary.len()).unwrap();
        let mut used = BTreeSet::new();
        let mut after = None;
        for _ in 0..600 {
            if random.below(5) < 2 && !used.is_empty() {
                let n = usize::try_from(random.below(used.len() as u64)).unwrap();
                let back: IpAddr = *used.iter().nth(n).unwrap();
                used.remove(&back);
                continue;
            }
            match pool.choose(|a| Ok(used.contains(&a)), after).unwrap() {
                Some(next) => {
                    assert!(pool.subnet.contains(&next) && !pool.is_reserved(next));
                    assert!(used.insert(next), "{next} twice in round {round}");
                    after = Some(next);
                }
                None => assert_eq!(u128::try_from(used.len()).unwrap(), usable, "round {round}"),
            }
        }
    }
}

#[test]
fn subnets_come_from_the_sources_in_turn_and_never_overlap() {
    let sources = [
        SubnetSource { base: net("172.17.0.0/16"), size: 16 },
        SubnetSource { base: net("192.168.0.0/16"), size: 20 },
        SubnetSource { base: net("fd12::/48"), size: 64 },
    ];
    let mut taken = vec![net("192.168.0.0/19"), net("192.168.49.0/24")];
    let mut given = Vec::new();
    while let Some(next) = choose_subnet(&sources, true, &taken) {
        check_overlap(&next, &taken).unwrap();
        taken.push(next);
        given.push(next.to_string());
    }
    assert_eq!(given[..3], ["172.17.0.0/16", "192.168.32.0/20", "192.168.64.0/20"]);
    assert_eq!(given.len(), 1 + 16 - 3);
    assert_eq!(choose_subnet(&sources, false, &[net("fd12::/64")]), Some(net("fd12:0:0:1::/64")));
    assert!(check_overlap(&net("172.17.3.0/24"), &taken).is_err());
    // A default route of another host's is in nobody's way, but a larger one is.
    assert_eq!(choose_subnet(&sources[..1], true, &[net("172.16.0.0/12")]), None);
}

#[test]
fn the_last_subnet_of_the_address_space_ends_the_search() {
    let sources = [SubnetSource { base: net("255.255.255.0/24"), size: 25 }];
    let taken = [net("255.255.255.0/24")];
    assert_eq!(choose_subnet(&sources, true, &taken), None);
}

#[test]
fn a_local_subnet_has_its_random_bits() {
    assert_eq!(unique_local([1, 2, 3, 4, 5, 6, 7]).to_string(), "fd01:203:405:607::/64");
}
