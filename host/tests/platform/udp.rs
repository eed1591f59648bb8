//! UDP sockets: trains, error queue, batches.

use crate::families::families;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use slipway_host::sys::message::{Control, Name, control_messages};
use slipway_host::sys::mmsg::{Batch, receive_one, send_many, send_one};
use slipway_host::sys::sockopt::{self, Opt};
use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsFd;

fn split(segment: u16) -> Control {
    let mut control = Control::EMPTY;
    control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    control
}

/// One datagram or train: its length, and the size of its segments if it is one.
fn receive(socket: &UdpSocket) -> Result<(usize, Option<i32>), Errno> {
    let mut into = vec![0; 65536];
    let arrived = receive_one(socket.as_fd(), &mut [IoSliceMut::new(&mut into)], false)?;
    let segment = control_messages(arrived.control.as_bytes()).find_map(|message| match message {
        (libc::SOL_UDP, libc::UDP_GRO, data) => Some(i32::from_ne_bytes(*data.first_chunk().unwrap())),
        _ => None,
    });
    Ok((arrived.len, segment))
}

#[test]
fn a_train_is_split_by_the_kernel() {
    for like in families("a_train_is_split_by_the_kernel") {
        let (to, from) = (UdpSocket::bind((like, 0)).unwrap(), UdpSocket::bind((like, 0)).unwrap());
        let name = Name::from(to.local_addr().unwrap());
        let train = vec![7; 64 * 1000 - 1];
        assert_eq!(send_one(from.as_fd(), &name, &split(1000), &[IoSlice::new(&train)]), Ok(63_999));
        for _ in 0..63 {
            assert_eq!(receive(&to), Ok((1000, None)));
        }
        assert_eq!(receive(&to), Ok((999, None)));
        assert_eq!(receive(&to), Err(Errno::EAGAIN));
    }
}

#[test]
fn a_train_stays_together_for_a_receiver_that_wants_it() {
    for like in families("a_train_stays_together_for_a_receiver_that_wants_it") {
        let (to, from) = (UdpSocket::bind((like, 0)).unwrap(), UdpSocket::bind((like, 0)).unwrap());
        sockopt::set(to.as_fd(), Opt::UDP_GRO, 1).unwrap();
        let name = Name::from(to.local_addr().unwrap());
        let train = vec![7; 2500];
        assert_eq!(send_one(from.as_fd(), &name, &split(1000), &[IoSlice::new(&train)]), Ok(2500));
        assert_eq!(receive(&to), Ok((2500, Some(1000))));
        assert_eq!(receive(&to), Err(Errno::EAGAIN));
    }
}

#[test]
fn segments_longer_than_the_mtu_are_refused() {
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = Name::from(from.local_addr().unwrap());
    let train = vec![0; 65_535];
    let refused = send_one(from.as_fd(), &name, &split(65_000), &[IoSlice::new(&train)]);
    assert!(matches!(refused, Err(Errno::EINVAL | Errno::EMSGSIZE)), "{refused:?}");
}

#[test]
fn an_icmp_error_names_the_datagrams_destination() {
    for like in families("an_icmp_error_names_the_datagrams_destination") {
        let gone = UdpSocket::bind((like, 0)).unwrap().local_addr().unwrap();
        let from = UdpSocket::bind((like, 0)).unwrap();
        from.set_nonblocking(true).unwrap();
        let opt = if gone.is_ipv4() { Opt::ERROR_QUEUE_V4 } else { Opt::ERROR_QUEUE_V6 };
        sockopt::set(from.as_fd(), opt, 1).unwrap();
        let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&from, EpollEvent::new(flags, 0)).unwrap();
        let mut events = [EpollEvent::empty()];
        for _ in 0..2 {
            // The pending error of the round before makes one call fail.
            let _ = from.send_to(b"anyone?", gone);
            let _ = from.send_to(b"anyone?", gone);
            assert_eq!(epoll.wait(&mut events, 1000u16), Ok(1));
            assert!(events[0].events().contains(EpollFlags::EPOLLERR));
            let mut bytes = [0; 8];
            let report = receive_one(from.as_fd(), &mut [IoSliceMut::new(&mut bytes)], true).unwrap();
            assert_eq!(report.name.decode(), Some(gone));
            while receive_one(from.as_fd(), &mut [], true).is_ok() {}
        }
    }
}

#[test]
fn sending_wakes_nobody_who_waits_to_read() {
    let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    epoll.add(&from, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)).unwrap();
    for _ in 0..100 {
        from.send_to(b"x", to.local_addr().unwrap()).unwrap();
    }
    assert_eq!(epoll.wait(&mut [EpollEvent::empty()], 20u8), Ok(0));
}

#[test]
fn a_batch_with_room_left_has_emptied_the_queue_and_the_next_datagram_is_an_edge() {
    let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let name = Name::from(to.local_addr().unwrap());
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    epoll.add(&to, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0)).unwrap();
    let (mut batch, mut into, mut events) = (Batch::default(), [0; 64], [EpollEvent::empty()]);
    for _ in 0..10 {
        send_many(from.as_fd(), &name, &Control::EMPTY, b"abc", 1).unwrap();
        assert_eq!(epoll.wait(&mut events, 1000u16), Ok(1));
        assert_eq!(batch.receive(to.as_fd(), 4, (&mut into, 16), (&mut [], 0)), Ok(3));
        assert_eq!(receive(&to), Err(Errno::EAGAIN));
        assert_eq!(epoll.wait(&mut events, 0u8), Ok(0));
    }
}
