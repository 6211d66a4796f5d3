//! From a question's bytes to an answer's. Pure; what a container sends ends here or goes on as
//! it came.

use std::net::IpAddr;

use domain::{
    base::{
        Message, MessageBuilder, Name, StaticCompressor, ToName,
        iana::{Class, Opcode, OptRcode, Rcode, Rtype},
        message_builder::AnswerBuilder,
        record::Ttl,
    },
    rdata::{A, Aaaa, Ptr},
};

use crate::directory::{Directory, Found, View, Wanted};

/// How long an answer may be remembered. A container that is started again may have another
/// address, so that is short.
const TTL: Ttl = Ttl::from_secs(5);

/// What fits into a datagram without EDNS (RFC 1035, section 4.2.1).
const PLAIN_BYTES: usize = 512;
/// The most that is sent in one with EDNS: what no path fragments (RFC 9715).
const EDNS_BYTES: u16 = 1232;
/// An OPT record without options.
const OPT_BYTES: usize = 11;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What happens with a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It is none: no answer at all, so that nobody can make two servers talk to each other.
    Drop,
    /// An answer.
    Reply(Vec<u8>),
    /// No network knows the name.
    Forward,
}

type Answer = AnswerBuilder<StaticCompressor<Vec<u8>>>;

/// Reacts to what who sees `view` has sent.
pub(crate) fn react(
    bytes: &[u8],
    transport: Transport,
    directory: &Directory,
    view: &View,
) -> Reaction {
    let Ok(query) = Message::from_octets(bytes) else { return Reaction::Drop };
    let header = query.header();
    if header.qr() {
        return Reaction::Drop;
    }
    if header.opcode() != Opcode::QUERY {
        return refuse(&query, Rcode::NOTIMP);
    }
    let Ok(question) = query.sole_question() else { return refuse(&query, Rcode::FORMERR) };
    if question.qclass() != Class::IN {
        return Reaction::Forward;
    }
    let wanted = match question.qtype() {
        Rtype::A => Wanted::V4,
        Rtype::AAAA => Wanted::V6,
        Rtype::PTR => Wanted::Name,
        _ => Wanted::Other,
    };
    let found = text(question.qname()).and_then(|name| directory.find(view, &name, wanted));
    match found {
        Some(found) => reply(&query, transport, question.qname(), &found),
        None => Reaction::Forward,
    }
}

/// An answer without content: `rcode` says why.
pub(crate) fn error(bytes: &[u8], rcode: Rcode) -> Reaction {
    match Message::from_octets(bytes) {
        Ok(query) => refuse(&query, rcode),
        Err(_) => Reaction::Drop,
    }
}

/// Tells a client that it must come again by TCP.
pub(crate) fn truncated(bytes: &[u8]) -> Reaction {
    let Ok(query) = Message::from_octets(bytes) else { return Reaction::Drop };
    let Some(mut answer) = start(&query, Rcode::NOERROR) else { return Reaction::Drop };
    answer.header_mut().set_tc(true);
    finish(answer, &query)
}

fn refuse(query: &Message<&[u8]>, rcode: Rcode) -> Reaction {
    let answer = if rcode == Rcode::FORMERR {
        // The question can't be repeated: it could not be read.
        empty(query, rcode).map(|builder| builder.question().answer())
    } else {
        start(query, rcode)
    };
    answer.map_or(Reaction::Drop, |answer| finish(answer, query))
}

fn empty(
    query: &Message<&[u8]>,
    rcode: Rcode,
) -> Option<MessageBuilder<StaticCompressor<Vec<u8>>>> {
    let target = StaticCompressor::new(Vec::with_capacity(PLAIN_BYTES));
    let mut builder = MessageBuilder::from_target(target).ok()?;
    let header = builder.header_mut();
    header.set_id(query.header().id());
    header.set_qr(true);
    header.set_opcode(query.header().opcode());
    header.set_rd(query.header().rd());
    header.set_ra(true);
    header.set_rcode(rcode);
    Some(builder)
}

fn start(query: &Message<&[u8]>, rcode: Rcode) -> Option<Answer> {
    let mut question = empty(query, rcode)?.question();
    for item in query.question() {
        question.push(item.ok()?).ok()?;
    }
    Some(question.answer())
}

fn reply(
    query: &Message<&[u8]>,
    transport: Transport,
    name: &impl ToName,
    found: &Found,
) -> Reaction {
    let edns = query.opt();
    if edns.as_ref().is_some_and(|opt| opt.version() > 0) {
        return bad_version(query);
    }
    let Some(mut answer) = start(query, Rcode::NOERROR) else { return Reaction::Drop };
    let size = match (transport, edns.as_ref()) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (_, None) => PLAIN_BYTES,
        (_, Some(opt)) => usize::from(opt.udp_payload_size().min(EDNS_BYTES)).max(PLAIN_BYTES),
    };
    answer.set_push_limit(size - if edns.is_some() { OPT_BYTES } else { 0 });
    answer.header_mut().set_aa(true);
    if fill(&mut answer, query.header().id(), name, found).is_none() {
        // What fits is true too, and enough for most who ask.
        answer.header_mut().set_tc(true);
    }
    answer.clear_push_limit();
    finish(answer, query)
}

/// Puts the records in; none: not all fit.
fn fill(answer: &mut Answer, id: u16, name: &impl ToName, found: &Found) -> Option<()> {
    match found {
        Found::Known => Some(()),
        Found::Name(text) => {
            let target: Name<Vec<u8>> = Name::vec_from_str(&escaped(text)).ok()?;
            answer.push((name, TTL, Ptr::new(target))).ok()
        }
        Found::Addresses(addresses) => {
            // Clients take the first. Their ids are random, and so is who comes first.
            let first = usize::from(id) % addresses.len().max(1);
            let (later, sooner) = addresses.split_at(first);
            sooner.iter().chain(later).try_for_each(|address| {
                match address {
                    IpAddr::V4(v4) => answer.push((name, TTL, A::new(*v4))),
                    IpAddr::V6(v6) => answer.push((name, TTL, Aaaa::new(*v6))),
                }
                .ok()
            })
        }
    }
}

/// Only versions of EDNS that we know are answered (RFC 6891, section 6.1.3).
fn bad_version(query: &Message<&[u8]>) -> Reaction {
    let Some(answer) = start(query, Rcode::NOERROR) else { return Reaction::Drop };
    let mut additional = answer.additional();
    let done = additional.opt(|opt| {
        opt.set_udp_payload_size(EDNS_BYTES);
        opt.set_rcode(OptRcode::BADVERS);
        Ok(())
    });
    done.map_or(Reaction::Drop, |()| Reaction::Reply(additional.finish().into_target()))
}

/// Who speaks EDNS is answered with it (RFC 6891, section 6.1.1).
fn finish(answer: Answer, query: &Message<&[u8]>) -> Reaction {
    let mut additional = answer.additional();
    if query.opt().is_some()
        && additional
            .opt(|opt| {
                opt.set_udp_payload_size(EDNS_BYTES);
                Ok(())
            })
            .is_err()
    {
        return Reaction::Drop;
    }
    Reaction::Reply(additional.finish().into_target())
}

/// A name in small letters with dots; none: a dot is inside a part, so it is nobody's name.
fn text(name: &impl ToName) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(64);
    for label in name.iter_labels().filter(|label| !label.is_root()) {
        if label.as_slice().contains(&b'.') {
            return None;
        }
        if !text.is_empty() {
            text.push(b'.');
        }
        text.extend(label.as_slice().iter().map(u8::to_ascii_lowercase));
    }
    Some(text)
}

/// A name for the reader of presentation format, in which a backslash and a quote mean something.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}
