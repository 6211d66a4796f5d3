//! What containerd and its clients make of errors: codes, and texts that they show.

use std::thread;

use hull_integration::shim::rpc::{self, Status};
use hull_integration::shim::{Code, Host, Io, Refusal, SLEEPER, shim};
use hull_integration::{reference_lacks, tests};
use serde_json::json;

tests![
    what_is_not_there_is_not_found,
    the_runtimes_reason_reaches_the_caller,
    a_container_whose_creation_failed_leaves_nothing,
    a_log_that_cannot_be_noted_leaves_no_mount,
    a_name_that_is_taken_is_refused,
    a_name_whose_creation_is_under_way_is_refused,
    a_bundle_is_one_containers,
    a_running_container_is_not_deleted,
    a_container_is_started_once,
    a_stopped_container_takes_no_exec,
    an_unknown_method_is_unimplemented,
    an_exec_without_a_specification_is_refused,
    names_that_are_paths_are_refused,
    a_missing_runtime_is_named,
    a_root_that_cannot_be_mounted_is_said,
];

#[track_caller]
fn code(result: Result<impl std::fmt::Debug, Refusal>) -> Option<Code> {
    result.expect_err("it is refused").code
}

fn what_is_not_there_is_not_found() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let client = task.client();
    let id = || "absent".to_owned();
    let state = rpc::StateRequest { id: id(), ..Default::default() };
    assert_eq!(code(client.call::<_, rpc::StateResponse>("State", &state)), Some(Code::NOT_FOUND));
    let start = rpc::StartRequest { id: id(), ..Default::default() };
    assert_eq!(code(client.call::<_, rpc::StartResponse>("Start", &start)), Some(Code::NOT_FOUND));
    let kill = rpc::KillRequest { id: id(), signal: 9, ..Default::default() };
    assert_eq!(code(client.call::<_, rpc::Empty>("Kill", &kill)), Some(Code::NOT_FOUND));
    let wait = rpc::WaitRequest { id: id(), ..Default::default() };
    assert_eq!(code(client.call::<_, rpc::WaitResponse>("Wait", &wait)), Some(Code::NOT_FOUND));
    let delete = rpc::DeleteRequest { id: id(), ..Default::default() };
    let deleted = client.call::<_, rpc::DeleteResponse>("Delete", &delete);
    assert_eq!(code(deleted), Some(Code::NOT_FOUND));
    let pids = rpc::PidsRequest { id: id(), ..Default::default() };
    assert_eq!(code(client.call::<_, rpc::PidsResponse>("Pids", &pids)), Some(Code::NOT_FOUND));
    let stats = rpc::StatsRequest { id: id(), ..Default::default() };
    assert_eq!(code(client.call::<_, rpc::StatsResponse>("Stats", &stats)), Some(Code::NOT_FOUND));
    let exec = rpc::StateRequest { id: "one".to_owned(), exec_id: id(), ..Default::default() };
    assert_eq!(code(client.call::<_, rpc::StateResponse>("State", &exec)), Some(Code::NOT_FOUND));
}

fn the_runtimes_reason_reaches_the_caller() {
    let host = Host::new();
    let cases = [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/file", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ];
    for (number, (program, reason)) in cases.into_iter().enumerate() {
        let plan = host
            .shell(&format!("case-{number}"), "")
            .configure(|config| config["process"]["args"] = json!([program]));
        // A runtime finds out at either step.
        let refused = match plan.try_create() {
            Ok(task) => task.try_start().expect_err("it cannot run"),
            Err(refused) => refused,
        };
        assert!(refused.message.contains(reason), "{refused:?}");
        assert!(!refused.message.contains("\"level\""), "the reason alone: {refused:?}");
    }
}

fn a_container_whose_creation_failed_leaves_nothing() {
    let host = Host::new();
    let plan = host.shell("one", "true").configure(|config| {
        config["process"]["args"] = json!(["no-such-program"]);
        config["linux"]["resources"]["cpu"] = json!({ "cpus": "4000" });
    });
    let refused = plan.try_create().expect_err("there is no such processor");
    assert!(!refused.message.is_empty());
    host.shut_down("one");
    assert!(host.site().cgroup_directories("one").is_empty());
    // Everything is free for the next.
    assert_eq!(host.shell("one", "exit 3").start().finish().status, 3);
}

fn a_log_that_cannot_be_noted_leaves_no_mount() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    // In the place of the file.
    host.site().make("bundles/one/log-uri");
    let log = format!("hull-log://{}", host.site().path("one.log"));
    let plan = host.shell("one", "true").io(Io { stdout: log, ..Io::default() });
    let refused = plan.try_create().expect_err("the file cannot be written");
    assert!(refused.message.contains("log-uri"), "{refused:?}");
    // Sees that nothing is mounted.
    host.shut_down("one");
}

fn a_name_that_is_taken_is_refused() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let refused = task.create_again().expect_err("there is one");
    assert!(!refused.message.is_empty());
    if !shim().reference {
        assert_eq!(refused.code, Some(Code::ALREADY_EXISTS), "{refused:?}");
    }
    assert_eq!(task.status(), Status::RUNNING);
}

fn a_name_whose_creation_is_under_way_is_refused() {
    reference_lacks!("it makes both, in one bundle");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let launch = host.launch("two");
    host.make_bundle("two", &host.shell("two", SLEEPER).config);
    let request = rpc::CreateTaskRequest {
        id: "two".to_owned(),
        bundle: launch.bundle,
        rootfs: vec![host.overlay("two")],
        options: task.options(),
        ..Default::default()
    };
    let create = || task.client().call::<_, rpc::CreateTaskResponse>("Create", &request);
    let results: Vec<_> = thread::scope(|scope| {
        let callers = [0; 4].map(|_| scope.spawn(create));
        callers.map(|caller| caller.join().expect("it answers")).into()
    });
    let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    let codes: Vec<_> = refused.iter().map(|refusal| refusal.code).collect();
    assert_eq!(codes, [Some(Code::ALREADY_EXISTS); 3], "{refused:?}");
    // The one that was made has its root and its place in the runtime.
    let start = rpc::StartRequest { id: "two".to_owned(), ..Default::default() };
    task.client().call::<_, rpc::StartResponse>("Start", &start).expect("it is whole");
    let kill = rpc::KillRequest { id: "two".to_owned(), signal: 9, ..Default::default() };
    task.client().call::<_, rpc::Empty>("Kill", &kill).expect("it runs");
    let wait = rpc::WaitRequest { id: "two".to_owned(), ..Default::default() };
    task.client().call::<_, rpc::WaitResponse>("Wait", &wait).expect("it was killed");
    let delete = rpc::DeleteRequest { id: "two".to_owned(), ..Default::default() };
    task.client().call::<_, rpc::DeleteResponse>("Delete", &delete).expect("it has ended");
}

fn a_bundle_is_one_containers() {
    reference_lacks!("it makes both, and mixes them up");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let create = |id: &str, bundle: String| {
        let request = rpc::CreateTaskRequest {
            id: id.to_owned(),
            bundle,
            rootfs: vec![host.overlay(id)],
            options: task.options(),
            ..Default::default()
        };
        task.client().call::<_, rpc::CreateTaskResponse>("Create", &request)
    };
    // The shim's working directory is its first container's bundle.
    for relative in ["", "."] {
        let refused = create("two", relative.to_owned());
        assert_eq!(code(refused), Some(Code::INVALID_ARGUMENT), "{relative:?}");
    }
    let refused = create("two", format!("{}/.", host.launch("one").bundle));
    assert_eq!(code(refused), Some(Code::ALREADY_EXISTS));
    // Also that of one whose creation is under way.
    host.make_bundle("two", &host.shell("two", SLEEPER).config);
    let bundle = host.launch("two").bundle;
    let results: Vec<_> = thread::scope(|scope| {
        let callers = ["two", "three"].map(|id| scope.spawn(|| create(id, bundle.clone())));
        callers.map(|caller| caller.join().expect("it answers")).into()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    for (id, result) in ["two", "three"].iter().zip(results) {
        let delete = rpc::DeleteRequest { id: (*id).to_owned(), ..Default::default() };
        let deleted = task.client().call::<_, rpc::DeleteResponse>("Delete", &delete);
        assert_eq!(deleted.is_ok(), result.is_ok(), "{deleted:?}");
    }
    assert_eq!(task.status(), Status::RUNNING);
}

fn a_running_container_is_not_deleted() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    task.try_delete().expect_err("it runs");
    let process = task.exec("first", SLEEPER);
    process.start();
    process.try_delete().expect_err("it runs");
    assert_eq!((task.status(), process.status()), (Status::RUNNING, Status::RUNNING));
}

fn a_container_is_started_once() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    task.try_start().expect_err("it runs");
    task.terminate();
    assert_eq!(task.wait().status, 7);
    task.try_start().expect_err("it has ended");
    assert_eq!(task.state().exit_status, 7);
}

fn a_stopped_container_takes_no_exec() {
    let host = Host::new();
    let task = host.shell("one", "exit 2").start();
    task.wait();
    let refused = task.try_exec("first", Io::default(), &["true"]);
    assert!(refused.and_then(|process| process.try_start()).is_err());
    assert!(task.try_pause().is_err());
    assert!(task.try_update(&json!({ "pids": { "limit": 5 } })).is_err());
    task.finish();
}

fn an_unknown_method_is_unimplemented() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let empty = rpc::Empty::default();
    let answer = task.client().call::<_, rpc::Empty>("NoSuchMethod", &empty);
    assert_eq!(code(answer), Some(Code::UNIMPLEMENTED));
    let other = task.client().service("no.such.Service");
    assert_eq!(code(other.call::<_, rpc::Empty>("Start", &empty)), Some(Code::UNIMPLEMENTED));
    assert_eq!(task.status(), Status::RUNNING);
}

fn an_exec_without_a_specification_is_refused() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let cases = [json!("not a process"), json!({ "args": 5 })];
    for (number, spec) in cases.iter().enumerate() {
        let process = task.try_exec_spec(&format!("case-{number}"), Io::default(), spec);
        let refused = process.and_then(|process| process.try_start()).expect_err("it is nonsense");
        assert!(!refused.message.is_empty());
    }
    assert_eq!(task.status(), Status::RUNNING);
}

fn names_that_are_paths_are_refused() {
    reference_lacks!("it takes any name: containerd has checked it");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let client = task.client();
    let names = ["", ".", "..", "../x", "a/b", "/x", "x\n", "x\0y", "\u{e9}", &"x".repeat(300)];
    for name in names {
        let exec = rpc::ExecProcessRequest {
            id: "one".to_owned(),
            exec_id: name.to_owned(),
            ..Default::default()
        };
        let refused = code(client.call::<_, rpc::Empty>("Exec", &exec));
        assert_eq!(refused, Some(Code::INVALID_ARGUMENT), "exec {name:?}");
        let bundle = host.site().path("bundle-of-nobody");
        let create = rpc::CreateTaskRequest { id: name.to_owned(), bundle, ..Default::default() };
        let refused = code(client.call::<_, rpc::CreateTaskResponse>("Create", &create));
        assert_eq!(refused, Some(Code::INVALID_ARGUMENT), "container {name:?}");
    }
    assert_eq!(task.status(), Status::RUNNING);
}

fn a_missing_runtime_is_named() {
    let host = Host::new();
    let name = host.site().path("no-such-runtime");
    let plan = host.shell("one", "true").options(|options| options.binary_name.clone_from(&name));
    let refused = plan.try_create().expect_err("there is none");
    assert!(refused.message.contains(&name), "{refused:?}");
}

fn a_root_that_cannot_be_mounted_is_said() {
    let host = Host::new();
    let plan = host.shell("one", "true").root(rpc::Mount {
        type_: "bind".to_owned(),
        source: host.site().path("absent"),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
        ..Default::default()
    });
    let refused = plan.try_create().expect_err("there is no such directory");
    assert!(refused.message.contains("no such file or directory"), "{refused:?}");
}
