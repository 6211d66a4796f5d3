//! Making a container: root file system, streams, the runtime's `create`.
//!
//! What a killed shim leaves here, its `delete` finds: the bundle says which runtime and which
//! root, the runtime knows its containers by id, and the mounts are below the bundle.

use std::{
    cell::{Cell, RefCell},
    ffi::OsStr,
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context, Result, anyhow, ensure};
use containerd_shim_protos::{
    api,
    events::task::{TaskCreate, TaskIO, TaskOOM},
};
use futures_util::{FutureExt, lock::Mutex};
use hull_runtime_sys::{fd, process as sys_process};
use protobuf::Message;

use super::{
    Shim,
    container::{Config, Container},
    container_id, exit, field,
    process::Process,
};
use crate::{
    bundle_file,
    cgroup::Cgroup,
    init_record::Stat,
    log,
    oom::Watch,
    options::{self, RuntimeOptions},
    reactor::{self, Expected, Source},
    rootfs,
    runtime::{Runtime, Streams},
    stdio::{self, Owner, Prepared, Stdio},
    ttrpc::{Failure, Kind},
};

/// The file that a runtime writes the first process's pid to; containerd's name.
pub(crate) const PID_FILE: &str = "init.pid";

/// The file with the runtime's name, for `delete`; containerd's.
pub(crate) const RUNTIME_FILE: &str = "runtime";

/// The root file system's place in a bundle.
pub(crate) const ROOTFS: &str = "rootfs";

impl Shim {
    pub(super) async fn create(
        self: &Rc<Self>,
        request: api::CreateTaskRequest,
    ) -> Result<api::CreateTaskResponse, Failure> {
        container_id(&request.id)?;
        self.admit()?;
        // Also one that is on its way: it has the mounts and the files in the bundle.
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() {
            // It would be another container's: a shim works in the bundle of its first.
            let text = format!("the bundle {:?} is no absolute path", request.bundle);
            return Err(Failure::new(Kind::InvalidArgument, text));
        }
        let conflict = if self.has(&request.id) {
            Some(format!("container {}: already exists", request.id))
        } else {
            let holder = self.holder_of(&bundle);
            holder.map(|id| format!("the bundle of container {id}: already exists"))
        };
        if let Some(text) = conflict {
            return Err(Failure::new(Kind::AlreadyExists, text));
        }
        self.creating.borrow_mut().insert(request.id.clone(), bundle);
        self.begun.set(true);
        let result = self.make(&request).await;
        self.creating.borrow_mut().remove(&request.id);
        self.created.take().raise();
        let container = result.inspect_err(|_| self.forget(&request.id))?;
        Ok(api::CreateTaskResponse { pid: container.first.pid(), ..Default::default() })
    }

    fn has(&self, id: &str) -> bool {
        self.containers.borrow().contains_key(id) || self.creating.borrow().contains_key(id)
    }

    /// The container that a bundle belongs to. Two in one would take each other's process,
    /// root file system and log for their own.
    fn holder_of(&self, bundle: &Path) -> Option<String> {
        // A bundle has many names.
        let identity = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
        let wanted = identity(bundle)?;
        let (containers, creating) = (self.containers.borrow(), self.creating.borrow());
        let made = containers.values().map(|one| (&one.id, &one.bundle));
        let mut all = made.chain(creating.iter());
        let holder = all.find(|(_, path)| identity(path) == Some(wanted));
        holder.map(|(id, _)| id.clone())
    }

    async fn make(self: &Rc<Self>, request: &api::CreateTaskRequest) -> Result<Rc<Container>> {
        let bundle = PathBuf::from(&request.bundle);
        let options = RuntimeOptions::from_any(request.options.as_ref())?;
        let runtime = Runtime::find(
            &options.binary_name,
            &options.root,
            &self.namespace,
            options.systemd_cgroup,
        )?
        .with_criu(&options.criu_path)?;
        let config = Config::read(&bundle)?;
        if let Some(sandbox) = self.sandbox() {
            sandbox.add(&request.id, &bundle)?;
        }
        bundle_file::put(&bundle.join(options::FILE), &serde_json::to_vec(&options)?)?;
        bundle_file::put(&bundle.join(RUNTIME_FILE), options.binary_name.as_bytes())?;
        let rootfs = if request.rootfs.is_empty() { None } else { Some(bundle.join(ROOTFS)) };
        if let Some(rootfs) = &rootfs {
            let made = fs::DirBuilder::new().mode(0o711).create(rootfs);
            match made {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).context(format!("cannot make {}", rootfs.display()));
                }
                _ => {}
            }
            rootfs::mount_all(&request.rootfs, rootfs)
                .await
                .context("failed to mount rootfs component")?;
        }
        let streams = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let container = Rc::new(Container {
            id: request.id.clone(),
            bundle,
            runtime,
            options,
            first: Process::new("", streams, Vec::new()),
            execs: RefCell::default(),
            lock: Mutex::new(()),
            cgroup: RefCell::default(),
            record: RefCell::default(),
            rootfs,
            shares_pids: config.shares_pids(),
            over: Cell::new(false),
            checkpoint: request.checkpoint.clone(),
        });
        let noted = stdio::note_log(&container.bundle, &container.first.stdio);
        let result = match noted {
            // A container that is restored begins with `start`.
            Ok(()) if container.checkpoint.is_empty() => self.create_first(&container).await,
            noted => noted,
        };
        if let Err(error) = result {
            if let Some(rootfs) = &container.rootfs
                && let Err(error) = rootfs::unmount_all(rootfs)
            {
                log::error(&format!("{}: {}", container.id, log::sentence(&error)));
            }
            return Err(error);
        }
        self.containers.borrow_mut().insert(container.id.clone(), Rc::clone(&container));
        self.events.publish(&TaskCreate {
            container_id: container.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.iter().filter_map(recode).collect(),
            io: field(TaskIO {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
                ..TaskIO::default()
            }),
            checkpoint: request.checkpoint.clone(),
            pid: container.first.pid(),
            ..TaskCreate::default()
        });
        Ok(container)
    }

    async fn create_first(self: &Rc<Self>, container: &Rc<Container>) -> Result<()> {
        let pid_file = container.bundle.join(PID_FILE);
        let mut words: Vec<&OsStr> = ["create", "--bundle"].map(OsStr::new).into();
        words.push(container.bundle.as_os_str());
        self.begin(container, &container.first, words, &pid_file, &container.log())
            .await
            .context("OCI runtime create failed")
    }

    /// Runs the runtime so that it starts `process`, and takes the process up: its streams, its
    /// pid, its end.
    pub(super) async fn begin(
        self: &Rc<Self>,
        container: &Rc<Container>,
        process: &Rc<Process>,
        mut words: Vec<&OsStr>,
        pid_file: &Path,
        log: &Path,
    ) -> Result<()> {
        let (options, bundle) = (&container.options, &container.bundle);
        let owner = Owner {
            namespace: &self.namespace,
            id: if process.is_first() { &container.id } else { &process.exec_id },
            uid: options.io_uid,
            gid: options.io_gid,
        };
        let prepared = Prepared::new(&process.stdio, bundle, &owner)
            .await
            .context("failed to create init process I/O")?;
        words.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        if process.is_first() {
            if options.no_pivot_root {
                words.push(OsStr::new("--no-pivot"));
            }
            if options.no_new_keyring && container.checkpoint.is_empty() {
                words.push(OsStr::new("--no-new-keyring"));
            }
        }
        if let Some(socket) = prepared.console_socket() {
            words.extend([OsStr::new("--console-socket"), socket.as_os_str()]);
        }
        words.push(OsStr::new(&container.id));
        let expected = reactor::expect_children();
        let streams = prepared.streams();
        container.runtime.run_with(log, Streams(streams), &words).await?;
        let taken = self.take_up(container, process, prepared, pid_file, &expected).await;
        let Err(error) = taken else { return Ok(()) };
        // It runs, and nobody would hold it.
        let ended = if process.is_first() {
            container.run(&["delete", "--force", &container.id]).await.map(drop)
        } else {
            read_pid(pid_file).and_then(|pid| kill_child(&expected, pid))
        };
        Err(match ended {
            Ok(()) => error,
            Err(left) => anyhow!(
                "{}; what was begun is not ended: {}",
                log::sentence(&error),
                log::sentence(&left)
            ),
        })
    }

    /// Takes up a process that the runtime has just started.
    async fn take_up(
        self: &Rc<Self>,
        container: &Rc<Container>,
        process: &Rc<Process>,
        prepared: Prepared,
        pid_file: &Path,
        expected: &Expected,
    ) -> Result<()> {
        let io = prepared.start().await?;
        if process.stdin_closed.get() {
            io.close_stdin();
        }
        let pid = read_pid(pid_file)?;
        let exit = reactor::wait_for(expected, pid);
        process.pid.set(pid);
        // Not reaped before `exit` was made, so the number is still this process's; after that
        // it may have ended, and then there is nothing to hold or to measure.
        process.pidfd.replace(sys_process::pidfd(pid).ok());
        process.start_time.set(Stat::of(pid).map_or(0, |stat| stat.start_time));
        if process.is_first() {
            container.note_first()?;
        }
        process.io.replace(Some(Rc::new(io)));
        let mut watch = None;
        if process.is_first()
            && let Ok(cgroup) = Cgroup::of(pid)
        {
            watch = Watch::open(&cgroup).unwrap_or_else(|error| {
                log::error(&format!(
                    "{}: no word of OOM kills: {}",
                    container.id,
                    log::sentence(&error)
                ));
                None
            });
            container.cgroup.replace(Some(Rc::new(cgroup)));
        }
        let watch = watch.map(|watch| Rc::new(RefCell::new(watch)));
        if let Some(watch) = &watch {
            self.tell_oom(container, watch);
        }
        exit::follow(self, container, process, exit, watch);
        Ok(())
    }

    /// Publishes each time that the container runs out of memory.
    fn tell_oom(self: &Rc<Self>, container: &Rc<Container>, watch: &Rc<RefCell<Watch>>) {
        let duplicate = fd::duplicate(watch.borrow().fd(), 3);
        let Ok(source) = duplicate.map(Source::new) else { return };
        let (shim, watch) = (Rc::downgrade(self), Rc::downgrade(watch));
        let (id, settled) = (container.id.clone(), container.first.settled.clone());
        reactor::spawn(async move {
            while let Some(Ok(())) = reactor::unless(&settled, source.readable()).await {
                let (Some(shim), Some(watch)) = (shim.upgrade(), watch.upgrade()) else { return };
                if watch.borrow_mut().take() > 0 {
                    let event = TaskOOM { container_id: id.clone(), ..TaskOOM::default() };
                    shim.events.publish(&event);
                }
            }
        });
    }
}

/// A message in another module's type for the same message.
fn recode<A: Message, B: Message>(message: &A) -> Option<B> {
    message.write_to_bytes().and_then(|bytes| B::parse_from_bytes(&bytes)).ok()
}

/// The pid that a runtime has written.
pub(crate) fn read_pid(path: &Path) -> Result<i32> {
    let context = || format!("cannot read a pid from {}", path.display());
    let text = fs::read_to_string(path).with_context(context)?;
    let pid = text.trim().parse::<i32>().with_context(context)?;
    ensure!(pid > 0, "{}: {pid} is no pid", path.display());
    Ok(pid)
}

/// Kills a process that a runtime has left to us, and whose pid was learned while `expected`
/// lives, unless it has ended.
fn kill_child(expected: &Expected, pid: i32) -> Result<()> {
    // Nobody but the reactor reaps: a child that it has not reaped has its number still.
    if reactor::wait_for(expected, pid).now_or_never().is_some() {
        return Ok(());
    }
    let pidfd = sys_process::pidfd(pid)?;
    let parent = Stat::of(pid).map(|stat| stat.parent);
    ensure!(parent == Some(sys_process::id()), "process {pid} is not a child of the shim");
    Ok(sys_process::send_signal(&pidfd, libc::SIGKILL)?)
}
