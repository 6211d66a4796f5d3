//! The options of a container, as `run` and `create` take them.

use std::path::PathBuf;

use clap::Args;
use hull_specs_api::v1;

use crate::options::{
    blkio, device, duration, gpus, hosts, keyvalue, mount, network, platform, restart, size, ulimit,
};

// What the container is to be.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ContainerArgs {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "list", value_parser = hosts::extra_host)]
    pub(crate) add_host: Vec<String>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long, value_name = "map", value_parser = keyvalue::loose)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "list", value_parser = stream)]
    pub(crate) attach: Vec<String>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "uint16", default_value_t = 0)]
    pub(crate) blkio_weight: u16,
    /// Block IO weight (relative device weight)
    #[arg(long, value_name = "list", value_parser = blkio::weight)]
    pub(crate) blkio_weight_device: Vec<v1::DeviceLimit>,
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    pub(crate) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    pub(crate) cap_drop: Vec<String>,
    /// Optional parent cgroup for the container
    #[arg(long, value_name = "string")]
    pub(crate) cgroup_parent: Option<String>,
    /// Cgroup namespace to use (host|private)
    #[arg(long, value_name = "string", value_parser = cgroupns)]
    pub(crate) cgroupns: Option<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "string")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub(crate) cpu_period: u64,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub(crate) cpu_quota: i64,
    /// Limit CPU real-time period in microseconds
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub(crate) cpu_rt_period: u64,
    /// Limit CPU real-time runtime in microseconds
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub(crate) cpu_rt_runtime: i64,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "int", default_value_t = 0)]
    pub(crate) cpu_shares: u64,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = size::nano_cpus)]
    pub(crate) cpus: Option<u64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "string")]
    pub(crate) cpuset_mems: Option<String>,
    /// Add a host device to the container
    #[arg(long, value_name = "list", value_parser = device::parse)]
    pub(crate) device: Vec<device::Device>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "list", value_parser = device::rule)]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// Limit read rate (bytes per second) from a device
    #[arg(long, value_name = "list", value_parser = blkio::bytes_rate)]
    pub(crate) device_read_bps: Vec<v1::DeviceLimit>,
    /// Limit read rate (IO per second) from a device
    #[arg(long, value_name = "list", value_parser = blkio::operations_rate)]
    pub(crate) device_read_iops: Vec<v1::DeviceLimit>,
    /// Limit write rate (bytes per second) to a device
    #[arg(long, value_name = "list", value_parser = blkio::bytes_rate)]
    pub(crate) device_write_bps: Vec<v1::DeviceLimit>,
    /// Limit write rate (IO per second) to a device
    #[arg(long, value_name = "list", value_parser = blkio::operations_rate)]
    pub(crate) device_write_iops: Vec<v1::DeviceLimit>,
    /// Skip image verification: true is all there is
    #[arg(long, hide = true)]
    pub(crate) disable_content_trust: bool,
    /// Set custom DNS servers
    #[arg(long, value_name = "list", value_parser = hosts::server)]
    pub(crate) dns: Vec<String>,
    /// Set DNS options
    #[arg(long, visible_alias = "dns-opt", value_name = "list", value_parser = hosts::resolver_option)]
    pub(crate) dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "list", value_parser = hosts::search_domain)]
    pub(crate) dns_search: Vec<String>,
    /// Container NIS domain name
    #[arg(long, value_name = "string")]
    pub(crate) domainname: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "string")]
    pub(crate) entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list")]
    pub(crate) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "list")]
    pub(crate) expose: Vec<String>,
    /// GPU devices to add to the container ('all' to pass all GPUs), as CDI devices
    #[arg(long, value_name = "gpu-request", value_parser = |text: &str| gpus::parse(text).map(Names))]
    pub(crate) gpus: Vec<Names>,
    /// Add additional groups to join
    #[arg(long, value_name = "list")]
    pub(crate) group_add: Vec<String>,
    /// Command to run to check health
    #[arg(long, value_name = "string")]
    pub(crate) health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration::nanoseconds)]
    pub(crate) health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub(crate) health_retries: i64,
    /// Time between running the check during the start period (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration::nanoseconds)]
    pub(crate) health_start_interval: Option<i64>,
    /// Start period for the container to initialize before starting health-retries countdown
    /// (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration::nanoseconds)]
    pub(crate) health_start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h) (default 0s)
    #[arg(long, value_name = "duration", value_parser = duration::nanoseconds)]
    pub(crate) health_timeout: Option<i64>,
    /// Print usage
    #[arg(long, action = clap::ArgAction::Help)]
    help: (),
    /// Container host name
    #[arg(short = 'h', long, value_name = "string")]
    pub(crate) hostname: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, value_name = "string")]
    pub(crate) ip: Option<String>,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, value_name = "string")]
    pub(crate) ip6: Option<String>,
    /// IPC mode to use
    #[arg(long, value_name = "string")]
    pub(crate) ipc: Option<String>,
    /// Set meta data on a container
    #[arg(short, long, value_name = "list", value_parser = keyvalue::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "list")]
    pub(crate) label_file: Vec<PathBuf>,
    /// Add link to another container
    #[arg(long, value_name = "list", value_parser = hosts::link)]
    pub(crate) link: Vec<String>,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long, value_name = "list")]
    pub(crate) link_local_ip: Vec<String>,
    /// Logging driver for the container
    #[arg(long, value_name = "string")]
    pub(crate) log_driver: Option<String>,
    /// Log driver options
    #[arg(long, value_name = "list", value_parser = keyvalue::loose)]
    pub(crate) log_opt: Vec<(String, String)>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, value_name = "string")]
    pub(crate) mac_address: Option<String>,
    /// Memory limit
    #[arg(short, long, value_name = "bytes", value_parser = size::bytes)]
    pub(crate) memory: Option<u64>,
    /// Memory soft limit
    #[arg(long, value_name = "bytes", value_parser = size::bytes)]
    pub(crate) memory_reservation: Option<u64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "bytes", value_parser = size::bytes_or_unlimited)]
    pub(crate) memory_swap: Option<i64>,
    /// Tune container memory swappiness (0 to 100) (default -1)
    #[arg(long, value_name = "int", default_value_t = -1, value_parser = clap::value_parser!(i64).range(-1..=100))]
    pub(crate) memory_swappiness: i64,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "mount", value_parser = mount::parse)]
    pub(crate) mount: Vec<v1::Mount>,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    pub(crate) name: Option<String>,
    /// Connect a container to a network
    #[arg(long, visible_alias = "net", value_name = "network", value_parser = network::parse)]
    pub(crate) network: Vec<v1::EndpointOptions>,
    /// Add network-scoped alias for the container
    #[arg(long, visible_alias = "net-alias", value_name = "list")]
    pub(crate) network_alias: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Disable OOM Killer
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "int", value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i32>,
    /// PID namespace to use
    #[arg(long, value_name = "string")]
    pub(crate) pid: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "int")]
    pub(crate) pids_limit: Option<i64>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Publish a container's port(s) to the host
    #[arg(short, long, value_name = "list")]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, value_name = "string", default_value = "missing")]
    pub(crate) pull: String,
    /// Suppress the pull output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "string", default_value = "no")]
    pub(crate) restart: String,
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Runtime to use for this container
    #[arg(long, value_name = "string")]
    pub(crate) runtime: Option<String>,
    /// Security Options
    #[arg(long, value_name = "list")]
    pub(crate) security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", value_parser = size::bytes)]
    pub(crate) shm_size: Option<u64>,
    /// Signal to stop the container
    #[arg(long, value_name = "string")]
    pub(crate) stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "int")]
    pub(crate) stop_timeout: Option<i32>,
    /// Storage driver options for the container
    #[arg(long, value_name = "list", value_parser = keyvalue::pair)]
    pub(crate) storage_opt: Vec<(String, String)>,
    /// Sysctl options
    #[arg(long, value_name = "map", value_parser = keyvalue::loose)]
    pub(crate) sysctl: Vec<(String, String)>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "list")]
    pub(crate) tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Ulimit options
    #[arg(long, value_name = "ulimit", value_parser = ulimit::parse)]
    pub(crate) ulimit: Vec<v1::Ulimit>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long, value_name = "string")]
    pub(crate) user: Option<String>,
    /// User namespace to use: host, auto, auto:size=N
    #[arg(long, value_name = "string")]
    pub(crate) userns: Option<String>,
    /// UTS namespace to use
    #[arg(long, value_name = "string")]
    pub(crate) uts: Option<String>,
    /// Bind mount a volume
    #[arg(short, long, value_name = "list")]
    pub(crate) volume: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, value_name = "string")]
    pub(crate) volume_driver: Option<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long, value_name = "list")]
    pub(crate) volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    pub(crate) workdir: Option<String>,
    #[command(flatten)]
    pub(crate) refused: RefusedArgs,
    /// The image, the command and its arguments.
    #[arg(
        required = true,
        value_name = "IMAGE [COMMAND] [ARG...]",
        trailing_var_arg = true,
        hide = true
    )]
    pub(crate) words: Vec<String>,
}

/// Names that one option gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Names(pub(crate) Vec<String>);

// Options of docker that are known, and refused with a reason.
#[derive(Args, Clone, Debug)]
pub(crate) struct RefusedArgs {
    #[arg(long, hide = true)]
    pub(crate) isolation: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) kernel_memory: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) cpu_count: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) cpu_percent: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) io_maxbandwidth: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) io_maxiops: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) use_api_socket: bool,
}

fn stream(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    if matches!(name.as_str(), "stdin" | "stdout" | "stderr") {
        return Ok(name);
    }
    Err("valid streams are STDIN, STDOUT and STDERR".to_owned())
}

fn cgroupns(text: &str) -> Result<String, String> {
    match text {
        "" | "host" | "private" => Ok(text.to_owned()),
        _ => Err("invalid CgroupNS mode".to_owned()),
    }
}

impl ContainerArgs {
    /// The restart policy.
    pub(crate) fn restart_policy(&self) -> Result<v1::RestartPolicy, String> {
        restart::parse(&self.restart)
    }

    /// The platform in its usual form; empty if none was said.
    pub(crate) fn platform(&self) -> Result<String, String> {
        self.platform.as_deref().map_or(Ok(String::new()), platform::parse)
    }
}
