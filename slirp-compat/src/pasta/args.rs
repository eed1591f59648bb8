//! The command line of `pasta` and `passt`, as typed.
//!
//! [`parse`] goes through it from left to right: the first mistake is the one that is reported, `--help` works in
//! front of rubbish, and `--version` behind other options, which is how callers find out whether an option exists. An
//! argument that is no option ends the options, because it may be a command with options of its own.
//!
//! Ports are only collected here. What a rule may say depends on options that may stand behind it (`-4`, `--no-tcp`),
//! so they are read in a second pass, by [`super::config`], as everything else that depends on several options or on
//! the system. Where an option is given twice the last one counts; nameservers, search domains and ports add up.

pub use super::stop::Stop;

use super::Mode;
use super::table::{Audience, FLAGS, Key};
use super::values::{
    Kind, file, guest_address, interface, mac_address, name, netmask, number, refuse, socket,
};
use crate::flags::getopt::{Getopt, Item, Order};
use slipway_netstack::addr::MacAddr;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// The largest MTU: a frame of 65535 bytes, less the Ethernet header.
pub const MTU_MAX: u16 = 65521;
/// The least size of a log file: five lines of the longest kind.
pub const LOG_SIZE_MIN: u64 = 40960;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// `-q`.
    Quiet,
    /// Neither.
    #[default]
    Normal,
    /// `-d`.
    Debug,
    /// `--trace`.
    Trace,
}

/// An address of each family, as far as there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pair {
    /// Of IPv4.
    pub v4: Option<Ipv4Addr>,
    /// Of IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Pair {
    /// Takes the place of the one of its family.
    pub const fn put(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
    }
}

/// A list that the guest may be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Told<T> {
    /// What the host has.
    #[default]
    Hosts,
    /// Nothing.
    Nothing,
    /// These.
    These(Vec<T>),
}

impl<T> Told<T> {
    fn add(&mut self, one: T) {
        match self {
            Self::These(list) => list.push(one),
            _ => *self = Self::These(vec![one]),
        }
    }
}

/// The options without an argument that were given, and in which nothing depends on the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Switches(u128);

impl Switches {
    fn add(&mut self, key: Key) {
        self.0 |= 1 << key as u32;
    }

    /// Whether it was given.
    #[must_use]
    pub const fn has(self, key: Key) -> bool {
        self.0 & (1 << key as u32) != 0
    }
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LowArgs {
    /// All that has neither an argument nor an order.
    pub switches: Switches,
    /// `-q`, `-d`, `--trace`: the last one.
    pub verbosity: Verbosity,
    /// `-4`, `-6`: the last one; whether it was `-6`.
    pub only: Option<bool>,
    /// `--dhcp-dns`, `--no-dhcp-dns`.
    pub tell_dns: Option<bool>,
    /// `--dhcp-search`, `--no-dhcp-search`.
    pub tell_search: Option<bool>,
    /// `--stats`.
    pub stats: Option<Duration>,
    /// `--runas`.
    pub runas: Option<OsString>,
    /// `-l`.
    pub log_file: Option<PathBuf>,
    /// `--log-size`.
    pub log_size: Option<u64>,
    /// `-p`.
    pub pcap: Option<PathBuf>,
    /// `-P`.
    pub pid: Option<PathBuf>,
    /// `-c`.
    pub conf_path: Option<PathBuf>,
    /// `--control`.
    pub control: Option<PathBuf>,
    /// `-m`, at most [`MTU_MAX`].
    pub mtu: Option<u16>,
    /// `-a`.
    pub address: Pair,
    /// The length behind an address of IPv4 in `-a`.
    pub prefix: Option<u8>,
    /// Whether `-a` had a length, of whichever family.
    pub prefix_given: bool,
    /// `-n`.
    pub netmask: Option<u8>,
    /// `-M`.
    pub mac: Option<MacAddr>,
    /// `-g`.
    pub gateway: Pair,
    /// `-i`.
    pub interface: Option<OsString>,
    /// `-o`.
    pub outbound: Pair,
    /// `--outbound-if4`, `--outbound-if6`.
    pub outbound_interface: [Option<String>; 2],
    /// `-D`.
    pub dns: Told<IpAddr>,
    /// `-S`.
    pub search: Told<String>,
    /// `--dns-forward`.
    pub dns_forward: Pair,
    /// `--dns-host`.
    pub dns_host: Pair,
    /// `-H`.
    pub hostname: Option<String>,
    /// `--fqdn`.
    pub fqdn: Option<String>,
    /// `--map-host-loopback`.
    pub map_host_loopback: Pair,
    /// `--no-map-gw`, `--map-host-loopback none`.
    pub no_map_gw: bool,
    /// `--map-guest-addr`.
    pub map_guest: Pair,
    /// `-t`, `-u`, `-T`, `-U`, with their letters, unread.
    pub ports: Vec<(char, String)>,
    /// `-F`.
    pub fd: Option<RawFd>,
    /// `-s`.
    pub socket: Option<PathBuf>,
    /// `--repair-path`; an empty one for `none`.
    pub repair: Option<PathBuf>,
    /// `-I`.
    pub tap: Option<String>,
    /// `--ns-mac-addr`.
    pub tap_mac: Option<MacAddr>,
    /// `--netns`.
    pub netns: Option<PathBuf>,
    /// `--userns`, unless `--netns-only` came behind it.
    pub userns: Option<PathBuf>,
    /// `--netns-only`, unless `--userns` came behind it.
    pub netns_only: bool,
    /// What follows the options.
    pub positionals: Vec<OsString>,
}

/// Takes the command line apart. Warnings, for stderr, are pushed to `notices`, also when it fails.
///
/// `program` is `argv[0]`, for messages.
///
/// # Errors
/// [`Stop`].
pub fn parse(
    mode: Mode,
    program: &str,
    args: &[OsString],
    notices: &mut Vec<String>,
) -> Result<LowArgs, Stop> {
    let mut low = LowArgs::default();
    for item in Getopt::new(FLAGS, Order::StopAtPositional, args) {
        match item {
            Ok(Item::Positional(word)) => low.positionals.push(word.to_owned()),
            Ok(Item::Flag(flag, value)) => {
                admit(mode, flag.key, flag.long, value)?;
                // Only `None` for an option without argument.
                low.set(flag.key, value.unwrap_or_default(), notices)?;
            }
            Err(error) => return Err(Stop::Usage(format!("{program}: {error}"))),
        }
    }
    Ok(low)
}

/// Whether an option is for this name.
fn admit(mode: Mode, key: Key, long: &str, value: Option<&OsStr>) -> Result<(), Stop> {
    let whose = match (key.audience(), mode) {
        (Audience::Pasta, Mode::Passt { .. }) => "pasta",
        (Audience::Passt, Mode::Pasta) if key == Key::Socket => "passt / vhost-user",
        (Audience::Passt, Mode::Pasta) => "passt",
        (Audience::VhostUser, Mode::Pasta | Mode::Passt { vhost_user: false })
            if !(key == Key::RepairPath && value.is_some_and(|value| value == "none")) =>
        {
            "vhost-user"
        }
        _ => return Ok(()),
    };
    let name = match key.complaint() {
        "" => format!("--{long}"),
        letter => letter.to_owned(),
    };
    refuse(format!("{name} is for {whose} mode only"))
}

impl LowArgs {
    fn set(&mut self, key: Key, value: &OsStr, notices: &mut Vec<String>) -> Result<(), Stop> {
        match key {
            Key::Help => return Err(Stop::Help),
            Key::Version => return Err(Stop::Version),
            Key::PrintCapabilities => return Err(Stop::Capabilities),
            Key::Debug => self.verbosity = self.verbosity.max(Verbosity::Debug),
            Key::Trace => self.verbosity = Verbosity::Trace,
            Key::Quiet => self.verbosity = Verbosity::Quiet,
            Key::Stderr => notices.push("--stderr will be dropped soon".to_owned()),
            Key::Ipv4Only => self.only = Some(false),
            Key::Ipv6Only => self.only = Some(true),
            Key::DhcpDns | Key::NoDhcpDns => self.tell_dns = Some(key == Key::DhcpDns),
            Key::DhcpSearch | Key::NoDhcpSearch => self.tell_search = Some(key == Key::DhcpSearch),
            Key::NoMapGw => self.no_map_gw = true,
            Key::NoCopyRoutes | Key::NoCopyAddrs => {
                let name = if key == Key::NoCopyRoutes { "routes" } else { "addrs" };
                notices.push(format!("--no-copy-{name} will be dropped soon"));
                self.switches.add(key);
            }
            Key::NetnsOnly => (self.netns_only, self.userns) = (true, None),
            Key::TcpPorts => self.ports.push(('t', value.to_string_lossy().into_owned())),
            Key::UdpPorts => self.ports.push(('u', value.to_string_lossy().into_owned())),
            Key::TcpNs => self.ports.push(('T', value.to_string_lossy().into_owned())),
            Key::UdpNs => self.ports.push(('U', value.to_string_lossy().into_owned())),
            _ => return self.set_network(key, value),
        }
        Ok(())
    }

    /// Addresses, names, and what else the guest's network is made of.
    fn set_network(&mut self, key: Key, value: &OsStr) -> Result<(), Stop> {
        match key {
            Key::Mtu => self.mtu = Some(mtu(value)?),
            Key::Address => self.set_address(value)?,
            Key::Netmask => {
                self.netmask = Some(netmask(value)?);
                self.check_lengths()?;
            }
            Key::MacAddr => self.mac = Some(mac_address(value)?),
            Key::Gateway => self.gateway.put(Kind::GATEWAY.read(value)?),
            Key::Interface => self.interface = Some(value.to_owned()),
            Key::Outbound => self.outbound.put(Kind::OUTBOUND.read(value)?),
            Key::OutboundIf4 => self.outbound_interface[0] = Some(interface(value)?),
            Key::OutboundIf6 => self.outbound_interface[1] = Some(interface(value)?),
            Key::Dns if value == "none" => self.dns = Told::Nothing,
            Key::Dns => self.dns.add(Kind::TOLD.read(value)?),
            Key::Search if value == "none" => self.search = Told::Nothing,
            Key::Search => self.search.add(name(value, 1, "Cannot use DNS search domain ")?),
            Key::DnsForward => self.dns_forward.put(Kind::FORWARDER.read(value)?),
            Key::DnsHost => self.dns_host.put(Kind::NAMESERVER.read(value)?),
            Key::Hostname => self.hostname = Some(name(value, 0, "Invalid hostname: ")?),
            Key::Fqdn => self.fqdn = Some(name(value, 0, "Invalid FQDN: ")?),
            Key::MapHostLoopback if value == "none" => {
                (self.map_host_loopback, self.no_map_gw) = (Pair::default(), true);
            }
            Key::MapHostLoopback => self.map_host_loopback.put(Kind::MAPPED.read(value)?),
            Key::MapGuestAddr if value == "none" => self.map_guest = Pair::default(),
            Key::MapGuestAddr => self.map_guest.put(Kind::MAPPED.read(value)?),
            Key::NsIfname => self.tap = Some(interface(value)?),
            Key::NsMacAddr => self.tap_mac = Some(mac_address(value)?),
            _ => return self.set_process(key, value),
        }
        Ok(())
    }

    /// Files, sockets, namespaces, and what else the process is made of.
    fn set_process(&mut self, key: Key, value: &OsStr) -> Result<(), Stop> {
        match key {
            Key::Runas => self.runas = Some(value.to_owned()),
            Key::LogFile => self.log_file = Some(file(value, "Couldn't open log file ")?),
            Key::LogSize => self.log_size = Some(log_size(value)?),
            Key::Pcap => self.pcap = Some(file(value, "Invalid pcap path: ")?),
            Key::Pid => self.pid = Some(file(value, "Invalid PID file: ")?),
            Key::ConfPath => self.conf_path = Some(socket(value, "Invalid configuration path: ")?),
            Key::Control => self.control = Some(socket(value, "Invalid control path: ")?),
            Key::Socket => (self.socket, self.fd) = (Some(socket(value, "Invalid socket path: ")?), None),
            Key::Fd => {
                (self.fd, self.socket) = (Some(descriptor(value)?), None);
                self.switches.add(Key::OneOff);
            }
            Key::RepairPath if value == "none" => self.repair = Some(PathBuf::new()),
            Key::RepairPath => self.repair = Some(socket(value, "Invalid passt-repair path: ")?),
            Key::Netns => self.netns = Some(file(value, "Invalid netns: ")?),
            Key::Userns => {
                (self.userns, self.netns_only) = (Some(file(value, "Invalid userns: ")?), false);
            }
            Key::Stats if !self.switches.has(Key::Foreground) => {
                return refuse("Can't display statistics if not running in foreground".to_owned());
            }
            Key::Stats => self.stats = stats(value)?,
            // What is left has no argument.
            _ => self.switches.add(key),
        }
        Ok(())
    }

    fn set_address(&mut self, value: &OsStr) -> Result<(), Stop> {
        let (address, prefix) = guest_address(value)?;
        self.address.put(address);
        self.prefix_given |= prefix.is_some();
        if address.is_ipv4() {
            self.prefix = prefix.filter(|bits| *bits > 0);
        }
        self.check_lengths()
    }

    /// `-a` with a length, and `-n`: whichever comes last is one too many.
    fn check_lengths(&self) -> Result<(), Stop> {
        if self.prefix_given && self.netmask.is_some() {
            return refuse("Redundant prefix length specification".to_owned());
        }
        Ok(())
    }
}

fn mtu(value: &OsStr) -> Result<u16, Stop> {
    let Some(bytes) = number(value) else {
        return refuse(format!("Invalid MTU: {}", value.to_string_lossy()));
    };
    match u16::try_from(bytes) {
        Ok(bytes @ ..=MTU_MAX) => Ok(bytes),
        _ => refuse(format!("MTU {bytes} too large (max {MTU_MAX})")),
    }
}

fn log_size(value: &OsStr) -> Result<u64, Stop> {
    let bytes = number(value).filter(|bytes| *bytes >= LOG_SIZE_MIN);
    bytes.map_or_else(|| refuse(format!("Invalid --log-size: {}", value.to_string_lossy())), Ok)
}

fn descriptor(value: &OsStr) -> Result<RawFd, Stop> {
    let fd = number(value).and_then(|fd| RawFd::try_from(fd).ok());
    fd.map_or_else(|| refuse(format!("Invalid --fd: {}", value.to_string_lossy())), Ok)
}

/// Seconds; none for 0.
fn stats(value: &OsStr) -> Result<Option<Duration>, Stop> {
    match number(value).and_then(|seconds| u32::try_from(seconds).ok()) {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        None => refuse(format!("Invalid --stats: {}", value.to_string_lossy())),
    }
}

#[cfg(test)]
mod tests;
