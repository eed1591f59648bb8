use super::super::message::option;
use super::super::message::tests::{ADVERTISE, REPLY, association, identity, opt, reply};
use super::*;

const IP: &str = "2001:db8::7";
const SERVER: u8 = 9;
const ROGUE: u8 = 66;

/// A client with a clock and servers on a string.
struct World {
    client: Client,
    now: Instant,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn new() -> Self {
        let now = Instant::from_micros(1_000_000);
        let mut client = Client::new(identity(), *b"any seed", now);
        client.look_for_addresses(now);
        Self { client, now }
    }

    /// Goes to the client's deadline; says how long that took, what it said (by number) and what happened.
    fn run(&mut self) -> (Duration, Option<u8>, Option<Event>) {
        let deadline = self.client.deadline().unwrap();
        let waited = deadline.since(self.now);
        self.now = self.now.max(deadline);
        let (message, event) = self.client.timeout(self.now);
        (waited, message.map(|message| message[0]), event)
    }

    fn hear(&mut self, kind: u8, server: u8, options: &[Vec<u8>]) -> (Option<u8>, Option<Event>) {
        let message = reply(kind, self.client.exchange, server, &options.concat());
        let (message, event) = self.client.received(self.now, &message);
        (message.map(|message| message[0]), event)
    }

    /// Goes through the first exchange: an address for so long, with T1 and T2 as the server says.
    fn bound(times: [u32; 2], valid: u32) -> Self {
        let mut world = Self::new();
        world.run();
        let (message, event) =
            world.hear(REPLY, SERVER, &[rapid(), association(times, &[(IP, valid, valid)], &[])]);
        assert!(message.is_none() && matches!(event, Some(Event::Bound(_))), "{event:?}");
        world
    }
}

fn rapid() -> Vec<u8> {
    opt(option::RAPID_COMMIT, &[])
}

fn preference(value: u8) -> Vec<u8> {
    opt(option::PREFERENCE, &[value])
}

fn lease(valid: u32) -> Vec<u8> {
    association([0, 0], &[(IP, valid, valid)], &[])
}

const SOLICIT: Option<u8> = Some(1);
const REQUEST: Option<u8> = Some(3);
const RENEW: Option<u8> = Some(5);
const REBIND: Option<u8> = Some(6);

#[test]
fn solicit_advertise_request_reply() {
    let mut world = World::new();
    assert_eq!(world.run(), (Duration::ZERO, SOLICIT, None));
    assert!(world.client.listening());
    assert_eq!(world.hear(ADVERTISE, SERVER, &[lease(100)]), (None, None), "others may make an offer too");
    assert_eq!(world.run(), (COLLECTING, REQUEST, None));
    assert_eq!(world.hear(REPLY, ROGUE, &[lease(100)]), (None, None), "a stranger's word");
    let (_, event) = world.hear(REPLY, SERVER, &[lease(100), opt(option::DNS_SERVERS, &[0xfd; 16])]);
    let Some(Event::Bound(grant)) = event else { panic!("{event:?}") };
    assert_eq!(grant.times, [50, 80, 100]);
    assert_eq!(grant.addresses[0].address, IP.parse::<Ipv6Addr>().unwrap());
    assert_eq!(world.client.known().unwrap().dns_servers.len(), 1);
    assert!(!world.client.listening());
    assert_eq!(world.client.deadline().unwrap().since(world.now), secs(50));
}

#[test]
fn the_preferred_server_is_taken() {
    let mut world = World::new();
    world.run();
    world.hear(ADVERTISE, ROGUE, &[lease(100), preference(1)]);
    world.hear(ADVERTISE, SERVER, &[lease(100), preference(2)]);
    world.hear(ADVERTISE, 3, &[lease(100), preference(2)]);
    assert_eq!(world.run().1, REQUEST);
    let State::Requesting(grant) = &world.client.state else { panic!() };
    assert_eq!(grant.server.last(), Some(&SERVER));

    let mut world = World::new();
    world.run();
    let said = world.hear(ADVERTISE, SERVER, &[lease(100), preference(255)]);
    assert_eq!(said, (REQUEST, None), "at once");
}

#[test]
fn offers_of_nothing_are_passed_over() {
    let mut world = World::new();
    world.run();
    let no_addresses = association([0, 0], &[], &opt(option::STATUS, &[0, 2]));
    for options in [
        vec![no_addresses],
        vec![opt(option::STATUS, &[0, 1]), lease(100)],
        vec![association([0, 0], &[(IP, 0, 0)], &[])],
        vec![],
    ] {
        assert_eq!(world.hear(ADVERTISE, SERVER, &options), (None, None));
        assert_eq!(world.hear(REPLY, SERVER, &options), (None, None));
    }
    assert_eq!(world.hear(REPLY, SERVER, &[lease(100)]), (None, None), "not asked for in that way");
    world.hear(ADVERTISE, SERVER, &[opt(option::SOLICIT_MAX, &60_u32.to_be_bytes())]);
    let mut last = Duration::ZERO;
    for _ in 0..12 {
        let (waited, said, event) = world.run();
        assert_eq!((said, event), (SOLICIT, None));
        last = waited;
    }
    assert!(last >= secs(54) && last <= secs(66), "no more rarely than the server says: {last:?}");
}

#[test]
fn silence_is_met_with_patience() {
    let mut world = World::new();
    world.run();
    let waits: Vec<_> = (0..14).map(|_| world.run().0).collect();
    assert!(waits[0] >= secs(1) && waits[0] <= Duration::from_millis(1200), "{waits:?}");
    assert!(waits[1] >= Duration::from_millis(1800) && waits[1] <= Duration::from_millis(2200), "{waits:?}");
    assert!(waits[13] >= secs(3240) && waits[13] <= secs(3960), "{waits:?}");
}

#[test]
fn a_request_that_is_not_answered_is_given_up() {
    let mut world = World::new();
    world.run();
    world.hear(ADVERTISE, SERVER, &[lease(100)]);
    for _ in 0..10 {
        assert_eq!(world.run().1, REQUEST);
    }
    assert_eq!(world.run().1, SOLICIT);
}

#[test]
fn a_refusal_starts_over_later_and_later() {
    let mut world = World::new();
    let mut last = Duration::ZERO;
    for refusal in 0..12 {
        let (waited, said, _) = world.run();
        assert_eq!(said, SOLICIT, "{refusal}");
        assert!(waited >= last.min(secs(512)) || refusal == 0);
        last = waited;
        world.hear(ADVERTISE, SERVER, &[lease(100), preference(255)]);
        let (said, event) = world.hear(REPLY, SERVER, &[opt(option::STATUS, &[0, 4])]);
        assert_eq!((said, event), (None, None), "nothing was held");
    }
    assert_eq!(last, secs(512));
}

#[test]
fn a_lease_is_renewed_then_rebound_then_lost() {
    let mut world = World::bound([100, 200], 300);
    let start = world.now;
    let mut said = Vec::new();
    loop {
        let (_, message, event) = world.run();
        said.push((world.now.since(start).as_secs(), message));
        if event.is_some() {
            assert_eq!(event, Some(Event::Lost(Loss::Expired)));
            break;
        }
    }
    assert_eq!(said[0], (100, RENEW));
    let rebind = said.iter().position(|(_, message)| *message == REBIND).unwrap();
    assert_eq!(said[rebind].0, 200);
    assert!(said[1..rebind].iter().all(|(_, message)| *message == RENEW) && rebind >= 3, "{said:?}");
    assert_eq!(said.last(), Some(&(300, None)));
    assert_eq!(world.run(), (Duration::ZERO, SOLICIT, None));
    assert_eq!(world.client.grant(), None);
}

#[test]
fn a_renewal_prolongs_replaces_and_withdraws() {
    let mut world = World::bound([100, 200], 300);
    world.run();
    assert_eq!(world.hear(ADVERTISE, SERVER, &[lease(300)]), (None, None), "nobody asked for an offer");
    assert_eq!(world.hear(REPLY, SERVER, &[]), (None, None), "nothing said, nothing changed");
    let both = association([100, 200], &[(IP, 0, 0), ("2001:db8::8", 300, 300)], &[]);
    let (_, event) = world.hear(REPLY, SERVER, &[both]);
    let Some(Event::Bound(grant)) = event else { panic!("{event:?}") };
    assert_eq!(grant.withdrawn, [IP.parse::<Ipv6Addr>().unwrap()]);
    assert_eq!(grant.addresses.len(), 1);
    assert_eq!(world.client.deadline().unwrap().since(world.now), secs(100));
    // When all are withdrawn there is no lease any more.
    world.run();
    let (_, event) = world.hear(REPLY, SERVER, &[association([0, 0], &[("2001:db8::8", 0, 0)], &[])]);
    assert_eq!(event, Some(Event::Lost(Loss::Refused)));
    assert_eq!(world.run().1, SOLICIT);
}

#[test]
fn any_server_may_rebind() {
    let mut world = World::bound([100, 200], 300);
    while world.run().1 != REBIND {}
    let (_, event) = world.hear(REPLY, ROGUE, &[lease(300)]);
    let Some(Event::Bound(grant)) = event else { panic!("{event:?}") };
    assert_eq!(grant.server.last(), Some(&ROGUE));
}

#[test]
fn a_server_that_forgot_us_is_asked_again() {
    let mut world = World::bound([100, 200], 300);
    world.run();
    let forgot = association([0, 0], &[], &opt(option::STATUS, &[0, 3]));
    let (said, event) = world.hear(REPLY, SERVER, &[forgot]);
    assert_eq!((said, event), (REQUEST, Some(Event::Lost(Loss::Refused))));
    let (_, event) = world.hear(REPLY, SERVER, &[lease(300)]);
    assert!(matches!(event, Some(Event::Bound(_))));
}

#[test]
fn a_lease_without_end_rests() {
    let mut world = World::new();
    world.run();
    world.hear(REPLY, SERVER, &[rapid(), lease(FOREVER)]);
    assert_eq!(world.client.deadline(), None);
    assert!(!world.client.listening() && world.client.grant().is_some());
}

#[test]
fn nobody_is_asked_all_the_time() {
    for (times, valid) in [([1, 1], 1), ([0, 0], 1), ([1, 2], 100), ([0, 0], 7)] {
        let mut world = World::bound(times, valid);
        assert!(world.run().0 >= secs(5), "{times:?} {valid}");
    }
    assert_eq!(times(&Association { renew: 500, rebind: 900, ..Association::default() }, &[]), [5, 5, 5]);
}

#[test]
fn information_is_asked_for_without_addresses() {
    let now = Instant::from_micros(1);
    let mut client = Client::new(identity(), *b"any seed", now);
    client.look_for_addresses(now);
    client.timeout(now);
    client.look_for_information(now);
    let mut world = World { client, now };
    assert_eq!(world.run(), (Duration::ZERO, Some(11), None));
    assert_eq!(world.client.known(), None);
    assert!(world.run().0 >= Duration::from_millis(900), "repeated");
    let (_, event) = world.hear(REPLY, SERVER, &[opt(option::DNS_SERVERS, &[0xfd; 16])]);
    assert_eq!(event, Some(Event::Informed));
    assert_eq!(world.client.known().unwrap().dns_servers.len(), 1);
    assert_eq!((world.client.deadline(), world.client.listening()), (None, false));
    // A router that has changed its mind.
    world.client.look_for_addresses(world.now);
    assert_eq!(world.run().1, SOLICIT);
    world.client.give_up();
    assert_eq!(world.client.deadline(), None);
}

#[test]
fn what_is_held_can_be_given_back_and_declined() {
    let mut world = World::bound([100, 200], 300);
    assert_eq!(world.client.release().unwrap()[0], 8);
    let declined = world.client.decline(world.now).unwrap();
    assert_eq!((declined[0], world.client.grant()), (9, None));
    assert_eq!((world.client.release(), world.client.decline(world.now)), (None, None));
    let (waited, said, _) = world.run();
    assert_eq!((waited, said), (secs(1), SOLICIT));
}

#[test]
fn answers_to_something_else_are_not_heard() {
    let mut world = World::new();
    let early = reply(REPLY, world.client.exchange, SERVER, &[rapid(), lease(100)].concat());
    assert_eq!(world.client.received(world.now, &early), (None, None), "before the question");
    world.run();
    let [a, b, c] = world.client.exchange;
    let other = reply(REPLY, [a, b, c ^ 1], SERVER, &[rapid(), lease(100)].concat());
    assert_eq!(world.client.received(world.now, &other), (None, None));
    assert_eq!(world.client.received(world.now, &[]), (None, None));
}
