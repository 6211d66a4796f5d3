//! `logs -f` of a container that writes as fast as it can.

use std::time::Instant;

use hull_integration::figures::{sorted, spread};

use crate::engine::Engine;

const LINE: &str =
    "the quick brown fox jumps over the lazy dog 0123456789 and again: the quick bro";

/// From the container's start to the last byte that the follower shows, and, without a follower,
/// to the container's end.
pub(crate) fn logs(engines: &[Engine], lines: usize, rounds: usize) {
    let bytes = lines * (LINE.len() + 1);
    let script = format!("yes '{LINE}' | head -n {lines}");
    let mut all: Vec<([Vec<f64>; 2], usize)> =
        engines.iter().map(|_| (Default::default(), bytes)).collect();
    for _ in 0..rounds {
        for (engine, (own, least)) in engines.iter().zip(&mut all) {
            for (follows, times) in own.iter_mut().enumerate() {
                let begun = Instant::now();
                engine.start("run", &options(engine), &["sh", "-c", &script]).run().ok();
                if follows == 0 {
                    engine.call(&["wait", "log"]).run().ok();
                } else {
                    let shown = engine.call(&["logs", "-f", "log"]).run().ok().stdout.len();
                    *least = shown.min(*least);
                }
                times.push(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64());
                engine.call(&["rm", "-f", "log"]).run().ok();
            }
        }
    }
    println!(
        "\n### logs, {rounds} rounds of {:.0} MB, lines of {} bytes\n\n\
         | | written and kept MB/s | with `logs -f` MB/s | this ÷ hull, with `logs -f` | least that was shown |\n\
         | --- | ---: | ---: | ---: | ---: |",
        bytes as f64 / 1e6,
        LINE.len() + 1
    );
    let hull = &all[0].0[1];
    for (engine, (own, least)) in engines.iter().zip(&all) {
        let ratios = own[1].iter().zip(hull).map(|(own, hull)| own / hull).collect();
        println!(
            "| {} | {} | {} | {} | {:.0} % |",
            engine.name(),
            spread(&sorted(own[0].clone())),
            spread(&sorted(own[1].clone())),
            spread(&sorted(ratios)),
            *least as f64 / bytes as f64 * 100.0
        );
    }
}

/// One file without rotation, which the peers do by default; podman's own form of it.
fn options(engine: &Engine) -> Vec<&'static str> {
    let driver = match engine {
        Engine::Hull(_) | Engine::Docker(_) => "json-file",
        Engine::Podman(_) => "k8s-file",
    };
    vec!["-d", "--name", "log", "--log-driver", driver, "--log-opt", "max-size=2g"]
}
