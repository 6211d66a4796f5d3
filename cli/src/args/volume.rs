//! Commands on volumes.

use super::parse::habit;
use clap::{Args, Subcommand};

use crate::options::keyvalue;

// `hull volume …`.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Create a volume
    Create(CreateArgs),
    /// Display detailed information on one or more volumes
    Inspect(InspectArgs),
    /// List volumes
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove unused local volumes
    Prune(PruneArgs),
    /// Remove one or more volumes
    #[command(alias = "remove")]
    Rm(RmArgs),
}

// `volume create`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct CreateArgs {
    /// Specify volume driver name
    #[arg(short, long, value_name = "string", default_value = "local")]
    pub(crate) driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "list", value_parser = keyvalue::label)]
    pub(crate) label: Vec<(String, String)>,
    #[arg(long, value_name = "string", hide = true)]
    pub(crate) name: Option<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "map", value_parser = keyvalue::loose)]
    pub(crate) opt: Vec<(String, String)>,
    #[arg(value_name = "VOLUME")]
    pub(crate) volume: Option<String>,
}

// `volume inspect`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct InspectArgs {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    #[arg(required = true, value_name = "VOLUME")]
    pub(crate) volumes: Vec<String>,
}

// `volume ls`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct ListArgs {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

// `volume prune`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct PruneArgs {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Provide filter values (e.g. "label=<label>")
    #[arg(long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub(crate) force: bool,
}

// `volume rm`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct RmArgs {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    pub(crate) volumes: Vec<String>,
}
