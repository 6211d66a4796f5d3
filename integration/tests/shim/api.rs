//! The shim below a real containerd, driven by containerd's own interface: what ctr
//! cannot say.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use hull_integration::engine::{Containerd, Grpc, command};
use hull_integration::shim::rpc::{self, Any, Message};
use hull_integration::shim::{Code, Refusal, SLEEPER, SOON, shim, time};
use hull_integration::{reference_lacks, tests, wait_until};
use serde_json::{Value, json};

use crate::containerd::{start, stopped, terminate};

tests![
    everybody_who_waits_is_told,
    whoever_waits_later_is_told_the_same,
    limits_are_changed,
    input_is_closed,
    a_terminal_is_resized,
    processes_are_listed_with_their_execs,
    what_is_not_there_is_not_found,
    a_wait_goes_on_after_a_crash_of_containerd,
    a_signal_to_all_reaches_every_process,
];

fn call<Q: Message + std::fmt::Display, A: Message>(
    containerd: &Containerd,
    method: &str,
    request: &Q,
) -> Result<A, Refusal> {
    let path = format!("/containerd.services.tasks.v1.Tasks/{method}");
    Grpc::new(&containerd.socket()).call(&path, request, SOON)
}

fn wait(containerd: &Containerd, id: &str, exec: &str) -> Result<rpc::WaitResponse, Refusal> {
    let request =
        rpc::WaitRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..Default::default() };
    call(containerd, "Wait", &request)
}

fn everybody_who_waits_is_told() {
    let containerd = start();
    containerd.detach("one", &[], SLEEPER);
    let before = SystemTime::now();
    let answers: Vec<_> = thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..5).map(|_| scope.spawn(|| wait(&containerd, "one", ""))).collect();
        terminate(&containerd, "one");
        waiting.into_iter().map(|one| one.join().expect("it was told")).collect()
    });
    for answer in answers {
        let answer = answer.expect("the container is there");
        let at = answer.exited_at.as_ref().and_then(time).expect("the end has a time");
        assert_eq!(answer.exit_status, 7);
        assert!(at >= before && at <= SystemTime::now(), "{at:?}");
    }
}

fn whoever_waits_later_is_told_the_same() {
    let containerd = start();
    containerd.detach("one", &[], "exit 9");
    let first = wait(&containerd, "one", "").expect("it is there");
    wait_until("the task stops", SOON, || stopped(&containerd, "one"));
    let second = wait(&containerd, "one", "").expect("it is there");
    assert_eq!((first.exit_status, &first), (9, &second));
}

fn limits_are_changed() {
    let containerd = start();
    containerd.detach("one", &["--memory-limit", "67108864"], SLEEPER);
    let update = |resources: Value| {
        let resources = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources.to_string().into_bytes(),
            ..Default::default()
        };
        let request = rpc::UpdateTaskRequest {
            id: "one".to_owned(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        call::<_, rpc::Empty>(&containerd, "Update", &request)
    };
    update(json!({ "memory": { "limit": 50 << 20 } })).expect("it can be changed");
    let directories = containerd.site().cgroup_directories("one");
    let mut files = directories.iter().flat_map(|path| {
        ["memory.limit_in_bytes", "memory.max"].map(|name| format!("{path}/{name}"))
    });
    let limit = files.find_map(|path| fs::read_to_string(path).ok());
    assert_eq!(limit.as_deref(), Some("52428800\n"));
    let refused = update(json!({ "cpu": { "cpus": "4000" } })).expect_err("there is none");
    assert!(!refused.message.is_empty());
}

fn input_is_closed() {
    let containerd = start();
    let fifos = containerd.site().make("fifos");
    let words = containerd.run_words("one", &[], &["sh", "-c", "cat; exit 6"]);
    // A client that keeps its end of the input open.
    let input = format!("{fifos}/input");
    nix::unistd::mkfifo(input.as_str(), nix::sys::stat::Mode::S_IRWXU)
        .expect("the site is writable");
    let line = format!("exec \"$@\" <> {input}");
    let running = command(&[&["env", "sh", "-c", &line, "sh"][..], &refs(&words)].concat()).start();
    wait_until("it runs", SOON, || containerd.status("one").as_deref() == Some("RUNNING"));
    fs::write(&input, "typed\n").expect("the pipe is ours");
    wait_until("the program has read it", SOON, || running.stdout().contains("typed"));
    let request = rpc::CloseIORequest { id: "one".to_owned(), stdin: true, ..Default::default() };
    call::<_, rpc::Empty>(&containerd, "CloseIO", &request).expect("it is open");
    // The other writer is still there.
    assert_eq!(containerd.status("one").as_deref(), Some("RUNNING"));
    drop(running);
    let answer = wait(&containerd, "one", "").expect("it is there");
    assert_eq!(answer.exit_status, 6);
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn a_terminal_is_resized() {
    let containerd = start();
    let words = containerd.run_words("one", &["--tty"], &["sh"]);
    let mut terminal = containerd.terminal(&words);
    terminal.read_until("/ #");
    // ctr gives it the size of its own once.
    terminal.write("until stty size | grep -q '33 101'; do sleep 0.05; done; echo sized\n");
    terminal.read_until("\r\nsized");
    let request =
        rpc::ResizePtyRequest { id: "one".to_owned(), width: 99, height: 44, ..Default::default() };
    call::<_, rpc::Empty>(&containerd, "ResizePty", &request).expect("it has a terminal");
    terminal.write("stty size\n");
    terminal.read_until("44 99");
    terminal.write("exit 3\n");
    assert_eq!(terminal.exit_code(), Some(3));
}

fn processes_are_listed_with_their_execs() {
    let containerd = start();
    containerd.detach("one", &[], SLEEPER);
    let words = ["tasks", "exec", "--detach", "--exec-id", "first", "one", "sleep", "1000"];
    containerd.ctr(&words).ok();
    let request = rpc::PidsRequest { id: "one".to_owned(), ..Default::default() };
    let list: rpc::PidsResponse = call(&containerd, "ListPids", &request).expect("it runs");
    let execs: Vec<String> = list
        .processes
        .iter()
        .filter_map(|process| process.info.as_ref())
        .map(|info| rpc::ProcessDetails::parse_from_bytes(&info.value).expect("details").exec_id)
        .collect();
    assert_eq!(execs, ["first"], "{list}");
}

fn what_is_not_there_is_not_found() {
    let containerd = start();
    containerd.detach("one", &[], SLEEPER);
    for (id, exec) in [("absent", ""), ("one", "absent")] {
        let refused = wait(&containerd, id, exec).expect_err("it is not there");
        assert_eq!(refused.code, Some(Code::NOT_FOUND), "{refused:?}");
    }
    let kill = rpc::KillRequest {
        id: "one".to_owned(),
        exec_id: "absent".to_owned(),
        signal: 9,
        ..Default::default()
    };
    let refused = call::<_, rpc::Empty>(&containerd, "Kill", &kill).expect_err("it is not there");
    assert_eq!(refused.code, Some(Code::NOT_FOUND), "{refused:?}");
}

fn a_wait_goes_on_after_a_crash_of_containerd() {
    if shim().containerd_2 {
        reference_lacks!("containerd 2 throws away a shim that lists no process");
    }
    let mut containerd = start();
    containerd.detach("one", &[], SLEEPER);
    let grpc = Grpc::new(&containerd.socket());
    let request = rpc::WaitRequest { id: "one".to_owned(), ..Default::default() };
    let path = "/containerd.services.tasks.v1.Tasks/Wait";
    let asked = request.clone();
    let waiting =
        thread::spawn(move || grpc.call::<_, rpc::WaitResponse>(path, &asked, SOON).map(drop));
    containerd.crash();
    assert!(waiting.join().expect("it was told").is_err(), "nobody is there to answer");
    containerd.come_back();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&containerd, "one", ""));
        terminate(&containerd, "one");
        let answer = waiting.join().expect("it was told").expect("it is there");
        assert_eq!(answer.exit_status, 7);
    });
    containerd.crash_and_restart();
    assert_eq!(wait(&containerd, "one", "").expect("it is there").exit_status, 7);
}

fn a_signal_to_all_reaches_every_process() {
    let containerd = start();
    let shared = containerd.site().make("shared");
    let bind = format!("type=bind,src={shared},dst=/shared,options=rbind:rw");
    let script = "trap 'echo > /shared/first' USR1; (trap 'echo > /shared/second' USR1;
        while :; do sleep 0.02; done) & while :; do sleep 0.02; done";
    containerd.detach("one", &["--mount", &bind], script);
    let request =
        rpc::KillRequest { id: "one".to_owned(), signal: 10, all: true, ..Default::default() };
    let there = |name: &str| fs::metadata(format!("{shared}/{name}")).is_ok();
    wait_until("both were reached", SOON + Duration::from_secs(5), || {
        let _ = call::<_, rpc::Empty>(&containerd, "Kill", &request);
        there("first") && there("second")
    });
}
