//! An event loop without an engine, for the tests of this crate: a real epoll set, and lists of what was handed over.

use crate::forwarder::{Connection, Forwarder};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slipway_host::driver::Interest;
use slipway_host::inside::Side;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::upstream::{Client, Forwarded, Meta};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

/// A datagram, or a train of them, on its way to the guest.
#[derive(Debug)]
pub(crate) struct Datagrams {
    pub(crate) listener: Rc<OwnedFd>,
    pub(crate) client: Client,
    pub(crate) guest: SocketAddr,
    pub(crate) payload: Vec<u8>,
    pub(crate) segment: usize,
    pub(crate) meta: Meta,
}

/// The stand-in.
#[derive(Debug)]
pub(crate) struct FakeHost {
    pub(crate) epoll: Epoll,
    pub(crate) v4: bool,
    pub(crate) v6: bool,
    pub(crate) guest_v4: Option<IpAddr>,
    pub(crate) guest_v6: Option<IpAddr>,
    /// Where loopback clients get, if elsewhere.
    pub(crate) guest_near: Option<IpAddr>,
    /// Watching more descriptors than this fails.
    pub(crate) watch_limit: usize,
    pub(crate) watched: usize,
    pub(crate) refuse: bool,
    /// The guest's side is in reach, and stands where the host's does.
    pub(crate) inside: bool,
    pub(crate) shortcut: bool,
    /// Whose shortcut was taken: the side, the client, where it came to, the port across.
    pub(crate) spliced: Vec<(Side, SocketAddr, SocketAddr, u16)>,
    pub(crate) connections: Vec<(OwnedFd, SocketAddr, SocketAddr)>,
    pub(crate) datagrams: Vec<Datagrams>,
    /// What is told to be under way.
    pub(crate) under_way: Vec<Connection>,
}

impl FakeHost {
    /// A guest with both families: 10.0.2.100 and fd00::100.
    pub(crate) fn new() -> Self {
        Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(),
            v4: true,
            v6: true,
            guest_v4: Some("10.0.2.100".parse().unwrap()),
            guest_v6: Some("fd00::100".parse().unwrap()),
            watch_limit: usize::MAX,
            watched: 0,
            refuse: false,
            inside: false,
            shortcut: false,
            guest_near: None,
            spliced: Vec::new(),
            connections: Vec::new(),
            datagrams: Vec::new(),
            under_way: Vec::new(),
        }
    }

    /// A guest without IPv6.
    pub(crate) fn v4_only() -> Self {
        Self { v6: false, guest_v6: None, ..Self::new() }
    }

    /// The tokens that are ready within `millis` milliseconds.
    pub(crate) fn ready(&self, millis: u16) -> Vec<u32> {
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, EpollTimeout::from(millis)).unwrap();
        events[..count].iter().map(|event| u32::try_from(event.data()).unwrap()).collect()
    }
}

fn event(interest: Interest, token: u32) -> EpollEvent {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, interest.readable);
    flags.set(EpollFlags::EPOLLOUT, interest.writable);
    EpollEvent::new(flags, token.into())
}

impl Forwarder for FakeHost {
    fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()> {
        if self.watched == self.watch_limit {
            return Err(nix::errno::Errno::ENOSPC.into());
        }
        self.epoll.add(fd, event(interest, token))?;
        self.watched += 1;
        Ok(())
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut event(interest, token))?)
    }

    fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.epoll.delete(fd).unwrap();
        self.watched -= 1;
    }

    fn family_on(&self, ipv6: bool) -> bool {
        if ipv6 { self.v6 } else { self.v4 }
    }

    fn guest_address(&self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 { self.guest_v6 } else { self.guest_v4 }
    }

    fn guest_address_toward(&self, from: IpAddr) -> Option<IpAddr> {
        self.guest_near.filter(|_| from.is_loopback()).or_else(|| self.guest_address(from.is_ipv6()))
    }

    fn accept_tcp(
        &mut self,
        socket: OwnedFd,
        client: SocketAddr,
        guest: SocketAddr,
    ) -> Result<(), DropReason> {
        if self.refuse {
            return Err(DropReason::NoRoom);
        }
        self.connections.push((socket, client, guest));
        Ok(())
    }

    fn accept_udp(&mut self, listener: &Rc<OwnedFd>, datagrams: &Forwarded<'_>) -> Result<(), DropReason> {
        if self.refuse {
            return Err(DropReason::NoRoom);
        }
        let &Forwarded { client, guest, payload, segment, meta } = datagrams;
        let (listener, payload) = (Rc::clone(listener), payload.to_vec());
        self.datagrams.push(Datagrams { listener, client, guest, payload, segment, meta });
        Ok(())
    }

    fn release_udp(&mut self, listener: &Rc<OwnedFd>) {
        self.datagrams.retain(|datagrams| !Rc::ptr_eq(&datagrams.listener, listener));
    }

    fn connections(&self) -> Box<dyn Iterator<Item = Connection> + '_> {
        Box::new(self.under_way.iter().copied())
    }

    fn open_listener(
        &mut self,
        side: Side,
        listen: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        if side == Side::Host || self.inside { listen() } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn shortcut(&self, _: Side) -> bool {
        self.shortcut
    }

    fn splice_tcp(
        &mut self,
        side: Side,
        _: OwnedFd,
        client: SocketAddr,
        local: SocketAddr,
        port: u16,
    ) -> Result<(), DropReason> {
        self.spliced.push((side, client, local, port));
        Ok(())
    }

    fn splice_udp(
        &mut self,
        side: Side,
        _: &Rc<OwnedFd>,
        datagrams: &Forwarded<'_>,
    ) -> Result<(), DropReason> {
        let Client { address, at } = datagrams.client;
        self.spliced.push((side, address, at, datagrams.guest.port()));
        Ok(())
    }
}

/// An address of this process's own on the loopback: other runs of the same tests have others.
pub(crate) fn own_address(last: u8) -> String {
    let pid = std::process::id();
    format!("127.{}.{}.{last}", 1 + pid % 250, pid / 250 % 256)
}

/// A port from which to look for free ones, below the ephemeral ports: the tests of this process differ in `test`, and
/// others look elsewhere.
pub(crate) fn own_port(test: u32) -> u16 {
    u16::try_from(20_000 + (std::process::id() * 7 + test * 1009) % 11_000).unwrap()
}
