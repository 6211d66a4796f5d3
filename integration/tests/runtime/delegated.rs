//! A caller without privileges, in a cgroup that was delegated to it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use hull_integration::{
    Bundle, Container, Invocation, SOON, cgroup, require, runtime, systemd_driver, tests,
    wait_until,
};
use serde_json::json;

tests![a_user_runs_a_container_in_a_delegated_cgroup];

/// A user, and as such not root.
const USER: u32 = 1000;

/// A cgroup that belongs to the user, with one below it for the user's own processes: the
/// kernel lets nobody limit a cgroup that has both processes and children.
struct Delegated(PathBuf);

impl Delegated {
    fn new(path: PathBuf) -> Self {
        let top = path.parent().expect("it is below the mount point");
        fs::write(top.join("cgroup.subtree_control"), "+memory +pids").expect("controllers");
        let made = Self(path);
        for directory in [made.0.clone(), made.own()] {
            fs::create_dir(&directory).expect("a cgroup");
            for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                chown(directory.join(name), Some(USER), Some(USER)).expect("ours");
            }
        }
        made
    }

    fn own(&self) -> PathBuf {
        self.0.join("own")
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for directory in [self.own(), self.0.clone()] {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn a_user_runs_a_container_in_a_delegated_cgroup() {
    let hierarchy = cgroup::hierarchy("memory").filter(|one| one.unified);
    require!(hierarchy.is_some(), "cgroups are delegated on v2 only");
    require!(!systemd_driver(), "the user has no systemd of its own");
    let map = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    let bundle = Bundle::sleeper()
        .user_namespace(USER)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        // The group of terminals is not mapped.
        .mount_options("/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"])
        .set("/linux/resources/pids", json!({ "limit": 20 }))
        .set("/linux/resources/memory", json!({ "limit": 64 << 20 }));
    let mut container = Container::new(bundle);
    let at = &hierarchy.expect("just asked").at;
    let delegated = Delegated::new(at.join(container.cgroups_path().trim_start_matches('/')));
    let path = format!("{}/box", container.cgroups_path());
    container.bundle.config["linux"]["cgroupsPath"] = json!(path);
    container.write_config();
    for directory in [container.root(), container.bundle.dir()] {
        chown(directory, Some(USER), Some(USER)).expect("ours");
    }

    let probe = container.bundle.path("probe");
    let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
    let user = |words: &[&str]| {
        let shell = Invocation::new("sh").args(["-c", script]).arg(delegated.own()).arg(&probe);
        let shell = shell.args(["as", &USER.to_string()]).arg(&runtime().program);
        shell.arg("--root").arg(container.root()).args(words).run()
    };
    let bundle = container.bundle.dir().display().to_string();
    user(&["run", "--detach", "--bundle", &bundle, &container.id]).ok();
    let directory = delegated.0.join("box");
    let limit = |file: &str| cgroup::read(&directory, file);
    assert_eq!((limit("pids.max").as_str(), limit("memory.max").as_str()), ("20", "67108864"));
    let pid = user(&["state", &container.id]).ok().json()["pid"].clone();
    assert_eq!(limit("cgroup.procs").lines().next(), Some(pid.to_string().as_str()));
    assert_eq!(owner(Path::new(&format!("/proc/{pid}"))), USER);
    assert_eq!(user(&["exec", &container.id, "id", "-u"]).ok().text(), "0");
    user(&["update", "--pids-limit", "30", &container.id]).ok();
    assert_eq!(limit("pids.max"), "30");
    user(&["pause", &container.id]).ok();
    assert_eq!(limit("cgroup.freeze"), "1");
    user(&["resume", &container.id]).ok();
    user(&["kill", &container.id, "KILL"]).ok();
    wait_until("stopped", SOON, || {
        user(&["state", &container.id]).ok().json()["status"] == "stopped"
    });
    user(&["delete", &container.id]).ok();
    assert!(!directory.exists(), "{} is left", directory.display());
    drop(delegated);
    container.assert_gone();
}

fn owner(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).expect("it is there").uid()
}
