//! How fast a container's lines get into its log, and what that costs.
//!
//! The writer is `cat` of a file in memory, so that the logger and not the container is what
//! limits. The log is in memory, too. Time ends when the last line is in the log; then the
//! lines are counted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::Result;
use hull_integration::engine::{Docker, Site};
use hull_integration::shim::{Host, Io};
use hull_integration::wait_for;
use serde_json::json;

use crate::conmon::Conmon;
use crate::contestant::{Keeper, rounds};
use crate::process;

/// Bytes of a line with its end, and lines in the file that is written again and again.
const LINE: usize = 100;
const LINES: usize = (16 << 20) / LINE;
/// MiB of the file, but for what does not make a whole line.
const FILE_MIB: u64 = 16;

/// The line after the last.
const END: &str = "this was all";

const LIMIT: Duration = Duration::from_secs(600);

pub(crate) fn write(keeper: Keeper, mib: u64) -> Result<()> {
    let repeats = mib / FILE_MIB;
    let script = |file: &str| {
        format!("for i in $(seq {repeats}); do cat {file}; done; echo {END}; exec sleep 100000")
    };
    let lines_of = |site: &Site| site.write("lines", &text());
    let expected = LINES as u64 * repeats + 1;
    match keeper {
        Keeper::Shim => {
            let host = Host::new();
            let file = lines_of(host.site());
            rounds(|| {
                let log = host.site().path("container.log");
                let uri = format!("hull-log://{log}");
                let io = Io { stdout: uri.clone(), stderr: uri, ..Io::default() };
                let plan = host.shell("log", &script(&file)).io(io).configure(|config| {
                    let mounts = config["mounts"].as_array_mut().expect("the default has some");
                    mounts.push(json!({"destination": file, "type": "bind", "source": file,
                        "options": ["rbind", "ro"]}));
                });
                let task = plan.create();
                let figures = follow(host.site(), expected, || {
                    task.init.start();
                    log.clone()
                });
                task.kill(9);
                task.finish();
                fs::remove_file(&log).expect("it was just read");
                figures
            })
        }
        Keeper::Conmon => {
            let conmon = Conmon::new();
            let file = lines_of(conmon.site());
            rounds(|| {
                let args = ["sh", "-c", &script(&file)];
                let container = conmon.create_with("log", &args, Some(&file));
                let figures = follow(conmon.site(), expected, || {
                    container.start();
                    container.log.clone()
                });
                container.delete();
                figures
            })
        }
        Keeper::Dockerd => {
            let docker = Docker::start();
            let file = lines_of(docker.site());
            rounds(|| {
                let volume = format!("{file}:{file}:ro");
                let words = ["create", "--name", "log", "--log-driver", "json-file"];
                let more = ["--volume", &volume, "busybox", "sh", "-c", &script(&file)];
                docker.run(&[words.as_slice(), &more].concat()).ok();
                let figures = follow(docker.site(), expected, || {
                    docker.run(&["start", "log"]).ok();
                    docker.inspect("log", "{{.LogPath}}")
                });
                docker.run(&["rm", "--force", "log"]).ok();
                figures
            })
        }
    }
}

fn text() -> String {
    let fill: String = ('a'..='z').cycle().take(LINE - 10).collect();
    (0..LINES).map(|number| format!("{number:08} {fill}\n")).collect()
}

/// Starts a container and waits until everything is in its log. Gives the columns of
/// `Work::Log`.
fn follow(site: &Site, expected: u64, start: impl FnOnce() -> String) -> Vec<f64> {
    let place = site.directory().to_str().expect("the path is text");
    let loggers = || -> BTreeMap<i32, f64> {
        process::naming(place).into_iter().map(|pid| (pid, process::cpu_s(pid))).collect()
    };
    let before = loggers();
    let began = Instant::now();
    let log = start();
    wait_for("the last line in the log", LIMIT, || tail(&log).contains(END).then_some(()));
    let took = began.elapsed().as_secs_f64();
    let spent = |(pid, cpu): (&i32, &f64)| cpu - before.get(pid).unwrap_or(&0.0);
    let cpu: f64 = loggers().iter().map(spent).sum();
    assert_eq!(count_lines(&log), expected, "lines in the log");
    let mib = (expected - 1) as f64 * LINE as f64 / f64::from(1 << 20);
    vec![mib / took, cpu / (mib / 1024.0)]
}

fn tail(log: &str) -> String {
    let mut end = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |data| data.len());
        file.seek(SeekFrom::Start(length.saturating_sub(256))).expect("a file");
        file.read_to_end(&mut end).expect("a file");
    }
    String::from_utf8_lossy(&end).into_owned()
}

/// Lines as the container wrote them: conmon cuts them wherever one of its reads ends, and
/// tags all pieces but the last.
fn count_lines(log: &str) -> u64 {
    let file = BufReader::with_capacity(1 << 20, File::open(log).expect("it was just read"));
    let whole = |line: &[u8]| line.split(|byte| *byte == b' ').nth(2) != Some(b"P");
    file.split(b'\n').filter(|line| whole(line.as_ref().expect("it is readable"))).count() as u64
}
