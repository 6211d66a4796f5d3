//! `hull export`.

use anyhow::Result;
use hull_specs_api::v1::ExportRequest;

use crate::{args::container::ExportArgs, connect::Manager, failure::refused, transfer::Target};

/// Writes the root file system as a tar.
pub(crate) async fn export(manager: &Manager, args: &ExportArgs) -> Result<u8> {
    Target::refuse_terminal(args.output.as_deref(), "-o")?;
    let request = ExportRequest { container: args.container.clone() };
    let mut chunks = manager.containers().export(request).await.map_err(refused)?.into_inner();
    let mut target = None;
    // The file is made when there is something to write: a failure leaves none.
    while let Some(chunk) = chunks.message().await.map_err(refused)? {
        if target.is_none() {
            target = Some(Target::open(args.output.as_deref())?);
        }
        if let Some(target) = &mut target {
            target.write(&chunk.chunk)?;
        }
    }
    if let Some(target) = target {
        target.finish()?;
    }
    Ok(0)
}
