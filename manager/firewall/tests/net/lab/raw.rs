//! Frames as they are: an injector and a capture, on packet sockets.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    ifaddrs,
    sys::{
        socket::{
            self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use super::{DEADLINE, Namespace};

/// All frames of one interface, in and out.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    pub(crate) fn open(namespace: &Namespace, interface: &str) -> Self {
        let interface = interface.to_owned();
        namespace.run(move || {
            let fd = socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .expect("a packet socket");
            socket::bind(fd.as_raw_fd(), &address(&interface)).expect("an interface");
            let wait = TimeVal::milliseconds(100);
            socket::setsockopt(&fd, sockopt::ReceiveTimeout, &wait).expect("a time limit");
            Self(fd)
        })
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        socket::send(self.0.as_raw_fd(), frame, MsgFlags::empty()).expect("a frame is sent");
    }

    fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 2048];
        match socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(count) => {
                buffer.truncate(count);
                Some(buffer)
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => None,
            Err(errno) => panic!("a capture failed: {errno}"),
        }
    }

    /// Whether a frame that holds `mark` comes before one that holds `end`, which must come.
    pub(crate) fn sees(&self, mark: &[u8], end: &[u8]) -> bool {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            let Some(frame) = self.receive() else { continue };
            if holds(&frame, mark) {
                return true;
            }
            if holds(&frame, end) {
                return false;
            }
        }
        panic!("the frame that ends the capture did not come");
    }

    /// Whether a frame that holds `mark` comes within this time.
    pub(crate) fn sees_within(&self, mark: &[u8], time: Duration) -> bool {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.receive().is_some_and(|frame| holds(&frame, mark)) {
                return true;
            }
        }
        false
    }
}

fn holds(frame: &[u8], mark: &[u8]) -> bool {
    frame.windows(mark.len()).any(|window| window == mark)
}

fn address(interface: &str) -> LinkAddr {
    let all = ifaddrs::getifaddrs().expect("interfaces");
    let ours = all.filter(|one| one.interface_name == interface);
    ours.filter_map(|one| one.address?.as_link_addr().copied()).next().expect("the interface")
}
