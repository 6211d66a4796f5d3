//! How long containers with a network take.

use std::sync::Barrier;
use std::time::Instant;

use hull_integration::figures::{sorted, spread};

use crate::contestant::Contestant;

/// One work; each round gives one figure.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    figure: &'static str,
    round: fn(&Contestant) -> f64,
    /// Of the rounds that are asked for, one in so many.
    every: usize,
}

pub(crate) const WORKS: &[Work] = &[
    Work { name: "run", figure: "wall ms", round: |engine| run(engine, &[]), every: 1 },
    Work {
        name: "32-ports",
        figure: "wall ms",
        round: |engine| run(engine, &["--publish", "8000-8031:8000-8031"]),
        every: 3,
    },
    Work { name: "64-at-once", figure: "first to last end, ms", round: at_once, every: 10 },
];

/// One container from the command's start to its end, in milliseconds.
pub(crate) fn run(engine: &Contestant, options: &[&str]) -> f64 {
    let begun = Instant::now();
    engine.run(&[&["--rm"], options].concat(), &["true"]).run().ok();
    begun.elapsed().as_secs_f64() * 1000.0
}

/// So many commands at once: how long after the first the last one ended, in milliseconds.
fn at_once(engine: &Contestant) -> f64 {
    const COUNT: usize = 64;
    let together = Barrier::new(COUNT);
    let begun = Instant::now();
    let ends: Vec<f64> = std::thread::scope(|scope| {
        let start = || {
            together.wait();
            engine.run(&["--rm"], &["true"]).run().ok();
            begun.elapsed().as_secs_f64() * 1000.0
        };
        let threads: Vec<_> = (0..COUNT).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it was able to run")).collect()
    });
    let ends = sorted(ends);
    ends[COUNT - 1] - ends[0]
}

impl Work {
    /// Every round does it once with each engine.
    pub(crate) fn run(&self, engines: &[Contestant], rounds: usize) {
        let rounds = rounds.div_ceil(self.every);
        let mut figures: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
        // The first one of each engine makes what stays.
        for engine in engines {
            run(engine, &[]);
        }
        for _ in 0..rounds {
            for (engine, figures) in engines.iter().zip(&mut figures) {
                figures.push((self.round)(engine));
            }
        }
        println!(
            "\n### {}, {rounds} rounds\n\n| | {} | hull ÷ this |\n| --- | ---: | ---: |",
            self.name, self.figure
        );
        for (engine, own) in engines.iter().zip(&figures) {
            println!(
                "| {} | {} | {} |",
                engine.name(),
                spread(&sorted(own.clone())),
                spread(&sorted(figures[0].iter().zip(own).map(|(hull, own)| hull / own).collect()))
            );
        }
    }
}
