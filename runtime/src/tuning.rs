//! Settings that are about the machine and not about the network, and so have no place on a drop-in command line: the
//! environment says them, to every personality alike.

use log::warn;
use slipway_host::busy_poll::LONGEST;
use slipway_host::driver::Driver;
use slipway_host::environment;
use std::ffi::OsStr;
use std::time::Duration;

/// Microseconds that the event loop may look for news before it sleeps; 0: none. See [`slipway_host::busy_poll`].
pub const BUSY_POLL: &str = "SLIPWAY_BUSY_POLL";

/// Does what the environment asks. What it cannot read it tells and leaves alone: no container goes without a network
/// for the sake of tuning.
pub(crate) fn apply(driver: &mut Driver) {
    let Some(text) = environment::variable(BUSY_POLL) else { return };
    match microseconds(&text) {
        Some(window) => driver.set_busy_poll(window),
        None => warn!(
            "{BUSY_POLL}={}: not a number of microseconds from 0 to {}; ignored",
            text.display(),
            LONGEST.as_micros()
        ),
    }
}

fn microseconds(text: &OsStr) -> Option<Duration> {
    let window = Duration::from_micros(text.to_str()?.parse().ok()?);
    (window <= LONGEST).then_some(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_and_nothing_else() {
        let read = |text: &str| microseconds(OsStr::new(text));
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read("50"), Some(Duration::from_micros(50)));
        assert_eq!(read("1000"), Some(LONGEST));
        for bad in ["", "1001", "-1", "5us", "50 ", "99999999999999999999999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
