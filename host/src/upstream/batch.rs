//! Receiving datagrams many at a time, and giving them out as trains.
//!
//! Two things make a train (datagrams of one size from one sender, which cross to the guest as a single frame). The
//! kernel delivers one when sender and path kept it together (UDP_GRO). And one recvmmsg call over a full queue brings
//! many datagrams, of which those that match are joined here:
//!
//! ```text
//!   caller's buffer   │ 0: expected size │ 1: expected size │ 2: expected size │ …     place i takes the beginning
//!   our own places    │ 0: the rest      │ 1: the rest      │ 2: the rest      │ …     of datagram i, we the rest
//! ```
//! If the datagrams have the size that was expected (that of the last ones), nothing goes into our own places, and the
//! caller's buffer holds a finished train without a copy. At the first one that differs the train ends; those behind
//! it are moved into our own places, to be given out by the next calls. So a wrong guess costs copies, never data.
//!
//! What was set aside belongs to one socket. Another one that is asked in the meantime is read one datagram at a time.
//! A batch with room left over has emptied the queue; the socket's next event tells when that has changed.

use crate::sys::message::{Name, control_messages};
use crate::sys::mmsg::{BATCH, Batch};
use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno as Code;
use slipway_netstack::surely::Surely;
use slipway_netstack::upstream::{Empty, Meta, Received};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// The largest datagram.
const PLACE: usize = 65_536;
/// A train fits one IP packet with UDP and IPv6 headers.
const LONGEST_TRAIN: usize = 65_535 - 8 - 40;
/// Errors about earlier datagrams that one call passes over; they are told by the error queue.
const PASSED_OVER: usize = 8;

/// What is expected of a socket, from what it delivered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// Size of a datagram; 0: trains of the kernel's own, which want a whole buffer each.
    size: u16,
    /// How many at a time.
    count: u8,
    /// The last batch has emptied the queue.
    dry: bool,
}

impl Default for Hint {
    fn default() -> Self {
        Self { size: 512, count: 2, dry: false }
    }
}

impl Hint {
    /// The socket has had an event: its queue may have something again.
    pub fn wake(&mut self) {
        self.dry = false;
    }
}

/// A datagram or a train, and which of our addresses it was sent to, if the kernel was asked to tell
/// ([`tell_destination`]): with port 0, and with the interface as scope if it is link-local.
#[derive(Debug, Clone, Copy)]
struct Train {
    received: Received,
    at: Option<SocketAddr>,
}

/// Buffers for receiving, shared by all sockets.
#[derive(Debug, Default)]
pub struct Receiver {
    batch: Batch,
    /// [`BATCH`] places of [`PLACE`] bytes, or empty before the first use. Pages never written take no memory.
    places: Vec<u8>,
    /// Datagrams set aside, whose bytes lie at the beginning of the place of the same number; `None` where nothing
    /// lies or what lay there is no datagram.
    aside: Vec<Option<Train>>,
    next: usize,
    owner: Option<RawFd>,
}

/// Asks the kernel to deliver trains, hop limits and traffic classes on a UDP socket that is read by a [`Receiver`],
/// and to give it a large buffer. Whatever it refuses only costs speed or a header field.
pub fn prepare(fd: BorrowedFd<'_>, ipv6: bool) {
    let fields = if ipv6 {
        [Opt::RECEIVE_HOP_LIMIT, Opt::RECEIVE_TRAFFIC_CLASS]
    } else {
        [Opt::RECEIVE_TTL, Opt::RECEIVE_TOS]
    };
    for opt in fields.into_iter().chain([Opt::UDP_GRO]) {
        let _ = sockopt::set(fd, opt, 1);
    }
    let _ = sockopt::set(fd, Opt::RECEIVE_BUFFER, RECEIVE_BUFFER);
}

/// Asks the kernel to tell to which of our addresses each datagram was sent. A listener on all addresses answers from
/// that one: from any other, the client would not know the answer for one.
pub fn tell_destination(fd: BorrowedFd<'_>, ipv6: bool) {
    let opt = if ipv6 { Opt::RECEIVE_DESTINATION_V6 } else { Opt::RECEIVE_DESTINATION_V4 };
    // They are as old as the oldest supported kernel.
    let _ = sockopt::set(fd, opt, 1);
}

/// Cut by the kernel to `net.core.rmem_max`.
const RECEIVE_BUFFER: i32 = 1 << 20;

impl Receiver {
    /// Receives what is next on `fd` into `into` (64 KiB at least): one datagram or a train.
    ///
    /// # Errors
    /// [`Empty`] until the socket's next event.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        hint: &mut Hint,
        into: &mut [u8],
    ) -> Result<Received, Empty> {
        self.next_train(fd, hint, into).map(|train| train.received)
    }

    fn next_train(&mut self, fd: BorrowedFd<'_>, hint: &mut Hint, into: &mut [u8]) -> Result<Train, Empty> {
        for _ in 0..PASSED_OVER {
            if self.holds(fd)
                && let Some(train) = self.take_aside(into)
            {
                return Ok(train);
            }
            if hint.dry {
                return Err(Empty);
            }
            match self.read(fd, hint, into) {
                Ok(Some(train)) => return Ok(train),
                Ok(None) | Err(Code::EINTR) => {}
                Err(Code::EAGAIN) => {
                    hint.dry = true;
                    return Err(Empty);
                }
                // An error about a datagram sent earlier, told once; the queue behind it is as it was.
                Err(_) => {}
            }
        }
        Err(Empty)
    }

    /// Receives one batch from `fd`, a socket that the caller watches level-triggered, and gives out its trains. `into`
    /// is room for them (64 KiB at least). Each comes with the address of ours that it was sent to, if the kernel tells
    /// ([`tell_destination`]). Returns whether there was anything.
    pub fn receive_batch(
        &mut self,
        fd: BorrowedFd<'_>,
        hint: &mut Hint,
        into: &mut [u8],
        mut give: impl FnMut(&Received, Option<SocketAddr>, &[u8]),
    ) -> bool {
        hint.wake();
        let mut any = false;
        while let Ok(Train { received, at }) = self.next_train(fd, hint, into) {
            any = true;
            give(&received, at, into.get(..received.len).surely());
            if !self.holds(fd) {
                break;
            }
        }
        any
    }

    /// Whether something of this socket is set aside.
    #[must_use]
    pub fn holds(&self, fd: BorrowedFd<'_>) -> bool {
        self.owner == Some(fd.as_raw_fd())
    }

    /// The socket is about to be closed: what is set aside is dropped, so that another one with its number never gets
    /// it.
    pub fn forget(&mut self, fd: BorrowedFd<'_>) {
        if self.holds(fd) {
            self.release();
        }
    }

    fn release(&mut self) {
        self.owner = None;
        self.aside.clear();
        self.next = 0;
    }

    /// One recvmmsg call. `None`: it brought nothing that has a sender.
    fn read(&mut self, fd: BorrowedFd<'_>, hint: &mut Hint, into: &mut [u8]) -> Result<Option<Train>, Code> {
        let size = usize::from(hint.size);
        let fitting = into.len().min(LONGEST_TRAIN).checked_div(size).unwrap_or(0);
        let count = if self.owner.is_some() { 1 } else { fitting.min(usize::from(hint.count)) };
        if count < 2 {
            let whole = into.len();
            self.batch.receive(fd, 1, (into, whole), (&mut [], 0))?;
            return Ok(self.first(hint));
        }
        if self.places.is_empty() {
            self.places = vec![0; BATCH * PLACE];
        }
        let got = self.batch.receive(fd, count, (into, size), (&mut self.places, PLACE))?;
        hint.dry = got < count;
        hint.count = next_count(got);
        let Some(mut first) = self.first(hint) else {
            self.set_aside(fd, 1, got, size, into);
            return Ok(None);
        };
        let train = &mut first.received;
        let single = train.segment == train.len && train.len == size;
        let joined = if single { self.matching(got, size) } else { 1 };
        self.set_aside(fd, joined, got, size, into);
        if joined > 1 {
            let last = self.batch.get(joined - 1).map_or(0, |message| message.len);
            train.len = (joined - 1) * size + last;
        } else if train.len > size {
            let rest = self.places.get(size..train.len).surely();
            copy(into.get_mut(size..train.len), rest);
        }
        Ok(Some(first))
    }

    /// The first datagram of the batch, and what it lets expect.
    fn first(&self, hint: &mut Hint) -> Option<Train> {
        let first = self.describe(0)?;
        let Received { len, segment, .. } = first.received;
        hint.size = if segment < len { 0 } else { u16::try_from(len).unwrap_or(0).max(1) };
        Some(first)
    }

    /// What datagram number `at` of the batch is.
    fn describe(&self, at: usize) -> Option<Train> {
        let message = self.batch.get(at)?;
        let Told { meta, segment, at } = read_control(message.control);
        let segment = segment.filter(|&segment| segment > 0 && segment < message.len);
        let received = Received {
            len: message.len,
            segment: segment.unwrap_or(message.len),
            from: sender(message.name)?,
            meta,
        };
        Some(Train { received, at })
    }

    /// How many of the `got` datagrams, from the first on, make a train of `size`. The first one does.
    fn matching(&self, got: usize, size: usize) -> usize {
        let Some(first) = self.batch.get(0) else { return 1 };
        let mut joined = 1;
        while let Some(message) = (joined < got).then(|| self.batch.get(joined)).flatten() {
            let same = message.name.as_bytes() == first.name.as_bytes() && message.control == first.control;
            if !same || message.len > size || message.len == 0 {
                break;
            }
            joined += 1;
            if message.len < size {
                break;
            }
        }
        joined
    }

    /// Moves datagrams `from..got` out of the caller's buffer into our own places.
    fn set_aside(&mut self, fd: BorrowedFd<'_>, from: usize, got: usize, size: usize, into: &[u8]) {
        if from >= got {
            return;
        }
        self.owner = Some(fd.as_raw_fd());
        self.next = from;
        self.aside.clear();
        self.aside.resize(from, None);
        for at in from..got {
            let datagram = self.describe(at);
            if let Some(Train { received, .. }) = &datagram {
                let start = at * size;
                let head = into.get(start..start + received.len.min(size)).surely();
                copy(self.places.get_mut(at * PLACE..at * PLACE + head.len()), head);
            }
            self.aside.push(datagram);
        }
    }

    /// The next datagram set aside, and those behind it that make a train with it.
    fn take_aside(&mut self, into: &mut [u8]) -> Option<Train> {
        let mut train: Option<Train> = None;
        while let Some(&datagram) = self.aside.get(self.next) {
            let Some(datagram) = datagram else {
                self.next += 1;
                continue;
            };
            let start = train.map_or(0, |train| train.received.len);
            let end = start + datagram.received.len;
            if train.is_some_and(|train| !joins(&train, &datagram) || end > into.len()) {
                break;
            }
            let place = self.places.get(self.next * PLACE..);
            let bytes = place.and_then(|place| place.get(..datagram.received.len));
            copy(into.get_mut(start..end), bytes.surely());
            self.next += 1;
            train.get_or_insert(datagram).received.len = end;
        }
        if self.next >= self.aside.len() {
            self.release();
        }
        train
    }
}

/// Whether `datagram` continues `train`.
fn joins(train: &Train, datagram: &Train) -> bool {
    let (sent_to_one, train, datagram) = (train.at == datagram.at, train.received, datagram.received);
    sent_to_one
        && train.segment != 0
        && train.len.is_multiple_of(train.segment)
        && datagram.segment == datagram.len
        && (1..=train.segment).contains(&datagram.len)
        && (datagram.from, datagram.meta) == (train.from, train.meta)
        && train.len + datagram.len <= LONGEST_TRAIN
        && train.len / train.segment < BATCH
}

/// How many to ask for after `got`: twice as many, so that a lone datagram also shows that it was the last.
fn next_count(got: usize) -> u8 {
    u8::try_from((got * 2).clamp(2, BATCH)).unwrap_or(2)
}

fn copy(to: Option<&mut [u8]>, from: &[u8]) {
    if let Some(to) = to
        && to.len() == from.len()
    {
        to.copy_from_slice(from);
    }
}

/// The sender, as the engine wants it: no IPv4 in disguise, no scope.
pub(super) fn sender(name: &Name) -> Option<SocketAddr> {
    let from = name.decode()?;
    Some(match from.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, from.port())),
        IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, from.port(), 0, 0)),
    })
}

/// What a message's control data tell.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) meta: Meta,
    /// Segment size of a train.
    segment: Option<usize>,
    /// The address of ours that it was sent to.
    at: Option<SocketAddr>,
}

/// Reads a message's control data.
pub(super) fn read_control(control: &[u8]) -> Told {
    let mut told = Told::default();
    let Told { meta, segment, at } = &mut told;
    for (level, kind, data) in control_messages(control) {
        // The values are ints, but for IP_TOS, which is a byte, and the destinations.
        let int = data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        let byte = int.and_then(|int| u8::try_from(int).ok());
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                meta.hops = byte.unwrap_or(meta.hops);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                meta.traffic_class = data.first().copied().unwrap_or(meta.traffic_class);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                meta.traffic_class = byte.unwrap_or(meta.traffic_class);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => *segment = int.and_then(|int| usize::try_from(int).ok()),
            (libc::IPPROTO_IP, libc::IP_PKTINFO) | (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                *at = destination(level, data).or(*at);
            }
            _ => {}
        }
    }
    told
}

/// `struct in_pktinfo` (interface, local address, address in the header) or `struct in6_pktinfo` (address, interface).
fn destination(level: i32, data: &[u8]) -> Option<SocketAddr> {
    if level == libc::IPPROTO_IP {
        let local = data.get(4..)?.first_chunk::<4>()?;
        return Some(SocketAddr::from((Ipv4Addr::from_octets(*local), 0)));
    }
    let (address, rest) = data.split_first_chunk::<16>()?;
    let address = Ipv6Addr::from_octets(*address);
    let interface = u32::from_ne_bytes(*rest.first_chunk()?);
    if address.to_ipv4_mapped().is_some() {
        // An IPv4 datagram on a dual-stack socket; it is told in the other form, too.
        return None;
    }
    let scope = if address.is_unicast_link_local() { interface } else { 0 };
    Some(SocketAddr::V6(SocketAddrV6::new(address, 0, 0, scope)))
}
