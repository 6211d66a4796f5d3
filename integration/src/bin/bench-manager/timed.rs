//! Works that are only timed.

use std::time::Instant;

use hull_integration::engine::SLEEPER;
use hull_integration::figures::{sorted, spread};

use crate::engine::Engine;

/// One work, done once in a fresh state that `prepare` left.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    prepare: fn(&Engine),
    round: fn(&Engine),
    finish: fn(&Engine),
    /// Of the rounds that are asked for, one in so many.
    every: usize,
}

pub(crate) const WORKS: &[Work] = &[
    Work {
        name: "run",
        prepare: nothing,
        round: |engine| drop(engine.start("run", &["--rm"], &["true"]).run().ok()),
        finish: nothing,
        every: 1,
    },
    Work {
        name: "exec",
        prepare: |engine| {
            drop(engine.start("run", &["-d", "--name", "one"], &["sh", "-c", SLEEPER]).run().ok())
        },
        round: |engine| drop(engine.call(&["exec", "one", "true"]).run().ok()),
        finish: |engine| drop(engine.call(&["rm", "-f", "one"]).run().ok()),
        every: 1,
    },
    Work { name: "32-at-once", prepare: nothing, round: at_once, finish: nothing, every: 6 },
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
        every: 1,
    },
];

fn nothing(_: &Engine) {}

fn at_once(engine: &Engine) {
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| engine.start("run", &["--rm"], &["true"]).run().ok());
        }
    });
}

impl Work {
    /// Every round does it once with each engine.
    pub(crate) fn run(&self, engines: &[Engine], rounds: usize) {
        let rounds = rounds.div_ceil(self.every);
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
        engines.iter().for_each(self.prepare);
        for _ in 0..rounds {
            for (engine, times) in engines.iter().zip(&mut times) {
                let begun = Instant::now();
                (self.round)(engine);
                times.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        engines.iter().for_each(self.finish);
        println!(
            "\n### {}, {rounds} rounds\n\n| | wall ms | hull ÷ this |\n| --- | ---: | ---: |",
            self.name
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
}
