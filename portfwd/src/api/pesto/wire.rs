//! The bytes of pesto's protocol, version 2. All numbers are big-endian.
//!
//! ```text
//! server: "basil:s\\0"  version:4  name length:4 (128)  interface name length:4 (16)
//!         place:1 (not 0)  name:128  abilities:4  count:4  count rules of 56 bytes     for each table
//!         0:1
//! client: place:1  count:4  count rules                                                for each table to be kept
//!         0:1
//! server: status:1 (0 or 1)  text                                                      ours alone
//! ```
//!
//! That a status will follow, our server says with the highest bit of its abilities, which the original passes over.
//!
//! A client that has nothing to change hangs up. What it sends takes the place of all tables: one that is not named is
//! empty afterwards. A rule is an address (IPv4 in disguise, `::ffff:a.b.c.d`), a target address (`::`: none), an
//! interface, first and last port, target port, protocol and flags.
//!
//! Bytes come from strangers and in any portions. [`Update`] keeps at most one rule's bytes beside what it understood,
//! and refuses a count before it takes memory for it; a table has 255 rules at most. What a flag or a protocol beyond
//! the known ones would mean nobody can say, so such a rule is refused, and with it the message.

use crate::rule::Proto;
use crate::rule::passt::{Capabilities, Draft, MAX_RULES};
use core::net::{IpAddr, Ipv6Addr};
use slipway_host::inside::Side;
use slipway_host::scope::Zone;

/// What a server begins with.
pub const MAGIC: [u8; 8] = *b"basil:s\0";
/// The version of the protocol.
pub const VERSION: u32 = 2;
/// Bytes of a place's name.
pub const NAME_LEN: usize = 128;
/// Bytes of an interface's name.
pub const INTERFACE_LEN: usize = 16;
/// Bytes of the greeting.
pub const GREETING_LEN: usize = 20;
/// Bytes of a table's head, of a server.
pub const HEAD_LEN: usize = 1 + NAME_LEN + 4 + 4;
/// Bytes of a rule.
pub const RULE_LEN: usize = 56;
/// Bytes of a status's text at most.
pub const MAX_STATUS: usize = 4096;

/// Among abilities: a change is answered.
const ANSWERS: u32 = 1 << 31;

const DUAL: u8 = 1;
const WEAK: u8 = 2;
const SCAN: u8 = 4;

/// Why bytes are no message. Those that a client may see are in the words of the original.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Somebody else listens there.
    #[error("Bad magic number from server")]
    Magic,
    /// An older version than any that has been in use.
    #[error("Unsupported server protocol version {0}")]
    Old(u32),
    /// A newer version.
    #[error("Unknown server protocol version {0} > {known}", known = VERSION)]
    New(u32),
    /// Other names than we know.
    #[error("Server has unexpected pif name size ({0} not {known})", known = NAME_LEN)]
    NameLen(u32),
    /// Other interfaces than we know.
    #[error("Server has unexpected IFNAMSIZ ({0} not {known})", known = INTERFACE_LEN)]
    InterfaceLen(u32),
    /// More rules than a table has.
    #[error("Too many forwarding rules")]
    TooMany,
    /// A table twice.
    #[error("Received duplicate interface identifier")]
    Twice,
    /// A place that we do not have.
    #[error("there are no rules for place {0}")]
    Place(u8),
    /// A name without end.
    #[error("Interface name was not NULL terminated")]
    Name,
    /// Something in a rule.
    #[error("a forwarding rule has {0}")]
    Rule(&'static str),
}

/// The number of a side's table: a place where listeners stand.
#[must_use]
pub const fn place(side: Side) -> u8 {
    match side {
        Side::Host => 1,
        Side::Namespace => 3,
    }
}

/// The name of a side's table.
#[must_use]
pub const fn place_name(side: Side) -> &'static str {
    match side {
        Side::Host => "HOST",
        Side::Namespace => "SPLICE",
    }
}

fn side(place_read: u8) -> Option<Side> {
    [Side::Host, Side::Namespace].into_iter().find(|side| place(*side) == place_read)
}

/// Abilities as a number.
#[must_use]
pub fn abilities(can: Capabilities) -> u32 {
    let Capabilities { ipv4, ipv6, tcp, udp, scan, interface } = can;
    let bits = [ipv4, ipv6, tcp, udp, scan, interface];
    (0..).zip(bits).map(|(bit, set)| u32::from(set) << bit).sum()
}

/// Abilities out of a number; bits beyond are passed over.
#[must_use]
pub fn read_abilities(bits: u32) -> Capabilities {
    let bit = |bit: u32| bits & (1 << bit) != 0;
    let (ipv4, ipv6, tcp, udp, scan, interface) = (bit(0), bit(1), bit(2), bit(3), bit(4), bit(5));
    Capabilities { ipv4, ipv6, tcp, udp, scan, interface }
}

/// A rule as bytes.
#[must_use]
pub fn rule(draft: &Draft) -> [u8; RULE_LEN] {
    let mut bytes = Vec::with_capacity(RULE_LEN);
    let six = |address: Option<IpAddr>| match address {
        None => Ipv6Addr::UNSPECIFIED,
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
    };
    bytes.extend(six(draft.listen).octets());
    bytes.extend(six(draft.target).octets());
    let name = draft.interface.as_ref().map_or("", Zone::as_str);
    bytes.extend(name.bytes().chain(core::iter::repeat(0)).take(INTERFACE_LEN));
    for port in [draft.first, draft.last, draft.to] {
        bytes.extend(port.to_be_bytes());
    }
    bytes.push(match draft.proto {
        Proto::Tcp => 6,
        Proto::Udp => 17,
    });
    let flags = [(draft.listen.is_none(), DUAL), (draft.weak, WEAK), (draft.scan, SCAN)];
    bytes.push(flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
    bytes.try_into().unwrap_or([0; RULE_LEN])
}

/// A rule out of bytes.
///
/// # Errors
/// When one of its fields means nothing.
pub fn read_rule(bytes: &[u8; RULE_LEN]) -> Result<Draft, WireError> {
    let mut rest = Bytes(bytes);
    let (listen, target) = (rest.address(), rest.address());
    let name = rest.take::<INTERFACE_LEN>();
    let (first, last, to) = (rest.port(), rest.port(), rest.port());
    let [proto, flags] = rest.take();
    let proto = match proto {
        6 => Proto::Tcp,
        17 => Proto::Udp,
        _ => return Err(WireError::Rule("an unknown protocol")),
    };
    if flags & !(DUAL | WEAK | SCAN) != 0 {
        return Err(WireError::Rule("unknown flags"));
    }
    let listen = match (flags & DUAL != 0, listen.is_unspecified() && listen.is_ipv6()) {
        (true, false) => return Err(WireError::Rule("an address and all of both families")),
        (dual, _) => Some(listen).filter(|_| !dual),
    };
    let end = name.iter().position(|byte| *byte == 0).ok_or(WireError::Name)?;
    let interface = match name.get(..end).unwrap_or_default() {
        [] => None,
        name => {
            let zone = str::from_utf8(name).ok().and_then(Zone::new);
            Some(zone.ok_or(WireError::Rule("an interface whose name none has"))?)
        }
    };
    let target = Some(target).filter(|target| !target.is_unspecified());
    let (weak, scan) = (flags & WEAK != 0, flags & SCAN != 0);
    Ok(Draft { proto, listen, interface, first, last, to, target, weak, scan })
}

/// Bytes that are taken from the front; there are enough.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *first
    }

    fn address(&mut self) -> IpAddr {
        IpAddr::from(self.take::<16>()).to_canonical()
    }

    fn port(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }
}

/// What a server says at first.
#[must_use]
pub fn greeting() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for number in [VERSION, 128, 16] {
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

/// Looks at what a server says at first.
///
/// # Errors
/// When it is none, or one of another version.
pub fn read_greeting(bytes: &[u8; GREETING_LEN]) -> Result<(), WireError> {
    let mut rest = Bytes(bytes);
    if rest.take() != MAGIC {
        return Err(WireError::Magic);
    }
    match rest.number() {
        VERSION => {}
        old if old < VERSION => return Err(WireError::Old(old)),
        new => return Err(WireError::New(new)),
    }
    match (rest.number(), rest.number()) {
        (128, 16) => Ok(()),
        (128, other) => Err(WireError::InterfaceLen(other)),
        (other, _) => Err(WireError::NameLen(other)),
    }
}

/// One table of a server.
pub fn table(side: Side, can: Capabilities, rules: &[Draft], into: &mut Vec<u8>) {
    into.push(place(side));
    into.extend(place_name(side).bytes().chain(core::iter::repeat(0)).take(NAME_LEN));
    into.extend((abilities(can) | ANSWERS).to_be_bytes());
    count_and_rules(rules, into);
}

/// One table of a client.
pub fn new_table(place: u8, rules: &[Draft], into: &mut Vec<u8>) {
    into.push(place);
    count_and_rules(rules, into);
}

fn count_and_rules(rules: &[Draft], into: &mut Vec<u8>) {
    into.extend(u32::try_from(rules.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend(rules.iter().flat_map(rule));
}

/// The head of a server's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of its place.
    pub place: u8,
    /// The name of that.
    pub name: String,
    /// What its rules may ask for.
    pub can: Capabilities,
    /// Whether this server answers a change with a [`Status`].
    pub answers: bool,
    /// How many rules follow.
    pub count: usize,
}

/// Reads the head of a server's table, of which the first byte was read before and is not 0.
///
/// # Errors
/// When it makes no sense.
pub fn read_head(place: u8, bytes: &[u8; HEAD_LEN - 1]) -> Result<Head, WireError> {
    let mut rest = Bytes(bytes);
    let name = rest.take::<NAME_LEN>();
    let end = name.iter().position(|byte| *byte == 0).ok_or(WireError::Name)?;
    // It ends up on terminals.
    let printable = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
    let name = name.iter().take(end).map(printable).collect();
    let bits = rest.number();
    let (can, answers) = (read_abilities(bits), bits & ANSWERS != 0);
    let count = bounded(rest.number())?;
    Ok(Head { place, name, can, answers, count })
}

fn bounded(count: u32) -> Result<usize, WireError> {
    usize::try_from(count).ok().filter(|count| *count <= MAX_RULES).ok_or(WireError::TooMany)
}

/// What a client wants to be in force, as its bytes arrive.
#[derive(Debug, Default)]
pub struct Update {
    /// The beginning of the next piece.
    partial: Vec<u8>,
    state: State,
    tables: Vec<(Side, Vec<Draft>)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A place, or the end.
    #[default]
    Place,
    Count(Side),
    /// So many rules are to come.
    Rules(usize),
    End,
}

impl Update {
    /// Takes what has arrived. True: it is complete; what follows is passed over.
    ///
    /// # Errors
    /// When it makes no sense: then it does not get better.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, WireError> {
        loop {
            let need = match self.state {
                State::Place => 1,
                State::Count(_) => 4,
                State::Rules(0) => 0,
                State::Rules(_) => RULE_LEN,
                State::End => return Ok(true),
            };
            let (now, later) = bytes.split_at(bytes.len().min(need - self.partial.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            if self.partial.len() < need {
                return Ok(false);
            }
            self.state = self.piece()?;
            self.partial.clear();
        }
    }

    /// Understands a whole piece.
    fn piece(&mut self) -> Result<State, WireError> {
        let mut piece = Bytes(&self.partial);
        match self.state {
            State::Place => match piece.take() {
                [0] => Ok(State::End),
                [number] => {
                    let side = side(number).ok_or(WireError::Place(number))?;
                    if self.tables.iter().any(|(other, _)| *other == side) {
                        return Err(WireError::Twice);
                    }
                    Ok(State::Count(side))
                }
            },
            State::Count(side) => {
                let count = bounded(piece.number())?;
                self.tables.push((side, Vec::new()));
                Ok(State::Rules(count))
            }
            State::Rules(left) => {
                let Some(left) = left.checked_sub(1) else { return Ok(State::Place) };
                let draft = read_rule(&piece.take())?;
                self.tables.last_mut().into_iter().for_each(|(_, rules)| rules.push(draft));
                Ok(State::Rules(left))
            }
            State::End => Ok(State::End),
        }
    }

    /// Whether nothing has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.state == State::Place && self.tables.is_empty()
    }

    /// What is wanted: the rules of the tables that were named.
    #[must_use]
    pub fn tables(&self) -> &[(Side, Vec<Draft>)] {
        &self.tables
    }
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether it is in force.
    pub done: bool,
    /// Why not, or what is not quite as asked. May have several lines.
    pub text: String,
}

impl Status {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = self.text.bytes().take(MAX_STATUS);
        core::iter::once(u8::from(!self.done)).chain(text).collect()
    }

    /// Out of bytes; `None` if there are none, as from the original.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (code, text) = bytes.split_first()?;
        Some(Self { done: *code == 0, text: String::from_utf8_lossy(text).into_owned() })
    }
}

#[cfg(test)]
mod tests;
