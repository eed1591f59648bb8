//! `setup`: connects a container to its networks, all of them or none.
//!
//! Every network is validated before anything is touched. When one fails, it undoes itself, and those before it are
//! undone in reverse order; when the names cannot be handed over, all are.

use super::join::{Call, alone, compat};
use super::{config_dir, dns_port};
use crate::cli::Global;
use crate::driver::Driver;
use crate::error::{Context, Result};
use crate::firewall::Firewall;
use crate::input;
use crate::namespaces::{self, Place, Places};
use crate::output::print;
use crate::spec::{NetworkOptions, Status};
use std::path::Path;

pub(super) fn run(global: &Global, netns_path: &Path) -> Result<()> {
    // Looked at first: callers expect complaints in that order.
    namespaces::open(netns_path).context("invalid namespace path")?;
    let options: NetworkOptions = input::load(global.file.as_deref(), "network options")?;
    let _alone = alone(global);
    let status = connect_all(global, netns_path, &options)?;
    print(&serde_json::to_string(&status)?);
    Ok(())
}

/// Connects the namespace to its networks. After an error nothing of it remains.
pub(crate) fn connect_all(global: &Global, netns_path: &Path, options: &NetworkOptions) -> Result<Status> {
    prepared(global, netns_path, options, |call, drivers, places, firewall| {
        places.bring_loopback_up()?;
        connect(call, drivers, places, firewall)
    })
}

/// The steps that [`connect_all`] would take, one line each. Nothing is touched.
pub(crate) fn describe(global: &Global, netns_path: &Path, options: &NetworkOptions) -> Result<Vec<String>> {
    prepared(global, netns_path, options, |call, drivers, places, firewall| {
        let mut lines = vec!["container  ip link set lo up".to_owned()];
        let mut names = Vec::new();
        for (_, driver) in drivers {
            lines.extend(driver.describe_setup(places, firewall)?);
            names.extend(driver.describe_names(places)?);
        }
        lines.extend(call.handover().describe_commit(&names)?);
        Ok(lines)
    })
}

/// Validates everything, then does `work`.
fn prepared<T>(
    global: &Global,
    netns_path: &Path,
    options: &NetworkOptions,
    work: impl FnOnce(&Call<'_>, &mut [(&str, Driver<'_>)], &mut Places, &Firewall) -> Result<T>,
) -> Result<T> {
    let namespace = namespaces::open(netns_path).context("invalid namespace path")?;
    let (compat, rules) = compat(options)?;
    let config_dir = &config_dir(global, "setup")?;
    let firewall = Firewall::select(global.firewall_driver.as_deref(), config_dir, global.rootless)?;
    let dns_port = dns_port()?;
    let mut places = Places { host: Place::here()?, container: Some(Place::at(namespace)?) };
    let call = Call { global, config_dir, netns_path, options, compat, rules, dns_port };

    let mut drivers = Vec::with_capacity(options.networks.list.len());
    for (name, options) in &options.networks.list {
        let mut driver = call.driver(name, options)?;
        driver.validate()?;
        drivers.push((name.as_str(), driver));
    }
    work(&call, &mut drivers, &mut places, &firewall)
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
    drivers.iter().for_each(|(_, driver)| driver.announce(places));
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
