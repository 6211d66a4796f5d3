//! What is done to a running container: signals, freezing, limits, metrics, checkpoints.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use hull_integration::shim::rpc::{self, Message, Status};
use hull_integration::shim::{Code, Host, Io, SLEEPER, SOON, shim};
use hull_integration::{cgroup, note, reference_lacks, require, tests, wait_until};
use serde_json::json;

tests![
    a_signal_reaches_the_first_process,
    a_signal_to_all_reaches_every_process,
    a_created_container_can_be_killed,
    everybody_who_waits_is_told,
    a_paused_container_stands_still,
    metrics_are_those_of_the_container,
    an_update_changes_the_limits,
    an_update_that_cannot_be_made_says_why,
    processes_are_listed,
    connect_tells_the_process_ids,
    a_lack_of_memory_is_told,
    children_on_the_hosts_processes_end_with_their_container,
    children_on_the_hosts_processes_end_with_a_container_that_ends_at_once,
    a_container_is_checkpointed_and_restored,
];

fn a_signal_reaches_the_first_process() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    wait_until("the signal is handled", SOON, || {
        task.kill(10);
        task.stdout().text().contains("usr1")
    });
    task.terminate();
    assert_eq!(task.wait().status, 7);
    let refused = task.try_kill(15, false).expect_err("it has ended");
    assert_eq!(refused.code, Some(Code::NOT_FOUND), "{refused:?}");
    task.finish();
}

fn a_signal_to_all_reaches_every_process() {
    let host = Host::new();
    let script = "trap 'echo first' USR1; (trap 'echo second; exit' USR1; echo ready;
        while :; do sleep 0.02; done) & while :; do sleep 0.02; done";
    let task = host.shell("one", script).start();
    task.stdout().wait_for("ready");
    wait_until("both were reached", SOON, || {
        // The shells' sleeping children die of it too; that is as it should be.
        let _ = task.try_kill(10, true);
        let seen = task.stdout().text();
        seen.contains("first") && seen.contains("second")
    });
    task.try_kill(9, true).expect("it runs");
    assert_eq!(task.finish().status, 137);
}

fn a_created_container_can_be_killed() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).create();
    task.kill(9);
    assert_eq!(task.wait().status, 137);
    task.finish();
    let task = host.shell("two", SLEEPER).create();
    task.try_delete().expect("what was never started can be deleted");
    host.shut_down("two");
}

fn everybody_who_waits_is_told() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let exits: Vec<_> = thread::scope(|scope| {
        let waiting: Vec<_> = (0..10).map(|_| scope.spawn(|| task.wait())).collect();
        assert_eq!(task.run("meanwhile", "echo served"), (0, "served\n".to_owned()));
        task.terminate();
        waiting.into_iter().map(|one| one.join().expect("it was told")).collect()
    });
    assert!(exits.iter().all(|exit| exit.status == 7 && exit.at == exits[0].at), "{exits:?}");
    task.finish();
}

fn a_paused_container_stands_still() {
    let host = Host::new();
    let task = host.shell("one", "while :; do echo tick; sleep 0.02; done").start();
    task.stdout().wait_for("tick");
    task.try_pause().expect("it runs");
    assert_eq!(task.status(), Status::PAUSED);
    host.events().wait("one", "/tasks/paused");
    // What was written before is still on its way.
    let mut before = 0;
    wait_until("no more comes", SOON, || {
        let now = task.stdout().bytes().len();
        std::mem::replace(&mut before, now) == now
    });
    let stopped = task.stdout().bytes().len();
    let refused = task.try_exec("refused", host.pipes(false), &["true"]);
    assert!(refused.and_then(|process| process.try_start()).is_err(), "exec while paused");
    assert_eq!(task.stdout().bytes().len(), stopped);
    task.try_resume().expect("it is paused");
    host.events().wait("one", "/tasks/resumed");
    assert_eq!(task.status(), Status::RUNNING);
    wait_until("it ticks again", SOON, || task.stdout().bytes().len() > stopped);
    task.kill(9);
    assert_eq!(task.finish().status, 137);
}

fn metrics_are_those_of_the_container() {
    let host = Host::new();
    let task = host
        .shell("one", SLEEPER)
        .configure(|config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
            config["linux"]["resources"]["pids"] = json!({ "limit": 40 });
        })
        .start();
    let v2 = cgroup::layout() == cgroup::Layout::V2;
    let expected =
        if v2 { "io.containerd.cgroups.v2.Metrics" } else { "io.containerd.cgroups.v1.Metrics" };
    // The kernel brings its sums up to date now and then.
    wait_until("the metrics are complete", SOON, || {
        let stats = task.stats();
        assert_eq!(stats.type_url.rsplit('/').next(), Some(expected));
        if v2 {
            let metrics = rpc::MetricsV2::parse_from_bytes(&stats.value).expect("metrics");
            note(&metrics.to_string());
            complete_v2(&metrics)
        } else {
            let metrics = rpc::MetricsV1::parse_from_bytes(&stats.value).expect("metrics");
            note(&metrics.to_string());
            complete_v1(&metrics)
        }
    });
}

fn complete_v1(metrics: &rpc::MetricsV1) -> bool {
    let memory = &metrics.memory;
    let cpu = &metrics.cpu;
    memory.usage.limit == 64 << 20
        && memory.usage.usage > 0
        && memory.usage.max > 0
        && memory.rss > 0
        && memory.pg_fault > 0
        && memory.hierarchical_memory_limit == 64 << 20
        && cpu.usage.total > 0
        && !cpu.usage.per_cpu.is_empty()
        && cpu.throttling.is_some()
        && (metrics.pids.limit, metrics.pids.current > 0) == (40, true)
}

fn complete_v2(metrics: &rpc::MetricsV2) -> bool {
    metrics.memory.usage_limit == 64 << 20
        && metrics.memory.usage > 0
        && metrics.memory.anon > 0
        && metrics.cpu.usage_usec > 0
        && (metrics.pids.limit, metrics.pids.current > 0) == (40, true)
}

/// A file of the container's cgroup: its name on v1, or that on v2.
#[track_caller]
fn limit(host: &Host, id: &str, files: [&str; 2]) -> String {
    let directories = host.site().cgroup_directories(id);
    let mut paths = directories.iter().flat_map(|path| files.map(|file| format!("{path}/{file}")));
    let found = paths.find_map(|path| fs::read_to_string(path).ok());
    found.unwrap_or_else(|| panic!("none of {files:?} in {directories:?}")).trim().to_owned()
}

fn an_update_changes_the_limits() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    task.try_update(&json!({
        "memory": { "limit": 50 << 20 }, "pids": { "limit": 30 }, "cpu": { "shares": 512 },
    }))
    .expect("it can be changed");
    assert_eq!(limit(&host, "one", ["memory.limit_in_bytes", "memory.max"]), "52428800");
    assert_eq!(limit(&host, "one", ["pids.max", "pids.max"]), "30");
    let shares: u64 =
        limit(&host, "one", ["cpu.shares", "cpu.weight"]).parse().expect("it is a number");
    match cgroup::layout() {
        // Half the default; runtimes convert it in two ways.
        cgroup::Layout::V2 => assert!((1..100).contains(&shares), "{shares}"),
        _ => assert_eq!(shares, 512),
    }
}

fn an_update_that_cannot_be_made_says_why() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let refused = task.try_update(&json!({ "cpu": { "cpus": "4000-5000" } }));
    let refused = refused.expect_err("there are no such processors");
    assert!(!refused.message.is_empty(), "{refused:?}");
    assert_eq!(task.status(), Status::RUNNING);
}

fn processes_are_listed() {
    let host = Host::new();
    let task = host.shell("one", "sleep 1000 & sleep 1000 & echo ready; wait").start();
    task.stdout().wait_for("ready");
    let pids = task.pids();
    assert_eq!(pids.len(), 3, "{pids:?}");
    assert!(pids.contains(&(task.pid, None)), "{pids:?}");
    assert!(pids.iter().all(|(pid, _)| Path::new(&format!("/proc/{pid}")).exists()), "{pids:?}");
}

fn connect_tells_the_process_ids() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let (shim, container) = task.connect();
    assert_eq!(container, task.pid);
    let command = fs::read(format!("/proc/{shim}/cmdline")).expect("the shim lives");
    assert!(String::from_utf8_lossy(&command).contains("containerd.sock"));
}

fn a_lack_of_memory_is_told() {
    let host = Host::new();
    let script = "sleep 0.1; dd if=/dev/zero of=/dev/null bs=100M count=1; echo dd $?";
    let task = host
        .shell("one", script)
        .configure(|config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 20 << 20, "swap": 20 << 20 });
        })
        .start();
    host.events().wait("one", "/tasks/oom");
    let exit = task.wait();
    // The kernel may choose the shell or its child.
    match exit.status {
        0 => assert_eq!(task.stdout().to_end(), "dd 137\n"),
        status => assert_eq!(status, 137),
    }
    task.finish();
}

/// Runs a script that leaves children behind, in the host's process namespace.
fn leave_children(script: &str, typed: &str) {
    let host = Host::new();
    let task = host
        .shell("one", script)
        .with_input()
        .configure(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("it is a list");
            namespaces.retain(|namespace| namespace["type"] != "pid");
        })
        .start();
    task.input().write(typed);
    assert_eq!(task.wait().status, 6);
    // Their ends of the pipes close, and nothing is left in the cgroup.
    assert_eq!(task.stdout().to_end(), "ready\n");
    let left = || {
        let directories = host.site().cgroup_directories("one");
        let lists = directories.iter();
        let lists = lists.map(|path| fs::read_to_string(format!("{path}/cgroup.procs")));
        lists.flatten().any(|list| !list.is_empty())
    };
    wait_until("nothing is left", SOON, || !left());
    task.finish();
}

fn children_on_the_hosts_processes_end_with_their_container() {
    leave_children("sleep 1000 & sleep 1000 & echo ready; read line; exit 6", "go\n");
}

fn children_on_the_hosts_processes_end_with_a_container_that_ends_at_once() {
    if shim().containerd_2 {
        reference_lacks!("it does not look for them when the end comes before the answer to Start");
    }
    leave_children("sleep 1000 & sleep 1000 & echo ready; exit 6", "");
}

fn a_container_is_checkpointed_and_restored() {
    let host = Host::new();
    let script = "n=0; while :; do n=$((n+1)); echo $n > /n; sleep 0.02; done";
    let task = host.shell("one", script).io(Io::default()).start();
    let images = host.site().make("images");
    let number = || {
        let text = fs::read_to_string(host.site().path("upper/one/n")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    wait_until("it counts", SOON, || number() > 3);
    let options = rpc::CheckpointOptions { exit: true, ..Default::default() };
    let checkpoint = task.try_checkpoint(&images, &options);
    if let Err(refused) = &checkpoint {
        let criu = Command::new("criu").arg("check").output();
        let works = criu.is_ok_and(|output| output.status.success());
        require!(works, "criu does not work here: {}", refused.message);
    }
    checkpoint.expect("it can be written");
    assert_eq!(host.events().wait("one", "/tasks/checkpointed").text, images);
    let stopped = number();
    assert!(Path::new(&format!("{images}/inventory.img")).exists());
    task.finish();
    let task = host.shell("one", script).io(Io::default()).checkpoint(&images).start();
    wait_until("it goes on", SOON, || number() > stopped);
    task.kill(9);
    assert_eq!(task.finish().status, 137);
}
