//! Tables: medians, spread, and ratios taken round by round.

use std::fs;

use anyhow::Result;
use hull_integration::Invocation;
use hull_integration::engine::stock;
use hull_integration::figures::{sorted, spread};

use crate::Work;
use crate::contestant::Contestant;

/// One contestant's rounds of one work, each with a figure a column.
pub(crate) struct Row {
    name: &'static str,
    pub(crate) rounds: Vec<Vec<f64>>,
}

impl Row {
    pub(crate) fn new(contestant: &Contestant) -> Self {
        Self { name: contestant.name, rounds: Vec::new() }
    }

    fn column(&self, at: usize) -> Vec<f64> {
        self.rounds.iter().filter_map(|round| round.get(at).copied()).collect()
    }
}

/// What a reader needs to judge the figures.
pub(crate) fn conditions(hid_unified: bool) -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let cpus = std::thread::available_parallelism()?;
    println!("kernel {}, {cpus} CPUs", read("/proc/sys/kernel/osrelease")?);
    if hid_unified {
        println!("the v2 mount of the hybrid cgroup layout is hidden, for crun");
    }
    println!("load before: {}", read("/proc/loadavg")?);
    for program in ["containerd", "conmon", "dockerd", "runc", "crun"] {
        let output = Invocation::new(stock(program)).arg("--version").run().ok();
        println!("{}", output.lines().first().unwrap_or(&program));
    }
    Ok(())
}

pub(crate) fn table(work: Work, rows: &[Row]) {
    let rounds = rows.first().map_or(0, |row| row.rounds.len());
    println!("\n### {}, rounds: {rounds}\n", work.name());
    let heads = work.columns().iter().map(|name| format!("{name} | first ÷ this"));
    println!("| | {} |", heads.collect::<Vec<_>>().join(" | "));
    println!("| --- |{}", " ---: | ---: |".repeat(work.columns().len()));
    for row in rows {
        let cells = (0..work.columns().len()).map(|at| {
            let figures = row.column(at);
            let ratio =
                rows.first().map_or_else(Vec::new, |first| ratios(&first.column(at), &figures));
            match figures.len() {
                1 => format!("{:.1} | {:.3}", figures[0], ratio[0]),
                _ => format!("{} | {}", spread(&sorted(figures)), spread(&ratio)),
            }
        });
        println!("| {} | {} |", row.name, cells.collect::<Vec<_>>().join(" | "));
    }
}

/// Sorted ratios, each from one round.
fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    sorted(over.iter().zip(under).map(|(over, under)| over / under).collect())
}

#[cfg(test)]
mod tests {
    use super::ratios;

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(ratios(&[1.0, 4.0, 6.0], &[2.0, 4.0, 60.0]), [0.1, 0.5, 1.0]);
    }
}
