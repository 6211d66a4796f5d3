//! The manager's start: what became of every container, found by looking.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::SystemTime};

use hull_manager_core::{Error, Result, name::is_id_prefix};
use hull_manager_snapshots::Kind;
use hull_specs_api::v1::{self, Status};

use crate::{
    Containers, Inner, bundle,
    exit_record::{self, ExitRecord},
    handle::{Handle, Why},
    lifecycle,
    owner::Owner,
    prepare,
    record::{Ended, Facts},
    restart::{self, Occasion},
    shim::{self, Liveness, Shim},
    volumes,
};

/// The exit code of a container that the host's end has ended, as docker gives it.
const LOST: i32 = 255;

/// What is there of a container's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// No bundle.
    Nothing,
    /// A shim answers, and says so.
    Shim(Liveness),
    /// A bundle, and no shim that answers.
    Bundle {
        /// With a record of an end.
        recorded: bool,
    },
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It is as the row says.
    AsStored,
    /// It runs: go on with it.
    Adopt(Status),
    /// A start that was cut off: take away what it made.
    Undo,
    /// It has ended while nobody watched.
    Finish,
    /// It ran, and the host has been started anew since.
    Lost,
    /// Its removal was cut off.
    Remove,
}

/// Pure.
fn decide(facts: &Facts, found: Found) -> Decision {
    let should_run = facts.started.is_some() && facts.ended.is_none();
    match found {
        _ if facts.removing => Decision::Remove,
        Found::Nothing if should_run => Decision::Lost,
        Found::Nothing => Decision::AsStored,
        Found::Shim(Liveness::Running) => Decision::Adopt(Status::Running),
        Found::Shim(Liveness::Paused) => Decision::Adopt(Status::Paused),
        Found::Shim(Liveness::Created) => Decision::Undo,
        Found::Shim(Liveness::Stopped) => Decision::Finish,
        Found::Bundle { recorded } if recorded || should_run => Decision::Finish,
        Found::Bundle { .. } => Decision::Undo,
    }
}

/// What a container that does not run is.
fn stored_status(facts: &Facts) -> Status {
    if facts.started.is_some() { Status::Exited } else { Status::Created }
}

impl Owner {
    /// Finds out what became of the container, and changes nothing.
    async fn look(&mut self) -> (Found, Decision) {
        let (found, shim) = look(&self.handle.id, &self.bundle()).await;
        self.shim = shim;
        let mut facts = self.record().facts.clone();
        if let Some(started) = self.start_of(&self.bundle()) {
            facts.catch_up(started);
        }
        (found, decide(&facts, found))
    }

    /// Brings what is known in line with what was found, before any request is taken. False if
    /// it is gone.
    async fn recover(&mut self, (found, decision): (Found, Decision)) -> bool {
        let bundle = self.bundle();
        let record = self.record();
        if !matches!(decision, Decision::Adopt(_)) {
            self.inner.end_execs(&self.handle.id, &bundle);
        }
        let gone = match decision {
            Decision::AsStored => {
                self.resume().await;
                false
            }
            Decision::Adopt(status) => {
                self.take_up(status).await;
                false
            }
            Decision::Undo => {
                let connected = self.shim.is_some();
                self.dismantle(connected).await;
                self.resume().await;
                false
            }
            Decision::Finish => self.finish_late(&bundle).await,
            Decision::Lost => {
                let lost = ExitRecord::lost(LOST);
                self.note_end(&lost);
                self.resume().await;
                false
            }
            Decision::Remove => {
                if found != Found::Nothing {
                    let connected = self.shim.is_some();
                    self.dismantle(connected).await;
                }
                let volumes = record.facts.removing_volumes;
                self.remove(true, volumes).await.is_ok()
            }
        };
        !gone
    }

    async fn take_up(&mut self, mut status: Status) {
        let Some(shim) = self.shim.clone() else { return };
        let mut was_resumed = false;
        if status == Status::Paused && self.record().facts.paused_for_commit {
            match shim.resume().await {
                Ok(()) => (status, was_resumed) = (Status::Running, true),
                Err(error) => {
                    tracing::warn!(container = %self.handle.id, %error, "not unpaused after a commit");
                }
            }
        }
        let pid = shim.state("").await.map_or(0, |(_, pid)| pid);
        let started = self.start_of(&self.bundle()).unwrap_or_else(SystemTime::now);
        let stored = self.change(|facts| {
            facts.catch_up(started);
            facts.ended = None;
            facts.error.clear();
            facts.paused_for_commit &= status == Status::Paused;
        });
        if let Err(error) = stored {
            tracing::error!(container = %self.handle.id, %error, "not stored");
        }
        match self.inner.parts.network.check(prepare::attachment(&self.record())).await {
            Ok(attached) => {
                let attached = self.complete(attached).await;
                self.handle.set_attached(Some(attached));
            }
            Err(error) => {
                tracing::warn!(container = %self.handle.id, %error, "its networks are not whole");
            }
        }
        let waiting = shim.clone();
        self.inner.take_up_execs(&self.handle, &shim);
        self.adopt((shim, pid, tokio::spawn(async move { waiting.wait("").await })), status);
        if was_resumed {
            self.event("unpause", &[]);
        }
    }

    /// When its shim started it.
    fn start_of(&self, bundle: &Path) -> Option<SystemTime> {
        exit_record::started(bundle).unwrap_or_else(|error| {
            tracing::error!(container = %self.handle.id, %error, "its start cannot be read");
            None
        })
    }

    /// It has ended while the manager was away.
    async fn finish_late(&mut self, bundle: &Path) -> bool {
        let connected = self.shim.is_some();
        let mut record = exit_record::read(bundle).ok().flatten();
        if record.is_none() && !connected {
            self.clean_up().await;
            record = exit_record::read(bundle).ok().flatten();
        }
        let record = record.unwrap_or_else(|| ExitRecord::unseen(None, SystemTime::now()));
        if let Some(started) = self.start_of(bundle)
            && let Err(error) = self.change(|facts| facts.catch_up(started))
        {
            tracing::error!(container = %self.handle.id, %error, "its start is not stored");
        }
        let known =
            self.record().facts.ended.as_ref().is_some_and(|ended| ended.at == record.exited_at);
        if !known {
            self.note_end(&record);
        }
        self.dismantle(connected).await;
        self.resume().await
    }

    /// What follows for a container that does not run, now that the manager is up. True if it is
    /// gone.
    async fn resume(&mut self) -> bool {
        let record = self.record();
        let facts = &record.facts;
        self.handle.state.send_modify(|state| state.status = stored_status(facts));
        if facts.started.is_none() {
            return false;
        }
        let options = &record.effective;
        let occasion = Occasion {
            exit_code: facts.ended.as_ref().map_or(0, |ended| ended.exit_code),
            stopped_by_user: facts.stopped_by_user,
            restarts: facts.restarts,
            at_boot: true,
        };
        if restart::wants(options.restart.as_ref(), occasion) {
            self.restart_soon();
            false
        } else {
            options.auto_remove && self.remove(true, true).await.is_ok()
        }
    }
}

async fn look(id: &str, bundle: &Path) -> (Found, Option<Shim>) {
    if !bundle.is_dir() {
        return (Found::Nothing, None);
    }
    let place = bundle.to_owned();
    match tokio::task::spawn_blocking(move || shim::wait_for_others(&place)).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::error!(container = %id, %error, "taken as it is"),
    }
    if let Some(address) = shim::address(bundle)
        && let Ok(shim) = Shim::connect(id, bundle, &address).await
    {
        if let Ok((liveness, _)) = shim.state("").await {
            return (Found::Shim(liveness), Some(shim));
        }
        // It has no container: it has deleted it, or was not asked for one, or is making one for
        // the manager that was killed. It answers when that is made, and ends if it is not.
        shim.shut_down().await;
        if let Ok((liveness, _)) = shim.state("").await {
            return (Found::Shim(liveness), Some(shim));
        }
    }
    let recorded = bundle.join(exit_record::FILE).exists();
    (Found::Bundle { recorded }, None)
}

impl Inner {
    /// Removes what belongs to no row: of creations that were cut off.
    fn remove_orphans(&self, known: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut orphans: BTreeSet<String> = BTreeSet::new();
        let settings = self.settings();
        for root in [&settings.data_root, &settings.exec_root] {
            orphans.extend(bundle::names(&root.join("containers"))?);
        }
        let snapshots = self.parts.snapshots.list()?;
        let active = snapshots.into_iter().filter(|info| info.kind == Kind::Active);
        orphans.extend(active.map(|info| info.name));
        orphans.extend(self.ranges.owners()?);
        orphans.retain(|id| id.len() == 64 && is_id_prefix(id) && !known.contains(id));
        for id in &orphans {
            let bundle = self.bundle(id);
            if bundle.is_dir() {
                shim::clean_up(&settings, id, &bundle)?;
            }
            self.discard_parts(id, true)?;
        }
        Ok(orphans.into_iter().collect())
    }
}

impl Containers {
    /// Finds out what became of every container: connects to shims, takes records of exits,
    /// undoes what was half made, starts what its restart policy wants. Call once, before
    /// requests are served. What can't be recovered is logged.
    ///
    /// # Errors
    /// If the store or the directories can't be read.
    pub async fn recover(&self) -> Result<()> {
        let inner = &self.0;
        let mut known = BTreeSet::new();
        let mut owners = Vec::new();
        for (id, row) in inner.records.all()? {
            // Also one whose row is damaged: its parts are not orphans, somebody may repair it.
            known.insert(id);
            let record = match row {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(%error, "a container is passed over");
                    continue;
                }
            };
            let status = stored_status(&record.facts);
            let (id, name) = (record.id().to_owned(), record.name().to_owned());
            let (handle, orders) = Handle::new(record, status);
            let mut registry = inner.registry();
            registry.reserve(&name, &id)?;
            registry.insert(&id, Arc::clone(&handle));
            owners.push(Owner::new(inner, &handle, orders));
        }
        let (sweeper, rows) = (Arc::clone(inner), known.clone());
        let swept = tokio::task::spawn_blocking(move || sweeper.remove_orphans(&rows));
        match swept.await.map_err(|cause| Error::internal("recover").because(cause))? {
            Ok(orphans) if orphans.is_empty() => {}
            Ok(orphans) => tracing::info!(?orphans, "creations that were cut off are undone"),
            Err(error) => tracing::error!(%error, "creations that were cut off are not undone"),
        }
        volumes::forget_others(inner, &known)?;
        let looking = owners.into_iter().map(|mut owner| async move {
            let seen = owner.look().await;
            (owner, seen)
        });
        let owners = futures_util::future::join_all(looking).await;
        let live: Vec<String> = owners
            .iter()
            .filter(|(_, (_, decision))| matches!(decision, Decision::Adopt(_)))
            .map(|(owner, _)| owner.handle.id.clone())
            .collect();
        // Before a container is started or ended: their addresses are given out again.
        inner.parts.network.recover(&live).await?;
        let recovering: Vec<_> = owners
            .into_iter()
            .map(|(mut owner, seen)| {
                let (done, recovered) = tokio::sync::oneshot::channel::<()>();
                tokio::spawn(async move {
                    let there = owner.recover(seen).await;
                    // Nobody waits any more: then the manager ends.
                    let _ = done.send(());
                    if there {
                        owner.run().await;
                    }
                });
                recovered
            })
            .collect();
        futures_util::future::join_all(recovering).await;
        Ok(())
    }

    /// Before the manager ends: unless containers live on, stops them; nothing is restarted.
    pub async fn shutdown(&self) {
        let inner = &self.0;
        inner.ending.store(true, std::sync::atomic::Ordering::Relaxed);
        if inner.settings().live_restore {
            return;
        }
        let limit = inner.settings().shutdown_timeout;
        let stopping = inner.all().into_iter().filter(|handle| handle.now().is_live()).map(
            |handle| async move {
                let stopped =
                    lifecycle::stop_as_asked(&handle, "", None, Why::Shutdown, &handle.id).await;
                if let Err(error) = stopped {
                    tracing::error!(container = %handle.id, %error, "not stopped");
                }
                handle.until(|state| state.settled).await;
            },
        );
        if tokio::time::timeout(limit, futures_util::future::join_all(stopping)).await.is_err() {
            tracing::warn!("some containers did not stop in {limit:?}; they live on");
        }
    }

    /// What is wrong with containers; with `repair`, and what was done.
    ///
    /// # Errors
    /// If the directories can't be read.
    pub async fn check(&self, repair: bool) -> Result<Vec<v1::Finding>> {
        let inner = Arc::clone(&self.0);
        let work = move || -> Result<Vec<v1::Finding>> {
            let mut findings = Vec::new();
            // Others go on meanwhile. Snapshots are listed after the containers: one that is there
            // has all its parts until it is being removed.
            let handles = inner.all();
            let snapshots: BTreeSet<String> =
                inner.parts.snapshots.list()?.into_iter().map(|info| info.name).collect();
            for handle in &handles {
                let directory = inner.directory(&handle.id);
                let has = (snapshots.contains(&handle.id), directory.is_dir());
                // Looked at last: it is said before the first part goes.
                if handle.now().status == Status::Removing {
                    continue;
                }
                let mut find = |problem: &str, repaired: &str| {
                    findings.push(v1::Finding {
                        subject: format!("container {}", handle.id),
                        problem: problem.to_owned(),
                        repaired: repaired.to_owned(),
                    });
                };
                if !has.0 {
                    find("its file system is gone", "");
                }
                if !has.1 {
                    let made = repair && std::fs::create_dir(&directory).is_ok();
                    find("its directory is gone", if made { "made an empty one" } else { "" });
                }
            }
            // Creations are rows last: one that is under way is looked at again.
            let known: BTreeSet<String> = handles.iter().map(|handle| handle.id.clone()).collect();
            for id in bundle::names(&inner.settings().data_root.join("containers"))? {
                if !known.contains(&id)
                    && inner.find(&id).is_err()
                    && !inner.registry().is_reserved(&id)
                    // One that was just removed gives its name back last.
                    && inner.directory(&id).is_dir()
                {
                    let removed = repair && inner.discard_parts(&id, true).is_ok();
                    findings.push(v1::Finding {
                        subject: format!("container {id}"),
                        problem: "a directory without a container".into(),
                        repaired: if removed { "removed".into() } else { String::new() },
                    });
                }
            }
            Ok(findings)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|cause| Error::internal("check").because(cause))?
    }
}

/// A record in the row of an end.
pub(crate) fn ended(record: &ExitRecord) -> Ended {
    let oom_killed = record.oom_kills > 0;
    Ended { exit_code: record.shell_code, oom_killed, at: record.exited_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_decides_and_not_what_was_last_asked() {
        let never = Facts::default();
        let runs = Facts { started: Some(SystemTime::now()), ..Facts::default() };
        let over = Ended { exit_code: 0, oom_killed: false, at: SystemTime::now() };
        let ended = Facts { ended: Some(over), ..runs.clone() };
        let removing = Facts { removing: true, ..runs.clone() };
        use Decision as D;
        use Found as F;
        for (facts, found, decision) in [
            (&never, F::Nothing, D::AsStored),
            (&ended, F::Nothing, D::AsStored),
            (&runs, F::Nothing, D::Lost),
            (&never, F::Shim(Liveness::Running), D::Adopt(Status::Running)),
            (&ended, F::Shim(Liveness::Paused), D::Adopt(Status::Paused)),
            (&runs, F::Shim(Liveness::Stopped), D::Finish),
            (&never, F::Shim(Liveness::Stopped), D::Finish),
            (&runs, F::Shim(Liveness::Created), D::Undo),
            (&never, F::Bundle { recorded: false }, D::Undo),
            (&ended, F::Bundle { recorded: false }, D::Undo),
            (&never, F::Bundle { recorded: true }, D::Finish),
            (&runs, F::Bundle { recorded: false }, D::Finish),
            (&removing, F::Shim(Liveness::Running), D::Remove),
            (&removing, F::Nothing, D::Remove),
        ] {
            assert_eq!(decide(facts, found), decision, "{facts:?} {found:?}");
        }
    }
}
