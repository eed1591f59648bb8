//! A link that has no room: what it refuses has not been sent.

use super::*;

fn data(got: &[Got]) -> Vec<u8> {
    got.iter().flat_map(|g| g.payload.clone()).collect()
}

#[test]
fn data_waits_in_the_socket_and_nothing_is_repeated() {
    let mut lab = Lab::open();
    let sent = bytes(40_000);
    lab.serve(&sent);
    lab.link.room = Some(10);
    let first = lab.step();
    assert_eq!(first.len(), 10);
    assert!(lab.engine.awaits_link());
    assert!(lab.step().is_empty());
    lab.link.room = None;
    let rest = lab.step();
    assert!(!lab.engine.awaits_link());
    assert_eq!(rest[0].seq, lab.theirs(14_600), "it goes on where the link was full");
    assert_eq!([data(&first), data(&rest)].concat(), sent);
    lab.say(0, 40_000, &[]);
    assert!(lab.pass(ms(5000)).is_empty());
    let counters = lab.engine.counters();
    assert_eq!((counters.tcp_retransmits, counters.dropped(DropReason::Device)), (0, 0));
}

#[test]
fn the_end_waits_behind_bytes_that_the_link_refused() {
    for room in [0, 1, 2, 3] {
        let mut lab = Lab::open();
        lab.serve(&bytes(4000));
        lab.serve_end();
        lab.link.room = Some(room);
        let first = lab.step();
        assert_eq!(first.iter().filter(|g| g.flags & FIN != 0).count(), room / 3, "{first:?}");
        lab.link.room = None;
        let rest = lab.step();
        assert_eq!([data(&first), data(&rest)].concat(), bytes(4000));
        assert_eq!(rest.iter().filter(|g| g.flags & FIN != 0).count(), 1 - room / 3, "{rest:?}");
        lab.say(0, 4001, &[]);
        assert!(lab.pass(ms(5000)).is_empty(), "nothing is repeated");
    }
}

#[test]
fn every_kind_of_segment_is_made_up_for() {
    // SYN-ACK.
    let mut lab = Lab::new();
    lab.syn();
    lab.link.room = Some(0);
    lab.event(Event::Connected);
    assert!(lab.step().is_empty());
    lab.link.room = None;
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(SYN | ACK), "{got:?}");
    // An acknowledgement, and what the window is then.
    let mut lab = Lab::open();
    lab.link.room = Some(0);
    lab.say(0, 0, &bytes(5000));
    assert!(lab.step().is_empty());
    lab.link.room = None;
    assert!(acknowledges(&lab.step()[0], 5000));
    // FIN, and the acknowledgement of the guest's.
    lab.link.room = Some(0);
    lab.serve_end();
    lab.flag(5000, 0, &[], FIN);
    assert!(lab.step().is_empty());
    assert!(lab.lives());
    lab.link.room = None;
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(FIN | ACK) && got[0].ack == Lab::ours(5001), "{got:?}");
    lab.say(5001, 1, &[]);
    lab.step();
    assert!(!lab.lives());
}

#[test]
fn repeats_and_probes_wait_too() {
    let mut lab = Lab::open();
    let sent = bytes(6000);
    lab.link.lost = 1;
    lab.serve(&sent);
    lab.step();
    lab.link.room = Some(0);
    lab.sack(0, 0, &[(1460, 6000)]);
    assert!(lab.step().is_empty());
    assert_eq!(lab.engine.counters().tcp_retransmits, 0);
    lab.link.room = None;
    let got = lab.step();
    assert_eq!(data(&got), &sent[..1460]);
    assert_eq!(lab.engine.counters().tcp_retransmits, 1);
    lab.window(0, 6000, 0);
    lab.serve(&bytes(10));
    lab.link.room = Some(0);
    assert!(lab.pass(ms(2000)).is_empty());
    lab.link.room = None;
    assert_eq!(data(&lab.step()).len(), 1, "the probe of the closed window");
}

#[test]
fn what_is_no_part_of_a_connection_is_kept_in_order_or_lost_at_the_tail() {
    let mut lab = Lab::open();
    lab.link.room = Some(0);
    // Each is answered by a RST.
    for port in 1..=2000u16 {
        lab.guest.set_port(port);
        lab.say(0, 0, b"x");
    }
    assert!(lab.step().is_empty());
    let lost = lab.engine.counters().dropped(DropReason::NoRoom);
    assert!(lost > 0);
    lab.link.room = None;
    let got = lab.step();
    assert_eq!(got.len() as u64, 2000 - lost);
    assert!(got.iter().all(|g| g.is(RST)));
}
