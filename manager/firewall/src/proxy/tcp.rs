//! Connections: bytes both ways, and the end of each way by itself. One may be silent for as long
//! as it likes; one whose other end is gone without a word ends by TCP's own questions.

use std::{sync::Arc, time::Duration};

use hull_runtime_sys::process;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{self, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::Semaphore,
    task::JoinSet,
    time,
};

use super::Target;

/// Connections of one port at a time, if there are descriptors enough. With buffers of 64 KiB,
/// clients who take nothing cost 256 MiB.
const MAX_CONNECTIONS: u64 = 4096;

/// The limit's number, whose constant has another type in musl than in glibc.
const RLIMIT_NOFILE: u32 = 7;

/// Bytes under way in each direction of a connection.
const BUFFER_BYTES: usize = 32 * 1024;

/// Seconds of silence until an end is asked whether it is there, and between two questions, as
/// docker's proxy has it. The kernel gives up after nine (tcp_keepalive_probes): two and a half
/// minutes in all.
const KEEPALIVE_SECONDS: u32 = 15;

/// How long the container may take to accept.
const CONNECT: Duration = Duration::from_secs(10);

/// After an `accept` that failed: descriptors are out, or a client was gone before.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections of one port at a time, of two descriptors each: no port has more than half of all.
/// More wait in the kernel's queue.
fn max_connections(descriptors: u64) -> usize {
    usize::try_from((descriptors / 4).clamp(1, MAX_CONNECTIONS)).unwrap_or(1)
}

pub(super) async fn serve(listener: &TcpListener, target: Target) {
    let descriptors = process::limit(0, RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let most = max_connections(descriptors);
    let budget = Arc::new(Semaphore::new(most));
    let mut was_full = false;
    // Ends them with the port.
    let mut connections = JoinSet::new();
    loop {
        if budget.available_permits() == 0 && !std::mem::replace(&mut was_full, true) {
            let at = listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
            tracing::warn!(
                at,
                most,
                "a published port has all connections of its proxy: more wait"
            );
        }
        let Ok(permit) = budget.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((client, _)) => connections.spawn(async move {
                // Either side may end a connection as it likes.
                _ = carry(client, target).await;
                drop(permit);
            }),
            Err(_) => {
                time::sleep(PAUSE).await;
                continue;
            }
        };
    }
}

async fn carry(mut client: TcpStream, target: Target) -> io::Result<()> {
    let mut server = time::timeout(CONNECT, connect(target)).await??;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        keep_alive(stream)?;
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(pass(from_client, to_server), pass(from_server, to_client))?;
    Ok(())
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_SECONDS)?;
    Ok(())
}

async fn pass(from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    loop {
        from.readable().await?;
        // None while it waits: connections that are only held cost no buffers.
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match from.try_read(&mut buffer) {
                Ok(0) => return to.shutdown().await,
                Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default()).await?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

async fn connect(target: Target) -> io::Result<TcpStream> {
    match (TcpStream::connect(target.first).await, target.other) {
        (Err(_), Some(other)) => TcpStream::connect(other).await,
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_at_most_half_of_the_descriptors() {
        for (descriptors, most) in [(0, 1), (1024, 256), (8000, 2000), (1 << 20, 4096)] {
            assert_eq!(max_connections(descriptors), most, "{descriptors}");
        }
    }
}
