//! What a piece of work takes: time, processor, memory.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hull_integration::Invocation;

use crate::engine::Engine;
use crate::memory;

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Ticks of the kernel's accounts, which are the same on all machines that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one piece of work took.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) wall_s: f64,
    /// Of the command, the daemons, and all that they waited for.
    pub(crate) cpu_s: f64,
    /// The most that the daemons and their children had resident, shared pages in parts; where
    /// there is no daemon, the command and its children.
    pub(crate) peak_kib: u64,
}

/// Runs a command of an engine, and measures it.
pub(crate) fn measure(engine: &Engine, command: Invocation) -> Usage {
    let daemons = engine.daemons();
    let before = cpu_s(&daemons);
    let begun = Instant::now();
    let running = command.start();
    let roots = match daemons.is_empty() {
        true => vec![running.pid().unsigned_abs()],
        false => daemons.clone(),
    };
    let watch = Watch::start(roots);
    running.wait().ok();
    let wall_s = begun.elapsed().as_secs_f64();
    let peak_kib = watch.end();
    Usage { wall_s, cpu_s: cpu_s(&daemons) - before, peak_kib }
}

/// Looks at memory until it is told to end.
struct Watch {
    end: Sender<()>,
    thread: JoinHandle<u64>,
}

impl Watch {
    fn start(roots: Vec<u32>) -> Self {
        let (end, ended) = channel();
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            loop {
                let now = with_children(&roots).into_iter().map(memory::pss_kib).sum();
                peak = u64::max(peak, now);
                match ended.recv_timeout(INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return peak,
                }
            }
        });
        Self { end, thread }
    }

    fn end(self) -> u64 {
        drop(self.end);
        self.thread.join().expect("it only reads")
    }
}

/// Fields of `/proc/PID/stat` behind the name: the fourth of proc(5) is the second here.
fn stat(pid: u32) -> Option<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(|word| word.trim().parse().unwrap_or_default()).collect())
}

fn with_children(roots: &[u32]) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, u32::try_from(*stat(pid)?.get(1)?).ok()?)))
        .collect();
    let mut family: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        let before = family.len();
        let more = parents.iter().filter(|(_, parent)| family.contains(parent));
        let more: Vec<u32> = more.map(|(pid, _)| *pid).collect();
        family.extend(more);
        if family.len() == before {
            return family;
        }
    }
}

/// Of these processes with all that they waited for, and of the commands that we waited for.
fn cpu_s(daemons: &[u32]) -> f64 {
    // utime, stime, cutime, cstime.
    let sum = |pid: u32, from: usize| -> i64 {
        stat(pid).and_then(|fields| Some(fields.get(from..15)?.iter().sum())).unwrap_or_default()
    };
    let ticks = daemons.iter().map(|pid| sum(*pid, 11)).sum::<i64>() + sum(std::process::id(), 13);
    ticks as f64 / TICKS_PER_SECOND
}
