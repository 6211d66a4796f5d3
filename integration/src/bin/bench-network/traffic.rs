//! Throughput and latency between containers, from the host, and through a published port,
//! against the same ways on a bridge made by hand: without any rule between its ends and from its
//! host, and with the least that publishes a port. What that costs itself is shown by a second
//! such bridge, where no port is published and packets are only routed; where there is no port, it
//! shows how far two equal things are apart. Frames that a bridge switches are not shown to
//! the host's IP filters (br_netfilter), as nowhere by default where that is a module.

use std::fs::{self, File};
use std::net::SocketAddr;

use hull_integration::engine::{Lab, Side, lab};
use hull_integration::figures::{sorted, spread};

use crate::contestant::Contestant;
use crate::pipe::Way;
use crate::plain::{ENDS, Plain, publish};

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

/// So many of them come first.
const WAYS_WITHOUT_PORT: usize = 2;

pub(crate) fn traffic(engines: &[Contestant], rounds: usize) {
    let [plain, publishing] = [Plain::start(), Plain::start()];
    publish(&publishing.lab, PUBLISHED, PORT);
    let labs = [&plain.lab, &publishing.lab];
    labs.into_iter().chain(engines.iter().map(|engine| &engine.lab)).for_each(switch_only);
    let mut basis = ways_of_ends(&plain, None);
    basis.truncate(WAYS_WITHOUT_PORT);
    basis.extend(ways_of_ends(&publishing, Some(PUBLISHED)).drain(WAYS_WITHOUT_PORT..));
    let mut contestants = vec![("plain", basis), ("only routed", ways_of_ends(&plain, None))];
    contestants.extend(engines.iter().map(|engine| (engine.name(), ways(engine))));
    println!(
        "\n### traffic, {rounds} rounds\n\n\
         | | | Gbit/s | ÷ plain | µs there and back | ÷ plain |\n\
         | --- | --- | ---: | ---: | ---: | ---: |"
    );
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut figures = vec![(Vec::new(), Vec::new()); contestants.len()];
        for round in 0..rounds {
            let mut order: Vec<_> = contestants.iter().zip(&mut figures).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for ((_, ways), (rates, times)) in order {
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

fn ways_of_ends(plain: &Plain, published: Option<u16>) -> Vec<Way> {
    let side = |side| File::open(plain.lab.file(side)).expect("it is pinned");
    let (host, neighbour) = (side(Side::Host), side(Side::Neighbour));
    let ends = &plain.ends;
    // Where no port is published, packets are routed.
    let port = published.map_or((ENDS[1], PORT), |port| (lab::HOST[0], port));
    between([
        (&ends[0], &ends[1], (ENDS[1], PORT)),
        (&host, &ends[1], (ENDS[1], PORT)),
        (&neighbour, &ends[1], port),
        (&host, &ends[1], port),
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
