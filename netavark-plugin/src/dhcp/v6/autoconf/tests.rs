use super::super::message::option;
use super::super::message::tests::{MAC, REPLY, association, identity, opt, reply};
use super::*;
use proptest::prelude::*;

const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

const NEITHER: u8 = 0;
const OTHER: u8 = 0x40;
const MANAGED: u8 = 0x80;

/// What was sent, in short.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// To routers; with an address of its own, or without.
    Question(bool),
    /// To servers, by number.
    Dhcp(u8),
}

fn sent(step: &Step) -> Option<Sent> {
    let frame = step.send.as_ref()?;
    Some(match frame[20] {
        17 => Sent::Dhcp(frame[62]),
        _ => Sent::Question(frame[22..38] != [0; 16]),
    })
}

struct World {
    machine: Autoconf,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::from_micros(1_000_000);
        Self { machine: Autoconf::new(identity(), *b"any seed", now), now }
    }

    fn with_own() -> Self {
        let mut world = Self::new();
        world.machine.set_own(world.now, MAC.link_local());
        world
    }

    fn run(&mut self) -> (Duration, Step) {
        let deadline = self.machine.deadline().unwrap();
        let waited = deadline.since(self.now);
        self.now = self.now.max(deadline);
        (waited, self.machine.timeout(self.now))
    }

    fn advert(&mut self, flags: u8) -> Step {
        let message = [&[134, 0, 0, 0, 64, flags, 7, 8][..], &[0; 8]].concat();
        self.machine.received(self.now, &frame::from_router(ROUTER, message))
    }

    fn server(&mut self, options: &[Vec<u8>]) -> Step {
        let message = reply(REPLY, self.machine.client.exchange(), 9, &options.concat());
        self.machine.received(self.now, &frame::from_server(ROUTER, MAC.link_local(), &message))
    }
}

fn lease() -> [Vec<u8>; 2] {
    [opt(option::RAPID_COMMIT, &[]), association([0, 0], &[("2001:db8::7", 100, 100)], &[])]
}

#[test]
fn managed_addresses_are_asked_for() {
    let mut world = World::with_own();
    let (waited, step) = world.run();
    assert_eq!((waited, sent(&step)), (Duration::ZERO, Some(Sent::Question(true))));
    assert_eq!(world.advert(MANAGED).event, Some(Event::Heard));
    assert!(!world.machine.settled());
    let (waited, step) = world.run();
    assert_eq!((waited, sent(&step)), (Duration::ZERO, Some(Sent::Dhcp(1))));
    assert!(matches!(world.server(&lease()).event, Some(Event::Bound(_))));
    assert!(world.machine.settled() && !world.machine.listening());
    let release = world.machine.release().unwrap();
    assert_eq!((release[20], release[62]), (17, 8));
}

#[test]
fn nothing_is_asked_where_there_is_nothing() {
    let mut world = World::with_own();
    assert_eq!(world.advert(NEITHER), Step::default(), "nobody has asked yet");
    world.run();
    assert_eq!(world.advert(NEITHER).event, Some(Event::Heard));
    assert!(world.machine.settled() && !world.machine.listening());
    assert_eq!((world.machine.deadline(), world.machine.release()), (None, None));
}

#[test]
fn what_is_said_again_is_nothing_to_know() {
    let mut world = World::with_own();
    world.run();
    assert_eq!(world.advert(MANAGED).event, Some(Event::Heard));
    assert_eq!(world.advert(MANAGED), Step::default(), "a flood wakes nobody");
    assert_eq!(world.advert(OTHER).event, Some(Event::Heard));
    assert_eq!(world.advert(OTHER), Step::default());
    // The question that is asked once more has its answer all the same.
    world.machine.ask_again(world.now);
    world.run();
    assert_eq!(world.advert(OTHER), Step::default());
    assert!(world.machine.deadline().is_some_and(|at| at <= world.now), "only servers are asked");
    assert!(matches!(sent(&world.run().1), Some(Sent::Dhcp(_))));
}

#[test]
fn more_is_asked_for_once() {
    let mut world = World::with_own();
    world.run();
    world.advert(OTHER);
    assert!(!world.machine.settled());
    assert_eq!(sent(&world.run().1), Some(Sent::Dhcp(11)));
    assert_eq!(world.server(&[opt(option::DNS_SEARCH, b"\x03lan\0")]).event, Some(Event::Heard));
    assert!(world.machine.settled() && world.machine.deadline().is_none());
    assert_eq!(world.machine.known().unwrap().search, ["lan"]);
    // A second router with addresses to give.
    world.advert(MANAGED);
    assert_eq!(sent(&world.run().1), Some(Sent::Dhcp(1)));
}

#[test]
fn servers_wait_for_an_address_of_its_own() {
    let mut world = World::new();
    assert_eq!(sent(&world.run().1), Some(Sent::Question(false)));
    world.advert(MANAGED);
    assert_eq!(world.machine.deadline(), None);
    world.now = world.now + Duration::from_secs(2);
    world.machine.set_own(world.now, MAC.link_local());
    assert_eq!(sent(&world.run().1), Some(Sent::Dhcp(1)));
}

#[test]
fn without_a_router_servers_are_asked_all_the_same() {
    let mut world = World::with_own();
    let start = world.now;
    let mut said = Vec::new();
    while world.now.since(start) < Duration::from_secs(4) {
        let (_, step) = world.run();
        said.extend(sent(&step).map(|sent| (world.now.since(start).as_secs(), sent)));
    }
    let first: Vec<_> = said.iter().take(5).map(|(at, _)| *at).collect();
    assert_eq!(first, [0, 1, 2, 2, 3], "{said:?}");
    assert!(matches!(said[3].1, Sent::Dhcp(1)) && matches!(said[4].1, Sent::Dhcp(1)), "{said:?}");
    assert!(!world.machine.settled());
    assert!(matches!(world.server(&lease()).event, Some(Event::Bound(_))));
    assert!(world.machine.settled());
}

#[test]
fn a_router_that_comes_late_is_believed() {
    let mut world = World::with_own();
    while sent(&world.run().1) != Some(Sent::Dhcp(1)) {}
    world.advert(NEITHER);
    assert_eq!(world.machine.deadline(), None, "no address is asked for any more");
    assert!(world.machine.settled());
}

#[test]
fn routers_are_asked_once_more_on_demand() {
    let mut world = World::with_own();
    world.run();
    world.advert(NEITHER);
    world.machine.ask_again(world.now);
    assert!(world.machine.listening() && world.machine.settled());
    assert_eq!(sent(&world.run().1), Some(Sent::Question(true)));
    // Nobody answers this time, which changes nothing.
    assert_eq!(world.run().1.event, Some(Event::Heard));
    assert!(world.machine.settled() && world.machine.deadline().is_none());
}

#[test]
fn routers_are_asked_three_times() {
    let mut world = World::new();
    let questions: Vec<_> = (0..4).map(|_| sent(&world.run().1)).collect();
    assert_eq!(questions.iter().flatten().count(), 3);
    assert_eq!((world.machine.deadline(), world.machine.listening()), (None, false));
}

#[test]
fn the_fuzzer_gets_everywhere() {
    let option = [1, 1, 0, 0, 0, 0, 0, 0];
    let advert =
        |kind: u8, options: usize| [&[0, kind][..], &[7, 8], &[0; 8], &option.repeat(options)].concat();
    let managed = [&advert(226, 27)[..], &[0, 71], &[0; 71]].concat();
    assert!(play(&managed).grant().is_none(), "an option that is cut");
    let managed = [&advert(226, 27)[..], &[0, 71], &[0, 99, 0, 67], &[0; 67], &[0, 0]].concat();
    assert!(play(&managed).grant().is_some());
    let other = [&advert(210, 25)[..], &[0, 65], &[0, 99, 0, 61], &[0; 61]].concat();
    assert!(play(&other).known().is_some());
    assert!(play(&advert(194, 23)).settled());
}

proptest! {
    #[test]
    fn whatever_comes_it_neither_spins_nor_stops(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz(&bytes);
    }

    #[test]
    fn any_frames_are_borne(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let mut world = World::with_own();
        world.run();
        for frame in frames {
            let _ = world.machine.received(world.now, &frame);
            let _ = world.machine.received(world.now, &frame::from_server(ROUTER, MAC.link_local(), &frame));
            let _ = world.machine.received(world.now, &frame::from_router(ROUTER, frame));
        }
    }
}
