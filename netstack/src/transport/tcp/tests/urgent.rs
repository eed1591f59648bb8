//! Urgent data, both ways.

use super::*;

/// The guest says bytes whose last urgent one is number `last`.
fn urge(lab: &mut Lab, seq: i64, payload: &[u8], last: i64) {
    let mut segment = lab.segment(seq, 0, payload);
    segment.urgent = u16::try_from(last + 1 - seq).unwrap();
    lab.send(&segment);
}

/// What the socket took, and which of it as urgent.
fn took(lab: &mut Lab) -> (&[u8], &[usize]) {
    let socket = lab.socket();
    (&socket.taken, &socket.urgent)
}

#[test]
fn the_guests_urgent_byte_is_passed_on_as_such() {
    let mut lab = Lab::open();
    urge(&mut lab, 0, b"abc!def", 3);
    assert_eq!(took(&mut lab), (&b"abc!def"[..], &[3][..]));
    urge(&mut lab, 0, b"abc!def", 3);
    urge(&mut lab, 7, b"!", 7);
    lab.say(8, 0, b"ghi");
    assert_eq!(took(&mut lab), (&b"abc!def!ghi"[..], &[3, 7][..]));
}

#[test]
fn a_pointer_before_its_byte_a_gap_and_a_full_socket_change_nothing() {
    let mut lab = Lab::open();
    lab.socket().room = 2;
    urge(&mut lab, 0, &[], 5); // told of before it comes
    lab.say(4, 0, b"4!67");
    lab.say(0, 0, b"0123");
    assert_eq!(lab.socket().taken, b"01");
    lab.make_room(3);
    assert_eq!(took(&mut lab), (&b"01234"[..], &[][..]), "the socket is full before it");
    lab.make_room(1);
    assert_eq!(took(&mut lab), (&b"01234!"[..], &[5][..]));
    lab.make_room(usize::MAX);
    assert_eq!(took(&mut lab), (&b"01234!67"[..], &[5][..]));
    lab.flag(8, 0, &[], FIN);
    assert!(lab.socket().shut);
}

#[test]
fn of_several_that_wait_the_last_is_urgent() {
    let mut lab = Lab::open();
    lab.socket().room = 0;
    lab.say(0, 0, b"a");
    urge(&mut lab, 1, b"!", 1);
    urge(&mut lab, 2, b"?b", 2);
    urge(&mut lab, 1, b"!", 1); // an old pointer
    urge(&mut lab, 4, b"c", 60_000); // one that leads to nowhere yet
    lab.make_room(usize::MAX);
    assert_eq!(took(&mut lab), (&b"a!?bc"[..], &[][..]));
    let mut lab = Lab::open();
    lab.socket().room = 0;
    lab.say(0, 0, b"a");
    urge(&mut lab, 1, b"!", 1);
    urge(&mut lab, 2, b"?b", 2);
    lab.make_room(usize::MAX);
    assert_eq!(took(&mut lab), (&b"a!?b"[..], &[2][..]));
}

#[test]
fn the_servers_urgent_byte_is_told_to_the_guest_until_it_is_acknowledged() {
    let mut lab = Lab::open();
    lab.socket().queue.extend(b"abc!def");
    lab.socket().mark = Some(3);
    lab.event(Event::Urgent);
    let got = lab.step();
    let told: Vec<_> = got.iter().map(|got| (got.payload.as_slice(), got.urgent)).collect();
    assert_eq!(told, [(&b"abc"[..], 4), (&b"!def"[..], 1)]);
    let again = lab.pass(ms(1000));
    assert!(
        !again.is_empty() && again.iter().all(|(_, got)| got.urgent > 0),
        "a repeat tells it, too: {again:?}"
    );
    lab.say(0, 3, &[]);
    lab.say(0, 7, &[]);
    lab.serve(b"ghi");
    let got = lab.step();
    assert_eq!((got[0].payload.as_slice(), got[0].urgent), (&b"ghi"[..], 0));
    lab.say(0, 10, &[]);
    assert!(lab.step().is_empty());
    lab.socket().queue.extend(b"!");
    lab.socket().mark = Some(0);
    lab.event(Event::Readable); // the socket is asked each time now
    assert_eq!(lab.step()[0].urgent, 1);
}

#[test]
fn a_closed_window_does_not_keep_the_guest_from_hearing_of_urgent_data() {
    let mut lab = Lab::open();
    lab.window(0, 0, 0);
    lab.socket().queue.extend(bytes(100));
    lab.socket().mark = Some(99);
    lab.event(Event::Urgent);
    let got = lab.step();
    assert!(got[0].payload.is_empty() && got[0].is(ACK) && got[0].urgent == 100, "{got:?}");
}

#[test]
fn a_train_with_an_urgent_pointer_is_cut_here() {
    let mut config = crate::testing::config();
    config.device.tso4 = true;
    let mut lab = Lab::with(config);
    lab.connect();
    lab.socket().queue.extend(bytes(5000));
    lab.socket().mark = Some(4000);
    lab.event(Event::Urgent);
    let got = lab.step();
    assert!(got.iter().all(|got| got.gso.is_none()));
    let told: Vec<_> = got.iter().map(|got| (got.payload.len(), got.urgent)).collect();
    assert_eq!(told, [(1460, 4001), (1460, 2541), (1080, 1081), (1000, 1)]);
}
