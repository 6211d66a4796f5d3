//! `make bench-shim`: shims measured in turn, on the same work, on this machine.
//!
//! Each contestant is a process of its own, started from this program, because the harness
//! knows one shim and one runtime a process. It prepares a work and then does a round of it
//! whenever it is told to, so that the rounds alternate (A B C, A B C, …) and whatever else
//! the machine does falls on all of them. Ratios are taken round by round before their median.
//!
//! Deliberately not a test: it asserts no time and no size.
#![forbid(unsafe_code)]

mod conmon;
mod contestant;
mod idle;
mod latency;
mod logs;
mod process;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hull_integration::{cgroup, scratch_dir};

const USAGE: &str = "\
usage: bench-shim [--quick] [--runs N] [--only WORK]... --shim PATH --runtime PATH
  --quick         10 rounds instead of 100, and 256 MiB of logs instead of 1 GiB
  --runs N        rounds of each work that is timed
  --only WORK     only works whose name contains WORK (may be repeated)
  --shim PATH     the containerd-shim-hull-v2 to measure
  --runtime PATH  the hull-runtime below it";

/// How long shims are watched for wake-ups, once everything that starts them is over.
const IDLE: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Options {
    rounds: usize,
    quick: bool,
    only: Vec<String>,
    shim: PathBuf,
    runtime: PathBuf,
}

/// What the contestants do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    /// `ctr run --rm busybox true`.
    CtrRun,
    /// `ctr tasks exec busybox true`.
    CtrExec,
    /// The shim's calls for a container, without containerd.
    Run,
    /// The shim's calls for an exec, without containerd.
    Exec,
    /// So many containers that do nothing.
    Idle(usize),
    /// A container that writes so many MiB of lines.
    Log(u64),
}

impl Work {
    fn name(self) -> String {
        match self {
            Self::CtrRun => "ctr-run".into(),
            Self::CtrExec => "ctr-exec".into(),
            Self::Run => "run".into(),
            Self::Exec => "exec".into(),
            Self::Idle(count) => format!("idle-{count}"),
            Self::Log(mib) => format!("log-{mib}"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let (kind, number) = name.rsplit_once('-').unwrap_or((name, ""));
        Some(match (name, kind) {
            ("ctr-run", _) => Self::CtrRun,
            ("ctr-exec", _) => Self::CtrExec,
            ("run", _) => Self::Run,
            ("exec", _) => Self::Exec,
            (_, "idle") => Self::Idle(number.parse().ok()?),
            (_, "log") => Self::Log(number.parse().ok()?),
            _ => return None,
        })
    }

    /// What a round gives.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::CtrRun | Self::CtrExec => &["wall ms"],
            Self::Run => &["start and Create ms", "Start ms", "Wait ms", "Delete ms", "all ms"],
            Self::Exec => &["Exec and Start ms", "Wait ms", "Delete ms", "all ms"],
            Self::Idle(_) => &["PSS KiB", "Private_Dirty KiB", "descriptors", "wake-ups"],
            Self::Log(_) => &["MiB/s", "CPU s per GiB"],
        }
    }
}

/// Removes the harness's files, also when a contestant panics.
struct Scratch;

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is still mounted there was complained of by whoever left it.
        let _ = std::fs::remove_dir_all(scratch_dir());
    }
}

fn main() -> ExitCode {
    let _scratch = Scratch;
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some("--contestant") => contestant::perform(&arguments.collect::<Vec<_>>()),
        _ => perform(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-shim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform() -> Result<()> {
    let Some(options) = parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let hid_unified = cgroup::hide_unified()?;
    report::conditions(hid_unified)?;
    let log_mib = if options.quick { 256 } else { 1024 };
    let works = [
        Work::Idle(1),
        Work::Idle(10),
        Work::Idle(100),
        Work::CtrRun,
        Work::CtrExec,
        Work::Run,
        Work::Exec,
        Work::Log(log_mib),
    ];
    let wanted = |work: &Work| {
        let name = work.name();
        options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()))
    };
    for work in works.into_iter().filter(wanted) {
        let rows = measure(work, &options).with_context(|| format!("measure {}", work.name()))?;
        report::table(work, &rows);
    }
    Ok(())
}

fn measure(work: Work, options: &Options) -> Result<Vec<report::Row>> {
    let mut entries = Vec::new();
    for contestant in contestant::all(&options.shim, &options.runtime) {
        if contestant.does(work) {
            let row = report::Row::new(&contestant);
            entries.push((contestant.start(work)?, row));
        }
    }
    if let Work::Idle(_) = work {
        thread::sleep(SETTLED);
        let mut before = Vec::new();
        for (running, _) in &mut entries {
            before.push(running.round()?);
        }
        thread::sleep(IDLE);
        for ((running, row), before) in entries.iter_mut().zip(before) {
            let mut figures = running.round()?;
            if let (Some(now), Some(then)) = (figures.last_mut(), before.last()) {
                *now -= then;
            }
            row.rounds.push(figures);
        }
    } else {
        // What is first done only fills caches.
        let (warm, rounds) = match work {
            Work::Log(_) => (0, 3),
            _ => (2, options.rounds),
        };
        for round in 0..warm + rounds {
            for (running, row) in &mut entries {
                let figures = running.round()?;
                if round >= warm {
                    row.rounds.push(figures);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (running, row) in entries {
        running.end()?;
        rows.push(row);
    }
    Ok(rows)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().with_context(|| format!("{argument} needs a value\n{USAGE}"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--quick" => options.quick = true,
            "--runs" => options.rounds = value()?.parse().context("--runs is not a number")?,
            "--only" => options.only.push(value()?),
            "--shim" => options.shim = value()?.into(),
            "--runtime" => options.runtime = value()?.into(),
            _ => bail!("unknown argument {argument}\n{USAGE}"),
        }
    }
    if options.rounds == 0 {
        options.rounds = if options.quick { 10 } else { 100 };
    }
    for (name, path) in [("--shim", &options.shim), ("--runtime", &options.runtime)] {
        anyhow::ensure!(path.is_file(), "{name} names no file: {:?}", path.display());
    }
    Ok(Some(options))
}
