//! `hull.v1.System`: the manager itself. It stands here because it asks every part.

use std::{
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use hull_manager_api::{Answers, status};
use hull_manager_core::{Error, Result, filter::Filters, journal::Listener};
use hull_specs_api::v1::{self, system_server::System};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tonic::{Request, Response, Status};

use crate::{
    host,
    metrics::{Family, Kind, Source},
    wire::Parts,
};

/// Events read from the journal at once.
const BATCH: u32 = 500;

/// Answers for the manager.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Parts>);

#[tonic::async_trait]
impl System for Service {
    async fn ping(
        &self,
        _: Request<v1::PingRequest>,
    ) -> Result<Response<v1::PingResponse>, Status> {
        Ok(Response::new(v1::PingResponse {}))
    }

    async fn version(
        &self,
        _: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        let parts = Arc::clone(&self.0);
        let config = parts.config();
        let runtime = config.runtimes.get(&config.default_runtime).cloned().unwrap_or_default();
        Ok(Response::new(v1::VersionResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            apis: vec!["hull.v1".into()],
            commit: option_env!("HULL_COMMIT").unwrap_or_default().into(),
            os: std::env::consts::OS.into(),
            architecture: hull_specs_image::Platform::host().architecture,
            kernel: host::kernel(),
            shim_version: host::version_of(&config.shim, &["-v"]).await,
            runtime_version: host::version_of(&runtime, &["--version"]).await,
        }))
    }

    async fn info(
        &self,
        _: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
        info(&self.0).await.map(Response::new).map_err(status)
    }

    type EventsStream = Answers<v1::Event>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let (parts, request) = (Arc::clone(&self.0), request.into_inner());
        let wanted = Wanted::parse(&request).map_err(status)?;
        Ok(Answers::of(|queue| async move { wanted.send(&parts, queue).await }))
    }

    async fn disk_usage(
        &self,
        _: Request<v1::DiskUsageRequest>,
    ) -> Result<Response<v1::DiskUsageResponse>, Status> {
        disk_usage(&self.0).await.map(Response::new).map_err(status)
    }

    type CheckStream = Answers<v1::CheckResponse>;

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        let (parts, repair) = (Arc::clone(&self.0), request.into_inner().repair);
        Ok(Answers::of(|queue| async move { check(&parts, repair, &queue).await }))
    }
}

async fn info(parts: &Parts) -> Result<v1::InfoResponse> {
    let counts = parts.containers.counts();
    let images = parts.images.list(v1::ListImagesRequest::default()).await?.images.len();
    let config = parts.config();
    let (data_root, exec_root) =
        (config.data_root.display().to_string(), config.exec_root.display().to_string());
    Ok(v1::InfoResponse {
        id: parts.id.clone(),
        name: host::name(),
        containers: counts.running + counts.paused + counts.stopped,
        containers_running: counts.running,
        containers_paused: counts.paused,
        containers_stopped: counts.stopped,
        images: u32::try_from(images).unwrap_or(u32::MAX),
        storage_driver: parts.snapshotter.name().into(),
        data_root,
        exec_root,
        default_runtime: config.default_runtime.clone(),
        runtimes: config.runtimes.keys().cloned().collect(),
        log_driver: config.log_driver.clone(),
        log_drivers: crate::config::LOG_DRIVERS.map(Into::into).to_vec(),
        cgroup_version: host::cgroup_version().into(),
        cgroup_driver: if config.systemd_cgroups { "systemd" } else { "cgroupfs" }.into(),
        kernel: host::kernel(),
        operating_system: host::operating_system(),
        architecture: std::env::consts::ARCH.into(),
        cpus: u32::try_from(std::thread::available_parallelism().map_or(1, usize::from))
            .unwrap_or(1),
        memory_bytes: host::memory_bytes(),
        registry_mirrors: config.registry_mirrors.clone(),
        insecure_registries: config.insecure_registries.clone(),
        security_options: host::security_options(),
        labels: config.labels.clone(),
        debug: config.log_level >= tracing::Level::DEBUG,
        version: env!("CARGO_PKG_VERSION").into(),
        warnings: host::warnings(),
        cdi_spec_dirs: crate::wire::CDI_DIRS.map(Into::into).to_vec(),
        network_drivers: crate::networks::DRIVERS.map(Into::into).to_vec(),
        system_time: Some(SystemTime::now().into()),
        backing_file_system: host::file_system(&config.data_root),
        os_version: host::os_version(),
    })
}

async fn disk_usage(parts: &Parts) -> Result<v1::DiskUsageResponse> {
    use v1::disk_usage_response::Item;
    let volumes = parts.volumes.clone();
    // A volume is as large as a container makes it.
    let measured = tokio::task::spawn_blocking(move || {
        let mut items = Vec::new();
        for volume in volumes.list(&v1::ListVolumesRequest::default())?.volumes {
            items.push(Item {
                size_bytes: volumes.size(&volume.name)?,
                id: volume.name.clone(),
                name: volume.name,
                in_use: !volume.containers.is_empty(),
            });
        }
        Ok::<_, Error>(items)
    });
    Ok(v1::DiskUsageResponse {
        images: Some(parts.images.usage().await?),
        containers: parts.containers.disk_usage().await?,
        volumes: measured.await.map_err(Error::internal)??,
        content_bytes: parts.images.content_bytes().await?,
    })
}

/// Everything that has a check is asked; what is wrong is told as it is found.
async fn check(
    parts: &Arc<Parts>,
    repair: bool,
    queue: &mpsc::Sender<v1::CheckResponse>,
) -> Result<()> {
    use v1::check_response::Event;
    let tell = async |event| {
        let gone = |_| Error::cancelled("the client is gone");
        queue.send(v1::CheckResponse { event: Some(event) }).await.map_err(gone)
    };
    let mut findings = Vec::new();
    for problem in parts.store.check()? {
        findings.push(v1::Finding {
            subject: "metadata store".into(),
            problem,
            repaired: String::new(),
        });
    }
    let checked = parts.images.check(repair).await?;
    findings.extend(checked.findings);
    let worker = Arc::clone(parts);
    let on_disk = tokio::task::spawn_blocking(move || worker.check_snapshots(repair));
    let (snapshots, found) = on_disk.await.map_err(Error::internal)??;
    findings.extend(found);
    findings.extend(parts.containers.check(repair).await?);
    let counts = parts.containers.counts();
    let summary = v1::CheckSummary {
        blobs: checked.blobs,
        images: checked.images,
        snapshots,
        containers: u64::from(counts.running + counts.paused + counts.stopped),
        findings: findings.len() as u64,
        repaired: findings.iter().filter(|finding| !finding.repaired.is_empty()).count() as u64,
    };
    for finding in findings {
        tell(Event::Finding(finding)).await?;
    }
    tell(Event::Summary(summary)).await
}

/// What an event can be about and is asked for by; of swarm's there is none here.
const KINDS: [&str; 9] =
    ["container", "image", "volume", "network", "daemon", "plugin", "service", "node", "secret"];

/// The name of an image without its tag, which finds all of them.
fn untagged(name: &str) -> &str {
    match name.rsplit_once(':') {
        // A colon before a slash is a port's.
        Some((repository, tag)) if !tag.contains('/') && !name.contains('@') => repository,
        _ => name,
    }
}

/// What a client wants to hear of.
struct Wanted {
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    filters: Filters,
}

impl Wanted {
    fn parse(request: &v1::EventsRequest) -> Result<Self> {
        let others = ["event", "type", "label", "scope"];
        let keys: Vec<&str> = KINDS.into_iter().chain(others).collect();
        let time = |time: &Option<_>| -> Result<Option<SystemTime>> {
            let time: Option<prost_types::Timestamp> = *time;
            time.map(SystemTime::try_from)
                .transpose()
                .map_err(|_| Error::invalid("a time out of range"))
        };
        Ok(Self {
            since: time(&request.since)?,
            until: time(&request.until)?,
            filters: Filters::parse(&request.filters, &keys)?,
        })
    }

    fn wants(&self, event: &v1::Event) -> bool {
        let is = |key: &str, value: &str| self.filters.any(key, |wanted| wanted == value);
        // A thing is named by its id, the start of it, or its name.
        let about = |key: &str| {
            !self.filters.has(key)
                || self.filters.values(key).iter().any(|wanted| {
                    // An image is also what its containers tell of.
                    let image = |attribute: &str| {
                        let name = event.attributes.get(attribute);
                        name.is_some_and(|name| name == wanted || untagged(name) == wanted)
                    };
                    (key == "image" && event.r#type == "container" && image("image"))
                        || event.r#type == key
                            && (event.actor.starts_with(wanted.as_str())
                                || event.attributes.get("name") == Some(wanted)
                                || key == "image" && image("name"))
                })
        };
        // "exec_create: sh -c true" is found by "exec_create".
        let action = event.action.split(':').next().unwrap_or_default();
        is("type", &event.r#type)
            && (is("event", action) || is("event", &event.action))
            // All that happens here happens on this host.
            && is("scope", "local")
            && KINDS.into_iter().all(about)
            && self.filters.labels(|key| event.attributes.get(key))
    }

    /// First what was, if asked for, then what is, until the time given.
    async fn send(self, parts: &Parts, queue: mpsc::Sender<v1::Event>) -> Result<()> {
        // Listening begins before the journal is read, so that nothing falls between.
        let mut listener = parts.journal.listen();
        let mut last = 0;
        if let Some(since) = self.since.or(self.until.map(|_| UNIX_EPOCH)) {
            last = self.send_kept(parts, &queue, since, 0).await?;
        }
        let mut end: Pin<Box<dyn Future<Output = ()> + Send>> = match self.until {
            Some(until) => match until.duration_since(SystemTime::now()) {
                Ok(left) => Box::pin(tokio::time::sleep(left)),
                Err(_) => return Ok(()),
            },
            None => Box::pin(std::future::pending()),
        };
        loop {
            let next = tokio::select! {
                next = self.next(parts, &mut listener, &queue, &mut last) => next,
                () = &mut end => return Ok(()),
                () = queue.closed() => return Ok(()),
            };
            match next? {
                Some(event) if event.sequence > last || event.sequence == 0 => {
                    last = last.max(event.sequence);
                    if self.wants(&event) && queue.send(event).await.is_err() {
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }

    /// The next event that is heard. A listener that fell behind reads what it missed.
    async fn next(
        &self,
        parts: &Parts,
        listener: &mut Listener,
        queue: &mpsc::Sender<v1::Event>,
        last: &mut u64,
    ) -> Result<Option<v1::Event>> {
        loop {
            match listener.recv().await {
                Ok(event) => return Ok(Some(event)),
                Err(RecvError::Lagged(_)) => {
                    *last = self.send_kept(parts, queue, UNIX_EPOCH, *last).await?
                }
                Err(RecvError::Closed) => return Ok(None),
            }
        }
    }

    /// Sends what the journal has after `last`; the place of the last that it has.
    async fn send_kept(
        &self,
        parts: &Parts,
        queue: &mpsc::Sender<v1::Event>,
        since: SystemTime,
        mut last: u64,
    ) -> Result<u64> {
        loop {
            let kept = parts.journal.after(last, since, BATCH)?;
            let Some(newest) = kept.last() else { return Ok(last) };
            last = newest.sequence;
            for event in kept {
                let time = event.time.and_then(|time| SystemTime::try_from(time).ok());
                if self.until.is_some_and(|until| time.is_some_and(|time| time > until)) {
                    return Ok(last);
                }
                if self.wants(&event) && queue.send(event).await.is_err() {
                    return Ok(last);
                }
            }
        }
    }
}

impl Source for Service {
    async fn families(&self) -> Vec<Family> {
        let counts = self.0.containers.counts();
        let state = |state: &str, count: u32| (format!("state=\"{state}\""), f64::from(count));
        let single = |value: f64| vec![(String::new(), value)];
        let images = self.0.images.list(v1::ListImagesRequest::default()).await;
        vec![
            Family {
                name: "hull_containers",
                kind: Kind::Gauge,
                help: "Containers by state.",
                samples: vec![
                    state("running", counts.running),
                    state("paused", counts.paused),
                    state("stopped", counts.stopped),
                ],
            },
            Family {
                name: "hull_images",
                kind: Kind::Gauge,
                help: "Images.",
                samples: images.map_or_else(
                    |_| Vec::new(),
                    |list| single(f64::from(u32::try_from(list.images.len()).unwrap_or(u32::MAX))),
                ),
            },
            Family {
                name: "hull_process_resident_memory_bytes",
                kind: Kind::Gauge,
                help: "Resident memory of the manager.",
                samples: host::resident_bytes().map_or_else(Vec::new, single),
            },
            Family {
                name: "hull_process_cpu_seconds",
                kind: Kind::Counter,
                help: "Processor time of the manager.",
                samples: host::cpu_seconds().map_or_else(Vec::new, single),
            },
            Family {
                name: "hull_info",
                kind: Kind::Gauge,
                help: "The manager's version.",
                samples: vec![(format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0)],
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, actor: &str, attributes: &[(&str, &str)]) -> v1::Event {
        v1::Event {
            r#type: kind.into(),
            action: action.into(),
            actor: actor.into(),
            attributes: attributes
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            ..Default::default()
        }
    }

    fn wanted(filters: &[(&str, &str)]) -> Wanted {
        let filters = filters
            .iter()
            .map(|(key, value)| v1::Filter { key: (*key).into(), values: vec![(*value).into()] })
            .collect();
        Wanted::parse(&v1::EventsRequest { filters, ..Default::default() }).unwrap()
    }

    #[test]
    fn filters_of_one_key_are_alternatives_and_of_several_are_all_needed() {
        let die = event(
            "container",
            "die",
            "abc123",
            &[("name", "web"), ("image", "busybox"), ("a", "1")],
        );
        let tagged = event("container", "start", "def", &[("image", "host:5000/app:2")]);
        let health = event("container", "health_status: healthy", "def", &[]);
        for (filters, event, wants) in [
            (&[("image", "host:5000/app")][..], &tagged, true),
            (&[("image", "host:5000/app:2")], &tagged, true),
            (&[("image", "host")], &tagged, false),
            (&[("event", "health_status")], &health, true),
            (&[("event", "health_status: healthy")], &health, true),
            (&[("event", "health_status: unhealthy")], &health, false),
        ] {
            assert_eq!(wanted(filters).wants(event), wants, "{filters:?}");
        }
        let exec = event("container", "exec_create: sh", "abc123", &[("name", "web")]);
        for (filters, on_die, on_exec) in [
            (&[][..], true, true),
            (&[("event", "die")], true, false),
            (&[("event", "die"), ("event", "exec_create")], true, true),
            (&[("type", "image")], false, false),
            (&[("container", "web")], true, true),
            (&[("container", "abc")], true, true),
            (&[("container", "other")], false, false),
            (&[("image", "busybox")], true, false),
            (&[("label", "a=1")], true, false),
            (&[("container", "web"), ("event", "start")], false, false),
            (&[("scope", "local")], true, true),
            (&[("scope", "swarm")], false, false),
            (
                &[("scope", "local"), ("type", "container"), ("label", "a"), ("event", "die")],
                true,
                false,
            ),
            (&[("type", "container"), ("type", "image"), ("event", "exec_create")], false, true),
            (&[("label", "a=2")], false, false),
            (&[("node", "abc")], false, false),
        ] {
            let wanted = wanted(filters);
            assert_eq!((wanted.wants(&die), wanted.wants(&exec)), (on_die, on_exec), "{filters:?}");
        }
    }
}
