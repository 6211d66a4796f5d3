//! Commands on networks.

use super::parse::habit;
use clap::{Args, Subcommand};
use hull_specs_api::v1;

use crate::options::{hosts, keyvalue, network, subnet};

// `hull network …`.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Say who can reach what, port by port, and why
    Audit(AuditArgs),
    /// Connect a container to a network
    Connect(ConnectArgs),
    /// Create a network
    Create(CreateArgs),
    /// Disconnect a container from a network
    Disconnect(DisconnectArgs),
    /// Display detailed information on one or more networks
    Inspect(InspectArgs),
    /// List networks
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove all unused networks
    Prune(PruneArgs),
    /// Remove one or more networks
    #[command(alias = "remove")]
    Rm(RmArgs),
}

// `network audit`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct AuditArgs {
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    #[arg(value_name = "NETWORK")]
    pub(crate) network: Option<String>,
}

// `network connect`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct ConnectArgs {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "strings")]
    pub(crate) alias: Vec<String>,
    /// Driver options for the network
    #[arg(long, value_name = "strings", value_parser = network::driver_option)]
    pub(crate) driver_opt: Vec<(String, String)>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values.
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub(crate) gw_priority: i32,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "string", value_parser = network::ipv4)]
    pub(crate) ip: Option<String>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "string", value_parser = network::ipv6)]
    pub(crate) ip6: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "list", value_parser = hosts::link)]
    pub(crate) link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long, value_name = "strings", value_parser = network::address)]
    pub(crate) link_local_ip: Vec<String>,
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

// `network create`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct CreateArgs {
    /// Enable manual container attachment
    #[arg(long)]
    pub(crate) attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver
    #[arg(long, value_name = "map", value_parser = keyvalue::pair)]
    pub(crate) aux_address: Vec<(String, String)>,
    /// Driver to manage the Network
    #[arg(short, long, value_name = "string", default_value = "bridge")]
    pub(crate) driver: String,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) gateway: Vec<String>,
    /// Restrict external access to the network
    #[arg(long)]
    pub(crate) internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) ip_range: Vec<String>,
    /// IP Address Management Driver
    #[arg(long, value_name = "string", default_value = "default")]
    pub(crate) ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "map", value_parser = keyvalue::loose)]
    pub(crate) ipam_opt: Vec<(String, String)>,
    /// Enable or disable IPv4 address assignment
    #[arg(long, action = clap::ArgAction::Set)]
    pub(crate) ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, action = clap::ArgAction::Set)]
    pub(crate) ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "list", value_parser = keyvalue::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Set driver specific options
    #[arg(short, long, value_name = "map", value_parser = keyvalue::loose)]
    pub(crate) opt: Vec<(String, String)>,
    /// Control the network's scope: local
    #[arg(long, value_name = "string", value_parser = scope)]
    pub(crate) scope: Option<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) subnet: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long, value_name = "string")]
    pub(crate) config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    pub(crate) config_only: bool,
    #[arg(long, hide = true)]
    pub(crate) ingress: bool,
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
}

fn scope(text: &str) -> Result<String, String> {
    match text {
        "local" => Ok(text.to_owned()),
        _ => Err("hull's networks are of one host: local".to_owned()),
    }
}

impl CreateArgs {
    /// Subnets with what belongs to each.
    pub(crate) fn pools(&self) -> Result<Vec<v1::IpamPool>, String> {
        subnet::pools(&self.subnet, &self.ip_range, &self.gateway, &self.aux_address)
    }
}

// `network disconnect`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct DisconnectArgs {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(value_name = "NETWORK")]
    pub(crate) network: String,
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

// `network inspect`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct InspectArgs {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Verbose output for diagnostics: what went through each container's interface
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}

// `network ls`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct ListArgs {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

// `network prune`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct PruneArgs {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub(crate) force: bool,
}

// `network rm`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct RmArgs {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}
