//! The keeper: a small process between `slipway run` and its command, which leaves nothing behind.
//!
//! ```text
//!   this process ──life (pipe)──▶ keeper ──fork──▶ command ──▶ whatever it starts
//!        ▲ exit status ────────────┘  ▲ orphans ──────────────────┘
//! ```
//! * The keeper is a child subreaper (prctl(2)): a daemon that the command leaves behind becomes the keeper's child,
//!   whatever it does to its session. When the command has ended, all of them get SIGKILL, as at the end of a
//!   container: their network is gone, and a survivor would pin the namespace.
//! * Each byte on the life line is the number of a signal for the command, real-time ones included; with [`TERMINAL`],
//!   of one that a terminal has sent to our process group, which is passed on to a command that has left that. The
//!   line's end means that we are gone or have no more use for the command: all is ended at once. So it does not matter
//!   how we die.
//! * The command gets SIGKILL when the keeper dies. The keeper blocks every other signal: those of the terminal
//!   (Ctrl-C, Ctrl-Z) reach the command without it, for all are in one process group.
//! * It keeps the command's own `/etc/resolv.conf` in its place (`cover`).
//! * The keeper ends as the command did, by the same status or signal, so whoever waits for it learns the truth.
//!
//! Why no process namespace: it would end all just as well, but the command would find another `/proc`, other process
//! numbers, and no way to debug what runs outside.
//!
//! Limits: a kernel without CONFIG_PROC_CHILDREN does not tell who the orphans are; they live on there, without
//! network. A process that sleeps in the kernel beyond [`PATIENCE`] is left to its SIGKILL. Where the keeper itself is
//! killed, its command dies with it; what that had started lives on, without network.

use super::cover::Cover;
use crate::clock;
use crate::sandbox::tracers;
use crate::sys::disposition;
use crate::sys::signal::{self, Ended, reap};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid, getpgrp};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long the end of what was killed is awaited.
const PATIENCE: Duration = Duration::from_secs(5);

/// The bit of an order that says where the signal came from. Signals have numbers from 1 to 64.
pub(super) const TERMINAL: u8 = 0x80;

/// The status when the command's own cannot be told.
const UNKNOWN: u8 = u8::MAX;

/// A keeper before it has a command.
#[derive(Debug)]
pub(super) struct Keeper {
    life: OwnedFd,
    children_ended: SignalFd,
    /// Opened early: the command may mount something else over /proc.
    children: Option<File>,
    /// What the command sees in the place of the host's file, kept up.
    cover: Option<Cover>,
}

impl Keeper {
    /// Makes this process the keeper. From now on it is deaf to signals.
    pub(super) fn new(life: OwnedFd, cover: Option<Cover>) -> io::Result<Self> {
        SigSet::all().thread_set_mask()?;
        // Ignored, as it may have been inherited, it would take the command's status away.
        disposition::set_default(Signal::SIGCHLD)?;
        set_child_subreaper(true)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        // It is in the command's user namespace, where the command may be root. What it starts is not concerned.
        if let Err(error) = tracers::keep_out() {
            log::debug!("{error}");
        }
        let children_ended = SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), flags)?;
        let children = File::open("/proc/thread-self/children")
            .inspect_err(|error| log::debug!("cannot tell who will be left behind: {error}"))
            .ok();
        Ok(Self { life, children_ended, children, cover })
    }

    /// Stays with `command` to its end, and ends what it leaves behind. Returns the status to exit with; does
    /// not return when the command was killed by a signal.
    pub(super) fn stay(mut self, command: Pid) -> u8 {
        let end = self.until_it_ends(command);
        self.end_all();
        match end {
            Some(Ended::Exited(status)) => status,
            Some(Ended::Signaled(number)) => die_of(number),
            None => UNKNOWN,
        }
    }

    /// How the command ended; `None` when it has not, but should.
    fn until_it_ends(&mut self, command: Pid) -> Option<Ended> {
        loop {
            let Woken { told, ended, uncovered } = self.wait();
            if uncovered && let Some(cover) = &mut self.cover {
                cover.renew();
            }
            if ended {
                match self.reap_until(command) {
                    Reaped::Command(status) => return status,
                    Reaped::Others => {}
                }
            }
            if told && !self.obey(command) {
                return None;
            }
        }
    }

    /// Sleeps until there is something on the life line, a child has ended, or the cover may have come off.
    fn wait(&self) -> Woken {
        let mut fds = vec![
            PollFd::new(self.life.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children_ended.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.cover.iter().flat_map(Cover::wakers));
        // It cannot be interrupted; should it fail for lack of memory, all are looked at.
        let failed = poll(&mut fds, PollTimeout::NONE).is_err();
        let mut woken = fds.into_iter().map(|fd| failed || fd.any().unwrap_or(true));
        let mut next = || woken.next().unwrap_or(false);
        Woken { told: next(), ended: next(), uncovered: woken.any(|woken| woken) }
    }

    /// Passes on the signals that were ordered. `false`: there will be no more.
    fn obey(&self, command: Pid) -> bool {
        let mut numbers = [0; 16];
        let count = match nix::unistd::read(&self.life, &mut numbers) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(_) => 0,
        };
        // Whoever made a group of his own, and did not give it the terminal, would never hear of the key.
        let apart = || getpgid(Some(command)).is_ok_and(|group| group != getpgrp());
        let numbers = numbers.into_iter().take(count).filter(|order| order & TERMINAL == 0 || apart());
        for number in numbers.map(|order| i32::from(order & !TERMINAL)) {
            // Not reaped yet, so the process number is still the command's.
            if let Err(error) = signal::send(command, number) {
                log::debug!("cannot pass on {}: {error}", signal::name(number));
            }
        }
        true
    }

    /// Reaps everybody that has ended, and tells whether the command was among them.
    fn reap_until(&self, command: Pid) -> Reaped {
        self.quieten();
        loop {
            match reap() {
                Ok(Some((pid, ended))) if pid == command => return Reaped::Command(Some(ended)),
                Ok(Some(_)) => {}
                Ok(None) => return Reaped::Others,
                Err(_) => return Reaped::Command(None),
            }
        }
    }

    /// Kills all children until there is none. Theirs become ours meanwhile.
    fn end_all(&mut self) {
        let deadline = clock::now() + PATIENCE;
        while clock::now() < deadline {
            self.quieten();
            loop {
                match reap() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) if is(&error, Errno::ECHILD) => return,
                    Err(_) => {}
                }
                if clock::now() >= deadline {
                    return;
                }
            }
            let children = self.children();
            if children.is_empty() {
                log::debug!("somebody is left behind, and cannot be named");
                return;
            }
            for child in children {
                // Not reaped yet, so the number is still that child's.
                let _ = kill(child, Signal::SIGKILL);
            }
            let mut fds = [PollFd::new(self.children_ended.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(50_u8));
        }
    }

    fn children(&mut self) -> Vec<Pid> {
        let mut list = String::new();
        if let Some(file) = &mut self.children
            && let Err(error) = file.rewind().and_then(|()| file.read_to_string(&mut list))
        {
            log::debug!("cannot tell who is left behind: {error}");
        }
        parse(&list)
    }

    /// Forgets the SIGCHLDs that have come: whoever sent them is about to be looked for.
    fn quieten(&self) {
        while matches!(self.children_ended.read_signal(), Ok(Some(_))) {}
    }
}

/// What a sleep was ended by.
struct Woken {
    told: bool,
    ended: bool,
    uncovered: bool,
}

/// What was found among the dead.
enum Reaped {
    /// The command, and how it ended, if that can be told.
    Command(Option<Ended>),
    /// Nobody, or orphans.
    Others,
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// The process numbers in `/proc/PID/task/TID/children`.
fn parse(list: &str) -> Vec<Pid> {
    let numbers = list.split_ascii_whitespace().filter_map(|word| word.parse().ok());
    numbers.filter(|number| *number > 1).map(Pid::from_raw).collect()
}

/// Ends this process by the signal `number`, without a memory image: that would be ours, not the command's.
fn die_of(number: i32) -> u8 {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    signal::die_of(number);
    // Not reached, for whatever killed the command kills us.
    u8::try_from(number).map_or(UNKNOWN, |number| number.saturating_add(128))
}

#[cfg(test)]
mod tests {
    use super::super::testing::ended;
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::fcntl::OFlag;
    use nix::sys::signal::raise;
    use nix::sys::wait::WaitStatus;
    use nix::unistd::{pipe2, write};

    /// A keeper whose command is `work`; the parent's end of its life line, and its number.
    fn keep(work: impl FnOnce() -> u8) -> (OwnedFd, Pid) {
        let (life, ours) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut ours = Some(ours);
        let keeper = fork_child(|| {
            ours = None;
            let keeper = Keeper::new(life, None).unwrap();
            let command = fork_child(|| {
                SigSet::empty().thread_set_mask().unwrap();
                work()
            });
            keeper.stay(command.unwrap())
        })
        .unwrap();
        (ours.unwrap(), keeper)
    }

    fn doze() -> u8 {
        std::thread::sleep(Duration::from_secs(30));
        0
    }

    #[test]
    fn the_status_is_the_commands() {
        let (_life, keeper) = keep(|| 42);
        assert_eq!(wait_for(keeper).unwrap(), WaitStatus::Exited(keeper, 42));
    }

    #[test]
    fn so_is_the_signal() {
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGPIPE] {
            let (_life, keeper) = keep(|| {
                disposition::set_default(signal).ok();
                setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
                raise(signal).unwrap();
                0
            });
            assert_eq!(wait_for(keeper).unwrap(), WaitStatus::Signaled(keeper, signal, false));
        }
    }

    #[test]
    fn signals_travel_along_the_life_line() {
        let (life, keeper) = keep(doze);
        // What is no signal is passed over.
        write(&life, &[0, 255, 10]).unwrap();
        assert_eq!(wait_for(keeper).unwrap(), WaitStatus::Signaled(keeper, Signal::SIGUSR1, false));
    }

    #[test]
    fn real_time_signals_travel_too() {
        let (life, keeper) = keep(doze);
        let number = *signal::real_time().start() + 3;
        write(&life, &[u8::try_from(number).unwrap()]).unwrap();
        assert_eq!(signal::wait_end(keeper).unwrap(), Ended::Signaled(number));
    }

    #[test]
    fn the_keeper_itself_is_deaf() {
        let (begun, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (life, keeper) = keep(|| {
            write(&writer, b"1").unwrap();
            doze()
        });
        assert!(ended(begun.as_fd()), "it has a command, so it is a keeper by now");
        kill(keeper, Signal::SIGINT).unwrap();
        write(&life, &[15]).unwrap();
        assert_eq!(wait_for(keeper).unwrap(), WaitStatus::Signaled(keeper, Signal::SIGTERM, false));
    }

    #[test]
    fn a_daemon_does_not_outlive_the_command() {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (_life, keeper) = keep(|| {
            // Twice forked, in a session of its own, deaf to what can be ignored; and a child of its own.
            fork_child(|| {
                nix::unistd::setsid().unwrap();
                SigSet::all().thread_set_mask().unwrap();
                fork_child(|| {
                    fork_child(doze).unwrap();
                    doze()
                })
                .unwrap();
                0
            })
            .unwrap();
            std::thread::sleep(Duration::from_millis(100));
            3
        });
        drop(writer);
        assert_eq!(wait_for(keeper).unwrap(), WaitStatus::Exited(keeper, 3));
        assert!(ended(reader.as_fd()));
    }

    #[test]
    fn all_is_ended_with_the_life_line() {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (life, keeper) = keep(|| {
            SigSet::all().thread_set_mask().unwrap();
            for _ in 0..20 {
                fork_child(doze).unwrap();
            }
            doze()
        });
        drop(writer);
        std::thread::sleep(Duration::from_millis(100));
        drop(life);
        assert_eq!(wait_for(keeper).unwrap(), WaitStatus::Exited(keeper, i32::from(UNKNOWN)));
        assert!(ended(reader.as_fd()));
    }

    #[test]
    fn only_process_numbers_are_taken_from_the_list() {
        assert_eq!(parse("12 345 \n"), [Pid::from_raw(12), Pid::from_raw(345)]);
        assert_eq!(parse(" -1 0 1 x 99999999999 7"), [Pid::from_raw(7)]);
        assert_eq!(parse(""), []);
    }
}
