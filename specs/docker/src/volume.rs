//! `docker volume inspect`.
#![expect(missing_docs, reason = "the fields are Docker's, documented in its API reference")]

use std::collections::BTreeMap;

use hull_specs_api::v1;
use serde::Serialize;

use crate::time;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    pub created_at: String,
    pub driver: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub mountpoint: String,
    pub name: String,
    pub options: Option<BTreeMap<String, String>>,
    pub scope: String,
}

impl From<&v1::Volume> for Volume {
    fn from(volume: &v1::Volume) -> Self {
        let map = |map: &std::collections::HashMap<String, String>| {
            (!map.is_empty()).then(|| map.clone().into_iter().collect())
        };
        // Docker marks an anonymous volume by a label, which users filter by.
        let mut labels: Option<BTreeMap<_, _>> = map(&volume.labels);
        if volume.anonymous {
            labels
                .get_or_insert_default()
                .insert("com.docker.volume.anonymous".to_owned(), String::new());
        }
        Self {
            created_at: time::seconds(volume.created.as_ref()),
            driver: volume.driver.clone(),
            labels,
            mountpoint: volume.mountpoint.clone(),
            name: volume.name.clone(),
            options: map(&volume.options),
            scope: "local".to_owned(),
        }
    }
}
