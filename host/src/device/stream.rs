//! A guest behind a byte stream: each Ethernet frame follows its length ([`super::framing`]). QEMU speaks it
//! (`-netdev stream`), HyperKit and VPNKit, gvforwarder, and what starts virtual machines the way passt is started. The
//! stream is a socket, or a pair of descriptors of any kind.
//!
//! Invariants.
//! - Many frames come with one call and go with one. What was read ahead is the next to be read: [`Stream::is_ahead`]
//!   says so, for the kernel does not.
//! - A frame that has begun is finished before anything else goes out, however long that takes: half a frame would be
//!   the end of all that follow. What has been taken and not sent is bounded; behind that the link is full.
//! - Frames come without a word about their checksums, which some hypervisors leave open (libkrun): they are not looked
//!   at. To the guest everything is finished, as the wire has no room to say otherwise.
//! - A length that is refused is the end of the connection, not of the process: where the next frame would begin is not
//!   known any more.
//! - While a guest still has to say who it is ([`super::vpnkit`]), it sends and gets no frames.
//! - Between two ends of ours each direction may change to trains with a header ([`super::fast`]). Then the header says
//!   what is left open; one that makes no sense costs its frame.
//!
//! Contract: pasta F.6, gvproxy 5.

use super::framing::{Framing, Lengths};
use super::vpnkit::Handshake;
use super::{Lost, MAX_FRAME, UNCHECKED, fast};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, recv, send};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::{Capabilities, Device, Full, Offload};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// Bytes read at once at most: several of the longest frames.
const INBOX: usize = 256 << 10;
/// Bytes read at once from a guest that has little to say: ten of them cost less than one that transfers.
const FIRST_INBOX: usize = 16 << 10;
/// Bytes that wait for room in the socket, before the link is full.
const OUTBOX: usize = 256 << 10;
/// So many of them may be of other guests: what is left is for us, however much those send.
const OF_OTHERS: usize = OUTBOX / 4 * 3;
/// From so many on they are sent before the end of a round.
const EAGER: usize = 64 << 10;
/// Frames with a senseless header that one call of `read_frame` skips before it lets others have their turn.
const SKIP_LIMIT: usize = 16;

/// The connection to the guest.
#[derive(Debug)]
pub struct Stream {
    wire: Wire,
    /// How frames come, and what lengths they may have.
    incoming: Framing,
    lengths: Lengths,
    /// How frames go.
    outgoing: Framing,
    change: Change,
    /// What comes before frames, if that is not over.
    handshake: Option<Box<Handshake>>,
    /// What was read, from `next` to `end`. It takes no memory until there is something.
    inbox: Vec<u8>,
    next: usize,
    end: usize,
    /// The last call brought all that there was.
    dry: bool,
    /// What is to be sent, from `sent` on.
    outbox: Vec<u8>,
    sent: usize,
    /// The kernel had no room, and has not said since that it has.
    stuck: bool,
    /// The other side is gone: nothing is sent any more.
    broken: bool,
    lost: Lost,
}

/// What is left of the change to the fast link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing, or nobody has asked for it.
    Settled,
    /// What comes changes behind a marker, whenever that comes; what goes has changed.
    Awaited,
    /// We have asked: the first frame says whether it is granted. The address is for our own marker.
    Asked(MacAddr),
}

/// What was read.
#[derive(Debug)]
enum Taken {
    Frame(Offload, usize),
    /// A marker.
    Marker,
    /// Its header makes no sense.
    Malformed,
}

/// Where the bytes go.
#[derive(Debug)]
enum Wire {
    Socket(OwnedFd),
    Pair { input: OwnedFd, output: OwnedFd },
}

impl Wire {
    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Socket(fd) => recv(fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT),
            Self::Pair { input, .. } => nix::unistd::read(input, into),
        }
    }

    /// A pipe without reader sends a signal, too, which programs of ours ignore.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Socket(fd) => send(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
            Self::Pair { output, .. } => nix::unistd::write(output, bytes),
        }
    }
}

impl Change {
    /// A frame has come that is no marker.
    const fn without_marker(self) -> Self {
        match self {
            Self::Awaited => Self::Awaited,
            Self::Asked(_) | Self::Settled => Self::Settled,
        }
    }
}

impl Stream {
    /// Takes over a connected stream socket, with QEMU's framing; no length but those of frames is borne.
    #[must_use]
    pub fn from_owned_fd(fd: OwnedFd) -> Self {
        Self::new(Wire::Socket(fd), Framing::Be32, Lengths::OfFrames)
    }

    /// Takes over the stream socket of one of several guests, which has sent `first` already.
    #[must_use]
    pub fn of_guest(fd: OwnedFd, framing: Framing, first: Vec<u8>) -> Self {
        let mut stream = Self::new(Wire::Socket(fd), framing, Lengths::Any);
        stream.end = first.len();
        stream.inbox = first;
        stream
    }

    /// The same for a forwarder's that has asked for the fast link, which it is granted. `ours` is the gateway's
    /// address.
    #[must_use]
    pub fn fast(fd: OwnedFd, ours: MacAddr, first: Vec<u8>) -> Self {
        let mut stream = Self::of_guest(fd, Framing::Le16, first);
        stream.change = Change::Awaited;
        stream.hasten(ours);
        stream
    }

    /// The forwarder's end of such a stream, with two-byte lengths until the fast link, which it has asked for, is
    /// granted. `guest` is the guest's address.
    #[must_use]
    pub const fn asking(fd: OwnedFd, guest: MacAddr) -> Self {
        let mut stream = Self::new(Wire::Socket(fd), Framing::Le16, Lengths::Any);
        stream.change = Change::Asked(guest);
        stream
    }

    /// The same for one that begins with a handshake.
    #[must_use]
    pub fn greeted(fd: OwnedFd, framing: Framing, handshake: Handshake) -> Self {
        let handshake = Some(Box::new(handshake));
        Self { handshake, ..Self::new(Wire::Socket(fd), framing, Lengths::Any) }
    }

    /// A guest behind two descriptors that read(2) and write(2) serve; they do not block from now on, for anybody who
    /// shares them.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn between(input: OwnedFd, output: OwnedFd, framing: Framing) -> io::Result<Self> {
        for fd in [&input, &output] {
            let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
        }
        Ok(Self::new(Wire::Pair { input, output }, framing, Lengths::Any))
    }

    const fn new(wire: Wire, framing: Framing, lengths: Lengths) -> Self {
        Self {
            wire,
            incoming: framing,
            lengths,
            outgoing: framing,
            change: Change::Settled,
            handshake: None,
            inbox: Vec::new(),
            next: 0,
            end: 0,
            dry: false,
            outbox: Vec::new(),
            sent: 0,
            stuck: false,
            broken: false,
            lost: Lost { ..Lost::NONE },
        }
    }

    /// What it did not carry.
    #[must_use]
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// What it takes off the engine's hands: all there is, once it is fast.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        if self.outgoing == Framing::Fast { Capabilities::ALL } else { Capabilities::default() }
    }

    /// What is sent from here on is fast.
    fn hasten(&mut self, from: MacAddr) {
        let marker = fast::marker(from);
        if self.outgoing.put(marker.len(), &mut self.outbox) {
            self.outbox.extend(marker);
        }
        self.outgoing = Framing::Fast;
        let _ = self.flush();
    }

    /// The descriptor that tells of room, if it is another than the one that tells of frames.
    #[must_use]
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        match &self.wire {
            Wire::Socket(_) => None,
            Wire::Pair { output, .. } => Some(output.as_fd()),
        }
    }

    /// Whether the guest has still to say who it is.
    #[must_use]
    pub const fn is_greeting(&self) -> bool {
        self.handshake.is_some()
    }

    /// Whether what other guests send is to be refused: it has its part of the room.
    #[must_use]
    pub fn is_crowded(&mut self) -> bool {
        if self.waiting() >= OF_OTHERS && !self.stuck {
            let _ = self.flush();
        }
        self.waiting() >= OF_OTHERS
    }

    /// The kernel has room again.
    pub const fn has_room(&mut self) {
        self.stuck = false;
    }

    /// Whether there is something that nobody has asked for yet, and of which no event tells: a whole frame, the length
    /// of an impossible one, or the end of a stream whose other direction has ended.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        if self.handshake.is_some() {
            return false;
        }
        let header = self.incoming.header_len();
        self.length().is_some_and(|len| !self.lengths.allow(len) || self.unread().len() >= header + len)
            || self.has_ended()
    }

    /// Of a pair, one end does not tell of the other's.
    fn has_ended(&self) -> bool {
        self.broken && self.output().is_some()
    }

    /// See [`super::Link::read_frame`].
    ///
    /// # Errors
    /// `UnexpectedEof` when the guest has hung up; `InvalidData` for a length that is refused; otherwise those of
    /// recv(2).
    pub fn read_frame(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        let mut skipped = 0;
        loop {
            if self.handshake.is_none() {
                match self.take(into)? {
                    Some(Taken::Frame(offload, len)) => return Ok(Some((offload, len))),
                    Some(Taken::Marker) => continue,
                    Some(Taken::Malformed) => {
                        self.lost.malformed = self.lost.malformed.saturating_add(1);
                        skipped += 1;
                        if skipped == SKIP_LIMIT {
                            return Ok(None);
                        }
                        continue;
                    }
                    None => {}
                }
            } else if self.shake_hands() {
                continue;
            }
            if self.has_ended() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if std::mem::take(&mut self.dry) || !self.receive()? {
                return Ok(None);
            }
        }
    }

    /// Takes a step of the handshake, if its message is there.
    fn shake_hands(&mut self) -> bool {
        let unread = self.inbox.get(self.next..self.end).unwrap_or_default();
        let Some(step) = self.handshake.as_mut().and_then(|handshake| handshake.step(unread)) else {
            return false;
        };
        self.next += step.taken;
        self.outbox.extend(step.reply);
        if step.done {
            self.handshake = None;
        }
        // What finds no room waits for it like a frame.
        let _ = self.flush();
        true
    }

    fn unread(&self) -> &[u8] {
        self.inbox.get(self.next..self.end).unwrap_or_default()
    }

    /// The length of the next frame, if that has come.
    fn length(&self) -> Option<usize> {
        self.incoming.length(self.unread())
    }

    /// The next frame, if all of it was read.
    fn take(&mut self, into: &mut [u8]) -> io::Result<Option<Taken>> {
        let Some(len) = self.length() else { return Ok(None) };
        if !self.lengths.allow(len) {
            return Err(self.lengths.refusal(len));
        }
        let header = self.incoming.header_len();
        let Some(bytes) = self.unread().get(header..header + len) else { return Ok(None) };
        let announced = if self.change == Change::Settled { None } else { fast::announced(bytes) };
        let opened =
            if self.incoming == Framing::Fast { fast::open(bytes) } else { Some((UNCHECKED, bytes)) };
        let taken = opened.map_or(Taken::Malformed, |(offload, frame)| {
            let room = into.get_mut(..frame.len());
            Taken::Frame(
                offload,
                room.map_or(0, |room| {
                    room.copy_from_slice(frame);
                    frame.len()
                }),
            )
        });
        self.next += header + len;
        match announced {
            Some(version) => self.obey(version).map(|()| Some(Taken::Marker)),
            None => {
                self.change = self.change.without_marker();
                Ok(Some(taken))
            }
        }
    }

    /// A marker has come: what follows it is fast.
    fn obey(&mut self, version: u8) -> io::Result<()> {
        if version != fast::VERSION {
            let reason = format!("the fast link has version {version}, which nobody asked for");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        (self.incoming, self.lengths) = (Framing::Fast, Lengths::OfFast);
        if let Change::Asked(from) = std::mem::replace(&mut self.change, Change::Settled) {
            self.hasten(from);
        }
        Ok(())
    }

    /// Reads more. `false`: there is nothing now.
    fn receive(&mut self) -> io::Result<bool> {
        self.inbox.copy_within(self.next..self.end, 0);
        (self.next, self.end) = (0, self.end - self.next);
        if self.end == self.inbox.len() {
            self.enlarge_inbox();
        }
        let room = self.inbox.get_mut(self.end..).unwrap_or_default();
        let asked = room.len();
        let read = self.wire.read(room);
        self.end += read.unwrap_or(0);
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.dry = len < asked;
                if !self.dry {
                    self.enlarge_inbox();
                }
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// For a guest that sends more than was asked for.
    fn enlarge_inbox(&mut self) {
        let len = self.inbox.len();
        self.inbox.resize((len * 2).clamp(FIRST_INBOX, INBOX).max(len), 0);
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// [`Full`]: something still waits, for room.
    pub fn flush(&mut self) -> Result<(), Full> {
        while let Some(waiting) = self.outbox.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            match self.wire.write(waiting) {
                Ok(count) => self.sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.stuck = true;
                    return Err(Full);
                }
                // Reading tells why.
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        self.outbox.clear();
        self.sent = 0;
        self.stuck = false;
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.outbox.len() - self.sent
    }
}

impl Device for Stream {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        let is_fast = self.outgoing == Framing::Fast;
        if (offload != Offload::NONE && !is_fast) || frame.len() > MAX_FRAME {
            self.lost.rejected = self.lost.rejected.saturating_add(1);
            return Ok(());
        }
        if self.broken || self.handshake.is_some() {
            self.lost.down = self.lost.down.saturating_add(1);
            return Ok(());
        }
        if self.waiting() >= EAGER && !self.stuck {
            // Room that there is is made use of; what waits behind that is told by `flush`.
            let _ = self.flush();
        }
        let header = offload.emit_short_le();
        let header = if is_fast { &header[..] } else { &[] };
        let len = header.len() + frame.len();
        if self.waiting() + self.outgoing.header_len() + len > OUTBOX {
            return Err(Full);
        }
        self.outbox.drain(..self.sent);
        self.sent = 0;
        if self.outgoing.put(len, &mut self.outbox) {
            self.outbox.extend_from_slice(header);
            self.outbox.extend_from_slice(frame);
        } else {
            self.lost.rejected = self.lost.rejected.saturating_add(1);
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.wire {
            Wire::Socket(fd) => fd.as_fd(),
            Wire::Pair { input, .. } => input.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests;
