//! `hull system check`.

use std::io::{IsTerminal as _, stdout};

use anyhow::{Context as _, Result};
use hull_specs_api::v1::{CheckRequest, CheckSummary, Finding, check_response::Event};

use crate::{
    args::system::CheckArgs,
    connect::Manager,
    failure::{Failure, refused},
    format::text,
    progress::Progress,
    terminal::output::print,
};

/// Looks at everything on disk. Fails if something is wrong that was not repaired.
pub(crate) async fn check(manager: &Manager, args: &CheckArgs) -> Result<u8> {
    let request = CheckRequest { repair: args.repair };
    let mut events = manager.system().check(request).await.map_err(refused)?.into_inner();
    let mut progress = Progress::on_terminal();
    let mut summary = None;
    while let Some(event) = events.message().await.map_err(refused)? {
        match event.event {
            Some(Event::Progress(step)) => progress.step(&step),
            Some(Event::Finding(finding)) => print(&found(&finding, stdout().is_terminal()))?,
            Some(Event::Summary(of)) => summary = Some(of),
            None => {}
        }
    }
    progress.finish();
    let summary = summary.context("the manager did not look at everything")?;
    print(&told(&summary))?;
    if summary.findings > summary.repaired { Err(Failure::quiet(1)) } else { Ok(0) }
}

fn found(finding: &Finding, terminal: bool) -> String {
    let mut line = format!("{}: {}", finding.subject, finding.problem);
    if !finding.repaired.is_empty() {
        line = format!("{line} ({})", finding.repaired);
    }
    format!("{}\n", if terminal { text::escape(&line) } else { line })
}

fn told(of: &CheckSummary) -> String {
    format!(
        "{} blobs, {} images, {} snapshots, {} containers: {} problems, {} repaired\n",
        of.blobs, of.images, of.snapshots, of.containers, of.findings, of.repaired
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line() {
        let finding = Finding {
            subject: "blob sha256:1".into(),
            problem: "is not what its digest says".into(),
            repaired: "removed".into(),
        };
        assert_eq!(found(&finding, true), "blob sha256:1: is not what its digest says (removed)\n");
    }
}
