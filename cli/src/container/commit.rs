//! `hull commit`.

use anyhow::{Context as _, Result};
use hull_specs_api::v1::{CommitRequest, commit_response::Event};

use crate::{
    args::container::CommitArgs, connect::Manager, failure::refused, progress::Progress,
    terminal::output::print,
};

/// Makes an image of a container: its id is printed.
pub(crate) async fn commit(manager: &Manager, args: CommitArgs) -> Result<u8> {
    let request = CommitRequest {
        container: args.container,
        reference: args.reference.unwrap_or_default(),
        author: args.author.unwrap_or_default(),
        message: args.message.unwrap_or_default(),
        changes: args.change,
        pause: args.pause,
    };
    let mut events = manager.containers().commit(request).await.map_err(refused)?.into_inner();
    let mut progress = Progress::on_terminal();
    let mut id = None;
    while let Some(event) = events.message().await.map_err(refused)? {
        match event.event {
            Some(Event::Progress(step)) => progress.step(&step),
            Some(Event::ImageId(image)) => id = Some(image),
            None => {}
        }
    }
    progress.finish();
    print(&format!("{}\n", id.context("the manager made no image")?))?;
    Ok(0)
}
