//! `docker image inspect`.
#![expect(missing_docs, reason = "the fields are Docker's, documented in its API reference")]

use std::collections::BTreeMap;

use hull_specs_api::v1;
use hull_specs_image::{ImageConfig, Reference};
use serde::Serialize;

use crate::{
    container::{Config, GraphDriver},
    time,
};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub parent: String,
    pub comment: String,
    pub created: String,
    pub docker_version: String,
    pub author: String,
    pub config: Config,
    pub architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    pub os: String,
    pub size: u64,
    pub virtual_size: u64,
    pub graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: Metadata,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFs {
    #[serde(rename = "Type")]
    pub kind: String,
    pub layers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metadata {
    pub last_tag_time: String,
}

/// The document of an image.
///
/// # Errors
/// If the configuration that came with it is not one.
pub fn inspect(answer: &v1::InspectImageResponse) -> Result<Image, serde_json::Error> {
    let config: ImageConfig = serde_json::from_slice(&answer.config_json)?;
    let summary = answer.summary.clone().unwrap_or_default();
    Ok(Image {
        id: summary.id,
        repo_tags: summary.references.iter().map(|reference| familiar(reference)).collect(),
        repo_digests: summary.repo_digests.iter().map(|reference| familiar(reference)).collect(),
        parent: summary.parent_id,
        comment: config.comment.clone(),
        created: config.created.clone().unwrap_or_else(|| time::ZERO.to_owned()),
        docker_version: config.docker_version.clone(),
        author: config.author.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        size: summary.size_bytes,
        virtual_size: summary.size_bytes,
        graph_driver: GraphDriver {
            data: answer.snapshot_data.clone().into_iter().collect(),
            name: answer.snapshotter.clone(),
        },
        root_fs: RootFs {
            kind: config.rootfs.kind.clone(),
            layers: config.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: Metadata { last_tag_time: time::nano(answer.last_tagged.as_ref()) },
        config: Config::of_image(config),
    })
}

/// A reference as people write it; as it is, if it isn't one.
#[must_use]
pub fn familiar(reference: &str) -> String {
    reference.parse::<Reference>().map_or_else(|_| reference.to_owned(), |name| name.familiar())
}

/// The name without the tag and the tag, or the name and the digest, as tables have them.
#[must_use]
pub fn repository_and_tag(reference: &str) -> (String, String) {
    match reference.parse::<Reference>() {
        Ok(name) => (name.familiar_name(), name.tag().unwrap_or("<none>").to_owned()),
        Err(_) => (reference.to_owned(), "<none>".to_owned()),
    }
}

impl Config {
    fn of_image(config: ImageConfig) -> Self {
        let of = config.config;
        Self {
            user: of.user,
            exposed_ports: of.exposed_ports,
            env: some(of.env),
            cmd: some(of.cmd),
            healthcheck: of.healthcheck,
            volumes: (!of.volumes.is_empty()).then_some(of.volumes),
            working_dir: of.working_dir,
            entrypoint: some(of.entrypoint),
            on_build: some(of.on_build),
            labels: (!of.labels.is_empty()).then_some(of.labels),
            stop_signal: of.stop_signal,
            stop_timeout: of.stop_timeout,
            shell: of.shell,
            ..Self::default()
        }
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Sets as Go marshals them: keys with empty objects.
pub(crate) fn set(keys: impl IntoIterator<Item = String>) -> BTreeMap<String, serde_json::Value> {
    keys.into_iter().map(|key| (key, serde_json::json!({}))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_told_as_docker_tells_it() {
        let answer = v1::InspectImageResponse {
            summary: Some(v1::ImageSummary {
                id: "sha256:ab".into(),
                references: vec!["docker.io/library/busybox:latest".into()],
                size_bytes: 5,
                ..v1::ImageSummary::default()
            }),
            config_json: br#"{"architecture":"amd64","os":"linux","created":"2026-11-21T17:00:14Z",
                "comment":"hello","config":{"Env":["PATH=/bin"],"Cmd":["sh"],"Labels":null},
                "rootfs":{"type":"layers","diff_ids":[]}}"#
                .to_vec(),
            snapshotter: "overlay".into(),
            ..v1::InspectImageResponse::default()
        };
        let json = serde_json::to_value(inspect(&answer).unwrap()).unwrap();
        assert_eq!(json["RepoTags"], serde_json::json!(["busybox:latest"]));
        assert_eq!(json["Config"]["Cmd"], serde_json::json!(["sh"]));
        assert_eq!(json["Config"]["Entrypoint"], serde_json::Value::Null);
        assert_eq!(json["RootFS"]["Type"], "layers");
        assert_eq!(json["Metadata"]["LastTagTime"], time::ZERO);
        assert!(inspect(&v1::InspectImageResponse::default()).is_err());
    }

    #[test]
    fn references_for_tables() {
        for (reference, name, tag) in [
            ("docker.io/library/busybox:latest", "busybox", "latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b", "1"),
        ] {
            assert_eq!(repository_and_tag(reference), (name.to_owned(), tag.to_owned()));
        }
    }
}
