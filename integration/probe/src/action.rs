//! The things the probe does on request. An errno of 0 means that it worked.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{self, Mode, SFlag};
use serde_json::{Value, json};

/// Makes a device node and opens it for reading.
pub(crate) fn mknod(path: &str, kind: &str, major: u64, minor: u64) -> Option<Value> {
    let kind = match kind {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        _ => return None,
    };
    let device = stat::makedev(major, minor);
    let made = match stat::mknod(path, kind, Mode::from_bits_truncate(0o666), device) {
        Ok(()) => 0,
        Err(errno) => errno as i32,
    };
    Some(json!({ "mknod": made, "open": errno_of(&File::open(path)) }))
}

/// Opens a file in one mode.
pub(crate) fn open(path: &str, mode: &str) -> Option<Value> {
    let mut options = OpenOptions::new();
    match mode {
        "r" => options.read(true),
        "w" => options.write(true),
        "rw" => options.read(true).write(true),
        _ => return None,
    };
    Some(json!({ "open": errno_of(&options.open(path)) }))
}

/// Writes a text to a file, made if missing.
pub(crate) fn write(path: &str, text: &str) -> Value {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(Path::new(path).is_file() || !Path::new(path).exists())
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    json!({ "write": errno_of(&written) })
}

/// Touches so many bytes, says so, and holds them.
pub(crate) fn alloc(bytes: usize, hold_seconds: u64) -> Option<Value> {
    let mut memory = Vec::new();
    if memory.try_reserve_exact(bytes).is_err() {
        return Some(json!({ "alloc": "refused" }));
    }
    memory.resize(bytes, 0x5a_u8);
    let sum: u64 = memory.iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
    if hold_seconds > 0 {
        println!("holding");
        thread::sleep(Duration::from_secs(hold_seconds));
    }
    Some(json!({ "alloc": "done", "sum": sum }))
}

/// Goes on to a program as a user, and the group of that number alone.
pub(crate) fn become_user(id: u32, program: &str, args: &[&str]) -> Value {
    use std::os::unix::process::CommandExt;
    let error = process::Command::new(program).args(args).uid(id).gid(id).exec();
    json!({ "exec": error.raw_os_error() })
}

/// Waits.
pub(crate) fn sleep(seconds: u64) -> Value {
    thread::sleep(Duration::from_secs(seconds));
    json!({ "slept": seconds })
}

/// Burns processor time.
pub(crate) fn spin(seconds: u64) -> Value {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0_u64;
    while Instant::now() < end {
        rounds = rounds.wrapping_add(1);
    }
    json!({ "rounds": rounds })
}

/// Sends messages to the socket that `NOTIFY_SOCKET` names.
pub(crate) fn notify(messages: &[&str]) -> Value {
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let sent = UnixDatagram::unbound().and_then(|socket| {
        messages.iter().try_for_each(|m| socket.send_to(m.as_bytes(), &path).map(drop))
    });
    json!({ "notify": errno_of(&sent) })
}

/// What can be learnt of a path without changing it.
pub(crate) fn examine(path: &str) -> Value {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return json!({ "stat": error.raw_os_error() }),
    };
    let kind = metadata.file_type();
    let name = if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "link"
    } else if kind.is_char_device() {
        "char"
    } else if kind.is_block_device() {
        "block"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else {
        "file"
    };
    let mut out = json!({
        "stat": 0,
        "kind": name,
        "mode": format!("{:o}", metadata.mode() & 0o7777),
        "uid": metadata.uid(),
        "gid": metadata.gid(),
        "device": format!("{}:{}", stat::major(metadata.rdev()), stat::minor(metadata.rdev())),
        "inode": metadata.ino(),
    });
    if kind.is_dir() {
        match fs::read_dir(path) {
            Ok(entries) => {
                let mut names: Vec<String> = entries
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect();
                names.sort();
                out["entries"] = json!(names);
            }
            Err(error) => out["read"] = json!(error.raw_os_error()),
        }
    } else if kind.is_symlink() {
        out["target"] = json!(fs::read_link(path).ok().map(|to| to.display().to_string()));
    } else if kind.is_file() || (kind.is_char_device() && metadata.rdev() == stat::makedev(1, 3)) {
        // Enough of a file to tell it from an empty one, never all of kcore.
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut text));
        out["read"] = json!(errno_of(&read));
        out["text"] = json!(String::from_utf8_lossy(&text));
    }
    out
}

fn errno_of<T>(result: &std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}
