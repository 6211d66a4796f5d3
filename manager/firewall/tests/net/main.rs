//! The packet filter in networks of namespaces, and the ports of the host.

mod attacks;
mod changes;
mod lab;
mod nftables;
mod ports;
