//! The command line of an engine. hull, docker and podman share its grammar.

use std::path::{Path, PathBuf};

use super::{Terminal, command};
use crate::{Invocation, Output};

/// Words that lead to an engine, and what its tests say to it.
#[derive(Debug)]
pub struct Client {
    words: Vec<String>,
    directory: Option<PathBuf>,
    cgroup: Option<String>,
}

impl Client {
    pub(super) fn new(words: Vec<String>) -> Self {
        Self { words, directory: None, cgroup: None }
    }

    /// Runs in a directory, and tells each command that makes a container where its cgroup goes.
    pub(super) fn placed(self, directory: &Path, cgroup: String) -> Self {
        Self { directory: Some(directory.to_owned()), cgroup: Some(cgroup), ..self }
    }

    /// A command, as words.
    pub fn words(&self, args: &[&str]) -> Vec<String> {
        let made = match args {
            ["run" | "create", ..] => 1,
            ["pod", "create", ..] => 2,
            _ => 0,
        };
        let (verb, rest) = args.split_at(made);
        let place = self.cgroup.as_deref().filter(|_| made > 0);
        let place = place.into_iter().flat_map(|cgroup| ["--cgroup-parent", cgroup]);
        let said = verb.iter().copied().chain(place).chain(rest.iter().copied());
        self.words.iter().map(String::as_str).chain(said).map(str::to_owned).collect()
    }

    /// A command, not yet run.
    pub fn call(&self, args: &[&str]) -> Invocation {
        let call = command(&self.words(args));
        match &self.directory {
            Some(directory) => call.cwd(directory),
            None => call,
        }
    }

    /// Runs a command.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        self.call(args).run()
    }

    /// Runs a command on a terminal.
    #[track_caller]
    pub fn terminal(&self, args: &[&str]) -> Terminal {
        Terminal::start(&self.words(args))
    }

    /// Runs a line of shell in a new busybox container, and removes it.
    #[track_caller]
    pub fn shell(&self, options: &[&str], script: &str) -> Output {
        let verb: &[&str] = &["run", "--rm"];
        self.run(&[verb, options, &["busybox", "sh", "-c", script]].concat())
    }

    /// Starts a line of shell in a new busybox container, and leaves it there.
    #[track_caller]
    pub fn detach(&self, name: &str, options: &[&str], script: &str) {
        let verb: &[&str] = &["run", "--detach", "--name", name];
        self.run(&[verb, options, &["busybox", "sh", "-c", script]].concat()).ok();
    }

    /// What `inspect` says with a format.
    #[track_caller]
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.run(&["inspect", "--format", format, name]).ok().text().to_owned()
    }
}
