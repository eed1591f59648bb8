//! Signals as something to read: a signalfd in the event loop instead of handlers.
//!
//! [`Signals::catch`] blocks the wanted signals and opens a descriptor that becomes readable when one arrives.
//! Nothing of ours runs in signal context.
//!
//! Two rules of the kernel shape this file:
//!
//! * A blocked signal is queued even if it is ignored, so a program started by `nohup` would be ended by the SIGHUP it
//!   was told to survive. Signals that were ignored at the start are therefore left alone, SIGCHLD excepted: ignored,
//!   it would make the kernel reap our children and take their exit status away, so it gets its default back.
//! * The blocked mask, and ignored dispositions (Rust ignores SIGPIPE), pass through fork(2) and execve(2). **Whoever
//!   starts a program calls [`Inheritance::restore`] in the child**, between fork and exec; otherwise the user's
//!   command cannot be interrupted and does not die of a closed pipe.
//!
//! Who sent a signal is told as far as the kernel does: those of a terminal (Ctrl-C, a new window size) go to its whole
//! foreground process group, our child included, and come from the kernel itself ([`Caught::terminal`]).
//!
//! Signals of the same number merge while they wait (signalfd(2)): after a SIGCHLD, ask for every child.

use crate::sys::{disposition, signal};
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use slipway_netstack::surely::Surely;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Caught signals, to be read when the descriptor is ready.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    caught: SigSet,
    inheritance: Inheritance,
}

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Its number. Real-time signals have no name.
    pub number: i32,
    /// The kernel sent it, and it is one of those that a terminal sends to all its foreground processes.
    pub terminal: bool,
}

impl Caught {
    /// Whether it is `signal`.
    #[must_use]
    pub const fn is(self, signal: Signal) -> bool {
        self.number == signal as i32
    }
}

impl std::fmt::Display for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&signal::name(self.number))
    }
}

/// What a child has to be given back before it runs a program of somebody else.
#[derive(Debug, Clone, Copy)]
pub struct Inheritance {
    mask: SigSet,
    sigpipe_ignored: bool,
}

impl Signals {
    /// The signals that end a program, and the one that reports a child's end.
    pub const USUAL: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];
    /// Those with a name by which somebody may want to tell a program something. Not here: what the program has done
    /// wrong (SIGSEGV, SIGXCPU, ..), and what stops it, which has to stop whoever stands for it, too.
    pub const MESSAGES: [Signal; 14] = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTERM,
        Signal::SIGCONT,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGWINCH,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
    ];

    /// Blocks `wanted` in this thread, except what is ignored, and opens the descriptor.
    ///
    /// Call it before other threads exist: each has a mask of its own, and a signal goes to any that lets it in.
    ///
    /// # Errors
    /// Whatever the system calls report.
    pub fn catch(wanted: &[Signal]) -> io::Result<Self> {
        Self::catch_numbers(wanted.iter().map(|&signal| signal as i32))
    }

    /// The same for [`Signals::MESSAGES`], all real-time signals and SIGCHLD.
    ///
    /// # Errors
    /// Whatever the system calls report.
    pub fn catch_all() -> io::Result<Self> {
        let named = Self::MESSAGES.into_iter().chain([Signal::SIGCHLD]).map(|signal| signal as i32);
        Self::catch_numbers(named.chain(signal::real_time()))
    }

    fn catch_numbers(wanted: impl Iterator<Item = i32>) -> io::Result<Self> {
        let mut numbers = Vec::new();
        for number in wanted {
            let ignored = disposition::is_ignored_number(number)?;
            if ignored && number == Signal::SIGCHLD as i32 {
                disposition::set_default(Signal::SIGCHLD)?;
            } else if ignored {
                continue;
            }
            numbers.push(number);
        }
        let caught = signal::set_of(numbers);
        let mask = caught.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let fd = SignalFd::with_flags(&caught, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let inheritance = Inheritance { mask, sigpipe_ignored: false };
        Ok(Self { fd, caught, inheritance })
    }

    /// The next signal that has arrived; `None` when there is none left. Real-time signals are passed over.
    ///
    /// # Errors
    /// Whatever read(2) reports.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            let Some(caught) = self.next_caught()? else { return Ok(None) };
            if let Ok(signal) = Signal::try_from(caught.number) {
                return Ok(Some(signal));
            }
        }
    }

    /// The next signal of any number, and who sent it.
    ///
    /// # Errors
    /// Whatever read(2) reports.
    pub fn next_caught(&self) -> io::Result<Option<Caught>> {
        // SIGHUP: the terminal is gone, which its session's leader is told alone. SIGALRM: an alarm that was set before
        // we were executed, and is meant for what we do.
        const TERMINAL: [Signal; 4] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGWINCH, Signal::SIGCONT];
        let Some(info) = self.fd.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).surely();
        let of_terminal = TERMINAL.iter().any(|&signal| signal as i32 == number);
        Ok(Some(Caught { number, terminal: of_terminal && info.ssi_code == libc::SI_KERNEL }))
    }

    /// Whether `signal` is read here (and not left ignored as it was found).
    #[must_use]
    pub fn catches(&self, signal: Signal) -> bool {
        self.caught.contains(signal)
    }

    /// What a child has to be given back before execve(2).
    #[must_use]
    pub fn inheritance(&self) -> Inheritance {
        self.inheritance
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the mask of a program that ends is of no interest.
        let _ = self.inheritance.mask.thread_set_mask();
    }
}

impl Inheritance {
    /// What this process would pass on today, for programs that catch no signals but start a child.
    ///
    /// # Errors
    /// Whatever the system calls report.
    pub fn current() -> io::Result<Self> {
        Ok(Self { mask: SigSet::thread_get_mask()?, sigpipe_ignored: false })
    }

    /// Keeps SIGPIPE ignored in the child. Rust ignores it at start without telling how it was found, and a child that
    /// expects the default would write on into a closed pipe; so the default is restored unless this is asked for.
    #[must_use]
    pub const fn with_sigpipe_ignored(mut self) -> Self {
        self.sigpipe_ignored = true;
        self
    }

    /// In the child, between fork(2) and execve(2): the old mask, and SIGPIPE as programs expect it.
    /// Allocates nothing and takes no lock.
    ///
    /// # Errors
    /// Whatever the system calls report.
    pub fn restore(&self) -> io::Result<()> {
        if !self.sigpipe_ignored {
            disposition::set_default(Signal::SIGPIPE)?;
        }
        self.mask.thread_set_mask()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    // Masks belong to threads and each test runs in one of its own, so signals are sent to that thread alone.
    #[test]
    fn caught_signals_are_read_and_the_mask_comes_back() {
        let before = SigSet::thread_get_mask().unwrap();
        let signals = Signals::catch(&[Signal::SIGUSR1, Signal::SIGUSR2]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        raise(Signal::SIGUSR2).unwrap();
        raise(Signal::SIGUSR2).unwrap();
        raise(Signal::SIGUSR1).unwrap();
        let mut seen = vec![signals.next().unwrap().unwrap(), signals.next().unwrap().unwrap()];
        seen.sort();
        assert_eq!(seen, [Signal::SIGUSR1, Signal::SIGUSR2], "equal signals merge");
        assert_eq!(signals.next().unwrap(), None);
        assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1));
        drop(signals);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn real_time_signals_are_read_too_and_senders_told_apart() {
        let signals = Signals::catch_all().unwrap();
        let last = *signal::real_time().end();
        signal::send(nix::unistd::Pid::this(), 0).unwrap();
        for number in [Signal::SIGINT as i32, Signal::SIGWINCH as i32, last] {
            // To this thread alone.
            raise_number(number);
            assert_eq!(signals.next_caught().unwrap(), Some(Caught { number, terminal: false }));
        }
        raise_number(last);
        assert_eq!(signals.next().unwrap(), None, "it has no name");
    }

    fn raise_number(number: i32) {
        let before = SigSet::thread_get_mask().unwrap();
        assert!(before.contains(Signal::SIGINT), "blocked, so that it does not kill");
        signal::raise(number);
    }

    #[test]
    fn ignored_signals_stay_ignored() {
        // SIGPIPE is ignored in every Rust program.
        let signals = Signals::catch(&[Signal::SIGPIPE, Signal::SIGCHLD]).unwrap();
        assert!(!signals.catches(Signal::SIGPIPE));
        assert!(signals.catches(Signal::SIGCHLD));
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGPIPE));
    }

    #[test]
    fn inheritance_gives_the_old_mask_back() {
        let signals = Signals::catch(&[Signal::SIGUSR1]).unwrap();
        signals.inheritance().with_sigpipe_ignored().restore().unwrap();
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1));
    }
}
