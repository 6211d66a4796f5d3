//! Origins: scheme, host and port. What credentials are bound to (R17), and what of a URL may
//! be shown.

use std::{fmt, net::IpAddr};

use reqwest::Url;

/// Where a URL leads to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Of an http or https URL; nothing for any other.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.scheme == "http"
    }

    /// `host:port`, the port always written.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// The address that a URL's host is, in brackets or not.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Whether what is sent there stays on this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

/// The host without its port: `[::1]:5000` is `[::1]`.
pub(crate) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// A URL as errors and logs may have it: queries carry signatures, user parts passwords.
pub(crate) struct Shown<'a>(pub(crate) &'a Url);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.0;
        write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())
    }
}

/// A range of addresses: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    network: IpAddr,
    bits: u32,
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (network, bits) = text.split_once('/')?;
        let network: IpAddr = network.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        (bits <= if network.is_ipv4() { 32 } else { 128 }).then_some(Self { network, bits })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        fn same(a: u128, b: u128, width: u32, bits: u32) -> bool {
            bits == 0 || (a ^ b) >> (width - bits) == 0
        }
        match (self.network, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                same(u32::from(a).into(), u32::from(b).into(), 32, self.bits)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128, self.bits),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(&url.parse().unwrap()).unwrap()
    }

    #[test]
    fn origins_are_equal_by_scheme_host_and_port() {
        assert!(origin("https://a.b/x") == origin("https://A.b:443/y?z"));
        for other in
            ["http://a.b", "https://a.b:444", "https://a.c", "https://x.a.b", "https://a.b."]
        {
            assert!(origin("https://a.b") != origin(other), "{other}");
        }
        assert!(Origin::of(&"ftp://a/".parse().unwrap()).is_none());
    }

    #[test]
    fn a_shown_url_has_no_secrets() {
        let url: Url = "https://user:pass@a.b:1/p?token=t#f".parse().unwrap();
        assert_eq!(Shown(&url).to_string(), "https://a.b:1/p");
    }

    #[test]
    fn loopback_is_by_address_or_the_one_name() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil", "127.0.0.1.nip.io", "[::2]", "10.0.0.1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
        assert_eq!(
            (host_of("[::1]:5000"), host_of("[::1]"), host_of("a:1")),
            ("[::1]", "[::1]", "a")
        );
    }

    #[test]
    fn ranges_hold_their_addresses() {
        for (range, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("1.2.3.4/32", "1.2.3.5", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
        ] {
            assert_eq!(Cidr::parse(range).unwrap().contains(address.parse().unwrap()), inside);
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "a/8", "::/129"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }
}
