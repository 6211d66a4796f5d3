//! Which functions of a program run: a breakpoint at the first instruction of each, which is gone
//! once it was hit. So each costs one stop, and what is not called costs nothing.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sections::Section;

/// `int3` of x86-64.
const BREAKPOINT: u8 = 0xcc;

/// Runs a program to its end, and writes the address of each function as it is first called, a
/// line each: whoever ends the program may end this, and it with it.
pub(crate) fn trace(sections: &[Section], program: &str, args: &[&str], hits: &Path) -> Result<()> {
    let mut hits = OpenOptions::new().create(true).append(true).open(hits)?;
    // It waits to be seized; what it executes then is the program.
    let stop = "kill -STOP $$; exec \"$0\" \"$@\"";
    let child = Command::new("/bin/sh").args(["-c", stop, program]).args(args).spawn()?;
    let main = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(main, Some(WaitPidFlag::WUNTRACED))?;
    let options = Options::PTRACE_O_EXITKILL
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(main, options).context("trace the program (CAP_SYS_PTRACE)")?;
    kill(main, Signal::SIGCONT)?;
    let mut covered = BTreeMap::new();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
        match status {
            WaitStatus::PtraceEvent(pid, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                if pid == main {
                    covered = cover(pid, sections).context("set the breakpoints")?;
                } else {
                    // Another program, or this one once more without breakpoints.
                    ptrace::detach(pid, None)?;
                    continue;
                }
            }
            WaitStatus::PtraceEvent(..) => {}
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                if let Some(address) = uncover(pid, &covered)? {
                    writeln!(hits, "{address:x}")?;
                }
            }
            WaitStatus::Stopped(pid, signal) => {
                // A process that was killed in between says so itself.
                let _ = ptrace::cont(pid, signal);
                continue;
            }
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == main => {
                return Ok(());
            }
            _ => continue,
        }
        if let Some(pid) = status.pid() {
            let _ = ptrace::cont(pid, None);
        }
    }
}

fn memory(pid: Pid) -> Result<File> {
    Ok(OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"))?)
}

/// Sets all breakpoints; gives what was in their places.
fn cover(pid: Pid, sections: &[Section]) -> Result<BTreeMap<u64, u8>> {
    let (Some(first), Some(last)) = (sections.first(), sections.last()) else {
        bail!("the map has no functions");
    };
    let memory = memory(pid)?;
    let mut text = vec![0; usize::try_from(last.address + 1 - first.address)?];
    memory.read_exact_at(&mut text, first.address)?;
    let mut covered = BTreeMap::new();
    for section in sections {
        if let Some(byte) = text.get_mut(usize::try_from(section.address - first.address)?)
            && !covered.contains_key(&section.address)
        {
            covered.insert(section.address, std::mem::replace(byte, BREAKPOINT));
        }
    }
    memory.write_all_at(&text, first.address)?;
    Ok(covered)
}

/// Takes the breakpoint away that a thread has run into, and has it go on there. Two threads may
/// have run into the same one.
fn uncover(pid: Pid, covered: &BTreeMap<u64, u8>) -> Result<Option<u64>> {
    let mut registers = ptrace::getregs(pid)?;
    let address = registers.rip - 1;
    let Some(byte) = covered.get(&address) else { return Ok(None) };
    memory(pid)?.write_all_at(&[*byte], address)?;
    registers.rip = address;
    ptrace::setregs(pid, registers)?;
    Ok(Some(address))
}
