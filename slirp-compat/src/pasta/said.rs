//! What `--debug` says of a start: everything that decides where packets go, a line for each matter.
//!
//! Whoever reads it wants to know why the guest reaches something or does not: which of the host's interfaces its own
//! is like, what it has, which of its addresses are ours and what they lead to, and who is asked for names.

use super::config::{Config, Guest};
use slipway_host::template::{Side, Template};
use slipway_netstack::ip::plan::Address;
use slipway_netstack::ip::plan::pasta::{Half, Loopback, Pasta};
use std::fmt::Display;

/// One family of the template: what the guest's interface is like.
pub(super) fn template(template: &Template) -> Vec<String> {
    let of = |family: &str, side: &Option<Side>| match side {
        None => format!("{family}: not wanted"),
        Some(side) => {
            let like = side.interface.as_ref().map_or("nothing (local mode)", |link| link.name.as_str());
            let addresses = list(&side.addresses);
            let gateway = or_none(side.gateway);
            format!(
                "{family}: {} is like {like}, addresses {addresses}, gateway {gateway}, {} routes",
                template.ifname(),
                side.route_count()
            )
        }
    };
    vec![of("IPv4", &template.v4), of("IPv6", &template.v6)]
}

/// What the engine makes of it.
pub(super) fn network(config: &Config, addresses: &Pasta) -> Vec<String> {
    let mtu = config.mtu.map_or_else(|| "not told".to_owned(), |bytes| bytes.to_string());
    let mut lines = vec![format!("our MAC address is {}, the MTU {mtu}", config.mac)];
    lines.extend(addresses.v4.as_ref().map(|half| family("IPv4", half)));
    lines.extend(addresses.v6.as_ref().map(|half| family("IPv6", half)));
    let handlers = config.handlers;
    let named = |what: &[(&str, bool)]| {
        let names: Vec<_> = what.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let carries = addresses.carries;
    lines.push(format!(
        "carried: {}; answered: {}",
        named(&[("TCP", carries.tcp), ("UDP", carries.udp), ("echo", carries.icmp)]),
        named(&[
            ("DHCP", addresses.dhcp),
            ("DHCPv6", addresses.dhcp6 && addresses.v6.is_some()),
            ("neighbour discovery", handlers.ndp && addresses.v6.is_some()),
            ("router solicitations", addresses.advertise),
        ])
    ));
    if matches!(config.guest, Guest::Namespace(_)) {
        let splice = config.splice;
        lines.push(match (splice.inbound, splice.to_loopback) {
            (false, _) => "the host's loopback reaches the guest by its link".to_owned(),
            (true, to_loopback) => {
                let to = if to_loopback { "loopback" } else { "own address" };
                format!("the host's loopback reaches the guest's {to} by the shortcut")
            }
        });
    }
    lines
}

fn family<A: Address + Display>(family: &str, half: &Half<A>) -> String {
    let loopback = match half.map_host_loopback {
        Loopback::Nowhere => "nowhere".to_owned(),
        Loopback::At(at) => at.to_string(),
        Loopback::Gateway => or_none(half.gateway),
    };
    format!(
        "{family}: the host's loopback is at {loopback}, the host at {}, names are answered at {} ({} for port 853), \
         nameservers told: {}",
        or_none(half.map_guest_addr),
        or_none(half.dns_forward),
        or_none(half.dns_host),
        list(&half.dns)
    )
}

fn or_none<T: Display>(one: Option<T>) -> String {
    one.map_or_else(|| "none".to_owned(), |one| one.to_string())
}

fn list<T: Display>(all: &[T]) -> String {
    let all: Vec<_> = all.iter().map(T::to_string).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(" ") }
}
