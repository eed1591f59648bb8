//! Who may fragment the datagrams of a flow's socket: what the guest says, the host's kernel is told.
//!
//! | the guest's packet | option | so that |
//! |---|---|---|
//! | may be fragmented | `IP_PMTUDISC_DONT` | this host fragments it, and routers may |
//! | must not be, fits an Ethernet frame | `IP_PMTUDISC_PROBE` | it leaves whole or not at all, whatever this host believes of the path: the guest's kernel keeps its own book on that, and its programs may be probing (RFC 8899) |
//! | must not be, is larger | `IP_PMTUDISC_WANT` | it is kept whole where the way out takes it, and this host fragments it otherwise |
//!
//! The last is a *deviation*: most kernels set "don't fragment" on whatever fits their own link, and ours, of up to
//! 65,520 bytes, is wider than any way out. To refuse what only our link made possible would lose the first datagram of
//! programs that have never heard of path MTU discovery, which slirp4netns delivers.
//!
//! The option belongs to the socket, so it is set when it changes; a flow whose packets are all alike never asks for it
//! again. The numbers are the same for both families (linux/in.h, linux/in6.h).

use crate::sys::sockopt::{self, Opt};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};
use slipway_netstack::upstream::Meta;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The longest IP packet of an Ethernet frame.
const ETHERNET_MTU: usize = 1500;

/// Who may fragment what a socket sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragmentation {
    /// This host, and any router.
    Anybody,
    /// This host.
    Us,
    /// Nobody.
    Nobody,
}

impl Fragmentation {
    /// What a datagram of `len` bytes, headers of its transport included, asks for.
    fn wanted(meta: Meta, len: usize, ipv6: bool) -> Self {
        let ip = if ipv6 { 40 } else { 20 };
        match meta.dont_fragment {
            false => Self::Anybody,
            true if len + ip > ETHERNET_MTU => Self::Us,
            true => Self::Nobody,
        }
    }

    /// Tells the kernel, if it has been told something else.
    pub(super) fn adapt(&mut self, fd: BorrowedFd<'_>, ipv6: bool, meta: Meta, len: usize) {
        let wanted = Self::wanted(meta, len, ipv6);
        if *self != wanted {
            wanted.set(fd, ipv6);
            *self = wanted;
        }
    }

    /// Tells the kernel.
    pub(super) fn set(self, fd: BorrowedFd<'_>, ipv6: bool) {
        let value = match self {
            Self::Anybody => libc::IP_PMTUDISC_DONT,
            Self::Us => libc::IP_PMTUDISC_WANT,
            Self::Nobody => libc::IP_PMTUDISC_PROBE,
        };
        // The options are as old as the oldest supported kernel.
        let _ = sockopt::set(fd, if ipv6 { Opt::MTU_DISCOVER_V6 } else { Opt::MTU_DISCOVER_V4 }, value);
    }
}

/// What this host believes to be the path MTU to `to`, at least that of its way out; 0 if there is none. It asks a
/// socket of its own, for one that is not connected cannot tell. For datagrams that were refused.
pub(super) fn path_mtu(to: SocketAddr) -> u16 {
    let (family, opt) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, Opt::PATH_MTU_V4),
        SocketAddr::V6(_) => (AddressFamily::Inet6, Opt::PATH_MTU_V6),
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let ask = || {
        let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
        // A datagram socket's connect sends nothing. Port 0 would mean "not connected".
        connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to.ip(), to.port().max(1))))?;
        sockopt::get(fd.as_fd(), opt)
    };
    ask().map_or(0, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_decides_up_to_an_ethernet_frame() {
        let meta = |dont_fragment| Meta { dont_fragment, ..Meta::default() };
        for (len, ipv6) in [(1480, false), (1460, true)] {
            assert_eq!(Fragmentation::wanted(meta(true), len, ipv6), Fragmentation::Nobody);
            assert_eq!(Fragmentation::wanted(meta(true), len + 1, ipv6), Fragmentation::Us);
            assert_eq!(Fragmentation::wanted(meta(false), len, ipv6), Fragmentation::Anybody);
        }
    }

    #[test]
    fn the_way_to_oneself_is_wide() {
        assert!(path_mtu("127.0.0.1:9".parse().unwrap()) > 1500);
        assert_eq!(path_mtu("255.255.255.255:9".parse().unwrap()), 0, "no datagram goes there");
    }
}
