//! The command line: from words to a request, to `container`, to what is printed.
//!
//! `table` says what exists, `parse` splits the words by it, `lower` makes a typed request,
//! and this module carries it out. Results go to standard output, everything else to the
//! log. It decides nothing about containers.

mod completion;
mod criu;
mod example;
mod help;
mod lower;
mod man;
mod output;
mod parse;
mod ps;
mod root;
mod signal;
mod table;
mod update;

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use hull_specs_oci as oci;
use lower::{Action, Listing};
use parse::Parsed;

use crate::{container, log, own_binary, request, spec};

/// The longest file of JSON that a command reads.
const MAX_INPUT_BYTES: u64 = 16 << 20;

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let mut parsed = Parsed::default();
    let split = parse::parse(&words, &mut parsed);
    // Whoever asks for help gets it, also beside a mistake.
    let result = match split {
        _ if parsed.help => print(help::of(parsed.command).as_bytes()),
        Ok(()) if parsed.version => print(output::version().as_bytes()),
        Ok(()) if parsed.command.is_none() => print(help::of(None).as_bytes()),
        split => return run(&parsed, split),
    };
    finish(result.map(|()| 0), 1)
}

fn run(parsed: &Parsed<'_>, split: Result<()>) -> ExitCode {
    let opened = lower::log_options(&parsed.global)
        .and_then(|options| log::open(options.file.as_deref(), options.format, options.debug));
    let global = split.and(opened).and_then(|()| lower::global(&parsed.global, root::default));
    let global = match global {
        Ok(global) => global,
        Err(error) => return finish(Err(error), 1),
    };
    let result = lower::action(parsed).and_then(|action| carry_out(parsed, &global, action));
    let (prefix, code) =
        parsed.command.map_or((None, 1), |command| (command.failure, command.failure_code));
    match prefix {
        Some(prefix) => finish(result.context(prefix), code),
        None => finish(result, code),
    }
}

/// Ends the log, and gives the exit code of a success or a failure.
fn finish(result: Result<i32>, failure_code: u8) -> ExitCode {
    match result {
        Ok(code) => {
            log::settle();
            ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
        }
        Err(error) => {
            log::failure(&error);
            ExitCode::from(failure_code)
        }
    }
}

fn carry_out(parsed: &Parsed<'_>, global: &request::Global, action: Action) -> Result<i32> {
    if action.enters_container() {
        own_binary::protect()?;
    }
    if !parsed.global.has("root") && action.uses_state() {
        root::prepare(&global.root)?;
    }
    let done = match action {
        Action::Create(request) => container::create(global, &request),
        Action::Start(id) => container::start(global, &id),
        Action::State(id) => print(&output::state(&container::state(global, &id)?)?),
        Action::Kill(request) => container::kill(global, &request),
        Action::Delete(request) => container::delete(global, &request),
        Action::Run(request) => return container::run(global, &request),
        Action::Exec(request) => return container::exec(global, &request),
        Action::Ps { id, format, options } => {
            let pids = container::processes(global, &id)?;
            match format {
                Listing::Json => print(&output::json_line(&pids)?),
                Listing::Table => print(ps::table(&pids, &options)?.as_bytes()),
            }
        }
        Action::List { format, quiet } => {
            if parsed.global.has("root") {
                // Nothing there is no error for the default root: nobody has created a
                // container yet. A root that was named and is missing is a mistake.
                let root = &global.root;
                root.metadata().with_context(|| format!("open {}", root.display()))?;
            }
            let mut containers = container::list(global)?;
            containers.sort_by(|a, b| a.id.cmp(&b.id));
            match format {
                _ if quiet => print(output::names(&containers).as_bytes()),
                Listing::Json => print(&output::json_line(&containers)?),
                Listing::Table => print(output::table(&containers).as_bytes()),
            }
        }
        Action::Pause(id) => container::pause(global, &id),
        Action::Resume(id) => container::resume(global, &id),
        Action::Update { mut request, file } => {
            if let Some(file) = file {
                request.resources = read_resources(&file)?;
            }
            update::complete(&mut request.resources);
            container::update(global, &request)
        }
        Action::Events(request) => container::events(global, &request, &mut |line| {
            print(line.as_bytes())?;
            print(b"\n")
        }),
        Action::Spec { bundle, rootless } => example::write(&bundle, rootless),
        Action::Features => print(&output::features(&container::features())?),
        Action::Explain { bundle, json } => {
            let explanation = container::explain(global, &bundle)?;
            if json {
                print(&output::json_pretty(&explanation)?)
            } else {
                print(explanation.to_string().as_bytes())
            }
        }
        Action::Checkpoint(request) => container::checkpoint(global, &request),
        Action::Restore(request) => return container::restore(global, &request),
        Action::Completion(shell) => print(completion::script(&shell)?.as_bytes()),
        Action::Man { command: None, directory: Some(directory) } => man::write_all(&directory),
        Action::Man { directory: Some(_), .. } => bail!("--dir writes every page: name no command"),
        Action::Man { command, directory: None } => {
            print(man::page(named(command.as_deref())?).as_bytes())
        }
        Action::Help(command) => print(help::of(named(command.as_deref())?).as_bytes()),
    };
    done.map(|()| 0)
}

fn named(name: Option<&str>) -> Result<Option<&'static table::Command>> {
    let find = |name| table::command(name).with_context(|| format!("unknown command {name:?}"));
    name.map(find).transpose()
}

/// Writes to standard output, at once.
fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).context("write to standard output")
}

/// Reads a `linux.resources` object from a file, or standard input for `-`.
fn read_resources(path: &Path) -> Result<oci::Resources> {
    let bytes = if path == Path::new("-") {
        read_bounded(io::stdin().lock()).context("read standard input")?
    } else {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        read_bounded(file).with_context(|| format!("read {}", path.display()))?
    };
    let resources: Option<oci::Resources> =
        spec::parse(&bytes).with_context(|| format!("parse resources from {}", path.display()))?;
    Ok(resources.unwrap_or_default())
}

fn read_bounded(input: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        bail!("more than {MAX_INPUT_BYTES} bytes");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
