//! Datagrams: each client has a socket of its own towards the container, by which answers find
//! back.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    cmsg_space, libc,
    sys::socket::{self, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, sockopt},
};
use tokio::{io::Interest, net::UdpSocket, task::JoinSet, time};

use super::Target;
use crate::ports::{HostSocket, Served};

/// Clients of one port at a time. Datagrams of more are dropped, as a full queue's are.
const MAX_CLIENTS: usize = 1024;

/// How long a client is remembered that neither sends nor gets anything: docker's time.
const IDLE: Duration = Duration::from_secs(90);

/// What is kept of a datagram until it is answered, to be sent to the other family's address.
/// Nobody answers a larger one by listening elsewhere: its client must ask again.
const MAX_KEPT_BYTES: usize = 4096;

/// The largest datagram.
const MAX_BYTES: usize = 65_535;

/// Who sent, and which of the host's addresses it was sent to: answers come from there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Client {
    from: SocketAddr,
    to: IpAddr,
}

struct Flow {
    socket: UdpSocket,
    target: Target,
    /// The last datagram that was not answered, if it can be sent to the other family's address.
    unanswered: Mutex<Vec<u8>>,
    /// Milliseconds since `start` at which something was last carried.
    last_ms: AtomicU64,
    start: Instant,
}

type Flows = Arc<Mutex<HashMap<Client, Arc<Flow>>>>;

pub(super) async fn serve(socket: &Arc<HostSocket>, listener: &UdpSocket, target: Target) {
    let flows = Flows::default();
    // Ends them with the port.
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; MAX_BYTES];
    loop {
        while answers.try_join_next().is_some() {}
        let received = listener.async_io(Interest::READABLE, || receive(listener, &mut buffer));
        // An error is of one datagram: an earlier answer of ours that nobody took.
        let Ok((count, client)) = received.await else { continue };
        let known = lock(&flows).get(&client).cloned();
        let flow = match known {
            Some(flow) => flow,
            None if lock(&flows).len() >= MAX_CLIENTS => continue,
            None => {
                let Ok(flow) = Flow::open(target).await else { continue };
                lock(&flows).insert(client, flow.clone());
                let (socket, flows, first) = (socket.clone(), flows.clone(), flow.clone());
                answers.spawn(async move {
                    if let Ok(Served::Udp(listener)) = socket.served() {
                        answer_all(first, &flows, listener, client).await;
                    }
                    lock(&flows).remove(&client);
                });
                flow
            }
        };
        flow.carry(buffer.get(..count).unwrap_or_default()).await;
    }
}

/// Carries answers to a client, from the family's address that does not refuse.
async fn answer_all(first: Arc<Flow>, flows: &Flows, listener: &UdpSocket, client: Client) {
    let mut flow = first;
    while let Some(turned) = flow.answer(listener, client).await {
        let Ok(next) = Flow::open(turned).await else { return };
        lock(flows).insert(client, next.clone());
        next.touch();
        let datagram = std::mem::take(&mut *flow.unanswered());
        if !datagram.is_empty() {
            // Not kept once more: where both refuse, it is lost.
            _ = next.socket.send(&datagram).await;
        }
        flow = next;
    }
}

/// Each datagram shall tell which of the host's addresses it was sent to.
pub(crate) fn ask_for_destinations(listener: &UdpSocket) -> io::Result<()> {
    if listener.local_addr()?.is_ipv4() {
        socket::setsockopt(listener, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        socket::setsockopt(listener, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    Ok(())
}

fn lock(flows: &Flows) -> std::sync::MutexGuard<'_, HashMap<Client, Arc<Flow>>> {
    flows.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flow {
    async fn open(target: Target) -> io::Result<Arc<Self>> {
        let any: IpAddr = match target.first {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(target.first).await?;
        Ok(Arc::new(Self {
            socket,
            target,
            unanswered: Mutex::default(),
            last_ms: AtomicU64::new(0),
            start: Instant::now(),
        }))
    }

    /// Carries a datagram to the container.
    async fn carry(&self, bytes: &[u8]) {
        self.touch();
        if self.target.other.is_some() {
            let mut kept = self.unanswered();
            kept.clear();
            if bytes.len() <= MAX_KEPT_BYTES {
                kept.extend_from_slice(bytes);
            }
        }
        // An error is the refusal of an earlier datagram, and this one was not sent.
        if self.socket.send(bytes).await.is_err() {
            _ = self.socket.send(bytes).await;
        }
    }

    /// Carries answers until nothing was carried either way for a while; or until nobody listens
    /// in the container and there is another family: then it says where to turn to.
    async fn answer(&self, listener: &UdpSocket, client: Client) -> Option<Target> {
        let mut buffer = vec![0; MAX_BYTES];
        loop {
            let left = IDLE.saturating_sub(self.idle());
            if left.is_zero() {
                return None;
            }
            match time::timeout(left, self.socket.recv(&mut buffer)).await {
                Ok(Ok(count)) => {
                    self.touch();
                    self.unanswered().clear();
                    let bytes = buffer.get(..count).unwrap_or_default();
                    // A client that is gone loses its answers.
                    let write = || send(listener, bytes, client);
                    _ = listener.async_io(Interest::WRITABLE, write).await;
                }
                // A refusal. Without another address the client may try again.
                Ok(Err(_)) => {
                    if let Some(other) = self.target.other {
                        return Some(Target { first: other, other: Some(self.target.first) });
                    }
                }
                Err(_) => {}
            }
        }
    }

    fn unanswered(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = socket::recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        flags,
    )?;
    let from = message.address.and_then(|address| socket_address(&address));
    let mut to = None;
    for item in message.cmsgs()? {
        match item {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                to = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                to = Some(IpAddr::from(info.ipi6_addr.s6_addr));
            }
            _ => {}
        }
    }
    let (Some(from), Some(to)) = (from, to) else {
        return Err(io::Error::other("a datagram without addresses"));
    };
    Ok((message.bytes, Client { from, to }))
}

fn send(socket: &UdpSocket, bytes: &[u8], client: Client) -> io::Result<usize> {
    let slices = [IoSlice::new(bytes)];
    let address = SockaddrStorage::from(client.from);
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = match client.to {
        IpAddr::V4(from) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            socket::sendmsg(socket.as_raw_fd(), &slices, &control, flags, Some(&address))
        }
        IpAddr::V6(from) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: 0,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            socket::sendmsg(socket.as_raw_fd(), &slices, &control, flags, Some(&address))
        }
    };
    Ok(sent?)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
