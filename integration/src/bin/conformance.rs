//! `make conformance`: runs the validation programs of the OCI's runtime-tools.
//!
//! They are built beforehand, in a checkout of runtime-tools, and judged here by what
//! they print, since most of them exit with 0 whatever they found. Each runs in a mount
//! namespace and a temporary directory of its own, and containers that it forgot are
//! deleted: some programs leave both behind. The outcome is compared with `REFUSED`,
//! whose reasons specs/CONFORMANCE.md tells at length.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hull_integration::{Invocation, Output};
use tempfile::TempDir;

const USAGE: &str = "\
usage: conformance --runtime PROGRAM --tools DIR [--oci-version VERSION] [NAME]...
  --oci-version VERSION  the runtime is given configurations of this version, whatever
                         version from 1.0 on the programs wrote: for a peer that refuses
                         theirs (crun 1.8 takes 1.0.2)";

/// The slowest program needs about 25 seconds on a machine that is idle.
const LIMIT: Duration = Duration::from_secs(120);

/// Programs that a correct runtime does not pass, or not on every machine, and why.
const REFUSED: &[(&str, &str)] = &[
    ("delete", "ends a container that was created and not started, as runc and crun do"),
    (
        "delete_resources",
        "the program compares the addresses of the limits of pids, not the limits",
    ),
    ("hooks", "expects \"post-start1\" where its hook writes \"post-start1 called\", and so on"),
    (
        "hooks_stdin",
        "expects the status created in prestart hooks; in create, where they run, it is creating",
    ),
    ("killsig", "signals a shell that may not have set its trap yet"),
    ("linux_cgroups_blkio", "needs a kernel with blkio.leaf_weight (before 5.0)"),
    ("linux_cgroups_hugetlb", "needs hugetlb in a hierarchy of version 1"),
    (
        "linux_cgroups_memory",
        "expects limits of kernel memory, which kernels since 5.16 do not have",
    ),
    ("linux_cgroups_network", "needs the controllers net_cls and net_prio"),
    (
        "linux_cgroups_pids",
        "the program compares the addresses of the limits of pids, not the limits",
    ),
    ("linux_cgroups_relative_blkio", "needs a kernel with blkio.leaf_weight (before 5.0)"),
    ("linux_cgroups_relative_hugetlb", "needs hugetlb in a hierarchy of version 1"),
    (
        "linux_cgroups_relative_memory",
        "expects limits of kernel memory, which kernels since 5.16 do not have",
    ),
    ("linux_cgroups_relative_network", "needs the controllers net_cls and net_prio"),
    (
        "linux_cgroups_relative_pids",
        "the program compares the addresses of the limits of pids, not the limits",
    ),
    ("linux_mount_label", "needs SELinux"),
    ("linux_process_apparmor_profile", "needs AppArmor and a profile that is loaded"),
    ("misc_props", "its first container's program is /runtimetest, which it does not copy there"),
    (
        "mounts",
        "gives bind mounts the options of tmpfs, which is an error here and in runc since 1.2",
    ),
    ("pidfile", "expects that kill reaches the program true, which has ended as a rule"),
    ("poststart", "expects the program's line before the hook's, which start after the same exec"),
    ("poststart_fail", "expects a warning where specification 1.3 asks for an error"),
    ("prestart", "expects prestart hooks in start; the specification says create"),
    ("process_capabilities", "needs every capability, this machine's root may lack some"),
    ("process_capabilities_fail", "expects an error where specification 1.3 asks for a warning"),
    ("process_rlimits", "sees the soft limit of open files after Go's start-up has raised it"),
    (
        "start",
        "expects that start succeeds without process, where the specification wants an error",
    ),
];

/// What a program's output comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<bool> {
    let (mut runtime, mut tools, mut version, mut wanted) = (None, None, None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runtime" => runtime = args.next(),
            "--tools" => tools = args.next(),
            "--oci-version" => version = Some(args.next().context(USAGE)?),
            name if !name.starts_with('-') => wanted.push(name.to_owned()),
            _ => bail!("{USAGE}"),
        }
    }
    let (Some(runtime), Some(tools)) = (runtime, tools) else { bail!("{USAGE}") };
    let tools = fs::canonicalize(&tools).with_context(|| format!("find {tools}"))?;
    let programs = programs(&tools, &wanted)?;
    let peer = Peer::new(&runtime, version.as_deref())?;

    let (mut passed, mut broken) = (0, Vec::new());
    println!("{:<34} {:<8} {:>5}  remark", "program", "outcome", "s");
    for (name, program) in &programs {
        let (verdict, seconds, complaint) = validate(&peer, &tools, program)?;
        let reason = REFUSED.iter().find(|(refused, _)| refused == name).map(|(_, why)| *why);
        let (word, remark) = match (verdict, reason) {
            (Verdict::Passed, None) => ("pass", ""),
            (Verdict::Passed, Some(_)) => ("pass", "(may fail elsewhere)"),
            (Verdict::Skipped, _) => ("skip", ""),
            (Verdict::Failed, Some(why)) => ("fail", why),
            (Verdict::Failed, None) => ("FAIL", "expected to pass"),
        };
        println!("{name:<34} {word:<8} {seconds:>5.1}  {remark}");
        passed += usize::from(verdict == Verdict::Passed);
        if word == "FAIL" {
            println!("{complaint}");
            broken.push(name.as_str());
        }
    }
    println!(
        "{passed} of {} pass; {} should and do not: {}",
        programs.len(),
        broken.len(),
        broken.join(" ")
    );
    Ok(broken.is_empty())
}

/// Every program below `validation`, by name.
fn programs(tools: &Path, wanted: &[String]) -> Result<Vec<(String, PathBuf)>> {
    ensure!(tools.join("runtimetest").exists(), "runtimetest is not built in {}", tools.display());
    let mut programs = Vec::new();
    let folder = tools.join("validation");
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let program = folder.join(&name).join(format!("{name}.t"));
        // `util` is what they share.
        if name == "util"
            || !folder.join(&name).is_dir()
            || !(wanted.is_empty() || wanted.contains(&name))
        {
            continue;
        }
        ensure!(program.exists(), "{} is not built", program.display());
        programs.push((name, program));
    }
    ensure!(!programs.is_empty(), "no such program in {}", folder.display());
    programs.sort();
    Ok(programs)
}

/// The runtime that is validated.
struct Peer {
    /// The runtime, or a shell script in its place that changes the configuration first.
    program: PathBuf,
    /// What the shell does before, in a mount namespace of its own.
    prelude: &'static str,
    /// Where the script is.
    _scratch: TempDir,
}

impl Peer {
    fn new(runtime: &str, version: Option<&str>) -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("hull-conformance.").tempdir()?;
        let mut program = PathBuf::from(runtime);
        // crun refuses the layout with both versions of cgroups; the others do not care.
        let prelude = match program.file_name().is_some_and(|name| name == "crun") {
            true => "umount /sys/fs/cgroup/unified 2>/dev/null || true",
            false => "true",
        };
        if let Some(version) = version {
            program = scratch.path().join("runtime");
            fs::write(&program, rewriting(runtime, version)?)?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { program, prelude, _scratch: scratch })
    }

    fn invoke(&self, words: &[&str]) -> Output {
        Invocation::new(&self.program).args(words).prelude(self.prelude).run()
    }

    /// The ids of the containers that the runtime knows.
    fn containers(&self) -> Result<BTreeSet<String>> {
        let output = self.invoke(&["list", "-q"]);
        ensure!(
            output.code() == Some(0),
            "{} list failed: {}",
            self.program.display(),
            output.stderr
        );
        Ok(output.stdout.lines().map(str::to_owned).collect())
    }
}

/// A script in place of the runtime: the programs write the configuration and call the
/// runtime in one go. An invalid version that a program wrote on purpose stays.
fn rewriting(runtime: &str, version: &str) -> Result<String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "./-_+".contains(letter);
    ensure!(version.chars().all(is_plain), "{version} is no version");
    ensure!(runtime.chars().all(is_plain), "--oci-version wants a plain path, not {runtime}");
    Ok(format!(
        r#"#!/bin/sh
for word; do
	[ "$last" != --bundle ] ||
		sed -i 's|"ociVersion": *"1\.[^"]*"|"ociVersion": "{version}"|' "$word/config.json"
	last=$word
done
exec {runtime} "$@"
"#
    ))
}

/// Runs one program and cleans up after it.
fn validate(peer: &Peer, tools: &Path, program: &Path) -> Result<(Verdict, f64, String)> {
    let scratch = tempfile::Builder::new().prefix("hull-conformance.").tempdir()?;
    let before = peer.containers()?;
    let outcome = Invocation::new("timeout")
        .args(["--kill-after=5", &LIMIT.as_secs().to_string()])
        .arg(program)
        .prelude(peer.prelude)
        .env("RUNTIME", &peer.program)
        .env("TMPDIR", scratch.path())
        .cwd(tools)
        .limit(LIMIT + Duration::from_secs(10))
        .run();
    for id in peer.containers()?.difference(&before) {
        peer.invoke(&["delete", "--force", id]);
    }
    let verdict = judge(&outcome.stdout, outcome.code());
    let complaint: String = outcome
        .stdout
        .lines()
        .filter(|line| !line.starts_with("ok "))
        .chain(outcome.stderr.lines())
        .take(40)
        .map(|line| format!("    {line}\n"))
        .collect();
    Ok((verdict, outcome.took.as_secs_f64(), complaint))
}

/// Judges the Test Anything Protocol. A program without a single test point tells its
/// failure in a diagnostic alone; beside test points, `error` is also how an error that
/// was hoped for is reported.
fn judge(stdout: &str, code: Option<i32>) -> Verdict {
    let points =
        || stdout.lines().filter(|line| line.starts_with("ok ") || line.starts_with("not ok "));
    let hidden = || stdout.lines().any(|line| line.trim_start().starts_with("\"error\":"));
    if code != Some(0) || points().any(|line| line.starts_with("not ok ")) {
        return Verdict::Failed;
    }
    match points().count() {
        0 if hidden() => Verdict::Failed,
        0 => Verdict::Passed,
        _ if points().all(|line| line.contains("# SKIP")) => Verdict::Skipped,
        _ => Verdict::Passed,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_version_is_rewritten_unless_it_was_meant_to_be_invalid() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.json");
        let peer = Peer::new("true", Some("1.0.2")).expect("a script");
        for (written, read) in [("1.3.0", "1.0.2"), ("1.0.2-dev", "1.0.2"), ("bad", "bad")] {
            fs::write(&config, format!(r#"{{"ociVersion":"{written}"}}"#)).expect("ours");
            let status = Command::new(&peer.program)
                .args(["create", "--bundle", folder.path().to_str().expect("text"), "id"])
                .status();
            assert!(status.expect("it runs").success());
            let text = fs::read_to_string(&config).expect("still there").replace(' ', "");
            assert_eq!(text, format!(r#"{{"ociVersion":"{read}"}}"#));
        }
        assert!(rewriting("runc", "1'").is_err());
    }

    #[test]
    fn a_program_is_judged_by_its_words_and_its_exit_code() {
        let cases = [
            ("TAP version 13\nok 1 - a\nok 2 - b\n1..2\n", Some(0), Verdict::Passed),
            ("ok 1 - a\nnot ok 2 - b\n1..2\n", Some(0), Verdict::Failed),
            ("ok 1 - a\n1..1\n", Some(1), Verdict::Failed),
            ("ok 1 - a\n", None, Verdict::Failed),
            ("1..0\n", Some(0), Verdict::Passed),
            (
                "  ---\n  {\n    \"error\": \"too late\"\n  }\n  ...\n1..0\n",
                Some(0),
                Verdict::Failed,
            ),
            (
                "ok 1 - a\n  ---\n    \"error\": \"hoped for\"\n  ...\n1..1\n",
                Some(0),
                Verdict::Passed,
            ),
            ("1..1\nok 1 # SKIP no cgroups\n", Some(0), Verdict::Skipped),
        ];
        for (stdout, code, verdict) in cases {
            assert_eq!(judge(stdout, code), verdict, "{stdout}");
        }
    }
}
