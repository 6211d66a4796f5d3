//! What a caller asks for, after the command line has been read and checked.
//!
//! One struct a command; `cli` fills them in and `container` carries them out, so that
//! neither knows the other.

use std::path::PathBuf;

use hull_specs_oci as oci;

/// The options that come before the command.
#[derive(Clone, Debug)]
pub(crate) struct Global {
    /// The directory of all containers' state.
    pub(crate) root: PathBuf,
    /// Cgroups through systemd instead of the cgroup file system.
    pub(crate) systemd_cgroup: bool,
    /// Whether errors of permission on cgroups are ignored; `None` decides by the caller's
    /// privileges.
    pub(crate) rootless: Option<bool>,
}

/// How a process that we start is connected to its caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attachment {
    /// The socket that receives the master of the pseudo-terminal.
    pub(crate) console_socket: Option<PathBuf>,
    /// The socket that receives a pidfd of the process.
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Where the process id is written.
    pub(crate) pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process inherits.
    pub(crate) preserve_fds: u32,
    /// Return as soon as the process runs.
    pub(crate) detach: bool,
}

/// `create`, and the first half of `run`.
#[derive(Clone, Debug)]
pub(crate) struct Create {
    pub(crate) id: oci::ContainerId,
    pub(crate) bundle: PathBuf,
    pub(crate) attachment: Attachment,
    /// Change the root by moving the mount and chroot(2) instead of pivot_root(2).
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring.
    pub(crate) no_new_keyring: bool,
}

/// `run`.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) create: Create,
    /// Keep the container's state after it has ended.
    pub(crate) keep: bool,
    /// Do not become the reaper of the container's orphans.
    pub(crate) no_subreaper: bool,
}

/// `exec`.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    pub(crate) id: oci::ContainerId,
    pub(crate) attachment: Attachment,
    pub(crate) process: ExecProcess,
    /// `[controller[,controller…]:]path`, as given.
    pub(crate) cgroups: Vec<String>,
    /// Go on though the container is paused.
    pub(crate) ignore_paused: bool,
}

/// Where the process of an `exec` comes from.
#[derive(Clone, Debug)]
pub(crate) enum ExecProcess {
    /// A file that holds a process object.
    File(PathBuf),
    /// The bundle's own process, with changes.
    Changed(Box<ExecChanges>),
}

/// The changes that `exec`'s options make to the bundle's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExecChanges {
    pub(crate) args: Vec<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) terminal: bool,
    /// uid, and gid where one was given.
    pub(crate) user: Option<(u32, Option<u32>)>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) selinux_label: Option<String>,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) capabilities: Vec<String>,
}

/// `kill`.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) id: oci::ContainerId,
    pub(crate) signal: i32,
    /// Every process of the container, not only the first.
    pub(crate) all: bool,
}

/// `delete`.
#[derive(Clone, Debug)]
pub(crate) struct Delete {
    pub(crate) id: oci::ContainerId,
    /// Kill what runs; a container that does not exist is no error.
    pub(crate) force: bool,
}

/// `update`: the resources to change; what is `None` stays.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) id: oci::ContainerId,
    pub(crate) resources: oci::Resources,
    /// The L3 cache schema of Intel RDT.
    pub(crate) l3_cache_schema: Option<String>,
    /// The memory bandwidth schema of Intel RDT.
    pub(crate) mem_bw_schema: Option<String>,
}

/// `events`.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    pub(crate) id: oci::ContainerId,
    /// Print the statistics once and end.
    pub(crate) once: bool,
    /// The time between two statistics, in milliseconds.
    pub(crate) interval_ms: u64,
}

/// The options that `checkpoint` and `restore` share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Criu {
    /// Where the image files are (default: `checkpoint` in the current directory).
    pub(crate) image_path: PathBuf,
    /// Where CRIU puts its logs.
    pub(crate) work_path: Option<PathBuf>,
    /// An earlier image that this one builds on.
    pub(crate) parent_path: Option<PathBuf>,
    pub(crate) tcp_established: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) link_remap: bool,
    pub(crate) ext_unix_sk: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) lazy_pages: bool,
    /// `soft`, `full`, `strict` or `ignore`.
    pub(crate) manage_cgroups_mode: Option<String>,
    /// Namespaces to leave empty, such as `network`.
    pub(crate) empty_ns: Vec<String>,
    /// A descriptor that CRIU writes to when its page server is ready.
    pub(crate) status_fd: Option<i32>,
}

/// `checkpoint`.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) id: oci::ContainerId,
    pub(crate) criu: Criu,
    pub(crate) leave_running: bool,
    /// `host:port` of a page server.
    pub(crate) page_server: Option<String>,
    pub(crate) pre_dump: bool,
    pub(crate) auto_dedup: bool,
}

/// `restore`.
#[derive(Clone, Debug)]
pub(crate) struct Restore {
    pub(crate) run: Run,
    pub(crate) criu: Criu,
    pub(crate) auto_dedup: bool,
    /// A SELinux context for the mounts (`lsm-mount-context`), and a label (`lsm-profile`).
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}
