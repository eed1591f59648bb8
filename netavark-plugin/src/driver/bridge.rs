//! The bridge driver: validates the request, looks at the host, has [`plan::bridge`](crate::plan::bridge) carried out,
//! then the firewall's rules, and tells what came of it.
//!
//! Teardown order: routes of the container that would stay; the firewall's rules (those of the network with the last
//! container); interfaces last, those of all networks in one request. A teardown that was stopped in between can so
//! be repeated: as long as the bridge is there, it is known that nobody else uses the network.

mod describe;
mod mtu;

use super::options::{Common, status};
use super::rules::{Filter, network_rules, port_rules};
use super::{Outcome, Request, lease};
use crate::announce;
use crate::apply::{self, Links, Undo};
use crate::dns_handover::DnsEntry;
use crate::error::{Context, Error, Errors, Result};
use crate::firewall::{self, Firewall, NetworkRules, PortRules};
use crate::living::Others;
use crate::namespaces::Places;
use crate::plan::Op;
use crate::plan::bridge::{Bridge as Plan, Found, Leaving};
use crate::spec::validate::Isolation;
use crate::spec::{Compat, Ipam, IpamKind, Network, validate};
use nix::errno::Errno;
use slipway_host::netlink::{Interface, MAIN_TABLE, Netlink};
use std::net::IpAddr;
use std::path::Path;

/// The metric of default routes when the network says nothing.
pub(crate) const METRIC: u32 = 100;

/// Where the names of containers are looked for.
pub(crate) const SEARCH_DOMAIN: &str = "dns.podman";

/// A container on a bridge network.
#[derive(Debug)]
pub struct Bridge<'a> {
    request: Request<'a>,
    wanted: Option<Wanted<'a>>,
    done: Option<Done>,
}

/// A request that has been checked.
#[derive(Debug, Clone)]
struct Wanted<'a> {
    plan: Plan<'a>,
    filter: Filter,
}

/// What a setup has made, for rolling it back.
#[derive(Debug)]
struct Done {
    undo: Undo,
    new_bridge: bool,
    dns_servers: Vec<IpAddr>,
    links: Links,
    others: Others,
}

impl<'a> Bridge<'a> {
    /// Takes the request; nothing is looked at yet.
    #[must_use]
    pub fn new(request: Request<'a>) -> Self {
        Self { request, wanted: None, done: None }
    }

    /// Checks the request. Nothing is touched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&mut self) -> Result<()> {
        self.wanted = Some(parse(&self.request)?);
        Ok(())
    }

    fn wanted(&mut self) -> Result<Wanted<'a>> {
        if self.wanted.is_none() {
            self.validate()?;
        }
        self.wanted.clone().ok_or_else(|| Error::msg("internal: not validated"))
    }

    /// What [`Self::setup`] would do now. Nothing is touched.
    ///
    /// # Errors
    /// What is wrong with the request, or could not be looked at.
    pub fn plan(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Vec<Op>> {
        let Wanted { plan, .. } = self.wanted()?;
        let found = look(&plan, places, firewall, self.request.rootless)?;
        Ok(plan.setup(&found))
    }

    /// Connects the container. After an error nothing of it remains.
    ///
    /// # Errors
    /// What could not be done.
    pub fn setup(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Outcome> {
        let Wanted { plan, filter } = self.wanted()?;
        let found = look(&plan, places, firewall, self.request.rootless)?;
        let dns_servers = self.dns_servers(&plan, found.bridge.as_ref(), places)?;
        let mut links = Links { bridge: found.bridge.clone(), ..Links::default() };
        let new_bridge = found.bridge.is_none();
        let undo = apply::setup(&plan.setup(&found), places, &mut links)?;
        let others = self.others(links.bridge.as_ref(), links.port.as_ref(), places, firewall);
        self.done = Some(Done { undo, new_bridge, dns_servers, links, others });
        match self.finish(&plan, filter, places, firewall) {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                // The firewall has undone its own part.
                if let Some(mut done) = self.done.take() {
                    if done.new_bridge {
                        firewall.disclose(plan.name, plan.is_closed());
                    }
                    if let Err(error) = done.undo.run(places) {
                        log::error!("failed to cleanup after setup failed: {error}");
                    }
                }
                Err(error)
            }
        }
    }

    fn finish(
        &self,
        plan: &Plan<'_>,
        filter: Filter,
        places: &mut Places,
        firewall: &Firewall,
    ) -> Result<Outcome> {
        let done = self.done.as_ref().ok_or_else(|| Error::msg("internal: not connected"))?;
        let inside = done.links.inside.as_ref().ok_or_else(|| Error::msg("internal: no interface"))?;
        let dns_servers = done.dns_servers.as_slice();
        let mut outcome = Outcome { status: status(inside, &plan.ipam.addresses), dns: None };
        if plan.ipam.kind == IpamKind::Dhcp {
            outcome.status = lease::obtain(&self.request, plan.name, inside, places)?;
        }
        if plan.is_closed() {
            firewall.enclose(plan.name);
        } else if plan.managed {
            firewall.disclose(plan.name, false);
        }
        if self.has_rules(plan, firewall) {
            let ports = port_rules(&self.request, &plan.ipam, dns_servers);
            firewall.setup(&network_rules(&self.request, plan.name, filter), &ports, &done.others)?;
        } else if !dns_servers.is_empty() {
            firewall.keep_names(self.request.dns_port, dns_servers)?;
        }
        let network = self.request.network;
        if network.dns_enabled {
            outcome.status.dns_server_ips = Some(dns_servers.to_vec());
            outcome.status.dns_search_domains = Some(vec![SEARCH_DOMAIN.to_owned()]);
            outcome.dns = Some(self.dns_entry(plan, dns_servers));
        } else if let Some(servers) = self.request.container_dns_servers {
            outcome.status.dns_server_ips = Some(servers.to_vec());
        }
        Ok(outcome)
    }

    /// Tells the neighbours of a container that [`Self::setup`] has connected where its addresses are now.
    pub fn announce(&self, places: &mut Places) {
        let Some((done, wanted)) = self.done.as_ref().zip(self.wanted.as_ref()) else { return };
        announce::connected(places, &done.links, wanted.plan.managed);
    }

    /// Where the DNS server listens: at the network's own addresses, or at those that somebody else's bridge has.
    fn dns_servers(
        &self,
        plan: &Plan<'_>,
        bridge: Option<&Interface>,
        places: &mut Places,
    ) -> Result<Vec<IpAddr>> {
        if !self.request.network.dns_enabled {
            return Ok(Vec::new());
        }
        let (Some(bridge), false) = (bridge, plan.managed) else {
            return Ok(plan.ipam.gateways.iter().map(|net| net.addr()).collect());
        };
        let all = places.host.netlink.addresses().context("get bridge addresses")?;
        let usable: Vec<_> = all
            .iter()
            .filter(|address| address.interface == bridge.index && !address.local)
            .map(|address| address.net.addr())
            .collect();
        if usable.is_empty() {
            return Err(Error::msg(format!(
                "bridge '{}' in unmanaged mode has no usable IP addresses. Aardvark-dns requires at least one address \
                 (should not be an IPv6 link-local address) to bind to. Please add an IP address or disable DNS for this \
                 network (--disable-dns).",
                plan.name
            )));
        }
        Ok(usable)
    }

    fn dns_entry(&self, plan: &Plan<'_>, listen: &[IpAddr]) -> DnsEntry {
        let Request { network, options, .. } = self.request;
        let mut names = vec![self.request.container_name.to_owned()];
        names.extend(options.aliases.iter().flatten().cloned());
        DnsEntry {
            network: network.name.clone(),
            internal: network.internal,
            listen: listen.to_vec(),
            network_servers: network.network_dns_servers.clone().unwrap_or_default(),
            container_id: self.request.container_id.to_owned(),
            addresses: plan.ipam.addresses.iter().map(|address| address.ipnet.addr()).collect(),
            names,
            container_servers: self.request.container_dns_servers.unwrap_or_default().to_vec(),
            others: self.done.as_ref().map_or(usize::MAX, |done| done.others.count),
        }
    }

    /// Whether the firewall has to do with the network at all. An internal one has rules for its DNS server alone, and
    /// had none in the 1.x contract; but its definition may have been another when rules were made.
    fn has_rules(&self, plan: &Plan<'_>, firewall: &Firewall) -> bool {
        let Network { id, dns_enabled, .. } = self.request.network;
        let served = *dns_enabled && self.request.rules == Compat::Two;
        plan.managed && (!plan.internal || served || firewall.knows(id))
    }

    /// Undoes a setup that succeeded.
    ///
    /// # Errors
    /// All that could not be undone.
    pub fn rollback(&mut self, places: &mut Places, firewall: &Firewall) -> Result<()> {
        let Some(mut done) = self.done.take() else { return Ok(()) };
        let Wanted { plan, filter } = self.wanted()?;
        let mut errors = Errors::new();
        if plan.ipam.kind == IpamKind::Dhcp {
            errors.note(lease::release(&self.request, plan.name, places));
        }
        if self.has_rules(&plan, firewall) {
            let network = network_rules(&self.request, plan.name, filter);
            let ports = port_rules(&self.request, &plan.ipam, &done.dns_servers);
            let leaving = firewall::Leaving { complete: done.new_bridge, connected: true };
            errors.note(firewall.teardown(&network, &ports, leaving));
        }
        if done.new_bridge {
            firewall.disclose(plan.name, plan.is_closed());
        }
        errors.note(done.undo.run(places));
        errors.finish()
    }

    /// Disconnects the container, as far as it is connected. The interfaces go by [`Places::delete_leaving`].
    ///
    /// # Errors
    /// All that could not be done.
    pub fn teardown(&mut self, places: &mut Places, firewall: &Firewall) -> Result<()> {
        let mut errors = Errors::new();
        let wanted = self.wanted();
        let Wanted { plan, filter } = match wanted {
            Ok(wanted) => wanted,
            Err(error) => {
                // What can be found without the part that makes no sense is still cleaned up.
                errors.push(error);
                let mut wanted = lenient(&self.request)?;
                let Request { network, options, compat, .. } = self.request;
                if let Ok(ipam) = Ipam::without_routes(network, options, compat) {
                    wanted.plan.ipam = ipam;
                }
                wanted
            }
        };
        if plan.ipam.kind == IpamKind::Dhcp && places.container.is_some() {
            errors.note(lease::release(&self.request, plan.name, places));
        }
        let mut links = Links::default();
        let leaving = self.leave(&plan, places, &mut links, &mut errors);
        if places.container.is_some() {
            apply::teardown(&plan.forget_routes(), places, &mut links, &mut errors);
        }
        if self.has_rules(&plan, firewall) {
            let dns_servers: Vec<_> = if self.request.network.dns_enabled {
                plan.ipam.gateways.iter().map(|net| net.addr()).collect()
            } else {
                Vec::new()
            };
            let network = network_rules(&self.request, plan.name, filter);
            let ports = port_rules(&self.request, &plan.ipam, &dns_servers);
            let leaving = firewall::Leaving { complete: leaving.complete, connected: leaving.port };
            errors.note(firewall.teardown(&network, &ports, leaving));
        }
        if leaving.complete || (plan.managed && leaving.orphaned) {
            firewall.disclose(plan.name, plan.is_closed());
        }
        apply::teardown(&plan.teardown(leaving), places, &mut links, &mut errors);
        errors.finish()
    }

    /// The rules that the network and its ports have; only a managed bridge has any.
    fn rules(
        &self,
        plan: &Plan<'_>,
        filter: Filter,
        places: &mut Places,
        firewall: &Firewall,
    ) -> Result<Option<(NetworkRules, PortRules)>> {
        if !self.has_rules(plan, firewall) {
            return Ok(None);
        }
        let dns_servers = self.dns_servers(plan, None, places)?;
        let ports = port_rules(&self.request, &plan.ipam, &dns_servers);
        Ok(Some((network_rules(&self.request, plan.name, filter), ports)))
    }

    /// Finds what there is to delete.
    fn leave(&self, plan: &Plan<'_>, places: &mut Places, links: &mut Links, errors: &mut Errors) -> Leaving {
        let mut leaving = Leaving::default();
        if let Some(container) = &mut places.container {
            let inside = container.netlink.interface(plan.inside);
            let context = || format!("failed to delete container veth {}", plan.inside);
            links.inside = errors.note(inside.with_context(context));
            leaving.inside = links.inside.is_some();
        }
        let netlink = &mut places.host.netlink;
        let bridge = netlink.interface(plan.name);
        leaving.orphaned = matches!(&bridge, Err(error) if error.errno() == Some(Errno::ENODEV));
        links.bridge = errors.note(bridge.context("failed to get bridge interface"));
        let Some(bridge) = &links.bridge else { return leaving };
        let listed = netlink.ports(bridge.index).context("failed to get bridge ports");
        let Some(ports) = errors.note(listed) else { return leaving };
        let mut others = 0_usize;
        for port in ports.into_iter().filter(|port| !places.host.deletes_later(port.index)) {
            if links.inside.as_ref().is_some_and(|inside| is_pair(inside, &port)) {
                leaving.port = true;
                links.port = Some(port);
            } else {
                others += 1;
            }
        }
        leaving.complete = plan.managed && others == 0 && bridge.kind.as_deref() == Some("bridge");
        leaving
    }

    /// Who is on the bridge besides the container that was just connected. When that cannot be told, everybody may be.
    fn others(
        &self,
        bridge: Option<&Interface>,
        own: Option<&Interface>,
        places: &mut Places,
        firewall: &Firewall,
    ) -> Others {
        let Some(bridge) = bridge else { return Others::default() };
        let own = own.map(|port| port.index);
        let counted = places.host.netlink.count_containers(bridge.index, own);
        let count = counted.unwrap_or_else(|error| {
            log::warn!("{error}");
            usize::MAX
        });
        let only_network = firewall.knows_no_other(&self.request.network.id, &bridge.name);
        Others { count, recorded: firewall.keeps_records(), only_network, ..Others::default() }
    }
}

/// Whether two interfaces are the ends of one pair. Numbers alone say little, for each namespace counts for itself:
/// both must name the other.
pub(crate) fn is_pair(inside: &Interface, port: &Interface) -> bool {
    port.kind.as_deref() == Some("veth")
        && inside.linked == Some(port.index)
        && port.linked == Some(inside.index)
}

/// Checks the request.
fn parse<'a>(request: &Request<'a>) -> Result<Wanted<'a>> {
    let mut wanted = lenient(request)?;
    let Common { mac, mtu, metric, default_route, .. } = Common::of(request, METRIC)?;
    let network = request.network;
    let options = network.options.as_ref();
    wanted.filter = Filter {
        isolation: Isolation::from_option(network.option("isolate"), request.compat)?,
        outbound4: validate::option(options, "outbound_addr4")?,
        outbound6: validate::option(options, "outbound_addr6")?,
    };
    let plan = &mut wanted.plan;
    plan.managed = match network.option("mode") {
        None | Some("" | "managed") => true,
        Some("unmanaged") => false,
        Some(other) => return Err(Error::msg(format!("invalid bridge mode \"{other}\""))),
    };
    plan.vlan = validate::vlan(options)?.filter(|vlan| *vlan != 0);
    plan.vrf = network.option("vrf").filter(|vrf| !vrf.is_empty());
    plan.ipam = Ipam::of(network, request.options, request.compat)?;
    if plan.ipam.kind == IpamKind::Dhcp && plan.managed {
        return Err(Error::msg("cannot use dhcp ipam driver without using the option mode=unmanaged"));
    }
    plan.publishes = plan.managed && !plan.internal && !request.ports().is_empty();
    (plan.mac, plan.mtu, plan.metric, plan.default_route) = (mac, mtu, metric, default_route);
    Ok(wanted)
}

/// The names alone, without which nothing can be found, and defaults for the rest.
fn lenient<'a>(request: &Request<'a>) -> Result<Wanted<'a>> {
    let network = request.network;
    let name = network.network_interface.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(Error::msg("no bridge interface name given"));
    }
    validate::interface("bridge", name)?;
    let inside = request.options.interface_name.as_str();
    if inside.is_empty() {
        return Err(Error::msg("no container interface name given"));
    }
    validate::interface("container", inside)?;
    let plan = Plan {
        name,
        managed: network.option("mode") != Some("unmanaged"),
        internal: network.internal,
        mtu: None,
        vlan: None,
        vrf: None,
        metric: METRIC,
        default_route: false,
        publishes: false,
        port: validate::interface("host", request.options.option("host_interface_name").unwrap_or_default())?,
        inside,
        mac: None,
        ipam: Ipam {
            kind: IpamKind::None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            ipv6: network.has_ipv6(),
        },
    };
    Ok(Wanted { plan, filter: Filter { isolation: Isolation::Never, outbound4: None, outbound6: None } })
}

/// The vrf that a bridge is to be in.
struct Vrf<'a> {
    name: &'a str,
    index: u32,
    table: u32,
}

impl<'a> Vrf<'a> {
    fn of(name: &'a str, netlink: &mut Netlink) -> Result<Self> {
        let vrf = netlink.interface(name).context("get vrf to set up bridge interface")?;
        let table = vrf.table.ok_or_else(|| Error::msg(format!("vrf {name} is not a vrf interface")))?;
        Ok(Self { name, index: vrf.index, table })
    }
}

/// Looks for the bridge, or for what is needed to make it.
fn look(plan: &Plan<'_>, places: &mut Places, firewall: &Firewall, rootless: bool) -> Result<Found> {
    let netlink = &mut places.host.netlink;
    let vrf = plan.vrf.filter(|_| plan.managed).map(|name| Vrf::of(name, netlink)).transpose()?;
    let mut found =
        Found { rules: firewall.has_rules(), vrf: vrf.as_ref().map(|vrf| vrf.index), ..Found::default() };
    match netlink.interface(plan.name) {
        Ok(bridge) if bridge.kind.as_deref() == Some("bridge") => {
            if let Some(Vrf { name, index, .. }) = vrf
                && bridge.master != Some(index)
            {
                // It would lose its addresses, and who is on it their ways, by being moved.
                return Err(Error::msg(format!(
                    "bridge {} is in use and not in vrf {name}: it gets there when all containers of the network have \
                     gone and it is made anew",
                    plan.name
                )));
            }
            if plan.managed {
                let addresses = netlink.addresses_of(bridge.index).context("get bridge addresses")?;
                found.addresses = addresses.into_iter().map(|address| address.net).collect();
            }
            found.bridge = Some(bridge);
            return Ok(found);
        }
        Ok(other) => {
            let (name, kind) = (plan.name, other.kind.as_deref().unwrap_or("physical"));
            return Err(Error::msg(format!(
                "bridge interface {name} already exists but is a {kind} interface"
            )));
        }
        Err(error) if error.errno() == Some(Errno::ENODEV) && plan.managed => {}
        Err(error) if error.errno() == Some(Errno::ENODEV) => {
            return Err(error).context("in unmanaged mode, the bridge must already exist on the host");
        }
        Err(error) => return Err(error).context("get bridge interface"),
    }
    let table = vrf.map_or(MAIN_TABLE, |vrf| vrf.table);
    if plan.mtu.is_none() {
        found.mtu = mtu::of_the_way_out(&plan.ipam, table, netlink)?;
    }
    found.sysctl_files = !rootless && Path::new("/run/systemd/system").exists();
    Ok(found)
}
