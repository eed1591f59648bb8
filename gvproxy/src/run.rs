//! From a configuration to the end: everything that makes the network, in the order that launchers rely on, and the
//! loop around it.
//!
//! ```text
//! PID file ─▶ engine ─▶ forwarded ports ─▶ -listen ─▶ guests' sockets ─▶ sandbox ─▶ loop
//! ```
//! A launcher waits for the hypervisor's socket and for nothing else, so that comes when everything else is there. What
//! fails on the way ends the process with a line, and takes along what was made before.

use crate::config::Config;
use crate::listen::{BadUrl, Endpoint, words};
use crate::logrus;
use crate::own::Own;
use std::os::fd::OwnedFd;

/// Makes the network and serves it to its end.
///
/// # Errors
/// Why it has ended, in a line: it always has.
pub fn serve(config: &Config) -> Result<(), String> {
    let mut own = Own::default();
    if let Some(path) = &config.pid_file {
        own.write_pid(path).map_err(|error| words(&format!("open {}", path.display()), &error))?;
    }
    let exiting = |why: String| format!("gvproxy exiting: {why}");
    log::info!("waiting for clients...");
    for address in &config.listen {
        log::info!("listening {address}");
        let listener = listen(address, &mut own).map_err(|why| exiting(format!("cannot listen: {why}")))?;
        drop(listener);
    }
    logrus::settle();
    Err(exiting("guests are not served yet".to_owned()))
}

/// A socket that waits at this address, whose file is ours.
fn listen(address: &str, own: &mut Own) -> Result<OwnedFd, String> {
    let endpoint = Endpoint::parse(address).map_err(|(BadUrl::Syntax(why) | BadUrl::Scheme(why))| why)?;
    let socket = endpoint.listen()?;
    if let Some(path) = endpoint.path() {
        own.take(path);
    }
    Ok(socket)
}
