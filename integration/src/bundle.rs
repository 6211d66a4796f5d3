//! Bundles: a directory with a busybox root and a config.json.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::{PROBE, SyscallProgram, User, write_program};

/// A directory of this test process, on a real file system, removed at the end.
pub fn scratch_dir() -> &'static Path {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let path = std::env::temp_dir().join(format!("hull-suite-{}", std::process::id()));
        // The process that had this number before left its own behind.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                panic!("cannot remove {}: {error}", path.display())
            }
            _ => fs::create_dir_all(&path).expect("the temporary directory is writable"),
        }
        // Containers with a user namespace walk through it.
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
        path
    });
    &DIRECTORY
}

/// The program of every busybox applet, and the applets' names.
static BUSYBOX: LazyLock<(Vec<u8>, Vec<String>)> = LazyLock::new(|| {
    let path = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .expect("busybox-static is installed");
    let program = fs::read(path).expect("it is readable");
    let list = std::process::Command::new(path).arg("--list").output().expect("busybox runs");
    let applets = String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|name| *name != "busybox")
        .map(str::to_owned)
        .collect();
    (program, applets)
});

/// A bundle under construction. The directory goes when this is dropped.
#[derive(Debug)]
pub struct Bundle {
    directory: PathBuf,
    /// The configuration, written when the container is made.
    pub config: Value,
}

impl Bundle {
    /// A bundle with a private copy of the root, whose process is `true`.
    pub fn new() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = scratch_dir().join(format!("bundle-{number}"));
        build_rootfs(&directory.join("rootfs"));
        Self { directory, config: default_config() }
    }

    /// A bundle whose process is a line of shell.
    pub fn shell(script: &str) -> Self {
        Self::new().args(&["sh", "-c", script])
    }

    /// A bundle whose process sleeps until it is killed.
    pub fn sleeper() -> Self {
        // As process 1 it would ignore every signal that it has no handler for.
        Self::shell("trap 'exit 0' TERM; trap 'exit 3' USR1; while :; do sleep 0.02; done")
    }

    /// A bundle whose process reports what it sees, and examines `paths`.
    pub fn probe(paths: &[&str]) -> Self {
        let mut args = vec!["/probe", "report"];
        args.extend(paths);
        Self::new().args(&args)
    }

    /// Sets the process's arguments.
    #[must_use]
    pub fn args(self, args: &[&str]) -> Self {
        self.set("/process/args", json!(args))
    }

    /// Sets the value at a JSON pointer, making the objects on the way.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        *slot(&mut self.config, pointer) = value.into();
        self
    }

    /// Appends to the array at a JSON pointer.
    #[must_use]
    pub fn push(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let slot = slot(&mut self.config, pointer);
        if slot.is_null() {
            *slot = json!([]);
        }
        slot.as_array_mut().expect("the pointer names an array").push(value.into());
        self
    }

    /// Removes the member at a JSON pointer.
    #[must_use]
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        let parent = self.config.pointer_mut(parent).expect("the parent exists");
        parent.as_object_mut().expect("the parent is an object").remove(name);
        self
    }

    /// Appends a mount.
    #[must_use]
    pub fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        self.push(
            "/mounts",
            json!({
                "destination": destination, "type": kind, "source": source, "options": options,
            }),
        )
    }

    /// Replaces the options of the mount on `destination`.
    #[must_use]
    pub fn mount_options(mut self, destination: &str, options: &[&str]) -> Self {
        let mounts = self.config["mounts"].as_array_mut().expect("the default has mounts");
        let mount = mounts
            .iter_mut()
            .find(|mount| mount["destination"] == destination)
            .expect("a mount has this destination");
        mount["options"] = json!(options);
        self
    }

    /// Removes the mount on `destination`.
    #[must_use]
    pub fn without_mount(mut self, destination: &str) -> Self {
        let mounts = self.config["mounts"].as_array_mut().expect("the default has mounts");
        mounts.retain(|mount| mount["destination"] != destination);
        self
    }

    /// Replaces the namespace of a kind: a new one, or the one at `path`.
    #[must_use]
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Self {
        let mut namespace = json!({ "type": kind });
        if let Some(path) = path {
            namespace["path"] = json!(path);
        }
        self.without_namespace(kind).push("/linux/namespaces", namespace)
    }

    /// Leaves the container in the caller's namespace of a kind.
    #[must_use]
    pub fn without_namespace(mut self, kind: &str) -> Self {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("default");
        namespaces.retain(|namespace| namespace["type"] != kind);
        self
    }

    /// Gives the container a user namespace over the host's ids from `base`, and the
    /// root to its owner.
    #[must_use]
    pub fn user_namespace(self, base: u32) -> Self {
        chown_all(&self.rootfs(), base);
        let map = json!([{ "containerID": 0, "hostID": base, "size": 65536 }]);
        self.namespace("user", None)
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// Fits it to a user without privileges: the root is the user's, and nothing is asked
    /// for that takes more ids, or access to cgroups.
    #[must_use]
    pub fn rootless(self, user: &User, mappings: &Value) -> Self {
        chown_all(&self.directory, user.id);
        self.namespace("user", None)
            .without_mount("/sys/fs/cgroup")
            .mount_options("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"])
            .remove("/linux/resources")
            .set("/linux/uidMappings", mappings.clone())
            .set("/linux/gidMappings", mappings.clone())
    }

    /// Gives the process these capabilities in every set but the inheritable one.
    #[must_use]
    pub fn capabilities(mut self, names: &[&str]) -> Self {
        for set in ["bounding", "effective", "permitted"] {
            self = self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        self
    }

    /// Puts an executable that makes one system call into the root.
    #[must_use]
    pub fn syscall_program(self, path: &str, program: &SyscallProgram) -> Self {
        self.program(path, program.executable())
    }

    /// Puts a program into the root.
    #[must_use]
    pub fn program(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        write_program(self.path(path), content);
        self
    }

    /// Puts a file into the root.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        let path = self.path(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("the root is writable");
        }
        fs::write(&path, content).expect("the root is writable");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("the root is writable");
        self
    }

    /// Makes a directory in the root.
    #[must_use]
    pub fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.path(path)).expect("the root is writable");
        self
    }

    /// Makes a symbolic link in the root.
    #[must_use]
    pub fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.path(path)).expect("the root is writable");
        self
    }

    /// The bundle's directory.
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    /// The root's directory.
    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// A path of the container, as the host sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.rootfs().join(inside.trim_start_matches('/'))
    }

    /// Writes config.json.
    pub fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("a value can be written");
        fs::write(self.directory.join("config.json"), text).expect("the bundle is writable");
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A mount that is left would make this remove what is behind it.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if !table.contains(&*self.directory.to_string_lossy()) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn slot<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Value {
    let mut value = config;
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        if let Value::Array(items) = value {
            let index: usize = name.parse().expect("an array is indexed by numbers");
            value = items.get_mut(index).expect("the index exists");
        } else {
            if value.is_null() {
                *value = json!({});
            }
            let members = value.as_object_mut().expect("the pointer walks through objects");
            value = members.entry(name).or_insert(Value::Null);
        }
    }
    value
}

fn build_rootfs(root: &Path) {
    let (busybox, applets) = &*BUSYBOX;
    let directories =
        ["bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "var/tmp"];
    for name in directories {
        fs::create_dir_all(root.join(name)).expect("the scratch directory is writable");
    }
    for name in ["tmp", "var/tmp"] {
        fs::set_permissions(root.join(name), Permissions::from_mode(0o1777)).expect("ours");
    }
    for (name, content) in [("bin/busybox", busybox.as_slice()), ("probe", PROBE)] {
        write_program(root.join(name), content);
    }
    for applet in applets {
        symlink("busybox", root.join("bin").join(applet)).expect("no applet is listed twice");
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"),
        ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"),
    ];
    for (name, content) in files {
        fs::write(root.join(name), content).expect("the scratch directory is writable");
    }
}

pub(crate) fn chown_all(path: &Path, owner: u32) {
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        path,
        Some(owner.into()),
        Some(owner.into()),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .expect("the suite runs as root");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("the root is readable").flatten() {
            chown_all(&entry.path(), owner);
        }
    }
}

/// What `spec` gives, without a terminal and with a writable root.
fn default_config() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "container",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}
