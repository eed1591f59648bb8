//! The netavark contract, seen from outside: the binary under its drop-in name on a machine of its own.
//!
//! Numbered by area as in the contract: commands and errors, bridges, macvlan and ipvlan, firewall, DNS hand-over, what
//! a killed process leaves behind, signals, plugins, the program as a plugin itself, addresses that have moved, and
//! what bridges do to others. The kernel's own tools (`ip`, `nft`) say what was done. The same tests run against the
//! original (`SLIPWAY_NETAVARK_BINARY=/usr/lib/podman/netavark`), which proves the tests; what the original does not
//! do, or does wrong, is tested with ours only and says so.

#[path = "../../../netavark-plugin/src/plugin/fake.rs"]
mod fake;
mod place;
mod request;
mod t01_commands;
mod t02_bridge;
mod t03_child_links;
mod t04_firewall;
mod t05_ports;
mod t06_dns;
mod t07_killed;
mod t08_signals;
mod t09_plugins;
mod t10_slipway;
mod t11_at_once;
mod t12_moved;
mod t13_others;
mod t14_own_port;
mod t15_killed_containers;
mod t16_firewalld;
mod t17_changed;
mod t18_beyond;

/// Gets a host or leaves the test as skipped; the second form is for what only ours does.
macro_rules! host {
    ($name:literal) => {
        match $crate::place::Host::fixture($name, &[]) {
            Some(host) => host,
            None => return,
        }
    };
    ($name:literal, [$($program:literal),*]) => {
        match $crate::place::Host::fixture($name, &[$($program),*]) {
            Some(host) => host,
            None => return,
        }
    };
    (ours $name:literal $(, [$($program:literal),*])?) => {{
        let host = $crate::host!($name $(, [$($program),*])?);
        if !host.is_ours() {
            println!("SKIP {}: the original does otherwise", $name);
            return;
        }
        host
    }};
}
pub(crate) use host;
