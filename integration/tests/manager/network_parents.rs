//! Networks on interfaces of the host's.

use hull_integration::engine::{Engine, Lab, SLEEPER, Side, reference};
use hull_integration::{require, tests};

use crate::network::{address, fetch, serve, start};

tests![
    a_vlan_is_made_for_its_network_and_removed_with_it,
    somebody_elses_vlan_stays,
    who_names_no_parent_is_with_its_neighbours_alone,
    what_is_no_parent_is_refused,
];

/// Whether the kernel makes interfaces of a kind.
fn has(lab: &Lab, kind: &str) -> bool {
    let made = lab.ip(Side::Host, &format!("link add {kind}")).code() == Some(0);
    if made {
        lab.ip(Side::Host, "link delete probe").ok();
    }
    made
}

fn require_vlans(lab: &Lab) {
    require!(has(lab, "probe link eth0 type vlan id 7"), "this kernel has no VLANs");
}

fn create(engine: &Engine, driver: &str, parent: &str, more: &[&str]) {
    let parent = format!("parent={parent}");
    let create = ["network", "create", "-d", driver, "-o", &parent];
    let subnet = ["--subnet", "10.50.0.0/24", "--gateway", "10.50.0.1"];
    engine.run(&[&create[..], &subnet, more, &["street"]].concat()).ok();
}

fn links(lab: &Lab) -> String {
    lab.ip(Side::Host, "-o -d link show").ok().text().to_owned()
}

/// The neighbour is in the VLAN, too.
fn neighbour_in_vlan(lab: &Lab) {
    lab.ip(Side::Neighbour, "link add link eth0 name eth0.50 type vlan id 50").ok();
    lab.ip(Side::Neighbour, "address add 10.50.0.1/24 dev eth0.50").ok();
    lab.ip(Side::Neighbour, "link set eth0.50 up").ok();
}

fn a_vlan_is_made_for_its_network_and_removed_with_it() {
    let lab = Lab::start();
    require_vlans(&lab);
    let mut engine = Engine::start_in(&lab);
    neighbour_in_vlan(&lab);
    create(&engine, "macvlan", "eth0.50", &[]);
    assert!(links(&lab).contains("vlan protocol 802.1Q id 50"), "{}", links(&lab));
    serve(&engine, "one", &["--network", "street"]);
    let one = address(&engine, "one", "street");
    assert_eq!(lab.page(Side::Neighbour, &one, 80).as_deref(), Some("one"));
    engine.crash_and_restart();
    assert_eq!(lab.page(Side::Neighbour, &one, 80).as_deref(), Some("one"));
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["network", "rm", "street"]).ok();
    assert!(!links(&lab).contains("eth0.50"), "{}", links(&lab));
}

fn somebody_elses_vlan_stays() {
    let lab = Lab::start();
    require_vlans(&lab);
    let engine = Engine::start_in(&lab);
    lab.ip(Side::Host, "link add link eth0 name eth0.50 type vlan id 50").ok();
    lab.ip(Side::Host, "link set eth0.50 up").ok();
    create(&engine, "macvlan", "eth0.50", &[]);
    engine.run(&["network", "rm", "street"]).ok();
    assert!(links(&lab).contains("eth0.50"), "{}", links(&lab));
}

fn who_names_no_parent_is_with_its_neighbours_alone() {
    let lab = Lab::start();
    // Ours has another way then.
    require!(!reference() || has(&lab, "probe type dummy"), "this kernel has no dummies");
    let engine = Engine::start_in(&lab);
    let create = ["network", "create", "-d", "macvlan", "--subnet", "10.50.0.0/24", "street"];
    engine.run(&create).ok();
    serve(&engine, "one", &["--network", "street"]);
    start(&engine, "two", &["--network", "street"], SLEEPER);
    fetch(&engine, "two", "one").ok().says("one");
    let one = address(&engine, "one", "street");
    assert_eq!(lab.page(Side::Host, &one, 80), None);
    engine.run(&["rm", "-f", "one", "two"]).ok();
    engine.run(&["network", "rm", "street"]).ok();
    assert!(!links(&lab).contains("dm-"), "{}", links(&lab));
}

fn what_is_no_parent_is_refused() {
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    let refused = |driver: &str, parent: &str| {
        let parent = format!("parent={parent}");
        engine.run(&["network", "create", "-d", driver, "-o", &parent, "street"]).fails()
    };
    for driver in ["macvlan", "ipvlan"] {
        let says = format!("loopback interface is not a valid {driver} parent link");
        refused(driver, "lo").stderr_says(&says);
    }
    for parent in ["nosuch", "nosuch.5"] {
        refused("macvlan", parent).stderr_says("nosuch");
    }
    for number in ["0", "4095", "x"] {
        refused("macvlan", &format!("eth0.{number}")).stderr_says(number);
    }
}
