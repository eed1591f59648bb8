use super::*;

use crate::dhcp_client::message::option;
use crate::dhcp_client::message::tests::{identity, reply};
use proptest::prelude::*;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};

const IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const NEXT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ROGUE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// A client with a clock and a server on a string.
struct World {
    client: Client,
    now: Instant,
}

/// What the client sent, in short.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    kind: DhcpMessageType,
    to: MacAddr,
    from: Ipv4Addr,
    held: Ipv4Addr,
    wish: Option<Ipv4Addr>,
}

fn sent(step: &Step) -> Option<Sent> {
    let frame = step.send.as_ref()?;
    let packet = DhcpPacket::new_checked(&frame[42..]).unwrap();
    let message = DhcpRepr::parse(&packet).unwrap();
    Some(Sent {
        kind: message.message_type,
        to: MacAddr(frame[..6].try_into().unwrap()),
        from: Ipv4Addr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap()),
        held: message.client_ip,
        wish: message.requested_ip,
    })
}

fn broadcast(kind: DhcpMessageType, own: Ipv4Addr, wish: Option<Ipv4Addr>) -> Option<Sent> {
    Some(Sent { kind, to: MacAddr::BROADCAST, from: own, held: own, wish })
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

impl World {
    fn new() -> Self {
        let now = Instant::from_micros(1_000_000);
        Self { client: Client::new(identity(), *b"any seed", now), now }
    }

    /// Goes to the client's deadline; says how long that took, and what it did then.
    fn run(&mut self) -> (Duration, Step) {
        let deadline = self.client.deadline().unwrap();
        let waited = deadline.since(self.now);
        self.now = self.now.max(deadline);
        (waited, self.client.timeout(self.now))
    }

    fn answer(&mut self, kind: u8, ip: Ipv4Addr, server: Ipv4Addr, seconds: u32) -> Step {
        let message = reply(
            kind,
            self.client.exchange,
            ip,
            &[
                (option::SERVER_ID, &server.octets()),
                (option::SUBNET_MASK, &[255, 255, 255, 0]),
                (option::LEASE_TIME, &seconds.to_be_bytes()),
            ],
        );
        self.client.received(self.now, &frame::to_client(SERVER_MAC, &message))
    }

    /// Goes through the first exchange.
    fn bound(seconds: u32) -> Self {
        let mut world = Self::new();
        world.run();
        world.answer(OFFER, IP, SERVER, seconds);
        let step = world.answer(ACK, IP, SERVER, seconds);
        assert!(matches!(step.event, Some(Event::Bound(_))));
        world
    }
}

fn address(step: &Step) -> Option<Ipv4Addr> {
    match step.event.as_ref()? {
        Event::Bound(lease) => Some(lease.address.addr()),
        Event::Lost(_) => None,
    }
}

#[test]
fn discover_offer_request_ack() {
    let mut world = World::new();
    let (waited, step) = world.run();
    assert!(waited.is_zero() && world.client.listening());
    assert_eq!(sent(&step), broadcast(DhcpMessageType::Discover, NONE, None));
    let step = world.answer(OFFER, IP, SERVER, 120);
    assert_eq!(sent(&step), broadcast(DhcpMessageType::Request, NONE, Some(IP)));
    assert_eq!(world.answer(OFFER, NEXT, ROGUE, 120), Step::default(), "the first offer counts");
    assert_eq!(world.answer(ACK, NEXT, ROGUE, 120), Step::default());
    assert_eq!(world.answer(NAK, NONE, ROGUE, 120), Step::default(), "nor does a stranger's no");
    let step = world.answer(ACK, IP, SERVER, 120);
    assert_eq!((address(&step), step.send), (Some(IP), None));
    assert!(!world.client.listening());
    assert_eq!(world.client.deadline().unwrap().since(world.now), Duration::from_secs(60));
}

#[test]
fn silence_is_met_with_patience() {
    let mut world = World::new();
    for least in [0.0, 3.25, 3.25, 6.5, 13.0, 26.0, 52.0, 64.0, 64.0, 64.0] {
        let (waited, step) = world.run();
        assert_eq!(sent(&step).unwrap().kind, DhcpMessageType::Discover);
        assert!((least..=least * 1.125).contains(&waited.as_secs_f64()), "{waited:?}");
    }
}

#[test]
fn within_eight_seconds_there_are_three_tries() {
    let mut world = World::new();
    let start = world.now;
    let tries = std::iter::repeat_with(|| {
        world.run();
        world.now
    });
    assert!(tries.take_while(|now| now.since(start) < Duration::from_secs(8)).count() >= 3);
}

#[test]
fn an_offer_that_is_not_confirmed_is_given_up() {
    let mut world = World::new();
    world.run();
    world.answer(OFFER, IP, SERVER, 120);
    for _ in 1..REQUESTS {
        assert_eq!(sent(&world.run().1).unwrap().kind, DhcpMessageType::Request);
    }
    assert_eq!(sent(&world.run().1).unwrap().kind, DhcpMessageType::Discover);
}

#[test]
fn the_server_alone_is_asked_to_renew() {
    let mut world = World::bound(120);
    let (waited, step) = world.run();
    assert_eq!(waited, Duration::from_secs(60));
    let renewal = Sent { kind: DhcpMessageType::Request, to: SERVER_MAC, from: IP, held: IP, wish: None };
    assert_eq!(sent(&step), Some(renewal));
    assert!(world.client.listening());
    world.now = world.now + Duration::from_secs(1);
    assert_eq!(address(&world.answer(ACK, IP, SERVER, 120)), Some(IP));
    // From when it was asked for: one second of the sixty is gone.
    assert_eq!(world.run().0, Duration::from_secs(59));
}

#[test]
fn then_all_are_asked_and_then_it_is_over() {
    let mut world = World::bound(1200);
    let start = world.now;
    let mut kinds = Vec::new();
    let lost = loop {
        let (_, step) = world.run();
        if step.event.is_some() {
            break step.event;
        }
        kinds.push((world.now.since(start).as_secs(), sent(&step).unwrap().to == MacAddr::BROADCAST));
    };
    assert_eq!(kinds.first(), Some(&(600, false)));
    assert!(kinds.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 60 || pair[1].0 == 1050), "{kinds:?}");
    assert!(kinds.contains(&(1050, true)), "{kinds:?}");
    assert_eq!((lost, world.now.since(start).as_secs()), (Some(Event::Lost(Loss::Expired)), 1200));
    let step = world.run().1;
    assert_eq!(
        sent(&step),
        broadcast(DhcpMessageType::Discover, NONE, Some(IP)),
        "the old address is preferred"
    );
}

#[test]
fn a_no_starts_over_at_once_but_not_for_ever() {
    let mut world = World::bound(120);
    world.run();
    let step = world.answer(NAK, NONE, ROGUE, 0);
    assert_eq!(step.event, Some(Event::Lost(Loss::Refused)));
    let (waited, step) = world.run();
    assert!(waited.is_zero());
    assert_eq!(sent(&step), broadcast(DhcpMessageType::Discover, NONE, None));
    let mut total = Duration::ZERO;
    for _ in 0..10 {
        world.answer(OFFER, NEXT, SERVER, 120);
        assert_eq!(world.answer(NAK, NONE, SERVER, 0), Step::default());
        let (waited, step) = world.run();
        assert_eq!(sent(&step).unwrap().kind, DhcpMessageType::Discover);
        total += waited;
    }
    assert!(total > Duration::from_secs(100), "{total:?}");
    world.answer(OFFER, NEXT, SERVER, 120);
    assert_eq!(address(&world.answer(ACK, NEXT, SERVER, 120)), Some(NEXT));
}

#[test]
fn a_lease_for_ever_is_left_alone() {
    let world = World::bound(u32::MAX);
    assert_eq!(world.client.deadline(), None);
}

#[test]
fn a_lease_is_given_back_to_its_server() {
    let mut world = World::bound(120);
    let step = Step { send: world.client.release(), event: None };
    let release = Sent { kind: DhcpMessageType::Release, to: SERVER_MAC, from: IP, held: IP, wish: None };
    assert_eq!(sent(&step), Some(release));
    assert_eq!(World::new().client.release(), None);
}

#[test]
fn offers_of_no_use_are_not_taken() {
    for (ip, server, seconds) in [
        (NONE, SERVER, 120),
        (Ipv4Addr::BROADCAST, SERVER, 120),
        (Ipv4Addr::LOCALHOST, SERVER, 120),
        (Ipv4Addr::new(224, 0, 0, 1), SERVER, 120),
        (IP, SERVER, 0),
    ] {
        let mut world = World::new();
        world.run();
        assert_eq!(world.answer(OFFER, ip, server, seconds), Step::default(), "{ip} {seconds}");
    }
}

#[test]
fn an_answer_before_the_question_or_of_another_exchange_is_not_taken() {
    let mut world = World::new();
    assert_eq!(world.answer(OFFER, IP, SERVER, 120), Step::default());
    world.run();
    world.client.exchange ^= 1;
    let stale = reply(OFFER, world.client.exchange ^ 1, IP, &[]);
    assert_eq!(world.client.received(world.now, &frame::to_client(SERVER_MAC, &stale)), Step::default());
}

proptest! {
    #[test]
    fn whatever_servers_say_it_neither_spins_nor_stops(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&data);
    }
}
