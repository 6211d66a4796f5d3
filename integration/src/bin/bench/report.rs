//! Tables: medians, spread, and ratios taken round by round.

use std::fs;

use anyhow::Result;
use hull_integration::figures::{median, sorted, spread};

use crate::contestant::{Contestant, Kind};
use crate::stage::{Cost, Stage};

/// One contestant's rounds of one work.
pub(crate) struct Row {
    name: String,
    kind: Kind,
    pub(crate) costs: Vec<Cost>,
}

impl Row {
    pub(crate) fn new(name: &str, kind: Kind) -> Row {
        Row { name: name.into(), kind, costs: Vec::new() }
    }
}

/// What a reader needs to judge the figures.
pub(crate) fn conditions(stage: &Stage, contestants: &[Contestant]) -> Result<()> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let cpus = std::thread::available_parallelism()?;
    let v1 = read("/proc/self/cgroup")?.lines().filter(|line| !line.starts_with("0::")).count();
    println!("kernel {}, {cpus} CPUs", read("/proc/sys/kernel/osrelease")?);
    let hidden =
        if stage.hid_unified { ", the v2 mount hidden in the bench's namespace" } else { "" };
    println!("cgroups: {v1} v1 hierarchies{hidden}");
    println!("rcu_expedited {} (untouched)", read("/sys/kernel/rcu_expedited").unwrap_or_default());
    println!("load before: {}", read("/proc/loadavg")?);
    for contestant in contestants {
        println!("{}: {}, {}", contestant.name, contestant.version, contestant.program.display());
    }
    Ok(())
}

pub(crate) fn table(name: &str, rows: &[Row]) {
    let rounds = rows.first().map_or(0, |row| row.costs.len());
    println!("\n### {name}, {rounds} rounds\n");
    println!(
        "| | wall ms | min–max | CPU ms | peak kB | × floor | × plain floor | hull ÷ this, wall | CPU |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let find = |kind| rows.iter().find(|row: &&Row| row.kind == kind);
    for row in rows {
        let walls = column(row, |cost| cost.wall_ms);
        let ratio = |over: Option<&Row>, under: &Row, value: fn(&Cost) -> f64| {
            over.map_or("—".into(), |over| spread(&ratios(over, under, value)))
        };
        let over = |floor| {
            find(floor).map_or("—".into(), |floor| ratio(Some(row), floor, |c| c.wall_ms))
        };
        println!(
            "| {} | {:.2} | {:.2}–{:.2} | {:.2} | {} | {} | {} | {} | {} |",
            row.name,
            median(&walls),
            walls.first().copied().unwrap_or_default(),
            walls.last().copied().unwrap_or_default(),
            median(&column(row, |cost| cost.cpu_ms)),
            row.costs.iter().map(|cost| cost.peak_kb).max().unwrap_or_default(),
            over(Kind::Floor),
            over(Kind::PlainFloor),
            ratio(find(Kind::Hull), row, |cost| cost.wall_ms),
            ratio(find(Kind::Hull), row, |cost| cost.cpu_ms),
        );
    }
}

/// Sorted values of one figure.
fn column(row: &Row, value: impl Fn(&Cost) -> f64) -> Vec<f64> {
    sorted(row.costs.iter().map(value).collect())
}

/// Sorted ratios, each from one round.
fn ratios(over: &Row, under: &Row, value: fn(&Cost) -> f64) -> Vec<f64> {
    let pairs = over.costs.iter().zip(&under.costs);
    sorted(pairs.map(|(over, under)| value(over) / value(under)).collect())
}

#[cfg(test)]
mod tests {
    use super::{Row, ratios};
    use crate::contestant::Kind;
    use crate::stage::Cost;

    fn row(walls: &[f64]) -> Row {
        let cost = |&wall_ms| Cost { wall_ms, cpu_ms: 1.0, peak_kb: 0, failed: None };
        Row { name: String::new(), kind: Kind::Peer, costs: walls.iter().map(cost).collect() }
    }

    #[test]
    fn ratios_are_taken_round_by_round_before_the_median() {
        let (ours, theirs) = (row(&[1.0, 4.0, 6.0]), row(&[2.0, 4.0, 60.0]));
        assert_eq!(ratios(&ours, &theirs, |cost| cost.wall_ms), [0.1, 0.5, 1.0]);
    }
}
