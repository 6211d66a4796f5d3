//! Pulling and unpacking a large image, and then one that shares its layers.

use std::path::Path;

use hull_integration::figures::{median, sorted, spread};

use crate::engine::Engine;
use crate::image::{self, BASE, CHILD};
use crate::usage::{Usage, measure};

/// What one engine did in all rounds.
#[derive(Default)]
struct Rounds {
    pulls: Vec<Usage>,
    moved: Vec<u64>,
    moved_again: Vec<u64>,
}

/// In each round each engine pulls into an empty store.
pub(crate) fn pull(engines: &[Engine], cache: &Path, quick: bool, rounds: usize) {
    let registry = image::registry(cache, quick);
    let name = |tag: &str| format!("{}/{tag}", registry.address);
    let mut all: Vec<Rounds> = engines.iter().map(|_| Rounds::default()).collect();
    for _ in 0..rounds {
        for (engine, own) in engines.iter().zip(&mut all) {
            let before = registry.sent();
            own.pulls.push(measure(engine, engine.pull(&name(BASE))));
            let between = registry.sent();
            engine.pull(&name(CHILD)).run().ok();
            own.moved.push(between - before);
            own.moved_again.push(registry.sent() - between);
            engine.call(&["rmi", &name(CHILD), &name(BASE)]).run().ok();
        }
    }
    println!(
        "\n### pull and unpack, {rounds} rounds, six layers, stores in memory (tmpfs)\n\n\
         | | wall s | CPU s | peak PSS MiB | hull ÷ this, wall | CPU | MB moved | MB moved by the second image |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (engine, own) in engines.iter().zip(&all) {
        let of = |rounds: &Rounds, what: fn(&Usage) -> f64| -> Vec<f64> {
            rounds.pulls.iter().map(what).collect()
        };
        let ratio = |what: fn(&Usage) -> f64| {
            let (hull, own) = (of(&all[0], what), of(own, what));
            spread(&sorted(hull.iter().zip(&own).map(|(hull, own)| hull / own).collect()))
        };
        let megabytes = |bytes: &[u64]| {
            median(&sorted(bytes.iter().map(|bytes| *bytes as f64 / 1e6).collect()))
        };
        println!(
            "| {} | {} | {} | {:.1} | {} | {} | {:.2} | {:.3} |",
            engine.name(),
            spread(&sorted(of(own, |usage| usage.wall_s))),
            spread(&sorted(of(own, |usage| usage.cpu_s))),
            own.pulls.iter().map(|usage| usage.peak_kib).max().unwrap_or_default() as f64 / 1024.0,
            ratio(|usage| usage.wall_s),
            ratio(|usage| usage.cpu_s),
            megabytes(&own.moved),
            megabytes(&own.moved_again),
        );
    }
    println!(
        "\nCPU is of the command, the daemons and what they start; peak PSS is of the daemons and \
         what they start, podman's of its command."
    );
}
