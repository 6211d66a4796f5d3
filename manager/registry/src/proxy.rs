//! Proxies, as the environment of most programs names them: `HTTP_PROXY`, `HTTPS_PROXY`,
//! `NO_PROXY` and their lower-case forms, with the meaning they have for Go's programs, which
//! is what users of docker's daemon know.

use hull_manager_core::{Error, Result};
use reqwest::Url;

use crate::origin::{Cidr, Shown, address, is_loopback};

/// Which requests go through which proxy. Requests to this machine never do.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<Direct>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |url: &Option<Url>| url.as_ref().map(|url| Shown(url).to_string());
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("direct", &self.direct)
            .finish()
    }
}

/// Whom no proxy is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    Everybody,
    Range(Cidr),
    /// The name and all names beneath it; only one port, if there is one.
    Name(String, Option<u16>),
    /// Only names beneath it.
    Beneath(String, Option<u16>),
}

impl Proxies {
    /// As the environment of this process says.
    ///
    /// # Errors
    /// If a proxy is not an http or https URL.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .into_iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
                .unwrap_or_default()
        };
        Self::new(&variable("HTTP_PROXY"), &variable("HTTPS_PROXY"), &variable("NO_PROXY"))
    }

    /// A proxy for http, one for https, each a URL or empty, and a comma-separated list of
    /// whom they are not used for: names (with their subdomains; with a leading dot only
    /// those), addresses, ranges, each with an optional port, or `*`.
    ///
    /// # Errors
    /// If a proxy is not an http or https URL.
    pub fn new(http: &str, https: &str, no: &str) -> Result<Self> {
        Ok(Self {
            http: proxy(http)?,
            https: proxy(https)?,
            direct: no.split(',').filter_map(|word| direct(word.trim())).collect(),
        })
    }

    /// The proxy for a request.
    pub(crate) fn of(&self, url: &Url) -> Option<Url> {
        let host = url.host_str()?;
        let port = url.port_or_known_default();
        if is_loopback(host) || self.direct.iter().any(|rule| rule.matches(host, port)) {
            return None;
        }
        if url.scheme() == "https" { self.https.clone() } else { self.http.clone() }
    }
}

impl Direct {
    fn matches(&self, host: &str, port: Option<u16>) -> bool {
        let beneath = |name: &str| {
            host.strip_suffix(name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        let at = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Self::Everybody => true,
            Self::Range(range) => address(host).is_some_and(|address| range.contains(address)),
            Self::Name(name, wanted) => at(wanted) && (host == name || beneath(name)),
            Self::Beneath(name, wanted) => at(wanted) && beneath(name),
        }
    }
}

fn proxy(text: &str) -> Result<Option<Url>> {
    if text.is_empty() {
        return Ok(None);
    }
    // Without a scheme it is http, as everywhere.
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url)),
        // The text may hold a password: it is not repeated.
        _ => Err(Error::invalid("a proxy of the environment is not an http or https URL")),
    }
}

fn direct(word: &str) -> Option<Direct> {
    if word.is_empty() {
        return None;
    }
    if word == "*" {
        return Some(Direct::Everybody);
    }
    if let Some(range) = Cidr::parse(word) {
        return Some(Direct::Range(range));
    }
    let word = word.to_ascii_lowercase();
    if word.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some(Direct::Name(format!("[{word}]"), None));
    }
    let (name, port) = match word.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port.parse().ok()?)),
        _ => (word.as_str(), None),
    };
    Some(match name.strip_prefix("*.").or(name.strip_prefix('.')) {
        Some(name) => Direct::Beneath(name.to_owned(), port),
        None => Direct::Name(name.to_owned(), port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_means_what_it_means_for_go() {
        let no = "example.com, .sub.org,10.0.0.0/8,1.2.3.4,host:5000,::2,*.star.net";
        let proxies = Proxies::new("proxy:3128", "http://u:p@tls:3129", no).unwrap();
        for (url, expected) in [
            ("http://a.b/", Some("proxy")),
            ("https://a.b/", Some("tls")),
            ("https://example.com/", None),
            ("https://x.example.com/", None),
            ("https://notexample.com/", Some("tls")),
            ("https://sub.org/", Some("tls")),
            ("https://a.sub.org/", None),
            ("https://a.star.net/", None),
            ("https://10.1.2.3/", None),
            ("https://11.1.2.3/", Some("tls")),
            ("https://1.2.3.4:8443/", None),
            ("https://host:5000/", None),
            ("https://host/", Some("tls")),
            ("https://[::2]/", None),
            ("http://localhost:5000/", None),
            ("http://127.3.2.1/", None),
            ("https://[::1]:5000/", None),
        ] {
            let proxy = proxies.of(&url.parse().unwrap());
            assert_eq!(proxy.as_ref().and_then(Url::host_str), expected, "{url}");
        }
        let star = Proxies::new("p", "p", "*").unwrap();
        assert!(star.of(&"https://a.b".parse().unwrap()).is_none());
    }

    #[test]
    fn a_proxy_that_is_none_is_refused_without_its_password() {
        let error = Proxies::new("socks5://u:hunter2@x", "", "").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
        let debug = format!("{:?}", Proxies::new("http://u:hunter2@x", "", "").unwrap());
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}
