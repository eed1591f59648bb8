//! Who is called what, and who may ask: an immutable snapshot.
//!
//! A snapshot is built from all networks at once and swapped whole; nothing in it changes, so readers need no lock.
//! Look-ups allocate nothing: a name is a hash look-up in each network of the one who asks.
//!
//! **Who asks** is known by source address. A container lives on all networks that have a line with its id, and each of
//! its addresses, on whichever of them, speaks for it: asked over network A it also resolves the names of B. Two
//! containers with one address are told apart by nothing, so that address sees the networks of both. An address that
//! is nobody's (the host, or a neighbour) sees the network it asks on, and only the host's servers.
//!
//! **Upstream servers** of an address, first that applies: its container's own; those of all its networks, internal
//! ones aside, in order; the host's. Servers written for a container on an internal network are ignored.

pub mod suffix;

use crate::config::aardvark::{Container, NetworkFile};
use crate::config::resolv_conf::PORT;
use crate::message;
use core::hash::BuildHasherDefault;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};

/// What is put in comes from the files of the engine, not from those who ask, so the hash needs no secret.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// A network of one snapshot. Another snapshot may number the same network otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkId(u32);

impl NetworkId {
    /// Its place among the snapshot's networks.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// In which order the addresses of a name are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Always as in the files.
    #[default]
    Listed,
    /// Each answer starts with another one.
    Rotated,
}

/// What holds for all networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The domain that names of containers may carry, `.dns.podman` of old. Names in it are never asked upstream.
    pub filter_domain: String,
    /// Whether anything is asked upstream.
    pub forwarding: bool,
    /// Whether the filter domain is recognised in any case.
    pub strict_names: bool,
    /// The order of addresses.
    pub order: Order,
    /// Whether an answer over UDP keeps to the size that the client takes. Otherwise it is as long as it is.
    pub keep_udp_size: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            filter_domain: ".dns.podman".to_owned(),
            forwarding: true,
            strict_names: false,
            order: Order::Listed,
            keep_udp_size: false,
        }
    }
}

/// Where a question goes that has no answer here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstreams<'s> {
    /// To the servers of the host.
    Host,
    /// To these, in this order.
    Listed(&'s [SocketAddr]),
}

/// Addresses behind a name, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
}

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    internal: bool,
    listen: Vec<IpAddr>,
    servers: Vec<IpAddr>,
    names: Map<Box<[u8]>, Addresses>,
    reverse: Map<IpAddr, Vec<WireName>>,
}

/// A name as a message holds it.
pub(crate) type WireName = Box<[u8]>;

impl Network {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has no way out.
    #[must_use]
    pub fn internal(&self) -> bool {
        self.internal
    }

    /// Where it is served.
    #[must_use]
    pub fn listen(&self) -> &[IpAddr] {
        &self.listen
    }

    /// How many names it has.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }
}

/// One who may ask.
#[derive(Clone, Debug, Default)]
struct Member {
    networks: Vec<NetworkId>,
    internal: bool,
    servers: Vec<SocketAddr>,
}

/// All names.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    settings: Settings,
    networks: Vec<Network>,
    by_name: Map<String, NetworkId>,
    members: Map<IpAddr, Member>,
}

impl Snapshot {
    /// Begins one.
    #[must_use]
    pub fn builder(settings: Settings) -> Builder {
        let mut snapshot = Self { settings, ..Self::default() };
        let domain = &mut snapshot.settings.filter_domain;
        domain.make_ascii_lowercase();
        if !domain.is_empty() && !domain.ends_with('.') {
            domain.push('.'); // names are compared with their final dot
        }
        Builder { snapshot, own_servers: Map::default(), containers: Vec::new(), by_id: Map::default() }
    }

    /// What holds for all networks. The filter domain has its final dot.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The networks, in order, each with its id.
    pub fn networks(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        (0..).map(NetworkId).zip(&self.networks)
    }

    /// The network of that name.
    #[must_use]
    pub fn network(&self, name: &str) -> Option<NetworkId> {
        self.by_name.get(name).copied()
    }

    /// What `source` may see, asking on `network`.
    pub(crate) fn asker(&self, source: IpAddr, network: NetworkId) -> Asker<'_> {
        let member = self.members.get(&source.to_canonical());
        Asker { snapshot: self, member, own: [network] }
    }
}

/// What one who asks may see.
#[derive(Debug)]
pub(crate) struct Asker<'s> {
    snapshot: &'s Snapshot,
    member: Option<&'s Member>,
    own: [NetworkId; 1],
}

impl<'s> Asker<'s> {
    fn networks(&self) -> impl Iterator<Item = &'s Network> + '_ {
        let ids = self.member.map_or(&self.own[..], |member| &member.networks);
        ids.iter().filter_map(|id| self.snapshot.networks.get(id.index()))
    }

    /// The addresses behind a name, network by network.
    pub(crate) fn addresses<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'s Addresses> + 'a {
        self.networks().filter_map(move |network| network.names.get(name))
    }

    /// Whether it is a name of ours.
    pub(crate) fn knows(&self, name: &[u8]) -> bool {
        self.networks().any(|network| network.names.contains_key(name))
    }

    /// The names of an address. Only containers may ask.
    pub(crate) fn names_of(&self, address: IpAddr) -> Option<&'s [WireName]> {
        self.member?;
        self.networks().find_map(|network| network.reverse.get(&address)).map(Vec::as_slice)
    }

    /// Whether nothing of this one may leave.
    pub(crate) fn internal(&self) -> bool {
        self.member.is_some_and(|member| member.internal)
    }

    pub(crate) fn upstreams(&self) -> Upstreams<'s> {
        match self.member {
            Some(member) if !member.servers.is_empty() => Upstreams::Listed(&member.servers),
            _ => Upstreams::Host,
        }
    }
}

/// A snapshot under construction.
#[derive(Debug)]
pub struct Builder {
    snapshot: Snapshot,
    /// The servers of containers, by address; the last line that has the address decides.
    own_servers: Map<IpAddr, Option<Vec<IpAddr>>>,
    containers: Vec<Membership>,
    by_id: Map<String, usize>,
}

/// A container's networks and addresses, over all of them.
#[derive(Debug, Default)]
struct Membership {
    networks: Vec<NetworkId>,
    addresses: Vec<IpAddr>,
}

impl Builder {
    /// Adds a network. Two files with one network's name are one network, internal if one of them is.
    pub fn add(&mut self, file: NetworkFile) -> &mut Self {
        let Some(id) = self.network(&file) else { return self };
        for container in file.containers {
            self.container(id, file.internal, container);
        }
        self
    }

    fn network(&mut self, file: &NetworkFile) -> Option<NetworkId> {
        let id = match self.snapshot.by_name.entry(file.name.clone()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let id = NetworkId(u32::try_from(self.snapshot.networks.len()).ok()?);
                self.snapshot.networks.push(Network {
                    name: file.name.clone(),
                    internal: false,
                    listen: Vec::new(),
                    servers: Vec::new(),
                    names: Map::default(),
                    reverse: Map::default(),
                });
                *free.insert(id)
            }
        };
        let network = self.snapshot.networks.get_mut(id.index())?;
        network.internal |= file.internal;
        network.listen.extend(&file.listen);
        if !file.internal {
            network.servers.extend(&file.servers);
        }
        Some(id)
    }

    fn container(&mut self, id: NetworkId, internal: bool, container: Container) {
        let Some(network) = self.snapshot.networks.get_mut(id.index()) else { return };
        let known = *self.by_id.entry(container.id).or_insert(self.containers.len());
        if known == self.containers.len() {
            self.containers.push(Membership::default());
        }
        let Some(membership) = self.containers.get_mut(known) else { return };
        if !membership.networks.contains(&id) {
            membership.networks.push(id);
        }
        let (v4, v6) = (&container.v4, &container.v6);
        for address in v4.iter().copied().map(IpAddr::V4).chain(v6.iter().copied().map(IpAddr::V6)) {
            membership.addresses.push(address);
            let names = container.names.iter().filter_map(|name| match message::ascii_form(name) {
                Some(ascii) => wire_name(&ascii),
                None => wire_name(name),
            });
            network.reverse.entry(address).or_default().extend(names);
            if !internal {
                self.own_servers.insert(address, container.servers.clone());
            }
        }
        if v4.is_empty() && v6.is_empty() {
            return; // a name without any address is left to others
        }
        for name in container.names.iter().filter(|name| !name.is_empty()) {
            // As it is written, and as programs ask for it that know about names beyond ASCII.
            for name in [Some(name.as_bytes()), message::ascii_form(name).as_ref().map(String::as_bytes)] {
                let Some(name) = name else { continue };
                let known = network.names.entry(name.into()).or_default();
                known.v4.extend(v4);
                known.v6.extend(v6);
            }
        }
    }

    /// Completes it.
    #[must_use]
    pub fn build(self) -> Snapshot {
        let Self { mut snapshot, own_servers, containers, .. } = self;
        for Membership { networks, addresses } in containers {
            for address in addresses {
                let member = snapshot.members.entry(address.to_canonical()).or_default();
                for network in &networks {
                    if !member.networks.contains(network) {
                        member.networks.push(*network);
                    }
                }
            }
        }
        for (address, member) in &mut snapshot.members {
            let networks = || member.networks.iter().filter_map(|id| snapshot.networks.get(id.index()));
            let own = own_servers.get(address).and_then(Option::as_ref);
            let servers: Vec<IpAddr> = match own {
                Some(own) => own.clone(),
                None => networks().flat_map(|network| &network.servers).copied().collect(),
            };
            member.internal = networks().all(|network| network.internal);
            member.servers = servers.into_iter().map(|server| SocketAddr::new(server, PORT)).collect();
        }
        snapshot
    }
}

/// The wire form of a name in text form; `None` for one that no message could hold.
pub(crate) fn wire_name(text: &str) -> Option<WireName> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.strip_suffix('.').unwrap_or(text).split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        wire.push(len);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= message::MAX_NAME).then(|| wire.into())
}

#[cfg(test)]
mod tests;
