//! `why`: why a container ended, or does not run, in words.

use hull_manager_core::Result;
use hull_specs_api::v1::{self, Status};

use crate::{
    Containers,
    exit_record::{self, ExitRecord},
};

/// What the verdict is made of.
struct Case<'a> {
    state: &'a v1::ContainerState,
    options: &'a v1::ContainerOptions,
    record: Option<&'a ExitRecord>,
    stopped_by_user: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    sentence: String,
    facts: Vec<String>,
    advice: Vec<String>,
}

fn signal_name(number: i32) -> String {
    let names = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (10, "SIGUSR1"),
        (11, "SIGSEGV"),
        (12, "SIGUSR2"),
        (13, "SIGPIPE"),
        (14, "SIGALRM"),
        (15, "SIGTERM"),
        (31, "SIGSYS"),
    ];
    let known = names.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.0} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn judge(case: &Case<'_>) -> Verdict {
    let Case { state, options, record, stopped_by_user } = *case;
    let mut verdict = Verdict::default();
    let limit = options.resources.as_ref().map_or(0, |resources| resources.memory_bytes);
    match state.status() {
        Status::Running => verdict.sentence = "it runs".into(),
        Status::Paused => {
            verdict.sentence = "it is paused".into();
            verdict.advice.push("unpause it".into());
        }
        Status::Created if state.error.is_empty() => {
            verdict.sentence = "it was created and never started".into();
            verdict.advice.push("start it".into());
        }
        _ if !state.error.is_empty() => failed_start(&mut verdict, state),
        _ => match record {
            Some(record) => ended(&mut verdict, record, limit, stopped_by_user),
            None => verdict.sentence = format!("it ended with exit code {}", state.exit_code),
        },
    }
    if let Some(health) = &state.health
        && health.status == "unhealthy"
    {
        verdict
            .facts
            .push(format!("its health check failed {} times in a row", health.failing_streak));
        if let Some(last) = health.log.last() {
            verdict
                .facts
                .push(format!("the last check said: {}", last.output.trim().escape_debug()));
        }
    }
    if state.restart_count > 0 {
        verdict
            .facts
            .push(format!("its restart policy has started it {} times", state.restart_count));
    }
    verdict
}

fn failed_start(verdict: &mut Verdict, state: &v1::ContainerState) {
    verdict.sentence = format!("it could not be started: {}", state.error);
    let advice = [
        (
            "executable file not found",
            "the image has no such program: look at the command and at PATH",
        ),
        (
            "no such file or directory",
            "the program or the interpreter that its first line names is not in the image",
        ),
        ("permission denied", "the program is not executable for its user"),
        (
            "exec format error",
            "the program is for another architecture, or a script without its first line",
        ),
        ("no space left on device", "free space on the disk"),
    ];
    let known = advice.iter().find(|(phrase, _)| state.error.contains(phrase));
    verdict.advice.extend(known.map(|(_, advice)| (*advice).to_owned()));
}

fn ended(verdict: &mut Verdict, record: &ExitRecord, limit: u64, stopped_by_user: bool) {
    if record.oom_killed() {
        let of = if limit > 0 { format!(" (limit {})", size(limit)) } else { String::new() };
        verdict.sentence = format!("killed by SIGKILL: out of memory{of}");
        verdict.advice.push("give it more memory, or find out what uses it".into());
    } else if let Some(signal) = record.signal {
        let name = signal_name(signal);
        let who = if stopped_by_user { ", because it was stopped" } else { "" };
        verdict.sentence = format!("killed by {name}{who}");
        match signal {
            libc::SIGSYS => {
                verdict
                    .facts
                    .push("SIGSYS is how seccomp ends a process for a forbidden call".into());
                verdict
                    .advice
                    .push("try --security-opt seccomp=unconfined to see whether it is that".into());
            }
            libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGABRT => {
                verdict.facts.push("the program has crashed".into());
            }
            _ => {}
        }
    } else if let Some(code) = record.exit_code {
        let meaning = match code {
            0 => " (success)",
            126 => " (by convention: a command could not be executed)",
            127 => " (by convention: a command was not found)",
            _ => "",
        };
        verdict.sentence = format!("it exited with code {code}{meaning}");
        if code > 128 && code <= 128 + 64 {
            let name = signal_name(code - 128);
            verdict.facts.push(format!("a shell gives {code} for a program that {name} has ended"));
        }
    } else {
        verdict.sentence = format!("it ended, {}", record.reason);
    }
    if record.oom_kills > 0 {
        verdict
            .facts
            .push(format!("{} of its processes were killed for want of memory", record.oom_kills));
    }
    if record.dropped_clients > 0 {
        verdict.facts.push(format!(
            "{} attached clients were too slow and were disconnected",
            record.dropped_clients
        ));
    }
    if let Some(error) = &record.runtime_error {
        verdict.facts.push(format!("the runtime said: {}", error.trim().escape_debug()));
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`.
    pub async fn why(&self, request: v1::WhyRequest) -> Result<v1::WhyResponse> {
        let handle = self.find(&request.container)?;
        let state = handle.container_state();
        let kept = handle.record();
        let record = match handle.now().is_live() {
            true => None,
            false => exit_record::read(&self.0.directory(&handle.id))?,
        };
        let case = Case {
            state: &state,
            options: &kept.effective,
            record: record.as_ref(),
            stopped_by_user: kept.facts.stopped_by_user,
        };
        let Verdict { sentence, facts, advice } = judge(&case);
        let run_time = record.as_ref().and_then(|record| record.run_time().try_into().ok());
        Ok(v1::WhyResponse {
            verdict: sentence,
            facts,
            advice,
            peak_memory_bytes: record.as_ref().and_then(|record| record.peak_memory_bytes),
            output: record.map(|record| record.last_lines).unwrap_or_default(),
            state: Some(state),
            run_time,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn verdict(status: Status, error: &str, set: impl FnOnce(&mut ExitRecord)) -> Verdict {
        let mut record = ExitRecord::unseen(None, SystemTime::now());
        set(&mut record);
        let state =
            v1::ContainerState { status: status.into(), error: error.into(), ..Default::default() };
        let resources = v1::Resources { memory_bytes: 64 << 20, ..Default::default() };
        let options = v1::ContainerOptions { resources: Some(resources), ..Default::default() };
        judge(&Case {
            state: &state,
            options: &options,
            record: Some(&record),
            stopped_by_user: false,
        })
    }

    #[test]
    fn each_end_has_its_sentence() {
        let ended = |set: fn(&mut ExitRecord)| verdict(Status::Exited, "", set).sentence;
        assert_eq!(
            ended(|record| {
                record.signal = Some(9);
                record.reason = "oom-killed".into();
            }),
            "killed by SIGKILL: out of memory (limit 64 MiB)"
        );
        assert_eq!(ended(|record| record.signal = Some(11)), "killed by SIGSEGV");
        assert_eq!(ended(|record| record.exit_code = Some(0)), "it exited with code 0 (success)");
        assert_eq!(ended(|record| record.exit_code = Some(3)), "it exited with code 3");
        assert_eq!(ended(|_| {}), "it ended, unknown: no record of the end was written");
    }

    #[test]
    fn what_does_not_run_says_what_to_do() {
        let created = verdict(Status::Created, "", |_| {});
        assert_eq!(created.sentence, "it was created and never started");
        let failed =
            verdict(Status::Created, "exec: \"x\": executable file not found in $PATH", |_| {});
        assert!(failed.sentence.starts_with("it could not be started: exec"));
        assert!(failed.advice[0].contains("PATH"));
        let seccomp = verdict(Status::Exited, "", |record| record.signal = Some(31));
        assert!(seccomp.facts[0].contains("seccomp"));
        let shell = verdict(Status::Exited, "", |record| record.exit_code = Some(137));
        assert!(shell.facts[0].contains("SIGKILL"));
    }
}
