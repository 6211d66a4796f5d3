//! What may not be seen: passwords and tokens (R23).

use std::fmt;

use base64::Engine as _;
use http::HeaderValue;

/// A text that can be used but neither printed nor written as JSON by accident.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to hide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What a registry wants to know of the caller.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Anonymous,
    /// A name and a password, or a token that takes its place.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token (docker's "identitytoken").
    IdentityToken(Secret),
    /// A bearer token, sent as it is.
    RegistryToken(Secret),
}

impl Credentials {
    /// Of the four texts that docker's clients keep; the most special one counts. Docker's
    /// clients write the user `<token>` with an identity token in place of the password.
    #[must_use]
    pub fn new(username: &str, password: &str, identity_token: &str, registry_token: &str) -> Self {
        if !registry_token.is_empty() {
            Self::RegistryToken(Secret::new(registry_token))
        } else if !identity_token.is_empty() {
            Self::IdentityToken(Secret::new(identity_token))
        } else if username == "<token>" && !password.is_empty() {
            Self::IdentityToken(Secret::new(password))
        } else if username.is_empty() && password.is_empty() {
            Self::Anonymous
        } else {
            Self::Password { username: username.to_owned(), password: Secret::new(password) }
        }
    }
}

/// `Basic …` (RFC 7617), marked so that no log shows it. Nothing if it is no header's value.
pub(crate) fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = format!("{username}:{}", password.expose());
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    sensitive(&format!("Basic {encoded}"))
}

/// `Bearer …` (RFC 6750), likewise.
pub(crate) fn bearer(token: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose()))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let credentials = Credentials::new("user", "hunter2", "", "");
        assert!(!format!("{credentials:?}").contains("hunter2"));
        let header = basic("user", &Secret::new("hunter2")).unwrap();
        assert_eq!(header, "Basic dXNlcjpodW50ZXIy");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(bearer(&Secret::new("a\nb")).is_none());
    }

    #[test]
    fn the_most_special_credential_counts() {
        let kind = |u, p, i, r| match Credentials::new(u, p, i, r) {
            Credentials::Anonymous => "anonymous",
            Credentials::Password { .. } => "password",
            Credentials::IdentityToken(_) => "identity",
            Credentials::RegistryToken(_) => "registry",
        };
        assert_eq!(kind("", "", "", ""), "anonymous");
        assert_eq!(kind("u", "p", "", ""), "password");
        assert_eq!(kind("u", "p", "i", ""), "identity");
        assert_eq!(kind("<token>", "p", "", ""), "identity");
        assert_eq!(kind("u", "p", "i", "r"), "registry");
    }
}
