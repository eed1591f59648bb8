//! All flows, in one table: found by a keyed hash of their addresses, addressed by [`FlowId`].
//!
//! The guest chooses ports and addresses, so the hash is SipHash-1-3 under a random key, over one packed 39-byte block
//! (one write: a third of the time of a derived `Hash`). The index holds 4 bytes a flow; the slab keeps each flow's
//! hash so that growing does not compute it again. Freed places are reused in last-in-first-out order under a new
//! generation.

use crate::flow::FlowId;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

/// What kind of conversation a key names. Part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Tcp = 6,
    /// UDP between a guest endpoint and one peer.
    UdpPair = 17,
    /// UDP of a guest endpoint with anybody (endpoint-independent mapping, RFC 4787 §4.1); `peer` is the wildcard.
    UdpAny = 18,
    /// ICMP or ICMPv6 echo; `guest`'s port is the identifier.
    Echo = 1,
}

/// The two ends of a flow as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) guest: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Key {
    fn hash(&self, secret: &[u8; 16]) -> u64 {
        let mut block = [0; 39];
        let (guest, rest) = block.split_at_mut(18);
        let (peer, rest) = rest.split_at_mut(18);
        pack(self.guest, guest);
        pack(self.peer, peer);
        // IPv4 addresses are packed in mapped form; the family bytes keep them apart from a guest that uses
        // the mapped range of IPv6 itself.
        rest.copy_from_slice(&[self.kind as u8, self.guest.is_ipv4().into(), self.peer.is_ipv4().into()]);
        SipHasher13::new_with_key(secret).hash(&block)
    }
}

fn pack(endpoint: SocketAddr, into: &mut [u8]) {
    let octets: Ipv6Addr = match endpoint.ip() {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    };
    if let Some((address, port)) = into.split_at_mut_checked(16) {
        address.copy_from_slice(&octets.octets());
        port.copy_from_slice(&endpoint.port().to_be_bytes());
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    hash: u64,
    tenant: Option<(Key, T)>,
}

/// A table of `T`s by [`Key`] and by [`FlowId`].
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    secret: [u8; 16],
    limit: u32,
}

/// The table holds as many flows as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableFull;

impl<T> Table<T> {
    pub(crate) const fn new(secret: [u8; 16], limit: u32) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), index: HashTable::new(), secret, limit }
    }

    /// How many flows there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The flow with this key.
    pub(crate) fn find(&self, key: &Key) -> Option<FlowId> {
        let hash = key.hash(&self.secret);
        let found = self.index.find(hash, |&place| {
            self.slots.get(place as usize).is_some_and(|s| s.tenant.as_ref().is_some_and(|(k, _)| k == key))
        })?;
        let slot = self.slots.get(*found as usize)?;
        Some(FlowId::new(*found, slot.generation))
    }

    /// Adds a flow; there must be none with this key.
    pub(crate) fn insert(&mut self, key: Key, flow: T) -> Result<FlowId, TableFull> {
        let hash = key.hash(&self.secret);
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.slots.len()).map_err(|_| TableFull)?;
                if place >= self.limit {
                    return Err(TableFull);
                }
                self.slots.push(Slot { generation: 0, hash: 0, tenant: None });
                place
            }
        };
        let slot = self.slots.get_mut(place as usize).ok_or(TableFull)?;
        slot.hash = hash;
        slot.tenant = Some((key, flow));
        let id = FlowId::new(place, slot.generation);
        let slots = &self.slots;
        self.index.insert_unique(hash, place, |&p| slots.get(p as usize).map_or(0, |s| s.hash));
        Ok(id)
    }

    /// The flow `id`, unless it has ended.
    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<(&Key, &mut T)> {
        let slot = self.slots.get_mut(id.index()).filter(|s| s.generation == id.generation())?;
        slot.tenant.as_mut().map(|(key, flow)| (&*key, flow))
    }

    /// The flow `id` is found by its id alone from now on; another may have its key.
    pub(crate) fn unlist(&mut self, id: FlowId) {
        let Some(slot) = self.slots.get(id.index()).filter(|s| s.generation == id.generation()) else {
            return;
        };
        let Ok(place) = u32::try_from(id.index()) else { return };
        if let Ok(entry) = self.index.find_entry(slot.hash, |&p| p == place) {
            entry.remove();
        }
    }

    /// Removes the flow `id`. Its id never matches again (until the generation wraps after 2^24 tenants).
    pub(crate) fn remove(&mut self, id: FlowId) -> Option<(Key, T)> {
        let slot = self.slots.get_mut(id.index()).filter(|s| s.generation == id.generation())?;
        let tenant = slot.tenant.take()?;
        slot.generation = (slot.generation + 1) & FlowId::GENERATION_MASK;
        let hash = slot.hash;
        let place = u32::try_from(id.index()).ok()?;
        // It may have been unlisted before.
        if let Ok(entry) = self.index.find_entry(hash, |&p| p == place) {
            entry.remove();
        }
        self.free.push(place);
        Some(tenant)
    }

    /// The flows in `count` places from place `from` on, round the end; empty places count.
    pub(crate) fn some(&self, from: usize, count: usize) -> impl Iterator<Item = (FlowId, &T)> + '_ {
        let places = self.slots.len();
        (from..from.saturating_add(count.min(places))).filter_map(move |place| {
            let place = place % places;
            let slot = self.slots.get(place)?;
            let (_, flow) = slot.tenant.as_ref()?;
            Some((FlowId::new(u32::try_from(place).ok()?, slot.generation), flow))
        })
    }

    /// All flows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FlowId, &Key, &T)> + '_ {
        self.slots.iter().zip(0u32..).filter_map(|(slot, place)| {
            let (key, flow) = slot.tenant.as_ref()?;
            Some((FlowId::new(place, slot.generation), key, flow))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key {
        Key {
            kind: Kind::Tcp,
            guest: SocketAddr::from(([10, 0, 2, 100], port)),
            peer: SocketAddr::from(([192, 0, 2, 1], 80)),
        }
    }

    #[test]
    fn flows_are_found_by_key_and_by_id_until_they_end() {
        let mut table = Table::new([1; 16], 1000);
        let ids: Vec<_> = (0..500).map(|port| table.insert(key(port), port).unwrap()).collect();
        for port in 0..500 {
            assert_eq!(table.find(&key(port)), Some(ids[usize::from(port)]));
        }
        assert_eq!(table.find(&Key { kind: Kind::UdpPair, ..key(3) }), None);
        assert_eq!(table.remove(ids[3]), Some((key(3), 3)));
        assert_eq!(table.find(&key(3)), None);
        assert!(table.get_mut(ids[3]).is_none());
        assert_eq!(table.remove(ids[3]), None);
        let again = table.insert(key(3), 77).unwrap();
        assert_eq!(again.index(), ids[3].index());
        assert_ne!(again, ids[3], "the place has a new generation");
        assert!(table.get_mut(ids[3]).is_none(), "a stale id misses");
        assert_eq!(table.len(), 500);
        assert_eq!(table.iter().count(), 500);
    }

    /// Whoever knew one secret, and chose ports that meet in one place under it, has nothing of that under another.
    #[test]
    fn ports_that_meet_under_one_secret_are_spread_under_another() {
        const PLACES: u64 = 1024;
        let meet = |port: &u16| key(*port).hash(&[1; 16]).is_multiple_of(PLACES);
        let chosen: Vec<u16> = (0..=u16::MAX).filter(meet).collect();
        assert!(chosen.len() > 30, "{}", chosen.len());
        let places = |secret: u8| {
            let mut table = Table::new([secret; 16], 1000);
            for port in &chosen {
                table.insert(key(*port), ()).unwrap();
            }
            let places: std::collections::BTreeSet<_> =
                table.slots.iter().map(|slot| slot.hash % PLACES).collect();
            places.len()
        };
        assert_eq!(places(1), 1, "the table hashes with the secret that it was given");
        assert!(places(2) * 10 > chosen.len() * 9, "{} places for {}", places(2), chosen.len());
    }

    #[test]
    fn mapped_addresses_are_not_ipv4() {
        let v4 = Key { kind: Kind::Tcp, guest: ([10, 0, 2, 1], 1).into(), peer: ([10, 0, 2, 2], 2).into() };
        let mapped = Key {
            guest: (Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0201]), 1).into(),
            peer: (Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0x0202]), 2).into(),
            ..v4
        };
        assert_ne!(v4.hash(&[0; 16]), mapped.hash(&[0; 16]));
    }

    #[test]
    fn an_unlisted_flow_leaves_its_key_to_another() {
        let mut table = Table::new([1; 16], 10);
        let old = table.insert(key(1), 'a').unwrap();
        table.unlist(old);
        assert_eq!((table.find(&key(1)), table.len()), (None, 1));
        let new = table.insert(key(1), 'b').unwrap();
        assert_eq!(table.find(&key(1)), Some(new));
        assert_eq!(table.remove(old).map(|(_, flow)| flow), Some('a'));
        table.unlist(old);
        assert_eq!((table.find(&key(1)), table.len()), (Some(new), 1), "the other is still found");
        assert_eq!(table.remove(new).map(|(_, flow)| flow), Some('b'));
        assert_eq!((table.find(&key(1)), table.len()), (None, 0));
    }

    #[test]
    fn the_limit_holds() {
        let mut table = Table::new([1; 16], 2);
        let first = table.insert(key(1), ()).unwrap();
        table.insert(key(2), ()).unwrap();
        assert_eq!(table.insert(key(3), ()), Err(TableFull));
        table.remove(first);
        assert!(table.insert(key(3), ()).is_ok());
    }
}
