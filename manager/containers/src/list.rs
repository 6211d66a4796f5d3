//! `ps`: containers by filter, the newest first.

use std::{sync::Arc, time::SystemTime};

pub(crate) use hull_manager_core::filter::moment;
use hull_manager_core::{
    Error, Result,
    filter::{Filters, Names},
};
use hull_specs_api::v1::{self, Status};

use crate::{Containers, Inner, connect, handle::Handle};

const KEYS: [&str; 16] = [
    "ancestor",
    "before",
    "since",
    "exited",
    "health",
    "id",
    "is-task",
    "label",
    "label!",
    "name",
    "status",
    "volume",
    "network",
    "publish",
    "expose",
    "isolation",
];

pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Removing => "removing",
        Status::Exited => "exited",
        Status::Dead | Status::Unspecified => "dead",
    }
}

/// What the filters mean for this list.
struct Selection {
    filters: Filters,
    all: bool,
    names: Names,
    exited: Vec<i32>,
    before: Option<SystemTime>,
    since: Option<SystemTime>,
    /// Ids of images, and the layers below which a container's must lie.
    ancestors: Vec<(String, Vec<String>)>,
}

/// What a container is, for a filter.
struct Candidate<'a> {
    container: &'a v1::Container,
    effective: &'a v1::ContainerOptions,
    created: SystemTime,
    ran: bool,
}

impl Selection {
    fn takes(&self, candidate: &Candidate<'_>, layers: impl FnOnce(&str) -> Vec<String>) -> bool {
        let Candidate { container, effective, created, ran } = *candidate;
        let filters = &self.filters;
        let state = container.state.clone().unwrap_or_default();
        let status = state.status();
        let live = matches!(status, Status::Running | Status::Paused | Status::Restarting);
        if !self.all && !live {
            return false;
        }
        let health = state.health.map_or("none".to_owned(), |health| health.status);
        let is_exited =
            || !live && status != Status::Created && ran && self.exited.contains(&state.exit_code);
        let has_mount = |wanted: &String| {
            container
                .mounts
                .iter()
                .any(|mount| mount.name == *wanted || mount.destination == *wanted)
        };
        let is_exposed = |wanted: &String| container.ports.iter().any(|port| is_in(port, wanted));
        let is_published = |wanted: &String| {
            let mut ports = container.published.iter();
            ports.any(|port| is_in(&format!("{}/{}", port.host_port, port.protocol), wanted))
        };
        let networks = connect::networks(container, effective);
        filters.any("id", |wanted| container.id.starts_with(wanted.as_str()))
            // Docker's names once began with a slash, which patterns may still say.
            && (self.names.have(&container.name)
                || self.names.have(&format!("/{}", container.name)))
            && filters.any("status", |wanted| wanted == status_word(status))
            && (!filters.has("exited") || is_exited())
            && filters.any("health", |wanted| *wanted == health)
            && filters.any("volume", has_mount)
            && filters.any("network", |wanted| networks.contains(&wanted.as_str()))
            && filters.any("expose", is_exposed)
            && filters.any("publish", is_published)
            && filters.any("is-task", |wanted| wanted == "false")
            && filters.labels(|key| container.labels.get(key))
            && self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && (!filters.has("ancestor") || self.descends(container, layers))
    }

    fn descends(
        &self,
        container: &v1::Container,
        layers: impl FnOnce(&str) -> Vec<String>,
    ) -> bool {
        if self.ancestors.iter().any(|(id, _)| *id == container.image_id) {
            return true;
        }
        let own = layers(&container.image_id);
        self.ancestors.iter().any(|(_, layers)| !layers.is_empty() && own.starts_with(layers))
    }
}

/// Whether a port, `80/tcp`, is one of a filter's: `80`, `80/udp`, `80-90/tcp`.
fn is_in(port: &str, wanted: &str) -> bool {
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok();
    let Some((own, own_protocol)) = port.split_once('/') else { return false };
    let inside = || Some(number(first)? <= number(own)? && number(own)? <= number(last)?);
    own_protocol == protocol && inside() == Some(true)
}

impl Inner {
    fn layers(&self, image: &str) -> Vec<String> {
        let layers =
            self.parts.images.resolve(image, "").map(|image| {
                image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect()
            });
        layers.unwrap_or_default()
    }

    fn select(&self, request: &v1::ListContainersRequest) -> Result<Selection> {
        let filters = Filters::parse(&request.filters, &KEYS)?;
        for (key, words) in [
            (
                "status",
                &["created", "restarting", "running", "removing", "paused", "exited", "dead"][..],
            ),
            ("health", &["starting", "healthy", "unhealthy", "none"]),
        ] {
            if let Some(bad) =
                filters.values(key).iter().find(|value| !words.contains(&value.as_str()))
            {
                return Err(Error::invalid(format!("invalid filter '{key}={bad}'")));
            }
        }
        filters.flag("is-task", false)?;
        if filters.has("isolation") {
            return Err(Error::invalid("invalid filter 'isolation': there is none on Linux"));
        }
        let number = |text: &String| {
            text.parse().map_err(|_| Error::invalid(format!("invalid filter 'exited={text}'")))
        };
        let exited = filters.values("exited").iter().map(number).collect::<Result<_>>()?;
        let of = |key: &str| {
            let other = filters.values(key).first().map(|text| self.find(text));
            other.transpose().map(|other| other.map(|other| other.created()))
        };
        let (before, since) = (of("before")?, of("since")?);
        let ancestors = filters
            .values("ancestor")
            .iter()
            // One that is not there has no descendants.
            .filter_map(|name| self.parts.images.resolve(name, "").ok())
            .map(|image| {
                let layers = image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
                (image.id.to_string(), layers)
            })
            .collect();
        let all = request.all || request.limit > 0 || filters.has("status");
        let names = filters.names()?;
        Ok(Selection { filters, all, names, exited, before, since, ancestors })
    }

    /// A container as it is shown.
    pub(crate) fn shown(&self, handle: &Handle) -> v1::Container {
        let record = handle.record();
        let mut container = record.container.clone();
        container.state = Some(handle.container_state());
        connect::fill(&mut container, handle.attached().as_ref());
        container
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// For a filter that is none.
    pub async fn list(
        &self,
        request: v1::ListContainersRequest,
    ) -> Result<v1::ListContainersResponse> {
        let selection = self.0.select(&request)?;
        let mut found: Vec<(SystemTime, Arc<Handle>)> =
            self.0.all().into_iter().map(|handle| (handle.created(), handle)).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
        let limit = match request.limit {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let mut containers = Vec::new();
        for (created, handle) in found {
            if containers.len() == limit {
                break;
            }
            let record = handle.record();
            let mut container = self.0.shown(&handle);
            let candidate = Candidate {
                container: &container,
                effective: &record.effective,
                created,
                ran: record.facts.started.is_some(),
            };
            if !selection.takes(&candidate, |image| self.0.layers(image)) {
                continue;
            }
            if request.size {
                self.0.measure(&mut container).await?;
            }
            containers.push(container);
        }
        Ok(v1::ListContainersResponse { containers })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn container(id: &str, status: Status, exit_code: i32) -> v1::Container {
        v1::Container {
            id: id.into(),
            name: format!("name-{id}"),
            image_id: "sha256:1".into(),
            labels: [("a".to_owned(), "1".to_owned())].into(),
            ports: vec!["80/tcp".into()],
            mounts: vec![v1::MountPoint {
                name: "vol".into(),
                destination: "/data".into(),
                ..Default::default()
            }],
            state: Some(v1::ContainerState {
                status: status.into(),
                exit_code,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn takes(pairs: &[(&str, &str)], all: bool, container: &v1::Container) -> bool {
        let filters: Vec<_> = pairs
            .iter()
            .map(|(key, value)| v1::Filter { key: (*key).into(), values: vec![(*value).into()] })
            .collect();
        let filters = Filters::parse(&filters, &KEYS).unwrap();
        let exited = filters.values("exited").iter().map(|text| text.parse().unwrap()).collect();
        let at = |key: &str| {
            filters
                .values(key)
                .first()
                .map(|text| UNIX_EPOCH + Duration::from_secs(text.parse().unwrap()))
        };
        let (before, since) = (at("before"), at("since"));
        let ancestors =
            filters.values("ancestor").iter().map(|id| (id.clone(), vec!["l1".into()])).collect();
        let names = filters.names().unwrap();
        let selection = Selection { filters, all, names, exited, before, since, ancestors };
        let effective = v1::ContainerOptions { network_mode: "none".into(), ..Default::default() };
        let created = UNIX_EPOCH + Duration::from_secs(100);
        let candidate = Candidate { container, effective: &effective, created, ran: true };
        selection.takes(&candidate, |_| vec!["l1".into(), "l2".into()])
    }

    #[test]
    fn filters_choose_as_dockers() {
        let mut running = container("abc", Status::Running, 0);
        running.endpoints = vec![v1::Endpoint {
            network: "web".into(),
            network_id: "n1".into(),
            ..Default::default()
        }];
        running.published = vec![v1::PublishedPort {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            ..Default::default()
        }];
        let exited = container("def", Status::Exited, 3);
        for (pairs, takes_running, takes_exited) in [
            (&[][..], true, true),
            (&[("id", "ab")], true, false),
            (&[("name", "name")], true, true),
            (&[("name", "^name-a")], true, false),
            (&[("name", "^/name-abc$")], true, false),
            (&[("name", "f$")], false, true),
            (&[("name", "^name-(abc|x+)$")], true, false),
            (&[("name", "E-D")], false, false),
            (&[("name", "(?i)E-D")], false, true),
            (&[("name", "^na.*[^c]$")], false, true),
            (&[("status", "exited")], false, true),
            (&[("status", "exited"), ("status", "running")], true, true),
            (&[("exited", "3")], false, true),
            (&[("exited", "0")], false, false),
            (&[("health", "none")], true, true),
            (&[("health", "healthy")], false, false),
            (&[("label", "a=1")], true, true),
            (&[("label", "a=2")], false, false),
            (&[("volume", "vol")], true, true),
            (&[("volume", "/data")], true, true),
            (&[("volume", "/dat")], false, false),
            (&[("network", "none")], false, true),
            (&[("network", "host")], false, false),
            (&[("expose", "80")], true, true),
            (&[("expose", "80/udp")], false, false),
            (&[("expose", "79-81/tcp")], true, true),
            (&[("expose", "x")], false, false),
            (&[("network", "web")], true, false),
            (&[("network", "n1")], true, false),
            (&[("publish", "80")], false, false),
            (&[("publish", "8080")], true, false),
            (&[("publish", "8080/udp")], false, false),
            (&[("publish", "8000-9000")], true, false),
            (&[("is-task", "false")], true, true),
            (&[("is-task", "true")], false, false),
            (&[("before", "100")], false, false),
            (&[("before", "101"), ("since", "99")], true, true),
            (&[("since", "100")], false, false),
            (&[("ancestor", "sha256:1")], true, true),
            (&[("ancestor", "sha256:2")], true, true),
        ] {
            assert_eq!(takes(pairs, true, &running), takes_running, "{pairs:?} running");
            assert_eq!(takes(pairs, true, &exited), takes_exited, "{pairs:?} exited");
        }
        assert!(takes(&[], false, &running) && !takes(&[], false, &exited));
    }
}
