//! `setup`: connects a container to its networks, all of them or none.
//!
//! Every network is validated before anything is touched. When one fails, it undoes itself, and those before it are
//! undone in reverse order; when the names cannot be handed over, all are.

use super::join::{Call, compat};
use super::{config_dir, dns_port, print};
use crate::cli::Global;
use crate::driver::Driver;
use crate::error::{Context, Result};
use crate::firewall::Firewall;
use crate::input;
use crate::namespaces::{self, Place, Places};
use crate::spec::{NetworkOptions, Status};
use std::path::Path;

pub(super) fn run(global: &Global, netns_path: &Path) -> Result<()> {
    let namespace = namespaces::open(netns_path).context("invalid namespace path")?;
    let options: NetworkOptions = input::load(global.file.as_deref(), "network options")?;
    let (compat, rules) = compat(&options)?;
    let config_dir = &config_dir(global, "setup")?;
    let firewall = Firewall::select(global.firewall_driver.as_deref(), config_dir, global.rootless)?;
    let dns_port = dns_port()?;
    let mut places = Places { host: Place::here()?, container: Some(Place::at(namespace)?) };
    let call = Call { global, config_dir, netns_path, options: &options, compat, rules, dns_port };

    let mut drivers = Vec::with_capacity(options.networks.list.len());
    for (name, options) in &options.networks.list {
        let mut driver = call.driver(name, options)?;
        driver.validate()?;
        drivers.push((name.as_str(), driver));
    }
    places.bring_loopback_up()?;
    let status = connect(&call, &mut drivers, &mut places, &firewall)?;
    print(&serde_json::to_string(&status)?);
    Ok(())
}

fn connect(
    call: &Call<'_>,
    drivers: &mut [(&str, Driver<'_>)],
    places: &mut Places,
    firewall: &Firewall,
) -> Result<Status> {
    let mut status = Status::new();
    let mut names = Vec::new();
    for done in 0..drivers.len() {
        let Some((name, driver)) = drivers.get_mut(done) else { break };
        match driver.setup(places, firewall) {
            Ok(outcome) => {
                status.insert((*name).to_owned(), outcome.status);
                names.extend(outcome.dns);
            }
            Err(error) => {
                roll_back(drivers.get_mut(..done).unwrap_or_default(), places, firewall);
                return Err(error);
            }
        }
    }
    if let Err(error) = call.handover().commit(&names).context("error while applying dns entries") {
        roll_back(drivers, places, firewall);
        return Err(error);
    }
    Ok(status)
}

/// Undoes networks, the last one first. What cannot be undone is told in the log: the caller wants the reason.
fn roll_back(drivers: &mut [(&str, Driver<'_>)], places: &mut Places, firewall: &Firewall) {
    for (name, driver) in drivers.iter_mut().rev() {
        if let Err(error) = driver.rollback(places, firewall) {
            log::error!("failed to cleanup network {name} after setup failed: {error}");
        }
    }
}
