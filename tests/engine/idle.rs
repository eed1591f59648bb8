//! Doing nothing costs nothing.

use crate::raw;
use core::time::Duration;
use testkit::raw_guest::RawTcp;
use testkit::upstream::tcp::Script;
use testkit::world::World;
use testkit::world::WorldConfig;

#[test]
fn an_idle_engine_is_not_woken() {
    let mut config = WorldConfig::default();
    config.engine.plan.v6 = None;
    let mut world = World::raw(config);
    world.run_for(Duration::from_secs(86_400));
    assert_eq!(world.stats().wakeups, 0);
    assert_eq!(world.engine.next_timeout(), None);
}

#[test]
fn router_advertisements_do_not_keep_an_idle_engine_awake() {
    let mut world = raw();
    world.run_for(Duration::from_secs(60));
    let before = world.stats().wakeups;
    world.run_for(Duration::from_secs(86_400));
    let wakeups = world.stats().wakeups - before;
    assert!(wakeups <= 300, "{wakeups} a day");
}

#[test]
fn idle_connections_sleep_until_their_keepalive() {
    let mut world = raw();
    world.host.serve_otherwise(Script::echo());
    for port in 0..50 {
        let mut end = RawTcp::to("192.0.2.1:80");
        end.local.set_port(2000 + port);
        let mut end = RawTcp::open_with(&mut world, end, testkit::raw_guest::usual_options());
        end.send_data(&mut world, b"x");
        for segment in world.take_tcp() {
            end.take_in(&segment);
        }
        end.send_ack(&mut world);
    }
    world.run_for(Duration::from_secs(1));
    let before = world.stats().wakeups;
    world.run_for(Duration::from_secs(3600));
    let wakeups = world.stats().wakeups - before;
    assert!(wakeups <= 20, "{wakeups} in an hour with fifty idle connections");
}
