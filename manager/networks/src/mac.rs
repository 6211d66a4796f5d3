//! Hardware addresses.

use std::{fmt, net::IpAddr, str::FromStr};

use hull_manager_core::{Error, Result};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// The address of whoever has an IP address: local, unicast. Who gets an IP address that
    /// another one had gets its hardware address too, so that no neighbour's table is wrong.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self([0x02, 0x42, a, b, c, d])
            }
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                Self([0x02, 0x46, a, b, c, d])
            }
        }
    }
}

impl Mac {
    /// The address of who has no IP address of ours: from the digits of a random id.
    pub(crate) fn random(id: &str) -> Self {
        let byte = |n: usize| {
            let digits = id.get(n * 2..n * 2 + 2).unwrap_or_default();
            u8::from_str_radix(digits, 16).unwrap_or_default()
        };
        Self([0x02, byte(1), byte(2), byte(3), byte(4), byte(5)])
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Six bytes in hexadecimal digits with colons or hyphens; no multicast, and not all zero.
    fn from_str(text: &str) -> Result<Self> {
        let bytes: Option<Vec<u8>> = text
            .split([':', '-'])
            .map(|part| match part.len() {
                2 => u8::from_str_radix(part, 16).ok().filter(|_| !part.starts_with('+')),
                _ => None,
            })
            .collect();
        let invalid = || Error::invalid(format!("invalid MAC address: {}", text.escape_debug()));
        let bytes: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(invalid)?;
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(invalid());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_bytes_of_one_station() {
        for text in ["92:d0:c6:0a:29:33", "92-D0-C6-0A-29-33"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "92:d0:c6:0a:29:33");
        }
        for bad in [
            "",
            "92:d0:c6:0a:29",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:d0:c6:0a:29:33",
            "9:d0:c6:0a:29:33",
            "92:d0:c6:0a:29:33:00",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert_eq!(Mac::of("172.17.0.2".parse().unwrap()).to_string(), "02:42:ac:11:00:02");
    }
}
