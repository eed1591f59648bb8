//! Which station is behind which port, on a device that has several: what a learning bridge knows (IEEE 802.1Q §8.8).
//!
//! A station is where its last frame came from. What is known is bounded for each port, so that a guest that invents
//! addresses forgets its own and nobody else's; and it goes with its port. Nothing ages: a port is one guest's, and a
//! guest that moves is seen at once. Whoever is not known is asked for at all ports, like a group.

use crate::addr::MacAddr;
use std::collections::{BTreeMap, VecDeque};

/// Stations behind one port: a virtual machine that bridges containers of its own has a hundred.
pub const PER_PORT: usize = 256;

/// Where stations are.
#[derive(Debug)]
pub struct Stations {
    /// Our own address, which no guest takes over.
    ours: MacAddr,
    ports: BTreeMap<MacAddr, u32>,
    /// The same by port, in the order in which they came.
    known: BTreeMap<u32, VecDeque<MacAddr>>,
}

impl Stations {
    /// Nobody is known. `ours` is never learnt.
    #[must_use]
    pub const fn new(ours: MacAddr) -> Self {
        Self { ours, ports: BTreeMap::new(), known: BTreeMap::new() }
    }

    /// A frame of `station` came in by `port`.
    pub fn learn(&mut self, station: MacAddr, port: u32) {
        if !station.is_unicast() || station == self.ours {
            return;
        }
        let before = self.ports.insert(station, port);
        if before == Some(port) {
            return;
        }
        if let Some(there) = before.and_then(|before| self.known.get_mut(&before)) {
            there.retain(|known| *known != station);
        }
        let here = self.known.entry(port).or_default();
        here.push_back(station);
        if here.len() > PER_PORT
            && let Some(oldest) = here.pop_front()
        {
            self.ports.remove(&oldest);
        }
    }

    /// By which port it is reached.
    #[must_use]
    pub fn port_of(&self, station: MacAddr) -> Option<u32> {
        self.ports.get(&station).copied()
    }

    /// A port is no more: whom it led to, in no order.
    pub fn forget(&mut self, port: u32) -> Vec<MacAddr> {
        let gone: Vec<_> = self.known.remove(&port).unwrap_or_default().into();
        for station in &gone {
            self.ports.remove(station);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);

    fn station(n: u16) -> MacAddr {
        let [high, low] = n.to_be_bytes();
        MacAddr([2, 0, 0, 0, high, low])
    }

    #[test]
    fn a_station_is_where_its_last_frame_came_from() {
        let mut stations = Stations::new(OURS);
        stations.learn(station(1), 7);
        stations.learn(station(1), 8);
        assert_eq!((stations.port_of(station(1)), stations.port_of(station(2))), (Some(8), None));
        assert_eq!(stations.forget(7), []);
        assert_eq!(stations.forget(8), [station(1)]);
        assert_eq!(stations.port_of(station(1)), None);
    }

    #[test]
    fn nobody_is_us_or_a_group() {
        let mut stations = Stations::new(OURS);
        for mac in [OURS, MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([0; 6])] {
            stations.learn(mac, 1);
            assert_eq!(stations.port_of(mac), None, "{mac}");
        }
        assert_eq!(stations.forget(1), []);
    }

    #[test]
    fn whoever_invents_stations_forgets_its_own() {
        let mut stations = Stations::new(OURS);
        stations.learn(station(0), 1);
        for n in 1..2000 {
            stations.learn(station(n), 2);
        }
        assert_eq!(stations.port_of(station(0)), Some(1));
        assert_eq!((stations.port_of(station(1)), stations.port_of(station(1999))), (None, Some(2)));
        assert_eq!(stations.forget(2).len(), PER_PORT);
        assert_eq!(stations.ports.len(), 1);
    }

    proptest! {
        #[test]
        fn both_ways_of_looking_agree(steps in prop::collection::vec((0..400_u16, 0..4_u32, 0..50_u8), 0..2000)) {
            let mut stations = Stations::new(OURS);
            for (n, port, what) in steps {
                if what == 0 { drop(stations.forget(port)) } else { stations.learn(station(n), port) }
            }
            let known = stations.known.iter().flat_map(|(port, list)| list.iter().map(move |mac| (*mac, *port)));
            let mut known: Vec<_> = known.collect();
            known.sort_unstable();
            prop_assert_eq!(known, stations.ports.iter().map(|(mac, port)| (*mac, *port)).collect::<Vec<_>>());
            prop_assert!(stations.known.values().all(|list| list.len() <= PER_PORT));
        }
    }
}
