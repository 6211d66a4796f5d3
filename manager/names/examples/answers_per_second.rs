//! How many questions the name service answers in a second, what one costs its thread, and what
//! a container costs at its start.
//! As root: `cargo run --profile manager -p hull-manager-names --example answers_per_second`.

use std::{
    fs::{self, File},
    io,
    net::UdpSocket,
    os::fd::AsFd as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use hull_manager_names::{ADDRESS, Member, Names, Settings, Sockets, View};
use hull_runtime_sys::namespace;

/// Questions under way at a time.
const WINDOW: usize = 64;
const MEMBERS: u16 = 1000;
const SECONDS: u64 = 5;
const OPENED: u32 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let container = container()?;
    let names = Names::start(Settings::default())?;
    names.network("1", "net");
    for member in 0..MEMBERS {
        names.insert(
            "1",
            Member {
                id: member.to_string(),
                names: vec![format!("web{member}"), format!("{member:012x}")],
                addresses: vec![[10, 1, (member >> 8) as u8, member as u8].into()],
            },
        )?;
    }
    let containers: Vec<File> = (0..OPENED).map(|_| self::container()).collect::<Result<_, _>>()?;
    for time in ["first", "second"] {
        let began = Instant::now();
        for container in &containers {
            drop(Sockets::open(container.as_fd())?);
        }
        println!("opening sockets the {time} time: {:.0?} each", began.elapsed() / OPENED);
    }
    let view = View { networks: vec!["1".into()], ..View::default() };
    names.serve("c", Sockets::open(container.as_fd())?, view)?;

    let client = thread::spawn(move || -> io::Result<(u64, Duration)> {
        namespace::setns(&container, libc::CLONE_NEWNET).map_err(io::Error::other)?;
        let socket = UdpSocket::bind(("127.0.0.1", 0))?;
        socket.connect((ADDRESS, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let questions: Vec<Vec<u8>> = (0..MEMBERS).map(question).collect();
        let mut next = questions.iter().cycle();
        let mut send = || next.next().map_or(Ok(0), |question| socket.send(question));
        for _ in 0..WINDOW {
            send()?;
        }
        let (began, mut answers, mut buffer) = (Instant::now(), 0, [0; 512]);
        while began.elapsed() < Duration::from_secs(SECONDS) {
            let length = socket.recv(&mut buffer)?;
            answers += u64::from(length > 12 && buffer[7] == 1);
            send()?;
        }
        Ok((answers, began.elapsed()))
    });
    let (answers, took) = client.join().map_err(|_| "the client panicked")??;
    let busy = busy_seconds("names")?;
    let per_second = answers as f64 / took.as_secs_f64();
    println!("{answers} answers in {took:.1?}: {per_second:.0} a second");
    println!("{busy:.2} s of processor: {:.0} answers a second of it", answers as f64 / busy);
    Ok(())
}

/// A new network namespace.
fn container() -> io::Result<File> {
    let thread = thread::spawn(|| {
        namespace::unshare(libc::CLONE_NEWNET).map_err(io::Error::other)?;
        Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        File::open("/proc/thread-self/ns/net")
    });
    thread.join().map_err(|_| io::Error::other("the namespace's thread panicked"))?
}

fn question(member: u16) -> Vec<u8> {
    let name = format!("web{member}");
    let mut bytes = vec![(member >> 8) as u8, member as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.push(name.len() as u8);
    bytes.extend(name.bytes());
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// What the threads of this name have used so far (proc(5): ticks are hundredths of a second).
fn busy_seconds(thread: &str) -> io::Result<f64> {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        if let Some((name, rest)) = stat.rsplit_once(')')
            && name.ends_with(&format!("({thread}"))
        {
            let fields = rest.split_ascii_whitespace().skip(11).take(2);
            ticks += fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
    }
    Ok(ticks as f64 / 100.0)
}
