//! config.json: reading it and refusing what cannot be done.

mod sysctl;
mod validate;

use std::{fs::File, io::Read, path::Path};

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
    let spec = serde_json::from_slice(&content)
        .with_context(|| format!("cannot understand {}", path.display()))?;
    Ok((content, spec))
}

/// Reads the process object that `exec --process` names.
pub(crate) fn read_process(path: &Path) -> Result<oci::Process> {
    serde_json::from_slice(&read_bounded(path)?)
        .with_context(|| format!("cannot understand {}", path.display()))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("cannot read {}", path.display());
    let file = File::open(path).map_err(lower).with_context(what)?;
    let metadata = file.metadata().with_context(what)?;
    if metadata.is_dir() {
        bail!("{} is a directory", path.display());
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
