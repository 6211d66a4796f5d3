//! How the runtime and the container's first process talk while it is being made.
//!
//! | from child | meaning | answer |
//! | --- | --- | --- |
//! | `U` | in its new user namespace | `M`: the ids are mapped |
//! | `P` pid | the second stage has this pid in the runtime's pid namespace | — |
//! | — | — | `C` + descriptors: the cgroups are ready to be joined |
//! | `H` | mounts are made, the root is not yet changed | `h`: the runtime's hooks have run |
//! | `S` number | a seccomp listener is at this descriptor | `s`: it has been taken |
//! | `R` | ready for the program | `K`: recorded, wait for `start`; `G`: go |
//! | `W` text | something to log | — |
//! | `E` text | failed; the child ends after this | — |
//!
//! The end of the channel after `G` means that the exec succeeded. Each message is one
//! packet; a child whose runtime is gone reads the end of the channel and ends too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;

/// The longest message, in bytes; the text of an error is cut to it.
const MAX_MESSAGE_BYTES: usize = 8192;

/// A message of either side.
#[derive(Debug)]
pub(crate) enum Message {
    UserNamespace,
    Mapped,
    Pid(i32),
    Cgroups(Vec<OwnedFd>),
    Hooks,
    HooksDone,
    Listener(i32),
    ListenerTaken,
    Ready,
    Commit,
    Go,
    Warning(String),
    Error(String),
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (a, b) = sys::socket::packet_pair()?;
        Ok((Self(a), Self(b)))
    }

    /// Sends by write(2) alone, without allocating, for a sender that a seccomp profile
    /// may already confine.
    pub(crate) fn send_tag(&self, tag: u8, number: i32) -> sys::Result<()> {
        let n = number.to_ne_bytes();
        sys::fd::write(&self.0, &[tag, n[0], n[1], n[2], n[3]]).map(drop)
    }

    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        match message {
            Message::UserNamespace => self.send_tag(b'U', 0)?,
            Message::Mapped => self.send_tag(b'M', 0)?,
            Message::Pid(pid) => self.send_tag(b'P', *pid)?,
            Message::Hooks => self.send_tag(b'H', 0)?,
            Message::HooksDone => self.send_tag(b'h', 0)?,
            Message::Listener(number) => self.send_tag(b'S', *number)?,
            Message::ListenerTaken => self.send_tag(b's', 0)?,
            Message::Ready => self.send_tag(b'R', 0)?,
            Message::Commit => self.send_tag(b'K', 0)?,
            Message::Go => self.send_tag(b'G', 0)?,
            Message::Cgroups(fds) => {
                use std::os::fd::AsRawFd;
                let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
                sys::socket::send(&self.0, b"C", &numbers)?;
            }
            Message::Warning(text) | Message::Error(text) => {
                let mut end = text.len().min(MAX_MESSAGE_BYTES - 1);
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                let tag = if matches!(message, Message::Error(_)) { b"E" } else { b"W" };
                let packet = [tag, &text.as_bytes()[..end]].concat();
                sys::fd::write(&self.0, &packet)?;
            }
        }
        Ok(())
    }

    /// Waits for the next message; `None` is the end.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let received = match sys::socket::receive(&self.0, &mut buffer) {
            // The other side ended with a message of ours unread. The kernel says so once,
            // and then gives what the other side had sent before.
            Err(error) if error.errno() == libc::ECONNRESET => {
                sys::socket::receive(&self.0, &mut buffer)
            }
            result => result,
        };
        let (n, fds) = received.context("cannot read from the container's process")?;
        let Some((tag, rest)) = buffer[..n].split_first() else { return Ok(None) };
        let number = rest.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        Ok(Some(match tag {
            b'U' => Message::UserNamespace,
            b'M' => Message::Mapped,
            b'P' => Message::Pid(number),
            b'C' => Message::Cgroups(fds),
            b'H' => Message::Hooks,
            b'h' => Message::HooksDone,
            b'S' => Message::Listener(number),
            b's' => Message::ListenerTaken,
            b'R' => Message::Ready,
            b'K' => Message::Commit,
            b'G' => Message::Go,
            b'E' => Message::Error(String::from_utf8_lossy(rest).into_owned()),
            b'W' => Message::Warning(String::from_utf8_lossy(rest).into_owned()),
            other => bail!("unknown message {other} from the container's process"),
        }))
    }

    /// Waits for the one message that is expected now.
    pub(crate) fn expect(&self, what: &str, wanted: fn(&Message) -> bool) -> Result<Message> {
        match self.receive()? {
            Some(message) if wanted(&message) => Ok(message),
            Some(message) => bail!("expected {what}, received {message:?}"),
            None => bail!("the runtime ended before {what}"),
        }
    }

    /// Reads one tag by read(2) alone, for a reader that a seccomp profile may confine.
    pub(crate) fn receive_tag(&self) -> sys::Result<Option<u8>> {
        let mut byte = [0; 5];
        Ok(match sys::fd::read(&self.0, &mut byte)? {
            0 => None,
            _ => Some(byte[0]),
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_with_their_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::Pid(4711)).unwrap();
        a.send(&Message::Cgroups(vec![sys::fd::memory_file(c"x").unwrap()])).unwrap();
        a.send(&Message::Error("é".repeat(MAX_MESSAGE_BYTES))).unwrap();
        drop(a);
        assert!(matches!(b.receive().unwrap(), Some(Message::Pid(4711))));
        assert!(matches!(b.receive().unwrap(), Some(Message::Cgroups(fds)) if fds.len() == 1));
        let Some(Message::Error(text)) = b.receive().unwrap() else { panic!() };
        assert!(text.len() < MAX_MESSAGE_BYTES && text.chars().all(|c| c == 'é'));
        assert!(b.receive().unwrap().is_none());
    }
}
