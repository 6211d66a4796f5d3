//! `hull push`.

use anyhow::{Result, bail};
use hull_specs_api::v1::{PushRequest, push_response::Event};
use hull_specs_image::Reference;

use super::login::credentials;
use crate::{
    args::image::PushArgs, connect::Manager, failure::refused, progress::Progress,
    terminal::output::print,
};

/// Sends an image to its registry.
pub(crate) async fn push(manager: &Manager, args: &PushArgs) -> Result<u8> {
    let name: Reference = args.reference.parse()?;
    let tagged = args.reference.trim_start_matches(&name.familiar_name()).starts_with([':', '@']);
    if args.all_tags && tagged {
        bail!("tag can't be used with --all-tags/-a");
    }
    if !args.quiet {
        if !args.all_tags && !tagged {
            print("Using default tag: latest\n")?;
        }
        print(&format!("The push refers to repository [{}]\n", name.name()))?;
    }
    let request = PushRequest {
        reference: args.reference.clone(),
        all_tags: args.all_tags,
        credentials: credentials(manager, &name)?,
        platform: args.platform.clone().unwrap_or_default(),
    };
    let mut events = manager.images().push(request).await.map_err(refused)?.into_inner();
    let mut progress = Progress::new(args.quiet);
    let mut pushed = Vec::new();
    while let Some(event) = events.message().await.map_err(refused)? {
        match event.event {
            Some(Event::Progress(step)) => progress.step(&step),
            Some(Event::Pushed(of)) => pushed.push(of),
            None => {}
        }
    }
    progress.finish();
    for of in pushed {
        let reference: Option<Reference> = of.reference.parse().ok();
        let tag = reference.as_ref().and_then(Reference::tag).unwrap_or("latest").to_owned();
        print(&if args.quiet {
            format!("{}\n", of.reference)
        } else {
            format!("{tag}: digest: {} size: {}\n", of.digest, of.size_bytes)
        })?;
    }
    Ok(0)
}
