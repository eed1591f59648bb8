//! The command line of `pasta` and `passt`, as meant: valid types, or the message that says why not.
//!
//! Here is what depends on several options, and what has to be asked of the system, through [`World`], so that tests
//! decide what there is. What the host's network looks like (the template interface, its addresses and routes) is not
//! looked at yet: where an option says nothing, the [`Config`] says so, and whoever starts fills the gap.

pub use super::guest::{Configure, Guest, Machine, Namespace, Place, Repair, Userns};

use super::Mode;
use super::args::{LowArgs, Pair, Stop, Switches, Told, Verbosity};
use super::guest::{is_command, machine, namespace};
use super::table::Key;
use super::usage::VERSION;
use super::values::refuse;
use log::LevelFilter;
use nix::errno::Errno;
use slipway_host::strerror::strerror;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Mtu;
use slipway_portfwd::rule::Proto;
use slipway_portfwd::rule::passt::{Capabilities, Context, Forwards, Verb, proto_of};
use slipway_runtime::logging::journal::Wishes;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// Our MAC address, unless `-M` says otherwise.
pub const MAC: MacAddr = MacAddr([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);
/// The MTU of the guest's link, unless `-m` says otherwise, in bytes.
pub const MTU: u16 = 65520;
/// The length of a log file, unless `--log-size` says otherwise, in bytes.
pub const LOG_SIZE: u64 = 1 << 20;
/// The user and group nobody where the system has no such name.
const NOBODY: Ids = Ids { user: 65534, group: 65534 };

/// What the checks have to ask the system.
pub trait World {
    /// Whether there is an interface of this name.
    ///
    /// # Errors
    /// Why not.
    fn interface(&self, name: &OsStr) -> Result<(), Errno>;

    /// Whether there are sockets of IPv4, or of IPv6.
    fn family(&self, ipv6: bool) -> bool;

    /// A user's number, and that of the group that goes with it.
    fn user(&self, name: &str) -> Option<Ids>;

    /// A group's number.
    fn group(&self, name: &str) -> Option<u32>;

    /// Whether we are root, and not only of a user namespace.
    fn is_root_of_the_machine(&self) -> bool;

    /// Whether sockets of ours may be bound to an interface (SO_BINDTODEVICE).
    fn binds_to_interfaces(&self) -> bool;

    /// The first and the last port that the kernel gives away.
    fn ephemeral(&self) -> (u16, u16);
}

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Ids {
    pub user: u32,
    pub group: u32,
}

/// What is carried and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent switch of the command line")]
#[expect(missing_docs, reason = "the names say it")]
pub struct Handlers {
    pub tcp: bool,
    pub udp: bool,
    pub icmp: bool,
    pub dhcp: bool,
    pub dhcpv6: bool,
    pub ndp: bool,
    pub advertisements: bool,
}

/// How loopback connections cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    /// From the host's loopback by sockets, without a packet.
    pub inbound: bool,
    /// To the namespace's loopback, in place of the guest's public address.
    pub to_loopback: bool,
    /// There is no other traffic.
    pub only: bool,
}

/// A log file, and how long it may get, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the type says it")]
pub struct LogFile {
    pub path: PathBuf,
    pub size: u64,
}

/// A start of `pasta` or `passt`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent switch of the command line")]
pub struct Config {
    /// Where the guest is.
    pub guest: Guest,
    /// An open descriptor that is the guest's link.
    pub fd: Option<RawFd>,
    /// The end of the first connection is the end.
    pub one_off: bool,
    /// How much is logged.
    pub level: LevelFilter,
    /// Where, if not to the system's log (or stderr, in the foreground).
    pub log_file: Option<LogFile>,
    /// The process stays in the foreground.
    pub foreground: bool,
    /// Counters are shown so often at most.
    pub stats: Option<Duration>,
    /// Who we become.
    pub run_as: Option<Ids>,
    /// `chroot` is tried where `pivot_root` is refused.
    pub chroot_fallback: bool,
    /// Where the guest's frames are recorded.
    pub pcap: Option<PathBuf>,
    /// Gets our process id.
    pub pid_file: Option<PathBuf>,
    /// Where pesto is served.
    pub conf_path: Option<PathBuf>,
    /// Where our own orders are.
    pub control: Option<PathBuf>,
    /// The MTU that is assigned and advertised; none if the guest shall keep its own.
    pub mtu: Option<u16>,
    /// Our MAC address.
    pub mac: MacAddr,
    /// Whether there is IPv4, and IPv6.
    pub families: [bool; 2],
    /// The guest's addresses, where the template interface does not decide.
    pub address: Pair,
    /// The length of its IPv4 network, likewise; always there with an address.
    pub prefix: Option<u8>,
    /// The guest's gateways, where the template interface does not decide.
    pub gateway: Pair,
    /// The template interface; it existed a moment ago.
    pub interface: Option<String>,
    /// Source addresses of outgoing sockets.
    pub outbound: Pair,
    /// The interfaces that they are bound to, and the template of each family if `interface` is none.
    pub outbound_interface: [Option<String>; 2],
    /// Nameservers that the guest is told.
    pub dns: Told<IpAddr>,
    /// Search domains that it is told.
    pub search: Told<String>,
    /// Where we are its nameserver.
    pub dns_forward: Pair,
    /// Who is asked for it, if not those of the host.
    pub dns_host: Pair,
    /// The guest's name.
    pub hostname: Option<String>,
    /// Its full name.
    pub fqdn: Option<String>,
    /// What is carried and answered.
    pub handlers: Handlers,
    /// Addresses that lead to the host's loopback.
    pub map_host_loopback: Pair,
    /// Where there is none of those, the gateway's does.
    pub map_gateway: bool,
    /// Addresses that lead to the host where the guest has the host's own.
    pub map_guest: Pair,
    /// Listeners may have addresses that the host does not have.
    pub freebind: bool,
    /// How loopback connections cross.
    pub splice: Splice,
    /// What `-t`, `-u`, `-T` and `-U` say, and what holds without them.
    pub forwards: Forwards,
    /// What these rules may ask for, and later ones.
    pub abilities: Capabilities,
}

impl Config {
    /// Checks `low`. Warnings, for stderr, are pushed to `notices`, also when it fails.
    ///
    /// # Errors
    /// [`Stop::Value`].
    pub fn new(mode: Mode, low: LowArgs, notices: &mut Vec<String>, world: &dyn World) -> Result<Self, Stop> {
        agree(&low)?;
        let interface = low.interface.as_deref().map(|name| template(name, world)).transpose()?;
        let run_as = run_as(low.runas.as_deref(), notices, world)?;
        let families = families(low.only, world)?;
        let prefix = prefix(&low);
        let abilities = abilities(mode, low.switches, families, world);
        let forwards = forwards(&low.ports, abilities, notices, world)?;
        let guest = match mode {
            Mode::Pasta => Guest::Namespace(namespace(&low)?),
            Mode::Passt { vhost_user } => Guest::Machine(machine(&low, vhost_user)?),
        };
        let only = low.switches.has(Key::SpliceOnly);
        let configured = matches!(&guest, Guest::Namespace(namespace) if namespace.configure.is_some());
        let command = is_command(&guest);
        let mtu = low.mtu.unwrap_or(MTU);
        warn_of_mtu(mtu, families, notices);
        Ok(Self {
            fd: low.fd,
            one_off: low.switches.has(Key::OneOff),
            level: level(low.verbosity, command),
            log_file: low.log_file.map(|path| LogFile { path, size: low.log_size.unwrap_or(LOG_SIZE) }),
            foreground: command || low.switches.has(Key::Foreground),
            stats: low.stats,
            run_as,
            chroot_fallback: low.switches.has(Key::ChrootFallback),
            pcap: low.pcap,
            pid_file: low.pid,
            conf_path: low.conf_path,
            control: low.control,
            mtu: Some(mtu).filter(|bytes| *bytes > 0),
            mac: low.mac.unwrap_or(MAC),
            families,
            address: low.address,
            prefix,
            gateway: low.gateway,
            interface,
            outbound: low.outbound,
            outbound_interface: low.outbound_interface,
            dns: told(low.dns, low.tell_dns, mode, only),
            search: told(low.search, low.tell_search, mode, only),
            dns_forward: if only { Pair::default() } else { low.dns_forward },
            dns_host: low.dns_host,
            hostname: low.hostname.filter(|name| !name.is_empty()),
            fqdn: low.fqdn.filter(|name| !name.is_empty()),
            handlers: handlers(low.switches, configured, only),
            map_host_loopback: low.map_host_loopback,
            map_gateway: !low.no_map_gw,
            map_guest: low.map_guest,
            freebind: low.switches.has(Key::Freebind),
            splice: Splice {
                inbound: mode == Mode::Pasta && !low.switches.has(Key::NoSplice),
                to_loopback: only || low.switches.has(Key::HostLoToNsLo),
                only,
            },
            forwards,
            abilities,
            guest,
        })
    }

    /// What is logged, and where.
    #[must_use]
    pub fn log(&self) -> Wishes<'_> {
        Wishes {
            name: if matches!(self.guest, Guest::Namespace(_)) { "pasta" } else { "passt" },
            version: VERSION,
            level: self.level,
            file: self.log_file.as_ref().map(|file| (file.path.as_path(), file.size)),
            foreground: self.foreground,
        }
    }

    /// The MTU for the engine: never less than IPv4 permits, and that of Ethernet where the guest keeps its own.
    #[must_use]
    pub fn engine_mtu(&self) -> Mtu {
        self.mtu.map_or(Mtu::ETHERNET, |bytes| Mtu::new(bytes).unwrap_or(Mtu::MIN))
    }
}

/// Options that do not go together.
fn agree(low: &LowArgs) -> Result<(), Stop> {
    let has = |key| low.switches.has(key);
    let needs = " needs --config-net";
    let conflicts = [
        (has(Key::NoCopyRoutes) && !has(Key::ConfigNet), "--no-copy-routes", needs),
        (has(Key::NoCopyAddrs) && !has(Key::ConfigNet), "--no-copy-addrs", needs),
        (
            has(Key::HostLoToNsLo) && has(Key::NoSplice),
            "--host-lo-to-ns-lo",
            " is incompatible with --no-splice",
        ),
        (has(Key::SpliceOnly) && has(Key::NoSplice), "--splice-only", " is incompatible with --no-splice"),
    ];
    match conflicts.iter().find(|(conflict, ..)| *conflict) {
        Some((_, who, what)) => refuse(format!("{who}{what}")),
        None => Ok(()),
    }
}

fn template(name: &OsStr, world: &dyn World) -> Result<String, Stop> {
    let errno = match (world.interface(name), name.to_str()) {
        (Ok(()), Some(name)) => return Ok(name.to_owned()),
        (Ok(()), None) => Errno::ENODEV,
        (Err(errno), _) => errno,
    };
    refuse(format!("Invalid interface name {}: {}", name.to_string_lossy(), strerror(errno)))
}

/// The families that there shall be, and can be.
fn families(only: Option<bool>, world: &dyn World) -> Result<[bool; 2], Stop> {
    for ipv6 in [false, true] {
        if only == Some(ipv6) && !world.family(ipv6) {
            let version = if ipv6 { 6 } else { 4 };
            return refuse(format!("IPv{version} not available but --ipv{version}-only given"));
        }
    }
    Ok([false, true].map(|ipv6| only.is_none_or(|only| only == ipv6) && world.family(ipv6)))
}

/// `USER`, `USER:GROUP`, by name or number. Nobody, for root of the machine who says nothing.
fn run_as(value: Option<&OsStr>, notices: &mut Vec<String>, world: &dyn World) -> Result<Option<Ids>, Stop> {
    let Some(value) = value else {
        if !world.is_root_of_the_machine() {
            return Ok(None);
        }
        notices.push("Started as root, will change to nobody.".to_owned());
        return Ok(Some(world.user("nobody").unwrap_or(NOBODY)));
    };
    let text = value.to_string_lossy();
    let (user, group) = text.split_once(':').map_or((&*text, None), |(user, group)| (user, Some(group)));
    let user = user.parse().ok().map(|user| Ids { user, group: user }).or_else(|| world.user(user));
    let group = group.map(|group| group.parse().ok().or_else(|| world.group(group)));
    match (user, group) {
        (Some(ids), None) => Ok(Some(ids)),
        (Some(ids), Some(Some(group))) => Ok(Some(Ids { group, ..ids })),
        _ => refuse(format!("Invalid --runas option: {text}")),
    }
}

/// The length of the guest's IPv4 network, if anything was said of it.
fn prefix(low: &LowArgs) -> Option<u8> {
    let mask = low.netmask.filter(|bits| *bits > 0);
    low.prefix.or(mask).or_else(|| low.address.v4.map(class))
}

/// The length of the network in which the address was in the times of classes, /32 for addresses of none.
fn class(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        192..224 => 24,
        224.. => 32,
    }
}

fn level(verbosity: Verbosity, command: bool) -> LevelFilter {
    match verbosity {
        Verbosity::Quiet => LevelFilter::Warn,
        // The terminal is the command's.
        Verbosity::Normal if command => LevelFilter::Warn,
        Verbosity::Normal => LevelFilter::Info,
        Verbosity::Debug => LevelFilter::Debug,
        Verbosity::Trace => LevelFilter::Trace,
    }
}

/// A small MTU is somebody's wish; one of 0 is none at all.
fn warn_of_mtu(mtu: u16, families: [bool; 2], notices: &mut Vec<String>) {
    for (enabled, version, least) in [(families[0], 4, Mtu::MIN.bytes()), (families[1], 6, 1280)] {
        if enabled && (1..least).contains(&mtu) {
            notices.push(format!("MTU {mtu} is too small for IPv{version} (minimum {least})"));
        }
    }
}

/// What rules may ask for.
fn abilities(mode: Mode, switches: Switches, [ipv4, ipv6]: [bool; 2], world: &dyn World) -> Capabilities {
    Capabilities {
        ipv4,
        ipv6,
        tcp: !switches.has(Key::NoTcp),
        udp: !switches.has(Key::NoUdp),
        // Of a machine nobody knows who listens there.
        scan: mode == Mode::Pasta,
        interface: world.binds_to_interfaces(),
    }
}

/// The rules that were typed, in order, and for each option that was not given whatever is listened on across; of a
/// machine that is nothing, nor of a protocol that there is not.
fn forwards(
    typed: &[(char, String)],
    can: Capabilities,
    notices: &mut Vec<String>,
    world: &dyn World,
) -> Result<Forwards, Stop> {
    let context = Context { can, ephemeral: world.ephemeral() };
    let mut forwards = Forwards::default();
    let spoken_of = |letter| typed.iter().any(|(given, _)| *given == letter);
    let on = |letter| if proto_of(letter) == Proto::Tcp { can.tcp } else { can.udp };
    let silent =
        ['t', 'u', 'T', 'U'].into_iter().filter(|letter| can.scan && on(*letter) && !spoken_of(*letter));
    let typed = typed.iter().map(|(letter, spec)| (*letter, spec.as_str()));
    for (letter, spec) in typed.chain(silent.map(|letter| (letter, "auto"))) {
        let warning = forwards.apply(Verb::Add, letter, spec, &context);
        notices.extend(warning.map_err(|error| Stop::Value(error.to_string()))?);
    }
    Ok(forwards)
}

/// `passt` tells unless it is forbidden, `pasta` if it is asked to.
fn told<T>(list: Told<T>, wish: Option<bool>, mode: Mode, only: bool) -> Told<T> {
    let tell = !only && wish.unwrap_or(mode != Mode::Pasta);
    if tell { list } else { Told::Nothing }
}

fn handlers(switches: Switches, configured: bool, only: bool) -> Handlers {
    let on = |key| !only && !switches.has(key);
    let icmp = on(Key::NoIcmp);
    let ndp = icmp && on(Key::NoNdp);
    Handlers {
        tcp: !switches.has(Key::NoTcp),
        udp: !switches.has(Key::NoUdp),
        icmp,
        dhcp: on(Key::NoDhcp),
        dhcpv6: on(Key::NoDhcpv6),
        ndp,
        // What is configured already needs no second opinion.
        advertisements: ndp && !configured && on(Key::NoRa),
    }
}

#[cfg(test)]
mod tests;
