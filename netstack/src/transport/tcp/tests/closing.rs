//! Half-closes both ways, at once, out of order; resets.

use super::*;
use core::time::Duration;

#[test]
fn the_guest_closes_first() {
    let mut lab = Lab::open();
    lab.flag(0, 0, b"last words", FIN);
    assert_eq!(lab.socket().taken, b"last words");
    assert!(lab.socket().shut);
    assert!(lab.step().is_empty(), "the server's FIN may be about to carry it");
    let got = lab.pass(Duration::from_millis(1));
    assert!(got.len() == 1 && acknowledges(&got[0].1, 11));
    assert_eq!(lab.state(), "guest-closed");
    lab.serve(b"answer");
    assert_eq!(lab.step()[0].payload, b"answer");
    lab.say(11, 6, &[]);
    lab.serve_end();
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(FIN | ACK) && got[0].seq == lab.theirs(6));
    lab.say(11, 7, &[]);
    assert!(lab.step().is_empty());
    assert!(!lab.lives());
    assert_eq!((lab.host.closed.len(), lab.host.reset.len()), (1, 0));
    assert_eq!(lab.engine.next_timeout(), None);
}

#[test]
fn the_servers_fin_carries_the_acknowledgement_of_the_guests() {
    let mut lab = Lab::open();
    lab.flag(0, 0, &[], FIN);
    lab.serve_end();
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(FIN | ACK) && got[0].ack == Lab::ours(1));
}

#[test]
fn the_server_closes_first() {
    let mut lab = Lab::open();
    lab.socket().queue.extend(b"bye");
    lab.serve_end();
    let got = lab.step();
    assert!(got.len() == 1 && got[0].flags & FIN != 0 && got[0].seq == lab.theirs(0));
    assert_eq!(got[0].payload, b"bye");
    lab.say(0, 4, &[]);
    lab.step();
    assert_eq!(lab.state(), "upstream-closed");
    lab.say(0, 4, b"still talking");
    lab.flag(13, 4, &[], FIN);
    assert_eq!(lab.socket().taken, b"still talking");
    assert!(lab.socket().shut);
    let got = lab.step();
    assert!(acknowledges(got.last().unwrap(), 14));
    assert!(!lab.lives());
    assert_eq!((lab.host.closed.len(), lab.host.reset.len()), (1, 0));
}

#[test]
fn the_end_leaves_with_the_last_bytes() {
    for len in [1_u16, 1460, 5000] {
        let mut lab = Lab::open();
        let sent = bytes(len.into());
        lab.serve(&sent);
        lab.serve_end();
        let got = lab.step();
        assert_eq!(got.iter().flat_map(|g| g.payload.clone()).collect::<Vec<_>>(), sent);
        let (last, others) = got.split_last().unwrap();
        assert!(last.is(FIN | ACK) && !last.payload.is_empty(), "{last:?}");
        assert!(others.iter().all(|g| g.is(ACK)), "{others:?}");
        lab.say(0, i64::from(len) + 1, &[]);
        assert!(lab.pass(ms(5000)).is_empty(), "nothing is repeated");
    }
}

#[test]
fn both_close_at_once() {
    let mut lab = Lab::open();
    lab.serve_end();
    assert!(lab.step()[0].is(FIN | ACK));
    lab.flag(0, 0, &[], FIN);
    assert!(acknowledges(&lab.step()[0], 1));
    assert_eq!(lab.state(), "closing");
    lab.say(1, 1, &[]);
    lab.step();
    assert!(!lab.lives());
    assert_eq!(lab.host.closed.len(), 1);
}

#[test]
fn a_fin_waits_for_the_buffer() {
    let mut lab = Lab::open();
    lab.socket().room = 4;
    lab.flag(0, 0, b"0123456789", FIN);
    assert!(acknowledges(&lab.step()[0], 11));
    assert!(!lab.socket().shut);
    lab.make_room(3);
    assert!(!lab.socket().shut);
    lab.make_room(3);
    assert_eq!(lab.socket().taken, b"0123456789");
    assert!(lab.socket().shut);
}

#[test]
fn a_fin_waits_for_the_gap_before_it() {
    let mut lab = Lab::open();
    lab.flag(5, 0, b"56789", FIN);
    assert!(acknowledges(&lab.step()[0], 0));
    lab.flag(10, 0, &[], FIN);
    assert!(acknowledges(&lab.step()[0], 0));
    assert!(!lab.socket().shut);
    lab.say(0, 0, b"01234");
    assert!(acknowledges(&lab.step()[0], 11));
    assert_eq!(lab.socket().taken, b"0123456789");
    assert!(lab.socket().shut);
    lab.say(11, 0, b"behind the end");
    lab.step();
    assert_eq!(lab.socket().taken.len(), 10, "nothing lies behind a FIN");
}

#[test]
fn a_lost_fin_is_repeated() {
    let mut lab = Lab::open();
    lab.link.lost = 1;
    lab.serve_end();
    let got = lab.pass(ms(3000));
    assert!(!got.is_empty());
    assert!(got.iter().all(|(_, g)| g.is(FIN | ACK) && g.seq == lab.theirs(0)));
    lab.say(0, 1, &[]);
    assert!(lab.pass(ms(3000)).is_empty());
}

#[test]
fn a_repeated_fin_is_acknowledged_again() {
    let mut lab = Lab::open();
    lab.flag(0, 0, &[], FIN);
    lab.step();
    lab.flag(0, 0, &[], FIN);
    assert!(acknowledges(&lab.step()[0], 1));
}

#[test]
fn the_exact_reset_ends_the_flow_and_others_are_challenged() {
    let mut lab = Lab::open();
    lab.flag(100, 0, &[], RST);
    assert!(acknowledges(&lab.step()[0], 0), "RFC 5961: in the window, not exact");
    lab.flag(-1, 0, &[], RST);
    assert!(lab.step().is_empty());
    assert!(lab.lives());
    lab.flag(0, 0, &[], RST);
    assert!(lab.step().is_empty());
    assert!(!lab.lives());
    assert_eq!(lab.host.reset.len(), 1);
}

#[test]
fn a_syn_inside_a_connection_is_challenged() {
    let mut lab = Lab::open();
    for seq in [100, -1, 500_000] {
        lab.flag(seq, 0, &[], SYN);
        assert!(acknowledges(&lab.step()[0], 0), "{seq}");
    }
    // A guest that has forgotten the connection resets it, and may then begin anew.
    lab.flag(0, 0, &[], RST);
    lab.syn();
    assert_eq!(lab.host.connects.len(), 2);
}

#[test]
fn challenges_are_few() {
    let mut lab = Lab::open();
    let mut answers = 0;
    for _ in 0..1000 {
        lab.flag(100, 0, &[], RST);
        answers += lab.step().len();
    }
    assert_eq!(answers, 10);
}

#[test]
fn a_broken_connection_resets_the_guest() {
    let mut lab = Lab::open();
    lab.say(0, 0, b"request");
    lab.socket().broken = Some(Errno::Reset);
    lab.event(Event::Failed(Errno::Reset));
    let got = lab.step();
    let rst = got.last().unwrap();
    assert!(rst.is(RST | ACK) && rst.seq == lab.theirs(0) && rst.ack == Lab::ours(7), "{got:?}");
    assert!(!lab.lives());
    assert_eq!(lab.host.reset.len(), 1);
}

#[test]
fn a_send_that_fails_resets_the_guest() {
    let mut lab = Lab::open();
    lab.socket().broken = Some(Errno::Reset);
    lab.say(0, 0, b"request");
    assert!(lab.step().last().unwrap().is(RST | ACK));
    assert!(!lab.lives());
}

#[test]
fn a_half_closed_connection_does_not_stay_for_ever() {
    let mut lab = Lab::open();
    lab.flag(0, 0, &[], FIN);
    lab.step();
    for hours in (0..22).step_by(2) {
        // The guest's kernel answers the keepalive probes.
        lab.pass(ms(7_201_000));
        lab.say(1, 0, &[]);
        assert!(lab.lives(), "after {hours} hours");
    }
    lab.serve(b"late");
    lab.step();
    lab.say(1, 4, &[]);
    for hours in (0..22).step_by(2) {
        lab.pass(ms(7_201_000));
        lab.say(1, 4, &[]);
        assert!(lab.lives(), "after {hours} hours since the last byte");
    }
    lab.pass(ms(7_201_000));
    lab.say(1, 4, &[]);
    lab.pass(ms(3_600_000));
    assert!(!lab.lives(), "a day since the last byte");
}

/// The socket breaks, as the kernel does it: what was received before can still be read.
fn fail(lab: &mut Lab) {
    lab.socket().broken = Some(Errno::Reset);
    lab.event(Event::Failed(Errno::Reset));
}

#[test]
fn what_the_server_sent_before_its_reset_still_arrives() {
    let mut lab = Lab::open();
    lab.say(0, 0, b"request");
    lab.step();
    lab.socket().queue.extend(b"413 too large");
    fail(&mut lab);
    let got = lab.step();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].payload, b"413 too large");
    lab.say(7, 0, b"more of the request");
    let got = lab.pass(ms(100));
    assert!(got.iter().all(|(_, g)| g.ack == Lab::ours(7)), "nobody takes it: not acknowledged");
    lab.say(26, 13, &[]);
    let got = lab.step();
    let rst = got.last().unwrap();
    assert!(rst.is(RST | ACK) && rst.seq == lab.theirs(13), "{got:?}");
    assert!(!lab.lives());
    assert_eq!((lab.host.reset.len(), lab.host.closed.len()), (1, 0));
}

#[test]
fn a_failing_send_does_not_lose_the_answer_either() {
    let mut lab = Lab::open();
    lab.socket().queue.extend(b"413 too large");
    lab.socket().broken = Some(Errno::Reset);
    lab.say(0, 0, b"request");
    assert_eq!(lab.step()[0].payload, b"413 too large");
    lab.event(Event::Failed(Errno::Reset));
    lab.say(0, 13, &[]);
    assert!(lab.step().last().unwrap().is(RST | ACK));
    assert!(!lab.lives());
}

#[test]
fn a_guest_that_does_not_read_is_reset_all_the_same() {
    let mut lab = Lab::open();
    lab.window(0, 0, 100);
    lab.socket().queue.extend(bytes(1000));
    fail(&mut lab);
    assert_eq!(lab.step()[0].payload.len(), 100);
    lab.window(0, 100, 0);
    let got = lab.step();
    assert!(got.last().unwrap().is(RST | ACK) && got.last().unwrap().seq == lab.theirs(100));
    assert!(!lab.lives());
}

#[test]
fn a_reset_behind_a_probe_has_the_number_that_the_guest_expects() {
    let mut lab = Lab::open();
    lab.window(0, 0, 0);
    lab.serve(b"x");
    assert_eq!(lab.pass(ms(300))[0].1.payload.len(), 1, "a probe, which the guest does not take");
    fail(&mut lab);
    let got = lab.step();
    assert!(got.last().unwrap().is(RST | ACK) && got.last().unwrap().seq == lab.theirs(0), "{got:?}");
}

#[test]
fn a_guest_that_closes_a_broken_connection_is_reset() {
    let mut lab = Lab::open();
    lab.socket().queue.extend(bytes(1000));
    fail(&mut lab);
    lab.step();
    lab.flag(0, 0, &[], FIN);
    assert!(lab.step().last().unwrap().is(RST | ACK));
    assert!(!lab.lives());
}

#[test]
fn a_connection_that_breaks_behind_its_end_waits_for_the_last_acknowledgement() {
    let mut lab = Lab::open();
    lab.socket().queue.extend(b"bye");
    lab.serve_end();
    assert_eq!(lab.step().len(), 1);
    fail(&mut lab);
    assert!(lab.step().is_empty());
    lab.say(0, 4, &[]);
    let got = lab.step();
    assert!(got.last().unwrap().is(RST | ACK) && got.last().unwrap().seq == lab.theirs(4));
    assert!(!lab.lives());
}

#[test]
fn a_server_that_speaks_and_breaks_before_the_handshake_is_over_is_heard() {
    let mut lab = Lab::new();
    lab.syn();
    lab.event(Event::Connected);
    lab.socket().queue.extend(b"too busy");
    fail(&mut lab);
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(SYN | ACK));
    lab.first = got[0].seq.wrapping_add(1);
    lab.say(0, 0, &[]);
    assert_eq!(lab.step()[0].payload, b"too busy");
    lab.say(0, 8, &[]);
    assert!(lab.step()[0].is(RST | ACK));
    assert!(!lab.lives());
}

#[test]
fn a_broken_connection_that_the_guest_leaves_alone_ends_by_timeout() {
    let mut lab = Lab::open();
    lab.socket().queue.extend(b"anybody there?");
    fail(&mut lab);
    lab.pass(ms(1_500_000));
    assert!(!lab.lives());
    assert_eq!(lab.engine.next_timeout(), None);
}

#[test]
fn news_behind_the_end_does_not_keep_a_broken_connection() {
    let mut lab = Lab::open();
    lab.serve_end();
    lab.step();
    lab.say(0, 1, &[]);
    lab.event(Event::Readable);
    lab.step();
    fail(&mut lab);
    assert!(lab.step().last().is_some_and(|got| got.is(RST | ACK)));
    assert!(!lab.lives());
}

#[test]
fn an_end_after_a_long_silence_is_still_passed_on() {
    let mut lab = Lab::open();
    for _ in 0..20 {
        lab.pass(ms(7_201_000));
        lab.say(0, 0, &[]);
    }
    lab.serve_end();
    assert!(lab.step()[0].is(FIN | ACK));
    assert!(!lab.pass(ms(500)).is_empty() && lab.lives(), "the guest has not answered yet");
}

#[test]
fn a_guest_that_is_through_is_left_alone_while_the_rest_drains() {
    let mut lab = Lab::open();
    lab.socket().room = 0;
    lab.flag(0, 0, &bytes(1000), FIN);
    lab.serve_end();
    lab.step();
    lab.say(1001, 1, &[]);
    lab.step();
    for n in 1..=5 {
        let got = lab.pass(ms(10_000_000));
        assert!(got.is_empty(), "it has forgotten the connection and would reset it: {got:?}");
        lab.make_room(100);
        assert_eq!(lab.socket().taken.len(), 100 * n);
    }
    lab.pass(ms(80_000_000));
    assert!(lab.lives(), "less than a day since the last byte");
    lab.pass(ms(10_000_000));
    assert!(!lab.lives());
    assert_eq!(lab.host.reset.len(), 1, "the server is told that the rest is missing");
}
