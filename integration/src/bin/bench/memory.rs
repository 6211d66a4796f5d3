//! The smallest memory limit under which a container still runs `true`.
//!
//! The limit is the one in config.json; on cgroup v1 and v2 alike it covers
//! what the runtime itself uses after it joined the container's cgroup.

use anyhow::Result;

use crate::contestant::Contestant;
use crate::stage::{Config, Stage};
use crate::{Task, Work};

const STEP_KIB: u64 = 16;
const MOST_KIB: u64 = 16_384;

/// How often `true` must run under a limit before the limit counts as enough.
const TRIES: usize = 5;

pub(crate) fn report(stage: &Stage, contestants: &[Contestant]) -> Result<()> {
    println!(
        "\n### least-memory: smallest limit, in steps of {STEP_KIB} KiB, {TRIES} of {TRIES}\n"
    );
    println!("| runtime | KiB |\n| --- | ---: |");
    for contestant in contestants.iter().filter(|contestant| !contestant.kind.is_floor()) {
        match least_kib(stage, contestant)? {
            Some(kib) => println!("| {} | {kib} |", contestant.name),
            None => println!("| {} | more than {MOST_KIB} |", contestant.name),
        }
    }
    Ok(())
}

fn least_kib(stage: &Stage, contestant: &Contestant) -> Result<Option<u64>> {
    let (mut too_small, mut enough) = (0, MOST_KIB / STEP_KIB);
    if !runs(stage, contestant, enough * STEP_KIB)? {
        return Ok(None);
    }
    while enough - too_small > 1 {
        let middle = too_small.midpoint(enough);
        if runs(stage, contestant, middle * STEP_KIB)? {
            enough = middle;
        } else {
            too_small = middle;
        }
    }
    Ok(Some(enough * STEP_KIB))
}

fn runs(stage: &Stage, contestant: &Contestant, kib: u64) -> Result<bool> {
    let work = Work { name: "", config: Config::MemoryLimit { kib }, task: Task::Run, floor: None };
    let bundle = stage.bundle(&contestant.name, work.config)?;
    let mut steps = contestant.steps(&work, &bundle, stage);
    // A runtime whose child the kernel killed may wait for it for ever.
    steps[0].splice(0..0, ["timeout", "-s", "KILL", "10"].map(String::from));
    for _ in 0..TRIES {
        if stage.measure(&steps, true)?.failed.is_some() {
            contestant.clean_up();
            return Ok(false);
        }
    }
    Ok(true)
}
