//! The machine's memory: regions of files, found by the guest's addresses and by the front end's.
//!
//! Invariants: no two regions overlap, for the guest or for the front end; none reaches beyond the end of all
//! addresses. So an address leads to one place or to none, and a buffer that goes over the end of a region goes on in
//! the one that follows, or ends the connection.

use super::broken::Broken;
use super::message::{MOST_REGIONS, RegionSpec};
use crate::sys::shared_memory::SharedMemory;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// A place in a region, of which as many bytes are there as were asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    region: usize,
    at: usize,
}

#[derive(Debug)]
struct Region {
    spec: RegionSpec,
    memory: SharedMemory,
}

/// Why there is no such memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("regions of memory that overlap, or end nowhere")]
    Overlap,
    #[error("more than {MOST_REGIONS} regions of memory")]
    TooMany,
    #[error("no such region of memory")]
    Unknown,
    #[error("memory that cannot be mapped: {0}")]
    Map(#[from] io::Error),
}

/// All regions.
#[derive(Debug, Default)]
pub(super) struct Memory {
    regions: Vec<Region>,
}

impl Memory {
    /// These regions and no others.
    pub(super) fn of(specs: &[RegionSpec], files: Vec<OwnedFd>) -> Result<Self, MemoryError> {
        let mut memory = Self::default();
        specs.iter().zip(files).try_for_each(|(spec, file)| memory.add(*spec, &file))?;
        Ok(memory)
    }

    pub(super) fn add(&mut self, spec: RegionSpec, file: &OwnedFd) -> Result<(), MemoryError> {
        if self.regions.len() >= MOST_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let endless = [spec.guest, spec.user].iter().any(|start| start.checked_add(spec.len).is_none());
        if endless || self.regions.iter().any(|region| overlap(region.spec, spec)) {
            return Err(MemoryError::Overlap);
        }
        let memory = SharedMemory::map(file.as_fd(), spec.offset, spec.len)?;
        self.regions.push(Region { spec, memory });
        Ok(())
    }

    /// Takes away the region with these addresses and this length.
    pub(super) fn remove(&mut self, spec: RegionSpec) -> Result<(), MemoryError> {
        let same = |region: &Region| {
            (region.spec.guest, region.spec.user, region.spec.len) == (spec.guest, spec.user, spec.len)
        };
        let at = self.regions.iter().position(same).ok_or(MemoryError::Unknown)?;
        self.regions.remove(at);
        Ok(())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Asked after each use: whether a file was cut under us, so that zeroes were read.
    pub(super) fn check(&self) -> Result<(), Broken> {
        if self.regions.iter().any(|region| region.memory.is_lost()) { Err(Broken::Lost) } else { Ok(()) }
    }

    /// Where the front end's address `user` is, with `len` bytes from there on, in one region.
    pub(super) fn of_user(&self, user: u64, len: usize) -> Option<Place> {
        self.regions.iter().enumerate().find_map(|(region, Region { spec, memory })| {
            let at = usize::try_from(user.checked_sub(spec.user)?).ok()?;
            (at.checked_add(len)? <= memory.len()).then_some(Place { region, at })
        })
    }

    /// The memory at a place, and where that is in it, `offset` bytes on.
    pub(super) fn at(&self, place: Place, offset: usize) -> Option<(&SharedMemory, usize)> {
        Some((&self.regions.get(place.region)?.memory, place.at.checked_add(offset)?))
    }

    /// Copies what is at the guest's address `guest`.
    pub(super) fn read(&self, guest: u64, mut into: &mut [u8]) -> Option<()> {
        let mut guest = guest;
        while !into.is_empty() {
            let (memory, at, len) = self.of_guest(guest, into.len())?;
            let (part, rest) = into.split_at_mut_checked(len)?;
            memory.read(at, part)?;
            into = rest;
            guest = guest.checked_add(u64::try_from(len).ok()?)?;
        }
        Some(())
    }

    /// Copies to the guest's address `guest`.
    pub(super) fn write(&self, guest: u64, mut from: &[u8]) -> Option<()> {
        let mut guest = guest;
        while !from.is_empty() {
            let (memory, at, len) = self.of_guest(guest, from.len())?;
            let (part, rest) = from.split_at_checked(len)?;
            memory.write(at, part)?;
            from = rest;
            guest = guest.checked_add(u64::try_from(len).ok()?)?;
        }
        Some(())
    }

    /// The region that has `guest`, and how many of `len` bytes it has from there on: at least one.
    fn of_guest(&self, guest: u64, len: usize) -> Option<(&SharedMemory, usize, usize)> {
        self.regions.iter().find_map(|Region { spec, memory }| {
            let at = usize::try_from(guest.checked_sub(spec.guest)?).ok()?;
            let there = memory.len().checked_sub(at).filter(|there| *there > 0)?;
            Some((memory, at, len.min(there)))
        })
    }
}

fn overlap(one: RegionSpec, other: RegionSpec) -> bool {
    // Neither wraps: that was looked at before.
    let meet = |a: u64, b: u64| a < b.saturating_add(other.len) && b < a.saturating_add(one.len);
    meet(one.guest, other.guest) || meet(one.user, other.user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    const PAGE: u64 = 4096;

    fn file() -> File {
        let file = File::from(memfd_create(c"machine", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(8 * PAGE).unwrap();
        file
    }

    fn spec(guest: u64, len: u64, user: u64, offset: u64) -> RegionSpec {
        RegionSpec { guest, len, user, offset }
    }

    fn twice(file: &File) -> Vec<OwnedFd> {
        (0..2).map(|_| file.try_clone().unwrap().into()).collect()
    }

    #[test]
    fn a_buffer_goes_on_in_the_next_region() {
        let file = file();
        let specs = [spec(0, PAGE, 1 << 40, 4 * PAGE), spec(PAGE, PAGE, 1 << 41, 0)];
        let memory = Memory::of(&specs, twice(&file)).unwrap();
        memory.write(PAGE - 2, b"over").unwrap();
        let mut seen = [0; 2];
        file.read_exact_at(&mut seen, 5 * PAGE - 2).unwrap();
        assert_eq!(&seen, b"ov");
        file.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"er");
        let mut back = [0; 4];
        memory.read(PAGE - 2, &mut back).unwrap();
        assert_eq!(&back, b"over");
        // Behind the last one there is nothing, nor at the ends of all addresses.
        for at in [2 * PAGE - 3, 2 * PAGE, u64::MAX, u64::MAX - 3] {
            assert_eq!((memory.read(at, &mut back), memory.write(at, &back)), (None, None), "{at:#x}");
        }
        // A ring is in one region.
        assert!(memory.of_user((1 << 40) + PAGE - 4, 4).is_some());
        assert!(memory.of_user((1 << 40) + PAGE - 4, 5).is_none());
        assert!(memory.of_user(0, 1).is_none());
    }

    #[test]
    fn regions_that_overlap_or_end_nowhere_are_refused() {
        let first = spec(PAGE, PAGE, 1 << 40, 0);
        for second in [
            first,
            spec(0, 2 * PAGE, 1 << 41, 0),
            spec(2 * PAGE - 1, PAGE, 1 << 41, 0),
            spec(1 << 30, PAGE, (1 << 40) + PAGE - 1, 0),
            spec(u64::MAX, PAGE, 1 << 41, 0),
            spec(1 << 30, PAGE, u64::MAX - PAGE + 1, 0),
        ] {
            let error = Memory::of(&[first, second], twice(&file())).unwrap_err();
            assert!(matches!(error, MemoryError::Overlap), "{second:?}: {error}");
        }
        // What the file does not have, and an empty one.
        for second in [spec(1 << 30, 9 * PAGE, 1 << 41, 0), spec(1 << 30, 0, 1 << 41, 0)] {
            let error = Memory::of(&[first, second], twice(&file())).unwrap_err();
            assert!(matches!(error, MemoryError::Map(_)), "{second:?}: {error}");
        }
    }

    #[test]
    fn regions_come_and_go() {
        let file = file();
        let (one, two) = (spec(0, PAGE, 1 << 40, 0), spec(PAGE, PAGE, 1 << 41, 0));
        let mut memory = Memory::of(&[one], twice(&file)).unwrap();
        let fd = OwnedFd::from(file.try_clone().unwrap());
        memory.add(two, &fd).unwrap();
        assert!(memory.write(PAGE, &[1]).is_some());
        memory.remove(two).unwrap();
        assert!(memory.write(PAGE, &[1]).is_none());
        assert!(matches!(memory.remove(two), Err(MemoryError::Unknown)));
        for n in 2..=MOST_REGIONS as u64 {
            memory.add(spec(n * PAGE, PAGE, (1 << 41) + n * PAGE, 0), &fd).unwrap();
        }
        assert!(matches!(memory.add(two, &fd), Err(MemoryError::TooMany)));
    }
}
