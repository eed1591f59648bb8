//! The files of the DNS server: one for each network, one line for each container.
//!
//! The server reads every file of the directory whenever it is told to, and a file that makes no sense costs a whole
//! network its names. So a file is never seen half-written: the new text goes into a file next to the directory, which
//! then takes the old one's place by rename(2). The lock makes sure that nobody else is doing the same.

use super::DnsEntry;
use crate::error::{Context, Error, Result};
use crate::living::Living;
use nix::errno::Errno;
use slipway_host::files::{self, Lock};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The name of the server's own file in the directory.
pub(super) const PID_FILE: &str = "aardvark.pid";

/// The end of the name of a network that has no way out.
const INTERNAL: &str = "%int";

/// The directory.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    lock: PathBuf,
    fresh: PathBuf,
}

/// One container on one network, as far as it can be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) network: &'a str,
    pub(super) container_id: &'a str,
    internal: bool,
    listen: &'a [IpAddr],
    header: String,
    text: String,
    addresses: &'a [IpAddr],
    names: Vec<&'a str>,
    others: usize,
}

impl<'a> Line<'a> {
    /// What is written for `entry`; `None`, with a warning, if that cannot be written.
    pub(super) fn of(entry: &'a DnsEntry) -> Option<Self> {
        if let Err(why) = field(&entry.container_id) {
            log::warn!("invalid container id {}: {why}", entry.container_id);
            return None;
        }
        if entry.listen.is_empty() {
            log::warn!("no names on network {}: it has no address to serve them from", entry.network);
            return None;
        }
        let names: Vec<&str> = entry.names.iter().map(String::as_str).filter(|name| writable(name)).collect();
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = entry.addresses.iter().partition(|ip| ip.is_ipv4());
        let mut text = entry.container_id.clone();
        for list in [joined(&v4), joined(&v6), names.join(",")] {
            text.push(' ');
            text.push_str(&list);
        }
        push_servers(&mut text, &entry.container_servers);
        let mut header = joined(&entry.listen);
        push_servers(&mut header, &entry.network_servers);
        Some(Self {
            network: &entry.network,
            container_id: &entry.container_id,
            internal: entry.internal,
            listen: &entry.listen,
            header,
            text,
            addresses: &entry.addresses,
            names,
            others: entry.others,
        })
    }
}

fn writable(name: &str) -> bool {
    if let Err(why) = field(name) {
        log::warn!("invalid network alias {name:?}: {why}, ignoring this name");
        return false;
    }
    true
}

/// Whether a text can be part of a line: fields end at a space, lists at a comma, lines at a line feed.
fn field(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("name is empty");
    }
    if text.contains([' ', ',', '\n']) { Err("name contains invalid chars") } else { Ok(()) }
}

fn joined(list: &[IpAddr]) -> String {
    let list: Vec<String> = list.iter().map(IpAddr::to_string).collect();
    list.join(",")
}

fn push_servers(text: &mut String, servers: &[IpAddr]) {
    if !servers.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, " {}", joined(servers));
    }
}

/// Where the server of a network listens, by its file; the file with its process ID says nothing.
pub(super) fn listening(text: &str) -> Vec<IpAddr> {
    let first = text.lines().next().and_then(|header| header.split(' ').next());
    first.unwrap_or_default().split(',').filter_map(|address| address.parse().ok()).collect()
}

/// Reads a list of servers from the command line.
pub(super) fn servers(text: &str) -> Result<Vec<IpAddr>> {
    let parse = |text: &str| text.parse().with_context(|| format!("invalid DNS server {text:?}"));
    text.split(',').filter(|server| !server.is_empty()).map(parse).collect()
}

impl Files {
    pub(super) fn new(config_dir: &Path, dir: PathBuf) -> Self {
        Self { dir, lock: config_dir.join("aardvark.lock"), fresh: config_dir.join("aardvark-dns.new") }
    }

    /// Waits until nobody else changes anything; the lock is held as long as the result lives.
    pub(super) fn lock(&self) -> Result<Lock> {
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&self.lock);
        let file = open().map_err(|error| {
            Error::msg(format!("Failed to open/create lockfile {:?}: {error}", self.lock))
        })?;
        Lock::of(file).map_err(|error| {
            // By contract the kernel's number, as its name and words.
            let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
            Error::msg(format!("Failed to acquire exclusive lock on {:?}: {errno}", self.lock))
        })
    }

    /// Whether any network is left.
    pub(super) fn any(&self) -> bool {
        fs::read_dir(&self.dir)
            .is_ok_and(|mut list| list.any(|file| file.is_ok_and(|file| file.file_name() != PID_FILE)))
    }

    /// Adds a container to a network. A line that it left behind earlier goes, and those of others that are dead: they
    /// would answer with dead addresses.
    pub(super) fn add(&self, line: &Line<'_>, living: &Living) -> Result<()> {
        let plain = self.path(line.network)?;
        let internal = with_suffix(&plain);
        let (path, other) = if line.internal { (internal, plain) } else { (plain, internal) };
        // A network that became internal, or is so no longer, takes its containers along.
        match fs::rename(&other, &path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("rename {}", other.display()));
            }
            _ => {}
        }
        let old = read(&path)?.unwrap_or_default();
        let (others, _) = without(&old, line.container_id);
        let others = without_the_dead(&others, line, living);
        // The network may have other addresses than before. Those that it had are still asked by older containers.
        let mut text = match others.split_once('\n') {
            Some((header, rest)) if has_containers(&others) => {
                format!("{}\n{rest}", with_addresses(header, line.listen))
            }
            _ => line.header.clone() + "\n",
        };
        text += &line.text;
        text.push('\n');
        self.write(&path, &text)
    }

    /// Takes the names of a newcomer from the dead of all other networks: whoever is on one of these, too, would hear
    /// both.
    pub(super) fn bury_namesakes(&self, line: &Line<'_>, living: &Living) -> Result<()> {
        let plain = self.path(line.network)?;
        let own = [with_suffix(&plain), plain];
        let list = fs::read_dir(&self.dir).with_context(|| format!("read {}", self.dir.display()))?;
        for file in list {
            let file = file.with_context(|| format!("read {}", self.dir.display()))?;
            let path = file.path();
            if own.contains(&path) || file.file_name() == PID_FILE {
                continue;
            }
            let Some(old) = read(&path)? else { continue };
            let text = without_lines(&old, |other| {
                let other = Record::of(other);
                other.shares_a_name(line) && other.is_gone(living)
            });
            if text != old {
                self.write_or_remove(&path, &text)?;
            }
        }
        Ok(())
    }

    /// What [`Self::add`] would do.
    pub(super) fn describe_add(&self, line: &Line<'_>) -> Result<String> {
        let plain = self.path(line.network)?;
        let path = if line.internal { with_suffix(&plain) } else { plain };
        let header = if path.exists() { String::new() } else { format!("{} / ", line.header) };
        Ok(format!("host       write {}: {header}{}", path.display(), line.text))
    }

    /// What [`Self::remove`] would do for the last of these containers after the others.
    pub(super) fn describe_remove(&self, network: &str, containers: &[&str]) -> Result<Option<String>> {
        let Some((last, others)) = containers.split_last() else { return Ok(None) };
        let plain = self.path(network)?;
        for path in [with_suffix(&plain), plain] {
            let Some(mut text) = read(&path)? else { continue };
            for other in others {
                text = without(&text, other).0;
            }
            if let (text, true) = without(&text, last) {
                let path = path.display();
                let kept = has_containers(&text);
                let step = if kept { format!("write {path}: all but {last}") } else { format!("rm {path}") };
                return Ok(Some(format!("host       {step}")));
            }
        }
        Ok(None)
    }

    /// Removes a container from a network; whether there was anything to remove.
    pub(super) fn remove(&self, network: &str, container_id: &str) -> Result<bool> {
        let plain = self.path(network)?;
        let mut changed = false;
        for path in [with_suffix(&plain), plain] {
            let Some(old) = read(&path)? else { continue };
            let (text, true) = without(&old, container_id) else { continue };
            self.write_or_remove(&path, &text)?;
            changed = true;
        }
        Ok(changed)
    }

    /// Changes the servers of a network; `false` if it is not in use.
    pub(super) fn set_servers(&self, network: &str, servers: &[IpAddr]) -> Result<bool> {
        let path = self.path(network)?;
        let Some(old) = read(&path)? else { return Ok(false) };
        let (header, rest) = old.split_once('\n').unwrap_or((&old, ""));
        let mut text = header.split(' ').next().unwrap_or_default().to_owned();
        push_servers(&mut text, servers);
        text.push('\n');
        text += rest;
        self.write(&path, &text)?;
        Ok(true)
    }

    fn path(&self, network: &str) -> Result<PathBuf> {
        if network.is_empty() || network.contains('/') || [".", "..", PID_FILE].contains(&network) {
            return Err(Error::msg(format!("{network:?} cannot be the name of a network that serves names")));
        }
        Ok(self.dir.join(network))
    }

    /// A network without containers has no file.
    fn write_or_remove(&self, path: &Path, text: &str) -> Result<()> {
        if has_containers(text) {
            self.write(path, text)
        } else {
            fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        files::replace(path, &self.fresh, text.as_bytes(), files::PUBLIC)
            .with_context(|| format!("write {}", path.display()))
    }
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(INTERNAL);
    name.into()
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// A header with these addresses behind those that it has.
fn with_addresses(header: &str, listen: &[IpAddr]) -> String {
    let (list, servers) = header.split_once(' ').map_or((header, None), |(list, rest)| (list, Some(rest)));
    let known: Vec<Option<IpAddr>> = list.split(',').map(|address| address.parse().ok()).collect();
    let mut text = list.to_owned();
    for address in listen.iter().filter(|&&address| !known.contains(&Some(address))) {
        // Writing to a string cannot fail.
        let _ = write!(text, ",{address}");
    }
    servers.into_iter().for_each(|servers| {
        let _ = write!(text, " {servers}");
    });
    text
}

/// Whether there is more than a header.
fn has_containers(text: &str) -> bool {
    text.lines().filter(|line| !line.is_empty()).count() > 1
}

/// The lines that are not of this container, each with its end, and whether there were others. The first line is the
/// header and stays.
fn without(text: &str, container_id: &str) -> (String, bool) {
    let mut found = false;
    let kept = without_lines(text, |line| {
        let ours = line.split(' ').next() == Some(container_id);
        found |= ours;
        ours
    });
    (kept, found)
}

/// What a line says of a container, as far as it can be read.
struct Record<'a> {
    addresses: Vec<IpAddr>,
    names: Vec<&'a str>,
}

impl<'a> Record<'a> {
    fn of(line: &'a str) -> Self {
        let mut fields = line.split(' ').skip(1);
        let mut list = || fields.next().unwrap_or_default().split(',');
        let addresses = list().chain(list()).filter_map(|text| text.parse().ok()).collect();
        Self { addresses, names: list().collect() }
    }

    fn shares_a_name(&self, line: &Line<'_>) -> bool {
        self.names.iter().any(|name| line.names.contains(name))
    }

    /// Whether it had addresses, and nobody has any of them.
    fn is_gone(&self, living: &Living) -> bool {
        !self.addresses.is_empty() && !self.addresses.iter().any(|address| living.has(*address))
    }
}

/// The lines of those who can be alive. Dead are: all others if nobody else is on the network; who had an address that
/// is the newcomer's now; and who has no address that anybody has. The last is asked about namesakes only, unless there
/// are more lines than containers.
fn without_the_dead(text: &str, line: &Line<'_>, living: &Living) -> String {
    let containers = text.lines().skip(1).filter(|line| !line.is_empty()).count();
    without_lines(text, |other| {
        let other = Record::of(other);
        let suspect = containers > line.others || other.shares_a_name(line);
        line.others == 0
            || other.addresses.iter().any(|address| line.addresses.contains(address))
            || (suspect && other.is_gone(living))
    })
}

/// All but some lines, each with its end. The first line is the header and stays.
fn without_lines(text: &str, mut goes: impl FnMut(&str) -> bool) -> String {
    let mut kept = String::with_capacity(text.len());
    for (number, line) in text.split_terminator('\n').enumerate() {
        if number == 0 || !goes(line) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// For the fuzzer: editing any text removes all lines of the container, and nothing of the others.
pub fn fuzz(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (kept, found) = without(&text, "c1");
    assert_eq!(without(&kept, "c1"), (kept.clone(), false), "removing twice is removing once");
    assert_eq!(found, kept.split_terminator('\n').count() < text.split_terminator('\n').count());
}
