//! Hands names over to the DNS server, `aardvark-dns` by contract, whoever wrote it.
//!
//! ```text
//!   <run dir>/aardvark.lock               held while anything below changes and the server is told
//!   <run dir>/aardvark-dns/               the server's directory: it reads every file in it
//!                         /<network>      line 1: where to listen [servers]; then one line for each container
//!                         /<network>%int  the same, of a network that has no way out
//!                         /aardvark.pid   the server's
//! ```
//! [`files`] edits the files, [`server`] tells the server (SIGHUP) or starts it. A setup that cannot start the server
//! takes its lines back. A teardown tolerates whatever is already gone.

mod files;
mod server;

use crate::error::{Context, Error, Errors, Result};
use crate::living::Living;
use files::Files;
pub use files::fuzz;
use server::Server;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The environment variable with the server's port.
pub const PORT_VARIABLE: &str = "NETAVARK_DNS_PORT";

/// The port of the DNS server.
///
/// # Errors
/// When `value` (of [`PORT_VARIABLE`]) is no port.
pub fn port(value: Option<&OsStr>) -> Result<u16> {
    let Some(value) = value else { return Ok(53) };
    let text = value.to_string_lossy();
    text.parse().map_err(|error| Error::msg(format!("Invalid {PORT_VARIABLE} {text}: {error}")))
}

/// The addresses at which names are served by the files below the run directory, whoever wrote them. What cannot be
/// read has none.
#[must_use]
pub fn served(config_dir: &Path) -> Vec<IpAddr> {
    let files = fs::read_dir(config_dir.join("aardvark-dns")).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.flat_map(|text| files::listening(&text)).collect()
}

/// What the DNS server is told about one container on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsEntry {
    /// The network's name.
    pub network: String,
    /// Whether it has no way out: its names are served, others are not asked for.
    pub internal: bool,
    /// Where the server listens for this network.
    pub listen: Vec<IpAddr>,
    /// Where the names of the outside are asked, for this network.
    pub network_servers: Vec<IpAddr>,
    /// The container's ID.
    pub container_id: String,
    /// The container's addresses, both families.
    pub addresses: Vec<IpAddr>,
    /// Its names: its own, then its aliases.
    pub names: Vec<String>,
    /// Where the names of the outside are asked, for this container.
    pub container_servers: Vec<IpAddr>,
    /// How many other containers are on the network's bridge.
    pub others: usize,
}

/// The server of one run directory.
#[derive(Debug)]
pub struct Handover {
    files: Files,
    server: Server,
    living: Living,
}

impl Handover {
    /// Nothing is touched yet. An empty `binary` means that there is no server.
    #[must_use]
    pub fn new(config_dir: &Path, binary: &OsStr, rootless: bool, port: u16) -> Self {
        let dir = config_dir.join("aardvark-dns");
        Self {
            server: Server { dir: dir.clone(), binary: PathBuf::from(binary), rootless, port },
            files: Files::new(config_dir, dir),
            living: Living::default(),
        }
    }

    /// Makes the names of a setup known: writes them down, and tells the server or starts it.
    ///
    /// # Errors
    /// When a server would ask itself, a file cannot be written, or the server does not start; then the files are as
    /// before.
    pub fn commit(&self, entries: &[DnsEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if !self.server.exists() {
            log::info!(
                "dns disabled because aardvark-dns path {} does not exist",
                self.server.binary.display()
            );
            return Ok(());
        }
        match fs::create_dir(&self.server.dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).with_context(|| {
                format!("failed to create aardvark-dns directory {}", self.server.dir.display())
            }),
            _ => Ok(()),
        }?;
        refuse_loops(entries)?;
        let entries: Vec<_> = entries.iter().filter_map(files::Line::of).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let _lock = self.files.lock()?;
        let added = entries.iter().try_for_each(|entry| {
            self.files.bury_namesakes(entry, &self.living)?;
            self.files.add(entry, &self.living)
        });
        let result = added.and_then(|()| self.notify(true));
        if result.is_err() {
            self.take_back(&entries);
        }
        result
    }

    /// Forgets the names of a container on some networks, and tells the server.
    ///
    /// # Errors
    /// All that failed; what is already gone is no failure.
    pub fn remove<'a>(&self, container_id: &str, networks: impl IntoIterator<Item = &'a str>) -> Result<()> {
        if !self.server.dir.exists() {
            return Ok(());
        }
        let mut errors = Errors::new();
        let _lock = self.files.lock()?;
        let mut changed = false;
        for network in networks {
            let removed = self.files.remove(network, container_id);
            changed |= errors.note(removed.with_context(|| format!("network {network}"))).unwrap_or(false);
        }
        if changed {
            // A server that has died is only worth starting for those who are left.
            errors.note(self.notify(self.server.exists() && self.files.any()));
        }
        errors.finish()
    }

    /// What [`Self::commit`] would do, one line each. Nothing is touched.
    ///
    /// # Errors
    /// When a server would ask itself.
    pub fn describe_commit(&self, entries: &[DnsEntry]) -> Result<Vec<String>> {
        if !self.server.exists() {
            return Ok(Vec::new());
        }
        refuse_loops(entries)?;
        let written: Result<Vec<_>> =
            entries.iter().filter_map(files::Line::of).map(|line| self.files.describe_add(&line)).collect();
        let mut lines = written?;
        if !lines.is_empty() {
            lines.extend(self.server.describe_notify(true)?);
        }
        Ok(lines)
    }

    /// What [`Self::remove`] would do for the last of these containers after it was done for the others, one line each.
    /// Nothing is touched.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn describe_remove<'a>(
        &self,
        container_ids: &[&str],
        networks: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for network in networks {
            lines.extend(self.files.describe_remove(network, container_ids)?);
        }
        if !lines.is_empty() {
            lines.extend(self.server.describe_notify(false)?);
        }
        Ok(lines)
    }

    /// Changes the servers of a network that is in use; one that is not in use needs nothing.
    ///
    /// # Errors
    /// When the file cannot be changed, or the server not be told.
    pub fn update(&self, network: &str, servers: &str) -> Result<()> {
        if !self.server.exists() || !self.server.dir.exists() {
            return Ok(());
        }
        let servers = files::servers(servers)?;
        let _lock = self.files.lock()?;
        // Also when the last one is taken away, which the original leaves to the next container that comes or goes.
        if self.files.set_servers(network, &servers)? {
            self.server.notify()?;
        }
        Ok(())
    }

    fn notify(&self, start: bool) -> Result<()> {
        match self.server.notify()? {
            Some(pid) => self.server.check_namespace(pid),
            None if start => self.server.start()?,
            None => {}
        }
        Ok(())
    }

    fn take_back(&self, entries: &[files::Line<'_>]) {
        let mut errors = Errors::new();
        for entry in entries {
            errors.note(self.files.remove(entry.network, entry.container_id));
        }
        errors.note(self.notify(false));
        if let Some(line) = errors.line() {
            log::warn!("cannot take back the names after the DNS server failed: {line}");
        }
    }
}

/// Refuses servers that are the DNS server itself: it listens on the gateways, and would ask itself for ever.
fn refuse_loops(entries: &[DnsEntry]) -> Result<()> {
    const WHY: &str = "using it would cause aardvark-dns to forward queries to itself.";
    let owner = |server: &IpAddr| {
        entries.iter().find(|entry| entry.listen.contains(server)).map(|entry| entry.network.as_str())
    };
    for entry in entries {
        for server in &entry.container_servers {
            if let Some(network) = owner(server) {
                return Err(Error::msg(format!(
                    "DNS server {server} is the gateway of network {network:?}; {WHY}"
                )));
            }
        }
        for server in &entry.network_servers {
            if let Some(network) = owner(server) {
                return Err(Error::msg(format!(
                    "network DNS server {server} matches the gateway of network {network:?}; {WHY}"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
