//! DHCPv6 messages of a client: written, and the server's read (RFC 8415; servers for names by RFC 3646, the client's
//! own name by RFC 4704).
//!
//! Reading is strict about structure and mild about meaning: a message with an option that runs over its end, or
//! without what RFC 8415 §16 obliges it to have, is not taken at all; an address or a name that makes no sense counts
//! as absent. Of an option that may come once the first one counts. Everything is bounded by the frame and by the
//! limits below.
//!
//! There is one identity association for addresses (IA_NA) for each interface; temporary addresses and prefixes are not
//! asked for.

use sha2::{Digest as _, Sha256};
use slipway_netstack::addr::MacAddr;
use std::net::Ipv6Addr;

/// Option numbers.
pub(super) mod option {
    pub(in crate::dhcp::v6) const CLIENT_ID: u16 = 1;
    pub(in crate::dhcp::v6) const SERVER_ID: u16 = 2;
    pub(in crate::dhcp::v6) const IA_NA: u16 = 3;
    pub(in crate::dhcp::v6) const IA_ADDRESS: u16 = 5;
    pub(in crate::dhcp::v6) const WISHES: u16 = 6;
    pub(in crate::dhcp::v6) const PREFERENCE: u16 = 7;
    pub(in crate::dhcp::v6) const ELAPSED: u16 = 8;
    pub(in crate::dhcp::v6) const STATUS: u16 = 13;
    pub(in crate::dhcp::v6) const RAPID_COMMIT: u16 = 14;
    pub(in crate::dhcp::v6) const DNS_SERVERS: u16 = 23;
    pub(in crate::dhcp::v6) const DNS_SEARCH: u16 = 24;
    pub(in crate::dhcp::v6) const FQDN: u16 = 39;
    pub(in crate::dhcp::v6) const SOLICIT_MAX: u16 = 82;
    pub(in crate::dhcp::v6) const INFORMATION_MAX: u16 = 83;
}

/// Status codes (RFC 8415 §21.13) that a client acts on.
pub(super) mod status {
    pub(in crate::dhcp::v6) const SUCCESS: u16 = 0;
    pub(in crate::dhcp::v6) const NO_BINDING: u16 = 3;
    pub(in crate::dhcp::v6) const NOT_ON_LINK: u16 = 4;
}

/// Addresses, servers for names and search domains that are looked at.
const MOST: usize = 8;
/// RFC 8415 §11.1: a DUID has 128 bytes at most besides its type.
const DUID: std::ops::RangeInclusive<usize> = 3..=130;

/// What a client says; the numbers are those of the messages (RFC 8415 §7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Is there a server?
    Solicit = 1,
    /// These addresses of that server, please.
    Request = 3,
    /// May we keep them? To that server.
    Renew = 5,
    /// The same, to all servers.
    Rebind = 6,
    /// They are not needed any more.
    Release = 8,
    /// Somebody else has them already.
    Decline = 9,
    /// No address, only what there is to know.
    Information = 11,
}

/// How the client presents itself, always in the same way: servers know it by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dhcp) struct Identity {
    /// The MAC address of the container's interface.
    pub(in crate::dhcp) mac: MacAddr,
    /// What servers know the client by (RFC 8415 §11).
    duid: Vec<u8>,
    /// Which of its interfaces this is.
    iaid: [u8; 4],
    /// Its host name; empty for none.
    host_name: String,
}

impl Identity {
    /// The identity of the interface `interface` of the container `id`. The address stays the same when the MAC address
    /// does not: the DUID is a UUID (RFC 6355) made of the container's ID, its first 128 bits where it is a hexadecimal
    /// number of that length, as those of container engines are. Without an ID the MAC address it is (DUID-LL).
    #[must_use]
    pub(in crate::dhcp) fn new(mac: MacAddr, id: &str, interface: &str, host_name: &str) -> Self {
        const LINK_LAYER: [u8; 4] = [0, 3, 0, 1];
        const UUID: [u8; 2] = [0, 4];
        let duid = match (id, hexadecimal(id)) {
            ("", _) => [&LINK_LAYER[..], &mac.0].concat(),
            (_, Some(bits)) => [&UUID[..], &bits.to_be_bytes()].concat(),
            (id, None) => [&UUID[..], digest::<16>(id).as_slice()].concat(),
        };
        Self { mac, duid, iaid: digest(interface), host_name: host_name.to_owned() }
    }
}

/// The first 32 digits of a hexadecimal number.
fn hexadecimal(id: &str) -> Option<u128> {
    let digits = id.get(..32).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u128::from_str_radix(digits, 16).ok()
}

/// The first bytes of the text's hash.
fn digest<const N: usize>(text: &str) -> [u8; N] {
    Sha256::digest(text).first_chunk().copied().unwrap_or([0; N])
}

/// One message of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) kind: Kind,
    /// The server it is for, where the kind has one.
    pub(super) server: Option<&'a [u8]>,
    /// The addresses it is about.
    pub(super) addresses: &'a [Ipv6Addr],
}

impl Ask<'_> {
    /// The message: of the exchange `exchange`, which began `elapsed` hundredths of a second ago.
    #[must_use]
    pub(super) fn to_bytes(self, identity: &Identity, exchange: [u8; 3], elapsed: u16) -> Vec<u8> {
        let mut out = vec![self.kind as u8];
        out.extend(exchange);
        put(&mut out, option::CLIENT_ID, &identity.duid);
        put(&mut out, option::ELAPSED, &elapsed.to_be_bytes());
        if let Some(server) = self.server {
            put(&mut out, option::SERVER_ID, server);
        }
        if self.kind != Kind::Information {
            put(&mut out, option::IA_NA, &self.association(identity));
        }
        if self.kind == Kind::Solicit {
            put(&mut out, option::RAPID_COMMIT, &[]);
        }
        let wishes: &[u16] = match self.kind {
            // RFC 8415 §18.2.7, §18.2.8: they ask for nothing.
            Kind::Release | Kind::Decline => return out,
            Kind::Information => &[option::DNS_SERVERS, option::DNS_SEARCH, option::INFORMATION_MAX],
            _ => &[option::DNS_SERVERS, option::DNS_SEARCH, option::FQDN, option::SOLICIT_MAX],
        };
        put(&mut out, option::WISHES, &wishes.iter().flat_map(|wish| wish.to_be_bytes()).collect::<Vec<_>>());
        if self.kind != Kind::Information
            && let Some(name) = fqdn(&identity.host_name)
        {
            put(&mut out, option::FQDN, &name);
        }
        out
    }

    /// RFC 8415 §21.4, §21.6: no wishes about times.
    fn association(self, identity: &Identity) -> Vec<u8> {
        let mut body = identity.iaid.to_vec();
        body.extend([0; 8]);
        for address in self.addresses {
            put(&mut body, option::IA_ADDRESS, &[&address.octets()[..], &[0; 8]].concat());
        }
        body
    }
}

/// RFC 4704 §4: a name, for which the server may make the entries of both directions. One without a domain has no root
/// at its end.
fn fqdn(name: &str) -> Option<Vec<u8>> {
    const SERVER_MAY: u8 = 1;
    let whole = name.contains('.');
    let mut encoded = slipway_netstack::within::names::encode(&[name.to_owned()], 255);
    if !whole {
        encoded.pop();
    }
    (!encoded.is_empty()).then(|| [&[SERVER_MAY], encoded.as_slice()].concat())
}

/// Appends one option. What is longer than its length can say is left out.
fn put(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let Ok(len) = u16::try_from(value.len()) else { return };
    out.extend(code.to_be_bytes());
    out.extend(len.to_be_bytes());
    out.extend(value);
}

/// A server's message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reply {
    /// Whether it only offers.
    pub(super) offer: bool,
    /// Which exchange it belongs to.
    pub(super) exchange: [u8; 3],
    /// Who says it.
    pub(super) server: Vec<u8>,
    /// How much the server wants to be taken.
    pub(super) preference: u8,
    /// How it went, as a whole.
    pub(super) status: u16,
    /// Whether it grants what was only looked for.
    pub(super) rapid_commit: bool,
    /// The interface's addresses, if anything is said about them.
    pub(super) association: Option<Association>,
    /// Servers for names.
    pub(super) dns_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub(super) search: Vec<String>,
    /// How rarely servers may be looked for, in seconds.
    pub(super) longest_wait: Option<u32>,
}

/// The addresses of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Association {
    /// When the server wants to be asked to renew it (T1), in seconds; 0: whenever.
    pub(super) renew: u32,
    /// The same for all servers (T2).
    pub(super) rebind: u32,
    /// How it went.
    pub(super) status: u16,
    /// The addresses; those with a valid lifetime of zero are not to be used any more.
    pub(super) addresses: Vec<Leased>,
}

/// An address for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dhcp) struct Leased {
    /// The address.
    pub(in crate::dhcp) address: Ipv6Addr,
    /// For how many seconds new connections may begin with it; all ones: for ever.
    pub(in crate::dhcp) preferred: u32,
    /// For how many seconds it may be used at all.
    pub(in crate::dhcp) valid: u32,
}

impl Reply {
    /// Reads a message for `identity`; `None` when it is for somebody else, not a server's, or makes no sense.
    #[must_use]
    pub(super) fn parse(bytes: &[u8], identity: &Identity) -> Option<Self> {
        const ADVERTISE: u8 = 2;
        const REPLY: u8 = 7;
        let ([kind, exchange @ ..], options) = bytes.split_first_chunk::<4>()?;
        if !matches!(*kind, ADVERTISE | REPLY) {
            return None;
        }
        let mut reply = Self { offer: *kind == ADVERTISE, exchange: *exchange, ..Self::default() };
        let mut for_us = false;
        let options = Options(options).collect::<Option<Vec<_>>>()?;
        // The first of each counts: read backwards, it is the last to be written.
        for (code, value) in options.into_iter().rev() {
            match code {
                option::CLIENT_ID => for_us = value == identity.duid,
                option::SERVER_ID if DUID.contains(&value.len()) => reply.server = value.to_vec(),
                option::SERVER_ID => return None,
                option::IA_NA => {
                    let ours = value.starts_with(&identity.iaid);
                    reply.association =
                        ours.then(|| Association::parse(value)).flatten().or(reply.association);
                }
                option::PREFERENCE => reply.preference = *value.first()?,
                option::STATUS => reply.status = be16(value)?,
                option::RAPID_COMMIT => reply.rapid_commit = true,
                option::DNS_SERVERS => reply.dns_servers = addresses(value),
                option::DNS_SEARCH => reply.search = names(value),
                // RFC 8415 §21.24, §21.25: other values are not to be believed.
                option::SOLICIT_MAX | option::INFORMATION_MAX => {
                    reply.longest_wait = be32(value).filter(|wait| (60..=86_400).contains(wait));
                }
                _ => {}
            }
        }
        // RFC 8415 §16.3, §16.10.
        (for_us && !reply.server.is_empty()).then_some(reply)
    }

    /// Whether all went well, for the message and for the addresses.
    #[must_use]
    pub(super) fn succeeded(&self) -> bool {
        self.status == status::SUCCESS
            && self.association.as_ref().is_none_or(|found| found.status == status::SUCCESS)
    }
}

impl Association {
    /// Reads the content of an IA_NA; `None` when it is not to be looked at.
    fn parse(value: &[u8]) -> Option<Self> {
        let (fixed, options) = value.split_first_chunk::<12>()?;
        let mut found =
            Self { renew: be32(fixed.get(4..)?)?, rebind: be32(fixed.get(8..)?)?, ..Self::default() };
        for option in Options(options) {
            match option? {
                (option::IA_ADDRESS, value) if found.addresses.len() < MOST => {
                    found.addresses.extend(Leased::parse(value));
                }
                (option::STATUS, value) => found.status = be16(value)?,
                _ => {}
            }
        }
        // RFC 8415 §21.4.
        (found.rebind == 0 || found.renew <= found.rebind).then_some(found)
    }
}

impl Leased {
    fn parse(value: &[u8]) -> Option<Self> {
        let (address, times) = value.split_first_chunk::<16>()?;
        let address = Ipv6Addr::from(*address);
        let (preferred, valid) = (be32(times)?, be32(times.get(4..)?)?);
        for option in Options(times.get(8..)?) {
            if let (option::STATUS, value) = option?
                && be16(value)? != status::SUCCESS
            {
                return None;
            }
        }
        // RFC 8415 §21.6.
        (is_usable(address) && preferred <= valid).then_some(Self { address, preferred, valid })
    }
}

/// Whether an interface can have it as an address that others than neighbours see.
#[must_use]
pub(super) fn is_usable(address: Ipv6Addr) -> bool {
    !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && !address.is_unicast_link_local()
        && address.to_ipv4_mapped().is_none()
}

/// Options one after the other: `None` for one that runs over the end, and then no more.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let whole = self.0.split_first_chunk::<4>().and_then(|([c0, c1, l0, l1], behind)| {
            let (value, rest) = behind.split_at_checked(u16::from_be_bytes([*l0, *l1]).into())?;
            Some((u16::from_be_bytes([*c0, *c1]), value, rest))
        });
        self.0 = whole.map_or(&[], |(_, _, rest)| rest);
        Some(whole.map(|(code, value, _)| (code, value)))
    }
}

fn be16(value: &[u8]) -> Option<u16> {
    value.first_chunk().copied().map(u16::from_be_bytes)
}

fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

/// A list of machines' addresses; empty when it is no list of addresses.
pub(super) fn addresses(value: &[u8]) -> Vec<Ipv6Addr> {
    let (list, []) = value.as_chunks::<16>() else { return Vec::new() };
    let useful = |address: &Ipv6Addr| is_usable(*address) || address.is_unicast_link_local();
    list.iter().copied().map(Ipv6Addr::from).filter(useful).take(MOST).collect()
}

/// A list of names as DHCPv6 and router advertisements carry it (RFC 8415 §10, RFC 8106 §5.2), to the first that cannot
/// be read. Names whose labels have anything in them besides letters, digits, `-` and `_` are left out: they end up in
/// a file.
pub(super) fn names(mut list: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut labels = Vec::new();
    while let Some((&len, rest)) = list.split_first() {
        let Some((label, rest)) = rest.split_at_checked(len.into()).filter(|_| len < 64) else { break };
        list = rest;
        if len > 0 {
            labels.push(String::from_utf8_lossy(label));
            continue;
        }
        // A name of no labels: the padding of router advertisements.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let of_use = labels.iter().all(|label| label.bytes().all(plain));
        let name = std::mem::take(&mut labels).join(".");
        if of_use && !name.is_empty() && name.len() < 254 && found.len() < MOST {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
pub(super) mod tests;
