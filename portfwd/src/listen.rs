//! Listening sockets: opening them for a rule, and taking from them what clients bring.
//!
//! A TCP listener is non-blocking, with `SO_REUSEADDR` (a restart must not wait for old connections in TIME-WAIT; two
//! listeners on one port are refused all the same) and the longest backlog that the host permits
//! (`net.core.somaxconn`). A UDP socket is bound without `SO_REUSEADDR`, which would let two programs share the port.
//!
//! A rule without listening address is served by one dual-stack socket per port (`::` with `IPV6_V6ONLY` off) when the
//! guest's link has both families; `IPV6_V6ONLY` is always set, so `net.ipv6.bindv6only` plays no part. An IPv4 client
//! of such a socket appears as `::ffff:a.b.c.d` and is turned back into what it is.
//!
//! A link-local address is bound on the interface that has its name at this moment. Should another take that name
//! later, the socket stays with the first, as sockets do whose address goes away: remove the rule and add it again. So
//! does a socket that is bound to a device (SO_BINDTODEVICE). Both names are looked up in the network namespace where
//! the socket is to stand, for a [`Spot`] is opened there.

use crate::forwarder::Forwarder;
use crate::rule::{Proto, Rule};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage};
use slipway_host::inside::Side;
use slipway_host::scope::{Zone, ZonedAddr};
use slipway_host::sys::sockopt::{self, Opt};
use slipway_host::upstream::{
    self,
    batch::{self, Hint},
};
use slipway_netstack::addr::canonical;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// The address that the sockets of a rule are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bind {
    /// An address of one family.
    One(ZonedAddr),
    /// Every address of both families.
    Dual,
}

const V4_ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6_ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The families of a guest's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Bind {
    /// Where `rule` listens when the guest has `families`; `None` if it has none that fits.
    pub(crate) fn of(rule: &Rule, families: Families) -> Option<Self> {
        if let (true, Some(target)) = (rule.manner().crossing, rule.target()) {
            let on = if target.is_ipv6() { families.v6 } else { families.v4 };
            return on.then_some(rule.listen().map_or(Self::Dual, Self::One));
        }
        let one = match (rule.listen(), rule.target()) {
            (Some(address), _) => address,
            (None, Some(IpAddr::V4(_))) => V4_ANY.into(),
            (None, Some(IpAddr::V6(_))) => V6_ANY.into(),
            (None, None) => match families {
                Families { v4: true, v6: true } => return Some(Self::Dual),
                Families { v4: true, v6: false } => V4_ANY.into(),
                Families { v4: false, .. } => V6_ANY.into(),
            },
        };
        let on = if one.ip().is_ipv6() { families.v6 } else { families.v4 };
        on.then_some(Self::One(one))
    }

    /// The address.
    pub(crate) fn address(self) -> ZonedAddr {
        match self {
            Self::One(address) => address,
            Self::Dual => V6_ANY.into(),
        }
    }
}

/// Where one socket listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Spot {
    pub(crate) side: Side,
    pub(crate) proto: Proto,
    pub(crate) bind: Bind,
    pub(crate) interface: Option<Zone>,
    /// The address need not be the host's.
    pub(crate) free: bool,
    /// 0: the kernel chooses.
    pub(crate) port: u16,
}

impl Spot {
    /// Opens a socket there, in the network namespace of the caller.
    fn open(self) -> io::Result<OwnedFd> {
        match self.open_at(self.bind.address(), self.bind != Bind::Dual) {
            // The host has no IPv6 at all (ipv6.disable=1).
            Err(error)
                if self.bind == Bind::Dual
                    && error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) =>
            {
                self.open_at(V4_ANY.into(), true)
            }
            other => other,
        }
    }

    fn open_at(self, address: ZonedAddr, v6_only: bool) -> io::Result<OwnedFd> {
        let endpoint = address.socket_addr(self.port)?;
        let ipv6 = endpoint.is_ipv6();
        let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let kind = match self.proto {
            Proto::Tcp => SockType::Stream,
            Proto::Udp => SockType::Datagram,
        };
        let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        if ipv6 {
            sockopt::set(fd.as_fd(), Opt::V6_ONLY, v6_only.into())?;
        }
        if self.free {
            let free = if ipv6 { Opt::FREE_ADDRESS_V6 } else { Opt::FREE_ADDRESS_V4 };
            sockopt::set(fd.as_fd(), free, 1)?;
        }
        if let Some(interface) = self.interface {
            sockopt::bind_to_device(fd.as_fd(), interface.as_str())?;
        }
        if self.proto == Proto::Tcp {
            sockopt::set(fd.as_fd(), Opt::REUSE_ADDRESS, 1)?;
        }
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(endpoint))?;
        match self.proto {
            Proto::Tcp => {
                upstream::prepare_listener(fd.as_fd());
                socket::listen(&fd, Backlog::MAXALLOWABLE)?;
            }
            Proto::Udp => {
                let families = [(!(ipv6 && v6_only), false), (ipv6, true)];
                for (_, ipv6) in families.into_iter().filter(|(used, _)| *used) {
                    batch::prepare(fd.as_fd(), ipv6);
                    // A socket with an address of its own answers from that anyway.
                    if endpoint.ip().is_unspecified() {
                        batch::tell_destination(fd.as_fd(), ipv6);
                    }
                }
            }
        }
        Ok(fd)
    }
}

/// A socket that clients come to.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// Shared with the flows whose answers leave through it; and what is expected of its next batch.
    Udp(Rc<OwnedFd>, Hint),
}

impl Listener {
    /// Opens a socket and tells the address that it got.
    pub(crate) fn open(spot: Spot, host: &mut impl Forwarder) -> io::Result<(Self, SocketAddr)> {
        let fd = host.open_listener(spot.side, move || spot.open())?;
        match spot.proto {
            Proto::Tcp => {
                let listener = TcpListener::from(fd);
                let local = listener.local_addr()?;
                Ok((Self::Tcp(listener), local))
            }
            Proto::Udp => {
                let udp = UdpSocket::from(fd);
                let local = udp.local_addr()?;
                Ok((Self::Udp(Rc::new(udp.into()), Hint::default()), local))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Udp(fd, _) => fd.as_fd(),
        }
    }
}

/// What an attempt to accept brought.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection.
    Client(TcpStream, SocketAddr),
    /// One that was gone before we looked: try the next.
    Lost,
    /// Nobody is waiting.
    Nobody,
    /// The host is out of descriptors or memory, or the listener is unwell: try again later.
    Exhausted(io::Error),
}

/// Accepts one connection. Whether it blocks is nobody's concern: whoever carries its bytes says so in each call.
pub(crate) fn accept(listener: &TcpListener) -> Accepted {
    match listener.accept() {
        Ok((stream, client)) => Accepted::Client(stream, canonical(client)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Accepted::Nobody,
            _ if passing(&error) => Accepted::Lost,
            _ => Accepted::Exhausted(error),
        },
    }
}

/// accept(2): Linux hands pending errors of the new connection to the caller of accept; they say nothing about the
/// listener. EPERM is a firewall's word about this one client.
fn passing(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let Some(number) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(number),
        Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT
    )
}

/// Closes a connection so that the client sees a refusal (RST), not an empty answer.
pub(crate) fn reset(stream: TcpStream) {
    // If it fails the client gets FIN instead of RST; there is nobody to tell.
    let _ = sockopt::reset_on_close(stream.as_fd());
    drop(stream);
}
