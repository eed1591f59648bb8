//! The client's side of DHCP (RFC 2131 §4.4) as a machine without I/O: frames and time in, frames and events out.
//!
//! ```text
//!   Discovering ──offer──▶ Requesting ──ack──▶ Bound ──T1──▶ Renewing ──T2──▶ Rebinding ──end──┐
//!        ▲                     │ nak, silence    ▲ ack           │ ack, nak      │ ack, nak      │
//!        └─────────────────────┴─────────────────┴───────────────┴───────────────┴───────────────┘
//! ```
//! * The first offer is taken. A lease runs from the moment in which it was asked for, not from the answer.
//! * A renewal goes to the server alone, straight to the MAC address that its last answer came from; rebinding goes to
//!   all.
//! * Whoever says no ends the lease: the machine starts over. So does the lease's end; then the old address is asked
//!   for.
//! * A question is repeated twice before the wait is doubled, and sooner than after four seconds (RFC 2131 §4.1,
//!   deviation): somebody waits for the container or the machine to start, eight seconds in all. Servers that look
//!   whether an address is free before they offer it take up to three seconds for that; asking again in the meantime
//!   would be noise, and asking soon after saves the offer that a bridge sent elsewhere.
//! * The address is not looked for with ARP before it is used (RFC 2131 §2.2, deviation): that takes seconds; servers
//!   do.
//! * What becomes of an address whose lease is over is for the caller to say, who is told by [`Event::Lost`].

use super::frame::{self, Way};
use super::lease::Lease;
use super::machine::{self, Loss, Machine};
use super::message::{Ask, Identity, Kind, Reply};
use super::split_mix::Random;
use crate::addr::MacAddr;
use crate::clock::Instant;
use core::net::Ipv4Addr;
use core::time::Duration;

/// The first two repetitions of a DHCPDISCOVER come after this; each further one after twice as long.
const DISCOVER_WAIT: Duration = Duration::from_millis(3250);
/// The same for a DHCPREQUEST: the server has looked already.
const REQUEST_WAIT: Duration = Duration::from_secs(2);
/// But for chance, none comes after more (RFC 2131 §4.1).
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// An offer that is not confirmed after so many requests was not meant.
const REQUESTS: u32 = 3;
/// RFC 2131 §4.4.5: a renewal is not repeated sooner than this.
const RENEWAL_WAIT: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is a lease: the first, the same for longer, or another one.
    Bound(Box<Lease>),
    /// The lease has ended, and there is no other one yet.
    Lost(Loss),
}

type Step = machine::Step<Event>;

/// One client.
#[derive(Debug)]
pub struct Client {
    identity: Identity,
    random: Random,
    state: State,
    /// The number of the exchange that answers have to carry.
    exchange: u32,
    /// When it began.
    began: Instant,
    deadline: Option<Instant>,
    /// Refusals in a row.
    refusals: u32,
}

#[derive(Debug, Clone)]
enum State {
    Discovering { sent: u32, wish: Option<Ipv4Addr> },
    Requesting { offer: Lease, sent: u32 },
    Bound(Held),
    Renewing(Held),
    Rebinding(Held),
}

/// A lease, and when to renew it, rebind it, and stop using it; `None`: never.
#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    ends: Option<[Instant; 3]>,
}

impl Client {
    /// A client without a lease, which begins at `now`: [`Machine::timeout`] is due at once.
    #[must_use]
    pub fn new(identity: Identity, seed: [u8; 8], now: Instant) -> Self {
        let state = State::Discovering { sent: 0, wish: None };
        let mut random = Random::new(seed);
        let exchange = random.number();
        Self { identity, random, state, exchange, began: now, deadline: Some(now), refusals: 0 }
    }

    /// The lease that is held.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Bound(held) | State::Renewing(held) | State::Rebinding(held) => Some(&held.lease),
            State::Discovering { .. } | State::Requesting { .. } => None,
        }
    }

    /// The frame that gives the lease back. Nothing else may be done afterwards.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        let lease = self.lease()?.clone();
        self.exchange = self.random.number();
        let ask = Ask::Release(lease.address.addr(), lease.server);
        Some(frame::to_server(self.to(&lease), &ask.to_bytes(&self.identity, self.exchange, 0)))
    }

    fn discover(&mut self, now: Instant, sent: u32, wish: Option<Ipv4Addr>) -> Step {
        self.state = State::Discovering { sent: sent.saturating_add(1), wish };
        self.deadline = Some(now + self.wait(DISCOVER_WAIT, sent));
        self.broadcast(now, Ask::Discover(wish), Ipv4Addr::UNSPECIFIED)
    }

    fn request(&mut self, now: Instant, offer: Lease, sent: u32) -> Step {
        let ask = Ask::Select(offer.address.addr(), offer.server);
        if sent == 0 {
            // The exchange keeps its number; the lease runs from here.
            self.began = now;
        }
        self.state = State::Requesting { offer, sent: sent + 1 };
        self.deadline = Some(now + self.wait(REQUEST_WAIT, sent));
        self.broadcast(now, ask, Ipv4Addr::UNSPECIFIED)
    }

    /// Asks for the lease to go on, or notices that it is over.
    fn keep(&mut self, now: Instant, held: Held) -> Step {
        let Some([_, rebind, end]) = held.ends else { return Step::default() };
        let address = held.lease.address.addr();
        if now >= end {
            self.start_over(now, Some(address));
            return Step { send: None, event: Some(Event::Lost(Loss::Expired)) };
        }
        let ask = Ask::Keep(address);
        if now < rebind {
            self.deadline = Some(rebind.min(now + (rebind.since(now) / 2).max(RENEWAL_WAIT)));
            let send = frame::to_server(self.to(&held.lease), &self.message(now, ask));
            self.state = State::Renewing(held);
            return Step { send: Some(send), event: None };
        }
        self.deadline = Some(end.min(now + (end.since(now) / 2).max(RENEWAL_WAIT)));
        self.state = State::Rebinding(held);
        self.broadcast(now, ask, address)
    }

    /// Takes the lease of an answer.
    fn bind(&mut self, reply: &Reply, from: MacAddr) -> Step {
        let Some(lease) = Lease::new(reply, from) else { return Step::default() };
        let ends = lease.times.delays().map(|delays| delays.map(|delay| self.began + delay));
        self.deadline = ends.map(|[renew, ..]| renew);
        self.refusals = 0;
        self.state = State::Bound(Held { lease: lease.clone(), ends });
        Step { send: None, event: Some(Event::Bound(Box::new(lease))) }
    }

    /// Starts over after a refusal: at once after the first, later and later after more of them.
    fn refused(&mut self, now: Instant) {
        self.start_over(now, None);
        if self.refusals > 0 {
            self.deadline = Some(now + self.wait(REQUEST_WAIT, self.refusals));
        }
        self.refusals = self.refusals.saturating_add(1);
    }

    fn start_over(&mut self, now: Instant, wish: Option<Ipv4Addr>) {
        self.new_exchange(now);
        self.state = State::Discovering { sent: 0, wish };
        self.deadline = Some(now);
    }

    fn new_exchange(&mut self, now: Instant) {
        self.exchange = self.random.number();
        self.began = now;
    }

    fn is_from(&self, reply: &Reply, offer: &Lease) -> bool {
        reply.options.address(super::message::option::SERVER_ID) == Some(offer.server)
    }

    fn message(&self, now: Instant, ask: Ask) -> Vec<u8> {
        let elapsed = u16::try_from(now.since(self.began).as_secs()).unwrap_or(u16::MAX);
        ask.to_bytes(&self.identity, self.exchange, elapsed)
    }

    fn broadcast(&self, now: Instant, ask: Ask, own: Ipv4Addr) -> Step {
        let way = Way::broadcast(self.identity.mac, own);
        Step { send: Some(frame::to_server(way, &self.message(now, ask))), event: None }
    }

    fn to(&self, lease: &Lease) -> Way {
        Way { from: (self.identity.mac, lease.address.addr()), to: (lease.server_mac, lease.server) }
    }

    /// How long to wait after one message and `before` others: `first` twice, then doubled each time, and up to an
    /// eighth longer, so that clients that began together part.
    fn wait(&mut self, first: Duration, before: u32) -> Duration {
        let wait = first.saturating_mul(1 << before.saturating_sub(1).min(16)).min(LONGEST_WAIT);
        wait + wait / 8 * (self.random.number() >> 24) / 256
    }
}

impl Machine for Client {
    type Event = Event;

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    // Outside of exchanges nobody need listen.
    fn listening(&self) -> bool {
        !matches!(self.state, State::Bound(_))
    }

    fn timeout(&mut self, now: Instant) -> Step {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Step::default();
        }
        match self.state.clone() {
            State::Discovering { sent, wish } => self.discover(now, sent, wish),
            State::Requesting { sent, .. } if sent >= REQUESTS => {
                self.start_over(now, None);
                self.timeout(now)
            }
            State::Requesting { offer, sent } => self.request(now, offer, sent),
            State::Bound(held) => {
                self.new_exchange(now);
                self.keep(now, held)
            }
            State::Renewing(held) | State::Rebinding(held) => self.keep(now, held),
        }
    }

    fn received(&mut self, now: Instant, frame: &[u8]) -> Step {
        let Some((from, message)) = frame::from_server(frame) else { return Step::default() };
        let Some(reply) = Reply::parse(message) else { return Step::default() };
        if reply.exchange != self.exchange || reply.mac != self.identity.mac {
            return Step::default();
        }
        match (self.state.clone(), reply.kind) {
            (State::Discovering { sent: 1.., .. }, Kind::Offer) => match Lease::new(&reply, from) {
                Some(offer) => self.request(now, offer, 0),
                None => Step::default(),
            },
            (State::Requesting { offer, .. }, Kind::Ack | Kind::Nak) if !self.is_from(&reply, &offer) => {
                Step::default()
            }
            (State::Requesting { .. }, Kind::Ack) => self.bind(&reply, from),
            (State::Requesting { .. }, Kind::Nak) => {
                self.refused(now);
                Step::default()
            }
            // It may be of another address, which RFC 2131 §4.4.5 does not know: it is the only server's word.
            (State::Renewing(_) | State::Rebinding(_), Kind::Ack) => self.bind(&reply, from),
            (State::Renewing(_) | State::Rebinding(_), Kind::Nak) => {
                self.refused(now);
                Step { send: None, event: Some(Event::Lost(Loss::Refused)) }
            }
            _ => Step::default(),
        }
    }
}

/// For the fuzzer: whatever servers say, the client neither spins nor stops, and what it holds is of use.
///
/// A byte below 64 lets time pass; others are an answer of that kind, with the next bytes as its options.
pub fn fuzz(mut data: &[u8]) {
    let identity = Identity { name: "box".into(), ..Identity::of_mac(MacAddr([2, 0, 0, 0, 0, 1])) };
    let mut now = Instant::from_micros(1_000_000);
    let mut client = Client::new(identity, *b"any seed", now);
    let mut idle = 0;
    while let [action, rest @ ..] = data {
        data = rest;
        let step = match *action {
            0..64 => {
                let Some(deadline) = client.deadline() else { return };
                idle = if deadline > now { 0 } else { idle + 1 };
                assert!(idle < 8, "it spins");
                now = now.max(deadline);
                client.timeout(now)
            }
            action => {
                let (options, rest) = data.split_at(data.len().min(usize::from(action)));
                data = rest;
                let message = forged(&client, action, options);
                client.received(now, &frame::to_client(MacAddr([2, 0, 0, 0, 0, 2]), &message))
            }
        };
        if let Some(Event::Bound(lease)) = step.event {
            let address = lease.address.addr();
            assert!(!address.is_unspecified() && !address.is_loopback() && lease.address.prefix_len() > 0);
            assert_eq!(client.lease(), Some(&*lease));
        }
        assert!(client.listening() || client.lease().is_some());
    }
}

/// A message for the client's exchange: an offer, an acknowledgement or a refusal, with any options.
fn forged(client: &Client, kind: u8, options: &[u8]) -> Vec<u8> {
    let sort = match kind % 3 {
        0 => 2,
        1 => 5,
        _ => 6,
    };
    let mut message = vec![2, 1, 6, 0];
    message.extend(client.exchange.to_be_bytes());
    message.extend([0, 0, 0, 0, 0, 0, 0, 0, 198, 51, 100, kind, 198, 51, 100, 1, 0, 0, 0, 0]);
    message.extend(client.identity.mac.0);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, sort, 54, 4, 198, 51, 100, 1]);
    if kind & 64 != 0 {
        message.extend([51, 4, 0, 0, kind, 0]);
    }
    message.extend(options);
    message
}

#[cfg(test)]
mod tests;
