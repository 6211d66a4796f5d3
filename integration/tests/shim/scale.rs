//! Many of everything, and nothing that grows.

use std::fs;
use std::thread;

use hull_integration::shim::rpc::Status;
use hull_integration::shim::{Host, Io, SLEEPER, SOON, shim};
use hull_integration::{note, tests, wait_until};

tests![
    many_containers_live_at_once,
    many_containers_of_one_pod_live_at_once,
    nothing_grows_with_the_number_of_execs,
    nothing_grows_with_the_number_of_containers,
];

/// A number that a longer run may raise.
pub(crate) fn count(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn many_containers_live_at_once() {
    let host = Host::new();
    let host = &host;
    let total = count("HULL_SHIM_CONTAINERS", 100);
    let tasks: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..10)
            .map(|part| {
                scope.spawn(move || {
                    let numbers = (0..total).filter(|number| number % 10 == part);
                    let start = |number| {
                        let script = format!(
                            "trap 'exit {}' TERM; echo {number}; echo ready;
                            while :; do sleep 0.05; done",
                            number % 256
                        );
                        (number, host.shell(&format!("many-{number}"), &script).start())
                    };
                    numbers.map(start).collect::<Vec<_>>()
                })
            })
            .collect();
        starting.into_iter().flat_map(|one| one.join().expect("they were started")).collect()
    });
    for (number, task) in &tasks {
        task.stdout().wait_for(&format!("{number}\n"));
        assert_eq!(task.status(), Status::RUNNING);
    }
    for (_, task) in &tasks {
        task.terminate();
    }
    for (number, task) in tasks {
        assert_eq!(task.finish().status, number % 256);
    }
}

fn many_containers_of_one_pod_live_at_once() {
    let host = Host::new();
    let tasks: Vec<_> = (0..30)
        .map(|number| {
            let plan =
                host.shell(&format!("member-{number}"), &format!("echo {number}; {SLEEPER}"));
            plan.annotation("io.kubernetes.cri.sandbox-id", "sandbox").start()
        })
        .collect();
    for (number, task) in tasks.iter().enumerate() {
        task.stdout().wait_for(&format!("{number}\n"));
        task.terminate();
    }
    for task in tasks {
        assert_eq!(task.finish().status, 7);
    }
}

/// Open descriptors, and memory of its own in KiB.
pub(crate) fn weight(pid: i32) -> (usize, u64) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    // Not what is private: pages of the program are, when no other shim runs, and they are
    // even dirty when its file is in memory.
    let anonymous = rollup.lines().filter(|line| line.starts_with("Anonymous:"));
    let sizes = anonymous.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    (descriptors, sizes.sum())
}

/// Fails the test if a shim grew while something was done `times` times.
#[track_caller]
fn flat(pid: i32, times: u32, mut step: impl FnMut(u32)) {
    let warm = 20;
    (0..warm).for_each(&mut step);
    let (descriptors, memory) = weight(pid);
    (warm..warm + times).for_each(&mut step);
    // The last connections are only just closing.
    wait_until("no descriptor more is open", SOON, || weight(pid).0 <= descriptors + 2);
    let memory_after = weight(pid).1;
    note(&format!("{memory} -> {memory_after} KiB"));
    // A collector's heap breathes.
    let allowed = if shim().reference { 32 << 10 } else { 64 };
    assert!(memory_after <= memory + allowed, "{memory} -> {memory_after} KiB");
}

fn nothing_grows_with_the_number_of_execs() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    flat(host.shim_pid("one"), count("HULL_SHIM_EXECS", 200), |number| {
        let io = if number % 4 == 0 { Io::default() } else { host.pipes(number % 2 == 0) };
        let script = format!("echo {number}; exit {}", number % 256);
        let process = task.exec_with(&format!("exec-{number}"), io, &["sh", "-c", &script]);
        process.start();
        assert_eq!(process.wait().status, number % 256);
        if number % 4 != 0 {
            assert_eq!(process.stdout().to_end(), format!("{number}\n"));
        }
        process.delete();
    });
}

fn nothing_grows_with_the_number_of_containers() {
    let host = Host::new();
    let pod = |id: &str, script: &str| {
        host.shell(id, script).annotation("io.kubernetes.cri.sandbox-id", "sandbox").start()
    };
    let _sandbox = pod("sandbox", SLEEPER);
    flat(host.shim_pid("sandbox"), count("HULL_SHIM_MEMBERS", 60), |number| {
        let task = pod("member", &format!("exit {}", number % 256));
        assert_eq!(task.finish().status, number % 256);
    });
}
