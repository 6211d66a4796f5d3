//! What fails in the middle: what is said, what is left, and what is done about it later.

use std::env;
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use hull_integration::shim::{Host, SLEEPER, SOON, ended};
use hull_integration::{Invocation, reference_lacks, require, runtime, tests, wait_until};
use serde_json::{Value, json};

tests![
    a_record_that_the_disk_refuses_is_written_when_it_can_be,
    a_record_that_the_disk_refused_is_there_when_delete_answers,
    the_first_process_is_named_on_disk,
    a_container_that_its_runtime_does_not_end_is_ended_with_its_shim,
    nobody_is_ended_who_has_the_number_of_a_container,
    a_creation_that_cannot_be_undone_says_both_reasons,
    an_exec_whose_terminal_does_not_come_is_ended,
    nobody_is_ended_who_has_the_number_of_an_exec,
    a_root_is_mounted_by_a_program,
    a_program_that_mounts_a_root_holds_nobody_up,
];

/// A runtime that does what a file of shell says beside what is asked of it: `before`, of
/// `$@`, and, once it has succeeded, `after`. The pid file's name is in `$pid_file`.
pub(crate) fn meddler(host: &Host, before: &str, after: &str) -> String {
    let real = runtime().program.display();
    let script = format!(
        "#!/bin/sh\nn=$#\nwhile [ $n -gt 0 ]; do\n\
         word=$1; last=$word; shift; n=$((n-1))\n\
         case $option in --pid-file) pid_file=$word;; --console-socket) {SOCKET} esac\n\
         set -- \"$@\" \"$word\"; option=$last\ndone\n\
         {before}\n{real} \"$@\" || exit\n{after}\n",
        SOCKET = format_args!("echo \"$word\" > {0}; word={0}.mine;;", host.site().path("socket")),
    );
    host.site().program("meddler", &script)
}

fn read(host: &Host, name: &str) -> Option<Value> {
    let text = fs::read(format!("{}/{name}", host.launch("one").bundle)).ok()?;
    Some(serde_json::from_slice(&text).expect("a record is whole"))
}

/// What no record can be written over.
fn obstacle(host: &Host) -> String {
    let path = format!("{}/.exit.json", host.launch("one").bundle);
    fs::create_dir(&path).expect("the bundle is there");
    path
}

fn a_record_that_the_disk_refuses_is_written_when_it_can_be() {
    reference_lacks!("it keeps no record");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let obstacle = obstacle(&host);
    task.terminate();
    assert_eq!((task.wait().status, read(&host, "exit.json")), (7, None));
    wait_until("it is said", SOON, || host.shim_log("one").contains("not on disk yet"));
    fs::remove_dir(obstacle).expect("it is empty");
    wait_until("the record is written", SOON, || read(&host, "exit.json").is_some());
    let record = read(&host, "exit.json").expect("it is there");
    assert_eq!(record["shellCode"], 7);
    task.finish();
}

fn a_record_that_the_disk_refused_is_there_when_delete_answers() {
    reference_lacks!("it keeps no record");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let obstacle = obstacle(&host);
    task.terminate();
    assert_eq!(task.wait().status, 7);
    fs::remove_dir(obstacle).expect("it is empty");
    task.delete();
    let record = read(&host, "exit.json").expect("it is there");
    assert_eq!(record["shellCode"], 7);
    host.shut_down("one");
}

/// Field 22 of `/proc/PID/stat`.
fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn the_first_process_is_named_on_disk() {
    reference_lacks!("it keeps its number alone");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).create();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it has a name");
    let created = read(&host, "init.json").expect("it is there");
    assert_eq!((&created["version"], &created["containerId"]), (&json!(1), &json!("one")));
    assert_eq!((&created["pid"], &created["bootId"]), (&json!(task.pid), &json!(boot.trim())));
    assert_eq!(created["startTime"].as_u64(), start_time(task.pid));
    assert!(created["startedAt"].is_null(), "{created}");
    task.init.start();
    let started = read(&host, "init.json").expect("it is there");
    // In UTC, to the second and beyond.
    let second = |name: &str| started[name].as_str().and_then(|time| time.get(..19));
    assert!(second("createdAt").is_some() && second("createdAt") <= second("startedAt"));
    assert_eq!((&started["pid"], &started["createdAt"]), (&created["pid"], &created["createdAt"]));
    // The record of an end that nobody saw says whose it is.
    host.kill_shim("one");
    drop(task);
    host.launch("one").delete().ok();
    let record = read(&host, "exit.json").expect("delete writes it");
    assert_eq!((&record["pid"], &record["startTime"]), (&started["pid"], &started["startTime"]));
    host.delete_after_shim("one");
}

/// Removes what a runtime has refused to.
fn remove(host: &Host) {
    let words = ["--root", &format!("{}/test", host.runtime_root()), "delete", "--force", "one"];
    Invocation::runtime().args(words).run().ok();
}

fn a_container_that_its_runtime_does_not_end_is_ended_with_its_shim() {
    reference_lacks!("it leaves it running");
    let host = Host::new();
    let no = "case \" $* \" in *\" delete \"*) echo not now >&2; exit 1;; esac";
    let path = meddler(&host, no, "");
    let task = host.shell("one", SLEEPER).options(|options| options.binary_name = path).start();
    let pid = i32::try_from(task.pid).expect("process ids are positive");
    host.kill_shim("one");
    drop(task);
    let output = host.launch("one").delete().ok();
    assert!(output.stderr.contains("not now"), "{}", output.transcript());
    assert!(ended(pid), "process {pid} runs on");
    remove(&host);
    assert_eq!(host.delete_after_shim("one").exit_status, 137);
}

/// A process of the test's own, which ends with this.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().expect("it is installed"))
    }

    #[track_caller]
    fn assert_alive(&mut self) {
        assert_eq!(self.0.try_wait().expect("it is ours"), None);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn nobody_is_ended_who_has_the_number_of_a_container() {
    reference_lacks!("it keeps its number alone");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    host.kill_shim("one");
    drop(task);
    // A start time has steps of 10 ms; in the same one, number and time would name the stranger.
    thread::sleep(Duration::from_millis(30));
    let mut stranger = Stranger::new();
    let mut record = read(&host, "init.json").expect("it is there");
    record["pid"] = json!(stranger.0.id());
    let path = format!("{}/init.json", host.launch("one").bundle);
    fs::write(path, record.to_string()).expect("the site is writable");
    assert_eq!(host.delete_after_shim("one").exit_status, 137);
    stranger.assert_alive();
}

fn a_creation_that_cannot_be_undone_says_both_reasons() {
    reference_lacks!("it does not undo it");
    let host = Host::new();
    let no = "case \" $* \" in *\" delete \"*) echo not now >&2; exit 1;; esac";
    let path = meddler(&host, no, "echo nonsense > $pid_file");
    let plan = host.shell("one", SLEEPER).options(|options| options.binary_name = path);
    let refused = plan.try_create().expect_err("there is no pid");
    remove(&host);
    let (first, second) = refused.message.split_once("; ").expect("it has two parts");
    assert!(first.contains("cannot read a pid from "), "{refused:?}");
    assert!(second.contains("is not ended: not now"), "{refused:?}");
    host.shut_down("one");
}

/// Begins an exec with a terminal that goes elsewhere; `after` is the runtime's last step. Gives
/// what the shim says.
fn exec_without_a_terminal(host: &Host, after: &str, judge: impl FnOnce(&str)) {
    let path = meddler(host, "", after);
    let task = host.shell("one", SLEEPER).options(|options| options.binary_name = path).start();
    let socket = host.site().path("socket");
    let listener = UnixListener::bind(format!("{socket}.mine")).expect("the site is writable");
    let process = task.exec_with("first", host.console(), &["sleep", "1000"]);
    let (refused, _terminal) = thread::scope(|scope| {
        let thief = scope.spawn(|| {
            let (terminal, _) = listener.accept().expect("the runtime connects");
            let path = fs::read_to_string(&socket).expect("it was written before");
            // The shim gets a message without a descriptor instead.
            UnixStream::connect(path.trim_end()).expect("the shim listens");
            terminal
        });
        let refused = process.try_start().expect_err("there is no terminal");
        (refused, thief.join().expect("it has what it wants"))
    });
    assert!(refused.message.contains("failed to retrieve console master"), "{refused:?}");
    judge(&refused.message);
    assert_eq!(process.wait().status, 255);
    process.delete();
    task.terminate();
    assert_eq!(task.finish().status, 7);
}

fn an_exec_whose_terminal_does_not_come_is_ended() {
    reference_lacks!("it goes on");
    let host = Host::new();
    let kept = host.site().path("pid");
    exec_without_a_terminal(&host, &format!("[ -z \"$pid_file\" ] || cp $pid_file {kept}"), |_| {
        let pid = fs::read_to_string(&kept).expect("the runtime has begun it");
        let pid = pid.trim().parse().expect("a number");
        wait_until("the end of the exec", SOON, || ended(pid));
    });
}

fn nobody_is_ended_who_has_the_number_of_an_exec() {
    reference_lacks!("it goes on");
    let host = Host::new();
    let mut stranger = Stranger::new();
    let lie = format!("case $pid_file in */exec-*) echo {} > $pid_file;; esac", stranger.0.id());
    exec_without_a_terminal(&host, &lie, |said| {
        assert!(said.ends_with("is not a child of the shim"), "{said}");
    });
    stranger.assert_alive();
}

fn a_root_is_mounted_by_a_program() {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = env::split_paths(&path).any(|place| place.join("mount.fuse3").exists());
    require!(installed, "mount.fuse3 is not installed");
    let host = Host::new();
    let mut root = host.overlay("one");
    root.type_ = "fuse3.fuse-overlayfs".to_owned();
    let mut bad = root.clone();
    bad.options = vec!["lowerdir=/not/there".to_owned()];
    let script = "stat -fc %t /; echo written > /file; exit 3";
    let task = host.shell("one", script).root(root).start();
    assert_eq!(task.stdout().to_end(), "65735546\n");
    assert_eq!(task.finish().status, 3);
    let written = fs::read_to_string(host.site().path("upper/one/file"));
    assert_eq!(written.expect("it is kept"), "written\n");
    let refused = host.shell("two", script).root(bad).try_create();
    let refused = refused.expect_err("there is no such directory").message;
    assert!(refused.contains("mount.fuse3") && refused.contains("exit status"), "{refused}");
}

fn a_program_that_mounts_a_root_holds_nobody_up() {
    reference_lacks!("it makes one container after the other");
    let host = Host::new();
    let (programs, go) = (host.site().make("programs"), host.site().path("go"));
    let script = format!("#!/bin/sh\n: > {go}.begun\nread word < {go}; echo $word >&2; exit 1\n");
    host.site().program("programs/mount.fuse3", &script);
    nix::unistd::mkfifo(go.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("the site is writable");
    let plan = |id: &str| host.shell(id, SLEEPER).annotation("io.containerd.runc.v2.group", "pod");
    let mut keeper = plan("keeper");
    keeper.launch.preludes.push(format!("export PATH={programs}:$PATH"));
    let keeper = keeper.start();
    let mut root = host.overlay("two");
    root.type_ = "fuse3.any".to_owned();
    thread::scope(|scope| {
        let creator = scope.spawn(|| plan("two").root(root).try_create().map(drop));
        wait_until("it mounts", SOON, || Path::new(&format!("{go}.begun")).exists());
        let answer = keeper.run("first", "echo served");
        fs::write(&go, "enough\n").expect("it is read");
        let refused = creator.join().expect("it does not panic").expect_err("it was refused");
        assert!(refused.message.contains("enough"), "{refused:?}");
        assert_eq!(answer, (0, "served\n".to_owned()));
    });
}
