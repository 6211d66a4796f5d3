//! `hull-init [--] COMMAND [ARG…]`: process 1 of a container that asks for one (`--init`).
//!
//! The kernel gives process 1 no default action for signals and all orphans. Programs that were
//! not written for that neither end at SIGTERM nor reap. This one starts the command in a process
//! group of its own, which gets the terminal if there is one, passes on every signal that it gets,
//! reaps whoever ends, and ends when the command does: with its exit code, or 128 + n for a signal.
//! A command that can't be run gives 127, or 126 if it is there.
//!
//! It does what tini does, which docker has for this, and takes none of its options: the manager is
//! its only caller.
#![forbid(unsafe_code)]

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::OsStringExt as _,
    process::ExitCode,
};

use hull_runtime_sys::{
    Error, Result, fd,
    process::{self, StringArray},
    signal::{self, Mask},
    spawn::{Fork, fork},
    tty,
};

/// What a shell gives for a command that is not there, and for one that can't be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Where commands are looked for without a PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    } else if words.first().is_some_and(|word| word == "--version") {
        println!("hull-init {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if words.is_empty() {
        eprintln!("usage: hull-init [--] COMMAND [ARG...]");
        return ExitCode::FAILURE;
    }
    match run(words) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("hull-init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: Vec<OsString>) -> Result<u8> {
    if process::id() != 1 {
        // Orphans come to process 1, or to who asks for them.
        process::set_subreaper(true)?;
    }
    // From here on no signal is lost: they wait in the descriptor.
    let mask = signal::block_all()?;
    let signals = signal::descriptor()?;
    let child = match fork()? {
        Fork::Child => return Ok(become_command(words, mask)),
        Fork::Parent(child) => child,
    };
    drop(words);
    loop {
        process::wait_readable(&signals, -1)?;
        while let Some(received) = signal::next(&signals)? {
            if received.signal != libc::SIGCHLD {
                // It may have ended just now: then the exit code says so.
                drop(process::kill(child, received.signal));
            }
        }
        // One SIGCHLD may stand for many.
        let mut code = None;
        while let Some((pid, exit)) = process::reap_any()? {
            if pid == child {
                code = Some(exit.shell_code());
            }
        }
        if let Some(code) = code {
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
    }
}

/// Does not come back unless the command can't be run: the exit code that says so.
fn become_command(words: Vec<OsString>, mask: Mask) -> u8 {
    let name = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let error = match start(words, mask) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("hull-init: exec {name}: {}", error.reason());
    match error.errno() {
        libc::ENOENT => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}

fn start(words: Vec<OsString>, mask: Mask) -> Result<std::convert::Infallible> {
    process::lead_group()?;
    // Signals of the keyboard are for the command; while all are blocked, a background process may
    // give the terminal away. There may be none.
    drop(tty::set_foreground(fd::STDIN, process::id()));
    signal::reset_dispositions();
    mask.restore()?;
    let path = words[0].clone();
    let args = StringArray::new(c_strings(words)?);
    let env = std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    let env = StringArray::new(c_strings(env.collect())?);
    Err(execute(&path, &args, &env))
}

fn c_strings(words: Vec<OsString>) -> Result<Vec<CString>> {
    words
        .into_iter()
        .map(|word| CString::new(word.into_vec()).map_err(|_| Error::new("execve", libc::EINVAL)))
        .collect()
}

/// As execvp(3): a name without a slash is looked for in PATH; of all failures, that a file is
/// there and may not be executed is the one to tell.
fn execute(name: &OsString, args: &StringArray, env: &StringArray) -> Error {
    let try_at = |path: OsString| match CString::new(path.into_vec()) {
        Ok(path) => process::execve(&path, args, env),
        Err(_) => Error::new("execve", libc::EINVAL),
    };
    if name.is_empty() || name.as_encoded_bytes().contains(&b'/') {
        return try_at(name.clone());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut denied = None;
    for directory in std::env::split_paths(&path) {
        let directory = if directory.as_os_str().is_empty() { ".".into() } else { directory };
        let error = try_at(directory.join(name).into_os_string());
        match error.errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => denied = Some(error),
            _ => return error,
        }
    }
    denied.unwrap_or_else(|| Error::new("execve", libc::ENOENT))
}
