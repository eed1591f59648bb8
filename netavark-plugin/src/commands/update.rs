//! `update`: changes the DNS servers of a network while containers are on it.
//!
//! It may run outside the rootless network namespace that the DNS server is in: it edits a file and sends a signal.

use super::{config_dir, dns_port};
use crate::cli::{Global, Update};
use crate::dns_handover::Handover;
use crate::error::{Context, Result};

pub(super) fn run(global: &Global, update: &Update) -> Result<()> {
    let port = dns_port()?;
    let config_dir = config_dir(global, "update")?;
    Handover::new(&config_dir, &global.aardvark_binary, global.rootless, port)
        .update(&update.network_name, &update.network_dns_servers)
        .context("unable to modify network dns servers")
}
