//! A link and a machine, in one thread: what is asked is carried out when the link is looked at.

use super::front::{GUEST, USER};
use super::message::number;
use super::*;
use crate::device::{Link, Links};
use crate::epoll::{EventSet, Events};
use crate::token::Token;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::Gso;
use slipway_netstack::device::vnet::GsoKind;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn accepted() -> (VhostUser, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (VhostUser::from_owned_fd(ours.into()).unwrap(), theirs)
}

/// What the link says when it has carried out all that was asked: nothing, or its end.
fn settle(link: &mut VhostUser) -> io::Result<()> {
    let mut frame = vec![0; MAX_FRAME];
    for _ in 0..4 {
        assert!(link.read_frame(&mut frame)?.is_none(), "a frame that nobody sent");
    }
    Ok(())
}

fn pair(wish: Wish) -> (VhostUser, Front) {
    let (mut link, socket) = accepted();
    let front = Front::start(socket, wish).unwrap();
    settle(&mut link).unwrap();
    (link, front)
}

fn frame(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + seed) % 251).unwrap()).collect()
}

fn train() -> Offload {
    let gso = Gso { kind: GsoKind::Tcp4, size: 1448, header_len: 66 };
    Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) }
}

fn next(link: &mut VhostUser) -> Option<(Offload, Vec<u8>)> {
    let mut into = vec![0; MAX_FRAME];
    let (offload, len) = link.read_frame(&mut into).unwrap()?;
    Some((offload, into[..len].to_vec()))
}

fn end(link: &mut VhostUser) -> io::Error {
    let mut into = vec![0; MAX_FRAME];
    (0..8).find_map(|_| link.read_frame(&mut into).err()).expect("it ends")
}

fn readable(link: &VhostUser) -> bool {
    let mut fds = [PollFd::new(link.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn frames_pass_both_ways_with_what_is_left_undone() {
    let (mut link, mut front) = pair(Wish::all());
    assert_eq!(link.capabilities(), VhostUser::BEST);
    for (offload, seen, len) in [
        (Offload::NONE, Offload { checksum: Checksum::Verified, gso: None }, 60),
        (train(), train(), MAX_FRAME),
    ] {
        let sent = frame(len, 3);
        assert!(front.send(&offload.emit_le(0), &sent).unwrap());
        front.kick().unwrap();
        assert!(readable(&link));
        assert_eq!(next(&mut link), Some((seen, sent.clone())));
        assert_eq!(next(&mut link), None);
        assert!(!readable(&link), "the call was heard");
        assert_eq!(link.transmit(offload, &sent), Ok(()));
        let mut got = Vec::new();
        let header = front.receive(&mut got).unwrap().unwrap();
        assert_eq!((Offload::parse_le(&header), &got), (Some(offload), &sent));
        let buffers = u16::from_le_bytes([header[10], header[11]]);
        assert_eq!(usize::from(buffers), (len + 12).div_ceil(4096));
        assert_eq!(front.receive(&mut got).unwrap(), None);
    }
    assert_eq!(link.lost(), Lost::default());
}

#[test]
fn a_driver_that_can_do_nothing_is_given_whole_frames() {
    let (mut link, mut front) = pair(Wish::nothing());
    assert_eq!(link.capabilities(), Capabilities::default());
    let mut got = Vec::new();
    for len in [14, 1514, 65_550] {
        link.transmit(Offload::NONE, &frame(len, 1)).unwrap();
        let header = front.receive(&mut got).unwrap().unwrap();
        assert_eq!((Offload::parse_le(&header), &got), (Some(Offload::NONE), &frame(len, 1)));
    }
    // One from before the standard has two bytes less of header.
    let (mut link, front) = pair(Wish { features: 0, ..Wish::nothing() });
    link.transmit(Offload::NONE, &frame(100, 1)).unwrap();
    let [_, _, used] = front.ring(true);
    let mut entry = [0; 8];
    front.memory().read(used + 4, &mut entry).unwrap();
    assert_eq!(entry[4..], 110u32.to_le_bytes());
}

#[test]
fn a_frame_that_no_buffers_take_is_lost_and_counted() {
    let small = Wish { size: 4, buffer: 1024, ..Wish::all() };
    let (mut link, mut front) = pair(small);
    assert_eq!(link.transmit(Offload::NONE, &frame(4096 - 11, 1)), Ok(()), "never: four buffers are all");
    assert_eq!(link.lost(), Lost { rejected: 1, ..Lost::default() });
    assert_eq!(link.transmit(Offload::NONE, &frame(4096 - 12, 1)), Ok(()));
    assert!(front.receive(&mut Vec::new()).unwrap().is_some());
    let (mut link, _front) = pair(Wish { buffer: 1024, ..Wish::nothing() });
    assert_eq!(link.transmit(Offload::NONE, &frame(1020, 1)), Ok(()));
    assert_eq!(link.lost().rejected, 1, "no frame takes two buffers");
}

#[test]
fn a_full_ring_waits_until_the_guest_says_that_it_found_room() {
    let (mut link, mut front) = pair(Wish { size: 16, ..Wish::all() });
    let mut taken = 0;
    while link.transmit(Offload::NONE, &frame(9000, taken)).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 5, "of three buffers each");
    assert!(!link.found_room() && !readable(&link));
    let mut got = Vec::new();
    for n in 0..taken {
        front.receive(&mut got).unwrap().unwrap();
        assert_eq!(got, frame(9000, n), "in order, and whole");
    }
    front.kick().unwrap();
    assert!(readable(&link));
    assert_eq!(next(&mut link), None);
    assert!(link.found_room() && !link.found_room(), "told once");
    assert_eq!(link.transmit(Offload::NONE, &frame(9000, 0)), Ok(()));
    front.receive(&mut got).unwrap().unwrap();
    front.kick().unwrap();
    assert!(!readable(&link), "nobody waits, nobody is called");
}

#[test]
fn the_guest_is_called_once_a_round_if_it_wants_to_be() {
    let (mut link, mut front) = pair(Wish::all());
    let _ = front.calls();
    for _ in 0..3 {
        link.transmit(Offload::NONE, &frame(60, 1)).unwrap();
        front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap();
    }
    while next(&mut link).is_some() {}
    assert_eq!(front.calls(), [0, 0]);
    link.call();
    link.call();
    assert_eq!(front.calls(), [1, 1]);
    front.want_calls(false);
    link.transmit(Offload::NONE, &frame(60, 1)).unwrap();
    link.call();
    assert_eq!(front.calls(), [0, 0]);
}

#[test]
fn a_guest_that_need_not_call_is_looked_at_before_we_sleep() {
    let (mut link, mut front) = pair(Wish::all());
    for count in [1, 2, 3] {
        for n in 0..count {
            assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, n)).unwrap());
        }
        front.kick().unwrap();
        // A budget ends with the last frame, and nobody has seen that it is the last.
        (0..count).for_each(|n| assert_eq!(next(&mut link).map(|(_, frame)| frame), Some(frame(60, n))));
        assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 9)).unwrap());
        front.kick().unwrap();
        assert!(link.is_ahead() || readable(&link), "{count}: a frame that nobody comes for");
        assert!(next(&mut link).is_some());
        assert_eq!(link.is_ahead(), count > 1, "{count}");
        assert_eq!((next(&mut link), link.is_ahead(), readable(&link)), (None, false, false), "{count}");
    }
}

#[test]
fn a_guest_that_never_pauses_keeps_no_request_waiting() {
    let (mut link, mut front) = pair(Wish::all());
    let [_, available, _] = front.ring(false);
    for _ in 0..200 {
        assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
    }
    front.request(number::GET_FEATURES, &[], &[]).unwrap();
    for n in 0..150 {
        assert!(link.is_ahead(), "{n}");
        assert!(next(&mut link).is_some());
    }
    assert_eq!(front.answer().unwrap(), OFFERED.bits().to_ne_bytes());
    front.request(number::GET_VRING_BASE, &[1, 0, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    while next(&mut link).is_some() {}
    let base = u32::from_ne_bytes(front.answer().unwrap()[4..].try_into().unwrap());
    assert!((150..200).contains(&base), "{base}");
    assert!(!link.is_ahead(), "it has stopped");
    assert_eq!(front.memory().load(available + 2), Some(200));
}

#[test]
fn each_request_has_its_answer() {
    let (mut link, front) = pair(Wish::all());
    let mut asks = |request: u32, payload: &[u8], need_reply: bool| {
        let header = message::Header { request, need_reply, size: payload.len() }.emit();
        { front.socket() }.write_all(&[&header, payload].concat()).unwrap();
        settle(&mut link).unwrap();
    };
    let number = |bytes: Vec<u8>| u64::from_ne_bytes(bytes.try_into().unwrap());
    for (request, expected) in [
        (number::GET_FEATURES, OFFERED.bits()),
        (number::GET_PROTOCOL_FEATURES, 0x8008),
        (number::GET_QUEUE_NUM, 1),
        (number::GET_MAX_MEM_SLOTS, 32),
        (number::CHECK_DEVICE_STATE, 1),
    ] {
        asks(request, &[], false);
        assert_eq!(number(front.answer().unwrap()), expected, "{request}");
    }
    // Whatever is not offered is not agreed to: no acknowledgement before it was.
    asks(number::SET_OWNER, &[], true);
    asks(number::SET_PROTOCOL_FEATURES, &u64::MAX.to_ne_bytes(), false);
    for (request, payload, expected) in
        [(number::SET_OWNER, &[][..], 0), (20, &[0; 8][..], 1), (6, &[0; 16], 1), (99, &[], 1)]
    {
        asks(request, payload, true);
        assert_eq!(number(front.answer().unwrap()), expected, "{request}");
    }
    // A migration: there is no state to be had, and the log has nobody who writes it.
    asks(number::SET_DEVICE_STATE_FD, &[0; 8], false);
    assert_eq!(number(front.answer().unwrap()), 0x101);
    assert_eq!(OFFERED.bits() & 1 << 26, 0, "VHOST_F_LOG_ALL");
    for ring in [0u8, 1] {
        asks(number::GET_VRING_BASE, &[ring, 0, 0, 0, 0, 0, 0, 0], false);
        assert_eq!(front.answer().unwrap(), [ring, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn half_a_request_keeps_its_sender_waiting_and_no_frame() {
    let (mut link, mut front) = pair(Wish::all());
    let header = message::Header { request: number::GET_FEATURES, need_reply: false, size: 0 }.emit();
    for byte in header {
        front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap();
        assert!(next(&mut link).is_some() && next(&mut link).is_none());
        { front.socket() }.write_all(&[byte]).unwrap();
    }
    settle(&mut link).unwrap();
    assert_eq!(front.answer().unwrap(), OFFERED.bits().to_ne_bytes());
    { front.socket() }.write_all(&header[..5]).unwrap();
    settle(&mut link).unwrap();
    drop(front);
    assert_eq!(end(&mut link).kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let state = [1u32.to_ne_bytes(), 3u32.to_ne_bytes()].concat();
    let far = [1u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    for (request, payload) in [
        (number::SET_VRING_NUM, &state),
        (number::SET_VRING_NUM, &far),
        (number::SET_VRING_BASE, &far),
        (number::SET_VRING_ADDR, &vec![0; 40]),
        (number::SET_MEM_TABLE, &far),
        (number::SET_VRING_KICK, &vec![0; 8]),
        (number::REM_MEM_REG, &vec![0; 40]),
        (number::SET_FEATURES, &Vec::new()),
    ] {
        let (mut link, front) = pair(Wish::all());
        front.request(request, payload, &[]).unwrap();
        assert_eq!(end(&mut link).kind(), io::ErrorKind::InvalidData, "{request}");
    }
    let (mut link, front) = pair(Wish::all());
    { front.socket() }.write_all(&[0xff; 12]).unwrap();
    assert_eq!(end(&mut link).kind(), io::ErrorKind::InvalidData);
    // More descriptors than any request has.
    let (mut link, front) = pair(Wish::all());
    let file = front.file().as_fd();
    front.request(number::SET_OWNER, &[], &[file; 9]).unwrap();
    assert_eq!(end(&mut link).kind(), io::ErrorKind::InvalidData);
}

#[test]
fn only_an_eventfd_is_called_by() {
    let (socket, _other) = UnixStream::pair().unwrap();
    let (_reader, pipe) = nix::unistd::pipe().unwrap();
    let device = File::open("/dev/zero").unwrap();
    for fd in [socket.as_fd(), pipe.as_fd(), device.as_fd()] {
        for request in [number::SET_VRING_CALL, number::SET_VRING_KICK] {
            let (mut link, front) = pair(Wish::all());
            front.request(request, &[0; 8], &[fd]).unwrap();
            assert_eq!(end(&mut link).kind(), io::ErrorKind::InvalidData);
        }
    }
}

/// Descriptor 0 of the ring from the guest.
fn describe(front: &Front, at: u64, len: u32, flags: u16, next: u16) {
    let [descriptors, ..] = front.ring(false);
    let bytes =
        [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
    front.memory().write(descriptors, &bytes).unwrap();
}

type Spoil = fn(&Front);

#[test]
fn nonsense_in_a_ring_ends_the_connection() {
    let wrong: [(&str, Spoil); 9] = [
        ("outside", |front| describe(front, 0, 100, 0, 0)),
        ("at the end", |front| {
            describe(front, GUEST + front.memory().len() as u64 - 50, 100, 0, 0);
        }),
        ("at the end of all", |front| describe(front, u64::MAX - 3, 100, 0, 0)),
        ("to be written", |front| describe(front, GUEST, 100, 2, 0)),
        ("indirect", |front| describe(front, GUEST, 160, 4, 0)),
        ("in a circle", |front| describe(front, GUEST, 1, 1, 0)),
        ("on to nowhere", |front| describe(front, GUEST, 1, 1, 256)),
        ("from nowhere", |front| front.memory().store(front.ring(false)[1] + 4, 9999).unwrap()),
        ("far ahead", |front| front.memory().store(front.ring(false)[1] + 2, 257).unwrap()),
    ];
    for (name, spoil) in wrong {
        let (mut link, mut front) = pair(Wish::all());
        assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
        spoil(&front);
        let error = end(&mut link);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
        assert_eq!(end(&mut link).kind(), io::ErrorKind::InvalidData, "{name}: for good");
        assert_eq!(link.transmit(Offload::NONE, &frame(60, 1)), Ok(()), "{name}");
        assert_eq!(link.lost().down, 1, "{name}");
    }
}

#[test]
fn nonsense_in_the_ring_to_the_guest_is_told_by_the_next_look() {
    let (mut link, front) = pair(Wish::all());
    front.memory().store(front.ring(true)[1] + 2, 9999).unwrap();
    assert_eq!(link.transmit(Offload::NONE, &frame(60, 1)), Ok(()));
    assert!(link.is_ahead(), "no event tells of it");
    assert_eq!(end(&mut link).kind(), io::ErrorKind::InvalidData);
}

#[test]
fn lengths_of_gigabytes_are_no_frame_and_no_harm() {
    let (mut link, mut front) = pair(Wish::all());
    for (len, flags) in [(u32::MAX, 0), (u32::MAX, 1), (0, 0), (11, 0), (25, 0), (12 + 65_554, 0)] {
        assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
        // Each is the next descriptor; what it goes on at, one of good shape.
        let [descriptors, available, _] = front.ring(false);
        let at = front.memory().load(available + 2).unwrap() - 1;
        let bytes =
            [&GUEST.to_le_bytes()[..], &len.to_le_bytes(), &u16::to_le_bytes(flags), &[200, 0]].concat();
        front.memory().write(descriptors + usize::from(at) * 16, &bytes).unwrap();
        assert_eq!(next(&mut link), None, "{len}");
    }
    assert_eq!(link.lost(), Lost { malformed: 6, ..Lost::default() });
    assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
    assert!(next(&mut link).is_some());
}

#[test]
fn a_header_without_sense_costs_its_frame() {
    let (mut link, mut front) = pair(Wish::all());
    let mut header = train().emit_le(0);
    header[1] = 3;
    assert!(
        front.send(&header, &frame(60, 1)).unwrap()
            && front.send(&train().emit_le(0), &frame(60, 1)).unwrap()
    );
    assert_eq!(next(&mut link), Some((train(), frame(60, 1))));
    assert_eq!(link.lost(), Lost { malformed: 1, ..Lost::default() });
}

#[test]
fn memory_that_is_taken_away_ends_the_connection() {
    for in_use in [false, true] {
        let (mut link, mut front) = pair(Wish::all());
        if in_use {
            assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
            assert!(next(&mut link).is_some());
        }
        front.file().set_len(0).unwrap();
        assert_eq!(link.transmit(Offload::NONE, &frame(60, 1)), Ok(()));
        let error = end(&mut link);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(error.to_string(), Broken::Lost.to_string());
    }
}

#[test]
fn a_ring_that_is_disabled_gives_nothing_and_takes_nothing() {
    let (mut link, mut front) = pair(Wish::all());
    for ring in [0u8, 1] {
        front.request(number::SET_VRING_ENABLE, &[ring, 0, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    }
    settle(&mut link).unwrap();
    assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
    assert_eq!(next(&mut link), None);
    assert_eq!(link.transmit(Offload::NONE, &frame(60, 1)), Ok(()));
    assert_eq!(front.receive(&mut Vec::new()).unwrap(), None);
    assert_eq!(link.lost(), Lost { down: 2, ..Lost::default() });
}

#[test]
fn memory_goes_and_comes_under_rings_that_rest_meanwhile() {
    let (mut link, mut front) = pair(Wish::all());
    let len = front.memory().len() as u64;
    let mut region = vec![0; 8];
    [GUEST, len, USER, 0].iter().for_each(|number| region.extend(number.to_ne_bytes()));
    front.request(number::REM_MEM_REG, &region, &[]).unwrap();
    settle(&mut link).unwrap();
    assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
    assert_eq!((next(&mut link), link.is_ahead()), (None, false));
    front.request(number::ADD_MEM_REG, &region, &[front.file().as_fd()]).unwrap();
    let mut got = (0..4).filter_map(|_| next(&mut link));
    assert_eq!(got.next().map(|(_, frame)| frame), Some(frame(60, 1)));
    drop(got);
    // A second region in the same place.
    front.request(number::ADD_MEM_REG, &region, &[front.file().as_fd()]).unwrap();
    assert_eq!(end(&mut link).kind(), io::ErrorKind::InvalidData);
}

#[test]
fn one_links_end_is_nothing_to_another() {
    let events = EventSet::new().unwrap();
    let mut links = Links::new(MacAddr([2, 0, 0, 0, 0, 2]), VhostUser::BEST, 1500).unwrap();
    let mut machines: Vec<_> = (0..2)
        .map(|_| {
            let (link, front) = pair(Wish::all());
            (links.join(Link::from(link), std::iter::empty(), &events).unwrap(), front)
        })
        .collect();
    let (bad, front) = machines.remove(0);
    front.file().set_len(0).unwrap();
    let mut into = vec![0; MAX_FRAME];
    assert!(links.transmit(Offload::NONE, &frame(60, 1)).is_ok());
    assert!((0..4).any(|_| links.read_frame(bad, &mut into).is_err()));
    links.leave(bad, &events).unwrap();
    let (good, mut front) = machines.remove(0);
    let mut got = Vec::new();
    assert!(front.receive(&mut got).unwrap().is_some());
    assert!(front.send(&Offload::NONE.emit_le(0), &frame(60, 1)).unwrap());
    front.kick().unwrap();
    let mut ready = Events::default();
    events.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
    assert_eq!(ready.get(0).unwrap().0, Some(Token::Link(good.0)));
    assert!(links.read_frame(good, &mut into).unwrap().is_some());
}
