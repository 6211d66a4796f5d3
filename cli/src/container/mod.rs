//! Commands on containers: one file each, or one for those that differ by a call.

pub(crate) mod attach;
pub(crate) mod commit;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod look;
pub(crate) mod prune;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod update;

use anyhow::Result;

use crate::{
    args::container::{Command, Group},
    connect::Manager,
};

/// Carries out a command: its exit code.
pub(crate) async fn command(manager: &Manager, command: Command) -> Result<u8> {
    match command {
        Command::Run(args) => run::run(manager, &args).await,
        Command::Create(args) => create::create(manager, &args.container).await,
        Command::Start(args) => start::start(manager, &args).await,
        Command::Stop(args) => lifecycle::stop(manager, args).await,
        Command::Restart(args) => lifecycle::restart(manager, args).await,
        Command::Kill(args) => lifecycle::kill(manager, args).await,
        Command::Pause(args) => lifecycle::pause(manager, args).await,
        Command::Unpause(args) => lifecycle::unpause(manager, args).await,
        Command::Wait(args) => lifecycle::wait(manager, args).await,
        Command::Rm(args) => lifecycle::remove(manager, args).await,
        Command::Rename(args) => lifecycle::rename(manager, args).await,
        Command::Update(args) => update::update(manager, args).await,
        Command::Ps(args) => list::list(manager, &args).await,
        Command::Logs(args) => logs::logs(manager, &args).await,
        Command::Attach(args) => attach::attach(manager, &args).await,
        Command::Exec(args) => exec::exec(manager, &args).await,
        Command::Top(args) => look::top(manager, args).await,
        Command::Stats(args) => stats::stats(manager, args).await,
        Command::Cp(args) => cp::copy(manager, &args).await,
        Command::Diff(args) => look::diff(manager, args).await,
        Command::Export(args) => export::export(manager, &args).await,
        Command::Commit(args) => commit::commit(manager, args).await,
        Command::Port(args) => look::port(manager, args).await,
        Command::Why(args) => look::why(manager, args).await,
    }
}

/// `hull container …`.
pub(crate) async fn group(manager: &Manager, group: Group) -> Result<u8> {
    match group {
        Group::Command(of) => command(manager, of).await,
        Group::Ls(args) => list::list(manager, &args).await,
        Group::Remove(args) => lifecycle::remove(manager, args).await,
        Group::Inspect(args) => inspect::containers(manager, &args).await,
        Group::Prune(args) => prune::prune(manager, args).await,
    }
}
