//! How many questions the name services answer, and what an answer costs them.

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hull_integration::figures::{median, sorted};

use crate::contestant::Contestant;
use crate::pipe::inside;

/// Names that are asked for.
const NAMES: usize = 100;
/// Questions under way at a time.
const WINDOW: usize = 64;
const WHILE: Duration = Duration::from_secs(3);
/// docker's address of the name service, and ours.
const SERVICE: &str = "127.0.0.11:53";

/// Ticks of the kernel's accounts, the same on all machines that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) fn names(engines: &[Contestant], rounds: usize) {
    let mut all: Vec<_> = engines
        .iter()
        .filter_map(|engine| Some((engine, engine.name_server()?)))
        .map(|(engine, server)| (engine, server, start(engine), Vec::new(), Vec::new()))
        .collect();
    for _ in 0..rounds {
        for (_, server, namespace, rates, costs) in &mut all {
            let before = busy_s(*server);
            let (answers, took) = inside(namespace, 0, ask);
            rates.push(answers as f64 / took.as_secs_f64());
            costs.push(answers as f64 / (busy_s(*server) - before));
        }
    }
    println!(
        "\n### names, {rounds} rounds\n\n\
         | | answers a second | a second of the daemon's processor |\n| --- | ---: | ---: |"
    );
    for (engine, _, _, rates, costs) in all {
        let middle = |figures| median(&sorted(figures));
        println!("| {} | {:.0} | {:.0} |", engine.name(), middle(rates), middle(costs));
        engine.remove("asks");
        engine.call(&["network", "rm", "names"]).run().ok();
    }
}

/// A container in a network of its own, that has all the names.
fn start(engine: &Contestant) -> File {
    engine.call(&["network", "create", "names"]).run().ok();
    let aliases: Vec<String> =
        (0..NAMES).map(|name| format!("--network-alias=web{name}")).collect();
    let mut options = vec!["--network", "names"];
    options.extend(aliases.iter().map(String::as_str));
    engine.rest("asks", &options).0
}

/// Asks for a while; how many answers had an address.
fn ask() -> (u64, Duration) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let service: SocketAddr = SERVICE.parse().expect("it is an address");
    socket.connect(service).expect("loopback is up");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("the time is not 0");
    let questions: Vec<Vec<u8>> = (0..NAMES).map(question).collect();
    let mut next = questions.iter().cycle();
    let mut send = || {
        let question = next.next().expect("it never ends");
        socket.send(question).expect("the service listens");
    };
    (0..WINDOW).for_each(|_| send());
    let (begun, mut answers, mut buffer) = (Instant::now(), 0, [0; 512]);
    while begun.elapsed() < WHILE {
        // One that was lost is asked again.
        if let Ok(length) = socket.recv(&mut buffer) {
            answers += u64::from(length > 12 && buffer[7] == 1);
        }
        send();
    }
    (answers, begun.elapsed())
}

/// For the IPv4 address of a name (RFC 1035, 4.1).
fn question(number: usize) -> Vec<u8> {
    let name = format!("web{number}");
    let id = u16::try_from(number).expect("they are few").to_be_bytes();
    let mut bytes = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.push(u8::try_from(name.len()).expect("it is short"));
    bytes.extend(name.bytes());
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// What a process has used of processors so far, in seconds.
fn busy_s(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() as f64 / TICKS_PER_SECOND
}
