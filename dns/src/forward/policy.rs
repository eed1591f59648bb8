//! What a forwarder is told to be like.

use crate::cache;
use core::time::Duration;

/// How long a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// All servers of a question share this time equally.
    Shared(Duration),
    /// Each server has the first time before the next is asked as well; the last one has what is left of the second.
    Each(Duration, Duration),
}

/// What becomes of a question that no server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFail {
    /// Nothing: the client waits until it gives up.
    Silence,
    /// The client is told.
    ServFail,
}

/// How questions are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a server has.
    pub patience: Patience,
    /// How often a datagram is sent once more while its server has time left.
    pub repeats: u8,
    /// How long after the last one.
    pub repeat_after: Duration,
    /// What becomes of a question that no server answered.
    pub on_fail: OnFail,
    /// For how long a server that did not answer is asked last; zero: it is asked as if nothing had been.
    pub dead_for: Duration,
    /// Whether an answer counts that comes after the next server was asked.
    pub late_answers: bool,
    /// Whether the next server is asked when one says SERVFAIL, REFUSED or NOTIMP.
    pub next_on_error: bool,
    /// Whether a truncated answer is fetched again over TCP for a client that asked over UDP and has room for it.
    pub retry_truncated: bool,
    /// Whether answers say that recursion is available when it was desired, whatever the server says.
    pub claim_recursion: bool,
    /// How much is kept of answers; `None`: nothing.
    pub cache: Option<cache::Limits>,
    /// Questions under way.
    pub max_pending: usize,
    /// Questions under way from one source address.
    pub max_per_source: usize,
}

/// A datagram that is lost costs a third of a second, not the whole of what its server has.
const REPEATS: u8 = 2;
const REPEAT_AFTER: Duration = Duration::from_millis(333);

impl Policy {
    /// As aardvark-dns does it.
    #[must_use]
    pub const fn aardvark() -> Self {
        Self {
            patience: Patience::Shared(Duration::from_secs(5)),
            repeats: REPEATS,
            repeat_after: REPEAT_AFTER,
            on_fail: OnFail::Silence,
            dead_for: Duration::ZERO,
            late_answers: false,
            next_on_error: false,
            retry_truncated: false,
            claim_recursion: true,
            cache: None,
            max_pending: 4096,
            max_per_source: 1024,
        }
    }

    /// As one would like it.
    #[must_use]
    pub const fn trusted() -> Self {
        Self {
            patience: Patience::Each(Duration::from_millis(1500), Duration::from_secs(5)),
            repeats: REPEATS,
            repeat_after: REPEAT_AFTER,
            on_fail: OnFail::ServFail,
            dead_for: Duration::from_secs(30),
            late_answers: true,
            next_on_error: true,
            retry_truncated: true,
            claim_recursion: false,
            cache: Some(cache::Limits::DEFAULT),
            max_pending: 1024,
            max_per_source: 512,
        }
    }
}
