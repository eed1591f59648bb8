//! The virtual network: from the configuration to engine, zones and leases.
//!
//! What addresses stand for is a table of the engine's ([`slipway_netstack::ip::plan::gvproxy`]); here the
//! configuration becomes that table, and the engine's limits. Names are [`names`]. Nothing here opens a socket.
//!
//! With IPv6, what the zones call by the gateway's address or the host's is called by those of IPv6 as well.

pub mod names;

use crate::config::{Config, Stack};
use slipway_dns::config::gvproxy::{Record, Zone};
use slipway_netstack::config::{Config as EngineConfig, Mtu, TcpConfig, UdpConfig};
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::gvproxy::{Gvproxy, Ipv6};
use std::net::{IpAddr, Ipv6Addr};
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
        v6: config.ipv6.then(|| Ipv6::of(stack.gateway_mac)),
    })
}

/// The zones as they were given, or by default, with what IPv6 adds.
#[must_use]
pub fn zones(config: &Config) -> Vec<Zone> {
    let (stack, mut zones) = (&config.stack, config.stack.dns.clone());
    if config.ipv6 {
        let v6 = Ipv6::of(stack.gateway_mac);
        let known: [(IpAddr, Ipv6Addr); 2] =
            [(stack.gateway_ip.into(), v6.gateway), (stack.host_ip.into(), v6.host)];
        for zone in &mut zones {
            let also = |record: &Record| {
                let (_, ip) = known.iter().find(|(of, _)| record.ip == Some(*of))?;
                Some(Record { ip: Some((*ip).into()), ..record.clone() })
            };
            let all: Vec<_> = zone.records.iter().filter_map(also).collect();
            zone.records.extend(all);
        }
    }
    zones
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
