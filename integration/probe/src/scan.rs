//! What a hostile process does to those that enter its container: it goes for the program
//! they run, their memory and their descriptors (CVE-2019-5736, CVE-2016-9962).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A file, told from others: device and inode.
type Identity = (u64, u64);

/// Looks at every process that appears, for so many seconds.
///
/// `met` counts looks at other processes, `strangers` the programs that are no file of
/// this root, `written` how many of those could be opened for writing, `memory` and
/// `descriptors` what could be opened of the processes that ran them.
pub(crate) fn scan(seconds: u64) -> Value {
    let end = Instant::now() + Duration::from_secs(seconds);
    let own = own_files();
    let (mut met, mut memory, mut descriptors) = (0_u64, 0_u64, BTreeSet::new());
    let mut strangers: Vec<(Identity, File, String)> = Vec::new();
    let mut written = Vec::new();
    while Instant::now() < end {
        for pid in others() {
            met += 1;
            let exe = format!("/proc/{pid}/exe");
            let mapped = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
            let Ok(file) = File::open(&exe) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let identity = (metadata.dev(), metadata.ino());
            if own.contains(&identity) {
                continue;
            }
            // Opened before the program was known to be strange, and still the same process.
            memory += u64::from(mapped.is_ok());
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                if let Ok(to) = fs::read_link(entry.path()) {
                    descriptors.insert(to.to_string_lossy().into_owned());
                }
            }
            if !strangers.iter().any(|(one, ..)| *one == identity) {
                let name = fs::read_link(&exe).unwrap_or_default().to_string_lossy().into_owned();
                strangers.push((identity, file, name));
            }
        }
        attack(&strangers, &mut written);
    }
    // A program can't be written while it runs; a moment later it doesn't any more.
    thread::sleep(Duration::from_millis(200));
    attack(&strangers, &mut written);
    json!({
        "met": met,
        "strangers": strangers.iter().map(|(.., name)| name).collect::<Vec<_>>(),
        "written": written,
        "memory": memory,
        "descriptors": descriptors,
    })
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
