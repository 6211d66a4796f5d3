//! Containers and execs on a terminal.

use std::sync::atomic::Ordering;

use hull_integration::shim::{Host, SLEEPER, SOON};
use hull_integration::{tests, wait_until};

use crate::stdio::{block, expect_blocks, megabytes, with_block};

tests![
    a_container_has_its_terminal,
    a_terminal_has_the_size_it_was_given,
    what_is_typed_on_a_terminal_reaches_the_program,
    a_terminal_sends_signals_from_keys,
    an_exec_has_a_terminal_of_its_own,
    resizing_what_has_no_terminal_harms_nothing,
    a_terminal_goes_on_when_its_reader_comes_back,
    the_last_words_on_a_terminal_arrive,
    every_byte_arrives_through_a_terminal,
];

fn a_container_has_its_terminal() {
    let host = Host::new();
    let task =
        host.shell("one", "tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ]; exit $?").with_console().create();
    assert!(task.state().terminal);
    task.start();
    assert_eq!(task.wait().status, 0);
    assert_eq!(task.stdout().to_end(), "/dev/pts/0\r\n");
    task.finish();
}

fn a_terminal_has_the_size_it_was_given() {
    let host = Host::new();
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done";
    let task = host.shell("one", script).with_console().create();
    task.try_resize(101, 33).expect("it has a terminal");
    task.start();
    let console = task.terminal();
    console.read_until("ready");
    task.try_resize(120, 40).expect("it has a terminal");
    console.read_until("40 120\r\n");
    task.try_resize(90, 20).expect("it has a terminal");
    console.read_until("20 90\r\n");
    task.kill(9);
    task.finish();
}

fn what_is_typed_on_a_terminal_reaches_the_program() {
    let host = Host::new();
    let task = host.shell("one", "read line; echo got $line; exit 5").with_console().start();
    let mut console = task.terminal();
    console.write("typed\n");
    console.read_until("got typed\r\n");
    assert_eq!(task.wait().status, 5);
    drop(console);
    task.finish();
}

fn a_terminal_sends_signals_from_keys() {
    let host = Host::new();
    let script = "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.02; done";
    let task = host.shell("one", script).with_console().start();
    let mut console = task.terminal();
    console.read_until("ready");
    console.write("\u{3}");
    console.read_until("interrupted");
    assert_eq!(task.wait().status, 6);
    drop(console);
    task.finish();
}

fn an_exec_has_a_terminal_of_its_own() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).with_console().start();
    let process = task.exec_with("first", host.console(), &["sh"]);
    process.start();
    process.try_resize(77, 22).expect("it has a terminal");
    let mut console = process.terminal();
    console.write("tty; until stty size | grep -q '22 77'; do sleep 0.02; done; echo sized\n");
    console.read_until("/dev/pts/1\r\n");
    console.read_until("\r\nsized\r\n");
    console.write("exit 4\n");
    assert_eq!(process.wait().status, 4);
    drop(console);
    assert_eq!(process.delete().status, 4);
    task.kill(9);
    task.finish();
}

fn resizing_what_has_no_terminal_harms_nothing() {
    let host = Host::new();
    let task = host.shell("one", SLEEPER).start();
    // containerd's own shim says yes.
    let _ = task.try_resize(80, 24);
    assert_eq!(task.run("first", "echo served"), (0, "served\n".to_owned()));
}

fn a_terminal_goes_on_when_its_reader_comes_back() {
    let host = Host::new();
    let mut task =
        host.shell("one", "while read line; do echo got $line; done").with_console().start();
    let mut console = task.terminal();
    console.write("first\n");
    console.read_until("got first\r\n");
    drop(console);
    task.init.stop_reading();
    task.init.read_again();
    let mut console = task.terminal();
    console.write("second\n");
    console.read_until("got second\r\n");
    drop(console);
    task.kill(9);
    task.finish();
}

fn the_last_words_on_a_terminal_arrive() {
    let host = Host::new();
    // More than a terminal's buffer, and then the end at once.
    let task = host.shell("one", "seq 1 3000; echo last").with_console().start();
    assert_eq!(task.wait().status, 0);
    task.delete();
    let output = task.stdout().to_end();
    assert_eq!(output.lines().count(), 3001);
    assert!(output.ends_with("3000\r\nlast\r\n"), "{:?}", &output[output.len() - 20..]);
    host.shut_down("one");
}

fn every_byte_arrives_through_a_terminal() {
    let host = Host::new();
    let block = block();
    let total = megabytes();
    let script =
        format!("stty raw; n=0; while [ $n -lt {total} ]; do cat /block; n=$((n+1)); done");
    let io = host.console();
    let (stream, right) = expect_blocks(&io.stdout, block.clone());
    let task = with_block(&host, host.shell("one", &script), &block).io(io).unread().start();
    assert_eq!(task.try_wait(SOON * 10).expect("it ends").status, 0);
    wait_until("the end of the output", SOON, || stream.ended());
    assert_eq!(right.load(Ordering::SeqCst), total << 20);
    drop(stream);
    task.finish();
}
