//! The DHCP server for IPv4 (RFC 2131, options of RFC 2132), as the gateway plays it.
//!
//! One [`Server`] takes the payload of a datagram to port 67 and gives the payload of the answer from port 67 to port
//! 68, with the addresses it goes to. It knows at most as many clients as its pool has addresses; a client is its
//! client identifier or, without one, its hardware address (RFC 2131 §4.2).
//!
//! We are the only server on this link and so speak with authority: a client that claims an address which it cannot
//! have is told so at once (DHCPNAK), and one that we have forgotten (after a restart) keeps its address if it is free.
//! RFC 2131 §4.3.2 asks for silence in that case for the sake of other servers; there are none (deviation).
//!
//! What a network does otherwise (addresses kept for one station, who counts as one client, which options are sent) is
//! in its plan ([`DhcpManner`]).
//!
//! A guest that is alone on its link may be several clients, one after the other: the firmware that loads its kernel,
//! its first ramdisk, its system. Each gets the address, whoever had it before, and so does a BOOTP client (RFC 1534).
//!
//! Relay agents (RFC 2131 §4.1, `giaddr`), and BOOTP clients among many stations, have no place on a guest's link and
//! are not answered. Options are read from the `file` and `sname` fields, too, if the message says so (RFC 2132 §9.3).

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::Config;
use crate::drop_reason::DropReason;
use crate::ip::plan::{DhcpManner, DhcpPool, Family};
use crate::within::names;
use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeSet;

pub use message::{Kind, Request};
use message::{Reply as Writer, option};

mod message;

/// Port of the server.
pub const SERVER_PORT: u16 = 67;
/// Port of the client.
pub const CLIENT_PORT: u16 = 68;
/// How long an address that was offered waits for the client's choice.
pub const OFFER_HOLD: Duration = Duration::from_secs(60);
/// Nameservers that are told of: a client uses three at most.
const MAX_SERVERS: usize = 16;
/// How long an address that a client found in use is not offered.
pub const DECLINE_HOLD: Duration = Duration::from_secs(600);

/// What to do about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send this.
    Reply(Reply),
    /// Nothing.
    Ignore(DropReason),
}

/// A message for a client: from port 67 of the gateway to port 68 of `to_ip` at `to_mac`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The DHCP message.
    pub payload: Vec<u8>,
    /// Where the frame goes: the client has no address yet that could be resolved.
    pub to_mac: MacAddr,
    /// Where the packet goes.
    pub to_ip: Ipv4Addr,
    /// The address that is the client's from now on, if this says so.
    pub grants: Option<Ipv4Addr>,
}

/// Whose lease it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Client {
    /// It calls itself so (option 61).
    Named(Box<[u8]>),
    /// It has this address.
    Hardware(MacAddr),
    /// Nobody: the address was found in use.
    Stranger,
}

/// An address that is spoken for. It stays on record after its time, so that the client gets it again if nobody
/// else had to have it (RFC 2131 §4.3.1).
#[derive(Debug)]
struct Lease {
    client: Client,
    addr: Ipv4Addr,
    mac: MacAddr,
    until: Instant,
    bound: bool,
}

/// One option: longer lists would have to be split (RFC 3396), which not every client puts together.
fn search(config: &Config) -> Vec<u8> {
    names::encode(&config.dns_search, 255)
}

/// Addresses that are kept for stations, in all: each request is compared with them.
const MOST_KEPT: usize = 4096;

/// Why an address is not kept for a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepError {
    /// It is no host's of this link, or ours.
    NoHost,
    /// Another station has it, or it is kept for one.
    Taken,
    /// So many are kept already.
    TooMany,
}

impl core::fmt::Display for KeepError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoHost => "no host of the network can have it",
            Self::Taken => "somebody else has it",
            Self::TooMany => "too many are kept already",
        })
    }
}

impl core::error::Error for KeepError {}

/// The server of one link.
#[derive(Debug)]
pub struct Server {
    v4: Family<Ipv4Addr>,
    gateway: Ipv4Addr,
    pool: DhcpPool,
    manner: DhcpManner,
    /// In bytes, if it is told.
    mtu: Option<u16>,
    search: Vec<u8>,
    host_name: Option<Box<[u8]>>,
    full_name: Option<Vec<u8>>,
    leases: Vec<Lease>,
}

impl Server {
    /// The server that `config` wants, if it wants one.
    #[must_use]
    pub fn new(config: &Config) -> Option<Self> {
        let v4 = config.plan.v4.clone()?;
        let mut manner = config.plan.dhcp_manner.clone();
        manner.reserved.retain(|(addr, _)| is_host(&v4, *addr) && !v4.defends(*addr));
        Some(Self {
            gateway: v4.gateway?,
            v4,
            pool: config.plan.dhcp?,
            manner,
            mtu: config.tell_mtu.then_some(config.mtu.bytes()),
            search: search(config),
            host_name: config.names.host.as_deref().map(|name| name.as_bytes().into()),
            full_name: config.names.full.as_deref().and_then(full_name),
            leases: Vec::new(),
        })
    }

    /// From now on clients are told the search domains of `config`.
    pub(super) fn retell(&mut self, config: &Config) {
        self.search = search(config);
    }

    /// Its own address, the gateway's.
    pub(super) const fn address(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Whether a datagram to port 67 of `dst` is for it.
    pub(super) fn listens_at(&self, dst: Ipv4Addr) -> bool {
        dst.is_broadcast() || dst == self.v4.network.broadcast() || dst == self.gateway
    }

    /// Handles the payload of a UDP datagram to port 67.
    pub fn answer(&mut self, now: Instant, payload: &[u8]) -> Answer {
        let request = match Request::parse(payload) {
            Ok(request) => request,
            Err(reason) => return Answer::Ignore(reason),
        };
        let reply = match request.kind {
            Kind::Discover => self.discover(now, &request),
            Kind::Request => self.request(now, &request),
            Kind::Decline => self.decline(now, &request),
            Kind::Release => self.release(now, &request),
            Kind::Inform => self.inform(&request),
            Kind::Bootp => self.bootp(now, &request),
        };
        reply.map_or_else(Answer::Ignore, Answer::Reply)
    }

    /// The addresses that are kept for somebody, and for whom.
    pub fn reserved(&self) -> impl Iterator<Item = (Ipv4Addr, MacAddr)> {
        self.manner.reserved.iter().copied()
    }

    /// Keeps `addr` for the station `mac` from now on, and no other that was kept for it: it is told when it asks for
    /// one or renews the one that it has.
    ///
    /// # Errors
    /// See [`KeepError`]; then nothing has changed.
    pub fn keep(&mut self, now: Instant, addr: Ipv4Addr, mac: MacAddr) -> Result<(), KeepError> {
        if !is_host(&self.v4, addr) || self.v4.defends(addr) {
            return Err(KeepError::NoHost);
        }
        let others = self.manner.reserved.iter().any(|(kept, of)| *kept == addr && *of != mac);
        if others || self.leases(now).any(|(held, by)| held == addr && by != mac) {
            return Err(KeepError::Taken);
        }
        let known = self.manner.reserved.iter().any(|(_, of)| *of == mac);
        if !known && self.manner.reserved.len() >= MOST_KEPT {
            return Err(KeepError::TooMany);
        }
        self.manner.reserved.retain(|(_, of)| *of != mac);
        self.manner.reserved.push((addr, mac));
        Ok(())
    }

    /// The addresses in use at `now`, and by whom.
    pub fn leases(&self, now: Instant) -> impl Iterator<Item = (Ipv4Addr, MacAddr)> {
        self.leases
            .iter()
            .filter(move |lease| lease.bound && lease.until > now)
            .map(|lease| (lease.addr, lease.mac))
    }

    // ── messages ───────────────────────────────────────────────────────────────────────────────────────

    /// RFC 2131 §4.3.1.
    fn discover(&mut self, now: Instant, request: &Request<'_>) -> Result<Reply, DropReason> {
        let client = self.client(request);
        let wish = request.requested.filter(|_| self.manner.heeds_wishes);
        let addr = self.choose(now, &client, request.mac, wish).ok_or(DropReason::NoRoom)?;
        if request.rapid_commit && self.manner.rapid {
            // RFC 4039 §3.1: who asks for it is spared the second round.
            self.hold(client, request.mac, addr, now + self.pool.lease, true);
            let mut ack = self.lease_reply(option::ACK, request, addr);
            ack.option(option::RAPID_COMMIT, &[]);
            return Ok(self.deliver(ack, request, addr).granting(addr));
        }
        // An offer to somebody who has the address already does not shorten the lease.
        let held = self
            .lease_of(&client)
            .is_some_and(|lease| lease.bound && lease.addr == addr && lease.until > now);
        if !held {
            self.hold(client, request.mac, addr, now + OFFER_HOLD, false);
        }
        Ok(self.deliver(self.lease_reply(option::OFFER, request, addr), request, addr))
    }

    /// RFC 2131 §4.3.2: the four states of a client that sends DHCPREQUEST.
    fn request(&mut self, now: Instant, request: &Request<'_>) -> Result<Reply, DropReason> {
        let client = self.client(request);
        let addr = match (request.server, request.requested, request.ciaddr) {
            // SELECTING another server: our offer is void.
            (Some(server), _, _) if server != self.gateway => {
                self.leases.retain(|lease| lease.bound || lease.client != client);
                return Err(DropReason::Unsolicited);
            }
            // SELECTING us; or INIT-REBOOT, which names no server.
            (_, Some(requested), ciaddr) if ciaddr.is_unspecified() => requested,
            // RENEWING or REBINDING. Some clients name the server here although they must not.
            (_, _, ciaddr) if !ciaddr.is_unspecified() => ciaddr,
            _ => return Err(DropReason::Malformed),
        };
        if !self.may_have(now, &client, request.mac, addr) {
            return Ok(nak(self.reply(option::NAK, request)));
        }
        self.hold(client, request.mac, addr, now + self.pool.lease, true);
        Ok(self.deliver(self.lease_reply(option::ACK, request, addr), request, addr).granting(addr))
    }

    /// RFC 1534 §2: a BOOTP client has its address for ever, which is too long where there are several.
    fn bootp(&mut self, now: Instant, request: &Request<'_>) -> Result<Reply, DropReason> {
        if !self.v4.alone {
            return Err(DropReason::Unsolicited);
        }
        let client = self.client(request);
        let addr = self.choose(now, &client, request.mac, None).ok_or(DropReason::NoRoom)?;
        self.hold(client, request.mac, addr, now + self.pool.lease, true);
        let mut reply = Writer::to(request);
        reply.your_address(addr);
        self.parameters(&mut reply, request);
        Ok(self.deliver(reply, request, addr).granting(addr))
    }

    /// RFC 2131 §4.3.3: the client found out that somebody has the address.
    fn decline(&mut self, now: Instant, request: &Request<'_>) -> Result<Reply, DropReason> {
        let client = self.client(request);
        let addr = request.requested.ok_or(DropReason::Malformed)?;
        let lease = self
            .leases
            .iter_mut()
            .find(|lease| lease.client == client && lease.addr == addr)
            .filter(|_| request.server == Some(self.gateway))
            .ok_or(DropReason::Unsolicited)?;
        (lease.client, lease.bound, lease.until) = (Client::Stranger, false, now + DECLINE_HOLD);
        Err(DropReason::Unsolicited)
    }

    /// RFC 2131 §4.3.4. There is no answer to it.
    fn release(&mut self, now: Instant, request: &Request<'_>) -> Result<Reply, DropReason> {
        let client = self.client(request);
        let released = self
            .leases
            .iter_mut()
            .find(|lease| lease.client == client && lease.addr == request.ciaddr)
            .filter(|_| request.server == Some(self.gateway));
        if let Some(lease) = released {
            (lease.bound, lease.until) = (false, now);
        }
        Err(DropReason::Unsolicited)
    }

    /// RFC 2131 §4.3.5: a client with an address of its own wants to know the rest.
    fn inform(&self, request: &Request<'_>) -> Result<Reply, DropReason> {
        let addr = request.ciaddr;
        // The answer goes to an address that the client claims; it has to be one of this link.
        if !is_host(&self.v4, addr) || self.v4.defends(addr) {
            return Err(DropReason::Martian);
        }
        let ack = self.arranged(option::ACK, request, None).unwrap_or_else(|| {
            let mut ack = self.reply(option::ACK, request);
            self.parameters(&mut ack, request);
            ack
        });
        Ok(Reply { payload: ack.finish(), to_mac: request.mac, to_ip: addr, grants: None })
    }

    // ── leases ─────────────────────────────────────────────────────────────────────────────────────────

    /// Who has sent `request`.
    fn client(&self, request: &Request<'_>) -> Client {
        let named = request.client.filter(|_| !self.manner.by_hardware);
        named.map_or(Client::Hardware(request.mac), |name| Client::Named(name.into()))
    }

    /// RFC 2131 §4.3.1: what is kept for the client; its present or former address, the one it wishes, any free one; at
    /// last the one whose time has been up for longest, or that was offered longest ago.
    fn choose(
        &self,
        now: Instant,
        client: &Client,
        mac: MacAddr,
        wish: Option<Ipv4Addr>,
    ) -> Option<Ipv4Addr> {
        if self.v4.alone {
            return self.pool().next();
        }
        if let Some(kept) = self.reserved_for(mac) {
            return Some(kept);
        }
        let known = self.lease_of(client).map(|lease| lease.addr);
        let wish = wish.filter(|&addr| self.may_have(now, client, mac, addr));
        known.or(wish).or_else(|| self.fresh()).or_else(|| self.stale(now))
    }

    /// The first address that nobody has had. Of a pool that is used up the look is short: every DISCOVER of a flood
    /// comes by here.
    fn fresh(&self) -> Option<Ipv4Addr> {
        let used = self.leases.iter().filter(|lease| self.is_pooled(lease.addr)).count();
        if used >= usize::from(self.pool.count) {
            return None;
        }
        let taken: BTreeSet<Ipv4Addr> = self.leases.iter().map(|lease| lease.addr).collect();
        self.pool().find(|addr| !taken.contains(addr))
    }

    /// The address that somebody else needs least, if it can be taken from him.
    fn stale(&self, now: Instant) -> Option<Ipv4Addr> {
        let longest = |is_over: &dyn Fn(&&Lease) -> bool| {
            let over = self.leases.iter().filter(|lease| !self.is_reserved(lease.addr)).filter(is_over);
            over.min_by_key(|lease| lease.until).map(|lease| lease.addr)
        };
        let offered =
            |lease: &&Lease| self.manner.offers_yield && !lease.bound && lease.client != Client::Stranger;
        longest(&|lease| lease.until <= now).or_else(|| longest(&offered))
    }

    /// Whether `client` at `mac` may use `addr` from now on.
    fn may_have(&self, now: Instant, client: &Client, mac: MacAddr, addr: Ipv4Addr) -> bool {
        if let Some(kept) = self.reserved_for(mac) {
            return kept == addr;
        }
        let is_free = |lease: &Lease| lease.addr != addr || lease.client == *client || lease.until <= now;
        self.is_pooled(addr) && (self.v4.alone || self.leases.iter().all(is_free))
    }

    fn reserved_for(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        self.manner.reserved.iter().find(|(_, of)| *of == mac).map(|(addr, _)| *addr)
    }

    fn is_reserved(&self, addr: Ipv4Addr) -> bool {
        self.manner.reserved.iter().any(|(kept, _)| *kept == addr)
    }

    /// Puts on record that `client` has `addr`, and nothing else, until then.
    fn hold(&mut self, client: Client, mac: MacAddr, addr: Ipv4Addr, until: Instant, bound: bool) {
        self.leases.retain(|lease| lease.client != client && lease.addr != addr);
        self.leases.push(Lease { client, addr, mac, until, bound });
    }

    fn lease_of(&self, client: &Client) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.client == *client)
    }

    /// The addresses that may be leased to anybody, in order.
    fn pool(&self) -> impl Iterator<Item = Ipv4Addr> {
        let first = u32::from(self.pool.first);
        (0..u32::from(self.pool.count))
            .filter_map(move |n| first.checked_add(n).map(Ipv4Addr::from))
            .filter(|&addr| self.is_leasable(addr))
    }

    /// Whether `addr` is one of them.
    fn is_pooled(&self, addr: Ipv4Addr) -> bool {
        let number = addr.to_bits().checked_sub(self.pool.first.to_bits());
        number.is_some_and(|number| number < self.pool.count.into()) && self.is_leasable(addr)
    }

    fn is_leasable(&self, addr: Ipv4Addr) -> bool {
        is_host(&self.v4, addr) && !self.v4.defends(addr) && !self.is_reserved(addr)
    }

    // ── replies ────────────────────────────────────────────────────────────────────────────────────────

    /// A reply with the options that all have.
    fn reply(&self, kind: u8, request: &Request<'_>) -> Writer {
        let mut reply = Writer::to(request);
        reply.option(option::MESSAGE_TYPE, &[kind]);
        reply.option(option::SERVER, &self.gateway.octets());
        // RFC 6842 §3: the identifier goes back as it came.
        if let Some(name) = request.client {
            reply.option(option::CLIENT, name);
        }
        reply
    }

    /// An offer or acknowledgement of `addr`.
    fn lease_reply(&self, kind: u8, request: &Request<'_>, addr: Ipv4Addr) -> Writer {
        if let Some(reply) = self.arranged(kind, request, Some(addr)) {
            return reply;
        }
        let mut reply = self.reply(kind, request);
        reply.your_address(addr);
        let lease = self.lease_seconds();
        reply.option(option::LEASE, &lease.to_be_bytes());
        // RFC 2131 §4.4.5: half of the lease, and seven eighths. A lease without end is never renewed.
        if lease != u32::MAX {
            reply.option(option::T1, &(lease / 2).to_be_bytes());
            reply.option(option::T2, &(lease - lease / 8).to_be_bytes());
        }
        self.parameters(&mut reply, request);
        reply
    }

    /// The same, or an acknowledgement without an address, where the network has an order of its own for the options.
    fn arranged(&self, kind: u8, request: &Request<'_>, addr: Option<Ipv4Addr>) -> Option<Writer> {
        let order = self.manner.options?;
        let mut all = self.all_parameters();
        all.push((option::MESSAGE_TYPE, vec![kind]));
        all.push((option::SERVER, self.gateway.octets().to_vec()));
        // There already, unless there is nothing to search in: then it is empty.
        all.push((option::SEARCH, Vec::new()));
        all.extend(request.client.map(|name| (option::CLIENT, name.to_vec())));
        all.extend(request.relay.map(|note| (option::RELAY, note.to_vec())));
        let mut reply = Writer::to(request);
        if let Some(addr) = addr {
            reply.your_address(addr);
            all.push((option::LEASE, self.lease_seconds().to_be_bytes().to_vec()));
        }
        for code in order {
            if let Some((_, data)) = all.iter().find(|(known, _)| known == code) {
                reply.option(*code, data);
            }
        }
        Some(reply)
    }

    fn lease_seconds(&self) -> u32 {
        u32::try_from(self.pool.lease.as_secs()).unwrap_or(u32::MAX)
    }

    /// RFC 2131 §4.1: to the address the client has, else to all if it says that it hears nothing else, or everybody is
    /// answered so; else to the address that it is getting.
    fn deliver(&self, reply: Writer, request: &Request<'_>, addr: Ipv4Addr) -> Reply {
        let (to_mac, to_ip) = if !request.ciaddr.is_unspecified() {
            (request.mac, request.ciaddr)
        } else if request.broadcast || self.manner.to_all {
            (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
        } else {
            (request.mac, addr)
        };
        Reply { payload: reply.finish(), to_mac, to_ip, grants: None }
    }

    /// What every host on the link has to know, whoever leased it its address. In the order that the client asks for
    /// (RFC 2132 §9.8), and what it does not ask for behind that, most important first: what exceeds the message size
    /// that it takes is left out.
    fn parameters(&self, reply: &mut Writer, request: &Request<'_>) {
        let mut all = self.all_parameters();
        let asked = |code: &u8| request.parameters.iter().position(|wanted| wanted == code);
        all.sort_by_key(|(code, _)| asked(code).unwrap_or(usize::MAX));
        all.iter().for_each(|(code, data)| reply.option(*code, data));
    }

    fn all_parameters(&self) -> Vec<(u8, Vec<u8>)> {
        let gateway = self.gateway.octets();
        let mut all = vec![
            (option::NETMASK, self.v4.network.netmask().octets().to_vec()),
            (option::ROUTER, gateway.to_vec()),
        ];
        let servers = self.v4.dns.get(..MAX_SERVERS).unwrap_or(&self.v4.dns);
        if !servers.is_empty() {
            all.push((option::DNS, servers.iter().flat_map(Ipv4Addr::octets).collect()));
        }
        all.extend(self.mtu.map(|mtu| (option::MTU, mtu.to_be_bytes().to_vec())));
        all.push((option::BROADCAST, self.v4.network.broadcast().octets().to_vec()));
        if !self.v4.network.contains(&self.gateway) {
            // RFC 3442: a host route makes a router outside the prefix reachable; then the default route.
            let [a, b, c, d] = gateway;
            all.push((option::ROUTES, vec![32, a, b, c, d, 0, 0, 0, 0, 0, a, b, c, d]));
        }
        all.extend(self.host_name.as_deref().map(|name| (option::HOST_NAME, name.to_vec())));
        all.extend(self.full_name.clone().map(|name| (option::FULL_NAME, name)));
        if !self.search.is_empty() {
            all.push((option::SEARCH, self.search.clone()));
        }
        all
    }
}

/// RFC 4702 §2: the name is encoded as in DNS (E), and nobody updates the DNS because of it (N); the two bytes behind
/// mean nothing any more.
fn full_name(name: &str) -> Option<Vec<u8>> {
    const FLAGS: u8 = 0x04 | 0x08;
    Some([&[FLAGS, 255, 255][..], &names::encode_one(name)?].concat())
}

impl Reply {
    fn granting(self, addr: Ipv4Addr) -> Self {
        Self { grants: Some(addr), ..self }
    }
}

/// Whether a host of the network can have `addr`.
fn is_host(v4: &Family<Ipv4Addr>, addr: Ipv4Addr) -> bool {
    let network = v4.network;
    let edges = network.prefix_len() < 31 && (addr == network.network() || addr == network.broadcast());
    network.contains(&addr) && !edges
}

/// RFC 2131 §4.1: a refusal always goes to all, the client's address being in doubt.
fn nak(mut reply: Writer) -> Reply {
    reply.option(option::MESSAGE, b"address not available");
    Reply { payload: reply.finish(), to_mac: MacAddr::BROADCAST, to_ip: Ipv4Addr::BROADCAST, grants: None }
}

#[cfg(test)]
mod tests;
