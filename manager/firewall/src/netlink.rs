//! The socket to netfilter: transactions, dumps and notifications.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
    },
};

use crate::nft::{Batch, Finished, Received, SUBSYSTEM, Writer, messages};

/// The most that one datagram of the kernel's is expected to have; a dump's are at most 32 KiB,
/// and an error brings the message that failed.
const RECEIVE_BYTES: usize = 256 * 1024;

/// Room beside the messages in the send buffer: the kernel counts its own overhead too.
const SEND_RESERVE_BYTES: usize = 64 * 1024;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A socket to netfilter in the network namespace of the thread that opened it, forever.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    send_bytes: usize,
}

impl Socket {
    /// `groups` are the bits of `NFNLGRP_…` to be told of.
    pub(crate) fn open(groups: u32) -> Result<Self> {
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .context("open a socket to netfilter")?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))
            .context("bind a socket to netfilter")?;
        Ok(Self { fd, sequence: 1, send_bytes: 0 })
    }

    /// The number that notifications name this socket's changes by.
    pub(crate) fn port(&self) -> Result<u32> {
        let address: NetlinkAddr = socket::getsockname(self.fd.as_raw_fd())
            .context("look up the address of a socket to netfilter")?;
        Ok(address.pid())
    }

    /// Room for this many bytes of notifications that were not yet taken.
    pub(crate) fn set_receive_bytes(&self, bytes: usize) -> Result<()> {
        socket::setsockopt(&self.fd, sockopt::RcvBufForce, &bytes)
            .context("enlarge the buffer of a socket to netfilter")
    }

    /// A transaction on the tables of this name, to be filled and committed.
    pub(crate) fn batch(&self, table: &str) -> Batch {
        Batch::new(table, self.sequence)
    }

    /// All of it, or nothing and the reason: the first message that the kernel refused, with
    /// its `Errno` beneath.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let batch = batch.finish();
        self.sequence = batch.last.wrapping_add(2);
        self.reserve(batch.bytes.len())?;
        self.send(&batch.bytes).context("send a transaction to netfilter")?;
        // The kernel has worked by the time that sendmsg(2) returns: all answers are there.
        let mut failures = BTreeMap::new();
        let mut is_acknowledged = false;
        while let Some(datagram) = self.receive(MsgFlags::MSG_DONTWAIT)? {
            for message in messages(&datagram).filter(|message| message.kind == ERROR) {
                match error_of(message) {
                    Some(errno) => _ = failures.entry(message.sequence).or_insert(errno),
                    None => is_acknowledged |= message.sequence == batch.last,
                }
            }
        }
        if let Some((sequence, errno)) = failures.first_key_value() {
            return Err(failure(&batch, *sequence, *errno));
        }
        if !is_acknowledged {
            return Err(failure(&batch, batch.last, Errno::ETIMEDOUT));
        }
        Ok(())
    }

    /// All answers to a request for a list. What changes while it is read may be missing: the
    /// kernel says so (`NLM_F_DUMP_INTR`), and the list is asked for again.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        body: impl Fn(&mut Writer),
        mut each: impl FnMut(Received<'_>),
    ) -> Result<()> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let mut writer = Writer::default();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        writer.message(kind, flags, sequence, (family, 0), body);
        self.send(&writer.into_bytes()).context("ask netfilter for a list")?;
        loop {
            let Some(datagram) = self.receive(MsgFlags::empty())? else { continue };
            for message in messages(&datagram).filter(|message| message.sequence == sequence) {
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let errno = error_of(message).unwrap_or(Errno::UnknownErrno);
                        return Err(errno).context("list what netfilter has");
                    }
                    _ => each(message),
                }
            }
        }
    }

    /// One request with an answer of yes or no.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        family: u8,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), Errno> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let mut writer = Writer::default();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        writer.message(kind, flags, sequence, (family, 0), body);
        self.send(&writer.into_bytes())?;
        while let Some(datagram) = self.take(MsgFlags::MSG_DONTWAIT)? {
            let answer = messages(&datagram).find(|m| m.kind == ERROR && m.sequence == sequence);
            if let Some(answer) = answer {
                return error_of(answer).map_or(Ok(()), Err);
            }
        }
        Err(Errno::ETIMEDOUT)
    }

    /// One datagram; none if there is none and the flags say not to wait.
    pub(crate) fn receive(&self, flags: MsgFlags) -> Result<Option<Vec<u8>>> {
        self.take(flags).context("receive from netfilter")
    }

    fn take(&self, flags: MsgFlags) -> Result<Option<Vec<u8>>, Errno> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            match socket::recv(self.fd.as_raw_fd(), &mut buffer, flags) {
                Ok(count) => {
                    buffer.truncate(count);
                    return Ok(Some(buffer));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        loop {
            match socket::send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// A transaction is one message to the socket, which must fit its buffer.
    fn reserve(&mut self, bytes: usize) -> Result<()> {
        let wanted = bytes + SEND_RESERVE_BYTES;
        if wanted > self.send_bytes {
            socket::setsockopt(&self.fd, sockopt::SndBufForce, &wanted)
                .context("enlarge the buffer of a socket to netfilter")?;
            self.send_bytes = wanted;
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The type of a message to nftables.
pub(crate) fn nft_kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// What an `NLMSG_ERROR` says: nothing for an acknowledgement.
fn error_of(message: Received<'_>) -> Option<Errno> {
    let code = message.payload.get(..4)?.try_into().ok().map(i32::from_ne_bytes)?;
    (code != 0).then(|| Errno::from_raw(-code))
}

fn failure(batch: &Finished, sequence: u32, errno: Errno) -> anyhow::Error {
    anyhow::Error::new(errno).context(format!("nftables: {}", batch.step(sequence)))
}
