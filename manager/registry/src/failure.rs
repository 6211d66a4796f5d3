//! What a person is told about a registry's answer or silence. Nothing of a URL's query, no
//! credential, and no control character gets into a sentence (R23, R26).

use std::time::Duration;

use http::StatusCode;
use hull_manager_core::Error;
use serde::Deserialize;

use crate::{resolve::Unresolved, secret::Secret};

/// The most bytes of an error's body that are read.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 10;

/// The most characters of a registry's sentence that are repeated.
const MAX_SENTENCE: usize = 300;

/// The registry was not reached, or stopped answering.
pub(crate) fn of_transport(what: impl std::fmt::Display, error: reqwest::Error) -> Error {
    if let Some(unresolved) = cause::<Unresolved>(&error) {
        return Error::unavailable(format!("{what}: {unresolved}"));
    }
    let kind = if error.is_timeout() { Error::timed_out(what) } else { Error::unavailable(what) };
    // With the URL would come its query, where storage services have signatures.
    kind.because(error.without_url())
}

/// Whether trying again can't help: the peer is not who it should be.
pub(crate) fn is_certificate(error: &reqwest::Error) -> bool {
    matches!(
        cause(error),
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

/// Whether the peer is there, but TLS does not come about.
pub(crate) fn is_of_tls(error: &reqwest::Error) -> bool {
    cause::<rustls::Error>(error).is_some()
}

/// Whether the host's name has no address.
pub(crate) fn is_unresolved(error: &reqwest::Error) -> bool {
    cause::<Unresolved>(error).is_some()
}

/// What is beneath an error, if it is of this type.
fn cause<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref::<T>() {
        return Some(found);
    }
    // An io::Error that holds another error gives that one's source for its own.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(held) => cause(held),
        None => cause(error.source()?),
    }
}

/// A time in the largest unit that has a whole number of it.
pub(crate) fn in_time_units(time: Duration) -> String {
    let seconds = time.as_secs().max(1);
    match (seconds % 3600, seconds % 60) {
        (0, _) => format!("{} h", seconds / 3600),
        (_, 0) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// An answer that is not the wanted one: the kind by its status, the sentence from us and, in
/// the registry's words, why.
pub(crate) fn of_status(
    what: impl std::fmt::Display,
    status: StatusCode,
    body: &[u8],
    secrets: &[Secret],
) -> Error {
    let mut sentence = format!("{what}: {}", in_words(status));
    if let Some(words) = words(body, secrets) {
        sentence = format!("{sentence}: {words}");
    }
    match status.as_u16() {
        401 | 403 => Error::denied(sentence),
        404 => Error::not_found(sentence),
        429 => Error::exhausted(sentence),
        400 | 405 | 406 | 413 | 415 | 416 => Error::invalid(sentence),
        _ => Error::unavailable(sentence),
    }
}

fn in_words(status: StatusCode) -> String {
    match status.as_u16() {
        401 => "unauthorized".to_owned(),
        403 => "denied".to_owned(),
        404 => "not found".to_owned(),
        429 => "toomanyrequests".to_owned(),
        _ => format!("the registry answered {status}"),
    }
}

/// The first error of a body in the distribution specification's form.
fn words(body: &[u8], secrets: &[Secret]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Item>,
        // Token servers.
        details: Option<String>,
        error_description: Option<String>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let text = match body.errors.first() {
        Some(item) if item.message.is_empty() => item.code.to_lowercase().replace('_', " "),
        Some(item) => item.message.clone(),
        None => body.error_description.or(body.details)?,
    };
    let text = redact(&text, secrets);
    let text: String =
        text.chars().take(MAX_SENTENCE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// A registry may repeat what it was sent; we don't repeat it.
fn redact(text: &str, secrets: &[Secret]) -> String {
    secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "[secret]"))
}

#[cfg(test)]
mod tests {
    use hull_manager_core::ErrorKind;

    use super::*;

    #[test]
    fn a_registrys_words_are_repeated_without_secrets_and_control_characters() {
        let secrets = [Secret::new("hunter2"), Secret::new("")];
        for (status, body, kind, expected) in [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                ErrorKind::NotFound,
                "a: not found: manifest unknown",
            ),
            (
                401,
                r#"{"errors":[{"code":"DENIED"}]}"#,
                ErrorKind::PermissionDenied,
                "a: unauthorized: denied",
            ),
            (
                401,
                r#"{"details":"incorrect username"}"#,
                ErrorKind::PermissionDenied,
                "a: unauthorized: incorrect username",
            ),
            (
                403,
                "{\"errors\":[{\"message\":\"x\\u001b[2Jhunter2\"}]}",
                ErrorKind::PermissionDenied,
                "a: denied: x [2J[secret]",
            ),
            (429, "<html>", ErrorKind::ResourceExhausted, "a: toomanyrequests"),
            (502, "", ErrorKind::Unavailable, "a: the registry answered 502 Bad Gateway"),
            (404, r#"{"errors":null}"#, ErrorKind::NotFound, "a: not found"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = of_status("a", status, body.as_bytes(), &secrets);
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, expected));
        }
    }
}
