//! `firewalld-reload`: puts the rules back whenever firewalld has thrown them away. A daemon, by a unit that firewalld
//! wants.

use super::firewall_reload::dir;
use crate::cli::Global;
use crate::error::Result;
use crate::firewall;

pub(super) fn run(global: &Global) -> Result<()> {
    let dir = dir(global);
    // A failure is told and the next reload may go better.
    firewall::follow_firewalld(|| match firewall::reload(&dir) {
        Ok(true) => log::info!("Successfully reloaded firewall rules"),
        Ok(false) => log::debug!("no rules to put back in {}", dir.display()),
        Err(error) => log::error!("failed to reload firewall rules: {error}"),
    })
}
