//! A plan as text: each step as the command that would do the same, behind the namespace it is done in.

use super::{Change, ChildKind, Key, On, Op};
use slipway_host::netlink::{IpvlanMode, MacvlanMode, NewRoute, RouteKind};
use std::fmt;

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SysctlFile { path, lines } => {
                write!(f, "host       write {}:", path.display())?;
                lines.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
            }
            Self::MakeBridge { name, mtu, vlan_filtering, vrf } => {
                write!(f, "host       ip link add {name} type bridge")?;
                f.write_str(if *vlan_filtering { " vlan_filtering 1" } else { "" })?;
                mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
                vrf.iter().try_for_each(|vrf| write!(f, " master vrf#{vrf}"))
            }
            Self::MakePair { port, inside, mtu, mac } => {
                let port = if port.is_empty() { "veth#" } else { port };
                write!(
                    f,
                    "host       ip link add {port} master BRIDGE type veth peer {inside} netns CONTAINER"
                )?;
                mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
                mac.iter().try_for_each(|mac| write!(f, " address {mac}"))
            }
            Self::MakeChild { inside, parent, mtu, mac, kind } => {
                write!(f, "host       ip link add {inside} link #{parent} netns CONTAINER type {kind}")?;
                mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
                mac.iter().try_for_each(|mac| write!(f, " address {mac}"))
            }
            Self::MakeTap { name, mtu } => {
                write!(
                    f,
                    "host       ip tuntap add {name} mode tap; ip link set {name} master BRIDGE mtu {mtu}"
                )
            }
            Self::Sysctl { key, value, optional } => {
                let optional = if *optional { " (if it can be set)" } else { "" };
                let place = if let Key::Of { on, .. } = key { on.place() } else { "host" };
                let path = if let Key::Of { on, .. } = key { key.path(on.word()) } else { key.path("") };
                write!(f, "{place:<10} sysctl {path}={value}{optional}")
            }
            Self::Change { on, change } => {
                let (place, word) = (on.place(), on.word());
                match change {
                    Change::Up => write!(f, "{place:<10} ip link set {word} up"),
                    Change::Vlan(vlan) => {
                        write!(f, "{place:<10} bridge vlan add dev {word} vid {vlan} pvid untagged")
                    }
                    Change::VlanFiltering => {
                        write!(f, "{place:<10} ip link set {word} type bridge vlan_filtering 1")
                    }
                    Change::Hairpin => write!(f, "{place:<10} bridge link set dev {word} hairpin on"),
                    Change::PinMac => write!(f, "{place:<10} ip link set {word} address ITS-OWN"),
                }
            }
            Self::Address { on, net } => {
                write!(f, "{:<10} ip addr add {net} dev {}", on.place(), on.word())
            }
            Self::Route(route) => {
                f.write_str("container  ip route add")?;
                print_route(route, f)
            }
            Self::DeleteRoute(route) => {
                f.write_str("container  ip route del")?;
                print_route(route, f)
            }
            Self::Delete(list) => {
                write!(f, "{:<10} ip link del", list.first().map_or("", |on| on.place()))?;
                list.iter().try_for_each(|on| write!(f, " {}", on.word()))
            }
            Self::RemoveFile(path) => write!(f, "host       rm {}", path.display()),
        }
    }
}

impl On {
    fn place(self) -> &'static str {
        if self == Self::Inside { "container" } else { "host" }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Bridge => "BRIDGE",
            Self::Port => "PORT",
            Self::Inside => "INSIDE",
            Self::Tap => "TAP",
        }
    }
}

impl fmt::Display for ChildKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Macvlan { mode, broadcast_cutoff } => {
                let mode = match mode {
                    MacvlanMode::Bridge => "bridge",
                    MacvlanMode::Private => "private",
                    MacvlanMode::Vepa => "vepa",
                    MacvlanMode::Passthru => "passthru",
                    MacvlanMode::Source => "source",
                };
                write!(f, "macvlan mode {mode}")?;
                broadcast_cutoff.iter().try_for_each(|cutoff| write!(f, " bclim {cutoff}"))
            }
            Self::Ipvlan(mode) => f.write_str(match mode {
                IpvlanMode::L2 => "ipvlan mode l2",
                IpvlanMode::L3 => "ipvlan mode l3",
                IpvlanMode::L3s => "ipvlan mode l3s",
            }),
        }
    }
}

fn print_route(route: &NewRoute, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(match route.kind {
        RouteKind::Unicast => " ",
        RouteKind::Blackhole => " blackhole ",
        RouteKind::Unreachable => " unreachable ",
        RouteKind::Prohibit => " prohibit ",
    })?;
    write!(f, "{}", route.destination)?;
    route.gateway.iter().try_for_each(|gateway| write!(f, " via {gateway}"))?;
    write!(f, " metric {}", route.priority)
}

/// A whole plan, a line for each step.
#[must_use]
pub fn text(plan: &[Op]) -> String {
    plan.iter().map(|op| format!("{op}\n")).collect()
}
