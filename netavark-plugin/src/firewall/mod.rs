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

mod conntrack;
mod firewalld;
mod nft;
mod rules;
mod state;

pub use firewalld::Firewalld;
pub use rules::{DNS_PORT, NetworkRules, PortRules};
pub use state::{Saved, State};

use crate::dns_handover;
use crate::error::{Context, Error, Errors, Result};
use crate::living::{Living, Others};
use firewalld::Neighbour;
use nft::Names;
use slipway_host::netlink::netfilter::Netfilter;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

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

    fn setup(
        &self,
        socket: &mut Netfilter,
        network: &NetworkRules,
        ports: &PortRules,
        others: &Others,
    ) -> Result<Made> {
        match self {
            Self::Nftables => {
                let mut neighbour = Neighbour::find();
                neighbour.as_mut().map_or(Ok(()), |firewalld| firewalld.check(ports))?;
                let dead = nft::setup(socket, network, ports, others)?;
                if let Some(mut firewalld) = neighbour {
                    firewalld.trust(network);
                }
                Ok(Made { dead, reloaded: false })
            }
            Self::Firewalld(firewalld) => {
                nft::stand_beside(socket, network)?;
                Ok(Made { reloaded: firewalld.setup(network, ports)?, ..Made::default() })
            }
            Self::None => Ok(Made::default()),
        }
    }

    /// `covered` is whether a published port of another container covers the port of DNS servers.
    fn teardown(
        &self,
        socket: &mut Netfilter,
        network: &NetworkRules,
        ports: &PortRules,
        complete: bool,
        covered: impl FnOnce() -> bool,
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
                errors.note(nft::tidy(socket, network, ports, complete, covered()));
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
                saved.networks.iter().try_for_each(|network| nft::stand_beside(&mut socket, network))?;
                firewalld.restore(saved)
            }
            Self::None => Ok(()),
        }
    }
}

/// What a setup has done to others.
#[derive(Debug, Default)]
struct Made {
    /// The addresses of the dead whose rules were in the way and have gone.
    dead: HashSet<IpAddr>,
    /// firewalld has been reloaded, and so has lost what others had made.
    reloaded: bool,
}

/// The firewall of one call of the program.
#[derive(Debug)]
pub struct Firewall {
    driver: Driver,
    state: Option<State>,
    /// The run directory.
    config: PathBuf,
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
        Ok(Self {
            driver: Driver::named(driver)?,
            state,
            config: config.to_owned(),
            socket: RefCell::new(None),
        })
    }

    /// Whether there are state files, which say what each container has.
    pub(crate) const fn keeps_records(&self) -> bool {
        self.state.is_some()
    }

    /// Makes the rules of a network that are missing, and those of a container's ports. After an error nothing of it
    /// remains.
    ///
    /// # Errors
    /// `nftables error: ...`, `DBus error: ...`, or of the state files; `invalid host ip ...`.
    pub(crate) fn setup(&self, network: &NetworkRules, ports: &PortRules, others: &Others) -> Result<()> {
        if matches!(self.driver, Driver::None) {
            let state = self.state.as_ref();
            return state.map_or(Ok(()), |state| state.save(self.driver.name(), network, ports).map(drop));
        }
        self.with_socket(|socket| {
            self.forget_the_dead(socket, network, ports, others);
            self.save_and_set_up(socket, network, ports, others)?;
            warn(self.keep_all_names(socket, ports));
            conntrack::forget_unpublished(socket, ports);
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

    /// Keeps the questions to the DNS servers of this network from published ports that would take them, and, where
    /// this container has such ports, those to all others.
    fn keep_all_names(&self, socket: &mut Netfilter, ports: &PortRules) -> Result<()> {
        let mut servers = ports.dns_server_ips.clone();
        if ports.cover_dns() {
            servers.extend(dns_handover::served(&self.config));
        }
        self.lead_names(socket, ports.dns_port, &servers)
    }

    fn lead_names(&self, socket: &mut Netfilter, port: u16, servers: &[IpAddr]) -> Result<()> {
        match self.driver {
            Driver::Firewalld(_) if !servers.is_empty() => {
                nft::lead_names(socket, Names { servers, port, covered: self.dns_is_covered() })
            }
            Driver::Nftables => nft::keep_names(socket, port, servers),
            Driver::Firewalld(_) | Driver::None => Ok(()),
        }
    }

    /// Whether a container's published port covers the port of DNS servers, by the state files.
    fn dns_is_covered(&self) -> bool {
        let all = self.state.as_ref().and_then(|state| warn(state.ports_of_all()));
        all.is_some_and(|all| all.iter().any(PortRules::cover_dns))
    }

    /// Keeps the questions to these DNS servers from the published ports of others: for a network without rules.
    ///
    /// # Errors
    /// As [`Self::setup`].
    pub(crate) fn keep_names(&self, dns_port: u16, servers: &[IpAddr]) -> Result<()> {
        if matches!(self.driver, Driver::None) {
            return Ok(());
        }
        self.with_socket(|socket| self.lead_names(socket, dns_port, servers))
    }

    fn save_and_set_up(
        &self,
        socket: &mut Netfilter,
        network: &NetworkRules,
        ports: &PortRules,
        others: &Others,
    ) -> Result<()> {
        let Some(state) = &self.state else {
            return self.driver.setup(socket, network, ports, others).map(drop);
        };
        let new_network = state.save(self.driver.name(), network, ports)?;
        match self.driver.setup(socket, network, ports, others) {
            Ok(Made { dead, reloaded }) => {
                if !dead.is_empty() {
                    warn(forget_files(state, ports, &dead));
                }
                if reloaded {
                    warn(
                        state
                            .load()
                            .and_then(|saved| saved.map_or(Ok(()), |saved| self.driver.restore(&saved))),
                    );
                }
            }
            Err(error) => {
                if let Err(error) = state.forget(ports, new_network) {
                    log::warn!(target: TARGET, "after a failure: {error}");
                }
                // Netlink does all or nothing; of calls over D-Bus the first ones may have succeeded.
                if matches!(self.driver, Driver::Firewalld(_)) {
                    let covered = || self.dns_is_covered();
                    warn(self.driver.teardown(socket, network, ports, new_network, covered));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes back what the state files say of this container, from a life before, and of those of its network that live
    /// no longer. With firewalld, which has one list for all, also of other networks' whose ports are wanted.
    fn forget_the_dead(
        &self,
        socket: &mut Netfilter,
        network: &NetworkRules,
        ports: &PortRules,
        others: &Others,
    ) {
        let Some(state) = &self.state else { return };
        let everywhere = matches!(self.driver, Driver::Firewalld(_)) && !ports.ports().is_empty();
        let mut dead: Vec<_> = warn(state.former(ports)).flatten().into_iter().collect();
        dead.extend(warn(state.others(ports, others.count, everywhere)).into_iter().flatten().filter(|it| {
            let here = it.network_id == ports.network_id;
            let taken = |address| ports.any_address(|ours| ours == address);
            here && (others.count == 0 || it.any_address(taken))
                || !it.any_address(|address| others.living.has(address))
        }));
        for dead in dead {
            log::info!(target: TARGET, "container {} is taken back: it lives no longer", dead.container_id);
            warn(state.forget(&dead, false));
            warn(self.driver.teardown(socket, network, &dead, false, || self.dns_is_covered()));
            // A container that is set up once more keeps its peers.
            let again = dead.container_id == ports.container_id;
            let gone = dead.without(|address| again && ports.any_address(|ours| ours == address));
            conntrack::forget_published(socket, &gone);
        }
    }

    /// Removes the rules of a container's ports and, if it was the last container (`complete`), those of the network.
    /// What is gone already is no error.
    ///
    /// # Errors
    /// As [`Self::setup`], all of them together.
    pub(crate) fn teardown(
        &self,
        network: &NetworkRules,
        ports: &PortRules,
        Leaving { complete, connected }: Leaving,
    ) -> Result<()> {
        let mut errors = Errors::new();
        let ports = &self.as_made(ports, connected);
        let network = &self.with_former_subnets(network, complete);
        if let Some(state) = &self.state {
            errors.note(state.forget(ports, complete));
        }
        if !matches!(self.driver, Driver::None) {
            errors.note(self.with_socket(|socket| {
                let result = self.driver.teardown(socket, network, ports, complete, || self.dns_is_covered());
                conntrack::forget_published(socket, ports);
                result
            }));
        }
        errors.finish()
    }
}

impl Firewall {
    /// What a container has: what its state file says, or else what is asked for. Without its interface (`connected`)
    /// it is late, and another container may have an address of it by now, with the very same rules.
    fn as_made(&self, ports: &PortRules, connected: bool) -> PortRules {
        let saved = self.state.as_ref().and_then(|state| warn(state.former(ports)).flatten());
        let made = saved.unwrap_or_else(|| ports.clone());
        if connected {
            return made;
        }
        let living = Living::default();
        let others = self.state.as_ref().and_then(|state| warn(state.others(ports, 0, false)));
        made.without(|address| {
            let theirs = |it: &PortRules| it.any_address(|other| other == address);
            living.has(address) && others.as_ref().is_none_or(|others| others.iter().any(theirs))
        })
    }

    /// Closes the bridge of an internal network. The bridge itself does not forward, and that is needed; where the
    /// kernel has no rules, it is all that there is.
    pub(crate) fn enclose(&self, bridge: &str) {
        if !self.has_rules() {
            return;
        }
        if let Some(state) = &self.state {
            warn(state.note_internal(self.driver.name(), bridge));
        }
        warn(self.with_socket(|socket| nft::close(socket, &[bridge.to_owned()])));
    }

    /// Opens a bridge that is an internal network's no longer, if it is known as one or was one by its definition.
    pub(crate) fn disclose(&self, bridge: &str, was_internal: bool) {
        let known = |state: &State| warn(state.forget_internal(bridge)).unwrap_or(true);
        let known = self.state.as_ref().is_none_or(known);
        if self.has_rules() && (known || was_internal) {
            warn(self.with_socket(|socket| nft::open(socket, bridge)));
        }
    }

    /// The steps of [`Self::enclose`] or [`Self::disclose`], one line each. Nothing is touched.
    ///
    /// # Errors
    /// When the rules cannot be read.
    pub(crate) fn describe_enclosure(&self, bridge: &str, internal: bool) -> Result<Vec<String>> {
        if self.has_rules() { nft::describe_internal(bridge, internal) } else { Ok(Vec::new()) }
    }

    /// Whether anybody keeps rules at all.
    pub(crate) const fn has_rules(&self) -> bool {
        !matches!(self.driver, Driver::None)
    }

    /// Whether its state files have all networks, and no other one with this bridge.
    pub(crate) fn knows_no_other(&self, network_id: &str, bridge: &str) -> bool {
        let networks = self.state.as_ref().and_then(|state| warn(state.networks_of_all()));
        networks
            .is_some_and(|all| all.iter().all(|it| it.network_id == network_id || it.bridge_name != bridge))
    }

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
    pub(crate) fn describe_setup(
        &self,
        network: &NetworkRules,
        ports: &PortRules,
        others: &Others,
    ) -> Result<Vec<String>> {
        match &self.driver {
            Driver::Nftables => nft::describe_setup(network, ports, others),
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

/// What a teardown has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    /// Nobody is left on the network.
    pub(crate) complete: bool,
    /// The container was still connected.
    pub(crate) connected: bool,
}

/// Forgets the files of containers with these addresses, on whatever network.
fn forget_files(state: &State, own: &PortRules, dead: &HashSet<IpAddr>) -> Result<()> {
    for other in state.others(own, 0, true)? {
        if other.any_address(|address| dead.contains(&address)) {
            state.forget(&other, false)?;
        }
    }
    Ok(())
}

/// What is in the way of cleaning up after others is told, and no more.
fn warn<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| log::warn!(target: TARGET, "{error}")).ok()
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
    let driver = Driver::named(Some(&saved.driver))?;
    driver.restore(&saved)?;
    if !(saved.internal.is_empty() || matches!(driver, Driver::None)) {
        nft::close(&mut open()?, &saved.internal)?;
    }
    restore_names(&driver, &saved, config)?;
    Ok(true)
}

/// Leads questions to the DNS servers again, of networks without rules, too.
fn restore_names(driver: &Driver, saved: &Saved, config: &Path) -> Result<()> {
    let Some(PortRules { dns_port, .. }) = saved.ports.first() else { return Ok(()) };
    let covered = saved.ports.iter().any(PortRules::cover_dns);
    let mut servers = if covered { dns_handover::served(config) } else { Vec::new() };
    servers.extend(saved.ports.iter().flat_map(|ports| &ports.dns_server_ips));
    match driver {
        Driver::Nftables if covered => nft::keep_names(&mut open()?, *dns_port, &servers),
        Driver::Firewalld(_) => {
            nft::lead_names(&mut open()?, Names { servers: &servers, port: *dns_port, covered })
        }
        Driver::Nftables | Driver::None => Ok(()),
    }
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

/// Reads any bytes as a state file; what is understood is written as it was read, and can be restored or is refused.
pub(crate) fn fuzz_state(data: &[u8]) {
    if let Ok(network) = serde_json::from_slice::<NetworkRules>(data) {
        let text = serde_json::to_vec(&network).unwrap_or_default();
        assert_eq!(serde_json::from_slice(&text).ok().as_ref(), Some(&network));
        nft::fuzz_network(&network);
    }
    if let Ok(ports) = serde_json::from_slice::<PortRules>(data) {
        let text = serde_json::to_vec(&ports).unwrap_or_default();
        assert_eq!(serde_json::from_slice(&text).ok().as_ref(), Some(&ports));
        let _ = ports.cover_dns();
        nft::fuzz_ports(&ports);
        firewalld::fuzz_ports(&ports);
    }
}

/// Reads any bytes as what the system bus sends.
pub(crate) fn fuzz_bus(data: &[u8]) {
    firewalld::fuzz_bus(data);
}

/// Reads any text as a line of the connection tracker's.
pub(crate) fn fuzz_line(line: &str) {
    let _ = conntrack::asked_port(line);
}

/// Rules to begin with.
pub(crate) fn rule_seeds() -> Vec<(String, Vec<u8>)> {
    nft::seeds()
}
