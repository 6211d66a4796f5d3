//! The shim as a program: how it is started, what it says, where it listens.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use hull_integration::shim::rpc::{self, Message};
use hull_integration::shim::{Bootstrap, Client, Host, SLEEPER, SOON, StartReply, Version, shim};
use hull_integration::{Invocation, cgroup, reference_lacks, require, runtime, tests, wait_until};

tests![
    a_shim_is_started_in_each_way_of_containerd,
    both_services_are_there,
    only_root_reaches_the_socket,
    the_socket_is_where_containerd_wants_it,
    the_address_is_kept_in_the_bundle,
    starting_twice_gives_the_same_shim,
    the_socket_of_a_dead_shim_is_replaced,
    start_with_an_unreadable_configuration_fails_and_leaves_nothing,
    the_version_is_told,
    what_the_runtime_can_do_is_told,
    wrong_arguments_are_refused,
    a_shim_is_a_process_group_that_dies_late,
    a_shim_keeps_no_descriptor_of_its_caller,
    a_shim_joins_the_cgroup_that_was_asked_for,
    other_namespaces_are_other_containers,
];

fn a_shim_is_started_in_each_way_of_containerd() {
    let ways = match shim().reference {
        true => vec![Bootstrap::of_containerd()],
        false => vec![Bootstrap::Address, Bootstrap::Json, Bootstrap::Message],
    };
    for way in ways {
        let host = Host::with_bootstrap(way);
        let task = host.shell("one", "exit 3").start();
        let reply = host.reply("one");
        match way {
            // containerd 1.7 asks as 2.0 to 2.2 do, and refuses the version that these offer.
            Bootstrap::Json if shim().reference => assert_eq!(reply.raw[0], b'{'),
            Bootstrap::Address | Bootstrap::Json => {
                assert_eq!(String::from_utf8_lossy(&reply.raw).trim(), reply.address);
            }
            Bootstrap::Message => assert_ne!(reply.raw[0], b'{'),
        }
        let structured = way == Bootstrap::Message || reply.raw[0] == b'{';
        let version = if structured { Version::V3 } else { Version::V2 };
        assert_eq!(reply.version, version, "{reply:?}");
        assert_eq!(task.wait().status, 3);
        host.events().wait("one", "/tasks/exit");
        task.finish();
    }
}

fn both_services_are_there() {
    reference_lacks!("a release has one of the two");
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    for version in [Version::V2, Version::V3] {
        let client = Client::connect(&host.reply("one").address, version);
        let request = rpc::StateRequest { id: "one".to_owned(), ..Default::default() };
        let state: rpc::StateResponse = client.call("State", &request).expect("it is there");
        assert_eq!(state.pid, task.pid);
    }
}

fn only_root_reaches_the_socket() {
    let host = Host::new();
    let _task = host.shell("one", SLEEPER).start();
    let reply = host.reply("one");
    let socket = reply.socket();
    let entry = fs::symlink_metadata(socket).expect("it is a path");
    assert!(entry.file_type().is_socket());
    assert_eq!((entry.uid(), entry.permissions().mode() & 0o077), (0, 0), "{entry:?}");
    // Abstract sockets have no owner; whoever shares the network namespace reaches them.
    let name = socket.file_name().expect("it has a name").to_string_lossy();
    let table = fs::read_to_string("/proc/net/unix").expect("/proc is mounted");
    let ours: Vec<&str> = table.lines().filter(|line| line.contains(&*name)).collect();
    assert!(!ours.is_empty() && ours.iter().all(|line| !line.contains('@')), "{ours:?}");
}

fn the_socket_is_where_containerd_wants_it() {
    let host = Host::new();
    let _task = host.shell("one", SLEEPER).start();
    let reply = host.reply("one");
    assert_eq!(reply.socket().parent(), Some(Path::new("/run/containerd/s")));
    if shim().reference && Bootstrap::of_containerd() != Bootstrap::Message {
        return;
    }
    let host = Host::with_bootstrap(Bootstrap::Message);
    let directory = host.site().make("sockets");
    let mut plan = host.shell("one", SLEEPER);
    plan.launch.socket_directory = Some(directory.clone());
    let _task = plan.start();
    assert_eq!(host.reply("one").socket().parent(), Some(Path::new(&directory)));
}

fn the_address_is_kept_in_the_bundle() {
    // containerd 2 writes bootstrap.json itself.
    let host = Host::with_bootstrap(Bootstrap::Address);
    if shim().containerd_2 {
        reference_lacks!("containerd 2 does that itself");
    }
    let _task = host.shell("one", SLEEPER).start();
    let path = format!("{}/address", host.launch("one").bundle);
    let kept = fs::read_to_string(path).expect("containerd looks there after a restart");
    assert_eq!(kept, host.reply("one").address);
}

fn starting_twice_gives_the_same_shim() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let again = StartReply::of(&host.launch("one").start().ok());
    assert_eq!(again.address, host.reply("one").address);
    assert_eq!(task.run("first", "echo served"), (0, "served\n".to_owned()));
}

fn the_socket_of_a_dead_shim_is_replaced() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let address = host.reply("one").address;
    host.kill_shim("one");
    drop(task);
    // A socket that nobody listens on, by which the next is not held up.
    assert!(Path::new(address.trim_start_matches("unix://")).exists());
    host.delete_after_shim("one");
    let task = host.shell("one", "exit 3").start();
    assert_eq!(host.reply("one").address, address);
    assert_eq!(task.finish().status, 3);
}

fn start_with_an_unreadable_configuration_fails_and_leaves_nothing() {
    let host = Host::new();
    let launch = host.launch("one");
    fs::create_dir_all(format!("{}/config.json", launch.bundle)).expect("the site is writable");
    let output = launch.start();
    assert_eq!(output.code(), Some(1), "{}", output.transcript());
    let complaint = output.stderr.to_lowercase();
    assert!(complaint.contains("is a directory"), "{}", output.transcript());
    assert_eq!(output.stdout, "");
}

fn the_version_is_told() {
    let output = Invocation::new(&shim().path).arg("-v").run().ok();
    assert!(output.stdout.contains("Version"), "{}", output.transcript());
}

fn what_the_runtime_can_do_is_told() {
    if !shim().containerd_2 {
        reference_lacks!("before containerd 2 there was no -info");
    }
    require!(!runtime().is_at_most("runc 1.0"), "runc 1.0 has no features");
    let options = rpc::Options {
        binary_name: runtime().program.to_string_lossy().into_owned(),
        ..Default::default()
    };
    let any = rpc::Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.write_to_bytes().expect("a message can be written"),
        ..Default::default()
    };
    let output = Invocation::new(&shim().path)
        .arg("-info")
        .stdin(any.write_to_bytes().expect("a message can be written"))
        .run()
        .ok();
    let raw = fs::read(&output.stdout_file).expect("it was just written");
    let info = rpc::RuntimeInfo::parse_from_bytes(&raw).expect("it is a message");
    let name = if shim().reference { "io.containerd.runc.v2" } else { "io.containerd.hull.v2" };
    assert_eq!(info.name, name);
    assert!(!info.version.version.is_empty(), "{info}");
    assert_eq!(info.options.value, any.value);
    let features: serde_json::Value =
        serde_json::from_slice(&info.features.value).expect("the features are JSON");
    assert!(features["ociVersionMin"].is_string(), "{features}");
}

fn wrong_arguments_are_refused() {
    let cases: [&[&str]; 3] = [
        &["-id", "one", "start"],
        &["-namespace", "test", "-no-such-flag", "start"],
        &["-namespace"],
    ];
    for words in cases {
        let output = Invocation::new(&shim().path).args(words).run();
        assert!(output.code().is_some_and(|code| code != 0), "{}", output.transcript());
        assert!(!output.stderr.is_empty(), "{}", output.transcript());
    }
}

fn a_shim_is_a_process_group_that_dies_late() {
    let host = Host::new();
    let _task = host.shell("one", SLEEPER).start();
    let pid = host.shim_pid("one");
    let field = |pid: &str, number: usize| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        fields.split(' ').nth(number - 3)?.parse().ok()
    };
    let shim = pid.to_string();
    assert_eq!(field(&shim, 5), Some(pid), "a signal to the caller's group does not reach it");
    // The kernel can give each session its own share of the processors.
    assert_eq!(field(&shim, 6), field("self", 6), "it is scheduled with its caller");
    let score = |pid: &str| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it lives");
        text.trim().parse().expect("it is a number")
    };
    // One more than containerd's, which is to outlive it.
    assert_eq!(score(&pid.to_string()), (score("self") + 1).min(1000));
}

fn a_shim_keeps_no_descriptor_of_its_caller() {
    let host = Host::new();
    let _task = host.shell("one", SLEEPER).start();
    let pid = host.shim_pid("one");
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        // The standard streams of `start`, which the test's own containerd reads to the end.
        assert!(!target.contains("/command-"), "{target}");
    }
}

fn a_shim_joins_the_cgroup_that_was_asked_for() {
    let host = Host::new();
    let directories: Vec<_> = ["pids", "memory"]
        .into_iter()
        .filter_map(cgroup::hierarchy)
        .map(|one| one.at.join(host.site().cgroup().trim_start_matches('/')).join("shims"))
        .collect();
    require!(!directories.is_empty(), "no hierarchy has pids or memory");
    for directory in &directories {
        fs::create_dir_all(directory).expect("the suite is root");
    }
    let path = format!("{}/shims", host.site().cgroup());
    let task =
        host.shell("one", SLEEPER).options(|options| options.shim_cgroup.clone_from(&path)).start();
    let pid = host.shim_pid("one");
    for directory in &directories {
        let list = fs::read_to_string(directory.join("cgroup.procs")).expect("it is a cgroup");
        assert!(list.lines().any(|line| line == pid.to_string()), "{list:?}");
        assert!(!list.lines().any(|line| line == task.pid.to_string()), "{list:?}");
    }
    task.kill(9);
    task.finish();
    // The shim has ended, and somebody is about to wait for it.
    wait_until("the cgroups are empty", SOON, || {
        directories.iter().all(|directory| fs::remove_dir(directory).is_ok() || !directory.exists())
    });
}

fn other_namespaces_are_other_containers() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let mut launch = host.launch("one");
    launch.namespace = "other".to_owned();
    let reply = StartReply::of(&launch.start().ok());
    assert_ne!(reply.address, host.reply("one").address);
    let client = Client::connect(&reply.address, reply.version);
    let state = rpc::StateRequest { id: "one".to_owned(), ..Default::default() };
    client.call::<_, rpc::StateResponse>("State", &state).expect_err("it has none");
    let shutdown = rpc::ShutdownRequest { id: "one".to_owned(), ..Default::default() };
    let _ = client.call::<_, rpc::Empty>("Shutdown", &shutdown);
    wait_until("its socket is gone", SOON, || {
        UnixStream::connect(reply.socket()).is_err() && !reply.socket().exists()
    });
    assert_eq!(task.run("first", "echo served"), (0, "served\n".to_owned()));
}
