//! Attacks of the classes of SECURITY.md. Each has a control: what shows that it would be seen
//! if it worked, on containerd's own shim where that is weak, else on something made to be.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_integration::shim::rpc::{self, Message, Status};
use hull_integration::shim::{Host, Io, SLEEPER, SOON, Stream, Wire, request_frame, shim};
use hull_integration::{NotRun, not_run, reference_lacks, tests, wait_until};
use serde_json::Value;

use super::options::descriptors;
use super::recovery::meddler;
use super::scale::weight;

tests![
    nobody_but_root_reaches_a_socket,
    nobody_but_root_reads_what_a_shim_writes,
    output_costs_a_shim_no_memory,
    requests_beyond_a_number_are_refused,
    names_do_not_lead_out_of_the_bundle,
    a_descriptor_too_many_is_seen,
    output_makes_no_entries_of_its_own,
];

/// Whether a user without privileges may do to a file what `test` calls so: to connect to a
/// socket is to write to it.
fn others_may(what: &str, path: &str) -> bool {
    let mut test = Command::new("test");
    let status = test.args([what, path]).uid(65534).gid(65534).status();
    status.expect("it is installed").success()
}

fn is_abstract(name: &str) -> bool {
    let table = fs::read_to_string("/proc/net/unix").expect("/proc is mounted");
    table.lines().any(|line| line.contains('@') && line.contains(name))
}

fn nobody_but_root_reaches_a_socket() {
    let host = Host::new();
    let _task = host.shell("one", SLEEPER).start();
    let reply = host.reply("one");
    let socket = reply.socket();
    assert!(!others_may("-w", socket.to_str().expect("the path is text")));
    assert!(!is_abstract(&socket.file_name().expect("it has a name").to_string_lossy()));
    // Control.
    let open = host.site().path("open");
    let _listener = UnixListener::bind(&open).expect("the site is writable");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).expect("it is ours");
    assert!(others_may("-w", &open), "control: anybody reaches it");
    let name = SocketAddr::from_abstract_name(&open).expect("a short name");
    let _listener = UnixListener::bind_addr(&name).expect("the name is free");
    assert!(is_abstract(&open), "control: it is in the table");
}

/// The files of a bundle that others than root may read, if its directory lets them: but for
/// what the runtime writes, and the test itself.
fn readable(bundle: &str) -> Vec<String> {
    let theirs = ["config.json", "rootfs", "work", "log", "s"];
    let runtimes = ["log.json", ".pid"];
    let entries = fs::read_dir(bundle).expect("it is there").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours = names.filter(|name| {
        !theirs.contains(&name.as_str()) && !runtimes.iter().any(|end| name.ends_with(end))
    });
    ours.filter(|name| others_may("-r", &format!("{bundle}/{name}"))).collect()
}

fn nobody_but_root_reads_what_a_shim_writes() {
    reference_lacks!("it leaves that to the directory, which containerd opens for some");
    let host = Host::new();
    // While it runs there is the object of the process, with its environment.
    let seen = host.site().make("seen");
    let keep = format!("[ -z \"$pid_file\" ] || cp -p ${{pid_file%/*}}/*.json {seen}/");
    let path = meddler(&host, "", &keep);
    let log = host.site().path("one.log");
    let io = Io { stdout: format!("hull-log://{log}"), ..Io::default() };
    let plan = host.shell("one", SLEEPER).io(io).options(|options| options.binary_name = path);
    let task = plan.start();
    assert_eq!(task.run("first", "exit 3").0, 3);
    assert!(Path::new(&format!("{seen}/exec-first-process.json")).exists());
    let bundle = host.launch("one").bundle;
    assert_eq!((readable(&bundle), readable(&seen)), (vec![], vec![]));
    // Control.
    host.site().write("bundles/one/secret", "");
    assert_eq!(readable(&bundle), ["secret"], "control: anybody reads it");
    task.kill(9);
    task.finish();
}

/// What a shim's memory may breathe, in KiB.
const BREATH_KIB: u64 = 512;

fn has_grown(pid: i32, before_kib: u64) -> bool {
    weight(pid).1 > before_kib + BREATH_KIB
}

fn output_costs_a_shim_no_memory() {
    let host = Host::new();
    let plan = |id: &str, io: Io| {
        host.shell(id, "exec head -c 20000000 /dev/zero").io(io).unread().create()
    };
    let weight_of = |id: &str| weight(host.shim_pid(id)).1;
    // A flood that nobody reads: it stops when the pipes are full.
    let unread = host.pipes(false);
    let _held = Stream::hold(&unread.stdout);
    let flood = plan("flood", unread);
    let before = weight_of("flood");
    let flood_pid = flood.init.start();
    // write(2), which does not return.
    let waits = || {
        let call = fs::read_to_string(format!("/proc/{flood_pid}/syscall"));
        let name = fs::read_to_string(format!("/proc/{flood_pid}/comm"));
        name.is_ok_and(|name| name == "head\n") && call.is_ok_and(|text| text.starts_with("1 "))
    };
    wait_until("the flood is dammed up", SOON, waits);
    // A collector's heap breathes more.
    let allowed = |pid: i32, before: u64| shim().reference || !has_grown(pid, before);
    assert!(allowed(host.shim_pid("flood"), before), "{before} -> {}", weight_of("flood"));
    flood.kill(9);
    assert_eq!(flood.wait().status, 137);
    // Deleting waits for a reader.
    let _rest = Stream::collect(&flood.paths().stdout);
    if !shim().reference {
        // A line without an end.
        let log = format!("hull-log://{}", host.site().path("line.log"));
        let line = plan("line", Io { stdout: log, ..Io::default() });
        let before = weight_of("line");
        line.init.start();
        assert_eq!(line.wait().status, 0);
        assert!(allowed(host.shim_pid("line"), before), "{before} -> {}", weight_of("line"));
    }
    // Control: a program that keeps what it reads.
    let keep = "read a; echo; x=$(head -c 3000000 /dev/zero | tr '\\0' x); echo; read b";
    let mut keeper = Command::new("sh")
        .args(["-c", keep])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is installed");
    let pid = i32::try_from(keeper.id()).expect("process ids are positive");
    let mut input = keeper.stdin.take().expect("it is a pipe");
    let mut answers = BufReader::new(keeper.stdout.take().expect("it is a pipe"));
    let mut next = || answers.read_line(&mut String::new()).expect("it answers");
    input.write_all(b"go\n").expect("it reads");
    next();
    let before = weight(pid).1;
    next();
    let grown = has_grown(pid, before);
    drop(input);
    keeper.wait().expect("it is ours");
    assert!(grown, "control: {before} KiB at first");
}

/// How many requests of a connection may be in work; the shim's own number.
const REQUESTS: u32 = 4096;

fn requests_beyond_a_number_are_refused() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let pid = host.shim_pid("one");
    let (descriptors, before) = weight(pid);
    let wait = rpc::WaitRequest { id: "one".to_owned(), ..Default::default() };
    let wait = wait.write_to_bytes().expect("a message can be written");
    let mut wire = Wire::connect(host.reply("one").socket());
    let streams = (0..REQUESTS + 1000).map(|number| number * 2 + 1);
    for stream in streams.clone() {
        assert!(wire.send(&request_frame(stream, "Wait", &wait, SOON * 10)));
    }
    let mut refused: BTreeSet<u32> = streams.skip(REQUESTS as usize).collect();
    let limit = if shim().reference { SOON / 15 } else { SOON };
    let others = wire.await_answers(&mut refused, limit);
    let grown = weight(pid).1.saturating_sub(before);
    if shim().reference {
        assert_eq!(refused.len(), 1000, "it takes all");
        drop(wire);
        not_run(NotRun::Control(format!("and costs {grown} KiB")));
    }
    assert_eq!((refused.len(), others), (0, vec![]));
    assert!(grown < 32 << 10, "{grown} KiB for {REQUESTS} requests");
    assert_eq!(task.status(), Status::RUNNING);
    drop(wire);
    wait_until("all is given back", SOON, || {
        let (now, memory) = weight(pid);
        now <= descriptors + 1 && memory <= before + BREATH_KIB
    });
    task.kill(9);
    task.finish();
}

fn names_do_not_lead_out_of_the_bundle() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let outside = host.site().path("bundles/outside.pid");
    let added = task.try_exec("../outside", Io::default(), &["sleep", "1000"]);
    let started = added.and_then(|process| process.try_start());
    let escaped = Path::new(&outside).exists();
    if shim().reference {
        assert!(escaped, "{started:?}");
        task.kill(9);
        task.wait();
        not_run(NotRun::Control("a file of the name is outside".to_owned()));
    }
    assert!(!escaped && started.is_err());
}

fn a_descriptor_too_many_is_seen() {
    // Of `options::no_descriptor_of_the_shim_is_in_the_container`, the control alone.
    let script = "exec 7</dev/null; echo; read a";
    let mut leaky = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is installed");
    let mut output = BufReader::new(leaky.stdout.take().expect("it is a pipe"));
    output.read_line(&mut String::new()).expect("it answers");
    let seen = descriptors(leaky.id());
    drop(leaky.stdin.take());
    leaky.wait().expect("it is ours");
    assert!(seen.contains(&"7".into()), "{seen:?}");
}

/// Who wrote the entries of a log, by its form, that say "forged".
fn forgers(log: &str, form: &str) -> Vec<String> {
    let stream = |line: &str| match form {
        "json-file" => {
            let entry: Value = serde_json::from_str(line).ok()?;
            let text = entry["log"].as_str()?;
            text.starts_with("forged").then(|| entry["stream"].as_str().map(str::to_owned))?
        }
        _ => {
            let fields: Vec<&str> = line.splitn(4, ' ').collect();
            let forged = fields.get(3).is_some_and(|text| text.starts_with("forged"));
            forged.then(|| fields[1].to_owned())
        }
    };
    log.lines().filter_map(stream).collect()
}

fn output_makes_no_entries_of_its_own() {
    reference_lacks!("it writes no log");
    let host = Host::new();
    let cri = "2026-01-01T00:00:00.000000000Z stderr F forged";
    let json = r#"{"log":"forged\n","stream":"stderr","time":"2026-01-01T00:00:00.000000000Z"}"#;
    // After each byte below a space but the line's end, and after that.
    let controls: String =
        (0..32).filter(|byte| *byte != 10).map(|byte| format!("\\{byte:03o}")).collect();
    let lines =
        |forged: &str| format!("printf 'x{controls}\\177'; echo '{forged}'; echo '{forged}'");
    for (number, (form, forged, expected)) in
        [("cri", cri, false), ("json-file", json, false), ("raw", cri, true), ("raw", json, true)]
            .into_iter()
            .enumerate()
    {
        let log = host.site().path(&format!("{number}.log"));
        let io = Io { stdout: format!("hull-log://{log}?format={form}"), ..Io::default() };
        let id = format!("case-{number}");
        assert_eq!(host.shell(&id, &lines(forged)).io(io).start().finish().status, 0);
        let text = fs::read_to_string(&log).expect("it was made");
        // Control: raw output is what it is, and so the forged entry is one.
        let form = if forged == cri { "cri" } else { "json-file" };
        assert_eq!(!forgers(&text, form).is_empty(), expected, "{text:?}");
        assert_eq!(text.lines().count(), 2, "{text:?}");
    }
}
