//! Names: queries of anybody, answers of servers that lie, files that another program was writing.

use arbitrary::{Arbitrary, Unstructured};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use slipway_dns::answer::{Origin, Outcome, answer};
use slipway_dns::config::aardvark::{self, NetworkFile};
use slipway_dns::config::{gvproxy, resolv_conf};
use slipway_dns::forward::{Action, AttemptId, Forwarder, Policy, Question};
use slipway_dns::io::conversation::{Conversation, Scratch, Verdict};
use slipway_dns::message::{Query, Rcode, RecordType, Reply, Transport, id, set_id};
use slipway_dns::zone::suffix::{self, Manner, Zones};
use slipway_dns::zone::{Order, Settings, Snapshot};
use std::collections::VecDeque;
use std::io::{self, Read, Write};

const NETWORK: &str = "10.89.0.1,fd00::1\nabc 10.89.0.2 fd00::2 web,a\ndef 10.89.0.3,10.89.0.4  web,db\n";
const SOURCE: [u8; 4] = [10, 89, 0, 2];
/// More than a run of the fuzzer writes, so that every answer is read back whole.
const LONGEST: usize = 65_535;

/// A byte of settings, then any message: it is dropped, or forwarded, or the answer belongs to it and can be read.
pub fn dns_query(data: &[u8]) {
    let Some((bits, message)) = data.split_first() else { return };
    let flag = |bit: u8| bits & 1 << bit != 0;
    let settings = Settings {
        strict_names: flag(0),
        forwarding: flag(1),
        keep_udp_size: flag(2),
        order: if flag(3) { Order::Rotated } else { Order::Listed },
        ..Settings::default()
    };
    let names = snapshot(settings, aardvark::parse("net", NETWORK.as_bytes()).unwrap());
    let transport = if flag(4) { Transport::Udp } else { Transport::Tcp };
    let source = if flag(5) { SOURCE.into() } else { IpAddr::from([198, 51, 100, 1]) };
    let network = names.network("net").unwrap();
    let mut out = Vec::new();
    let origin = Origin { source, network, transport, turn: u32::from(*bits) };
    if let Outcome::Answered(rcode) = answer(&names, origin, message, &mut out) {
        read_back(message, &out, rcode);
    }
    let Ok(query) = Query::parse(message) else { return };
    assert!(query.name().text().ends_with(b"."));
    let manner = if flag(6) { Manner::Strict } else { Manner::Contract };
    let mut zones = Zones::new(manner);
    let record = |name: &str, regexp: &str| gvproxy::Record {
        name: name.into(),
        ip: Some(SOURCE.into()),
        regexp: (!regexp.is_empty()).then(|| regexp.into()),
    };
    let records = vec![record("web", ""), record("", "^[a-c]+\\d$")];
    let zone = gvproxy::Zone { name: "dns.podman.".into(), records, default_ip: None };
    zones.add(zone).unwrap();
    if let suffix::Outcome::Answered(rcode) = zones.answer(&query, transport, &mut out) {
        read_back(message, &out, rcode);
    }
}

/// Zones, and names that are asked for.
#[derive(Debug, Arbitrary)]
struct Asked {
    strict: bool,
    zones: Vec<AnyZone>,
    names: Vec<String>,
}

#[derive(Debug, Arbitrary)]
struct AnyZone {
    name: String,
    records: Vec<(String, Option<IpAddr>, Option<String>)>,
    default_ip: Option<IpAddr>,
}

/// Zones as somebody describes them: each is taken whole or refused in one line, is listed as it was given, and
/// whatever is asked the answer can be read.
pub fn dns_zone(data: &[u8]) {
    let Ok(asked) = Asked::arbitrary(&mut Unstructured::new(data)) else { return };
    let mut zones = Zones::new(if asked.strict { Manner::Strict } else { Manner::Contract });
    for any in asked.zones.into_iter().take(8) {
        let records = any.records.into_iter().take(8);
        let records = records.map(|(name, ip, regexp)| gvproxy::Record { name, ip, regexp }).collect();
        let zone = gvproxy::Zone { name: any.name, records, default_ip: any.default_ip };
        let before: Vec<_> = zones.list().cloned().collect();
        match zones.add(zone.clone()) {
            Ok(()) => assert!(zones.list().any(|known| known.records.starts_with(&zone.records))),
            Err(error) => {
                assert_eq!(error.to_string().lines().count(), 1, "{error:?}");
                assert!(zones.list().eq(&before), "nothing was added");
            }
        }
    }
    let mut out = Vec::new();
    for message in asked.names.iter().take(32).filter_map(|name| query(name)) {
        let Ok(read) = Query::parse(&message) else { continue };
        if let suffix::Outcome::Answered(rcode) = zones.answer(&read, Transport::Udp, &mut out) {
            read_back(&message, &out, rcode);
        }
    }
}

fn read_back(query: &[u8], answer: &[u8], rcode: Rcode) {
    let read = Reply::parse(answer).expect("our own answer");
    assert_eq!((id(answer), read.rcode()), (id(query), rcode));
    assert!(answer.len() <= LONGEST);
    let mut answers = 0;
    read.records(|section, record_type, _, ttl, _| {
        answers += u16::from(section == 0);
        assert!(record_type == RecordType::OPT || ttl == 0);
    })
    .expect("our own records");
    assert_eq!(answers, read.answers());
}

const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x07example\0\0\x01\0\x01";
/// AXFR, over TCP.
const TRANSFER: &[u8] = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x03web\x07example\0\0\xfc\0\x01";

/// Answers to questions under way: each with a byte of what is right about it, a length, and any bytes. Whatever they
/// are, each question ends once and nothing is left over.
pub fn dns_forward_reply(data: &[u8]) {
    let Some((bits, mut rest)) = data.split_first() else { return };
    let policy = if bits & 1 == 0 { Policy::trusted() } else { Policy::aardvark() };
    let mut forwarder = Forwarder::new(policy, [bits | 1; 16]);
    let servers = [[198, 51, 100, 1], [198, 51, 100, 2]].map(|address| SocketAddr::from((address, 53)));
    let (mut now, mut asked, mut ended) = (Duration::ZERO, 0_u32, 0_u32);
    let mut open: Vec<(AttemptId, SocketAddr, Vec<u8>)> = Vec::new();
    while let [how, len0, len1, tail @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*len0, *len1])).min(tail.len());
        let (bytes, next) = tail.split_at(len);
        rest = next;
        let question = Question {
            client: asked,
            source: SOURCE.into(),
            transport: if how & 1 == 0 { Transport::Udp } else { Transport::Tcp },
            message: if how & 0x41 == 0x41 { TRANSFER } else { QUERY },
            servers: &servers,
        };
        asked += 1;
        forwarder.ask(now, question);
        ended += drain(&mut forwarder, &mut open);
        if let Some((attempt, server, sent)) = open.last().cloned() {
            let mut reply = bytes.to_vec();
            if how & 2 == 0 {
                set_id(&mut reply, id(&sent).unwrap_or_default());
            }
            if how & 4 == 0 {
                let len = sent.len().min(reply.len());
                reply[..len].copy_from_slice(&sent[..len]);
                if let [_, _, flags, ..] = &mut reply[..] {
                    *flags |= 0x80 | how & 8;
                }
            }
            forwarder.received(now, attempt, server, &reply);
        }
        ended += drain(&mut forwarder, &mut open);
        now += Duration::from_millis(u64::from(*how) * 10);
        forwarder.timeout(now);
        ended += drain(&mut forwarder, &mut open);
    }
    while let Some(deadline) = forwarder.deadline() {
        forwarder.timeout(deadline);
        ended += drain(&mut forwarder, &mut open);
    }
    assert_eq!((ended, open.len(), forwarder.pending()), (asked, 0, 0));
}

/// Does what is to be done; returns how many questions ended.
fn drain(forwarder: &mut Forwarder<u32>, open: &mut Vec<(AttemptId, SocketAddr, Vec<u8>)>) -> u32 {
    let mut ended = 0;
    while let Some(action) = forwarder.action() {
        match action {
            Action::SendUdp { attempt, server, message } | Action::SendTcp { attempt, server, message } => {
                open.push((attempt, server, message));
            }
            Action::Repeat { attempt, message } => {
                assert!(open.iter().any(|(id, _, sent)| *id == attempt && *sent == message));
            }
            Action::Close { attempt } => {
                let before = open.len();
                open.retain(|(id, ..)| *id != attempt);
                assert_eq!(open.len() + 1, before);
            }
            Action::Part { attempt, message, .. } => {
                assert_eq!(id(&message), Some(0x1234));
                assert!(open.iter().any(|(id, ..)| *id == attempt));
            }
            Action::Reply { message, .. } => {
                assert_eq!(id(&message), Some(0x1234));
                ended += 1;
            }
            Action::GiveUp { .. } => ended += 1,
        }
    }
    ended
}

/// A network's file, and the same bytes as resolv.conf: what is read can be served.
pub fn aardvark_config(data: &[u8]) {
    if let Ok(text) = core::str::from_utf8(data) {
        let conf = resolv_conf::parse(text);
        assert!(conf.servers.len() <= 3 && conf.skipped.len() <= 16);
    }
    let Ok(file) = aardvark::parse("net%int", data) else { return };
    assert!(file.internal && !file.listen.is_empty());
    let first = file.containers.iter().find(|c| !c.v4.is_empty()).map(|c| (c.names.clone(), c.v4[0]));
    let names = snapshot(Settings { filter_domain: String::new(), ..Settings::default() }, file);
    let Some((list, address)) = first else { return };
    let network = names.network("net").unwrap();
    for name in list {
        let Some(message) = query(&name) else { continue };
        let mut out = Vec::new();
        let origin = Origin { source: address.into(), network, transport: Transport::Tcp, turn: 0 };
        let outcome = answer(&names, origin, &message, &mut out);
        assert_eq!(outcome, Outcome::Answered(Rcode::NOERROR), "{name:?}");
        read_back(&message, &out, Rcode::NOERROR);
    }
}

/// A guest's or container's side of a connection, as bytes that arrive whenever the input says so.
#[derive(Debug, Default)]
struct Wire {
    arrived: VecDeque<u8>,
    ended: bool,
    sent: Vec<u8>,
    room: usize,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.arrived.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.arrived.read(into)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection: pieces of messages, room for answers, answers from elsewhere, time. Messages come out as they went in,
/// and what is sent are whole answers; what is under way is bounded.
pub fn dns_stream(mut data: &[u8]) {
    let (mut now, mut scratch) = (Duration::ZERO, Scratch::default());
    let mut conversation = Conversation::new(Wire::default(), now);
    let (mut fed, mut asked, mut later) = (Vec::new(), Vec::<Vec<u8>>::new(), 0);
    while let [op, len, rest @ ..] = data {
        let bytes = rest.get(..usize::from(*len)).unwrap_or(rest);
        data = rest;
        let mut alive = true;
        match op % 7 {
            0..=2 => {
                data = &rest[bytes.len()..];
                let wire = conversation.stream_mut();
                if !wire.ended {
                    wire.arrived.extend(bytes);
                    fed.extend_from_slice(bytes);
                }
            }
            3 => conversation.stream_mut().room += usize::from(*len) * 16,
            4 | 5 if later > 0 && (op % 7 == 4 || op & 0x80 == 0) => {
                later -= 1;
                alive = conversation.answer((op % 7 == 4).then_some(bytes), now);
            }
            // A message of an answer that has more of them.
            5 if op & 0x80 != 0 && later > 0 && conversation.has_room() => {
                alive = conversation.part(bytes, now);
            }
            6 if op & 0x80 != 0 => conversation.stream_mut().ended = true,
            _ => now += Duration::from_millis(u64::from(*len) * 10),
        }
        alive = alive
            && conversation.go_on(&mut scratch, now, |message, reply| {
                asked.push(message.to_vec());
                match message.first() {
                    None | Some(0xff) => Verdict::Close,
                    Some(first) if first % 2 == 0 => {
                        later += 1;
                        Verdict::Later
                    }
                    Some(_) => {
                        message.clone_into(reply);
                        Verdict::Answered
                    }
                }
            });
        assert!(later <= 16, "{later} under way");
        if !alive || conversation.deadline().is_some_and(|deadline| deadline <= now) {
            break;
        }
    }
    let mut whole = frames(&fed);
    assert!(asked.iter().all(|message| whole.next() == Some(message)), "messages come out as they went in");
}

/// The messages behind their lengths.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (message, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        bytes = rest;
        Some(message)
    })
}

/// A query for the address of a name, if a message can hold it as it is written.
fn query(name: &str) -> Option<Vec<u8>> {
    let mut message = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).ok().filter(|len| (1..64).contains(len))?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(b"\0\0\x01\0\x01");
    (message.len() <= 12 + 255 + 4).then_some(message)
}

fn snapshot(settings: Settings, file: NetworkFile) -> Snapshot {
    let mut builder = Snapshot::builder(settings);
    builder.add(file);
    builder.build()
}
