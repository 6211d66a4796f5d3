//! Terminals: the console socket, the slave inside, its size and owner.

use std::fs;

use hull_integration::{Bundle, ConsoleSocket, Container, SOON, peer_lacks, tests, wait_until};
use serde_json::json;

tests![
    the_master_is_sent_over_the_console_socket,
    the_program_has_a_controlling_terminal,
    input_and_output_pass_through_the_terminal,
    the_console_size_is_set,
    the_terminal_belongs_to_the_user,
    exec_has_a_terminal_of_its_own,
    exec_takes_the_terminal_from_the_process_file,
    exec_sets_the_console_size,
    a_terminal_without_a_console_socket_is_refused,
    a_console_socket_without_a_terminal_is_refused,
    a_missing_console_socket_is_refused,
    dev_console_is_the_terminal,
    the_terminal_closes_with_its_program,
];

/// A created and started container with a terminal, and the master side.
fn with_terminal(bundle: Bundle) -> (Container, hull_integration::Pty) {
    let container = Container::new(bundle.set("/process/terminal", true));
    let socket = ConsoleSocket::bind(container.bundle.dir());
    container.with_bundle(&["create", "--console-socket", socket.path()]).run().ok();
    let terminal = socket.terminal(SOON);
    container.start().ok();
    (container, terminal)
}

fn the_master_is_sent_over_the_console_socket() {
    peer_lacks!("crun 1.8", "it sends no name");
    let (_container, mut terminal) = with_terminal(Bundle::shell("echo from inside"));
    assert!(terminal.name.starts_with('/'), "the payload names a terminal: {:?}", terminal.name);
    assert!(terminal.read_to_end(SOON).contains("from inside\r\n"), "output is processed");
}

fn the_program_has_a_controlling_terminal() {
    let script = "tty; echo x > /dev/tty; cut -d' ' -f5,6,7,8 /proc/$$/stat";
    let (_container, mut terminal) = with_terminal(Bundle::shell(script));
    let seen = terminal.read_to_end(SOON);
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines[0].starts_with("/dev/"), "{seen:?}");
    assert_eq!(lines[1], "x");
    // Process group and session are its own, a terminal is there and we are in its foreground.
    let fields: Vec<i64> = lines[2].split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(fields[0] == 1 && fields[1] == 1 && fields[2] != 0, "{seen:?}");
}

fn input_and_output_pass_through_the_terminal() {
    let (container, mut terminal) = with_terminal(Bundle::new().args(&["sh"]));
    terminal.write("echo $((40+2))\n");
    terminal.read_until("42\r\n", SOON);
    terminal.write("exit\n");
    terminal.read_to_end(SOON);
    container.wait_status("stopped");
}

fn the_console_size_is_set() {
    let size = json!({ "height": 33, "width": 111 });
    let bundle = Bundle::new().args(&["stty", "size"]).set("/process/consoleSize", size);
    let (_container, mut terminal) = with_terminal(bundle);
    assert_eq!(terminal.read_to_end(SOON).trim(), "33 111");
}

fn the_terminal_belongs_to_the_user() {
    let bundle = Bundle::shell("stat -Lc %u /proc/self/fd/0; echo again > /proc/self/fd/1")
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let (_container, mut terminal) = with_terminal(bundle);
    assert_eq!(terminal.read_to_end(SOON), "1000\r\nagain\r\n");
}

fn exec_with_terminal(
    container: &Container,
    options: &[&str],
    args: &[&str],
) -> hull_integration::Pty {
    let socket = ConsoleSocket::bind(container.bundle.dir());
    let mut words = vec!["--console-socket", socket.path(), "--detach"];
    words.extend(options);
    container.exec_with(&words, args).ok();
    socket.terminal(SOON)
}

fn exec_has_a_terminal_of_its_own() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let mut terminal = exec_with_terminal(&container, &["--tty"], &["sh", "-c", "tty; echo done"]);
    let seen = terminal.read_to_end(SOON);
    assert!(seen.starts_with("/dev/pts/") && seen.ends_with("done\r\n"), "{seen:?}");
}

fn exec_takes_the_terminal_from_the_process_file() {
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let path = container.bundle.dir().join("process.json");
    let process = json!({
        "terminal": true, "user": { "uid": 0, "gid": 0 }, "args": ["tty"], "env": ["PATH=/bin"], "cwd": "/",
    });
    fs::write(&path, process.to_string()).expect("writable");
    let mut terminal =
        exec_with_terminal(&container, &["--process", path.to_str().expect("text")], &[]);
    assert!(terminal.read_to_end(SOON).starts_with("/dev/pts/"));
}

fn exec_sets_the_console_size() {
    peer_lacks!("crun 1.8", "exec has no size");
    let container = Container::new(Bundle::sleeper());
    container.run_detached().ok();
    let path = container.bundle.dir().join("process.json");
    let process = json!({
        "terminal": true, "consoleSize": { "height": 10, "width": 110 }, "user": { "uid": 0, "gid": 0 },
        "args": ["stty", "size"], "env": ["PATH=/bin"], "cwd": "/",
    });
    fs::write(&path, process.to_string()).expect("writable");
    let mut terminal =
        exec_with_terminal(&container, &["--process", path.to_str().expect("text")], &[]);
    assert_eq!(terminal.read_to_end(SOON).trim(), "10 110");
}

fn a_terminal_without_a_console_socket_is_refused() {
    peer_lacks!("crun 1.8", "it goes on without a terminal");
    let container = Container::new(Bundle::sleeper().set("/process/terminal", true));
    container.create().fails();
    container.run_detached().fails();
    container.assert_gone();
}

fn a_console_socket_without_a_terminal_is_refused() {
    peer_lacks!("crun", "it ignores the socket");
    let container = Container::new(Bundle::sleeper());
    let socket = ConsoleSocket::bind(container.bundle.dir());
    container.with_bundle(&["create", "--console-socket", socket.path()]).run().fails();
    container.assert_gone();
}

fn a_missing_console_socket_is_refused() {
    let container = Container::new(Bundle::sleeper().set("/process/terminal", true));
    container.with_bundle(&["create", "--console-socket", "/no/such/socket"]).run().fails();
    container.assert_gone();
}

fn dev_console_is_the_terminal() {
    let (_container, mut terminal) =
        with_terminal(Bundle::shell("echo to the console > /dev/console"));
    assert!(terminal.read_to_end(SOON).contains("to the console"));
    // Without a terminal there is none.
    let container =
        Container::new(Bundle::shell("test -c /dev/console && echo there || echo none"));
    assert_eq!(container.run().ok().text(), "none");
}

fn the_terminal_closes_with_its_program() {
    let (container, mut terminal) = with_terminal(Bundle::sleeper());
    container.stop();
    terminal.read_to_end(SOON);
    wait_until("nothing runs", SOON, || container.processes().is_empty());
}
