use crate::families::{V4, families};
use crate::{FLOW, World};
use slipway_host::upstream::{Peeking, Sockets, Ways};
use slipway_netstack::FlowId;
use slipway_netstack::upstream::{Errno, Event, Peek, Sent, Source, Upstream};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

/// A world whose flow is connected to the stream.
fn connected(mut world: World, like: IpAddr) -> (World, TcpStream) {
    let listener = TcpListener::bind((like, 0)).unwrap();
    world.sockets.tcp_connect(FLOW, listener.local_addr().unwrap(), Source::default(), 0).unwrap();
    assert_eq!(world.until(|_| true), Event::Connected);
    let (peer, _) = listener.accept().unwrap();
    peer.set_nodelay(true).unwrap();
    (world, peer)
}

/// Each way of peeking, over each family that has it.
fn peekings(test: &str) -> Vec<(Peeking, IpAddr)> {
    let Ways { v4, v6 } = Ways::probe();
    let mut all = Vec::new();
    for like in families(test) {
        let best = if like.is_ipv4() { v4 } else { v6 };
        all.push((Peeking::Skip, like));
        all.extend((best == Peeking::Offset).then_some((best, like)));
    }
    all
}

fn peek(world: &mut World, offset: usize, room: usize) -> Result<Vec<u8>, Peek> {
    let mut into = vec![0; room];
    match world.sockets.tcp_peek(FLOW, offset, &mut into) {
        Peek::Data(len) => Ok(into[..len].to_vec()),
        other => Err(other),
    }
}

#[test]
fn connects_over_both_families_and_carries_both_ways() {
    for like in families("connects_over_both_families_and_carries_both_ways") {
        let (mut world, mut peer) = connected(World::new(), like);
        assert_eq!(world.sockets.tcp_send(FLOW, &[b"he", b"llo"]), Sent::Taken(5));
        assert_eq!(world.sockets.tcp_send(FLOW, &[b""]), Sent::Taken(0));
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        peer.write_all(b"world").unwrap();
        assert_eq!(world.until(|_| true), Event::Readable);
        assert_eq!(peek(&mut world, 0, 99), Ok(b"world".to_vec()));
    }
}

#[test]
fn the_local_address_can_be_chosen() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = Ipv4Addr::new(127, 0, 0, 9);
    world.sockets.tcp_connect(FLOW, listener.local_addr().unwrap(), Some(from.into()).into(), 0).unwrap();
    assert_eq!(world.until(|_| true), Event::Connected);
    assert_eq!(listener.accept().unwrap().1.ip(), from);
    let elsewhere: Option<IpAddr> = Some(Ipv4Addr::new(240, 0, 0, 1).into());
    let refused = world.sockets.tcp_connect(FLOW, listener.local_addr().unwrap(), elsewhere.into(), 0);
    assert_eq!(refused, Err(Errno::NetUnreachable), "not an address of this host");
}

#[test]
fn flows_are_found_by_the_address_that_they_speak_from() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = IpAddr::from(Ipv4Addr::new(127, 0, 0, 9));
    world.sockets.tcp_connect(FLOW, listener.local_addr().unwrap(), Some(from).into(), 0).unwrap();
    let other = FlowId::new(5, 3);
    world.sockets.tcp_connect(other, listener.local_addr().unwrap(), Source::default(), 0).unwrap();
    // One that waits for datagrams at any address has none of its own.
    world.sockets.udp_open(FlowId::new(6, 1), Ipv4Addr::LOCALHOST.into(), Source::default()).unwrap();
    let speaking = |addresses: &[IpAddr]| world.sockets.speaking_from(&addresses.iter().copied().collect());
    assert_eq!(speaking(&[from]), [FLOW]);
    assert_eq!(speaking(&[Ipv4Addr::LOCALHOST.into()]), [other]);
    assert_eq!(speaking(&[Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()]), []);
    assert_eq!(speaking(&[]), []);
}

#[test]
fn a_refusal_is_told_and_an_ipv4_address_in_disguise_is_refused_here() {
    let mut world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.sockets.tcp_connect(FLOW, free, Source::default(), 0).unwrap();
    assert_eq!(world.until(|_| true), Event::Failed(Errno::Refused));
    world.sockets.close(FLOW);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let disguised = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    assert_eq!(world.sockets.tcp_connect(FLOW, disguised, Source::default(), 0), Err(Errno::NetUnreachable));
    assert_eq!(world.sockets.count(), 0);
}

#[test]
fn peeks_jump_back_and_forth_and_bytes_stay_until_consumed() {
    for (peeking, like) in peekings("peeks_jump_back_and_forth_and_bytes_stay_until_consumed") {
        let (mut world, mut peer) = connected(World::with_peeking(peeking), like);
        peer.write_all(b"0123456789").unwrap();
        world.until(|event| event == Event::Readable);
        assert_eq!(peek(&mut world, 0, 4), Ok(b"0123".to_vec()));
        assert_eq!(peek(&mut world, 4, 4), Ok(b"4567".to_vec()));
        assert_eq!(peek(&mut world, 8, 4), Ok(b"89".to_vec()));
        assert_eq!(peek(&mut world, 10, 4), Err(Peek::Empty));
        assert_eq!(peek(&mut world, 99, 4), Err(Peek::Empty));
        assert_eq!(peek(&mut world, 2, 4), Ok(b"2345".to_vec()), "a retransmission");
        world.sockets.tcp_consume(FLOW, 3);
        assert_eq!(peek(&mut world, 3, 4), Ok(b"6789".to_vec()));
        assert_eq!(peek(&mut world, 7, 4), Err(Peek::Empty));
        assert_eq!(peek(&mut world, 0, 2), Ok(b"34".to_vec()));
        world.sockets.tcp_consume(FLOW, 7);
        assert_eq!(peek(&mut world, 0, 2), Err(Peek::Empty));
        peer.write_all(b"abc").unwrap();
        world.until(|event| event == Event::Readable);
        assert_eq!(peek(&mut world, 1, 9), Ok(b"bc".to_vec()));
        assert_eq!(peek(&mut world, 0, 0), Err(Peek::Empty), "no room asked for");
    }
}

#[test]
fn each_frame_is_whole_however_much_is_under_way() {
    for (peeking, like) in peekings("each_frame_is_whole_however_much_is_under_way") {
        let (mut world, mut peer) = connected(World::with_peeking(peeking), like);
        let sent: Vec<u8> = (0..50_000_u32).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
        peer.write_all(&sent).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        world.until(|event| event == Event::Readable);
        let (mut got, mut taken) = (Vec::new(), 0);
        while got.len() < sent.len() {
            let frame = peek(&mut world, got.len() - taken, 3000).unwrap();
            assert_eq!(frame.len(), 3000.min(sent.len() - got.len()), "{peeking:?}");
            got.extend(frame);
            if taken + 10_000 <= got.len() {
                world.sockets.tcp_consume(FLOW, 4000);
                taken += 4000;
            }
        }
        assert_eq!(got, sent, "{peeking:?}");
        assert_eq!(peek(&mut world, got.len() - taken, 3000), Err(Peek::Empty));
        peer.write_all(b"more").unwrap();
        world.until(|event| event == Event::Readable);
        assert_eq!(peek(&mut world, got.len() - taken, 3000), Ok(b"more".to_vec()));
    }
}

#[test]
fn the_end_is_told_behind_the_last_byte_only() {
    for (peeking, like) in peekings("the_end_is_told_behind_the_last_byte_only") {
        let (mut world, mut peer) = connected(World::with_peeking(peeking), like);
        peer.write_all(b"abc").unwrap();
        world.until(|event| event == Event::Readable);
        assert_eq!(peek(&mut world, 0, 9), Ok(b"abc".to_vec()));
        assert_eq!(peek(&mut world, 3, 9), Err(Peek::Empty));
        peer.shutdown(Shutdown::Write).unwrap();
        world.until(|event| event == Event::Readable);
        assert_eq!(peek(&mut world, 3, 9), Err(Peek::End));
        assert_eq!(peek(&mut world, 1, 9), Ok(b"bc".to_vec()));
        assert_eq!(peek(&mut world, 3, 9), Err(Peek::End));
        world.sockets.tcp_consume(FLOW, 3);
        assert_eq!(peek(&mut world, 0, 9), Err(Peek::End));
        // Our half is still open.
        assert_eq!(world.sockets.tcp_send(FLOW, &[b"bye"]), Sent::Taken(3));
        world.sockets.tcp_shutdown(FLOW);
        let mut got = String::new();
        peer.read_to_string(&mut got).unwrap();
        assert_eq!(got, "bye");
    }
}

/// Data and end-of-file that arrive together are announced by one event.
#[test]
fn an_end_announced_with_the_last_bytes_is_found_without_another_event() {
    for (peeking, like) in peekings("an_end_announced_with_the_last_bytes_is_found_without_another_event") {
        let (mut world, mut peer) = connected(World::with_peeking(peeking), like);
        peer.write_all(b"abc").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        world.until(|event| event == Event::Readable);
        assert_eq!(peek(&mut world, 0, 2), Ok(b"ab".to_vec()), "the buffer was too small to see the end");
        assert_eq!(peek(&mut world, 2, 9), Ok(b"c".to_vec()));
        assert_eq!(peek(&mut world, 3, 9), Err(Peek::End));
        assert_eq!(peek(&mut world, 0, 9), Ok(b"abc".to_vec()), "and it is all there to be repeated");
        world.sockets.tcp_consume(FLOW, 2);
        assert_eq!(peek(&mut world, 0, 9), Ok(b"c".to_vec()));
        world.sockets.tcp_consume(FLOW, 1);
        assert_eq!(peek(&mut world, 0, 9), Err(Peek::End));
    }
}

#[test]
fn urgent_data_is_told_of_and_lies_in_line() {
    use nix::sys::socket::{MsgFlags, send};
    use std::os::fd::AsRawFd;
    for (peeking, like) in peekings("urgent_data_is_told_of_and_lies_in_line") {
        let (mut world, mut peer) = connected(World::with_peeking(peeking), like);
        peer.write_all(b"ab").unwrap();
        send(peer.as_raw_fd(), b"U", MsgFlags::MSG_OOB).unwrap();
        peer.write_all(b"cd").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        world.until(|event| event == Event::Urgent);
        assert_eq!(world.sockets.tcp_urgent(FLOW), Some(2));
        let (mut all, mut taken) = (Vec::new(), 0);
        for _ in 0..9 {
            match peek(&mut world, all.len() - taken, 9) {
                Ok(more) => all.extend(more),
                Err(Peek::Empty) if all.len() < 5 => {
                    assert_eq!(peeking, Peeking::Skip, "with an offset, all can be peeked at once");
                    world.sockets.tcp_consume(FLOW, all.len() - taken);
                    taken = all.len();
                    world.until(|event| event == Event::Urgent);
                }
                Err(end) => {
                    assert_eq!(end, Peek::Empty);
                    break;
                }
            }
        }
        assert_eq!(all, b"abUcd");
        world.sockets.tcp_consume(FLOW, 5 - taken);
        assert_eq!(peek(&mut world, 0, 9), Err(Peek::Empty));
    }
}

#[test]
fn a_short_send_is_followed_by_one_writable() {
    let (mut world, mut peer) = connected(World::new(), V4);
    let chunk = vec![5; 1 << 20];
    let mut sent = 0;
    loop {
        let Sent::Taken(taken) = world.sockets.tcp_send(FLOW, &[&chunk, &chunk]) else { panic!() };
        sent += taken;
        if taken < 2 * chunk.len() {
            break;
        }
        assert!(sent < 1 << 30);
    }
    assert_eq!(world.sockets.tcp_send(FLOW, &[&chunk]), Sent::Taken(0));
    assert_eq!(world.round(20), []);
    peer.read_exact(&mut vec![0; sent]).unwrap();
    assert_eq!(world.until(|_| true), Event::Writable);
    peer.write_all(b"x").unwrap();
    assert_eq!(world.until(|_| true), Event::Readable);
    assert_eq!(world.round(20), [], "room is told once, not with every event");
}

#[test]
fn a_reset_from_either_side_is_seen_by_the_other() {
    let (mut world, peer) = connected(World::new(), V4);
    Sockets::refuse(OwnedFd::from(peer));
    assert_eq!(world.until(|_| true), Event::Failed(Errno::Reset));
    assert!(matches!(world.sockets.tcp_send(FLOW, &[b"x"]), Sent::Failed(Errno::Reset)));

    let (mut world, mut peer) = connected(World::new(), V4);
    world.sockets.tcp_reset(FLOW);
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(world.sockets.count(), 0);
}

#[test]
fn an_accepted_connection_is_attached_with_what_it_has_received() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"early").unwrap();
    let (socket, _) = listener.accept().unwrap();
    world.sockets.attach_tcp(FLOW, socket.into()).unwrap();
    assert_eq!(world.until(|_| true), Event::Readable);
    assert_eq!(peek(&mut world, 0, 9), Ok(b"early".to_vec()));
    world.sockets.tcp_consume(FLOW, 5);
    assert_eq!(peek(&mut world, 0, 9), Err(Peek::Empty), "and does not block");
}

#[test]
fn stale_and_foreign_ids_find_nothing() {
    let (mut world, mut peer) = connected(World::new(), V4);
    for stale in [FlowId::new(3, 6), FlowId::new(3, 8), FlowId::new(99, 7)] {
        assert_eq!(world.sockets.tcp_send(stale, &[b"x"]), Sent::Failed(Errno::BadSocket));
        assert_eq!(world.sockets.tcp_peek(stale, 0, &mut [0]), Peek::Failed(Errno::BadSocket));
        world.sockets.tcp_consume(stale, 1);
        world.sockets.tcp_shutdown(stale);
        world.sockets.tcp_reset(stale);
        world.sockets.close(stale);
    }
    assert!(world.sockets.udp_receive(FLOW, &mut [0; 9]).is_err(), "another kind of socket");
    assert!(world.sockets.take_error(FLOW).is_err());
    world.sockets.close(FLOW);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert_eq!(world.sockets.tcp_send(FLOW, &[b"x"]), Sent::Failed(Errno::BadSocket));
    assert_eq!(world.round(10), []);
}

#[test]
fn megabytes_cross_by_peeking_and_consuming_in_odd_steps() {
    for (peeking, like) in peekings("megabytes_cross_by_peeking_and_consuming_in_odd_steps") {
        let (mut world, mut peer) = connected(World::with_peeking(peeking), like);
        const TOTAL: usize = 3 << 20;
        let writer = std::thread::spawn(move || {
            let data: Vec<u8> = (0..TOTAL).map(pattern).collect();
            peer.write_all(&data).unwrap();
        });
        let (mut taken, mut seen, mut into) = (0, 0, vec![0; 50_000]);
        for step in 0.. {
            assert!(step < 1_000_000);
            match world.sockets.tcp_peek(FLOW, seen - taken, &mut into[..1 + step * 7919 % 50_000]) {
                Peek::Data(len) => {
                    for (at, byte) in into[..len].iter().enumerate() {
                        assert_eq!(*byte, pattern(seen + at));
                    }
                    seen += len;
                }
                Peek::Empty => {
                    world.round(50);
                }
                Peek::End => break,
                Peek::Failed(error) => panic!("{error:?}"),
            }
            let ready = (seen - taken) * (step % 3) / 2;
            world.sockets.tcp_consume(FLOW, ready);
            taken += ready;
            if step % 17 == 0 {
                seen = taken + (seen - taken) / 2; // As if half of what is under way were lost.
            }
        }
        assert_eq!(seen, TOTAL);
        writer.join().unwrap();
    }
}

#[expect(clippy::cast_possible_truncation, reason = "that is the pattern")]
fn pattern(at: usize) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}
