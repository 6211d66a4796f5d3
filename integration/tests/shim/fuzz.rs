//! Mutated requests and frames: whatever comes, the shim answers the next caller, holds no
//! more memory and descriptors than before, and leaves no process.
//!
//! `HULL_FUZZ_SECONDS` is how long each test goes on (default 5); `HULL_SEED` starts another
//! sequence. Containers are real: the shim runs with a root file system that it cannot write
//! to, so that a mutated path does no harm outside the test's own directory.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::time::{Duration, Instant};

use hull_integration::mutation::{Random, change_message};
use hull_integration::shim::rpc::{self, Message, Status};
use hull_integration::shim::{
    Bootstrap, Client, Host, SLEEPER, SOON, Task, TaskPlan, Version, Wire, frame, request_frame,
};
use hull_integration::{note, reference_lacks, tests, wait_until};
use serde_json::json;

tests![mutated_requests_harm_nothing, mutated_frames_harm_nothing];

/// Requests of one connection.
const BATCH: usize = 48;

/// What the allocator may keep after a batch, in KiB: it has held some messages of 64 KiB.
const GROWTH_KIB: u64 = 2048;

/// How often a long run says what the shim holds.
const REPORT: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seed(test: u64) -> Random {
    Random::new(number("HULL_SEED", 1) * 1_000_003 + test)
}

/// What a shim holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    memory_kib: u64,
    descriptors: usize,
    children: usize,
    mounts: usize,
}

impl Usage {
    fn of(host: &Host, pid: i32) -> Self {
        // Other tests mount things too.
        let bundles = host.site().path("bundles/");
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it lives");
        let rollup = read("smaps_rollup");
        let memory = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        let memory = memory.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let children = read(&format!("task/{pid}/children"));
        Self {
            memory_kib: memory.expect("the kernel counts it"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count(),
            children: children.split_whitespace().count(),
            mounts: read("mountinfo").lines().filter(|line| line.contains(&bundles)).count(),
        }
    }
}

/// Waits until a shim holds no more than it did, and fails if that does not happen.
#[track_caller]
fn assert_at_rest(host: &Host, pid: i32, base: Usage) {
    let mut last = base;
    wait_until(&format!("a shim that holds no more than {base:?}"), SOON, || {
        let now = Usage::of(host, pid);
        if now != last {
            let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
            let names: Vec<_> = links.flat_map(|link| fs::read_link(link.path())).collect();
            let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it lives");
            let mounts: Vec<_> = table.lines().filter(|line| line.contains("/bundles/")).collect();
            note(&format!("{now:?} {names:?} {mounts:#?}"));
            last = now;
        }
        last.descriptors <= base.descriptors
            && last.children <= base.children
            && last.mounts <= base.mounts
    });
    assert!(last.memory_kib <= base.memory_kib + GROWTH_KIB, "{base:?} became {last:?}");
}

/// A container that no mutant names, so that the shim always has one.
fn plan<'host>(host: &'host Host, id: &str) -> TaskPlan<'host> {
    let mut plan =
        host.shell(id, SLEEPER).annotation("io.containerd.runc.v2.group", "fuzz").with_input();
    plan.launch.preludes.push("mount -o remount,bind,ro /".to_owned());
    plan.launch.socket_directory = Some(host.site().make("s"));
    plan
}

/// A valid request of each method.
fn requests(host: &Host, random: &mut Random) -> (&'static str, Vec<u8>) {
    let id = || "one".to_owned();
    let exec_id = match random.below(3) {
        0 => String::new(),
        which => format!("exec-{which}"),
    };
    let any = |kind: &str, value: serde_json::Value| rpc::Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}"),
        value: value.to_string().into_bytes(),
        ..Default::default()
    };
    let bytes = |message: &dyn rpc::MessageDyn| message.write_to_bytes_dyn().expect("valid");
    match random.below(40) {
        0 | 1 => {
            let launch = host.launch("two");
            let options = rpc::Any {
                type_url: "containerd.runc.v1.Options".to_owned(),
                value: launch.options.write_to_bytes().expect("valid"),
                ..Default::default()
            };
            let request = rpc::CreateTaskRequest {
                id: "two".to_owned(),
                bundle: launch.bundle,
                rootfs: vec![host.overlay("two")],
                stdout: format!("hull-log://{}?max-size=10k&max-file=3", host.site().path("log")),
                options: Some(options).into(),
                ..Default::default()
            };
            ("Create", bytes(&request))
        }
        2..=5 => ("Start", bytes(&rpc::StartRequest { id: id(), exec_id, ..Default::default() })),
        6 | 7 => ("Delete", bytes(&rpc::DeleteRequest { id: id(), exec_id, ..Default::default() })),
        8 | 9 => ("State", bytes(&rpc::StateRequest { id: id(), exec_id, ..Default::default() })),
        10..=13 => ("Wait", bytes(&rpc::WaitRequest { id: id(), exec_id, ..Default::default() })),
        14..=20 => {
            let spec = json!({ "args": ["true"], "cwd": "/", "env": ["PATH=/bin"],
                "user": { "uid": 0, "gid": 0 }, "capabilities": {}, "noNewPrivileges": true });
            let request = rpc::ExecProcessRequest {
                id: id(),
                exec_id,
                terminal: random.below(4) == 0,
                spec: Some(any("Process", spec)).into(),
                ..Default::default()
            };
            ("Exec", bytes(&request))
        }
        21 | 22 => {
            let signal = [0, 1, 9, 15, 64, 65][random.below(6)];
            let all = random.below(2) == 0;
            let kill = rpc::KillRequest { id: id(), exec_id, signal, all, ..Default::default() };
            ("Kill", bytes(&kill))
        }
        23 | 24 => ("Pids", bytes(&rpc::PidsRequest { id: id(), ..Default::default() })),
        25 => ("Pause", bytes(&rpc::PauseRequest { id: id(), ..Default::default() })),
        26 | 27 => ("Resume", bytes(&rpc::ResumeRequest { id: id(), ..Default::default() })),
        28 => {
            // Relative, so that no mutant of it is likely to leave the bundle.
            let path = "image".to_owned();
            let request = rpc::CheckpointTaskRequest { id: id(), path, ..Default::default() };
            ("Checkpoint", bytes(&request))
        }
        29 | 30 => {
            let resources = any("LinuxResources", json!({ "pids": { "limit": 100 } }));
            let resources = Some(resources).into();
            let request = rpc::UpdateTaskRequest { id: id(), resources, ..Default::default() };
            ("Update", bytes(&request))
        }
        31 | 32 => {
            let (width, height) = (random.below(70_000) as u32, 24);
            let request =
                rpc::ResizePtyRequest { id: id(), exec_id, width, height, ..Default::default() };
            ("ResizePty", bytes(&request))
        }
        33 | 34 => {
            let request =
                rpc::CloseIORequest { id: id(), exec_id, stdin: true, ..Default::default() };
            ("CloseIO", bytes(&request))
        }
        35 | 36 => ("Stats", bytes(&rpc::StatsRequest { id: id(), ..Default::default() })),
        37 | 38 => ("Connect", bytes(&rpc::ConnectRequest { id: id(), ..Default::default() })),
        _ => ("Shutdown", bytes(&rpc::ShutdownRequest { id: id(), ..Default::default() })),
    }
}

/// Ends a container, in whatever state it is, or gives the shim's error.
fn end(client: &Client, id: &str) {
    let id = || id.to_owned();
    // Each may be refused: what counts is that it is gone in the end.
    let resume = rpc::ResumeRequest { id: id(), ..Default::default() };
    let _ = client.call::<_, rpc::Empty>("Resume", &resume);
    let kill = rpc::KillRequest { id: id(), signal: 9, all: true, ..Default::default() };
    let _ = client.call::<_, rpc::Empty>("Kill", &kill);
    wait_until(&format!("the end of {:?}", id()), SOON, || {
        let delete = rpc::DeleteRequest { id: id(), ..Default::default() };
        let _ = client.call::<_, rpc::DeleteResponse>("Delete", &delete);
        let state = rpc::StateRequest { id: id(), ..Default::default() };
        client.call::<_, rpc::StateResponse>("State", &state).is_err()
    });
}

#[track_caller]
fn assert_served(keeper: &Task<'_>, address: &str, pid: i32) {
    let client = Client::connect(address, Version::V2);
    let request = rpc::ConnectRequest { id: keeper.id().to_owned(), ..Default::default() };
    let answer: rpc::ConnectResponse = client.call("Connect", &request).expect("it answers");
    assert_eq!((answer.shim_pid, answer.task_pid), (pid as u32, keeper.pid));
    assert_eq!(keeper.status(), Status::RUNNING);
}

fn mutated_requests_harm_nothing() {
    reference_lacks!("its paths and programs would be called at random");
    let host = Host::with_bootstrap(Bootstrap::Message);
    let mut random = seed(1);
    let keeper = plan(&host, "keeper").start();
    let pid = host.shim_pid("keeper");
    let reply = host.reply("keeper");
    let until = Instant::now() + Duration::from_secs(number("HULL_FUZZ_SECONDS", 5));
    let configuration = plan(&host, "two").config;
    let mut base = None;
    let (mut sent, mut batches) = (0_u64, 0_u64);
    let mut report = Instant::now() + REPORT;
    while base.is_none() || Instant::now() < until {
        let one = plan(&host, "one").start();
        host.make_bundle("two", &configuration);
        for _ in 0..if base.is_none() { 1 } else { 8 } {
            let mut made = vec!["two".to_owned()];
            let mut wire = Wire::connect(reply.socket());
            let mut wanted = BTreeSet::new();
            let mut bytes = Vec::new();
            for at in 0..BATCH {
                let (method, mut payload) = requests(&host, &mut random);
                // Some are whole, so that mutants meet every state.
                if random.below(3) != 0 {
                    change_message(&mut payload, &mut random);
                }
                if method == "Create"
                    && let Ok(request) = rpc::CreateTaskRequest::parse_from_bytes(&payload)
                {
                    made.push(request.id);
                }
                let stream = at as u32 * 2 + 1;
                wanted.insert(stream);
                bytes.extend(request_frame(stream, method, &payload, Duration::from_millis(100)));
            }
            assert!(wire.send(&bytes), "seed {random:?}: the connection is closed");
            let others = wire.await_answers(&mut wanted, Duration::from_secs(10));
            assert!(others.is_empty(), "seed {random:?}: answers twice: {others:?}");
            // An exec into a container that is being paused goes on when that is resumed.
            let _ = one.try_resume();
            wire.await_answers(&mut wanted, SOON);
            assert!(wanted.is_empty(), "seed {random:?}: no answer to {wanted:?}");
            drop(wire);
            sent += BATCH as u64;
            batches += 1;
            assert_served(&keeper, &reply.address, pid);
            for id in made {
                end(keeper.client(), &id);
            }
        }
        end(keeper.client(), "one");
        drop(one);
        host.shut_down("one");
        fs::remove_dir_all(host.site().path("bundles/two")).expect("no mount is left");
        let states = fs::read_dir(format!("{}/test", host.runtime_root())).expect("keeper's");
        let states: Vec<_> = states.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(states, ["keeper"], "seed {random:?}: containers that the shim has forgotten");
        match base {
            None => base = Some(Usage::of(&host, pid)),
            Some(base) => assert_at_rest(&host, pid, base),
        }
        if report < Instant::now() {
            report += REPORT;
            println!("fuzz: {sent} requests, {:?}, at first {base:?}", Usage::of(&host, pid));
        }
    }
    println!("fuzz: {sent} requests in {batches} batches");
}

fn mutated_frames_harm_nothing() {
    reference_lacks!("it takes any frame for granted");
    let host = Host::new();
    let mut random = seed(2);
    let task = host.shell("one", SLEEPER).start();
    let pid = host.shim_pid("one");
    let reply = host.reply("one");
    let until = Instant::now() + Duration::from_secs(number("HULL_FUZZ_SECONDS", 5));
    assert_served(&task, &reply.address, pid);
    let base = Usage::of(&host, pid);
    let (mut sent, mut batches) = (0_u64, 0_u64);
    while Instant::now() < until {
        let mut held = Vec::new();
        for _ in 0..32 {
            let mut wire = Wire::connect(reply.socket());
            let mut bytes = Vec::new();
            for _ in 0..1 + random.below(8) {
                let method = *random.pick(&["State", "Wait", "Pids", "Stats", "Connect", "Create"]);
                let request = rpc::StateRequest { id: "one".to_owned(), ..Default::default() };
                let payload = request.write_to_bytes().expect("valid");
                let stream = random.number() as u32;
                match random.below(4) {
                    0 => {
                        let lengths = [0, 1, 9, 4 << 20, (4 << 20) + 1, u32::MAX - 9, u32::MAX];
                        let kind = random.below(256) as u8;
                        bytes.extend(frame(*random.pick(&lengths), stream, kind, &payload));
                    }
                    _ => bytes.extend(request_frame(stream, method, &payload, SOON)),
                }
                sent += 1;
            }
            if random.below(4) != 0 {
                change_message(&mut bytes, &mut random);
            }
            let (first, rest) = bytes.split_at(random.below(bytes.len() + 1));
            // It may close the connection in the middle.
            let _ = wire.send(first) && wire.send(rest);
            match random.below(3) {
                0 => {}
                1 => {
                    wire.finish();
                    held.push(wire);
                }
                _ => held.push(wire),
            }
        }
        assert_served(&task, &reply.address, pid);
        let peak = Usage::of(&host, pid).memory_kib;
        assert!(peak < base.memory_kib + 16 * 1024, "seed {random:?}: {peak} KiB");
        drop(held);
        batches += 1;
        assert_at_rest(&host, pid, base);
    }
    println!("fuzz: {sent} frames in {batches} batches");
    task.kill(9);
    task.finish();
}
