//! The virtual network: from the configuration to engine, zones and leases.
//!
//! What addresses stand for is a table of the engine's ([`slipway_netstack::ip::plan::gvproxy`]); here the
//! configuration becomes that table, and the engine's limits. Names are [`names`]. Nothing here opens a socket.

pub mod names;

use crate::config::{Config, Stack};
use slipway_netstack::config::{Config as EngineConfig, Mtu, TcpConfig, UdpConfig};
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::gvproxy::Gvproxy;
use std::time::Duration;

pub use slipway_netstack::ip::plan::gvproxy::HTTP;

/// How long two endpoints that exchange datagrams may be silent before they are strangers again.
const UDP_IDLE: Duration = Duration::from_secs(90);

/// The addresses, and what they stand for.
#[must_use]
pub fn plan(config: &Config) -> Plan {
    let stack = &config.stack;
    Plan::gvproxy(&Gvproxy {
        subnet: stack.subnet.trunc(),
        gateway: stack.gateway_ip,
        aliases: stack.virtual_ips.clone(),
        nat: stack.nat.clone(),
        reserved: stack.static_leases.clone(),
        link_local: stack.ec2_metadata,
        preserve_source: config.preserve_source,
    })
}

/// The engine's configuration: `machine` is what this host decides.
#[must_use]
pub fn engine(config: &Config, machine: EngineConfig) -> EngineConfig {
    let stack = &config.stack;
    EngineConfig {
        plan: plan(config),
        mtu: Mtu::new(stack.mtu).unwrap_or(Mtu::MIN),
        dns_search: stack.search.clone(),
        tcp: tcp(stack, machine.tcp),
        udp: UdpConfig { timeout: UDP_IDLE, stream_timeout: UDP_IDLE, contacted_only: true },
        ..machine
    }
}

fn tcp(stack: &Stack, machine: TcpConfig) -> TcpConfig {
    let timeout = Some(stack.tcp_connect_timeout).filter(|timeout| !timeout.is_zero());
    TcpConfig { connect_timeout: timeout, max_in_flight: Some(stack.tcp_max_in_flight), ..machine }
}

#[cfg(test)]
mod tests;
