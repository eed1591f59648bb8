//! Where the guest is: which of its addresses connections get that say no more than that they are for the guest.
//!
//! Mostly that is configured. Where it is not, the guest tells: by the addresses that it claims for itself (ARP,
//! neighbour discovery, DHCP), and, as long as it has claimed none, by the sources of its packets. A claim counts more,
//! for what passes through a guest (containers behind it, tunnels) makes packets of other sources, but no claims. An
//! address that was assigned to the guest and that it claims is never displaced. How far a plan permits any of this is
//! in its [`Learn`].
//!
//! On a link that is the guest's alone, the same claims say for which addresses no answer may be given when it asks
//! whether somebody else has them: a virtual machine with a bridge of its own has several stations. A few are kept for
//! each family; whoever claims more has the oldest answered for.

use crate::ip::plan::{Address, Family, Learn, Plan};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ipnet::Ipv6Net;
use std::collections::VecDeque;

/// Claimed addresses that are remembered for each family.
const CLAIMS: usize = 32;

/// What an address is known by, the least reliable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// It would follow from another one.
    Guess,
    /// A packet came from it.
    Traffic,
    /// The guest said so.
    Claim,
    /// It was assigned, and the guest said so.
    Assigned,
}

#[derive(Debug)]
struct Known<A> {
    at: Option<(A, By)>,
    /// What the guest has claimed, the newest last.
    claims: VecDeque<A>,
}

impl<A> Default for Known<A> {
    fn default() -> Self {
        Self { at: None, claims: VecDeque::new() }
    }
}

impl<A: Address> Known<A> {
    fn find(&mut self, addr: A, by: By) {
        let before = self.at.map(|(_, by)| by);
        if before.is_none_or(|before| before <= by && before != By::Assigned) {
            self.at = Some((addr, by));
        }
    }

    fn uses(&mut self, family: &Family<A>, addr: A) {
        let sought = match family.learn {
            Learn::Pinned => false,
            Learn::Claims => self.at.is_none_or(|(at, by)| by < By::Claim && at != addr),
            Learn::Traffic => family.guests.is_empty(),
        };
        if sought && family.is_on_link(addr) && !family.defends(addr) {
            self.find(addr, By::Traffic);
        }
    }

    fn claims(&mut self, family: &Family<A>, addr: A) {
        if !family.is_on_link(addr) || family.defends(addr) {
            return;
        }
        if family.alone && self.claims.back() != Some(&addr) {
            self.claims.retain(|&known| known != addr);
            if self.claims.len() >= CLAIMS {
                self.claims.pop_front();
            }
            self.claims.push_back(addr);
        }
        match family.learn {
            Learn::Pinned => {}
            Learn::Claims if family.guests.contains(&addr) => self.find(addr, By::Assigned),
            Learn::Claims => self.find(addr, By::Claim),
            Learn::Traffic => self.uses(family, addr),
        }
    }

    /// What a new plan leaves of it.
    fn readdress(&mut self, family: Option<&Family<A>>) {
        let may = |addr: &A| family.is_some_and(|family| family.is_on_link(*addr) && !family.defends(*addr));
        let assigned = |addr: &A| family.is_some_and(|family| family.guests.contains(addr));
        self.claims.retain(may);
        self.at = self.at.filter(|(addr, by)| may(addr) && (*by != By::Assigned || assigned(addr)));
    }

    fn address(&self, family: Option<&Family<A>>) -> Option<A> {
        let first = family?.guests.first().copied();
        let learnt = self.at.map(|(addr, _)| addr);
        if family?.learn == Learn::Claims { learnt.or(first) } else { first.or(learnt) }
    }
}

/// What the guest was seen to use.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    v4: Known<Ipv4Addr>,
    v6: Known<Ipv6Addr>,
    link_local: Option<Ipv6Addr>,
}

impl Guests {
    /// A packet of the guest has the source `src`.
    pub(crate) fn uses(&mut self, plan: &Plan, src: IpAddr) {
        match (src, &plan.v4, &plan.v6) {
            (IpAddr::V4(src), Some(v4), _) if !src.is_unspecified() => self.v4.uses(v4, src),
            (IpAddr::V6(src), _, Some(v6)) if src.is_unicast_link_local() => {
                self.uses_link_local(plan, v6, src);
            }
            (IpAddr::V6(src), _, Some(v6)) if !src.is_unspecified() => self.v6.uses(v6, src),
            _ => {}
        }
    }

    /// A guest that only serves is silent but for neighbour discovery, and without duplicate address detection it
    /// speaks from its link-local address alone. With an interface identifier made from the MAC address (RFC 4291
    /// §2.5.1) both end alike, so until it says better that end is believed.
    fn uses_link_local(&mut self, plan: &Plan, v6: &Family<Ipv6Addr>, src: Ipv6Addr) {
        if v6.ours.contains(&src) {
            return;
        }
        self.link_local = Some(src);
        if v6.learn == Learn::Traffic && v6.guests.is_empty() && plan.advertise {
            self.v6.find(with_interface_of(v6.network, src), By::Guess);
        }
    }

    /// The guest says that it has `addr`, or is about to.
    pub(crate) fn claims(&mut self, plan: &Plan, addr: IpAddr) {
        match (addr, &plan.v4, &plan.v6) {
            (IpAddr::V4(addr), Some(v4), _) => self.v4.claims(v4, addr),
            (IpAddr::V6(addr), _, Some(v6)) if addr.is_unicast_link_local() => {
                self.uses_link_local(plan, v6, addr);
            }
            (IpAddr::V6(addr), _, Some(v6)) => self.v6.claims(v6, addr),
            _ => {}
        }
    }

    /// Whether the guest has claimed `addr`.
    pub(crate) fn has_claimed(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(addr) => self.v4.claims.contains(&addr),
            IpAddr::V6(addr) => self.link_local == Some(addr) || self.v6.claims.contains(&addr),
        }
    }

    /// The plan is another one from now on.
    pub(crate) fn readdress(&mut self, plan: &Plan) {
        self.v4.readdress(plan.v4.as_ref());
        self.v6.readdress(plan.v6.as_ref());
        self.link_local = self.link_local.filter(|_| plan.v6.is_some());
    }

    /// Where the guest is, as far as that is known.
    pub(crate) fn address(&self, plan: &Plan, ipv6: bool) -> Option<IpAddr> {
        if ipv6 {
            self.v6.address(plan.v6.as_ref()).map(IpAddr::V6)
        } else {
            self.v4.address(plan.v4.as_ref()).map(IpAddr::V4)
        }
    }

    /// Where the guest is for a peer that has `from` on the host's side. Whoever is seen at a link-local address gets
    /// to the guest's, for no other could answer it.
    pub(crate) fn address_toward(&self, plan: &Plan, from: IpAddr) -> Option<IpAddr> {
        let link_local = || self.link_local.map(IpAddr::V6);
        if from.is_ipv4() {
            return self.address(plan, false);
        }
        let usual = self.address(plan, true).or_else(link_local)?;
        match plan.inbound(from, usual) {
            Some(IpAddr::V6(seen)) if seen.is_unicast_link_local() => link_local().or(Some(usual)),
            _ => Some(usual),
        }
    }
}

/// The address in `network` that ends as `ip` does.
fn with_interface_of(network: Ipv6Net, ip: Ipv6Addr) -> Ipv6Addr {
    let host = ip.to_bits() & network.hostmask().to_bits();
    Ipv6Addr::from_bits(network.network().to_bits() | host)
}
