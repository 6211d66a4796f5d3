//! hulld, the manager: images, containers, volumes, over gRPC.
//!
//! It can be killed at any time: containers belong to their shims, and what should exist is in
//! the metadata store. Everything else is found by looking, when it starts again.
#![forbid(unsafe_code)]

mod config;
mod host;
mod listen;
mod log;
mod metrics;
mod networks;
mod notify;
mod roots;
mod system;
mod tls;
mod wire;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Flags};

fn main() -> ExitCode {
    hull_manager_archive::worker::run_if_asked();
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::last_words(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<()> {
    let config = Config::load(flags)?;
    if flags.validate {
        log::say("configuration OK");
        return Ok(());
    }
    let log = log::start(&config)?;
    // Two threads: the work is other processes' (shims, archive workers) and the kernel's.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .context("start the manager's threads")?;
    let result = runtime.block_on(serve(flags, config, &log));
    // What still runs was given its time.
    runtime.shutdown_background();
    result
}

/// From the locks on the roots to the last answer.
async fn serve(flags: &Flags, config: Config, log: &log::Handle) -> Result<()> {
    // Signals first: one that comes while we start ends us in the same way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let roots = roots::claim(&config)?;
    let sockets = listen::bind(&config)?;
    let manager = wire::Manager::open(&config)?;
    manager.recover().await.context("find what ran on")?;
    let (stop, server) = manager.serve(sockets, &config).await?;
    let server = tokio::spawn(server);
    notify::ready();
    tracing::info!(data_root = %config.data_root.display(), "hulld {} is ready", env!("CARGO_PKG_VERSION"));

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                notify::reloading();
                match Config::load(flags) {
                    Ok(fresh) => {
                        log.level(fresh.log_level);
                        manager.reload(&fresh);
                        tracing::info!("the configuration was read again");
                    }
                    Err(error) => tracing::error!("the configuration stays as it was: {error:#}"),
                }
                notify::ready();
            }
        }
    }
    notify::stopping();
    tracing::info!("hulld ends; containers go on");
    stop.cancel();
    manager.shutdown().await;
    if tokio::time::timeout(config.shutdown_timeout, server).await.is_err() {
        tracing::warn!("some requests did not end within {:?}", config.shutdown_timeout);
    }
    listen::remove(&config);
    drop(roots);
    Ok(())
}
