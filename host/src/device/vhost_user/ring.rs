//! A ring of a network card: a split virtqueue in the machine's memory, from the device's side.
//!
//! ```text
//!   descriptors   [ address, length, flags, next ] × size       written by the driver
//!   available     flags, index, [ head ] × size                 written by the driver
//!   used          flags, index, [ head, length ] × size         written by us
//! ```
//! The driver puts the head of a chain of descriptors into *available* and counts its index up; we put it into *used*,
//! with what was written, and count that index up. Indices run freely, modulo 2^16.
//!
//! Invariants.
//! - Nothing in that memory is believed: each value is copied once and looked at then. A chain has at most as many
//!   links as the ring has descriptors; an index is ahead of ours by as many at the most. Whatever does not fit is
//!   [`Broken`], and the end of the connection.
//! - Whoever has nothing to do asks to be called ([`Ring::listen`]) and then looks once more: what the other side does
//!   before it sees the request is not missed.
//!
//! Source: virtio 1.2 §2.7. Neither indirect descriptors nor event indices are offered.

use super::broken::Broken;
use super::memory::{Memory, Place};
use super::message::Addresses;
use crate::sys::shared_memory::settle;
use std::num::Wrapping;
use std::os::fd::OwnedFd;

/// Virtio 1.2 §2.7: the largest ring.
const LARGEST: u32 = 32768;
const DESCRIPTOR_LEN: usize = 16;
const USED_LEN: usize = 8;
/// Flags and index, in front of the entries of *available* and *used*.
const HEAD: usize = 4;
const INDEX: usize = 2;

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;
/// In the flags of *available*: the driver does not want to be called.
const NO_INTERRUPT: u16 = 1;
/// In those of *used*: we do not.
const NO_NOTIFY: u16 = 1;

/// A part of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) guest: u64,
    pub(super) len: u32,
}

/// What pieces are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
}

#[derive(Debug, Clone, Copy)]
struct Parts {
    descriptors: Place,
    available: Place,
    used: Place,
}

/// One ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// A power of two, at most [`LARGEST`]; 0 until it is told.
    size: u16,
    addresses: Option<Addresses>,
    /// Where those are, once all is known.
    parts: Option<Parts>,
    /// The next chain to be taken from *available*.
    next: Wrapping<u16>,
    /// Our index of *used*.
    used: Wrapping<u16>,
    /// By which the driver calls us; the ring rests as long as there is none.
    pub(super) kick: Option<OwnedFd>,
    /// By which we call it.
    pub(super) call: Option<OwnedFd>,
    pub(super) enabled: bool,
    /// The driver knows that it need not call.
    hushed: bool,
    /// Something was used that it was not called for.
    untold: bool,
}

impl Ring {
    pub(super) fn set_size(&mut self, size: u32, memory: &Memory) -> Result<(), Broken> {
        let good = u16::try_from(size).ok().filter(|_| size.is_power_of_two() && size <= LARGEST);
        self.size = good.ok_or(Broken::Size(size))?;
        self.find(memory);
        Ok(())
    }

    pub(super) fn set_addresses(&mut self, addresses: Addresses, memory: &Memory) -> Result<(), Broken> {
        self.addresses = Some(addresses);
        self.find(memory);
        let known = self.size > 0 && !memory.is_empty();
        if known && self.parts.is_none() { Err(Broken::Outside) } else { Ok(()) }
    }

    pub(super) fn set_base(&mut self, base: u16) {
        self.next = Wrapping(base);
        self.used = Wrapping(base);
    }

    /// Stops it, and says where.
    pub(super) fn stop(&mut self) -> u16 {
        self.kick = None;
        self.next.0
    }

    /// Looks for its parts in `memory`, which is new or has changed. A ring that is not there whole rests, for memory
    /// goes and comes region by region.
    pub(super) fn find(&mut self, memory: &Memory) {
        self.parts = self.addresses.and_then(|addresses| self.parts_in(memory, addresses));
        self.hushed = false;
    }

    fn parts_in(&self, memory: &Memory, addresses: Addresses) -> Option<Parts> {
        let size = Some(usize::from(self.size)).filter(|size| *size > 0)?;
        let place = |user: u64, len: usize, alignment: usize| {
            let place = memory.of_user(user, len)?;
            let (_, at) = memory.at(place, 0)?;
            at.is_multiple_of(alignment).then_some(place)
        };
        // Virtio 1.2 §2.7: how each is aligned.
        Some(Parts {
            descriptors: place(addresses.descriptors, size * DESCRIPTOR_LEN, 16)?,
            available: place(addresses.available, HEAD + size * 2, 2)?,
            used: place(addresses.used, HEAD + size * USED_LEN, 4)?,
        })
    }

    /// Whether chains can be taken.
    pub(super) const fn is_running(&self) -> bool {
        self.parts.is_some() && self.kick.is_some()
    }

    /// Whether the driver will not call: before anybody sleeps, [`Ring::listen`] has to be asked.
    pub(super) const fn is_hushed(&self) -> bool {
        self.hushed
    }

    pub(super) const fn size(&self) -> u16 {
        self.size
    }

    fn parts(&self) -> Result<Parts, Broken> {
        self.parts.ok_or(Broken::Outside)
    }

    fn load(memory: &Memory, part: Place, offset: usize) -> Result<u16, Broken> {
        memory.at(part, offset).and_then(|(memory, at)| memory.load(at)).ok_or(Broken::Outside)
    }

    fn store(memory: &Memory, part: Place, offset: usize, value: u16) -> Result<(), Broken> {
        memory.at(part, offset).and_then(|(memory, at)| memory.store(at, value)).ok_or(Broken::Outside)
    }

    /// How many chains can be taken.
    pub(super) fn waiting(&self, memory: &Memory) -> Result<u16, Broken> {
        let index = Self::load(memory, self.parts()?.available, INDEX)?;
        let Wrapping(waiting) = Wrapping(index) - self.next;
        if waiting <= self.size { Ok(waiting) } else { Err(Broken::Index(waiting)) }
    }

    /// Asks the driver to call when there is more than the `known` chains, and looks once more: how many there are.
    pub(super) fn listen(&mut self, memory: &Memory) -> Result<u16, Broken> {
        Self::store(memory, self.parts()?.used, 0, 0)?;
        self.hushed = false;
        settle();
        self.waiting(memory)
    }

    /// Asks it not to, for it is looked at anyway.
    pub(super) fn hush(&mut self, memory: &Memory) -> Result<(), Broken> {
        if !self.hushed {
            Self::store(memory, self.parts()?.used, 0, NO_NOTIFY)?;
            self.hushed = true;
        }
        Ok(())
    }

    /// Appends to `pieces` what the chain consists of that is the `nth` to be taken, and returns its head and its
    /// length in bytes.
    pub(super) fn look(
        &self,
        memory: &Memory,
        nth: u16,
        wanted: Use,
        pieces: &mut Vec<Piece>,
    ) -> Result<(u16, u64), Broken> {
        let Parts { descriptors, available, .. } = self.parts()?;
        let entry = self.entry(self.next + Wrapping(nth));
        let head = Self::load(memory, available, HEAD + entry * 2)?;
        let (mut at, mut len) = (head, 0);
        for _ in 0..self.size {
            if at >= self.size {
                return Err(Broken::Descriptor(at));
            }
            let mut bytes = [0; DESCRIPTOR_LEN];
            let place = memory.at(descriptors, usize::from(at) * DESCRIPTOR_LEN);
            place.and_then(|(memory, at)| memory.read(at, &mut bytes)).ok_or(Broken::Outside)?;
            let (piece, flags, next) = descriptor(bytes);
            let writable = flags & F_WRITE != 0;
            if flags & F_INDIRECT != 0 || writable != (wanted == Use::Write) {
                return Err(Broken::Flags(flags));
            }
            pieces.push(piece);
            len += u64::from(piece.len);
            if flags & F_NEXT == 0 {
                return Ok((head, len));
            }
            at = next;
        }
        Err(Broken::Endless)
    }

    /// Writes down, `nth` from the ones that are told, that the chain `head` was used, with `written` bytes.
    pub(super) fn put(&self, memory: &Memory, nth: u16, head: u16, written: u32) -> Result<(), Broken> {
        let entry = self.entry(self.used + Wrapping(nth));
        let [a, b, c, d] = u32::from(head).to_le_bytes();
        let [e, f, g, h] = written.to_le_bytes();
        let place = memory.at(self.parts()?.used, HEAD + entry * USED_LEN);
        place.and_then(|(memory, at)| memory.write(at, &[a, b, c, d, e, f, g, h])).ok_or(Broken::Outside)
    }

    /// Tells that the next `count` chains were used, all of which were put.
    pub(super) fn advance(&mut self, memory: &Memory, count: u16) -> Result<(), Broken> {
        self.next += count;
        self.used += count;
        self.untold = true;
        Self::store(memory, self.parts()?.used, INDEX, self.used.0)
    }

    /// The descriptor by which the driver is to be called now.
    pub(super) fn untold_call(&mut self, memory: &Memory) -> Option<&OwnedFd> {
        if !std::mem::take(&mut self.untold) {
            return None;
        }
        settle();
        let flags = Self::load(memory, self.parts?.available, 0).unwrap_or(0);
        self.call.as_ref().filter(|_| flags & NO_INTERRUPT == 0)
    }

    fn entry(&self, index: Wrapping<u16>) -> usize {
        // A power of two, so that this is right where the index begins anew.
        usize::from(index.0 & self.size.wrapping_sub(1))
    }
}

fn descriptor(bytes: [u8; DESCRIPTOR_LEN]) -> (Piece, u16, u16) {
    let number = u128::from_le_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "the parts of a number")]
    let (guest, len, flags, next) =
        (number as u64, (number >> 64) as u32, (number >> 96) as u16, (number >> 112) as u16);
    (Piece { guest, len }, flags, next)
}
