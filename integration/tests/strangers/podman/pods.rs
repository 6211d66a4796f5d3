//! Pods: an infra container, and others that join its namespaces.

use hull_integration::engine::{Podman, SLEEPER};
use hull_integration::tests;

tests![containers_of_a_pod_share_its_namespaces, a_pod_is_paused_stopped_started_and_killed_as_one,];

fn pod(podman: &Podman) {
    podman
        .run(&[
            "pod",
            "create",
            "--name",
            "pod",
            "--share",
            "net,ipc,uts,pid",
            "--infra-command",
            "/bin/sleep 1000",
            "--hostname",
            "inside",
        ])
        .ok();
}

fn containers_of_a_pod_share_its_namespaces() {
    let podman = Podman::new();
    pod(&podman);
    podman.detach("one", &["--pod", "pod"], SLEEPER);
    let script = "for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done; hostname";
    let one = podman.run(&["exec", "one", "sh", "-c", script]).ok();
    podman.shell(&["--pod", "pod"], script).ok().says(one.text());
    assert!(one.text().ends_with("inside"), "{}", one.transcript());
    let processes = podman.shell(&["--pod", "pod"], "ps -o comm").ok();
    assert!(processes.lines().contains(&"sleep"), "{}", processes.transcript());
    let mount = "readlink /proc/self/ns/mnt";
    let theirs = podman.run(&["exec", "one", "sh", "-c", mount]).ok();
    assert_ne!(podman.shell(&["--pod", "pod"], mount).ok().text(), theirs.text());
}

fn a_pod_is_paused_stopped_started_and_killed_as_one() {
    let podman = Podman::new();
    pod(&podman);
    podman.detach("one", &["--pod", "pod"], SLEEPER);
    podman.detach("two", &["--pod", "pod"], SLEEPER);
    let status = |name: &str| podman.inspect(name, "{{.State.Status}} {{.State.ExitCode}}");
    podman.run(&["pod", "pause", "pod"]).ok();
    assert_eq!((status("one").as_str(), status("two").as_str()), ("paused 0", "paused 0"));
    podman.run(&["pod", "unpause", "pod"]).ok();
    assert_eq!((status("one").as_str(), status("two").as_str()), ("running 0", "running 0"));
    podman.run(&["pod", "stop", "--time", "2", "pod"]).ok();
    assert_eq!((status("one").as_str(), status("two").as_str()), ("exited 7", "exited 7"));
    podman.run(&["pod", "start", "pod"]).ok();
    let stats = podman.run(&["pod", "stats", "--no-stream", "--format", "json", "pod"]).ok().json();
    assert_eq!(stats.as_array().map(Vec::len), Some(3), "{stats}");
    podman.run(&["pod", "kill", "pod"]).ok();
    podman.run(&["wait", "one", "two"]).ok().says("137\n137");
    podman.run(&["pod", "rm", "--force", "pod"]).ok();
    podman.run(&["ps", "--all", "--quiet"]).ok().says("");
}
