//! The guest is gone: what is complete is delivered, everything else is reset.

use super::*;
use crate::ip::plan::Plan;
use crate::transport::lab::RESOLVER;
use crate::transport::parting::PATIENCE;
use core::time::Duration;

/// A guest that has sent `0123456789` and closed, towards a socket that takes four bytes.
fn closed_and_waiting() -> Lab {
    let mut lab = Lab::open();
    lab.socket().room = 4;
    lab.flag(0, 0, b"0123456789", FIN);
    assert!(acknowledges(&lab.step()[0], 11));
    lab
}

fn all_leave(lab: &mut Lab) {
    lab.engine.forget_guests(lab.now, &mut lab.host);
}

/// Sockets closed, sockets reset, flows left.
fn ends(lab: &Lab) -> (usize, usize, usize) {
    (lab.host.closed.len(), lab.host.reset.len(), lab.engine.flow_count())
}

#[test]
fn what_is_delivered_is_closed() {
    let mut lab = Lab::open();
    lab.flag(0, 0, b"all of it", FIN);
    all_leave(&mut lab);
    assert_eq!(ends(&lab), (1, 0, 0));
    assert_eq!(lab.engine.next_timeout(), None);
}

#[test]
fn what_led_to_a_destination_is_given_back_there_whatever_the_plan_says_by_then() {
    let mut lab = closed_and_waiting();
    let (to, guest) = (lab.server, lab.guest.ip());
    let may_begin = |lab: &Lab| lab.engine.destinations.admits(to, guest, 1);
    all_leave(&mut lab);
    assert!(!may_begin(&lab));
    // Under this one it would lead nowhere.
    lab.engine.readdress(lab.now, Plan::default(), &mut lab.host);
    lab.make_room(usize::MAX);
    assert_eq!(ends(&lab), (1, 0, 0));
    assert!(may_begin(&lab));
}

#[test]
fn a_connection_that_is_broken_off_is_reset_on_both_sides() {
    let mut lab = Lab::open();
    assert!(lab.engine.has_flow_of(lab.guest.ip()));
    lab.engine.break_off(lab.now, lab.id, &mut lab.host);
    let frames = lab.step();
    assert!(frames.iter().any(|frame| frame.flags & RST != 0));
    assert_eq!(ends(&lab), (0, 1, 0));
    assert!(!lab.engine.has_flow_of(lab.guest.ip()));
    lab.engine.break_off(lab.now, lab.id, &mut lab.host);
    assert_eq!(ends(&lab), (0, 1, 0), "it is gone already");
}

#[test]
fn what_the_guest_has_not_closed_is_reset() {
    for room in [usize::MAX, 4] {
        let mut lab = Lab::open();
        lab.socket().room = room;
        lab.say(0, 0, b"0123456789");
        lab.step();
        all_leave(&mut lab);
        assert_eq!(ends(&lab), (0, 1, 0), "room for {room}");
    }
}

#[test]
fn what_lacks_a_part_is_reset() {
    let mut lab = Lab::open();
    lab.flag(5, 0, b"56789", FIN);
    lab.step();
    all_leave(&mut lab);
    assert_eq!(ends(&lab), (0, 1, 0));
}

#[test]
fn a_broken_connection_is_reset() {
    let mut lab = closed_and_waiting();
    lab.event(Event::Failed(Errno::Reset));
    all_leave(&mut lab);
    assert_eq!(ends(&lab), (0, 1, 0));
}

#[test]
fn what_never_opened_is_reset() {
    let mut lab = Lab::new();
    lab.syn();
    all_leave(&mut lab);
    assert_eq!(ends(&lab), (0, 1, 0));
    let mut lab = Lab::new();
    lab.syn();
    lab.event(Event::Connected);
    lab.step();
    all_leave(&mut lab);
    assert_eq!(ends(&lab), (0, 1, 0));
}

#[test]
fn an_orphan_is_delivered_and_closed() {
    let mut lab = closed_and_waiting();
    all_leave(&mut lab);
    assert_eq!((ends(&lab), lab.state()), ((0, 0, 1), "orphan"));
    lab.make_room(3);
    assert_eq!((ends(&lab), lab.socket().taken.as_slice()), ((0, 0, 1), b"0123456".as_slice()));
    lab.serve(b"nobody reads this");
    lab.make_room(3);
    assert_eq!(ends(&lab), (1, 0, 0));
    let socket = lab.host.last.take().unwrap();
    assert!(socket.taken == b"0123456789" && socket.shut);
    assert!(lab.step().is_empty(), "nothing is sent to a link without guests");
    assert_eq!(lab.engine.next_timeout(), None);
}

#[test]
fn an_orphan_that_does_not_get_on_is_reset() {
    let mut lab = closed_and_waiting();
    all_leave(&mut lab);
    lab.make_room(3);
    lab.pass(PATIENCE - Duration::from_millis(1));
    assert_eq!(ends(&lab), (0, 0, 1));
    // To leave twice is no second chance.
    all_leave(&mut lab);
    lab.pass(Duration::from_millis(1));
    assert_eq!(ends(&lab), (0, 1, 0));
    assert_eq!(lab.engine.next_timeout(), None);
}

#[test]
fn an_orphan_whose_peer_is_gone_is_reset() {
    let mut lab = closed_and_waiting();
    all_leave(&mut lab);
    lab.event(Event::Failed(Errno::Reset));
    assert_eq!(ends(&lab), (0, 1, 0));
}

#[test]
fn the_next_guest_may_use_the_same_ports() {
    let mut lab = closed_and_waiting();
    let orphan = lab.id;
    all_leave(&mut lab);
    lab.flag(11, 0, &[], RST);
    assert_eq!(ends(&lab), (0, 0, 1), "a segment of the one that left does not find it");
    lab.connect();
    assert_ne!(lab.id, orphan);
    assert_eq!(lab.engine.flow_count(), 2);
    lab.pass(PATIENCE);
    assert_eq!(lab.host.reset, [orphan]);
    assert!(lab.lives());
}

#[test]
fn one_station_leaves_and_others_stay() {
    let mut lab = closed_and_waiting();
    let guest = lab.guest.ip();
    lab.engine.forget_guest(lab.now, "10.0.2.99".parse().unwrap(), &mut lab.host);
    assert_eq!(lab.state(), "guest-closed");
    lab.engine.forget_guest(lab.now, guest, &mut lab.host);
    assert_eq!(lab.state(), "orphan");
    lab.make_room(6);
    assert_eq!(ends(&lab), (1, 0, 0));
}

#[test]
fn a_query_of_a_guest_that_is_gone_is_not_waited_for() {
    let mut lab = Lab::new();
    lab.server = "10.0.2.3:53".parse().unwrap();
    lab.connect();
    assert_eq!(lab.host.connects[0].1, RESOLVER);
    lab.socket().room = 1;
    lab.flag(0, 0, b"\0\x0aquestion", FIN);
    lab.step();
    all_leave(&mut lab);
    assert_eq!(ends(&lab), (0, 1, 0));
}
