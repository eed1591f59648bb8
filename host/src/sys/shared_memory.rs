//! Memory that another process shares by a file, and writes to whenever it likes: a virtual machine's.
//!
//! Rust knows no such memory: a reference to it would be a promise that nobody keeps. So there is none. What is here is
//! copied in and out by address, each byte once; whoever looks at a value twice has to have copied it before.
//! Whatever is not within the mapping is refused by `None`.
//!
//! What the other side may do, and what comes of it: writing while we copy, a mixture of old and new bytes; cutting the
//! file, zeroes ([`super::bus_error`]), and [`SharedMemory::is_lost`] says so.

use super::bus_error::Range;
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering, fence};

/// What mappings of all files begin and end at, at the least.
const PAGE: u64 = 4096;
/// No kernel has larger pages.
const LARGEST_PAGE: u64 = 16 << 30;

/// A part of a file, mapped shared.
#[derive(Debug)]
pub struct SharedMemory {
    /// What was asked for, from its first byte.
    base: NonNull<u8>,
    len: usize,
    /// Goes before the mapping does.
    range: Range,
    /// The whole of it, which begins and ends at pages.
    _mapping: Mapping,
}

/// Pages of ours, given back when it is dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(file: BorrowedFd<'_>, offset: libc::off_t, len: usize) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: a new mapping, wherever the kernel likes; nothing that is there is touched.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, file.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(at.cast::<u8>()).ok_or(Errno::EFAULT)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new`, whole; whoever has an address in it has `self` as well.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl SharedMemory {
    /// Maps `len` bytes of `file` from `offset` on.
    ///
    /// # Errors
    /// EINVAL for what is no ordinary file (a memfd is), and for a length of zero or a part that is not wholly in the
    /// file; otherwise those of mmap(2).
    pub fn map(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Self> {
        let status = fstat(file)?;
        if status.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Err(Errno::EINVAL.into());
        }
        let end = offset.checked_add(len).filter(|end| len > 0 && i64::try_from(*end).is_ok());
        let end = end.filter(|end| u64::try_from(status.st_size).is_ok_and(|size| *end <= size));
        let end = end.ok_or(Errno::EINVAL)?;
        // Files of huge pages are mapped by those, and say how large they are.
        let block = u64::try_from(status.st_blksize).unwrap_or(PAGE);
        let block = if block.is_power_of_two() && block <= LARGEST_PAGE { block.max(PAGE) } else { PAGE };
        let first = offset - offset % block;
        let whole = (end - first).checked_next_multiple_of(block).ok_or(Errno::EINVAL)?;
        let fits = |number: u64| usize::try_from(number).map_err(|_| Errno::EINVAL);
        let (len, before, mapped) = (fits(len)?, fits(offset - first)?, fits(whole)?);
        let first = libc::off_t::try_from(first).map_err(|_| Errno::EINVAL)?;
        let mapping = Mapping::new(file, first, mapped)?;
        // SAFETY: the mapping is whole pages, and goes after the note (the order of the fields).
        let range = unsafe { Range::note(mapping.start.as_ptr().expose_provenance(), mapped) }?;
        // SAFETY: `before` bytes into the mapping, of which `len` more are within it.
        let base = unsafe { mapping.start.add(before) };
        Ok(Self { base, len, range, _mapping: mapping })
    }

    /// How many bytes there are. Never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is not")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the file was cut, and zeroes stand in the place of all that was there.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.range.is_lost()
    }

    /// Copies what is at `at` into `into`.
    #[must_use]
    pub fn read(&self, at: usize, into: &mut [u8]) -> Option<()> {
        let from = self.address(at, into.len())?;
        // SAFETY: `from` is the beginning of so many mapped bytes; `into` is ours, so that they do not overlap. Others
        // may write meanwhile: then bytes are old or new, and every byte is a valid one.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Some(())
    }

    /// Copies `from` to `at`.
    #[must_use]
    pub fn write(&self, at: usize, from: &[u8]) -> Option<()> {
        let into = self.address(at, from.len())?;
        // SAFETY: as in `read`, the other way round; there is no reference to these bytes anywhere.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) };
        Some(())
    }

    /// Reads a little-endian number at once. What the other side wrote before it, is there afterwards. `None` also for
    /// an odd address.
    #[must_use]
    pub fn load(&self, at: usize) -> Option<u16> {
        Some(u16::from_le(self.number(at)?.load(Ordering::Acquire)))
    }

    /// Writes a little-endian number at once, behind all that was written before. `None` also for an odd address.
    #[must_use]
    pub fn store(&self, at: usize, value: u16) -> Option<()> {
        self.number(at)?.store(value.to_le(), Ordering::Release);
        Some(())
    }

    fn number(&self, at: usize) -> Option<&AtomicU16> {
        let number = self.address(at, size_of::<u16>())?.cast::<u16>();
        // SAFETY: mapped as long as `self` lives, aligned, and looked at by atomic accesses only as long as this
        // reference lives, for it does not leave the two functions above.
        number.is_aligned().then(|| unsafe { AtomicU16::from_ptr(number) })
    }

    fn address(&self, at: usize, len: usize) -> Option<*mut u8> {
        let end = at.checked_add(len)?;
        // SAFETY: at most the end of the mapping.
        (end <= self.len).then(|| unsafe { self.base.as_ptr().add(at) })
    }
}

/// What was stored before is seen by the other side before what is loaded afterwards is read.
pub fn settle() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::signal::Signal;
    use nix::sys::wait::WaitStatus;
    use nix::unistd::ftruncate;
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;

    fn file(len: u64) -> File {
        let file = File::from(memfd_create(c"shared", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn both_sides_see_what_is_written() {
        let file = file(3 * 4096);
        let memory = SharedMemory::map(file.as_fd(), 4096, 5000).unwrap();
        assert_eq!(memory.len(), 5000);
        memory.write(0, b"ours").unwrap();
        let mut seen = [0; 4];
        file.read_exact_at(&mut seen, 4096).unwrap();
        assert_eq!(&seen, b"ours");
        file.write_all_at(b"theirs", 4096 + 4990).unwrap();
        let mut seen = [0; 6];
        memory.read(4990, &mut seen).unwrap();
        assert_eq!(&seen, b"theirs");
        memory.store(10, 0x1234).unwrap();
        settle();
        assert_eq!(memory.load(10), Some(0x1234));
        file.read_exact_at(&mut seen[..2], 4096 + 10).unwrap();
        assert_eq!(seen[..2], [0x34, 0x12]);
        // In the middle of a page.
        let inner = SharedMemory::map(file.as_fd(), 4099, 10).unwrap();
        let mut seen = [0; 3];
        inner.read(0, &mut seen).unwrap();
        assert_eq!(&seen, b"s\0\0");
        assert_eq!(inner.load(0), None, "an odd address");
    }

    #[test]
    fn nothing_is_outside() {
        let file = file(8192);
        let memory = SharedMemory::map(file.as_fd(), 0, 100).unwrap();
        for (at, len) in
            [(0, 101), (100, 1), (99, 2), (usize::MAX, 1), (usize::MAX, 0), (1, usize::MAX >> 40)]
        {
            assert_eq!(memory.read(at, &mut vec![0; len]), None, "{at} {len}");
            assert_eq!(memory.write(at, &vec![0; len]), None, "{at} {len}");
        }
        assert_eq!((memory.load(99), memory.store(99, 1), memory.load(usize::MAX)), (None, None, None));
        assert_eq!(memory.write(100, &[]), Some(()), "nothing at the very end");
    }

    #[test]
    fn only_what_a_file_has_can_be_mapped() {
        let file = file(8192);
        let errno = |offset, len| {
            SharedMemory::map(file.as_fd(), offset, len).unwrap_err().raw_os_error().map(Errno::from_raw)
        };
        for (offset, len) in [(0, 0), (0, 8193), (8192, 1), (u64::MAX, 1), (1, u64::MAX), (1 << 63, 1)] {
            assert_eq!(errno(offset, len), Some(Errno::EINVAL), "{offset} {len}");
        }
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(SharedMemory::map(socket.as_fd(), 0, 1).is_err());
        let device = File::open("/dev/zero").unwrap();
        assert!(SharedMemory::map(device.as_fd(), 0, 1).is_err());
    }

    #[test]
    fn a_file_that_is_cut_is_zeroes_and_told() {
        let file = file(1 << 20);
        let (memory, other) = (
            SharedMemory::map(file.as_fd(), 0, 1 << 20).unwrap(),
            SharedMemory::map(file.as_fd(), 0, 4096).unwrap(),
        );
        memory.write((1 << 20) - 5, b"there").unwrap();
        ftruncate(&file, 8192).unwrap();
        let mut seen = [1; 5];
        memory.read((1 << 20) - 5, &mut seen).unwrap();
        assert_eq!(seen, [0; 5]);
        assert!(memory.is_lost() && !other.is_lost());
        memory.write((1 << 20) - 5, b"again").unwrap();
        assert_eq!(memory.store(1 << 19, 7).and_then(|()| memory.load(1 << 19)), Some(7));
        drop(memory);
        other.write(0, b"goes on").unwrap();
    }

    #[test]
    fn any_other_bus_error_is_the_end_as_ever() {
        let file = file(4096);
        let ended = |work: fn(&File)| {
            let child = fork_child(|| {
                work(&file);
                0
            });
            wait_for(child.unwrap()).unwrap()
        };
        let by_signal = ended(|file| {
            let _caught = SharedMemory::map(file.as_fd(), 0, 1).unwrap();
            nix::sys::signal::raise(Signal::SIGBUS).unwrap();
        });
        assert!(matches!(by_signal, WaitStatus::Signaled(_, Signal::SIGBUS, _)), "{by_signal:?}");
    }

    #[test]
    fn places_are_given_back() {
        let file = file(4096);
        for _ in 0..1000 {
            drop(SharedMemory::map(file.as_fd(), 0, 1).unwrap());
        }
    }
}
