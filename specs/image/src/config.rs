//! The image's configuration, as the OCI image specification and Docker write it.
//!
//! An image's id is the digest of these bytes, so a configuration that was read is kept as bytes;
//! these types are for acting on it and for writing a new one. Docker's further fields are here
//! because images use them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, Platform};

/// The most bytes of a configuration that are read.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// The configuration of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `amd64`, …
    pub architecture: String,
    /// How its containers run.
    #[serde(default, deserialize_with = "nullable")]
    pub config: ContainerConfig,
    /// When it was made: RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A commit's message (Docker).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The container it was committed from (Docker).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// What made it (Docker).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub docker_version: String,
    /// The steps that made it, the oldest first.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// `linux`.
    pub os: String,
    /// The layers.
    pub rootfs: RootFs,
    /// `v8`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl ImageConfig {
    /// What the image is for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }
}

/// How containers of an image run, unless told otherwise. Keys of maps that Go has as sets have
/// empty objects as values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// `KEY=VALUE`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Goes before the command.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Windows only (Docker).
    #[serde(skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// How to see whether it works (Docker).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Health>,
    /// Directories that are volumes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Where the process begins.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free words.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that ends it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds (Docker).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// For images made from this one (Docker).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// What runs shell forms (Docker).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

/// A health check; times in nanoseconds, 0 for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", line]`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// In which failures don't count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between checks in it.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// So many failures in a row are unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// A step that made the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It made no layer.
    #[serde(skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

/// The layers of an image: the digests of what they unpack from, the lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of the tars, not compressed.
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

impl RootFs {
    /// The chain id of each layer: it names the layer on top of all below it (OCI image
    /// specification, layer chain id).
    #[must_use]
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            chain.push(match chain.last() {
                None => *diff_id,
                Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
            });
        }
        chain
    }
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_docker_is_read() {
        let json = r#"{"architecture":"amd64","os":"linux","created":"2023-05-18T22:34:17Z",
            "config":{"Cmd":["sh"],"Env":["PATH=/bin"],"Entrypoint":null,"Volumes":{"/data":{}},
                      "Healthcheck":{"Test":["CMD","true"],"Interval":1000000000},"OnBuild":null},
            "history":[{"created_by":"x","empty_layer":true}],
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let config: ImageConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.entrypoint.is_empty());
        assert_eq!(config.config.volumes.keys().collect::<Vec<_>>(), ["/data"]);
        assert_eq!(config.platform().to_string(), "linux/amd64");
        assert!(
            serde_json::from_str::<ImageConfig>(
                &json.replace(r#""config":{"#, r#""config":null,"x":{"#)
            )
            .is_ok()
        );
    }

    #[test]
    fn chain_ids_are_the_specifications() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = RootFs { kind: "layers".into(), diff_ids: vec![a, b] }.chain_ids();
        assert_eq!(chain, [a, Digest::of(format!("{a} {b}").as_bytes())]);
    }
}
