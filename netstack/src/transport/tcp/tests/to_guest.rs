//! What the guest receives.

use super::*;
use crate::config::Mtu;
use crate::device::Capabilities;
use crate::device::vnet::GsoKind;
use crate::testing::config;

fn data(got: &[Got]) -> Vec<u8> {
    got.iter().flat_map(|g| g.payload.clone()).collect()
}

#[test]
fn data_leaves_in_segments_and_stays_in_the_socket_until_acknowledged() {
    let mut lab = Lab::open();
    let sent = bytes(4000);
    lab.serve(&sent);
    let got = lab.step();
    let sizes: Vec<usize> = got.iter().map(|g| g.payload.len()).collect();
    assert_eq!(sizes, [1460, 1460, 1080]);
    assert_eq!(data(&got), sent);
    assert_eq!(lab.socket().queue.len(), 4000);
    lab.say(0, 2920, &[]);
    lab.step();
    assert_eq!(lab.socket().queue.len(), 1080);
    lab.say(0, 4000, &[]);
    lab.step();
    assert!(lab.socket().queue.is_empty());
    assert!(lab.pass(ms(1000)).is_empty());
}

#[test]
fn a_capable_device_gets_trains() {
    let mut config = config();
    config.device = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
    let mut lab = Lab::with(config);
    lab.timestamps = true;
    lab.connect();
    lab.serve(&bytes(10_000));
    let got = lab.step();
    assert_eq!(got.len(), 1);
    let gso = got[0].gso.unwrap();
    assert_eq!((gso.kind, gso.size, gso.header_len), (GsoKind::Tcp4, 1448, 14 + 20 + 32));
}

#[test]
fn the_guests_window_is_the_limit() {
    let mut lab = Lab::open();
    lab.window(0, 0, 3000);
    lab.serve(&bytes(10_000));
    let got = lab.step();
    assert_eq!(data(&got).len(), 3000);
    lab.window(0, 1460, 3000);
    assert_eq!(data(&lab.step()).len(), 1460);
    lab.window(0, 4460, 100); // shrunk so far that sending would be silly
    assert_eq!(data(&lab.step()).len(), 100, "but nothing is in flight");
    lab.window(0, 4560, 20_000);
    assert_eq!(data(&lab.step()).len(), 10_000 - 4560);
}

#[test]
fn a_closed_window_is_probed() {
    let mut lab = Lab::open();
    lab.window(0, 0, 0);
    let sent = bytes(100);
    lab.serve(&sent);
    assert!(lab.step().is_empty());
    let mut probes = 0;
    for _ in 0..20 {
        for (_, probe) in lab.pass(ms(10_000)) {
            assert_eq!((probe.seq, probe.payload.as_slice()), (lab.theirs(0), &sent[..1]));
            lab.window(0, 0, 0);
            probes += 1;
        }
    }
    assert!((5..30).contains(&probes), "{probes}");
    assert!(lab.lives());
    lab.window(0, 0, 1000);
    assert_eq!(data(&lab.step()), &sent[..1], "the probe, which was not taken");
    lab.window(0, 1, 1000);
    assert_eq!(data(&lab.step()), &sent[1..]);
}

#[test]
fn a_lost_flight_is_repeated_after_the_timeout() {
    let mut lab = Lab::open();
    let sent = bytes(3000);
    lab.link.lost = 3;
    lab.serve(&sent);
    assert!(lab.step().is_empty(), "all three are lost");
    let mut got = Vec::new();
    for _ in 0..20 {
        for (_, segment) in lab.pass(ms(100)) {
            got.push(segment);
        }
        let seen = got.iter().map(|g| g.payload.len()).max().unwrap_or(0);
        if seen > 0 {
            break;
        }
    }
    assert_eq!((got[0].seq, got[0].payload.len()), (lab.theirs(1540), 1460), "the tail probe");
    lab.sack(0, 0, &[(1540, 3000)]);
    let got = lab.step();
    assert_eq!((got[0].seq, got[0].payload.as_slice()), (lab.theirs(0), &sent[..1460]));
    lab.say(0, 3000, &[]);
    assert!(lab.pass(ms(2000)).is_empty());
}

#[test]
fn without_any_answer_the_timeout_backs_off_and_the_flow_ends() {
    let mut lab = Lab::open();
    lab.serve(b"anybody there?");
    let got = lab.pass(ms(1_500_000));
    assert!((12..20).contains(&got.len()), "{}", got.len());
    let (last, before) = (&got[got.len() - 2], &got[got.len() - 3]);
    assert_eq!((last.0 - before.0).as_secs(), 60, "the longest pause");
    assert!(got.last().unwrap().1.is(RST | ACK));
    assert!(!lab.lives());
    assert_eq!(lab.host.reset.len(), 1);
}

#[test]
fn a_gap_told_by_sack_is_repeated_at_once_and_only_the_gap() {
    let mut lab = Lab::open();
    lab.serve(&bytes(14_600));
    assert_eq!(lab.step().len(), 10);
    lab.sack(0, 1460, &[(2920, 4380)]);
    assert!(lab.step().is_empty(), "one is not enough");
    lab.sack(0, 1460, &[(2920, 7300)]);
    let got = lab.step();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].seq, got[0].payload.len()), (lab.theirs(1460), 1460));
    lab.sack(0, 1460, &[(2920, 8760)]);
    assert!(lab.step().is_empty(), "not twice");
    lab.say(0, 14_600, &[]);
    assert!(lab.pass(ms(2000)).is_empty());
}

#[test]
fn duplicate_acknowledgements_do_without_sack() {
    let mut lab = Lab::new();
    lab.scaled = false;
    lab.connect();
    lab.serve(&bytes(14_600));
    lab.step();
    lab.say(0, 1460, &[]);
    for n in 0..3 {
        assert!(lab.step().is_empty(), "{n}");
        lab.say(0, 1460, &[]);
    }
    let got = lab.step();
    assert_eq!((got.len(), got[0].seq), (1, lab.theirs(1460)));
    lab.say(0, 2920, &[]); // a partial acknowledgement: the next is missing, too
    let got = lab.step();
    assert_eq!((got.len(), got[0].seq), (1, lab.theirs(2920)));
    lab.say(0, 14_600, &[]);
    assert!(lab.pass(ms(2000)).is_empty());
}

#[test]
fn a_guest_may_forget_what_it_said_by_sack() {
    let mut lab = Lab::open();
    let sent = bytes(2920);
    lab.serve(&sent);
    lab.step();
    lab.sack(0, 0, &[(1460, 2920)]);
    lab.step();
    let mut got = Vec::new();
    for _ in 0..10 {
        got.extend(lab.pass(ms(100)).into_iter().map(|(_, g)| g));
    }
    assert!(got.iter().any(|g| g.seq == lab.theirs(0)));
    lab.say(0, 1460, &[]);
    got.extend(lab.step());
    got.extend(lab.pass(ms(2000)).into_iter().map(|(_, g)| g));
    assert!(got.iter().any(|g| g.seq == lab.theirs(1460)), "all is repeated after a timeout");
}

#[test]
fn a_silent_connection_is_probed_and_ends_when_nobody_answers() {
    let mut lab = Lab::open();
    let got = lab.pass(ms(7_300_000));
    assert_eq!(got.len(), 2);
    assert!(got[0].0.as_secs() == 7200 && got[0].1.seq == lab.theirs(-1) && got[0].1.payload.is_empty());
    lab.say(0, 0, &[]);
    let got = lab.pass(ms(7_000_000));
    assert!(got.is_empty(), "it answered");
    let got = lab.pass(ms(2_000_000));
    assert_eq!(got.iter().filter(|(_, g)| g.is(ACK)).count(), 9);
    assert!(got.last().unwrap().1.is(RST | ACK));
    assert!(!lab.lives());
}

#[test]
fn sack_blocks_take_their_room_from_the_payload() {
    for mtu in [300, 1500, 65_520, 65_535] {
        for capable in [false, true] {
            for timestamps in [false, true] {
                let mut config = config();
                config.mtu = Mtu::new(mtu).unwrap();
                config.device =
                    Capabilities { checksum: capable, tso4: capable, tso6: capable, uso: capable };
                let mut lab = Lab::with(config);
                (lab.mss, lab.timestamps) = (Some(mtu - 40), timestamps);
                lab.connect();
                for n in 1..5 {
                    lab.say(n * 1000, 0, b"behind a gap");
                }
                lab.step();
                let sent = bytes(60_000);
                lab.serve(&sent);
                let got = lab.step();
                assert_eq!(data(&got), sent, "MTU {mtu}");
                for got in got {
                    let longest = match got.gso {
                        Some(gso) => usize::from(gso.header_len) - 14 + usize::from(gso.size),
                        None => got.packet,
                    };
                    assert!(longest <= usize::from(mtu), "{longest} bytes on a link for {mtu}");
                    assert!(got.options.sack[2].is_some());
                }
            }
        }
    }
}

#[test]
fn a_syn_without_mss_stands_for_what_every_host_of_its_family_takes() {
    for (guest, server, mss) in
        [("10.0.2.100:4000", "192.0.2.1:80", 536), ("[fd00::100]:4000", "[2001:db8::1]:80", 1220)]
    {
        let mut lab = Lab::new();
        (lab.guest, lab.server, lab.mss) = (guest.parse().unwrap(), server.parse().unwrap(), None);
        lab.connect();
        lab.serve(&bytes(3000));
        assert_eq!(lab.step()[0].payload.len(), mss, "{guest}");
    }
}

#[test]
fn the_smallest_links_and_segments_make_progress() {
    for mtu in 68..140 {
        for (guest, server) in [("10.0.2.100:4000", "192.0.2.1:80"), ("[fd00::100]:4000", "[2001:db8::1]:80")]
        {
            for mss in [0, 1, 80] {
                let mut config = config();
                config.mtu = Mtu::new(mtu).unwrap();
                let mut lab = Lab::with(config);
                (lab.guest, lab.server) = (guest.parse().unwrap(), server.parse().unwrap());
                (lab.mss, lab.timestamps) = (Some(mss), true);
                lab.connect();
                let sent = bytes(500);
                lab.serve(&sent);
                assert_eq!(data(&lab.step()), sent, "MTU {mtu}, MSS {mss}");
            }
        }
    }
}

#[test]
fn an_acknowledgement_that_advances_brings_its_window_along() {
    let mut lab = Lab::open();
    lab.serve(&bytes(30_000));
    lab.window(0, 0, 10_000);
    lab.say(0, 0, &bytes(10));
    lab.window(10, 0, 10_000);
    lab.step();
    // A repeat of older data, with what the guest knows now.
    let mut segment = lab.segment(5, 10_000, &bytes(20));
    segment.window = 100;
    lab.send(&segment);
    let sent: usize = data(&lab.step()).len();
    assert_eq!(sent, 100);
}

#[test]
fn many_gaps_are_all_repeated_without_waiting_for_more_news() {
    let mut lab = Lab::open();
    lab.serve(&bytes(65_000));
    let flight = lab.step().len();
    assert_eq!(flight, 44);
    for n in 0..22 {
        let start = 1460 * (2 * n + 1);
        lab.sack(0, 0, &[(start, start + 1460)]);
    }
    let got = lab.step();
    let mut places: Vec<u32> = got.iter().map(|g| g.seq.wrapping_sub(lab.theirs(0)) / 1460).collect();
    places.dedup();
    assert!(places.len() >= 21, "{places:?}");
}

#[test]
fn the_first_segment_into_a_reopened_window_may_be_lost() {
    let mut lab = Lab::open();
    lab.window(0, 0, 0);
    let sent = bytes(1000);
    lab.serve(&sent);
    for _ in 0..30 {
        if !lab.pass(ms(5_000)).is_empty() {
            lab.window(0, 0, 0);
        }
    }
    lab.link.lost = 2;
    lab.window(0, 0, 10_000);
    assert!(lab.step().is_empty());
    assert!(!lab.pass(ms(1_500)).is_empty(), "the timer began anew with the window");
}

#[test]
fn repeats_obey_a_window_that_was_taken_back() {
    let mut lab = Lab::open();
    lab.serve(&bytes(20_000));
    lab.step();
    lab.window(0, 0, 2000);
    let end = lab.theirs(2000);
    for (_, got) in lab.pass(ms(1000)) {
        let last = got.seq.wrapping_add(u32::try_from(got.payload.len()).unwrap());
        assert!(last.wrapping_sub(end).cast_signed() <= 0, "{got:?}");
    }
    lab.window(0, 1460, 2000);
    let got = lab.step();
    assert_eq!(data(&got).len(), 2000);
}
