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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::Member;

    const RD: u8 = 1;

    /// A question of one name, with EDNS of a size if one is given.
    fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0, 7, RD, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(label.len() as u8);
            bytes.extend(label.bytes());
        }
        bytes.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        if let Some(size) = edns {
            bytes.extend([0, 0, 41, (size >> 8) as u8, size as u8, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    }

    fn setting() -> (Directory, View) {
        let mut directory = Directory::default();
        directory.name("1", "net");
        let zone = directory.zone("1").unwrap();
        let member = |id: String, names: &[&str], addresses: Vec<IpAddr>| Member {
            id,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses,
        };
        let web = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        zone.insert(member("web".into(), &["Web", "we_b.x"], web));
        zone.insert(member("q".into(), &["a\\b\"c"], vec!["10.0.0.9".parse().unwrap()]));
        for host in 1..=200 {
            let address = IpAddr::from([10, 1, 0, host]);
            zone.insert(member(format!("m{host}"), &["many"], vec![address]));
        }
        (directory, View { networks: vec!["1".into()], ..View::default() })
    }

    fn ask(bytes: &[u8], transport: Transport) -> Reaction {
        let (directory, view) = setting();
        react(bytes, transport, &directory, &view)
    }

    /// An answer as text: code, flags, records; its bytes.
    fn shown(reaction: Reaction) -> (String, usize) {
        let Reaction::Reply(bytes) = reaction else { return (format!("{reaction:?}"), 0) };
        let message = Message::from_octets(&bytes[..]).unwrap();
        let header = message.header();
        assert!(header.qr() && header.ra() && header.id() == 7);
        let mut text = header.rcode().to_string();
        if header.aa() {
            text += " aa";
        }
        if header.tc() {
            text += " tc";
        }
        let answers = message.answer().unwrap().limit_to::<domain::rdata::AllRecordData<_, _>>();
        let records: Vec<String> =
            answers.map(|record| record.unwrap().data().to_string()).collect();
        text += &match records.len() {
            0..=3 => records.iter().map(|record| format!(" {record}")).collect::<String>(),
            count => format!(" {count} records"),
        };
        if message.opt().is_some() {
            text += " edns";
        }
        (text, bytes.len())
    }

    #[test]
    fn questions_have_these_answers() {
        for (name, kind, expected) in [
            ("web", 1, "NOERROR aa 10.0.0.2"),
            ("WEB", 1, "NOERROR aa 10.0.0.2"),
            ("web.net", 28, "NOERROR aa fd00::2"),
            ("we_b.x", 1, "NOERROR aa 10.0.0.2"),
            ("many", 28, "NOERROR aa"),
            ("web", 15, "NOERROR aa"),
            ("web", 255, "NOERROR aa"),
            ("2.0.0.10.in-addr.arpa", 12, "NOERROR aa Web.net."),
            ("9.0.0.10.in-addr.arpa", 12, "NOERROR aa a\\\\b\"c.net."),
            ("3.0.0.10.in-addr.arpa", 12, "Forward"),
            ("db", 1, "Forward"),
            ("", 1, "Forward"),
            ("example.com", 1, "Forward"),
        ] {
            let answer = shown(ask(&question(name, kind, None), Transport::Udp)).0;
            assert_eq!(answer, expected, "{name} {kind}");
        }
    }

    #[test]
    fn an_answer_is_as_long_as_its_way_allows() {
        for (edns, transport, expected, most) in [
            (None, Transport::Udp, "NOERROR aa tc 30 records", 512),
            (Some(100), Transport::Udp, "NOERROR aa tc 29 records edns", 512),
            (Some(1000), Transport::Udp, "NOERROR aa tc 60 records edns", 1000),
            (Some(65535), Transport::Udp, "NOERROR aa tc 74 records edns", 1232),
            (None, Transport::Tcp, "NOERROR aa 200 records", 65535),
            (Some(512), Transport::Tcp, "NOERROR aa 200 records edns", 65535),
        ] {
            let (answer, bytes) = shown(ask(&question("many", 1, edns), transport));
            assert_eq!(answer, expected, "{edns:?} {transport:?}");
            assert!(bytes <= most, "{edns:?} {transport:?}: {bytes}");
        }
        assert_eq!(shown(truncated(&question("x", 1, None))).0, "NOERROR tc");
    }

    #[test]
    fn who_comes_first_changes_with_the_question() {
        let first = |id: u8| {
            let mut bytes = question("many", 1, None);
            bytes[1] = id;
            let Reaction::Reply(answer) = ask(&bytes, Transport::Udp) else { panic!() };
            answer[bytes.len() + 12..bytes.len() + 16].to_vec()
        };
        assert_eq!(
            (first(0), first(1), first(200)),
            (vec![10, 1, 0, 1], vec![10, 1, 0, 2], vec![10, 1, 0, 1])
        );
    }

    #[test]
    fn what_is_no_question_is_dropped_or_refused() {
        let good = question("web", 1, None);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            shown(ask(&bytes, Transport::Udp)).0
        };
        assert_eq!(with(2, 0x80), "Drop", "an answer");
        assert_eq!(with(2, 0x10), "NOTIMP", "another operation: STATUS");
        assert_eq!(with(5, 0), "FORMERR", "no question");
        assert_eq!(with(5, 2), "FORMERR", "two");
        assert_eq!(with(12, 0xc0), "FORMERR", "a name that points nowhere");
        assert_eq!(with(good.len() - 1, 3), "Forward", "another class: CHAOS");
        assert_eq!(shown(ask(&good[..11], Transport::Udp)).0, "Drop");
        assert_eq!(shown(ask(&good[..good.len() - 1], Transport::Udp)).0, "FORMERR");
        assert_eq!(shown(ask(b"", Transport::Udp)).0, "Drop");
        let mut newer = question("web", 1, Some(1232));
        let version = newer.len() - 5;
        newer[version] = 1;
        let Reaction::Reply(answer) = ask(&newer, Transport::Udp) else { panic!() };
        let rcode = Message::from_octets(&answer[..]).unwrap().opt_rcode();
        assert_eq!(rcode, OptRcode::BADVERS);
    }

    #[test]
    fn a_dot_inside_a_label_is_nobody() {
        let mut bytes = question("web.net", 1, None);
        bytes[12] = 7;
        bytes[16] = b'.';
        assert_eq!(ask(&bytes, Transport::Udp), Reaction::Forward);
    }

    /// Whatever comes, there is no panic, and what is answered is a message with the same id.
    #[test]
    fn mutated_questions_are_answered_or_dropped() {
        let (directory, view) = setting();
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let seeds = [
            question("web", 1, Some(1232)),
            question("many", 1, None),
            question("2.0.0.10.in-addr.arpa", 12, Some(512)),
        ];
        for _ in 0..100_000 {
            let mut bytes = seeds[random() % seeds.len()].clone();
            for _ in 0..1 + random() % 4 {
                let at = random() % bytes.len();
                match random() % 4 {
                    0 => bytes.truncate(at.max(1)),
                    1 => bytes.insert(at, random() as u8),
                    _ => bytes[at] = random() as u8,
                }
            }
            if let Reaction::Reply(answer) = react(&bytes, Transport::Udp, &directory, &view) {
                assert_eq!(answer[..2], bytes[..2], "{bytes:?}");
                assert!(answer.len() <= usize::from(EDNS_BYTES), "{bytes:?}");
                assert!(answer[2] & 0x80 != 0, "{bytes:?}");
            }
        }
    }
}
