//! Where the contestants perform: a private mount namespace, bundles in a
//! temporary folder, and the two C programs compiled into it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use hull_integration::cgroup;
use serde_json::{Value, json};
use tempfile::TempDir;

const FLOOR: &str = include_str!("../../../floor/floor.c");
const MEASURE: &str = include_str!("../../../floor/measure.c");
const DOCKER: &str = include_str!("../../../testdata/docker-default-config.json");

/// The host's first id of the user namespace's range.
const MAPPED_ID: u32 = 100_000;

/// What the container is asked to be.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Config {
    /// `runc spec`, without a terminal.
    Default,
    /// What dockerd hands to its runtime for `docker run busybox true`.
    Docker,
    /// `Default` in the host's network namespace.
    HostNetwork,
    /// `Default` in a new user namespace.
    UserNamespace,
    /// `Default` with this memory limit.
    MemoryLimit { kib: u64 },
}

/// What one measured command, or sequence of commands, cost.
pub(crate) struct Cost {
    pub(crate) wall_ms: f64,
    pub(crate) cpu_ms: f64,
    pub(crate) peak_kb: u64,
    /// Number of the first failed step, from 1, and its exit status.
    pub(crate) failed: Option<(usize, i32)>,
}

/// The prepared stage; dropping it removes the folder.
pub(crate) struct Stage {
    folder: TempDir,
    /// The C library that the floor was linked with.
    pub(crate) libc: &'static str,
    /// Whether the v2 mount of a hybrid layout was hidden.
    pub(crate) hid_unified: bool,
}

impl Stage {
    pub(crate) fn set() -> Result<Stage> {
        let hid_unified = cgroup::hide_unified()?;
        let folder = tempfile::Builder::new()
            .prefix("hull-bench.")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .context("make a temporary folder")?;
        for (name, owner) in [("rootfs", 0), ("rootfs-mapped", MAPPED_ID)] {
            make_rootfs(&folder.path().join(name), owner)?;
        }
        let libc = compile(FLOOR, &folder.path().join("floor"), &[MUSL, GLIBC])?;
        compile(FLOOR, &folder.path().join("plain-floor"), &[GLIBC])?;
        compile(MEASURE, &folder.path().join("measure"), &[MUSL, GLIBC])?;
        Ok(Stage { folder, libc, hid_unified })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a bundle of `config` for the contestant `name` alone.
    pub(crate) fn bundle(&self, name: &str, config: Config) -> Result<PathBuf> {
        let bundle = self.path(&format!("bundle-{name}"));
        fs::create_dir_all(&bundle).context("make a bundle")?;
        let spec = self.spec(config)?;
        fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)
            .context("write config.json")?;
        Ok(bundle)
    }

    fn spec(&self, config: Config) -> Result<Value> {
        let mut spec = match config {
            Config::Docker => serde_json::from_str(DOCKER).context("parse Docker's config")?,
            _ => runc_default(),
        };
        spec["root"]["path"] = json!(self.path("rootfs"));
        match config {
            Config::Default | Config::Docker => {}
            Config::HostNetwork => {
                if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                    namespaces.retain(|namespace| namespace["type"] != "network");
                }
            }
            Config::UserNamespace => {
                spec["root"]["path"] = json!(self.path("rootfs-mapped"));
                let map = json!([{"containerID": 0, "hostID": MAPPED_ID, "size": 65_536}]);
                spec["linux"]["uidMappings"] = map.clone();
                spec["linux"]["gidMappings"] = map;
                if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                    namespaces.push(json!({"type": "user"}));
                }
            }
            Config::MemoryLimit { kib } => {
                spec["linux"]["resources"]["memory"] = json!({"limit": kib * 1024});
            }
        }
        Ok(spec)
    }

    /// Runs the steps, one after the other or all at once.
    pub(crate) fn measure(&self, steps: &[Vec<String>], together: bool) -> Result<Cost> {
        let mut command = Command::new(self.path("measure"));
        if together {
            command.arg("--together");
        }
        command.args(steps.join(&"--".to_owned()));
        let log = fs::File::create(self.path("stderr")).context("create the log")?;
        let output = command
            .stdin(Stdio::null())
            .stderr(log)
            .output()
            .context("start the measuring program")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let fields: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        let &[wall_ns, cpu_us, peak_kb, failed, status] = fields.as_slice() else {
            bail!("the measuring program printed {text:?} and ended with {}", output.status);
        };
        let failed = (failed != 0).then_some((failed as usize, status as i32));
        if failed.is_some() {
            let log = fs::read_to_string(self.path("stderr")).unwrap_or_default();
            if !log.trim().is_empty() && !together {
                eprintln!("{}", log.trim());
            }
        }
        Ok(Cost { wall_ms: wall_ns as f64 / 1e6, cpu_ms: cpu_us as f64 / 1e3, peak_kb, failed })
    }
}

fn make_rootfs(rootfs: &Path, owner: u32) -> Result<()> {
    for name in ["", "bin", "dev", "etc", "proc", "sys", "tmp"] {
        let path = rootfs.join(name);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        chown(&path, Some(owner), Some(owner)).context("give the root file system away")?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("busybox is missing: install busybox-static")?;
    fs::copy(busybox, rootfs.join("bin/busybox")).context("copy busybox")?;
    for name in ["true", "sleep"] {
        symlink("busybox", rootfs.join("bin").join(name)).context("link busybox")?;
    }
    Ok(())
}

/// A compiler, its C library, and what else it has to be told.
type Toolchain = (&'static str, &'static str, &'static [&'static str]);

const MUSL: Toolchain = ("musl-gcc", "musl", &["-idirafter", "/usr/include"]);
const GLIBC: Toolchain = ("cc", "glibc", &[]);

/// Compiles with the first toolchain that is there. The fastest to start comes first:
/// glibc's start-up asks the processor for its caches, which traps in a virtual machine.
fn compile(source: &str, target: &Path, attempts: &[Toolchain]) -> Result<&'static str> {
    let file = target.with_extension("c");
    fs::write(&file, source).context("write the C source")?;
    let mut log = String::new();
    for (compiler, libc, extra) in attempts {
        let mut command = Command::new(compiler);
        command.args(["-O2", "-static", "-o"]).arg(target).arg(&file).args(*extra);
        if *libc == "musl" {
            // Debian keeps <asm/…> in the folder of the architecture.
            let folder = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
            command.args(["-idirafter", &folder]);
        }
        match command.output() {
            Ok(output) if output.status.success() => return Ok(libc),
            Ok(output) => log = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => log = format!("{compiler}: {error}"),
        }
    }
    ensure!(!log.is_empty(), "no C compiler ran");
    bail!("compile {}: {}", file.display(), log.trim())
}

/// What `runc spec` writes, without a terminal and with all namespaces that
/// need no mapping.
fn runc_default() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces = namespaces.map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}
