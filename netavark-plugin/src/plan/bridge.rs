//! A bridge network: a bridge on the host that all its containers share, and for each container a pair of interfaces,
//! one end a port of the bridge, the other inside.
//!
//! The order matters in places: settings of the bridge before it is up (no duplicate address detection, no routers);
//! the bridge's own MAC address pinned only when it has its first port, because the kernel takes the port's until
//! then, and a bridge that changes its address loses its neighbours.
//!
//! A bridge that is there is brought up to the definition. What it has besides stays, for containers that were
//! connected before the definition changed may still live on it; it goes with the bridge.

use super::container::{address_and_route, forget_routes, listen_to_routers, ndisc_notify, settings};
use super::{Change, Key, On, Op};
use crate::spec::Ipam;
use ipnet::IpNet;
use slipway_host::netlink::Interface;
use slipway_netstack::addr::MacAddr;
use std::path::{Path, PathBuf};

/// Where files with settings are kept; they are applied again when an interface appears.
const SYSCTL_DIR: &str = "/run/sysctl.d";

/// What is wanted, for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge<'a> {
    /// The bridge's name.
    pub name: &'a str,
    /// Whether it is ours to make and delete; otherwise it must be there.
    pub managed: bool,
    /// Whether the network has no way out.
    pub internal: bool,
    /// The MTU of everything; `None`: found out.
    pub mtu: Option<u32>,
    /// The VLAN the container belongs to.
    pub vlan: Option<u16>,
    /// The vrf that a new bridge belongs to.
    pub vrf: Option<&'a str>,
    /// The metric of default routes.
    pub metric: u32,
    /// Whether there are default routes.
    pub default_route: bool,
    /// Whether the container publishes ports, which it may use itself.
    pub publishes: bool,
    /// The name of the host's end of the pair; empty: the kernel's choice.
    pub port: &'a str,
    /// The name of the container's end.
    pub inside: &'a str,
    /// The MAC address of the container's end.
    pub mac: Option<MacAddr>,
    /// Its addresses.
    pub ipam: Ipam,
}

/// What was found on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The bridge.
    pub bridge: Option<Interface>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The number of the vrf that is asked for.
    pub vrf: Option<u32>,
    /// The MTU of the way out.
    pub mtu: Option<u32>,
    /// Whether files in [`SYSCTL_DIR`] are of use.
    pub sysctl_files: bool,
    /// Whether somebody keeps rules, which publish ports and close the host's loopback to the bridge.
    pub rules: bool,
}

impl Found {
    /// The MTU of a bridge that is there, or of the way out.
    fn inherited_mtu(&self) -> Option<u32> {
        self.bridge.as_ref().map_or(self.mtu, |bridge| Some(bridge.mtu))
    }
}

/// What was found when the container is to be disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leaving {
    /// Whether the container's interface is there.
    pub inside: bool,
    /// Whether its other end was found among the ports of the bridge.
    pub port: bool,
    /// Whether the bridge is there, is ours, and nobody else uses it.
    pub complete: bool,
    /// Whether the bridge is gone, so that its file is of no use.
    pub orphaned: bool,
}

/// A setting of the bridge.
struct Setting {
    key: Key,
    value: &'static str,
    /// Whether the network works without it.
    optional: bool,
}

impl Setting {
    fn needed(key: Key, value: &'static str) -> Self {
        Self { key, value, optional: false }
    }

    fn convenient(key: Key, value: &'static str) -> Self {
        Self { key, value, optional: true }
    }
}

impl From<Setting> for Op {
    fn from(Setting { key, value, optional }: Setting) -> Self {
        Self::Sysctl { key, value: value.into(), optional }
    }
}

impl Bridge<'_> {
    /// Connects the container, and makes the bridge if it is not there.
    #[must_use]
    pub fn setup(&self, found: &Found) -> Vec<Op> {
        let mut plan = Vec::new();
        let new = found.bridge.is_none();
        match &found.bridge {
            None => self.make_bridge(found, &mut plan),
            Some(bridge) => self.complete_bridge(bridge, found, &mut plan),
        }
        plan.push(Op::MakePair {
            port: self.port.to_owned(),
            inside: self.inside.to_owned(),
            mtu: self.mtu.or_else(|| found.inherited_mtu()),
            mac: self.mac,
        });
        plan.extend(self.vlan.map(|vlan| Op::change(On::Port, Change::Vlan(vlan))));
        if self.publishes {
            // Where bridges hand their frames to the firewall (br_netfilter), what the container sends to its own
            // published port has its own address before the bridge looks where that is: behind the port it came from.
            plan.push(Op::change(On::Port, Change::Hairpin));
        }
        if self.managed {
            self.settings_of_pair(&mut plan);
        } else {
            if self.ipam.from_routers() {
                plan.extend(listen_to_routers(self.metric, self.default_route && !self.internal));
            }
            plan.push(ndisc_notify());
        }
        plan.push(Op::change(On::Port, Change::Up));
        if new {
            plan.push(Op::change(On::Bridge, Change::PinMac));
        }
        plan.extend(address_and_route(&self.ipam, self.metric, self.default_route && !self.internal));
        plan
    }

    /// Whether nothing may be routed to or from the bridge. One with VLANs may have networks that are not internal,
    /// too.
    pub fn is_closed(&self) -> bool {
        self.managed && self.internal && self.vlan.is_none()
    }

    fn make_bridge(&self, found: &Found, plan: &mut Vec<Op>) {
        let settings = self.settings_of_bridge(found.rules);
        if found.sysctl_files {
            let lines = settings.iter().map(|it| (it.key.path(self.name), it.value)).collect();
            plan.push(Op::SysctlFile { path: sysctl_file(self.name), lines });
        }
        plan.push(Op::MakeBridge {
            name: self.name.to_owned(),
            mtu: self.mtu,
            vlan_filtering: self.vlan.is_some(),
            vrf: found.vrf,
        });
        plan.extend(settings.into_iter().map(Op::from));
        plan.extend(self.ipam.gateways.iter().map(|&net| Op::Address { on: On::Bridge, net }));
        plan.push(Op::change(On::Bridge, Change::Up));
    }

    /// The network's definition may have changed since the bridge was made, and somebody may have taken it down.
    fn complete_bridge(&self, bridge: &Interface, found: &Found, plan: &mut Vec<Op>) {
        if self.vlan.is_some() && !bridge.vlan_filtering {
            plan.push(Op::change(On::Bridge, Change::VlanFiltering));
        }
        if !self.managed {
            return;
        }
        // An interface has an IPv6 address once, whatever the length of its prefix.
        let same =
            |one: &IpNet, other: &IpNet| one == other || (one.addr().is_ipv6() && one.addr() == other.addr());
        let is_missing = |net: &&IpNet| !found.addresses.iter().any(|there| same(there, net));
        let missing: Vec<_> = self.ipam.gateways.iter().filter(is_missing).collect();
        let settings = self.settings_of_bridge(found.rules).into_iter();
        plan.extend(settings.chain(self.settings_of_former_internal()).map(Op::from));
        plan.extend(missing.into_iter().map(|&net| Op::Address { on: On::Bridge, net }));
        if !bridge.up {
            plan.push(Op::change(On::Bridge, Change::Up));
        }
    }

    /// Without forwarding there is no way out, and with it an internal network has one. The rest is a convenience; only
    /// an internal IPv6 network must also be kept from telling the host of routers, which a bridge that forwards
    /// believes in no case.
    fn settings_of_bridge(&self, rules: bool) -> Vec<Setting> {
        let ipv6 = self.ipam.ipv6;
        let mut list = Vec::new();
        if self.internal {
            list.push(Setting::needed(Key::v4(On::Bridge, "forwarding"), "0"));
            if ipv6 {
                list.push(Setting::needed(Key::v6(On::Bridge, "forwarding"), "0"));
            }
        } else {
            list.push(Setting::needed(Key::Host("net/ipv4/ip_forward"), "1"));
            if ipv6 {
                list.push(Setting::needed(Key::Host("net/ipv6/conf/all/forwarding"), "1"));
            }
            // So that published ports answer at 127.0.0.1 too. Without rules there are none, and nobody would close the
            // loopback.
            if rules {
                list.push(Setting::convenient(Key::v4(On::Bridge, "route_localnet"), "1"));
            }
        }
        if ipv6 {
            // All addresses are given out here, and no router of the network is to be believed.
            list.push(Setting::convenient(Key::v6(On::Bridge, "accept_dad"), "0"));
            let accept_ra = Key::v6(On::Bridge, "accept_ra");
            list.push(Setting { key: accept_ra, value: "0", optional: !self.internal });
        }
        // A container on two networks answers by either.
        list.push(Setting::convenient(Key::v4(On::Bridge, "rp_filter"), "2"));
        list
    }

    /// A bridge that was made for an internal network does not forward even when the host does.
    fn settings_of_former_internal(&self) -> impl Iterator<Item = Setting> {
        let v4 = (!self.internal).then(|| Key::v4(On::Bridge, "forwarding"));
        let v6 = (!self.internal && self.ipam.ipv6).then(|| Key::v6(On::Bridge, "forwarding"));
        v4.into_iter().chain(v6).map(|key| Setting::needed(key, "1"))
    }

    fn settings_of_pair(&self, plan: &mut Vec<Op>) {
        plan.extend(settings(self.ipam.ipv6));
        if self.ipam.ipv6 {
            plan.push(Op::optional(Key::v6(On::Port, "accept_dad"), "0"));
        }
    }

    /// What goes before the firewall's rules do: routes that would stay.
    #[must_use]
    pub fn forget_routes(&self) -> Vec<Op> {
        forget_routes(&self.ipam).collect()
    }

    /// Disconnects the container, and deletes the bridge if it was the last one.
    #[must_use]
    pub fn teardown(&self, leaving: Leaving) -> Vec<Op> {
        let mut plan = Vec::new();
        let mut gone = Vec::new();
        if leaving.port {
            gone.push(On::Port);
        } else if leaving.inside {
            plan.push(Op::Delete(vec![On::Inside]));
        }
        if self.managed && (leaving.complete || leaving.orphaned) {
            plan.push(Op::RemoveFile(sysctl_file(self.name)));
        }
        if leaving.complete {
            gone.push(On::Bridge);
        }
        if !gone.is_empty() {
            plan.push(Op::Delete(gone));
        }
        plan
    }
}

fn sysctl_file(bridge: &str) -> PathBuf {
    Path::new(SYSCTL_DIR).join(format!("10-netavark-{bridge}.conf"))
}
