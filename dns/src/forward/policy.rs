//! What a forwarder is told to be like: the table of docs/names.md as one type.
//!
//! | what happened | [`Policy::trusted`] | [`Policy::aardvark`] |
//! |---|---|---|
//! | every server refuses or has no route | SERVFAIL at once | silence |
//! | every server is silent | SERVFAIL after 10 s | silence; 5 s are shared |
//! | an error answer in hand, the others known dead | the error at once | the next server; the last error is relayed |
//! | over the bound | queued by source, then silence | the same |

use crate::cache;
use core::time::Duration;

/// How long a question has, and its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// All servers share this time equally, one after the other. What comes later does not count.
    Shared(Duration),
    /// Each has time of its own, and what comes late still counts while the question lasts.
    Own {
        /// After that the next server is asked as well.
        next: Duration,
        /// After that a server counts as dead, and nobody waits for it who has anything else in hand.
        server: Duration,
        /// After that the question ends.
        question: Duration,
    },
}

/// The same for one question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) next: Duration,
    pub(super) server: Duration,
    pub(super) question: Duration,
    /// Whether what comes after a server's time counts.
    pub(super) late: bool,
}

impl Patience {
    /// For a question that so many servers may be asked.
    pub(super) fn of(self, servers: usize) -> Times {
        let count = u32::try_from(servers.max(1)).unwrap_or(u32::MAX);
        match self {
            Self::Shared(all) => Times { next: all / count, server: all / count, question: all, late: false },
            // However many there are, the last one has a server's time before the question ends.
            Self::Own { next, server, question } => {
                let next = next.min(question.saturating_sub(server) / count);
                Times { next, server, question, late: true }
            }
        }
    }
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
    /// How long a question has, and its servers.
    pub patience: Patience,
    /// How often a datagram is sent once more while its server has time left.
    pub repeats: u8,
    /// How long after the last one.
    pub repeat_after: Duration,
    /// What becomes of a question that no server answered.
    pub on_fail: OnFail,
    /// For how long a dead server is left alone; zero: nothing is remembered of servers.
    pub dead_for: Duration,
    /// Whether a truncated answer is fetched again over TCP for a client that asked over UDP and has room for it.
    pub retry_truncated: bool,
    /// Whether answers say that recursion is available when it was desired, whatever the server says.
    pub claim_recursion: bool,
    /// How much is kept of answers; `None`: nothing.
    pub cache: Option<cache::Limits>,
    /// Questions under way. Each has a socket, and there are at most twice as many.
    pub max_pending: usize,
    /// What questions cost that wait, in bytes.
    pub max_queue: usize,
}

/// Questions under way, if there are descriptors enough, and what share of these is for them.
const MAX_PENDING: usize = 1024;
const SHARE: usize = 8;
const MAX_QUEUE: usize = 256 << 10;

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
            retry_truncated: false,
            claim_recursion: true,
            cache: None,
            max_pending: MAX_PENDING,
            max_queue: MAX_QUEUE,
        }
    }

    /// As one would like it: the C library waits 5 s for a server, and most programs 10 s for a name.
    #[must_use]
    pub const fn trusted() -> Self {
        Self {
            patience: Patience::Own {
                next: Duration::from_millis(1500),
                server: Duration::from_secs(5),
                question: Duration::from_secs(10),
            },
            repeats: REPEATS,
            repeat_after: REPEAT_AFTER,
            on_fail: OnFail::ServFail,
            dead_for: Duration::from_secs(30),
            retry_truncated: true,
            claim_recursion: false,
            cache: Some(cache::Limits::DEFAULT),
            max_pending: MAX_PENDING,
            max_queue: MAX_QUEUE,
        }
    }

    /// The same for a process that may have so many descriptors: an eighth of them is for questions.
    #[must_use]
    pub const fn within(self, descriptors: usize) -> Self {
        let share = descriptors / SHARE;
        let max_pending = if share < 1 {
            1
        } else if share < self.max_pending {
            share
        } else {
            self.max_pending
        };
        Self { max_pending, ..self }
    }

    /// Whether anything is remembered of servers.
    pub(super) const fn remembers(&self) -> bool {
        !self.dead_for.is_zero()
    }
}
