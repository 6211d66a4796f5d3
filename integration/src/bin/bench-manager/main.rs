//! `make bench-manager`: hulld with hull against dockerd with docker, and podman, in turn.
//!
//! All run the same busybox without a network, docker and podman on runc. Every round does each
//! work once with each engine (A B C, A B C, …), so that whatever else the machine does falls on
//! all of them; ratios are taken round by round before their median. All stores are in memory, so
//! that nobody waits for the disk. Deliberately not a test.
#![forbid(unsafe_code)]

mod engine;
mod image;
mod logs;
mod many;
mod memory;
mod pull;
mod timed;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use engine::Engine;

const USAGE: &str = "\
usage: bench-manager [--quick] [--runs N] [--containers N] [--cache DIR] [--only WORK]...
  --quick         5 rounds instead of 30, small images, few containers
  --runs N        rounds of each work that is timed; a sixth of them for the long works
  --containers N  how many are created, started and listed (1000)
  --cache DIR     where the images that are pulled are kept (/var/tmp/hull-bench)
  --only WORK     only works whose name contains WORK (may be repeated): run, exec,
                  32-at-once, create-start-list, pull, logs, memory, many";

struct Options {
    quick: bool,
    rounds: usize,
    containers: usize,
    cache: PathBuf,
    only: Vec<String>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Options> {
    let (mut quick, mut rounds, mut containers) = (false, None, None);
    let mut cache = PathBuf::from("/var/tmp/hull-bench");
    let mut only = Vec::new();
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok().filter(|count: &usize| *count > 0);
        match word.as_str() {
            "--quick" => quick = true,
            "--runs" => rounds = Some(number()?),
            "--containers" => containers = Some(number()?),
            "--cache" => cache = words.next()?.into(),
            "--only" => only.push(words.next()?),
            _ => return None,
        }
    }
    let or = |given: Option<usize>, few, usual| given.unwrap_or(if quick { few } else { usual });
    Some(Options {
        quick,
        rounds: or(rounds, 5, 30),
        containers: or(containers, 20, 1000),
        cache,
        only,
    })
}

fn bench(options: &Options) {
    let engines = Engine::all();
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()))
    };
    if wanted("memory") {
        memory(&engines, if options.quick { 10 } else { 100 });
    }
    for work in timed::WORKS.iter().filter(|work| wanted(work.name)) {
        work.run(&engines, options.rounds);
    }
    let few = options.rounds.div_ceil(6);
    if wanted("pull") {
        pull::pull(&engines, &options.cache, options.quick, few);
    }
    if wanted("logs") {
        logs::logs(&engines, if options.quick { 100_000 } else { 2_000_000 }, few);
    }
    if wanted("many") {
        many::many(&engines, options.containers);
    }
}

/// After this time nothing of the work before is left but what stays.
const REST: Duration = Duration::from_secs(10);

/// What the daemons take at rest, and the whole stack with containers that do nothing.
fn memory(engines: &[Engine], resting: usize) {
    println!(
        "\n### memory, KiB\n\n\
         | | daemons' RSS | stack PSS with {resting} containers | daemons' RSS after them |\n\
         | --- | ---: | ---: | ---: |"
    );
    for engine in engines {
        let directory = engine.site().directory();
        let rss = || {
            std::thread::sleep(REST);
            memory::total(directory, memory::Kind::Rss)
        };
        let before = rss();
        let names: Vec<String> = (0..resting).map(|number| format!("r{number}")).collect();
        for name in &names {
            engine.start("run", &["-d", "--name", name], &["sleep", "100000"]).run().ok();
        }
        let pss = memory::total(directory, memory::Kind::Pss);
        for name in &names {
            engine.call(&["rm", "-f", name]).run().ok();
        }
        println!("| {} | {before} | {pss} | {} |", engine.name(), rss());
    }
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Some(options) => {
            bench(&options);
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}
