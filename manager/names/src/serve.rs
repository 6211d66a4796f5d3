//! Serving one container: its datagrams and connections, within limits (R14).
//!
//! Everything that a container causes is a task of its own and ends with it: aborting
//! [`container`] closes its sockets and forgets its questions.

use std::{io, sync::Arc, time::Duration};

use domain::base::iana::Rcode;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    Shared, Viewer,
    directory::Forward,
    forward::{self, Answer, write_message},
    packet::{self, Reaction, Transport},
    sockets::Sockets,
};

/// Questions of one container that others are being asked at a time. The next is refused.
const MAX_FORWARDED: usize = 128;
/// Connections of one container at a time. The next waits.
const MAX_CONNECTIONS: usize = 32;
/// Such things of all containers together.
pub(crate) const MAX_EVERYWHERE: usize = 2048;
/// The longest question. Names are 255 bytes; the rest is for options.
const MAX_QUESTION: usize = 4096;
/// Datagrams that are answered before others have their turn.
const BATCH: usize = 64;
/// How long a connection may be silent, or not take its answer (RFC 7766, section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);

/// Answers one container until aborted.
pub(crate) async fn container(sockets: Sockets, viewer: Arc<Viewer>, shared: Arc<Shared>) {
    let open = || Ok((UdpSocket::from_std(sockets.udp)?, TcpListener::from_std(sockets.tcp)?));
    let (udp, tcp) = match open() {
        Ok(sockets) => sockets,
        Err::<_, io::Error>(error) => {
            tracing::error!("serve names: {error}");
            return;
        }
    };
    tokio::join!(datagrams(Arc::new(udp), &viewer, &shared), connections(&tcp, &viewer, &shared));
}

async fn datagrams(socket: Arc<UdpSocket>, viewer: &Arc<Viewer>, shared: &Arc<Shared>) {
    let mut forwarded = JoinSet::new();
    let mut buffer = vec![0; MAX_QUESTION + 1];
    loop {
        tokio::select! {
            ready = socket.readable() => if ready.is_err() { return },
            Some(_) = forwarded.join_next() => continue,
        }
        for _ in 0..BATCH {
            let (length, client) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An earlier answer found nobody; it is not about this socket.
                Err(_) => continue,
            };
            let query = &buffer[..length];
            let reaction = if length > MAX_QUESTION {
                packet::error(query, Rcode::FORMERR)
            } else {
                shared.react(query, Transport::Udp, viewer)
            };
            match reaction {
                Reaction::Drop => {}
                // A client that does not read loses answers, as datagrams may be lost.
                Reaction::Reply(answer) => drop(socket.try_send_to(&answer, client)),
                Reaction::Forward => {
                    while forwarded.try_join_next().is_some() {}
                    let permit = (forwarded.len() < MAX_FORWARDED)
                        .then(|| Arc::clone(&shared.budget).try_acquire_owned().ok())
                        .flatten();
                    let Some(permit) = permit else {
                        if let Reaction::Reply(answer) = packet::error(query, Rcode::SERVFAIL) {
                            drop(socket.try_send_to(&answer, client));
                        }
                        continue;
                    };
                    let (socket, viewer, shared) =
                        (Arc::clone(&socket), Arc::clone(viewer), Arc::clone(shared));
                    let query = query.to_vec();
                    forwarded.spawn(async move {
                        let answer = forward(&query, Transport::Udp, &viewer, &shared).await;
                        if let Some(answer) = answer {
                            drop(socket.send_to(&answer, client).await);
                        }
                        drop(permit);
                    });
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn connections(listener: &TcpListener, viewer: &Arc<Viewer>, shared: &Arc<Shared>) {
    let mut open = JoinSet::new();
    let pause = Semaphore::new(0);
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < MAX_CONNECTIONS => {
                let Ok((stream, _)) = accepted else {
                    // No descriptors: what is open must end first. Accepting again at once
                    // would spin.
                    drop(timeout(Duration::from_millis(100), pause.acquire()).await);
                    continue;
                };
                let Ok(permit) = Arc::clone(&shared.budget).try_acquire_owned() else { continue };
                let (viewer, shared) = (Arc::clone(viewer), Arc::clone(shared));
                open.spawn(async move {
                    drop(connection(stream, &viewer, &shared).await);
                    drop(permit);
                });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

/// Answers the questions of one connection, one after the other.
async fn connection(
    mut stream: TcpStream,
    viewer: &Viewer,
    shared: &Shared,
) -> Result<(), io::Error> {
    stream.set_nodelay(true)?;
    let mut query = Vec::new();
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            if length > MAX_QUESTION {
                return Err(io::ErrorKind::InvalidData.into());
            }
            query.resize(length, 0);
            stream.read_exact(&mut query).await
        };
        timeout(IDLE, read).await??;
        let answer = match shared.react(&query, Transport::Tcp, viewer) {
            Reaction::Drop => return Ok(()),
            Reaction::Reply(answer) => answer,
            Reaction::Forward => match forward(&query, Transport::Tcp, viewer, shared).await {
                Some(answer) => answer,
                None => return Ok(()),
            },
        };
        timeout(IDLE, write_message(&mut stream, &answer)).await??;
    }
}

/// The answer of others, or why there is none.
async fn forward(
    query: &[u8],
    transport: Transport,
    viewer: &Viewer,
    shared: &Shared,
) -> Option<Vec<u8>> {
    let servers = match viewer.view().forward.clone() {
        // Nobody else is asked: there is no such name here.
        Forward::Never => return reply(packet::error(query, Rcode::NXDOMAIN)),
        Forward::Host => shared.resolvers.servers(),
        Forward::Servers(servers) => servers.into(),
    };
    match forward::ask(query, transport, &servers, &viewer.preferred).await {
        Some(Answer::Whole(answer)) => Some(answer),
        Some(Answer::TooLong) => reply(packet::truncated(query)),
        None => reply(packet::error(query, Rcode::SERVFAIL)),
    }
}

fn reply(reaction: Reaction) -> Option<Vec<u8>> {
    match reaction {
        Reaction::Reply(answer) => Some(answer),
        Reaction::Drop | Reaction::Forward => None,
    }
}
