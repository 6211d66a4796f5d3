//! Options before the command.

use std::path::PathBuf;

use super::parse::habit;
use clap::{ArgAction, Args};

// Where the manager is, and how to talk to it.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct GlobalArgs {
    /// The manager's socket: unix:///path or tcp://host:port (default $HULL_HOST, or
    /// unix:///run/hull/hull.sock)
    #[arg(short = 'H', long, value_name = "host")]
    pub(crate) host: Option<String>,
    /// Location of client config files (default $DOCKER_CONFIG or ~/.docker)
    #[arg(long, value_name = "directory")]
    pub(crate) config: Option<PathBuf>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,
    /// Set the logging level
    #[arg(short = 'l', long, value_name = "level", default_value = "info",
          value_parser = ["debug", "info", "warn", "error", "fatal"])]
    pub(crate) log_level: String,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    pub(crate) tls: bool,
    /// Use TLS and verify the remote
    #[arg(long)]
    pub(crate) tlsverify: bool,
    /// Trust certs signed only by this CA (default ca.pem in the config directory)
    #[arg(long, value_name = "file")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file (default cert.pem in the config directory)
    #[arg(long, value_name = "file")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Path to TLS key file (default key.pem in the config directory)
    #[arg(long, value_name = "file")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Print version information and quit
    #[arg(short = 'v', long, action = ArgAction::Version)]
    pub(crate) version: (),
}
