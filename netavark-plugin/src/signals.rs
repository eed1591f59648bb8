//! Signals that must not end a call half-way.

use nix::sys::signal::Signal;
use slipway_host::signals::Signals;
use std::mem::ManuallyDrop;

/// Blocks SIGTERM and SIGINT for the rest of the run; what is started gets its own mask.
pub(crate) fn uninterrupted() -> Option<ManuallyDrop<Signals>> {
    // Never unblocked again: a signal that came meanwhile would end a run that has succeeded.
    Signals::catch(&[Signal::SIGTERM, Signal::SIGINT])
        .inspect_err(|error| log::debug!("cannot block signals: {error}"))
        .ok()
        .map(ManuallyDrop::new)
}
