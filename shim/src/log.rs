//! The shim's log: lines for containerd, which reads a FIFO in the bundle and copies it to its own
//! log. While containerd is away there is nobody to tell.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::SystemTime,
};

use hull_specs_oci::time::rfc3339_nano;

/// The FIFO, in the shim's working directory, its bundle.
const FIFO: &str = "log";

/// Whether `-debug` was given.
static DEBUG: AtomicBool = AtomicBool::new(false);

/// Lets [`debug`] write.
pub(crate) fn enable_debug() {
    DEBUG.store(true, Relaxed);
}

/// Writes what `-debug` shows; the message is made only then.
pub(crate) fn debug(message: impl FnOnce() -> String) {
    if DEBUG.load(Relaxed) {
        write("debug", &message());
    }
}

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

/// An error with its causes, as one sentence. The kernel's reasons are in lower case, because
/// callers match on them that way, and without numbers.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| match cause.downcast_ref::<std::io::Error>() {
        Some(error) => match error.raw_os_error() {
            Some(errno) => hull_runtime_sys::Error::new("", errno).reason(),
            None => error.to_string(),
        },
        None => cause.to_string(),
    });
    causes.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_sentence_says_the_kernels_reason_as_callers_expect_it() {
        let error = std::fs::read("/nonexistent").context("cannot read it").unwrap_err();
        assert_eq!(sentence(&error), "cannot read it: no such file or directory");
    }
}
