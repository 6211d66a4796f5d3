//! The next container where many are there with many ports, against the same on a host without.

use std::sync::Mutex;
use std::time::Instant;

use hull_integration::figures::{sorted, spread};

use crate::contestant::Contestant;
use crate::starts::run;

/// The lowest port of the host that the crowd publishes: all are below the dynamic ones.
const FIRST_PORT: usize = 10_000;

/// What a container of the crowd publishes beside what the others do.
const PORTS: &[&str] = &["--publish", "8000-8031:8000-8031"];

/// So many commands at once while the crowd comes and goes.
const AT_ONCE: usize = 4;

/// Two managers on hosts of their own, one of which has the crowd in the second half.
pub(crate) fn crowd(containers: usize, ports: usize, rounds: usize) {
    let managers = [Contestant::hull(), Contestant::hull()];
    let quiet = measure(&managers, rounds);
    let names: Vec<String> = (0..containers).map(|number| format!("c{number}")).collect();
    let begun = Instant::now();
    let share = ports / containers;
    each(&names, 1, |names| {
        let number: usize = names[0][1..].parse().expect("it is our name");
        let first = FIRST_PORT + number * share;
        let last = first + share - 1;
        let publish = format!("{first}-{last}:{first}-{last}");
        let mut options = vec!["--detach", "--name", names[0].as_str()];
        if share > 0 {
            options.extend(["--publish", publish.as_str()]);
        }
        managers[0].run(&options, &["sleep", "1000000"]).run().ok();
    });
    let came = containers as f64 / begun.elapsed().as_secs_f64();
    let crowded = measure(&managers, rounds);
    let begun = Instant::now();
    each(&names, 50, |names| {
        let words = ["rm", "--force"].into_iter().chain(names.iter().map(String::as_str));
        managers[0].call(&words.collect::<Vec<_>>()).run().ok();
    });
    let went = containers as f64 / begun.elapsed().as_secs_f64();
    println!(
        "\n### crowd of {containers} containers with {} ports, {rounds} rounds\n\n\
         {came:.1} came and {went:.1} went a second.\n\n\
         | | before, ms | in the crowd, ms | elsewhere meanwhile, ms | ÷ before | ÷ elsewhere |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |",
        share * containers
    );
    for (number, name) in ["run", "run with 32 ports"].into_iter().enumerate() {
        let [before, after] = [&quiet, &crowded].map(|half| half[number].clone());
        let ratios = |by: &[f64]| {
            spread(&sorted(after[0].iter().zip(by).map(|(crowd, by)| crowd / by).collect()))
        };
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            spread(&sorted(before[0].clone())),
            spread(&sorted(after[0].clone())),
            spread(&sorted(after[1].clone())),
            ratios(&before[0]),
            ratios(&after[1]),
        );
    }
}

/// By work and manager, in milliseconds.
fn measure(managers: &[Contestant; 2], rounds: usize) -> [[Vec<f64>; 2]; 2] {
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..=rounds {
        for (work, options) in [&[][..], PORTS].into_iter().enumerate() {
            for (manager, times) in managers.iter().zip(&mut times[work]) {
                let time = run(manager, options);
                // The first one makes what stays.
                if round > 0 {
                    times.push(time);
                }
            }
        }
    }
    times
}

/// Does something for all names, some at once.
fn each(names: &[String], batch: usize, work: impl Fn(&[String]) + Sync) {
    let left = Mutex::new(names.chunks(batch));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("nobody panics with it").next();
                    let Some(names) = next else { return };
                    work(names);
                }
            });
        }
    });
}
