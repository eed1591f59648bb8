//! TCP sockets: peek offset, end of stream, discarding, readiness.

use crate::families::{V4, V6, families};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, send};
use slipway_host::clock;
use slipway_host::sys::sockopt::{self, Opt};
use slipway_host::sys::tcp::{discard, peek};
use slipway_host::upstream::{Peeking, Ways};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

fn pair() -> (TcpStream, TcpStream) {
    pair_over(V4)
}

fn pair_over(like: IpAddr) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((like, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// Peeks until it gives something else than EAGAIN, or a second has gone by.
fn peek_soon(fd: &TcpStream, into: &mut [u8]) -> Result<usize, Errno> {
    for _ in 0..1000 {
        match peek(fd.as_fd(), into) {
            Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

fn offset(fd: &TcpStream) -> i32 {
    sockopt::get(fd.as_fd(), Opt::PEEK_OFFSET).unwrap()
}

/// A pair over each family whose sockets have a peek offset.
fn with_offset(name: &str) -> Vec<(TcpStream, TcpStream)> {
    let Ways { v4, v6 } = Ways::probe();
    let there = families(name);
    let ways = [(v4, V4, "IPv4 (Linux 6.9)"), (v6, V6, "IPv6 (Linux 6.12)")];
    let mut pairs = Vec::new();
    for (way, like, family) in ways.into_iter().filter(|(_, like, _)| there.contains(like)) {
        match way {
            Peeking::Offset => pairs.push(pair_over(like)),
            Peeking::Skip => println!("SKIP {name}: this kernel has no SO_PEEK_OFF for TCP over {family}"),
        }
    }
    pairs
}

#[test]
fn peek_offset_moves_forward_when_peeking_and_back_when_taking() {
    for (here, mut there) in with_offset("peek_offset_moves_forward_when_peeking_and_back_when_taking") {
        assert_eq!(offset(&here), -1, "off at first");
        there.write_all(b"0123456789").unwrap();
        let mut into = [0; 4];
        assert_eq!(peek_soon(&here, &mut into), Ok(4));
        assert_eq!(offset(&here), -1, "a peek does not switch it on");

        sockopt::set(here.as_fd(), Opt::PEEK_OFFSET, 0).unwrap();
        for (expected, after) in [(&b"0123"[..], 4), (b"4567", 8), (b"89", 10)] {
            let len = peek(here.as_fd(), &mut into).unwrap();
            assert_eq!((&into[..len], offset(&here)), (expected, after));
        }
        assert_eq!(peek(here.as_fd(), &mut into), Err(Errno::EAGAIN), "all seen");
        assert_eq!(discard(here.as_fd(), 3), Ok(3));
        assert_eq!(offset(&here), 7, "taking moves it back");
        assert_eq!(peek(here.as_fd(), &mut into), Err(Errno::EAGAIN));

        // A retransmission peeks again from the front.
        sockopt::set(here.as_fd(), Opt::PEEK_OFFSET, 0).unwrap();
        assert_eq!(peek(here.as_fd(), &mut into), Ok(4));
        assert_eq!((&into, offset(&here)), (b"3456", 4));
        assert_eq!(discard(here.as_fd(), 7), Ok(7));
        assert_eq!(offset(&here), 0, "it never goes below zero");
        there.write_all(b"abc").unwrap();
        assert_eq!(peek_soon(&here, &mut into), Ok(3));
        assert_eq!(offset(&here), 3);
    }
}

#[test]
fn peeking_past_the_last_byte_tells_end_only_after_fin() {
    for (here, mut there) in with_offset("peeking_past_the_last_byte_tells_end_only_after_fin") {
        there.write_all(b"abc").unwrap();
        sockopt::set(here.as_fd(), Opt::PEEK_OFFSET, 0).unwrap();
        let mut into = [0; 8];
        assert_eq!(peek_soon(&here, &mut into), Ok(3));
        assert_eq!(peek(here.as_fd(), &mut into), Err(Errno::EAGAIN));
        there.shutdown(Shutdown::Write).unwrap();
        assert_eq!(peek_soon(&here, &mut into), Ok(0));
        assert_eq!(peek(here.as_fd(), &mut into), Ok(0), "again and again");
        // The bytes are still there.
        sockopt::set(here.as_fd(), Opt::PEEK_OFFSET, 1).unwrap();
        assert_eq!(peek(here.as_fd(), &mut into), Ok(2));
        assert_eq!(peek(here.as_fd(), &mut into), Ok(0));
        assert_eq!(discard(here.as_fd(), 3), Ok(3));
        assert_eq!(peek(here.as_fd(), &mut into), Ok(0));
        assert_eq!(discard(here.as_fd(), 1), Ok(0));
    }
}

#[test]
fn a_peek_across_many_segments_fills_the_buffer() {
    let (here, mut there) = pair();
    there.set_nodelay(true).unwrap();
    for byte in 0..100u8 {
        there.write_all(&[byte]).unwrap();
    }
    let mut into = [0; 100];
    let deadline = 1000;
    for _ in 0..deadline {
        if peek_soon(&here, &mut into) == Ok(100) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(into.iter().copied().eq(0..100));
}

#[test]
fn inline_or_not_decides_whether_bytes_before_the_urgent_one_are_counted_or_all() {
    let (here, mut there) = pair();
    let counted = |inline: i32| {
        sockopt::set(here.as_fd(), Opt::URGENT_INLINE, inline).unwrap();
        slipway_host::sys::tcp::queued(here.as_fd()).unwrap()
    };
    there.write_all(b"abc").unwrap();
    peek_soon(&here, &mut [0; 9]).unwrap();
    assert_eq!((counted(1), counted(0)), (3, 3));
    send(there.as_raw_fd(), b"U", MsgFlags::MSG_OOB).unwrap();
    there.write_all(b"defg").unwrap();
    let start = clock::now();
    while counted(1) < 8 {
        assert!(clock::now() - start < Duration::from_secs(20));
    }
    assert_eq!(counted(0), 3);
    // Taking what is in front brings it nearer, taking it ends it.
    counted(1);
    assert_eq!(discard(here.as_fd(), 2), Ok(2));
    assert_eq!((counted(1), counted(0)), (6, 1));
    counted(1);
    assert_eq!(discard(here.as_fd(), 1), Ok(1));
    assert_eq!((counted(1), counted(0)), (5, 0));
    counted(1);
    assert_eq!(discard(here.as_fd(), 1), Ok(1));
    assert_eq!((counted(1), counted(0)), (4, 4));
}

#[test]
fn urgent_data_stays_inline_and_stops_a_peek_short() {
    let (here, mut there) = pair();
    sockopt::set(here.as_fd(), Opt::URGENT_INLINE, 1).unwrap();
    there.write_all(b"ab").unwrap();
    send(there.as_raw_fd(), b"U", MsgFlags::MSG_OOB).unwrap();
    there.write_all(b"cd").unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    let (mut reader, mut into) = (&here, [0; 8]);
    std::thread::sleep(Duration::from_millis(20));
    let first = peek_soon(&here, &mut into).unwrap();
    assert!(first < 5, "it stops at the mark, though more is there: {first}");
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"abUcd");
}

#[test]
fn a_refused_connect_is_an_error_event_with_the_reason() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    assert_eq!(connect(fd.as_raw_fd(), &SockaddrStorage::from(free)), Err(Errno::EINPROGRESS));
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, 0)).unwrap();
    let mut events = [EpollEvent::empty()];
    assert_eq!(epoll.wait(&mut events, 1000u16), Ok(1));
    assert!(events[0].events().contains(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP));
    assert_eq!(sockopt::get(fd.as_fd(), Opt::ERROR), Ok(Errno::ECONNREFUSED as i32));
    assert_eq!(sockopt::get(fd.as_fd(), Opt::ERROR), Ok(0), "told once");
}

#[test]
fn after_a_short_send_one_edge_tells_of_room() {
    let (here, mut there) = pair();
    here.set_nonblocking(true).unwrap();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(&here, EpollEvent::new(flags, 0)).unwrap();
    let mut events = [EpollEvent::empty()];
    assert_eq!(epoll.wait(&mut events, 1000u16), Ok(1), "writable from the beginning, told once");
    assert_eq!(epoll.wait(&mut events, 0u8), Ok(0));

    let chunk = [0u8; 65536];
    let mut sent = 0;
    let short = loop {
        match send(here.as_raw_fd(), &chunk, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => sent += len,
            Err(error) => break error,
        }
        assert!(sent < 1 << 30, "the buffer must end somewhere");
    };
    assert_eq!(short, Errno::EAGAIN);
    let mut sink = vec![0; sent];
    there.read_exact(&mut sink).unwrap();
    assert_eq!(epoll.wait(&mut events, 1000u16), Ok(1));
    assert!(events[0].events().contains(EpollFlags::EPOLLOUT));
}

#[test]
fn an_accepted_connection_inherits_what_its_listener_was_set_to() {
    for like in families("an_accepted_connection_inherits_what_its_listener_was_set_to") {
        let listener = TcpListener::bind((like, 0)).unwrap();
        slipway_host::upstream::prepare_listener(listener.as_fd());
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for opt in [Opt::NO_DELAY, Opt::KEEPALIVE, Opt::URGENT_INLINE] {
            assert_ne!(sockopt::get(accepted.as_fd(), opt), Ok(0), "{opt:?} over {like}");
        }
    }
}

#[test]
fn acknowledgements_alone_wake_nobody() {
    let (here, mut there) = pair();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(&here, EpollEvent::new(flags, 0)).unwrap();
    let mut events = [EpollEvent::empty()];
    assert_eq!(epoll.wait(&mut events, 1000u16), Ok(1));
    (&here).write_all(b"hello").unwrap();
    there.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(epoll.wait(&mut events, 50u8), Ok(0));
}

#[test]
fn the_send_buffer_grows_by_itself_while_it_is_kept_full() {
    let (here, mut there) = pair();
    let before = sockopt::get(here.as_fd(), Opt::SEND_BUFFER).unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut there, &mut std::io::sink()).unwrap());
    let (chunk, start) = (vec![0; 1 << 20], clock::now());
    for _ in 0..64 {
        (&here).write_all(&chunk).unwrap();
        assert!(clock::now() - start < Duration::from_secs(20));
    }
    let after = sockopt::get(here.as_fd(), Opt::SEND_BUFFER).unwrap();
    drop(here);
    reader.join().unwrap();
    assert!(after > before, "{before} -> {after}");
}

#[test]
fn what_was_received_before_a_reset_can_still_be_read() {
    let (here, mut there) = pair();
    (&here).write_all(b"a request that nobody reads").unwrap();
    there.write_all(b"too large").unwrap();
    let mut into = [0; 16];
    assert_eq!(peek_soon(&here, &mut into), Ok(9));
    drop(there); // with the request unread: a reset
    let mut error = 0;
    for _ in 0..1000 {
        error = sockopt::get(here.as_fd(), Opt::ERROR).unwrap();
        if error != 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(Errno::from_raw(error), Errno::ECONNRESET);
    assert_eq!(peek(here.as_fd(), &mut into), Ok(9));
    assert_eq!(&into[..9], b"too large");
    assert_eq!(discard(here.as_fd(), 9), Ok(9));
    assert_eq!(peek(here.as_fd(), &mut into), Ok(0), "the error was told, so what remains is an end");
}
