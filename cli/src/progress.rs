//! Progress of transfers for a person who waits, on standard error: a bar a layer on a terminal,
//! plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, stderr},
};

use hull_specs_api::v1::{self, progress::Phase};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{format::text, report};

/// Shows steps as they come.
#[derive(Debug)]
pub(crate) struct Progress {
    form: Form,
    /// The last phase of each thing, so that plain lines are written once.
    phases: BTreeMap<String, i32>,
}

#[derive(Debug)]
enum Form {
    Quiet,
    Lines,
    Bars(MultiProgress, BTreeMap<String, ProgressBar>),
}

impl Progress {
    /// For transfers whose steps are told in any case.
    pub(crate) fn new(quiet: bool) -> Self {
        let form = match (quiet, stderr().is_terminal()) {
            (true, _) => Form::Quiet,
            (false, true) => Form::Bars(MultiProgress::new(), BTreeMap::new()),
            (false, false) => Form::Lines,
        };
        Self { form, phases: BTreeMap::new() }
    }

    /// For commands that say nothing to a file.
    pub(crate) fn on_terminal() -> Self {
        Self::new(!stderr().is_terminal())
    }

    /// One step.
    pub(crate) fn step(&mut self, step: &v1::Progress) {
        let known = self.phases.insert(step.id.clone(), step.phase);
        match &mut self.form {
            Form::Quiet => {}
            Form::Lines => {
                if known != Some(step.phase)
                    && let Some(line) = line(step)
                {
                    report::line(&line);
                }
            }
            Form::Bars(all, bars) => {
                let bar = bars
                    .entry(step.id.clone())
                    .or_insert_with(|| all.add(ProgressBar::no_length()));
                draw(bar, step);
            }
        }
    }

    /// All steps were told; the bars stay as they are.
    pub(crate) fn finish(self) {
        if let Form::Bars(_, bars) = self.form {
            for bar in bars.values().filter(|bar| !bar.is_finished()) {
                bar.abandon();
            }
        }
    }
}

fn draw(bar: &ProgressBar, step: &v1::Progress) {
    let moving = matches!(
        step.phase(),
        Phase::Downloading | Phase::Extracting | Phase::Uploading | Phase::Reading | Phase::Writing
    );
    let template = match (moving, step.total_bytes > 0) {
        (true, true) => "{prefix}: {msg:<12} [{bar:25}] {bytes}/{total_bytes} {bytes_per_sec}",
        (true, false) => "{prefix}: {msg:<12} {bytes} {bytes_per_sec}",
        (false, _) => "{prefix}: {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(text::escape(&step.id));
    let message = text::escape(&step.message);
    bar.set_message(match (word(step.phase()), message.as_str()) {
        ("", message) => message.to_owned(),
        (word, "") => word.to_owned(),
        (word, message) => format!("{word}: {message}"),
    });
    if step.total_bytes > 0 {
        bar.set_length(step.total_bytes);
    }
    bar.set_position(step.current_bytes);
    if matches!(
        step.phase(),
        Phase::Complete | Phase::AlreadyExists | Phase::Uploaded | Phase::Mounted
    ) {
        bar.abandon();
    }
}

/// A plain line; of some steps there is nothing to say.
fn line(step: &v1::Progress) -> Option<String> {
    let words = match (word(step.phase()), step.message.as_str()) {
        ("", "") => return None,
        // What is resolved, docker says without a word before it.
        ("", message) | ("Resolving", message) if !message.is_empty() => message.to_owned(),
        (word, "") => word.to_owned(),
        (word, message) => format!("{word}: {message}"),
    };
    Some(if step.id.is_empty() { words } else { format!("{}: {words}", step.id) })
}

/// Docker's word for a phase of a layer.
fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "",
        Phase::Resolving => "Resolving",
        Phase::Waiting => "Waiting",
        Phase::Downloading => "Downloading",
        Phase::Downloaded => "Download complete",
        Phase::Extracting => "Extracting",
        Phase::Complete => "Pull complete",
        Phase::AlreadyExists => "Already exists",
        Phase::Uploading => "Pushing",
        Phase::Uploaded => "Pushed",
        Phase::Mounted => "Mounted",
        Phase::Reading => "Reading",
        Phase::Writing => "Writing",
        Phase::Retrying => "Retrying",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_dockers_words() {
        let step = |id: &str, phase: Phase, message: &str| v1::Progress {
            id: id.into(),
            phase: phase.into(),
            message: message.into(),
            ..v1::Progress::default()
        };
        for (step, words) in [
            (step("abc", Phase::Downloading, ""), Some("abc: Downloading")),
            (step("abc", Phase::Complete, ""), Some("abc: Pull complete")),
            (step("", Phase::Unspecified, "Digest: sha256:1"), Some("Digest: sha256:1")),
            (
                step("abc", Phase::Retrying, "connection reset"),
                Some("abc: Retrying: connection reset"),
            ),
            (step("abc", Phase::Unspecified, ""), None),
            (step("1", Phase::Resolving, "Pulling from a/b"), Some("1: Pulling from a/b")),
            (step("", Phase::Resolving, ""), Some("Resolving")),
        ] {
            assert_eq!(line(&step).as_deref(), words);
        }
    }
}
