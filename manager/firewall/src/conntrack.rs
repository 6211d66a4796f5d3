//! Flows that the kernel remembers, and that lead where a port no longer does.
//!
//! A flow's translation is decided by its first packet. A UDP client that keeps sending would
//! otherwise reach the old container's address, or the host itself, for as long as it sends.

use std::net::IpAddr;

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::{
    netlink::Socket,
    nft::{Attributes, Family, Writer},
    rules::{Port, Protocol},
};

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `…_DELETE`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

/// `CTA_…`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// `CTA_FILTER_FLAG(CTA_PROTO_NUM)`: since Linux 5.8 the kernel leaves out what does not match;
/// older ones send everything, so that each flow is judged here again.
const BY_PROTOCOL: u32 = 1 << 3;

/// Deletes the flows of UDP that went to the containers of `lost` ports, and those that reached
/// the host by the ports that were `won`.
///
/// The kernel walks its whole table for that, whose size is fixed at its start: 10 to 20 ms for
/// 262,144 buckets. So it is asked for UDP only: a TCP client begins anew by itself.
pub(crate) fn forget(socket: &mut Socket, lost: &[&Port], won: &[&Port]) -> Result<()> {
    for family in [Family::IPV4, Family::IPV6] {
        let of = |ports: &[&Port]| -> Vec<Port> {
            let ports = ports.iter().filter(|port| port.protocol == Protocol::Udp);
            let here = ports.filter(|p| p.host_address.is_ipv4() == (family == Family::IPV4));
            here.map(|port| (*port).clone()).collect()
        };
        let (lost, won) = (of(lost), of(won));
        if !lost.is_empty() || !won.is_empty() {
            forget_of(socket, family, &lost, &won)?;
        }
    }
    Ok(())
}

fn forget_of(socket: &mut Socket, family: u8, lost: &[Port], won: &[Port]) -> Result<()> {
    let only = |writer: &mut Writer| {
        writer.nest(TUPLE_ORIGINAL, |tuple| {
            tuple.nest(TUPLE_PROTOCOL, |data| data.put(PROTOCOL_NUMBER, &[Protocol::Udp.number()]));
        });
        writer.nest(FILTER, |filter| {
            filter.put(1, &BY_PROTOCOL.to_ne_bytes());
            filter.put(2, &0u32.to_ne_bytes());
        });
    };
    let mut doomed = Vec::new();
    let mut each = |message: crate::nft::Received<'_>| {
        let flow = Attributes::of_message(message.payload);
        if let Some(found) =
            Flow::read(flow).filter(|found| found.protocol == Protocol::Udp.number())
        {
            let leads_to_lost = lost.iter().any(|port| found.went_to(port));
            if leads_to_lost || won.iter().any(|port| found.passed_by(port)) {
                doomed.push(identity(flow));
            }
        }
    };
    match socket.dump(GET, family, only, &mut each) {
        // A kernel that knows filters of another form: ask without.
        Err(error) if error.downcast_ref() == Some(&Errno::EINVAL) => {
            socket.dump(GET, family, |_| {}, each)?;
        }
        other => _ = other?,
    }
    for flow in doomed {
        let copy = |writer: &mut Writer| {
            for (number, value) in &flow {
                writer.put(*number, value);
            }
        };
        match socket.request(DELETE, family, copy) {
            // It ended by itself meanwhile.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).context("delete a flow of a published port"),
        }
    }
    Ok(())
}

/// What names a flow: its first direction, its zone, and a number against its successor.
fn identity(flow: Attributes<'_>) -> Vec<(u16, Vec<u8>)> {
    const NESTED: u16 = 0x8000;
    let part =
        |number: u16, flag: u16| flow.get(number).map(|value| (number | flag, value.to_vec()));
    [part(TUPLE_ORIGINAL, NESTED), part(ZONE, 0), part(ID, 0)].into_iter().flatten().collect()
}

struct Flow {
    protocol: u8,
    destination: IpAddr,
    destination_port: u16,
    /// Where answers come from: the container, if the flow was translated.
    answers_from: IpAddr,
    answers_from_port: u16,
}

impl Flow {
    fn read(flow: Attributes<'_>) -> Option<Self> {
        let original = flow.nested(TUPLE_ORIGINAL)?;
        let reply = flow.nested(TUPLE_REPLY)?;
        let service = original.nested(TUPLE_PROTOCOL)?;
        Some(Self {
            protocol: *service.get(PROTOCOL_NUMBER)?.first()?,
            destination: address(original.nested(TUPLE_IP)?, 2, 4)?,
            destination_port: port(service, DESTINATION_PORT)?,
            answers_from: address(reply.nested(TUPLE_IP)?, 1, 3)?,
            answers_from_port: port(reply.nested(TUPLE_PROTOCOL)?, SOURCE_PORT)?,
        })
    }

    fn went_to(&self, port: &Port) -> bool {
        self.answers_from == port.container_address
            && self.answers_from_port == port.container_port
            && self.destination_port == port.host_port
    }

    /// Whether it came to the place of the port, but did not go where the port leads.
    fn passed_by(&self, port: &Port) -> bool {
        let same_family = self.destination.is_ipv4() == port.host_address.is_ipv4();
        let here = self.destination == port.host_address
            || (port.host_address.is_unspecified() && same_family);
        here && self.destination_port == port.host_port && !self.went_to(port)
    }
}

/// `CTA_IP_V4_…` or `CTA_IP_V6_…`.
fn address(ip: Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    let four = ip.get(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(IpAddr::from);
    four.or_else(|| ip.get(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(IpAddr::from))
}

fn port(service: Attributes<'_>, number: u16) -> Option<u16> {
    service.get(number)?.try_into().ok().map(u16::from_be_bytes)
}
