//! Commands on the manager, and on everything.

pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod df;
pub(crate) mod events;
pub(crate) mod info;
pub(crate) mod prune;
pub(crate) mod version;

use anyhow::Result;

use crate::{
    args::system::{Both, Command, Group},
    connect::Manager,
    container::inspect,
};

/// Carries out a command: its exit code.
pub(crate) async fn command(manager: &Manager, command: Command) -> Result<u8> {
    match command {
        Command::Inspect(args) => inspect::any(manager, &args).await,
        Command::Version(args) => version::version(manager, &args).await,
        Command::Both(of) => both(manager, of).await,
        Command::Completion(args) => completion::script(&args),
        Command::Man(args) => completion::manual(&args),
    }
}

/// `hull system …`.
pub(crate) async fn group(manager: &Manager, group: Group) -> Result<u8> {
    match group {
        Group::Df(args) => df::usage(manager, &args).await,
        Group::Prune(args) => prune::prune(manager, args).await,
        Group::Check(args) => check::check(manager, &args).await,
        Group::Both(of) => both(manager, of).await,
    }
}

async fn both(manager: &Manager, command: Both) -> Result<u8> {
    match command {
        Both::Events(args) => events::events(manager, &args).await,
        Both::Info(args) => info::info(manager, &args).await,
    }
}
