//! containerd's options for runc and what takes its place, as they come with a task.

use anyhow::{Context, Result, bail};
use containerd_shim_protos::shim::oci::Options;
use protobuf::{Message, UnknownValueRef, well_known_types::any::Any};
use serde::{Deserialize, Serialize};

/// The type's name in an `Any`, whatever prefix its URL has.
const NAME: &str = "containerd.runc.v1.Options";

/// Written to the bundle, for `delete` after the shim's death; containerd's names.
pub(crate) const FILE: &str = "options.json";

/// Most of that file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What of containerd's options concerns a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeOptions {
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) shim_cgroup: String,
    pub(crate) io_uid: u32,
    pub(crate) io_gid: u32,
    pub(crate) binary_name: String,
    pub(crate) root: String,
    pub(crate) criu_path: String,
    pub(crate) systemd_cgroup: bool,
    pub(crate) criu_work_path: String,
}

impl RuntimeOptions {
    /// Takes the options out of an `Any`; an empty one means the defaults.
    ///
    /// # Errors
    /// They are of another type, or cannot be read.
    pub(crate) fn from_any(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.value.is_empty()) else {
            return Ok(Self::default());
        };
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name != NAME {
            bail!("options of type {name:?} are not known; {NAME} is");
        }
        let options = Options::parse_from_bytes(&any.value).context("cannot read the options")?;
        // Field 8 was criu_path until containerd 2.0.
        let criu_path = match options.special_fields.unknown_fields().get(8) {
            Some(UnknownValueRef::LengthDelimited(bytes)) => String::from_utf8(bytes.to_vec())?,
            _ => String::new(),
        };
        Ok(Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name,
            root: options.root,
            criu_path,
            systemd_cgroup: options.systemd_cgroup,
            criu_work_path: options.criu_work_path,
        })
    }

    /// Reads them back from a bundle; nothing if no container was made there.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn read(bundle: &std::path::Path) -> Result<Option<Self>> {
        use std::io::Read;
        let path = bundle.join(FILE);
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            file => file.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text)?;
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("cannot read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(url: &str, value: Vec<u8>) -> Any {
        Any { type_url: url.into(), value, ..Any::default() }
    }

    #[test]
    fn options_are_taken_from_their_message_and_the_old_criu_path_with_them() {
        let sent = Options {
            binary_name: "crun".into(),
            io_uid: 7,
            systemd_cgroup: true,
            ..Options::default()
        };
        let mut bytes = sent.write_to_bytes().unwrap();
        bytes.extend_from_slice(&[0x42, 3]);
        bytes.extend_from_slice(b"/cr");
        for url in [NAME, "types.containerd.io/containerd.runc.v1.Options"] {
            let options = RuntimeOptions::from_any(Some(&any(url, bytes.clone()))).unwrap();
            let expected = RuntimeOptions {
                binary_name: "crun".into(),
                io_uid: 7,
                systemd_cgroup: true,
                criu_path: "/cr".into(),
                ..RuntimeOptions::default()
            };
            assert_eq!(options, expected);
        }
    }

    #[test]
    fn no_options_are_the_defaults_and_foreign_ones_are_refused() {
        assert_eq!(RuntimeOptions::from_any(None).unwrap(), RuntimeOptions::default());
        let empty = any("", vec![]);
        assert_eq!(RuntimeOptions::from_any(Some(&empty)).unwrap(), RuntimeOptions::default());
        let error = RuntimeOptions::from_any(Some(&any("a/b.C", vec![1]))).unwrap_err();
        assert!(error.to_string().contains("\"b.C\""), "{error}");
        assert!(RuntimeOptions::from_any(Some(&any(NAME, vec![0xff]))).is_err());
    }
}
