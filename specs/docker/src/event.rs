//! Events: Docker's document, and the line of `docker events`.
#![expect(missing_docs, reason = "the fields are Docker's, documented in its API reference")]

use std::collections::BTreeMap;

use hull_specs_api::v1;
use serde::Serialize;

use crate::time;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Of containers and images, for clients of before API 1.22.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub scope: &'static str,
    /// Seconds.
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl From<&v1::Event> for Event {
    fn from(event: &v1::Event) -> Self {
        let at = event.time.unwrap_or_default();
        let old = matches!(event.r#type.as_str(), "container" | "image");
        let from = (event.r#type == "container").then(|| event.attributes.get("image").cloned());
        Self {
            status: old.then(|| event.action.clone()),
            id: old.then(|| event.actor.clone()),
            from: from.flatten(),
            kind: event.r#type.clone(),
            action: event.action.clone(),
            actor: Actor {
                id: event.actor.clone(),
                attributes: event.attributes.clone().into_iter().collect(),
            },
            scope: "local",
            time: at.seconds,
            time_nano: at.seconds.saturating_mul(1_000_000_000).saturating_add(at.nanos.into()),
        }
    }
}

/// `2026-11-21T17:00:14.546008409Z image tag sha256:… (name=busybox)`.
#[must_use]
pub fn line(event: &v1::Event) -> String {
    let attributes: BTreeMap<_, _> = event.attributes.iter().collect();
    let at = time::fixed(event.time.as_ref());
    let mut text = format!("{at} {} {} {}", event.r#type, event.action, event.actor);
    if !attributes.is_empty() {
        let list: Vec<_> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text.push_str(&format!(" ({})", list.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_and_line_are_those_of_docker() {
        let event = v1::Event {
            time: Some(prost_types::Timestamp { seconds: 1_795_280_414, nanos: 722_620_434 }),
            r#type: "container".into(),
            action: "create".into(),
            actor: "6ad3".into(),
            attributes: [("name", "one"), ("a", "b"), ("image", "busybox")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            sequence: 1,
        };
        assert_eq!(
            line(&event),
            "2026-11-21T17:00:14.722620434Z container create 6ad3 (a=b, image=busybox, name=one)"
        );
        assert_eq!(
            serde_json::to_string(&Event::from(&event)).unwrap(),
            r#"{"status":"create","id":"6ad3","from":"busybox","Type":"container","Action":"create","Actor":{"ID":"6ad3","Attributes":{"a":"b","image":"busybox","name":"one"}},"scope":"local","time":1795280414,"timeNano":1795280414722620434}"#
        );
    }
}
