//! Commands on images and registries.

pub(crate) mod archive;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod remove;
pub(crate) mod search;

use anyhow::Result;

use crate::{
    args::image::{Both, Command, Group},
    connect::Manager,
    container::inspect::{self, Ask, Kind},
};

/// Carries out a command: its exit code.
pub(crate) async fn command(manager: &Manager, command: Command) -> Result<u8> {
    match command {
        Command::Images(args) => list::list(manager, &args).await,
        Command::Rmi(args) => remove::remove(manager, args).await,
        Command::Both(of) => both(manager, of).await,
        Command::Login(args) => login::login(manager, &args).await,
        Command::Logout(args) => login::logout(manager, &args).await,
        Command::Search(args) => search::search(manager, &args).await,
    }
}

/// `hull image …`.
pub(crate) async fn group(manager: &Manager, group: Group) -> Result<u8> {
    match group {
        Group::Ls(args) => list::list(manager, &args).await,
        Group::Rm(args) => remove::remove(manager, args).await,
        Group::Inspect(args) => {
            let platform = args.platform.as_deref().unwrap_or_default();
            let ask = Ask { kinds: &[Kind::Image], size: false, platform, traffic: false };
            inspect::documents(manager, &ask, &args.images, args.format.as_deref()).await
        }
        Group::Prune(args) => remove::prune(manager, args).await,
        Group::Both(of) => both(manager, of).await,
    }
}

async fn both(manager: &Manager, command: Both) -> Result<u8> {
    match command {
        Both::Pull(args) => pull::pull(manager, &args).await,
        Both::Push(args) => push::push(manager, &args).await,
        Both::Load(args) => archive::load(manager, &args).await,
        Both::Save(args) => archive::save(manager, args).await,
        Both::Import(args) => archive::import(manager, &args).await,
        Both::Tag(args) => remove::tag(manager, args).await,
        Both::History(args) => history::history(manager, &args).await,
    }
}
