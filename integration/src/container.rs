//! One container of one test, and the check that nothing of it stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{
    Bundle, Invocation, Output, SOON, User, bundle::chown_all, cgroup, note,
    runtime::systemd_driver, scratch_dir, wait::poll, wait_until,
};

/// A container: a bundle, an id, a state directory and a cgroup, all its own.
#[derive(Debug)]
pub struct Container {
    /// Its bundle.
    pub bundle: Bundle,
    /// Its id.
    pub id: String,
    /// What its directories and cgroup are named after, also when `id` is changed.
    key: String,
    root: PathBuf,
    cgroup: String,
    preludes: Vec<String>,
    user: Option<User>,
}

impl Container {
    /// Writes the bundle's configuration, with a cgroup of the container's own unless
    /// the bundle names one.
    pub fn new(bundle: Bundle) -> Self {
        Self::of(bundle, None)
    }

    /// One that a user without privileges makes, who has no cgroup to put it into.
    pub fn rootless(user: User, bundle: Bundle) -> Self {
        let container = Self::of(bundle, Some(user));
        if let Some(user) = &container.user {
            chown_all(&container.root, user.id);
        }
        container
    }

    fn of(bundle: Bundle, user: Option<User>) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // A letter at the end: no key is the beginning of another one.
        let key = format!("hull-{}-{number}c", std::process::id());
        let root = scratch_dir().join(format!("root-{number}"));
        fs::create_dir(&root).expect("the scratch directory is writable");
        let mut container = Self {
            bundle,
            cgroup: match systemd_driver() {
                true => format!("system.slice:hull:{key}"),
                false => format!("/{key}"),
            },
            id: key.clone(),
            key,
            root,
            preludes: Vec::new(),
            user,
        };
        container.write_config();
        container
    }

    /// Writes the configuration again, after a change.
    pub fn write_config(&mut self) {
        let given = self.bundle.config.pointer("/linux/cgroupsPath").and_then(Value::as_str);
        match given {
            Some(path) => self.cgroup = path.to_owned(),
            // A configuration that is not an object any more is written as it is.
            None if self.user.is_some() => {}
            None => {
                if let Some(linux) =
                    self.bundle.config.get_mut("linux").and_then(Value::as_object_mut)
                {
                    linux.insert("cgroupsPath".to_owned(), Value::from(self.cgroup.clone()));
                }
            }
        }
        self.bundle.write();
    }

    /// Runs a line of shell before each command of this container, in a mount
    /// namespace of that command's own.
    #[must_use]
    pub fn prelude(mut self, line: impl Into<String>) -> Self {
        self.preludes.push(line.into());
        self
    }

    /// The directory given as `--root`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of its cgroup below each hierarchy.
    pub fn cgroup_path(&self) -> String {
        match self.unit() {
            Some(unit) => format!("/system.slice/{unit}"),
            None => self.cgroup.clone(),
        }
    }

    /// The `linux.cgroupsPath` that it is configured with.
    pub fn cgroups_path(&self) -> &str {
        &self.cgroup
    }

    /// The systemd unit that holds it, under systemd's driver.
    pub fn unit(&self) -> Option<String> {
        let (prefix, name) = self.cgroup.strip_prefix("system.slice:")?.split_once(':')?;
        Some(format!("{prefix}-{name}.scope"))
    }

    /// The runtime with this container's `--root` and the given words.
    pub fn invoke(&self, words: &[&str]) -> Invocation {
        let mut invocation = self.runtime().args(words);
        for line in &self.preludes {
            invocation = invocation.prelude(line.clone());
        }
        invocation
    }

    /// The runtime with the options that every command of this container has.
    fn runtime(&self) -> Invocation {
        let mut invocation = Invocation::runtime().arg("--root").arg(&self.root);
        if let Some(user) = &self.user {
            invocation = invocation.user(user);
        }
        if systemd_driver() { invocation.arg("--systemd-cgroup") } else { invocation }
    }

    /// Runs a subcommand on this container: `command("kill", &["TERM"])` gives
    /// `kill ID TERM`.
    #[track_caller]
    pub fn command(&self, name: &str, after_id: &[&str]) -> Output {
        self.invoke(&[name, &self.id]).args(after_id).run()
    }

    /// `create` or `run` with options: `bundle(&["run", "--keep"])`.
    pub fn with_bundle(&self, words: &[&str]) -> Invocation {
        self.invoke(words).arg("--bundle").arg(self.bundle.dir()).arg(&self.id)
    }

    /// Creates it.
    #[track_caller]
    pub fn create(&self) -> Output {
        self.with_bundle(&["create"]).run()
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&self) -> Output {
        self.command("start", &[])
    }

    /// Runs it in the foreground.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.with_bundle(&["run"]).run()
    }

    /// Runs it in the background.
    #[track_caller]
    pub fn run_detached(&self) -> Output {
        self.with_bundle(&["run", "--detach"]).run()
    }

    /// Runs a process inside.
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Output {
        self.invoke(&["exec", &self.id]).args(args).run()
    }

    /// Runs a process inside, with options of `exec`.
    #[track_caller]
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Output {
        self.invoke(&["exec"]).args(options).arg(&self.id).args(args).run()
    }

    /// Sends a signal.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.command("kill", &[signal])
    }

    /// Deletes it.
    #[track_caller]
    pub fn delete(&self) -> Output {
        self.command("delete", &[])
    }

    /// Deletes it, whatever its state.
    #[track_caller]
    pub fn delete_force(&self) -> Output {
        self.invoke(&["delete", "--force", &self.id]).run()
    }

    /// Its state.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.command("state", &[]).ok().json()
    }

    /// Its status.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status is a text").to_owned()
    }

    /// The pid of its first process.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().expect("a pid is a number");
        i32::try_from(pid).expect("a pid is small")
    }

    /// Waits for a status.
    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        wait_until(&format!("status {status}"), SOON, || self.status() == status);
    }

    /// Kills it and waits until it is stopped.
    #[track_caller]
    pub fn stop(&self) {
        self.kill("KILL").ok();
        self.wait_status("stopped");
    }

    /// Runs it as a probe and gives the report.
    #[track_caller]
    pub fn report(&self) -> Value {
        self.run().ok().json()
    }

    /// A report from a process run inside.
    #[track_caller]
    pub fn exec_report(&self, options: &[&str]) -> Value {
        self.exec_with(options, &["/probe", "report"]).ok().json()
    }

    /// The directory of its cgroup for a controller.
    #[track_caller]
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        cgroup::of_process(self.pid(), controller)
            .unwrap_or_else(|| panic!("no hierarchy has the controller {controller}"))
    }

    /// Processes that are in its cgroup or are a runtime working on it.
    pub fn processes(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| *pid != i32::try_from(std::process::id()).unwrap_or(0))
            .filter(|pid| {
                let in_cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))
                    .is_ok_and(|text| text.contains(&self.key) && !is_zombie(*pid));
                let works_on_it = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|bytes| {
                    bytes.split(|byte| *byte == 0).any(|word| word == self.key.as_bytes())
                });
                let of_user = self.user.as_ref().is_some_and(|user| user.owns_process(*pid));
                in_cgroup || works_on_it || of_user && !is_zombie(*pid)
            })
            .collect()
    }

    /// What is left of it on this machine.
    pub fn residue(&self) -> Vec<String> {
        let mut found = Vec::new();
        let state = self.root.join(&self.id);
        if state.exists() {
            found.push(format!("state directory {}", state.display()));
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in table.lines() {
            for directory in [self.bundle.dir(), self.root.as_path()] {
                if line.contains(&*directory.to_string_lossy()) {
                    found.push(format!("mount {line}"));
                }
            }
        }
        found.extend(
            cgroup::named(&self.key).iter().map(|path| format!("cgroup {}", path.display())),
        );
        found.extend(self.processes().iter().map(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("process {pid} {}", String::from_utf8_lossy(&words).replace('\0', " "))
        }));
        found
    }

    /// Fails the test unless nothing is left of it.
    #[track_caller]
    pub fn assert_gone(&self) {
        // A process that was just killed takes a moment to leave.
        let mut last = Vec::new();
        let gone = poll(SOON, || {
            last = self.residue();
            last.is_empty().then_some(())
        });
        assert!(gone.is_some(), "left behind: {}", last.join("; "));
    }

    fn clean_up(&self) {
        if self.root.join(&self.id).exists() {
            let _ = self.invoke(&["delete", "--force", &self.id]).run();
        }
    }

    /// After a failure: leave nothing to the next test, whatever the runtime did.
    fn sweep(&self) {
        for _ in 0..50 {
            let processes = self.processes();
            for pid in &processes {
                let _ = signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            for path in cgroup::named(&self.key).iter().rev() {
                let _ = fs::write(path.join("freezer.state"), "THAWED");
                let _ = fs::write(path.join("cgroup.freeze"), "0");
                let _ = fs::remove_dir(path);
            }
            if processes.is_empty() && cgroup::named(&self.key).is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = fs::remove_dir_all(self.root.join(&self.id));
    }
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|text| text.rsplit_once(')').map(|(_, rest)| rest.trim_start().starts_with('Z')))
        .unwrap_or(false)
}

impl Drop for Container {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            let residue = self.residue();
            note(&format!(
                "{} things were left at the failure, among them {:?}",
                residue.len(),
                residue.first()
            ));
        }
        let cleaned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean_up()));
        if failed || cleaned.is_err() {
            self.sweep();
            return;
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.assert_gone()));
        self.sweep();
        let _ = fs::remove_dir_all(&self.root);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    }
}
