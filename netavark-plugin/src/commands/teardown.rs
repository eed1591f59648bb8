//! `teardown`: disconnects a container from its networks, as far as they are still there.
//!
//! It works from the request alone, goes on after an error, and reports all of them at the end. SIGTERM and SIGINT must
//! not stop it half-way: they are blocked for its whole run, and what it starts gets its own mask. Names go first, so
//! that nobody is told an address that is about to vanish.

use super::join::{Call, alone, compat};
use super::{config_dir, dns_port};
use crate::cli::Global;
use crate::error::{Context, Errors, Result};
use crate::firewall::Firewall;
use crate::input;
use crate::namespaces::{Place, Places, unless_gone};
use crate::signals::uninterrupted;
use crate::spec::NetworkOptions;
use std::path::Path;

pub(super) fn run(global: &Global, netns_path: &Path) -> Result<()> {
    // Already while the request comes in: whoever sends it may be told to end meanwhile.
    let _blocked = uninterrupted();
    let options: NetworkOptions = input::load(global.file.as_deref(), "network options")?;
    let _alone = alone(global);
    disconnect_all(global, netns_path, &options)
}

/// Disconnects the namespace from its networks, as far as they are still there.
pub(crate) fn disconnect_all(global: &Global, netns_path: &Path, options: &NetworkOptions) -> Result<()> {
    let _blocked = uninterrupted();
    let (compat, rules) = compat(options)?;
    let dns_port = dns_port()?;
    let config_dir = &config_dir(global, "teardown")?;
    let call = Call { global, config_dir, netns_path, options, compat, rules, dns_port };

    let mut errors = Errors::new();
    let forgotten = call.handover().remove(&options.container_id, named(options));
    errors.note(forgotten.context("remove aardvark entries"));

    let firewall = match Firewall::select(global.firewall_driver.as_deref(), config_dir, global.rootless) {
        Ok(firewall) => firewall,
        Err(error) => {
            // Rules that cannot be reached must not keep the interfaces alive.
            errors.push(error);
            Firewall::select(Some("none"), config_dir, global.rootless)?
        }
    };
    let mut places = Places { host: Place::here()?, container: unless_gone(netns_path, &mut errors) };
    for (name, options) in &options.networks.list {
        let result =
            call.driver(name, options).and_then(|mut driver| driver.teardown(&mut places, &firewall));
        errors.note(result);
    }
    errors.note(places.delete_leaving());
    errors.finish()
}

/// The networks whose DNS server knows the container.
fn named(options: &NetworkOptions) -> impl Iterator<Item = &str> {
    let networks = options.network_info.iter();
    let named = networks.filter(|(_, network)| network.dns_enabled && network.driver == "bridge");
    named.map(|(name, _)| name.as_str())
}

/// The steps that [`disconnect_all`] would take for one after the other of these, one line each. Nothing is touched.
pub(crate) fn describe(global: &Global, leaving: &[(&Path, NetworkOptions)]) -> Result<Vec<String>> {
    let config_dir = &config_dir(global, "teardown")?;
    let firewall = Firewall::select(global.firewall_driver.as_deref(), config_dir, global.rootless)?;
    let mut errors = Errors::new();
    let mut places = Places { host: Place::here()?, container: None };
    let mut lines = Vec::new();
    let mut gone = Vec::new();
    for (netns_path, options) in leaving {
        let (compat, rules) = compat(options)?;
        let call = Call { global, config_dir, netns_path, options, compat, rules, dns_port: dns_port()? };
        gone.push(options.container_id.as_str());
        lines.extend(call.handover().describe_remove(&gone, named(options))?);
        places.container = unless_gone(netns_path, &mut errors);
        for (name, options) in &options.networks.list {
            for line in call.driver(name, options)?.describe_teardown(&mut places, &firewall)? {
                // The rules are still there to be seen; one by its handle goes only once.
                if !(line.contains(" handle ") && lines.contains(&line)) {
                    lines.push(line);
                }
            }
        }
    }
    errors.finish()?;
    Ok(lines)
}
