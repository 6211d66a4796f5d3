//! Where a syslog is, by docker's `syslog-address`.

use crate::error::{Result, must, refuse};

/// TLS would put a TLS library into each container's shim.
pub(crate) const NO_TLS: &str = "TLS to a syslog is not supported";

/// The port of a syslog that says none.
const PORT: u16 = 514;

/// The facilities' names by number (RFC 5424, section 6.2.1), as far as docker has them.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// Where a syslog is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The host's own.
    Local,
    /// A datagram socket's path.
    Unixgram(String),
    /// A stream socket's path.
    Unix(String),
    /// A host's name or address, and a port.
    Udp(String, u16),
    /// The same.
    Tcp(String, u16),
}

impl Address {
    /// Reads what docker reads, but for TLS.
    ///
    /// # Errors
    /// In docker's words.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Local);
        }
        let parts = text.split_once("://");
        let known = ["unixgram", "unix", "udp", "tcp", "tcp+tls"];
        let Some((scheme, rest)) = parts.filter(|(scheme, _)| known.contains(scheme)) else {
            refuse!("syslog-address should be in form proto://address, got {text}");
        };
        match scheme {
            "tcp+tls" => refuse!("log opt syslog-address: {NO_TLS}"),
            "unix" | "unixgram" => {
                must!(
                    rest.starts_with('/') && !rest.split('/').any(|part| part == ".."),
                    "syslog-address: {rest:?} is not an absolute path"
                );
                let path = rest.to_owned();
                Ok(if scheme == "unix" { Self::Unix(path) } else { Self::Unixgram(path) })
            }
            _ => {
                let (host, port) = host_and_port(rest)?;
                Ok(if scheme == "udp" { Self::Udp(host, port) } else { Self::Tcp(host, port) })
            }
        }
    }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`.
fn host_and_port(text: &str) -> Result<(String, u16)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').or(rest.is_empty().then_some(""))),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("")),
        },
    };
    let port = match port {
        Some("") => Some(PORT),
        Some(port) => port.parse().ok(),
        None => None,
    };
    let is_host = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:%".contains(&b));
    let Some(port) = port.filter(|_| is_host) else {
        refuse!("syslog-address: {text:?} is not HOST or HOST:PORT");
    };
    Ok((host.to_owned(), port))
}

/// A facility by name or number; the empty one is docker's, of daemons.
///
/// # Errors
/// In docker's words.
pub fn facility(text: &str) -> Result<u8> {
    let name = if text.is_empty() { "daemon" } else { text };
    let named = FACILITIES.iter().position(|known| *known == name);
    let number = named.and_then(|at| u8::try_from(at).ok()).or_else(|| text.parse().ok());
    match number.filter(|number| *number < 24) {
        Some(number) => Ok(number),
        None => refuse!("invalid syslog facility"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_dockers() {
        let udp = |host: &str, port| Some(Address::Udp(host.into(), port));
        for (text, expected) in [
            ("", Some(Address::Local)),
            ("unixgram:///dev/log", Some(Address::Unixgram("/dev/log".into()))),
            ("unix:///a/b", Some(Address::Unix("/a/b".into()))),
            ("tcp://logs.example.com:1514", Some(Address::Tcp("logs.example.com".into(), 1514))),
            ("udp://10.0.0.1", udp("10.0.0.1", 514)),
            ("udp://[::1]", udp("::1", 514)),
            ("udp://[::1]:5", udp("::1", 5)),
            ("udp://", None),
            ("udp://a:b", None),
            ("udp://a:70000", None),
            ("udp://[::1]5", None),
            ("udp://a/b", None),
            ("unix://log", None),
            ("unix:///a/../b", None),
            ("/dev/log", None),
            ("tls://a", None),
        ] {
            assert_eq!(Address::parse(text).ok(), expected, "{text}");
        }
        let error = Address::parse("tcp+tls://a").unwrap_err().to_string();
        assert_eq!(error, "log opt syslog-address: TLS to a syslog is not supported");
        let error = Address::parse("x").unwrap_err().to_string();
        assert_eq!(error, "syslog-address should be in form proto://address, got x");
    }

    #[test]
    fn facilities_have_names_and_numbers() {
        for (text, number) in
            [("", 3), ("daemon", 3), ("kern", 0), ("local0", 16), ("local7", 23), ("12", 12)]
        {
            assert_eq!(facility(text).unwrap(), number);
        }
        for text in ["24", "-1", "x", "local8"] {
            assert_eq!(facility(text).unwrap_err().to_string(), "invalid syslog facility");
        }
    }
}
