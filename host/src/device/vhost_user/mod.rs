//! A guest whose memory is shared with us: a virtual machine with a network card of virtio, whose rings we serve. The
//! hypervisor (the *front end*) tells over a Unix socket what there is (vhost-user); frames never pass it.
//!
//! ```text
//!   hypervisor ──── socket: features, memory, rings ────▶ inbox ▶ message ─┐
//!                                                                          ▼
//!   guest ◀── memory: rings and buffers ──▶ ring ◀── memory ◀────────  VhostUser ◀──▶ event loop
//!         ──── kick, eventfd ─────────────▶ (one epoll set of socket and kicks: the link's descriptor)
//!         ◀─── call, eventfd ──────────────
//! ```
//!
//! Invariants.
//! - Nobody is waited for. Requests are read as far as they have come ([`inbox`]); a front end that stops in the middle
//!   of one keeps itself waiting, and its guest's rings go on.
//! - What a front end or a guest does wrong ends this connection and nothing else: it is the error of
//!   [`VhostUser::read_frame`], and the next one begins anew. Memory that is taken away under us is such a case
//!   ([`crate::sys::shared_memory`]).
//! - Nothing of the guest's memory is looked at twice. A frame is copied out before it is parsed, its buffers are given
//!   back at once.
//! - While there is work, the guest need not call; before we sleep it is asked to, and looked at once more
//!   ([`ring::Ring::listen`]). That a budget ran out while there was more, [`VhostUser::is_ahead`] says. It is
//!   called at most once for each ring at the end of a round.
//! - A ring without room for a whole frame is [`Full`], and the guest calls when it has put in more.
//!
//! What is agreed on: checksums and segments are left to the other side, both ways ([`Features`]). Checksums of the
//! guest's frames are not looked at, as with all machines. There is one pair of rings. Migration is not offered, so a
//! hypervisor refuses it, and the guest stays where it is.
//!
//! Why our own hand: the readers of requests that there are wait for the rest of a message, and mapped memory has to be
//! known to the handler of SIGBUS in any case.
//!
//! Sources: QEMU's *Vhost-user Protocol*, virtio 1.2 §2.7, §5.1. Contract: pasta F.6.

mod broken;
pub mod front;
mod fuzz;
mod inbox;
mod memory;
pub mod message;
mod ring;
#[cfg(test)]
mod tests;

pub use front::{Front, Wish};
pub(crate) use fuzz::{requests as fuzz_requests, rings as fuzz_rings};

use super::{Lost, MAX_FRAME};
use broken::Broken;
use inbox::{Inbox, Message, invalid};
use memory::{Memory, MemoryError};
use message::{Direction, Features, Protocol, Request};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::{SFlag, fstat};
use ring::{Piece, Ring, Use};
use slipway_netstack::device::vnet::{Checksum, LE_HEADER_LEN};
use slipway_netstack::device::{Capabilities, Device, Full, Offload};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Frames after which the front end's requests are looked at, however many more there are.
const LOOK_AFTER: u32 = 64;
/// Requests that are carried out at one look.
const REQUESTS_AT_ONCE: usize = 16;
/// Frames with a senseless header that one call of `read_frame` skips before it lets others have their turn.
const SKIP_LIMIT: usize = 16;
/// An Ethernet header; what is shorter is no frame.
const SHORTEST: usize = 14;

const OFFERED: Features = Features::all();
const OFFERED_PROTOCOL: Protocol = Protocol::all();

/// In the epoll set: what there is news of.
const SOCKET: u64 = 0;
const ROOM: u64 = 1;
const FRAMES: u64 = 2;

/// The answer to a request for a descriptor to transfer the device's state by: an error, and no descriptor
/// (QEMU, *Vhost-user Protocol*).
const NO_STATE: u64 = 0x101;

/// The connection to a front end, and the rings of its guest.
#[derive(Debug)]
pub struct VhostUser {
    events: Epoll,
    inbox: Inbox,
    memory: Memory,
    to_guest: Ring,
    from_guest: Ring,
    features: Features,
    protocol: Protocol,
    /// What was found wrong where no error could be told.
    broken: Option<Broken>,
    /// Frames since the last look at the epoll set.
    frames: u32,
    /// The guest has put in buffers since that was asked last.
    room: bool,
    pieces: Vec<Piece>,
    heads: Vec<Head>,
    lost: Lost,
}

/// A chain of the guest's that is about to be used.
#[derive(Debug, Clone, Copy)]
struct Head {
    id: u16,
    /// How many pieces it has.
    pieces: usize,
}

/// How a request was taken.
#[derive(Debug)]
enum Answer {
    Done,
    /// With these bytes.
    With(Vec<u8>),
    /// It is not served.
    Refused,
}

impl Answer {
    fn number(number: u64) -> Self {
        Self::With(number.to_ne_bytes().to_vec())
    }
}

impl VhostUser {
    /// What it takes off the engine's hands if the guest's driver can do all there is.
    pub const BEST: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };

    /// Takes over the connected stream socket of a front end.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or watches.
    pub fn from_owned_fd(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(fd.as_fd())?;
        let events = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        events.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        Ok(Self {
            events,
            inbox: Inbox::new(fd),
            memory: Memory::default(),
            to_guest: Ring::default(),
            from_guest: Ring::default(),
            features: Features::empty(),
            protocol: Protocol::empty(),
            broken: None,
            frames: 0,
            room: false,
            pieces: Vec::new(),
            heads: Vec::new(),
            lost: Lost::default(),
        })
    }

    /// What it did not carry.
    #[must_use]
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// What the guest's driver has agreed to.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        let checksum = self.features.contains(Features::GUEST_CSUM);
        let can = |features| checksum && self.features.contains(features);
        Capabilities {
            checksum,
            tso4: can(Features::GUEST_TSO4),
            tso6: can(Features::GUEST_TSO6),
            uso: can(Features::GUEST_USO4 | Features::GUEST_USO6),
        }
    }

    /// Whether there is a frame, or the end, of which no event tells, or could be one.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        let ring = &self.from_guest;
        let unheard = || ring.is_hushed() || ring.waiting(&self.memory).is_ok_and(|count| count > 0);
        self.broken.is_some() || ring.is_running() && unheard()
    }

    /// Whether the guest has put in buffers since this was asked last.
    pub fn found_room(&mut self) -> bool {
        std::mem::take(&mut self.room)
    }

    /// See [`super::Link::read_frame`].
    ///
    /// # Errors
    /// `UnexpectedEof` when the front end has gone; `InvalidData` for what it or its guest did wrong; otherwise those
    /// of recvmsg(2).
    pub fn read_frame(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        if self.frames < LOOK_AFTER
            && let Some(frame) = self.take(into)?
        {
            self.frames += 1;
            return Ok(Some(frame));
        }
        self.frames = 0;
        self.look()?;
        self.take(into)
    }

    /// Calls the guest for what it was given and for what was taken.
    pub fn call(&mut self) {
        for ring in [&mut self.to_guest, &mut self.from_guest] {
            if let Some(call) = ring.untold_call(&self.memory) {
                // EAGAIN: the counter is at its end, so that it is called already. Otherwise the descriptor is none
                // that can be called by, which is its owner's loss.
                let _ = nix::unistd::write(call, &1u64.to_ne_bytes());
            }
        }
    }

    const fn ring(&mut self, direction: Direction) -> &mut Ring {
        match direction {
            Direction::ToGuest => &mut self.to_guest,
            Direction::FromGuest => &mut self.from_guest,
        }
    }
}

/// Requests of the front end.
impl VhostUser {
    /// Looks what there is news of, and carries out requests.
    fn look(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 3];
        let count = match self.events.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            match event.data() {
                SOCKET => self.serve()?,
                ROOM => self.room = true,
                // The ring is looked at anyway.
                _ => {}
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        for _ in 0..REQUESTS_AT_ONCE {
            let Some(message) = self.inbox.receive()? else { break };
            self.obey(message)?;
        }
        Ok(())
    }

    /// Carries out a request, and answers.
    fn obey(&mut self, message: Message) -> io::Result<()> {
        let Message { header, payload, fds } = message;
        let request = Request::parse(header.request, &payload, fds.len()).map_err(invalid)?;
        log::debug!("vhost-user: {request:?}");
        let acknowledged = header.need_reply && self.protocol.contains(Protocol::REPLY_ACK);
        let answer = match self.carry_out(request, fds)? {
            Answer::With(payload) => payload,
            Answer::Done if acknowledged => 0u64.to_ne_bytes().to_vec(),
            Answer::Refused if acknowledged => 1u64.to_ne_bytes().to_vec(),
            Answer::Done | Answer::Refused => return Ok(()),
        };
        self.inbox.answer(&message::reply(header.request, &answer))
    }

    fn carry_out(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<Answer> {
        let mut fds = fds.into_iter();
        match request {
            Request::GetFeatures => return Ok(Answer::number(OFFERED.bits())),
            Request::SetFeatures(features) => self.agree(features),
            Request::SetOwner | Request::SetError => {}
            Request::ResetOwner => {
                self.to_guest.stop();
                self.from_guest.stop();
            }
            Request::SetMemory(specs) => {
                let memory = Memory::of(&specs, fds.collect()).map_err(invalid)?;
                self.use_memory(|ours| {
                    *ours = memory;
                    Ok(())
                })?;
            }
            Request::AddRegion(spec) => {
                let file = fds.next().ok_or(io::ErrorKind::InvalidData)?;
                self.use_memory(|memory| memory.add(spec, &file))?;
            }
            Request::RemoveRegion(spec) => self.use_memory(|memory| memory.remove(spec))?,
            Request::SetSize(of, size) => {
                let (memory, ring) = self.with_memory(of);
                ring.set_size(size, memory).map_err(invalid)?;
            }
            Request::SetAddresses(of, addresses) => {
                let (memory, ring) = self.with_memory(of);
                ring.set_addresses(addresses, memory).map_err(invalid)?;
            }
            Request::SetBase(of, base) => {
                let base = u16::try_from(base).map_err(|_| invalid(Broken::Size(base)))?;
                self.ring(of).set_base(base);
            }
            Request::GetBase(of) => return Ok(self.stop(of)),
            Request::SetKick(of) => self.start(of, fds.next().ok_or(io::ErrorKind::InvalidData)?)?,
            Request::SetCall(of, _) => {
                let call = fds.next().map(bell).transpose()?;
                self.ring(of).call = call;
            }
            Request::Enable(of, on) => self.ring(of).enabled = on,
            Request::GetProtocol => return Ok(Answer::number(OFFERED_PROTOCOL.bits())),
            Request::SetProtocol(protocol) => self.protocol = protocol & OFFERED_PROTOCOL,
            Request::GetQueues => return Ok(Answer::number(1)),
            Request::GetSlots => {
                return Ok(Answer::number(u64::try_from(message::MOST_REGIONS).unwrap_or(0)));
            }
            Request::SetStateFd => return Ok(Answer::number(NO_STATE)),
            Request::CheckState => return Ok(Answer::number(1)),
            Request::Unknown(number) => {
                log::debug!("vhost-user: request {number} is not served");
                return Ok(Answer::Refused);
            }
        }
        // Whoever waits for room is to see what has changed.
        self.room = true;
        Ok(Answer::Done)
    }

    /// A ring and the memory that it is in.
    const fn with_memory(&mut self, of: Direction) -> (&Memory, &mut Ring) {
        match of {
            Direction::ToGuest => (&self.memory, &mut self.to_guest),
            Direction::FromGuest => (&self.memory, &mut self.from_guest),
        }
    }

    fn agree(&mut self, features: Features) {
        self.features = features & OFFERED;
        // Vhost-user Protocol, "Ring states": a front end that knows no protocol features cannot enable.
        if !self.features.contains(Features::PROTOCOL_FEATURES) {
            self.to_guest.enabled = true;
            self.from_guest.enabled = true;
        }
    }

    /// Changes the memory, and looks anew where the rings are.
    fn use_memory(&mut self, change: impl FnOnce(&mut Memory) -> Result<(), MemoryError>) -> io::Result<()> {
        change(&mut self.memory).map_err(invalid)?;
        for ring in [&mut self.to_guest, &mut self.from_guest] {
            ring.find(&self.memory);
        }
        Ok(())
    }

    fn start(&mut self, of: Direction, kick: OwnedFd) -> io::Result<()> {
        let kick = bell(kick)?;
        self.forget_kick(of);
        let token = match of {
            Direction::ToGuest => ROOM,
            Direction::FromGuest => FRAMES,
        };
        // Each call is told once: nobody need read how many there were.
        self.events.add(&kick, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token))?;
        self.ring(of).kick = Some(kick);
        Ok(())
    }

    fn stop(&mut self, of: Direction) -> Answer {
        self.forget_kick(of);
        let base = self.ring(of).stop();
        self.room = true;
        let index = match of {
            Direction::ToGuest => 0u32,
            Direction::FromGuest => 1,
        };
        Answer::With([index.to_ne_bytes(), u32::from(base).to_ne_bytes()].concat())
    }

    /// The front end has the same eventfd open, so that closing ours does not take it out of the set.
    fn forget_kick(&mut self, of: Direction) {
        let (ring, events) = match of {
            Direction::ToGuest => (&mut self.to_guest, &self.events),
            Direction::FromGuest => (&mut self.from_guest, &self.events),
        };
        if let Some(kick) = ring.kick.take() {
            // It is in the set, so this cannot fail.
            let _ = events.delete(&kick);
        }
    }
}

/// Frames.
impl VhostUser {
    const fn header_len(&self) -> usize {
        // Virtio 1.2 §5.1.6.1: without the standard, the last field is there with that feature only.
        if self.features.intersects(Features::VERSION_1.union(Features::MRG_RXBUF)) {
            LE_HEADER_LEN
        } else {
            LE_HEADER_LEN - 2
        }
    }

    /// Nothing more passes. What is wrong may be that zeroes were read.
    fn give_up(&mut self, broken: Broken) -> Broken {
        let broken = self.memory.check().err().unwrap_or(broken);
        self.broken = Some(broken);
        broken
    }

    /// The next frame of the guest.
    fn take(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        if let Some(broken) = self.broken {
            return Err(invalid(broken));
        }
        for _ in 0..SKIP_LIMIT {
            if !self.from_guest.is_running() {
                return Ok(None);
            }
            match self.take_chain(into).and_then(|taken| self.memory.check().map(|()| taken)) {
                Ok(None) => return Ok(None),
                Ok(Some(Some((offload, len)))) if self.from_guest.enabled => return Ok(Some((offload, len))),
                // Vhost-user Protocol, "Ring states": what comes by a ring that is disabled is discarded.
                Ok(Some(Some(_))) => self.lost.down = self.lost.down.saturating_add(1),
                Ok(Some(None)) => self.lost.malformed = self.lost.malformed.saturating_add(1),
                Err(broken) => return Err(invalid(self.give_up(broken))),
            }
        }
        Ok(None)
    }

    /// Takes a chain, copies it out and gives it back. `None`: there is none; the frame is `None` if it is none.
    fn take_chain(&mut self, into: &mut [u8]) -> Result<Option<Option<(Offload, usize)>>, Broken> {
        let header_len = self.header_len();
        let Self { memory, from_guest: ring, pieces, .. } = self;
        match ring.waiting(memory)? {
            0 if ring.listen(memory)? == 0 => return Ok(None),
            // One that is alone is most likely the last: the next one calls.
            0 | 1 => {}
            _ => ring.hush(memory)?,
        }
        pieces.clear();
        let (head, len) = ring.look(memory, 0, Use::Read, pieces)?;
        let fits = usize::try_from(len).ok().and_then(|len| len.checked_sub(header_len));
        let fits = fits.filter(|len| (SHORTEST..=into.len()).contains(len));
        let frame = match fits.and_then(|len| into.get_mut(..len)) {
            Some(frame) => copy_out(memory, pieces, header_len, frame)?,
            None => None,
        };
        ring.put(memory, 0, head, 0)?;
        ring.advance(memory, 1)?;
        Ok(Some(frame))
    }

    /// Finds buffers for `need` bytes. `Ok(false)`: there never will be.
    fn make_room(&mut self, need: usize) -> Result<Result<bool, Full>, Broken> {
        let mergeable = self.features.contains(Features::MRG_RXBUF);
        let Self { memory, to_guest: ring, pieces, heads, .. } = self;
        pieces.clear();
        heads.clear();
        let need = u64::try_from(need).unwrap_or(u64::MAX);
        let (mut waiting, mut room, mut count) = (ring.waiting(memory)?, 0u64, 0);
        while room < need {
            if count == ring.size() || (count == 1 && !mergeable) {
                return Ok(Ok(false));
            }
            if count == waiting {
                waiting = ring.listen(memory)?;
                if count >= waiting {
                    memory.check()?;
                    return Ok(Err(Full));
                }
            }
            let before = pieces.len();
            let (id, len) = ring.look(memory, count, Use::Write, pieces)?;
            heads.push(Head { id, pieces: pieces.len() - before });
            room = room.saturating_add(len);
            count += 1;
        }
        ring.hush(memory)?;
        Ok(Ok(true))
    }

    /// Fills the buffers that were found with header and frame.
    fn fill(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Broken> {
        let header_len = self.header_len();
        let Self { memory, to_guest: ring, pieces, heads, .. } = self;
        let count = u16::try_from(heads.len()).unwrap_or(u16::MAX);
        let header = offload.emit_le(count);
        let mut left = [header.get(..header_len).unwrap_or_default(), frame];
        let mut pieces = pieces.iter();
        for (head, nth) in heads.iter().zip(0u16..) {
            let mut written = 0u32;
            for piece in pieces.by_ref().take(head.pieces) {
                written = written.saturating_add(copy_in(memory, *piece, &mut left)?);
            }
            ring.put(memory, nth, head.id, written)?;
        }
        memory.check()?;
        ring.advance(memory, count)
    }
}

impl Device for VhostUser {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        if self.broken.is_some() || !self.to_guest.enabled || !self.to_guest.is_running() {
            self.lost.down = self.lost.down.saturating_add(1);
            return Ok(());
        }
        let room = self.make_room(self.header_len() + frame.len());
        let done = match room {
            Ok(Err(Full)) => {
                // It was looked at after it was asked to call: what it called for before is known.
                self.room = false;
                return Err(Full);
            }
            Ok(Ok(true)) => self.fill(offload, frame),
            Ok(Ok(false)) => {
                self.lost.rejected = self.lost.rejected.saturating_add(1);
                Ok(())
            }
            Err(broken) => Err(broken),
        };
        if let Err(broken) = done {
            self.give_up(broken);
            self.lost.down = self.lost.down.saturating_add(1);
        }
        Ok(())
    }
}

impl AsFd for VhostUser {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.0.as_fd()
    }
}

/// Copies a frame out of a chain, behind its header. `None`: the header makes no sense.
fn copy_out(
    memory: &Memory,
    pieces: &[Piece],
    header_len: usize,
    frame: &mut [u8],
) -> Result<Option<(Offload, usize)>, Broken> {
    let mut header = [0; LE_HEADER_LEN];
    let len = frame.len();
    let mut left = [header.get_mut(..header_len).unwrap_or_default(), frame];
    for piece in pieces {
        let outside = Broken::Buffer(piece.len, piece.guest);
        let mut at = piece.guest;
        let mut there = usize::try_from(piece.len).map_err(|_| outside)?;
        for into in &mut left {
            let count = there.min(into.len());
            let (now, later) = std::mem::take(into).split_at_mut(count);
            memory.read(at, now).ok_or(outside)?;
            *into = later;
            there -= count;
            at = at.checked_add(u64::try_from(count).map_err(|_| outside)?).ok_or(outside)?;
        }
    }
    let offload = Offload::parse_le(&header).map(|offload| match offload.checksum {
        // Nobody vouches for it; hypervisors leave it open for guests of theirs.
        Checksum::Complete => Offload { checksum: Checksum::Verified, ..offload },
        _ => offload,
    });
    Ok(offload.map(|offload| (offload, len)))
}

/// Copies as much as a piece takes, and returns how much that was.
fn copy_in(memory: &Memory, piece: Piece, left: &mut [&[u8]; 2]) -> Result<u32, Broken> {
    let outside = Broken::Buffer(piece.len, piece.guest);
    let (mut at, mut room) = (piece.guest, usize::try_from(piece.len).map_err(|_| outside)?);
    for from in left {
        let (now, later) = from.split_at(room.min(from.len()));
        memory.write(at, now).ok_or(outside)?;
        *from = later;
        room -= now.len();
        at = at.checked_add(u64::try_from(now.len()).map_err(|_| outside)?).ok_or(outside)?;
    }
    Ok(piece.len.saturating_sub(u32::try_from(room).unwrap_or(u32::MAX)))
}

/// A descriptor to call or be called by: an eventfd. Whatever has a kind for stat(2) is none, be it a socket, a pipe or
/// a terminal, and could have us wait; so could an eventfd that blocks.
fn bell(fd: OwnedFd) -> io::Result<OwnedFd> {
    let kind = fstat(&fd)?.st_mode & SFlag::S_IFMT.bits();
    if kind != 0 {
        return Err(invalid("a descriptor to call by that is no eventfd"));
    }
    set_nonblocking(fd.as_fd())?;
    Ok(fd)
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        // The filter of system calls knows no O_ASYNC, which a stranger's descriptor may have.
        fcntl(fd, FcntlArg::F_SETFL((flags | OFlag::O_NONBLOCK) - OFlag::O_ASYNC))?;
    }
    Ok(())
}
