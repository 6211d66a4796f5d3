//! What a person does at a terminal.

use std::time::Duration;

use hull_integration::engine::{Engine, Terminal};
use hull_integration::{tests, wait_until};

tests![
    run_on_a_terminal,
    the_terminal_has_the_size_of_the_persons,
    exec_on_a_terminal,
    attach_detach_and_attach_again,
    attach_has_the_screen_drawn_again,
    detaching_leaves_the_container_running,
    a_pipe_goes_through_a_container,
    a_large_pipe_goes_through_unchanged,
    streams_are_kept_apart,
    control_c_reaches_the_program,
    start_attached_and_interactive,
    a_slow_reader_loses_nothing,
];

const SOON: Duration = Duration::from_secs(15);
const DETACH: &str = "\u{10}\u{11}";

fn converse(mut terminal: Terminal) {
    terminal.read_until("/ #");
    terminal.write("echo $((6 * 7)); tty\n");
    terminal.read_until("42");
    terminal.read_until("/dev/pts/0");
    terminal.write("exit 3\n");
    assert_eq!(terminal.exit_code(), Some(3));
}

fn run_on_a_terminal() {
    let engine = Engine::start();
    converse(engine.terminal(&["run", "--rm", "-it", "--network", "none", "busybox", "sh"]));
    engine.run(&["ps", "-aq"]).ok().says("");
}

fn the_terminal_has_the_size_of_the_persons() {
    let engine = Engine::start();
    let mut terminal =
        engine.terminal(&["run", "--rm", "-it", "--network", "none", "busybox", "sh"]);
    terminal.read_until("/ #");
    // A shell of its own, whose programs are one job: between two jobs of an interactive shell
    // the terminal has none in its foreground, and the key is lost.
    terminal.write("sh -c 'while :; do stty size; sleep 0.1; done'\n");
    terminal.read_until("33 101");
    terminal.resize_until(44, "44 101");
    terminal.write("\u{3}");
    terminal.read_until("/ #");
    terminal.write("exit\n");
    // The loop was interrupted: 128 + SIGINT.
    assert!(matches!(terminal.exit_code(), Some(0 | 130)));
}

fn exec_on_a_terminal() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    let mut terminal = engine.terminal(&["exec", "-it", "one", "sh"]);
    terminal.read_until("/ #");
    terminal.write("echo $((6 * 7)); exit 3\n");
    terminal.read_until("42");
    assert_eq!(terminal.exit_code(), Some(3));
}

fn attach_detach_and_attach_again() {
    let engine = Engine::start();
    engine.run(&["run", "-dit", "--name", "one", "--network", "none", "busybox", "sh"]).ok();
    let mut terminal = engine.terminal(&["attach", "one"]);
    // The shell's answer: before that, keys may reach a terminal that is not yet raw.
    terminal.write("a=kept; echo re''ady\n");
    terminal.read_until("ready");
    terminal.write(DETACH);
    terminal.read_until("read escape sequence");
    assert_eq!(terminal.exit_code(), Some(1));
    assert_eq!(engine.inspect("one", "{{.State.Status}}"), "running");
    let mut terminal = engine.terminal(&["attach", "--detach-keys", "ctrl-x", "one"]);
    terminal.write("echo \"<$a>\"\n");
    terminal.read_until("<kept>");
    terminal.write("\u{18}");
    assert_eq!(terminal.exit_code(), Some(1));
    let mut terminal = engine.terminal(&["attach", "one"]);
    terminal.write("exit 4\n");
    assert_eq!(terminal.exit_code(), Some(4));
}

fn attach_has_the_screen_drawn_again() {
    let engine = Engine::start();
    let script = "trap 'echo drawn' WINCH; echo ready; while :; do sleep 0.05; done";
    let run = ["run", "-dit", "--name", "one", "--network", "none", "busybox", "sh", "-c", script];
    engine.run(&run).ok();
    let logged = |text: &str| engine.run(&["logs", "one"]).ok().text().matches(text).count();
    wait_until("the program listens", SOON, || logged("ready") == 1);
    // The first one changes the size, the others have the same.
    for _ in 0..3 {
        let drawn = logged("drawn");
        let terminal = engine.terminal(&["attach", "one"]);
        wait_until("it is drawn", SOON, || logged("drawn") > drawn);
        drop(terminal);
    }
    assert!(logged("drawn") >= 3);
}

fn detaching_leaves_the_container_running() {
    let engine = Engine::start();
    let mut terminal =
        engine.terminal(&["run", "-it", "--name", "one", "--network", "none", "busybox", "sh"]);
    terminal.read_until("/ #");
    terminal.write(DETACH);
    assert_eq!(terminal.exit_code(), Some(0));
    engine.run(&["exec", "one", "true"]).ok();
}

fn a_pipe_goes_through_a_container() {
    let engine = Engine::start();
    let cat = ["run", "--rm", "-i", "--network", "none", "busybox", "cat"];
    engine.call(&cat).stdin("one\ntwo\n").run().ok().says("one\ntwo");
    engine.call(&cat).stdin("").run().ok().says("");
    let sort = ["run", "--rm", "-i", "--network", "none", "busybox", "sort", "-r"];
    engine.call(&sort).stdin("a\nb\n").run().ok().says("b\na");
}

fn a_large_pipe_goes_through_unchanged() {
    let engine = Engine::start();
    let line = "0123456789abcdef".repeat(8) + "\n";
    let text = line.repeat(32 << 10);
    let sum = [
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "cat | tee /tmp/x | md5sum; wc -c < /tmp/x",
    ];
    let through = engine.call(&sum).stdin(&text).run().ok();
    assert_eq!(through.lines().last(), Some(&&*text.len().to_string()), "{}", through.transcript());
    let cat = ["run", "--rm", "-i", "--network", "none", "busybox", "cat"];
    let back = engine.call(&cat).stdin(&text).run().ok();
    assert_eq!(back.text().len(), text.trim_end().len());
    assert!(back.text() == text.trim_end(), "the bytes are others");
}

fn streams_are_kept_apart() {
    let engine = Engine::start();
    let output = engine.shell(&[], "echo out; echo err >&2").ok();
    assert_eq!(output.text(), "out");
    output.stderr_says("err");
}

fn control_c_reaches_the_program() {
    let engine = Engine::start();
    let script = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal = engine.terminal(&[
        "run",
        "--rm",
        "-t",
        "-i",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    terminal.read_until("ready");
    terminal.write("\u{3}");
    terminal.read_until("caught");
    assert_eq!(terminal.exit_code(), Some(6));
}

fn start_attached_and_interactive() {
    let engine = Engine::start();
    engine.run(&["create", "-it", "--name", "one", "--network", "none", "busybox", "sh"]).ok();
    converse(engine.terminal(&["start", "-ai", "one"]));
    converse(engine.terminal(&["start", "-ai", "one"]));
    wait_until("it has ended", SOON, || engine.inspect("one", "{{.State.Status}}") == "exited");
}

fn a_slow_reader_loses_nothing() {
    let engine = Engine::start();
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; i=$((i+1)); done";
    let words = engine.words(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("{} | {{ sleep 3; wc -l; }}", quoted.join(" "));
    hull_integration::engine::command(&["/bin/sh", "-c", &line]).run().ok().says("20000");
}
