//! Who is compared, and the processes that do each contestant's work.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use hull_integration::engine::stock;

use crate::{Work, idle, latency, logs};

/// What stays with a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Keeper {
    /// A shim, ours or containerd's.
    Shim,
    Conmon,
    /// containerd's shim with dockerd, which writes the log.
    Dockerd,
}

/// One arrangement of programs.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    keeper: Keeper,
    shim: String,
    runtime: String,
}

/// Everyone. The first is the one that the ratios are about.
pub(crate) fn all(shim: &Path, runtime: &Path) -> Vec<Contestant> {
    let (shim, runtime) = (shim.display().to_string(), runtime.display().to_string());
    let one = |name, keeper, shim: &str, runtime: &str| Contestant {
        name,
        keeper,
        shim: shim.to_owned(),
        runtime: runtime.to_owned(),
    };
    vec![
        one("hull, hull-runtime", Keeper::Shim, &shim, &runtime),
        one("runc-v2, runc", Keeper::Shim, "runc", &stock("runc")),
        one("runc-v2, crun", Keeper::Shim, "runc", &stock("crun")),
        one("runc-v2, hull-runtime", Keeper::Shim, "runc", &runtime),
        one("conmon, runc", Keeper::Conmon, "runc", &stock("runc")),
        one("dockerd, runc-v2, runc", Keeper::Dockerd, "runc", &stock("runc")),
    ]
}

impl Contestant {
    /// Whether the work can be asked of it, and tells something that another does not.
    pub(crate) fn does(&self, work: Work) -> bool {
        let runtime_matters = !matches!(work, Work::Idle(_) | Work::Log(_));
        match self.keeper {
            Keeper::Shim if self.shim == "runc" => match work {
                // Its logs are dockerd's.
                Work::Log(_) => false,
                _ => runtime_matters || self.runtime.ends_with("/runc"),
            },
            Keeper::Shim => true,
            Keeper::Conmon => !runtime_matters,
            Keeper::Dockerd => matches!(work, Work::Log(_)),
        }
    }

    /// Starts its process and waits until that is prepared.
    pub(crate) fn start(&self, work: Work) -> Result<Running> {
        let own = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(own)
            .args(["--contestant", &format!("{:?}", self.keeper), &work.name()])
            .env("HULL_SHIM", &self.shim)
            .env("HULL_RUNTIME", &self.runtime)
            .env_remove("HULL_CONTAINERD")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a contestant")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a contestant has no pipes")
        };
        let output = BufReader::new(output);
        let mut running = Running { name: self.name, child, input: Some(input), output };
        running.read().context("prepare")?;
        Ok(running)
    }
}

/// A contestant's process. Dropped early, it finds its input closed and cleans up.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Has it do a round, and gives the figures.
    pub(crate) fn round(&mut self) -> Result<Vec<f64>> {
        let input = self.input.as_mut().context("it has ended")?;
        input.write_all(b"\n").with_context(|| format!("{} has ended", self.name))?;
        self.read()
    }

    fn read(&mut self) -> Result<Vec<f64>> {
        let mut line = String::new();
        self.output.read_line(&mut line).with_context(|| format!("hear of {}", self.name))?;
        ensure!(line.ends_with('\n'), "{} has failed", self.name);
        line.split_whitespace().map(|word| Ok(word.parse()?)).collect()
    }

    /// Tells it that this was all, and waits until it has cleaned up.
    pub(crate) fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait().context("wait for a contestant")?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.input = None;
        // One that was waited for is not waited for again.
        let _ = self.child.wait();
    }
}

/// The contestant's own side.
pub(crate) fn perform(words: &[String]) -> Result<()> {
    let [keeper, work] = words else { bail!("--contestant needs a keeper and a work") };
    let keeper = [Keeper::Shim, Keeper::Conmon, Keeper::Dockerd]
        .into_iter()
        .find(|one| format!("{one:?}") == *keeper)
        .with_context(|| format!("no keeper is called {keeper}"))?;
    match Work::parse(work).with_context(|| format!("no work is called {work}"))? {
        Work::CtrRun => latency::ctr_run(),
        Work::CtrExec => latency::ctr_exec(),
        Work::Run => latency::run(),
        Work::Exec => latency::exec(),
        Work::Idle(count) => idle::hold(keeper, count),
        Work::Log(mib) => logs::write(keeper, mib),
    }
}

/// Says that the work is prepared, and then does a round whenever it is asked for one.
pub(crate) fn rounds(mut round: impl FnMut() -> Vec<f64>) -> Result<()> {
    answer(&[])?;
    for line in stdin().lines() {
        line?;
        answer(&round())?;
    }
    Ok(())
}

fn answer(figures: &[f64]) -> Result<()> {
    let words: Vec<String> = figures.iter().map(f64::to_string).collect();
    let mut stdout = stdout();
    writeln!(stdout, "{}", words.join(" "))?;
    Ok(stdout.flush()?)
}
