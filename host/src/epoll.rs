//! The epoll set of the event loop.
//!
//! Waits with microsecond precision where the kernel can (epoll_pwait2, Linux 5.11); otherwise in milliseconds, rounded
//! up so that a timer is never met early and the loop never spins towards it.

use crate::sys;
use crate::token::Token;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Events taken from the kernel in one round.
const BATCH: usize = 128;

/// An epoll set whose members carry a [`Token`].
#[derive(Debug)]
pub struct EventSet {
    epoll: Epoll,
    fine: bool,
}

/// Room for the events of one round.
#[derive(Debug)]
pub struct Events {
    events: Box<[EpollEvent]>,
    len: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { events: vec![EpollEvent::empty(); BATCH].into_boxed_slice(), len: 0 }
    }
}

impl Events {
    /// What the last wait found at place `at`: whose, and what. `None` behind the last one.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<(Option<Token>, EpollFlags)> {
        let event = self.events.get(..self.len)?.get(at)?;
        Some((Token::from_bits(event.data()), event.events()))
    }
}

impl EventSet {
    /// An empty set.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut probe = [EpollEvent::empty()];
        // ENOSYS: an old kernel. EPERM or anything else: an old container runtime's seccomp list.
        let fine = sys::epoll::wait(&epoll, &mut probe, Some(Duration::ZERO)).is_ok();
        Ok(Self { epoll, fine })
    }

    /// Adds `fd`.
    ///
    /// # Errors
    /// The kernel's: already there, of a kind that cannot be waited for, out of watches or memory.
    pub fn add(&self, fd: BorrowedFd<'_>, token: Token, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token.to_bits()))?)
    }

    /// Changes what is waited for on `fd`.
    ///
    /// # Errors
    /// The kernel's: not there.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: Token, flags: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags, token.to_bits()))?)
    }

    /// Takes `fd` out; nothing happens if it was not in.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // The only ways to fail are "not in the set" and "closed already": both are what is wanted.
        let _ = self.epoll.delete(fd);
    }

    /// Waits until something happens, at most `timeout` (`None`: for ever). A signal ends the wait with no events.
    ///
    /// # Errors
    /// The kernel's; none is expected of a valid set.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let outcome = if self.fine {
            sys::epoll::wait(&self.epoll, &mut events.events, timeout)
        } else {
            self.epoll.wait(&mut events.events, millis(timeout))
        };
        events.len = match outcome {
            Ok(len) => len,
            Err(Errno::EINTR) => 0,
            Err(errno) => {
                events.len = 0;
                return Err(errno.into());
            }
        };
        Ok(())
    }
}

/// `timeout` for epoll_wait, rounded up.
fn millis(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let whole = timeout.as_micros().div_ceil(1000);
    // A wait cut short at 24 days is one more round of the loop.
    i32::try_from(whole).ok().and_then(|ms| EpollTimeout::try_from(ms).ok()).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn both() -> [EventSet; 2] {
        let coarse = EventSet { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap(), fine: false };
        [EventSet::new().unwrap(), coarse]
    }

    #[test]
    fn an_event_carries_its_token() {
        for set in both() {
            let (here, there) = UnixStream::pair().unwrap();
            set.add(here.as_fd(), Token::Foreign(7), EpollFlags::EPOLLIN).unwrap();
            let mut events = Events::default();
            set.wait(&mut events, Some(Duration::ZERO)).unwrap();
            assert_eq!(events.get(0), None);
            drop(there);
            set.wait(&mut events, None).unwrap();
            let (token, flags) = events.get(0).unwrap();
            assert_eq!(token, Some(Token::Foreign(7)));
            assert!(flags.contains(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP));
            assert_eq!(events.get(1), None);
            set.remove(here.as_fd());
            set.remove(here.as_fd());
            set.wait(&mut events, Some(Duration::ZERO)).unwrap();
            assert_eq!(events.get(0), None);
        }
    }

    #[test]
    fn a_wait_is_never_shorter_than_asked() {
        for set in both() {
            let (before, asked) = (clock::now(), Duration::from_micros(1500));
            set.wait(&mut Events::default(), Some(asked)).unwrap();
            assert!(clock::now() - before >= asked);
        }
    }

    #[test]
    fn coarse_timeouts_round_up() {
        assert_eq!(millis(None), EpollTimeout::NONE);
        assert_eq!(millis(Some(Duration::ZERO)), EpollTimeout::ZERO);
        assert_eq!(millis(Some(Duration::from_micros(1))), EpollTimeout::from(1u8));
        assert_eq!(millis(Some(Duration::from_micros(2001))), EpollTimeout::from(3u8));
        assert_eq!(millis(Some(Duration::MAX)), EpollTimeout::MAX);
    }
}
