//! Streams: pipes from both ends, files, programs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hull_integration::shim::{Host, Input, Io, SLEEPER, SOON, Stream, TaskPlan};
use hull_integration::{tests, wait_until};

tests![
    what_is_typed_reaches_the_program,
    input_ends_when_it_is_closed,
    input_outlives_its_writer_until_it_is_closed,
    input_that_nobody_reads_blocks_nothing_else,
    input_of_an_exec_ends_when_it_is_closed,
    input_that_is_closed_while_the_program_starts_ends,
    a_closed_input_is_not_an_error_twice,
    output_that_nobody_reads_blocks_nothing_else,
    output_goes_on_when_its_reader_comes_back,
    output_of_orphans_arrives_after_the_exit,
    every_byte_arrives_through_a_pipe,
    every_byte_of_the_input_arrives,
    streams_without_a_destination_go_nowhere,
    output_goes_to_a_file,
    output_goes_to_a_program,
    a_program_that_takes_output_sees_which_container_it_is,
    streams_belong_to_the_user_that_was_asked_for,
];

fn what_is_typed_reaches_the_program() {
    let host = Host::new();
    let task = host.shell("one", "read a; echo got $a; read b; echo got $b").with_input().start();
    let mut input = task.input();
    input.write("first\n");
    task.stdout().wait_for("got first");
    input.write("second\n");
    assert_eq!(task.stdout().to_end(), "got first\ngot second\n");
    task.finish();
}

fn input_ends_when_it_is_closed() {
    let host = Host::new();
    let task = host.shell("one", "cat; echo ended").with_input().start();
    let mut input = task.input();
    input.write("all\n");
    drop(input);
    task.close_input();
    assert_eq!(task.stdout().to_end(), "all\nended\n");
    assert_eq!(task.finish().status, 0);
}

fn input_outlives_its_writer_until_it_is_closed() {
    let host = Host::new();
    let task = host.shell("one", "cat; echo ended").with_input().start();
    task.input().write("first\n");
    task.stdout().wait_for("first\n");
    // A client that went away; another one comes.
    let mut input = task.input();
    input.write("second\n");
    task.stdout().wait_for("second\n");
    assert!(!task.stdout().text().contains("ended"));
    drop(input);
    task.close_input();
    assert_eq!(task.stdout().to_end(), "first\nsecond\nended\n");
    task.finish();
}

fn input_that_nobody_reads_blocks_nothing_else() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).with_input().start();
    let path = task.paths().stdin.clone();
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let mut input = Input::open(&path);
    let writer = std::thread::spawn(move || {
        let chunk = [b'x'; 4096];
        while input.try_write(&chunk) {
            count.fetch_add(4096, Ordering::SeqCst);
        }
    });
    // It stops when every buffer on the way is full.
    let mut before = 0;
    wait_until("the writer is stuck", SOON, || {
        let now = written.load(Ordering::SeqCst);
        now >= 64 << 10 && std::mem::replace(&mut before, now) == now
    });
    assert_eq!(task.run("first", "echo served"), (0, "served\n".to_owned()));
    task.terminate();
    assert_eq!(task.finish().status, 7);
    fs::remove_file(&path).expect("the pipe is ours");
    writer.join().expect("its pipe was closed");
}

fn input_of_an_exec_ends_when_it_is_closed() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    let process = task.exec_with("first", host.pipes(true), &["sh", "-c", "cat; exit 3"]);
    process.start();
    process.input().write("text");
    process.close_input();
    assert_eq!(process.wait().status, 3);
    assert_eq!(process.stdout().to_end(), "text");
    process.delete();
}

fn input_that_is_closed_while_the_program_starts_ends() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    for round in 0..20 {
        let process = task.exec_with(&format!("exec-{round}"), host.pipes(true), &["cat"]);
        std::thread::scope(|scope| {
            // As a client whose input is a short file: it writes as soon as it can.
            scope.spawn(|| {
                process.input().write("all");
                process.close_input();
            });
            process.start();
        });
        assert_eq!(process.wait().status, 0);
        assert_eq!(process.stdout().to_end(), "all");
        process.delete();
    }
    let init = host.shell("two", "cat").with_input().create();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            init.input().write("all");
            init.close_input();
        });
        init.start();
    });
    assert_eq!(init.stdout().to_end(), "all");
    assert_eq!(init.finish().status, 0);
}

fn a_closed_input_is_not_an_error_twice() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).with_input().start();
    task.close_input();
    task.close_input();
    let plain = host.shell("two", SLEEPER).start();
    plain.close_input();
    task.kill(9);
    task.wait();
    // Whoever attaches closes it when the container is already over.
    task.close_input();
    task.finish();
}

fn output_that_nobody_reads_blocks_nothing_else() {
    let host = Host::new();
    let script = "trap 'exit 7' TERM; : > /ready; (while :; do echo line; done) &
        while :; do sleep 0.05; done";
    let io = host.pipes(false);
    let _held = Stream::hold(&io.stdout);
    let task = host.shell("one", script).io(io).unread().start();
    assert_eq!(task.run("first", "echo served"), (0, "served\n".to_owned()));
    let other = host.shell("two", "echo other; exit 2").start();
    assert_eq!(other.stdout().to_end(), "other\n");
    assert_eq!(other.finish().status, 2);
    let ready = host.site().path("upper/one/ready");
    wait_until("it can hear", SOON, || Path::new(&ready).exists());
    task.kill(15);
    assert_eq!(task.wait().status, 7);
}

fn output_goes_on_when_its_reader_comes_back() {
    let host = Host::new();
    let script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.01; done";
    let mut task = host.shell("one", script).start();
    task.stdout().wait_for("line 3\n");
    task.init.stop_reading();
    assert_eq!(task.run("meanwhile", "sleep 0.2; echo served"), (0, "served\n".to_owned()));
    task.init.read_again();
    let seen = task.stdout().wait_for("line 2");
    let complete = seen.lines().filter(|line| line.starts_with("line ")).count();
    assert!(complete > 0, "{seen:?}");
    task.kill(9);
    assert_eq!(task.finish().status, 137);
}

fn output_of_orphans_arrives_after_the_exit() {
    let host = Host::new();
    // The child is outside the container's process namespace's first process, so it is
    // killed with it; what it wrote before is not lost.
    let task = host.shell("one", "(echo child); echo parent; exit 0").start();
    assert_eq!(task.wait().status, 0);
    task.delete();
    assert_eq!(task.stdout().to_end(), "child\nparent\n");
    host.shut_down("one");
}

/// How much is sent through a stream: `HULL_SHIM_MEGABYTES`.
pub(crate) fn megabytes() -> u64 {
    std::env::var("HULL_SHIM_MEGABYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(32)
}

/// A block of bytes without a pattern.
pub(crate) fn block() -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let mut random = fs::File::open("/dev/urandom").expect("the machine has it");
    std::io::Read::read_exact(&mut random, &mut bytes).expect("it never ends");
    bytes
}

/// Counts the bytes that come as the same block again and again.
pub(crate) fn expect_blocks(path: &str, block: Vec<u8>) -> (Stream, Arc<AtomicU64>) {
    let right = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&right);
    let mut at = 0;
    let stream = Stream::each(path, move |mut chunk| {
        while !chunk.is_empty() {
            let length = chunk.len().min(block.len() - at);
            let (now, rest) = chunk.split_at(length);
            assert!(now == &block[at..at + length], "other bytes came");
            count.fetch_add(length as u64, Ordering::SeqCst);
            at = (at + length) % block.len();
            chunk = rest;
        }
    });
    (stream, right)
}

/// A container that finds a block of bytes at `/block`.
pub(crate) fn with_block<'host>(
    host: &'host Host,
    plan: TaskPlan<'host>,
    block: &[u8],
) -> TaskPlan<'host> {
    fs::write(host.site().path("block"), block).expect("the site is writable");
    let source = host.site().path("block");
    plan.configure(|config| {
        let mounts = config["mounts"].as_array_mut().expect("it is a list");
        mounts.push(serde_json::json!({
            "destination": "/block", "type": "bind", "source": source, "options": ["bind", "ro"],
        }));
    })
}

fn every_byte_arrives_through_a_pipe() {
    let host = Host::new();
    let block = block();
    let total = megabytes();
    let script = format!("n=0; while [ $n -lt {total} ]; do cat /block; n=$((n+1)); done");
    let io = host.pipes(false);
    let (stream, right) = expect_blocks(&io.stdout, block.clone());
    let task = with_block(&host, host.shell("one", &script), &block).io(io).unread().start();
    let exit = task.try_wait(SOON * 4).expect("it ends");
    assert_eq!(exit.status, 0);
    wait_until("the end of the output", SOON, || stream.ended());
    assert_eq!(right.load(Ordering::SeqCst), total << 20);
    drop(stream);
    task.finish();
}

fn every_byte_of_the_input_arrives() {
    let host = Host::new();
    let io = host.pipes(true);
    let block = block();
    let (stream, right) = expect_blocks(&io.stdout, block.clone());
    let task = host.shell("one", "cat").io(io).unread().start();
    let mut input = task.input();
    for _ in 0..megabytes() {
        input.write(&block);
    }
    drop(input);
    task.close_input();
    assert_eq!(task.try_wait(SOON * 4).expect("it ends").status, 0);
    wait_until("the end of the output", SOON, || stream.ended());
    assert_eq!(right.load(Ordering::SeqCst), megabytes() << 20);
    drop(stream);
    task.finish();
}

fn streams_without_a_destination_go_nowhere() {
    let host = Host::new();
    let script = "for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done > /links;
        echo lost; echo lost >&2; read a; exit 4";
    let task = host.shell("one", script).io(Io::default()).start();
    assert_eq!(task.wait().status, 4);
    let links = fs::read_to_string(host.site().path("upper/one/links")).expect("it was written");
    assert_eq!(links.lines().next(), Some("/dev/null"), "{links}");
    task.finish();
}

fn output_goes_to_a_file() {
    let host = Host::new();
    let path = host.site().path("logs/deep/one.log");
    let uri = format!("file://{path}");
    let io = Io { stdout: uri.clone(), stderr: uri, ..Io::default() };
    let task = host.shell("one", "echo out; echo err >&2; exit 4").io(io).start();
    assert_eq!(task.wait().status, 4);
    wait_until("both lines are there", SOON, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.contains("out\n") && text.contains("err\n")
    });
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o022, 0, "nobody else writes to it");
    task.finish();
}

/// A logger as `binary://` names it: takes both streams to files beside it, once it has
/// said that it is ready. Descriptor 5 says so by its end.
const LOGGER: &str = "#!/bin/sh\n\
    cat <&3 > \"$2.out\" 5>&- & cat <&4 > \"$2.err\" 5>&- &\n\
    echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $1\" > \"$2.who\"\n\
    exec 5>&-\n\
    wait\n";

fn logged(host: &Host, id: &str, script: &str) -> (String, u32) {
    let logger = host.site().program("logger", LOGGER);
    let base = host.site().path(id);
    let uri = format!("binary://{logger}?first={base}");
    let io = Io { stdout: uri.clone(), stderr: uri, ..Io::default() };
    let task = host.shell(id, script).io(io).start();
    let exit = task.wait();
    (base, exit.status)
}

fn output_goes_to_a_program() {
    let host = Host::new();
    let (base, status) = logged(&host, "one", "echo out; echo err >&2; exit 4");
    assert_eq!(status, 4);
    wait_until("both lines are there", SOON, || {
        let read = |name: &str| fs::read_to_string(format!("{base}.{name}")).unwrap_or_default();
        read("out") == "out\n" && read("err") == "err\n"
    });
}

fn a_program_that_takes_output_sees_which_container_it_is() {
    let host = Host::new();
    let (base, _) = logged(&host, "one", "true");
    let who = fs::read_to_string(format!("{base}.who")).expect("it said so before the start");
    assert_eq!(who, "one test first\n");
}

fn streams_belong_to_the_user_that_was_asked_for() {
    let host = Host::new();
    let task = host
        .shell(
            "one",
            "stat -Lc '%u %g' /proc/self/fd/1 /proc/self/fd/2; echo again > /proc/self/fd/2",
        )
        .configure(|config| {
            config["process"]["user"] = serde_json::json!({ "uid": 1000, "gid": 2000 });
        })
        .options(|options| {
            options.io_uid = 1000;
            options.io_gid = 2000;
        })
        .start();
    assert_eq!(task.wait().status, 0, "{}", task.stderr().text());
    assert_eq!(task.stdout().to_end(), "1000 2000\n1000 2000\n");
    assert_eq!(task.stderr().to_end(), "again\n");
    let owner = fs::metadata(&task.paths().stdout).expect("the pipe is there").uid();
    assert_eq!(owner, 0, "the far end stays ours");
    task.finish();
}
