//! What setup and teardown have in common: a request, made into one driver per network.

use crate::cli::Global;
use crate::dns_handover::Handover;
use crate::driver::{Driver, Request};
use crate::error::{Error, Result};
use crate::spec::options::COMPAT_VARIABLE;
use crate::spec::{Compat, NetworkOptions, PerNetworkOptions};
use slipway_host::environment;
use slipway_host::files::Lock;
use std::fs::File;
use std::path::Path;

/// The surroundings of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) global: &'a Global,
    pub(super) config_dir: &'a Path,
    pub(super) netns_path: &'a Path,
    pub(super) options: &'a NetworkOptions,
    pub(super) compat: Compat,
    pub(super) rules: Compat,
    pub(super) dns_port: u16,
}

impl<'a> Call<'a> {
    /// The driver for the network called `name`.
    pub(super) fn driver(&self, name: &str, options: &'a PerNetworkOptions) -> Result<Driver<'a>> {
        let network = self.options.network(name)?;
        file_name("container ID", &self.options.container_id)?;
        file_name("network ID", &network.id)?;
        let request = Request {
            container_id: &self.options.container_id,
            container_name: &self.options.container_name,
            container_hostname: self.options.container_hostname.as_deref(),
            container_dns_servers: self.options.dns_servers.as_deref(),
            netns_path: self.netns_path,
            network,
            options,
            port_mappings: self.options.port_mappings.as_deref(),
            compat: self.compat,
            rules: self.rules,
            config_dir: self.config_dir,
            rootless: self.global.rootless,
            dns_port: self.dns_port,
        };
        Driver::find(request, &self.global.plugin_directories)
    }

    pub(super) fn handover(&self) -> Handover {
        Handover::new(self.config_dir, &self.global.aardvark_binary, self.global.rootless, self.dns_port)
    }
}

/// Waits for other calls with the same run directory, until the result is dropped. Teardown looks whether a container
/// is the last of its network: of two that leave at once, each would find the other still there. Container engines hold
/// a lock of their own meanwhile, so nobody waits for long. Without a directory there is nothing to share.
pub(super) fn alone(global: &Global) -> Option<Lock> {
    let directory = File::open(global.config.as_ref()?).ok()?;
    Lock::of(directory).inspect_err(|error| log::debug!("cannot lock the run directory: {error}")).ok()
}

/// IDs become names of state files, and must not lead elsewhere.
fn file_name(what: &str, id: &str) -> Result<()> {
    if id.is_empty() || id.contains(['/', '\0']) || [".", ".."].contains(&id) {
        return Err(Error::msg(format!("{id:?} cannot be a {what}")));
    }
    Ok(())
}

/// Whose defaults are meant: what the environment says, or else the shape of the request. And whose firewall rules:
/// what the environment says, or else the newer ones.
pub(super) fn compat(options: &NetworkOptions) -> Result<(Compat, Compat)> {
    let forced = Compat::from_override(environment::variable(COMPAT_VARIABLE).as_deref())?;
    Ok((forced.unwrap_or(options.networks.shape), forced.unwrap_or(Compat::Two)))
}
