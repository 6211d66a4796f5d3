//! What follows a process's end: the record on disk, the event, whoever waits.
//!
//! The end of a container's first process is published last: after its execs', and after what
//! it left running has been killed.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use hull_runtime_sys::process::Exit;
use hull_specs_oci::ExecId;

use super::{Shim, container::Container, field, process::Process, start::NEVER_RAN};
use crate::{
    bundle_file::Version,
    events,
    exit_record::{self, ExitRecord, FileName, Reason},
    log,
    oom::{self, Oom, Watch},
    reactor,
};

/// How much of the output's end a record holds.
const LAST_LINES: usize = 20;

/// How long the first pause is before a record is written that could not be, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Waits for the end of a process that was just taken up.
pub(super) fn follow(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    process: &Rc<Process>,
    exit: impl Future<Output = Exit> + 'static,
    watch: Option<Rc<RefCell<Watch>>>,
) {
    let (shim, container, process) = (Rc::clone(shim), Rc::clone(container), Rc::clone(process));
    reactor::spawn(async move {
        let exit = exit.await;
        let at = SystemTime::now();
        // Before anyone can remove the cgroup.
        let memory = Memory::look(&container, &process, watch.as_ref(), exit);
        if watch.is_some_and(|watch| watch.borrow_mut().take() > 0) {
            let id = container.id.clone();
            shim.events.publish(&TaskOOM { container_id: id, ..TaskOOM::default() });
        }
        let gate = process.gate.lock().await;
        if process.is_first() {
            settle_others(&container).await;
        }
        let mut record = describe(&container, &process, exit, at, &memory);
        let io = process.io.borrow().clone();
        if let Some(io) = io {
            io.settled().await;
            record.last_lines = io.last_lines(LAST_LINES);
            record.dropped_clients = io.dropped_clients();
            record.lost_output_bytes = io.lost_bytes();
        }
        write(&container, &process, record);
        process.finish(exit, at);
        let id = if process.is_first() { &container.id } else { &process.exec_id };
        shim.events.publish(&TaskExit {
            container_id: container.id.clone(),
            id: id.clone(),
            pid: process.pid(),
            exit_status: u32::try_from(exit.shell_code()).unwrap_or(255),
            exited_at: field(events::timestamp(at)),
            ..TaskExit::default()
        });
        process.settled.raise();
        drop(gate);
    });
}

/// Ends what outlives the first process, and waits until the ends of all execs are published.
async fn settle_others(container: &Rc<Container>) {
    container.over.set(true);
    if container.shares_pids {
        let killed = container.run(&["kill", "--all", &container.id, "9"]).await;
        if let Err(error) = killed {
            log::error(&format!(
                "{}: what it left running is not killed: {}",
                container.id,
                log::sentence(&error)
            ));
        }
    }
    let execs: Vec<_> = container.execs.borrow().values().cloned().collect();
    for exec in execs.iter().filter(|exec| exec.is_live()) {
        exec.settled.wait().await;
    }
}

/// A process that could not be started has ended, too.
pub(super) fn failed(container: &Rc<Container>, process: &Rc<Process>, error: &anyhow::Error) {
    let at = SystemTime::now();
    let none = Memory { oom: Oom::None, kills: 0, peak: None };
    let mut record = describe(container, process, NEVER_RAN, at, &none);
    record.reason = Reason::StartFailed;
    record.runtime_error = Some(format!("{error:#}"));
    write(container, process, record);
    process.finish(NEVER_RAN, at);
    process.settled.raise();
}

/// What is known of the container's memory when a process has ended.
struct Memory {
    oom: Oom,
    kills: u64,
    peak: Option<u64>,
}

impl Memory {
    fn look(
        container: &Container,
        process: &Process,
        watch: Option<&Rc<RefCell<Watch>>>,
        exit: Exit,
    ) -> Self {
        let kills = watch.map_or(0, |watch| watch.borrow_mut().kills());
        let cgroup = container.cgroup.borrow();
        Self {
            oom: oom::verdict(exit, kills, process.killed.get()),
            kills,
            peak: cgroup.as_ref().filter(|_| process.is_first()).and_then(|c| c.peak_memory()),
        }
    }
}

fn describe(
    container: &Container,
    process: &Process,
    exit: Exit,
    at: SystemTime,
    memory: &Memory,
) -> ExitRecord {
    let (exit_code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
    };
    let started = process.started_at.get();
    let run_time = started.and_then(|started| at.duration_since(started).ok());
    ExitRecord {
        version: Version,
        container_id: container.id.clone(),
        exec_id: process.exec_id.clone(),
        pid: process.pid.get(),
        start_time: process.start_time.get(),
        exit_code,
        signal,
        shell_code: u32::try_from(exit.shell_code()).unwrap_or(255),
        exited_at: at,
        run_time: run_time.unwrap_or(Duration::ZERO),
        reason: Reason::of(exit, memory.oom),
        oom: memory.oom,
        oom_kills: memory.kills,
        peak_memory_bytes: memory.peak,
        runtime_error: None,
        dropped_clients: 0,
        lost_output_bytes: 0,
        last_lines: Vec::new(),
    }
}

/// Writes a record. A disk that is full must not hide the exit from those who wait for it: what
/// cannot be written now is tried again until it can, or until the process is deleted.
fn write(container: &Rc<Container>, process: &Rc<Process>, record: ExitRecord) {
    let Err(error) = try_write(container, &record) else { return };
    let error = log::sentence(&error);
    log::error(&format!("{}: the exit is not on disk yet: {error}", container.id));
    process.unwritten.replace(Some(record));
    let (container, process) = (Rc::clone(container), Rc::clone(process));
    reactor::spawn(async move {
        let mut pause = PAUSES.0;
        while reactor::unless(&process.written, reactor::sleep(pause)).await.is_some() {
            // What goes on failing was said.
            let _ = write_again(&container, &process);
            pause = (pause * 2).min(PAUSES.1);
        }
    });
}

/// Writes the record of a process's end that could not be written before, if there is one.
///
/// # Errors
/// It still cannot be.
pub(super) fn write_again(container: &Container, process: &Process) -> anyhow::Result<()> {
    if let Some(record) = &*process.unwritten.borrow() {
        try_write(container, record)?;
    }
    forget_unwritten(process);
    Ok(())
}

/// Ends the attempts to write a record.
pub(super) fn forget_unwritten(process: &Process) {
    process.unwritten.take();
    process.written.raise();
}

fn try_write(container: &Container, record: &ExitRecord) -> anyhow::Result<()> {
    // Checked when the exec was added.
    let exec = record.exec_id.parse::<ExecId>().ok();
    exit_record::write(&container.bundle, &FileName::of(exec.as_ref()), record)
}
