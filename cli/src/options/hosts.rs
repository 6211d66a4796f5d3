//! Names and who answers them: `--add-host`, `--dns`, `--dns-search`, `--link`.

use std::net::IpAddr;

/// The address of `--add-host` that means the host.
const HOST_GATEWAY: &str = "host-gateway";
/// RFC 1035.
const MAX_DOMAIN: usize = 255;

/// `NAME:ADDRESS` or `NAME=ADDRESS`, as `NAME:ADDRESS`.
pub(crate) fn extra_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    // It becomes a line of a file.
    let letter = |c: char| !c.is_whitespace() && !c.is_control() && c != '#';
    if name.is_empty() || !name.chars().all(letter) {
        return Err(bad());
    }
    if address == HOST_GATEWAY {
        return Ok(format!("{name}:{address}"));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    match address.parse::<IpAddr>() {
        Ok(address) => Ok(format!("{name}:{address}")),
        Err(_) => Err(format!("invalid IP address in add-host: {address:?}")),
    }
}

/// A name server's address.
pub(crate) fn server(text: &str) -> Result<String, String> {
    match text.trim().parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// A domain to look names up in; "." for none.
pub(crate) fn search_domain(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text == "." {
        return Ok(text.to_owned());
    }
    let domain = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        ends(label.chars().next())
            && ends(label.chars().last())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    if domain.len() > MAX_DOMAIN || !domain.split('.').all(label) {
        return Err(format!("{text} is not a valid domain"));
    }
    Ok(domain.to_owned())
}

/// An option of the resolver; one line of `resolv.conf` holds all.
pub(crate) fn resolver_option(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("invalid option: {text:?}"));
    }
    Ok(text.to_owned())
}

/// `CONTAINER[:ALIAS]`.
pub(crate) fn link(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("empty string specified for links".to_owned());
    }
    let parts: Vec<_> = text.split(':').collect();
    if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
        return Err(format!("bad format for links: {text}"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen with docker 28, which also takes a name with a blank in it.
    #[test]
    fn hosts() {
        for (text, line) in [
            ("a:1.2.3.4", "a:1.2.3.4"),
            ("a:::1", "a:::1"),
            ("a:[::1]", "a:::1"),
            ("a=1.2.3.4", "a:1.2.3.4"),
            ("a=[::1]", "a:::1"),
            ("a:host-gateway", "a:host-gateway"),
            ("a=host-gateway", "a:host-gateway"),
        ] {
            assert_eq!(extra_host(text).as_deref(), Ok(line), "{text}");
        }
        for (text, words) in [
            ("a", "bad format for add-host: \"a\""),
            (":1.2.3.4", "bad format for add-host: \":1.2.3.4\""),
            ("a b:1.2.3.4", "bad format for add-host: \"a b:1.2.3.4\""),
            ("a\n:1.2.3.4", "bad format for add-host: \"a\\n:1.2.3.4\""),
            ("a:x", "invalid IP address in add-host: \"x\""),
            ("a:", "invalid IP address in add-host: \"\""),
            ("a:1.2.3.4:5", "invalid IP address in add-host: \"1.2.3.4:5\""),
        ] {
            assert_eq!(extra_host(text).unwrap_err(), words, "{text}");
        }
    }

    #[test]
    fn name_servers_domains_and_options() {
        assert_eq!(server("FD00::1").as_deref(), Ok("fd00::1"));
        assert_eq!(server("x").unwrap_err(), "IP address is not correctly formatted: x");
        for (text, domain) in [("a.b", "a.b"), (".", "."), ("a.", "a"), ("x-1.y", "x-1.y")] {
            assert_eq!(search_domain(text).as_deref(), Ok(domain));
        }
        for bad in ["", "a..b", "-x", "a b", "a_b.c", "x-", "a\nb"] {
            assert_eq!(search_domain(bad).unwrap_err(), format!("{bad} is not a valid domain"));
        }
        assert_eq!(resolver_option("ndots:2").as_deref(), Ok("ndots:2"));
        assert!(resolver_option("").is_err() && resolver_option("a\nnameserver x").is_err());
    }

    #[test]
    fn links() {
        for good in ["a", "a:b", "/a:b"] {
            assert_eq!(link(good).as_deref(), Ok(good));
        }
        assert_eq!(link("").unwrap_err(), "empty string specified for links");
        for bad in ["a:b:c", ":b", "a:"] {
            assert_eq!(link(bad).unwrap_err(), format!("bad format for links: {bad}"));
        }
    }
}
