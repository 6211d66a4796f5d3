//! The confined process that reads and writes archives: a program of its own in all but the file,
//! so that whatever an archive makes of the code that reads it can reach one directory and two
//! pipes, and nothing else.
//!
//! `hulld` and `hull` call [`run_if_asked`] first in `main`. Elsewhere a spawned worker ends with
//! an error, because the program does not know the words.

mod confine;
mod job;
mod perform;

use std::{
    ffi::CStr,
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_runtime_sys::{entry, fd, mount, process, spawn as program};

pub use job::{Changed, Job, Outcome, Packing};
use job::{MAX_REPORT_BYTES, Order, Report};
pub use perform::perform;

/// The words that ask for a worker.
const NAME: &CStr = c"hull-archive";
const WORD: &CStr = c"--worker";

/// The running program, whatever has become of its file.
const OWN_PROGRAM: &CStr = c"/proc/self/exe";

const PIPE_BYTES: i32 = 1 << 20;

/// What a worker may touch.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The directory: the target, or what is packed.
    pub root: BorrowedFd<'a>,
    /// What it is compared with ([`Job::Diff`]).
    pub base: Option<BorrowedFd<'a>>,
    /// Where the archive comes from; else [`Worker::input`].
    pub input: Option<BorrowedFd<'a>>,
    /// Where the archive goes; else [`Worker::output`].
    pub output: Option<BorrowedFd<'a>>,
}

/// What a container has mounted in its root. It is seen where the root is only what is below, and
/// its mount point is not unlinked: in the container's own mounts, that would take the mount away.
#[derive(Debug)]
pub struct Mounted {
    /// A file or directory, as a mount that is attached nowhere.
    pub mount: OwnedFd,
    /// Where, beneath the root. If nothing is there to be mounted on, it is left out.
    pub at: String,
}

/// A worker at work. It is killed when this is dropped before [`Self::finish`], and ends by itself
/// when this program does.
#[derive(Debug)]
pub struct Worker {
    /// Takes the archive, for jobs that read one and were given no file. Close it at the end.
    /// A job that reads and writes wants both ends moved at once.
    pub input: Option<File>,
    /// Gives the archive, for jobs that write one and were given no file. Read it to its end.
    pub output: Option<File>,
    report: File,
    child: Option<program::Child>,
}

/// An empty directory that is nowhere, for a worker that needs no file.
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn nowhere() -> Result<OwnedFd> {
    let memory = mount::Context::open("tmpfs")?;
    memory.create()?;
    Ok(memory.mount(mount::Attributes::READ_ONLY)?)
}

/// Starts a worker.
///
/// # Errors
/// If there is no memory or no process for it.
pub fn spawn(job: &Job, files: Files<'_>) -> Result<Worker> {
    spawn_with_mounts(job, files, &[])
}

/// As [`spawn`], with mounts in the root, parents first: in the worker alone. The root is the root
/// of a mount, or a directory that is mounted in this namespace.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_with_mounts(job: &Job, files: Files<'_>, mounts: &[Mounted]) -> Result<Worker> {
    start(OWN_PROGRAM, job, files, mounts)
}

/// As [`spawn`], of another program that calls [`run_if_asked`].
///
/// # Errors
/// As [`spawn`].
pub fn spawn_program(path: &CStr, job: &Job, files: Files<'_>) -> Result<Worker> {
    start(path, job, files, &[])
}

fn start(path: &CStr, job: &Job, files: Files<'_>, mounts: &[Mounted]) -> Result<Worker> {
    let told = Order {
        job: job.clone(),
        has_base: files.base.is_some(),
        mounts: mounts.iter().map(|mounted| mounted.at.clone()).collect(),
    };
    let nothing = fd::openat(fd::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0)?;
    let order = fd::memory_file(c"job")?;
    fd::write_all(&order, &serde_json::to_vec(&told)?)?;
    entry::seek_to(&order, 0)?;
    let (report, report_writer) = fd::pipe()?;
    let pipe = |wanted: bool| -> Result<Option<(OwnedFd, OwnedFd)>> {
        if !wanted {
            return Ok(None);
        }
        let (reader, writer) = fd::pipe()?;
        entry::set_pipe_size(&writer, PIPE_BYTES);
        Ok(Some((reader, writer)))
    };
    let input = pipe(job.reads() && files.input.is_none())?;
    let output = pipe(job.writes() && files.output.is_none())?;
    let stdin = match (&input, files.input) {
        (Some((reader, _)), _) => reader.as_fd(),
        (None, Some(file)) => file,
        (None, None) => nothing.as_fd(),
    };
    let stdout = match (&output, files.output) {
        (Some((_, writer)), _) => writer.as_fd(),
        (None, Some(file)) => file,
        (None, None) => nothing.as_fd(),
    };
    let [_, _, stderr] = fd::standard_streams();
    let mut fds = vec![stdin, stdout, stderr, order.as_fd(), report_writer.as_fd(), files.root];
    fds.extend(files.base);
    fds.extend(mounts.iter().map(|mounted| mounted.mount.as_fd()));
    let child = program::spawn(program::Program {
        path,
        args: vec![NAME.into(), WORD.into()],
        env: vec![],
        fds: &fds,
        // A death signal comes when the thread that asked for it ends, and threads of pools do.
        // The worker watches the pipe of its report instead.
        death_signal: None,
    })
    .context("start the archive worker")?;
    Ok(Worker {
        input: input.map(|(_, writer)| writer.into()),
        output: output.map(|(reader, _)| reader.into()),
        report: report.into(),
        child: Some(child),
    })
}

impl Worker {
    /// Its process id, until it was waited for.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.pid)
    }

    /// Waits for the end of the job: closes the input, and whatever is left of the output.
    /// Blocks for as long as the job takes.
    ///
    /// # Errors
    /// [`crate::Refused`] in the chain if it is the archive's fault, `std::io::Error` if the disk
    /// is full, or the output was not read to its end; in any case what was made so far stays.
    pub fn finish(mut self) -> Result<Outcome> {
        drop(self.input.take());
        // Before the report, which does not come from a worker that waits for somebody to read.
        drop(self.output.take());
        let mut report = Vec::new();
        (&self.report)
            .take(MAX_REPORT_BYTES)
            .read_to_end(&mut report)
            .context("hear of the archive worker")?;
        let child = self.child.take().ok_or_else(|| anyhow!("the worker was waited for"))?;
        let exit = process::wait(child.pid)?;
        if report.is_empty() {
            bail!("the archive worker ended without a word: {exit:?}");
        }
        serde_json::from_slice::<Report>(&report)
            .context("understand the archive worker")?
            .into_result()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // Both fail only if it is gone already.
            drop(process::send_signal(&child.pidfd, libc::SIGKILL));
            drop(process::wait(child.pid));
        }
    }
}

/// Does a worker's job, and ends the process, if the program was started as one.
pub fn run_if_asked() {
    let mut words = std::env::args_os();
    let is = |word: Option<std::ffi::OsString>, expected: &CStr| {
        word.is_some_and(|word| word.as_encoded_bytes() == expected.to_bytes())
    };
    if is(words.next(), NAME) && is(words.next(), WORD) {
        perform::run();
    }
}
