//! What is attached: one file an attachment, written before its ADD, so that a DEL follows
//! whatever happens in between; afterwards with the result, which CHECK and DEL need.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hull_manager_core::{
    Error, Result,
    error::IoContext as _,
    files::{private_directory, remove_unfinished, write_atomic},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    network::{Network, Plugin},
    request::Attachment,
    version::Version,
};

/// The form of the files.
const FORM: u32 = 1;

/// One attachment. The configuration is that of its ADD, whatever became of the network's file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) network: Network,
    pub(crate) version: Version,
    pub(crate) attachment: Attachment,
    /// None: ADD has not ended, or has failed and its DEL too.
    pub(crate) result: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    form: u32,
    network: String,
    version: String,
    disable_check: bool,
    disable_gc: bool,
    plugins: Vec<Map<String, Value>>,
    attachment: Attachment,
    result: Option<Value>,
}

/// The directory of all entries.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        private_directory(directory, 0o700)?;
        remove_unfinished(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// An `@` is in no name of a network or container, so no two attachments share a file.
    fn path(&self, network: &str, container: &str, interface: &str) -> PathBuf {
        self.directory.join(format!("{network}@{container}@{interface}"))
    }

    fn path_of(&self, entry: &Entry) -> PathBuf {
        let attachment = &entry.attachment;
        self.path(&entry.network.name, &attachment.container_id, &attachment.interface)
    }

    pub(crate) fn write(&self, entry: &Entry) -> Result<()> {
        let file = File {
            form: FORM,
            network: entry.network.name.clone(),
            version: entry.version.to_string(),
            disable_check: entry.network.disable_check,
            disable_gc: entry.network.disable_gc,
            plugins: entry.network.plugins.iter().map(|plugin| plugin.fields.clone()).collect(),
            attachment: entry.attachment.clone(),
            result: entry.result.clone(),
        };
        let path = self.path_of(entry);
        let text = serde_json::to_vec(&file)
            .map_err(|error| Error::internal(path.display()).because(error))?;
        write_atomic(&path, &text, 0o600)
    }

    /// None: it is not attached.
    pub(crate) fn read(
        &self,
        network: &str,
        container: &str,
        interface: &str,
    ) -> Result<Option<Entry>> {
        read(&self.path(network, container, interface))
    }

    pub(crate) fn remove(&self, entry: &Entry) -> Result<()> {
        let path = self.path_of(entry);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).about(path.display())
            }
            _ => Ok(()),
        }
    }

    /// All entries. One that can't be read is passed over with a warning, so that it does not
    /// keep all others from being cleaned up.
    pub(crate) fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.directory).about(self.directory.display())? {
            let path = file.about(self.directory.display())?.path();
            // A temporary file of a writer that was killed has two dots more.
            if path.extension().is_some_and(|end| end == "tmp") {
                continue;
            }
            match read(&path) {
                Ok(entry) => entries.extend(entry),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(entries)
    }
}

fn read(path: &Path) -> Result<Option<Entry>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.about(path.display())?,
    };
    let corrupt = || Error::corrupt(format!("{} is not a record of an attachment", path.display()));
    let file: File = serde_json::from_slice(&bytes).map_err(|error| corrupt().because(error))?;
    let version: Version = file.version.parse()?;
    let plugins: Option<Vec<Plugin>> = file
        .plugins
        .into_iter()
        .map(|fields| Some(Plugin { kind: fields.get("type")?.as_str()?.to_owned(), fields }))
        .collect();
    let (FORM, Some(plugins)) = (file.form, plugins) else { return Err(corrupt()) };
    let network = Network {
        name: file.network,
        versions: vec![version],
        disable_check: file.disable_check,
        disable_gc: file.disable_gc,
        plugins,
    };
    Ok(Some(Entry { network, version, attachment: file.attachment, result: file.result }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(network: &str, container: &str, interface: &str) -> Entry {
        let text = json!({"name": network, "cniVersion": "1.0.0",
            "plugins": [{"type": "bridge", "x": 1}, {"type": "portmap"}]});
        Entry {
            network: Network::parse(text.to_string().as_bytes()).unwrap(),
            version: "1.0.0".parse().unwrap(),
            attachment: Attachment {
                container_id: container.into(),
                interface: interface.into(),
                args: vec![("A".into(), "1".into())],
                ..Attachment::default()
            },
            result: Some(json!({"ips": []})),
        }
    }

    #[test]
    fn entries_come_back_as_they_were_and_do_not_meet() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(&directory.path().join("cni")).unwrap();
        let entries =
            [entry("a-b", "c", "eth0"), entry("a", "b-c", "eth0"), entry("a", "b", "c-eth0")];
        for entry in &entries {
            cache.write(entry).unwrap();
        }
        assert_eq!(cache.list().unwrap().len(), 3);
        assert_eq!(cache.read("a", "b-c", "eth0").unwrap().as_ref(), Some(&entries[1]));
        cache.remove(&entries[1]).unwrap();
        cache.remove(&entries[1]).unwrap();
        assert_eq!(cache.read("a", "b-c", "eth0").unwrap(), None);
        assert_eq!(cache.list().unwrap().len(), 2);
    }

    #[test]
    fn a_broken_entry_is_named_and_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        cache.write(&entry("a", "b", "eth0")).unwrap();
        fs::write(directory.path().join("a@x@eth0"), "{").unwrap();
        fs::write(directory.path().join("a@y@eth0.7.tmp"), "{").unwrap();
        assert_eq!(cache.list().unwrap().len(), 1);
        let error = cache.read("a", "x", "eth0").unwrap_err().to_string();
        assert!(error.contains("a@x@eth0 is not a record"), "{error}");
    }
}
