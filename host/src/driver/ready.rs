//! Descriptors of the caller's in the event loop: what they are waited for, and what was found.

use nix::sys::epoll::EpollFlags;

/// What a watched descriptor is waited for. With neither, only errors and hang-ups are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Something to read, or a connection to accept.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

impl Interest {
    /// Neither.
    pub const NONE: Self = Self { readable: false, writable: false };
    /// Reading only.
    pub const READ: Self = Self { readable: true, writable: false };
    /// Writing only.
    pub const WRITE: Self = Self { readable: false, writable: true };
    /// Both.
    pub const BOTH: Self = Self { readable: true, writable: true };

    pub(super) fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.readable);
        flags.set(EpollFlags::EPOLLOUT, self.writable);
        flags
    }
}

/// A watched descriptor that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The number given to [`Driver::watch`](super::Driver::watch).
    pub token: u32,
    /// Reading will not block.
    pub readable: bool,
    /// Writing will not block.
    pub writable: bool,
    /// The other end is gone.
    pub hangup: bool,
    /// The descriptor is in an error state.
    pub error: bool,
}

impl Ready {
    pub(super) fn new(token: u32, flags: EpollFlags) -> Self {
        Self {
            token,
            readable: flags.contains(EpollFlags::EPOLLIN),
            writable: flags.contains(EpollFlags::EPOLLOUT),
            hangup: flags.contains(EpollFlags::EPOLLHUP),
            error: flags.contains(EpollFlags::EPOLLERR),
        }
    }
}
