//! `start`: makes a shim, or finds the one of the container's pod, and says where it is.
//!
//! Three forms of question and answer are in use. containerd 2.3 and later write
//! `BootstrapParams` in protobuf and take `BootstrapResult`; earlier ones write the runtime's
//! options, or nothing, and take an address as text. (2.0 to 2.2 would take JSON that offers
//! version 3, too, but cannot be told from 1.7, which refuses it; the text means version 2,
//! whose task API is the same. What it costs: with 2.0 to 2.2, only those containers of a sandbox
//! are in its shim that an annotation puts there, as before sandboxes.)
//!
//! The shim is a fork of this process: single-threaded, so that is safe, and nothing is
//! executed, loaded or parsed twice.

use std::{
    fs::{self, DirBuilder, File},
    io::{Read, Write},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use hull_runtime_sys::{
    fd, process,
    spawn::{self, Fork},
};
use protobuf::{Message, well_known_types::any::Any};
use sha2::{Digest, Sha256};

use crate::{args::Args, bundle_file, options::RuntimeOptions, serve, task::Config};

/// Where sockets are unless containerd says otherwise.
const SOCKETS: &str = "/run/containerd/s";

/// The file in the bundle with the shim's address; containerd before 2.0 reads it.
pub(crate) const ADDRESS_FILE: &str = "address";

/// Most of what containerd writes to a starting shim, in bytes; the reference's limit.
const MAX_INPUT: u64 = 10 << 20;

/// Annotations that put containers into one shim, in the order in which they count.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// The most that a unix socket's path may be long, without its NUL.
const MAX_PATH: usize = 107;

/// What `start` was asked.
#[derive(Debug, Default)]
struct Question {
    /// Answer in protobuf.
    structured: bool,
    sockets: PathBuf,
    events: String,
    options: RuntimeOptions,
}

impl Question {
    fn parse(input: &[u8], args: &Args, events: String) -> Result<Self> {
        let mut question = Self { events, sockets: SOCKETS.into(), ..Self::default() };
        // Options and parameters can look alike; only parameters repeat the flags.
        let params = BootstrapParams::parse_from_bytes(input)
            .ok()
            .filter(|params| params.instance_id == args.id && params.namespace == args.namespace);
        let Some(params) = params else {
            let any = Any::parse_from_bytes(input).context("cannot read the options on stdin")?;
            question.options = RuntimeOptions::from_any(Some(&any))?;
            return Ok(question);
        };
        question.structured = true;
        if let Some(directory) = params.socket_dir.filter(|directory| !directory.is_empty()) {
            question.sockets = directory.into();
        }
        if question.events.is_empty() {
            question.events = params.containerd_ttrpc_address;
        }
        let mut values = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
        // Others are for other shims.
        let options = values.find(|any| any.type_url.ends_with("containerd.runc.v1.Options"));
        question.options = RuntimeOptions::from_any(options)?;
        Ok(question)
    }

    fn answer(&self, address: &str) -> Result<Vec<u8>> {
        if !self.structured {
            return Ok(address.into());
        }
        let result = BootstrapResult {
            version: 3,
            address: address.into(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        Ok(result.write_to_bytes()?)
    }
}

/// A socket's file: containerd, namespace and group make its name.
fn socket_path(directory: &Path, args: &Args, group: &str) -> Result<PathBuf> {
    let name = Path::new(&args.address).join(&args.namespace).join(group);
    let hash = Sha256::digest(name.as_os_str().as_encoded_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join(hash);
    ensure!(
        path.as_os_str().len() <= MAX_PATH,
        "the socket directory {} is too long: {} bytes are allowed",
        directory.display(),
        MAX_PATH - 65,
    );
    Ok(path)
}

/// A new listener, or nothing if a shim listens there already.
fn listen(path: &Path) -> Result<Option<UnixListener>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    // Nobody else may connect, from its first moment on.
    let mask = process::set_umask(0o177);
    let mut listener = UnixListener::bind(path);
    if listener.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
        if is_socket && UnixStream::connect(path).is_ok() {
            process::set_umask(mask);
            return Ok(None);
        }
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        listener = UnixListener::bind(path);
    }
    process::set_umask(mask);
    listener.map(Some).with_context(|| format!("cannot listen on {}", path.display()))
}

/// Runs the action. Returns in the process that was started, and, when all is over, in its
/// child, the shim.
///
/// # Errors
/// No shim has been made.
pub(crate) fn start(args: &Args) -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().take(MAX_INPUT).read_to_end(&mut input).context("cannot read stdin")?;
    let events = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let question = Question::parse(&input, args, events)?;
    let bundle = Path::new(".");
    let config: Config = Config::read_as(bundle)?.unwrap_or_default();
    let annotations = config.annotations.unwrap_or_default();
    let group = GROUPS.iter().find_map(|name| annotations.get(*name));
    let path = socket_path(&question.sockets, args, group.unwrap_or(&args.id))?;
    let address = format!("unix://{}", path.display());
    let listener = listen(&path)?;
    let made = match listener {
        None => Ok(true),
        Some(listener) => make(args, &question, &path, listener),
    };
    match made {
        // The shim has ended.
        Ok(false) => Ok(()),
        Ok(true) => {
            bundle_file::put(Path::new(ADDRESS_FILE), address.as_bytes())?;
            let mut stdout = std::io::stdout();
            stdout.write_all(&question.answer(&address)?).context("cannot answer on stdout")?;
            Ok(stdout.flush()?)
        }
        Err(error) => {
            // Nobody listens there.
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

/// Forks the shim; true in the parent.
fn make(args: &Args, question: &Question, path: &Path, listener: UnixListener) -> Result<bool> {
    if question.sockets != Path::new(SOCKETS) {
        // For containerd's own tools, which look for sockets there.
        let _ = fs::remove_file("s");
        symlink(&question.sockets, "s").context("cannot link the socket directory")?;
    }
    if std::env::var_os("SCHED_CORE").is_some() {
        process::create_core_scheduling_group().context("enable sched core support")?;
    }
    let parent = process::parent_id();
    match spawn::fork()? {
        Fork::Child => {
            detach()?;
            serve::run(&args.namespace, &question.events, listener, path)?;
            Ok(false)
        }
        Fork::Parent(child) => {
            let placed = place(child, parent, &question.options);
            if let Err(error) = placed {
                process::kill(child, libc::SIGKILL)?;
                return Err(error);
            }
            Ok(true)
        }
    }
}

/// Its own process group, and none of containerd's descriptors: containerd waits for their end.
/// Not its own session: the kernel can schedule each session as one (autogroup), so that on a busy
/// machine each call would wait for a turn that a caller of the same session need not wait for.
fn detach() -> Result<()> {
    process::new_group()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for number in 0..3 {
        fd::place(&null, number)?;
    }
    Ok(())
}

/// Puts the shim into the cgroup that it is to be in, and makes it a little more likely than
/// containerd to be killed for want of memory.
fn place(child: i32, parent: i32, options: &RuntimeOptions) -> Result<()> {
    if !options.shim_cgroup.is_empty() {
        crate::cgroup::join(child, &options.shim_cgroup)
            .with_context(|| format!("failed to join cgroup {}", options.shim_cgroup))?;
    }
    let score = fs::read_to_string(format!("/proc/{parent}/oom_score_adj"))?;
    let score: i32 = score.trim().parse().context("get parent OOM score")?;
    let path = format!("/proc/{child}/oom_score_adj");
    fs::write(&path, (score + 1).min(1000).to_string()).with_context(|| format!("write {path}"))
}

/// Removes a dead shim's socket; a living one, of a pod, keeps its own.
pub(crate) fn remove_dead_socket(bundle: &Path) -> Result<()> {
    let file = bundle.join(ADDRESS_FILE);
    let address = match fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let Some(path) = address.trim().strip_prefix("unix://").map(Path::new) else {
        bail!("{} does not hold an address", file.display());
    };
    remove_if_dead(path)
}

/// Removes a socket on which nobody listens.
pub(crate) fn remove_if_dead(path: &Path) -> Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    if is_socket && !is_served(path) {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Whether somebody serves there. A process that is being killed has lost its connections, which
/// is how containerd knows, before its listener is gone; it then still takes a connection, and
/// drops it.
fn is_served(path: &Path) -> bool {
    const DYING: Duration = Duration::from_millis(100);
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    if stream.set_read_timeout(Some(DYING)).is_err() {
        return true;
    }
    let answer = stream.read(&mut [0]);
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN))
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::{bootstrap_api::Extension, shim::oci::Options};
    use protobuf::MessageField;

    use super::*;

    fn args() -> Args {
        Args { namespace: "n".into(), id: "i".into(), address: "/a.sock".into(), ..Args::default() }
    }

    fn options() -> Any {
        let options = Options { binary_name: "crun".into(), ..Options::default() };
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    #[test]
    fn parameters_are_answered_in_protobuf_and_anything_else_by_an_address() {
        let params = BootstrapParams {
            instance_id: "i".into(),
            namespace: "n".into(),
            socket_dir: Some("/s".into()),
            containerd_ttrpc_address: "/e".into(),
            extensions: vec![Extension {
                value: MessageField::some(options()),
                ..Default::default()
            }],
            ..BootstrapParams::default()
        };
        let bytes = params.write_to_bytes().unwrap();
        let question = Question::parse(&bytes, &args(), String::new()).unwrap();
        assert!(question.structured);
        assert_eq!(question.sockets, Path::new("/s"));
        assert_eq!(
            (question.events.as_str(), question.options.binary_name.as_str()),
            ("/e", "crun")
        );
        let answer = question.answer("unix:///x").unwrap();
        let answer = BootstrapResult::parse_from_bytes(&answer).unwrap();
        assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));

        for input in [options().write_to_bytes().unwrap(), Vec::new()] {
            let question = Question::parse(&input, &args(), "/t".into()).unwrap();
            assert!(!question.structured);
            assert_eq!(question.options.binary_name.is_empty(), input.is_empty());
            assert_eq!(question.answer("unix:///x").unwrap(), b"unix:///x");
        }
        assert!(Question::parse(b"\xff\xff", &args(), String::new()).is_err());
    }

    #[test]
    fn a_sockets_name_is_containerds() {
        let path = socket_path(Path::new(SOCKETS), &args(), "g").unwrap();
        let hash = Sha256::digest(b"/a.sock/n/g");
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(path, Path::new(SOCKETS).join(hash));
        assert!(socket_path(Path::new(&"/long".repeat(10)), &args(), "g").is_err());
    }

    #[test]
    fn a_socket_that_nobody_serves_is_taken_and_one_that_is_served_is_used() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("dir/socket");
        let first = listen(&path).unwrap().unwrap();
        assert!(listen(&path).unwrap().is_none());
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert!(listen(&path).unwrap().is_some());
    }

    #[test]
    fn mutants_of_parameters_and_options_are_read_or_refused() {
        let params = BootstrapParams {
            instance_id: "i".into(),
            namespace: "n".into(),
            socket_dir: Some("/s".into()),
            extensions: vec![Extension {
                value: MessageField::some(options()),
                ..Default::default()
            }],
            ..BootstrapParams::default()
        };
        let (mut structured, mut plain, mut refused) = (0, 0, 0);
        for valid in [params.write_to_bytes().unwrap(), options().write_to_bytes().unwrap()] {
            crate::mutants::each(&valid, 50_000, |bytes| {
                match Question::parse(bytes, &args(), String::new()) {
                    Ok(question) if question.structured => structured += 1,
                    Ok(_) => plain += 1,
                    Err(_) => refused += 1,
                }
            });
        }
        assert!(structured > 0 && plain > 0 && refused > 0);
    }
}
