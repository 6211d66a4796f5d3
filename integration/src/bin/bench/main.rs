//! `make bench`: runtimes measured in turn, on the same work, on this machine.
//!
//! Every round runs each contestant once (A B C, A B C, …), so that whatever
//! else the machine does falls on all of them, and ratios are taken round by
//! round before their median is. `floor/measure.c` starts the commands, since a
//! process inherits the peak memory of its parent's program.
//!
//! Deliberately not a test: it asserts no time. It changes no setting of the
//! kernel (`rcu_expedited` stays as it is and is reported).
#![forbid(unsafe_code)]

mod contestant;
mod memory;
mod report;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use contestant::Contestant;
use report::Row;
use stage::{Config, Stage};

const USAGE: &str = "\
usage: bench [--quick] [--runs N] [--gap-ms N] [--only WORK]... [--hull PATH] [--peer NAME]...
  --quick      10 rounds instead of 100, and no memory search
  --runs N     rounds of each work
  --gap-ms N   pause before each command (10), so that nobody pays for the
               kernel's deferred cleanup after another's container
  --only WORK  only works whose name contains WORK (may be repeated)
  --hull PATH  the hull-runtime to measure (default: beside this program)
  --peer NAME  only this peer (may be repeated; default runc, crun, youki)";

struct Options {
    rounds: usize,
    quick: bool,
    gap: Duration,
    only: Vec<String>,
    peers: Vec<String>,
    hull: PathBuf,
}

/// One thing that the contestants do, timed as a whole.
struct Work {
    name: &'static str,
    config: Config,
    task: Task,
    /// The floor's switches, where the floor does this work too.
    floor: Option<&'static [&'static str]>,
}

#[derive(Clone, Copy)]
enum Task {
    Run,
    CreateStartDelete,
    Create,
    Exec,
    RunTogether(usize),
}

const WORKS: &[Work] = &[
    Work { name: "run", config: Config::Default, task: Task::Run, floor: Some(&[]) },
    Work { name: "run-docker", config: Config::Docker, task: Task::Run, floor: None },
    Work {
        name: "run-host-network",
        config: Config::HostNetwork,
        task: Task::Run,
        floor: Some(&["--host-net"]),
    },
    Work {
        name: "run-user-namespace",
        config: Config::UserNamespace,
        task: Task::Run,
        floor: None,
    },
    Work {
        name: "create-start-delete",
        config: Config::Default,
        task: Task::CreateStartDelete,
        floor: Some(&[]),
    },
    Work {
        name: "create-start-delete-docker",
        config: Config::Docker,
        task: Task::CreateStartDelete,
        floor: None,
    },
    Work { name: "create", config: Config::Default, task: Task::Create, floor: None },
    Work { name: "exec", config: Config::Default, task: Task::Exec, floor: None },
    Work {
        name: "run-8-at-once",
        config: Config::Default,
        task: Task::RunTogether(8),
        floor: Some(&[]),
    },
];

fn main() -> ExitCode {
    match perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform() -> Result<()> {
    let Some(options) = parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let stage = Stage::set()?;
    let contestants = contestant::find(&stage, &options.hull, &options.peers)?;
    report::conditions(&stage, &contestants)?;
    for work in WORKS.iter().filter(|work| wanted(&options, work.name)) {
        let rows = measure(work, &stage, &contestants, &options)
            .with_context(|| format!("measure {}", work.name))?;
        report::table(work.name, &rows);
    }
    if !options.quick && wanted(&options, "least-memory") {
        memory::report(&stage, &contestants)?;
    }
    Ok(())
}

fn wanted(options: &Options, name: &str) -> bool {
    options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()))
}

fn measure(
    work: &Work,
    stage: &Stage,
    contestants: &[Contestant],
    options: &Options,
) -> Result<Vec<Row>> {
    let mut entries = Vec::new();
    for contestant in contestants {
        if contestant.kind.is_floor() && work.floor.is_none() {
            continue;
        }
        let bundle = stage.bundle(&contestant.name, work.config)?;
        if let Task::Exec = work.task {
            contestant.start_sleeper(stage)?;
        }
        entries.push((contestant, bundle, Row::new(&contestant.name, contestant.kind)));
    }
    // The first two rounds fill caches and are thrown away.
    for round in 0..options.rounds + 2 {
        for (contestant, bundle, row) in &mut entries {
            let steps = contestant.steps(work, bundle, stage);
            let together = matches!(work.task, Task::RunTogether(_));
            std::thread::sleep(options.gap);
            let cost = stage.measure(&steps, together)?;
            if let Task::Create = work.task {
                contestant.delete(&contestant.id(0))?;
            }
            if let Some((step, status)) = cost.failed {
                bail!("{}: {:?} ended with status {status}", contestant.name, steps[step - 1]);
            }
            if round >= 2 {
                row.costs.push(cost);
            }
        }
    }
    for contestant in contestants {
        contestant.clean_up();
    }
    Ok(entries.into_iter().map(|(_, _, row)| row).collect())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let beside = std::env::current_exe().context("find this program")?;
    let mut options = Options {
        rounds: 0,
        quick: false,
        gap: Duration::from_millis(10),
        only: Vec::new(),
        peers: Vec::new(),
        hull: beside.with_file_name("hull-runtime"),
    };
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().with_context(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--quick" => options.quick = true,
            "--runs" => options.rounds = value()?.parse().context("--runs is not a number")?,
            "--gap-ms" => {
                let gap_ms = value()?.parse().context("--gap-ms is not a number")?;
                options.gap = Duration::from_millis(gap_ms);
            }
            "--only" => options.only.push(value()?),
            "--peer" => options.peers.push(value()?),
            "--hull" => options.hull = value()?.into(),
            _ => bail!("unknown argument {argument}\n{USAGE}"),
        }
    }
    if options.rounds == 0 {
        options.rounds = if options.quick { 10 } else { 100 };
    }
    if options.peers.is_empty() {
        options.peers = ["runc", "crun", "youki"].map(String::from).to_vec();
    }
    Ok(Some(options))
}
