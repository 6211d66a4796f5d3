//! `cp`, `diff`, `export`, `commit`: what is in a container's file system. Archives are read and
//! written by the confined worker, beneath a descriptor.

use std::{
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
    sync::Arc,
};

use hull_manager_archive::{
    ChangeKind, Options, Refused, Whiteouts, changes,
    worker::{self, Files, Job, Packing},
};
use hull_manager_core::{Error, Result, error::IoContext as _};
use hull_runtime_sys::path::is_directory;
use hull_specs_api::v1::{self, change::Kind, commit_response, copy_in_request, copy_out_response};
use hull_specs_image::ContainerConfig;
use tokio::sync::{OwnedRwLockReadGuard, mpsc};

use crate::{
    Answers, Containers, Inner, Messages,
    attach::ANSWERS,
    filesystem::{self, Place, Purpose},
    handle::{Handle, Request},
};

/// So much of an archive is sent at once.
const CHUNK: usize = 64 << 10;

/// What the runtime makes in every container's root to mount on: no change of the container's.
const MOUNT_POINTS: [&str; 14] = [
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
    "/etc",
    "/dev/fd",
    "/dev/stdin",
    "/run",
];

fn worker_failed(cause: anyhow::Error) -> Error {
    if cause.chain().any(|cause| cause.is::<Refused>()) {
        return Error::invalid(format!("{cause:#}"));
    }
    Error::from(cause)
}

/// Packs beneath a place and hands the archive on, until it ends or nobody takes it.
fn pack(place: &Place, job: &Job, mut put: impl FnMut(Vec<u8>) -> bool) -> Result<()> {
    let files = Files { root: place.root.as_fd(), base: None, input: None, output: None };
    let mut worker = worker::spawn_with_mounts(job, files, &place.mounts).map_err(worker_failed)?;
    if let Some(output) = &mut worker.output {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let n = output.take(CHUNK as u64).read_to_end(&mut chunk).about("the archive")?;
            if n == 0 {
                break;
            }
            if !put(chunk) {
                return Ok(());
            }
        }
    }
    worker.finish().map(drop).map_err(worker_failed)
}

fn job(place: &Place, name: &[u8], follow: bool) -> Job {
    let at = match place.below.as_os_str().is_empty() {
        true => b"/".to_vec(),
        false => place.below.as_os_str().as_bytes().to_vec(),
    };
    Job::Pack { at, name: name.to_vec(), follow, packing: Packing::Plain }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|cause| Error::internal("the request").because(cause))?
}

/// Changes that the container made: without mount points, and without directories in which
/// nothing else changed. Pure.
fn visible(found: Vec<v1::Change>, hidden: &[&str]) -> Vec<v1::Change> {
    let is_hidden = |change: &v1::Change| {
        change.kind() != Kind::Deleted
            && hidden.iter().any(|hidden| {
                change.path == *hidden
                    || change.kind() == Kind::Modified
                        && hidden
                            .strip_prefix(&change.path)
                            .is_some_and(|rest| rest.starts_with('/'))
            })
    };
    let kept: Vec<&v1::Change> = found.iter().filter(|change| !is_hidden(change)).collect();
    let has_changed_below = |directory: &str| {
        kept.iter().any(|other| {
            other.path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    found
        .iter()
        .filter(|change| !is_hidden(change) || has_changed_below(&change.path))
        .cloned()
        .collect()
}

impl Inner {
    fn changed(&self, handle: &Handle) -> Result<Vec<v1::Change>> {
        let found = self.parts.snapshots.changes(&handle.id)?;
        let list = changes(&found.source()).map_err(worker_failed)?;
        let list = list.into_iter().map(|change| v1::Change {
            kind: match change.kind {
                ChangeKind::Modified => Kind::Modified,
                ChangeKind::Added => Kind::Added,
                ChangeKind::Deleted => Kind::Deleted,
            }
            .into(),
            path: String::from_utf8_lossy(&change.path).into_owned(),
        });
        let record = handle.record();
        let mounts = record.effective.mounts.iter().map(|mount| mount.target.as_str());
        let hidden: Vec<&str> = MOUNT_POINTS.into_iter().chain(mounts).collect();
        Ok(visible(list.collect(), &hidden))
    }
}

/// While it is held, the container's root is not mounted anew.
async fn hold(handle: &Handle) -> OwnedRwLockReadGuard<()> {
    Arc::clone(&handle.root).read_owned().await
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// `Could not find the file …`.
    pub async fn copy_out(
        &self,
        request: v1::CopyOutRequest,
    ) -> Result<Answers<v1::CopyOutResponse>> {
        use copy_out_response::Part;
        let handle = self.find(&request.container)?;
        let guard = hold(&handle).await;
        let inner = Arc::clone(&self.0);
        let (opened, stat, request) = {
            let handle = Arc::clone(&handle);
            blocking(move || {
                let place = inner.place(&handle, &request.path, Purpose::Look)?;
                let stat = filesystem::stat(&place, &request.container, &request.path)?;
                Ok((place, stat, request))
            })
            .await?
        };
        self.0.event(&handle.record(), "archive-path", &[]);
        let (answers, answered) = mpsc::channel(ANSWERS);
        let inside = request.path.ends_with("/.") || request.path == ".";
        let name = match Path::new(&request.path).file_name() {
            Some(name) if !inside => name.as_bytes().to_vec(),
            _ => Vec::new(),
        };
        tokio::task::spawn_blocking(move || {
            let send =
                |part: Part| answers.blocking_send(Ok(v1::CopyOutResponse { part: Some(part) }));
            if send(Part::Stat(stat)).is_err() {
                return;
            }
            let follow = request.follow_link || filesystem::is_of_directory(&request.path);
            let job = job(&opened, &name, follow);
            if let Err(error) = pack(&opened, &job, |chunk| send(Part::Chunk(chunk)).is_ok()) {
                // Whoever asked may have gone.
                let _ = answers.blocking_send(Err(error));
            }
            drop(guard);
        });
        Ok(answered)
    }

    /// As in containers.proto. The first message is `open`.
    ///
    /// # Errors
    /// In docker's words; what is wrong with the archive.
    pub async fn copy_in(
        &self,
        mut messages: Messages<v1::CopyInRequest>,
    ) -> Result<v1::CopyInResponse> {
        use copy_in_request::Part;
        let Some(Part::Open(open)) = messages.recv().await.and_then(|message| message.part) else {
            return Err(Error::invalid("the first message of a copy must be open"));
        };
        let handle = self.find(&open.container)?;
        let guard = hold(&handle).await;
        let inner = Arc::clone(&self.0);
        let (copied, into) = (Arc::clone(&handle), open.path.clone());
        blocking(move || {
            let handle = copied;
            let place = inner.place(&handle, &open.path, Purpose::Change)?;
            if place.read_only {
                let what =
                    if place.below.as_os_str().is_empty() || handle.record().effective.read_only {
                        "container rootfs is marked read-only"
                    } else {
                        "mounted volume is marked read-only"
                    };
                return Err(Error::conflict(what));
            }
            // A link to a directory is one, too.
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let below =
                if place.below.as_os_str().is_empty() { Path::new(".") } else { &place.below };
            let links = hull_runtime_sys::path::Links::Follow;
            let at =
                hull_runtime_sys::path::open_in_root(place.root.as_fd(), below, flags, 0, links);
            match at {
                Ok(at)
                    if hull_runtime_sys::path::stat(&at).is_ok_and(|stat| is_directory(&stat)) => {}
                Err(error) if error.errno() == libc::ENOENT => {
                    return Err(Error::not_found(format!(
                        "Could not find the file {} in container {}",
                        open.path, open.container
                    )));
                }
                _ => return Err(Error::invalid("extraction point is not a directory")),
            }
            // Owners are the archive's, as with docker.
            let options = Options {
                ids: place.ids,
                whiteouts: Whiteouts::Keep,
                keep_kinds: open.no_overwrite_dir_non_dir,
                ..Options::default()
            };
            let job = Job::CopyIn { at: below.as_os_str().as_bytes().to_vec(), options };
            let files = Files { root: place.root.as_fd(), base: None, input: None, output: None };
            let mut worker =
                worker::spawn_with_mounts(&job, files, &place.mounts).map_err(worker_failed)?;
            while let Some(message) = messages.blocking_recv() {
                let (Some(Part::Chunk(chunk)), Some(input)) = (message.part, &mut worker.input)
                else {
                    return Err(Error::invalid("a second open in a copy"));
                };
                if input.write_all(&chunk).is_err() {
                    // The worker has given up; it says why.
                    break;
                }
            }
            drop(worker.input.take());
            let done = worker.finish().map(drop).map_err(worker_failed);
            drop(guard);
            done
        })
        .await?;
        self.0.event(&handle.record(), "extract-to-dir", &[("path", &into)]);
        Ok(v1::CopyInResponse {})
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`.
    pub async fn diff(&self, request: v1::DiffRequest) -> Result<v1::DiffResponse> {
        let handle = self.find(&request.container)?;
        let inner = Arc::clone(&self.0);
        let changes = blocking(move || inner.changed(&handle)).await?;
        Ok(v1::DiffResponse { changes })
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`.
    pub async fn export(&self, request: v1::ExportRequest) -> Result<Answers<v1::ExportResponse>> {
        let handle = self.find(&request.container)?;
        let guard = hold(&handle).await;
        let (inner, id) = (Arc::clone(&self.0), handle.id.clone());
        let (root, _) = blocking(move || inner.root(&id, Purpose::Look)).await?;
        self.0.event(&handle.record(), "export", &[]);
        let (answers, answered) = mpsc::channel(ANSWERS);
        tokio::task::spawn_blocking(move || {
            // As docker: without what is mounted.
            let mounts = Vec::new();
            let place = Place { root, below: "".into(), read_only: true, ids: None, mounts };
            let put = |chunk| answers.blocking_send(Ok(v1::ExportResponse { chunk })).is_ok();
            if let Err(error) = pack(&place, &job(&place, b"", false), put) {
                // Whoever asked may have gone.
                let _ = answers.blocking_send(Err(error));
            }
            drop(guard);
        });
        Ok(answered)
    }

    /// As in containers.proto.
    ///
    /// # Errors
    /// If a change is not understood.
    pub async fn commit(&self, request: v1::CommitRequest) -> Result<Answers<v1::CommitResponse>> {
        use commit_response::Event;
        let handle = self.find(&request.container)?;
        let record = handle.record();
        let commit = hull_manager_images::Commit {
            parent: record.container.image_id.parse().ok(),
            snapshot: handle.id.clone(),
            container: handle.id.clone(),
            config: config(&record.effective),
            reference: request.reference,
            author: request.author,
            message: request.message,
            changes: request.changes,
        };
        let inner = Arc::clone(&self.0);
        let (answers, answered) = mpsc::channel(ANSWERS);
        tokio::spawn(async move {
            let paused = request.pause
                && handle.now().status == v1::Status::Running
                && handle.order(Request::Pause { for_commit: true }, &handle.id).await.is_ok();
            let (progress, mut steps) = mpsc::channel(ANSWERS);
            let relayed = answers.clone();
            let relay = async move {
                while let Some(step) = steps.recv().await {
                    let event = Some(Event::Progress(step));
                    // Nobody watches: the image is made all the same.
                    let _ = relayed.send(Ok(v1::CommitResponse { event })).await;
                }
            };
            let (made, ()) = tokio::join!(inner.parts.images.commit(commit, progress), relay);
            // Somebody else may have set it going meanwhile, and stopped it again for himself.
            let paused = paused && handle.record().facts.paused_for_commit;
            if paused && let Err(error) = handle.order(Request::Unpause, &handle.id).await {
                tracing::warn!(container = %handle.id, %error, "not unpaused after a commit");
            }
            let last = made.map(|id| {
                let id = id.to_string();
                inner.event(&handle.record(), "commit", &[("imageID", &id)]);
                v1::CommitResponse { event: Some(Event::ImageId(id)) }
            });
            let _ = answers.send(last).await;
        });
        Ok(answered)
    }
}

/// How the container runs, as an image says it.
fn config(options: &v1::ContainerOptions) -> ContainerConfig {
    let set = |keys: Vec<String>| {
        keys.into_iter()
            .map(|key| (key, serde_json::Value::Object(serde_json::Map::new())))
            .collect()
    };
    let nanoseconds = |time: Option<prost_types::Duration>| {
        let time =
            time.and_then(|time| std::time::Duration::try_from(time).ok()).unwrap_or_default();
        i64::try_from(time.as_nanos()).unwrap_or(0)
    };
    let volumes =
        options.mounts.iter().filter(|mount| mount.r#type == i32::from(v1::mount::Type::Volume));
    ContainerConfig {
        user: options.user.clone(),
        exposed_ports: set(options.expose.clone()),
        env: options.env.clone(),
        entrypoint: options.entrypoint.clone().unwrap_or_default().words,
        cmd: options.command.clone(),
        healthcheck: options.health.as_ref().map(|health| hull_specs_image::Health {
            test: health.test.clone(),
            interval: nanoseconds(health.interval),
            timeout: nanoseconds(health.timeout),
            start_period: nanoseconds(health.start_period),
            start_interval: nanoseconds(health.start_interval),
            retries: i64::from(health.retries),
        }),
        volumes: set(volumes.map(|mount| mount.target.clone()).collect()),
        working_dir: options.working_dir.clone(),
        labels: options.labels.clone().into_iter().collect(),
        stop_signal: options.stop_signal.clone(),
        ..ContainerConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_no_changes_but_what_is_beside_them_is() {
        let change = |kind: Kind, path: &str| v1::Change { kind: kind.into(), path: path.into() };
        let (m, a, d) = (Kind::Modified, Kind::Added, Kind::Deleted);
        let hidden = ["/etc", "/etc/hosts", "/proc", "/srv/data"];
        let found = vec![
            change(m, "/etc"),
            change(a, "/etc/hosts"),
            change(a, "/etc/mine"),
            change(a, "/proc"),
            change(a, "/srv"),
            change(a, "/srv/data"),
            change(m, "/var"),
            change(d, "/var/x"),
        ];
        let shown: Vec<String> = visible(found, &hidden).into_iter().map(|c| c.path).collect();
        assert_eq!(shown, ["/etc", "/etc/mine", "/srv", "/var", "/var/x"]);
        let untouched = vec![change(m, "/etc"), change(a, "/etc/hosts"), change(a, "/proc")];
        assert!(visible(untouched, &hidden).is_empty());
        let removed = vec![change(m, "/etc"), change(d, "/etc/hosts")];
        assert_eq!(visible(removed, &hidden).len(), 2);
    }
}
