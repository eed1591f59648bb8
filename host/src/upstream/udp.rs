//! UDP sockets of flows: unconnected, so that answers may come from anywhere; with an error queue, so that ICMP errors
//! find their way back to the guest.
//!
//! A train from the guest leaves by one system call where the kernel can split it (UDP_SEGMENT), else by one for each
//! [`mmsg::BATCH`] datagrams. Path MTU discovery is the guest's business: the kernel fragments what is too long
//! (IP_PMTUDISC_DONT) instead of refusing it.
//!
//! An error reported about an earlier datagram makes the next call on the socket fail once; that call is repeated.
//!
//! The kernel behaviour that this leans on is tested in `tests/platform/udp.rs`.

use super::batch::{self, Hint, Receiver};
use super::errors::{self, errno};
use super::tcp::refuse_disguised;
use crate::sys::message::{Control, Name};
use crate::sys::mmsg;
use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno as Code;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, socket};
use slipway_netstack::upstream::{DatagramError, Empty, Errno, Event, Meta, Received};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// What a flow's datagram socket is waited for, edge-triggered. Not EPOLLOUT: that would wake the loop for each datagram
/// that has left.
pub(super) const INTEREST: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

/// The socket of one flow.
#[derive(Debug)]
pub(super) struct UdpSocket {
    fd: Descriptor,
    hint: Hint,
    /// Whether the kernel may be asked to split trains.
    splits: bool,
    /// A dual-stack socket: IPv4 addresses are written in the mapped form.
    dual: bool,
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
    pub(super) fn open(like: IpAddr, from: Option<IpAddr>) -> Result<Self, Errno> {
        let family = if like.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Datagram, flags, SockProtocol::Udp).map_err(errno)?;
        prepare_errors(fd.as_fd(), like.is_ipv6());
        batch::prepare(fd.as_fd(), like.is_ipv6());
        if like.is_ipv6() {
            sockopt::set(fd.as_fd(), Opt::V6_ONLY, 1).map_err(errno)?;
        }
        if let Some(from) = from {
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).map_err(errno)?;
        }
        Ok(Self { fd: Descriptor::Own(fd), hint: Hint::default(), splits: true, dual: false })
    }

    /// A socket shared with a listener, for answers from the address `at`.
    pub(super) fn shared(fd: Rc<OwnedFd>, at: SocketAddr) -> Self {
        // An IPv4 socket does not know the option.
        let dual = sockopt::get(fd.as_fd(), Opt::V6_ONLY) == Ok(0);
        Self { fd: Descriptor::Shared(Box::new(Door { fd, at })), hint: Hint::default(), splits: true, dual }
    }

    /// Whether somebody else owns it.
    pub(super) const fn is_shared(&self) -> bool {
        matches!(self.fd, Descriptor::Shared(_))
    }

    /// What an epoll event means.
    pub(super) fn decode(&mut self, flags: EpollFlags) -> [Option<Event>; 3] {
        self.hint.wake();
        decode(flags)
    }

    /// Sends a datagram or a train.
    pub(super) fn send(
        &mut self,
        to: SocketAddr,
        payload: &[u8],
        segment: usize,
        meta: Meta,
    ) -> Result<(), Errno> {
        refuse_disguised(to.ip())?;
        let name = match to {
            SocketAddr::V4(v4) if self.dual => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())).into(),
            _ => Name::from(to),
        };
        let mut control = outgoing_control(to.is_ipv6(), meta);
        if let Descriptor::Shared(door) = &self.fd {
            answer_from(&mut control, door.at);
        }
        if segment == 0 || payload.len() <= segment {
            return forgive(twice(|| {
                mmsg::send_one(self.as_fd(), &name, &control, &[IoSlice::new(payload)])
            }));
        }
        let whole = (LARGEST / segment).clamp(1, mmsg::BATCH) * segment;
        for train in payload.chunks(whole) {
            self.send_train(&name, &control, train, segment)?;
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
    ) -> Result<(), Errno> {
        if let (true, Ok(size)) = (self.splits && train.len() > segment, u16::try_from(segment)) {
            let mut control = *control;
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
            match twice(|| mmsg::send_one(self.as_fd(), name, &control, &[IoSlice::new(train)])) {
                // Segments longer than the path's MTU; no hardware or software that splits. Ask no more.
                Err(Code::EINVAL | Code::EMSGSIZE | Code::EIO | Code::EOPNOTSUPP | Code::ENOPROTOOPT) => {
                    self.splits = false;
                }
                outcome => return forgive(outcome),
            }
        }
        let sent = twice(|| mmsg::send_many(self.as_fd(), name, control, train, segment));
        // Those that the kernel had no room for are lost, as on any network.
        forgive(sent)
    }

    /// Receives a datagram or a train.
    pub(super) fn receive(&mut self, with: &mut Receiver, into: &mut [u8]) -> Result<Received, Empty> {
        match &self.fd {
            Descriptor::Own(fd) => with.receive(fd.as_fd(), &mut self.hint, into),
            Descriptor::Shared(_) => Err(Empty),
        }
    }

    /// Takes one report from the error queue.
    pub(super) fn take_error(&self) -> Result<DatagramError, Empty> {
        errors::take(self.as_fd())
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

/// The error queue on, path MTU discovery off.
pub(super) fn prepare_errors(fd: BorrowedFd<'_>, ipv6: bool) {
    let options = if ipv6 {
        [(Opt::ERROR_QUEUE_V6, 1), (Opt::MTU_DISCOVER_V6, libc::IPV6_PMTUDISC_DONT)]
    } else {
        [(Opt::ERROR_QUEUE_V4, 1), (Opt::MTU_DISCOVER_V4, libc::IP_PMTUDISC_DONT)]
    };
    for (opt, value) in options {
        // They are as old as the oldest supported kernel.
        let _ = sockopt::set(fd, opt, value);
    }
}

/// Control messages for header fields that differ from what the kernel would put there.
pub(super) fn outgoing_control(ipv6: bool, meta: Meta) -> Control {
    let (level, hops, class) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, libc::IPV6_TCLASS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_TOS)
    };
    let (mut control, usual) = (Control::EMPTY, Meta::default());
    if meta.hops != usual.hops {
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

/// What the kernel cannot take just now is lost, as on any network.
pub(super) fn forgive(outcome: Result<usize, Code>) -> Result<(), Errno> {
    match outcome {
        Ok(_) | Err(Code::EAGAIN | Code::ENOBUFS | Code::EINTR) => Ok(()),
        Err(code) => Err(errno(code)),
    }
}
