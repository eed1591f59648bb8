//! Expressions back into rules: what a listing of the kernel says, as clauses.
//!
//! The steps are followed with what register 1 holds at each point. Any step, key or register that the rules of this
//! table have no use for makes the whole rule foreign (`None`): it is then never taken for one of ours and never
//! removed. Numbers of registers, attributes that the kernel adds, and the order of attributes do not matter, nor does
//! the difference between versions of nft(8) that compile a range as one step or as two.
//!
//! Input: whatever is in the kernel's table, so anything. No length or number in it is trusted.

use super::rule::{Clause, Direction, End, Rule};
use super::wire::{
    BRIDGES, COMMENT, DESTINATION_PORT, DESTINATION_REWRITTEN, IPV4_ADDRESSES, IPV6_ADDRESSES, NAME_LENGTH,
    base, cmp, ct, expression as e, family, fib, meta, nat, object, register, set, verdict,
};
use ipnet::IpNet;
use slipway_host::netlink::netfilter::attributes;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kind that an address has for the interface that the packet came in by.
const FROM_THE_INTERFACE: u32 = fib::DADDR | fib::IIF;

/// A rule of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// The chain it is in.
    pub(super) chain: String,
    /// What names it to the kernel.
    pub(super) handle: u64,
    /// What it says; `None` for a foreign one.
    pub(super) rule: Option<Rule>,
}

impl Listed {
    /// Reads an entry of the answer to NFT_MSG_GETRULE. `None` when it has no chain or no handle.
    pub(super) fn decode(entry: &[u8]) -> Option<Self> {
        let (mut chain, mut handle, mut rule, mut userdata) = (None, None, None, &[][..]);
        for (kind, value) in attributes(entry) {
            match kind {
                object::RULE_CHAIN => chain = text(value),
                object::RULE_HANDLE => handle = value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
                object::RULE_EXPRESSIONS => rule = Some(value),
                object::RULE_USERDATA => userdata = value,
                _ => {}
            }
        }
        let rule = rule.and_then(|expressions| decode(expressions, comment(userdata)));
        Some(Self { chain: chain?, handle: handle?, rule })
    }
}

/// What register 1 holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Meta(u32),
    Ct(u32),
    /// The kind of the destination, asked for with these flags.
    FibType(u32),
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Masked(Box<Self>, Vec<u8>, Vec<u8>),
    Value(Vec<u8>),
    /// Found in a map by this comment.
    Mapped,
}

/// One rule being read.
#[derive(Debug, Default)]
struct Reader<'a> {
    clauses: Vec<Clause>,
    comment: Option<&'a str>,
    first: Option<Held>,
    second: Option<Vec<u8>>,
    /// The family that was asked for.
    family: Option<u8>,
    /// Whether an address has made use of it.
    family_used: bool,
    /// The lower end of a range whose upper end comes next.
    lower: Option<u16>,
    done: bool,
}

fn decode(expressions: &[u8], comment: Option<&str>) -> Option<Rule> {
    let mut reader = Reader { comment, ..Reader::default() };
    for (kind, expression) in attributes(expressions) {
        if kind != object::ENTRY || reader.done {
            return None;
        }
        let name = text(find(expression, e::NAME)?)?;
        reader.step(&name, find(expression, e::DATA).unwrap_or_default())?;
    }
    // A rule that asks for a family and then for no address says more than its clauses do.
    let complete = reader.lower.is_none() && (reader.family_used || reader.family.is_none());
    let plain = reader.comment.is_none() || reader.clauses.iter().any(|c| matches!(c, Clause::DnatByPort(_)));
    (complete && plain).then_some(Rule(reader.clauses))
}

impl Reader<'_> {
    fn step(&mut self, name: &str, data: &[u8]) -> Option<()> {
        match name {
            "meta" => self.meta(data),
            "ct" => self.ct(data),
            "fib" => self.fib(data),
            "payload" => {
                let number = |kind| find_number(data, kind);
                first(number(e::PAYLOAD_DREG)?)?;
                let (base, offset) = (number(e::PAYLOAD_BASE)?, number(e::PAYLOAD_OFFSET)?);
                self.first = Some(Held::Payload { base, offset, length: number(e::PAYLOAD_LENGTH)? });
                Some(())
            }
            "bitwise" => self.bitwise(data),
            "cmp" => {
                first(find_number(data, e::CMP_SREG)?)?;
                let value = find_value(data, e::CMP_DATA)?;
                self.compare(find_number(data, e::CMP_OP)?, value)
            }
            "range" => {
                first(find_number(data, e::RANGE_SREG)?)?;
                if find_number(data, e::RANGE_OP)? != 0 {
                    return None;
                }
                self.compare(cmp::GTE, find_value(data, e::RANGE_FROM)?)?;
                self.compare(cmp::LTE, find_value(data, e::RANGE_TO)?)
            }
            "lookup" => self.look_up(data),
            "immediate" => self.immediate(data),
            "masq" => {
                // Flags or ports would be more than ours say.
                if attributes(data).next().is_some_and(|(kind, value)| kind != 1 || value != [0; 4]) {
                    return None;
                }
                self.finish(Clause::Masquerade)
            }
            "nat" => self.nat(data),
            _ => None,
        }
    }

    fn meta(&mut self, data: &[u8]) -> Option<()> {
        let key = find_number(data, e::META_KEY)?;
        if let Some(source) = find_number(data, e::META_SREG) {
            first(source)?;
            let bits = self.added_to_mark()?;
            if key != meta::MARK {
                return None;
            }
            self.clauses.push(Clause::SetPacketMark(bits));
            return Some(());
        }
        first(find_number(data, e::META_DREG)?)?;
        self.first = Some(Held::Meta(key));
        Some(())
    }

    fn ct(&mut self, data: &[u8]) -> Option<()> {
        let key = find_number(data, e::CT_KEY)?;
        if let Some(source) = find_number(data, e::CT_SREG) {
            first(source)?;
            let bits = self.added_to_mark()?;
            if key != ct::MARK {
                return None;
            }
            self.clauses.push(Clause::SetConnectionMark(bits));
            return Some(());
        }
        first(find_number(data, e::CT_DREG)?)?;
        self.first = Some(Held::Ct(key));
        Some(())
    }

    fn fib(&mut self, data: &[u8]) -> Option<()> {
        let number = |kind| find_number(data, kind);
        first(number(e::FIB_DREG)?)?;
        if number(e::FIB_RESULT)? != fib::RESULT_TYPE {
            return None;
        }
        self.first = Some(Held::FibType(number(e::FIB_FLAGS)?));
        Some(())
    }

    fn bitwise(&mut self, data: &[u8]) -> Option<()> {
        first(find_number(data, e::BITWISE_SREG)?)?;
        first(find_number(data, e::BITWISE_DREG)?)?;
        if find_number(data, e::BITWISE_OP).unwrap_or(0) != 0 {
            return None;
        }
        let (mask, xor) = (find_value(data, e::BITWISE_MASK)?, find_value(data, e::BITWISE_XOR)?);
        let held = self.first.take()?;
        if matches!(held, Held::Masked(..)) {
            return None;
        }
        self.first = Some(Held::Masked(Box::new(held), mask.to_vec(), xor.to_vec()));
        Some(())
    }

    /// The bits, if register 1 holds the packet's mark with bits set.
    fn added_to_mark(&mut self) -> Option<u32> {
        let Held::Masked(held, mask, xor) = self.first.take()? else { return None };
        let (mask, xor) = (native(&mask)?, native(&xor)?);
        (*held == Held::Meta(meta::MARK) && mask == !xor).then_some(xor)
    }

    fn compare(&mut self, op: u32, value: &[u8]) -> Option<()> {
        let equal = match op {
            cmp::EQ => true,
            cmp::NEQ => false,
            cmp::GTE | cmp::LTE => return self.bound(op, value),
            _ => return None,
        };
        let clause = match self.first.clone()? {
            Held::Meta(meta::NFPROTO) if equal && self.family.is_none() => {
                self.family = Some(*value.first().filter(|_| value.len() == 1)?);
                return Some(());
            }
            Held::Meta(meta::L4PROTO) if equal => {
                Clause::Protocol(*value.first().filter(|_| value.len() == 1)?)
            }
            Held::Meta(meta::IIFNAME) => {
                Clause::Interface { direction: Direction::In, name: interface(value)?, equal }
            }
            Held::Meta(meta::OIFNAME) => {
                Clause::Interface { direction: Direction::Out, name: interface(value)?, equal }
            }
            Held::FibType(flags) if native(value)? == fib::LOCAL => match (flags, equal) {
                (fib::DADDR, true) => Clause::LocalDestination,
                (FROM_THE_INTERFACE, false) => Clause::ElsewhereDestination,
                _ => return None,
            },
            Held::Payload { base: base::TRANSPORT, offset: DESTINATION_PORT, length: 2 } if equal => {
                let port = self.port(value)?;
                Clause::Port { first: port, last: port }
            }
            Held::Payload { base: base::NETWORK, offset, length } => {
                let prefix = u8::try_from(length.checked_mul(8)?).ok()?;
                if u32::try_from(value.len()) != Ok(length) {
                    return None;
                }
                self.address(offset, value, prefix, equal)?
            }
            Held::Masked(held, mask, xor) => self.masked(&held, &mask, &xor, value, equal)?,
            _ => return None,
        };
        self.clauses.push(clause);
        Some(())
    }

    /// One end of a range of ports.
    fn bound(&mut self, op: u32, value: &[u8]) -> Option<()> {
        let Some(Held::Payload { base: base::TRANSPORT, offset: DESTINATION_PORT, length: 2 }) = self.first
        else {
            return None;
        };
        let port = self.port(value)?;
        if op == cmp::GTE && self.lower.is_none() {
            self.lower = Some(port);
        } else {
            let first = self.lower.take().filter(|_| op == cmp::LTE)?;
            self.clauses.push(Clause::Port { first, last: port });
        }
        Some(())
    }

    /// A port, which only means something behind a protocol.
    fn port(&self, value: &[u8]) -> Option<u16> {
        matches!(self.clauses.last()?, Clause::Protocol(_) | Clause::TcpOrUdp).then_some(())?;
        Some(u16::from_be_bytes(value.try_into().ok()?))
    }

    fn masked(&mut self, held: &Held, mask: &[u8], xor: &[u8], value: &[u8], equal: bool) -> Option<Clause> {
        if xor.iter().any(|byte| *byte != 0) {
            return None;
        }
        match held {
            Held::Ct(ct::STATE) if !equal && native(value)? == 0 => Some(Clause::State(native(mask)?)),
            Held::Ct(ct::STATUS) if !equal && native(value)? == 0 => {
                (native(mask)? == DESTINATION_REWRITTEN).then_some(Clause::Rewritten)
            }
            Held::Ct(ct::MARK) if equal && mask == value => Some(Clause::ConnectionMark(native(mask)?)),
            Held::Meta(meta::MARK) if equal && mask == value => Some(Clause::PacketMark(native(mask)?)),
            Held::Payload { base: base::NETWORK, offset, .. } => {
                let prefix = prefix(mask)?;
                self.address(*offset, value, prefix, equal)
            }
            _ => None,
        }
    }

    fn address(&mut self, offset: u32, value: &[u8], prefix: u8, equal: bool) -> Option<Clause> {
        let mut octets = [0; 16];
        octets.get_mut(..value.len())?.copy_from_slice(value);
        let [a, b, c, d, ..] = octets;
        let (address, offsets) = match self.family? {
            family::IPV4 if value.len() <= 4 => (IpAddr::from([a, b, c, d]), IPV4_ADDRESSES),
            family::IPV6 => (IpAddr::from(octets), IPV6_ADDRESSES),
            _ => return None,
        };
        let end = if offset == offsets.0 {
            End::Source
        } else if offset == offsets.1 {
            End::Destination
        } else {
            return None;
        };
        self.family_used = true;
        let net = IpNet::new(address, prefix).ok()?;
        (net.trunc() == net).then_some(Clause::Address { end, net, equal })
    }

    fn look_up(&mut self, data: &[u8]) -> Option<()> {
        first(find_number(data, e::LOOKUP_SREG)?)?;
        // NFT_LOOKUP_F_INV.
        if find_number(data, e::LOOKUP_FLAGS).unwrap_or(0) != 0 {
            return None;
        }
        let name = text(find(data, e::LOOKUP_SET)?)?;
        let held = self.first.take()?;
        match (find_number(data, e::LOOKUP_DREG), held) {
            (None, Held::Meta(meta::L4PROTO)) if name.starts_with("__set") => {
                self.clauses.push(Clause::TcpOrUdp);
            }
            (None, Held::Meta(meta::IIFNAME)) if name == BRIDGES => {
                self.clauses.push(Clause::OurBridge(Direction::In));
            }
            (None, Held::Meta(meta::OIFNAME)) if name == BRIDGES => {
                self.clauses.push(Clause::OurBridge(Direction::Out));
            }
            (
                Some(register),
                Held::Payload { base: base::TRANSPORT, offset: DESTINATION_PORT, length: 2 },
            ) if name.starts_with("__map") => {
                first(register)?;
                self.first = Some(Held::Mapped);
            }
            _ => return None,
        }
        Some(())
    }

    fn immediate(&mut self, data: &[u8]) -> Option<()> {
        let content = find(data, e::IMMEDIATE_DATA)?;
        match find_number(data, e::IMMEDIATE_DREG)? {
            register::VERDICT => {
                let given = find(content, e::VERDICT)?;
                let chain = find(given, e::VERDICT_CHAIN);
                let clause = match (find_number(given, e::VERDICT_CODE)?, chain) {
                    (verdict::ACCEPT, None) => Clause::Accept,
                    (verdict::DROP, None) => Clause::Drop,
                    (verdict::JUMP, Some(chain)) => Clause::Jump(text(chain)?),
                    _ => return None,
                };
                self.finish(clause)
            }
            register::FIRST => {
                self.first = Some(Held::Value(find(content, e::VALUE)?.to_vec()));
                Some(())
            }
            register::SECOND => {
                self.second = Some(find(content, e::VALUE)?.to_vec());
                Some(())
            }
            _ => None,
        }
    }

    fn nat(&mut self, data: &[u8]) -> Option<()> {
        let number = |kind| find_number(data, kind);
        first(number(e::NAT_ADDRESS)?)?;
        let port = number(e::NAT_PORT);
        // Of the flags, those that only say that an address and a port are given (NF_NAT_RANGE_MAP_IPS too).
        if number(e::NAT_FLAGS).unwrap_or(0) & !3 != 0 {
            return None;
        }
        let ipv6 = u32::from(family::IPV6) == number(e::NAT_FAMILY)?;
        let clause = match (number(e::NAT_TYPE)?, self.first.take()?, port) {
            (nat::SOURCE, Held::Value(to), None) => Clause::Snat(address(&to, ipv6)?),
            (nat::DESTINATION, Held::Value(to), Some(register::SECOND)) => {
                let port = u16::from_be_bytes(self.second.take()?.as_slice().try_into().ok()?);
                Clause::Dnat(SocketAddr::new(address(&to, ipv6)?, port))
            }
            (nat::DESTINATION, Held::Mapped, Some(_)) => Clause::DnatByPort(self.comment?.parse().ok()?),
            _ => return None,
        };
        self.finish(clause)
    }

    /// The last clause of a rule.
    fn finish(&mut self, clause: Clause) -> Option<()> {
        self.clauses.push(clause);
        self.done = true;
        Some(())
    }
}

/// Only register 1 is followed.
fn first(number: u32) -> Option<()> {
    (number == register::FIRST).then_some(())
}

fn find(list: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(list).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn find_number(list: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(list, kind)?.try_into().ok()?))
}

/// The names of interfaces that an entry of the answer to NFT_MSG_GETSETELEM lists.
pub(super) fn bridges(entry: &[u8]) -> Vec<String> {
    let elements = find(entry, set::ELEMENTS).unwrap_or_default();
    let keys = attributes(elements).filter_map(|(_, element)| find_value(element, set::ELEMENT_KEY));
    keys.filter_map(interface).collect()
}

/// The bytes of a nested NFTA_DATA_VALUE.
fn find_value(list: &[u8], kind: u16) -> Option<&[u8]> {
    find(find(list, kind)?, e::VALUE)
}

fn text(value: &[u8]) -> Option<String> {
    let text = value.strip_suffix(&[0]).unwrap_or(value);
    std::str::from_utf8(text).ok().map(str::to_owned)
}

fn native(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// A whole name; a shorter comparison is that of a wildcard.
fn interface(value: &[u8]) -> Option<String> {
    if value.len() != NAME_LENGTH {
        return None;
    }
    let end = value.iter().position(|byte| *byte == 0)?;
    let (name, rest) = value.split_at_checked(end)?;
    if rest.iter().any(|byte| *byte != 0) {
        return None;
    }
    std::str::from_utf8(name).ok().map(str::to_owned)
}

/// The length of a prefix, if the mask is one.
fn prefix(mask: &[u8]) -> Option<u8> {
    let mask = match mask.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(mask).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(mask).ok()?),
        _ => return None,
    };
    ipnet::ip_mask_to_prefix(mask).ok()
}

fn address(value: &[u8], ipv6: bool) -> Option<IpAddr> {
    if ipv6 {
        <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into())
    } else {
        <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into())
    }
}

/// The comment in a rule's user data: entries of kind, length, value.
fn comment(mut data: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}
