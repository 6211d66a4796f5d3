//! hull.v1 as strangers see it: a Python program that has only what reflection tells.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use containerd_shim_protos::ttrpc::Code;
use hull_integration::engine::{Grpc, Hull, SLEEPER, cached, command, reference, stock};
use hull_integration::{NotRun, not_run, require, tests};

tests![
    a_stranger_finds_services_methods_and_health,
    a_stranger_runs_a_container,
    a_stranger_follows_a_log,
    a_stranger_executes_with_streams,
    a_stranger_is_refused_with_the_right_codes,
    a_deadline_ends_the_work,
    a_cancelled_stream_leaves_nothing,
    a_deadline_is_the_manager_s_too,
];

/// Fetching packages over a slow line.
const FETCH: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(120);

/// Debian's Python with grpcio, in a directory of its own below the build directory.
fn python() -> String {
    let requirements = include_str!("stranger.txt");
    let mut hasher = DefaultHasher::new();
    requirements.hash(&mut hasher);
    let directory = cached(&format!("stranger-{:016x}", hasher.finish()), |target| {
        let venv = command(&[&*stock("python3"), "-c", "import ensurepip"]).run().code() == Some(0);
        require!(venv, "python3-venv is missing");
        command(&[&stock("python3"), "-m", "venv", target]).limit(FETCH).run().ok();
        let list = format!("{target}/requirements.txt");
        fs::write(&list, requirements).expect("the build directory is writable");
        let program = format!("{target}/bin/python");
        let words = "-m pip install --quiet --disable-pip-version-check --require-hashes \
            --only-binary=:all: --no-deps --requirement";
        let words = [&*program].into_iter().chain(words.split_whitespace()).chain([&*list]);
        command(&words.collect::<Vec<_>>()).limit(FETCH).run().ok();
    });
    format!("{directory}/bin/python")
}

fn ours_only() {
    if reference() {
        not_run(NotRun::PeerLacks("docker: it has no gRPC".into()));
    }
}

#[track_caller]
fn stranger(scenario: &str) {
    ours_only();
    let hull = Hull::start();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manager/stranger.py");
    let words = [&*python(), program, &hull.socket(), &hull.pid().to_string(), scenario];
    command(&words).limit(LIMIT).run().ok();
    hull.run(&["ps", "--all", "--quiet"]).ok().says("");
}

fn a_stranger_finds_services_methods_and_health() {
    stranger("services");
}

fn a_stranger_runs_a_container() {
    stranger("life");
}

fn a_stranger_follows_a_log() {
    stranger("logs");
}

fn a_stranger_executes_with_streams() {
    stranger("run_exec");
}

fn a_stranger_is_refused_with_the_right_codes() {
    stranger("errors");
}

fn a_deadline_ends_the_work() {
    stranger("deadlines");
}

fn a_cancelled_stream_leaves_nothing() {
    stranger("cancellation");
}

/// A client that says how long it waits, and then waits longer.
fn a_deadline_is_the_manager_s_too() {
    ours_only();
    let hull = Hull::start();
    hull.run(&["run", "-d", "--name", "one", "--network", "none", "busybox", "sh", "-c", SLEEPER])
        .ok();
    let begun = Instant::now();
    // Field 1, a text of three bytes: the container.
    let refusal = Grpc::new(&hull.socket())
        .call_bytes(
            "/hull.v1.Containers/Wait",
            b"\x0a\x03one",
            &[("grpc-timeout", "300m")],
            Duration::from_secs(20),
        )
        .expect_err("the container runs on");
    assert_eq!(refusal.code, Some(Code::DEADLINE_EXCEEDED), "{refusal:?}");
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
}
