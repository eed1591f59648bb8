//! A network whose way out is elsewhere: a bridge that is nothing but a switch, a TAP as one of its ports, which a
//! program in another namespace serves (the gateway is behind it), and for each container a pair of interfaces.
//!
//! The host takes no part in it. The bridge has no address; it answers for none of the host's (`arp_ignore`), takes in
//! nothing that is addressed to them (`rp_filter`, which without an address refuses everything), and does without
//! IPv6. Source: Linux `Documentation/networking/ip-sysctl.rst`, `net/ipv4/fib_frontend.c` (`__fib_validate_source`).

use super::container::{address_and_route, settings};
use super::{Change, Key, On, Op};
use crate::spec::Ipam;
use slipway_host::netlink::Interface;
use slipway_netstack::addr::MacAddr;

/// The beginning of a TAP's name, by which it is found among the ports of the bridge.
pub const TAP: &str = "slipup";

/// What is wanted, for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch<'a> {
    /// The bridge's name.
    pub name: &'a str,
    /// Whether the network has no way out.
    pub internal: bool,
    /// The MTU of everything.
    pub mtu: u32,
    /// The metric of default routes.
    pub metric: u32,
    /// Whether there are default routes.
    pub default_route: bool,
    /// The name of the host's end of the pair; empty: the kernel's choice.
    pub port: &'a str,
    /// The name of the container's end.
    pub inside: &'a str,
    /// The MAC address of the container's end.
    pub mac: Option<MacAddr>,
    /// Its addresses.
    pub ipam: Ipam,
}

impl Switch<'_> {
    /// Connects the container; makes the bridge if it is not there, and a TAP if `tap` says that it needs one.
    #[must_use]
    pub fn setup(&self, bridge: Option<&Interface>, tap: bool) -> Vec<Op> {
        let mut plan = Vec::new();
        if bridge.is_none() {
            plan.push(Op::MakeBridge {
                name: self.name.to_owned(),
                mtu: Some(self.mtu),
                vlan_filtering: false,
                vrf: None,
            });
            plan.push(no_ipv6(On::Bridge));
            plan.push(Op::sysctl(Key::v4(On::Bridge, "arp_ignore"), "8"));
            plan.push(Op::sysctl(Key::v4(On::Bridge, "rp_filter"), "1"));
            plan.push(Op::change(On::Bridge, Change::Up));
        }
        if tap {
            plan.push(Op::MakeTap { name: format!("{TAP}%d"), mtu: self.mtu });
            plan.push(no_ipv6(On::Tap));
            plan.push(Op::change(On::Tap, Change::Up));
        }
        let (port, inside) = (self.port.to_owned(), self.inside.to_owned());
        plan.push(Op::MakePair { port, inside, mtu: Some(self.mtu), mac: self.mac });
        plan.extend(settings(self.ipam.ipv6));
        plan.push(no_ipv6(On::Port));
        plan.push(Op::change(On::Port, Change::Up));
        plan.extend(address_and_route(&self.ipam, self.metric, self.default_route && !self.internal));
        plan
    }
}

/// The interface gets no address of its own, not even one of the link. A kernel without IPv6 has no such setting.
fn no_ipv6(on: On) -> Op {
    Op::optional(Key::v6(on, "disable_ipv6"), "1")
}
