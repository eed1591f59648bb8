//! Who is on which network: what the supervisor knows, and each worker for its names. Pure.
//!
//! Containers count from their first `join` on; the order of joining decides where forwarded ports lead, for it is the
//! first network that gives a container its default route, and answers leave by that.

use core::net::IpAddr;
use slipway_uplink::protocol::{Container, Network};
use std::collections::BTreeMap;

/// Networks, and the containers on them.
#[derive(Debug, Default)]
pub struct Records {
    networks: BTreeMap<String, Entry>,
    joins: u64,
}

/// A network.
#[derive(Debug)]
pub struct Entry {
    /// What it is like.
    pub network: Network,
    members: BTreeMap<String, Member>,
}

#[derive(Debug)]
struct Member {
    container: Container,
    since: u64,
}

impl Records {
    /// There is a network like this. Tells whether it was another before.
    pub fn open(&mut self, network: Network) -> bool {
        let entry = self
            .networks
            .entry(network.id.clone())
            .or_insert_with(|| Entry { network: network.clone(), members: BTreeMap::new() });
        let changed = entry.network != network;
        entry.network = network;
        changed
    }

    /// `container` is on `network` from now on, or is so in another way. Tells whether the network was another before.
    pub fn join(&mut self, network: Network, container: Container) -> bool {
        let id = network.id.clone();
        let changed = self.open(network);
        let Some(entry) = self.networks.get_mut(&id) else { return changed };
        // Who is there already keeps the place.
        let since = entry.members.get(&container.id).map_or(self.joins, |member| member.since);
        self.joins += 1;
        entry.members.insert(container.id.clone(), Member { container, since });
        changed
    }

    /// `container` has left `network`; gives what was known of it. A network without containers stays until
    /// [`Records::remove`].
    pub fn leave(&mut self, network: &str, container: &str) -> Option<Container> {
        self.networks.get_mut(network)?.members.remove(container).map(|member| member.container)
    }

    /// Forgets a network with all its containers; gives their ids.
    pub fn remove(&mut self, network: &str) -> Vec<String> {
        let entry = self.networks.remove(network);
        entry.map(|entry| entry.members.into_keys().collect()).unwrap_or_default()
    }

    /// A network.
    #[must_use]
    pub fn network(&self, id: &str) -> Option<&Entry> {
        self.networks.get(id)
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &Entry> {
        self.networks.values()
    }

    /// How many containers there are on a network.
    #[must_use]
    pub fn count(&self, network: &str) -> usize {
        self.networks.get(network).map_or(0, |entry| entry.members.len())
    }

    /// Whether a container is on any network.
    #[must_use]
    pub fn knows(&self, container: &str) -> bool {
        self.networks.values().any(|entry| entry.members.contains_key(container))
    }

    /// Where ports forwarded to a container lead, IPv4 or IPv6: the network's id and the container's address. Of the
    /// networks that are `served` that is the one it joined first; an internal one only if there is no other, for it
    /// has no route back to anybody.
    #[must_use]
    pub fn target(
        &self,
        container: &str,
        ipv6: bool,
        served: &dyn Fn(&str) -> bool,
    ) -> Option<(&str, IpAddr)> {
        let places = self.networks.iter().filter(|(id, _)| served(id)).filter_map(|(id, entry)| {
            let member = entry.members.get(container)?;
            let address = member
                .container
                .addresses()
                .find(|address| address.is_ipv6() == ipv6 && entry.network.contains(*address))?;
            Some(((entry.network.internal, member.since), (id.as_str(), address)))
        });
        places.min_by_key(|(rank, _)| *rank).map(|(_, place)| place)
    }
}

impl Entry {
    /// The containers on it, by id.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.members.values().map(|member| &member.container)
    }

    /// The container of this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<&Container> {
        self.members.get(id).map(|member| &member.container)
    }

    /// Whether one of them has `address`.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.containers().any(|container| container.addresses().any(|its| its == address))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn network(id: &str, subnet: &str, gateway: &str, internal: bool) -> Network {
        let value = json!({
            "id": id, "name": id, "internal": internal, "dns_enabled": true,
            "subnets": [{ "subnet": subnet, "gateway": gateway }],
        });
        serde_json::from_value(value).unwrap()
    }

    pub(crate) fn container(id: &str, addresses: &[&str]) -> Container {
        serde_json::from_value(json!({ "id": id, "name": id, "addresses": addresses })).unwrap()
    }

    fn target(records: &Records, id: &str) -> Option<String> {
        records.target(id, false, &|_| true).map(|(network, address)| format!("{network} {address}"))
    }

    #[test]
    fn the_network_joined_first_is_where_ports_lead() {
        let mut records = Records::default();
        let (a, b) =
            (network("a", "10.1.0.0/24", "10.1.0.1", false), network("b", "10.2.0.0/24", "10.2.0.1", false));
        let inner = network("0", "10.0.0.0/24", "10.0.0.1", true);
        assert!(!records.join(inner, container("web", &["10.0.0.2"])));
        assert_eq!(target(&records, "web").unwrap(), "0 10.0.0.2", "there is no other");
        records.join(b.clone(), container("web", &["10.2.0.2"]));
        records.join(a.clone(), container("web", &["10.1.0.2"]));
        assert_eq!(target(&records, "web").unwrap(), "b 10.2.0.2");
        // Joining again changes the address, not the order.
        records.join(b, container("web", &["10.2.0.9"]));
        assert_eq!(target(&records, "web").unwrap(), "b 10.2.0.9");
        assert_eq!(records.leave("b", "web").unwrap().v4.len(), 1);
        assert_eq!(target(&records, "web").unwrap(), "a 10.1.0.2");
        assert!(records.leave("b", "web").is_none() && records.leave("nope", "web").is_none());
        assert_eq!((records.count("a"), records.count("b"), records.count("nope")), (1, 0, 0));
        assert!(records.network("b").is_some(), "it is still served");
        assert!(records.target("web", true, &|_| true).is_none());
        assert!(records.target("web", false, &|_| false).is_none());
        assert_eq!(records.remove("a"), ["web"]);
        assert!(records.remove("a").is_empty() && records.knows("web"));
    }

    #[test]
    fn a_network_that_became_another_is_noticed() {
        let mut records = Records::default();
        let before = network("a", "10.1.0.0/24", "10.1.0.1", false);
        assert!(!records.join(before.clone(), container("x", &["10.1.0.2"])));
        assert!(!records.join(before, container("y", &["10.1.0.3"])));
        assert!(
            records.join(network("a", "10.1.0.0/24", "10.1.0.254", false), container("y", &["10.1.0.3"]))
        );
        let entry = records.network("a").unwrap();
        assert!(entry.has("10.1.0.3".parse().unwrap()) && !entry.has("10.1.0.4".parse().unwrap()));
    }
}
