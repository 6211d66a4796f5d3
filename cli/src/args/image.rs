//! Commands on images and registries.

use std::path::PathBuf;

use super::parse::habit;
use clap::{Args, Subcommand};

use crate::options::{keyvalue, platform};

// `hull pull`, `hull images`, …
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Command {
    /// List images
    Images(ListArgs),
    /// Remove one or more images
    Rmi(RmArgs),
    #[command(flatten)]
    Both(Both),
    /// Authenticate to a registry
    Login(LoginArgs),
    /// Log out from a registry
    Logout(LogoutArgs),
    /// Search a registry for images
    Search(SearchArgs),
}

// `hull image …`.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Group {
    /// List images
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove one or more images
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Display detailed information on one or more images
    Inspect(InspectArgs),
    /// Remove unused images
    Prune(PruneArgs),
    #[command(flatten)]
    Both(Both),
}

// What has the same name in both places.
#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Both {
    /// Download an image from a registry
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Load an image from a tar archive or STDIN
    Load(LoadArgs),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(SaveArgs),
    /// Import the contents from a tarball to create a filesystem image
    Import(ImportArgs),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(TagArgs),
    /// Show the history of an image
    History(HistoryArgs),
}

// `images`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct ListArgs {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) reference: Option<String>,
}

// `rmi`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct RmArgs {
    /// Force removal of the image
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    pub(crate) no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

// `image inspect`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct InspectArgs {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Inspect a specific platform of the multi-platform image
    #[arg(long, value_name = "string", value_parser = platform::parse)]
    pub(crate) platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

// `image prune`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct PruneArgs {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub(crate) force: bool,
}

// `pull`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct PullArgs {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string", value_parser = platform::parse)]
    pub(crate) platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) reference: String,
}

// `push`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct PushArgs {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Push a platform-specific manifest as a single-platform image to the registry
    #[arg(long, value_name = "string", value_parser = platform::parse)]
    pub(crate) platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) reference: String,
}

// `load`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct LoadArgs {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "string")]
    pub(crate) input: Option<PathBuf>,
    /// Load only the given platform variant
    #[arg(long, value_name = "string", value_parser = platform::parse)]
    pub(crate) platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

// `save`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct SaveArgs {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "string")]
    pub(crate) output: Option<PathBuf>,
    /// Save only the given platform variant
    #[arg(long, value_name = "string", value_parser = platform::parse)]
    pub(crate) platform: Option<String>,
    /// docker-archive (both forms in one) or oci-archive
    #[arg(long, value_name = "string", default_value = "docker-archive",
          value_parser = ["docker-archive", "oci-archive"])]
    pub(crate) format: String,
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

// `import`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct ImportArgs {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    pub(crate) change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "string")]
    pub(crate) message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string", value_parser = platform::parse)]
    pub(crate) platform: Option<String>,
    #[arg(value_name = "file|-", allow_hyphen_values = true)]
    pub(crate) source: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) reference: Option<String>,
}

// `tag`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct TagArgs {
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub(crate) image: String,
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub(crate) reference: String,
}

// `history`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct HistoryArgs {
    /// Format output: table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, action = clap::ArgAction::Set, default_value = "true")]
    pub(crate) human: bool,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show history for the given platform
    #[arg(long, value_name = "string", value_parser = platform::parse)]
    pub(crate) platform: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}

// `login`.
#[derive(Args, Clone)]
#[command(mut_args = habit)]
pub(crate) struct LoginArgs {
    /// Password or Personal Access Token (PAT)
    #[arg(short, long, value_name = "string")]
    pub(crate) password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Username
    #[arg(short, long, value_name = "string")]
    pub(crate) username: Option<String>,
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

/// Says nothing of the password.
impl std::fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginArgs").field("server", &self.server).finish_non_exhaustive()
    }
}

// `logout`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct LogoutArgs {
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

// `search`.
#[derive(Args, Clone, Debug)]
#[command(mut_args = habit)]
pub(crate) struct SearchArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = keyvalue::filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Pretty-print search using a Go template
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Max number of search results
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub(crate) limit: u32,
    /// Don't truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[arg(value_name = "TERM")]
    pub(crate) term: String,
}
