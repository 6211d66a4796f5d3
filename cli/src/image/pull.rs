//! `hull pull`, and the pull of a missing image.

use anyhow::{Context as _, Result, bail};
use hull_specs_api::v1::{PullRequest, Pulled, pull_response::Event};
use hull_specs_image::Reference;

use super::login::credentials;
use crate::{
    args::image::PullArgs, connect::Manager, failure::refused, progress::Progress, report,
    terminal::output::print,
};

/// `pull`.
pub(crate) async fn pull(manager: &Manager, args: &PullArgs) -> Result<u8> {
    let name: Reference = args.reference.parse()?;
    let tagged = args.reference.trim_start_matches(&name.familiar_name()).starts_with([':', '@']);
    if args.all_tags && tagged {
        bail!("tag can't be used with --all-tags/-a");
    }
    if !args.all_tags && !tagged && !args.quiet {
        print("Using default tag: latest\n")?;
    }
    let request = PullRequest {
        reference: args.reference.clone(),
        all_tags: args.all_tags,
        platform: args.platform.clone().unwrap_or_default(),
        credentials: credentials(manager, &name)?,
    };
    for pulled in carry(manager, request, args.quiet).await? {
        print(&told(&pulled, args.quiet))?;
    }
    Ok(0)
}

/// What stdout says at the end.
fn told(pulled: &Pulled, quiet: bool) -> String {
    if quiet {
        return format!("{}\n", pulled.reference);
    }
    let familiar = hull_specs_docker::image::familiar(&pulled.reference);
    let status =
        if pulled.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
    format!("Digest: {}\nStatus: {status} {familiar}\n{}\n", pulled.digest, pulled.reference)
}

/// Pulls what a container is to be made from: all is said on standard error.
pub(crate) async fn for_container(
    manager: &Manager,
    image: &str,
    platform: &str,
    quiet: bool,
) -> Result<()> {
    let name: Reference = image.parse()?;
    let request = PullRequest {
        reference: image.to_owned(),
        all_tags: false,
        platform: platform.to_owned(),
        credentials: credentials(manager, &name)?,
    };
    for pulled in carry(manager, request, quiet).await? {
        if !quiet {
            report::line(told(&pulled, false).trim_end());
        }
    }
    Ok(())
}

async fn carry(manager: &Manager, request: PullRequest, quiet: bool) -> Result<Vec<Pulled>> {
    let mut events = manager.images().pull(request).await.map_err(refused)?.into_inner();
    let mut progress = Progress::new(quiet);
    let mut all = Vec::new();
    while let Some(event) = events.message().await.map_err(refused)? {
        match event.event {
            Some(Event::Progress(step)) => progress.step(&step),
            Some(Event::Pulled(pulled)) => all.push(pulled),
            None => {}
        }
    }
    progress.finish();
    all.first().context("the manager pulled nothing")?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_in_dockers_words() {
        let pulled = Pulled {
            reference: "docker.io/library/busybox:latest".into(),
            digest: "sha256:1".into(),
            up_to_date: true,
            ..Pulled::default()
        };
        assert_eq!(
            told(&pulled, false),
            "Digest: sha256:1\nStatus: Image is up to date for busybox:latest\ndocker.io/library/busybox:latest\n"
        );
        assert_eq!(told(&pulled, true), "docker.io/library/busybox:latest\n");
    }
}
