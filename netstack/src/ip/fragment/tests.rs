//! Fragments there and back, against etherparse, against hostile orders, and against the bounds.

use super::*;
use etherparse::PacketBuilder;
use proptest::prelude::*;

const SRC: [u8; 4] = [10, 0, 2, 100];
const DST: [u8; 4] = [203, 0, 113, 7];
const SRC6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x64];
const DST6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// A UDP datagram of `len` bytes of payload that counts upwards, not to be mistaken for any other place of it.
fn udp(v6: bool, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| u8::try_from(n * 7 / 5 % 251).unwrap()).collect();
    let builder = if v6 { PacketBuilder::ipv6(SRC6, DST6, 64) } else { PacketBuilder::ipv4(SRC, DST, 64) };
    let builder = builder.udp(1000, 2000);
    let mut packet = Vec::new();
    builder.write(&mut packet, &payload).unwrap();
    if !v6 {
        packet[6] = 0; // etherparse sets "don't fragment".
        fix_v4(&mut packet);
    }
    packet
}

fn fix_v4(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header_len = usize::from(packet[0] & 15) * 4;
    let sum = checksum::finish(checksum::sum(&packet[..header_len]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let count = fragment(packet, mtu, 0x0102_0304, |piece| pieces.push(piece.to_vec())).unwrap();
    assert_eq!(count, pieces.len());
    pieces
}

/// What the identification of IPv4 becomes when it is cut.
fn named(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[4..6].copy_from_slice(&[3, 4]);
        fix_v4(&mut packet);
    }
    packet
}

fn feed(reassembler: &mut Reassembler, pieces: &[Vec<u8>]) -> Vec<Reassembled> {
    pieces.iter().map(|piece| reassembler.insert(at(1), piece)).collect()
}

#[test]
fn what_is_cut_comes_together_again() {
    for v6 in [false, true] {
        for (len, mtu) in [(3000, 1500), (3000, 1280), (65_000, 1500), (1472, 1280), (9000, 8999)] {
            let packet = udp(v6, len);
            let pieces = cut(&packet, mtu);
            assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= mtu));
            let mut reassembler = Reassembler::new();
            let mut results = feed(&mut reassembler, &pieces);
            assert_eq!(results.pop(), Some(Reassembled::Complete(named(packet))));
            assert!(results.iter().all(|result| *result == Reassembled::Waiting));
            assert_eq!((reassembler.cost, reassembler.next_timeout()), (0, None));
        }
    }
}

#[test]
fn etherparse_reads_and_joins_our_fragments() {
    for v6 in [false, true] {
        let packet = udp(v6, 5000);
        let mut pool = etherparse::defrag::IpDefragPool::<(), ()>::new();
        let mut whole = None;
        for piece in cut(&packet, 1280) {
            let sliced = etherparse::SlicedPacket::from_ip(&piece).unwrap();
            assert!(sliced.is_ip_payload_fragmented());
            if let Some(done) = pool.process_sliced_packet(&sliced, (), ()).unwrap() {
                whole = Some(done.payload);
            }
        }
        let header_len = if v6 { 40 } else { 20 };
        assert_eq!(whole.unwrap(), packet[header_len..]);
    }
}

#[test]
fn what_fits_is_left_as_it_is() {
    for v6 in [false, true] {
        let packet = udp(v6, 1000);
        assert_eq!(cut(&packet, packet.len()), std::slice::from_ref(&packet));
        let mut padded = packet.clone();
        padded.extend_from_slice(&[0; 20]);
        assert_eq!(cut(&padded, packet.len()), [packet], "without Ethernet padding");
    }
}

#[test]
fn packets_that_must_not_or_cannot_be_cut() {
    let refuse = |packet: &[u8], mtu| fragment(packet, mtu, 1, |_| panic!("emitted")).unwrap_err();
    let mut packet = udp(false, 2000);
    assert_eq!(refuse(&packet, 27), Uncut::NoRoom);
    packet[6] = 0x40;
    assert_eq!(refuse(&packet, 1500), Uncut::TooBig);
    assert_eq!(refuse(&packet[..100], 1500), Uncut::Malformed);
    packet[0] = 0x44;
    assert_eq!(refuse(&packet, 1500), Uncut::Malformed);
    let packet = udp(true, 2000);
    assert_eq!(refuse(&packet, 55), Uncut::NoRoom);
    let mut pieces = cut(&packet, 1500);
    assert_eq!(refuse(&pieces.remove(0), 1280), Uncut::TooBig);
    for bad in [&[][..], &[0x45], &[0x60; 39], &[0x10; 60]] {
        assert_eq!(refuse(bad, 1500), Uncut::Malformed);
    }
}

#[test]
fn the_engine_cuts_its_own_datagrams() {
    use crate::frame::{Envelope, Transport, assemble};
    use crate::testing::{self, GUEST, OURS};
    let mut engine = crate::Engine::new(testing::config());
    for (src, dst) in [("203.0.113.7:53", "10.0.2.100:4000"), ("[2001:db8::7]:53", "[fd00::64]:4000")] {
        let env = Envelope {
            to_mac: GUEST,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            hops: 64,
            traffic_class: 0,
            ident: None,
        };
        let header = [0, 53, 15, 160, 11, 192, 0, 0];
        let transport = Transport::udp(&header);
        let whole = assemble(OURS, &env, &transport, &[7; 3000]);
        let frames = engine.frames(&env, &transport, &[7; 3000]);
        assert_eq!(frames.len(), 3, "{src}");
        let mut reassembler = Reassembler::new();
        let last = frames.iter().map(|frame| reassembler.insert(at(0), &frame[14..])).last();
        let Some(Reassembled::Complete(packet)) = last else { panic!("not complete: {last:?}") };
        let payload_at = if src.starts_with('[') { 40 } else { 20 };
        assert_eq!(packet[payload_at..], whole[14 + payload_at..]);
    }
}

#[test]
fn a_v4_fragment_may_be_cut_again() {
    let packet = udp(false, 5000);
    let mut reassembler = Reassembler::new();
    let pieces: Vec<_> = cut(&packet, 1500).iter().flat_map(|piece| cut(piece, 576)).collect();
    assert!(pieces.iter().all(|piece| piece.len() <= 576));
    assert_eq!(feed(&mut reassembler, &pieces).pop(), Some(Reassembled::Complete(named(packet))));
}

#[test]
fn v4_options_are_copied_as_they_say() {
    let mut packet = udp(false, 2000);
    // Loose source route (copied), record route (not), end of list.
    let options = [0x83, 3, 4, 7, 7, 4, 5, 5, 5, 5, 0, 0];
    packet.splice(20..20, options);
    packet[0] = 0x48;
    packet[2..4].copy_from_slice(&2040_u16.to_be_bytes());
    fix_v4(&mut packet);
    let pieces = cut(&packet, 1500);
    assert_eq!(pieces[0][20..32], options);
    assert_eq!((pieces[1][0], &pieces[1][20..24]), (0x46, &[0x83, 3, 4, 0][..]));
    assert!(pieces.iter().all(|piece| checksum::fits(&piece[..usize::from(piece[0] & 15) * 4])));
    assert_eq!(feed(&mut Reassembler::new(), &pieces).pop(), Some(Reassembled::Complete(named(packet))));
}

#[test]
fn v6_headers_for_the_way_are_repeated_and_the_others_cut() {
    let mut packet = udp(true, 3000);
    let ways = [60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 4, 0, 0, 0, 0, 0]; // hop, dest, routing
    let own = [17, 0, 1, 4, 0, 0, 0, 0];
    packet.splice(40..40, [&ways[..], &own].concat());
    packet[6] = 0;
    packet[4..6].copy_from_slice(&(3008_u16 + 32).to_be_bytes());
    let pieces = cut(&packet, 1280);
    for piece in &pieces {
        assert_eq!(piece[40 + 16], FRAGMENT_NUMBER, "named by the routing header");
        assert_eq!(piece[64], 60, "behind it come destination options");
    }
    assert_eq!(feed(&mut Reassembler::new(), &pieces).pop(), Some(Reassembled::Complete(packet)));
}

const FRAGMENT_NUMBER: u8 = 44;

#[test]
fn whole_packets_and_atomic_fragments_pass_at_once() {
    for v6 in [false, true] {
        let packet = udp(v6, 500);
        let mut reassembler = Reassembler::new();
        assert_eq!(reassembler.insert(at(0), &packet), Reassembled::Complete(packet));
    }
    let packet = udp(true, 500);
    let mut atomic = packet.clone();
    atomic.splice(40..40, [17, 0, 0, 0, 1, 2, 3, 4]);
    atomic[6] = 44;
    atomic[4..6].copy_from_slice(&516_u16.to_be_bytes());
    let mut reassembler = Reassembler::new();
    reassembler.insert(at(0), &cut(&udp(true, 3000), 1280)[0]);
    assert_eq!(reassembler.insert(at(0), &atomic), Reassembled::Complete(packet));
    assert_eq!(reassembler.datagrams.len(), 1, "of the same identification, yet not of the same datagram");
}

#[test]
fn an_overlap_discards_the_datagram_and_its_rest() {
    for v6 in [false, true] {
        let pieces = cut(&udp(v6, 5000), 1500);
        let mut reassembler = Reassembler::new();
        assert_eq!(reassembler.insert(at(0), &pieces[0]), Reassembled::Waiting);
        let mut overlap = pieces[1].clone();
        if v6 {
            overlap[43] -= 8;
        } else {
            overlap[7] -= 1;
        }
        assert_eq!(reassembler.insert(at(0), &overlap), Reassembled::Dropped(DropReason::Fragment));
        for piece in &pieces {
            assert_eq!(reassembler.insert(at(1), piece), Reassembled::Dropped(DropReason::Fragment));
        }
        assert_eq!(reassembler.cost, 0);
        assert_eq!(reassembler.expire(at(15)), None, "no error is due for it");
        assert_eq!(reassembler.next_timeout(), None);
        assert!(
            matches!(feed(&mut reassembler, &pieces).pop(), Some(Reassembled::Complete(_))),
            "then it may come anew"
        );
    }
}

#[test]
fn the_same_place_with_other_bytes_is_an_overlap() {
    let pieces = cut(&udp(false, 5000), 1500);
    let mut reassembler = Reassembler::new();
    reassembler.insert(at(0), &pieces[0]);
    assert_eq!(reassembler.insert(at(0), &pieces[0]), Reassembled::Waiting);
    let mut other = pieces[0].clone();
    other[100] ^= 1;
    assert_eq!(reassembler.insert(at(0), &other), Reassembled::Dropped(DropReason::Fragment));
}

#[test]
fn nothing_lies_behind_the_end_and_there_is_one_end() {
    let pieces = cut(&udp(false, 5000), 1500);
    let refused = Reassembled::Dropped(DropReason::Fragment);
    // The second piece claims to be the last one although the third lies behind it; in both orders.
    let mut early_end = pieces[1].clone();
    early_end[6] &= !0x20;
    for order in [[&early_end, &pieces[2]], [&pieces[2], &early_end]] {
        let mut reassembler = Reassembler::new();
        assert_eq!(reassembler.insert(at(0), order[0]), Reassembled::Waiting);
        assert_eq!(reassembler.insert(at(0), order[1]), refused);
    }
    let mut reassembler = Reassembler::new();
    assert_eq!(reassembler.insert(at(0), &early_end), Reassembled::Waiting);
    assert_eq!(reassembler.insert(at(0), &pieces[3]), refused, "a second end");
}

#[test]
fn impossible_fragments_are_refused() {
    let refused = Reassembled::Dropped(DropReason::Fragment);
    let malformed = Reassembled::Dropped(DropReason::Malformed);
    let pieces = cut(&udp(false, 5000), 1500);
    let change = |at: usize, value: u8| {
        let mut piece = pieces[0].clone();
        piece[at] = value;
        Reassembler::new().insert(Instant::ZERO, &piece)
    };
    assert_eq!(change(3, pieces[0][3] - 1), refused, "not a multiple of eight");
    assert_eq!(change(0, 0x46), refused, "header longer, so no multiple either");
    assert_eq!(change(0, 0x44), malformed);
    assert_eq!(change(2, 0xff), malformed, "longer than the frame");
    let mut late = pieces[0].clone();
    late[6..8].copy_from_slice(&0x3fff_u16.to_be_bytes());
    assert_eq!(Reassembler::new().insert(Instant::ZERO, &late), refused, "beyond 65535");
    let mut empty = pieces[0].clone();
    empty[2..4].copy_from_slice(&20_u16.to_be_bytes());
    assert_eq!(Reassembler::new().insert(Instant::ZERO, &empty), refused, "no data");
    let pieces = cut(&udp(true, 5000), 1500);
    let mut late = pieces[1].clone();
    late[42..44].copy_from_slice(&0xfff9_u16.to_be_bytes());
    assert_eq!(Reassembler::new().insert(Instant::ZERO, &late), refused, "beyond 65535");
    for cut in 0..48 {
        assert_eq!(Reassembler::new().insert(Instant::ZERO, &pieces[0][..cut]), malformed, "{cut}");
    }
}

#[test]
fn time_runs_from_the_first_piece_and_quotes_it() {
    for v6 in [false, true] {
        let packet = udp(v6, 5000);
        let pieces = cut(&packet, 1500);
        let mut reassembler = Reassembler::new();
        reassembler.insert(at(0), &pieces[0]);
        reassembler.insert(at(10), &pieces[1]);
        assert_eq!(reassembler.next_timeout(), Some(at(15)));
        assert_eq!(reassembler.expire(Instant::from_micros(14_999_999)), None);
        let first = reassembler.expire(at(15)).unwrap().first.unwrap();
        let header_len = if v6 { 40 } else { 20 };
        assert_eq!(first[header_len..], packet[header_len..header_len + first.len() - header_len]);
        assert!(!v6 || first[6] == 17);
        assert!(etherparse::IpSlice::from_slice(&first).is_ok());
        reassembler.insert(at(20), &pieces[1]);
        assert_eq!(
            reassembler.expire(at(35)),
            Some(Expired { first: None }),
            "without the first piece, no quote"
        );
        assert_eq!(reassembler.expire(at(35)), None);
        assert_eq!(reassembler.cost, 0);
    }
}

#[test]
fn an_old_datagram_does_not_mix_with_a_new_one_of_its_name() {
    let pieces = cut(&udp(false, 2000), 1500);
    let mut reassembler = Reassembler::new();
    reassembler.insert(at(0), &pieces[0]);
    // Nobody called `expire` in between.
    assert_eq!(reassembler.insert(at(16), &pieces[1]), Reassembled::Waiting);
    assert_eq!(reassembler.next_timeout(), Some(at(31)));
}

#[test]
fn a_flood_of_first_halves_stays_within_bounds_and_harms_only_the_oldest() {
    let mut reassembler = Reassembler::new();
    let victim = cut(&udp(true, 3000), 1500);
    let half = cut(&udp(false, 60_000), 65_000 / 2).remove(0);
    for n in 0..1000_u16 {
        let mut half = half.clone();
        half[4..6].copy_from_slice(&n.to_be_bytes());
        assert_eq!(reassembler.insert(at(0), &half), Reassembled::Waiting);
        assert!(reassembler.cost <= MEMORY && reassembler.datagrams.len() <= DATAGRAMS);
    }
    assert!(reassembler.take_evicted() > 900);
    assert!(
        matches!(feed(&mut reassembler, &victim).pop(), Some(Reassembled::Complete(_))),
        "a newcomer gets through"
    );
    let mut reassembler = Reassembler::new();
    let tiny = cut(&udp(false, 100), 40).remove(0);
    for n in 0..1000_u16 {
        let mut tiny = tiny.clone();
        tiny[4..6].copy_from_slice(&n.to_be_bytes());
        reassembler.insert(at(0), &tiny);
    }
    assert_eq!((reassembler.datagrams.len(), reassembler.take_evicted()), (DATAGRAMS, 936));
}

#[test]
fn a_datagram_in_a_thousand_crumbs_is_refused() {
    let pieces = cut(&udp(false, 20_000), 28);
    let mut reassembler = Reassembler::new();
    let results = feed(&mut reassembler, &pieces);
    assert_eq!(results.iter().filter(|result| **result == Reassembled::Waiting).count(), PIECES);
    assert_eq!(reassembler.cost, 0, "what it held is free again");
}

#[test]
fn a_congestion_mark_on_one_fragment_marks_the_whole() {
    let mark = |v6: bool, packet: &mut [u8], bits: u8| {
        if v6 {
            packet[1] = packet[1] & 0xcf | bits << 4;
        } else {
            packet[1] = bits;
            fix_v4(packet);
        }
    };
    for v6 in [false, true] {
        for (sender, expected) in [(1, 3), (2, 3), (0, 0)] {
            let mut packet = udp(v6, 3000);
            mark(v6, &mut packet, sender);
            let mut pieces = cut(&packet, 1500);
            mark(v6, &mut pieces[1], 3);
            let Some(Reassembled::Complete(whole)) = feed(&mut Reassembler::new(), &pieces).pop() else {
                panic!("not complete")
            };
            mark(v6, &mut packet, expected);
            assert_eq!(whole, named(packet), "{sender}");
        }
    }
}

proptest! {
    #[test]
    fn any_order_with_duplicates_gives_the_packet_once(
        v6: bool, len in 1300_usize..20_000, mtu: prop::sample::Index,
        shuffle in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let packet = udp(v6, len);
        let mut pieces = cut(&packet, 600 + mtu.index(len - 600));
        prop_assert!(pieces.len() > 1);
        for pair in shuffle.chunks_exact(2) {
            let (a, b) = (pair[0].index(pieces.len()), pair[1].index(pieces.len()));
            pieces.swap(a, b);
        }
        let copies: Vec<_> = shuffle.iter().take(5).map(|at| at.index(pieces.len())).collect();
        // The last one to arrive completes it, so each duplicate comes at some place before that.
        for copy in copies {
            let piece = pieces[copy].clone();
            pieces.insert(copy.min(pieces.len() - 1), piece);
        }
        let mut reassembler = Reassembler::new();
        let mut whole = Vec::new();
        for piece in &pieces {
            match reassembler.insert(at(0), piece) {
                Reassembled::Complete(packet) => whole.push(packet),
                Reassembled::Waiting => {}
                Reassembled::Dropped(reason) => prop_assert!(false, "{reason:?}"),
            }
        }
        prop_assert_eq!(whole, vec![named(packet)]);
    }

    #[test]
    fn random_packets_never_panic_and_stay_within_bounds(
        packets in prop::collection::vec((any::<bool>(), 0_u8..3, any::<u16>(), 0_usize..100, prop::collection::vec(any::<u8>(), 0..60)), 0..60),
    ) {
        let mut reassembler = Reassembler::new();
        for (v6, ident, place, cut, noise) in packets {
            let mut packet = if v6 { udp(true, cut) } else { udp(false, cut) };
            if v6 {
                let [high, low] = place.to_be_bytes();
                packet.splice(40..40, [17, 0, high, low, 0, 0, 0, ident]);
                packet[6] = 44;
                let len = u16::try_from(packet.len() - 40).unwrap();
                packet[4..6].copy_from_slice(&len.to_be_bytes());
            } else {
                packet[4..8].copy_from_slice(&[0, ident, place.to_be_bytes()[0] & 0x3f, place.to_be_bytes()[1]]);
            }
            if noise.len() % 4 == 0 {
                for (at, byte) in noise.iter().enumerate().filter(|(at, _)| at % 3 == 0) {
                    if let Some(place) = packet.get_mut(at) { *place ^= byte; }
                }
            }
            if let Reassembled::Complete(whole) = reassembler.insert(at(0), &packet) {
                prop_assert!(whole.len() <= 65_535 + 40);
            }
            let cost: usize = reassembler.datagrams.iter().map(|datagram| datagram.cost).sum();
            prop_assert_eq!(cost, reassembler.cost);
            let _ = fragment(&packet, 100, 7, |piece| assert!(piece.len() <= 100));
        }
        while reassembler.expire(at(15)).is_some() {}
        prop_assert_eq!(reassembler.cost, 0);
    }

    #[test]
    fn random_bytes_never_panic(packet: Vec<u8>, mtu in 0_usize..200) {
        let _ = Reassembler::new().insert(at(0), &packet);
        let _ = fragment(&packet, mtu, 7, |_| ());
    }
}
