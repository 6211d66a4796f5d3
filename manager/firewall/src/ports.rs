//! Ports of the host: reserved by bound sockets, which the proxies serve.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{
        self, AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, sockopt,
    },
};
use tokio::net::{TcpListener, UdpSocket};

use crate::{
    firewall::{Loopback, Settings},
    proxy::{Proxies, Service, Target, udp},
    rules::{Port, Protocol, Publish},
};

/// How often a port that the kernel chose for one address is tried for the others.
const DYNAMIC_ATTEMPTS: usize = 64;

/// How long a port may take to be free after its reservation was dropped: the proxy closes its
/// sockets.
const RELEASE: Duration = Duration::from_secs(2);

/// A port that somebody wants to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The protocol.
    pub protocol: Protocol,
    /// Where on the host; all of them get the same port. Docker's default is `0.0.0.0` and `::`.
    pub host_addresses: Vec<IpAddr>,
    /// The first free one of these is taken. `0..=0` is any of the kernel's range.
    pub host_ports: RangeInclusive<u16>,
    /// The port of the container.
    pub container_port: u16,
    /// By translation, or by the proxy only.
    pub publish: Publish,
}

/// Somebody has the port: the words are docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTaken {
    /// Where.
    pub address: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether a container has it, and not another program.
    pub by_container: bool,
}

impl fmt::Display for PortTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, protocol, by_container } = self;
        if *by_container {
            write!(f, "Bind for {address} failed: port is already allocated")
        } else {
            write!(f, "failed to bind host port {address}/{protocol}: address already in use")
        }
    }
}

impl std::error::Error for PortTaken {}

/// All ports of the host that containers have. A copy is another handle of the same.
#[derive(Clone)]
pub struct Ports(Arc<Registry>);

struct Registry {
    /// Whether the host's loopback, and what is not translated, is served by proxies.
    has_proxies: bool,
    /// Whether each has a socket.
    holds: bool,
    /// Whether there is a packet filter.
    translates: bool,
    proxies: Proxies,
    held: Mutex<HashMap<(Protocol, u16), HashMap<IpAddr, Holder>>>,
    released: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Reservation,
    /// Its reservation is gone; a proxy is about to close the last copy of the socket.
    Leaving,
}

/// Ports of one container. They are free again, and their proxies end, when this is dropped.
pub struct Reservation {
    registry: Arc<Registry>,
    sockets: Vec<Arc<HostSocket>>,
    /// By index into the sockets: where each leads, and its proxy.
    services: Mutex<HashMap<usize, (Target, Service)>>,
}

/// One port of one address, ours as long as this lives.
pub(crate) struct HostSocket {
    registry: Arc<Registry>,
    protocol: Protocol,
    address: SocketAddr,
    container_port: u16,
    publish: Publish,
    /// None where ports are not held, and for SCTP in a kernel without it, where no other program
    /// can have the port. Or it is served.
    fd: Mutex<Option<OwnedFd>>,
    /// There is no copy: thousands of ports are published, and a process has so many descriptors.
    served: OnceLock<Served>,
}

/// A socket as the proxies' threads wait for it.
pub(crate) enum Served {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Ports {
    /// None yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self(Arc::new(Registry {
            has_proxies: settings.loopback == Loopback::Proxy,
            holds: settings.hold_ports,
            translates: settings.enabled,
            proxies: Proxies::default(),
            held: Mutex::default(),
            released: Condvar::new(),
        }))
    }

    /// Takes all of these, or none: each by a socket, so that no other program gets it before
    /// the reservation is dropped.
    ///
    /// # Errors
    /// [`PortTaken`], beneath the error, when somebody has one; else what the system says.
    pub fn reserve(&self, wanted: &[Wanted]) -> Result<Reservation> {
        let mut sockets = Vec::new();
        for wanted in wanted {
            sockets.extend(self.0.take(wanted)?.into_iter().map(Arc::new));
        }
        Ok(Reservation { registry: self.0.clone(), sockets, services: Mutex::default() })
    }
}

impl Registry {
    fn take(self: &Arc<Self>, wanted: &Wanted) -> Result<Vec<HostSocket>> {
        if wanted.protocol == Protocol::Sctp {
            self.check_sctp(wanted)?;
        }
        let Some((first, others)) = wanted.host_addresses.split_first() else {
            return Ok(Vec::new());
        };
        if *wanted.host_ports.end() == 0 {
            return self.take_any(wanted, *first, others);
        }
        let mut last = None;
        for port in wanted.host_ports.clone() {
            match self.take_all(wanted, &wanted.host_addresses, port) {
                Err(error) if error.is::<PortTaken>() => last = Some(error),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("the range of host ports is empty")))
    }

    /// Refuses what only a proxy could do: there is none for SCTP.
    fn check_sctp(&self, wanted: &Wanted) -> Result<()> {
        if wanted.publish == Publish::Proxy {
            bail!("a port of sctp cannot be published by a proxy");
        }
        if !self.translates {
            bail!("a port of sctp cannot be published without rules of the packet filter");
        }
        let by_proxy = |ip: &&IpAddr| ip.is_loopback() && (self.has_proxies || ip.is_ipv6());
        match wanted.host_addresses.iter().find(by_proxy) {
            Some(ip) => {
                bail!("a port of sctp cannot be published on {ip}: only a proxy could do it")
            }
            None => Ok(()),
        }
    }

    /// The kernel's choice for the first address, if the others have the same port free.
    fn take_any(
        self: &Arc<Self>,
        wanted: &Wanted,
        first: IpAddr,
        others: &[IpAddr],
    ) -> Result<Vec<HostSocket>> {
        // Kept while others are tried, or the kernel might choose them again.
        let mut unfit = Vec::new();
        for _ in 0..DYNAMIC_ATTEMPTS {
            let socket = match self.bind(wanted, SocketAddr::new(first, 0)) {
                Err(error) if error.is::<PortTaken>() => continue,
                other => other?,
            };
            match self.take_all(wanted, others, socket.address.port()) {
                Ok(mut all) => {
                    all.insert(0, socket);
                    return Ok(all);
                }
                Err(error) if error.is::<PortTaken>() => unfit.push(socket),
                Err(error) => return Err(error),
            }
        }
        bail!(
            "no port is free at all of the addresses, of {DYNAMIC_ATTEMPTS} that the kernel chose"
        )
    }

    fn take_all(
        self: &Arc<Self>,
        wanted: &Wanted,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<Vec<HostSocket>> {
        addresses.iter().map(|ip| self.bind(wanted, SocketAddr::new(*ip, port))).collect()
    }

    fn bind(self: &Arc<Self>, wanted: &Wanted, mut address: SocketAddr) -> Result<HostSocket> {
        let protocol = wanted.protocol;
        let taken = |by_container| PortTaken { address, protocol, by_container };
        let deadline = Instant::now() + RELEASE;
        let mut held = self.held();
        loop {
            match conflict(&held, protocol, address) {
                None => break,
                Some(Holder::Reservation) => bail!(taken(true)),
                Some(Holder::Leaving) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        bail!(taken(true));
                    }
                    let waited = self.released.wait_timeout(held, left);
                    held = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        let is_served = self.has_proxies || wanted.publish == Publish::Proxy;
        let open = |kind, is_served| match self.holds {
            true => open(kind, address, is_served),
            false => Err(Errno::EPROTONOSUPPORT),
        };
        let fd = match open(protocol, is_served) {
            Ok(fd) => Some(fd),
            Err(Errno::EADDRINUSE) => bail!(taken(false)),
            Err(Errno::EPROTONOSUPPORT) if protocol == Protocol::Sctp || !self.holds => None,
            Err(errno) => {
                return Err(errno).with_context(|| format!("bind {address}/{protocol}"));
            }
        };
        if address.port() == 0 {
            let chosen = match &fd {
                Some(fd) => chosen_port(fd),
                // Any number serves; the kernel has the right range.
                None => open(Protocol::Udp, false).and_then(|fd| chosen_port(&fd)),
            };
            address.set_port(chosen.with_context(|| format!("choose a port of {}", address.ip()))?);
            if conflict(&held, protocol, address).is_some() {
                bail!(PortTaken { address, protocol, by_container: true });
            }
        }
        let at = held.entry((protocol, address.port())).or_default();
        at.insert(address.ip(), Holder::Reservation);
        Ok(HostSocket {
            registry: self.clone(),
            protocol,
            address,
            container_port: wanted.container_port,
            publish: wanted.publish,
            fd: Mutex::new(fd),
            served: OnceLock::new(),
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(Protocol, u16), HashMap<IpAddr, Holder>>> {
        // Entries are added and removed whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The ports, leading to a container with these addresses. What cannot lead there is left
    /// out: a port of an IPv6 address to a container without one, if there are no proxies.
    ///
    /// If there are, they publish what leads to a private address of IPv6 (RFC 4193): a network
    /// has such addresses without being asked, so its programs may listen on IPv4 only.
    #[must_use]
    pub fn ports(&self, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Vec<Port> {
        let (ipv4, ipv6) = (ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6));
        let lead = |socket: &Arc<HostSocket>| {
            let (same, other) = if socket.address.is_ipv4() { (ipv4, ipv6) } else { (ipv6, ipv4) };
            let container_address = same.or(other.filter(|_| socket.is_served()))?;
            let is_private = matches!(container_address, IpAddr::V6(v6) if v6.is_unique_local());
            let publish = match is_private && socket.is_served() {
                true => Publish::Proxy,
                false => socket.publish,
            };
            Some(Port {
                protocol: socket.protocol,
                host_address: socket.address.ip(),
                host_port: socket.address.port(),
                container_address,
                container_port: socket.container_port,
                publish,
            })
        };
        self.sockets.iter().filter_map(lead).collect()
    }

    /// Starts the proxies of these ports of a container with these addresses: where nobody listens
    /// at a port's own, the other family's is asked. Called again, it moves those whose
    /// container's addresses are others now, and ends those that are no longer in the list.
    ///
    /// The first call of all starts the proxies' threads, which stay in the network namespace of
    /// the calling thread: it must be the host's.
    ///
    /// # Errors
    /// When threads or descriptors are out.
    pub fn serve(&self, ports: &[Port], addresses: &[IpAddr]) -> Result<()> {
        let mut services = self.services();
        for (index, socket) in self.sockets.iter().enumerate() {
            let leads = ports.iter().find(|port| socket.is(port)).filter(|_| socket.is_served());
            let Some(port) = leads else {
                services.remove(&index);
                continue;
            };
            let at = |ip| SocketAddr::new(ip, port.container_port);
            let is_other = |ip: &&IpAddr| ip.is_ipv4() != port.container_address.is_ipv4();
            let other = addresses.iter().find(is_other).map(|ip| at(*ip));
            let target = Target { first: at(port.container_address), other };
            if services.get(&index).is_some_and(|(now, _)| *now == target) {
                continue;
            }
            services.remove(&index);
            let service = self
                .registry
                .proxies
                .serve(socket, target)
                .with_context(|| format!("serve port {port}"))?;
            services.insert(index, (target, service));
        }
        Ok(())
    }

    fn services(&self) -> MutexGuard<'_, HashMap<usize, (Target, Service)>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.registry.held();
        for socket in &self.sockets {
            let at = held.get_mut(&(socket.protocol, socket.address.port()));
            if let Some(holder) = at.and_then(|at| at.get_mut(&socket.address.ip())) {
                *holder = Holder::Leaving;
            }
        }
    }
}

impl HostSocket {
    /// The socket, for those who wait for it. The first call must be within the runtime that
    /// serves it.
    pub(crate) fn served(&self) -> Result<&Served> {
        if let Some(served) = self.served.get() {
            return Ok(served);
        }
        let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner).take();
        let fd = fd.context("this kernel has no such sockets")?;
        let served = Served::of(self.protocol, fd).context("prepare a socket")?;
        Ok(self.served.get_or_init(|| served))
    }

    /// Whether a proxy takes what comes to it.
    fn is_served(&self) -> bool {
        self.protocol != Protocol::Sctp
            && (self.registry.has_proxies || self.publish == Publish::Proxy)
    }

    fn is(&self, port: &Port) -> bool {
        (port.protocol, port.host_address, port.host_port)
            == (self.protocol, self.address.ip(), self.address.port())
    }
}

impl Served {
    fn of(protocol: Protocol, fd: OwnedFd) -> io::Result<Self> {
        if protocol == Protocol::Udp {
            let socket = std::net::UdpSocket::from(fd);
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            udp::ask_for_destinations(&socket)?;
            return Ok(Self::Udp(socket));
        }
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?))
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        self.served.take();
        *self.fd.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        let mut held = self.registry.held();
        let key = (self.protocol, self.address.port());
        if let Some(at) = held.get_mut(&key) {
            at.remove(&self.address.ip());
            if at.is_empty() {
                held.remove(&key);
            }
        }
        self.registry.released.notify_all();
    }
}

/// Who has a place that this one would overlap.
fn conflict(
    held: &HashMap<(Protocol, u16), HashMap<IpAddr, Holder>>,
    protocol: Protocol,
    wanted: SocketAddr,
) -> Option<Holder> {
    let overlaps = |ip: &IpAddr| {
        ip.is_ipv4() == wanted.is_ipv4()
            && (*ip == wanted.ip() || ip.is_unspecified() || wanted.ip().is_unspecified())
    };
    let at = held.get(&(protocol, wanted.port()))?;
    let mut holders = at.iter().filter(|(ip, _)| overlaps(ip)).map(|(_, holder)| *holder);
    let first = holders.next()?;
    Some(holders.fold(first, |all, one| if all == Holder::Reservation { all } else { one }))
}

/// A socket that has the port for itself. One that is served listens; one that is not refuses
/// connections, as if it were not there.
fn open(protocol: Protocol, address: SocketAddr, is_served: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, number)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    let at = SockaddrStorage::from(address);
    let mut bound = socket::bind(fd.as_raw_fd(), &at);
    // Past connections of a listener would keep the port for a minute. Who listens, or has not said
    // the same, is in the way all the same. With it, the kernel chooses from half of its range.
    if bound == Err(Errno::EADDRINUSE) && protocol == Protocol::Tcp && address.port() != 0 {
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bound = socket::bind(fd.as_raw_fd(), &at);
    }
    bound?;
    if protocol == Protocol::Tcp {
        // What listens leaves the port to a later listener; what does not is to refuse all others.
        socket::setsockopt(&fd, sockopt::ReuseAddr, &is_served)?;
        if is_served {
            socket::listen(&fd, Backlog::MAXCONN)?;
        }
    }
    Ok(fd)
}

fn chosen_port(fd: &OwnedFd) -> Result<u16, Errno> {
    let name: SockaddrStorage = socket::getsockname(fd.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(socket::SockaddrIn::port);
    v4.or_else(|| name.as_sockaddr_in6().map(socket::SockaddrIn6::port)).ok_or(Errno::EAFNOSUPPORT)
}
