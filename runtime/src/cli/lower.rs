//! Gives the words of a command line their meaning: a typed request.
//!
//! Nothing is done here, and nothing read but the environment's facts: every option can be
//! tested by the request it makes.

use std::{
    env,
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use hull_specs_oci as oci;

use super::{
    criu,
    parse::{self, Given, Parsed},
    signal, update,
};
use crate::{log, request};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    Create(request::Create),
    Start(oci::ContainerId),
    State(oci::ContainerId),
    Kill(request::Kill),
    Delete(request::Delete),
    Run(request::Run),
    Exec(request::Exec),
    Ps {
        id: oci::ContainerId,
        format: Listing,
        options: Vec<String>,
    },
    List {
        format: Listing,
        quiet: bool,
    },
    Pause(oci::ContainerId),
    Resume(oci::ContainerId),
    /// The resources are in the file, where there is one.
    Update {
        request: Box<request::Update>,
        file: Option<PathBuf>,
    },
    Events(request::Events),
    Spec {
        bundle: PathBuf,
        rootless: bool,
    },
    Features,
    Checkpoint(request::Checkpoint),
    Restore(Box<request::Restore>),
    Explain {
        bundle: PathBuf,
        json: bool,
    },
    Completion(String),
    Man {
        command: Option<String>,
        directory: Option<PathBuf>,
    },
    Help(Option<String>),
}

/// How `ps` and `list` print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    Table,
    Json,
}

/// Where the log goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) file: Option<PathBuf>,
    pub(super) format: log::Format,
    pub(super) debug: bool,
}

/// The options of the log, which are needed before everything else.
pub(super) fn log_options(given: &Given<'_>) -> Result<LogOptions> {
    let format = match given.text("log-format")? {
        None | Some("text") => log::Format::Text,
        Some("json") => log::Format::Json,
        Some(other) => bail!("invalid log-format: {other}"),
    };
    let file = given.value("log").map(PathBuf::from);
    Ok(LogOptions { file, format, debug: given.flag("debug") })
}

/// The options before the command. `default_root` is asked only where no root is given.
pub(super) fn global(
    given: &Given<'_>,
    default_root: impl FnOnce() -> Result<PathBuf>,
) -> Result<request::Global> {
    let root = if given.has("root") {
        let root = absolute(given.value("root").context("the root directory is not named")?)?;
        if root == Path::new("/") {
            bail!("the root directory must not be /");
        }
        root
    } else {
        default_root()?
    };
    let rootless = match given.text("rootless")? {
        None => None,
        Some(auto) if auto.eq_ignore_ascii_case("auto") => None,
        Some(text) => Some(parse::truth(OsStr::new(text)).ok_or_else(|| {
            anyhow!("invalid value {text:?} for flag -rootless: not true, false or auto")
        })?),
    };
    Ok(request::Global { root, systemd_cgroup: given.flag("systemd-cgroup"), rootless })
}

/// The request that a command and its options make.
pub(super) fn action(parsed: &Parsed<'_>) -> Result<Action> {
    let command = parsed.command.context("no command")?;
    let options = &parsed.options;
    Ok(match command.name {
        "create" => Action::Create(create(parsed)?),
        "start" => Action::Start(id(parsed)?),
        "state" => Action::State(id(parsed)?),
        "kill" => Action::Kill(kill(parsed)?),
        "delete" => {
            Action::Delete(request::Delete { id: id(parsed)?, force: options.flag("force") })
        }
        "run" => Action::Run(run(parsed)?),
        "exec" => Action::Exec(exec(parsed)?),
        "ps" => Action::Ps {
            id: id(parsed)?,
            format: listing(options)?,
            options: texts(rest(parsed), "ps")?,
        },
        "list" => Action::List { format: listing(options)?, quiet: options.flag("quiet") },
        "pause" => Action::Pause(id(parsed)?),
        "resume" => Action::Resume(id(parsed)?),
        "update" => change(parsed)?,
        "events" => Action::Events(events(parsed)?),
        "spec" => Action::Spec { bundle: bundle(options)?, rootless: options.flag("rootless") },
        "features" => Action::Features,
        "checkpoint" => Action::Checkpoint(criu::checkpoint(parsed)?),
        "restore" => Action::Restore(Box::new(criu::restore(parsed)?)),
        "explain" => Action::Explain {
            bundle: bundle(options)?,
            json: match options.text("format")? {
                None | Some("text") => false,
                Some("json") => true,
                Some(_) => bail!("invalid format option"),
            },
        },
        "completion" => Action::Completion(texts(&parsed.args, "completion")?.concat()),
        "man" => Action::Man {
            command: texts(&parsed.args, "man")?.pop(),
            directory: options.value("dir").map(PathBuf::from),
        },
        "help" => Action::Help(texts(&parsed.args, "help")?.pop()),
        other => bail!("unknown command {other:?}"),
    })
}

pub(super) fn id(parsed: &Parsed<'_>) -> Result<oci::ContainerId> {
    let word = parsed.args.first().filter(|word| !word.is_empty());
    let word = word.context("container id cannot be empty")?;
    Ok(word.to_string_lossy().parse()?)
}

/// The arguments after the container's id.
fn rest<'a, 'b>(parsed: &'b Parsed<'a>) -> &'b [&'a OsStr] {
    parsed.args.get(1..).unwrap_or_default()
}

fn texts(words: &[&OsStr], name: &str) -> Result<Vec<String>> {
    let text = |word: &&OsStr| {
        let word: &OsStr = word;
        let text = word.to_str().map(str::to_owned);
        text.with_context(|| format!("{name} argument {word:?} is not UTF-8"))
    };
    words.iter().map(text).collect()
}

fn listing(options: &Given<'_>) -> Result<Listing> {
    match options.text("format")? {
        None | Some("table") => Ok(Listing::Table),
        Some("json") => Ok(Listing::Json),
        Some(_) => bail!("invalid format option"),
    }
}

fn attachment(options: &Given<'_>) -> Result<request::Attachment> {
    let path = |name| options.value(name).map(PathBuf::from);
    let count = options.whole("preserve-fds")?.unwrap_or(0);
    Ok(request::Attachment {
        console_socket: path("console-socket"),
        pidfd_socket: path("pidfd-socket"),
        pid_file: options.value("pid-file").map(absolute).transpose()?,
        preserve_fds: u32::try_from(count)
            .map_err(|_| anyhow!("invalid value \"{count}\" for flag -preserve-fds"))?,
        detach: options.flag("detach"),
    })
}

fn create(parsed: &Parsed<'_>) -> Result<request::Create> {
    let options = &parsed.options;
    Ok(request::Create {
        bundle: bundle(options)?,
        id: id(parsed)?,
        attachment: attachment(options)?,
        no_pivot: options.flag("no-pivot"),
        no_new_keyring: options.flag("no-new-keyring"),
    })
}

pub(super) fn run(parsed: &Parsed<'_>) -> Result<request::Run> {
    Ok(request::Run {
        create: create(parsed)?,
        keep: parsed.options.flag("keep"),
        no_subreaper: parsed.options.flag("no-subreaper"),
    })
}

fn kill(parsed: &Parsed<'_>) -> Result<request::Kill> {
    let signal = texts(rest(parsed), "kill")?.pop().filter(|text| !text.is_empty());
    Ok(request::Kill {
        id: id(parsed)?,
        signal: signal::parse(signal.as_deref().unwrap_or("TERM"))?,
        all: parsed.options.flag("all"),
    })
}

fn exec(parsed: &Parsed<'_>) -> Result<request::Exec> {
    let options = &parsed.options;
    let process = match options.value("process") {
        Some(file) => request::ExecProcess::File(file.into()),
        None => request::ExecProcess::Changed(Box::new(changes(parsed)?)),
    };
    let cgroups = options.all("cgroup").map(|value| parse::utf8(value, "cgroup"));
    Ok(request::Exec {
        id: id(parsed)?,
        attachment: attachment(options)?,
        process,
        cgroups: cgroups.map(|text| text.map(str::to_owned)).collect::<Result<_>>()?,
        ignore_paused: options.flag("ignore-paused"),
    })
}

fn changes(parsed: &Parsed<'_>) -> Result<request::ExecChanges> {
    let options = &parsed.options;
    let args = texts(rest(parsed), "exec")?;
    if args.is_empty() {
        bail!("exec args cannot be empty");
    }
    let text = |name| options.text(name).map(|text| text.map(str::to_owned));
    let all = |name| -> Result<Vec<String>> {
        options.all(name).map(|value| Ok(parse::utf8(value, name)?.to_owned())).collect()
    };
    let group = |value| {
        let gid = parse::number(value, "additional-gids")?;
        u32::try_from(gid).map_err(|_| anyhow!("additional-gids must be a positive number {gid}"))
    };
    Ok(request::ExecChanges {
        args,
        cwd: text("cwd")?,
        env: all("env")?,
        terminal: options.flag("tty"),
        user: options.text("user")?.map(user).transpose()?,
        additional_gids: options.all("additional-gids").map(group).collect::<Result<_>>()?,
        selinux_label: text("process-label")?,
        apparmor_profile: text("apparmor")?,
        no_new_privileges: options.has("no-new-privs").then(|| options.flag("no-new-privs")),
        capabilities: all("cap")?,
    })
}

/// `UID` or `UID:GID`.
fn user(text: &str) -> Result<(u32, Option<u32>)> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let gid = gid.map(|gid| gid.parse().map_err(|_| anyhow!("bad gid: {gid:?} is not a number")));
    let uid = uid.parse().map_err(|_| anyhow!("bad uid: {uid:?} is not a number"))?;
    Ok((uid, gid.transpose()?))
}

fn change(parsed: &Parsed<'_>) -> Result<Action> {
    let options = &parsed.options;
    let file = options.value("resources").map(PathBuf::from);
    let text = |name| options.text(name).map(|text| text.map(str::to_owned));
    let request = Box::new(request::Update {
        id: id(parsed)?,
        // A file decides alone, as the help says.
        resources: match file {
            Some(_) => oci::Resources::default(),
            None => update::resources(options)?,
        },
        l3_cache_schema: text("l3-cache-schema")?,
        mem_bw_schema: text("mem-bw-schema")?,
    });
    Ok(Action::Update { request, file })
}

fn events(parsed: &Parsed<'_>) -> Result<request::Events> {
    let interval = parsed.options.text("interval")?.unwrap_or("5s");
    let invalid = || anyhow!("invalid value {interval:?} for flag -interval: not a duration");
    let interval_ms = milliseconds(interval).ok_or_else(invalid)?;
    if interval_ms == 0 {
        bail!("duration interval must be greater than 0");
    }
    Ok(request::Events { id: id(parsed)?, once: parsed.options.flag("stats"), interval_ms })
}

/// A duration as Go writes it: `5s`, `1m30s`, `1.5h`, `500ms`. What is positive but less
/// than a millisecond counts as one.
fn milliseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1e-6,
                "us" | "µs" | "μs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return None,
            };
        rest = &rest[end..];
    }
    // Go's longest duration is 2^63 nanoseconds.
    (total < 9.2e12).then(|| if total > 0.0 { (total as u64).max(1) } else { 0 })
}

/// The bundle as the path that state and hooks will show. Callers give absolute paths; the
/// file system is asked only about others, for `..` may lie behind a link.
fn bundle(options: &Given<'_>) -> Result<PathBuf> {
    let Some(path) = options.value("bundle").map(Path::new) else {
        return env::current_dir().context("find the current directory");
    };
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) {
        // Collected again, without doubled and trailing slashes.
        return Ok(path.components().collect());
    }
    path.canonicalize().with_context(|| format!("find bundle {}", path.display()))
}

/// An absolute path without `.` and `..`, by its text alone: what it names may not exist yet.
pub(super) fn absolute(path: &OsStr) -> Result<PathBuf> {
    let path = Path::new(path);
    let mut clean = if path.is_absolute() {
        PathBuf::from("/")
    } else {
        env::current_dir().context("find the current directory")?
    };
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

impl Action {
    /// Whether a process of this program will be where processes of a container can reach it.
    pub(super) fn enters_container(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Run(_) | Self::Exec(_) | Self::Restore(_))
    }

    /// Whether the action looks into the root directory.
    pub(super) fn uses_state(&self) -> bool {
        !matches!(
            self,
            Self::Spec { .. }
                | Self::Features
                | Self::Explain { .. }
                | Self::Completion(_)
                | Self::Man { .. }
                | Self::Help(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One part of a user by the letter: digits, with a plus sign before them or without.
    fn number(text: &str) -> Option<u32> {
        let digits = text.strip_prefix('+').unwrap_or(text);
        let worth = |letter: char| "0123456789".find(letter).and_then(|at| u32::try_from(at).ok());
        if digits.is_empty() {
            return None;
        }
        digits
            .chars()
            .try_fold(0, |sum: u32, letter| sum.checked_mul(10)?.checked_add(worth(letter)?))
    }

    #[test]
    fn a_user_is_two_numbers_or_refused() {
        const LETTERS: [char; 10] = ['0', '1', '9', ':', '+', '-', 'x', ' ', ',', '\n'];
        let mut taken = 0;
        for length in 0..=5 {
            for mut index in 0..10_usize.pow(length) {
                let mut text = String::new();
                for _ in 0..length {
                    text.push(LETTERS[index % 10]);
                    index /= 10;
                }
                let expected = match text.split(':').collect::<Vec<_>>()[..] {
                    [uid] => number(uid).map(|uid| (uid, None)),
                    [uid, gid] => number(uid).zip(number(gid).map(Some)),
                    _ => None,
                };
                assert_eq!(user(&text).ok(), expected, "{text:?}");
                taken += usize::from(expected.is_some());
            }
        }
        assert!(taken > 500, "{taken}");
        for text in ["4294967296", "18446744073709551616", "0:4294967296", "0x0", "1e3", "\u{661}"]
        {
            assert!(user(text).is_err(), "{text}");
        }
    }
}
