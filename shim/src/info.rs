//! `-info`: what the shim is and what its runtime can do (containerd's introspection).

use std::{
    io::Read,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::{Message, MessageField, well_known_types::any::Any};

use crate::{options::RuntimeOptions, runtime::Runtime};

/// The runtime's name by which containerd finds this shim.
pub(crate) const NAME: &str = "io.containerd.hull.v2";

/// The type of the runtime's features, in JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Most of the options on stdin, in bytes.
const MAX_INPUT: u64 = 1 << 20;

/// Reads options from stdin and gives a `RuntimeInfo` in protobuf.
///
/// # Errors
/// The options cannot be read, or name a runtime that is not there.
pub(crate) fn info() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    std::io::stdin().take(MAX_INPUT).read_to_end(&mut input).context("cannot read stdin")?;
    let any = Any::parse_from_bytes(&input).context("cannot read the options on stdin")?;
    let options = RuntimeOptions::from_any(Some(&any))?;
    let runtime = Runtime::find(&options.binary_name, &options.root, "", false)?;
    let output = Command::new(runtime.program()).arg("features").stderr(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", runtime.program().display()))?;
    // A runtime without this command has no features to tell.
    let features = output.status.success().then(|| Any {
        type_url: FEATURES.into(),
        value: output.stdout,
        ..Any::default()
    });
    let info = RuntimeInfo {
        name: NAME.into(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").into(),
            ..RuntimeVersion::default()
        }),
        options: MessageField::from_option((!input.is_empty()).then_some(any)),
        features: MessageField::from_option(features),
        ..RuntimeInfo::default()
    };
    Ok(info.write_to_bytes()?)
}
