//! What keepers of leases have in common, of either version of IP.

use std::time::Duration;

/// How long an interface that cannot be used is left alone.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// How a keeper is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The address is not needed any more: the server is told.
    Release,
    /// Somebody else keeps it from now on.
    Forget,
}
