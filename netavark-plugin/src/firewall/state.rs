//! The state files: what was asked for, so that it can be restored after somebody has flushed the rules.
//!
//! ```text
//! <config>/firewall/firewall-driver           the driver's name, nothing else
//!                   firewall-reload.lock      locked while any of these is read or changed
//!                   networks/<network>        rules of a network, written when it is new or has changed
//!                   ports/<network>_<container>
//!                   internal/<bridge>         empty: the bridge is an internal network's
//! ```
//! They are written before the rules are made and removed before the rules are, so a restore that comes in between can
//! only make rules that are wanted. The subnets that a network had when older containers were connected stay in its
//! file, since their rules do, until the last container takes them along. A restore holds the lock for as long as it
//! works: [`Saved`] has it.

use super::rules::{NetworkRules, PortRules};
use crate::error::{Context, Result};
use serde::de::DeserializeOwned;
use slipway_host::files::{self, Lock};
use std::cmp::Reverse;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The files of one run directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    directory: PathBuf,
}

/// Everything that was saved, and the lock.
#[derive(Debug)]
pub struct Saved {
    /// The name of the driver that was used.
    pub driver: String,
    /// The rules of all networks.
    pub networks: Vec<NetworkRules>,
    /// The bridges of internal networks.
    pub internal: Vec<String>,
    /// The published ports of all containers, the newest first: of one port that several have, it is the first one's.
    pub ports: Vec<PortRules>,
    #[expect(dead_code, reason = "held, not used")]
    lock: Lock,
}

impl State {
    /// The state below the run directory `config`.
    #[must_use]
    pub fn new(config: &Path) -> Self {
        Self { directory: config.join("firewall") }
    }

    /// Saves what is about to be set up. Whether the network is new.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn save(&self, driver: &str, network: &NetworkRules, ports: &PortRules) -> Result<bool> {
        let _lock = self.lock()?;
        for directory in [self.networks(), self.ports()] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("create firewall config dir {directory:?}"))?;
        }
        self.save_driver(driver)?;
        let path = self.network_file(ports);
        let new = !path.exists();
        let known = read::<NetworkRules>(&path).ok();
        let network = with_former_subnets(network, known.as_ref());
        if known.is_none_or(|known| known != network) {
            let text = serde_json::to_vec(&network)?;
            self.write(&path, &text).with_context(|| format!("create network config {path:?}"))?;
        }
        let path = self.port_file(ports);
        let text = serde_json::to_vec(ports)?;
        self.write(&path, &text).with_context(|| format!("create port config {path:?}"))?;
        Ok(new)
    }

    /// Notes that a bridge is an internal network's.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn note_internal(&self, driver: &str, bridge: &str) -> Result<()> {
        let _lock = self.lock()?;
        let directory = self.internal();
        fs::create_dir_all(&directory)
            .with_context(|| format!("create firewall config dir {directory:?}"))?;
        self.save_driver(driver)?;
        let path = directory.join(bridge);
        if path.exists() {
            return Ok(());
        }
        self.write(&path, &[]).with_context(|| format!("create internal config {path:?}"))
    }

    /// Notes that it is so no longer. Whether it was.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn forget_internal(&self, bridge: &str) -> Result<bool> {
        let path = self.internal().join(bridge);
        if !path.exists() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        remove(&path).with_context(|| format!("remove internal config {path:?}"))?;
        Ok(true)
    }

    fn save_driver(&self, driver: &str) -> Result<()> {
        let path = self.directory.join("firewall-driver");
        if fs::read(&path).is_ok_and(|old| old == driver.as_bytes()) {
            return Ok(());
        }
        self.write(&path, driver.as_bytes()).with_context(|| format!("create firewall-driver file {path:?}"))
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let fresh = self.directory.join("firewall-state.new");
        files::replace(path, &fresh, text, files::PUBLIC)
    }

    /// Forgets what is about to be torn down; the network only with its last container.
    ///
    /// # Errors
    /// When a file cannot be removed. It is no error when it is not there.
    pub fn forget(&self, ports: &PortRules, network_too: bool) -> Result<()> {
        let _lock = self.lock()?;
        let path = self.port_file(ports);
        remove(&path).with_context(|| format!("remove port config {path:?}"))?;
        if network_too {
            let path = self.network_file(ports);
            remove(&path).with_context(|| format!("remove network config {path:?}"))?;
        }
        Ok(())
    }

    /// What was saved for the same container on the same network.
    ///
    /// # Errors
    /// When the lock cannot be had. A file that cannot be understood is as good as none.
    pub fn former(&self, ports: &PortRules) -> Result<Option<PortRules>> {
        let _lock = self.lock()?;
        Ok(understood(&self.port_file(ports)))
    }

    /// What was saved for other containers: of the same network if there are more than `expected`, of all networks
    /// (`everywhere`) in any case.
    ///
    /// # Errors
    /// When the files cannot be listed.
    pub fn others(&self, ports: &PortRules, expected: usize, everywhere: bool) -> Result<Vec<PortRules>> {
        let _lock = self.lock()?;
        let (own, prefix) = (self.port_file(ports), format!("{}_", ports.network_id));
        let mut paths = list(&self.ports())?;
        let here =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        paths.retain(|path| *path != own && (everywhere || here(path)));
        if !everywhere && paths.len() <= expected {
            return Ok(Vec::new());
        }
        Ok(paths.iter().filter_map(|path| understood(path)).collect())
    }

    /// What was saved for all containers.
    ///
    /// # Errors
    /// When the files cannot be listed.
    pub fn ports_of_all(&self) -> Result<Vec<PortRules>> {
        let _lock = self.lock()?;
        Ok(list(&self.ports())?.iter().filter_map(|path| understood(path)).collect())
    }

    /// What was saved for all networks.
    ///
    /// # Errors
    /// When the files cannot be listed.
    pub fn networks_of_all(&self) -> Result<Vec<NetworkRules>> {
        let _lock = self.lock()?;
        Ok(list(&self.networks())?.iter().filter_map(|path| understood(path)).collect())
    }

    /// The network with all subnets that it has had since it was saved as new.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn with_former_subnets(&self, network: &NetworkRules) -> Result<NetworkRules> {
        let _lock = self.lock()?;
        let known = read(&self.networks().join(&network.network_id)).ok();
        Ok(with_former_subnets(network, known.as_ref()))
    }

    /// Whether rules of a network were saved.
    #[must_use]
    pub fn knows(&self, network_id: &str) -> bool {
        self.networks().join(network_id).exists()
    }

    /// Everything that was saved; `None` when nothing ever was. A file that cannot be understood is an error: restoring
    /// the rest in silence would look like success.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(&self) -> Result<Option<Saved>> {
        let lock = self.lock()?;
        let path = self.directory.join("firewall-driver");
        let driver = match fs::read_to_string(&path) {
            Ok(driver) => driver,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read firewall-driver {path:?}")),
        };
        let networks = read_all(&list(&self.networks())?)?;
        let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        let internal = list(&self.internal())?.into_iter().filter_map(name).collect();
        let mut ports = list(&self.ports())?;
        // Written at setup, and never again.
        ports.sort_by_cached_key(|path| Reverse(fs::metadata(path).and_then(|it| it.modified()).ok()));
        let ports = read_all(&ports)?;
        Ok(Some(Saved { driver, networks, internal, ports, lock }))
    }

    fn lock(&self) -> Result<Lock> {
        let directory = &self.directory;
        fs::create_dir_all(directory).with_context(|| format!("create firewall config dir {directory:?}"))?;
        let path = directory.join("firewall-reload.lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("create firewall lock file {path:?}"))?;
        Lock::of(file).context("lock firewall lock file")
    }

    fn networks(&self) -> PathBuf {
        self.directory.join("networks")
    }

    fn internal(&self) -> PathBuf {
        self.directory.join("internal")
    }

    fn ports(&self) -> PathBuf {
        self.directory.join("ports")
    }

    fn network_file(&self, ports: &PortRules) -> PathBuf {
        self.networks().join(&ports.network_id)
    }

    fn port_file(&self, ports: &PortRules) -> PathBuf {
        self.ports().join(format!("{}_{}", ports.network_id, ports.container_id))
    }
}

/// Nothing is known of a network that is new, or whose file cannot be understood.
fn with_former_subnets(network: &NetworkRules, known: Option<&NetworkRules>) -> NetworkRules {
    let mut network = network.clone();
    for subnet in known.map(NetworkRules::subnets).unwrap_or_default() {
        if !network.subnets().contains(subnet) {
            network.subnets.get_or_insert_default().push(*subnet);
        }
    }
    network
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A file that cannot be understood is told and passed over.
fn understood<T: DeserializeOwned>(path: &Path) -> Option<T> {
    match read(path) {
        Ok(content) => Some(content),
        Err(error) => {
            if path.exists() {
                log::warn!("config {path:?} is passed over: {error}");
            }
            None
        }
    }
}

/// The files of a directory, in the order of their names; none when it is missing.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read dir {directory:?}")),
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The contents of these files.
fn read_all<T: DeserializeOwned>(paths: &[PathBuf]) -> Result<Vec<T>> {
    paths.iter().map(|path| read(path).with_context(|| format!("read config {path:?}"))).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}
