//! Pushing: blobs by mount, whole, or in pieces that go on after a cut; then manifests.

use std::{fs::File, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use hull_manager_core::{Error, ErrorKind, Result};
use hull_specs_image::{Descriptor, Digest};
use reqwest::Url;

use crate::{
    part::{Part, Progress},
    pull::content_digest,
    realm,
    remote::{Answer, Body, Call, Failure, Remote, pause},
    repository::{Conversation, Repository},
    token::Scope,
};

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// It was in another repository there.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// The smallest piece that a registry wants (distribution specification 1.1).
const CHUNK_MIN_LENGTH: &str = "oci-chunk-min-length";

/// The largest of these that is honoured.
const MAX_CHUNK_MIN_LENGTH: u64 = 1 << 30;

impl Repository {
    /// Brings a blob to the registry, if it is not there: from the repository `mount_from` of the
    /// same registry if that has it, else from `file`, which has the content of `descriptor`.
    /// `progress` is told up to which byte it was sent; it goes back when something is sent again.
    ///
    /// # Errors
    /// Denied, unavailable, or the registry did not take it as what it is.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        file: File,
        mount_from: Option<&str>,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Pushed> {
        let talk = &*self.talk;
        let remote = talk.only(|can| can.push).await?;
        let upload =
            Upload { talk, remote, descriptor, file: Arc::new(file), progress: Arc::new(progress) };
        let pushed = async {
            if upload.exists().await? {
                return Ok(Pushed::Exists);
            }
            if let Some(from) = mount_from
                && upload.mount(from).await?
            {
                return Ok(Pushed::Mounted);
            }
            upload.send().await.map(|()| Pushed::Uploaded)
        };
        pushed.await.map_err(|error| talk.explain_push(error))
    }

    /// Whether the registry has a blob.
    ///
    /// # Errors
    /// Denied, unavailable.
    pub async fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let talk = &*self.talk;
        let remote = talk.only(|can| can.push).await?;
        exists(talk, remote, descriptor).await.map_err(|error| talk.explain_push(error))
    }

    /// Writes a manifest or an index under `name`, a tag or its digest.
    ///
    /// # Errors
    /// Denied, unavailable, or the registry lacks what it names.
    pub async fn put_manifest(&self, name: &str, media_type: &str, bytes: Bytes) -> Result<Digest> {
        let talk = &*self.talk;
        let put = async {
            let digest = Digest::of(&bytes);
            if name.parse::<Digest>().is_ok_and(|wanted| wanted != digest) {
                return Err(Error::corrupt(format!("a manifest with the digest {digest}")));
            }
            let remote = talk.only(|can| can.push).await?;
            let url = remote.url(&format!("{}/manifests/{name}", talk.path()))?;
            let call = Call::new(Method::PUT, url, Scope::Push(talk.path().to_owned()))
                .header(header::CONTENT_TYPE, media_type)
                .body(Body::Bytes(bytes));
            let answer = remote.send(&talk.shared, &call).await?;
            expect_digest(answer.response.headers(), digest)?;
            Ok(digest)
        };
        put.await.map_err(|error| talk.explain_push(error))
    }
}

impl Conversation {
    fn explain_push(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::PermissionDenied => Error::denied(format!(
                "push to {}: requested access to the resource is denied: {error}",
                self.reference.familiar_name()
            )),
            _ => error.context(format!("push to {}", self.reference.familiar_name())),
        }
    }
}

async fn exists(talk: &Conversation, remote: &Remote, descriptor: &Descriptor) -> Result<bool> {
    let url = remote.url(&format!("{}/blobs/{}", talk.path(), descriptor.digest))?;
    let call = Call::new(Method::HEAD, url, Scope::Push(talk.path().to_owned()));
    match remote.send(&talk.shared, &call).await {
        Ok(answer) => {
            let length = answer.response.headers().get(header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
            Ok(length.is_none_or(|length| length == descriptor.size))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A blob on its way.
struct Upload<'a> {
    talk: &'a Conversation,
    remote: &'a Remote,
    descriptor: &'a Descriptor,
    file: Arc<File>,
    progress: Progress,
}

/// An upload that the registry has begun.
struct Session {
    location: Url,
    /// What the registry has.
    offset: u64,
    /// The smallest piece it wants.
    min: u64,
    /// It went on after a cut. If the registry then finds another digest, its count was wrong.
    resumed: bool,
}

impl Upload<'_> {
    async fn exists(&self) -> Result<bool> {
        exists(self.talk, self.remote, self.descriptor).await
    }

    /// Has the registry take it from another repository. It may not want to, or want to know
    /// nothing of that repository: then it is sent.
    async fn mount(&self, from: &str) -> Result<bool> {
        let mut url = self.uploads()?;
        url.query_pairs_mut()
            .append_pair("mount", &self.descriptor.digest.to_string())
            .append_pair("from", from);
        let scope = Scope::Mount { to: self.talk.path().to_owned(), from: from.to_owned() };
        let call = Call::new(Method::POST, url, scope).header(header::CONTENT_LENGTH, "0");
        match self.remote.send(&self.talk.shared, &call).await {
            Ok(answer) if answer.response.status() == StatusCode::CREATED => Ok(true),
            Ok(answer) => {
                // It began an upload instead, that nobody will end.
                if let Ok(location) = location(&answer) {
                    self.cancel(location).await;
                }
                Ok(false)
            }
            Err(error) => {
                tracing::debug!(%error, "the blob is not mounted");
                Ok(false)
            }
        }
    }

    async fn send(&self) -> Result<()> {
        let limits = &self.talk.shared.settings.limits;
        let mut patience = self.remote.patience();
        let mut session: Option<Session> = None;
        loop {
            let failure = match self.attempt(&mut session).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if let Err(error) = pause(failure, &mut patience, limits).await {
                if let Some(session) = session {
                    self.cancel(session.location).await;
                }
                return Err(error);
            }
            if let Some(at) = session.take() {
                session = self.resume(at).await;
            }
        }
    }

    /// Sends what the registry does not have yet.
    async fn attempt(&self, session: &mut Option<Session>) -> Result<(), Failure> {
        if session.is_none() {
            *session = Some(self.begin().await?);
        }
        let Some(at) = session else { return Ok(()) };
        let size = self.descriptor.size;
        let chunk = self.talk.shared.settings.limits.upload_chunk_bytes.max(at.min).max(1);
        let whole = at.offset == 0 && size <= chunk;
        while !whole && at.offset < size {
            self.patch(at, chunk).await?;
        }
        let offset = if whole { 0 } else { size };
        match self.put(at, offset).await {
            Err(failure) if at.resumed && !failure.again => {
                *session = None;
                Err(Failure::again(failure.error))
            }
            other => other,
        }
    }

    async fn begin(&self) -> Result<Session, Failure> {
        let url = self.uploads().map_err(Failure::last)?;
        let call = Call::new(Method::POST, url, self.scope()).header(header::CONTENT_LENGTH, "0");
        let answer = self.call(&call).await?;
        let min = answer.response.headers().get(CHUNK_MIN_LENGTH);
        let min = min.and_then(|min| min.to_str().ok()?.parse().ok()).unwrap_or(0);
        Ok(Session {
            location: location(&answer).map_err(Failure::last)?,
            offset: 0,
            min: u64::min(min, MAX_CHUNK_MIN_LENGTH),
            resumed: false,
        })
    }

    /// The next piece.
    async fn patch(&self, at: &mut Session, chunk: u64) -> Result<(), Failure> {
        let length = chunk.min(self.descriptor.size - at.offset);
        let end = at.offset + length;
        let range = format!("{}-{}", at.offset, end - 1);
        let call = Call::new(Method::PATCH, at.location.clone(), self.scope())
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_RANGE, &range)
            .body(self.part(at.offset, length));
        let answer = self.call(&call).await?;
        let has = received(answer.response.headers()).unwrap_or(end);
        if has <= at.offset || has > end {
            return Err(Failure::last(Error::unavailable(format!(
                "the registry counts {has} bytes after it got bytes {range}"
            ))));
        }
        at.location = location(&answer).map_err(Failure::last)?;
        at.offset = has;
        Ok(())
    }

    /// Ends the upload, with all that comes from `offset` on.
    async fn put(&self, at: &Session, offset: u64) -> Result<(), Failure> {
        let mut url = at.location.clone();
        url.query_pairs_mut().append_pair("digest", &self.descriptor.digest.to_string());
        let length = self.descriptor.size - offset;
        let mut call = Call::new(Method::PUT, url, self.scope());
        call = if length == 0 {
            call.header(header::CONTENT_LENGTH, "0")
        } else {
            call.header(header::CONTENT_TYPE, "application/octet-stream")
                .body(self.part(offset, length))
        };
        let answer = self.call(&call).await?;
        expect_digest(answer.response.headers(), self.descriptor.digest).map_err(Failure::last)
    }

    /// Asks how much the registry has. If it can't tell, it begins anew.
    async fn resume(&self, at: Session) -> Option<Session> {
        let call = Call::new(Method::GET, at.location.clone(), self.scope());
        let answer = self.call(&call).await.ok()?;
        // "0-0" is one byte, or none: registries differ.
        let offset = received(answer.response.headers()).filter(|has| *has > 1)?;
        if offset > self.descriptor.size {
            return None;
        }
        let location = location(&answer).unwrap_or(at.location);
        Some(Session { location, offset, min: at.min, resumed: true })
    }

    async fn cancel(&self, location: Url) {
        let call = Call::new(Method::DELETE, location, self.scope());
        if let Err(failure) = self.call(&call).await {
            tracing::debug!(error = %failure.error, "the upload stays begun");
        }
    }

    async fn call(&self, call: &Call) -> Result<Answer, Failure> {
        let shared = &self.talk.shared;
        self.remote.send_once(shared, call, shared.settings.limits.answer).await
    }

    fn part(&self, offset: u64, length: u64) -> Body {
        Body::Part(Part {
            file: Arc::clone(&self.file),
            offset,
            length,
            progress: Arc::clone(&self.progress),
        })
    }

    fn uploads(&self) -> Result<Url> {
        self.remote.url(&format!("{}/blobs/uploads/", self.talk.path()))
    }

    fn scope(&self) -> Scope {
        Scope::Push(self.talk.path().to_owned())
    }
}

/// Where an upload goes on. On another origin it gets no credentials: [`Remote::send_once`] gives
/// them to the registry only.
fn location(answer: &Answer) -> Result<Url> {
    let value = answer.response.headers().get(header::LOCATION);
    let value = value
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| Error::unavailable("the registry does not say where the upload goes on"))?;
    realm::redirect(&answer.url, value).map_err(|refused| {
        Error::denied(format!("the registry has the upload go on where it {}", refused.because()))
    })
}

/// How many bytes the registry has, by `Range: 0-N`.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    range.strip_prefix("0-")?.parse::<u64>().ok()?.checked_add(1)
}

fn expect_digest(headers: &HeaderMap, digest: Digest) -> Result<()> {
    match content_digest(headers) {
        Some(found) if found != digest => {
            Err(Error::corrupt(format!("the registry took {digest} for {found}")))
        }
        _ => Ok(()),
    }
}
