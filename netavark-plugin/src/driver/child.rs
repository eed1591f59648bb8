//! What the macvlan and ipvlan drivers have in common: everything but the modes.
//!
//! No names are served on such a network, and no ports published: the container is a machine of the host's own network.

use super::options::{Common, status};
use super::{Outcome, Request, lease};
use crate::announce;
use crate::apply::{self, Links, Undo};
use crate::error::{Context, Error, Errors, Result};
use crate::namespaces::Places;
use crate::plan::child::Child as Plan;
use crate::plan::{ChildKind, On, Op};
use crate::spec::{Compat, Ipam, IpamKind};
use slipway_host::netlink::{Interface, MAIN_TABLE};

/// A container on a network of the host.
#[derive(Debug)]
pub struct Child<'a> {
    request: Request<'a>,
    kind: fn(&Request<'_>) -> Result<ChildKind>,
    wanted: Option<Plan<'a>>,
    undo: Option<Undo>,
    links: Links,
}

impl<'a> Child<'a> {
    /// Takes the request; `kind` reads the driver's own options.
    pub(super) fn new(request: Request<'a>, kind: fn(&Request<'_>) -> Result<ChildKind>) -> Self {
        Self { request, kind, wanted: None, undo: None, links: Links::default() }
    }

    /// Checks the request. Nothing is touched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&mut self) -> Result<()> {
        self.wanted = Some(self.parse()?);
        Ok(())
    }

    fn parse(&self) -> Result<Plan<'a>> {
        let Request { network, options, compat, .. } = self.request;
        // Behind the routes of a bridge network, so that those of both can be there.
        let metric = if compat == Compat::Two { 99 } else { 100 };
        let Common { inside, mac, mtu, metric, default_route } = Common::of(&self.request, metric)?;
        Ok(Plan {
            kind: (self.kind)(&self.request)?,
            inside,
            mtu,
            mac,
            metric,
            default_route: default_route && !network.internal,
            ipam: Ipam::of(network, options, compat)?,
        })
    }

    fn wanted(&mut self) -> Result<Plan<'a>> {
        if self.wanted.is_none() {
            self.validate()?;
        }
        self.wanted.clone().ok_or_else(|| Error::msg("internal: not validated"))
    }

    /// What [`Self::setup`] would do now. Nothing is touched.
    ///
    /// # Errors
    /// What is wrong with the request, or could not be looked at.
    pub fn plan(&mut self, places: &mut Places) -> Result<Vec<Op>> {
        let plan = self.wanted()?;
        Ok(plan.setup(parent(&self.request, places)?.index))
    }

    /// Connects the container. After an error nothing of it remains.
    ///
    /// # Errors
    /// What could not be done.
    pub fn setup(&mut self, places: &mut Places) -> Result<Outcome> {
        let plan = self.wanted()?;
        let parent = parent(&self.request, places)?;
        let mut links = Links::default();
        let mut undo = apply::setup(&plan.setup(parent.index), places, &mut links)?;
        let inside = links.inside.as_ref().ok_or_else(|| Error::msg("internal: no interface"))?;
        let mut outcome = Outcome { status: status(inside, &plan.ipam.addresses), dns: None };
        if plan.ipam.kind == IpamKind::Dhcp {
            match lease::obtain(&self.request, &parent.name, inside, places) {
                Ok(status) => outcome.status = status,
                Err(error) => {
                    if let Err(error) = undo.run(places) {
                        log::error!("failed to cleanup after setup failed: {error}");
                    }
                    return Err(error);
                }
            }
        }
        self.undo = Some(undo);
        self.links = links;
        Ok(outcome)
    }

    /// Tells the neighbours of a container that [`Self::setup`] has connected where its addresses are now.
    pub fn announce(&self, places: &mut Places) {
        if self.undo.is_some() {
            announce::connected(places, &self.links, false);
        }
    }

    /// Undoes a setup that succeeded.
    ///
    /// # Errors
    /// All that could not be undone.
    pub fn rollback(&mut self, places: &mut Places) -> Result<()> {
        let mut errors = Errors::new();
        if self.wanted()?.ipam.kind == IpamKind::Dhcp {
            let parent = parent(&self.request, places);
            errors.note(parent.and_then(|parent| lease::release(&self.request, &parent.name, places)));
        }
        if let Some(mut undo) = self.undo.take() {
            errors.note(undo.run(places));
        }
        errors.finish()
    }

    /// Disconnects the container; the interface goes by [`Places::delete_leaving`]. With its namespace it is gone
    /// already.
    ///
    /// # Errors
    /// All that could not be done.
    pub fn teardown(&mut self, places: &mut Places) -> Result<()> {
        let Some(container) = &mut places.container else { return Ok(()) };
        let name = self.request.options.interface_name.as_str();
        let mut errors = Errors::new();
        let found = container.netlink.interface(name);
        let inside =
            errors.note(found.with_context(|| format!("failed to delete container interface {name}")));
        let mut links = Links { inside, ..Links::default() };
        let plan = match self.wanted() {
            Ok(plan) => plan,
            Err(error) => {
                errors.push(error);
                if links.inside.is_some() {
                    let delete = [Op::Delete(vec![On::Inside])];
                    apply::teardown(&delete, places, &mut links, &mut errors);
                }
                return errors.finish();
            }
        };
        if plan.ipam.kind == IpamKind::Dhcp {
            let parent = parent(&self.request, places);
            errors.note(parent.and_then(|parent| lease::release(&self.request, &parent.name, places)));
        }
        if links.inside.is_some() {
            apply::teardown(&plan.teardown(), places, &mut links, &mut errors);
        }
        errors.finish()
    }
}

/// The interface that the network names, or the one that leads out; IPv4 comes before IPv6.
fn parent(request: &Request<'_>, places: &mut Places) -> Result<Interface> {
    let netlink = &mut places.host.netlink;
    if let Some(name) = request.network.network_interface.as_deref().filter(|name| !name.is_empty()) {
        return netlink.interface(name).with_context(|| format!("get parent interface {name}"));
    }
    for ipv6 in [false, true] {
        let ways = netlink.ways_out(MAIN_TABLE, ipv6).context("dump routes")?;
        if let Some(way) = ways.into_iter().next() {
            return Ok(way.interface);
        }
    }
    Err(Error::msg("failed to get default route interface"))
}
