//! Authentication at one origin: which header a request gets (R17).
//!
//! Credentials go to the registry they are for and, if it names one that [`crate::realm`] lets
//! pass, to its token server. Tokens are kept for one origin and one scope, which is always what
//! the request needs and never what the registry asks for: else it could have us fetch a token
//! for another repository.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, header};
use hull_manager_core::{Error, ErrorKind};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    challenge::{self, Challenge},
    home::Home,
    origin::Shown,
    realm,
    remote::{Failure, read_body},
    secret::{Credentials, Secret, basic, bearer},
    shared::Shared,
};

/// The most bytes of a token server's answer.
const MAX_BYTES: usize = 256 << 10;

/// How long a token lives if nothing is said, and at most.
const LIFETIME: Duration = Duration::from_secs(60);
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A token is not used any more so long before its end.
const MARGIN: Duration = Duration::from_secs(5);

/// Scopes of which tokens are kept.
const MAX_TOKENS: usize = 256;

/// Who we are to the token server.
const CLIENT_ID: &str = "hull";

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Nothing: whether the registry is there, and takes the credentials.
    Nothing,
    Pull(String),
    Push(String),
    Mount {
        to: String,
        from: String,
    },
    Catalog,
}

impl Scope {
    fn words(&self) -> Vec<String> {
        match self {
            Self::Nothing => vec![],
            Self::Pull(path) => vec![format!("repository:{path}:pull")],
            Self::Push(path) => vec![format!("repository:{path}:pull,push")],
            Self::Mount { to, from } => {
                vec![format!("repository:{to}:pull,push"), format!("repository:{from}:pull")]
            }
            Self::Catalog => vec!["registry:catalog:*".to_owned()],
        }
    }
}

/// How one origin wants us to authenticate, and what we have for it.
pub(crate) struct Auth {
    home: Arc<Home>,
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    way: Option<Way>,
    tokens: HashMap<Scope, Token>,
}

#[derive(Clone, PartialEq)]
enum Way {
    Basic,
    Token { server: Url, service: Option<String> },
}

struct Token {
    secret: Secret,
    expires: Instant,
}

/// What a token server gave.
pub(crate) struct Grant {
    token: Token,
    /// In place of the password from now on.
    pub(crate) refresh: Option<Secret>,
}

impl Auth {
    pub(crate) fn new(home: Arc<Home>, credentials: Credentials) -> Self {
        Self { home, credentials, state: Mutex::default() }
    }

    /// The `Authorization` of a request to the origin.
    pub(crate) async fn header(
        &self,
        shared: &Shared,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, Failure> {
        let unfit = || Failure::last(Error::invalid("the credentials can't be sent in a header"));
        if let Credentials::RegistryToken(token) = &self.credentials {
            return bearer(token).map(Some).ok_or_else(unfit);
        }
        // Held while a token is fetched: all layers of an image ask for the same one.
        let mut state = self.state.lock().await;
        let (server, service) = match state.way.clone() {
            None => return Ok(None),
            Some(Way::Basic) => {
                return match &self.credentials {
                    Credentials::Password { username, password } => {
                        basic(username, password).map(Some).ok_or_else(unfit)
                    }
                    _ => Ok(None),
                };
            }
            Some(Way::Token { server, service }) => (server, service),
        };
        if let Some(token) = state.tokens.get(scope).filter(|t| t.expires > Instant::now()) {
            return bearer(&token.secret).map(Some).ok_or_else(unfit);
        }
        let grant = self.fetch(shared, &server, service.as_deref(), scope, false).await?;
        let value = bearer(&grant.token.secret).ok_or_else(unfit)?;
        if state.tokens.len() >= MAX_TOKENS {
            state.tokens.clear();
        }
        state.tokens.insert(scope.clone(), grant.token);
        Ok(Some(value))
    }

    /// The origin refused a request that had the authorization `sent`: whether there is another
    /// to try.
    pub(crate) async fn refused(
        &self,
        shared: &Shared,
        headers: &HeaderMap,
        scope: &Scope,
        sent: Option<&HeaderValue>,
    ) -> Result<bool, Failure> {
        if matches!(self.credentials, Credentials::RegistryToken(_)) {
            return Ok(false);
        }
        let way = match challenge::of(headers) {
            None => return Ok(false),
            Some(Challenge::Basic) => Way::Basic,
            Some(Challenge::Bearer { realm, service }) => Way::Token {
                server: self.token_server(shared, &realm).map_err(Failure::last)?,
                service,
            },
        };
        let mut state = self.state.lock().await;
        if state.way.as_ref() != Some(&way) {
            state.tokens.clear();
            state.way = Some(way);
            return Ok(true);
        }
        if matches!(way, Way::Basic) {
            // The same name and password again would be refused again.
            return Ok(sent.is_none() && matches!(self.credentials, Credentials::Password { .. }));
        }
        // Expired early, unless another request has already seen to it.
        let stale = state.tokens.get(scope).and_then(|token| bearer(&token.secret));
        if sent.is_some() && stale.as_ref() == sent {
            state.tokens.remove(scope);
        }
        Ok(true)
    }

    /// Asks the token server for something to keep in place of the password, if it gives such.
    pub(crate) async fn login(&self, shared: &Shared) -> Result<Option<Secret>, Failure> {
        let way = self.state.lock().await.way.clone();
        let Some(Way::Token { server, service }) = way else { return Ok(None) };
        let grant = self.fetch(shared, &server, service.as_deref(), &Scope::Nothing, true).await?;
        let refresh = grant.refresh.clone();
        self.state.lock().await.tokens.insert(Scope::Nothing, grant.token);
        Ok(refresh)
    }

    /// What a registry might repeat of what it was sent.
    pub(crate) async fn secrets(&self) -> Vec<Secret> {
        let mut secrets = self.own_secrets();
        let state = self.state.lock().await;
        secrets.extend(state.tokens.values().map(|token| token.secret.clone()));
        secrets
    }

    fn own_secrets(&self) -> Vec<Secret> {
        match &self.credentials {
            Credentials::Anonymous => vec![],
            Credentials::Password { username, password } => {
                let pair = basic(username, password);
                let pair = pair.as_ref().and_then(|value| value.to_str().ok());
                let encoded = pair.and_then(|pair| pair.strip_prefix("Basic ")).unwrap_or_default();
                vec![Secret::new(encoded), password.clone()]
            }
            Credentials::IdentityToken(token) | Credentials::RegistryToken(token) => {
                vec![token.clone()]
            }
        }
    }

    fn token_server(&self, shared: &Shared, realm: &str) -> Result<Url, Error> {
        realm::token_server(&self.home.origin, realm, &shared.settings.token_hosts).map_err(
            |refused| {
                let shown = realm.parse().map_or_else(
                    |_| "what is no URL".to_owned(),
                    |url: Url| Shown(&url).to_string().escape_debug().to_string(),
                );
                Error::denied(format!(
                    "{} sends us for a token to {shown}, which {}",
                    self.home.origin.host(),
                    refused.because()
                ))
            },
        )
    }

    async fn fetch(
        &self,
        shared: &Shared,
        server: &Url,
        service: Option<&str>,
        scope: &Scope,
        offline: bool,
    ) -> Result<Grant, Failure> {
        let what = || format!("a token from {}", Shown(server));
        let client = self.home.client_to(shared, server).map_err(Failure::last)?;
        let mut form: Vec<(&str, String)> = Vec::new();
        form.extend(service.map(|service| ("service", service.to_owned())));
        let request = if let Credentials::IdentityToken(token) = &self.credentials {
            form.push(("scope", scope.words().join(" ")));
            form.push(("grant_type", "refresh_token".to_owned()));
            form.push(("client_id", CLIENT_ID.to_owned()));
            form.push(("refresh_token", token.expose().to_owned()));
            client
                .post(server.clone())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(encoded(&form))
        } else {
            form.extend(scope.words().into_iter().map(|word| ("scope", word)));
            let mut authorization = None;
            if let Credentials::Password { username, password } = &self.credentials {
                form.push(("account", username.clone()));
                authorization = basic(username, password);
            }
            if offline {
                form.push(("offline_token", "true".to_owned()));
                form.push(("client_id", CLIENT_ID.to_owned()));
            }
            let mut url = server.clone();
            if !form.is_empty() {
                url.query_pairs_mut().extend_pairs(&form);
            }
            let request = client.get(url);
            match authorization {
                Some(value) => request.header(header::AUTHORIZATION, value),
                None => request,
            }
        };
        let request = request.header(header::ACCEPT, "application/json");
        let limits = &shared.settings.limits;
        let answer = async {
            let response = request.send().await.map_err(|e| Failure::of_transport(what(), e))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = read_body(response, MAX_BYTES, limits)
                .await
                .map_err(|error| Failure::again(error.context(what())))?;
            Ok((status, headers, body))
        };
        let (status, headers, body) = tokio::time::timeout(limits.document, answer)
            .await
            .unwrap_or_else(|_| Err(Failure::silence(what(), limits.document)))?;
        if status.is_redirection() {
            // Credentials would go to whom nobody named.
            return Err(Failure::last(Error::denied(what() + ": it sends us elsewhere")));
        }
        if !status.is_success() {
            let secrets = self.own_secrets();
            return Err(Failure::of_status(what(), status, &headers, &body, &secrets));
        }
        grant(&body).map_err(|error| Failure::last(error.context(what())))
    }
}

fn encoded(form: &[(&str, String)]) -> String {
    let mut url: Url = "form:".parse().expect("is a URL");
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or_default().to_owned()
}

/// Reads a token server's answer (Docker's token authentication specification).
fn grant(body: &[u8]) -> Result<Grant, Error> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
        #[serde(default)]
        refresh_token: Option<String>,
    }
    // serde's words would hold pieces of the body, and so perhaps of the token.
    let body: Body = serde_json::from_slice(body)
        .map_err(|_| Error::new(ErrorKind::Unavailable, "the answer is not one"))?;
    let token =
        body.token.filter(|t| !t.is_empty()).or(body.access_token.filter(|t| !t.is_empty()));
    let token = Secret::new(token.ok_or_else(|| Error::denied("the answer has no token"))?);
    let lifetime = body.expires_in.map_or(LIFETIME, Duration::from_secs).min(MAX_LIFETIME);
    Ok(Grant {
        token: Token { secret: token, expires: Instant::now() + lifetime.saturating_sub(MARGIN) },
        refresh: body.refresh_token.filter(|t| !t.is_empty()).map(Secret::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_what_the_request_needs() {
        for (scope, words) in [
            (Scope::Pull("a/b".into()), "repository:a/b:pull"),
            (Scope::Push("a".into()), "repository:a:pull,push"),
            (
                Scope::Mount { to: "a".into(), from: "b".into() },
                "repository:a:pull,push repository:b:pull",
            ),
            (Scope::Catalog, "registry:catalog:*"),
            (Scope::Nothing, ""),
        ] {
            assert_eq!(scope.words().join(" "), words);
        }
    }

    #[test]
    fn answers_of_token_servers() {
        let lifetime = |text: &str| {
            let grant = grant(text.as_bytes()).ok()?;
            let left = grant.token.expires - Instant::now() + MARGIN;
            Some((grant.token.secret.expose().to_owned(), left.as_secs_f64().round()))
        };
        for (text, expected) in [
            (r#"{"token":"a"}"#, Some(("a", 60.0))),
            (r#"{"token":"a","access_token":"b","expires_in":300}"#, Some(("a", 300.0))),
            (r#"{"token":"","access_token":"b"}"#, Some(("b", 60.0))),
            (r#"{"token":"a","expires_in":99999999999}"#, Some(("a", 86400.0))),
            (r#"{"token":""}"#, None),
            (r#"{"token":null}"#, None),
            ("", None),
            (r#"{"token":"a","expires_in":-1}"#, None),
        ] {
            let expected = expected.map(|(token, seconds)| (token.to_owned(), seconds));
            assert_eq!(lifetime(text), expected, "{text}");
        }
        let error = grant(br#"{"token":"hunter2""#).err().unwrap().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_form_is_encoded() {
        assert_eq!(encoded(&[("a", "x y&".into()), ("b", "\u{e4}".into())]), "a=x+y%26&b=%C3%A4");
    }
}
