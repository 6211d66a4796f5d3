//! Which token server a registry may name, and where a redirect or an upload may lead (R17).
//! Pure: tables below say all.

use reqwest::Url;

use crate::origin::{Origin, address, is_loopback};

/// Why a URL that a registry named is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not an absolute http or https URL without user and fragment.
    NoUrl,
    /// Credentials or content would go from https to http.
    Downgrade,
    /// An address instead of a name.
    Address,
    /// A host of somebody else.
    OtherSite,
}

impl Refused {
    /// The rest of a sentence that begins with whom it names.
    pub(crate) fn because(self) -> &'static str {
        match self {
            Self::NoUrl => "is not a plain http or https URL",
            Self::Downgrade => "is http, where https is required",
            Self::Address => "is an address instead of a name",
            Self::OtherSite => {
                "belongs to another site than the registry; if it is right, allow it by name"
            }
        }
    }
}

/// The token server's URL. It must be https, unless the registry itself is spoken to over
/// http; it is no address, unless the registry is that one; and it is of the registry's site
/// (see [`same_site`]) or one of the operator's `allowed` hosts.
pub(crate) fn token_server(
    registry: &Origin,
    realm: &str,
    allowed: &[String],
) -> Result<Url, Refused> {
    let url = plain_url(realm.parse().map_err(|_| Refused::NoUrl)?)?;
    let origin = Origin::of(&url).ok_or(Refused::NoUrl)?;
    let listed = allowed.iter().any(|name| name == origin.host() || *name == origin.authority());
    if origin.is_plain() && !(registry.is_plain() && origin.host() == registry.host()) {
        return Err(Refused::Downgrade);
    }
    if listed || origin.host() == registry.host() {
        return Ok(url);
    }
    if address(origin.host()).is_some() {
        return Err(Refused::Address);
    }
    if same_site(registry.host(), origin.host()) { Ok(url) } else { Err(Refused::OtherSite) }
}

/// Where a redirect leads. Never from https to http; over http only to the same host, since
/// nobody vouches for another.
pub(crate) fn redirect(from: &Url, location: &str) -> Result<Url, Refused> {
    let url = plain_url(from.join(location).map_err(|_| Refused::NoUrl)?)?;
    if url.scheme() == "http" && !(from.scheme() == "http" && url.host_str() == from.host_str()) {
        return Err(Refused::Downgrade);
    }
    Ok(url)
}

pub(crate) fn plain_url(mut url: Url) -> Result<Url, Refused> {
    if Origin::of(&url).is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err(Refused::NoUrl);
    }
    url.set_fragment(None);
    Ok(url)
}

/// Whether two hosts belong to the same site: they are equal, or share the name that one
/// registers: the last two labels, or the last three where the last has two letters and the one
/// before it is what registries of countries sell names under (`co.uk`). Names of one label and
/// addresses have no site. Without the public suffix list this is too generous for hosting
/// domains (`a.example.io` and `b.example.io` of two tenants); it is the second fence, not the
/// first: the realm was named by the registry that the credentials are for.
fn same_site(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    if address(a).is_some() || address(b).is_some() || is_loopback(a) || is_loopback(b) {
        return false;
    }
    match (site(a), site(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn site(host: &str) -> Option<&str> {
    let labels: Vec<&str> = host.split('.').collect();
    let sold_beneath = |label: &str| {
        matches!(label, "ac" | "co" | "com" | "edu" | "go" | "gov" | "ne" | "net" | "or" | "org")
    };
    let count = match labels.as_slice() {
        [.., second, last] if last.len() == 2 && sold_beneath(second) => 3,
        [.., _, _] => 2,
        _ => return None,
    };
    if labels.len() < count || labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    let length: usize = labels[labels.len() - count..].iter().map(|label| label.len() + 1).sum();
    host.get(host.len() + 1 - length..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_servers() {
        use Refused::*;
        for (registry, realm, expected) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token", Ok(())),
            ("https://ghcr.io", "https://ghcr.io/token", Ok(())),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", Ok(())),
            ("https://registry.a.co.uk", "https://auth.a.co.uk/", Ok(())),
            ("https://registry.a.co.uk", "https://auth.b.co.uk/", Err(OtherSite)),
            ("https://r.corp.example:5000", "https://auth.example.com/", Err(OtherSite)),
            ("https://a.b", "https://a.b.evil/", Err(OtherSite)),
            ("https://a.b", "https://a.b:444/token", Ok(())),
            ("https://a.b", "https://xa.b/", Err(OtherSite)),
            ("https://a.b", "https://listed.x/", Ok(())),
            ("https://a.b", "http://listed.x/", Err(Downgrade)),
            ("https://a.b", "https://10.0.0.9/", Ok(())),
            ("https://a.b", "http://a.b/token", Err(Downgrade)),
            ("https://a.b", "https://10.0.0.1/", Err(Address)),
            ("https://a.b", "https://[::1]/", Err(Address)),
            ("https://a.b", "https://2130706433/", Err(Address)),
            ("https://a.b", "https://0x7f.1/", Err(Address)),
            ("https://a.b", "https://127.0.0.1/", Err(Address)),
            ("https://10.0.0.1:5000", "https://10.0.0.1/token", Ok(())),
            ("https://10.0.0.1:5000", "https://10.0.0.2/token", Err(Address)),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", Ok(())),
            ("http://127.0.0.1:5000", "http://127.0.0.2:5001/token", Err(Downgrade)),
            ("http://localhost:5000", "http://localhost:5001/token", Ok(())),
            ("http://localhost:5000", "http://evil.test/token", Err(Downgrade)),
            ("http://localhost:5000", "https://evil.test/token", Err(OtherSite)),
            ("https://localhost:5000", "http://localhost:5001/token", Err(Downgrade)),
            ("https://a.b", "https://user:pass@a.b/", Err(NoUrl)),
            ("https://a.b", "https://a.b@evil.x/", Err(NoUrl)),
            ("https://a.b", "/token", Err(NoUrl)),
            ("https://a.b", "ftp://a.b/token", Err(NoUrl)),
            ("https://a.b", "file:///etc/passwd", Err(NoUrl)),
            ("https://a.b", "https://a.b\\.evil.x/", Ok(())),
            ("https://com", "https://a.com", Err(OtherSite)),
            ("https://a.b..", "https://b.b..", Err(OtherSite)),
        ] {
            let registry = Origin::of(&registry.parse().unwrap()).unwrap();
            let allowed = ["listed.x".to_owned(), "10.0.0.9:443".to_owned()];
            let result = token_server(&registry, realm, &allowed).map(drop);
            assert_eq!(result, expected, "{registry} {realm}");
        }
    }

    #[test]
    fn redirects() {
        use Refused::*;
        for (from, location, expected) in [
            ("https://a.b/v2/x", "/v2/y?s=1", Ok("https://a.b/v2/y?s=1")),
            ("https://a.b/v2/x", "y", Ok("https://a.b/v2/y")),
            ("https://a.b/v2/x", "//cdn.x/y", Ok("https://cdn.x/y")),
            ("https://a.b/v2/x", "https://cdn.x/y#f", Ok("https://cdn.x/y")),
            ("https://a.b/v2/x", "http://a.b/y", Err(Downgrade)),
            ("https://a.b/v2/x", "http://cdn.x/y", Err(Downgrade)),
            ("http://a.b/v2/x", "http://a.b:81/y", Ok("http://a.b:81/y")),
            ("http://a.b/v2/x", "http://cdn.x/y", Err(Downgrade)),
            ("http://a.b/v2/x", "https://cdn.x/y", Ok("https://cdn.x/y")),
            ("https://a.b/v2/x", "https://u@a.b/y", Err(NoUrl)),
            ("https://a.b/v2/x", "file:///etc/passwd", Err(NoUrl)),
            ("https://a.b/v2/x", "data:,x", Err(NoUrl)),
            ("https://a.b/v2/x", "https://", Err(NoUrl)),
        ] {
            let result = redirect(&from.parse().unwrap(), location);
            assert_eq!(
                result.as_ref().map(Url::as_str),
                expected.as_ref().map(|u| *u),
                "{location}"
            );
        }
    }
}
