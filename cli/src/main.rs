//! hull, the command line, with docker's grammar. Commands are lowered to messages of hull.v1 and
//! sent to the manager; nothing is decided here that the manager could decide.
#![forbid(unsafe_code)]
#![allow(rustdoc::invalid_html_tags, reason = "help texts are docker's, and documentation second")]

mod args;
mod connect;
mod container;
mod credentials;
mod each;
mod failure;
mod format;
mod image;
mod network;
mod options;
mod progress;
mod prompt;
mod report;
mod system;
mod terminal;
mod transfer;
mod volume;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use args::{Cli, Command, parse::Stop};
use connect::Manager;
use failure::Failure;

/// What a shell sees of a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 141;

fn main() -> ExitCode {
    hull_manager_archive::worker::run_if_asked();
    let code = match words().and_then(|words| run(&words)) {
        Ok(code) => code,
        Err(error) if failure::is_broken_pipe(&error) => BROKEN_PIPE,
        Err(error) => {
            report::error(&error);
            error.downcast_ref::<Failure>().map_or(1, |failure| failure.code)
        }
    };
    ExitCode::from(code)
}

fn words() -> Result<Vec<String>> {
    std::env::args_os()
        .map(|word| word.into_string().ok().context("an argument is not UTF-8"))
        .collect()
}

fn run(words: &[String]) -> Result<u8> {
    match args::parse::parse(words) {
        Ok(cli) => {
            // One thread: what blocks is on threads of its own, and starting more costs time.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("the runtime")?;
            let outcome = runtime.block_on(command(cli));
            // A read of standard input is not waited for.
            runtime.shutdown_background();
            outcome
        }
        Err(Stop::Print(text)) => {
            terminal::output::print(&text)?;
            Ok(0)
        }
        Err(Stop::Wrong(text, code)) => {
            report::line(&text);
            Ok(code)
        }
    }
}

async fn command(cli: Cli) -> Result<u8> {
    let manager = Manager::new(&cli.global)?;
    let outcome = match cli.command {
        Command::Container(command) => container::command(&manager, command).await,
        Command::ContainerGroup(group) => container::group(&manager, group).await,
        Command::Image(group) => image::group(&manager, group).await,
        Command::Images(command) => image::command(&manager, command).await,
        Command::Volume(command) => volume::command(&manager, command).await,
        Command::System(group) => system::group(&manager, group).await,
        Command::Systems(command) => system::command(&manager, command).await,
        Command::Network(command) => network::command(&manager, command).await,
    };
    outcome.map_err(|error| failure::reached(error, &manager.host))
}
