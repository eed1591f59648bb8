use super::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use slipway_netstack::device::Gso;
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

fn pair() -> (Stream, UnixStream) {
    let (ours, guest) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (Stream::from_owned_fd(ours), UnixStream::from(guest))
}

fn frame(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + seed) % 251).unwrap()).collect()
}

fn wire(frames: &[Vec<u8>]) -> Vec<u8> {
    let each = |frame: &Vec<u8>| [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat();
    frames.iter().flat_map(each).collect()
}

fn read_all(stream: &mut Stream) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; MAX_FRAME];
    std::iter::from_fn(|| {
        let (offload, len) = stream.read_frame(&mut buffer).unwrap()?;
        assert_eq!(offload, UNCHECKED);
        Some(buffer[..len].to_vec())
    })
    .collect()
}

#[test]
fn frames_are_whole_however_they_come() {
    let (mut stream, mut guest) = pair();
    let sent: Vec<_> = [14, 60, 1514, MAX_FRAME, 15].iter().zip(0..).map(|(len, n)| frame(*len, n)).collect();
    let bytes = wire(&sent);
    let (head, tail) = bytes.split_at(100);
    let mut got = Vec::new();
    for byte in head {
        guest.write_all(&[*byte]).unwrap();
        got.extend(read_all(&mut stream));
    }
    for part in tail.chunks(30_000) {
        guest.write_all(part).unwrap();
        got.extend(read_all(&mut stream));
    }
    assert_eq!(got, sent);
    assert!(!stream.is_ahead());
}

#[test]
fn memory_follows_what_a_guest_has_to_say() {
    let (mut stream, mut guest) = pair();
    assert!(read_all(&mut stream).is_empty());
    assert_eq!(stream.inbox.len(), FIRST_INBOX);
    for n in 0..1000 {
        guest.write_all(&wire(&[frame(1514, n)])).unwrap();
        assert_eq!(read_all(&mut stream), [frame(1514, n)]);
    }
    assert_eq!(stream.inbox.len(), FIRST_INBOX, "one frame at a time");
    for n in 0..20 {
        let sent = [frame(65_000, n), frame(60_000, n)];
        guest.write_all(&wire(&sent)).unwrap();
        assert_eq!(read_all(&mut stream), sent);
    }
    assert!((MAX_FRAME..=INBOX).contains(&stream.inbox.len()), "{} bytes", stream.inbox.len());
}

#[test]
fn what_was_read_ahead_is_known() {
    let (mut stream, mut guest) = pair();
    let sent: Vec<_> = (0..100).map(|n| frame(60, n)).collect();
    guest.write_all(&wire(&sent)).unwrap();
    let mut buffer = vec![0; MAX_FRAME];
    for (n, frame) in sent.iter().enumerate() {
        let (_, len) = stream.read_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer[..len], *frame);
        assert_eq!(stream.is_ahead(), n < 99, "{n}");
    }
    assert!(stream.read_frame(&mut buffer).unwrap().is_none());
    drop(guest);
    let end = (0..2).find_map(|_| stream.read_frame(&mut buffer).err()).unwrap();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_length_that_no_frame_has_is_the_end() {
    for length in [0, 13, u32::try_from(MAX_FRAME).unwrap() + 1, u32::MAX] {
        let (mut stream, mut guest) = pair();
        guest.write_all(&wire(&[frame(60, 1)])).unwrap();
        guest.write_all(&length.to_be_bytes()).unwrap();
        let mut buffer = vec![0; MAX_FRAME];
        assert!(stream.read_frame(&mut buffer).unwrap().is_some(), "{length}");
        assert!(stream.is_ahead());
        let error = stream.read_frame(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
    }
}

#[test]
fn a_frame_that_has_begun_is_finished_behind_a_reader_who_pauses() {
    let (mut stream, mut guest) = pair();
    let mut taken = Vec::new();
    for n in 0..1000 {
        let next = frame(9000 + n, n);
        match stream.transmit(Offload::NONE, &next) {
            Ok(()) => taken.push(next),
            Err(Full) => break,
        }
    }
    assert!(taken.len() > 20 && taken.len() < 1000, "{}", taken.len());
    assert_eq!(stream.flush(), Err(Full));
    assert!(stream.waiting() <= OUTBOX);
    let expected = wire(&taken);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        guest.read_exact(&mut got).unwrap();
        (got == expected, guest)
    });
    while stream.flush() == Err(Full) {
        std::thread::yield_now();
    }
    let (whole, guest) = reader.join().unwrap();
    assert!(whole, "in order, and nothing between");
    drop(guest);
    assert_eq!(stream.transmit(Offload::NONE, &[0; 60]).and_then(|()| stream.flush()), Ok(()));
    assert_eq!(stream.transmit(Offload::NONE, &[0; 60]), Ok(()), "nobody is there to wait for");
    assert_eq!(stream.lost(), Lost { down: 1, ..Lost::default() });
}

const GATEWAY: MacAddr = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd]);
const GUEST: MacAddr = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]);

/// What a TAP leaves to do in a train of TCP.
const TRAIN: Offload = Offload {
    checksum: Checksum::Partial { start: 34, offset: 16 },
    gso: Some(Gso { kind: GsoKind::Tcp4, size: 1448, header_len: 66 }),
};

fn sockets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

fn behind_two_bytes(frame: &[u8]) -> Vec<u8> {
    [&u16::try_from(frame.len()).unwrap().to_le_bytes()[..], frame].concat()
}

fn give(stream: &mut Stream, offload: Offload, frame: &[u8]) {
    assert_eq!(stream.transmit(offload, frame).and_then(|()| stream.flush()), Ok(()));
}

/// The next frame. A call that brought all there was is followed by one that asks nobody.
fn taken(stream: &mut Stream) -> Option<(Offload, Vec<u8>)> {
    let mut buffer = vec![0; MAX_FRAME];
    let (offload, len) = (0..2).find_map(|_| stream.read_frame(&mut buffer).unwrap())?;
    Some((offload, buffer[..len].to_vec()))
}

#[test]
fn either_direction_of_a_fast_link_changes_behind_what_was_under_way() {
    let (ours, theirs) = sockets();
    let mut host = Stream::fast(ours, GATEWAY, behind_two_bytes(&frame(60, 0)));
    let mut forwarder = Stream::asking(theirs, GUEST);
    assert_eq!((host.capabilities(), forwarder.capabilities()), (Capabilities::ALL, Capabilities::default()));
    let train = frame(MAX_FRAME, 7);
    give(&mut forwarder, Offload::NONE, &frame(1514, 1));
    give(&mut host, TRAIN, &train);
    for n in 0..2 {
        let len = [60, 1514][n];
        assert_eq!(taken(&mut host), Some((UNCHECKED, frame(len, n))), "it was under way");
    }
    assert_eq!(taken(&mut host), None);
    assert_eq!(taken(&mut forwarder), Some((TRAIN, train.clone())), "behind the marker, which nobody sees");
    assert_eq!(forwarder.capabilities(), Capabilities::ALL);
    give(&mut forwarder, TRAIN, &train);
    assert_eq!(taken(&mut host), Some((TRAIN, train)));
    for checksum in [Checksum::Complete, Checksum::Verified] {
        give(&mut forwarder, Offload { checksum, gso: None }, &frame(60, 2));
        assert_eq!(taken(&mut host), Some((UNCHECKED, frame(60, 2))), "nobody vouches for it");
    }
    assert_eq!((host.lost(), forwarder.lost()), (Lost::default(), Lost::default()));
}

#[test]
fn whoever_is_not_granted_the_fast_link_goes_on_as_before() {
    let (ours, theirs) = sockets();
    let (mut forwarder, mut host) = (Stream::asking(theirs, GUEST), UnixStream::from(ours));
    host.set_nonblocking(true).unwrap();
    host.write_all(&behind_two_bytes(&frame(60, 3))).unwrap();
    assert_eq!(taken(&mut forwarder), Some((UNCHECKED, frame(60, 3))));
    // What comes later in that shape is somebody's frame.
    let late = fast::marker(GATEWAY);
    host.write_all(&behind_two_bytes(&late)).unwrap();
    assert_eq!(taken(&mut forwarder), Some((UNCHECKED, late)));
    assert_eq!(forwarder.capabilities(), Capabilities::default());
    give(&mut forwarder, Offload::NONE, &frame(100, 4));
    assert_eq!(forwarder.transmit(TRAIN, &frame(100, 5)), Ok(()), "nothing that the wire cannot say");
    let mut sent = Vec::new();
    assert_eq!(host.read_to_end(&mut sent).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(sent, behind_two_bytes(&frame(100, 4)), "and nothing else");
}

#[test]
fn a_version_that_nobody_asked_for_is_the_end() {
    let mut marker = fast::marker(GATEWAY);
    marker[31] = 2;
    let (ours, theirs) = sockets();
    let mut forwarder = Stream::asking(theirs, GUEST);
    UnixStream::from(ours).write_all(&behind_two_bytes(&marker)).unwrap();
    let error = forwarder.read_frame(&mut vec![0; MAX_FRAME]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

/// A fast link whose other end writes bytes.
fn fast_by_bytes() -> (Stream, UnixStream) {
    let (ours, theirs) = sockets();
    let stream = Stream::fast(ours, GATEWAY, behind_two_bytes(&fast::marker(GUEST)));
    (stream, UnixStream::from(theirs))
}

#[test]
fn a_header_that_makes_no_sense_costs_its_frame() {
    let (mut stream, mut guest) = fast_by_bytes();
    let kind = |kind: u8| [1, kind, 66, 0, 168, 5, 34, 0, 16, 0];
    let headers = [
        ("an unknown kind", kind(3)),
        ("no size", [1, 1, 66, 0, 0, 0, 34, 0, 16, 0]),
        ("a checksum behind the end", [1, 0, 0, 0, 0, 0, 85, 0, 14, 0]),
        ("headers behind the end", [1, 1, 101, 0, 168, 5, 34, 0, 16, 0]),
        ("a train whose checksum is complete", [0, 1, 66, 0, 168, 5, 0, 0, 0, 0]),
    ];
    let put = |guest: &mut UnixStream, header: &[u8], frame: &[u8]| {
        let bytes = [header, frame].concat();
        guest.write_all(&wire(&[bytes])).unwrap();
    };
    for (n, (what, header)) in (1..).zip(headers) {
        put(&mut guest, &header, &frame(100, 1));
        put(&mut guest, &kind(1), &frame(100, 2));
        assert_eq!(taken(&mut stream).map(|(_, frame)| frame), Some(frame(100, 2)), "{what}");
        assert_eq!(stream.lost(), Lost { malformed: n, ..Lost::default() }, "{what}");
    }
    // However many there are, others have their turns.
    assert_eq!(taken(&mut stream), None);
    for _ in 0..40 {
        put(&mut guest, &kind(9), &[]);
    }
    let mut calls = 0;
    while calls == 0 || stream.is_ahead() {
        assert!(stream.read_frame(&mut vec![0; MAX_FRAME]).unwrap().is_none());
        calls += 1;
    }
    assert_eq!((stream.lost().malformed, calls), (45, 3));
    put(&mut guest, &[0; 10], &frame(3, 0));
    assert_eq!(taken(&mut stream), Some((UNCHECKED, frame(3, 0))), "short ones are the switch's to refuse");
}

#[test]
fn a_length_that_no_frame_has_ends_a_fast_link() {
    for length in [0, 9, u32::try_from(10 + MAX_FRAME).unwrap() + 1, u32::MAX] {
        let (mut stream, mut guest) = fast_by_bytes();
        assert_eq!(taken(&mut stream), None);
        guest.write_all(&length.to_be_bytes()).unwrap();
        let error = stream.read_frame(&mut vec![0; MAX_FRAME]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
    }
}

#[test]
fn a_fast_link_that_is_full_takes_no_part_of_a_frame() {
    let (ours, theirs) = sockets();
    let mut host = Stream::fast(ours, GATEWAY, Vec::new());
    let mut forwarder = Stream::asking(theirs, GUEST);
    let mut sent = Vec::new();
    for n in 0..1000 {
        let next = frame(MAX_FRAME - n, n);
        match host.transmit(TRAIN, &next) {
            Ok(()) => sent.push((TRAIN, next)),
            Err(Full) => break,
        }
    }
    assert!(sent.len() > 3 && sent.len() < 1000, "{}", sent.len());
    let mut found = Vec::new();
    for _ in 0..10_000 {
        found.extend(std::iter::from_fn(|| taken(&mut forwarder)));
        host.has_room();
        if host.flush().is_ok() && found.len() == sent.len() {
            break;
        }
    }
    assert!(found == sent, "each once, in order");
}
