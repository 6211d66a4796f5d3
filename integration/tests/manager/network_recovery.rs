//! A manager that is killed while it connects and disconnects. `HULL_FULL=1` runs the full sizes.

use std::time::Duration;

use hull_integration::engine::{Engine, Hull, Lab, SLEEPER, Side, lab};
use hull_integration::{tests, wait_until};

use crate::network::{address, fetch, hull_only, serve, start};

tests![
    a_killed_manager_leaves_nothing,
    a_manager_killed_while_it_changes_networks_leaves_nothing,
    a_bridge_that_somebody_changes_is_put_right,
];

const SOON: Duration = Duration::from_secs(20);

fn is_full() -> bool {
    std::env::var("HULL_FULL").is_ok_and(|value| value == "1")
}

fn a_killed_manager_leaves_nothing() {
    hull_only();
    let lab = Lab::start();
    let mut hull = Hull::start_in(&lab, &[]);
    hull.run(&["network", "create", "web"]).ok();
    let rounds: u64 = if is_full() { 120 } else { 12 };
    for round in 0..rounds {
        let name = format!("c{round}");
        let run = hull
            .call(&[
                "run",
                "--detach",
                "--rm",
                "--name",
                &name,
                "--network",
                "web",
                "-p",
                "8080:80",
                "busybox",
                "sh",
                "-c",
                SLEEPER,
            ])
            .start();
        // Somewhere between its beginning and its end: each round a little later.
        std::thread::sleep(Duration::from_millis(180 * round / rounds));
        hull.crash();
        drop(run);
        hull.restart();
        hull.run(&["rm", "-f", &name]);
        wait_until_clean(&lab, &hull, &["web"]);
    }
    hull.run(&["run", "--rm", "--network", "web", "-p", "8080:80", "busybox", "true"]).ok();
}

/// Nothing of any container is there, and these networks have no member.
#[track_caller]
fn wait_until_clean(lab: &Lab, hull: &Hull, networks: &[&str]) {
    wait_until("interfaces, namespaces and rules are gone", SOON, || {
        let left = lab.ip(Side::Host, "-o link show type veth").ok();
        let namespaces = std::fs::read_dir(hull.site().path("exec/netns"));
        let rules = lab.command(Side::Host, &["nft", "list", "ruleset"]).run().ok();
        left.lines().len() == 1
            && namespaces.is_ok_and(|mut all| all.next().is_none())
            && !rules.text().contains("\"hv")
            && !rules.text().contains("8080")
    });
    for network in networks {
        let format = "{{len .Containers}}";
        let members = hull.run(&["network", "inspect", "--format", format, network]).ok();
        assert_eq!(members.text(), "0", "{network}");
    }
}

fn a_manager_killed_while_it_changes_networks_leaves_nothing() {
    hull_only();
    let lab = Lab::start();
    let mut hull = Hull::start_in(&lab, &[]);
    for name in ["web", "db"] {
        hull.run(&["network", "create", name]).ok();
    }
    let rounds: u64 = if is_full() { 40 } else { 3 };
    let run = ["run", "--detach", "--name", "one", "--network", "web", "-p", "8080:80", "busybox"];
    let run = [&run[..], &["sh", "-c", SLEEPER]].concat();
    let connect = ["network", "connect", "db", "one"];
    let disconnect = ["network", "disconnect", "db", "one"];
    for round in 0..rounds {
        for change in [&connect[..], &disconnect, &["rm", "-f", "one"]] {
            hull.run(&run).ok();
            if change[1] == "disconnect" {
                hull.run(&connect).ok();
            }
            let changing = hull.call(change).start();
            // Somewhere between its beginning and its end: each round a little later.
            std::thread::sleep(Duration::from_millis(60 * round / rounds));
            hull.crash();
            drop(changing);
            hull.restart();
            if change[0] == "network" {
                // Done or not, it can be undone.
                hull.run(&[&disconnect[..2], &["--force"], &disconnect[2..]].concat());
                let names = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
                let names = hull.run(&["inspect", "--format", names, "one"]).ok();
                assert_eq!(names.text().trim(), "web", "{change:?}, round {round}");
            }
            // Or it is gone already.
            hull.run(&["rm", "-f", "one"]);
            wait_until_clean(&lab, &hull, &["web", "db"]);
        }
    }
}

fn a_bridge_that_somebody_changes_is_put_right() {
    hull_only();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080:80"]);
    start(&engine, "two", &[], SLEEPER);
    let one = address(&engine, "one", "bridge");
    for change in [
        "link set hull0 down",
        "address flush dev hull0",
        "link delete hull0",
        "link set hull0 down",
    ] {
        lab.ip(Side::Host, change).ok();
        wait_until(&format!("all is well after {change:?}"), SOON, || {
            lab.page(Side::Neighbour, lab::HOST[0], 8080).as_deref() == Some("one")
                && lab.page(Side::Host, &one, 80).as_deref() == Some("one")
                && fetch(&engine, "two", &one).text() == "one"
        });
    }
}
