//! The socket by which clients are attached to a container: containerd's own shim has none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hull_integration::shim::{Attached, Host, Io, Told};
use hull_integration::{reference_lacks, tests, wait_until};
use serde_json::Value;

tests![
    every_client_gets_both_streams_and_their_ends,
    what_clients_type_reaches_the_program,
    a_client_resizes_the_terminal,
    a_slow_client_is_dropped_and_counted,
    a_client_that_holds_loses_nothing_however_slow,
    nonsense_ends_one_client_alone,
    input_from_clients_needs_a_socket,
    the_socket_is_roots_and_goes_with_the_container,
    the_socket_of_a_killed_shim_is_removed,
];

fn socket(host: &Host) -> String {
    host.site().path("attach.sock")
}

fn streams(host: &Host, terminal: bool) -> Io {
    let log = host.site().path("one.log");
    Io {
        stdin: "hull-attach:".to_owned(),
        stdout: format!("hull-log://{log}?attach={}", socket(host)),
        stderr: String::new(),
        terminal,
    }
}

fn every_client_gets_both_streams_and_their_ends() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let script = "read a; echo out $a; echo err $a >&2; read b; exit 3";
    let task = host.shell("one", script).io(streams(&host, false)).start();
    let mut clients = [0; 3].map(|_| Attached::connect(socket(&host)));
    clients[0].write("one\n");
    for client in &mut clients {
        assert_eq!(client.read_until(1, "\n"), "out one\n");
        assert_eq!(client.read_until(2, "\n"), "err one\n");
    }
    // What was before a client came is in the log alone.
    let mut late = Attached::connect(socket(&host));
    clients[1].write("two\n");
    for client in clients.iter_mut().chain([&mut late]) {
        let mut ended = client.read_to_close();
        ended.sort_unstable();
        assert_eq!(ended, [1, 2]);
    }
    assert_eq!(task.finish().status, 3);
}

fn what_clients_type_reaches_the_program() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let task = host.shell("one", "cat; echo ended; exit 4").io(streams(&host, false)).start();
    let mut first = Attached::connect(socket(&host));
    let mut second = Attached::connect(socket(&host));
    first.write("first\n");
    second.read_until(1, "first\n");
    drop(first);
    // Input stays open while nobody is attached who could have closed it.
    second.write("second\n");
    second.read_until(1, "second\n");
    second.close_input();
    second.read_until(1, "ended\n");
    assert_eq!(task.finish().status, 4);
}

fn a_client_resizes_the_terminal() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let script = "while read x; do stty size; done";
    let task = host.shell("one", script).io(streams(&host, true)).start();
    let mut client = Attached::connect(socket(&host));
    client.resize(123, 45);
    client.write("\n");
    client.read_until(1, "45 123\r\n");
    // ^D: the terminal's own end of input.
    client.write("\u{4}");
    assert_eq!(task.finish().status, 0);
}

fn a_slow_client_is_dropped_and_counted() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let script = "while read x; do head -c 65535 /dev/zero | tr '\\0' x; echo; done; exit 5";
    let task = host.shell("one", script).io(streams(&host, false)).start();
    let mut slow = Attached::connect(socket(&host));
    let mut fast = Attached::connect(socket(&host));
    // More than the shim keeps for a client, and the kernel for a socket.
    for _ in 0..40 {
        fast.write("go\n");
        assert_eq!(fast.read_until(1, "\n").len(), 65536);
    }
    fast.close_input();
    assert_eq!(task.wait().status, 5);
    let mut ended = fast.read_to_close();
    ended.sort_unstable();
    assert_eq!(ended, [1, 2]);
    // The connection was closed before any end.
    assert!(slow.read_to_close().is_empty());
    let record = format!("{}/exit.json", host.launch("one").bundle);
    let record: Value =
        serde_json::from_slice(&fs::read(record).expect("it has ended")).expect("JSON");
    assert_eq!(record["droppedClients"], 1);
    task.finish();
}

fn a_client_that_holds_loses_nothing_however_slow() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    // More than the shim keeps for a client, and the kernel for a socket.
    let script = "read x; head -c 4000000 /dev/zero | tr '\\0' x; echo end >&2; exit 7";
    let task = host.shell("one", script).io(streams(&host, false)).start();
    let mut slow = Attached::connect(socket(&host));
    slow.send(19, 0, b"");
    slow.write("go\n");
    // It is at work, and cannot end: nobody reads.
    let log = host.site().path("one.log");
    let limit = Duration::from_secs(20);
    wait_until("output in the log", limit, || {
        fs::metadata(&log).is_ok_and(|data| data.len() > 65536)
    });
    assert!(!Path::new(&format!("{}/exit.json", host.launch("one").bundle)).exists());
    let mut output = 0;
    let mut errors = Vec::new();
    loop {
        match slow.take() {
            Told::Output(1, bytes) => output += bytes.len(),
            Told::Output(_, bytes) => errors.extend(bytes),
            Told::Hello(_) | Told::End(_) => {}
            Told::Closed => break,
        }
    }
    assert_eq!((output, errors.as_slice()), (4_000_000, &b"end\n"[..]));
    assert_eq!(task.finish().status, 7);
}

fn nonsense_ends_one_client_alone() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let task = host.shell("one", "cat; exit 6").io(streams(&host, false)).start();
    let mut good = Attached::connect(socket(&host));
    for (kind, stream, payload) in [
        (99, 0, &b""[..]),
        (16, 1, b"x"),
        (17, 0, b"x"),
        (18, 0, b"xyz"),
        (1, 1, b"output"),
        (16, 0, &[b'x'; 65537]),
    ] {
        let mut bad = Attached::connect(socket(&host));
        bad.send(kind, stream, payload);
        assert_eq!(bad.take(), Told::Closed, "after type {kind}");
    }
    // A size for what has no terminal is not the client's fault.
    good.resize(80, 25);
    good.write("alive\n");
    assert_eq!(good.read_until(1, "\n"), "alive\n");
    good.close_input();
    assert_eq!(task.finish().status, 6);
}

fn input_from_clients_needs_a_socket() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let log = format!("hull-log://{}", host.site().path("one.log"));
    for (id, stdout) in [("one", log), ("two", String::new())] {
        let io = Io { stdin: "hull-attach:".to_owned(), stdout, ..Io::default() };
        let refused = host.shell(id, "cat").io(io).try_create().expect_err("nobody could type");
        assert!(refused.message.contains("needs a log with an attach socket"), "{refused:?}");
    }
}

fn the_socket_is_roots_and_goes_with_the_container() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let task = host.shell("one", "cat").io(streams(&host, false)).start();
    let mode = fs::metadata(socket(&host)).expect("it listens").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Attached::connect(socket(&host));
    client.close_input();
    task.finish();
    assert!(!Path::new(&socket(&host)).exists());
}

fn the_socket_of_a_killed_shim_is_removed() {
    reference_lacks!("it has no attach socket");
    let host = Host::new();
    let task = host.shell("one", "cat").io(streams(&host, false)).start();
    host.kill_shim("one");
    drop(task);
    assert_eq!(host.delete_after_shim("one").exit_status, 137);
    assert!(!Path::new(&socket(&host)).exists());
}
