//! `hull container prune`.

use anyhow::Result;
use hull_specs_api::v1::PruneContainersRequest;
use hull_specs_docker::units;

use crate::{
    args::container::PruneArgs, connect::Manager, failure::refused, options::keyvalue, prompt,
    terminal::output::print,
};

/// Removes containers that don't run, after a question.
pub(crate) async fn prune(manager: &Manager, args: PruneArgs) -> Result<u8> {
    let warning = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ";
    if !args.force && !prompt::confirm(warning)? {
        return Ok(0);
    }
    let (text, reclaimed) = report(manager, &args.filter).await?;
    print(&format!("{text}Total reclaimed space: {}\n", units::decimal(reclaimed)))?;
    Ok(0)
}

/// Prunes: what is told, and the bytes that became free.
pub(crate) async fn report(
    manager: &Manager,
    filter: &[(String, String)],
) -> Result<(String, u64)> {
    let request = PruneContainersRequest { filters: keyvalue::filters(filter) };
    let answer = manager.containers().prune(request).await.map_err(refused)?.into_inner();
    Ok((list("Deleted Containers:", &answer.removed), answer.reclaimed_bytes))
}

/// A title, the lines, and an empty one; nothing if there are none.
pub(crate) fn list(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    format!("{title}\n{}\n\n", lines.join("\n"))
}
