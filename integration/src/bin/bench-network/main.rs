//! `make bench-network`: networks of hull, docker and podman in turn, and a bridge made by hand.
//!
//! Each engine has a host of its own, a network namespace with a neighbour beside it, so that no
//! link, route or rule of the machine's own is touched. Every round does each work once with each
//! engine (A B C, A B C, …), so that whatever else the machine does falls on all of them; ratios
//! are taken round by round before their median. Stores are in memory. Deliberately not a test.
#![forbid(unsafe_code)]

mod contestant;
mod crowd;
mod names;
mod pipe;
mod plain;
mod starts;
mod traffic;

use std::process::ExitCode;

use contestant::Contestant;

const USAGE: &str = "\
usage: bench-network [--quick] [--runs N] [--containers N] [--ports N] [--only WORK]...
  --quick         5 rounds instead of 30, 50 containers, 500 ports
  --runs N        rounds of each work
  --containers N  how many are there in a crowd (500)
  --ports N       how many ports these publish together (5000)
  --only WORK     only works whose name contains WORK (may be repeated): run, 32-ports,
                  64-at-once, crowd, traffic, names";

struct Options {
    rounds: usize,
    containers: usize,
    ports: usize,
    only: Vec<String>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Options> {
    let (mut quick, mut rounds, mut containers, mut ports) = (false, None, None, None);
    let mut only = Vec::new();
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok().filter(|count: &usize| *count > 0);
        match word.as_str() {
            "--quick" => quick = true,
            "--runs" => rounds = Some(number()?),
            "--containers" => containers = Some(number()?),
            "--ports" => ports = Some(number()?),
            "--only" => only.push(words.next()?),
            _ => return None,
        }
    }
    let or = |given: Option<usize>, few, usual| given.unwrap_or(if quick { few } else { usual });
    Some(Options {
        rounds: or(rounds, 5, 30),
        containers: or(containers, 50, 500),
        ports: or(ports, 500, 5000),
        only,
    })
}

fn bench(options: &Options) {
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()))
    };
    let works: Vec<_> = starts::WORKS.iter().filter(|work| wanted(work.name)).collect();
    if !works.is_empty() || wanted("traffic") || wanted("names") {
        let contestants = Contestant::all();
        works.iter().for_each(|work| work.run(&contestants, options.rounds));
        if wanted("traffic") {
            traffic::traffic(&contestants, options.rounds);
        }
        if wanted("names") {
            names::names(&contestants, options.rounds.div_ceil(6));
        }
    }
    if wanted("crowd") {
        crowd::crowd(options.containers, options.ports, options.rounds);
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
