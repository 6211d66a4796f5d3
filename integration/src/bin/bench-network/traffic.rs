//! Throughput and latency between containers, from the host, and through a published port,
//! against the same ways on a bridge made by hand. Frames that a bridge switches are not shown to
//! the host's IP filters (br_netfilter), as nowhere by default where that is a module.

use std::fs::{self, File};
use std::net::SocketAddr;

use hull_integration::engine::{Lab, Side, lab};
use hull_integration::figures::{sorted, spread};

use crate::contestant::Contestant;
use crate::pipe::Way;
use crate::plain::{ENDS, Plain};

/// The port that containers listen on, and the host's that leads there.
const PORT: u16 = 5001;
const PUBLISHED: u16 = 8001;
const PUBLISH: &str = "8001:5001";

const WAYS: [&str; 4] = [
    "container to container",
    "host to container",
    "neighbour to published port",
    "host to published port",
];

pub(crate) fn traffic(engines: &[Contestant], rounds: usize) {
    let plain = Plain::start();
    switch_only(&plain.lab);
    engines.iter().for_each(|engine| switch_only(&engine.lab));
    let mut contestants = vec![("plain", plain_ways(&plain))];
    contestants.extend(engines.iter().map(|engine| (engine.name(), ways(engine))));
    println!(
        "\n### traffic, {rounds} rounds\n\n\
         | | | Gbit/s | ÷ plain | µs there and back | ÷ plain |\n\
         | --- | --- | ---: | ---: | ---: | ---: |"
    );
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut figures = vec![(Vec::new(), Vec::new()); contestants.len()];
        for _ in 0..rounds {
            for ((_, ways), (rates, times)) in contestants.iter().zip(&mut figures) {
                rates.push(ways[number].throughput());
                times.push(ways[number].latency());
            }
        }
        for ((name, _), (rates, times)) in contestants.iter().zip(&figures) {
            let ratios = |own: &[f64], plain: &[f64]| {
                spread(&sorted(own.iter().zip(plain).map(|(own, plain)| own / plain).collect()))
            };
            println!(
                "| {way} | {name} | {} | {} | {} | {} |",
                spread(&sorted(rates.clone())),
                ratios(rates, &figures[0].0),
                spread(&sorted(times.clone())),
                ratios(times, &figures[0].1)
            );
        }
    }
    for engine in engines {
        ["one", "two"].iter().for_each(|name| engine.remove(name));
    }
}

fn switch_only(lab: &Lab) {
    lab.inside(Side::Host, || {
        for family in ["ip", "ip6", "arp"] {
            let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{family}tables");
            // Not there where the module is not.
            let _ = fs::write(switch, "0");
        }
    });
}

/// In the order of [`WAYS`]: from, to whose namespace, by which address.
fn between(parts: [(&File, &File, (&str, u16)); 4]) -> Vec<Way> {
    let copy = |file: &File| file.try_clone().expect("a descriptor is free");
    parts
        .into_iter()
        .map(|(from, to, (address, port))| Way {
            from: copy(from),
            to: copy(to),
            address: SocketAddr::new(address.parse().expect("it is an address"), port),
            port: PORT,
        })
        .collect()
}

/// Where no port is published, packets are routed.
fn plain_ways(plain: &Plain) -> Vec<Way> {
    let side = |side| File::open(plain.lab.file(side)).expect("it is pinned");
    let (host, neighbour) = (side(Side::Host), side(Side::Neighbour));
    let ends = &plain.ends;
    between([
        (&ends[0], &ends[1], (ENDS[1], PORT)),
        (&host, &ends[1], (ENDS[1], PORT)),
        (&neighbour, &ends[1], (ENDS[1], PORT)),
        (&host, &ends[1], (ENDS[1], PORT)),
    ])
}

fn ways(engine: &Contestant) -> Vec<Way> {
    let (one, _) = engine.rest("one", &[]);
    let (two, address) = engine.rest("two", &["--publish", PUBLISH]);
    let (host, neighbour) = (engine.side(Side::Host), engine.side(Side::Neighbour));
    between([
        (&one, &two, (&address, PORT)),
        (&host, &two, (&address, PORT)),
        (&neighbour, &two, (lab::HOST[0], PUBLISHED)),
        (&host, &two, (lab::HOST[0], PUBLISHED)),
    ])
}
