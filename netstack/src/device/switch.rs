//! A learning switch between guests: what becomes of a frame that came by one of several ports (IEEE 802.1Q §8.6).
//!
//! ```text
//!   for us ──────────────────────────▶ the engine
//!   for a group, or for everybody ───▶ the engine, and all ports but the sender's
//!   for a station that is known ─────▶ its port, and nobody else
//!   all others ──────────────────────▶ nobody
//! ```
//! A bridge floods what is for a station that it does not know. Here ports are strangers to each other, and what one
//! of them sends to a neighbour that has just been forgotten is no third one's business; whoever looks for a station
//! asks everybody first, by ARP or neighbour discovery, and the answer teaches. Groups are not filtered by who has
//! joined (RFC 4541): that is what lets neighbour discovery and mDNS work between guests.
//!
//! Which station is where, [`Stations`] has, and its promises hold here: nobody takes an address that another port has,
//! or ours. Nothing behind the Ethernet header is looked at, so frames with VLAN tags cross as they are; the engine
//! knows none.

use super::Stations;
use super::stations::Claim;
use crate::addr::MacAddr;
use crate::headers::ETHERNET_LEN;

/// What becomes of a frame of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The engine gets it.
    Us,
    /// This port gets it.
    Port(u32),
    /// The engine gets it, and all ports but the one it came by.
    Everybody,
    /// Nobody gets it.
    Nobody(Refusal),
}

/// Why nobody gets a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is shorter than an Ethernet header.
    Short,
    /// It comes from an address that no station has: a group's, or none.
    Source,
    /// It comes in the name of a station of another port, or in ours.
    Forged,
    /// It is for a station that is not known.
    Unknown,
    /// It is for a station behind the port it came by, or for that port's own bridge (IEEE 802.1Q §8.6.3).
    Local,
}

/// What is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub way: Way,
    /// Its sender, if that was not known before.
    pub new: Option<MacAddr>,
}

/// The switch, with what it has learnt.
#[derive(Debug)]
pub struct Switch {
    ours: MacAddr,
    stations: Stations,
}

impl Switch {
    /// Nobody is known. `ours` is the engine's address.
    #[must_use]
    pub const fn new(ours: MacAddr) -> Self {
        Self { ours, stations: Stations::new(ours) }
    }

    /// A frame came by `port`.
    pub fn decide(&mut self, port: u32, frame: &[u8]) -> Decision {
        let refused = |refusal| Decision { way: Way::Nobody(refusal), new: None };
        let Some(&[t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, _, _]) =
            frame.first_chunk::<ETHERNET_LEN>()
        else {
            return refused(Refusal::Short);
        };
        let (to, from) = (MacAddr([t0, t1, t2, t3, t4, t5]), MacAddr([f0, f1, f2, f3, f4, f5]));
        if !from.is_unicast() {
            return refused(Refusal::Source);
        }
        let new = match self.stations.learn(from, port) {
            Claim::Refused => return refused(Refusal::Forged),
            Claim::New => Some(from),
            Claim::Known => None,
        };
        Decision { way: self.way(port, to), new }
    }

    fn way(&self, port: u32, to: MacAddr) -> Way {
        if to == self.ours {
            return Way::Us;
        }
        if to.is_multicast() {
            return if is_for_the_next_bridge(to) { Way::Nobody(Refusal::Local) } else { Way::Everybody };
        }
        match self.stations.port_of(to) {
            Some(same) if same == port => Way::Nobody(Refusal::Local),
            Some(other) => Way::Port(other),
            None => Way::Nobody(Refusal::Unknown),
        }
    }

    /// What becomes of a frame of ours.
    #[must_use]
    pub fn decide_ours(&self, frame: &[u8]) -> Way {
        match frame.first_chunk().copied().map(MacAddr) {
            None => Way::Nobody(Refusal::Short),
            Some(to) if to.is_multicast() => Way::Everybody,
            Some(to) => self.stations.port_of(to).map_or(Way::Nobody(Refusal::Unknown), Way::Port),
        }
    }

    /// Which station is where.
    #[must_use]
    pub const fn stations(&self) -> &Stations {
        &self.stations
    }

    /// The same, to change: stations are forgotten, or known from elsewhere.
    pub const fn stations_mut(&mut self) -> &mut Stations {
        &mut self.stations
    }
}

/// IEEE 802.1Q §8.6.3: 01-80-C2-00-00-00 to -0F (spanning tree, pause, link aggregation, LLDP) go no further than the
/// next bridge, which we are and answer none of it.
const fn is_for_the_next_bridge(to: MacAddr) -> bool {
    matches!(to.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: MacAddr = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd]);
    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn frame(to: MacAddr, from: MacAddr) -> Vec<u8> {
        [&to.0[..], &from.0, &[8, 0], &[0; 46]].concat()
    }

    fn way(switch: &mut Switch, port: u32, to: MacAddr, from: MacAddr) -> Way {
        switch.decide(port, &frame(to, from)).way
    }

    #[test]
    fn each_frame_goes_where_it_is_for() {
        let mut switch = Switch::new(OURS);
        assert_eq!(way(&mut switch, 1, OURS, A), Way::Us);
        assert_eq!(way(&mut switch, 1, B, A), Way::Nobody(Refusal::Unknown), "not flooded");
        for group in
            [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 0xfb]), MacAddr([0x33, 0x33, 0, 0, 0, 1])]
        {
            assert_eq!(way(&mut switch, 2, group, B), Way::Everybody, "{group}");
        }
        assert_eq!((way(&mut switch, 1, B, A), way(&mut switch, 2, A, B)), (Way::Port(2), Way::Port(1)));
        assert_eq!(way(&mut switch, 2, B, B), Way::Nobody(Refusal::Local));
        let bridge = MacAddr([1, 0x80, 0xc2, 0, 0, 0x0e]);
        assert_eq!(way(&mut switch, 2, bridge, B), Way::Nobody(Refusal::Local));
        assert_eq!(way(&mut switch, 2, MacAddr([0; 6]), B), Way::Nobody(Refusal::Unknown));
    }

    #[test]
    fn whoever_is_seen_for_the_first_time_is_told_once() {
        let mut switch = Switch::new(OURS);
        assert_eq!(switch.decide(1, &frame(B, A)).new, Some(A), "though nobody got the frame");
        assert_eq!(switch.decide(1, &frame(OURS, A)).new, None);
        assert_eq!(switch.stations_mut().forget(1), [A]);
        assert_eq!(switch.decide(2, &frame(OURS, A)).new, Some(A));
    }

    #[test]
    fn nobody_speaks_for_the_gateway_a_neighbour_or_a_group() {
        let mut switch = Switch::new(OURS);
        assert_eq!(way(&mut switch, 1, OURS, A), Way::Us);
        for (from, refusal) in [
            (OURS, Refusal::Forged),
            (A, Refusal::Forged),
            (MacAddr::BROADCAST, Refusal::Source),
            (MacAddr([0; 6]), Refusal::Source),
        ] {
            for to in [OURS, A, MacAddr::BROADCAST] {
                assert_eq!(switch.decide(2, &frame(to, from)).way, Way::Nobody(refusal), "{from} to {to}");
            }
        }
        assert_eq!(way(&mut switch, 2, A, B), Way::Port(1), "the neighbour is where it was");
    }

    #[test]
    fn what_is_shorter_than_its_header_goes_nowhere_and_teaches_nothing() {
        let mut switch = Switch::new(OURS);
        let whole = frame(OURS, A);
        for len in 0..14 {
            let decision = switch.decide(1, &whole[..len]);
            assert_eq!(decision, Decision { way: Way::Nobody(Refusal::Short), new: None }, "{len}");
        }
        assert_eq!(switch.stations().port_of(A), None);
        assert_eq!(switch.decide(1, &whole[..14]).way, Way::Us);
    }

    #[test]
    fn ours_go_to_whom_they_are_for() {
        let mut switch = Switch::new(OURS);
        switch.decide(7, &frame(OURS, A));
        assert_eq!(switch.decide_ours(&frame(A, OURS)), Way::Port(7));
        assert_eq!(switch.decide_ours(&frame(B, OURS)), Way::Nobody(Refusal::Unknown));
        assert_eq!(switch.decide_ours(&frame(MacAddr::BROADCAST, OURS)), Way::Everybody);
        assert_eq!(switch.decide_ours(&[0; 5]), Way::Nobody(Refusal::Short));
    }
}
