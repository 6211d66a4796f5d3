//! Plans against tables, and applies for real: each of the latter runs this test program
//! again, alone, in a mount namespace that ends with it.

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use hull_runtime_sys::{fd::openat, namespace, path::stat, process::set_umask};
use serde_json::{Value, json};

use hull_specs_oci as oci;

use super::*;
use crate::rootfs::{
    plan::{Entry, Start},
    steps::Bind,
};

mod mounts;
mod plan;
mod user_namespaces;

fn spec(change: impl FnOnce(&mut Value)) -> oci::Spec {
    let mut spec = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        ],
        "linux": {"namespaces": [{"type": "mount"}]},
    });
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

fn mount(value: Value) -> impl FnOnce(&mut Value) {
    move |spec| spec["mounts"] = json!([value])
}

fn planned(spec: &oci::Spec) -> Result<Plan> {
    plan(spec, Path::new("/bundle"), Facts::default())
}

fn first(value: Value) -> Result<Step> {
    planned(&spec(mount(value))).map(|mut plan| plan.steps.remove(0))
}

fn first_bind(value: Value) -> Bind {
    match first(value).unwrap() {
        Step::Bind(bind) => bind,
        other => panic!("not a bind mount: {other:?}"),
    }
}

/// Set in the program that a test has started.
const INSIDE: &str = "HULL_TEST_IN_MOUNT_NAMESPACE";

/// Runs the test of this name again in a mount namespace of its own; true in there.
fn alone(name: &str) -> bool {
    alone_as(name, r#"exec "$@""#, "")
}

/// As [`alone`], started by a script in the new namespace, with a word for the test.
fn alone_as(name: &str, script: &str, word: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // Who has entered a root cannot tidy up behind itself.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("rootfs::tests::{name}"), "--nocapture", "--test-threads=1"])
        .env(INSIDE, word)
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}");
    false
}

/// A bundle with an empty root, beside a directory that nothing may reach.
struct Bundle(tempfile::TempDir);

impl Bundle {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rootfs", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn root(&self, path: &str) -> PathBuf {
        self.path().join("rootfs").join(path)
    }

    fn outside_is_untouched(&self) {
        assert_eq!(fs::read_dir(self.path().join("outside")).unwrap().count(), 0);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let outside = self.path().join("outside");
        assert!(!table.contains(outside.to_str().unwrap()), "{table}");
    }

    fn plan(&self, spec: &oci::Spec) -> Plan {
        plan(spec, self.path(), Facts { kcore: true, ..Facts::default() }).unwrap()
    }

    fn mount(&self, spec: &oci::Spec) -> Result<(Plan, Root)> {
        set_umask(0o022);
        let plan = self.plan(spec);
        let mut join_cgroup = || panic!("no cgroup mount is planned");
        let context = Context { join_cgroup: &mut join_cgroup, sources: Sources::default() };
        let root = mount_all(&plan, context)?;
        Ok((plan, root))
    }
}

fn options_of(mount_point: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == mount_point.to_str())
        .unwrap_or_else(|| panic!("nothing at {}: {table}", mount_point.display()));
    line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

fn has(mount_point: &Path, word: &str) -> bool {
    options_of(mount_point).iter().any(|option| option == word)
}
