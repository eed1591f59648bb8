//! Forwarded ports: connections from the host's side to the guest.

use crate::raw;
use core::net::SocketAddr;
use core::time::Duration;
use slipway_netstack::drop_reason::DropReason;
use testkit::guest::Task;
use testkit::packet::{Tcp, flag};
use testkit::raw_guest::{RawGuest, RawTcp, usual_options};
use testkit::upstream::tcp::{Script, Service};
use testkit::world::{World, WorldConfig};

fn syn(world: &mut World<RawGuest>) -> (SocketAddr, RawTcp) {
    let (ip, syn) = world.expect_tcp();
    assert_eq!(syn.flags, flag::SYN);
    let from = SocketAddr::new(ip.src, syn.src);
    (from, RawTcp::accept(world, &ip, &syn, usual_options()))
}

#[test]
fn the_client_is_shown_with_its_own_address_and_port() {
    for (client, guest) in [("192.0.2.7:5000", "10.0.2.100:80"), ("[2001:db8::7]:5000", "[fd00::64]:80")] {
        let mut world = raw();
        let service =
            Service::Talk(Script { source: Some(100), stay: true, keep: true, ..Script::default() });
        world.accept_tcp(client, guest, service).unwrap();
        let (from, mut end) = syn(&mut world);
        assert_eq!(from, client.parse().unwrap());
        let got = world.take_tcp();
        assert_eq!(got.iter().map(|s| s.payload.len()).sum::<usize>(), 100, "what waited in the socket");
        for segment in &got {
            end.take_in(segment);
        }
        end.send_data(&mut world, b"hello client");
        assert_eq!(world.host.peer(0).data, b"hello client");
    }
}

#[test]
fn loopback_clients_look_like_the_gateway_and_stay_apart() {
    let mut world = raw();
    world.accept_tcp("127.0.0.1:5000", "10.0.2.100:80", Script::manual()).unwrap();
    let (from, _) = syn(&mut world);
    assert_eq!(from, "10.0.2.2:5000".parse().unwrap());
    world.take();
    world.accept_tcp("127.0.0.2:5000", "10.0.2.100:80", Script::manual()).unwrap();
    let (other, _) = syn(&mut world);
    assert_eq!(other.ip(), from.ip());
    assert_ne!(other.port(), from.port(), "two clients, two connections");
}

#[test]
fn a_guest_that_refuses_resets_the_client() {
    let mut world = raw();
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    let (ip, syn) = world.expect_tcp();
    let reset = Tcp { flags: flag::RST | flag::ACK, ack: syn.seq.wrapping_add(1), ..Tcp::default() };
    world.send(&reset.packet(SocketAddr::new(ip.dst, 80), SocketAddr::new(ip.src, syn.src)));
    assert!(world.host.peer(0).reset);
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}

#[test]
fn a_reset_that_acknowledges_nothing_of_ours_is_not_believed() {
    let mut world = raw();
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    let (ip, syn) = world.expect_tcp();
    for (flags, ack) in [(flag::RST | flag::ACK, syn.seq), (flag::RST, 0)] {
        let forged = Tcp { flags, ack, ..Tcp::default() };
        world.send(&forged.packet(SocketAddr::new(ip.dst, 80), SocketAddr::new(ip.src, syn.src)));
    }
    assert_eq!(world.engine.flow_count(), 1);
}

#[test]
fn a_lost_syn_is_repeated_and_silence_ends() {
    let mut world = raw();
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    world.expect_tcp();
    world.run_for(Duration::from_millis(1100));
    assert_eq!(world.expect_tcp().1.flags, flag::SYN);
    world.run_for(Duration::from_secs(3600));
    let repeats = world.take_tcp();
    assert!((3..20).contains(&repeats.len()), "{} repeats", repeats.len());
    assert!(world.host.peer(0).reset);
    assert_eq!(world.engine.flow_count(), 0);
}

#[test]
fn a_client_that_leaves_while_we_connect_takes_the_flow_with_it() {
    let mut world = raw();
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Script::manual()).unwrap();
    world.expect_tcp();
    world.host.peer_reset(0);
    world.run_for(Duration::from_secs(1));
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}

#[test]
fn a_client_that_closes_early_is_served() {
    let mut world = raw();
    let script = Script { source: Some(10), stay: true, keep: true, ..Script::default() };
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Service::Talk(script)).unwrap();
    world.run_for(Duration::from_millis(100));
    let (_, mut end) = syn(&mut world);
    let got = world.take_tcp();
    for segment in &got {
        end.take_in(segment);
    }
    assert!(got.iter().any(|s| s.has(flag::FIN)));
    end.send_data(&mut world, b"the answer");
    end.send_fin(&mut world);
    world.run_for(Duration::from_millis(50));
    let peer = world.host.peer(0);
    assert_eq!((&peer.data[..], peer.finished, peer.reset), (&b"the answer"[..], true, false));
    assert_eq!(world.engine.flow_count(), 0);
}

#[test]
fn families_do_not_mix() {
    let mut world = raw();
    let result = world.accept_tcp("[2001:db8::7]:5000", "10.0.2.100:80", Script::manual());
    assert_eq!(result, Err(DropReason::FamilyOff));
    assert_eq!(world.engine.flow_count(), 0);
}

#[test]
fn smoltcp_serves_clients() {
    let mut world = World::smol(WorldConfig::default());
    let server = world.guest.listen(80, Task::echo());
    let script = Script { source: Some(200_000), source_seed: 4, expect: Some(4), ..Script::default() };
    world.accept_tcp("192.0.2.7:5000", "10.0.2.100:80", Service::Talk(script)).unwrap();
    let done = world.run_until(Duration::from_secs(10), |world| world.host.peer(0).received == 200_000);
    assert!(done, "{:?} {:?}", world.host.peer(0), world.guest.task(server));
    assert_eq!(world.host.peer(0).mismatch, None);
    world.run_for(Duration::from_secs(30));
    assert!(world.host.peer(0).finished);
    assert_eq!((world.engine.flow_count(), world.host.open_sockets()), (0, 0));
}
