//! IPv6 of one container's interface as a machine without I/O: asks routers what there is, and DHCPv6 servers as far as
//! the routers say so (RFC 4861 §6.3.7, RFC 4862 §5.5). Frames and time in, frames and events out.
//!
//! | the routers say | then |
//! |---|---|
//! | M: addresses are managed | addresses are asked for, and kept |
//! | O: there is more to know | that is asked for, once |
//! | neither | nothing; the kernel of the container makes its addresses from the prefixes |
//! | nothing at all | addresses are asked for all the same (RFC 4862 §5.5.2) |
//!
//! * Routers are asked three times, at once and then every second, not four (RFC 4861 §6.3.7, deviation): somebody
//!   waits for the container to start. The kernel asks on by itself, and makes addresses whenever a router turns up.
//! * The first question has no address of its own: the interface need not have finished looking for duplicates. DHCPv6
//!   waits for that ([`Autoconf::set_own`]).
//! * What a router says again is no event. What there is to know is bounded, so a flood of advertisements makes few
//!   events.
//! * Flags that change later are not followed: the container lives with what it was started with, as the caller does,
//!   who was told the addresses then.

use super::advert::Advert;
use super::client::{Client, Event as Said, Grant, Known};
use super::frame::{self, Heard};
use super::message::{Identity, Kind};
use slipway_netstack::Instant;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::dhcp_client::{self, Loss, Machine};
use std::net::Ipv6Addr;
use std::time::Duration;

/// Between two questions to routers.
const INTERVAL: Duration = Duration::from_secs(1);
/// So often they are asked.
const QUESTIONS: u32 = 3;
/// After so many questions without an answer DHCPv6 is tried without a router.
const DOUBTS: u32 = 3;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dhcp) enum Event {
    /// There are addresses: the first, the same for longer, or others.
    Bound(Grant),
    /// The addresses have ended, and there are no others yet.
    Lost(Loss),
    /// Somebody told something, or nobody did.
    Heard,
}

type Step = dhcp_client::Step<Event>;

/// One interface.
#[derive(Debug)]
pub(in crate::dhcp) struct Autoconf {
    mac: MacAddr,
    /// Its link-local address, as soon as that can be used.
    own: Option<Ipv6Addr>,
    /// Questions to routers so far, and when the next one is due.
    asked: u32,
    ask_at: Option<Instant>,
    advert: Option<Advert>,
    client: Client,
}

impl Autoconf {
    /// A machine that begins at `now`: its timeout is due at once.
    #[must_use]
    pub(in crate::dhcp) fn new(identity: Identity, seed: [u8; 8], now: Instant) -> Self {
        let mac = identity.mac;
        let client = Client::new(identity, seed, now);
        Self { mac, own: None, asked: 0, ask_at: Some(now), advert: None, client }
    }

    /// Whether the link-local address is known.
    #[must_use]
    pub(in crate::dhcp) fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// The interface can use its link-local address from now on.
    pub(in crate::dhcp) fn set_own(&mut self, now: Instant, own: Ipv6Addr) {
        self.own = Some(own);
        self.decide(now);
    }

    /// Asks the routers once more: somebody else did not hear the answer.
    pub(in crate::dhcp) fn ask_again(&mut self, now: Instant) {
        (self.asked, self.ask_at) = (QUESTIONS - 1, Some(now));
    }

    /// Whether everything that routers and servers have is there; `false` while there is neither.
    #[must_use]
    pub(in crate::dhcp) fn settled(&self) -> bool {
        match &self.advert {
            None => self.client.grant().is_some(),
            Some(advert) if advert.managed => self.client.grant().is_some(),
            Some(advert) => !advert.other || self.client.known().is_some(),
        }
    }

    /// What the routers say.
    #[must_use]
    pub(in crate::dhcp) fn advert(&self) -> Option<&Advert> {
        self.advert.as_ref()
    }

    /// The addresses that are held.
    #[must_use]
    pub(in crate::dhcp) fn grant(&self) -> Option<&Grant> {
        self.client.grant()
    }

    /// What servers say besides.
    #[must_use]
    pub(super) fn known(&self) -> Option<&Known> {
        self.client.known()
    }

    /// The frame that gives the addresses back. Nothing else may be done afterwards.
    pub(in crate::dhcp) fn release(&mut self) -> Option<Vec<u8>> {
        let message = self.client.release()?;
        Some(frame::to_servers(self.mac, self.own?, &message))
    }

    /// Somebody else has an address: the frame that says so. Others are looked for.
    pub(in crate::dhcp) fn decline(&mut self, now: Instant) -> Option<Vec<u8>> {
        let message = self.client.decline(now)?;
        Some(frame::to_servers(self.mac, self.own?, &message))
    }

    /// What to ask servers, as far as is known by now.
    fn decide(&mut self, now: Instant) {
        if self.own.is_none() {
            return;
        }
        match &self.advert {
            Some(advert) if advert.managed => self.client.look_for_addresses(now),
            Some(advert) if advert.other => self.client.look_for_information(now),
            Some(_) => self.client.give_up(),
            None if self.asked >= DOUBTS => self.client.look_for_addresses(now),
            None => {}
        }
    }

    fn ask(&mut self, now: Instant) -> Step {
        if self.asked >= QUESTIONS {
            self.ask_at = None;
            return Step::event(Event::Heard);
        }
        self.asked += 1;
        self.ask_at = Some(now + INTERVAL);
        self.decide(now);
        Step::send(frame::to_routers(self.mac, self.own))
    }

    fn step(&self, (message, event): (Option<Vec<u8>>, Option<Said>)) -> Step {
        let own = self.own.unwrap_or(Ipv6Addr::UNSPECIFIED);
        Step {
            send: message.map(|message| frame::to_servers(self.mac, own, &message)),
            event: event.map(|event| match event {
                Said::Bound(grant) => Event::Bound(grant),
                Said::Lost(why) => Event::Lost(why),
                Said::Informed => Event::Heard,
            }),
        }
    }
}

impl Machine for Autoconf {
    type Event = Event;

    fn deadline(&self) -> Option<Instant> {
        self.ask_at.into_iter().chain(self.client.deadline()).min()
    }

    fn listening(&self) -> bool {
        self.ask_at.is_some() || self.client.listening()
    }

    fn timeout(&mut self, now: Instant) -> Step {
        if self.ask_at.is_some_and(|at| now >= at) {
            return self.ask(now);
        }
        let said = self.client.timeout(now);
        self.step(said)
    }

    fn received(&mut self, now: Instant, frame: &[u8]) -> Step {
        match frame::read(frame, self.mac) {
            Some(Heard::Dhcp(message)) => {
                let said = self.client.received(now, message);
                self.step(said)
            }
            Some(Heard::Advert(from, message)) if self.asked > 0 => {
                let Some(advert) = Advert::parse(from, message) else { return Step::default() };
                let before = self.advert.clone();
                match &mut self.advert {
                    Some(known) => known.join(advert),
                    None => self.advert = Some(advert),
                }
                self.ask_at = None;
                self.decide(now);
                // Whoever hears of it looks at the container, which costs more than a router's next thousand words.
                if self.advert == before { Step::default() } else { Step::event(Event::Heard) }
            }
            _ => Step::default(),
        }
    }
}

/// For the fuzzer: whatever servers say, the machine neither spins nor stops, and what it holds is of use.
///
/// A byte below 64 lets time pass; others are an answer of that kind, with the next bytes as its options, or (from 192)
/// an advertisement with bits 5 and 4 as its flags.
pub(in crate::dhcp) fn fuzz(data: &[u8]) {
    play(data);
}

fn play(mut data: &[u8]) -> Autoconf {
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    let identity = Identity::new(MacAddr([2, 0, 0, 0, 0, 1]), "box", "eth0", "box");
    let own = identity.mac.link_local();
    let mut now = Instant::from_micros(1_000_000);
    let mut machine = Autoconf::new(identity.clone(), *b"any seed", now);
    machine.set_own(now, own);
    let mut idle = 0;
    while let [action, rest @ ..] = data {
        data = rest;
        let step = match *action {
            0..64 => {
                let Some(deadline) = machine.deadline() else { continue };
                idle = if deadline > now { 0 } else { idle + 1 };
                assert!(idle < 8, "it spins");
                now = now.max(deadline);
                machine.timeout(now)
            }
            action => {
                let (bytes, rest) = data.split_at(data.len().min(usize::from(action)));
                data = rest;
                let frame = match action {
                    192.. => {
                        frame::from_router(OTHER, [&[134, 0, 0, 0, 64, action << 2][..], bytes].concat())
                    }
                    _ => {
                        let message = forged(&identity, machine.client.exchange(), action, bytes);
                        frame::from_server(OTHER, own, &message)
                    }
                };
                machine.received(now, &frame)
            }
        };
        if let Some(Event::Bound(grant)) = step.event {
            assert!(!grant.addresses.is_empty() && grant.times.is_sorted() && grant.times[0] > 0);
            assert!(grant.addresses.iter().all(|it| it.valid > 0 && super::message::is_usable(it.address)));
            assert_eq!(machine.grant(), Some(&grant));
        }
    }
    machine
}

/// A message for the machine's exchange: an advertisement or a reply, with an address or without, and any options.
fn forged(identity: &Identity, exchange: [u8; 3], kind: u8, options: &[u8]) -> Vec<u8> {
    // A request of the client has what an answer must repeat.
    let ask = super::message::Ask { kind: Kind::Release, server: Some(&[0, 3, 0, 1, 9]), addresses: &[] };
    let mut message = ask.to_bytes(identity, exchange, 0);
    if let Some(first) = message.first_mut() {
        *first = if kind & 1 == 0 { 2 } else { 7 };
    }
    if kind & 2 != 0 {
        // The empty association, which comes last, is given an address.
        let address =
            [&[0, 5, 0, 24, 0x20, 1, 0xd, 0xb8][..], &[0; 11], &[kind, 0, 0, 0, kind, 0, 0, 1, 0]].concat();
        let len = message.len();
        if let Some(place) = message.get_mut(len - 14..len - 12) {
            place.copy_from_slice(&[0, 12 + 28]);
        }
        message.extend(address);
    }
    if kind & 4 != 0 {
        message.extend([0, 14, 0, 0]);
    }
    message.extend(options);
    message
}

#[cfg(test)]
mod tests;
