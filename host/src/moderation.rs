//! Whether the event loop, before it looks for datagrams of the host again, lets some gather.
//!
//! A fast stream of datagrams from the host wakes us for each one or two, and each time we then make three or four
//! system calls and wake the guest's reader. The stream and its reader need the cores themselves, so what is spent on
//! wakes is lost as datagrams. Network cards have the same trouble and moderate their interrupts (`ethtool --coalesce`,
//! `rx-usecs`); so do we: while a stream is that dense, sockets are not looked at for a [`PAUSE`], and whatever came
//! meanwhile is received by one call and crosses to the guest as one train.
//!
//! What bounds the harm:
//! - It begins after [`STREAK`] wakes in a row that each brought datagrams within [`GAP`] of falling asleep, none of
//!   them by the guest: some 40 000 datagrams a second that nobody answers. An exchange of questions and answers never
//!   is that.
//! - It ends with the first pause that brought fewer than [`FEWEST`], or that a frame of the guest's cut short: the
//!   link is watched while sockets are not.
//! - A datagram is late by a pause at the most, and timers are met.

use crate::busy_poll::Woken;
use std::time::Duration;

/// How long datagrams may gather. The kernel's timers add up to 50 µs (`PR_SET_TIMERSLACK`). At 200 000 datagrams a
/// second some 30 come in this time; the smallest receive buffer that Linux comes with holds 90 of 1400 bytes.
const PAUSE: Duration = Duration::from_micros(100);
/// A wake that follows so closely belongs to a stream.
const GAP: Duration = Duration::from_micros(25);
/// Such wakes, from which on pausing pays.
const STREAK: u8 = 32;
/// Datagrams that make a pause worth its while.
const FEWEST: usize = 4;

/// The history that decides.
#[derive(Debug, Default)]
pub(crate) struct Moderation {
    streak: u8,
    paused: bool,
}

impl Moderation {
    /// How long the wait that begins now leaves the host's sockets alone, if it does.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        self.paused = self.streak >= STREAK;
        self.paused.then_some(PAUSE)
    }

    /// The wait has ended after `took`, because of `woken`, and `datagrams` came from the host.
    pub(crate) fn waited(&mut self, took: Duration, woken: Woken, datagrams: usize) {
        let worth = if self.paused { datagrams >= FEWEST } else { datagrams > 0 && took <= GAP };
        let goes_on = worth && !woken.by_guest;
        self.streak = if goes_on { (self.streak + 1).min(STREAK) } else { 0 };
        self.paused = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(8);
    const GUEST: Woken = Woken { by_guest: true, by_host: false };
    const HOST: Woken = Woken { by_guest: false, by_host: true };
    const BOTH: Woken = Woken { by_guest: true, by_host: true };

    fn pausing() -> Moderation {
        let mut moderation = Moderation::default();
        for _ in 0..STREAK {
            assert_eq!(moderation.pause(), None);
            moderation.waited(SHORT, HOST, 1);
        }
        assert_eq!(moderation.pause(), Some(PAUSE));
        moderation
    }

    #[test]
    fn a_dense_stream_is_moderated_as_long_as_it_is_dense() {
        let mut moderation = pausing();
        for _ in 0..100 {
            moderation.waited(PAUSE, HOST, FEWEST);
            assert_eq!(moderation.pause(), Some(PAUSE));
        }
        // The engine had more to send, so there was no pause before this wait.
        moderation.waited(PAUSE, HOST, FEWEST);
        moderation.waited(SHORT, HOST, 1);
        assert_eq!(moderation.pause(), Some(PAUSE));
        moderation.waited(PAUSE, HOST, FEWEST - 1);
        assert_eq!(moderation.pause(), None);
    }

    #[test]
    fn the_guest_ends_it() {
        for woken in [GUEST, BOTH] {
            let mut moderation = pausing();
            moderation.waited(SHORT, woken, 30);
            assert_eq!(moderation.pause(), None);
        }
    }

    #[test]
    fn questions_and_answers_pauses_between_and_other_events_never_begin_it() {
        let lives: [&[(Duration, Woken, usize)]; 4] = [
            &[(SHORT, GUEST, 0), (SHORT, HOST, 1)],
            &[(SHORT, HOST, 1), (SHORT, BOTH, 1)],
            &[(SHORT, HOST, 2), (Duration::from_micros(60), HOST, 2)],
            &[(SHORT, HOST, 0)],
        ];
        for life in lives {
            let mut moderation = Moderation::default();
            for &(took, woken, datagrams) in life.iter().cycle().take(500) {
                assert_eq!(moderation.pause(), None);
                moderation.waited(took, woken, datagrams);
            }
        }
    }
}
