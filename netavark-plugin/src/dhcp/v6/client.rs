//! The client's side of DHCPv6 (RFC 8415 §18.2) as a machine without I/O: messages and time in, messages and events
//! out.
//!
//! ```text
//!   Off ──▶ Soliciting ──advertise──▶ Requesting ──reply──▶ Bound ──T1──▶ Renewing ──T2──▶ Rebinding ──end──┐
//!    │         ▲  └─────reply (rapid commit)──────────────────▲ reply           │ reply           │ reply   │
//!    │         └──────────────────────── no, silence ─────────┴─────────────────┴─────────────────┴─────────┘
//!    └────▶ Asking ──reply──▶ Informed
//! ```
//! * A lease runs from the moment in which it was asked for, not from the answer.
//! * The first solicitation is not delayed at random (RFC 8415 §18.2.1, deviation), and offers are collected for a
//!   quarter of a second, not for one (§18.2.9, deviation): somebody waits for the container to start. The best one is
//!   taken by its preference, then the first.
//! * Everything goes to all servers' address: no server is asked for the right to send to it alone.
//! * An address that somebody else has already is declined when the kernel finds that out ([`Client::decline`]).
//! * Releasing and declining are said once (§18.2.7, deviation): the container is gone, and nobody waits for an answer.

use super::message::{Ask, Association, Identity, Kind, Leased, Reply, status};
use slipway_netstack::Instant;
use slipway_netstack::dhcp_client::{Loss, Random};
use std::net::Ipv6Addr;
use std::time::Duration;

/// How long other servers may still make an offer after the first one did.
const COLLECTING: Duration = Duration::from_millis(250);
/// A preference that ends the collecting.
const AT_ONCE: u8 = 255;
/// A duration of all ones never ends (RFC 8415 §7.7).
const FOREVER: u32 = u32::MAX;
/// A server cannot make us ask again more often than this, in seconds.
const SHORTEST: u32 = 5;
/// So often the wait after a refusal is doubled, from a second.
const DOUBLINGS: u32 = 9;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// There are addresses: the first, the same for longer, or others.
    Bound(Grant),
    /// The addresses are not to be used any more, and there are no others yet.
    Lost(Loss),
    /// There is something to know besides addresses.
    Informed,
}

/// What a server granted, or offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dhcp) struct Grant {
    /// The server's DUID.
    pub(in crate::dhcp) server: Vec<u8>,
    /// The addresses.
    pub(in crate::dhcp) addresses: Vec<Leased>,
    /// Addresses that are not to be used any more.
    pub(in crate::dhcp) withdrawn: Vec<Ipv6Addr>,
    /// When the server is asked again, when all servers are, and when the last address ends: in seconds.
    pub(in crate::dhcp) times: [u32; 3],
}

/// What there is to know besides addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Known {
    pub(super) dns_servers: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
}

/// A message to send and something to know.
pub(super) type Said = (Option<Vec<u8>>, Option<Event>);

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    identity: Identity,
    random: Random,
    state: State,
    /// The number of the exchange that answers have to carry.
    exchange: [u8; 3],
    /// When it began.
    began: Instant,
    /// Messages of this exchange so far.
    sent: u32,
    /// How long the last one was waited for.
    wait: Duration,
    /// How rarely servers may be looked for.
    longest_wait: Duration,
    deadline: Option<Instant>,
    /// Refusals in a row.
    refusals: u32,
    known: Known,
}

#[derive(Debug, Clone)]
enum State {
    Off,
    Soliciting { best: Option<(u8, Grant)> },
    Requesting(Grant),
    Asking,
    Informed,
    Bound(Held),
    Renewing(Held),
    Rebinding(Held),
}

/// Addresses, and when to renew, rebind, and stop using them; `None`: never.
#[derive(Debug, Clone)]
struct Held {
    grant: Grant,
    ends: [Option<Instant>; 3],
}

/// How a message is repeated (RFC 8415 §7.6, §15): first after so long, then twice as long each time up to the most,
/// and so often at most (0: without end).
struct Patience {
    first: Duration,
    most: Duration,
    times: u32,
}

impl Kind {
    const fn patience(self) -> Patience {
        let (first, most, times) = match self {
            Self::Solicit | Self::Information => (1, 3600, 0),
            Self::Request => (1, 30, 10),
            Self::Renew | Self::Rebind => (10, 600, 0),
            Self::Release | Self::Decline => (1, 1, 1),
        };
        Patience { first: Duration::from_secs(first), most: Duration::from_secs(most), times }
    }
}

impl Client {
    /// A client that asks for nothing yet.
    #[must_use]
    pub(super) fn new(identity: Identity, seed: [u8; 8], now: Instant) -> Self {
        Self {
            identity,
            random: Random::new(seed),
            state: State::Off,
            exchange: [0; 3],
            began: now,
            sent: 0,
            wait: Duration::ZERO,
            longest_wait: Kind::Solicit.patience().most,
            deadline: None,
            refusals: 0,
            known: Known::default(),
        }
    }

    /// Begins to look for addresses, unless it has: [`Client::timeout`] is due at once.
    pub(super) fn look_for_addresses(&mut self, now: Instant) {
        if matches!(self.state, State::Off | State::Asking | State::Informed) {
            self.begin(now, State::Soliciting { best: None });
        }
    }

    /// Asks for what there is to know, and for no address.
    pub(super) fn look_for_information(&mut self, now: Instant) {
        if matches!(self.state, State::Off | State::Soliciting { .. }) {
            self.begin(now, State::Asking);
        }
    }

    /// Looks for nothing any more; addresses that it has it keeps.
    pub(super) fn give_up(&mut self) {
        if matches!(self.state, State::Soliciting { .. } | State::Asking) {
            (self.state, self.deadline) = (State::Off, None);
        }
    }

    /// When [`Client::timeout`] is to be called; `None`: not without a message before.
    #[must_use]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether an answer may come: outside of exchanges nobody need listen.
    #[must_use]
    pub(super) fn listening(&self) -> bool {
        !matches!(self.state, State::Off | State::Informed | State::Bound(_))
    }

    /// The addresses that are held.
    #[must_use]
    pub(super) fn grant(&self) -> Option<&Grant> {
        match &self.state {
            State::Bound(held) | State::Renewing(held) | State::Rebinding(held) => Some(&held.grant),
            _ => None,
        }
    }

    /// What there is to know besides; `None` before a server has said anything.
    #[must_use]
    pub(super) fn known(&self) -> Option<&Known> {
        (self.grant().is_some() || matches!(self.state, State::Informed)).then_some(&self.known)
    }

    /// Which answers are waited for, for those who forge them.
    pub(super) fn exchange(&self) -> [u8; 3] {
        self.exchange
    }

    /// Time has passed.
    pub(super) fn timeout(&mut self, now: Instant) -> Said {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return (None, None);
        }
        let past = |end: Option<Instant>| end.is_some_and(|end| now >= end);
        match self.state.clone() {
            State::Off | State::Informed => (None, None),
            State::Soliciting { best: Some((_, grant)) } => self.request(now, grant),
            State::Soliciting { best: None } => self.say(now, Kind::Solicit, None),
            State::Asking => self.say(now, Kind::Information, None),
            State::Requesting(_) if self.sent >= Kind::Request.patience().times => {
                self.begin(now, State::Soliciting { best: None });
                self.timeout(now)
            }
            State::Requesting(grant) => self.say(now, Kind::Request, Some(&grant)),
            State::Bound(held) | State::Renewing(held) | State::Rebinding(held) if past(held.ends[2]) => {
                self.begin(now, State::Soliciting { best: None });
                (None, Some(Event::Lost(Loss::Expired)))
            }
            State::Bound(held) | State::Renewing(held) if past(held.ends[1]) => {
                self.begin(now, State::Rebinding(held));
                self.timeout(now)
            }
            State::Bound(held) => {
                self.begin(now, State::Renewing(held));
                self.timeout(now)
            }
            State::Renewing(held) => self.keep(now, Kind::Renew, &held, held.ends[1]),
            State::Rebinding(held) => self.keep(now, Kind::Rebind, &held, held.ends[2]),
        }
    }

    /// A message has come in.
    pub(super) fn received(&mut self, now: Instant, message: &[u8]) -> Said {
        let Some(reply) = Reply::parse(message, &self.identity) else { return (None, None) };
        if reply.exchange != self.exchange || self.sent == 0 {
            return (None, None);
        }
        if let Some(seconds) = reply.longest_wait {
            self.longest_wait = Duration::from_secs(seconds.into());
        }
        match (self.state.clone(), reply.offer) {
            (State::Soliciting { best }, true) => self.offered(now, best, &reply),
            (State::Soliciting { .. }, false) if reply.rapid_commit => self.bind(&reply).unwrap_or_default(),
            (State::Requesting(grant), false) if grant.server == reply.server => {
                self.bind(&reply).unwrap_or_else(|| self.refused(now))
            }
            (State::Asking, false) if reply.succeeded() => {
                self.learn(&reply);
                (self.state, self.deadline) = (State::Informed, None);
                (None, Some(Event::Informed))
            }
            (State::Renewing(held) | State::Rebinding(held), false) => self.renewed(now, held, &reply),
            _ => (None, None),
        }
    }

    /// The message that gives the addresses back. Nothing else may be done afterwards.
    pub(super) fn release(&mut self) -> Option<Vec<u8>> {
        let grant = self.grant()?.clone();
        self.exchange = self.random.bytes();
        Some(self.message(Kind::Release, Some(&grant), 0))
    }

    /// Somebody else has an address: says so, and starts over.
    pub(super) fn decline(&mut self, now: Instant) -> Option<Vec<u8>> {
        let grant = self.grant()?.clone();
        self.exchange = self.random.bytes();
        let message = self.message(Kind::Decline, Some(&grant), 0);
        self.refused(now);
        Some(message)
    }

    fn begin(&mut self, now: Instant, state: State) {
        self.exchange = self.random.bytes();
        (self.began, self.sent, self.state, self.deadline) = (now, 0, state, Some(now));
    }

    /// Starts over after a refusal, later and later after more of them.
    fn refused(&mut self, now: Instant) -> Said {
        let lost = self.grant().map(|_| Event::Lost(Loss::Refused));
        self.begin(now, State::Soliciting { best: None });
        self.deadline = Some(now + Duration::from_secs(1 << self.refusals.min(DOUBLINGS)));
        self.refusals = self.refusals.saturating_add(1);
        (None, lost)
    }

    fn say(&mut self, now: Instant, kind: Kind, grant: Option<&Grant>) -> Said {
        let elapsed = now.since(self.began).as_millis() / 10;
        let message = self.message(kind, grant, u16::try_from(elapsed).unwrap_or(u16::MAX));
        self.deadline = Some(now + self.next_wait(kind));
        self.sent = self.sent.saturating_add(1);
        (Some(message), None)
    }

    /// Asks for the addresses to go on, until `end`.
    fn keep(&mut self, now: Instant, kind: Kind, held: &Held, end: Option<Instant>) -> Said {
        let said = self.say(now, kind, Some(&held.grant));
        self.deadline = self.deadline.into_iter().chain(end).min();
        said
    }

    fn request(&mut self, now: Instant, grant: Grant) -> Said {
        self.begin(now, State::Requesting(grant));
        self.timeout(now)
    }

    fn offered(&mut self, now: Instant, best: Option<(u8, Grant)>, reply: &Reply) -> Said {
        let Some(grant) = Grant::new(reply).filter(|grant| !grant.addresses.is_empty()) else {
            return (None, None);
        };
        if reply.preference == AT_ONCE {
            return self.request(now, grant);
        }
        if best.is_none() {
            self.deadline = Some(now + COLLECTING);
        }
        let better = best.filter(|(preference, _)| *preference >= reply.preference);
        self.state = State::Soliciting { best: better.or(Some((reply.preference, grant))) };
        (None, None)
    }

    /// Takes the addresses of an answer; `None` when there are none.
    fn bind(&mut self, reply: &Reply) -> Option<Said> {
        let grant = Grant::new(reply).filter(|grant| !grant.addresses.is_empty())?;
        let at = |seconds| (seconds != FOREVER).then(|| self.began + Duration::from_secs(u64::from(seconds)));
        let ends = grant.times.map(at);
        self.learn(reply);
        self.deadline = ends.into_iter().flatten().min();
        self.refusals = 0;
        self.state = State::Bound(Held { grant: grant.clone(), ends });
        Some((None, Some(Event::Bound(grant))))
    }

    /// RFC 8415 §18.2.10.1. What an answer does not mention goes on as it was.
    fn renewed(&mut self, now: Instant, held: Held, reply: &Reply) -> Said {
        let no_binding = reply.association.as_ref().is_some_and(|found| found.status == status::NO_BINDING);
        if no_binding {
            // The server has forgotten us: it is asked for the same addresses.
            let grant = Grant { server: reply.server.clone(), ..held.grant };
            let (message, _) = self.request(now, grant);
            return (message, Some(Event::Lost(Loss::Refused)));
        }
        if reply.status == status::NOT_ON_LINK {
            return self.refused(now);
        }
        match Grant::new(reply) {
            Some(grant) if grant.addresses.is_empty() && !grant.withdrawn.is_empty() => self.refused(now),
            _ => self.bind(reply).unwrap_or_default(),
        }
    }

    fn learn(&mut self, reply: &Reply) {
        self.known = Known { dns_servers: reply.dns_servers.clone(), search: reply.search.clone() };
    }

    fn message(&self, kind: Kind, grant: Option<&Grant>, elapsed: u16) -> Vec<u8> {
        let addresses: Vec<_> =
            grant.iter().flat_map(|grant| &grant.addresses).map(|it| it.address).collect();
        let server = grant.filter(|_| kind != Kind::Rebind).map(|grant| grant.server.as_slice());
        Ask { kind, server, addresses: &addresses }.to_bytes(&self.identity, self.exchange, elapsed)
    }

    /// RFC 8415 §15: up to a tenth longer or shorter, so that clients that began together part; the first
    /// solicitation's never shorter.
    fn next_wait(&mut self, kind: Kind) -> Duration {
        let Patience { first, most, .. } = kind.patience();
        let most = if kind == Kind::Solicit { self.longest_wait } else { most };
        self.wait = if self.sent == 0 { first } else { (self.wait * 2).min(most) };
        let tenth = self.wait / 10;
        let spread = tenth * u32::from(self.random.bytes::<1>()[0]) / 128;
        let shorter = if kind == Kind::Solicit && self.sent == 0 { Duration::ZERO } else { tenth };
        self.wait + spread - shorter
    }
}

impl Grant {
    /// What a server's answer grants; `None` when it went wrong, or nothing is said of addresses.
    #[must_use]
    fn new(reply: &Reply) -> Option<Self> {
        let association = reply.association.as_ref().filter(|_| reply.succeeded())?;
        let (addresses, withdrawn): (Vec<_>, Vec<_>) =
            association.addresses.iter().copied().partition(|leased| leased.valid > 0);
        let withdrawn = withdrawn.into_iter().map(|leased| leased.address).collect();
        let times = times(association, &addresses);
        Some(Self { server: reply.server.clone(), addresses, withdrawn, times })
    }
}

/// RFC 8415 §14.2, §21.4: what the server says, or half and four fifths of the shortest time; in order, and not so
/// short that we would ask all the time.
fn times(association: &Association, addresses: &[Leased]) -> [u32; 3] {
    let end = addresses.iter().map(|leased| leased.valid).max().unwrap_or_default().max(SHORTEST);
    let preferred = addresses.iter().map(|leased| leased.preferred).filter(|preferred| *preferred > 0);
    let shortest = preferred.min().unwrap_or(end);
    let part = |numerator: u32| match shortest {
        FOREVER => FOREVER,
        seconds => seconds / 10 * numerator + seconds % 10 * numerator / 10,
    };
    let or = |told: u32, otherwise: u32| if told == 0 { otherwise } else { told };
    let renew = or(association.renew, part(5)).clamp(SHORTEST, end);
    let rebind = or(association.rebind, part(8)).clamp(renew, end);
    [renew, rebind, end]
}

#[cfg(test)]
mod tests;
