//! `make bench-manager`: hulld with hull against dockerd with docker, and podman, in turn.
//!
//! All run the same busybox without a network, docker and podman on runc. Every round does each
//! work once with each engine (A B C, A B C, …), so that whatever else the machine does falls on
//! all of them; ratios are taken round by round before their median. Deliberately not a test.
#![forbid(unsafe_code)]

mod memory;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use hull_integration::Invocation;
use hull_integration::engine::{Docker, Hull, Podman, SLEEPER, busybox_archive};
use hull_integration::figures::{sorted, spread};

const USAGE: &str = "\
usage: bench-manager [--quick] [--runs N] [--only WORK]...
  --quick      5 rounds instead of 30, and 10 containers at rest instead of 100
  --runs N     rounds of each work that is timed
  --only WORK  only works whose name contains WORK (may be repeated): run, exec,
               32-at-once, create-start-list, write, follow, memory";

/// Longer than any command of a loaded machine.
const LIMIT: Duration = Duration::from_secs(300);

struct Options {
    rounds: usize,
    resting: usize,
    only: Vec<String>,
}

/// An engine and how its command line is called.
enum Engine {
    Hull(Hull),
    Docker(Docker),
    Podman(Podman),
}

impl Engine {
    fn name(&self) -> &'static str {
        match self {
            Self::Hull(_) => "hull",
            Self::Docker(_) => "docker",
            Self::Podman(_) => "podman",
        }
    }

    fn call(&self, args: &[&str]) -> Invocation {
        match self {
            Self::Hull(hull) => hull.call(args),
            Self::Docker(docker) => docker.call(args),
            Self::Podman(podman) => podman.call(args),
        }
        .limit(LIMIT)
    }

    /// `run` or `create` with what makes them comparable.
    fn start(&self, verb: &str, options: &[&str], words: &[&str]) -> Invocation {
        let mut args = vec![verb, "--network", "none"];
        match self {
            Self::Hull(_) => {}
            Self::Docker(_) => args.extend(["--runtime", "runc"]),
            // It sets limits above those of this machine.
            Self::Podman(_) => {
                args.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"])
            }
        }
        args.extend(options);
        args.push("busybox");
        args.extend(words);
        self.call(&args)
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1000.0
}

/// One work, done once in a fresh state that `prepare` left.
struct Work {
    name: &'static str,
    prepare: fn(&Engine),
    round: fn(&Engine),
    finish: fn(&Engine),
}

const WORKS: &[Work] = &[
    Work {
        name: "run",
        prepare: nothing,
        round: |engine| drop(engine.start("run", &["--rm"], &["true"]).run().ok()),
        finish: nothing,
    },
    Work {
        name: "exec",
        prepare: |engine| {
            drop(engine.start("run", &["-d", "--name", "one"], &["sh", "-c", SLEEPER]).run().ok())
        },
        round: |engine| drop(engine.call(&["exec", "one", "true"]).run().ok()),
        finish: |engine| drop(engine.call(&["rm", "-f", "one"]).run().ok()),
    },
    Work {
        name: "write",
        prepare: nothing,
        round: |engine| drop(write(engine, &["wait", "one"])),
        finish: nothing,
    },
    Work {
        name: "follow",
        prepare: nothing,
        round: |engine| assert_eq!(write(engine, &["logs", "--follow", "one"]).len(), 200_000 * 65),
        finish: nothing,
    },
    Work { name: "32-at-once", prepare: nothing, round: at_once, finish: nothing },
    Work {
        name: "create-start-list",
        prepare: nothing,
        round: |engine| {
            engine.start("create", &["--name", "one"], &["sh", "-c", SLEEPER]).run().ok();
            engine.call(&["start", "one"]).run().ok();
            engine.call(&["ps", "-a"]).run().ok();
            engine.call(&["rm", "-f", "one"]).run().ok();
        },
        finish: nothing,
    },
];

/// 13 MB in lines of 65 bytes, as fast as busybox writes them.
const WRITER: &str =
    "yes 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef | head -n 200000";

/// Lets a container write, and waits for its end as `wait` says.
fn write(engine: &Engine, wait: &[&str]) -> String {
    engine.start("run", &["-d", "--name", "one"], &["sh", "-c", WRITER]).run().ok();
    let output = engine.call(wait).run().ok();
    engine.call(&["rm", "-f", "one"]).run().ok();
    output.stdout
}

fn nothing(_: &Engine) {}

fn at_once(engine: &Engine) {
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| engine.start("run", &["--rm"], &["true"]).run().ok());
        }
    });
}

fn bench(options: &Options) {
    let engines =
        [Engine::Hull(Hull::start()), Engine::Docker(Docker::start()), Engine::Podman(podman())];
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|only| name.contains(only.as_str()))
    };
    for work in WORKS.iter().filter(|work| wanted(work.name)) {
        let rounds =
            if work.name == "32-at-once" { options.rounds.div_ceil(6) } else { options.rounds };
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
        engines.iter().for_each(work.prepare);
        for _ in 0..rounds {
            for (engine, times) in engines.iter().zip(&mut times) {
                times.push(timed(|| (work.round)(engine)));
            }
        }
        engines.iter().for_each(work.finish);
        println!(
            "\n### {}, {rounds} rounds\n\n| | wall ms | hull ÷ this |\n| --- | ---: | ---: |",
            work.name
        );
        for (engine, own) in engines.iter().zip(&times) {
            let ratios: Vec<f64> = times[0].iter().zip(own).map(|(hull, own)| hull / own).collect();
            println!(
                "| {} | {} | {} |",
                engine.name(),
                spread(&sorted(own.clone())),
                spread(&sorted(ratios))
            );
        }
    }
    if wanted("memory") {
        memory(&engines, options.resting);
    }
}

/// What the daemons take at rest, and the whole stack with containers that do nothing.
fn memory(engines: &[Engine], resting: usize) {
    println!(
        "\n### memory, KiB\n\n| | manager RSS at rest | stack PSS with {resting} containers |\n| --- | ---: | ---: |"
    );
    for engine in engines {
        let Some(site) = (match engine {
            Engine::Hull(hull) => Some(hull.site()),
            Engine::Docker(docker) => Some(docker.site()),
            Engine::Podman(_) => None,
        }) else {
            continue;
        };
        let rss = memory::total(site.directory(), memory::Kind::Rss);
        let names: Vec<String> = (0..resting).map(|number| format!("r{number}")).collect();
        for name in &names {
            engine.start("run", &["-d", "--name", name], &["sleep", "100000"]).run().ok();
        }
        let pss = memory::total(site.directory(), memory::Kind::Pss);
        for name in &names {
            engine.call(&["rm", "-f", name]).run().ok();
        }
        println!("| {} | {rss} | {pss} |", engine.name());
    }
}

fn podman() -> Podman {
    let podman = Podman::new();
    podman.call(&["import", busybox_archive(), "busybox"]).limit(LIMIT).run().ok();
    podman
}

fn main() -> ExitCode {
    let mut options = Options { rounds: 30, resting: 100, only: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--quick" {
            (options.rounds, options.resting) = (5, 10);
            continue;
        }
        match (word.as_str(), words.next()) {
            ("--runs", Some(count)) if count.parse::<usize>().is_ok_and(|count| count > 0) => {
                options.rounds = count.parse().unwrap_or(options.rounds);
            }
            ("--only", Some(work)) => options.only.push(work),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::FAILURE;
            }
        }
    }
    bench(&options);
    ExitCode::SUCCESS
}
