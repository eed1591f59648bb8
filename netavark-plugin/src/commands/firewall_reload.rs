//! `firewall-reload`: puts the rules back after somebody has flushed the rule set. Run once, by a unit of
//! nftables.service.

use crate::cli::Global;
use crate::error::Result;
use crate::firewall;
use std::path::{Path, PathBuf};

/// The run directory of rootful containers, which are the only ones with state files.
const DEFAULT_DIR: &str = "/run/containers/networks";

/// The run directory, without which the default is meant.
pub(super) fn dir(global: &Global) -> PathBuf {
    global.config.as_ref().map_or_else(|| Path::new(DEFAULT_DIR).to_owned(), PathBuf::from)
}

pub(super) fn run(global: &Global) -> Result<()> {
    if firewall::reload(&dir(global))? {
        log::info!("Successfully reloaded firewall rules");
    }
    Ok(())
}
