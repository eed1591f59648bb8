//! `netavark dhcp-proxy` seen from outside: a machine with a bridge, dnsmasq as the network's DHCP server, a container
//! on the bridge or on a macvlan, and the test client that speaks the proxy's protocol.
//!
//! The proxy is told by its socket alone, as a container engine's set-up does it; what it did is looked up in the
//! container, in the lease file, and in what the server noted. The last file has the set-up ask.

mod place;
mod server6;
mod t01_leases;
mod t02_renewal;
mod t03_errors;
mod t04_process;
mod t05_ipv6;
mod t06_networks;
mod t07_systemd;
mod t08_turns;
mod t09_sandbox;

use std::time::Duration;

/// Long enough for a loaded two-core machine, short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(30);

/// Gets a machine with a server and a container, or leaves the test as skipped.
macro_rules! fixture {
    ($name:literal) => {
        match $crate::place::Place::fixture($name) {
            Some(place) => place,
            None => return,
        }
    };
}
pub(crate) use fixture;
