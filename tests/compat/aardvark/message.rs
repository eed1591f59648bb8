//! DNS messages by hand: what a test sends and what it understands, independent of the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const MX: u16 = 15;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const OPT: u16 = 41;

pub(crate) const NOERROR: u16 = 0;
pub(crate) const NXDOMAIN: u16 = 3;
pub(crate) const REFUSED: u16 = 5;

/// A query with one question and recursion desired.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = header(id, 0x0100, [1, 0, 0, 0]);
    question(&mut bytes, name, kind);
    bytes
}

/// The same with an OPT record: a payload size and a cookie.
pub(crate) fn query_with_opt(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = header(id, 0x0100, [1, 0, 0, 1]);
    question(&mut bytes, name, kind);
    bytes.push(0);
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    for word in [OPT, 1232, 0, 0x8000, 12] {
        bytes.extend_from_slice(&u16::to_be_bytes(word));
    }
    bytes.extend_from_slice(&cookie);
    bytes
}

/// An answer to a query: flags, and records of address or text for the query's own name.
pub(crate) fn answer(query: &[u8], flags: u16, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let seen = Message::read(query).expect("the daemon forwards proper queries");
    let mut bytes = header(seen.id, 0x8000 | flags, [1, 0, 0, 0]);
    bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    question(&mut bytes, &seen.name, seen.kind);
    for (kind, data) in records {
        // A pointer to the question's name.
        bytes.extend_from_slice(&[0xc0, 12]);
        for word in [*kind, 1, 0, 60, u16::try_from(data.len()).unwrap()] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(data);
    }
    bytes
}

pub(crate) fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [id, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

fn question(bytes: &mut Vec<u8>, name: &str, kind: u16) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1_u16.to_be_bytes());
}

/// The name that asks for an address's names.
pub(crate) fn reverse(address: &str) -> String {
    match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// One record of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Name(String),
    Other(Vec<u8>),
}

/// A message as a test sees it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) id: u16,
    pub(crate) flags: u16,
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) answers: Vec<Record>,
    pub(crate) rest: Vec<Record>,
}

impl Message {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        let [id, flags, questions, answers, authority, additional] = [(); 6].map(|()| word(bytes, &mut at));
        let (mut asked, mut kind) = (String::new(), 0);
        for _ in 0..questions? {
            asked = name(bytes, &mut at)?;
            kind = word(bytes, &mut at)?;
            word(bytes, &mut at)?;
        }
        let mut records = |count: u16| (0..count).map(|_| record(bytes, &mut at)).collect::<Option<Vec<_>>>();
        let answers = records(answers?)?;
        let rest = records(authority? + additional?)?;
        Some(Self { id: id?, flags: flags?, name: asked, kind, answers, rest })
    }

    pub(crate) fn rcode(&self) -> u16 {
        self.flags & 15
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// The addresses, in the order in which they stand.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let address = |record: &Record| match &record.data {
            Data::Address(address) => Some(address.to_string()),
            _ => None,
        };
        self.answers.iter().filter_map(address).collect()
    }

    /// The names of a reverse answer, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |record: &Record| match &record.data {
            Data::Name(name) => Some(name.clone()),
            _ => None,
        };
        self.answers.iter().filter_map(name).collect()
    }
}

fn word(bytes: &[u8], at: &mut usize) -> Option<u16> {
    let pair = bytes.get(*at..*at + 2)?;
    *at += 2;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn name(bytes: &[u8], at: &mut usize) -> Option<String> {
    let (mut text, mut here, mut jumped) = (String::new(), *at, false);
    for _ in 0..128 {
        let length = usize::from(*bytes.get(here)?);
        if length >= 0xc0 {
            let low = usize::from(*bytes.get(here + 1)?);
            if !jumped {
                *at = here + 2;
            }
            jumped = true;
            here = (length & 0x3f) << 8 | low;
            continue;
        }
        here += 1;
        if length == 0 {
            if !jumped {
                *at = here;
            }
            return Some(text);
        }
        if !text.is_empty() {
            text.push('.');
        }
        text += &String::from_utf8_lossy(bytes.get(here..here + length)?);
        here += length;
    }
    None
}

fn record(bytes: &[u8], at: &mut usize) -> Option<Record> {
    let owner = name(bytes, at)?;
    let kind = word(bytes, at)?;
    word(bytes, at)?;
    let ttl = u32::from(word(bytes, at)?) << 16 | u32::from(word(bytes, at)?);
    let length = usize::from(word(bytes, at)?);
    let data = bytes.get(*at..*at + length)?;
    let parsed = match (kind, length) {
        (A, 4) => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        (AAAA, 16) => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
        (PTR, _) => Data::Name(name(bytes, &mut at.clone())?),
        _ => Data::Other(data.to_vec()),
    };
    *at += length;
    Some(Record { name: owner, kind, ttl, data: parsed })
}
