//! Beside systemd: the unit that `make install` puts in place, and journald.

use std::fs;
use std::path::Path;

use hull_integration::engine::{Engine, Hull, SLEEPER, SYSTEMD_CGROUPS, busybox_archive, command};
use hull_integration::{Output, SOON, cgroup, require, tests, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::network::hull_only;
use crate::require_vm;

tests![
    systemd_stops_and_starts_the_manager_alone,
    systemd_makes_the_cgroups_if_asked_to,
    journald_has_lines_with_their_fields,
    a_journald_that_restarts_loses_nothing,
];

const INSTALLED: &str = include_str!("../../../manager/daemon/hulld.service");

fn systemctl(words: &[&str]) -> Output {
    command(&[&["systemctl"], words].concat()).run()
}

/// A test's own hulld, as a unit of the installed file. It ends with the value.
struct Unit {
    name: String,
}

impl Unit {
    /// Ends the hulld that runs, and has systemd start another.
    #[track_caller]
    fn start(hull: &mut Hull) -> Self {
        hull.crash();
        let tag = hull.site().directory().file_name().expect("it has a name").to_string_lossy();
        let unit = Self { name: format!("{tag}.service") };
        let text = INSTALLED.replace("@BIN@/hulld", &hull.daemon_words().join(" "));
        fs::write(unit.file(), text).expect("systemd runs, and the suite is root");
        systemctl(&["daemon-reload"]).ok();
        unit.call("start").ok();
        unit
    }

    fn file(&self) -> String {
        format!("/run/systemd/system/{}", self.name)
    }

    fn call(&self, action: &str) -> Output {
        systemctl(&[action, &self.name])
    }

    /// hulld's process; 0 while there is none.
    #[track_caller]
    fn pid(&self) -> i32 {
        let shown = systemctl(&["show", "--property=MainPID", "--value", &self.name]).ok();
        shown.text().parse().expect("it is a number")
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.call("stop");
        // It was not there if the beginning failed.
        let _ = fs::remove_file(self.file());
        systemctl(&["daemon-reload"]);
    }
}

/// Ends a test that needs systemd where there is none.
fn require_systemd() {
    hull_only();
    require!(Path::new("/run/systemd/system").exists(), "systemd does not run here");
}

fn systemd_stops_and_starts_the_manager_alone() {
    require_systemd();
    let mut hull = Hull::start();
    let unit = Unit::start(&mut hull);
    let run = ["run", "--detach", "--name", "one", "--network", "none"];
    hull.run(&[&run[..], &["busybox", "sh", "-c", SLEEPER]].concat()).ok();
    let state = || hull.run(&["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", "one"]);
    let before = state().ok().text().to_owned();
    let lives_on = || {
        assert_eq!(state().ok().text(), before);
        // What the unit sets for hulld is not for containers.
        hull.run(&["exec", "one", "cat", "/proc/self/oom_score_adj"]).ok().says("0");
    };
    unit.call("restart").ok();
    lives_on();
    unit.call("stop").ok();
    hull.run(&["ps"]).fails();
    unit.call("start").ok();
    lives_on();
    let first = unit.pid();
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it runs");
    wait_until("systemd starts another", SOON, || ![0, first].contains(&unit.pid()));
    wait_until("it answers", SOON, || hull.run(&["ps"]).code() == Some(0));
    lives_on();
    hull.configure(&["another"]);
    unit.call("reload").ok();
    let run = ["run", "--rm", "--network", "none", "--runtime", "another", "busybox", "true"];
    wait_until("the new configuration is used", SOON, || hull.run(&run).code() == Some(0));
    lives_on();
}

/// Ends a slice with the value: systemd keeps empty ones.
struct Slice(String);

impl Drop for Slice {
    fn drop(&mut self) {
        systemctl(&["stop", &self.0]);
    }
}

fn systemd_makes_the_cgroups_if_asked_to() {
    require_systemd();
    require!(cgroup::layout() == cgroup::Layout::V2, "cgroups of version 1 are elsewhere");
    let hull = Hull::start_empty(&["--exec-opt", SYSTEMD_CGROUPS]);
    let slice = Slice(hull.site().slice());
    hull.run(&["import", busybox_archive(), "busybox"]).ok();
    hull.run(&["info", "--format", "{{.CgroupDriver}}"]).ok().says("systemd");
    let run = ["run", "--detach", "--name", "one", "--network", "none", "--cgroupns", "host"];
    hull.run(&[&run[..], &["--memory", "64m", "busybox", "sh", "-c", SLEEPER]].concat()).ok();
    let id = hull.run(&["inspect", "--format", "{{.Id}}", "one"]).ok().text().to_owned();
    let scope = format!("hull-{id}.scope");
    let path = format!("0::/hull.slice/{}/{scope}", slice.0);
    hull.run(&["exec", "one", "cat", "/proc/self/cgroup"]).ok().says(&path);
    let limit = || systemctl(&["show", "--property=MemoryMax", "--value", &scope]).ok();
    limit().says("67108864");
    hull.run(&["update", "--memory", "96m", "one"]).ok();
    limit().says("100663296");
    let stats = ["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"];
    let used = hull.run(&stats).ok();
    assert!(used.text().ends_with("/ 96MiB"), "{}", used.text());
    hull.run(&["create", "--cgroup-parent", "/web", "busybox", "true"])
        .fails()
        .stderr_says("cgroup-parent for systemd cgroup should be a valid slice");
    hull.run(&["rm", "--force", "one"]).ok();
    let active = || systemctl(&["is-active", &scope]).text().to_owned();
    assert_eq!(active(), "inactive");
}

fn require_journald() {
    let there = Path::new("/run/systemd/journal/socket").exists();
    require!(there, "journald does not run here");
}

/// What journald has of a container.
#[track_caller]
fn entries(id: &str) -> Vec<Value> {
    let of = format!("CONTAINER_ID_FULL={id}");
    let said = command(&["journalctl", "--quiet", "--output=json", &of]).run().ok();
    said.stdout.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
}

fn journald_has_lines_with_their_fields() {
    require_journald();
    let engine = Engine::start();
    let options = ["--log-driver", "journald", "--label", "place=here", "--log-opt"];
    let options = [&options[..], &["labels=place", "--log-opt", "tag=my/{{.Name}}"]].concat();
    engine.detach("one", &options, r"echo one; echo bad >&2; printf '\377\nend'");
    engine.run(&["wait", "one"]).ok().says("0");
    let id = engine.inspect("one", "{{.Id}}");
    let found = wait_for("journald has all", SOON, || {
        Some(entries(&id)).filter(|entries| entries.len() >= 4)
    });
    for (message, priority) in [
        (Value::from("one"), "6"),
        (Value::from("bad"), "3"),
        (Value::from(vec![0xff]), "6"),
        (Value::from("end"), "6"),
    ] {
        let entry = found.iter().find(|entry| entry["MESSAGE"] == message);
        let entry = entry.unwrap_or_else(|| panic!("{message} is not in {found:?}"));
        for (field, value) in [
            ("PRIORITY", priority),
            ("CONTAINER_ID", &id[..12]),
            ("CONTAINER_NAME", "one"),
            ("CONTAINER_TAG", "my/one"),
            ("SYSLOG_IDENTIFIER", "my/one"),
            ("IMAGE_NAME", "busybox"),
            ("PLACE", "here"),
        ] {
            assert_eq!(entry[field], value, "{field} of {entry}");
        }
    }
    assert_eq!(found.len(), 4);
    let copy = engine.run(&["logs", "one"]).ok();
    assert_eq!((copy.stdout.as_str(), copy.stderr.as_str()), ("one\n\u{fffd}\nend", "bad\n"));
}

fn a_journald_that_restarts_loses_nothing() {
    require_vm();
    require_journald();
    let engine = Engine::start();
    let script = "i=0; while [ ! -e /t/end ]; do echo $i; i=$((i+1)); sleep 0.1; done";
    engine.detach("one", &["--log-driver", "journald", "--tmpfs", "/t"], script);
    let id = engine.inspect("one", "{{.Id}}");
    wait_until("there are lines", SOON, || entries(&id).len() >= 10);
    systemctl(&["restart", "systemd-journald"]).ok();
    let before = entries(&id).len();
    wait_until("there are more", SOON, || entries(&id).len() >= before + 10);
    engine.run(&["exec", "one", "touch", "/t/end"]).ok();
    engine.run(&["wait", "one"]).ok().says("0");
    let copy = engine.run(&["logs", "one"]).ok();
    let written: Vec<&str> = copy.stdout.lines().collect();
    wait_until("all are there, in their order", SOON, || {
        let found = entries(&id);
        found
            .iter()
            .map(|entry| entry["MESSAGE"].as_str())
            .eq(written.iter().map(|&line| Some(line)))
    });
}
