//! Streams of AF_UNIX as the far ends of connections: what the engine does with sockets of TCP it does with these.

use crate::{FLOW, World};
use slipway_host::upstream::local_pair;
use slipway_netstack::FlowId;
use slipway_netstack::upstream::{Errno, Event, Peek, Sent, ServiceId, Upstream};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn attached() -> (World, UnixStream) {
    let mut world = World::new();
    let (ours, theirs) = local_pair().unwrap();
    world.sockets.attach_local(FLOW, ours).unwrap();
    (world, UnixStream::from(theirs))
}

fn peek(world: &mut World, offset: usize, room: usize) -> Result<Vec<u8>, Peek> {
    let mut into = vec![0; room];
    match world.sockets.tcp_peek(FLOW, offset, &mut into) {
        Peek::Data(len) => Ok(into[..len].to_vec()),
        other => Err(other),
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

#[test]
fn a_connection_to_a_service_is_told_and_its_far_end_handed_out() {
    let mut world = World::new();
    world.sockets.tcp_connect_service(FLOW, ServiceId(80)).unwrap();
    assert_eq!(world.until(|_| true), Event::Connected);
    let (service, flow, theirs) = world.sockets.take_service_client().unwrap();
    assert_eq!((service, flow), (ServiceId(80), FLOW));
    assert!(world.sockets.take_service_client().is_none());
    let mut far = UnixStream::from(theirs);
    assert_eq!(world.sockets.tcp_send(FLOW, &[b"GET", b" /"]), Sent::Taken(5));
    let mut got = [0; 5];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"GET /");
    far.write_all(b"200").unwrap();
    assert_eq!(world.until(|_| true), Event::Readable);
    assert_eq!(peek(&mut world, 0, 99), Ok(b"200".to_vec()));
}

#[test]
fn a_client_that_nobody_takes_is_bounded_and_one_that_is_dropped_is_refused() {
    let mut world = World::new();
    let opened =
        (0..1000).map_while(|n| world.sockets.tcp_connect_service(FlowId::new(n, 1), ServiceId(80)).ok());
    assert_eq!(opened.count(), 128);
    let mut world = World::new();
    world.sockets.tcp_connect_service(FLOW, ServiceId(80)).unwrap();
    drop(world.sockets.take_service_client());
    assert_eq!(world.until(|_| true), Event::Failed(Errno::Reset));
}

#[test]
fn peeks_jump_back_and_forth_and_bytes_stay_until_consumed() {
    let (mut world, mut far) = attached();
    // In pieces: the queue is a list of them.
    for piece in [&b"01"[..], b"2", b"3456", b"789"] {
        far.write_all(piece).unwrap();
    }
    world.until(|event| event == Event::Readable);
    for (offset, room, found) in [(0, 4, "0123"), (4, 4, "4567"), (8, 4, "89"), (2, 4, "2345"), (9, 9, "9")] {
        assert_eq!(peek(&mut world, offset, room), Ok(found.into()), "{offset}");
    }
    assert_eq!(peek(&mut world, 10, 4), Err(Peek::Empty));
    world.sockets.tcp_consume(FLOW, 3);
    assert_eq!(peek(&mut world, 3, 4), Ok(b"6789".to_vec()));
    assert_eq!(peek(&mut world, 0, 2), Ok(b"34".to_vec()));
    world.sockets.tcp_consume(FLOW, 7);
    assert_eq!(peek(&mut world, 0, 2), Err(Peek::Empty));
    far.write_all(b"abc").unwrap();
    world.until(|event| event == Event::Readable);
    assert_eq!(peek(&mut world, 1, 9), Ok(b"bc".to_vec()));
}

#[test]
fn each_half_closes_by_itself() {
    let (mut world, mut far) = attached();
    far.write_all(b"abc").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    world.until(|event| event == Event::Readable);
    assert_eq!(peek(&mut world, 0, 9), Ok(b"abc".to_vec()));
    assert_eq!(peek(&mut world, 3, 9), Err(Peek::End));
    assert_eq!(peek(&mut world, 1, 9), Ok(b"bc".to_vec()));
    world.sockets.tcp_consume(FLOW, 3);
    assert_eq!(peek(&mut world, 0, 9), Err(Peek::End));
    assert_eq!(world.sockets.tcp_send(FLOW, &[b"bye"]), Sent::Taken(3));
    world.sockets.tcp_shutdown(FLOW);
    let mut got = String::new();
    far.set_nonblocking(false).unwrap();
    far.read_to_string(&mut got).unwrap();
    assert_eq!(got, "bye");
}

/// The far end learns of a reset by what it cannot write any more; of a half that was closed it does not.
#[test]
fn a_reset_is_told_from_an_end_by_a_write() {
    let (mut world, mut far) = attached();
    world.sockets.tcp_send(FLOW, &[b"part"]);
    world.sockets.tcp_shutdown(FLOW);
    let mut got = [0; 9];
    assert_eq!((far.read(&mut got).unwrap(), far.read(&mut got).unwrap()), (4, 0));
    far.write_all(b"still there").unwrap();
    let (mut world, mut far) = attached();
    world.sockets.tcp_send(FLOW, &[b"part"]);
    world.sockets.tcp_reset(FLOW);
    assert_eq!((far.read(&mut got).unwrap(), far.read(&mut got).unwrap()), (4, 0));
    assert_eq!(far.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    // With bytes of its own that nobody has taken it is told outright.
    let (mut world, mut far) = attached();
    far.write_all(b"unread").unwrap();
    world.sockets.tcp_reset(FLOW);
    assert_eq!(far.read(&mut got).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(world.sockets.count(), 0);
}

#[test]
fn a_far_end_that_is_gone_ends_the_connection() {
    let (mut world, mut far) = attached();
    far.write_all(b"last").unwrap();
    drop(far);
    world.until(|event| event == Event::Readable);
    assert_eq!(peek(&mut world, 0, 9), Ok(b"last".to_vec()));
    assert_eq!(peek(&mut world, 4, 9), Err(Peek::End));
    assert!(matches!(world.sockets.tcp_send(FLOW, &[b"x"]), Sent::Failed(_)), "nobody takes it");
    // One that leaves bytes unread has reset it.
    let (mut world, far) = attached();
    world.sockets.tcp_send(FLOW, &[b"for nobody"]);
    drop(far);
    assert_eq!(world.until(|event| matches!(event, Event::Failed(_))), Event::Failed(Errno::Reset));
}

#[test]
fn a_short_send_is_followed_by_one_writable() {
    let (mut world, mut far) = attached();
    let chunk = vec![5; 1 << 20];
    let Sent::Taken(sent) = world.sockets.tcp_send(FLOW, &[&chunk, &chunk]) else { panic!() };
    assert!(sent > 0 && sent < chunk.len(), "{sent}");
    assert_eq!(world.sockets.tcp_send(FLOW, &[&chunk]), Sent::Taken(0));
    assert_eq!(world.round(20), []);
    far.set_nonblocking(false).unwrap();
    far.read_exact(&mut vec![0; sent]).unwrap();
    assert_eq!(world.until(|_| true), Event::Writable);
    assert_eq!(world.round(20), []);
}

/// What a misbehaving client may do to its own stream: descriptors sent along, and urgent bytes.
#[test]
fn what_comes_along_with_bytes_is_dropped_and_holds_up_nothing() {
    use nix::sys::socket::{ControlMessage, MsgFlags, send, sendmsg};
    let (mut world, mut far) = attached();
    let file = std::fs::File::open("/dev/null").unwrap();
    let rights = [ControlMessage::ScmRights(&[file.as_raw_fd()])];
    for _ in 0..3 {
        let part = [IoSlice::new(b"with")];
        sendmsg::<()>(far.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).unwrap();
        far.write_all(b"-out").unwrap();
    }
    // Not on every kernel (CONFIG_AF_UNIX_OOB).
    let urgent = send(far.as_raw_fd(), b"!", MsgFlags::MSG_OOB).is_ok();
    far.write_all(b"end").unwrap();
    world.until(|event| matches!(event, Event::Readable | Event::Urgent));
    let (mut got, mut taken) = (Vec::new(), 0);
    for _ in 0..100 {
        match peek(&mut world, got.len() - taken, 7) {
            Ok(more) => got.extend(more),
            Err(Peek::Empty) => {
                world.sockets.tcp_consume(FLOW, got.len() - taken);
                taken = got.len();
                if got.ends_with(b"end") {
                    break;
                }
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let expected: &[&[u8]] = &[b"with-outwith-outwith-outend", b"with-outwith-outwith-out!end"];
    assert!(expected.contains(&&got[..]), "{:?}, urgent: {urgent}", String::from_utf8_lossy(&got));
}

/// Megabytes both ways at once, taken as a guest acknowledges them: frame by frame, some of them again.
#[test]
fn bulk_goes_both_ways_and_loses_nothing() {
    const LEN: usize = 16 << 20;
    let (mut world, far) = attached();
    far.set_nonblocking(false).unwrap();
    let (mut reader, mut writer) = (far.try_clone().unwrap(), far);
    let data = pattern(LEN);
    let (up, down) = (data.clone(), data.clone());
    let reading = std::thread::spawn(move || {
        let mut got = vec![0; LEN];
        reader.read_exact(&mut got).unwrap();
        assert!(got == up, "guest to host");
    });
    let writing = std::thread::spawn(move || {
        writer.write_all(&down).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    });
    let (mut sent, mut got, mut taken, mut ended) = (0, Vec::with_capacity(LEN), 0, false);
    for round in 0..1_000_000 {
        if sent == LEN && ended {
            break;
        }
        if sent < LEN {
            let Sent::Taken(count) = world.sockets.tcp_send(FLOW, &[&data[sent..]]) else {
                panic!("at {sent}")
            };
            sent += count;
        }
        for _ in 0..4 {
            match peek(&mut world, got.len() - taken, 60_000) {
                Ok(more) => got.extend(more),
                Err(Peek::Empty) => break,
                Err(Peek::End) => {
                    ended = true;
                    break;
                }
                Err(other) => panic!("{other:?} at {}", got.len()),
            }
        }
        if round % 3 == 0 && got.len() > taken {
            // A repeat from the front, then an acknowledgement of a part.
            let again = peek(&mut world, 0, 1000).unwrap();
            assert_eq!(again, got[taken..taken + again.len()]);
            let count = (got.len() - taken).div_ceil(2);
            world.sockets.tcp_consume(FLOW, count);
            taken += count;
        }
        world.round(1);
    }
    assert!(got == data, "host to guest: {} bytes of {LEN}", got.len());
    reading.join().unwrap();
    writing.join().unwrap();
}
