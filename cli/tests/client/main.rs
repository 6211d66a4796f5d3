//! The program as a person and a script use it, against a manager that only pretends: what is
//! printed where, exit codes, signals, terminals.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![forbid(unsafe_code)]

mod manager;
mod terminal;

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use manager::Manager;

/// A call of the program.
fn hull(manager: &Manager, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
    command
        .arg("-H")
        .arg(format!("unix://{}", manager.socket().display()))
        .args(line.split(' '))
        .env("DOCKER_CONFIG", manager.directory())
        .env_remove("HULL_HOST")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(manager: &Manager, line: &str) -> Output {
    hull(manager, line).output().expect("the program runs")
}

fn texts(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

fn owned(out: &str, err: &str, code: i32) -> (String, String, Option<i32>) {
    (out.to_owned(), err.to_owned(), Some(code))
}

#[test]
fn streams_stay_apart_and_the_exit_code_is_the_containers() {
    let manager = Manager::start();
    assert_eq!(texts(&run(&manager, "run busybox exit 7")), owned("out\n", "err\n", 7));
    assert_eq!(texts(&run(&manager, "run --rm -a stdout busybox exit 0")), owned("out\n", "", 0));
    assert_eq!(texts(&run(&manager, "exec one exit 9")), owned("out\n", "err\n", 9));
}

#[test]
fn a_detached_container_is_its_id() {
    let manager = Manager::start();
    assert_eq!(
        texts(&run(&manager, "run -d busybox exit 7")),
        owned(&format!("{}\n", manager::ID), "", 0)
    );
    let cidfile = manager.directory().join("id");
    let line = format!("create --cidfile {} busybox", cidfile.display());
    assert_eq!(texts(&run(&manager, &line)).2, Some(0));
    assert_eq!(std::fs::read_to_string(&cidfile).expect("the file is there"), manager::ID);
    let (_, error, code) = texts(&run(&manager, &line));
    assert!(error.starts_with("hull: container ID file found, make sure"), "{error}");
    assert_eq!(code, Some(1));
}

#[test]
fn failures_have_dockers_codes_and_one_sentence() {
    let manager = Manager::start();
    for (line, error, code) in [
        ("run busybox nosuch", "hull: exec: \"nosuch\": executable file not found in $PATH\n", 127),
        ("run busybox denied", "hull: exec: \"/etc\": permission denied\n", 126),
        ("run --pull never missing", "hull: No such image: missing:latest\n", 125),
        ("exec one nosuch", "hull: exec: \"nosuch\": executable file not found in $PATH\n", 127),
        ("rm missing", "hull: No such container: missing\n", 1),
        ("rm -f missing", "hull: No such container: missing\n", 0),
        ("run -p x busybox", "hull: invalid containerPort: x\n", 125),
        ("run -it busybox", "hull: the input device is not a TTY\n", 1),
    ] {
        assert_eq!(texts(&run(&manager, line)), owned("", error, code), "{line}");
    }
    let gone =
        Command::new(env!("CARGO_BIN_EXE_hull")).args(["-H", "unix:///nosuch", "ps"]).output();
    let (_, error, code) = texts(&gone.expect("the program runs"));
    assert!(
        error.starts_with("hull: Cannot connect to the hull manager at unix:///nosuch"),
        "{error}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_missing_image_is_pulled_and_the_rest_of_the_output_is_the_containers() {
    let manager = Manager::start();
    let (out, error, code) = texts(&run(&manager, "run pullable exit 3"));
    assert_eq!((out.as_str(), code), ("out\n", Some(3)));
    assert!(error.starts_with("Unable to find image 'pullable:latest' locally\n"), "{error}");
    assert!(error.contains("layer: Pull complete\n") && error.ends_with("err\n"), "{error}");
}

#[test]
fn the_end_of_input_reaches_the_container() {
    let manager = Manager::start();
    let mut child =
        hull(&manager, "run -i busybox cat").stdin(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(b"one\ntwo\n").expect("it reads");
    assert_eq!(texts(&child.wait_with_output().expect("it ends")), owned("one\ntwo\n", "", 0));
}

#[test]
fn signals_go_to_the_container() {
    let manager = Manager::start();
    let child = hull(&manager, "run busybox sleep").spawn().expect("runs");
    manager.wait_for("start");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    // Before they are caught, a signal would end us: the container must have started.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it lives");
    assert_eq!(texts(&child.wait_with_output().expect("it ends")), owned("", "", 143));
    manager.wait_for("kill 15");
}

#[test]
fn a_reader_that_went_away_is_not_worth_a_word() {
    let manager = Manager::start();
    let mut child = hull(&manager, "ps -a").spawn().expect("runs");
    drop(child.stdout.take());
    let (_, error, code) = texts(&child.wait_with_output().expect("it ends"));
    assert_eq!((error.as_str(), code), ("", Some(141)));
}

#[test]
fn many_names_are_one_exit_code() {
    let manager = Manager::start();
    assert_eq!(
        texts(&run(&manager, "rm one missing two")),
        owned("one\ntwo\n", "hull: No such container: missing\n", 1)
    );
}
