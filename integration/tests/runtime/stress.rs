//! Many times, many at once, and death at the wrong moment: nothing is left.

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use hull_integration::{Bundle, Container, SOON, peer_lacks, tests, wait_until};
use nix::sys::signal::Signal;

tests![
    cycles_leave_nothing,
    many_at_once_leave_nothing,
    a_runtime_killed_during_create_leaves_what_delete_cleans,
    a_runtime_killed_during_run_leaves_what_delete_cleans,
    concurrent_creates_of_one_id_give_one_container,
    concurrent_deletes_of_one_container_leave_nothing,
];

/// `HULL_CYCLES`: how many create, start, delete cycles.
fn cycles() -> usize {
    env::var("HULL_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

fn cycles_leave_nothing() {
    let container = Container::new(Bundle::new());
    for _ in 0..cycles() {
        container.create().ok();
        container.start().ok();
        container.wait_status("stopped");
        container.delete().ok();
        assert_eq!(container.residue(), Vec::<String>::new());
    }
    let left: Vec<_> = fs::read_dir(container.root()).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn many_at_once_leave_nothing() {
    // Not the usual sleeper, which wakes often: fifty of them fill an emulated processor.
    let containers: Vec<Container> =
        (0..50).map(|_| Container::new(Bundle::new().args(&["sleep", "1000"]))).collect();
    let running: Vec<_> = containers
        .iter()
        .map(|one| one.with_bundle(&["run", "--detach"]).limit(Duration::from_secs(120)).start())
        .collect();
    for one in running {
        one.wait().ok();
    }
    for container in &containers {
        assert_eq!(container.status(), "running");
    }
    let deleting: Vec<_> = containers
        .iter()
        .map(|one| {
            one.invoke(&["delete", "--force", &one.id]).limit(Duration::from_secs(120)).start()
        })
        .collect();
    for one in deleting {
        one.wait().ok();
    }
    for container in &containers {
        container.assert_gone();
    }
}

/// Kills the runtime after each of several times and expects `delete --force` to clean.
fn killed_during(words: &[&str]) {
    // How long one takes undisturbed, to spread the deaths over it.
    let whole = {
        let container = Container::new(Bundle::sleeper());
        let started = Instant::now();
        container.with_bundle(words).run().ok();
        started.elapsed()
    };
    let rounds = 40;
    for round in 0..rounds {
        let container = Container::new(Bundle::sleeper());
        let running = container.with_bundle(words).start();
        std::thread::sleep(whole * round / rounds);
        running.signal(Signal::SIGKILL);
        drop(running);
        let list = container.invoke(&["list", "--format", "json"]).run().ok().json();
        for entry in list.as_array().map(Vec::as_slice).unwrap_or_default() {
            let status = entry["status"].as_str().unwrap_or_default();
            assert!(["creating", "created", "running", "stopped"].contains(&status), "{entry}");
        }
        container.delete_force().ok();
        container.assert_gone();
    }
}

fn a_runtime_killed_during_create_leaves_what_delete_cleans() {
    peer_lacks!("runc", "it does not promise it");
    peer_lacks!("crun", "it does not promise it");
    killed_during(&["create"]);
}

fn a_runtime_killed_during_run_leaves_what_delete_cleans() {
    peer_lacks!("runc", "it does not promise it");
    peer_lacks!("crun", "it does not promise it");
    killed_during(&["run", "--detach"]);
}

fn concurrent_creates_of_one_id_give_one_container() {
    peer_lacks!("runc 1.1", "it has no lock");
    peer_lacks!("crun", "it has no lock");
    for _ in 0..5 {
        let container = Container::new(Bundle::sleeper());
        let all: Vec<_> = (0..6).map(|_| container.with_bundle(&["create"]).start()).collect();
        let made = all.into_iter().filter(|_| true).map(hull_integration::Running::wait);
        let codes: Vec<Option<i32>> = made.map(|output| output.code()).collect();
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
        assert_eq!(container.status(), "created");
        container.delete_force().ok();
        container.assert_gone();
    }
}

fn concurrent_deletes_of_one_container_leave_nothing() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let all: Vec<_> =
        (0..4).map(|_| container.invoke(&["delete", "--force", &container.id]).start()).collect();
    for one in all {
        one.wait();
    }
    wait_until("it is gone", SOON, || container.command("state", &[]).code() != Some(0));
    container.assert_gone();
}
