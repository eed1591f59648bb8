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
use slipway_netstack::upstream::{Empty, Meta, Received};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
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

/// A datagram set aside: its bytes lie at the beginning of the place of the same number.
#[derive(Debug, Clone, Copy)]
struct Aside {
    len: usize,
    segment: usize,
    from: SocketAddr,
    meta: Meta,
}

/// Buffers for receiving, shared by all sockets.
#[derive(Debug, Default)]
pub struct Receiver {
    batch: Batch,
    /// [`BATCH`] places of [`PLACE`] bytes, or empty before the first use. Pages never written take no memory.
    places: Vec<u8>,
    /// By place; `None` where nothing lies or what lay there is no datagram.
    aside: Vec<Option<Aside>>,
    next: usize,
    owner: Option<RawFd>,
}

/// Asks the kernel to deliver trains, hop limits and traffic classes on a UDP socket that is read by a [`Receiver`], and
/// to give it a large buffer. Whatever it refuses only costs speed or a header field.
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
    /// is room for them (64 KiB at least). Returns whether there was anything.
    pub fn receive_batch(
        &mut self,
        fd: BorrowedFd<'_>,
        hint: &mut Hint,
        into: &mut [u8],
        mut give: impl FnMut(&Received, &[u8]),
    ) -> bool {
        hint.wake();
        let mut any = false;
        while let Ok(train) = self.receive(fd, hint, into) {
            any = true;
            give(&train, into.get(..train.len).unwrap_or_default());
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

    /// The socket is about to be closed: what is set aside is dropped, so that another one with its number never gets it.
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
    fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        hint: &mut Hint,
        into: &mut [u8],
    ) -> Result<Option<Received>, Code> {
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
        let Some(mut train) = self.first(hint) else {
            self.set_aside(fd, 1, got, size, into);
            return Ok(None);
        };
        let joined =
            if train.segment == train.len && train.len == size { self.matching(got, size) } else { 1 };
        self.set_aside(fd, joined, got, size, into);
        if joined > 1 {
            let last = self.batch.get(joined - 1).map_or(0, |message| message.len);
            train.len = (joined - 1) * size + last;
        } else if train.len > size {
            let rest = self.places.get(size..train.len).unwrap_or_default();
            copy(into.get_mut(size..train.len), rest);
        }
        Ok(Some(train))
    }

    /// The first datagram of the batch, and what it lets expect.
    fn first(&self, hint: &mut Hint) -> Option<Received> {
        let train = self.describe(0)?;
        hint.size = if train.segment < train.len { 0 } else { u16::try_from(train.len).unwrap_or(0).max(1) };
        Some(train)
    }

    /// What datagram number `at` of the batch is.
    fn describe(&self, at: usize) -> Option<Received> {
        let message = self.batch.get(at)?;
        let (meta, segment) = read_control(message.control);
        let segment = segment.filter(|&segment| segment > 0 && segment < message.len);
        Some(Received {
            len: message.len,
            segment: segment.unwrap_or(message.len),
            from: sender(message.name)?,
            meta,
        })
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
            let datagram = self.describe(at).map(|received| {
                let Received { len, segment, from, meta } = received;
                let start = at * size;
                let head = into.get(start..start + len.min(size)).unwrap_or_default();
                copy(self.places.get_mut(at * PLACE..at * PLACE + head.len()), head);
                Aside { len, segment, from, meta }
            });
            self.aside.push(datagram);
        }
    }

    /// The next datagram set aside, and those behind it that make a train with it.
    fn take_aside(&mut self, into: &mut [u8]) -> Option<Received> {
        let mut train: Option<Received> = None;
        while let Some(&datagram) = self.aside.get(self.next) {
            let Some(datagram) = datagram else {
                self.next += 1;
                continue;
            };
            let start = match &train {
                None => 0,
                Some(train) if joins(train, &datagram) && train.len + datagram.len <= into.len() => train.len,
                Some(_) => break,
            };
            let bytes = self.places.get(self.next * PLACE..).and_then(|place| place.get(..datagram.len));
            copy(into.get_mut(start..start + datagram.len), bytes.unwrap_or_default());
            self.next += 1;
            match &mut train {
                None => {
                    let Aside { len, segment, from, meta } = datagram;
                    train = Some(Received { len, segment, from, meta });
                }
                Some(train) => train.len += datagram.len,
            }
        }
        if self.next >= self.aside.len() {
            self.release();
        }
        train
    }
}

/// Whether `datagram` continues `train`.
fn joins(train: &Received, datagram: &Aside) -> bool {
    train.segment != 0
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

/// Header fields and the segment size of a train from a message's control data.
pub(super) fn read_control(control: &[u8]) -> (Meta, Option<usize>) {
    let (mut meta, mut segment) = (Meta::default(), None);
    for (level, kind, data) in control_messages(control) {
        // The values are ints, but for IP_TOS, which is a byte.
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
            (libc::SOL_UDP, libc::UDP_GRO) => segment = int.and_then(|int| usize::try_from(int).ok()),
            _ => {}
        }
    }
    (meta, segment)
}
