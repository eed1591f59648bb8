//! Half-closes both ways, at once, out of order; resets.

use super::*;

#[test]
fn the_guest_closes_first() {
    let mut lab = Lab::open();
    lab.flag(0, 0, b"last words", FIN);
    assert_eq!(lab.socket().taken, b"last words");
    assert!(lab.socket().shut);
    let got = lab.step();
    assert!(got.len() == 1 && acknowledges(&got[0], 11));
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
fn the_server_closes_first() {
    let mut lab = Lab::open();
    lab.socket().queue.extend(b"bye");
    lab.serve_end();
    let got = lab.step();
    let [.., fin] = got.as_slice() else { panic!() };
    assert!(fin.is(FIN | ACK) && fin.seq == lab.theirs(3));
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
    lab.link.full = 1;
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
    assert_eq!(answers, 100);
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
    for _ in 0..20 {
        // Somebody answers the keepalive probes, but for a day nothing else happens.
        lab.pass(ms(7_201_000));
        lab.say(1, 0, &[]);
    }
    lab.pass(ms(7_201_000));
    lab.engine.config.tcp.half_closed_timeout = ms(1000);
    lab.engine.tcp.config.half_closed_timeout = ms(1000);
    lab.say(1, 0, &[]);
    lab.pass(ms(2000));
    assert!(!lab.lives());
}
