use crate::families::families;
use crate::{FLOW, World};
use slipway_netstack::upstream::{Errno, Event, Meta, Source, Upstream};
use std::net::IpAddr;

/// Opens a ping flow, or says why it cannot be tested here.
fn open(name: &str, world: &mut World, like: IpAddr) -> bool {
    match world.sockets.ping_open(FLOW, like, Source::default()) {
        Ok(()) => true,
        Err(Errno::Prohibited) => {
            println!("SKIP {name}: net.ipv4.ping_group_range leaves this process out");
            false
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn an_echo_comes_back_with_its_number_and_data() {
    let name = "an_echo_comes_back_with_its_number_and_data";
    for like in families(name) {
        let mut world = World::new();
        if !open(name, &mut world, like) {
            return;
        }
        for sequence in [0, 1, 0xabcd] {
            world.sockets.ping_send(FLOW, like, sequence, b"some data", Meta::default()).unwrap();
            assert_eq!(world.until(|_| true), Event::Readable);
            let mut into = [0; 100];
            let (number, received) = world.sockets.ping_receive(FLOW, &mut into).unwrap();
            assert_eq!((number, &into[..received.len]), (sequence, &b"some data"[..]));
            assert_eq!((received.from.ip(), received.segment), (like, received.len));
            assert_eq!(received.meta.hops, 64);
            assert!(world.sockets.ping_receive(FLOW, &mut into).is_err());
        }
        assert!(world.sockets.take_error(FLOW).is_err());
        world.sockets.close(FLOW);
    }
}
