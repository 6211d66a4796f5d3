//! Executables that a test writes.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Writes a program that can be executed at once.
///
/// The kernel executes no file that somebody has open for writing (`ETXTBSY`), and every
/// child that another thread starts meanwhile has it open until its own exec, which on a busy
/// machine is late. So the file is open only in a thread with descriptors of its own.
#[track_caller]
pub fn write_program(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let (path, content) = (path.as_ref(), content.as_ref());
    let write = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_FILES)?;
        fs::write(path, content)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))
    };
    let written = thread::scope(|scope| scope.spawn(write).join()).expect("it does not panic");
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn programs_run_while_other_threads_start_others() {
        let directory = tempfile::tempdir().unwrap();
        let program = vec![b'#'; 1 << 20];
        thread::scope(|scope| {
            for number in 0..8 {
                let path = directory.path().join(number.to_string());
                let program = [b"#!/bin/sh\nexit 0\n", &program[..]].concat();
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_program(&path, &program);
                        assert!(Command::new(&path).status().unwrap().success());
                    }
                });
            }
        });
    }
}
