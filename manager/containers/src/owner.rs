//! The task that owns a container: it alone changes what the container is.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hull_manager_core::{Error, ErrorKind, Result};
use hull_specs_api::v1::Status;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    Inner, bundle,
    exit_record::{self, ExitRecord},
    handle::{Handle, Order, Request, Why},
    health, links,
    record::{Ended, Facts, Record},
    recover,
    restart::{self, Backoff, Occasion},
    shim::{self, Shim},
    state::{Ask, Verdict},
    volumes,
};

/// The end of a process, to come.
pub(crate) type Waiting = JoinHandle<Result<shim::Ended>>;

/// What goes on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    /// The container is removed.
    Gone,
}

pub(crate) struct Owner {
    pub(crate) inner: Arc<Inner>,
    pub(crate) handle: Arc<Handle>,
    orders: mpsc::Receiver<Order>,
    /// The first process's end, while it lives.
    waiting: Option<Waiting>,
    pub(crate) shim: Option<Shim>,
    backoff: Backoff,
    /// When it is started again.
    restart_at: Option<Instant>,
    /// That start is the manager's own, and none of those that a policy may count.
    at_boot: bool,
    /// The next end is a user's `restart`: nothing follows it.
    restarting_by_user: bool,
    health: Option<health::Checker>,
}

/// Waits for what may not be there.
async fn end_of(waiting: &mut Option<Waiting>) -> Result<shim::Ended> {
    match waiting {
        Some(waiting) => waiting.await.unwrap_or_else(|cause| {
            Err(Error::unavailable("the wait was given up").because(cause))
        }),
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Owner {
    pub(crate) fn new(
        inner: &Arc<Inner>,
        handle: &Arc<Handle>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            handle: Arc::clone(handle),
            orders,
            waiting: None,
            shim: None,
            backoff: Backoff::default(),
            restart_at: None,
            at_boot: false,
            restarting_by_user: false,
            health: None,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let next = tokio::select! {
                // An end that is known comes before what is asked of the living.
                biased;
                ended = end_of(&mut self.waiting) => self.ended(ended).await,
                () = until(self.restart_at) => self.restart().await,
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order).await,
                    None => Next::Gone,
                },
            };
            if next == Next::Gone {
                return;
            }
        }
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.inner.bundle(&self.handle.id)
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        self.handle.record()
    }

    /// Changes the facts, on disk first.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Facts)) -> Result<()> {
        let mut record = Record::clone(&self.record());
        change(&mut record.facts);
        if record.facts != self.record().facts {
            self.inner.records.update_facts(&self.handle.id, &record.facts)?;
            self.handle.set_record(record);
        }
        Ok(())
    }

    fn set_status(&self, status: Status) {
        self.handle.state.send_modify(|state| {
            state.status = status;
            if !matches!(status, Status::Running | Status::Paused) {
                state.pid = 0;
            }
        });
    }

    pub(crate) fn event(&self, action: &str, more: &[(&str, &str)]) {
        self.inner.event(&self.record(), action, more);
    }

    async fn take(&mut self, order: Order) -> Next {
        let Order { request, called, answer } = order;
        let remove_after_failure = matches!(request, Request::Start);
        let result = self.answer(request, &called).await;
        let failed = result.is_err();
        let gone = self.handle.now().gone;
        // Whoever asked may have gone.
        let _ = answer.send(result);
        if gone {
            return Next::Gone;
        }
        let unused = self.record().container.options.as_ref().is_some_and(|o| o.auto_remove);
        if failed && remove_after_failure && unused && !self.handle.now().is_live() {
            return self.auto_remove().await;
        }
        Next::Continue
    }

    async fn answer(&mut self, request: Request, called: &str) -> Result<Verdict> {
        let ask = match &request {
            Request::Start => Ask::Start,
            Request::Signal { why: Why::Kill, .. } => Ask::Kill,
            Request::Signal { .. } => Ask::Stop,
            Request::Pause { .. } => Ask::Pause,
            Request::Unpause => Ask::Unpause,
            Request::Rename(_) => Ask::Rename,
            Request::Update { .. } => Ask::Update,
            Request::Connect(_) | Request::Disconnect { .. } | Request::Relink => Ask::Connect,
            Request::Remove { force, .. } => Ask::Remove { force: *force },
        };
        if self.handle.judge(ask, called)? == Verdict::Nothing {
            return Ok(Verdict::Nothing);
        }
        match request {
            Request::Start => {
                self.backoff = Backoff::default();
                self.start(true).await?;
            }
            Request::Signal { signal, why } => self.signal(signal, why, called).await?,
            Request::Pause { for_commit } => {
                // Before: a manager that is killed meanwhile leaves it standing still.
                self.change(|facts| facts.paused_for_commit = for_commit)?;
                self.shim()?.pause().await?;
                self.set_status(Status::Paused);
                self.event("pause", &[]);
            }
            Request::Unpause => {
                self.shim()?.resume().await?;
                self.set_status(Status::Running);
                self.event("unpause", &[]);
                self.change(|facts| facts.paused_for_commit = false)?;
            }
            Request::Rename(name) => self.rename(&name).await?,
            Request::Update { resources, restart } => {
                self.update(resources.as_deref(), restart).await?;
            }
            Request::Connect(endpoint) => self.connect(*endpoint).await?,
            Request::Disconnect { network, force } => self.disconnect(&network, force).await?,
            Request::Relink => self.relink().await?,
            Request::Remove { force, volumes } => self.remove(force, volumes).await?,
        }
        Ok(Verdict::Do)
    }

    pub(crate) fn shim(&self) -> Result<&Shim> {
        let missing = || Error::conflict(format!("Container {} is not running", self.handle.id));
        self.shim.as_ref().ok_or_else(missing)
    }

    async fn signal(&mut self, signal: i32, why: Why, called: &str) -> Result<()> {
        if why == Why::Stop || why == Why::Kill && self.ends(signal) {
            self.change(|facts| facts.stopped_by_user = true)?;
        }
        self.restarting_by_user = why == Why::Restart;
        if self.handle.now().status == Status::Restarting {
            self.restart_at = None;
            self.set_status(Status::Exited);
            return Ok(());
        }
        let shim = self.shim()?.clone();
        match shim.kill("", signal).await {
            // It has ended, and this task is about to learn it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return match why {
                    Why::Kill => Err(Error::conflict(format!(
                        "Cannot kill container: {called}: Container {} is not running",
                        self.handle.id
                    ))),
                    _ => Ok(()),
                };
            }
            result => result?,
        }
        if self.handle.now().status == Status::Paused && self.ends(signal) {
            // A frozen process takes no signal. Runtimes thaw it for SIGKILL themselves.
            match shim.resume().await {
                Err(error) if error.kind() == ErrorKind::FailedPrecondition => {}
                result => {
                    result?;
                    self.set_status(Status::Running);
                }
            }
        }
        self.event("kill", &[("signal", &signal.to_string())]);
        Ok(())
    }

    /// Whether this signal is meant to end the container.
    fn ends(&self, signal: i32) -> bool {
        let own = crate::signal::stop_signal(&self.record().effective);
        signal == libc::SIGKILL || own.is_ok_and(|own| own == signal)
    }

    /// Starts it; `by_user` rather than by its policy.
    pub(crate) async fn start(&mut self, by_user: bool) -> Result<()> {
        self.restart_at = None;
        self.at_boot = false;
        self.restarting_by_user = false;
        let result = self.launch().await;
        let started = match result {
            Ok(started) => started,
            Err(error) => {
                let code = failed_exit_code(&error.to_string());
                self.event("die", &[("exitCode", &code.to_string())]);
                self.change(|facts| {
                    facts.error = error.to_string();
                    facts.ended =
                        Some(Ended { exit_code: code, oom_killed: false, at: SystemTime::now() });
                })?;
                return Err(error);
            }
        };
        let facts = self.change(|facts| {
            facts.started = Some(SystemTime::now());
            facts.ended = None;
            facts.error.clear();
            if by_user {
                facts.stopped_by_user = false;
                facts.restarts = 0;
            }
        });
        self.adopt(started, Status::Running);
        // Those that came while it was being started.
        let socket = self.inner.attach_socket(&self.handle.id);
        if let Err(error) = self.handle.connect_waiting(&socket).await {
            tracing::warn!(container = %self.handle.id, %error, "a client is not attached");
        }
        self.event("start", &[]);
        links::renew(&self.inner, &self.handle);
        facts
    }

    /// Takes up a container that runs.
    pub(crate) fn adopt(&mut self, (shim, pid, waiting): (Shim, u32, Waiting), status: Status) {
        self.waiting = Some(waiting);
        self.handle.set_shim(Some(shim.clone()));
        self.shim = Some(shim);
        self.handle.state.send_modify(|state| {
            state.status = status;
            state.pid = pid;
            state.settled = false;
        });
        self.health = health::Checker::start(&self.inner, &self.handle);
    }

    async fn ended(&mut self, ended: Result<shim::Ended>) -> Next {
        self.waiting = None;
        self.health = None;
        let (ended, connected) = match ended {
            Ok(ended) => (Some(ended), true),
            Err(error) => {
                tracing::warn!(container = %self.handle.id, %error, "lost its shim");
                (None, false)
            }
        };
        let bundle = self.bundle();
        let mut record = read_record(&bundle);
        if record.is_none() && !connected {
            // The container is ended, and the record says that nobody saw it.
            self.clean_up().await;
            record = read_record(&bundle);
        }
        let record = record.unwrap_or_else(|| {
            let at = ended.and_then(|ended| ended.at).unwrap_or_else(SystemTime::now);
            ExitRecord::unseen(ended.map(|ended| ended.status), at)
        });
        self.finish(&record, connected).await
    }

    /// Stores how it ended, and says so.
    pub(crate) fn note_end(&self, record: &ExitRecord) {
        let facts = self.change(|facts| {
            facts.ended = Some(recover::ended(record));
            facts.paused_for_commit = false;
        });
        if let Err(error) = facts.and_then(|()| self.inner.keep_exit_record(&self.handle.id)) {
            tracing::error!(container = %self.handle.id, %error, "the exit is not stored");
        }
        if record.oom_kills > 0 {
            self.event("oom", &[]);
        }
        let code = record.shell_code.to_string();
        let seconds = record.run_time().as_secs().to_string();
        self.event("die", &[("exitCode", &code), ("execDuration", &seconds)]);
    }

    /// Everything that follows an end, once it is known how.
    async fn finish(&mut self, record: &ExitRecord, connected: bool) -> Next {
        self.note_end(record);
        let kept = self.record();
        let options = kept.container.options.clone().unwrap_or_default();
        let again = !self.restarting_by_user
            && !self.inner.is_ending()
            && restart::wants(
                options.restart.as_ref(),
                Occasion {
                    exit_code: record.shell_code,
                    stopped_by_user: kept.facts.stopped_by_user,
                    restarts: kept.facts.restarts,
                    at_boot: false,
                },
            );
        self.handle.set_shim(None);
        let status = match again {
            true => Status::Restarting,
            false => Status::Exited,
        };
        self.handle.state.send_modify(|state| {
            state.status = status;
            state.pid = 0;
            state.exits += 1;
            state.exit_code = record.shell_code;
        });
        self.dismantle(connected).await;
        if again {
            let pause = self.backoff.next(record.run_time());
            self.restart_at = Some(Instant::now() + pause);
        } else if options.auto_remove && !self.restarting_by_user {
            return self.auto_remove().await;
        }
        Next::Continue
    }

    /// Takes away what a start has made. Idempotent.
    pub(crate) async fn dismantle(&mut self, connected: bool) {
        let bundle = self.bundle();
        let mut idle = None;
        match self.shim.take().filter(|_| connected) {
            Some(shim) => match delete(&shim).await {
                Ok(()) => idle = Some(shim),
                Err(error) => {
                    // One that was refused is not there: nothing is wrong.
                    if error.kind() != ErrorKind::NotFound {
                        let id = &self.handle.id;
                        tracing::warn!(container = %id, %error, "the shim cannot delete");
                    }
                    self.clean_up().await;
                    // It may know of what is gone now, and would stay for it.
                    let _ = shim.delete("").await;
                    shim.shut_down().await;
                }
            },
            None => self.clean_up().await,
        }
        // It ends before its bundle goes: without that a later manager would not find it.
        let shut_down = async {
            if let Some(shim) = idle {
                shim.shut_down().await;
            }
        };
        let detach = self.inner.parts.network.detach(&self.handle.id);
        if let ((), Err(error)) = tokio::join!(shut_down, detach) {
            tracing::warn!(container = %self.handle.id, %error, "not disconnected");
        }
        self.handle.set_attached(None);
        if volumes::has_mounted(&self.record())
            && let Err(error) = self.inner.parts.volumes.unmount(&self.handle.id)
        {
            tracing::warn!(container = %self.handle.id, %error, "volumes are not unmounted");
        }
        if let Err(error) = bundle::remove(&bundle) {
            tracing::warn!(container = %self.handle.id, %error, "the bundle is not removed");
        }
        self.handle.state.send_modify(|state| state.settled = true);
    }

    /// Has the shim's program end and remove whatever is left. Idempotent.
    pub(crate) async fn clean_up(&self) {
        let (inner, id, bundle) = (Arc::clone(&self.inner), self.handle.id.clone(), self.bundle());
        let done = tokio::task::spawn_blocking(move || match bundle.is_dir() {
            true => shim::clean_up(&inner.settings(), &id, &bundle),
            false => Ok(()),
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!(container = %self.handle.id, %error, "not cleaned up");
        }
    }

    async fn restart(&mut self) -> Next {
        self.restart_at = None;
        let at_boot = std::mem::take(&mut self.at_boot);
        let counted = self.change(|facts| facts.restarts += u32::from(!at_boot));
        let started = match counted {
            Ok(()) => self.start(false).await,
            Err(error) => Err(error),
        };
        let Err(error) = started else { return Next::Continue };
        tracing::warn!(container = %self.handle.id, %error, "not restarted");
        let record = self.record();
        let occasion = Occasion {
            exit_code: 128,
            stopped_by_user: record.facts.stopped_by_user,
            restarts: record.facts.restarts,
            at_boot: false,
        };
        let policy = record.container.options.as_ref().and_then(|options| options.restart);
        if restart::wants(policy.as_ref(), occasion) {
            self.restart_at = Some(Instant::now() + self.backoff.next(Duration::ZERO));
        } else {
            self.set_status(Status::Exited);
        }
        Next::Continue
    }

    /// Its policy wants it to run, now that the manager is up.
    pub(crate) fn restart_soon(&mut self) {
        self.set_status(Status::Restarting);
        self.restart_at = Some(Instant::now());
        self.at_boot = true;
    }

    async fn auto_remove(&mut self) -> Next {
        match self.remove(true, true).await {
            Ok(()) => Next::Gone,
            Err(error) => {
                tracing::error!(container = %self.handle.id, %error, "not removed");
                Next::Continue
            }
        }
    }

    /// Removes it with all that is its own. What was removed already is passed over, so that
    /// the manager's next start can go on where this one was killed.
    pub(crate) async fn remove(&mut self, force: bool, volumes: bool) -> Result<()> {
        if force && self.handle.now().is_live() {
            self.kill_now().await?;
        }
        self.restart_at = None;
        self.health = None;
        let before = self.handle.now().status;
        self.change(|facts| {
            facts.removing = true;
            facts.removing_volumes = volumes;
        })?;
        self.set_status(Status::Removing);
        if let Err(error) = self.inner.discard(&self.record(), volumes).await {
            // Its owner asks again, or the manager's next start does.
            self.set_status(if before == Status::Created { before } else { Status::Dead });
            return Err(error);
        }
        self.event("destroy", &[]);
        // Who waits for a start is told that there is none.
        drop(self.handle.attaching.take());
        self.handle.state.send_modify(|state| state.gone = true);
        Ok(())
    }

    /// Ends what runs, and waits until it has.
    async fn kill_now(&mut self) -> Result<()> {
        /// The kernel may need long to let go of a process; then there is something to say.
        const LIMIT: Duration = Duration::from_secs(30);
        self.change(|facts| facts.stopped_by_user = true)?;
        self.restarting_by_user = true;
        let shim = self.shim()?.clone();
        match shim.kill("", libc::SIGKILL).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // Then the shim is dead, and with the next step so is the container.
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            result => result?,
        }
        if self.handle.now().status == Status::Paused
            && let Err(error) = shim.resume().await
        {
            // Thawed already, by the runtime; else it does not end, and that is said.
            tracing::debug!(container = %self.handle.id, %error, "not resumed");
        }
        self.event("kill", &[("signal", "9")]);
        let ended = tokio::time::timeout(LIMIT, end_of(&mut self.waiting)).await;
        let ended = ended.map_err(|_| {
            Error::timed_out(format!(
                "container {} does not end: its process is stuck in the kernel",
                self.handle.id
            ))
        })?;
        // Not again: what follows an end does not follow this one.
        Box::pin(self.ended(ended)).await;
        Ok(())
    }

    async fn rename(&self, name: &str) -> Result<()> {
        let old = self.record();
        let mut record = Record::clone(&old);
        record.container.name = name.to_owned();
        self.inner.rename(&record, old.name())?;
        if let Err(error) = self.inner.parts.network.rename(record.id(), name).await {
            self.inner.rename(&old, name)?;
            return Err(error);
        }
        self.handle.set_record(record);
        self.event("rename", &[("oldName", &format!("/{}", old.name()))]);
        Ok(())
    }
}

/// Has the shim delete its container. One whose start was under way when its manager was killed
/// runs by then, and is ended.
async fn delete(shim: &Shim) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(30);
    match shim.delete("").await {
        Err(error) if error.kind() == ErrorKind::FailedPrecondition => {
            // It may have ended.
            let _ = shim.kill("", libc::SIGKILL).await;
            let ended = tokio::time::timeout(LIMIT, shim.wait("")).await;
            ended.map_err(|_| Error::timed_out("the container's process does not end"))??;
            shim.delete("").await
        }
        result => result,
    }
}

fn read_record(bundle: &std::path::Path) -> Option<ExitRecord> {
    exit_record::read(bundle).unwrap_or_else(|error| {
        tracing::error!(%error, "an exit record cannot be read");
        None
    })
}

/// The exit code of a container that could not be started, as docker gives it.
fn failed_exit_code(text: &str) -> i32 {
    // Not every runtime writes them small.
    let text = text.to_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if has(&["executable file not found", "no such file or directory", "system cannot find"]) {
        127
    } else if has(&["permission denied", "not a directory", "is a directory", "exec format error"])
    {
        126
    } else {
        128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_has_dockers_exit_code() {
        for (text, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("executable file `x` not found in $PATH: No such file or directory", 127),
            ("exec /x: permission denied", 126),
            ("exec /x: exec format error", 126),
            ("no space left on device", 128),
        ] {
            assert_eq!(failed_exit_code(text), code, "{text}");
        }
    }
}
