//! A port of a container's own address that is answered on another.
//!
//! Without state: a request's port is rewritten just before it is taken in, an answer's right
//! after it is sent, so that the container's own connection tracking and filters see the port
//! that was asked for, and there is no table of connections that could be filled.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::{
    netlink::Socket,
    nft::{Batch, Chain, Family, Hook, Load, Rule, Table},
};

/// `NF_INET_LOCAL_IN` and `NF_INET_LOCAL_OUT`.
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;

/// Behind everybody's filters; before connection tracking.
const LAST: i32 = 200;
const FIRST: i32 = -300;

/// The protocols, and where in their headers the checksum is.
const TCP: (u8, u32) = (6, 16);
const UDP: (u8, u32) = (17, 6);

/// In the network namespace of the calling thread: what is sent to `port` of `address` by TCP or
/// UDP is received on `to`, and answers come from `port`. The table `table` holds that and
/// nothing else; it is replaced.
///
/// # Errors
/// If the kernel has no nftables, or the caller may not.
pub fn redirect(table: &str, address: Ipv4Addr, port: u16, to: u16) -> Result<()> {
    let mut socket = Socket::open(0)?;
    let mut batch = socket.batch(table);
    plan(&mut batch, address, port, to);
    socket.commit(batch)
}

fn plan(batch: &mut Batch, address: Ipv4Addr, port: u16, to: u16) {
    let rules = |of: Load, port_of: Load, from: u16, into: u16| {
        [TCP, UDP].map(|(protocol, checksum)| {
            Rule::new("")
                .is(Load::NetworkProtocol, &[Family::IPV4])
                .is(of, &address.octets())
                .is(Load::TransportProtocol, &[protocol])
                .is(port_of, &from.to_be_bytes())
                .replace(port_of, &into.to_be_bytes(), checksum)
        })
    };
    let chain = |name, number, priority, rules: [Rule; 2]| Chain {
        name,
        hook: Some(Hook { kind: "filter", number, priority }),
        rules: rules.into(),
    };
    let requests = rules(Load::Ip4Destination, Load::DestinationPort, port, to);
    let answers = rules(Load::Ip4Source, Load::SourcePort, to, port);
    batch.remove_table(Family::Inet);
    batch.make_table(&Table {
        family: Family::Inet,
        sets: &[],
        chains: vec![
            chain("requests", INPUT, LAST, requests),
            chain("answers", OUTPUT, FIRST, answers),
        ],
    });
}
