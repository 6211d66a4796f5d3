//! The grammar: what may be typed. Nothing here decides what happens.

pub(crate) mod container;
pub(crate) mod global;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod options;
pub(crate) mod parse;
pub(crate) mod system;
pub(crate) mod usage;
pub(crate) mod volume;

use clap::{Parser, Subcommand};

/// A container stack, with docker's grammar.
#[derive(Parser, Debug)]
#[command(name = "hull", disable_version_flag = true, subcommand_required = true)]
#[command(override_usage = "hull [OPTIONS] COMMAND", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: global::GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

// All commands.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Command {
    #[command(flatten)]
    Container(container::Command),
    /// Manage containers
    #[command(name = "container", subcommand, override_usage = "hull container COMMAND")]
    ContainerGroup(container::Group),
    /// Manage images
    #[command(subcommand, override_usage = "hull image COMMAND")]
    Image(image::Group),
    /// Manage volumes
    #[command(subcommand, override_usage = "hull volume COMMAND")]
    Volume(volume::Command),
    /// Manage hull
    #[command(subcommand, override_usage = "hull system COMMAND")]
    System(system::Group),
    /// Manage networks
    #[command(subcommand, override_usage = "hull network COMMAND")]
    Network(network::Command),
    #[command(flatten)]
    Images(image::Command),
    #[command(flatten)]
    Systems(system::Command),
}
