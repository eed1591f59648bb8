//! Which station is behind which port, on a device that has several: what a learning bridge knows (IEEE 802.1Q §8.8).
//!
//! A station is where its first frame came from, until that port is gone. On a bridge the last frame would decide; here
//! ports are guests that are strangers to each other, and one that writes a neighbour's address into its frames must
//! not get what is for the neighbour. So such a frame goes no further ([`Stations::learn`]). Who takes an address
//! before its owner has said anything keeps it from that owner as long as the port is there: a denial, no eavesdropping
//! on what the owner has begun. Whoever is not known is asked for at all ports, like a group.
//!
//! A guest with a bridge of its own has many stations behind its port, and one that invents addresses has any number.
//! From [`PER_PORT`] on those go that no flow leads to ([`Stations::thin_out`]), of that port alone, and only then: a
//! station with flows is known as long as they live, so that they end with its port.

use crate::addr::MacAddr;
use std::collections::BTreeMap;

/// Stations behind one port before any is forgotten: a virtual machine that bridges containers has a hundred.
pub const PER_PORT: usize = 1024;

/// What came of a frame that says where its sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is where it was seen before, or has an address that is for others to judge.
    Known,
    /// It was not known before.
    New,
    /// Another port has that station, or it is ours.
    Refused,
}

/// Where stations are.
#[derive(Debug)]
pub struct Stations {
    /// Our own address, which no guest takes over.
    ours: MacAddr,
    ports: BTreeMap<MacAddr, u32>,
    /// The same by port.
    known: BTreeMap<u32, Port>,
    /// A port with more stations than it may have.
    crowded: Option<u32>,
}

#[derive(Debug)]
struct Port {
    /// In the order in which they came.
    stations: Vec<MacAddr>,
    /// So many may be there before some are forgotten.
    limit: usize,
}

impl Stations {
    /// Nobody is known. `ours` is never learnt.
    #[must_use]
    pub const fn new(ours: MacAddr) -> Self {
        Self { ours, ports: BTreeMap::new(), known: BTreeMap::new(), crowded: None }
    }

    /// A frame of `station` came in by `port`. It may not have if another port has that station, or if it is ours. An
    /// address that no station can have is for others to judge.
    pub fn learn(&mut self, station: MacAddr, port: u32) -> Claim {
        if !station.is_unicast() {
            return Claim::Known;
        }
        if station == self.ours {
            return Claim::Refused;
        }
        if let Some(&known) = self.ports.get(&station) {
            return if known == port { Claim::Known } else { Claim::Refused };
        }
        self.ports.insert(station, port);
        let here = self.known.entry(port).or_insert_with(|| Port { stations: Vec::new(), limit: PER_PORT });
        here.stations.push(station);
        if here.stations.len() > here.limit {
            self.crowded = Some(port);
        }
        Claim::New
    }

    /// A port of which some stations are to be forgotten, soon: until then it has as many as come.
    #[must_use]
    pub const fn crowded(&self) -> Option<u32> {
        self.crowded
    }

    /// Forgets stations of `port` that are not `in_use`, but for the latest, half as many as it may have. So this is
    /// asked for again only when as many have come.
    pub fn thin_out(&mut self, port: u32, in_use: impl Fn(MacAddr) -> bool) {
        if self.crowded == Some(port) {
            self.crowded = None;
        }
        let Some(here) = self.known.get_mut(&port) else { return };
        let latest = here.stations.len().saturating_sub(PER_PORT / 2);
        let mut at = 0;
        here.stations.retain(|&station| {
            at += 1;
            let stays = at > latest || in_use(station);
            if !stays {
                self.ports.remove(&station);
            }
            stays
        });
        here.limit = PER_PORT.max(2 * here.stations.len());
    }

    /// By which port it is reached.
    #[must_use]
    pub fn port_of(&self, station: MacAddr) -> Option<u32> {
        self.ports.get(&station).copied()
    }

    /// All that are known, by address, and where.
    pub fn iter(&self) -> impl Iterator<Item = (MacAddr, u32)> {
        self.ports.iter().map(|(station, port)| (*station, *port))
    }

    /// A port is no more: whom it led to.
    pub fn forget(&mut self, port: u32) -> Vec<MacAddr> {
        if self.crowded == Some(port) {
            self.crowded = None;
        }
        let gone = self.known.remove(&port).map_or_else(Vec::new, |port| port.stations);
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
    fn a_station_stays_where_it_was_seen_first_until_that_port_is_gone() {
        let mut stations = Stations::new(OURS);
        assert_eq!(
            (stations.learn(station(1), 7), stations.learn(station(1), 7)),
            (Claim::New, Claim::Known)
        );
        assert_eq!(stations.learn(station(1), 8), Claim::Refused, "somebody else says that it is there");
        assert_eq!((stations.port_of(station(1)), stations.port_of(station(2))), (Some(7), None));
        assert_eq!(stations.forget(8), []);
        assert_eq!(stations.forget(7), [station(1)]);
        assert_eq!(stations.learn(station(1), 8), Claim::New);
        assert_eq!(stations.iter().collect::<Vec<_>>(), [(station(1), 8)]);
    }

    #[test]
    fn nobody_is_us_or_a_group() {
        let mut stations = Stations::new(OURS);
        assert_eq!(stations.learn(OURS, 1), Claim::Refused);
        for mac in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([0; 6])] {
            assert_eq!(stations.learn(mac, 1), Claim::Known, "{mac} is dropped by whoever reads it");
            assert_eq!(stations.port_of(mac), None, "{mac}");
        }
        assert_eq!(stations.forget(1), []);
    }

    /// Every hundredth has a flow.
    #[test]
    fn whoever_invents_stations_forgets_its_own_and_none_that_is_in_use() {
        let in_use = |mac: MacAddr| mac.0[5].is_multiple_of(100);
        let mut stations = Stations::new(OURS);
        stations.learn(station(0), 1);
        let mut rounds = 0;
        for n in 1..20_000 {
            stations.learn(station(n), 2);
            if let Some(port) = stations.crowded() {
                stations.thin_out(port, in_use);
                rounds += 1;
            }
            assert_eq!(stations.crowded(), None);
        }
        assert_eq!(stations.port_of(station(0)), Some(1));
        assert_eq!((stations.port_of(station(1)), stations.port_of(station(19_999))), (None, Some(2)));
        assert!((1..20_000).filter(|&n| in_use(station(n))).all(|n| stations.port_of(station(n)) == Some(2)));
        assert!(rounds <= 20_000 / (PER_PORT / 2), "{rounds}");
        let left = stations.forget(2).len();
        assert!((200..=200 + 2 * PER_PORT).contains(&left), "{left}");
        assert_eq!(stations.ports.len(), 1);
    }

    proptest! {
        #[test]
        fn both_ways_of_looking_agree(steps in prop::collection::vec((0..3000_u16, 0..4_u32, 0..200_u8), 0..6000)) {
            let mut stations = Stations::new(OURS);
            for (n, port, what) in steps {
                let before = stations.port_of(station(n));
                match what {
                    0 => drop(stations.forget(port)),
                    1..10 => stations.thin_out(port, |mac| mac.0[5] & 1 == 0),
                    _ => {
                        let claim = match before {
                            None => Claim::New,
                            Some(before) if before == port => Claim::Known,
                            Some(_) => Claim::Refused,
                        };
                        prop_assert_eq!(stations.learn(station(n), port), claim);
                    }
                }
            }
            let known = stations.known.iter().flat_map(|(port, here)| here.stations.iter().map(move |mac| (*mac, *port)));
            let mut known: Vec<_> = known.collect();
            known.sort_unstable();
            prop_assert_eq!(known, stations.ports.iter().map(|(mac, port)| (*mac, *port)).collect::<Vec<_>>());
        }
    }
}
