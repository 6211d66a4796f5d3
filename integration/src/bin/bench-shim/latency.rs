//! How long it takes until a container, or an exec, has come and gone.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Result;
use hull_integration::engine::{Containerd, Setup};
use hull_integration::shim::{Host, SLEEPER, shim};
use serde_json::json;

use crate::contestant::rounds;

/// containerd with the contestant in the place of its own shim.
fn containerd() -> Containerd {
    let programs: Vec<(String, PathBuf)> = match shim().reference {
        true => Vec::new(),
        false => vec![("containerd-shim-runc-v2".to_owned(), shim().path.clone())],
    };
    Containerd::start_with(Setup { directory: None, programs })
}

/// Milliseconds since then, and a new now.
fn lap(then: &mut Instant) -> f64 {
    let now = Instant::now();
    let lap = now - std::mem::replace(then, now);
    lap.as_secs_f64() * 1e3
}

/// Milliseconds that a command takes, which must do what it is there for.
fn time(words: &[String]) -> f64 {
    let mut at = Instant::now();
    let output = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .output()
        .expect("a stock program runs");
    let took = lap(&mut at);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

pub(crate) fn ctr_run() -> Result<()> {
    let containerd = containerd();
    let words = containerd.run_words("one", &["--rm"], &["true"]);
    rounds(|| vec![time(&words)])
}

pub(crate) fn ctr_exec() -> Result<()> {
    let containerd = containerd();
    containerd.detach("one", &[], SLEEPER);
    let words = containerd.words(&["tasks", "exec", "--exec-id", "exec", "one", "true"]);
    rounds(|| vec![time(&words)])
}

pub(crate) fn run() -> Result<()> {
    let host = Host::new();
    rounds(|| {
        let plan = host.shell("one", "").configure(|config| {
            config["process"]["args"] = json!(["true"]);
        });
        let start = Instant::now();
        let mut at = start;
        let task = plan.create();
        let created = lap(&mut at);
        task.start();
        let started = lap(&mut at);
        let exit = task.wait();
        let waited = lap(&mut at);
        task.delete();
        let deleted = lap(&mut at);
        assert_eq!(exit.status, 0);
        host.shut_down("one");
        vec![created, started, waited, deleted, (at - start).as_secs_f64() * 1e3]
    })
}

pub(crate) fn exec() -> Result<()> {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    rounds(|| {
        let io = host.pipes(false);
        let start = Instant::now();
        let mut at = start;
        let process = task.exec_with("exec", io, &["true"]);
        process.start();
        let started = lap(&mut at);
        let exit = process.wait();
        let waited = lap(&mut at);
        process.delete();
        let deleted = lap(&mut at);
        assert_eq!(exit.status, 0);
        vec![started, waited, deleted, (at - start).as_secs_f64() * 1e3]
    })
}
