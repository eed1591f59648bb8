//! IPv6 of one interface: finds what there is, then keeps what a server granted for as long as the container lives.
//!
//! What the interface makes itself of routers' prefixes is the kernel's business, for ever. It is waited for, so that
//! the caller can be told, and then left alone.

use super::autoconf::{Autoconf, Event};
use super::client::Grant;
use super::container::Sight;
use super::frame;
use super::lease::Found;
use super::message::{Identity, Leased};
use crate::Result;
use crate::dhcp::drive::Drive;
use crate::dhcp::keeping::{PAUSE, Stop};
use crate::dhcp::target::Target;
use crate::dhcp::timer;
use ipnet::Ipv6Net;
use slipway_host::random;
use slipway_netstack::Instant;
use slipway_netstack::addr::MacAddr;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the interface is looked at while something is waited for: entering the namespace takes a tenth of a
/// millisecond.
const GLANCE: Duration = Duration::from_millis(20);
/// How long the kernel of the container may take to act on what a router says. It does so as it hears it, unless it was
/// told not to.
const MAKING: Duration = Duration::from_secs(1);
/// After so long without that the router is asked again: a bridge's port that has just come up may not have let the
/// first answer through to the container, which this program has heard on the bridge itself.
const UNHEARD: Duration = Duration::from_millis(250);
/// How long the kernel may take to find out that somebody else has a new address (RFC 4862 §5.4: two seconds at most).
const DUPLICATES: Duration = Duration::from_secs(3);
/// How often it is looked whether the container is still there. Leases are renewed rarely, and some never.
const PATROL: Duration = Duration::from_secs(60);
/// So many addresses of servers an interface has at most, whatever they grant: twice what is taken of one answer.
const MOST: usize = 16;

#[derive(Debug)]
pub(in crate::dhcp) struct Keeper {
    mac: MacAddr,
    target: Target,
    drive: Drive<Autoconf>,
    /// What the interface has of servers.
    given: Vec<Given>,
    /// Whether somebody else may still turn out to have some of it.
    fresh: bool,
}

/// An address that the interface was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    net: Ipv6Net,
    /// When the kernel takes it away again; `None`: never.
    ends: Option<Instant>,
}

impl Given {
    /// Whether its time is not over: not before the kernel thinks so, which was told after `ends` was reckoned.
    fn lasts(&self, now: Instant) -> bool {
        self.ends.is_none_or(|end| now < end)
    }
}

/// Whether an interface lacks an address that it should still have.
fn lacks(given: &[Given], has: &[Ipv6Net], now: Instant) -> bool {
    let there = |it: &Given| has.iter().any(|net| net.addr() == it.net.addr());
    given.iter().any(|it| it.lasts(now) && !there(it))
}

/// Brings `given` up to the `addresses` that were granted. Says what is to be taken away: what is not mentioned and
/// `gone`, and the oldest of what is too much.
fn follow(
    given: &mut Vec<Given>,
    addresses: &[(Ipv6Net, Leased)],
    gone: impl Fn(&Given) -> bool,
    now: Instant,
) -> Vec<Ipv6Net> {
    given.retain(|it| it.lasts(now));
    for (net, leased) in addresses {
        let ends = (leased.valid != u32::MAX).then(|| now + Duration::from_secs(leased.valid.into()));
        match given.iter_mut().find(|it| it.net.addr() == net.addr()) {
            Some(it) => it.ends = ends,
            None => given.push(Given { net: *net, ends }),
        }
    }
    let mut too_many = given.len().saturating_sub(MOST);
    let goes = given.extract_if(.., |it| {
        let mentioned = addresses.iter().any(|(net, _)| net.addr() == it.net.addr());
        let goes = !mentioned && (gone(it) || too_many > 0);
        too_many = too_many.saturating_sub(goes.into());
        goes
    });
    goes.map(|it| it.net).collect()
}

impl Keeper {
    /// Knows nothing yet.
    pub(in crate::dhcp) fn new(interface: String, target: Target, identity: Identity) -> Result<Self> {
        let mac = identity.mac;
        let machine = Autoconf::new(identity, random::bytes()?, timer::now()?);
        let drive = Drive::new(interface, frame::filter(mac), machine)?;
        Ok(Self { mac, target, drive, given: Vec::new(), fresh: false })
    }

    /// Finds out what there is and configures the interface with it; what has not come by the end of `patience` is not
    /// waited for. May be dropped at any moment.
    pub(in crate::dhcp) async fn acquire(&mut self, patience: Duration) -> Result<Found> {
        let mut over = std::pin::pin!(tokio::time::sleep(patience));
        let mut settled_at = None;
        let mut asked_at = timer::now()?;
        loop {
            let sight = self.target.look()?;
            let now = timer::now()?;
            if let (false, Some(own)) = (self.drive.machine.has_own(), sight.own) {
                self.drive.machine.set_own(now, own);
            }
            if self.drive.machine.settled() {
                let since = *settled_at.get_or_insert(now);
                if self.has_made(&sight) || now.since(since) >= MAKING {
                    return Ok(self.found(&sight));
                }
                if now.since(asked_at.max(since)) >= UNHEARD {
                    asked_at = now;
                    self.drive.machine.ask_again(now);
                }
            } else {
                settled_at = None;
            }
            tokio::select! {
                () = &mut over => return Ok(self.found(&sight)),
                event = self.drive.next() => match event? {
                    Event::Bound(grant) => self.give(&grant, false)?,
                    Event::Lost(_) | Event::Heard => {}
                },
                () = tokio::time::sleep(GLANCE) => {}
            }
        }
    }

    /// Whether the kernel has heard the router, and the interface an address of each prefix that it should make one of.
    fn has_made(&self, sight: &Sight) -> bool {
        let made = |prefix: Ipv6Net| sight.addresses.iter().any(|net| prefix.contains(&net.addr()));
        self.drive.machine.advert().is_none_or(|advert| {
            advert.router.is_none_or(|router| sight.routers.contains(&router))
                && advert.autonomous().all(made)
        })
    }

    fn found(&self, sight: &Sight) -> Found {
        let machine = &self.drive.machine;
        let mut own = sight.addresses.clone();
        own.retain(|net| {
            let made =
                machine.advert().is_some_and(|it| it.autonomous().any(|prefix| prefix.contains(&net.addr())));
            made && self.given.iter().all(|given| given.net.addr() != net.addr())
        });
        Found {
            advert: machine.advert().cloned(),
            grant: machine.grant().cloned(),
            known: machine.known().cloned(),
            own,
        }
    }

    /// Keeps what was granted until it is told to stop, or the container is gone. Says whether the container is gone.
    pub(in crate::dhcp) async fn keep(mut self, mut stop: oneshot::Receiver<Stop>) -> bool {
        let mut lost = false;
        loop {
            let patrol = if self.fresh { DUPLICATES } else { PATROL };
            let event = tokio::select! {
                // Without a sender the proxy ends; the containers live on with their addresses.
                reason = &mut stop => {
                    if reason == Ok(Stop::Release) {
                        self.release();
                    }
                    return false;
                }
                event = self.drive.next() => Some(event),
                () = tokio::time::sleep(patrol) => None,
            };
            if !self.target.exists() {
                log::info!("the container of {} is gone: its IPv6 lease ends", self.mac);
                self.release();
                return true;
            }
            let done = match event {
                None => self.look_for_duplicates(),
                Some(Ok(Event::Bound(grant))) => self.give(&grant, std::mem::take(&mut lost)),
                Some(Ok(Event::Lost(why))) => {
                    log::warn!("the IPv6 lease of {} has ended: {why:?}", self.mac);
                    lost = true;
                    Ok(())
                }
                Some(Ok(Event::Heard)) => Ok(()),
                Some(Err(error)) => {
                    // A machine whose clock fails has worse problems; this only must not spin.
                    tokio::time::sleep(PAUSE).await;
                    Err(error)
                }
            };
            if let Err(error) = done {
                log::warn!("cannot keep the IPv6 lease of {}: {error}", self.mac);
            }
        }
    }

    /// Takes back what the interface was given, and gives it back to the server.
    pub(in crate::dhcp) fn abandon(&mut self) {
        let given: Vec<_> = self.given.drain(..).map(|given| given.net).collect();
        if !given.is_empty()
            && let Err(error) = self.target.take(&given)
        {
            log::debug!("cannot take the addresses of {} back: {error}", self.mac);
        }
        self.release();
    }

    /// Gives the addresses back, if that can be said: nobody waits for an answer.
    pub(in crate::dhcp) fn release(&mut self) {
        let Some(frame) = self.drive.machine.release() else { return };
        if let Err(error) = self.drive.tell(&frame) {
            log::warn!("the server is not told that the IPv6 lease of {} has ended: {error}", self.mac);
        }
    }

    /// Has the interface follow what a server granted; `others`: whether what it granted before has ended.
    fn give(&mut self, grant: &Grant, others: bool) -> Result<()> {
        let advert = self.drive.machine.advert().cloned().unwrap_or_default();
        let addresses: Vec<_> =
            grant.addresses.iter().map(|leased| (advert.with_prefix(leased.address), *leased)).collect();
        let now = timer::now()?;
        let mut before = self.given.clone();
        before.retain(|given| given.lasts(now));
        let gone = |given: &Given| others || grant.withdrawn.contains(&given.net.addr());
        let goes = follow(&mut self.given, &addresses, gone, now);
        for (net, leased) in &addresses {
            if before.iter().all(|given| given.net.addr() != net.addr()) {
                log::info!("{} has {net} for {} s", self.mac, leased.valid);
                self.fresh = true;
            }
        }
        self.target.give(&addresses)?;
        self.target.take(&goes)
    }

    /// The kernel takes an address away, or marks it, that somebody else turned out to have (RFC 4862 §5.4.5). The
    /// server is told (RFC 8415 §18.2.8).
    fn look_for_duplicates(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.fresh) {
            return Ok(());
        }
        let sight = self.target.look()?;
        if !lacks(&self.given, &sight.addresses, timer::now()?) {
            return Ok(());
        }
        log::warn!(
            "somebody else has an address that a server granted to {}: another one is asked for",
            self.mac
        );
        let given: Vec<_> = std::mem::take(&mut self.given).into_iter().map(|given| given.net).collect();
        if let Some(frame) = self.drive.machine.decline(timer::now()?) {
            self.drive.tell(&frame)?;
        }
        self.target.take(&given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_whose_time_is_over_is_nobody_elses() {
        let second = |at: u64| Instant::ZERO + Duration::from_secs(at);
        let given = |net: &str, ends| Given { net: net.parse().unwrap(), ends };
        let list = [given("fd00::1/128", Some(second(2))), given("fd00::2/128", None)];
        let has = ["fd00::2/64".parse().unwrap()];
        assert!(lacks(&list, &has, second(1)));
        assert!(!lacks(&list, &has, second(3)), "the kernel took it away");
        assert!(lacks(&list, &[], second(3)));
    }

    #[test]
    fn a_server_fills_no_interface() {
        let granted = |round: u16| -> Vec<_> {
            let address = |it| Ipv6Net::from(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, round, it));
            let leased = |net: Ipv6Net| Leased { address: net.addr(), preferred: u32::MAX, valid: u32::MAX };
            (0..8).map(address).map(|net| (net, leased(net))).collect()
        };
        let (mut given, mut on) = (Vec::new(), Vec::new());
        for round in 0..100 {
            let addresses = [&granted(round)[..], &granted(0)[..1]].concat();
            let goes = follow(&mut given, &addresses, |_| false, Instant::ZERO);
            assert!(goes.iter().all(|net| addresses.iter().all(|(new, _)| new != net)), "{goes:?}");
            on.extend(addresses.iter().map(|(net, _)| *net));
            on.retain(|net| !goes.contains(net));
            on.sort();
            on.dedup();
            assert!(on.len() <= MOST && on.len() == given.len(), "{round}: {on:?}");
        }
        // What has ended goes, however little there is.
        assert_eq!(follow(&mut given, &granted(200), |_| true, Instant::ZERO).len(), MOST);
        assert_eq!(given.len(), 8);
    }
}
