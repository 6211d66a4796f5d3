//! Very many containers: created, started, listed, removed; and what each takes.

use std::sync::Mutex;
use std::time::Instant;

use crate::engine::Engine;
use crate::memory;

/// So many commands at once: more than processors, fewer than what would only wait.
const AT_ONCE: usize = 4;
/// So many names for one `rm`.
const BATCH: usize = 50;

/// One engine after the other, because the machine has not the memory for all.
pub(crate) fn many(engines: &[Engine], count: usize) {
    println!(
        "\n### {count} containers, {AT_ONCE} commands at once\n\n\
         | | created/s | started/s | listed ms | removed/s | stack PSS, KiB each |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |"
    );
    let names: Vec<String> = (0..count).map(|number| format!("m{number}")).collect();
    for engine in engines {
        let before = memory::total(engine.site().directory(), memory::Kind::Pss);
        let created = rate(&names, 1, |name| {
            engine.start("create", &["--name", &name[0]], &["sleep", "100000"]).run().ok();
        });
        let started = rate(&names, 1, |name| drop(engine.call(&["start", &name[0]]).run().ok()));
        let begun = Instant::now();
        let listed = engine.call(&["ps", "-q"]).run().ok();
        let listed_ms = begun.elapsed().as_secs_f64() * 1000.0;
        assert_eq!(listed.lines().len(), count, "{} lost containers", engine.name());
        let after = memory::total(engine.site().directory(), memory::Kind::Pss);
        let removed = rate(&names, BATCH, |names| {
            let words: Vec<&str> =
                ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)).collect();
            engine.call(&words).run().ok();
        });
        println!(
            "| {} | {created:.1} | {started:.1} | {listed_ms:.0} | {removed:.1} | {:.0} |",
            engine.name(),
            after.saturating_sub(before) as f64 / count as f64
        );
    }
}

/// Does all, some at once; how many a second.
fn rate(names: &[String], batch: usize, work: impl Fn(&[String]) + Sync) -> f64 {
    let begun = Instant::now();
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
    names.len() as f64 / begun.elapsed().as_secs_f64()
}
