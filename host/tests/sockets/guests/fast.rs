//! Guests whose forwarder is ours, by the fast link: trains and open checksums, beside guests that know neither.

use super::house::{EVERYBODY, Guest, House};
use nix::sys::socket::{MsgFlags, send};
use slipway_host::device::{Lost, MAX_FRAME, Stream, fast};
use slipway_host::driver::Driver;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::checksum;
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use slipway_netstack::device::{Capabilities, Device as _, Gso, Offload};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

const SEGMENT: usize = 1448;
const HEADERS: usize = 14 + 20 + 20;

/// The guest's end, with a forwarder before it.
struct Fast {
    stream: Stream,
    number: u8,
}

impl Fast {
    /// One that has been seen.
    fn join(house: &mut House, number: u8) -> Self {
        let (ours, guest) = UnixStream::pair().unwrap();
        house.driver.join_fast(ours.into(), Vec::new()).unwrap();
        let mac = MacAddr([2, 0, 0, 0, 0, number]);
        let mut guest = Self { stream: Stream::asking(guest.into(), mac), number };
        assert_eq!(guest.frames(), [], "a marker, and nothing else");
        guest.send(Offload::NONE, &[&EVERYBODY[..], &guest.mac(), &[0x88, 0xb5], b"hello"].concat());
        house.until("it is seen", |driver| driver.cam().into_iter().find(|(known, _)| *known == mac));
        guest
    }

    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.number]
    }

    fn send(&mut self, offload: Offload, frame: &[u8]) {
        assert_eq!(self.stream.transmit(offload, frame).and_then(|()| self.stream.flush()), Ok(()));
    }

    fn frames(&mut self) -> Vec<(Offload, Vec<u8>)> {
        let mut buffer = vec![0; MAX_FRAME];
        // A call that brought all there was is followed by one that asks nobody.
        std::iter::from_fn(|| {
            let (offload, len) = (0..2).find_map(|_| self.stream.read_frame(&mut buffer).unwrap())?;
            Some((offload, buffer[..len].to_vec()))
        })
        .collect()
    }
}

/// A train of TCP between two guests: its checksum is left open, and so is cutting it if it is longer than a segment.
fn train(to: [u8; 6], from: [u8; 6], payload: usize) -> (Offload, Vec<u8>) {
    let len = u16::try_from(20 + payload).unwrap();
    let mut frame = [&to[..], &from, &[8, 0, 0x45, 0]].concat();
    frame.extend((20 + len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 2, 100]);
    let sum = checksum::finish(checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0, 7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 0]);
    let pseudo = [&frame[26..34], &[0, 6], &len.to_be_bytes()].concat();
    frame.extend((!checksum::finish(checksum::sum(&pseudo))).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
    let gso = Gso { kind: GsoKind::Tcp4, size: 1448, header_len: 54 };
    let checksum = Checksum::Partial { start: 34, offset: 16 };
    (Offload { checksum, gso: (payload > SEGMENT).then_some(gso) }, frame)
}

/// The payload of finished segments, whose checksums are right.
fn whole(frames: &[Vec<u8>]) -> Vec<u8> {
    let payload = |frame: &Vec<u8>| {
        assert!(frame.len() <= HEADERS + SEGMENT);
        assert_eq!(checksum::finish(checksum::sum(&frame[14..34])), 0);
        let len = u16::try_from(frame.len() - 34).unwrap();
        let pseudo = [&frame[26..34], &[0, 6], &len.to_be_bytes(), &frame[34..]].concat();
        assert_eq!(checksum::finish(checksum::sum(&pseudo)), 0);
        frame[HEADERS..].to_vec()
    };
    frames.iter().flat_map(payload).collect()
}

fn heard(house: &mut House, guest: &mut Fast) -> Vec<(Offload, Vec<u8>)> {
    house.rounds(5);
    guest.frames()
}

#[test]
fn trains_and_open_checksums_cross_between_fast_guests_as_they_are() {
    let mut house = House::with_all_doors();
    let (mut one, mut two) = (Fast::join(&mut house, 1), Fast::join(&mut house, 2));
    heard(&mut house, &mut one);
    let before = house.frames_in();
    for payload in [10, 60_000] {
        let (offload, frame) = train(two.mac(), one.mac(), payload);
        one.send(offload, &frame);
        assert!(heard(&mut house, &mut two) == [(offload, frame)], "{payload}");
    }
    assert_eq!(house.frames_in(), before);
    assert_eq!(house.driver.links().lost(), Lost::default());
}

#[test]
fn what_a_fast_guest_left_undone_is_done_for_others() {
    let mut house = House::with_all_doors();
    let (mut fast, slow) = (Fast::join(&mut house, 1), house.guest("qemu", 2));
    slow.frames();
    for payload in [10, 20_000] {
        let (offload, frame) = train(slow.mac(), fast.mac(), payload);
        fast.send(offload, &frame);
        house.rounds(5);
        let frames = slow.frames();
        assert_eq!(frames.len(), payload.div_ceil(SEGMENT));
        assert!(whole(&frames) == frame[HEADERS..], "{payload}");
    }
    heard(&mut house, &mut fast);
    // And what a guest says nothing about, but has left undone.
    let (_, frame) = train(fast.mac(), slow.mac(), 100);
    slow.send_frame(&frame);
    let [(offload, open)] = &heard(&mut house, &mut fast)[..] else { panic!("one frame") };
    assert_eq!((offload.checksum, open), (Checksum::Partial { start: 34, offset: 16 }, &frame));
    assert_eq!(house.driver.links().lost(), Lost::default());
}

#[test]
fn the_engine_makes_trains_while_there_is_a_fast_guest() {
    let mut house = House::with_all_doors();
    let able = |house: &House| house.driver.peek_engine().config().device;
    let slow = house.guest("qemu", 2);
    assert_eq!(able(&house), Capabilities::default());
    let fast = Fast::join(&mut house, 1);
    assert_eq!(able(&house), Capabilities::ALL);
    drop(fast);
    house.until("it has gone", Driver::take_loss);
    assert_eq!(able(&house), Capabilities::default());
    drop(slow);
}

#[test]
fn nonsense_on_a_fast_link_ends_that_link_only() {
    let mut house = House::with_all_doors();
    let other = house.guest("qemu", 2);
    for bytes in
        [&[0; 4][..], &[0, 1, 0, 11 + 18], &[0xff; 64], b"\x00\x00\x00\x09nineteen.", b"GET / HTTP/1.1\r\n"]
    {
        let fast = Fast::join(&mut house, 1);
        let link = house.driver.cam().into_iter().find(|(mac, _)| mac.0 == fast.mac()).unwrap().1;
        let fd = std::os::fd::AsFd::as_fd(&fast.stream).as_raw_fd();
        assert_eq!(send(fd, bytes, MsgFlags::MSG_NOSIGNAL), Ok(bytes.len()));
        let loss = house.until("it ends", Driver::take_loss);
        assert_eq!((loss.link, loss.reason.kind()), (link, ErrorKind::InvalidData), "{bytes:?}");
    }
    other.send(EVERYBODY, b"on");
    house.rounds(3);
    assert_eq!(house.driver.links().len(), 1);
}

#[test]
fn who_asks_and_never_changes_is_served_and_who_asks_and_leaves_is_forgotten() {
    let mut house = House::with_all_doors();
    let (ours, mut gone) = UnixStream::pair().unwrap();
    house.driver.join_fast(ours.into(), Vec::new()).unwrap();
    let mut marker = [0; 62];
    gone.read_exact(&mut marker).unwrap();
    assert_eq!((&marker[..2], fast::announced(&marker[2..])), (&[60, 0][..], Some(1)));
    drop(gone);
    house.until("it has gone", Driver::take_loss);
    // It hears fast frames, and its own go on behind two bytes.
    let (ours, mut guest) = UnixStream::pair().unwrap();
    house.driver.join_fast(ours.into(), Vec::new()).unwrap();
    guest.read_exact(&mut marker).unwrap();
    let other: Guest = house.guest("qemu", 9);
    let frame = [&other.mac()[..], &[2, 0, 0, 0, 0, 5, 0x88, 0xb5], b"slow"].concat();
    for _ in 0..3 {
        guest.write_all(&[&[u8::try_from(frame.len()).unwrap(), 0], &frame[..]].concat()).unwrap();
    }
    house.rounds(5);
    assert_eq!(other.heard(), [b"slow"; 3]);
    other.send([2, 0, 0, 0, 0, 5], b"fast");
    house.rounds(5);
    let mut head = [0; 14];
    let hello = 14 + 14 + 5;
    let mut skipped = vec![0; hello];
    guest.read_exact(&mut skipped).unwrap();
    guest.read_exact(&mut head).unwrap();
    assert_eq!(head, [0, 0, 0, 10 + 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}
