//! Manifests: what a reference means, and which image of it runs here.

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, header};
use hull_manager_core::{Error, ErrorKind, Result};
use hull_specs_image::{
    Descriptor, Digest, Manifest, Platform, document::MAX_MANIFEST_BYTES, media_type,
};

use crate::{
    document::{self, Document, choose},
    remote::{Call, Remote},
    repository::{Conversation, Repository},
    token::Scope,
};

/// The registry's own word for a document's digest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// So many indexes may lie within each other.
const MAX_INDEXES: usize = 2;

/// A document that was fetched: the bytes have the descriptor's digest and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its name.
    pub descriptor: Descriptor,
    /// As it came.
    pub bytes: Bytes,
    /// As it was read.
    pub document: Document,
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the reference means: an index, or the manifest itself.
    pub root: Resolved,
    /// The image's manifest, checked to be one ([`document::check_image`]).
    pub manifest: Manifest,
    /// Its name.
    pub descriptor: Descriptor,
    /// As it came.
    pub bytes: Bytes,
}

impl Repository {
    /// What the reference means now, by HEAD, which registries don't count as a pull. Nothing
    /// where the registry's answer does not say it all.
    ///
    /// # Errors
    /// Not found, denied, unavailable, …
    pub async fn head(&self) -> Result<Option<Descriptor>> {
        let talk = &*self.talk;
        let answer = talk.first(|can| can.resolve, |remote| talk.head(remote).boxed()).await;
        answer.map_err(|error| talk.explain(error))
    }

    /// What the reference means now: the document, by its tag or digest.
    ///
    /// # Errors
    /// Not found, denied, unavailable, not what it claims to be, schema 1.
    pub async fn resolve(&self) -> Result<Resolved> {
        let talk = &*self.talk;
        let reference = &talk.reference;
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let name = name.as_str();
        let answer = talk
            .first(
                |can| can.resolve,
                |remote| talk.manifest(remote, name, reference.digest(), None).boxed(),
            )
            .await;
        answer.map_err(|error| talk.explain(error))
    }

    /// A document by its descriptor.
    ///
    /// # Errors
    /// As [`Repository::resolve`]; also if size or type are others than the descriptor's.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Resolved> {
        let talk = &*self.talk;
        let name = descriptor.digest.to_string();
        let name = name.as_str();
        let digest = Some(descriptor.digest);
        let answer = talk
            .first(
                |can| can.pull,
                |remote| talk.manifest(remote, name, digest, Some(descriptor)).boxed(),
            )
            .await;
        answer.map_err(|error| talk.explain(error))
    }

    /// The image for `platform`: through an index to the best match.
    ///
    /// # Errors
    /// As [`Repository::resolve`]; also if there is none for the platform, or it is no image.
    pub async fn image(&self, platform: &Platform) -> Result<Image> {
        let root = self.resolve().await?;
        let mut found = root.clone();
        for _ in 0..=MAX_INDEXES {
            let index = match found.document {
                Document::Manifest(manifest) => {
                    document::check_image(&manifest)?;
                    let Resolved { descriptor, bytes, .. } = found;
                    return Ok(Image { root, manifest, descriptor, bytes });
                }
                Document::Index(index) => index,
            };
            let chosen = choose(&index, platform).first().map(|entry| (*entry).clone());
            let chosen = chosen.ok_or_else(|| {
                Error::not_found(format!(
                    "no matching manifest for {platform} in the manifest list entries of {}",
                    self.reference().familiar()
                ))
            })?;
            found = self.manifest(&chosen).await?;
        }
        Err(Error::invalid(format!(
            "{}: more than {MAX_INDEXES} indexes within each other",
            self.reference().familiar()
        )))
    }
}

impl Conversation {
    async fn head(&self, remote: &Remote) -> Result<Option<Descriptor>> {
        let name = self.reference.digest().map(|digest| digest.to_string());
        let name = name.as_deref().or(self.reference.tag()).unwrap_or("latest");
        let call = self.manifest_call(remote, Method::HEAD, name)?;
        let answer = match remote.send(&self.shared, &call).await {
            Err(error) if error.kind() == ErrorKind::InvalidArgument => return Ok(None),
            other => other?,
        };
        let headers = answer.response.headers();
        let digest = content_digest(headers);
        let size = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let kind = content_type(headers);
        let known = media_type::is_index(kind) || media_type::is_manifest(kind);
        Ok(match (digest, size.and_then(|size| size.parse().ok())) {
            (Some(digest), Some(size))
                if known && self.reference.digest().is_none_or(|wanted| wanted == digest) =>
            {
                Some(Descriptor::new(kind, digest, size))
            }
            _ => None,
        })
    }

    async fn manifest(
        &self,
        remote: &Remote,
        name: &str,
        digest: Option<Digest>,
        wanted: Option<&Descriptor>,
    ) -> Result<Resolved> {
        let call = self.manifest_call(remote, Method::GET, name)?;
        let max = wanted.map_or(MAX_MANIFEST_BYTES, |wanted| wanted.size.min(MAX_MANIFEST_BYTES));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let page = remote.read(&self.shared, &call, max).await?;
        let found = check(&page.headers, page.body, digest, wanted);
        found.map_err(|error| error.context(format!("{name} from {}", remote.host())))
    }

    fn manifest_call(&self, remote: &Remote, method: Method, name: &str) -> Result<Call> {
        let url = remote.url(&format!("{}/manifests/{name}", self.path()))?;
        let scope = Scope::Pull(self.path().to_owned());
        Ok(Call::new(method, url, scope).header(header::ACCEPT, document::ACCEPT))
    }

    /// The sentence that docker's users know.
    fn explain(&self, error: Error) -> Error {
        let name = self.reference.familiar();
        match error.kind() {
            ErrorKind::NotFound => {
                Error::not_found(format!("manifest for {name} not found: {error}"))
            }
            ErrorKind::PermissionDenied => Error::denied(format!(
                "pull access denied for {}, repository does not exist or may require \
                 'hull login': {error}",
                self.reference.familiar_name()
            )),
            _ => error,
        }
    }
}

/// Whether what came is what was asked for.
fn check(
    headers: &HeaderMap,
    bytes: Bytes,
    digest: Option<Digest>,
    wanted: Option<&Descriptor>,
) -> Result<Resolved> {
    let found = Digest::of(&bytes);
    // By a tag the registry may serve what it likes, but what it says of it must be true.
    if let Some(expected) = digest.or_else(|| content_digest(headers))
        && expected != found
    {
        return Err(Error::corrupt(format!("the manifest has the digest {found}, not {expected}")));
    }
    if let Some(wanted) = wanted
        && wanted.size != bytes.len() as u64
    {
        return Err(Error::corrupt(format!(
            "the manifest has {} bytes and not {}",
            bytes.len(),
            wanted.size
        )));
    }
    let (document, kind) = Document::parse(content_type(headers), &bytes)?;
    if let Some(wanted) = wanted
        && !wanted.media_type.is_empty()
        && wanted.media_type != kind
    {
        return Err(Error::invalid(format!(
            "the manifest is of type {kind:?}, but was listed as {:?}",
            wanted.media_type
        )));
    }
    Ok(Resolved { descriptor: Descriptor::of(&kind, &bytes), bytes, document })
}

pub(crate) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}
