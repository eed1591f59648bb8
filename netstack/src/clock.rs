//! Time as the engine sees it: microseconds since an origin that the caller chose. Never asks the system.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A moment, in microseconds since the caller's origin. Only ever grows from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The moment `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Milliseconds since the origin, wrapped to 32 bits: the clock of TCP timestamps (RFC 7323 §5.4).
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a timestamp clock wraps by definition")]
    pub const fn as_millis_wrapping(self) -> u32 {
        (self.0 / 1000) as u32
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}
