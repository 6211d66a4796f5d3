//! Many clients at once: on one container, and many containers. `HULL_FULL=1` runs the full sizes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hull_integration::engine::{Engine, SLEEPER};
use hull_integration::{note, tests, wait_until};

tests![
    clients_of_one_container_are_answered_and_leave_it_whole,
    exits_at_once_are_not_lost,
    many_containers_are_made_listed_and_removed,
];

const SOON: Duration = Duration::from_secs(20);

fn is_full() -> bool {
    std::env::var("HULL_FULL").is_ok_and(|value| value == "1")
}

fn size(modest: u32, full: u32) -> u32 {
    if is_full() { full } else { modest }
}

/// A measurement: shown with the full sizes, else when the test fails.
fn tell(text: &str) {
    note(text);
    if is_full() {
        println!("  {text}");
    }
}

/// Runs clients at once; each gives what it has to complain about.
#[track_caller]
fn clients(count: u32, work: impl Fn(u32) -> Vec<String> + Sync) {
    let complaints: Vec<String> = std::thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = (0..count).map(|client| scope.spawn(move || work(client))).collect();
        let ended = all.into_iter().map(|client| client.join());
        ended.flat_map(|said| said.unwrap_or_else(|_| vec!["a client is stuck".into()])).collect()
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// What a client may hear when another was faster.
const CONFLICTS: &[&str] = &[
    "No such container",
    "No such object",
    "is already in use by container",
    "is not running",
    "is not paused",
    "is already paused",
    "is paused",
    "cannot start a paused container",
    "container is running",
    "container is restarting",
    "container is paused",
    "is restarting",
    "is marked for removal",
    "removal of container",
    "attach to a stopped container",
    "attach to a paused container",
    "has already been started",
];

/// Numbers that are the same in each run.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % limit
    }
}

fn clients_of_one_container_are_answered_and_leave_it_whole() {
    let engine = Engine::start();
    let create = ["create", "--name", "one", "--network", "none", "busybox", "sh", "-c", SLEEPER];
    let operations: &[&[&str]] = &[
        &create,
        &create,
        &["start", "one"],
        &["start", "one"],
        &["start", "one"],
        &["stop", "-t", "1", "one"],
        &["kill", "one"],
        &["restart", "-t", "1", "one"],
        &["pause", "one"],
        &["unpause", "one"],
        &["unpause", "one"],
        &["exec", "one", "true"],
        &["exec", "-d", "one", "sleep", "0.1"],
        &["update", "--memory", "64m", "--memory-swap", "128m", "one"],
        &["inspect", "one"],
        &["logs", "--tail", "1", "one"],
        &["top", "one"],
        &["stats", "--no-stream", "one"],
        &["rm", "one"],
        &["rm", "-f", "one"],
    ];
    let (rounds, done) = (size(6, 300), AtomicU32::new(0));
    let begun = Instant::now();
    clients(32, |client| {
        let mut random = Random(client);
        let mut complaints = Vec::new();
        for _ in 0..rounds {
            let words = operations[random.below(operations.len())];
            let output = engine.run(words);
            let summary = output.summary();
            let conflict = || CONFLICTS.iter().any(|conflict| summary.contains(conflict));
            match output.code() {
                Some(0) => drop(done.fetch_add(1, Ordering::Relaxed)),
                // Its container was ended under the exec.
                Some(137 | 143) if words[0] == "exec" => {}
                Some(1 | 125..=127) if conflict() => {}
                _ => complaints.push(summary),
            }
        }
        complaints
    });
    let done = done.into_inner();
    tell(&format!("{done} of {} succeeded in {:?}", 32 * rounds, begun.elapsed()));
    assert!(done > rounds, "most operations are refused: {done} of {}", 32 * rounds);
    // Whatever it is now, it obeys.
    engine.run(&["rm", "-f", "one"]);
    engine.run(&create).ok();
    engine.run(&["start", "one"]).ok();
    assert_eq!(engine.inspect("one", "{{.State.Status}}"), "running");
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["ps", "-aq"]).ok().says("");
    if let Engine::Hull(hull) = &engine {
        hull.run(&["system", "check"]).ok();
    }
}

fn exits_at_once_are_not_lost() {
    let engine = Engine::start();
    clients(8, |client| {
        let mut complaints = Vec::new();
        for round in 0..size(4, 100) {
            let code = 1 + (client + round) % 100;
            let keep: &[&str] = if round % 2 == 0 { &["--rm"] } else { &[] };
            let script = format!("exit {code}");
            let words = ["--network", "none", "busybox", "sh", "-c", &script];
            let output = engine.run(&[&["run"], keep, &words].concat());
            if output.code() != i32::try_from(code).ok() {
                complaints.push(output.summary());
            }
        }
        complaints
    });
    engine.run(&["container", "prune", "-f"]).ok();
    engine.run(&["ps", "-aq"]).ok().says("");
}

fn many_containers_are_made_listed_and_removed() {
    let engine = Engine::start();
    const CLIENTS: u32 = 8;
    let count = size(40, 1000);
    let each = |what: &str, words: &(dyn Fn(&str) -> Vec<String> + Sync)| {
        let begun = Instant::now();
        clients(CLIENTS, |client| {
            let mut complaints = Vec::new();
            for number in (client..count).step_by(CLIENTS as usize) {
                let words = words(&format!("c{number}"));
                let output = engine.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
                if output.code() != Some(0) {
                    complaints.push(output.summary());
                }
            }
            complaints
        });
        let spent = begun.elapsed();
        tell(&format!("{what}: {count} in {spent:?}, {:?} each", spent / count));
    };
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    each("created", &|name| {
        words(&["create", "--name", name, "--network", "none", "busybox", "sleep", "3600"])
    });
    each("started", &|name| words(&["start", name]));
    let begun = Instant::now();
    let listed = engine.run(&["ps", "-q"]).ok().lines().len();
    tell(&format!("listed in {:?}", begun.elapsed()));
    assert_eq!(listed, count as usize);
    if let Engine::Hull(hull) = &engine {
        tell(&format!("hulld's memory: {}", memory(hull.pid())));
    }
    each("removed", &|name| words(&["rm", "-f", name]));
    wait_until("none is left", SOON, || engine.run(&["ps", "-aq"]).ok().text().is_empty());
}

/// The resident memory of a process, as the kernel says it.
fn memory(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("unknown");
    line.to_owned()
}
