//! The other half: a front end and its guest's network card in one, for tests, fuzz targets and the pump of the
//! benchmark. Nothing that serves guests uses it.
//!
//! ```text
//!   0          64 KiB      128 KiB                                 (offsets in one memfd)
//!   │ to guest │ from guest │ a buffer for each descriptor to the guest │ a slot for each frame from it │
//!   each ring: descriptors, at 32 KiB available, at 48 KiB used
//! ```
//! A frame from the guest lies in one buffer, header in front. Frames to it lie in as many as they need.

use super::message::{Features, HEADER_LEN, Header, number};
use crate::sys::fdpass;
use crate::sys::shared_memory::{SharedMemory, settle};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use slipway_netstack::device::vnet::LE_HEADER_LEN;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::Wrapping;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Where the memory is for the guest.
pub const GUEST: u64 = 0x4000_0000;
/// And for the front end.
pub const USER: u64 = 0x7000_0000_0000;

const RING: usize = 64 << 10;
const AVAILABLE: usize = 32 << 10;
const USED: usize = 48 << 10;
const BUFFERS: usize = 2 * RING;
/// The longest frame and its header.
const SLOT: usize = 72 << 10;

const DESCRIPTOR_LEN: usize = 16;
const USED_LEN: usize = 8;
const INDEX: usize = 2;
const ENTRIES: usize = 4;
const F_WRITE: u16 = 2;

/// What a front end is like.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Feature bits that the driver agrees to.
    pub features: u64,
    /// Descriptors of each ring: a power of two, at most 1024.
    pub size: u16,
    /// Bytes of a buffer for frames to the guest.
    pub buffer: usize,
}

impl Wish {
    /// A driver that can do whatever the device can, with buffers as Linux makes them.
    #[must_use]
    pub fn all() -> Self {
        Self { features: Features::all().bits(), size: 256, buffer: 4096 }
    }

    /// One that can do nothing beyond what the standard asks for; its buffers take the largest frames whole.
    #[must_use]
    pub fn nothing() -> Self {
        let features = Features::VERSION_1 | Features::PROTOCOL_FEATURES;
        Self { features: features.bits(), size: 64, buffer: SLOT }
    }
}

/// A ring as the driver has it.
#[derive(Debug)]
struct Half {
    /// Where it begins in the memory.
    base: usize,
    size: u16,
    /// Our index of *available*.
    next: Wrapping<u16>,
    /// How far we have read *used*.
    seen: Wrapping<u16>,
    /// What the device was called for.
    told: Wrapping<u16>,
    kick: EventFd,
    call: EventFd,
}

/// A machine.
#[derive(Debug)]
pub struct Front {
    socket: UnixStream,
    file: File,
    memory: SharedMemory,
    wish: Wish,
    to_guest: Half,
    from_guest: Half,
}

fn nothing() -> io::Error {
    Errno::EFAULT.into()
}

impl Half {
    fn new(base: usize, size: u16) -> io::Result<Self> {
        let bell = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let zero = Wrapping(0);
        Ok(Self { base, size, next: zero, seen: zero, told: zero, kick: bell()?, call: bell()? })
    }

    fn entry(&self, index: Wrapping<u16>) -> usize {
        usize::from(index.0 % self.size.max(1))
    }

    fn describe(&self, memory: &SharedMemory, id: usize, at: usize, len: usize, flags: u16) -> Option<()> {
        let mut bytes = (GUEST + u64::try_from(at).ok()?).to_le_bytes().to_vec();
        bytes.extend(u32::try_from(len).ok()?.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend([0, 0]);
        memory.write(self.base + id * DESCRIPTOR_LEN, &bytes)
    }

    fn make_available(&mut self, memory: &SharedMemory, id: u16) -> Option<()> {
        memory.store(self.base + AVAILABLE + ENTRIES + self.entry(self.next) * 2, id)?;
        self.next += 1;
        memory.store(self.base + AVAILABLE + INDEX, self.next.0)
    }

    fn used(&self, memory: &SharedMemory) -> Option<u16> {
        let Wrapping(count) = Wrapping(memory.load(self.base + USED + INDEX)?) - self.seen;
        Some(count)
    }

    /// The `nth` that was used and not seen yet: its head and how much was written.
    fn peek(&self, memory: &SharedMemory, nth: u16) -> Option<(u16, usize)> {
        let entry = self.entry(self.seen + Wrapping(nth));
        let mut bytes = [0; USED_LEN];
        memory.read(self.base + USED + ENTRIES + entry * USED_LEN, &mut bytes)?;
        let [a, b, _, _, len @ ..] = bytes;
        Some((u16::from_le_bytes([a, b]), usize::try_from(u32::from_le_bytes(len)).ok()?))
    }

    /// Calls the device, if it wants that.
    fn kick(&mut self, memory: &SharedMemory) -> io::Result<()> {
        if self.told == self.next {
            return Ok(());
        }
        self.told = self.next;
        settle();
        if memory.load(self.base + USED).is_some_and(|flags| flags & 1 == 0) {
            self.kick.write(1)?;
        }
        Ok(())
    }
}

impl Front {
    /// Tells everything about a machine over a connected socket, and waits for no answer.
    ///
    /// # Errors
    /// The kernel's; EINVAL for a size or buffers that do not fit.
    pub fn start(socket: UnixStream, wish: Wish) -> io::Result<Self> {
        if !wish.size.is_power_of_two() || wish.size > 1024 || wish.buffer > SLOT {
            return Err(Errno::EINVAL.into());
        }
        let size = usize::from(wish.size);
        let len = u64::try_from(BUFFERS + size * (wish.buffer + SLOT)).map_err(|_| Errno::EINVAL)?;
        let file = File::from(memfd_create(c"machine", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(len)?;
        let memory = SharedMemory::map(file.as_fd(), 0, len)?;
        let (to_guest, from_guest) = (Half::new(0, wish.size)?, Half::new(RING, wish.size)?);
        let mut front = Self { socket, file, memory, wish, to_guest, from_guest };
        front.request(number::SET_OWNER, &[], &[])?;
        front.request(number::SET_FEATURES, &wish.features.to_ne_bytes(), &[])?;
        front.share(len)?;
        for id in 0..wish.size {
            let at = front.buffer(id);
            front
                .to_guest
                .describe(&front.memory, id.into(), at, wish.buffer, F_WRITE)
                .ok_or_else(nothing)?;
            front.to_guest.make_available(&front.memory, id).ok_or_else(nothing)?;
        }
        for ring in 0..2 {
            front.begin(ring)?;
        }
        Ok(front)
    }

    /// The table of its memory: one region.
    fn share(&self, len: u64) -> io::Result<()> {
        let mut table = [1u32.to_ne_bytes(), [0; 4]].concat();
        [GUEST, len, USER, 0].iter().for_each(|number| table.extend(number.to_ne_bytes()));
        self.request(number::SET_MEM_TABLE, &table, &[self.file.as_fd()])
    }

    fn begin(&self, ring: u32) -> io::Result<()> {
        let half = if ring == 0 { &self.to_guest } else { &self.from_guest };
        let state = |number: u32| [ring.to_ne_bytes(), number.to_ne_bytes()].concat();
        self.request(number::SET_VRING_NUM, &state(half.size.into()), &[])?;
        self.request(number::SET_VRING_BASE, &state(0), &[])?;
        let base = USER + u64::try_from(half.base).map_err(|_| Errno::EINVAL)?;
        let [used, available] = [USED, AVAILABLE].map(|at| base + u64::try_from(at).unwrap_or(0));
        let mut addresses = state(0);
        [base, used, available, 0].iter().for_each(|number| addresses.extend(number.to_ne_bytes()));
        self.request(number::SET_VRING_ADDR, &addresses, &[])?;
        self.request(number::SET_VRING_CALL, &u64::from(ring).to_ne_bytes(), &[half.call.as_fd()])?;
        self.request(number::SET_VRING_KICK, &u64::from(ring).to_ne_bytes(), &[half.kick.as_fd()])?;
        self.request(number::SET_VRING_ENABLE, &state(1), &[])
    }

    /// Sends any request.
    ///
    /// # Errors
    /// Those of sendmsg(2).
    pub fn request(&self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let header = Header { request, need_reply: false, size: payload.len() }.emit();
        fdpass::send_all(self.socket.as_fd(), &[&header, payload].concat(), fds)
    }

    /// Waits for an answer: its payload.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn answer(&self) -> io::Result<Vec<u8>> {
        let mut header = [0; HEADER_LEN];
        (&self.socket).read_exact(&mut header)?;
        let [.., a, b, c, d] = header;
        let mut payload = vec![0; usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(0).min(1024)];
        (&self.socket).read_exact(&mut payload)?;
        Ok(payload)
    }

    /// The feature bits that the device offers.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn offered(socket: &UnixStream) -> io::Result<u64> {
        let header = Header { request: number::GET_FEATURES, need_reply: false, size: 0 }.emit();
        fdpass::send(socket.as_fd(), &header, None)?;
        let mut answer = [0; HEADER_LEN + 8];
        { socket }.read_exact(&mut answer)?;
        let [.., a, b, c, d, e, f, g, h] = answer;
        Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Its memory, for whoever wants to write nonsense into it.
    #[must_use]
    pub const fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The file that this is.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The connection.
    #[must_use]
    pub const fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Where in the memory the ring to or from the guest begins, its *available* and its *used*.
    #[must_use]
    pub const fn ring(&self, to_guest: bool) -> [usize; 3] {
        let base = if to_guest { self.to_guest.base } else { self.from_guest.base };
        [base, base + AVAILABLE, base + USED]
    }

    fn buffer(&self, id: u16) -> usize {
        BUFFERS + usize::from(id) * self.wish.buffer
    }

    /// Sends a frame; `false`: there is no room. [`Front::kick`] tells of it.
    ///
    /// # Errors
    /// EFAULT for a frame that is too long.
    pub fn send(&mut self, header: &[u8; LE_HEADER_LEN], frame: &[u8]) -> io::Result<bool> {
        let Self { memory, from_guest: ring, wish, .. } = self;
        let used = ring.used(memory).ok_or_else(nothing)?;
        ring.seen += used;
        let Wrapping(under_way) = ring.next - ring.seen;
        if under_way >= ring.size {
            return Ok(false);
        }
        let id = ring.next.0 % ring.size;
        let at = BUFFERS + usize::from(wish.size) * wish.buffer + usize::from(id) * SLOT;
        let len = LE_HEADER_LEN + frame.len();
        let mut put = || {
            (len <= SLOT).then_some(())?;
            memory.write(at, header)?;
            memory.write(at + LE_HEADER_LEN, frame)?;
            ring.describe(memory, id.into(), at, len, 0)?;
            ring.make_available(memory, id)
        };
        put().map(|()| true).ok_or_else(nothing)
    }

    /// Calls the device for what was sent and for buffers that were given back, if it wants that.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn kick(&mut self) -> io::Result<()> {
        self.from_guest.kick(&self.memory)?;
        self.to_guest.kick(&self.memory)
    }

    /// The next frame to the guest, whose buffers go back: its header. `None`: there is none now.
    ///
    /// # Errors
    /// EFAULT when the device used what it was not given.
    pub fn receive(&mut self, into: &mut Vec<u8>) -> io::Result<Option<[u8; LE_HEADER_LEN]>> {
        let used = self.to_guest.used(&self.memory).ok_or_else(nothing)?;
        if used == 0 {
            return Ok(None);
        }
        into.clear();
        self.gather(used, into).map(Some).ok_or_else(nothing)
    }

    fn gather(&mut self, used: u16, into: &mut Vec<u8>) -> Option<[u8; LE_HEADER_LEN]> {
        let (mut header, mut count, mut nth) = ([0; LE_HEADER_LEN], 1, 0);
        while nth < count {
            (nth < used).then_some(())?;
            let (id, len) = self.to_guest.peek(&self.memory, nth)?;
            (id < self.wish.size && len <= self.wish.buffer).then_some(())?;
            let mut at = self.buffer(id);
            let mut len = len;
            if nth == 0 {
                self.memory.read(at, &mut header)?;
                let [.., a, b] = header;
                count = u16::from_le_bytes([a, b]);
                (at, len) = (at + LE_HEADER_LEN, len.checked_sub(LE_HEADER_LEN)?);
            }
            let before = into.len();
            into.resize(before + len, 0);
            self.memory.read(at, into.get_mut(before..)?)?;
            self.to_guest.make_available(&self.memory, id)?;
            nth += 1;
        }
        self.to_guest.seen += count.max(1);
        Some(header)
    }

    /// The descriptors by which it is called, for frames to the guest and for those from it.
    #[must_use]
    pub fn bells(&self) -> [BorrowedFd<'_>; 2] {
        [self.to_guest.call.as_fd(), self.from_guest.call.as_fd()]
    }

    /// The descriptors by which the device is called, of the rings to the guest and from it.
    #[must_use]
    pub fn kicks(&self) -> [BorrowedFd<'_>; 2] {
        [self.to_guest.kick.as_fd(), self.from_guest.kick.as_fd()]
    }

    /// How often it was called since this was asked last.
    #[must_use]
    pub fn calls(&self) -> [u64; 2] {
        [&self.to_guest, &self.from_guest].map(|half| half.call.read().unwrap_or(0))
    }

    /// Whether there is a frame to the guest.
    ///
    /// # Errors
    /// None of memory that is there.
    pub fn has_news(&self) -> io::Result<bool> {
        Ok(self.to_guest.used(&self.memory).ok_or_else(nothing)? > 0)
    }

    /// Whether it wants to be called for frames to the guest.
    pub fn want_calls(&self, wanted: bool) {
        let flags = u16::from(!wanted);
        let _ = self.memory.store(self.to_guest.base + AVAILABLE, flags);
        settle();
    }
}
