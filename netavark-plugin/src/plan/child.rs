//! A macvlan or ipvlan network: the container gets a child of an interface of the host, and is a neighbour of the
//! machines on the host's own network. No bridge, no rules, no names.

use super::container::{address_and_route, forget_routes, listen_to_routers, ndisc_notify, no_autoconf};
use super::{ChildKind, On, Op};
use crate::spec::Ipam;
use slipway_netstack::addr::MacAddr;

/// What is wanted, for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child<'a> {
    /// What it is.
    pub kind: ChildKind,
    /// Its name.
    pub inside: &'a str,
    /// Its MTU; `None`: the parent's.
    pub mtu: Option<u32>,
    /// Its MAC address.
    pub mac: Option<MacAddr>,
    /// The metric of default routes.
    pub metric: u32,
    /// Whether there are default routes.
    pub default_route: bool,
    /// Its addresses.
    pub ipam: Ipam,
}

impl Child<'_> {
    /// Connects the container to the interface with the number `parent`.
    #[must_use]
    pub fn setup(&self, parent: u32) -> Vec<Op> {
        let make = Op::MakeChild {
            inside: self.inside.to_owned(),
            parent,
            mtu: self.mtu,
            mac: self.mac,
            kind: self.kind,
        };
        let mut plan = vec![make];
        if self.ipam.from_routers() {
            plan.extend(listen_to_routers(self.metric, self.default_route));
        } else {
            plan.push(no_autoconf());
        }
        plan.push(ndisc_notify());
        plan.extend(address_and_route(&self.ipam, self.metric, self.default_route));
        plan
    }

    /// Disconnects it.
    #[must_use]
    pub fn teardown(&self) -> Vec<Op> {
        let mut plan: Vec<Op> = forget_routes(&self.ipam).collect();
        plan.push(Op::Delete(vec![On::Inside]));
        plan
    }
}
