use super::*;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::WaitStatus;
use proptest::prelude::*;
use slipway_host::netlink::Netlink;
use slipway_host::sys::packet::{self, Instruction};
use slipway_host::sys::proc::{fork_child, wait_for};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// `BPF_RET | BPF_K`: everything.
const ALL: Instruction = Instruction { code: 0x06, if_true: 0, if_false: 0, operand: u32::MAX };

/// A relay between a TAP and a stream, with the stream's other end and a socket on the guest's side of the TAP.
struct World {
    tap: Tap,
    relay: Relay,
    stream: UnixStream,
    guest: OwnedFd,
}

/// Runs `work` in a network of its own; says so where there is none to be had.
fn world(test: &str, work: impl FnOnce(World)) {
    let child = fork_child(|| {
        let made = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET);
        let Some(mut tap) = made.ok().and_then(|()| Tap::open("t0").ok()) else { return 77 };
        tap.want_finished(true);
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.interface("t0").unwrap();
        netlink.set_up(&link).unwrap();
        let guest = packet::listen(link.index, &[ALL]).unwrap();
        let (ours, stream) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let relay = Relay::new(ours.into(), None, b"");
        work(World { tap, relay, stream, guest });
        0
    });
    match wait_for(child.unwrap()).unwrap() {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Exited(_, 77) => println!("SKIP {test}: no TAP may be made here"),
        status => panic!("{status:?}"),
    }
}

/// A frame of this length that nobody answers, with a number in it.
fn frame(len: usize, number: u8) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[number]].concat();
    frame.resize(len, number);
    frame
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&u16::try_from(frame.len()).unwrap().to_le_bytes()[..], frame].concat()
}

/// The numbers of the test's frames that have come to the guest.
fn heard(guest: &OwnedFd) -> Vec<(usize, u8)> {
    let mut numbers = Vec::new();
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        match packet::receive(guest.as_fd(), &mut buffer) {
            Ok(len) if buffer[12..14] == [0x88, 0xb5] => numbers.push((len, buffer[14])),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return numbers,
            // It was down when the socket was opened.
            Err(_) => {}
        }
    }
}

#[test]
fn frames_reach_the_guest_however_they_are_cut() {
    world("frames_reach_the_guest_however_they_are_cut", |mut world| {
        let _ = heard(&world.guest);
        let mut bytes = Vec::new();
        for (number, len) in [(1, 60), (2, 1514), (3, 9000)] {
            bytes.extend(framed(&frame(len, number)));
            // Nobody's: without a header, and without anything.
            bytes.extend(framed(&[7; 13]));
            bytes.extend(framed(&[]));
        }
        for cut in bytes.chunks(701) {
            world.stream.write_all(cut).unwrap();
            world.relay.stream_has_bytes(&mut world.tap).unwrap();
        }
        assert_eq!(heard(&world.guest), [(60, 1), (1514, 2), (9000, 3)]);
        assert_eq!(world.relay.misshapen(), 6);
        drop(world.stream);
        let Err(End::Stream(why)) = world.relay.stream_has_bytes(&mut world.tap) else {
            panic!("it has ended")
        };
        assert_eq!(why, "cannot read size from socket: EOF");
    });
}

#[test]
fn a_stream_that_is_not_read_stops_the_tap_and_loses_nothing_that_was_taken() {
    let test = "a_stream_that_is_not_read_stops_the_tap_and_loses_nothing_that_was_taken";
    world(test, |mut world| {
        let (mut sent, mut taken) = (0_u32, Vec::new());
        // The socket has room for some 200 KiB, the box for 256.
        while world.relay.wants().frames {
            assert!(sent < 10_000, "there is no end to it");
            packet::send(world.guest.as_fd(), &frame(1514, u8::try_from(sent % 256).unwrap())).unwrap();
            sent += 1;
            world.relay.tap_is_ready(&mut world.tap).unwrap();
        }
        let wants = world.relay.wants();
        assert!(wants.stream_room && wants.bytes && !wants.tap_room, "{wants:?}");
        let mut chunk = [0; 65_536];
        loop {
            match world.stream.read(&mut chunk) {
                Ok(count) => taken.extend_from_slice(&chunk[..count]),
                Err(_) if world.relay.wants().stream_room => world.relay.flush().unwrap(),
                Err(_) => break,
            }
        }
        assert!(world.relay.wants().frames);
        let mut numbers = Vec::new();
        let mut rest = &taken[..];
        while let Some((len, behind)) = rest.split_first_chunk() {
            let (frame, behind) = behind.split_at(u16::from_le_bytes(*len).into());
            if frame[12..14] == [0x88, 0xb5] {
                numbers.push(frame[14]);
            }
            rest = behind;
        }
        let expected: Vec<u8> = (0..sent).map(|number| u8::try_from(number % 256).unwrap()).collect();
        assert_eq!(numbers, expected, "whole, in order");
    });
}

const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A frame with a header of the fast link that says nothing, behind their length.
fn fast_framed(frame: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_LEN + frame.len()).unwrap();
    [&len.to_be_bytes()[..], &[0; HEADER_LEN], frame].concat()
}

/// What has come over the stream.
fn came(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_marker_makes_both_directions_fast() {
    world("a_marker_makes_both_directions_fast", |world| {
        let World { mut tap, relay, mut stream, guest } = world;
        let mut relay = relay.asks(GUEST);
        let _ = heard(&guest);
        packet::send(guest.as_fd(), &frame(60, 1)).unwrap();
        relay.tap_is_ready(&mut tap).unwrap();
        let senseless = [&[0, 0, 0, 70][..], &[1, 9, 0, 0, 0, 0, 0, 0, 0, 0], &[7; 60]].concat();
        let parts = [
            framed(&fast::marker(GATEWAY)),
            fast_framed(&frame(60, 2)),
            senseless,
            fast_framed(&frame(1514, 3)),
        ];
        for cut in parts.concat().chunks(31) {
            stream.write_all(cut).unwrap();
            relay.stream_has_bytes(&mut tap).unwrap();
        }
        assert_eq!(heard(&guest), [(60, 2), (1514, 3)]);
        assert_eq!(relay.misshapen(), 1);
        packet::send(guest.as_fd(), &frame(100, 4)).unwrap();
        relay.tap_is_ready(&mut tap).unwrap();
        let bytes = came(&mut stream);
        let marker = framed(&fast::marker(GUEST));
        let at = bytes.windows(marker.len()).position(|window| window == marker).expect("a marker");
        let (before, behind) = bytes.split_at(at + marker.len());
        assert!(contains(before, &framed(&frame(60, 1))), "what was under way");
        assert!(contains(behind, &fast_framed(&frame(100, 4))));
        // The end of what no frame has.
        stream.write_all(&[0, 0, 0, 9]).unwrap();
        let Err(End::Stream(why)) = relay.stream_has_bytes(&mut tap) else { panic!("no frame is so short") };
        assert_eq!(why, "invalid packet size on the fast link: 9");
    });
}

#[test]
fn a_host_that_knows_no_fast_link_sees_nothing_of_it() {
    world("a_host_that_knows_no_fast_link_sees_nothing_of_it", |world| {
        let World { mut tap, relay, mut stream, guest } = world;
        let mut relay = relay.asks(GUEST);
        let _ = heard(&guest);
        let late = framed(&fast::marker(GATEWAY));
        stream.write_all(&[framed(&frame(60, 1)), late, framed(&frame(60, 2))].concat()).unwrap();
        relay.stream_has_bytes(&mut tap).unwrap();
        assert_eq!(heard(&guest).iter().filter(|(_, number)| *number < 3).count(), 2);
        packet::send(guest.as_fd(), &frame(100, 4)).unwrap();
        relay.tap_is_ready(&mut tap).unwrap();
        let bytes = came(&mut stream);
        assert!(contains(&bytes, &framed(&frame(100, 4))) && !contains(&bytes, b"slipway-fast-link"));
        let mut other = Relay::new(UnixStream::pair().unwrap().0.into(), None, b"").asks(GUEST);
        let mut marker = fast::marker(GATEWAY);
        marker[31] = 9;
        other.inbox.push(&framed(&marker));
        assert!(matches!(other.deliver(&mut tap), Err(End::Stream(_))), "a version that was not asked for");
    });
}

#[test]
fn what_is_to_be_said_first_is() {
    let (ours, mut stream) = UnixStream::pair().unwrap();
    let mut relay = Relay::new(ours.into(), None, b"POST /connect");
    relay.flush().unwrap();
    let mut said = [0; 13];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"POST /connect");
    drop(stream);
    relay.outbox.room(1)[0] = 1;
    relay.outbox.grow(1);
    let Err(End::Stream(why)) = relay.flush() else { panic!("nobody is there") };
    assert_eq!(why, "cannot write packet to socket: broken pipe");
}

proptest! {
    #[test]
    fn a_box_gives_back_what_was_put_in(steps in proptest::collection::vec((any::<bool>(), 0_usize..90_000), 0..60)) {
        let (mut fill, mut model, mut next) = (Fill::new(), Vec::new(), 0_u8);
        for (put, count) in steps {
            if put {
                let room = fill.room(count);
                prop_assert!(room.len() >= count || model.len() + count > BOX);
                if room.len() >= count {
                    for place in &mut room[..count] {
                        *place = next;
                        model.push(next);
                        next = next.wrapping_add(1);
                    }
                    fill.grow(count);
                }
            } else {
                fill.drop_front(count);
                model.drain(..count.min(model.len()));
            }
            prop_assert_eq!(fill.content(), &model[..]);
        }
    }
}
