//! What a setup or a teardown of a bridge network would do, beyond the plan of interfaces, in words. Nothing is
//! touched.

use super::{Bridge, Wanted};
use crate::apply::Links;
use crate::dns_handover::DnsEntry;
use crate::error::{Errors, Result};
use crate::firewall::Firewall;
use crate::namespaces::Places;

impl Bridge<'_> {
    /// What [`Self::setup`] would do to the firewall's rules, one line each. Nothing is touched.
    ///
    /// # Errors
    /// What is wrong with the request, or could not be looked at.
    pub fn describe_rules(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Vec<String>> {
        let Wanted { plan, filter } = self.wanted()?;
        let mut lines = Vec::new();
        if plan.managed {
            lines = firewall.describe_enclosure(plan.name, plan.is_closed())?;
        }
        if let Some((network, ports)) = self.rules(&plan, filter, places, firewall)? {
            let bridge = places.host.netlink.interface(plan.name).ok();
            let others = self.others(bridge.as_ref(), None, places, firewall);
            lines.extend(firewall.describe_setup(&network, &ports, &others)?);
        }
        Ok(lines)
    }

    /// What [`Self::setup`] would have the DNS server told.
    ///
    /// # Errors
    /// As [`Self::describe_rules`].
    pub fn describe_names(&mut self, places: &mut Places) -> Result<Option<DnsEntry>> {
        if !self.request.network.dns_enabled {
            return Ok(None);
        }
        let Wanted { plan, .. } = self.wanted()?;
        let bridge = places.host.netlink.interface(plan.name).ok();
        let listen = self.dns_servers(&plan, bridge.as_ref(), places)?;
        Ok(Some(self.dns_entry(&plan, &listen)))
    }

    /// What [`Self::teardown`] would do, one line each. Nothing is touched, but the port counts as gone from now on:
    /// with the last of several the bridge goes, too.
    ///
    /// # Errors
    /// As [`Self::describe_rules`].
    pub fn describe_teardown(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Vec<String>> {
        let Wanted { plan, filter } = self.wanted()?;
        let mut links = Links::default();
        let leaving = self.leave(&plan, places, &mut links, &mut Errors::new());
        if let Some(port) = &links.port {
            places.host.delete_later(port);
        }
        let mut lines = Vec::new();
        if places.container.is_some() {
            lines.extend(plan.forget_routes().iter().map(ToString::to_string));
        }
        if let Some((network, ports)) = self.rules(&plan, filter, places, firewall)? {
            lines.extend(firewall.describe_teardown(&network, &ports, leaving.complete)?);
        }
        if leaving.complete {
            lines.extend(firewall.describe_enclosure(plan.name, false)?);
        }
        lines.extend(plan.teardown(leaving).iter().map(ToString::to_string));
        Ok(lines)
    }
}
