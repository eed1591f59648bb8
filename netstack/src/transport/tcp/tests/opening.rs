//! SYN, SYN-ACK, ACK, from either side; refusals; silence.

use super::*;
use crate::drop_reason::DropReason;
use crate::transport::lab::{GUEST_MAC, Send};

#[test]
fn the_syn_is_answered_when_the_host_has_connected() {
    let mut lab = Lab::new();
    lab.syn();
    assert_eq!(lab.host.connects, [(lab.id, lab.server)]);
    assert!(lab.step().is_empty(), "not before");
    lab.event(Event::Connected);
    let got = lab.step();
    assert_eq!(got.len(), 1);
    assert!(got[0].is(SYN | ACK) && got[0].ack == Lab::ours(0));
    assert_eq!(got[0].window, u16::MAX, "not scaled in a SYN");
    assert_eq!(
        (got[0].options.mss, got[0].options.window_scale, got[0].options.sack_permitted),
        (Some(1460), Some(7), true)
    );
    assert_eq!(got[0].options.timestamps, None, "not offered, not answered");
}

#[test]
fn what_the_guest_does_not_offer_is_not_answered() {
    let mut lab = Lab::new();
    lab.scaled = false;
    lab.syn();
    lab.event(Event::Connected);
    let got = lab.step();
    assert_eq!((got[0].options.window_scale, got[0].options.sack_permitted), (None, false));
    let mut lab = Lab::new();
    lab.timestamps = true;
    lab.syn();
    lab.event(Event::Connected);
    assert_eq!(lab.step()[0].options.timestamps.unwrap().echo, 1);
}

#[test]
fn a_refusal_is_a_reset() {
    for refuse in [false, true] {
        let mut lab = Lab::new();
        lab.host.refuse = refuse.then_some(Errno::Refused);
        lab.syn();
        if !refuse {
            lab.event(Event::Failed(Errno::Refused));
        }
        let got = lab.step();
        assert_eq!(got.len(), 1);
        assert!(got[0].is(RST | ACK) && got[0].ack == Lab::ours(0), "{got:?}");
        assert!(!lab.lives());
        assert!(lab.host.sockets.is_empty());
    }
}

#[test]
fn an_unreachable_host_is_an_icmp_error_that_quotes_the_syn() {
    let mut lab = Lab::new();
    lab.syn();
    lab.event(Event::Failed(Errno::HostUnreachable));
    assert!(lab.step().is_empty());
    let icmp = &lab.other[0];
    assert_eq!((icmp[9], icmp[20], icmp[21]), (1, 3, 1), "host unreachable");
    assert_eq!(icmp[28 + 20 + 4..28 + 20 + 8], Lab::ours(-1).to_be_bytes(), "the SYN's number");
    assert!(!lab.lives());
}

#[test]
fn the_dns_address_leads_to_the_resolver() {
    let mut lab = Lab::new();
    lab.server = "10.0.2.3:53".parse().unwrap();
    lab.syn();
    let to: Vec<_> = lab.host.connects.iter().map(|(_, to)| *to).collect();
    assert_eq!(to, [crate::transport::lab::RESOLVER]);
    lab.event(Event::Connected);
    assert!(lab.step()[0].is(SYN | ACK));
}

#[test]
fn a_repeated_syn_is_answered_again() {
    let mut lab = Lab::new();
    lab.syn();
    lab.syn();
    assert_eq!(lab.host.connects.len(), 1, "one connection for both");
    lab.event(Event::Connected);
    assert_eq!(lab.step().len(), 1);
    lab.syn();
    assert!(lab.step()[0].is(SYN | ACK), "the answer was lost");
}

#[test]
fn an_unanswered_syn_ack_is_repeated_a_few_times_and_given_up() {
    let mut lab = Lab::new();
    lab.syn();
    lab.event(Event::Connected);
    let got = lab.pass(ms(200_000));
    let times: Vec<u64> = got.iter().filter(|(_, g)| g.is(SYN | ACK)).map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 1, 3, 7, 15, 31, 63]);
    assert!(!lab.lives());
    assert_eq!(lab.host.reset.len(), 1);
}

#[test]
fn data_that_came_before_the_handshake_was_over_is_not_forgotten() {
    let mut lab = Lab::new();
    lab.syn();
    lab.socket().queue.extend(b"hello");
    lab.event(Event::Connected);
    lab.event(Event::Readable);
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(SYN | ACK));
    let mut ack = Send {
        seq: Lab::ours(0),
        ack: 0,
        flags: ACK,
        window: 65535,
        urgent: 0,
        options: Vec::new(),
        payload: Vec::new(),
    };
    ack.ack = got[0].seq.wrapping_add(1);
    lab.send(&ack);
    assert_eq!(lab.step()[0].payload, b"hello");
}

#[test]
fn a_reset_while_opening_closes_the_socket() {
    let mut lab = Lab::new();
    lab.syn();
    lab.flag(0, 0, &[], RST);
    assert!(!lab.lives());
    assert_eq!(lab.host.reset.len(), 1);

    let mut lab = Lab::new();
    lab.syn();
    lab.event(Event::Connected);
    lab.step();
    lab.flag(0, 0, &[], RST);
    assert!(!lab.lives());
    assert_eq!(lab.host.reset.len(), 1);
}

#[test]
fn a_segment_of_no_connection_is_reset() {
    let mut lab = Lab::new();
    let segment = Send { ack: 777, ..lab.segment(0, 0, b"x") };
    lab.send(&segment);
    let got = lab.step();
    assert!(got[0].is(RST) && got[0].seq == 777);
    lab.flag(0, 0, &[], RST);
    assert!(lab.step().is_empty(), "a reset is never answered");
}

/// A client on the host's side: the engine's SYN, and what the guest answers.
fn inbound() -> (Lab, u32) {
    let mut lab = Lab::new();
    lab.server = "192.0.2.1:5555".parse().unwrap();
    lab.guest = "10.0.2.100:80".parse().unwrap();
    lab.say(0, 0, &[]); // teaches the guest's MAC address
    lab.step();
    lab.id = lab.engine.accept_tcp(lab.now, lab.server, lab.guest).unwrap();
    lab.host.sockets.insert(lab.id, crate::transport::lab::Socket { room: usize::MAX, ..Default::default() });
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(SYN), "{got:?}");
    let seq = got[0].seq;
    (lab, seq)
}

fn answer(flags: u8, ack: u32) -> Send {
    let options = if flags & SYN != 0 { vec![2, 4, 5, 180, 1, 3, 3, 0] } else { Vec::new() };
    Send { seq: Lab::ours(-1), ack, flags, window: 1000, urgent: 0, options, payload: Vec::new() }
}

#[test]
fn a_forwarded_connection_opens() {
    let (mut lab, seq) = inbound();
    lab.send(&answer(SYN | ACK, seq.wrapping_add(1)));
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(ACK) && got[0].ack == Lab::ours(0));
    lab.serve(b"request");
    assert_eq!(lab.step()[0].payload, b"request");
    assert_eq!(lab.state(), "established");
}

#[test]
fn a_forwarded_connection_that_the_guest_refuses_is_reset() {
    let (mut lab, seq) = inbound();
    lab.send(&answer(RST | ACK, seq)); // not the right number
    assert!(lab.lives());
    lab.send(&answer(RST | ACK, seq.wrapping_add(1)));
    assert!(!lab.lives());
    assert_eq!(lab.host.reset, [lab.id]);
}

#[test]
fn what_belongs_to_an_earlier_connection_is_reset_and_harms_nothing() {
    let mut lab = Lab::new();
    lab.syn();
    lab.event(Event::Connected);
    let first = lab.step()[0].seq.wrapping_add(1);
    let mut stray = answer(ACK, first.wrapping_add(77));
    stray.seq = Lab::ours(0);
    lab.send(&stray);
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(RST) && got[0].seq == first.wrapping_add(77), "{got:?}");
    stray.ack = first;
    lab.send(&stray);
    lab.step();
    assert_eq!(lab.state(), "established");

    let (mut lab, seq) = inbound();
    lab.send(&answer(ACK, 12_345)); // the guest believes in a connection from the same port
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(RST) && got[0].seq == 12_345, "{got:?}");
    lab.send(&answer(SYN | ACK, seq.wrapping_add(1)));
    lab.step();
    assert_eq!(lab.state(), "established");
}

#[test]
fn a_forwarded_connection_waits_for_the_mac_address() {
    let mut lab = Lab::new();
    let id = lab.engine.accept_tcp(lab.now, lab.server, lab.guest).unwrap();
    assert!(lab.step().is_empty(), "an ARP request only");
    lab.say(0, 0, &[]);
    let got = lab.step();
    assert!(got.iter().any(|g| g.is(SYN)), "{got:?}");
    assert!(lab.engine.flows().any(|flow| flow.id == id));
    assert_eq!(lab.engine.neighbours.peek(lab.guest.ip()), Some(GUEST_MAC));
}

#[test]
fn connections_that_never_open_do_not_lock_the_rest_out() {
    let mut config = crate::testing::config();
    config.max_flows = 10;
    let mut lab = Lab::with(config);
    lab.connect();
    let established = lab.id;
    for port in 1..30 {
        lab.guest.set_port(port);
        if port % 2 == 0 {
            lab.syn();
        } else {
            lab.datagram(b"x");
        }
        lab.step();
    }
    assert_eq!(lab.engine.flow_count(), 10);
    assert_eq!(lab.engine.accept_tcp(lab.now, lab.server, lab.guest), Err(DropReason::NoRoom));
    lab.pass(ms(3000));
    lab.guest.set_port(40_001);
    lab.syn();
    lab.step();
    lab.syn(); // the first may be lost, and made room
    assert!(lab.engine.flows().any(|flow| flow.guest == lab.guest), "{:?}", lab.engine.flow_count());
    assert!(lab.engine.flows().any(|flow| flow.id == established), "not at the cost of those that are");
    assert_eq!(lab.host.sockets.len(), lab.engine.flow_count(), "their sockets are closed");
}

#[test]
fn a_client_that_leaves_too_early_resets_the_guest_with_the_right_number() {
    let (mut lab, seq) = inbound();
    lab.event(Event::Failed(Errno::Reset));
    let got = lab.step();
    assert!(got.len() == 1 && got[0].is(RST | ACK) && got[0].seq == seq.wrapping_add(1), "{got:?}");
}

#[test]
fn the_guests_class_is_the_sockets() {
    let mut lab = Lab::new();
    lab.class = 0xb9;
    lab.connect();
    assert_eq!(lab.host.classes, [(lab.id, 0xb8)], "without ECN, and before it connects");
    lab.say(0, 0, b"more of the same");
    lab.class = 0x48;
    lab.say(16, 0, b"less urgent");
    lab.say(27, 0, b"still");
    assert_eq!(lab.host.classes[1..], [(lab.id, 0x48)]);
}
