//! `hull rmi`, `tag` and `image prune`.

use anyhow::{Result, anyhow};
use hull_specs_api::v1::{
    Filter, PruneImagesRequest, RemoveImageRequest, RemovedImage, TagImageRequest,
    removed_image::What,
};
use hull_specs_docker::{image::familiar, units};
use hull_specs_image::Reference;

use crate::{
    args::image::{PruneArgs, RmArgs, TagArgs},
    connect::Manager,
    container::prune::list,
    each::each,
    failure::{is_not_found, refused},
    options::keyvalue,
    prompt, report,
    terminal::output::print,
};

/// `rmi`. With `-f`, one that is not there is told and no failure.
pub(crate) async fn remove(manager: &Manager, args: RmArgs) -> Result<u8> {
    let (force, no_prune) = (args.force, args.no_prune);
    each(&args.images, |image| async move {
        let request = RemoveImageRequest { image, force, no_prune };
        match manager.images().remove(request).await.map_err(refused) {
            Ok(answer) => Ok(lines(&answer.into_inner().removed).join("\n")),
            Err(error) if force && is_not_found(&error) => {
                report::error(&error);
                Ok(String::new())
            }
            Err(error) => Err(error),
        }
    })
    .await
}

fn lines(removed: &[RemovedImage]) -> Vec<String> {
    removed
        .iter()
        .filter_map(|removed| match removed.what.as_ref()? {
            What::Untagged(name) => Some(format!("Untagged: {}", familiar(name))),
            What::Deleted(id) => Some(format!("Deleted: {id}")),
        })
        .collect()
}

/// `tag`.
pub(crate) async fn tag(manager: &Manager, args: TagArgs) -> Result<u8> {
    args.reference.parse::<Reference>().map_err(|error| {
        anyhow!(
            "Error parsing reference: {:?} is not a valid repository/tag: {error}",
            args.reference
        )
    })?;
    let request = TagImageRequest { image: args.image, reference: args.reference };
    manager.images().tag(request).await.map_err(refused)?;
    Ok(0)
}

/// `image prune`.
pub(crate) async fn prune(manager: &Manager, args: PruneArgs) -> Result<u8> {
    let what = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let warning =
        format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ");
    if !args.force && !prompt::confirm(&warning)? {
        return Ok(0);
    }
    let (text, reclaimed) = pruned(manager, args.all, &args.filter).await?;
    print(&format!("{text}Total reclaimed space: {}\n", units::decimal(reclaimed)))?;
    Ok(0)
}

/// Prunes: what is told, and the bytes that became free.
pub(crate) async fn pruned(
    manager: &Manager,
    all: bool,
    filter: &[(String, String)],
) -> Result<(String, u64)> {
    let mut filters = keyvalue::filters(filter);
    filters.push(Filter { key: "dangling".to_owned(), values: vec![(!all).to_string()] });
    let answer = manager.images().prune(PruneImagesRequest { filters }).await.map_err(refused)?;
    let answer = answer.into_inner();
    let lines: Vec<_> = lines(&answer.removed)
        .iter()
        .map(|line| line.replacen("Untagged:", "untagged:", 1).replacen("Deleted:", "deleted:", 1))
        .collect();
    Ok((list("Deleted Images:", &lines), answer.reclaimed_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told_in_dockers_words() {
        let removed = [
            RemovedImage { what: Some(What::Untagged("docker.io/library/a:1".into())) },
            RemovedImage { what: Some(What::Deleted("sha256:1".into())) },
        ];
        assert_eq!(lines(&removed), ["Untagged: a:1", "Deleted: sha256:1"]);
    }
}
