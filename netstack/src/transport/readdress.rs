//! The link gets other addresses while it is in use: the host's have changed, and the guest's are the host's; or
//! whoever runs the network has thought of better ones.
//!
//! A flow goes on if under the new plan it could have come about as it is: its guest still has that address, and the
//! peer's address still means the same. It then notices nothing. All others end at once, before the plan is exchanged,
//! and both ends are told: what is left of them would be carried to somebody else. Connections whose guest is gone
//! ([`super::parting`]) have no address any more, and take their last bytes to the host undisturbed.
//!
//! What is known of neighbours stays, but for addresses that nobody can have any more or that are ours now. The servers
//! within begin anew if it is their family that has changed, and routers' advertisements say so at once.

use crate::clock::Instant;
use crate::config::Outbound;
use crate::engine::{Body, Engine, Entry};
use crate::flow::FlowId;
use crate::ip::plan::Plan;
use crate::transport::table::{Key, Kind};
use crate::upstream::Upstream;
use core::net::IpAddr;

/// Which side a flow was begun from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    ByGuest,
    ByHost,
}

impl Engine {
    /// From now on the link has the addresses of `plan`. Flows that could not be as they are under it are reset, or
    /// just end if they have no connection; the others lose nothing.
    pub fn readdress<U: Upstream>(&mut self, now: Instant, plan: Plan, up: &mut U) {
        self.flush_udp_batch(now, up);
        let old = &self.config.plan;
        let ended = self.flows.iter().filter_map(|(id, key, entry)| {
            let begun = match &entry.body {
                Body::Tcp(tcp) if tcp.is_orphan() => return None,
                Body::Tcp(tcp) if tcp.is_outbound() => Begun::ByGuest,
                Body::Udp(_) if key.kind == Kind::UdpPair => Begun::ByHost,
                Body::Udp(_) | Body::Echo(_) => Begun::ByGuest,
                Body::Tcp(_) => Begun::ByHost,
            };
            (!survives(old, &plan, key, begun)).then_some(id)
        });
        for id in ended.collect::<Vec<FlowId>>() {
            self.break_off(now, id, up);
        }
        let old = core::mem::replace(&mut self.config.plan, plan);
        self.forget_leads();
        self.settle_in(now, &old);
    }

    /// From now on the guest is told these search domains: when it asks, and by an advertisement to all at once, which
    /// also withdraws those that are none any more.
    pub fn set_dns_search(&mut self, now: Instant, search: Vec<String>) {
        if self.config.dns_search != search {
            let before = core::mem::replace(&mut self.config.dns_search, search);
            self.within.retell(now, &self.config, &before);
        }
    }

    /// From now on sockets that are opened for the guest speak from there. Those that are open stay as they are.
    pub fn set_outbound(&mut self, outbound: Outbound) {
        self.config.outbound = outbound;
    }

    /// What the guest's datagrams meant may be something else by now.
    fn forget_leads(&mut self) {
        for id in self.flows.iter().map(|(id, ..)| id).collect::<Vec<_>>() {
            if let Some((_, Entry { body: Body::Udp(udp), .. })) = self.flows.get_mut(id) {
                udp.forget_lead();
            }
        }
    }

    /// What the stages know of the addresses is made to fit the plan, which has just replaced `old`.
    fn settle_in(&mut self, now: Instant, old: &Plan) {
        let plan = &self.config.plan;
        self.neighbours.retain(|ip| (plan.is_on_link(ip) || !old.is_on_link(ip)) && !answers_for(plan, ip));
        self.icmp_errors.readdress(plan);
        self.guests.readdress(plan);
        self.within.readdress(now, &self.config, old);
        self.seek_station();
    }
}

fn answers_for(plan: &Plan, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => plan.v4.as_ref().is_some_and(|v4| v4.answers_for(ip)),
        IpAddr::V6(ip) => plan.v6.as_ref().is_some_and(|v6| v6.answers_for(ip)),
    }
}

/// Whether a flow of `old` could be as it is in `new`.
fn survives(old: &Plan, new: &Plan, key: &Key, begun: Begun) -> bool {
    let (guest, peer) = (key.guest.ip(), key.peer);
    // Who lives behind a router of the guest's has an address that no plan knows, and keeps it.
    let lives = new.has(guest.is_ipv6()) && (new.is_on_link(guest) || !old.is_on_link(guest));
    if !lives || new.is_ours(guest) {
        return false;
    }
    match begun {
        // A socket that talks to anybody leads nowhere in particular.
        Begun::ByGuest if key.kind == Kind::UdpAny => true,
        Begun::ByGuest => old.outbound(peer) == new.outbound(peer),
        // A client that would look different to the guest today, or for whom somebody else could be taken.
        Begun::ByHost => {
            new.inbound(peer.ip(), guest) == Some(peer.ip())
                && new.is_ours(peer.ip()) == old.is_ours(peer.ip())
        }
    }
}
