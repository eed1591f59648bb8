//! SIGBUS: memory that is a file's, and the file has become shorter.
//!
//! Whoever shares a file with us may cut it (ftruncate(2)) whatever its size was when it was mapped, and the next look
//! behind its new end is a signal that ends the process (mmap(2)). Seals that forbid it (memfd_create(2)) cannot be
//! demanded: memory that lies in an ordinary file or in huge pages has none. So ranges that are shared are written down
//! here, and a fault in one puts zeroes in the place of the whole range and remembers that it did: whoever was reading
//! goes on, reads zeroes, and is asked afterwards ([`Range::is_lost`]). A fault anywhere else ends the process, as if
//! nobody had caught it.
//!
//! The handler makes one system call (mmap, which signal-safety(7) does not name but which takes no lock of the C
//! library's), touches nothing but the table, and runs in the thread that faulted.

use nix::libc::{self, c_int, c_void};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Ranges at once in this process.
const MOST: usize = 128;

static RANGES: [Entry; MOST] = [const { Entry::free() }; MOST];

#[derive(Debug)]
struct Entry {
    taken: AtomicBool,
    /// First byte; as long as it is 0 the entry covers nothing.
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

impl Entry {
    const fn free() -> Self {
        Self {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }
}

/// A range of addresses in which a fault is survived, until it is dropped.
#[derive(Debug)]
pub(super) struct Range(&'static Entry);

impl Range {
    /// Writes down that `len` bytes from `start` on are a mapping of the caller's own.
    ///
    /// # Safety
    /// The pages of the range belong to one mapping that the caller made and alone uses, and it outlives this value:
    /// after a fault they are replaced.
    ///
    /// # Errors
    /// ENOSPC when there are too many; otherwise those of sigaction(2).
    pub(super) unsafe fn note(start: usize, len: usize) -> io::Result<Self> {
        catch()?;
        let free = |entry: &&Entry| !entry.taken.swap(true, Ordering::AcqRel);
        let entry = RANGES.iter().find(free).ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        entry.lost.store(false, Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        Ok(Self(entry))
    }

    /// Whether there was a fault, and zeroes stand in the place of what was shared.
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

/// Installs the handler, once.
fn catch() -> io::Result<()> {
    static DONE: OnceLock<Result<(), nix::errno::Errno>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let action = SigAction::new(
            SigHandler::SigAction(on_fault),
            SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing that a handler must not do (see there), whatever it interrupts.
        unsafe { sigaction(Signal::SIGBUS, &action) }.map(drop)
    });
    (*done).map_err(io::Error::from)
}

extern "C" fn on_fault(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel hands over a valid structure; what is read of it is plain data, and an address
    // only when the kernel itself has sent the signal (sigaction(2): si_code above 0).
    let at = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr() as usize) };
    if at.is_some_and(replace) {
        return;
    }
    // SAFETY: both are safe in a handler (signal-safety(7)). The signal is blocked until this returns, and then ends
    // the process.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        libc::raise(libc::SIGBUS);
    }
}

/// Puts zeroes in the place of the range that has `at`. `false`: there is none, or no memory for it.
fn replace(at: usize) -> bool {
    let covers = |entry: &&Entry| {
        let start = entry.start.load(Ordering::Acquire);
        start != 0 && at.checked_sub(start).is_some_and(|offset| offset < entry.len.load(Ordering::Relaxed))
    };
    let Some(entry) = RANGES.iter().find(covers) else { return false };
    let (start, len) = (entry.start.load(Ordering::Relaxed), entry.len.load(Ordering::Relaxed));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the pages are those of one mapping, made for this (`Range::note`); whoever uses it does so by volatile or
    // atomic accesses and copies that mind no other contents.
    let mapped = unsafe { libc::mmap(start, len, access, flags, -1, 0) };
    entry.lost.store(true, Ordering::Relaxed);
    mapped == start
}
