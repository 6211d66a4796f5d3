//! `oci-layout` and `index.json`.

use std::{fs, io::ErrorKind, path::Path};

use hull_manager_core::{Error, Result, error::IoContext as _, files};
use hull_specs_image::{Descriptor, Index, media_type};
use serde::{Deserialize, Serialize};

use crate::Content;

const VERSION: &str = "1.0.0";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// Makes the layout's files, or looks whether they are of this version.
pub(crate) fn open(root: &Path) -> Result<()> {
    let path = root.join("oci-layout");
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            write_index(root, Vec::new())?;
            let layout = Layout { image_layout_version: VERSION.into() };
            files::write_atomic(&path, &json(&layout)?, 0o600)
        }
        Err(error) => Err(error).about(path.display()),
        Ok(bytes) => match serde_json::from_slice::<Layout>(&bytes) {
            Ok(layout) if layout.image_layout_version == VERSION => Ok(()),
            Ok(layout) => Err(Error::conflict(format!(
                "{} is of version {:?}, this is {VERSION}",
                path.display(),
                layout.image_layout_version
            ))),
            Err(cause) => Err(Error::corrupt(path.display()).because(cause)),
        },
    }
}

fn write_index(root: &Path, manifests: Vec<Descriptor>) -> Result<()> {
    files::write_atomic(&root.join("index.json"), &json(&index(manifests))?, 0o600)
}

fn index(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: media_type::INDEX.into(),
        manifests,
        annotations: std::collections::BTreeMap::default(),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| Error::internal("write JSON").because(cause))
}

impl Content {
    /// Rewrites `index.json`; `manifests` is asked for what to list once nobody else writes, so
    /// that the last of two writers writes the later state.
    ///
    /// # Errors
    /// If the disk refuses, or `manifests` does.
    pub fn write_index(&self, manifests: impl FnOnce() -> Result<Vec<Descriptor>>) -> Result<()> {
        let _one = crate::lease::lock(&self.shared.index);
        write_index(&self.shared.root, manifests()?)
    }

    /// Whether `index.json` lists exactly this.
    #[must_use]
    pub fn index_lists(&self, manifests: Vec<Descriptor>) -> bool {
        let _one = crate::lease::lock(&self.shared.index);
        fs::read(self.shared.root.join("index.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok())
            .is_some_and(|found| found == index(manifests))
    }
}
