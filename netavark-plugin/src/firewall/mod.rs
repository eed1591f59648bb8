//! Firewall rules for bridge networks and published ports.
//!
//! ```text
//!   NetworkRules, PortRules ──▶ Driver ──▶ nft        one transaction over netlink
//!        (rules.rs)                  ├───▶ firewalld  calls over D-Bus
//!              │                     └───▶ none
//!              └──▶ State (state.rs)   files from which everything is restored by `reload`
//! ```
//! A [`Firewall`] is chosen once per call of the program. Its `setup` makes the rules of a network, where they are
//! missing, and those of a container's ports, all or nothing; `teardown` removes the container's, and with the last
//! container the network's. State files are kept only when rootful: a rootless namespace goes away as a whole.

mod firewalld;
mod nft;
mod rules;
mod stale;
mod state;

pub use firewalld::Firewalld;
pub use rules::{DNS_PORT, NetworkRules, PortRules};
pub use state::{Saved, State};

use crate::error::{Context, Error, Errors, Result};
use firewalld::Neighbour;
use slipway_host::netlink::netfilter::Netfilter;
use std::cell::RefCell;
use std::path::Path;

/// The log target that callers look for.
const TARGET: &str = "netavark::firewall";
/// The same for what is said about rules.
const NFT_TARGET: &str = "netavark::firewall::nft";

/// Who keeps the rules.
#[derive(Debug)]
pub enum Driver {
    /// The kernel's nf_tables.
    Nftables,
    /// firewalld, over D-Bus.
    Firewalld(Firewalld),
    /// Nobody.
    None,
}

/// For who asks for the driver of 1.17 that 2.0 dropped. The error itself is the contract's.
const NO_IPTABLES: &str =
    "hosts that have nothing but iptables are out of scope: use nftables (the default), firewalld or none";

impl Driver {
    /// The driver of that name; without one, nftables.
    ///
    /// # Errors
    /// `Must provide a valid firewall backend, got <name>`, or when firewalld is asked for and there is no bus.
    pub fn named(name: Option<&str>) -> Result<Self> {
        match name.map(str::to_lowercase).as_deref() {
            None | Some("nftables") => {
                log::info!(target: TARGET, "Using nftables firewall driver");
                Ok(Self::Nftables)
            }
            Some("firewalld") => {
                let firewalld = Firewalld::connect()?;
                log::info!(target: TARGET, "Using firewalld firewall driver");
                Ok(Self::Firewalld(firewalld))
            }
            Some("none") => {
                log::info!(target: TARGET, "Not using firewall");
                Ok(Self::None)
            }
            Some(other) => {
                if other == "iptables" {
                    log::error!(target: TARGET, "{NO_IPTABLES}");
                }
                Err(Error::msg(format!("Must provide a valid firewall backend, got {other}")))
            }
        }
    }

    /// Its name, as the state file has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Firewalld(_) => "firewalld",
            Self::None => "none",
        }
    }

    fn setup(&self, socket: &mut Netfilter, network: &NetworkRules, ports: &PortRules) -> Result<()> {
        match self {
            Self::Nftables => {
                let mut neighbour = Neighbour::find();
                neighbour.as_mut().map_or(Ok(()), |firewalld| firewalld.check(ports))?;
                nft::setup(socket, network, ports)?;
                if let Some(mut firewalld) = neighbour {
                    firewalld.trust(network);
                }
                Ok(())
            }
            Self::Firewalld(firewalld) => {
                nft::close_loopback(socket, network)?;
                firewalld.setup(network, ports)
            }
            Self::None => Ok(()),
        }
    }

    fn teardown(
        &self,
        socket: &mut Netfilter,
        network: &NetworkRules,
        ports: &PortRules,
        complete: bool,
    ) -> Result<()> {
        match self {
            Self::Nftables => {
                if complete && let Some(mut firewalld) = Neighbour::find() {
                    firewalld.distrust(network);
                }
                nft::teardown(socket, network, ports, complete)
            }
            Self::Firewalld(firewalld) => {
                let mut errors = Errors::new();
                errors.note(firewalld.teardown(network, ports, complete));
                if complete {
                    errors.note(nft::open_loopback(socket, network));
                }
                errors.finish()
            }
            Self::None => Ok(()),
        }
    }

    fn restore(&self, saved: &Saved) -> Result<()> {
        match self {
            Self::Nftables => {
                nft::restore(&mut open()?, saved)?;
                if let Some(mut firewalld) = Neighbour::find() {
                    saved.networks.iter().for_each(|network| firewalld.trust(network));
                }
                Ok(())
            }
            Self::Firewalld(firewalld) => {
                let mut socket = open()?;
                saved.networks.iter().try_for_each(|network| nft::close_loopback(&mut socket, network))?;
                firewalld.restore(saved)
            }
            Self::None => Ok(()),
        }
    }
}

/// The firewall of one call of the program.
#[derive(Debug)]
pub struct Firewall {
    driver: Driver,
    state: Option<State>,
    /// Opened when it is needed, and kept: closing it after rules were removed takes long, see [`nft`].
    socket: RefCell<Option<Netfilter>>,
}

impl Firewall {
    /// Chooses the driver. `config` is the run directory.
    ///
    /// # Errors
    /// See [`Driver::named`].
    pub fn select(driver: Option<&str>, config: &Path, rootless: bool) -> Result<Self> {
        let state = (!rootless).then(|| State::new(config));
        Ok(Self { driver: Driver::named(driver)?, state, socket: RefCell::new(None) })
    }

    /// Makes the rules of a network that are missing, and those of a container's ports. After an error nothing of it
    /// remains.
    ///
    /// # Errors
    /// `nftables error: ...`, `DBus error: ...`, or of the state files; `invalid host ip ...`.
    pub fn setup(&self, network: &NetworkRules, ports: &PortRules) -> Result<()> {
        if matches!(self.driver, Driver::None) {
            let state = self.state.as_ref();
            return state.map_or(Ok(()), |state| state.save(self.driver.name(), network, ports).map(drop));
        }
        self.with_socket(|socket| {
            self.save_and_set_up(socket, network, ports)?;
            stale::forget_unpublished(socket, ports);
            Ok(())
        })
    }

    /// Does something with the socket, which then stays open until the end.
    fn with_socket(&self, work: impl FnOnce(&mut Netfilter) -> Result<()>) -> Result<()> {
        let mut place = self.socket.borrow_mut();
        let socket = match &mut *place {
            Some(socket) => socket,
            empty => empty.insert(open()?),
        };
        work(socket)
    }

    fn save_and_set_up(
        &self,
        socket: &mut Netfilter,
        network: &NetworkRules,
        ports: &PortRules,
    ) -> Result<()> {
        let Some(state) = &self.state else { return self.driver.setup(socket, network, ports) };
        let new_network = state.save(self.driver.name(), network, ports)?;
        let result = self.driver.setup(socket, network, ports);
        if result.is_err()
            && let Err(error) = state.forget(ports, new_network)
        {
            log::warn!(target: TARGET, "after a failure: {error}");
        }
        result
    }

    /// Removes the rules of a container's ports and, if it was the last container (`complete`), those of the network.
    /// What is gone already is no error.
    ///
    /// # Errors
    /// As [`Self::setup`], all of them together.
    pub fn teardown(&self, network: &NetworkRules, ports: &PortRules, complete: bool) -> Result<()> {
        let mut errors = Errors::new();
        let network = &self.with_former_subnets(network, complete);
        if let Some(state) = &self.state {
            errors.note(state.forget(ports, complete));
        }
        if !matches!(self.driver, Driver::None) {
            errors.note(self.with_socket(|socket| {
                let result = self.driver.teardown(socket, network, ports, complete);
                stale::forget_published(socket, ports);
                result
            }));
        }
        errors.finish()
    }
}

impl Firewall {
    /// Whether it has rules of a network, by its state files.
    #[must_use]
    pub fn knows(&self, network_id: &str) -> bool {
        self.state.as_ref().is_some_and(|state| state.knows(network_id))
    }

    /// What goes with the last container of a network: also the rules of subnets that its definition has no longer.
    fn with_former_subnets(&self, network: &NetworkRules, complete: bool) -> NetworkRules {
        let Some(state) = self.state.as_ref().filter(|_| complete) else { return network.clone() };
        state.with_former_subnets(network).unwrap_or_else(|error| {
            log::warn!(target: TARGET, "{error}");
            network.clone()
        })
    }

    /// The steps of [`Self::setup`], one line each. Nothing is touched.
    ///
    /// # Errors
    /// When the rules cannot be read, or `invalid host ip ...`.
    pub fn describe_setup(&self, network: &NetworkRules, ports: &PortRules) -> Result<Vec<String>> {
        match &self.driver {
            Driver::Nftables => nft::describe_setup(network, ports),
            Driver::Firewalld(_) => Ok(vec!["host       rules by firewalld".to_owned()]),
            Driver::None => Ok(Vec::new()),
        }
    }

    /// The steps of [`Self::teardown`], one line each. Nothing is touched.
    ///
    /// # Errors
    /// When the rules cannot be read.
    pub fn describe_teardown(
        &self,
        network: &NetworkRules,
        ports: &PortRules,
        complete: bool,
    ) -> Result<Vec<String>> {
        match &self.driver {
            Driver::Nftables => {
                nft::describe_teardown(&self.with_former_subnets(network, complete), ports, complete)
            }
            Driver::Firewalld(_) => Ok(vec!["host       no more rules by firewalld".to_owned()]),
            Driver::None => Ok(Vec::new()),
        }
    }
}

fn open() -> Result<Netfilter> {
    Netfilter::open().map_err(|error| Error::msg(format!("nftables error: {error}")))
}

/// Makes all rules again from the state files below `config`. Whether there were any.
///
/// # Errors
/// Those of the files and of the driver.
pub fn reload(config: &Path) -> Result<bool> {
    let Some(saved) = State::new(config).load().context("read firewall config")? else {
        return Ok(false);
    };
    Driver::named(Some(&saved.driver))?.restore(&saved)?;
    Ok(true)
}

/// Calls `restore` once and then after each reload of firewalld, which throws rules away. Returns only on failure.
///
/// # Errors
/// When there is no system bus, or when it goes away.
pub fn follow_firewalld(restore: impl FnMut()) -> Result<()> {
    firewalld::follow(restore)
}

/// Reads any bytes as a rule of a listing; one that is understood means the same after it was written and read again.
pub(crate) fn fuzz_rule(data: &[u8]) {
    nft::fuzz(data);
}

/// Rules to begin with.
pub(crate) fn rule_seeds() -> Vec<(String, Vec<u8>)> {
    nft::seeds()
}
