//! What is given up once the first connection stands: files, privileges, system calls.
//!
//! It is root in the machine, and reads what comes from outside of it. What is kept is what the next connection, the
//! next lease and an interface that somebody deletes may need; nothing is executed any more.

use super::dhcp;
use slipway_host::resolv_conf::PATH;
use slipway_host::sandbox::caps::Capability;
use slipway_host::sandbox::files::{Place, of_resolv_conf};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::{Needs, settle};
use slipway_host::sys::tun;
use std::path::Path;

/// Shuts this process in.
pub(super) fn confine() {
    let mut files = of_resolv_conf(Path::new(PATH));
    files.extend(dhcp::directories().into_iter().map(Place::write));
    files.push(Place::device(tun::DEVICE));
    settle(&Needs {
        files: &files,
        // Addresses, routes and the TAP; the DHCP client's socket.
        capabilities: &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW],
        calls: Profile::Forwarder,
    });
}
