//! `--publish` and `--expose`: ports, in all of docker's forms.

use hull_specs_api::v1;
use v1::publish_options::Via;

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// One `--publish`: a port, or a range of them.
///
/// `[[HOST-IP:][HOST-PORT]:]PORT[/PROTOCOL]`, where ports may be ranges, or fields by name:
/// `target=80,published=8080,protocol=udp`, and ours `publish=proxy`.
pub(crate) fn parse(text: &str) -> Result<Vec<v1::PublishOptions>, String> {
    if text.contains('=') {
        let (text, via) = by_name(text)?;
        return short(&text, via);
    }
    short(text, Via::Forward)
}

/// The short form of fields by name.
fn by_name(text: &str) -> Result<(String, Via), String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    let mut via = Via::Forward;
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| {
            format!("invalid publish opts format (should be name=value but got '{field}')")
        })?;
        match (key, value) {
            ("target", _) => target = value,
            ("published", _) => published = value,
            ("protocol", _) => protocol = value,
            ("publish", "forward") => via = Via::Forward,
            ("publish", "proxy") => via = Via::Proxy,
            // Ingress needs a swarm.
            ("mode", "host") => {}
            _ => return Err(format!("invalid publish opts field '{field}'")),
        }
    }
    Ok((format!("{published}:{target}/{protocol}"), via))
}

fn short(text: &str, via: Via) -> Result<Vec<v1::PublishOptions>, String> {
    let mut parts = text.rsplitn(3, ':');
    let last = parts.next().unwrap_or_default();
    let host_ports = parts.next().unwrap_or_default();
    let host_ip = address(parts.next().unwrap_or_default())?;
    let (ports, rest) = last.split_once('/').unwrap_or((last, ""));
    let protocol = rest.split('/').next().filter(|word| !word.is_empty()).unwrap_or("tcp");
    if ports.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let invalid = || format!("invalid containerPort: {ports}");
    let (first, last) = range(ports).ok_or_else(invalid)?;
    let host = match host_ports {
        "" => None,
        words => Some(range(words).ok_or_else(|| format!("invalid hostPort: {words}"))?),
    };
    let protocol = protocol.to_ascii_lowercase();
    // Docker leaves port 0 to the daemon, which cannot use it either.
    if first == 0 {
        return Err(invalid());
    }
    if let Some((host_first, host_last)) = host
        && host_last - host_first != last - first
        && first != last
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {ports} and {host_ports}"
        ));
    }
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    Ok((first..=last)
        .map(|container_port| {
            let (host_port, host_port_last) = match host {
                None => (0, 0),
                // A free one of them.
                Some((from, to)) if first == last => (from, if from == to { 0 } else { to }),
                Some((from, _)) => (from + (container_port - first), 0),
            };
            v1::PublishOptions {
                host_ip: host_ip.clone(),
                host_port: host_port.into(),
                host_port_last: host_port_last.into(),
                container_port: container_port.into(),
                protocol: protocol.clone(),
                via: via.into(),
            }
        })
        .collect())
}

/// An address of the host; IPv6 may be in brackets.
fn address(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.is_empty() {
        return Ok(String::new());
    }
    match bare.parse::<std::net::IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("invalid IP address: {bare}")),
    }
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

/// One `--expose`: `80`, `80/udp`, `80-82/tcp`, as ports with protocols.
pub(crate) fn expose(text: &str) -> Result<Vec<String>, String> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (ports, rest) = text.split_once('/').unwrap_or((text, ""));
    let protocol = if rest.is_empty() { "tcp".to_owned() } else { rest.to_ascii_lowercase() };
    let (first, last) = range(ports)
        .filter(|(first, _)| *first > 0)
        .ok_or_else(|| format!("invalid range format for --expose: {text}"))?;
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `IP:FIRST-LAST:PORT/PROTOCOL`.
    fn shown(of: &v1::PublishOptions) -> String {
        let v1::PublishOptions { host_ip, host_port, host_port_last, container_port, .. } = of;
        let via = if of.via() == Via::Proxy { " by proxy" } else { "" };
        format!("{host_ip}:{host_port}-{host_port_last}:{container_port}/{}{via}", of.protocol)
    }

    /// Seen with docker 28.
    #[test]
    fn all_forms_of_docker_are_understood() {
        for (text, ports) in [
            ("80", &[":0-0:80/tcp"][..]),
            ("8080:80", &[":8080-0:80/tcp"]),
            (":80", &[":0-0:80/tcp"]),
            ("::80", &[":0-0:80/tcp"]),
            (":8080:80", &[":8080-0:80/tcp"]),
            ("0:80", &[":0-0:80/tcp"]),
            ("0080:80", &[":80-0:80/tcp"]),
            ("127.0.0.1::80", &["127.0.0.1:0-0:80/tcp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1:8080-0:80/tcp"]),
            ("0.0.0.0:8080:80", &["0.0.0.0:8080-0:80/tcp"]),
            ("[1.2.3.4]:80:80", &["1.2.3.4:80-0:80/tcp"]),
            ("[]:80:80", &[":80-0:80/tcp"]),
            ("[::1]:8080:80", &["::1:8080-0:80/tcp"]),
            ("[::1]::80", &["::1:0-0:80/tcp"]),
            ("::1:8080:80", &["::1:8080-0:80/tcp"]),
            ("[::]:8080:80/sctp", &[":::8080-0:80/sctp"]),
            ("80/UDP", &[":0-0:80/udp"]),
            ("80/", &[":0-0:80/tcp"]),
            ("8080:80/tcp/udp", &[":8080-0:80/tcp"]),
            ("80-81", &[":0-0:80/tcp", ":0-0:81/tcp"]),
            ("8080-8090:80", &[":8080-8090:80/tcp"]),
            ("80-80:80", &[":80-0:80/tcp"]),
            ("1.2.3.4:90-91:80-81/udp", &["1.2.3.4:90-0:80/udp", "1.2.3.4:91-0:81/udp"]),
            ("published=8080,target=80", &[":8080-0:80/tcp"]),
            ("target=80,mode=host", &[":0-0:80/tcp"]),
            ("published=8080,target=80,protocol=udp", &[":8080-0:80/udp"]),
            ("published=1.2.3.4:8080,target=80", &["1.2.3.4:8080-0:80/tcp"]),
            ("target=80,published=81,publish=proxy", &[":81-0:80/tcp by proxy"]),
        ] {
            let found: Vec<_> = parse(text).unwrap().iter().map(shown).collect();
            assert_eq!(found, ports, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_dockers_words() {
        for (text, words) in [
            ("", "no port specified: <empty>"),
            ("80:", "no port specified: 80:<empty>"),
            ("/udp", "no port specified: /udp<empty>"),
            ("8080:/udp", "no port specified: 8080:/udp<empty>"),
            ("published=8080", "no port specified: 8080:/tcp<empty>"),
            ("foo", "invalid containerPort: foo"),
            ("80:foo", "invalid containerPort: foo"),
            ("80:65536", "invalid containerPort: 65536"),
            ("8080:80 ", "invalid containerPort: 80 "),
            ("8080:0", "invalid containerPort: 0"),
            ("foo:80", "invalid hostPort: foo"),
            ("65536:80", "invalid hostPort: 65536"),
            ("+80:80", "invalid hostPort: +80"),
            ("-5:80", "invalid hostPort: -5"),
            ("80-:80", "invalid hostPort: 80-"),
            ("82-80:80-82", "invalid hostPort: 82-80"),
            ("127.0.0.1:80", "invalid hostPort: 127.0.0.1"),
            ("1.2.3.4.5:80:80", "invalid IP address: 1.2.3.4.5"),
            ("host:80:80", "invalid IP address: host"),
            ("a:b:c:d", "invalid IP address: a:b"),
            ("[fe80::1%eth0]:80:80", "invalid IP address: fe80::1%eth0"),
            ("80/foo", "invalid proto: foo"),
            (
                "8080-8082:80-83",
                "invalid ranges specified for container and host Ports: 80-83 and 8080-8082",
            ),
            ("target=80,x", "invalid publish opts format (should be name=value but got 'x')"),
            ("target=80,foo=1", "invalid publish opts field 'foo=1'"),
            ("target=80,mode=ingress", "invalid publish opts field 'mode=ingress'"),
            ("target=80,publish=x", "invalid publish opts field 'publish=x'"),
        ] {
            assert_eq!(parse(text).unwrap_err(), words, "{text}");
        }
    }

    #[test]
    fn exposed_ports() {
        assert_eq!(expose("80-81/UDP").unwrap(), ["80/udp", "81/udp"]);
        assert_eq!(expose("80/").unwrap(), ["80/tcp"]);
        for (text, words) in [
            ("80:81", "invalid port format for --expose: 80:81"),
            ("x", "invalid range format for --expose: x"),
            ("", "invalid range format for --expose: "),
            ("0", "invalid range format for --expose: 0"),
            ("82-80", "invalid range format for --expose: 82-80"),
            ("65536", "invalid range format for --expose: 65536"),
            ("80/foo", "invalid proto: foo"),
        ] {
            assert_eq!(expose(text).unwrap_err(), words, "{text}");
        }
    }
}
