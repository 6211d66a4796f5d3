//! `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry wants to see. Pure.

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// The most bytes of challenges that are looked at.
const MAX_BYTES: usize = 16 << 10;

/// How to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from `realm` for `service`.
    Bearer { realm: String, service: Option<String> },
}

/// The challenge to answer: a token where one is offered. Nothing if none is understood, or if
/// two contradict each other: a registry has one token server (R15).
pub(crate) fn of(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = false;
    let mut bearer: Option<Challenge> = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let text = value.to_str().ok().filter(|text| text.len() <= MAX_BYTES)?;
        for (scheme, parameters) in parse(text)? {
            if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else if scheme.eq_ignore_ascii_case("bearer") {
                let challenge = Challenge::Bearer {
                    realm: once(&parameters, "realm")??,
                    service: once(&parameters, "service")?,
                };
                if bearer.replace(challenge.clone()).is_some_and(|other| other != challenge) {
                    return None;
                }
            }
        }
    }
    bearer.or(basic.then_some(Challenge::Basic))
}

type Parameters = Vec<(String, String)>;

/// The value of a parameter; the outer nothing if it is there twice.
fn once(parameters: &Parameters, name: &str) -> Option<Option<String>> {
    let mut values = parameters.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    let first = values.next().map(|(_, value)| value.clone());
    values.next().is_none().then_some(first)
}

/// Schemes with their parameters. Nothing for what is not such a list.
fn parse(text: &str) -> Option<Vec<(String, Parameters)>> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = text.trim_start_matches(SEPARATORS);
    while !rest.is_empty() {
        let (word, after) = token(rest)?;
        let after = after.trim_start_matches(SPACES);
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = value_of(value.trim_start_matches(SPACES))?;
                parameters.push((word.to_owned(), value));
                rest = separated(after)?;
            }
            (Some(_), None) => return None,
            (None, _) => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = skip_token68(after).trim_start_matches(SEPARATORS);
            }
        }
    }
    Some(challenges)
}

const SPACES: [char; 2] = [' ', '\t'];
const SEPARATORS: [char; 3] = [' ', '\t', ','];

fn token(text: &str) -> Option<(&str, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// What follows a parameter: nothing, or a comma before the next thing.
fn separated(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(SPACES);
    (text.is_empty() || text.starts_with(',')).then(|| text.trim_start_matches(SEPARATORS))
}

/// Without the one unnamed value that some schemes have (`Negotiate abc==`).
fn skip_token68(text: &str) -> &str {
    let end = text.find(',').unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    let value = value.trim_end_matches(SPACES).trim_end_matches('=');
    let part = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    if !value.is_empty() && value.chars().all(part) { rest } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], expected: Option<Challenge>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
        }
        assert_eq!(of(&headers), expected, "{lines:?}");
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
    }

    #[test]
    fn challenges_of_registries_are_read() {
        let token = "https://auth.docker.io/token";
        for line in [
            r#"Bearer realm="https://auth.docker.io/token",service="s",scope="repository:a:pull""#,
            r#"bearer  realm = "https://auth.docker.io/token" , service="s""#,
            r#"Bearer service="s",realm="https:\/\/auth.docker.io\/token",error="a, b=\"c\"""#,
            r#"Basic realm="x, Bearer y", Bearer realm="https://auth.docker.io/token",service=s"#,
            r#"Negotiate abc==, Bearer realm="https://auth.docker.io/token",service="s""#,
        ] {
            check(&[line], bearer(token, Some("s")));
        }
        check(&[r#"Bearer realm="r""#], bearer("r", None));
        check(&[r#"Basic realm="r", charset="UTF-8""#], Some(Challenge::Basic));
        check(&["Basic"], Some(Challenge::Basic));
        check(&["Negotiate", r#"Basic realm="r""#], Some(Challenge::Basic));
        check(&[r#"Basic realm="r""#, r#"Bearer realm="t""#], bearer("t", None));
    }

    #[test]
    fn what_is_ambiguous_or_broken_is_not_answered() {
        for line in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer service=\"s\"",
            "Bearer realm=",
            "Bearer realm=\"open",
            "Bearer realm=\"a\" realm=\"b\"",
            "Bearer realm=\"a\", realm=\"b\"",
            "Bearer realm=\"a\", Bearer realm=\"b\"",
            "Bearer realm=\"a\", service=x, service=y",
            "=\"x\"",
            "Bearer realm=\"a\\",
            "Bearer \"realm\"",
        ] {
            check(&[line], None);
        }
        check(&["Bearer realm=\"a\"", "Bearer realm=\"b\""], None);
        check(&[&format!("Bearer realm=\"{}\"", "a".repeat(MAX_BYTES))], None);
    }
}
