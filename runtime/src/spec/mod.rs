//! config.json: reading it and refusing what cannot be done.

mod sysctl;
mod validate;

use std::{fs::OpenOptions, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result, bail};
use hull_specs_oci as oci;

pub(crate) use sysctl::path as sysctl_path;
pub(crate) use validate::{Facts, validate};

/// The largest config.json that is read, in bytes.
const MAX_SPEC_BYTES: u64 = 16 << 20;

/// Reads a JSON document of the operator's, such as a bundle's config.json: the bytes, and
/// what they mean.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, oci::Spec)> {
    let content = read_bounded(path)?;
    let spec = parse(&content).with_context(|| format!("cannot understand {}", path.display()))?;
    Ok((content, spec))
}

/// Reads the process object that `exec --process` names.
pub(crate) fn read_process(path: &Path) -> Result<oci::Process> {
    parse(&read_bounded(path)?).with_context(|| format!("cannot understand {}", path.display()))
}

/// Understands a document of the specification: one value, objects where it has objects.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(content: &[u8]) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(content);
    let value = oci::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("cannot read {}", path.display());
    // Opening a FIFO would wait for whoever writes to it.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(lower)
        .with_context(what)?;
    let metadata = file.metadata().with_context(what)?;
    if !metadata.is_file() {
        bail!("{} is not a regular file", path.display());
    }
    let mut content = Vec::with_capacity(metadata.len().min(MAX_SPEC_BYTES) as usize + 1);
    file.take(MAX_SPEC_BYTES + 1).read_to_end(&mut content).with_context(what)?;
    if content.len() as u64 > MAX_SPEC_BYTES {
        bail!("{} is larger than 16 MiB", path.display());
    }
    Ok(content)
}

/// The kernel's word in lower case, as callers of OCI runtimes match on it.
fn lower(error: std::io::Error) -> anyhow::Error {
    match error.raw_os_error() {
        Some(errno) => hull_runtime_sys::Error::new("open", errno).into(),
        None => error.into(),
    }
}
