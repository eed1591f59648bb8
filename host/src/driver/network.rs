//! The network around the event loop changes: the guest's link has other addresses, or the host has lost some of its
//! own.

use super::Driver;
use crate::clock;
use slipway_netstack::config::Outbound;
use slipway_netstack::ip::plan::Plan;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Driver {
    /// From now on the guest's link has the addresses of `plan`. Flows that cannot be under it end, the others lose
    /// nothing: see [`Engine::readdress`](slipway_netstack::Engine::readdress).
    pub fn readdress(&mut self, plan: Plan) {
        self.changed = true;
        self.engine.readdress(clock::now(), plan, &mut self.sockets);
    }

    /// From now on the guest is told these search domains.
    pub fn set_dns_search(&mut self, search: Vec<String>) {
        self.changed = true;
        self.engine.set_dns_search(clock::now(), search);
    }

    /// From now on sockets that are opened for the guest speak from there.
    pub fn set_outbound(&mut self, outbound: Outbound) {
        self.engine.set_outbound(outbound);
    }

    /// The host has these addresses no longer. Nothing will ever come to a socket that has one of them: its connection
    /// is reset for the guest, which would wait for minutes, and any other flow ends. Returns how many there were. Each
    /// socket is asked, so this is for changes alone.
    pub fn lose(&mut self, addresses: &BTreeSet<IpAddr>) -> usize {
        if addresses.is_empty() {
            return 0;
        }
        self.changed = true;
        let lost = self.sockets.speaking_from(addresses);
        for flow in &lost {
            self.engine.break_off(clock::now(), *flow, &mut self.sockets);
        }
        lost.len()
    }

    /// Whether any flow has this address at the guest's end.
    #[must_use]
    pub fn has_flow_of(&self, guest: IpAddr) -> bool {
        self.engine.has_flow_of(guest)
    }
}
