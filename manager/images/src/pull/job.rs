//! Several who pull the same image share the work.
//!
//! The work runs as a task of its own, which ends when the last who waits for it has gone: what
//! was fetched stays for the next, what was unpacked does not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use hull_manager_core::{Error, ErrorKind, Result};
use hull_manager_registry::{Image, Repository};
use hull_specs_api::v1::Progress;
use hull_specs_image::Digest;
use tokio::{
    sync::{broadcast, watch},
    task::AbortHandle,
};

use super::fetch;
use crate::{Images, install::Prepared, progress::Report};

/// Reports that may wait for one of those who listen.
const QUEUE: usize = 256;

/// The pulls that run, by manifest.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<HashMap<Digest, Weak<Job>>>);

type Outcome = Option<std::result::Result<Arc<Prepared>, (ErrorKind, String)>>;

struct Job {
    reports: broadcast::Sender<Progress>,
    outcome: watch::Receiver<Outcome>,
    task: AbortHandle,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Pulls, or waits for who does. `tell` is given the reports, from now on.
pub(crate) async fn join<F: Future<Output = Result<()>>>(
    images: &Images,
    repository: &Repository,
    found: Image,
    mut tell: impl FnMut(Progress) -> F,
) -> Result<Arc<Prepared>> {
    let (job, mut reports) = attach(images, repository, found);
    let mut outcome = job.outcome.clone();
    loop {
        tokio::select! {
            biased;
            report = reports.recv() => match report {
                Ok(report) => tell(report).await?,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            },
            () = settled(&mut outcome) => break,
        }
    }
    while let Ok(report) = reports.try_recv() {
        tell(report).await?;
    }
    let ended = outcome.borrow().clone();
    match ended {
        Some(Ok(prepared)) => Ok(prepared),
        Some(Err((kind, message))) => Err(Error::new(kind, message)),
        None => Err(Error::internal("the pull ended early")),
    }
}

/// Waits for the outcome. What is borrowed of it does not go to another thread.
async fn settled(outcome: &mut watch::Receiver<Outcome>) {
    while outcome.borrow_and_update().is_none() && outcome.changed().await.is_ok() {}
}

fn attach(
    images: &Images,
    repository: &Repository,
    found: Image,
) -> (Arc<Job>, broadcast::Receiver<Progress>) {
    let key = found.descriptor.digest;
    let mut running = lock(&images.shared.pulls.0);
    running.retain(|_, job| job.strong_count() > 0);
    let alive = |job: &Arc<Job>| job.outcome.borrow().is_none();
    if let Some(job) = running.get(&key).and_then(Weak::upgrade).filter(alive) {
        let reports = job.reports.subscribe();
        return (job, reports);
    }
    let (reports, listener) = broadcast::channel(QUEUE);
    let (end, outcome) = watch::channel(None);
    let report: Report = {
        let reports = reports.clone();
        // Nobody listens: that is fine.
        Arc::new(move |told| drop(reports.send(told)))
    };
    let (images, repository) = (images.clone(), repository.clone());
    let task = tokio::spawn(async move {
        let prepared = fetch::image(&images, &repository, found, &report).await;
        let outcome = prepared.map(Arc::new).map_err(|error| (error.kind(), error.to_string()));
        end.send_replace(Some(outcome));
    });
    let job = Arc::new(Job { reports, outcome, task: task.abort_handle() });
    running.insert(key, Arc::downgrade(&job));
    (job, listener)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
