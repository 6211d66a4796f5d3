//! At a terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Stdio},
};

use hull_runtime_sys::tty;
use nix::sys::termios::tcgetattr;

use crate::{hull, manager::Manager};

struct Terminal {
    master: File,
    peer: OwnedFd,
}

impl Terminal {
    fn open() -> Self {
        let ptmx = File::options().read(true).write(true).open("/dev/ptmx").expect("a terminal");
        let (master, peer, _) = tty::open_pair(ptmx.into()).expect("a pair");
        tty::set_size(&master, 33, 77).expect("a size");
        Self { master: master.into(), peer }
    }

    fn end(&self) -> Stdio {
        self.peer.try_clone().expect("a descriptor").into()
    }

    fn spawn(&self, manager: &Manager, line: &str) -> Child {
        let mut command = hull(manager, line);
        command.stdin(self.end()).stdout(self.end()).stderr(self.end());
        command.spawn().expect("the program runs")
    }

    /// Reads until the text was seen.
    fn expect(&mut self, text: &str) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(text.as_bytes()) {
            self.master.read_exact(&mut byte).expect("more output");
            seen.push(byte[0]);
        }
    }
}

#[test]
fn a_person_types_leaves_by_keys_and_has_the_terminal_back() {
    let manager = Manager::start();
    let mut terminal = Terminal::open();
    let before = tcgetattr(&terminal.peer).expect("a mode");
    let mut child = terminal.spawn(&manager, "run -it busybox cat");
    manager.wait_for("size 77x33");
    terminal.master.write_all(b"a\x10b").expect("it reads");
    terminal.expect("a\x10b");
    tty::set_size(&terminal.master, 20, 50).expect("a size");
    // No controlling terminal sends it here.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH).expect("it lives");
    manager.wait_for("size 50x20");
    terminal.master.write_all(b"\x10\x11").expect("it reads");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(tcgetattr(&terminal.peer).expect("a mode"), before);
}

#[test]
fn the_terminal_is_back_after_a_failure_too() {
    let manager = Manager::start();
    let terminal = Terminal::open();
    let before = tcgetattr(&terminal.peer).expect("a mode");
    let mut child = terminal.spawn(&manager, "run -it busybox breaks");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert_eq!(tcgetattr(&terminal.peer).expect("a mode"), before);
}

#[test]
fn names_are_escaped_on_a_terminal() {
    let manager = Manager::start();
    let mut terminal = Terminal::open();
    let mut child = terminal.spawn(&manager, "ps -a");
    terminal.expect("evil\\x1b[31m");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
