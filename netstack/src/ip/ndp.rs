//! Neighbour discovery for IPv6 (RFC 4861): what the guest asks and tells, and our answers.
//!
//! We answer for the gateway, the DNS address and our own link-local address, and for nothing else: duplicate address
//! detection by the guest (RFC 4862 §5.4) must not find anybody. Router advertisements are built in `within::ra`.
//!
//! Each message is validated as RFC 4861 asks (§6.1.1, §7.1.1, §7.1.2): hop limit 255, checksum, code 0, no option of
//! length zero, and the rules about unspecified and multicast addresses. Advertisements of routers and redirects
//! are not listened to: on this link we are the router. Frames built here are complete, Ethernet header included.

use crate::addr::{MacAddr, solicited_node};
use crate::bytes;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::ip::plan::Family;
use core::net::{IpAddr, Ipv6Addr};

/// EtherType of IPv6.
pub const ETHERTYPE: u16 = 0x86dd;
/// All nodes on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ICMPV6: u8 = 58;
const ROUTER_SOLICIT: u8 = 133;
/// Type of a router advertisement.
pub const ROUTER_ADVERT: u8 = 134;
const NEIGHBOUR_SOLICIT: u8 = 135;
const NEIGHBOUR_ADVERT: u8 = 136;
const REDIRECT: u8 = 137;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// A valid message of neighbour discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ndp {
    /// Is there a router?
    RouterSolicit {
        /// Who asks; unspecified before it has an address.
        from: Ipv6Addr,
        /// Its MAC address, if it says so.
        mac: Option<MacAddr>,
    },
    /// Who has `target`?
    NeighbourSolicit {
        /// Who asks; unspecified when it wants to use `target` itself.
        from: Ipv6Addr,
        /// What is asked for.
        target: Ipv6Addr,
        /// The MAC address of who asks, if it says so.
        mac: Option<MacAddr>,
    },
    /// `target` is here.
    NeighbourAdvert {
        /// The address it is about.
        target: Ipv6Addr,
        /// Its MAC address, if it says so.
        mac: Option<MacAddr>,
        /// Whether it may replace what is known.
        replaces: bool,
    },
}

/// The parts of a packet that a message of neighbour discovery is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Source address of the packet.
    pub src: Ipv6Addr,
    /// Destination address of the packet.
    pub dst: Ipv6Addr,
    /// Its hop limit.
    pub hops: u8,
    /// Whether somebody trustworthy has already seen to the checksum.
    pub verified: bool,
    /// The ICMPv6 message.
    pub bytes: &'a [u8],
}

/// Whether an ICMPv6 type belongs to neighbour discovery.
#[must_use]
pub const fn is_ndp(kind: u8) -> bool {
    matches!(kind, ROUTER_SOLICIT..=REDIRECT)
}

impl Ndp {
    /// Reads and validates a message.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] or [`DropReason::Checksum`] when it is not valid; [`DropReason::Unsolicited`] when it
    /// is one that only a router sends.
    pub fn parse(message: Message<'_>) -> Result<Self, DropReason> {
        let Message { src, dst, hops, verified, bytes: data } = message;
        // A packet from beyond the link cannot have 255: each router takes one off.
        if hops != 255 {
            return Err(DropReason::Malformed);
        }
        let [kind, code, _, _] = bytes::array(data, 0).ok_or(DropReason::Malformed)?;
        if !verified && !checksum::transport_fits(src.into(), dst.into(), ICMPV6, data) {
            return Err(DropReason::Checksum);
        }
        let options_at = match kind {
            ROUTER_SOLICIT => 8,
            NEIGHBOUR_SOLICIT | NEIGHBOUR_ADVERT => 24,
            _ => return Err(DropReason::Unsolicited),
        };
        let options = data.get(options_at..).ok_or(DropReason::Malformed)?;
        let wanted = if kind == NEIGHBOUR_ADVERT { TARGET_LINK_LAYER } else { SOURCE_LINK_LAYER };
        let mac = link_layer_option(options, wanted)?;
        let target = bytes::ipv6(data, 8).unwrap_or(Ipv6Addr::UNSPECIFIED);
        let valid = code == 0
            && match kind {
                ROUTER_SOLICIT => !(src.is_unspecified() && mac.is_some()),
                NEIGHBOUR_SOLICIT => {
                    let blank = src.is_unspecified();
                    !target.is_multicast() && !(blank && (mac.is_some() || dst != solicited_node(target)))
                }
                _ => {
                    let solicited = bytes::byte(data, 4).is_some_and(|flags| flags & 0x40 != 0);
                    !(target.is_multicast() || dst.is_multicast() && solicited)
                }
            };
        if !valid || src.is_multicast() {
            return Err(DropReason::Malformed);
        }
        Ok(match kind {
            ROUTER_SOLICIT => Self::RouterSolicit { from: src, mac },
            NEIGHBOUR_SOLICIT => Self::NeighbourSolicit { from: src, target, mac },
            _ => {
                let replaces = bytes::byte(data, 4).is_some_and(|flags| flags & 0x20 != 0);
                Self::NeighbourAdvert { target, mac, replaces }
            }
        })
    }
}

/// The link-layer address option of kind `wanted`; all options are checked.
fn link_layer_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DropReason> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        // RFC 4861 §4.6: an option of length zero makes the whole packet invalid.
        let (option, rest) =
            options.split_at_checked(len).filter(|_| len != 0).ok_or(DropReason::Malformed)?;
        if kind == wanted && len == 8 {
            found = bytes::array(option, 2).map(MacAddr);
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(DropReason::Malformed) }
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// For the neighbour cache.
    pub learnt: Option<(Ipv6Addr, MacAddr)>,
    /// An address that the sender is about to use: it probes for a duplicate (RFC 4862 §5.4).
    pub claimed: Option<Ipv6Addr>,
    /// What to answer.
    pub answer: Answer,
}

/// What to answer to a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// Nothing.
    #[default]
    Nothing,
    /// Somebody asks for `target`, which we answer for: send `frame`, unless the guest has it.
    Neighbour {
        /// What is asked for.
        target: Ipv6Addr,
        /// The answer.
        frame: Vec<u8>,
    },
    /// The guest looks for a router: hand it to [`crate::within::ra::Advertiser::on_solicit`].
    Router {
        /// Who asks; unspecified if it has no address yet.
        from: Ipv6Addr,
        /// Where its frames come from.
        mac: MacAddr,
    },
}

/// Handles a message that came in a frame from `frame_from`. `wanted` tells whether we are asking for an address; one
/// that is neither on the link nor asked for teaches nothing.
///
/// # Errors
/// As [`Ndp::parse`]; [`DropReason::Unsolicited`] when it neither teaches nor asks anything of us.
pub fn on_message(
    our_mac: MacAddr,
    v6: &Family<Ipv6Addr>,
    frame_from: MacAddr,
    message: Message<'_>,
    wanted: impl Fn(Ipv6Addr) -> bool,
) -> Result<Heard, DropReason> {
    let mut heard = Heard::default();
    let may_teach = |ip: Ipv6Addr, mac: MacAddr| {
        let usable = !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
        let near = v6.is_on_link(ip) || ip.is_unicast_link_local() || wanted(ip);
        // The only one on the link may have our MAC address for its own.
        let other = v6.alone || mac != our_mac;
        (usable && near && mac.is_unicast() && other && !v6.defends(ip)).then_some((ip, mac))
    };
    match Ndp::parse(message)? {
        Ndp::RouterSolicit { from, mac } => {
            heard.learnt = mac.and_then(|mac| may_teach(from, mac));
            heard.answer = Answer::Router { from, mac: frame_from };
        }
        Ndp::NeighbourSolicit { from, target, mac } => {
            heard.learnt = mac.and_then(|mac| may_teach(from, mac));
            let (defended, probe) = (v6.defends(target), from.is_unspecified());
            heard.claimed = (probe && !defended).then_some(target);
            if (defended || !probe && v6.answers_for(target)) && from != target {
                let frame = neighbour_advert(our_mac, target, from, frame_from);
                heard.answer = Answer::Neighbour { target, frame };
            }
        }
        // RFC 4861 §7.2.5 keeps a known address when the override flag is clear; there is no harm in following a guest
        // that moved anyway, and an advertisement without the option (§4.4) confirms nothing that we track.
        Ndp::NeighbourAdvert { target, mac, .. } => heard.learnt = mac.and_then(|mac| may_teach(target, mac)),
    }
    if heard == Heard::default() { Err(DropReason::Unsolicited) } else { Ok(heard) }
}

/// The frame that tells `to` (at `to_mac`) that `target` is at `our_mac`.
///
/// To the unspecified address, that is to a guest which probes for a duplicate, it goes to all nodes (RFC 4861 §7.2.4).
#[must_use]
pub fn neighbour_advert(our_mac: MacAddr, target: Ipv6Addr, to: Ipv6Addr, to_mac: MacAddr) -> Vec<u8> {
    const ROUTER: u8 = 0x80;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let (to, to_mac, flags) = if to.is_unspecified() {
        (ALL_NODES, MacAddr::for_multicast(IpAddr::V6(ALL_NODES)), ROUTER | OVERRIDE)
    } else {
        (to, to_mac, ROUTER | SOLICITED | OVERRIDE)
    };
    let message = neighbour_message(NEIGHBOUR_ADVERT, flags, target, TARGET_LINK_LAYER, our_mac);
    icmpv6_frame(our_mac, to_mac, target, to, &message)
}

/// The frame that asks who has `target`, from `our_ip`.
#[must_use]
pub fn neighbour_solicit(our_mac: MacAddr, our_ip: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let to = solicited_node(target);
    let message = neighbour_message(NEIGHBOUR_SOLICIT, 0, target, SOURCE_LINK_LAYER, our_mac);
    icmpv6_frame(our_mac, MacAddr::for_multicast(IpAddr::V6(to)), our_ip, to, &message)
}

fn neighbour_message(kind: u8, flags: u8, target: Ipv6Addr, option: u8, mac: MacAddr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&target.octets());
    message.extend_from_slice(&[option, 1]);
    message.extend_from_slice(&mac.0);
    message
}

/// A complete frame around an ICMPv6 message whose checksum field is still zero, with hop limit 255.
#[must_use]
pub fn icmpv6_frame(
    from_mac: MacAddr,
    to_mac: MacAddr,
    from: Ipv6Addr,
    to: Ipv6Addr,
    message: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(54 + message.len());
    frame.extend_from_slice(&to_mac.0);
    frame.extend_from_slice(&from_mac.0);
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    let [l0, l1] = bytes::len16(message.len()).to_be_bytes();
    frame.extend_from_slice(&[0x60, 0, 0, 0, l0, l1, ICMPV6, 255]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(message);
    let sum = checksum::transport(from.into(), to.into(), ICMPV6, message);
    bytes::put(&mut frame, 56, sum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{Icmpv6Packet, Ipv6Packet, NdiscNeighborFlags, NdiscRepr};

    const OURS: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);
    const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn config() -> Family<Ipv6Addr> {
        crate::testing::config().plan.v6.unwrap()
    }

    /// The message inside a frame built here.
    fn message(frame: &[u8]) -> Message<'_> {
        Message {
            src: bytes::ipv6(frame, 22).unwrap(),
            dst: bytes::ipv6(frame, 38).unwrap(),
            hops: frame[21],
            verified: false,
            bytes: &frame[54..],
        }
    }

    fn hear(frame: &[u8]) -> Result<Heard, DropReason> {
        on_message(OURS, &config(), GUEST, message(frame), |_| false)
    }

    /// A probe for a duplicate of `target`.
    fn probe(target: Ipv6Addr) -> Vec<u8> {
        let mut message = vec![NEIGHBOUR_SOLICIT, 0, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&target.octets());
        let to = solicited_node(target);
        icmpv6_frame(GUEST, MacAddr::for_multicast(to.into()), Ipv6Addr::UNSPECIFIED, to, &message)
    }

    fn read_advert(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, NdiscNeighborFlags, Ipv6Addr) {
        let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!(packet.hop_limit(), 255);
        let icmp = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        assert!(icmp.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
        let NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } = NdiscRepr::parse(&icmp).unwrap()
        else {
            panic!("not an advertisement")
        };
        assert_eq!(lladdr.unwrap().as_bytes(), OURS.0);
        (packet.src_addr(), packet.dst_addr(), flags, target_addr)
    }

    #[test]
    fn our_addresses_are_answered_for_as_smoltcp_reads_it() {
        let guest = ip("fd00::1234");
        for ours in [ip("fd00::2"), ip("fd00::3"), OURS.link_local()] {
            let heard = hear(&neighbour_solicit(GUEST, guest, ours)).unwrap();
            assert_eq!(heard.learnt, Some((guest, GUEST)));
            let Answer::Neighbour { frame, .. } = heard.answer else { panic!("no answer for {ours}") };
            assert_eq!(&frame[..12], [GUEST.0, OURS.0].concat());
            let (src, dst, flags, target) = read_advert(&frame);
            assert_eq!((src, dst, target), (ours, guest, ours));
            assert_eq!(
                flags,
                NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE
            );
        }
    }

    #[test]
    fn nobody_else_is_answered_for() {
        for other in ["fd00::4", "fe80::1", "2001:db8::1"] {
            let heard = hear(&neighbour_solicit(GUEST, ip("fd00::1234"), ip(other))).unwrap();
            assert_eq!(heard.answer, Answer::Nothing, "{other}");
        }
    }

    #[test]
    fn duplicate_detection_finds_only_us() {
        let free = hear(&probe(ip("fd00::1234"))).unwrap();
        assert_eq!((free.claimed, free.answer), (Some(ip("fd00::1234")), Answer::Nothing));
        let taken = hear(&probe(ip("fd00::2"))).unwrap();
        assert_eq!(taken.claimed, None);
        let Answer::Neighbour { frame, .. } = taken.answer else { panic!("no answer") };
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        let (_, dst, flags, _) = read_advert(&frame);
        assert_eq!(dst, ALL_NODES);
        assert!(!flags.contains(NdiscNeighborFlags::SOLICITED));
    }

    #[test]
    fn advertisements_teach_but_not_about_us() {
        let target = ip("fd00::1234");
        let frame = neighbour_advert(GUEST, target, ip("fd00::2"), OURS);
        assert_eq!(hear(&frame).unwrap().learnt, Some((target, GUEST)));
        assert_eq!(
            hear(&neighbour_advert(GUEST, ip("fd00::2"), ip("fd00::2"), OURS)),
            Err(DropReason::Unsolicited)
        );
    }

    #[test]
    fn router_solicitations_are_passed_on() {
        let with_mac: &[u8] = &[133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1];
        let from = GUEST.link_local();
        let heard = hear(&icmpv6_frame(GUEST, OURS, from, ip("ff02::2"), with_mac)).unwrap();
        assert_eq!(heard.answer, Answer::Router { from, mac: GUEST });
        assert_eq!(heard.learnt, Some((from, GUEST)));
        let blank =
            hear(&icmpv6_frame(GUEST, OURS, Ipv6Addr::UNSPECIFIED, ip("ff02::2"), &with_mac[..8])).unwrap();
        assert_eq!(blank.learnt, None);
        let lying = hear(&icmpv6_frame(GUEST, OURS, Ipv6Addr::UNSPECIFIED, ip("ff02::2"), with_mac));
        assert_eq!(lying, Err(DropReason::Malformed));
    }

    /// One rule of RFC 4861 §7.1 broken at a time.
    #[test]
    fn invalid_messages_are_dropped() {
        let good = neighbour_solicit(GUEST, ip("fd00::1234"), ip("fd00::2"));
        let inner = good[54..].to_vec();
        let rebuilt = |inner: &[u8], src: &str, dst: &str| {
            let mut inner = inner.to_vec();
            inner[2..4].fill(0);
            hear(&icmpv6_frame(GUEST, OURS, ip(src), ip(dst), &inner))
        };
        let node = "ff02::1:ff00:2";
        assert!(rebuilt(&inner, "fd00::1234", node).is_ok());
        let malformed = Err(DropReason::Malformed);
        let mut far = good.clone();
        far[21] = 254;
        assert_eq!(hear(&far), malformed);
        let mut broken = good.clone();
        broken[60] ^= 1;
        assert_eq!(hear(&broken), Err(DropReason::Checksum));
        assert!(
            on_message(OURS, &config(), GUEST, Message { verified: true, ..message(&good) }, |_| false)
                .is_ok()
        );
        for (at, value) in [(1, 1), (8, 0xff), (25, 0), (25, 2)] {
            let mut changed = inner.clone();
            changed[at] = value;
            assert_eq!(rebuilt(&changed, "fd00::1234", node), malformed, "byte {at}");
        }
        assert_eq!(rebuilt(&inner, "::", node), malformed, "unspecified source with an option");
        assert_eq!(rebuilt(&inner[..24], "::", "ff02::1"), malformed, "probe outside its group");
        assert_eq!(rebuilt(&inner, "ff02::1", node), malformed, "multicast source");
        assert_eq!(rebuilt(&[&inner[..], &[0]].concat(), "fd00::1234", node), malformed, "half an option");
        for cut in 4..24 {
            assert_eq!(rebuilt(&inner[..cut], "fd00::1234", node), malformed, "{cut}");
        }
        let mut advert = neighbour_advert(GUEST, ip("fd00::1234"), ip("fd00::2"), OURS)[54..].to_vec();
        assert_eq!(rebuilt(&advert, "fd00::1234", "ff02::1"), malformed, "solicited, yet to a group");
        advert[0] = ROUTER_ADVERT;
        assert_eq!(rebuilt(&advert, "fd00::1234", "ff02::1"), Err(DropReason::Unsolicited));
        advert[0] = REDIRECT;
        assert_eq!(rebuilt(&advert, "fd00::1234", "fd00::2"), Err(DropReason::Unsolicited));
    }

    proptest! {
        // Only kinds whose length smoltcp leaves alone: it refuses a message for the sake of a long MTU option.
        #[test]
        fn what_we_accept_smoltcp_accepts(kind in 133_u8..=136, flags: u8, options in prop::collection::vec((prop::sample::select(vec![0_u8, 1, 2, 6, 14, 255]), 0_u8..4), 0..5), tail in 0_usize..3) {
            let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
            if kind > 134 { body.extend_from_slice(&ip("fd00::9").octets()); }
            for (option, units) in options {
                body.extend_from_slice(&[option, units]);
                body.resize(body.len() + (usize::from(units) * 8).saturating_sub(2), 7);
            }
            body.resize(body.len() + tail, 0);
            let frame = icmpv6_frame(GUEST, OURS, ip("fd00::1234"), ip("fd00::2"), &body);
            let ours = Ndp::parse(message(&frame));
            if ours.is_ok() {
                let icmp = Icmpv6Packet::new_checked(&frame[54..]).unwrap();
                prop_assert!(NdiscRepr::parse(&icmp).is_ok());
            }
        }

        #[test]
        fn random_messages_never_panic(src: [u8; 16], dst: [u8; 16], kind: u8, data: Vec<u8>) {
            let mut data = data;
            if let Some(first) = data.first_mut() { *first = 130 + kind % 10; }
            let message = Message { src: src.into(), dst: dst.into(), hops: 255, verified: true, bytes: &data };
            let _ = on_message(OURS, &config(), GUEST, message, |_| false);
        }
    }
}
