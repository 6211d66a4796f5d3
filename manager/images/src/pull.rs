//! Pulling: an image from a registry, all its layers at once, each in one stream from the wire
//! to the content store and, unpacked, to its own directory.

mod fetch;
mod job;

use hull_manager_core::{Error, ErrorKind, Result};
use hull_manager_registry::{Credentials, Repository};
use hull_specs_api::v1;
use hull_specs_image::{Platform, Reference};
use tokio::sync::mpsc::Sender;

use crate::{Images, lookup, progress};
pub(crate) use job::Pulls;

/// The most tags of a repository that are pulled at once by `-a`.
const MAX_TAGS: usize = 10_000;

/// The credentials of a request.
pub(crate) fn credentials(given: Option<&v1::Credentials>) -> Credentials {
    given.map_or(Credentials::Anonymous, |given| {
        Credentials::new(
            &given.username,
            &given.password,
            &given.identity_token,
            &given.registry_token,
        )
    })
}

/// The platform of a request, or the host's.
pub(crate) fn platform(text: &str) -> Result<Platform> {
    if text.is_empty() { Ok(Platform::host()) } else { text.parse().map_err(Error::invalid) }
}

/// The RPC.
pub(crate) async fn pull(
    images: &Images,
    request: v1::PullRequest,
    answers: Sender<v1::PullResponse>,
) -> Result<()> {
    let platform = platform(&request.platform)?;
    let reference = lookup::parse(&request.reference)?;
    let credentials = credentials(request.credentials.as_ref());
    let references = if request.all_tags {
        if lookup::has_tag(&request.reference) {
            return Err(Error::invalid("tag can't be used with --all-tags/-a"));
        }
        let tags = images.registry().repository(&reference, &credentials)?.tags().await?;
        if tags.len() > MAX_TAGS {
            return Err(Error::exhausted(format!("{reference} has more than {MAX_TAGS} tags")));
        }
        tags.iter()
            .map(|tag| reference.with_tag(tag).map_err(Error::invalid))
            .collect::<Result<Vec<_>>>()?
    } else {
        vec![reference]
    };
    for reference in references {
        let repository = images.registry().repository(&reference, &credentials)?;
        let pulled = one(images, &repository, &reference, &platform, &answers).await?;
        answer(&answers, v1::pull_response::Event::Pulled(pulled)).await?;
    }
    Ok(())
}

async fn one(
    images: &Images,
    repository: &Repository,
    reference: &Reference,
    platform: &Platform,
    answers: &Sender<v1::PullResponse>,
) -> Result<v1::Pulled> {
    let tag = reference.tag().map(str::to_owned);
    let tag = tag.or_else(|| reference.digest().map(|digest| digest.to_string()));
    let tag = tag.unwrap_or_default();
    let resolving = v1::progress::Phase::Resolving;
    let message = format!("Pulling from {}", reference.path());
    let told = progress::progress(&tag, resolving, 0, 0, &message);
    answer(answers, v1::pull_response::Event::Progress(told)).await?;
    let found = repository.image(platform).await.map_err(|error| unknown(reference, error))?;
    let digest = found.root.descriptor.digest;
    let mut wanted = vec![reference.clone()];
    let by_digest = reference.with_digest(digest);
    if by_digest != *reference {
        wanted.push(by_digest);
    }
    let mut pulled = v1::Pulled {
        reference: reference.to_string(),
        digest: digest.to_string(),
        up_to_date: true,
        image_id: String::new(),
    };
    for reference in &wanted {
        let is_same = match images.records.named(reference)? {
            Some(id) => images.is_whole(&id, &found.descriptor.digest)?,
            None => false,
        };
        pulled.up_to_date &= is_same;
    }
    let prepared = job::join(images, repository, found, |told| {
        answer(answers, v1::pull_response::Event::Progress(told))
    })
    .await?;
    pulled.image_id = prepared.image.id.to_string();
    let name = reference.familiar_name();
    let whole = reference.familiar();
    let source = reference.name();
    images
        .blocking(move |images| {
            images.install(&prepared, &wanted)?;
            let blobs: Vec<_> = prepared.image.layers.iter().map(|layer| layer.blob).collect();
            images.records.saw(&blobs, &source)
        })
        .await?;
    images.journal.record("image", "pull", &whole, &[("name", &name)]);
    Ok(pulled)
}

/// The sentence that scripts look for where a registry does not know a tag.
fn unknown(reference: &Reference, error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound || !error.to_string().contains("manifest unknown") {
        return error;
    }
    Error::not_found(format!(
        "manifest for {} not found: manifest unknown: manifest unknown",
        reference.familiar()
    ))
}

/// Sends an answer; a caller that went away ends the work.
async fn answer(answers: &Sender<v1::PullResponse>, event: v1::pull_response::Event) -> Result<()> {
    let gone = |_| Error::cancelled("the client went away");
    answers.send(v1::PullResponse { event: Some(event) }).await.map_err(gone)
}
