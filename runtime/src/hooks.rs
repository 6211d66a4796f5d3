//! The specification's hooks (config.md, POSIX-platform Hooks).
//!
//! A hook is a program of the operator's. It reads the container's state on its standard
//! input and may take `timeout` seconds. What it prints is kept for the error message and
//! otherwise dropped.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci as oci;

/// How much of a hook's output goes into an error message, in bytes.
const MAX_OUTPUT_BYTES: u64 = 4096;

/// Checks what can be checked before anything is made.
pub(crate) fn validate(hooks: &oci::Hooks) -> Result<()> {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.iter().enumerate() {
            if !hook.path.starts_with('/') {
                bail!("{kind} hook #{index}: path {:?} is not absolute", hook.path);
            }
            if hook.timeout.is_some_and(|timeout| timeout <= 0) {
                bail!("{kind} hook #{index}: timeout must be greater than zero");
            }
            let texts = hook.args.iter().chain(&hook.env).chain([&hook.path]);
            if texts.into_iter().any(|text| text.contains('\0')) {
                bail!("{kind} hook #{index}: a text holds a NUL byte");
            }
        }
    }
    Ok(())
}

/// Runs the hooks of one kind in order; the first that fails ends it.
pub(crate) fn run(
    kind: &str,
    hooks: &[oci::Hook],
    state: &oci::State,
    default_env: &[(String, String)],
) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, default_env)
            .with_context(|| format!("error running {kind} hook #{index}"))?;
    }
    Ok(())
}

fn run_one(hook: &oci::Hook, state: &oci::State, default_env: &[(String, String)]) -> Result<()> {
    // Memory files on both sides: whether and how fast the hook reads and writes can then
    // never hold us up.
    let input = memory_file(&serde_json::to_vec(state).context("cannot encode the state")?)?;
    let mut output = memory_file(b"")?;
    let clone = || output.try_clone().context("cannot duplicate a descriptor");
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    command.env_clear();
    if hook.env.is_empty() {
        command.envs(default_env.iter().map(|(name, value)| (name, value)));
    }
    for entry in &hook.env {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::from(input)).stdout(clone()?).stderr(clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", hook.path))?;

    if let Some(seconds) = hook.timeout {
        let timeout_ms = i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX);
        let pid = i32::try_from(child.id()).context("impossible process id")?;
        let pidfd = sys::process::pidfd(pid)?;
        if !sys::process::wait_readable(&pidfd, timeout_ms)? {
            // It is our child and not yet waited for, so neither call can miss it.
            let _ = child.kill();
            let _ = child.wait();
            bail!("{} ran past timeout of {seconds}.0s", hook.path);
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", hook.path))?;
    if status.success() {
        return Ok(());
    }
    let how = match status.signal() {
        Some(signal) => format!("signal: {signal}"),
        None => format!("exit status {}", status.code().unwrap_or(-1)),
    };
    bail!("{how}, output: {}", tail(&mut output).trim())
}

fn memory_file(content: &[u8]) -> Result<File> {
    let fd: OwnedFd = sys::fd::memory_file(c"hook")?;
    let mut file = File::from(fd);
    file.write_all(content).context("cannot fill a memory file")?;
    file.rewind().context("cannot rewind a memory file")?;
    Ok(file)
}

fn tail(output: &mut File) -> String {
    let mut bytes = Vec::new();
    let start = output.seek(SeekFrom::End(0)).unwrap_or(0).saturating_sub(MAX_OUTPUT_BYTES);
    let read = output
        .seek(SeekFrom::Start(start))
        .and_then(|_| output.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn state() -> oci::State {
        oci::State {
            oci_version: "1.3.0".into(),
            id: "x".into(),
            status: oci::Status::Creating,
            pid: 7,
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
        }
    }

    fn shell(script: &str) -> oci::Hook {
        oci::Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            ..oci::Hook::default()
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_only_the_environment_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut hook = shell(&format!("cat > {0}; env >> {0}", out.display()));
        hook.env = vec!["A=1".into()];
        run("prestart", &[hook], &state(), &[]).unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        assert!(text.contains("\"pid\":7") && text.contains("A=1"), "{text}");
        assert!(!text.contains("HOME="), "{text}");
    }

    #[test]
    fn a_failure_names_the_hook_its_status_and_its_output() {
        let error = run("poststop", &[shell("true"), shell("echo no; exit 3")], &state(), &[]);
        let text = format!("{:#}", error.unwrap_err());
        assert_eq!(text, "error running poststop hook #1: exit status 3, output: no");
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let hook = oci::Hook { timeout: Some(1), ..shell("exec sleep 60") };
        let text = format!("{:#}", run("prestart", &[hook], &state(), &[]).unwrap_err());
        assert!(text.ends_with("ran past timeout of 1.0s"), "{text}");
    }

    #[test]
    fn relative_paths_and_zero_timeouts_are_refused() {
        let hook = oci::Hook { path: "x".into(), ..oci::Hook::default() };
        let hooks = oci::Hooks { poststart: vec![hook], ..oci::Hooks::default() };
        assert!(validate(&hooks).is_err());
        let hook = oci::Hook { timeout: Some(0), ..shell("true") };
        let hooks = oci::Hooks { prestart: vec![hook], ..oci::Hooks::default() };
        assert!(validate(&hooks).is_err());
    }
}
