//! DHCP messages of a client: written, and the server's read (RFC 2131 §2, options of RFC 2132).
//!
//! Reading is strict about structure and mild about meaning: a message whose options run over its end is not taken at
//! all, an option of a length that makes no sense counts as absent. An option that comes several times is one long one
//! (RFC 3396 §7), and options may go on in the `file` and `sname` fields (RFC 2132 §9.3). Everything is bounded by the
//! frame.

use super::search;
use crate::addr::MacAddr;
use core::net::Ipv4Addr;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;

/// Option numbers.
pub(super) mod option {
    pub(in super::super) const PAD: u8 = 0;
    pub(in super::super) const SUBNET_MASK: u8 = 1;
    pub(in super::super) const ROUTERS: u8 = 3;
    pub(in super::super) const DNS_SERVERS: u8 = 6;
    pub(in super::super) const HOST_NAME: u8 = 12;
    pub(in super::super) const DOMAIN_NAME: u8 = 15;
    pub(in super::super) const MTU: u8 = 26;
    pub(in super::super) const BROADCAST: u8 = 28;
    pub(in super::super) const NTP_SERVERS: u8 = 42;
    pub(in super::super) const REQUESTED_ADDRESS: u8 = 50;
    pub(in super::super) const LEASE_TIME: u8 = 51;
    pub(in super::super) const OVERLOAD: u8 = 52;
    pub(in super::super) const MESSAGE_TYPE: u8 = 53;
    pub(in super::super) const SERVER_ID: u8 = 54;
    pub(in super::super) const WISHES: u8 = 55;
    pub(in super::super) const MAX_SIZE: u8 = 57;
    pub(in super::super) const RENEWAL_TIME: u8 = 58;
    pub(in super::super) const REBINDING_TIME: u8 = 59;
    pub(in super::super) const CLIENT_ID: u8 = 61;
    pub(in super::super) const SEARCH: u8 = 119;
    pub(in super::super) const ROUTES: u8 = 121;
    pub(in super::super) const END: u8 = 255;
}

/// What we ask the server to tell, besides the lease itself.
const WISHES: &[u8] = &[
    option::SUBNET_MASK,
    option::ROUTERS,
    option::DNS_SERVERS,
    option::HOST_NAME,
    option::DOMAIN_NAME,
    option::MTU,
    option::BROADCAST,
    option::NTP_SERVERS,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
];

/// The same of whoever is to use the network itself. RFC 3442: routes stand before routers.
const WISHES_OF_HOST: &[u8] = &[
    option::SUBNET_MASK,
    option::ROUTES,
    option::ROUTERS,
    option::DNS_SERVERS,
    option::DOMAIN_NAME,
    option::MTU,
    option::BROADCAST,
    option::RENEWAL_TIME,
    option::REBINDING_TIME,
    option::SEARCH,
];

// Places in the fixed part.
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
const OPTIONS: usize = 240;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Servers and relays of old drop what is shorter than a BOOTP message (RFC 1542 §2.1).
const SHORTEST: usize = 300;

/// The largest packet that we take, headers included (RFC 2132 §9.10): an Ethernet frame.
const LARGEST: u16 = 1500;

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Is there a server? With the address that we would like, if any.
    Discover(Option<Ipv4Addr>),
    /// This offer, please: the address, and the server's identifier.
    Select(Ipv4Addr, Ipv4Addr),
    /// May we keep this address?
    Keep(Ipv4Addr),
    /// This address of that server is not needed any more.
    Release(Ipv4Addr, Ipv4Addr),
}

/// How the client presents itself, always in the same way: servers know it by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The MAC address of the interface.
    pub mac: MacAddr,
    /// A name by which the address stays the same when the MAC address does not: a container's ID. Empty: it is known
    /// by its MAC address.
    pub name: String,
    /// Its host name; empty for none.
    pub host_name: String,
    /// Whether search domains and routes are asked for, too.
    pub is_host: bool,
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It offers an address.
    Offer,
    /// It grants it.
    Ack,
    /// It refuses it.
    Nak,
}

/// A server's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// What it is.
    pub(super) kind: Kind,
    /// Which exchange it belongs to.
    pub(super) exchange: u32,
    /// Whom it is for.
    pub(super) mac: MacAddr,
    /// The address.
    pub(super) your_address: Ipv4Addr,
    /// The server of the next step of a network boot.
    pub(super) next_server: Ipv4Addr,
    /// The rest.
    pub(super) options: Options,
}

/// Options by number, those that came in parts put together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options(BTreeMap<u8, Vec<u8>>);

impl Ask {
    /// The message: of the exchange `exchange`, which began `elapsed` seconds ago.
    #[must_use]
    pub(super) fn to_bytes(self, identity: &Identity, exchange: u32, elapsed: u16) -> Vec<u8> {
        let held = match self {
            Self::Keep(address) | Self::Release(address, _) => address,
            Self::Discover(_) | Self::Select(..) => Ipv4Addr::UNSPECIFIED,
        };
        let mut out = Vec::with_capacity(SHORTEST);
        out.extend([REQUEST, ETHERNET, 6, 0]);
        out.extend(exchange.to_be_bytes());
        out.extend(elapsed.to_be_bytes());
        // No broadcast flag: the socket receives what is sent to the container's MAC address.
        out.extend([0, 0]);
        out.extend(held.octets());
        out.extend([0; 12]);
        out.extend(identity.mac.0);
        out.resize(FILE.end, 0);
        out.extend(COOKIE);
        self.options(identity, &mut out);
        out.push(option::END);
        out.resize(out.len().max(SHORTEST), option::PAD);
        out
    }

    fn options(self, identity: &Identity, out: &mut Vec<u8>) {
        const DISCOVER: u8 = 1;
        const REQUEST: u8 = 3;
        const RELEASE: u8 = 7;
        let kind = match self {
            Self::Discover(_) => DISCOVER,
            Self::Select(..) | Self::Keep(_) => REQUEST,
            Self::Release(..) => RELEASE,
        };
        put(out, option::MESSAGE_TYPE, &[kind]);
        put(out, option::CLIENT_ID, &identity.client_id());
        let (wanted, server) = match self {
            Self::Discover(wanted) => (wanted, None),
            Self::Select(wanted, server) => (Some(wanted), Some(server)),
            Self::Keep(_) => (None, None),
            Self::Release(_, server) => (None, Some(server)),
        };
        if let Some(wanted) = wanted {
            put(out, option::REQUESTED_ADDRESS, &wanted.octets());
        }
        if let Some(server) = server {
            put(out, option::SERVER_ID, &server.octets());
        }
        // RFC 2131 table 5: a release carries nothing that asks for something.
        if !matches!(self, Self::Release(..)) {
            if !identity.host_name.is_empty() {
                put(out, option::HOST_NAME, identity.host_name.as_bytes());
            }
            put(out, option::MAX_SIZE, &LARGEST.to_be_bytes());
            put(out, option::WISHES, if identity.is_host { WISHES_OF_HOST } else { WISHES });
        }
    }
}

impl Identity {
    /// One that is known by its MAC address, and asks for an address as others do.
    #[must_use]
    pub const fn of_mac(mac: MacAddr) -> Self {
        Self { mac, name: String::new(), host_name: String::new(), is_host: false }
    }

    /// RFC 2132 §9.14: type 0 for a name; without one, the hardware type and address.
    fn client_id(&self) -> Vec<u8> {
        if self.name.is_empty() {
            return [&[ETHERNET][..], &self.mac.0].concat();
        }
        [&[0][..], self.name.as_bytes()].concat()
    }
}

/// Appends one option, cut to what its length byte can say.
fn put(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    let value = value.get(..usize::from(u8::MAX)).unwrap_or(value);
    out.extend([number, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    out.extend(value);
}

impl Reply {
    /// Reads a message; `None` when it is not a server's, or makes no sense.
    #[must_use]
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [REPLY, ETHERNET, 6, _hops, x0, x1, x2, x3, ..] = *bytes else { return None };
        if bytes.get(FILE.end..OPTIONS)? != COOKIE {
            return None;
        }
        let mut options = Options::default();
        options.read(bytes.get(OPTIONS..)?)?;
        let [overload] =
            options.0.get(&option::OVERLOAD).map_or(Some([0]), |value| value.as_slice().try_into().ok())?;
        if overload & 1 != 0 {
            options.read(bytes.get(FILE)?)?;
        }
        if overload & 2 != 0 {
            options.read(bytes.get(SNAME)?)?;
        }
        const OFFER: &[u8] = &[2];
        const ACK: &[u8] = &[5];
        const NAK: &[u8] = &[6];
        let kind = match options.0.get(&option::MESSAGE_TYPE)?.as_slice() {
            OFFER => Kind::Offer,
            ACK => Kind::Ack,
            NAK => Kind::Nak,
            _ => return None,
        };
        Some(Self {
            kind,
            exchange: u32::from_be_bytes([x0, x1, x2, x3]),
            mac: MacAddr(bytes.get(28..34)?.try_into().ok()?),
            your_address: address(bytes.get(16..20)?)?,
            next_server: address(bytes.get(20..24)?)?,
            options,
        })
    }
}

impl Options {
    /// Reads one field of options; `None` when one of them runs over its end.
    fn read(&mut self, mut field: &[u8]) -> Option<()> {
        loop {
            match *field {
                [] | [option::END, ..] => return Some(()),
                [option::PAD, ref rest @ ..] => field = rest,
                [number, len, ref rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(len.into())?;
                    self.0.entry(number).or_default().extend(value);
                    field = rest;
                }
                [_] => return None,
            }
        }
    }

    /// One address.
    #[must_use]
    pub(super) fn address(&self, number: u8) -> Option<Ipv4Addr> {
        address(self.0.get(&number)?)
    }

    /// A list of machines' addresses; empty when it is no list of addresses.
    #[must_use]
    pub(super) fn addresses(&self, number: u8) -> Vec<Ipv4Addr> {
        let Some(value) = self.0.get(&number).filter(|value| value.len() % 4 == 0) else { return Vec::new() };
        value.chunks_exact(4).filter_map(address).filter(|address| is_usable(*address)).collect()
    }

    /// A duration in seconds.
    #[must_use]
    pub(super) fn seconds(&self, number: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.get(&number)?.as_slice().try_into().ok()?))
    }

    /// A number of two bytes.
    #[must_use]
    pub(super) fn number(&self, number: u8) -> Option<u16> {
        Some(u16::from_be_bytes(self.0.get(&number)?.as_slice().try_into().ok()?))
    }

    /// Routes (RFC 3442): where to, and through which router, which is none for what is on the link; empty when they
    /// make no sense.
    #[must_use]
    pub(super) fn routes(&self) -> Vec<(Ipv4Net, Option<Ipv4Addr>)> {
        self.0.get(&option::ROUTES).and_then(|value| routes(value)).unwrap_or_default()
    }

    /// Search domains (RFC 3397).
    #[must_use]
    pub(super) fn search(&self) -> Vec<String> {
        self.0.get(&option::SEARCH).map(|value| search::decode(value)).unwrap_or_default()
    }

    /// A name; empty when it has anything in it that is not a visible ASCII character.
    #[must_use]
    pub(super) fn text(&self, number: u8) -> String {
        let bytes = self.0.get(&number).map(Vec::as_slice).unwrap_or_default();
        // RFC 2132 §2: a text should not end in a zero byte, and must be readable if it does.
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        let visible = bytes.iter().all(u8::is_ascii_graphic);
        std::str::from_utf8(bytes).ok().filter(|_| visible).unwrap_or_default().to_owned()
    }
}

/// Whether another machine can have it.
#[must_use]
pub(super) fn is_usable(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_broadcast() && !address.is_multicast() && !address.is_loopback()
}

fn routes(mut rest: &[u8]) -> Option<Vec<(Ipv4Net, Option<Ipv4Addr>)>> {
    let mut found = Vec::new();
    while let [width, behind @ ..] = rest {
        // As many bytes of the destination as count.
        let (significant, behind) = behind.split_at_checked(usize::from(*width).div_ceil(8))?;
        let mut destination = [0; 4];
        destination.get_mut(..significant.len())?.copy_from_slice(significant);
        let (router, behind) = behind.split_at_checked(4)?;
        let router = address(router)?;
        let net = Ipv4Net::new(destination.into(), *width).ok()?.trunc();
        if router.is_unspecified() || is_usable(router) {
            found.push((net, Some(router).filter(|router| !router.is_unspecified())));
        }
        rest = behind;
    }
    Some(found)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
pub(super) mod tests;
