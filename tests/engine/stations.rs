//! Stations on links of their own: what one of them does not take, or takes along, is nobody else's business.

use crate::raw;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::Offload;
use testkit::packet::{Udp, ethernet};
use testkit::pattern;
use testkit::raw_guest::{RawGuest, RawTcp};
use testkit::upstream::datagram::UdpService;
use testkit::upstream::tcp::Script;
use testkit::world::{ENGINE_MAC, GUEST_MAC, World};

const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x65]);

/// The other station asks the host something; the stations that frames come to meanwhile.
fn ask(world: &mut World<RawGuest>) -> Vec<MacAddr> {
    let (own, to) = ("10.0.2.101:4000".parse().unwrap(), "192.0.2.1:7".parse().unwrap());
    let frame = ethernet(ENGINE_MAC, OTHER_MAC, &Udp::packet(own, to, b"question").emit());
    world.guest.send_frame(Offload::NONE, frame);
    world.take().iter().map(|frame| frame.dst).collect()
}

/// A world in which both stations have a conversation with the host.
fn both() -> (World<RawGuest>, RawTcp) {
    let mut world = raw();
    world.host.serve_otherwise(Script::manual());
    world.host.serve_udp_otherwise(UdpService::Echo);
    let end = RawTcp::open(&mut world, "192.0.2.1:80");
    assert_eq!(ask(&mut world), [OTHER_MAC]);
    (world, end)
}

#[test]
fn a_station_without_room_holds_up_nobody_else_and_misses_no_byte() {
    let (mut world, mut end) = both();
    world.blocked = Some(GUEST_MAC);
    let data = pattern::bytes(1, 0, 10_000);
    for part in data.chunks(1000) {
        world.host.peer_send(0, part, false);
        world.settle();
    }
    end.send_data(&mut world, b"upward");
    assert_eq!(world.host.peer(0).data, b"upward", "the other way goes on");
    for _ in 0..100 {
        assert_eq!(ask(&mut world), [OTHER_MAC]);
    }
    assert!(world.engine.awaits_link());
    world.blocked = None;
    let answer: Vec<u8> = world.take_tcp().into_iter().flat_map(|segment| segment.payload).collect();
    assert!(answer == data, "{} bytes", answer.len());
    assert_eq!(world.engine.counters().tcp_retransmits, 0);
    assert!(!world.engine.awaits_link());
}

#[test]
fn a_station_that_is_gone_takes_its_own_flows_along() {
    let (mut world, _end) = both();
    world.blocked = Some(GUEST_MAC);
    assert_eq!(world.engine.flow_count(), 2);
    let mut stations: Vec<_> = world.engine.stations().collect();
    stations.sort_unstable();
    assert_eq!(stations, [GUEST_MAC, OTHER_MAC]);
    world.engine.forget_stations(world.now(), |station| station == GUEST_MAC, &mut world.host);
    assert_eq!(world.engine.stations().collect::<Vec<_>>(), [OTHER_MAC]);
    assert_eq!(ask(&mut world), [OTHER_MAC]);
    assert!(world.host.peer(0).reset, "its peer is told");
}
