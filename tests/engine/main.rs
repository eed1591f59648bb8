//! Scenarios of the engine in virtual time, by area. See `testkit::world` for the machinery.

mod chaos;
mod dhcp;
mod dns;
mod fragments;
mod gvproxy;
mod icmp;
mod idle;
mod latency;
mod neighbours;
mod pasta;
mod plan;
mod ports;
mod rewriting;
mod stations;
mod tcp_close;
mod tcp_data;
mod tcp_inbound;
mod tcp_loss;
mod tcp_open;
mod throughput;
mod udp;

use testkit::raw_guest::RawGuest;
use testkit::world::{World, WorldConfig};

/// A guest driven by hand in front of an engine with the usual addresses.
fn raw() -> World<RawGuest> {
    World::raw(WorldConfig::default())
}
