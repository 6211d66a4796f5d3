//! The OCI runtime below: any program with runc's command line. Each operation is one run of it.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_runtime_sys::{fd, process::Exit};
use serde::Deserialize;

use crate::program::{self, Call};

/// Where the runtime keeps its state, beside a directory for each namespace, unless the
/// options say otherwise. It is runc's place under containerd: tools look there.
pub(crate) const DEFAULT_ROOT: &str = "/run/containerd/runc";

/// The runtime when the options name none.
const DEFAULT_PROGRAM: &str = "hull-runtime";

/// Most that is read of a runtime's log for one run, in bytes.
const MAX_LOG: u64 = 1 << 20;

/// A runtime program with its global options.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    program: PathBuf,
    root: PathBuf,
    systemd_cgroup: bool,
    /// Where it finds `criu` before it looks elsewhere.
    criu_directory: Option<PathBuf>,
}

/// The descriptors 0, 1 and 2 of a run that are the container's own.
pub(crate) struct Streams<'a>(pub(crate) [BorrowedFd<'a>; 3]);

impl Runtime {
    /// The program is found now: `name` is a path, a name to be found in `PATH`, or empty.
    ///
    /// # Errors
    /// There is no such program.
    pub(crate) fn find(
        name: &str,
        root: &str,
        namespace: &str,
        systemd_cgroup: bool,
    ) -> Result<Self> {
        let root = Path::new(if root.is_empty() { DEFAULT_ROOT } else { root });
        let wanted = if name.is_empty() { DEFAULT_PROGRAM } else { name };
        let program = if wanted.contains('/') {
            Some(PathBuf::from(wanted))
        } else {
            let own = std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned));
            program::find(wanted, own.filter(|_| name.is_empty()))
        };
        let program = program
            .with_context(|| format!("exec: \"{wanted}\": executable file not found in $PATH"))?;
        Ok(Self { program, root: root.join(namespace), systemd_cgroup, criu_directory: None })
    }

    /// Lets the runtime use this `criu` (the options' `CriuPath`). Runtimes no longer have an
    /// option for it; they look in `PATH`.
    ///
    /// # Errors
    /// The path is not that of a file named `criu`.
    pub(crate) fn with_criu(mut self, path: &str) -> Result<Self> {
        if !path.is_empty() {
            let path = Path::new(path);
            if !path.is_absolute() || path.file_name() != Some(OsStr::new("criu")) {
                bail!("CriuPath {} is not the absolute path of a criu", path.display());
            }
            self.criu_directory = path.parent().map(Path::to_owned);
        }
        Ok(self)
    }

    /// The program's file.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    fn arguments(&self, log: &Path, words: &[&OsStr]) -> Result<Vec<CString>> {
        let mut all: Vec<&OsStr> = vec![
            self.program.as_os_str(),
            OsStr::new("--root"),
            self.root.as_os_str(),
            OsStr::new("--log"),
            log.as_os_str(),
            OsStr::new("--log-format"),
            OsStr::new("json"),
        ];
        if self.systemd_cgroup {
            all.push(OsStr::new("--systemd-cgroup"));
        }
        all.extend(words);
        program::arguments(all)
    }

    fn call(&self, log: &Path, words: &[&OsStr]) -> Result<Call<'_>> {
        let env = program::environment(self.criu_directory.as_deref());
        Ok(Call { program: &self.program, args: self.arguments(log, words)?, env })
    }

    /// Runs an operation that starts a process, which gets `streams`.
    ///
    /// # Errors
    /// The operation's, in the runtime's words.
    pub(crate) async fn run_with(
        &self,
        log: &Path,
        streams: Streams<'_>,
        words: &[&OsStr],
    ) -> Result<()> {
        let before = length(log);
        let exit = self.call(log, words)?.run_on(&streams.0).await?;
        judge(exit, log, before, b"")
    }

    /// Runs an operation with `input` as its standard input, and gives what it prints.
    ///
    /// # Errors
    /// The operation's, in the runtime's words.
    pub(crate) async fn run(&self, log: &Path, input: &[u8], words: &[&OsStr]) -> Result<Vec<u8>> {
        let before = length(log);
        let stdin = if input.is_empty() {
            OwnedFd::from(File::open("/dev/null")?)
        } else {
            let file = File::from(fd::memory_file(c"input")?);
            file.write_all_at(input, 0)?;
            file.into()
        };
        let (exit, output) = self.call(log, words)?.run(stdin, None).await?;
        judge(exit, log, before, &output)?;
        Ok(output)
    }
}

fn length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |data| data.len())
}

/// An operation's result: its exit, or else what it logged last as an error, or printed.
fn judge(exit: Exit, log: &Path, before: u64, output: &[u8]) -> Result<()> {
    if exit == Exit::Code(0) {
        return Ok(());
    }
    let logged = read_log(log, before).unwrap_or_default();
    if let Some(message) = last_error(&logged) {
        return Err(anyhow!(message));
    }
    let printed = String::from_utf8_lossy(output);
    let how = program::how(exit);
    match printed.trim() {
        "" => bail!("{how}"),
        text => bail!("{text}: {how}"),
    }
}

fn read_log(log: &Path, before: u64) -> Result<Vec<u8>> {
    let file = File::open(log)?;
    let length = file.metadata()?.len();
    let from = before.max(length.saturating_sub(MAX_LOG));
    let mut bytes = vec![0; usize::try_from(length.saturating_sub(from))?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// The last message of level "error" in a log of JSON lines.
fn last_error(log: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let lines = log.split(|byte| *byte == b'\n').rev();
    let mut lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    lines.find(|line| line.level == "error").map(|line| line.msg.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_its_message() {
        let log = br#"{"level":"error","msg":"first","time":"t"}
{"level":"error","msg":" exec: \"x\": not found\n","time":"t"}
{"level":"warning","msg":"later","time":"t"}
torn {"#;
        assert_eq!(last_error(log).as_deref(), Some("exec: \"x\": not found"));
        assert_eq!(last_error(b"nothing"), None);
    }

    #[test]
    fn a_program_is_looked_up_and_its_absence_is_said_as_callers_expect() {
        let found = Runtime::find("sh", "", "default", false).unwrap();
        assert!(found.program().ends_with("sh"));
        assert_eq!(found.root, Path::new("/run/containerd/runc/default"));
        let error = Runtime::find("no-such-runtime", "/r", "n", false).unwrap_err();
        assert!(error.to_string().contains("executable file not found in $PATH"), "{error}");
    }

    #[test]
    fn a_criu_of_the_operators_is_found_first() {
        let runtime = Runtime::find("sh", "", "n", false).unwrap();
        assert!(runtime.clone().with_criu("criu").is_err());
        assert!(runtime.clone().with_criu("/opt/criu-4").is_err());
        let runtime = runtime.with_criu("/opt/criu/bin/criu").unwrap();
        let environment = program::environment(runtime.criu_directory.as_deref());
        let path = environment.iter().find(|text| text.to_bytes().starts_with(b"PATH="));
        assert!(path.unwrap().to_bytes().starts_with(b"PATH=/opt/criu/bin:"));
    }

    #[test]
    fn a_failure_without_a_log_is_what_was_printed() {
        let none = Path::new("/nonexistent/log");
        let error = judge(Exit::Code(3), none, 0, b"no\n").unwrap_err();
        assert_eq!(error.to_string(), "no: exit status 3");
        let error = judge(Exit::Signal(9), none, 0, b"").unwrap_err();
        assert_eq!(error.to_string(), "ended by signal 9");
    }
}
