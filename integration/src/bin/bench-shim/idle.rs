//! What is spent on containers that do nothing.

use std::thread;

use anyhow::Result;
use hull_integration::shim::Host;
use serde_json::json;

use crate::conmon::Conmon;
use crate::contestant::{Keeper, rounds};
use crate::process;

const PROGRAM: [&str; 2] = ["sleep", "100000"];

/// At once, because one after the other takes so long.
const AT_ONCE: usize = 4;

/// Holds `count` containers. A round gives the columns of `Work::Idle`, the last as a total
/// since the start of the processes.
pub(crate) fn hold(keeper: Keeper, count: usize) -> Result<()> {
    if keeper == Keeper::Conmon {
        let conmon = Conmon::new();
        let containers: Vec<_> =
            (0..count).map(|number| conmon.create(&format!("idle-{number}"), &PROGRAM)).collect();
        containers.iter().for_each(|container| container.start());
        let pids: Vec<i32> = containers.iter().map(|container| container.pid).collect();
        return rounds(|| weigh(&pids));
    }
    let host = Host::new();
    let start = |number: usize| {
        let plan = host.shell(&format!("idle-{number}"), "").configure(|config| {
            config["process"]["args"] = json!(PROGRAM);
        });
        plan.start()
    };
    let start = &start;
    let _tasks: Vec<_> = thread::scope(|scope| {
        let part = |first| {
            let numbers = (first..count).step_by(AT_ONCE);
            scope.spawn(move || numbers.map(start).collect::<Vec<_>>())
        };
        let parts: Vec<_> = (0..AT_ONCE.min(count)).map(part).collect();
        parts.into_iter().flat_map(|part| part.join().expect("they start")).collect()
    });
    let pids: Vec<i32> =
        (0..count).map(|number| host.shim_pid(&format!("idle-{number}"))).collect();
    rounds(|| weigh(&pids))
}

/// The mean of the processes; the last column is their sum.
fn weigh(pids: &[i32]) -> Vec<f64> {
    let sum = |figure: &dyn Fn(i32) -> f64| pids.iter().map(|pid| figure(*pid)).sum::<f64>();
    let mean = |figure: &dyn Fn(i32) -> f64| sum(figure) / pids.len() as f64;
    vec![
        mean(&|pid| process::memory_kib(pid, "Pss")),
        mean(&|pid| process::memory_kib(pid, "Private_Dirty")),
        mean(&process::descriptors),
        sum(&process::switches),
    ]
}
