//! The packet filter, and published ports.
//!
//! [`Rules`] is the desired state: networks, endpoints, published ports, as plain data.
//! [`Firewall`] makes it so, by nftables over netlink: one table of family inet and one of family
//! bridge, both of one name. The chains are always the same; what differs are the elements of
//! sets and maps. So the whole is replaced in one transaction, and one endpoint or port is added
//! in a transaction of its elements alone, at a cost that does not grow with what is there.
//!
//! The host's own firewall stays in force: our chains drop, or let a packet go on to the next
//! table; no verdict of ours overrides another's.
//!
//! [`Ports`] holds the ports of the host: each is a bound socket, so two programs never have
//! one port, and it is the proxy's socket for what the kernel cannot translate.
#![forbid(unsafe_code)]

mod conntrack;
mod firewall;
mod host;
mod legacy;
mod netlink;
mod nft;
mod ports;
mod proxy;
mod redirect;
pub mod rules;
mod ruleset;
mod watch;

pub use firewall::{Firewall, Loopback, Settings};
pub use host::{HostChain, HostHook};
pub use ports::{PortTaken, Ports, Reservation, Wanted};
pub use redirect::redirect;
pub use rules::{Endpoint, Link, Mac, Network, Port, Protocol, Publish, Rules, Subnet};
pub use watch::Watch;
