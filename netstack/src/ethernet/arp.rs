//! ARP (RFC 826): answering for our own addresses, and asking who the guest is.
//!
//! We answer for what the plan says, the gateway and the DNS address, and for nothing else: all other addresses of the
//! network have no station (they must time out as on a real link), and a probe for the guest's own address (RFC 5227
//! §2.1.1, sender address zero) has to stay without an answer or the guest would give the address up. Remote hosts need
//! no answer, the guest reaches them through the gateway.
//!
//! Whatever a guest says about itself, asked or not, teaches the neighbour cache (RFC 826, "merge flag"; gratuitous
//! ARP, RFC 5227 §3), but never about our own addresses, and about addresses outside of the network only while we ask
//! for one (a forwarding rule may lead there): else a guest could fill the cache with addresses that nobody reaches.

use crate::addr::MacAddr;
use crate::bytes;
use crate::drop_reason::DropReason;
use crate::ip::plan::Family;
use core::net::Ipv4Addr;

/// EtherType of ARP.
pub const ETHERTYPE: u16 = 0x0806;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// An ARP message for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arp {
    /// Who has `target`? Tell `sender`.
    Request {
        /// Who asks. The address is zero in a probe.
        sender: Station,
        /// What is asked for.
        target: Ipv4Addr,
    },
    /// `sender` is at its MAC address.
    Reply {
        /// Who says so.
        sender: Station,
        /// To whom.
        target: Station,
    },
}

/// A pair of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// Hardware address.
    pub mac: MacAddr,
    /// IPv4 address.
    pub ip: Ipv4Addr,
}

/// What came of an ARP message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// For the neighbour cache.
    pub learnt: Option<Station>,
    /// An address that the sender is about to use: it probes for a conflict (RFC 5227 §2.1.1).
    pub claimed: Option<Ipv4Addr>,
    /// Somebody asks for that address, which we answer for: send the frame, unless the guest has it.
    pub answer: Option<(Ipv4Addr, Vec<u8>)>,
}

impl Arp {
    /// Reads the payload of an Ethernet frame; padding behind the message is ignored.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when it is too short or contradicts itself, [`DropReason::UnknownProtocol`]
    /// when it is about another kind of address, or neither request nor reply.
    pub fn parse(payload: &[u8]) -> Result<Self, DropReason> {
        let kind: [u8; 6] = bytes::array(payload, 0).ok_or(DropReason::Malformed)?;
        // Hardware Ethernet (1), protocol IPv4 (0x0800), lengths 6 and 4.
        if kind != [0, 1, 0x08, 0x00, 6, 4] {
            return Err(DropReason::UnknownProtocol);
        }
        let station = |at: usize| {
            Some(Station { mac: MacAddr(bytes::array(payload, at)?), ip: bytes::ipv4(payload, at + 6)? })
        };
        let sender = station(8).ok_or(DropReason::Malformed)?;
        let target = station(18).ok_or(DropReason::Malformed)?;
        match bytes::be16(payload, 6) {
            Some(REQUEST) => Ok(Self::Request { sender, target: target.ip }),
            Some(REPLY) => Ok(Self::Reply { sender, target }),
            _ => Err(DropReason::UnknownProtocol),
        }
    }
}

/// Handles the payload of an ARP frame. `wanted` tells whether we are asking for an address.
///
/// # Errors
/// As [`Arp::parse`]; [`DropReason::Unsolicited`] when it neither teaches nor asks anything of us.
pub fn on_message(
    our_mac: MacAddr,
    v4: &Family<Ipv4Addr>,
    payload: &[u8],
    wanted: impl Fn(Ipv4Addr) -> bool,
) -> Result<Heard, DropReason> {
    let arp = Arp::parse(payload)?;
    let (Arp::Request { sender, .. } | Arp::Reply { sender, .. }) = arp;
    let teaches = may_teach(our_mac, v4, sender) && (v4.is_on_link(sender.ip) || wanted(sender.ip));
    let mut heard = Heard { learnt: teaches.then_some(sender), ..Heard::default() };
    if let Arp::Request { sender, target } = arp {
        let (defended, probe) = (v4.defends(target), sender.ip.is_unspecified());
        let usable = is_host(target) && !defended && v4.alone;
        heard.claimed = (probe && usable && sender.mac.is_unicast()).then_some(target);
        // A sender that asks for what it claims to be announces itself (RFC 5227 §3); that needs no answer.
        let answered = defended || !probe && v4.answers_for(target);
        if answered && target != sender.ip && sender.mac.is_unicast() {
            heard.answer = Some((target, reply(our_mac, target, sender)));
        }
    }
    if heard == Heard::default() { Err(DropReason::Unsolicited) } else { Ok(heard) }
}

fn may_teach(our_mac: MacAddr, v4: &Family<Ipv4Addr>, sender: Station) -> bool {
    let Station { mac, ip } = sender;
    // The only one on the link may have our MAC address for its own.
    let other = v4.alone || mac != our_mac;
    mac.is_unicast() && other && is_host(ip) && ip != v4.network.broadcast() && !v4.defends(ip)
}

/// Whether one host can have `ip`.
const fn is_host(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback()
}

/// The frame that tells `to` that `ip` is at `our_mac`.
#[must_use]
pub fn reply(our_mac: MacAddr, ip: Ipv4Addr, to: Station) -> Vec<u8> {
    frame(REPLY, Station { mac: our_mac, ip }, to.mac, to)
}

/// The frame that asks everybody who has `target`.
#[must_use]
pub fn request(our_mac: MacAddr, our_ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let nobody = MacAddr([0; 6]);
    frame(
        REQUEST,
        Station { mac: our_mac, ip: our_ip },
        MacAddr::BROADCAST,
        Station { mac: nobody, ip: target },
    )
}

fn frame(operation: u16, sender: Station, to: MacAddr, target: Station) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&sender.mac.0);
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 0x08, 0x00, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    for station in [sender, target] {
        frame.extend_from_slice(&station.mac.0);
        frame.extend_from_slice(&station.ip.octets());
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol};

    const OURS: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);
    const GUEST: Station = Station { mac: MacAddr([2, 0, 0, 0, 0, 1]), ip: Ipv4Addr::new(10, 0, 2, 100) };

    fn config() -> Family<Ipv4Addr> {
        crate::testing::config().plan.v4.unwrap()
    }

    fn ask(sender: Station, target: [u8; 4]) -> Result<Heard, DropReason> {
        let frame = request(sender.mac, sender.ip, target.into());
        on_message(OURS, &config(), &frame[14..], |_| false)
    }

    #[test]
    fn gateway_and_dns_are_answered_for_as_smoltcp_reads_it() {
        for target in [[10, 0, 2, 2], [10, 0, 2, 3]] {
            let heard = ask(GUEST, target).unwrap();
            assert_eq!(heard.learnt, Some(GUEST));
            let (_, answer) = heard.answer.unwrap();
            let frame = EthernetFrame::new_checked(&answer[..]).unwrap();
            assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
            assert_eq!((frame.dst_addr().0, frame.src_addr().0), (GUEST.mac.0, OURS.0));
            let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } =
                ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap()
            else {
                panic!("another kind of ARP")
            };
            assert_eq!(operation, ArpOperation::Reply);
            assert_eq!((source_hardware_addr.0, source_protocol_addr.octets()), (OURS.0, target));
        }
    }

    #[test]
    fn nobody_else_is_answered_for() {
        for target in [[10, 0, 2, 4], [10, 0, 2, 100], [10, 0, 2, 255], [8, 8, 8, 8], [0, 0, 0, 0]] {
            assert_eq!(ask(GUEST, target).unwrap().answer, None, "{target:?}");
        }
    }

    #[test]
    fn a_probe_for_the_guests_own_address_stays_silent_and_one_for_ours_does_not() {
        let probe = Station { ip: Ipv4Addr::UNSPECIFIED, ..GUEST };
        assert_eq!(ask(probe, GUEST.ip.octets()), Err(DropReason::Unsolicited));
        let conflict = ask(probe, [10, 0, 2, 2]).unwrap();
        assert!(conflict.answer.is_some());
        assert_eq!(conflict.learnt, None, "a probe is not a claim");
    }

    #[test]
    fn without_a_dns_address_nobody_is_there() {
        let frame = request(GUEST.mac, GUEST.ip, Ipv4Addr::new(10, 0, 2, 3));
        let plan = crate::testing::plan(|slirp| slirp.v4.as_mut().unwrap().dns = None);
        let heard = on_message(OURS, &plan.v4.unwrap(), &frame[14..], |_| false).unwrap();
        assert_eq!(heard.answer, None);
    }

    #[test]
    fn gratuitous_arp_teaches_but_not_about_us() {
        assert_eq!(ask(GUEST, GUEST.ip.octets()).unwrap(), Heard { learnt: Some(GUEST), ..Heard::default() });
        let thief = Station { ip: Ipv4Addr::new(10, 0, 2, 2), ..GUEST };
        assert_eq!(ask(thief, [10, 0, 2, 2]), Err(DropReason::Unsolicited));
        let announced = reply(GUEST.mac, GUEST.ip, Station { mac: MacAddr::BROADCAST, ip: GUEST.ip });
        assert_eq!(on_message(OURS, &config(), &announced[14..], |_| false).unwrap().learnt, Some(GUEST));
        for mac in [MacAddr::BROADCAST, MacAddr([0; 6]), OURS] {
            assert_eq!(ask(Station { mac, ..GUEST }, [10, 0, 2, 9]), Err(DropReason::Unsolicited), "{mac}");
        }
        for ip in [[0, 0, 0, 0], [255; 4], [10, 0, 2, 255], [224, 0, 0, 1], [127, 0, 0, 1]] {
            assert_eq!(
                ask(Station { ip: ip.into(), ..GUEST }, [10, 0, 2, 9]),
                Err(DropReason::Unsolicited),
                "{ip:?}"
            );
        }
    }

    #[test]
    fn short_or_foreign_messages_are_told_apart() {
        let frame = request(GUEST.mac, GUEST.ip, GUEST.ip);
        for cut in 0..28 {
            assert_eq!(Arp::parse(&frame[14..14 + cut]), Err(DropReason::Malformed), "{cut}");
        }
        for (at, value) in [(0, 6), (1, 6), (3, 1), (4, 8), (5, 16), (7, 3), (6, 1)] {
            let mut other = frame[14..].to_vec();
            other[at] = value;
            assert_eq!(Arp::parse(&other), Err(DropReason::UnknownProtocol), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn whatever_smoltcp_accepts_we_read_alike(mut payload in prop::collection::vec(any::<u8>(), 0..64), plausible: bool) {
            if plausible && payload.len() >= 8 {
                payload[..7].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0]);
                payload[7] = payload[7] % 2 + 1;
            }
            let ours = Arp::parse(&payload);
            let theirs = ArpPacket::new_checked(&payload[..]).ok().and_then(|packet| ArpRepr::parse(&packet).ok());
            match (ours, theirs) {
                (Ok(Arp::Request { sender, .. } | Arp::Reply { sender, .. }), Some(ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. })) => {
                    prop_assert_eq!((sender.mac.0, sender.ip), (source_hardware_addr.0, source_protocol_addr));
                }
                (Err(_), Some(ArpRepr::EthernetIpv4 { operation, .. })) => {
                    prop_assert!(matches!(operation, ArpOperation::Unknown(_)));
                }
                (Err(_), None) => {}
                (ours, theirs) => prop_assert!(false, "{:?} {:?}", ours, theirs),
            }
            let _ = on_message(OURS, &config(), &payload, |_| false);
        }
    }
}
