//! The shim's log: lines for containerd, which reads a FIFO in the bundle and copies it to its own
//! log. While containerd is away there is nobody to tell.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, time::SystemTime};

use hull_specs_oci::time::rfc3339_nano;

/// The FIFO, in the shim's working directory, its bundle.
const FIFO: &str = "log";

/// Writes an error, as one line in logrus' text form.
pub(crate) fn error(message: &str) {
    write("error", message);
}

fn write(level: &str, message: &str) {
    // Opened for each line: nothing is held open, and a reader that comes back is found.
    let fifo = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(FIFO);
    if let Ok(mut fifo) = fifo {
        let time = rfc3339_nano(SystemTime::now());
        // One write, so that lines of several shims do not mix. A full pipe takes nothing.
        let _ = fifo.write(format!("time={time:?} level={level} msg={message:?}\n").as_bytes());
    }
}
