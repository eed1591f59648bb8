//! Pipes through which bytes go from socket to socket without being copied (splice(2)).
//!
//! A pipe is needed only while bytes lie in it: it is taken for one transfer, and put back when it is empty. So there
//! are as many as receivers that are slow just now, however many connections there are.
//!
//! **Limits.** An unprivileged pipe holds `fs.pipe-max-size` at most, and a user whose pipes hold more than
//! `fs.pipe-user-pages-soft` gets small ones and may not enlarge them (EPERM): so the size that is asked for falls. A
//! pipe smaller than a copy's buffer is worth nothing, and so are descriptors that are short: then there is no pipe,
//! the caller copies, and nobody asks again for a while. Source: pipe(7), fcntl(2) F_SETPIPE_SZ.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use slipway_netstack::surely::Surely;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Bytes of a pipe, if it may have as much: the default of `fs.pipe-max-size`.
const LARGEST: usize = 1 << 20;
/// What makes a pipe worth it.
const SMALLEST: usize = 64 << 10;
/// Empty pipes that are kept for the next ones.
const KEPT: usize = 4;
/// So often one is asked for in vain before one is tried to be made again.
const REST: u32 = 256;

/// A pipe, empty when it is handed out.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    size: usize,
}

impl Pipe {
    fn open(size: usize) -> Result<Self, Errno> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let mut wish = size;
        let size = loop {
            match fcntl(&into, FcntlArg::F_SETPIPE_SZ(i32::try_from(wish).surely_or(i32::MAX))) {
                Ok(size) => break size,
                Err(Errno::EPERM | Errno::EBUSY) if wish > SMALLEST => wish /= 2,
                Err(_) => break fcntl(&into, FcntlArg::F_GETPIPE_SZ)?,
            }
        };
        Ok(Self { out, into, size: usize::try_from(size).unwrap_or(0) })
    }

    /// Takes bytes out of `socket`, which must not block, as many as there are and have room. 0: it is at its end.
    ///
    /// # Errors
    /// EAGAIN when there are none; EINVAL for a kind of socket that cannot; the connection's error.
    pub(super) fn fill(&self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        splice(socket, None, &self.into, None, self.size, FLAGS)
    }

    /// Offers the socket `len` bytes that lie in the pipe; returns how many it took.
    ///
    /// # Errors
    /// EAGAIN when it has no room; the connection's error.
    pub(super) fn empty(&self, socket: BorrowedFd<'_>, len: usize) -> Result<usize, Errno> {
        splice(&self.out, None, socket, None, len, FLAGS)
    }
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE.union(SpliceFFlags::SPLICE_F_NONBLOCK);

/// Empty pipes, and how new ones are made.
#[derive(Debug)]
pub(super) struct Pipes {
    idle: Vec<Pipe>,
    /// The size to ask for: it falls to what was granted last.
    size: usize,
    /// How often to say no before trying again.
    rest: u32,
}

impl Default for Pipes {
    fn default() -> Self {
        Self { idle: Vec::new(), size: LARGEST, rest: 0 }
    }
}

impl Pipes {
    /// An empty pipe; `None`: there is none to be had now.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if let Some(left) = self.rest.checked_sub(1) {
            self.rest = left;
            return None;
        }
        let opened = Pipe::open(self.size).ok().filter(|pipe| pipe.size >= SMALLEST);
        match &opened {
            Some(pipe) => self.size = pipe.size.min(LARGEST),
            None => (self.size, self.rest) = (LARGEST, REST),
        }
        opened
    }

    /// A pipe is empty again.
    pub(super) fn put_back(&mut self, pipe: Pipe) {
        if self.idle.len() < KEPT {
            self.idle.push(pipe);
        }
    }
}

#[cfg(test)]
impl Pipes {
    pub(super) fn has_some(&self) -> bool {
        !self.idle.is_empty()
    }

    pub(super) fn forbid(&mut self) {
        self.rest = u32::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::wait::WaitStatus;

    #[test]
    fn empty_pipes_are_used_again_and_not_hoarded() {
        let mut pipes = Pipes::default();
        let taken: Vec<Pipe> = (0..KEPT + 3).map_while(|_| pipes.take()).collect();
        assert_eq!(taken.len(), KEPT + 3, "there are pipes here");
        taken.into_iter().for_each(|pipe| pipes.put_back(pipe));
        assert_eq!(pipes.idle.len(), KEPT);
        assert!(pipes.take().is_some());
        assert_eq!(pipes.idle.len(), KEPT - 1);
    }

    #[test]
    fn whoever_has_many_pages_in_pipes_gets_smaller_ones_and_then_none() {
        let name = "whoever_has_many_pages_in_pipes_gets_smaller_ones_and_then_none";
        let most = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let pipes = most * 4096 / LARGEST + 2;
        if most == 0 || pipes > 400 || !nix::unistd::geteuid().is_root() {
            println!("SKIP {name}: no limit to be met here, or nobody to meet it");
            return;
        }
        let child = fork_child(|| {
            // A user of whom there is no other process.
            nix::unistd::setuid(nix::unistd::Uid::from_raw(64_321)).unwrap();
            // After it, the last one cannot be whole.
            let _half = Pipe::open(LARGEST / 2).unwrap();
            let mut all = Pipes::default();
            let taken: Vec<Pipe> = std::iter::from_fn(|| all.take()).take(pipes + 100).collect();
            let (first, last) = (taken.first().unwrap().size, taken.last().unwrap().size);
            assert!(first == LARGEST && last < LARGEST, "{first} {last}");
            assert!(taken.iter().all(|pipe| pipe.size >= SMALLEST));
            assert_eq!(all.size, LARGEST, "it asks for large ones again, later");
            0
        });
        assert!(matches!(wait_for(child.unwrap()).unwrap(), WaitStatus::Exited(_, 0)));
    }

    #[test]
    fn without_descriptors_there_is_no_pipe_until_there_are_some_again() {
        let child = fork_child(|| {
            let mut pipes = Pipes::default();
            setrlimit(Resource::RLIMIT_NOFILE, 3, 4096).unwrap();
            assert!(pipes.take().is_none());
            setrlimit(Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
            let vain = (0..=REST).take_while(|_| pipes.take().is_none()).count();
            u8::from(u32::try_from(vain) != Ok(REST))
        });
        assert!(matches!(wait_for(child.unwrap()).unwrap(), WaitStatus::Exited(_, 0)));
    }
}
