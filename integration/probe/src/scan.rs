//! What a hostile process does to those that enter its container: it goes for the program
//! they run (CVE-2019-5736), or for their memory and descriptors (CVE-2016-9962).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// A file, told from others: device and inode.
type Identity = (u64, u64);

/// Looks at every process that appears, until `/stop` is there.
///
/// `met` counts looks at other processes, `strangers` the programs that are no file of
/// this root, `written` which of those could be written to. `/strangers` has the names as
/// soon as they are open.
pub(crate) fn scan() -> Value {
    let own = own_files();
    let mut met = 0_u64;
    let mut strangers: Vec<(Identity, File, String)> = Vec::new();
    let mut written = Vec::new();
    while !Path::new("/stop").exists() {
        for pid in others() {
            met += 1;
            let exe = format!("/proc/{pid}/exe");
            let Ok(file) = File::open(&exe) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let identity = (metadata.dev(), metadata.ino());
            if own.contains(&identity) {
                continue;
            }
            if !strangers.iter().any(|(one, ..)| *one == identity) {
                let name = fs::read_link(&exe).unwrap_or_default().to_string_lossy().into_owned();
                strangers.push((identity, file, name));
                let _ = fs::write("/strangers", names(&strangers).join("\n"));
            }
        }
        attack(&strangers, &mut written);
    }
    // A program can't be written while it runs; a moment later it doesn't any more.
    thread::sleep(Duration::from_millis(200));
    attack(&strangers, &mut written);
    json!({
        "met": met,
        "strangers": names(&strangers),
        "written": written,
    })
}

/// Tries what can be had of every other process, until `/stop` is there.
///
/// A process is the container's own from its exec on, when it bears the name `own`; what it
/// gives away before that is a hit, by the name that it had. `/refused` and `/hit` appear
/// with the first process of either kind.
pub(crate) fn pry(own: &str) -> Value {
    let mut refused = 0_u64;
    let mut hits: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    while !Path::new("/stop").exists() {
        for pid in others() {
            let file = |name: &str| format!("/proc/{pid}/{name}");
            let mut got: Vec<&str> = ["exe", "cwd", "root"]
                .into_iter()
                .filter(|name| fs::read_link(file(name)).is_ok())
                .collect();
            let mut descriptors = fs::read_dir(file("fd")).into_iter().flatten().flatten();
            got.extend(
                descriptors.any(|entry| fs::read_link(entry.path()).is_ok()).then_some("fd"),
            );
            // The last one: the kernel lets this wait for an exec that is under way, so that
            // a name from before the exec, read next, means that all of it was from before.
            let memory = OpenOptions::new().read(true).write(true).open(file("mem"));
            got.extend(memory.is_ok().then_some("mem"));
            let Ok(name) = fs::read_to_string(file("comm")) else { continue };
            if name.trim_end() == own {
                continue;
            }
            let mark = match got.is_empty() {
                true => {
                    refused += 1;
                    "/refused"
                }
                false => {
                    hits.entry(name.trim_end().to_owned()).or_default().extend(got);
                    "/hit"
                }
            };
            let _ = OpenOptions::new().write(true).create_new(true).open(mark);
        }
    }
    json!({ "refused": refused, "hits": hits })
}

fn names(strangers: &[(Identity, File, String)]) -> Vec<&str> {
    strangers.iter().map(|(.., name)| name.as_str()).collect()
}

fn attack(strangers: &[(Identity, File, String)], written: &mut Vec<String>) {
    for (_, file, name) in strangers {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let result = OpenOptions::new()
            .append(true)
            .open(path)
            .and_then(|mut program| program.write_all(b"overwritten from inside"));
        if result.is_ok() && !written.contains(name) {
            written.push(name.clone());
        }
    }
}

/// The programs of this root.
fn own_files() -> BTreeSet<Identity> {
    ["/proc/self/exe", "/probe", "/bin/busybox"]
        .into_iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect()
}

fn others() -> Vec<u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .collect()
}
