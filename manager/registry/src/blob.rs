//! Blobs, as a stream that goes on where it was when the connection is cut.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream};
use http::{HeaderMap, Method, StatusCode, header};
use hull_manager_core::{Error, Result};
use hull_specs_image::Descriptor;
use reqwest::{Response, Url};
use tokio::time::{Instant, timeout};

use crate::{
    failure,
    remote::{Call, Failure, Remote, pause},
    repository::Repository,
    retry::Patience,
    settings::Limits,
    token::Scope,
};

/// The next thing of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobEvent {
    /// Bytes that follow the ones before.
    Data(Bytes),
    /// The connection was cut; it is tried again, from where it was. Why, in a sentence.
    Retrying(String),
}

/// A blob that is being fetched.
///
/// Gives exactly the descriptor's size less the offset it began at, or an error. Whether the
/// bytes have the descriptor's digest, the one who writes them must see: it has all of them, also
/// those before the offset.
pub struct Blob {
    repository: Repository,
    descriptor: Descriptor,
    offset: u64,
    body: Option<Response>,
    /// Bytes before the offset that come once more, since the registry knows no ranges.
    discard: u64,
    patience: Patience,
    failed: Option<Failure>,
    pace: Pace,
    /// Where the last bytes came from.
    from: Option<Url>,
}

impl Repository {
    /// Fetches a blob from `offset` on. Nobody is asked before the first [`Blob::next`].
    #[must_use]
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> Blob {
        Blob {
            repository: self.clone(),
            descriptor: descriptor.clone(),
            offset,
            body: None,
            discard: 0,
            patience: Patience::new(self.talk.shared.settings.limits.retries),
            failed: None,
            pace: Pace::default(),
            from: None,
        }
    }

    /// A small blob as a whole, its digest checked.
    ///
    /// # Errors
    /// If it is larger than `max` bytes, is something else, or can't be had.
    pub async fn small_blob(&self, descriptor: &Descriptor, max: u64) -> Result<Bytes> {
        if descriptor.size > max {
            return Err(Error::invalid(format!("{} has more than {max} bytes", descriptor.digest)));
        }
        loop {
            let mut bytes = bytes::BytesMut::new();
            let mut blob = self.blob(descriptor, 0);
            while let Some(event) = blob.next().await? {
                if let BlobEvent::Data(piece) = event {
                    bytes.extend_from_slice(&piece);
                }
            }
            let found = hull_specs_image::Digest::of(&bytes);
            if found == descriptor.digest {
                return Ok(bytes.freeze());
            }
            if !blob.distrust() {
                return Err(Error::corrupt(format!(
                    "the blob has the digest {found}, not {}",
                    descriptor.digest
                )));
            }
        }
    }
}

impl Blob {
    /// The position in the blob that comes next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What came is not what it should be: whoever sent it is not asked again in this
    /// conversation. Whether there is somebody else to ask, from the beginning.
    pub fn distrust(&self) -> bool {
        self.from.as_ref().is_some_and(|from| self.repository.talk.distrust(from))
    }

    /// The next piece; nothing at the end.
    ///
    /// # Errors
    /// If it can't be had, also after several attempts, or is not of the descriptor's size.
    pub async fn next(&mut self) -> Result<Option<BlobEvent>> {
        let limits = self.repository.talk.shared.settings.limits.clone();
        loop {
            if let Some(failure) = self.failed.take() {
                pause(failure, &mut self.patience, &limits).await?;
            }
            let Some(body) = &mut self.body else {
                if self.offset >= self.descriptor.size {
                    return self.end().map(|()| None);
                }
                match self.open().await {
                    Ok((body, discard, from)) => {
                        self.body = Some(body);
                        self.discard = discard;
                        self.from = Some(from);
                    }
                    Err(failure) => return self.retry(failure).map(Some),
                }
                continue;
            };
            match self.pace.next(body, &limits).await {
                Ok(Some(mut piece)) => {
                    let known = self.discard.min(piece.len() as u64);
                    self.discard -= known;
                    bytes::Buf::advance(&mut piece, usize::try_from(known).unwrap_or(usize::MAX));
                    if piece.is_empty() {
                        continue;
                    }
                    let length = piece.len() as u64;
                    if length > self.descriptor.size - self.offset {
                        return Err(self.wrong("has more"));
                    }
                    self.offset += length;
                    self.patience.progress(length);
                    return Ok(Some(BlobEvent::Data(piece)));
                }
                Ok(None) if self.offset == self.descriptor.size => {
                    self.body = None;
                }
                Ok(None) => {
                    let error = Error::unavailable(self.what() + ": the connection was cut");
                    return self.retry(Failure::again(error)).map(Some);
                }
                Err(error) => {
                    let error = error.context(self.what());
                    return self.retry(Failure::again(error)).map(Some);
                }
            }
        }
    }

    /// The same as a stream.
    pub fn stream(self) -> impl Stream<Item = Result<BlobEvent>> + Send {
        futures_util::stream::try_unfold(self, |mut blob| async move {
            Ok(blob.next().await?.map(|event| (event, blob)))
        })
    }

    fn end(&self) -> Result<()> {
        if self.offset > self.descriptor.size {
            return Err(Error::internal("a blob is resumed behind its end"));
        }
        Ok(())
    }

    /// Tells about the failure, if there is sense in trying again.
    fn retry(&mut self, failure: Failure) -> Result<BlobEvent> {
        self.body = None;
        self.pace = Pace::default();
        if !failure.again {
            return Err(failure.error);
        }
        let sentence = failure.error.to_string();
        self.failed = Some(failure);
        Ok(BlobEvent::Retrying(sentence))
    }

    fn what(&self) -> String {
        format!("blob {} of {}", self.descriptor.digest, self.repository.reference().name())
    }

    fn wrong(&self, how: &str) -> Error {
        Error::corrupt(format!("{} {how} than {} bytes", self.what(), self.descriptor.size))
    }

    /// A body, and how much of it is before the offset, from the first place that has the blob;
    /// and which that is.
    async fn open(&self) -> Result<(Response, u64, Url), Failure> {
        let opened = self.repository.talk.first(
            |can| can.pull,
            |remote| {
                async move {
                    match self.open_at(remote).await {
                        Ok((body, discard)) => Ok(Ok((body, discard, remote.base.clone()))),
                        // After any other place the next one is asked instead.
                        Err(failure) if failure.again && remote.is_last => Ok(Err(failure)),
                        Err(failure) => Err(failure.error),
                    }
                }
                .boxed()
            },
        );
        opened.await.map_err(Failure::last)?
    }

    async fn open_at(&self, remote: &Remote) -> Result<(Response, u64), Failure> {
        let talk = &*self.repository.talk;
        let path = format!("{}/blobs/{}", talk.path(), self.descriptor.digest);
        let url = remote.url(&path).map_err(Failure::last)?;
        // Sizes and ranges are of the bytes that the digest is of.
        let mut call = Call::new(Method::GET, url, Scope::Pull(talk.path().to_owned()))
            .header(header::ACCEPT_ENCODING, "identity");
        if self.offset > 0 {
            call = call.header(header::RANGE, &format!("bytes={}-", self.offset));
        }
        let limit = talk.shared.settings.limits.answer;
        let response = remote.send_once(&talk.shared, &call, limit).await?.response;
        match discarded(response.status(), response.headers(), self.offset, self.descriptor.size) {
            Ok(discard) => Ok((response, discard)),
            Err(how) => Err(Failure::last(Error::corrupt(format!(
                "{} from {}: {how}",
                self.what(),
                remote.host()
            )))),
        }
    }
}

/// How much of a body is before `offset`, or what is wrong with an answer to a request for
/// everything from there on.
fn discarded(
    status: StatusCode,
    headers: &HeaderMap,
    offset: u64,
    size: u64,
) -> Result<u64, String> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let encoding = text(header::CONTENT_ENCODING).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        return Err(format!("it comes with the encoding {encoding:?}"));
    }
    let (discard, expected) = match status {
        StatusCode::PARTIAL_CONTENT => {
            let range = text(header::CONTENT_RANGE).unwrap_or_default();
            let valid = content_range(range).is_some_and(|(first, last, total)| {
                first == offset
                    && last.checked_add(1) == Some(size)
                    && total.unwrap_or(size) == size
            });
            if offset == 0 || !valid {
                return Err(format!("asked for bytes {offset}- of {size}, it serves {range:?}"));
            }
            (0, size - offset)
        }
        StatusCode::OK => (offset, size),
        other => return Err(format!("the registry answered {other}")),
    };
    match length {
        Some(length) if length != expected => {
            Err(format!("it has {length} bytes and not {expected}"))
        }
        _ => Ok(discard),
    }
}

/// First and last byte and, if it is said, the length of all (RFC 9110, 14.4).
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

/// How fast bytes come, counted only while we wait for them.
#[derive(Default)]
pub(crate) struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) async fn next(
        &mut self,
        body: &mut Response,
        limits: &Limits,
    ) -> Result<Option<Bytes>> {
        let began = Instant::now();
        let piece = match timeout(limits.idle, body.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(failure::of_transport("read", error)),
            Err(_) => return Err(Error::timed_out("nothing comes any more")),
        };
        self.waited += began.elapsed();
        self.bytes += piece.as_ref().map_or(0, Bytes::len) as u64;
        if self.waited >= limits.trickle {
            let few = self.bytes < limits.trickle_bytes;
            *self = Self::default();
            if few && piece.is_some() {
                return Err(Error::timed_out("it comes too slowly"));
            }
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_taken() {
        for (status, offset, headers, expected) in [
            (200, 0, vec![("content-length", "10")], Some(0)),
            (200, 0, vec![], Some(0)),
            (200, 4, vec![("content-length", "10")], Some(4)),
            (206, 4, vec![("content-range", "bytes 4-9/10"), ("content-length", "6")], Some(0)),
            (206, 4, vec![("content-range", "bytes 4-9/*")], Some(0)),
            (200, 0, vec![("content-length", "9")], None),
            (200, 4, vec![("content-length", "6")], None),
            (206, 0, vec![("content-range", "bytes 0-9/10")], None),
            (206, 4, vec![], None),
            (206, 4, vec![("content-range", "bytes 3-9/10")], None),
            (206, 4, vec![("content-range", "bytes 4-8/10")], None),
            (206, 4, vec![("content-range", "bytes 4-9/11")], None),
            (206, 4, vec![("content-range", "bytes 4-18446744073709551615/10")], None),
            (206, 4, vec![("content-range", "bytes 4-9/10"), ("content-length", "5")], None),
            (200, 0, vec![("content-encoding", "gzip")], None),
            (204, 0, vec![], None),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.insert(*name, value.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(discarded(status, &map, offset, 10).ok(), expected, "{status} {headers:?}");
        }
    }
}
