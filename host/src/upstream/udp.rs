//! UDP sockets of flows: unconnected, so that answers may come from anywhere; with an error queue, so that ICMP errors
//! find their way back to the guest.
//!
//! A train from the guest leaves by one system call where the kernel can split it (UDP_SEGMENT), else by one for each
//! [`mmsg::BATCH`] datagrams. Path MTU discovery is the guest's business: what it says of fragmenting, the kernel is
//! told (`fragmentation`). A listener's socket, which many share, is left as the kernel made it: datagrams leave whole
//! as long as nobody has complained, and are fragmented by this host from then on.
//!
//! An error reported about an earlier datagram makes the next call on the socket fail once; that call is repeated.
//!
//! The kernel behaviour that this leans on is tested in `tests/platform/udp.rs`.

use super::batch::{self, Hint, Receiver};
use super::errors::{self, errno};
use super::fragmentation::{Fragmentation, path_mtu};
use super::source;
use super::tcp::refuse_disguised;
use crate::sys::message::{Control, Name};
use crate::sys::mmsg;
use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno as Code;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use slipway_netstack::upstream::{DatagramError, Empty, Errno, Event, Meta, Received, Source};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// What a flow's datagram socket is waited for, edge-triggered. Not EPOLLOUT: that would wake the loop for each
/// datagram that has left.
pub(super) const INTEREST: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// The socket of one flow.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    fd: Descriptor,
    hint: Hint,
    /// The longest segments of trains that the kernel may be asked to split.
    splits: u16,
    fragmentation: Fragmentation,
    /// A dual-stack socket: IPv4 addresses are written in the mapped form.
    dual: bool,
    /// Where addresses are that mean something on one link only ([`source::scoped`]).
    zone: u32,
}

#[derive(Debug)]
enum Descriptor {
    Own(OwnedFd),
    /// A listener's.
    Shared(Box<Door>),
}

/// A listener's socket, which its owner reads, and the address of ours that the flow's client knows.
#[derive(Debug)]
struct Door {
    fd: Rc<OwnedFd>,
    at: SocketAddr,
}

impl UdpSocket {
    /// A socket of the family of `like`.
    pub(super) fn open(like: IpAddr, from: Source) -> Result<Self, Errno> {
        let family = if like.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp).map_err(errno)?;
        prepare(fd.as_fd(), like.is_ipv6()).map_err(errno)?;
        source::bind(fd.as_fd(), like, from).map_err(errno)?;
        Ok(Self { zone: source::zone(from), ..Self::own(fd) })
    }

    /// One that was opened elsewhere, and prepared ([`prepare`]).
    pub(crate) fn own(fd: OwnedFd) -> Self {
        Self::new(Descriptor::Own(fd), false)
    }

    fn new(fd: Descriptor, dual: bool) -> Self {
        let fragmentation = Fragmentation::Anybody;
        Self { fd, hint: Hint::default(), splits: u16::MAX, fragmentation, dual, zone: 0 }
    }

    /// A socket shared with a listener, for answers from the address `at`.
    pub(crate) fn shared(fd: Rc<OwnedFd>, at: SocketAddr) -> Self {
        // An IPv4 socket does not know the option.
        let dual = sockopt::get(fd.as_fd(), Opt::V6_ONLY) == Ok(0);
        Self::new(Descriptor::Shared(Box::new(Door { fd, at })), dual)
    }

    /// Whether somebody else owns it.
    pub(super) const fn is_shared(&self) -> bool {
        matches!(self.fd, Descriptor::Shared(_))
    }

    /// The address of ours that its peers see; of a listener's socket, the one that this client knows.
    pub(super) fn speaks_from(&self) -> Option<IpAddr> {
        match &self.fd {
            Descriptor::Own(fd) => source::of(fd.as_fd()),
            Descriptor::Shared(door) => Some(door.at.ip().to_canonical()),
        }
    }

    /// What an epoll event means.
    pub(crate) fn decode(&mut self, flags: EpollFlags) -> [Option<Event>; 3] {
        self.hint.wake();
        decode(flags)
    }

    /// Sends a datagram or a train.
    pub(crate) fn send(
        &mut self,
        to: SocketAddr,
        payload: &[u8],
        segment: usize,
        meta: Meta,
    ) -> Result<(), Errno> {
        refuse_disguised(to.ip())?;
        let name = match to {
            SocketAddr::V4(v4) if self.dual => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())).into(),
            _ => Name::from(source::scoped(to, self.zone)),
        };
        let mut control = outgoing_control(to.ip(), meta);
        match &self.fd {
            Descriptor::Shared(door) => answer_from(&mut control, door.at),
            Descriptor::Own(fd) => {
                let len = UDP_HEADER + segment.min(payload.len());
                self.fragmentation.adapt(fd.as_fd(), to.is_ipv6(), meta, len);
            }
        }
        if segment == 0 || payload.len() <= segment {
            let parts = [IoSlice::new(payload)];
            return forgive(to, twice(|| mmsg::send_one(self.as_fd(), &name, &control, &parts)));
        }
        let whole = (LARGEST / segment).clamp(1, mmsg::BATCH) * segment;
        for train in payload.chunks(whole) {
            forgive(to, self.send_train(&name, &control, train, segment))?;
        }
        Ok(())
    }

    /// Sends a train of at most [`mmsg::BATCH`] segments and [`LARGEST`] bytes.
    fn send_train(
        &mut self,
        name: &Name,
        control: &Control,
        train: &[u8],
        segment: usize,
    ) -> Result<usize, Code> {
        if let Ok(size) = u16::try_from(segment)
            && size <= self.splits
            && train.len() > segment
        {
            let mut control = *control;
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
            match twice(|| mmsg::send_one(self.as_fd(), name, &control, &[IoSlice::new(train)])) {
                // Segments longer than the path's MTU, which may have to be fragmented: so long ones go one by one.
                Err(Code::EINVAL | Code::EMSGSIZE) => self.splits = size.saturating_sub(1),
                // No hardware or software that splits. Ask no more.
                Err(Code::EIO | Code::EOPNOTSUPP | Code::ENOPROTOOPT) => self.splits = 0,
                outcome => return outcome,
            }
        }
        twice(|| mmsg::send_many(self.as_fd(), name, control, train, segment))
    }

    /// Receives a datagram or a train.
    pub(crate) fn receive(&mut self, with: &mut Receiver, into: &mut [u8]) -> Result<Received, Empty> {
        match &self.fd {
            Descriptor::Own(fd) => with.receive(fd.as_fd(), &mut self.hint, into),
            Descriptor::Shared(_) => Err(Empty),
        }
    }

    /// Takes one report from the error queue.
    pub(crate) fn take_error(&self) -> Result<DatagramError, Empty> {
        errors::take(self.as_fd(), |_| None)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Descriptor::Own(fd) => fd.as_fd(),
            Descriptor::Shared(door) => door.fd.as_fd(),
        }
    }
}

/// Sets on a socket of one flow what such sockets have.
pub(super) fn prepare(fd: BorrowedFd<'_>, ipv6: bool) -> Result<(), Code> {
    prepare_errors(fd, ipv6);
    batch::prepare(fd, ipv6);
    if ipv6 { sockopt::set(fd, Opt::V6_ONLY, 1) } else { Ok(()) }
}

const UDP_HEADER: usize = 8;
/// The most bytes in one datagram, and in one train (IPv4: 65535 less two headers).
const LARGEST: usize = 65_507;

/// What an epoll event of a datagram socket means.
pub(super) fn decode(flags: EpollFlags) -> [Option<Event>; 3] {
    [
        flags.contains(EpollFlags::EPOLLERR).then_some(Event::Error),
        flags.contains(EpollFlags::EPOLLIN).then_some(Event::Readable),
        None,
    ]
}

/// The error queue on; fragmentation as for the first datagrams, which [`Fragmentation::adapt`] takes for granted.
pub(super) fn prepare_errors(fd: BorrowedFd<'_>, ipv6: bool) {
    // It is as old as the oldest supported kernel.
    let _ = sockopt::set(fd, if ipv6 { Opt::ERROR_QUEUE_V6 } else { Opt::ERROR_QUEUE_V4 }, 1);
    Fragmentation::Anybody.set(fd, ipv6);
}

/// Control messages for header fields that differ from what the kernel would put there on the way to `to`.
pub(super) fn outgoing_control(to: IpAddr, meta: Meta) -> Control {
    let (level, hops, class) = if to.is_ipv6() {
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS)
    };
    let (mut control, usual) = (Control::EMPTY, Meta::default());
    // To a group the kernel would send with one hop.
    if meta.hops != usual.hops || to.is_multicast() {
        // 0 is refused; a packet with none left should not have come this far.
        control.push(level, hops, &i32::from(meta.hops.max(1)).to_ne_bytes());
    }
    if meta.traffic_class != usual.traffic_class {
        control.push(level, class, &i32::from(meta.traffic_class).to_ne_bytes());
    }
    control
}

/// Has a datagram leave from `at`; from the kernel's choice if that is unspecified. A link-local address names the way
/// out, too, as its scope.
fn answer_from(control: &mut Control, at: SocketAddr) {
    if at.ip().is_unspecified() {
        return;
    }
    match at {
        SocketAddr::V4(v4) => {
            // struct in_pktinfo: interface (0: any), the source, and one that only the kernel fills in.
            let mut info = [0; 12];
            if let Some(source) = info.get_mut(4..8) {
                source.copy_from_slice(&v4.ip().octets());
            }
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        SocketAddr::V6(v6) => {
            // struct in6_pktinfo: the source and the interface.
            let mut info = [0; 20];
            let parts = v6.ip().octets().into_iter().chain(v6.scope_id().to_ne_bytes());
            for (to, from) in info.iter_mut().zip(parts) {
                *to = from;
            }
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
    }
}

/// Calls again if the first answer was about an earlier datagram, which looks like any other error.
pub(super) fn twice<T>(mut call: impl FnMut() -> Result<T, Code>) -> Result<T, Code> {
    match call() {
        Err(code) if code != Code::EAGAIN => call(),
        outcome => outcome,
    }
}

/// What the kernel cannot take just now is lost, as on any network. What is too large for the way to `to` is told with
/// the size that fits.
pub(super) fn forgive(to: SocketAddr, outcome: Result<usize, Code>) -> Result<(), Errno> {
    match outcome {
        Ok(_) | Err(Code::EAGAIN | Code::ENOBUFS | Code::EINTR) => Ok(()),
        Err(Code::EMSGSIZE) => Err(Errno::TooBig { mtu: path_mtu(to) }),
        Err(code) => Err(errno(code)),
    }
}
