//! Signals that come to us and belong to the container.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// All that a program can be sent and that mean nothing to us ourselves. Not SIGCHLD, SIGPIPE,
/// SIGURG and SIGWINCH; those that stop a terminal's job stay with the shell.
const FORWARDED: [i32; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// The numbers of signals as they come. From now on they no longer end us.
pub(crate) fn forwarded() -> std::io::Result<mpsc::Receiver<i32>> {
    let (sender, receiver) = mpsc::channel(16);
    for number in FORWARDED {
        let mut signals = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send(number).await.is_err() {
                    break;
                }
            }
        });
    }
    Ok(receiver)
}

/// Comes whenever the terminal's size has changed.
pub(crate) fn resized() -> std::io::Result<tokio::signal::unix::Signal> {
    signal(SignalKind::window_change())
}
