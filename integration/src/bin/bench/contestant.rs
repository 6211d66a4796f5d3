//! The programs that are compared, and how each is asked for the same work.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::stage::{Config, Stage};
use crate::{Task, Work};

/// What a contestant is to the comparison.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// `floor/floor.c` at its fastest, the kernel's own cost.
    Floor,
    /// The same as a C program usually is: with glibc, placed by the scheduler.
    PlainFloor,
    /// The runtime of this repository, which the ratios are about.
    Hull,
    /// Another runtime.
    Peer,
}

impl Kind {
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::PlainFloor)
    }
}

/// One program, with its own `--root` and its own container ids.
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    root: PathBuf,
}

/// Everyone who is here: the floor always, the runtimes that are installed.
pub(crate) fn find(stage: &Stage, hull: &Path, peers: &[String]) -> Result<Vec<Contestant>> {
    let floor = |name: &str, kind, version| Contestant {
        name: name.into(),
        kind,
        program: stage.path(name),
        version,
        root: PathBuf::new(),
    };
    let mut found = vec![
        floor("floor", Kind::Floor, format!("C, static, {}", stage.libc)),
        floor("plain-floor", Kind::PlainFloor, "C, static, glibc, child not placed".into()),
    ];
    let hull = ("hull-runtime".to_owned(), Kind::Hull, hull.to_owned());
    let peers = peers.iter().map(|name| (name.clone(), Kind::Peer, PathBuf::from(name)));
    for (name, kind, program) in std::iter::once(hull).chain(peers) {
        let Some(version) = version(&program) else {
            println!("{name}: not measured, {} does not run", program.display());
            continue;
        };
        let root = stage.path(&format!("root-{name}"));
        found.push(Contestant { name, kind, program, version, root });
    }
    ensure!(found.iter().any(|one| !one.kind.is_floor()), "there is no runtime to measure");
    Ok(found)
}

fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
}

impl Contestant {
    pub(crate) fn id(&self, number: usize) -> String {
        format!("hull-bench-{}-{}-{number}", std::process::id(), self.name)
    }

    fn command(&self, arguments: &[&str]) -> Vec<String> {
        let mut words = vec![self.program.display().to_string()];
        words.push("--root".into());
        words.push(self.root.display().to_string());
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    /// The commands of one round of `work`.
    pub(crate) fn steps(&self, work: &Work, bundle: &Path, stage: &Stage) -> Vec<Vec<String>> {
        let bundle = bundle.display().to_string();
        if self.kind.is_floor() {
            return self.floor_steps(work, stage);
        }
        let run = |number| self.command(&["run", "--bundle", &bundle, &self.id(number)]);
        let id = self.id(0);
        let create = self.command(&["create", "--bundle", &bundle, &id]);
        match work.task {
            Task::Run => vec![run(0)],
            Task::RunTogether(count) => (0..count).map(run).collect(),
            Task::Create => vec![create],
            Task::CreateStartDelete => vec![
                create,
                self.command(&["start", &id]),
                vec!["@reap".into()],
                self.command(&["delete", &id]),
            ],
            Task::Exec => vec![self.command(&["exec", &id, "true"])],
        }
    }

    fn floor_steps(&self, work: &Work, stage: &Stage) -> Vec<Vec<String>> {
        let count = if let Task::RunTogether(count) = work.task { count } else { 1 };
        let one = |number| {
            let mut words = vec![self.program.display().to_string()];
            words.extend(work.floor.unwrap_or_default().iter().map(|&word| word.to_owned()));
            if self.kind == Kind::PlainFloor {
                words.push("--place=kernel".into());
            }
            words.push(stage.path("rootfs").display().to_string());
            words.push(self.id(number));
            words.push("/bin/true".into());
            words
        };
        (0..count).map(one).collect()
    }

    /// A container for `exec` to enter.
    pub(crate) fn start_sleeper(&self, stage: &Stage) -> Result<()> {
        if self.kind.is_floor() {
            return Ok(());
        }
        let bundle = stage.bundle(&self.name, Config::Default)?;
        let path = bundle.join("config.json");
        let text = std::fs::read_to_string(&path).context("read the bundle's config")?;
        std::fs::write(&path, text.replace(r#"["true"]"#, r#"["sleep","3600"]"#))
            .context("write the bundle's config")?;
        let bundle = bundle.display().to_string();
        self.call(&["run", "--detach", "--bundle", &bundle, &self.id(0)])
    }

    fn call(&self, arguments: &[&str]) -> Result<()> {
        let words = self.command(arguments);
        let status = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("start {}", self.name))?;
        ensure!(status.success(), "{words:?} ended with {status}");
        Ok(())
    }

    /// Deletes the container `id`, whatever it is doing.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        if self.kind.is_floor() {
            return Ok(());
        }
        self.call(&["delete", "--force", id])
    }

    /// Removes what a failed or finished work left.
    pub(crate) fn clean_up(&self) {
        if self.kind.is_floor() {
            return;
        }
        let containers = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        for container in containers {
            if let Some(id) = container.file_name().to_str() {
                // A name that is no container is no failure of the bench.
                self.delete(id).ok();
            }
        }
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        self.clean_up();
    }
}
