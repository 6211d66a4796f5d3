//! The packet filter in networks of namespaces, and the ports of the host.

mod lab;
mod nftables;
