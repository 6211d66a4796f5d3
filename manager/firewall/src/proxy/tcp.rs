//! Connections: bytes both ways, and the end of each way by itself.

use std::{sync::Arc, time::Duration};

use tokio::{
    io,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time,
};

use super::Target;

/// Connections of one port at a time. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;

/// Bytes under way in each direction of a connection.
const BUFFER_BYTES: usize = 32 * 1024;

/// How long the container may take to accept.
const CONNECT: Duration = Duration::from_secs(10);

/// After an `accept` that failed: descriptors are out, or a client was gone before.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(listener: &TcpListener, target: Target) {
    let budget = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Ends them with the port.
    let mut connections = JoinSet::new();
    loop {
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
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

async fn connect(target: Target) -> io::Result<TcpStream> {
    match (TcpStream::connect(target.first).await, target.other) {
        (Err(_), Some(other)) => TcpStream::connect(other).await,
        (result, _) => result,
    }
}
