//! Sockets of the guest's namespace that are ready before anybody asks for one.
//!
//! A new connection across the border wants a socket at once, and the thread inside is a switch of tasks away. So some
//! lie ready, of each kind that was ever asked for: an idle network has none. The first order is for a few, each
//! further one for twice as many up to [`MOST`]; it is given when half of that is left, so that the thread works while
//! the rest is used up.

use crate::upstream;
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, Sender};

/// What kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4, prepared as those of flows are.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv4.
    UdpV4,
    /// UDP over IPv6.
    UdpV6,
}

impl Kind {
    /// For connections to `address`.
    #[must_use]
    pub const fn tcp(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::TcpV6 } else { Self::TcpV4 }
    }

    /// For datagrams to `address`.
    #[must_use]
    pub const fn udp(address: IpAddr) -> Self {
        if address.is_ipv6() { Self::UdpV6 } else { Self::UdpV4 }
    }

    /// A socket of this kind, in the calling thread's network namespace. It does not block.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open(self) -> Result<OwnedFd, Errno> {
        let (family, ipv6) = match self {
            Self::TcpV4 | Self::UdpV4 => (AddressFamily::Inet, false),
            Self::TcpV6 | Self::UdpV6 => (AddressFamily::Inet6, true),
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        match self {
            Self::TcpV4 | Self::TcpV6 => {
                let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
                upstream::prepare_listener(fd.as_fd());
                Ok(fd)
            }
            Self::UdpV4 | Self::UdpV6 => {
                let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
                upstream::prepare_datagrams(fd.as_fd(), ipv6)?;
                Ok(fd)
            }
        }
    }
}

/// The first order.
const FIRST: usize = 4;
/// The largest.
const MOST: usize = 32;

/// What the thread made, or why not.
pub(super) type Fresh = (Kind, Result<OwnedFd, Errno>);

/// Makes `count` sockets, as long as that goes well. Called inside.
pub(super) fn make(kind: Kind, count: usize, maker: &Sender<Fresh>, bell: &EventFd) {
    for _ in 0..count {
        let made = kind.open();
        let failed = made.is_err();
        if maker.send((kind, made)).is_err() || failed {
            break;
        }
    }
    // It fails only when it rings already, 2^64 times.
    let _ = bell.write(1);
}

/// Those that are ready.
#[derive(Debug, Default)]
pub(super) struct Pools([Pool; 4]);

#[derive(Debug, Default)]
struct Pool {
    ready: Vec<OwnedFd>,
    /// Sockets of an order that has not ended.
    coming: usize,
    /// The size of the last order.
    batch: usize,
    failed: Option<Errno>,
}

impl Pools {
    fn of(&mut self, kind: Kind) -> &mut Pool {
        let [tcp4, tcp6, udp4, udp6] = &mut self.0;
        match kind {
            Kind::TcpV4 => tcp4,
            Kind::TcpV6 => tcp6,
            Kind::UdpV4 => udp4,
            Kind::UdpV6 => udp6,
        }
    }

    /// Takes in what has been made.
    pub(super) fn collect(&mut self, fresh: &Receiver<Fresh>) {
        while let Ok((kind, made)) = fresh.try_recv() {
            let pool = self.of(kind);
            match made {
                Ok(socket) => {
                    pool.ready.push(socket);
                    pool.coming = pool.coming.saturating_sub(1);
                }
                Err(errno) => {
                    pool.failed = Some(errno);
                    pool.coming = 0;
                }
            }
        }
    }

    /// One that is ready; `None`: one will come. An error is told once.
    pub(super) fn take(&mut self, kind: Kind) -> io::Result<Option<OwnedFd>> {
        let pool = self.of(kind);
        let socket = pool.ready.pop();
        match pool.failed.take() {
            Some(errno) if socket.is_none() => Err(errno.into()),
            _ => Ok(socket),
        }
    }

    /// How many should be ordered now, if any.
    pub(super) fn lacking(&mut self, kind: Kind) -> Option<usize> {
        let pool = self.of(kind);
        let next = (pool.batch * 2).clamp(FIRST, MOST);
        (pool.coming == 0 && pool.ready.len() <= pool.batch / 2).then_some(next)
    }

    /// They are ordered.
    pub(super) fn ordered(&mut self, kind: Kind, count: usize) {
        let pool = self.of(kind);
        (pool.coming, pool.batch) = (count, count);
    }
}
