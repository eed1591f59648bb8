//! What somebody who sends little waits for while others transfer: counted, so that no machine blurs it.

use core::time::Duration;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Mtu;
use slipway_netstack::device::{Capabilities, Offload};
use testkit::guest::{SmolConfig, SmolGuest, Task};
use testkit::link::LinkConfig;
use testkit::packet::{Tcp, ethernet, flag};
use testkit::throughput::TEN_GIGABIT;
use testkit::upstream::HostConfig;
use testkit::upstream::tcp::Script;
use testkit::world::{ENGINE_MAC, World, WorldConfig};

/// The most of others that may leave between the moment that a sparse flow has something to send and its frame.
const AHEAD: u64 = 128 << 10;
/// What uploads may be promised together, if it is more than two super-frames for each.
const TOGETHER: u64 = 1 << 20;
const FRAME: u64 = 64 << 10;

/// A guest on a TAP; the servers are near.
fn world(mtu: u16) -> World<SmolGuest> {
    world_on(mtu, HostConfig::default())
}

fn world_on(mtu: u16, host: HostConfig) -> World<SmolGuest> {
    let mut config = WorldConfig {
        link: LinkConfig { bandwidth: Some(TEN_GIGABIT), ..LinkConfig::default() },
        host: HostConfig { bandwidth: Some(TEN_GIGABIT), ..host },
        guest_offload: true,
        ..WorldConfig::default()
    };
    config.engine.mtu = Mtu::new(mtu).unwrap();
    config.engine.device = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
    World::new(config, SmolGuest::new(SmolConfig { mtu: mtu.into(), buffer: 4 << 20, cubic: true }))
}

/// A server that says something now and then, beside `bulk` transfers.
fn answers_beside(bulk: usize, mtu: u16, download: bool) -> (u64, u64) {
    let mut world = world(mtu);
    world.host.serve("192.0.2.1:80", if download { Script::source(1 << 40, 2) } else { Script::sink(1) });
    world.host.serve("192.0.2.2:22", Script::manual());
    let sparse = world.guest.connect("192.0.2.2:22".parse().unwrap(), Task::default());
    world.run_until(Duration::from_secs(1), |world| world.guest.task(sparse).established);
    let info = world.engine.flows().next().unwrap();
    world.watch.on(info.id, info.guest.port());
    for _ in 0..bulk {
        let task = if download { Task::download(2) } else { Task::upload(1 << 40, 1) };
        world.guest.connect("192.0.2.1:80".parse().unwrap(), task);
    }
    world.run_for(Duration::from_millis(20));
    for _ in 0..50 {
        world.host.peer_send(0, b"answer", false);
        world.run_for(Duration::from_micros(700));
    }
    (world.watch.waits, world.watch.worst)
}

#[test]
fn an_answer_goes_before_the_downloads() {
    for mtu in [1500, 65_520] {
        for bulk in [1, 4, 16] {
            let (waits, worst) = answers_beside(bulk, mtu, true);
            assert!(
                waits >= 40 && worst <= AHEAD,
                "{bulk} downloads, MTU {mtu}: {waits} waits, {worst} bytes"
            );
        }
    }
}

#[test]
fn an_answer_goes_before_the_acknowledgements_of_uploads() {
    let (waits, worst) = answers_beside(16, 65_520, false);
    assert!(waits >= 40 && worst <= AHEAD, "{waits} waits, {worst} bytes");
}

/// What is promised lies in front of whatever the guest sends next.
#[test]
fn uploads_are_promised_little_together() {
    for mtu in [1500, 65_520] {
        for bulk in [1, 2, 3, 4, 16] {
            let mut world = world(mtu);
            world.host.serve("192.0.2.1:80", Script::sink(1));
            for _ in 0..bulk {
                world.guest.connect("192.0.2.1:80".parse().unwrap(), Task::upload(1 << 40, 1));
            }
            world.run_for(Duration::from_millis(50));
            let before: u64 = world.host.peers().map(|peer| peer.received).sum();
            let mut worst = 0;
            for _ in 0..100 {
                world.run_for(Duration::from_micros(100));
                worst = worst.max(world.engine.flows().map(|flow| u64::from(flow.window)).sum::<u64>());
            }
            let moved = world.host.peers().map(|peer| peer.received).sum::<u64>() - before;
            let most = TOGETHER.max(2 * FRAME * bulk);
            assert!(worst <= most, "{bulk} uploads, MTU {mtu}: {worst} bytes promised, {most} allowed");
            assert!(moved > 4 << 20, "{bulk} uploads, MTU {mtu}: {moved} bytes in 10 ms");
        }
    }
}

/// Bytes that a download brings in 10 ms, while a station beside the guest puts `frames` on the link, some every 10 us.
fn downloads_beside(frames: impl Fn(u16) -> Vec<u8>) -> (u64, usize) {
    let mut world = world_on(1500, HostConfig { connects: Some(1), ..HostConfig::default() });
    world.host.serve("192.0.2.1:80", Script::source(1 << 40, 2));
    world.host.serve_otherwise(Script::manual());
    world.guest.connect("192.0.2.1:80".parse().unwrap(), Task::download(2));
    world.run_for(Duration::from_millis(20));
    let acknowledged = |world: &World<SmolGuest>| world.host.peers().map(|peer| peer.sent).sum::<u64>();
    let before = acknowledged(&world);
    for round in 0..1000 {
        for place in 0..8 {
            let (now, frame) = (world.now(), frames(round * 8 + place));
            if !frame.is_empty() {
                world.up.push(now, Offload::NONE, frame);
            }
        }
        world.run_for(Duration::from_micros(10));
    }
    (acknowledged(&world) - before, world.host.opened().len())
}

/// What others cost us, connections above all, for each of which the host's kernel takes its time, is not taken from a
/// flow that is there.
#[test]
fn a_transfer_gets_on_beside_a_flood() {
    let station = MacAddr([2, 0, 0, 0, 0, 0x65]);
    let (alone, _) = downloads_beside(|_| Vec::new());
    assert!(alone > 8 << 20, "{alone} bytes in 10 ms");
    let (beside, opened) = downloads_beside(|number| {
        let (own, to) = ([10, 0, 2, 101], [192, 0, 2, 7]);
        let syn = Tcp { seq: 1, window: 1000, ..Tcp::default() }.with(flag::SYN);
        ethernet(ENGINE_MAC, station, &syn.packet((own, 1000 + number).into(), (to, 80).into()).emit())
    });
    assert!(opened > 500, "{opened} connections were begun");
    assert!(beside >= alone * 9 / 10, "{beside} of {alone} bytes beside a queue of connections");
    let (beside, _) = downloads_beside(|_| vec![0xff; 60]);
    assert!(beside >= alone * 9 / 10, "{beside} of {alone} bytes beside frames of no meaning");
}
