//! The host's network, which the guest is to look like, for as long as the guest is served.
//!
//! [`HostNetwork::open`] comes first of all, in the host's network namespace, and its template is what everything else
//! is configured by. Its sockets stay where they were opened. What the kernel tells of changes is gathered, then the
//! template is chosen anew by the same wishes, and what is different becomes a [`Change`]: steps for the guest's
//! interface, addresses that the host has lost. Whoever serves the guest carries them out
//! ([`Session::follow_host_network`](crate::serve::Session::follow_host_network)).

use slipway_host::clock;
use slipway_host::driver::Driver;
use slipway_host::netlink::{Error, Monitor, Netlink};
use slipway_host::resolv_conf::ResolvConf;
use slipway_host::template::{self, ChooseError, Following, Gather, Op, Snapshot, Template, Wishes};
use slipway_netstack::Instant;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

/// Why there is nothing to look like.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel does not tell.
    #[error(transparent)]
    Netlink(#[from] Error),
    /// The command line names an interface that cannot be used.
    #[error(transparent)]
    Choose(#[from] ChooseError),
}

/// The host's network, and what the guest has of it.
#[derive(Debug)]
pub struct HostNetwork {
    netlink: Netlink,
    monitor: Monitor,
    gather: Gather,
    following: Following,
    wishes: Wishes,
    addresses: BTreeSet<IpAddr>,
}

/// What has become different.
#[derive(Debug, Default)]
pub struct Change {
    /// Steps for the guest's interface, in its namespace; for a guest that configures itself they are for nobody.
    pub steps: Vec<Op>,
    /// Addresses that the host has no longer.
    pub lost: BTreeSet<IpAddr>,
    /// Whether the guest has other addresses or another gateway than before, or is like another interface.
    pub readdressed: bool,
}

impl Change {
    fn is_nothing(&self) -> bool {
        self.steps.is_empty() && self.lost.is_empty() && !self.readdressed
    }
}

impl HostNetwork {
    /// Looks at the network of the calling thread, and begins to watch it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(wishes: Wishes) -> Result<Self, OpenError> {
        // It listens before anybody looks: no change falls between.
        let monitor = Monitor::open()?;
        let mut netlink = Netlink::open()?;
        let snapshot = Snapshot::take(&mut netlink)?;
        let template = Template::choose(&snapshot, &wishes)?;
        if template.left_out() > 0 {
            log::warn!("the host has too many addresses and routes: {} are left out", template.left_out());
        }
        let following = Following::new(template);
        let addresses = snapshot.all_addresses();
        Ok(Self { netlink, monitor, gather: Gather::default(), following, wishes, addresses })
    }

    /// What the guest has.
    #[must_use]
    pub const fn following(&self) -> &Following {
        &self.following
    }

    /// Readable when the network has changed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }

    /// Something has changed; what it was is looked at later.
    pub(crate) fn on_ready(&mut self, now: Instant) {
        match self.monitor.changes() {
            Ok(changes) if !changes.any() => {}
            Ok(_) => self.gather.note(now),
            Err(error) => {
                log::warn!("{error}");
                self.gather.note(now);
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.gather.due(), self.following.next()].into_iter().flatten().min()
    }

    /// What is to be done by now, if anything; `speaks` tells whether anybody does from an address.
    pub(crate) fn on_deadline(&mut self, now: Instant, speaks: impl Fn(IpAddr) -> bool) -> Option<Change> {
        let mut change = Change::default();
        if self.gather.take(now) {
            let begun = clock::now();
            change = self.look(now);
            self.gather.looked(begun, clock::now());
        }
        let retired = self.following.retire(now, speaks);
        change.readdressed |= !retired.is_empty();
        change.steps.extend(retired);
        (!change.is_nothing()).then_some(change)
    }

    fn look(&mut self, now: Instant) -> Change {
        let snapshot = match Snapshot::take(&mut self.netlink) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                log::warn!("the guest keeps what it has: {error}");
                return Change::default();
            }
        };
        let addresses = snapshot.all_addresses();
        let lost = self.addresses.difference(&addresses).copied().collect();
        self.addresses = addresses;
        let fresh = match Template::choose(&snapshot, &self.wishes) {
            Ok(fresh) => fresh,
            // An interface that is named has gone, and may come back.
            Err(error) => {
                log::debug!("the guest keeps what it has: {error}");
                return Change { lost, ..Change::default() };
            }
        };
        let before = (self.following.visible(), links(self.following.template()));
        let steps = self.following.turn_to(now, fresh);
        let after = (self.following.visible(), links(self.following.template()));
        Change { steps, lost, readdressed: after != before }
    }
}

/// The numbers of the interfaces that the guest's is like.
fn links(template: &Template) -> [Option<u32>; 2] {
    [&template.v4, &template.v6].map(|side| Some(side.as_ref()?.interface.as_ref()?.index))
}

/// Tells the driver of other addresses, gateways and resolvers.
type Readdress = dyn FnMut(&Following, &ResolvConf, &mut Driver);

/// A guest that is kept like the host.
pub(crate) struct Follower {
    network: HostNetwork,
    /// Whether its interface is ours to configure.
    is_configured: bool,
    /// What the host's resolv.conf said last.
    resolver: ResolvConf,
    readdress: Box<Readdress>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Follower {
    pub(crate) fn new(
        network: HostNetwork,
        resolver: ResolvConf,
        is_configured: bool,
        readdress: impl FnMut(&Following, &ResolvConf, &mut Driver) + 'static,
    ) -> Self {
        Self { network, is_configured, resolver, readdress: Box::new(readdress) }
    }

    /// The host's resolv.conf says this now.
    pub(crate) fn resolve(&mut self, fresh: &ResolvConf, driver: &mut Driver) {
        if *fresh != self.resolver {
            self.resolver = fresh.clone();
            (self.readdress)(self.network.following(), &self.resolver, driver);
        }
    }

    pub(crate) fn network(&mut self) -> &mut HostNetwork {
        &mut self.network
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.network.next_deadline()
    }

    pub(crate) fn on_deadline(&mut self, now: Instant, driver: &mut Driver) {
        let Some(change) = self.network.on_deadline(now, |guest| driver.has_flow_of(guest)) else { return };
        let ended = driver.lose(&change.lost);
        if ended > 0 {
            log::info!("the host has lost {:?}, and {ended} connections with them", change.lost);
        }
        if change.readdressed {
            (self.readdress)(self.network.following(), &self.resolver, driver);
        }
        if self.is_configured && !change.steps.is_empty() {
            self.configure(change.steps, driver);
        }
    }

    /// Nobody waits for it: it may be ten thousand routes.
    fn configure(&self, steps: Vec<Op>, driver: &Driver) {
        let name = self.network.following().template().ifname().to_owned();
        let work = move || {
            let done = Netlink::open().and_then(|mut netlink| template::apply(&mut netlink, &name, &steps));
            if let Err(error) = done {
                log::warn!("the guest does not follow the host: {error}");
            }
        };
        let posted = driver.inside().map(|inside| inside.post(work));
        if !matches!(posted, Some(Ok(()))) {
            log::warn!("the guest does not follow the host: nobody is inside");
        }
    }
}

#[cfg(test)]
mod tests;
