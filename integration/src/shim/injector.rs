//! Faults in the system calls of a process that runs, put there by strace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::SOON;
use crate::engine::stock;
use crate::{Invocation, Running, scratch_dir, wait_for, wait_until};

/// What happens instead of a system call, or before it.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing: the calls are only counted.
    None,
    /// The process is killed.
    Kill,
    /// The call fails with this error.
    Error(&'static str),
}

/// strace, attached to a process. Its children are left alone.
#[derive(Debug)]
pub struct Injector {
    strace: Running,
    trace: PathBuf,
}

impl Injector {
    /// Attaches to a process: the fault comes at the `at`-th call of `call`, counted from 1.
    /// With paths, only calls that have to do with one of them count.
    #[track_caller]
    pub fn attach(pid: i32, call: &str, at: usize, fault: Fault, paths: &[String]) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let trace = scratch_dir().join(format!("trace-{number}"));
        let inject = match fault {
            Fault::None => None,
            Fault::Kill => Some(format!("inject={call}:signal=KILL:when={at}")),
            Fault::Error(error) => Some(format!("inject={call}:error={error}:when={at}")),
        };
        let mut strace = Invocation::new(stock("strace"))
            .args(["-e", &format!("trace={call}"), "-p", &pid.to_string(), "-o"])
            .arg(&trace)
            .limit(SOON * 4);
        if let Some(expression) = inject {
            strace = strace.args(["-e", &expression]);
        }
        for path in paths {
            strace = strace.args(["-P", path]);
        }
        let strace = strace.start();
        // It says so when it has asked the process to stop.
        wait_until("strace is attached", SOON, || strace.stderr().contains("attached"));
        Self { strace, trace }
    }

    /// Goes away. The calls that were made, with their number, and whether one has failed.
    #[track_caller]
    pub fn detach(mut self) -> (BTreeMap<String, usize>, bool) {
        if !self.strace.ended() {
            self.strace.signal(Signal::SIGINT);
        }
        wait_for("the end of strace", SOON, || self.strace.ended().then_some(()));
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        let mut calls = BTreeMap::new();
        for name in text.lines().filter_map(|line| Some(line.split_once('(')?.0)) {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
        (calls, text.contains("(INJECTED)"))
    }
}
