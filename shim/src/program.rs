//! Programs that are run to their end: the runtime, and what mounts a root file system.

use std::{
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use futures_util::future::{Either, select};
use hull_runtime_sys::{
    fd, path, process,
    process::Exit,
    spawn::{self, Program},
};

use crate::reactor::{self, Source};

/// Most that is kept of what a program prints, in bytes. The runtime's `ps` of 100,000
/// processes fits.
const MAX_OUTPUT: usize = 1 << 20;

/// How long a killed program may take to end: what the kernel holds can take for ever.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A program without its descriptors. It ends with this process (`PDEATHSIG`), so that none
/// goes on behind the back of a `delete` that cleans up after a killed shim.
pub(crate) struct Call<'a> {
    pub(crate) program: &'a Path,
    /// Its arguments, beginning with its name.
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
}

impl Call<'_> {
    /// Runs it on these descriptors, and waits for its end.
    ///
    /// # Errors
    /// Those of the exec.
    pub(crate) async fn run_on(self, fds: &[BorrowedFd<'_>]) -> Result<Exit> {
        let expected = reactor::expect_children();
        let child = self.spawn(fds)?;
        Ok(reactor::wait_for(&expected, child.pid).await)
    }

    /// Runs it to its end, and gives what it prints on both streams. It is killed if it takes
    /// longer than `limit`, if there is one.
    ///
    /// # Errors
    /// Those of the exec; it takes too long; it prints too much.
    pub(crate) async fn run(
        self,
        stdin: OwnedFd,
        limit: Option<Duration>,
    ) -> Result<(Exit, Vec<u8>)> {
        let (reader, writer) = fd::pipe()?;
        let expected = reactor::expect_children();
        let child = self.spawn(&[stdin.as_fd(), writer.as_fd(), writer.as_fd()])?;
        drop((stdin, writer));
        fd::set_nonblocking(&reader, true)?;
        let reader = Source::new(reader);
        let mut output = Vec::new();
        let running = async {
            let exit = reactor::wait_for(&expected, child.pid);
            let reading = std::pin::pin!(read_all(&reader, &mut output));
            match select(exit, reading).await {
                Either::Left((exit, _)) => Ok(exit),
                Either::Right((result, exit)) => {
                    result?;
                    Ok(exit.await)
                }
            }
        };
        let ended = match limit {
            None => Some(running.await),
            Some(limit) => reactor::within(limit, running).await,
        };
        let exit = match ended {
            Some(Ok(exit)) => exit,
            failed => {
                // It can end by itself at any moment.
                let _ = process::send_signal(&child.pidfd, libc::SIGKILL);
                reactor::within(KILL_LIMIT, Source::new(child.pidfd).readable()).await;
                match failed {
                    Some(Err(error)) => return Err(error),
                    _ => bail!("it has not ended in {:?}", limit.unwrap_or_default()),
                }
            }
        };
        // What it wrote last can still be in the pipe, which something it left may hold open.
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = fd::read(&reader, &mut buffer) {
            keep(&mut output, &buffer[..n])?;
        }
        Ok((exit, output))
    }

    fn spawn(self, fds: &[BorrowedFd<'_>]) -> Result<spawn::Child> {
        Ok(spawn::spawn(Program {
            path: &path::c_path(self.program)?,
            args: self.args,
            env: self.env,
            fds,
            death_signal: Some(libc::SIGKILL),
        })?)
    }
}

async fn read_all(reader: &Source, output: &mut Vec<u8>) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            n => keep(output, &buffer[..n])?,
        }
    }
}

fn keep(output: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    if output.len() + bytes.len() > MAX_OUTPUT {
        bail!("it printed more than {MAX_OUTPUT} bytes");
    }
    output.extend_from_slice(bytes);
    Ok(())
}

/// How a program ended that did not succeed.
pub(crate) fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
    }
}

/// A program's file, by its name: in the directories of `PATH`, then in `more`.
pub(crate) fn find(name: &str, more: Option<PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(more);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// A program's environment: the shim's, with a directory before the others in `PATH`. systemd's
/// socket is not the container's.
pub(crate) fn environment(first: Option<&Path>) -> Vec<CString> {
    std::env::vars_os()
        .filter(|(name, _)| name != "NOTIFY_SOCKET")
        .filter_map(|(name, mut value)| {
            if let Some(directory) = first.filter(|_| name == "PATH") {
                let mut path = directory.as_os_str().to_owned();
                path.push(":");
                path.push(value);
                value = path;
            }
            let mut text = name.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            CString::new(text).ok()
        })
        .collect()
}

/// Words as a program's arguments.
///
/// # Errors
/// One holds a NUL.
pub(crate) fn arguments<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Result<Vec<CString>> {
    words.into_iter().map(|word| Ok(path::c_path(word)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Instant};

    use super::*;

    fn run(script: &'static str, limit: Duration) -> Result<(Exit, Vec<u8>)> {
        reactor::run(async move {
            let words = ["sh", "-c", script].map(OsStr::new);
            let args = arguments(words).unwrap();
            let sh = find("sh", None).unwrap();
            let call = Call { program: &sh, args, env: environment(None) };
            call.run(File::open("/dev/null").unwrap().into(), Some(limit)).await
        })
        .unwrap()
    }

    // What ends by itself is shown by the suite: it needs a process whose children are the
    // reactor's alone.
    #[test]
    fn a_program_that_takes_too_long_or_prints_too_much_is_killed() {
        let begun = Instant::now();
        for (script, limit, text) in [
            ("exec sleep 1000", Duration::from_millis(30), "it has not ended in 30ms"),
            ("exec yes", Duration::from_secs(60), "it printed more than 1048576 bytes"),
        ] {
            assert_eq!(run(script, limit).unwrap_err().to_string(), text);
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the killed ones were not waited for");
    }
}
