//! Asking others: the question goes on as it came, under an id and from a port of our own.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use domain::base::{Message, iana::Rcode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::packet::Transport;

/// How long one resolver has. All three together stay below the five seconds after which the C
/// library asks again.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// The longest answer that is taken from a datagram. Resolvers send 1232 or 4096 bytes at most;
/// who is sent more is told to come by TCP.
const MAX_DATAGRAM: usize = 4096;

/// Which of the resolvers answered last: it is asked first, so that a dead one costs its time
/// once and not for each question.
#[derive(Debug, Default)]
pub(crate) struct Preferred(AtomicUsize);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Whole(Vec<u8>),
    /// More than we take from a datagram.
    TooLong,
}

/// Asks `servers` one after the other until one knows an answer. None: nobody answered in time,
/// or all refused.
pub(crate) async fn ask(
    query: &[u8],
    transport: Transport,
    servers: &[SocketAddr],
    preferred: &Preferred,
) -> Option<Answer> {
    let first = preferred.0.load(Ordering::Relaxed);
    let mut refusal = None;
    for turn in 0..servers.len() {
        let index = first.wrapping_add(turn) % servers.len();
        let asked = timeout(ATTEMPT, ask_one(query, transport, servers[index])).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!("ask {}: {error}", servers[index]);
                continue;
            }
            Err(_) => {
                tracing::debug!("ask {}: no answer within {ATTEMPT:?}", servers[index]);
                continue;
            }
        };
        preferred.0.store(index, Ordering::Relaxed);
        if refuses(&answer) {
            refusal = Some(answer);
            continue;
        }
        return Some(answer);
    }
    refusal
}

/// Whether another resolver may know better.
fn refuses(answer: &Answer) -> bool {
    let Answer::Whole(bytes) = answer else { return false };
    let rcode = Message::from_slice(bytes).map(|message| message.header().rcode());
    matches!(rcode, Ok(Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP))
}

async fn ask_one(query: &[u8], transport: Transport, server: SocketAddr) -> io::Result<Answer> {
    let mut sent = query.to_vec();
    let id = random_id();
    sent[..2].copy_from_slice(&id);
    let mut answer = match transport {
        Transport::Udp => by_datagram(&sent, server).await?,
        Transport::Tcp => by_stream(&sent, server).await?,
    };
    if let Answer::Whole(bytes) = &mut answer {
        bytes[..2].copy_from_slice(&query[..2]);
    }
    Ok(answer)
}

/// One socket a question, so that its port is another unknown to who guesses answers
/// (RFC 5452, section 4.5). It is connected: only the resolver's datagrams arrive.
async fn by_datagram(sent: &[u8], server: SocketAddr) -> io::Result<Answer> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if !answers(&buffer[..length], sent) {
            continue;
        }
        if length > MAX_DATAGRAM {
            return Ok(Answer::TooLong);
        }
        buffer.truncate(length);
        return Ok(Answer::Whole(buffer));
    }
}

async fn by_stream(sent: &[u8], server: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, sent).await?;
    let length = stream.read_u16().await?;
    let mut answer = Vec::new();
    (&mut stream).take(length.into()).read_to_end(&mut answer).await?;
    if answer.len() < usize::from(length) || !answers(&answer, sent) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer to the question"));
    }
    Ok(Answer::Whole(answer))
}

/// Writes a message with its length (RFC 1035, section 4.2.2), in one segment.
pub(crate) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let Ok(length) = u16::try_from(message.len()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message of more than 64 KiB"));
    };
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    stream.write_all(&framed).await
}

/// Whether it is an answer to what was sent: its id and its question. A refusal may leave the
/// question out.
fn answers(answer: &[u8], sent: &[u8]) -> bool {
    let (Ok(answer), Ok(sent)) = (Message::from_slice(answer), Message::from_slice(sent)) else {
        return false;
    };
    let header = answer.header();
    answer.is_answer(sent)
        || (header.qr()
            && header.id() == sent.header().id()
            && header.rcode() != Rcode::NOERROR
            && answer.header_counts().qdcount() == 0)
}

/// Sixteen bits that nobody outside can foresee: the standard library's keys are random, and its
/// hash is made for keys that stay secret.
fn random_id() -> [u8; 2] {
    let bits = RandomState::new().hash_one(0);
    [bits as u8, (bits >> 8) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for `a.`, type A, with an id and flags.
    fn message(id: u8, flags: [u8; 2], name: u8) -> Vec<u8> {
        let mut bytes = vec![0, id, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend([1, name, 0, 0, 1, 0, 1]);
        bytes
    }

    #[test]
    fn only_an_answer_to_the_question_is_one() {
        let sent = message(7, [1, 0], b'a');
        let mut bare = vec![0; 12];
        bare[1..4].copy_from_slice(&[7, 0x80, 2]);
        for (answer, expected) in [
            (message(7, [0x81, 0x80], b'a'), true),
            (message(8, [0x81, 0x80], b'a'), false),
            (message(7, [0x01, 0x80], b'a'), false),
            (message(7, [0x81, 0x80], b'b'), false),
            (bare.clone(), true),
            (bare[..11].to_vec(), false),
        ] {
            assert_eq!(answers(&answer, &sent), expected, "{answer:?}");
        }
        bare[3] = 0;
        assert!(!answers(&bare, &sent), "an answer without its question must be a refusal");
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<_> = (0..64).map(|_| random_id()).collect();
        assert!(ids.len() > 60);
    }
}
