//! Frames, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];

pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// With the tag of a VLAN.
pub(crate) fn tagged(to: [u8; 6], from: [u8; 6], vlan: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    let inner = [&vlan.to_be_bytes()[..], &kind.to_be_bytes(), payload].concat();
    ethernet(to, from, 0x8100, &inner)
}

/// An ARP reply: `ip` is at `mac`, told to `to`. The padding carries the mark.
pub(crate) fn arp(mac: [u8; 6], ip: Ipv4Addr, to: Ipv4Addr, mark: &[u8]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac, &ip.octets(), &BROADCAST, &to.octets(), mark].concat()
}

pub(crate) fn udp(from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a short payload");
    let mut datagram =
        [&4000u16.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload]
            .concat();
    packet(from, to, 17, &mut datagram, 6)
}

pub(crate) fn icmp6(from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], body].concat();
    packet(from.into(), to.into(), 58, &mut message, 2)
}

pub(crate) fn icmp_redirect(from: Ipv4Addr, to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
    let mut message = [&[5, 1, 0, 0][..], body].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip4(from, to, 1, &message)
}

/// The same packet of IPv4 with options in its header, which say nothing.
pub(crate) fn with_options(packet: &[u8]) -> Vec<u8> {
    let (header, body) = packet.split_at(20);
    let mut header = [header, &[1; 4]].concat();
    header[0] += 1;
    header[3] += 4;
    header[10..12].fill(0);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], body].concat()
}

/// A packet whose transport checksum is at this offset.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, body: &mut [u8], at: usize) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a short body");
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("two families"),
    };
    let pseudo = [&addresses[..], &length.to_be_bytes(), &[0, 0, 0, protocol], &*body].concat();
    let sum = checksum(&pseudo);
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ip4(from, to, protocol, body),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(body.len()).expect("a short body");
            [
                &[0x60, 0, 0, 0][..],
                &length.to_be_bytes(),
                &[protocol, 255],
                &from.octets(),
                &to.octets(),
                body,
            ]
            .concat()
        }
        _ => panic!("two families"),
    }
}

fn ip4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + body.len()).expect("a short body");
    let mut header = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &[0, 0, 0, 0, 64, protocol, 0, 0],
        &from.octets(),
        &to.octets(),
    ]
    .concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], body].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
