//! Commands on the manager, and on everything.

use std::path::PathBuf;

use super::parse::habit;
use clap::{Args, Subcommand};

use crate::options::keyvalue;

// `hull info`, `hull inspect`, …
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Return low-level information on containers, images, networks and volumes
    Inspect(InspectArgs),
    /// Show the version information
    Version(FormatArgs),
    #[command(flatten)]
    Both(Both),
    /// Print a completion script
    #[command(hide = true)]
    Completion(CompletionArgs),
    /// Write manual pages
    #[command(hide = true)]
    Man(ManArgs),
}

// `hull system …`.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Group {
    /// Show disk usage
    Df(DfArgs),
    /// Remove unused data
    Prune(PruneArgs),
    /// Look at everything on disk, and repair it if asked
    Check(CheckArgs),
    #[command(flatten)]
    Both(Both),
}

// What has the same name in both places.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Both {
    /// Get real time events from the server
    Events(EventsArgs),
    /// Display system-wide information
    Info(FormatArgs),
}

// `inspect`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct InspectArgs {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Only inspect objects of the given type: container, image, network, volume
    #[arg(long = "type", value_name = "string", default_value = "")]
    pub(crate) kind: String,
    #[arg(required = true, value_name = "NAME|ID")]
    pub(crate) names: Vec<String>,
}

// A format, and nothing else.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct FormatArgs {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
}

// `events`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct EventsArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Format output: json, or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    pub(crate) since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    pub(crate) until: Option<String>,
}

// `system df`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct DfArgs {
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

// `system prune`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct PruneArgs {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    pub(crate) volumes: bool,
}

// `system check`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct CheckArgs {
    /// Repair what can be repaired
    #[arg(long)]
    pub(crate) repair: bool,
}

// `completion`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct CompletionArgs {
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

// `man`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct ManArgs {
    /// Where the pages go
    #[arg(long, value_name = "directory")]
    pub(crate) dir: PathBuf,
}
