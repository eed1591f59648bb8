//! The DHCPv6 server (RFC 8415), as the gateway plays it.
//!
//! It tells nameservers, search domains and the guest's name to whom asks (Information-request), and leases addresses.
//! Where the link has a single guest there is nothing to keep count of: whoever asks for an address gets the one that
//! the configuration knows for the guest, if it knows one, for ever (infinite lifetimes: an idle guest is never woken
//! up to renew). Where there are several, each station gets one of a pool ([`leases`]), for a time. A second identity
//! association of the same message gets none.
//!
//! Messages are accepted and discarded as §16 says; relayed ones (Relay-forward) have no place on a guest's link. A
//! reply stays below the minimum MTU whatever the client sends: identity associations that do not fit are left out.

use crate::addr::MacAddr;
use crate::bytes;
use crate::clock::Instant;
use crate::config::{Config, GuestNames};
use crate::drop_reason::DropReason;
use crate::ip::plan::Family;
use crate::within::names;
use core::net::Ipv6Addr;
use core::ops::RangeInclusive;
use leases::Leases;

mod leases;

/// Port of the server.
pub const SERVER_PORT: u16 = 547;
/// Port of the client.
pub const CLIENT_PORT: u16 = 546;
/// All_DHCP_Relay_Agents_and_Servers.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// The largest reply: the minimum MTU less IPv6 and UDP headers.
const LARGEST: usize = 1280 - 48;
/// RFC 8415 §11.1: a DUID has 128 bytes at most, besides its type.
const DUID: RangeInclusive<usize> = 3..=130;
/// Identity associations, and addresses in one, that are looked at.
const MAX_IAS: usize = 16;
const MAX_ADDRESSES: usize = 8;
/// Nameservers, and bytes of search domains.
const MAX_SERVERS: usize = 16;
const MAX_SEARCH: usize = 512;
const FOREVER: u32 = u32::MAX;

mod kind {
    pub(super) const SOLICIT: u8 = 1;
    pub(super) const ADVERTISE: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const CONFIRM: u8 = 4;
    pub(super) const RENEW: u8 = 5;
    pub(super) const REBIND: u8 = 6;
    pub(super) const REPLY: u8 = 7;
    pub(super) const RELEASE: u8 = 8;
    pub(super) const DECLINE: u8 = 9;
    pub(super) const INFORMATION_REQUEST: u8 = 11;
}

mod option {
    pub(super) const CLIENT_ID: u16 = 1;
    pub(super) const SERVER_ID: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_TA: u16 = 4;
    pub(super) const IA_ADDRESS: u16 = 5;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const DNS: u16 = 23;
    pub(super) const SEARCH: u16 = 24;
    pub(super) const IA_PD: u16 = 25;
    pub(super) const FULL_NAME: u16 = 39;
}

/// Status codes (RFC 8415 §21.13).
#[derive(Debug, Clone, Copy)]
enum Status {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    UseMulticast = 5,
    NoPrefixAvail = 6,
}

/// The server of one link.
#[derive(Debug)]
pub struct Server {
    v6: Family<Ipv6Addr>,
    /// What there is to lease, where the guest is not the only one.
    leases: Option<Leases>,
    /// DUID-LL (RFC 8415 §11.4): it follows from our MAC address and so is the same after a restart.
    duid: [u8; 10],
    search: Vec<u8>,
    full_name: Option<Vec<u8>>,
}

/// An address for a client, and for how many seconds.
#[derive(Debug, Clone, Copy)]
struct Grant {
    addr: Ipv6Addr,
    lifetime: u32,
}

/// An identity association as a client sends it.
#[derive(Debug)]
struct Ia {
    kind: u16,
    iaid: [u8; 4],
    addresses: Vec<Ipv6Addr>,
}

/// What matters of a message from a client.
#[derive(Debug)]
struct Request<'a> {
    kind: u8,
    xid: [u8; 3],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    ias: Vec<Ia>,
    rapid_commit: bool,
}

impl Server {
    /// The server that `config` wants, if it wants one.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        let v6 = config.plan.v6.clone().filter(|_| config.plan.dhcp6)?;
        let [a, b, c, d, e, f] = config.mac.0;
        let duid = [0, 3, 0, 1, a, b, c, d, e, f];
        let mut server = Self {
            v6,
            leases: config.plan.dhcp6_pool.map(Leases::new),
            duid,
            search: Vec::new(),
            full_name: None,
        };
        server.retell(config);
        Some(server)
    }

    /// From now on clients are told the names of `config`.
    pub(super) fn retell(&mut self, config: &Config) {
        self.search = names::encode(&config.dns_search, MAX_SEARCH);
        self.full_name = full_name(&config.names);
    }

    /// The addresses of the pool that are in use at `now`, and by whom.
    pub fn leases(&self, now: Instant) -> impl Iterator<Item = (Ipv6Addr, MacAddr)> {
        self.leases.iter().flat_map(move |leases| leases.in_use(now))
    }

    /// Handles the payload of a UDP datagram to port 547 that has come from the station `mac`, sent to a group or
    /// (`to_group` false) to an address of ours. The answer goes to port 546 of where it came from.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] and [`DropReason::Unsolicited`] when it has to be discarded.
    pub fn answer(
        &mut self,
        now: Instant,
        mac: MacAddr,
        payload: &[u8],
        to_group: bool,
    ) -> Result<Vec<u8>, DropReason> {
        let request = Request::parse(payload)?;
        self.validate(&request)?;
        if !to_group {
            // RFC 8415 §16, and §18.4: nobody was told that unicast is welcome (option 12).
            return match request.kind {
                kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE => {
                    Ok(self.status_only(&request, Status::UseMulticast))
                }
                _ => Err(DropReason::Unsolicited),
            };
        }
        match request.kind {
            kind::SOLICIT if request.rapid_commit => {
                let mut reply = self.reply(kind::REPLY, &request);
                put_option(&mut reply, option::RAPID_COMMIT, &[]);
                let grant = self.grant(now, mac, &request);
                Ok(self.with_leases(reply, &request, grant, Status::NoAddrsAvail))
            }
            kind::SOLICIT => {
                let grant = self.offer(now, mac, &request);
                let reply = self.reply(kind::ADVERTISE, &request);
                Ok(self.with_leases(reply, &request, grant, Status::NoAddrsAvail))
            }
            kind::REQUEST | kind::RENEW | kind::REBIND => {
                let lacking =
                    if request.kind == kind::REQUEST { Status::NoAddrsAvail } else { Status::NoBinding };
                let grant = self.grant(now, mac, &request);
                Ok(self.with_leases(self.reply(kind::REPLY, &request), &request, grant, lacking))
            }
            kind::CONFIRM => self.confirm(&request),
            kind::RELEASE | kind::DECLINE => {
                self.give_back(now, mac, &request);
                Ok(self.status_only(&request, Status::Success))
            }
            _ => {
                let mut reply = self.reply(kind::REPLY, &request);
                self.put_information(&mut reply);
                Ok(reply)
            }
        }
    }

    // ── addresses ──────────────────────────────────────────────────────────────────────────────────────

    /// What `mac` would get.
    fn offer(&self, now: Instant, mac: MacAddr, request: &Request<'_>) -> Option<Grant> {
        match &self.leases {
            Some(leases) => leases
                .offer(now, mac, &request.wishes()?)
                .map(|addr| Grant { addr, lifetime: seconds(leases) }),
            None => self.v6.guests.first().map(|&addr| Grant { addr, lifetime: FOREVER }),
        }
    }

    /// The same, and it is its own.
    fn grant(&mut self, now: Instant, mac: MacAddr, request: &Request<'_>) -> Option<Grant> {
        match &mut self.leases {
            Some(leases) => {
                let addr = leases.bind(now, mac, &request.wishes()?)?;
                Some(Grant { addr, lifetime: seconds(leases) })
            }
            None => self.offer(now, mac, request),
        }
    }

    /// RFC 8415 §18.3.7, §18.3.8.
    fn give_back(&mut self, now: Instant, mac: MacAddr, request: &Request<'_>) {
        let Some((leases, addresses)) = self.leases.as_mut().zip(request.wishes()) else { return };
        match request.kind {
            kind::RELEASE => leases.release(now, mac, &addresses),
            _ => leases.decline(now, mac, &addresses),
        }
    }

    /// RFC 8415 §16.2 to §16.12: which identifiers a message must and must not have.
    fn validate(&self, request: &Request<'_>) -> Result<(), DropReason> {
        let needs = |condition: bool| if condition { Ok(()) } else { Err(DropReason::Malformed) };
        match request.kind {
            kind::SOLICIT | kind::CONFIRM | kind::REBIND => {
                needs(request.client.is_some() && request.server.is_none())
            }
            kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE => {
                needs(request.client.is_some() && request.server.is_some())?;
                self.is_for_us(request)
            }
            kind::INFORMATION_REQUEST => {
                needs(request.ias.is_empty())?;
                self.is_for_us(request)
            }
            _ => Err(DropReason::Unsolicited),
        }
    }

    fn is_for_us(&self, request: &Request<'_>) -> Result<(), DropReason> {
        match request.server {
            Some(server) if server != self.duid => Err(DropReason::Unsolicited),
            _ => Ok(()),
        }
    }

    /// RFC 8415 §18.3.3: are the client's addresses still right for this link? Without any there is nothing to say.
    fn confirm(&self, request: &Request<'_>) -> Result<Vec<u8>, DropReason> {
        let mut addresses = request.ias.iter().flat_map(|ia| &ia.addresses).peekable();
        addresses.peek().ok_or(DropReason::Unsolicited)?;
        let all = addresses.all(|addr| self.v6.network.contains(addr));
        Ok(self.status_only(request, if all { Status::Success } else { Status::NotOnLink }))
    }

    // ── replies ────────────────────────────────────────────────────────────────────────────────────────

    fn reply(&self, kind: u8, request: &Request<'_>) -> Vec<u8> {
        let [x0, x1, x2] = request.xid;
        let mut reply = vec![kind, x0, x1, x2];
        put_option(&mut reply, option::SERVER_ID, &self.duid);
        if let Some(client) = request.client {
            put_option(&mut reply, option::CLIENT_ID, client);
        }
        reply
    }

    fn status_only(&self, request: &Request<'_>, status: Status) -> Vec<u8> {
        let mut reply = self.reply(kind::REPLY, request);
        put_status(&mut reply, status);
        reply
    }

    fn put_information(&self, reply: &mut Vec<u8>) {
        let servers = self.v6.dns.get(..MAX_SERVERS).unwrap_or(&self.v6.dns);
        if !servers.is_empty() {
            let all: Vec<u8> = servers.iter().flat_map(Ipv6Addr::octets).collect();
            put_option(reply, option::DNS, &all);
        }
        if !self.search.is_empty() {
            put_option(reply, option::SEARCH, &self.search);
        }
        if let Some(name) = &self.full_name {
            put_option(reply, option::FULL_NAME, name);
        }
    }

    /// Completes a reply with what is known and what each identity association gets: the first for an address what is
    /// granted. `lacking` says why there is no address when we have none.
    fn with_leases(
        &self,
        mut reply: Vec<u8>,
        request: &Request<'_>,
        mut grant: Option<Grant>,
        lacking: Status,
    ) -> Vec<u8> {
        self.put_information(&mut reply);
        let had = grant.is_some();
        for ia in &request.ias {
            let mut content = Vec::new();
            let mut timers = [0; 8];
            let refusal = match ia.kind {
                option::IA_PD => Some(Status::NoPrefixAvail),
                option::IA_TA => Some(Status::NoAddrsAvail),
                _ => match grant.take() {
                    Some(Grant { addr, lifetime }) => {
                        timers = renewal(lifetime);
                        put_address(&mut content, addr, lifetime);
                        // RFC 8415 §18.3.4: what the client should not have any more is told with lifetimes of zero.
                        if matches!(request.kind, kind::RENEW | kind::REBIND) {
                            for &old in ia.addresses.iter().filter(|&&old| old != addr) {
                                put_address(&mut content, old, 0);
                            }
                        }
                        None
                    }
                    None if had => Some(Status::NoAddrsAvail),
                    None => Some(lacking),
                },
            };
            if let Some(status) = refusal {
                put_status(&mut content, status);
            }
            let mut body = ia.iaid.to_vec();
            // IA_TA has no timers (RFC 8415 §21.5).
            if ia.kind != option::IA_TA {
                body.extend_from_slice(&timers);
            }
            body.extend_from_slice(&content);
            if reply.len() + 4 + body.len() <= LARGEST {
                put_option(&mut reply, ia.kind, &body);
            }
        }
        reply
    }
}

/// The lifetime of an address of the pool.
fn seconds(leases: &Leases) -> u32 {
    u32::try_from(leases.time().as_secs()).unwrap_or(FOREVER)
}

/// RFC 8415 §21.4: T1 and T2, half and four fifths of the preferred lifetime. What never ends is never renewed.
fn renewal(lifetime: u32) -> [u8; 8] {
    let (first, second) = match lifetime {
        FOREVER => (FOREVER, FOREVER),
        some => (some / 2, some / 5 * 4),
    };
    (u64::from(first) << 32 | u64::from(second)).to_be_bytes()
}

/// RFC 4704 §4: nobody updates the DNS because of it (N). A name without a domain has no end (§4.2).
fn full_name(names: &GuestNames) -> Option<Vec<u8>> {
    const FLAGS: u8 = 0x04;
    let mut name = names::encode_one(names.full.as_deref().or(names.host.as_deref())?)?;
    if names.full.is_none() {
        name.pop();
    }
    Some([&[FLAGS][..], &name].concat())
}

fn put_option(reply: &mut Vec<u8>, code: u16, data: &[u8]) {
    reply.extend_from_slice(&code.to_be_bytes());
    reply.extend_from_slice(&bytes::len16(data.len()).to_be_bytes());
    reply.extend_from_slice(data);
}

fn put_status(reply: &mut Vec<u8>, status: Status) {
    put_option(reply, option::STATUS, &[0, status as u8]);
}

/// An address with the same preferred and valid lifetime.
fn put_address(content: &mut Vec<u8>, addr: Ipv6Addr, lifetime: u32) {
    let mut body = addr.octets().to_vec();
    body.extend_from_slice(&lifetime.to_be_bytes());
    body.extend_from_slice(&lifetime.to_be_bytes());
    put_option(content, option::IA_ADDRESS, &body);
}

impl<'a> Request<'a> {
    fn parse(payload: &'a [u8]) -> Result<Self, DropReason> {
        let ([kind, xid @ ..], options) = payload.split_first_chunk::<4>().ok_or(DropReason::Malformed)?;
        let mut request =
            Self { kind: *kind, xid: *xid, client: None, server: None, ias: Vec::new(), rapid_commit: false };
        // A relay's message has another header; what follows would be misread.
        if !(kind::SOLICIT..=kind::INFORMATION_REQUEST).contains(kind) {
            return Err(DropReason::Unsolicited);
        }
        for_each_option(options, |code, data| {
            match code {
                option::CLIENT_ID | option::SERVER_ID if !DUID.contains(&data.len()) => {
                    return Err(DropReason::Malformed);
                }
                option::CLIENT_ID => request.client = Some(data),
                option::SERVER_ID => request.server = Some(data),
                option::RAPID_COMMIT => request.rapid_commit = true,
                option::IA_NA | option::IA_TA | option::IA_PD if request.ias.len() < MAX_IAS => {
                    request.ias.push(Ia::parse(code, data)?);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(request)
    }

    /// The addresses that it names, if it is about addresses.
    fn wishes(&self) -> Option<Vec<Ipv6Addr>> {
        let mut about = self.ias.iter().filter(|ia| ia.kind == option::IA_NA).peekable();
        about.peek()?;
        Some(about.flat_map(|ia| &ia.addresses).copied().collect())
    }
}

impl Ia {
    fn parse(kind: u16, data: &[u8]) -> Result<Self, DropReason> {
        let iaid = bytes::array(data, 0).ok_or(DropReason::Malformed)?;
        let fixed = if kind == option::IA_TA { 4 } else { 12 };
        let mut addresses = Vec::new();
        for_each_option(data.get(fixed..).ok_or(DropReason::Malformed)?, |code, data| {
            if code == option::IA_ADDRESS && addresses.len() < MAX_ADDRESSES {
                addresses
                    .push(bytes::ipv6(data, 0).filter(|_| data.len() >= 24).ok_or(DropReason::Malformed)?);
            }
            Ok(())
        })?;
        Ok(Self { kind, iaid, addresses })
    }
}

/// Hands each option to `each`: code and content (RFC 8415 §21.1).
fn for_each_option<'a>(
    mut options: &'a [u8],
    mut each: impl FnMut(u16, &'a [u8]) -> Result<(), DropReason>,
) -> Result<(), DropReason> {
    while !options.is_empty() {
        let code = bytes::be16(options, 0).ok_or(DropReason::Malformed)?;
        let len = bytes::be16(options, 2).ok_or(DropReason::Malformed)?;
        let (data, rest) = options
            .get(4..)
            .and_then(|behind| behind.split_at_checked(len.into()))
            .ok_or(DropReason::Malformed)?;
        each(code, data)?;
        options = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
