//! A conversation with one place: requests, authentication, redirects, retries.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use hull_manager_core::{Error, ErrorKind, Result};
use reqwest::{Client, Response, Url};

use crate::{
    endpoint::{Endpoint, Wire},
    failure,
    home::Home,
    origin::{Origin, Shown},
    part::Part,
    realm,
    retry::{self, Patience},
    secret::{Credentials, Secret},
    settings::Limits,
    shared::Shared,
    token::{Auth, Scope},
};

/// So often a request is sent elsewhere.
pub(crate) const MAX_REDIRECTS: usize = 10;

/// So often a request is sent again with other credentials.
const MAX_CHALLENGES: usize = 2;

/// Why a request failed, and whether to try it again.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: bool,
    /// Only one time more: each takes long, or a person waits for nothing.
    pub(crate) once: bool,
    pub(crate) asked: Option<Duration>,
}

impl Failure {
    /// The same would happen again.
    pub(crate) fn last(error: Error) -> Self {
        Self { error, again: false, once: false, asked: None }
    }

    /// It may go better.
    pub(crate) fn again(error: Error) -> Self {
        Self { error, again: true, once: false, asked: None }
    }

    /// Nothing came for so long.
    pub(crate) fn silence(what: impl Display, limit: Duration) -> Self {
        let error = Error::timed_out(format!("{what}: no answer within {} s", limit.as_secs_f32()));
        Self { error, again: true, once: true, asked: None }
    }

    pub(crate) fn of_transport(what: String, error: reqwest::Error) -> Self {
        let again = !error.is_builder() && !failure::is_certificate(&error);
        let once = error.is_timeout() || failure::is_unresolved(&error);
        Self { again, once, asked: None, error: failure::of_transport(what, error) }
    }

    pub(crate) fn of_status(
        what: String,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        secrets: &[Secret],
    ) -> Self {
        let error = failure::of_status(what, status, body, secrets);
        let (again, asked) =
            (retry::is_transient(status), retry::asked(headers, SystemTime::now()));
        let error = match asked.filter(|asked| again && !asked.is_zero()) {
            Some(asked) => error.because(anyhow::anyhow!(
                "the registry asks to wait {}",
                failure::in_time_units(asked)
            )),
            None => error,
        };
        Self { error, again, once: false, asked }
    }
}

/// One request.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) scope: Scope,
}

/// What a request carries.
#[derive(Clone)]
pub(crate) enum Body {
    Nothing,
    Bytes(Bytes),
    Part(Part),
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, scope: Scope) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Body::Nothing, scope }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    fn what(&self) -> String {
        format!("{} {}", self.method, Shown(&self.url))
    }
}

/// A small answer as a whole.
pub(crate) struct Page {
    pub(crate) headers: HeaderMap,
    pub(crate) url: Url,
    pub(crate) body: Bytes,
}

/// A successful answer, its body not yet read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Where it came from, after redirects.
    pub(crate) url: Url,
}

/// One place, and what we know of it.
pub(crate) struct Remote {
    pub(crate) base: Url,
    home: Arc<Home>,
    headers: HeaderMap,
    namespace: Option<String>,
    retries: u32,
    /// Nobody is asked after it.
    pub(crate) is_last: bool,
    pub(crate) auth: Auth,
}

impl Remote {
    /// Finds out how the place is spoken to. Credentials that are not for it stay out of it.
    pub(crate) async fn connect(
        shared: &Shared,
        endpoint: Endpoint,
        credentials: &Credentials,
        is_last: bool,
    ) -> Result<Self> {
        // A mirror that fails is left soon: there is somebody else to ask.
        let retries = shared.settings.limits.retries;
        let retries = if is_last { retries } else { retries.min(1) };
        let client = shared.client(&endpoint.trust)?;
        let mut base = endpoint.base;
        let mut patience = Patience::new(retries);
        if endpoint.wire == Wire::Either
            && !speaks_tls(shared, &client, &base, &mut patience).await?
        {
            // The scheme of a URL can be set among http and https.
            let _ = base.set_scheme("http");
        }
        let origin = Origin::of(&base)
            .ok_or_else(|| Error::invalid(format!("{} is no registry", Shown(&base))))?;
        let credentials =
            if endpoint.credentials { credentials.clone() } else { Credentials::Anonymous };
        let home = Arc::new(Home { origin, client, trust: endpoint.trust });
        Ok(Self {
            auth: Auth::new(Arc::clone(&home), credentials),
            home,
            base,
            headers: endpoint.headers,
            namespace: endpoint.namespace,
            retries,
            is_last,
        })
    }

    /// The URL of something beneath the place.
    pub(crate) fn url(&self, path: &str) -> Result<Url> {
        let mut url = self.base.join(path).map_err(|_| Error::invalid("not a repository"))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    pub(crate) fn host(&self) -> &str {
        self.home.origin.host()
    }

    /// How many failures this place may have.
    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.retries)
    }

    /// Sends a request until it succeeds, or there is no sense in trying again.
    pub(crate) async fn send(&self, shared: &Shared, call: &Call) -> Result<Answer> {
        let mut patience = self.patience();
        let limits = &shared.settings.limits;
        let limit = match call.method {
            Method::GET | Method::HEAD => limits.document,
            _ => limits.answer,
        };
        loop {
            let failure = match self.send_once(shared, call, limit).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            pause(failure, &mut patience, limits).await?;
        }
    }

    /// The same, until the answer's body is here too.
    pub(crate) async fn read(&self, shared: &Shared, call: &Call, max: usize) -> Result<Page> {
        let limits = &shared.settings.limits;
        let mut patience = self.patience();
        loop {
            let attempt = async {
                let Answer { response, url } =
                    self.send_once(shared, call, limits.document).await?;
                let headers = response.headers().clone();
                let body = read_body(response, max, limits).await.map_err(|error| Failure {
                    again: error.kind() != ErrorKind::ResourceExhausted,
                    once: error.kind() == ErrorKind::DeadlineExceeded,
                    error: error.context(call.what()),
                    asked: None,
                })?;
                Ok(Page { headers, url, body })
            };
            match attempt.await {
                Ok(page) => return Ok(page),
                Err(failure) => pause(failure, &mut patience, limits).await?,
            }
        }
    }

    /// Sends a request, with the credentials that the place asks for, to where it says. Each of
    /// whom it is sent to has `limit` for an answer.
    pub(crate) async fn send_once(
        &self,
        shared: &Shared,
        call: &Call,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let mut url = call.url.clone();
        let mut at_home = self.home.is_at(&url);
        let (mut redirects, mut challenges) = (0, 0);
        loop {
            let client = self.home.client_to(shared, &url).map_err(Failure::last)?;
            let mut request = client.request(call.method.clone(), url.clone());
            let mut authorization = None;
            if at_home {
                authorization = self.auth.header(shared, &call.scope).await?;
                request = request.headers(self.headers.clone());
            }
            request = request.headers(call.headers.clone());
            if let Some(value) = &authorization {
                request = request.header(header::AUTHORIZATION, value.clone());
            }
            let response = execute(request, &call.body, call.what(), limit).await?;
            let status = response.status();
            if is_redirect(status) {
                redirects += 1;
                url = self.next(call, &url, &response, redirects)?;
                // Whoever we are sent to may send us back here: then with what he wants, not
                // what we want, and so without our credentials too.
                at_home = at_home && self.home.is_at(&url);
                continue;
            }
            if status.is_success() {
                return Ok(Answer { response, url });
            }
            if status == StatusCode::UNAUTHORIZED && at_home && challenges < MAX_CHALLENGES {
                challenges += 1;
                let headers = response.headers();
                let sent = authorization.as_ref();
                if self.auth.refused(shared, headers, &call.scope, sent).await? {
                    continue;
                }
            }
            return Err(self.refusal(call, response, at_home, &shared.settings.limits).await);
        }
    }

    fn next(
        &self,
        call: &Call,
        from: &Url,
        response: &Response,
        redirects: usize,
    ) -> Result<Url, Failure> {
        let refuse = |why: &str| Failure::last(Error::denied(format!("{}: {why}", call.what())));
        if redirects > MAX_REDIRECTS {
            return Err(Failure::last(Error::unavailable(format!(
                "{}: it sends us from one place to the next, {MAX_REDIRECTS} times",
                call.what()
            ))));
        }
        if !matches!(call.method, Method::GET | Method::HEAD) {
            return Err(refuse("it sends us elsewhere with what we bring"));
        }
        let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        let location = location.ok_or_else(|| refuse("it sends us elsewhere, but not where"))?;
        realm::redirect(from, location)
            .map_err(|refused| refuse(&format!("it sends us to what {}", refused.because())))
    }

    /// What a person is told. Words of a host that the operator didn't name are not repeated:
    /// it may be one inside that the registry had us ask.
    async fn refusal(
        &self,
        call: &Call,
        response: Response,
        at_home: bool,
        limits: &Limits,
    ) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = if at_home && call.method != Method::HEAD {
            read_body(response, failure::MAX_BODY_BYTES, limits).await.unwrap_or_default()
        } else {
            Bytes::new()
        };
        Failure::of_status(call.what(), status, &headers, &body, &self.auth.secrets().await)
    }
}

/// Waits as the failure asks for; gives it back if there is no sense in waiting.
pub(crate) async fn pause(
    failure: Failure,
    patience: &mut Patience,
    limits: &Limits,
) -> Result<()> {
    if !failure.again || (failure.once && !patience.once()) {
        return Err(failure.error);
    }
    let Some(wait) = patience.wait(limits, failure.asked, retry::dice()) else {
        return Err(failure.error);
    };
    tracing::debug!(error = %failure.error, wait_ms = wait.as_millis(), "trying again");
    tokio::time::sleep(wait).await;
    Ok(())
}

/// Whether somebody there speaks TLS. A certificate that is not to be trusted is an error and
/// not a reason to do without, and so is a host that spoke TLS before.
async fn speaks_tls(
    shared: &Shared,
    client: &Client,
    base: &Url,
    patience: &mut Patience,
) -> Result<bool> {
    let origin = Origin::of(base);
    let known = origin.as_ref().is_some_and(|origin| shared.has_spoken_tls(origin));
    if known {
        return Ok(true);
    }
    let limits = &shared.settings.limits;
    let request = client.get(base.clone());
    let secure = match tokio::time::timeout(limits.document, request.send()).await {
        Ok(Ok(_)) => {
            if let Some(origin) = &origin {
                shared.remember_tls(origin);
            }
            return Ok(true);
        }
        Ok(Err(error)) if failure::is_certificate(&error) => {
            let what = format!("{} (insecure-registries can name it)", Shown(base));
            return Err(failure::of_transport(what, error));
        }
        Ok(Err(error)) => error,
        Err(_) => return Err(Failure::silence(Shown(base), limits.document).error),
    };
    if failure::is_unresolved(&secure) {
        return Err(failure::of_transport(Shown(base), secure));
    }
    let mut plain = base.clone();
    let _ = plain.set_scheme("http");
    loop {
        let what = format!("GET {}", Shown(&plain));
        let request = client.get(plain.clone());
        match execute(request, &Body::Nothing, what, limits.document).await {
            Ok(_) => return Ok(false),
            // Somebody is there who does not speak TLS: what he says plainly is what counts.
            Err(failure) if failure::is_of_tls(&secure) => {
                pause(failure, patience, limits).await?;
            }
            Err(failure) => {
                let secure = failure::of_transport(Shown(base), secure);
                return Err(failure.error.because(anyhow::anyhow!("{secure}")));
            }
        }
    }
}

pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Sends and waits for the answer's head, for `limit`. An upload may take as long as it moves.
pub(crate) async fn execute(
    request: reqwest::RequestBuilder,
    body: &Body,
    what: String,
    limit: Duration,
) -> Result<Response, Failure> {
    let (request, moved) = match body {
        Body::Nothing => (request, None),
        Body::Bytes(bytes) => (request.body(bytes.clone()), None),
        Body::Part(part) => {
            let (body, moved) = part.body();
            (request.header(header::CONTENT_LENGTH, part.length).body(body), Some(moved))
        }
    };
    let mut sending = Box::pin(request.send());
    let mut before = u64::MAX;
    loop {
        if let Ok(result) = tokio::time::timeout(limit, &mut sending).await {
            return result.map_err(|error| Failure::of_transport(what, error));
        }
        let now = moved.as_ref().map_or(before, |moved| moved.get());
        if now == before {
            return Err(Failure::silence(what, limit));
        }
        before = now;
    }
}

/// Reads a small body, bounded in size and time.
pub(crate) async fn read_body(
    mut response: Response,
    max: usize,
    limits: &Limits,
) -> Result<Bytes> {
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(piece) =
            response.chunk().await.map_err(|error| failure::of_transport("read", error))?
        {
            if bytes.len() + piece.len() > max {
                return Err(Error::exhausted(format!("the answer has more than {max} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(limits.document, read).await.unwrap_or_else(|_| {
        let seconds = limits.document.as_secs_f32();
        Err(Error::timed_out(format!("the answer does not end within {seconds} s")))
    })
}
