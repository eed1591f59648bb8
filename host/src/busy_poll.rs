//! Whether the event loop, before it sleeps, looks for a while whether something comes at once.
//!
//! Waking a sleeping process costs the waker an interrupt to another core, and the sleeper the way out of the idle
//! state: 15 to 25 µs where a virtual machine has to be left for it. A guest and a server that ask and answer in turn
//! wake us twice for each question, and that was most of what a question cost. So while wakes follow each other
//! closely, the loop keeps asking epoll for at most a window before it sleeps.
//!
//! What bounds the cost:
//! - Looking begins only after waits that were each shorter than the window, while guest and host took turns: a wake
//!   that answers the other side's counts for it, a second one from the same side against it, and one longer wait ends
//!   it. A stream of datagrams, which gains from being let gather, never sees it. A guest that does something now and
//!   then never sees it; an idle one sleeps, with no wake-up at all.
//! - A look that took longer than [`STOLEN`] means that somebody else wants this core: then not again for [`REST`].
//! - With one core to run on there is nobody to wait for: never.
//!
//! Model: KVM's halt polling (Linux `Documentation/virt/kvm/halt-polling.rst`) and the socket layer's busy polling
//! (`Documentation/admin-guide/sysctl/net.rst`, `busy_poll`), which recommends 50 µs for hardware. Between two wakes of
//! ours lies the way of another program out of its idle core, in virtual machines 35 to 45 µs, and its work: 50 were
//! too few for some machines, on which an exchange never got there.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use slipway_netstack::Instant;
use std::time::Duration;

/// How long to look before sleeping, unless told otherwise.
pub const WINDOW: Duration = Duration::from_micros(100);
/// The longest window that may be asked for.
pub const LONGEST: Duration = Duration::from_millis(1);
/// Answers after short waits, less the wakes that were none, from which on looking pays. An exchange that comes alone
/// has two or three.
const STREAK: u8 = 4;
/// No more are remembered: an exchange that turns into a stream is to be noticed soon.
const MOST: u8 = 2 * STREAK;
/// One look takes a microsecond or two, or some 50 if packets arrive in it: the kernel delivers them, and wakes who
/// waits for them, in whatever runs on the core. Somebody else who runs there does so for a scheduler's slice, most of
/// a millisecond at the least.
const STOLEN: Duration = Duration::from_micros(100);
/// How long the core is left to whoever else wants it.
const REST: Duration = Duration::from_millis(10);

/// Who woke us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Woken {
    pub(crate) by_guest: bool,
    pub(crate) by_host: bool,
}

impl Woken {
    /// Whether this wake can be the answer to one by `last`.
    fn answers(self, last: Self) -> bool {
        (self.by_guest && last.by_host) || (self.by_host && last.by_guest)
    }
}

/// The history that decides.
#[derive(Debug)]
pub(crate) struct BusyPoll {
    window: Duration,
    streak: u8,
    last: Woken,
    rest_until: Instant,
}

impl BusyPoll {
    /// With a window; zero switches it off.
    pub(crate) fn new(window: Duration) -> Self {
        Self { window: window.min(LONGEST), streak: 0, last: Woken::default(), rest_until: Instant::ZERO }
    }

    /// With the usual window where there is more than one core to run on.
    pub(crate) fn for_this_machine() -> Self {
        Self::new(if cores() > 1 { WINDOW } else { Duration::ZERO })
    }

    /// How long the wait that begins now may look before it sleeps.
    pub(crate) fn budget(&self, now: Instant) -> Duration {
        if self.streak >= STREAK && now >= self.rest_until { self.window } else { Duration::ZERO }
    }

    /// One look took `took`; whether to go on looking.
    pub(crate) fn looked(&mut self, now: Instant, took: Duration) -> bool {
        if took >= STOLEN {
            self.rest_until = now + REST;
        }
        took < STOLEN
    }

    /// After `took`, whether we slept or not, something came from `woken`.
    pub(crate) fn waited(&mut self, took: Duration, woken: Woken) {
        self.streak = match (took <= self.window, woken.answers(self.last)) {
            (true, true) => (self.streak + 1).min(MOST),
            (true, false) => self.streak.saturating_sub(1),
            (false, _) => 0,
        };
        self.last = woken;
    }
}

/// The cores that we may run on; two if the kernel does not say.
fn cores() -> usize {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return 2 };
    (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    const GUEST: Woken = Woken { by_guest: true, by_host: false };
    const HOST: Woken = Woken { by_guest: false, by_host: true };
    const BOTH: Woken = Woken { by_guest: true, by_host: true };

    fn excited() -> BusyPoll {
        let mut poll = BusyPoll::new(WINDOW);
        poll.waited(LONG, HOST);
        for turn in 0..STREAK {
            assert_eq!(poll.budget(at(1)), Duration::ZERO);
            poll.waited(SHORT, if turn % 2 == 0 { GUEST } else { HOST });
        }
        poll
    }

    #[test]
    fn it_takes_a_streak_to_begin_and_one_long_wait_to_end() {
        let mut poll = excited();
        assert_eq!(poll.budget(at(1)), WINDOW);
        poll.waited(LONG, GUEST);
        assert_eq!(poll.budget(at(1)), Duration::ZERO);
    }

    #[test]
    fn a_stream_from_one_side_never_begins_it_and_ends_it() {
        for side in [GUEST, HOST] {
            let mut poll = BusyPoll::new(WINDOW);
            for _ in 0..100 {
                poll.waited(SHORT, side);
                assert_eq!(poll.budget(at(1)), Duration::ZERO);
            }
        }
        let mut poll = excited();
        for _ in 0..MOST {
            poll.waited(SHORT, HOST);
        }
        assert_eq!(poll.budget(at(1)), Duration::ZERO);
    }

    #[test]
    fn connections_that_come_and_go_keep_it_going() {
        // SYN, connected, ACK, request, answer with the end, ACK, end.
        let mut poll = excited();
        poll.waited(SHORT, HOST);
        for _ in 0..20 {
            for woken in [GUEST, HOST, GUEST, GUEST, HOST, GUEST, GUEST] {
                poll.waited(SHORT, woken);
            }
        }
        assert_eq!(poll.budget(at(1)), WINDOW);
    }

    #[test]
    fn many_exchanges_at_once_keep_it_going() {
        let mut poll = excited();
        for woken in [BOTH, GUEST, BOTH, BOTH, HOST] {
            poll.waited(SHORT, woken);
            assert_eq!(poll.budget(at(1)), WINDOW);
        }
    }

    #[test]
    fn a_lone_exchange_never_begins_it() {
        let mut poll = BusyPoll::new(WINDOW);
        for _ in 0..100 {
            for woken in [HOST, GUEST, HOST] {
                poll.waited(SHORT, woken);
                assert_eq!(poll.budget(at(1)), Duration::ZERO);
            }
            poll.waited(LONG, GUEST);
        }
    }

    #[test]
    fn a_stolen_core_is_left_alone_for_a_while() {
        let mut poll = excited();
        assert!(poll.looked(at(5), Duration::from_micros(2)));
        assert!(poll.looked(at(5), Duration::from_micros(60)), "packets arrived");
        assert!(!poll.looked(at(5), Duration::from_micros(700)));
        assert_eq!(poll.budget(at(6)), Duration::ZERO);
        assert_eq!(poll.budget(at(5) + REST), WINDOW);
    }

    #[test]
    fn off_is_off_and_no_window_is_longer_than_the_longest() {
        let mut poll = BusyPoll::new(Duration::ZERO);
        for turn in 0..20 {
            poll.waited(Duration::ZERO, if turn % 2 == 0 { GUEST } else { HOST });
        }
        assert_eq!(poll.budget(at(1)), Duration::ZERO);
        assert_eq!(BusyPoll::new(Duration::MAX).window, LONGEST);
        assert!(cores() >= 1);
    }
}
