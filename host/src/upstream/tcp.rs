//! TCP sockets of flows.
//!
//! Guest to host, bytes go straight into the kernel's send buffer, whose size is left to the kernel's own tuning
//! (setting SO_SNDBUF would end that). Host to guest, they stay in the kernel's receive queue until the guest has
//! acknowledged them: [`TcpSocket::peek`] copies without taking, from any offset, and [`TcpSocket::consume`] takes
//! without copying.
//!
//! **Peek offset.** From Linux 6.9 on, SO_PEEK_OFF makes MSG_PEEK start behind bytes already seen, and the kernel moves
//! the offset by itself: forward when peeking, back when bytes are taken. We keep count, so that only a jump (a
//! retransmission) costs a setsockopt. It stays off as long as every peek is from the front, which is all that short
//! exchanges ever do. Otherwise the seen bytes are copied into a scratch buffer first, and those of the next frames are
//! brought along ([`Peeking::Skip`], see `ahead`): on older kernels, for IPv6 before Linux 6.12, and on a socket that
//! says no when it is asked for the first time (one that was opened by others may be MPTCP, which has no offset).
//!
//! **Known ends.** A peek that filled less than its buffer has seen the end of the queue; what arrives later raises a
//! new event. So until that event a peek from there on is answered without a system call. Two things would break the
//! reasoning, an end-of-file that was announced before the peek and urgent data (at which reading stops short), so a
//! socket that has seen either asks the kernel each time. But a short peek behind the announcement of an end-of-file,
//! with no urgent data, has seen that as well, and the end is answered without a system call, too. Without a kernel's
//! peek offset, nothing behind urgent data can be peeked at all before what is in front of it has been taken, nor the
//! end of an MPTCP stream ([`TcpSocket::wants_news`]).
//!
//! **Sockets of this machine.** The far end may be a stream of AF_UNIX: a service of this program, or of its clients.
//! It can be peeked at like the others (with an offset since Linux 3.4). But bytes are taken by reading them, for
//! MSG_TRUNC is not known there; and a peek may stop short of the queue's end, at descriptors that somebody has sent
//! along, so an end is known only from a peek that found nothing. There is no traffic class, no probing, no urgency. A
//! reset is an ordinary close: whoever is at the far end reads end-of-file, and learns that it was one when a write is
//! refused (EPIPE) although it has not closed its own half.
//!
//! The kernel behaviour that all this leans on is tested in `tests/platform/tcp.rs`.

use super::ahead::{Ahead, Seen};
use super::errors::errno;
use super::source;
use crate::sys::sockopt::{self, Opt};
use crate::sys::{message, mmsg};
use crate::sys::{tcp, tcp_info};
use nix::errno::Errno as Code;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv,
    shutdown, socket,
};
use slipway_netstack::FlowId;
use slipway_netstack::surely::Surely;
use slipway_netstack::upstream::{Errno, Event, MAX_PIECES, Peek, Sent, Source};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How to peek behind bytes already seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeking {
    /// The kernel keeps an offset (SO_PEEK_OFF on TCP, Linux 6.9).
    Offset,
    /// The seen bytes are copied and thrown away.
    Skip,
}

/// How to peek, by the address family of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    /// IPv4.
    pub v4: Peeking,
    /// IPv6, also when it carries IPv4.
    pub v6: Peeking,
}

impl Ways {
    /// The same for both.
    #[must_use]
    pub const fn both(peeking: Peeking) -> Self {
        Self { v4: peeking, v6: peeking }
    }

    /// What this kernel can. Each family is asked, for the option came to them years apart.
    #[must_use]
    pub fn probe() -> Self {
        let of = |family| {
            let can = new_socket(family).and_then(|fd| sockopt::set(fd.as_fd(), Opt::PEEK_OFFSET, 0));
            if can.is_ok() { Peeking::Offset } else { Peeking::Skip }
        };
        Self { v4: of(AddressFamily::Inet), v6: of(AddressFamily::Inet6) }
    }

    const fn of(self, address: IpAddr) -> Peeking {
        match address {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

/// What a flow's TCP socket is waited for, edge-triggered.
pub(super) const INTEREST: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLET);

/// The socket of one flow.
#[derive(Debug)]
pub(super) struct TcpSocket {
    fd: OwnedFd,
    peeking: Peeking,
    /// The kernel's peek offset; `None` while it is off.
    peek_at: Option<u32>,
    /// There is nothing from this offset on, until the next event.
    dry_at: Option<u32>,
    /// It is one of AF_UNIX.
    local: bool,
    connecting: bool,
    /// The last send was short: the engine waits for room.
    short: bool,
    /// End-of-file or urgent data has been announced: ends are no longer known.
    ask_always: bool,
    urgent: bool,
    /// End-of-file has been announced and nothing else: what lies at `dry_at` is the end.
    ended: bool,
}

impl TcpSocket {
    /// Starts to connect.
    pub(super) fn connect(to: SocketAddr, from: Source, class: u8, ways: Ways) -> Result<Self, Errno> {
        refuse_disguised(to.ip())?;
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = new_socket(family).map_err(errno)?;
        if from.address.is_some() && from.port == 0 {
            // Not a reason to fail: without it the ports of one address are used up sooner.
            let _ = sockopt::set(fd.as_fd(), Opt::BIND_NO_PORT, 1);
        }
        source::bind(fd.as_fd(), to.ip(), from).map_err(errno)?;
        prepare(fd.as_fd());
        if class != 0 {
            set_class(fd.as_fd(), class);
        }
        let to = source::scoped(to, source::zone(from));
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Code::EINPROGRESS | Code::EINTR) => {}
            Err(Code::EADDRNOTAVAIL) => return Err(no_port_or_address(to, from)),
            Err(code) => return Err(errno(code)),
        }
        Ok(Self::new(fd, ways.of(to.ip()), true))
    }

    /// Takes over an accepted connection, whose listener was prepared ([`prepare`]).
    ///
    /// Whether it blocks does not matter: every call on it says MSG_DONTWAIT. Its family is not asked for: what any
    /// socket of this kernel can is tried.
    pub(super) fn attach(fd: OwnedFd, ways: Ways) -> Self {
        let peeking = if ways.v4 == Peeking::Offset { ways.v4 } else { ways.v6 };
        Self::new(fd, peeking, false)
    }

    /// Takes over a stream of AF_UNIX. One that is `fresh` has been told to nobody yet, and to the engine becomes a
    /// connection that is being made.
    pub(super) fn local(fd: OwnedFd, fresh: bool) -> Self {
        Self { local: true, ..Self::new(fd, Peeking::Offset, fresh) }
    }

    fn new(fd: OwnedFd, peeking: Peeking, connecting: bool) -> Self {
        Self {
            fd,
            peeking,
            peek_at: None,
            // What a connection that is being made receives raises an event; one that was accepted may have it already.
            dry_at: connecting.then_some(0),
            local: false,
            connecting,
            short: false,
            ask_always: false,
            urgent: false,
            ended: false,
        }
    }

    /// What an epoll event means.
    pub(super) fn decode(&mut self, flags: EpollFlags) -> [Option<Event>; 3] {
        use EpollFlags as F;
        let dead = flags.intersects(F::EPOLLERR | F::EPOLLHUP);
        if flags.intersects(F::EPOLLIN | F::EPOLLPRI | F::EPOLLRDHUP) || dead {
            self.dry_at = None;
        }
        self.urgent |= flags.contains(F::EPOLLPRI);
        self.ended = (self.ended || flags.contains(F::EPOLLRDHUP)) && !self.urgent && !dead;
        self.ask_always |= self.urgent || dead || flags.contains(F::EPOLLRDHUP);
        // A hang-up without an error is the ordinary end of both halves: there is nothing to ask for.
        if dead && (self.connecting || flags.contains(F::EPOLLERR)) {
            match sockopt::get(self.fd.as_fd(), Opt::ERROR) {
                // Both halves closed in the ordinary way. Of a connection that never was one, it means that an earlier
                // call has been told the reason.
                Ok(0) if !self.connecting => {}
                Ok(0) => return [Some(Event::Failed(Errno::Reset)), None, None],
                Ok(code) => return [Some(Event::Failed(errno(Code::from_raw(code)))), None, None],
                Err(code) => return [Some(Event::Failed(errno(code))), None, None],
            }
        }
        let writable = flags.contains(F::EPOLLOUT);
        let connected = self.connecting && writable;
        self.connecting &= !writable;
        let room = self.short && writable;
        if writable {
            self.short = false;
        }
        let readable =
            !self.connecting && (flags.intersects(F::EPOLLIN | F::EPOLLPRI | F::EPOLLRDHUP) || dead);
        [
            connected.then_some(Event::Connected),
            readable.then_some(if flags.contains(F::EPOLLPRI) { Event::Urgent } else { Event::Readable }),
            room.then_some(Event::Writable),
        ]
    }

    /// Offers bytes to the kernel.
    pub(super) fn send(&mut self, pieces: &[&[u8]]) -> Sent {
        let offered = pieces.iter().map(|piece| piece.len()).sum();
        if offered == 0 {
            return Sent::Taken(0);
        }
        let mut parts = [IoSlice::new(&[]); MAX_PIECES];
        for (part, piece) in parts.iter_mut().zip(pieces) {
            *part = IoSlice::new(piece);
        }
        let parts = parts.get(..pieces.len()).unwrap_or(&parts);
        loop {
            match mmsg::send_one(self.fd.as_fd(), &message::Name::EMPTY, &message::Control::EMPTY, parts) {
                Ok(taken) => {
                    self.short = taken < offered;
                    return Sent::Taken(taken);
                }
                Err(Code::EAGAIN) => {
                    self.short = true;
                    return Sent::Taken(0);
                }
                Err(Code::EINTR) => {}
                Err(code) => return Sent::Failed(errno(code)),
            }
        }
    }

    /// Offers the kernel a byte as urgent data.
    pub(super) fn send_urgent(&mut self, byte: u8) -> Sent {
        if self.local {
            return self.send(&[&[byte]]);
        }
        match retry(|| tcp::send_urgent(self.fd.as_fd(), byte)) {
            Ok(taken) => Sent::Taken(taken),
            Err(Code::EAGAIN) => {
                self.short = true;
                Sent::Taken(0)
            }
            Err(code) => Sent::Failed(errno(code)),
        }
    }

    /// Where the urgent byte lies, from the front of the receive queue.
    ///
    /// There is no call that tells. But SO_OOBINLINE decides whether the kernel counts the bytes before it or all; both
    /// are asked for, all of them first, so that what arrives in between is not mistaken for a difference. Nothing is
    /// read meanwhile, so the option has no other effect.
    pub(super) fn urgent(&self) -> Option<usize> {
        if self.local {
            return None;
        }
        let fd = self.fd.as_fd();
        let all = tcp::queued(fd).ok()?;
        sockopt::set(fd, Opt::URGENT_INLINE, 0).ok()?;
        let before = tcp::queued(fd);
        sockopt::set(fd, Opt::URGENT_INLINE, 1).ok()?;
        before.ok().filter(|before| *before < all)
    }

    /// Copies from `offset` behind the front of the receive queue of `flow`, whose socket this is.
    pub(super) fn peek(&mut self, flow: FlowId, ahead: &mut Ahead, offset: usize, into: &mut [u8]) -> Peek {
        let Ok(at) = u32::try_from(offset) else { return Peek::Empty };
        if into.is_empty() {
            return Peek::Empty;
        }
        if self.dry_at.is_some_and(|end| at >= end) {
            return if self.ended { Peek::End } else { Peek::Empty };
        }
        let found = match self.peeking {
            Peeking::Offset => match self.peek_from(at, into) {
                Err(Code::EOPNOTSUPP | Code::ENOPROTOOPT) => {
                    self.peeking = Peeking::Skip;
                    self.peek_behind(flow, ahead, offset, into)
                }
                found => found,
            },
            Peeking::Skip => self.peek_behind(flow, ahead, offset, into),
        };
        match found {
            Ok(Seen { shown: 0, .. }) => Peek::End,
            Ok(Seen { shown, end }) => {
                let last = self.ended && self.peeking == Peeking::Offset;
                if let Some(end) = end.filter(|_| !self.local) {
                    self.note_end(offset + end, last);
                }
                Peek::Data(shown)
            }
            Err(Code::EAGAIN) => {
                self.note_end(offset, false);
                Peek::Empty
            }
            Err(code) => Peek::Failed(errno(code)),
        }
    }

    /// The queue was seen to its end, `last` if nothing can come behind it.
    fn note_end(&mut self, end: usize, last: bool) {
        if last || !self.ask_always {
            self.dry_at = u32::try_from(end).ok();
        }
    }

    /// Peeks with the kernel's offset.
    fn peek_from(&mut self, at: u32, into: &mut [u8]) -> Result<Seen, Code> {
        if self.peek_at.unwrap_or(0) != at {
            let value = i32::try_from(at).map_err(|_| Code::EAGAIN)?;
            sockopt::set(self.fd.as_fd(), Opt::PEEK_OFFSET, value)?;
            self.peek_at = Some(at);
        }
        let len = retry(|| tcp::peek(self.fd.as_fd(), into))?;
        if let Some(at) = &mut self.peek_at {
            *at = at.saturating_add(u32::try_from(len).surely_or(u32::MAX));
        }
        Ok(Seen { shown: len, end: (len < into.len()).then_some(len) })
    }

    /// Peeks by skipping.
    fn peek_behind(
        &self,
        flow: FlowId,
        ahead: &mut Ahead,
        offset: usize,
        into: &mut [u8],
    ) -> Result<Seen, Code> {
        let (fd, dry_at) = (self.fd.as_fd(), self.dry_at.map(|at| at as usize));
        let mut look = |into: &mut [u8]| {
            ahead.peek(flow, offset, into, dry_at, |before, behind| {
                retry(|| tcp::peek_behind(fd, offset, before, behind))
            })
        };
        match look(into) {
            // All was skipped. Whether more can come, the state tells; what came in between, one more look.
            Err(Code::EAGAIN) if offset > 0 && tcp_info::peer_has_closed(fd) == Ok(true) => {
                match look(into) {
                    Err(Code::EAGAIN) => Ok(Seen { shown: 0, end: None }),
                    found => found,
                }
            }
            found => found,
        }
    }

    /// Takes `count` bytes that were peeked.
    pub(super) fn consume(&mut self, flow: FlowId, ahead: &mut Ahead, count: usize) {
        let mut left = count;
        while left > 0 {
            let taken = if self.local {
                let into = ahead.scratch(left);
                retry(|| recv(self.fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT))
            } else {
                retry(|| tcp::discard(self.fd.as_fd(), left))
            };
            match taken {
                Ok(taken @ 1..) => left = left.saturating_sub(taken),
                // Cannot be with bytes that were peeked; if it is, the next peek tells why.
                Ok(0) | Err(_) => break,
            }
        }
        ahead.taken(flow, count - left);
        let taken = u32::try_from(count - left).surely_or(u32::MAX);
        for at in [&mut self.peek_at, &mut self.dry_at].into_iter().flatten() {
            *at = at.saturating_sub(taken);
        }
    }

    /// Whether taking bytes may have laid open others that no event has told of or will tell of.
    pub(super) fn wants_news(&self) -> bool {
        self.ask_always && self.peeking == Peeking::Skip
    }

    /// Gives what is sent from now on another traffic class.
    pub(super) fn set_class(&self, class: u8) {
        if !self.local {
            set_class(self.fd.as_fd(), class);
        }
    }

    /// Closes our half.
    pub(super) fn shutdown(&self) {
        // Fails only on a connection that is dead already, which its next event or call tells.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
    }

    /// Probes the peer in this rhythm. The kernel counts at once from when it last heard of it.
    pub(super) fn keepalive(&self, idle: Duration, interval: Duration) {
        if self.local {
            return;
        }
        for (opt, time) in [(Opt::KEEPALIVE_IDLE, idle), (Opt::KEEPALIVE_INTERVAL, interval)] {
            // Refused only beyond its own bounds, which are far wider than the engine's; the old rhythm then stays.
            let _ = sockopt::set(self.fd.as_fd(), opt, i32::try_from(time.as_secs()).unwrap_or(i32::MAX));
        }
    }

    /// Closes it with a reset.
    pub(super) fn reset(self) {
        reset(self.fd);
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What EADDRNOTAVAIL of connect() was about. It has two meanings: no port of ours is left for that destination, or,
/// with IPv6 alone, there is no address to send from. A UDP socket needs such an address, too, and can share its port.
fn no_port_or_address(to: SocketAddr, from: Source) -> Errno {
    if to.is_ipv4() {
        return Errno::NoPort;
    }
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe = socket(AddressFamily::Inet6, SockType::Datagram, flags, SockProtocol::Udp).and_then(|fd| {
        source::bind(fd.as_fd(), to.ip(), from)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(to))
    });
    if probe == Err(Code::EADDRNOTAVAIL) { Errno::NetUnreachable } else { Errno::NoPort }
}

/// Closes a connection with a reset.
pub(super) fn reset(fd: OwnedFd) {
    // If it cannot be set, the socket is closed in the ordinary way.
    let _ = sockopt::reset_on_close(fd.as_fd());
    drop(fd);
}

/// An IPv4 address dressed up as an IPv6 one would lead round every rule that looks at IPv4 addresses: the kernel
/// connects `::ffff:127.0.0.1` to 127.0.0.1.
pub(super) fn refuse_disguised(to: IpAddr) -> Result<(), Errno> {
    match to {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(Errno::NetUnreachable),
        _ => Ok(()),
    }
}

fn new_socket(family: AddressFamily) -> Result<OwnedFd, Code> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(family, SockType::Stream, flags, SockProtocol::Tcp)
}

/// What every flow's socket gets, from its listener if it has one: Linux lets accepted sockets inherit all of it. None
/// of it can fail on a TCP socket, and none is worth a connection.
pub(super) fn prepare(fd: BorrowedFd<'_>) {
    for opt in [Opt::NO_DELAY, Opt::KEEPALIVE, Opt::URGENT_INLINE] {
        let _ = sockopt::set(fd, opt, 1);
    }
}

/// An IPv6 socket that carries IPv4 goes by the option of that family, and another socket does not know the other's: so
/// both are set, whatever the answer. It costs priority, not delivery.
fn set_class(fd: BorrowedFd<'_>, class: u8) {
    for opt in [Opt::TOS, Opt::TRAFFIC_CLASS] {
        let _ = sockopt::set(fd, opt, class.into());
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Code>) -> Result<T, Code> {
    loop {
        match call() {
            Err(Code::EINTR) => {}
            outcome => return outcome,
        }
    }
}
