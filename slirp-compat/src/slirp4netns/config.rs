//! The command line of `slirp4netns`, as meant: valid types, or the message that says why not.
//!
//! The order of the checks is part of the contract: first what prints the usage text (what goes with what, the
//! positionals), then the values (network, outbound addresses, MAC address), each of which prints its diagnostic
//! only. Everything that asks the system goes through [`World`], so that tests decide what exists.

use super::args::{LowArgs, Stop, integer};
use ipnet::{Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use slipway_host::strerror::strerror;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::{Mtu, Outbound};
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Ipv6Config};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

/// What the checks have to ask the system.
pub trait World {
    /// Whether a file is there (`access` with `F_OK`).
    ///
    /// # Errors
    /// Why not.
    fn find(&self, path: &Path) -> Result<(), Errno>;

    /// The first address of an interface, IPv6 or IPv4.
    fn interface_address(&self, name: &str, ipv6: bool) -> Option<IpAddr>;
}

/// A process or a file that stands for a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// The namespaces of this process.
    Pid(u32),
    /// A namespace bound to this path.
    Path(PathBuf),
}

/// Where the guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// In a network namespace, behind a TAP.
    Netns {
        /// Which.
        netns: Netns,
        /// The user namespace to join first, if not the one that goes with `netns`.
        userns: Option<PathBuf>,
        /// The TAP's name, at most [`TAPNAME_MAX`] bytes.
        tap: String,
    },
    /// Behind an open TAP.
    TapFd(RawFd),
    /// The first client of a SEQPACKET socket at this path.
    Bess(PathBuf),
}

/// What `-c` sets on the TAP beyond what follows from the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configure {
    /// Its MAC address, if not the kernel's choice.
    pub mac: Option<MacAddr>,
}

/// A start of `slirp4netns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the guest is.
    pub target: Target,
    /// Whether, and how, to configure the TAP.
    pub configure: Option<Configure>,
    /// Ends the process when it reports anything but data.
    pub exit_fd: Option<RawFd>,
    /// Gets the ready byte.
    pub ready_fd: Option<RawFd>,
    /// The MTU as it was asked for, for the TAP.
    pub link_mtu: u16,
    /// The MTU for the engine: never less than IPv4 permits.
    pub mtu: Mtu,
    /// IPv4 addresses.
    pub v4: Ipv4Config,
    /// IPv6 addresses, with `-6`.
    pub v6: Option<Ipv6Config>,
    /// Our MAC address.
    pub gateway_mac: MacAddr,
    /// Where to take forwarding requests.
    pub api_socket: Option<PathBuf>,
    /// Whether the gateway address leads to the host's loopback.
    pub host_loopback: bool,
    /// Source addresses of outgoing sockets.
    pub outbound: Outbound,
    /// Whether to see nothing but /etc and /run.
    pub sandbox: bool,
    /// Whether to filter system calls.
    pub seccomp: bool,
}

impl Config {
    /// Checks `low`. Lines for stdout (warnings) are pushed to `notices`, also when it fails.
    ///
    /// # Errors
    /// [`Stop::Usage`] or [`Stop::Value`].
    pub fn new(low: LowArgs, notices: &mut Vec<String>, world: &dyn World) -> Result<Self, Stop> {
        if low.mac_address.is_some() && !low.configure {
            return usage("--macaddr cannot be specified when --configure or -c is not specified");
        }
        let target = match low.target_type.as_deref().map(OsStr::to_string_lossy).as_deref() {
            None | Some("netns") => namespace(&low, notices, world)?,
            Some("bess") => bess(&low, notices)?,
            Some(_) => return usage("--target-type must be either \"netns\" or \"bess\""),
        };
        let network = low.cidr.as_deref().map_or(Ok(DEFAULT_NETWORK), network)?;
        let outbound = Outbound {
            v4: low.outbound_addr.as_deref().map(|text| outbound_v4(text, world)).transpose()?,
            v6: low.outbound_addr6.as_deref().map(|text| outbound_v6(text, world)).transpose()?,
            ..Outbound::default()
        };
        let mac = low.mac_address.as_deref().map(mac_address).transpose()?;
        let v4 = ipv4(network, !low.disable_dns);
        Ok(Self {
            target,
            configure: low.configure.then_some(Configure { mac }),
            exit_fd: low.exit_fd,
            ready_fd: low.ready_fd,
            link_mtu: low.mtu,
            mtu: Mtu::new(low.mtu).unwrap_or(Mtu::MIN),
            v4,
            v6: low.ipv6.then(|| ipv6(!low.disable_dns)),
            gateway_mac: MacAddr::of_gateway(v4.gateway.into()),
            api_socket: low.api_socket,
            host_loopback: !low.disable_host_loopback,
            outbound,
            sandbox: low.sandbox,
            seccomp: low.seccomp,
        })
    }
}

fn usage<T>(diagnostic: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Usage(Some(diagnostic.into())))
}

fn namespace(low: &LowArgs, notices: &mut Vec<String>, world: &dyn World) -> Result<Target, Stop> {
    let kind = low.netns_type.as_deref().map(OsStr::to_string_lossy);
    let (first, second, surplus) = match low.positionals.as_slice() {
        [] => return Err(Stop::Usage(None)),
        [first] => (first, None, false),
        [first, second, rest @ ..] => (first, Some(second), !rest.is_empty()),
    };
    if kind.as_deref() == Some("tapfd") {
        let Some(fd) = integer(first).and_then(|fd| RawFd::try_from(fd).ok()).filter(|fd| *fd >= 0) else {
            return usage("TAPFD must a file descriptor");
        };
        warn_if(second.is_some(), notices);
        return Ok(Target::TapFd(fd));
    }
    let Some(tap) = second else { return Err(Stop::Usage(None)) };
    let netns = if matches!(kind.as_deref(), None | Some("pid")) {
        let pid =
            integer(first).and_then(|pid| i32::try_from(pid).ok()).and_then(|pid| u32::try_from(pid).ok());
        match pid {
            Some(pid @ 1..) => Netns::Pid(pid),
            _ => return usage("PID must be a positive integer"),
        }
    } else {
        // Any other word means a path: this is what callers have always got.
        if let Err(errno) = world.find(Path::new(first)) {
            return usage(format!("existing path expected when --netns-type=path: {}", strerror(errno)));
        }
        Netns::Path(first.into())
    };
    warn_if(surplus, notices);
    Ok(Target::Netns { netns, userns: low.userns_path.clone(), tap: tap_name(tap)? })
}

/// The longest name of an interface (IFNAMSIZ less the terminating NUL).
const TAPNAME_MAX: usize = 15;

/// Callers have always been able to pass longer names, which were cut.
fn tap_name(typed: &OsStr) -> Result<String, Stop> {
    let Some(name) = typed.to_str() else {
        return Err(Stop::Value(format!("TAPNAME {} is not UTF-8", typed.to_string_lossy())));
    };
    Ok(name.get(..name.floor_char_boundary(TAPNAME_MAX)).unwrap_or(name).to_owned())
}

fn warn_if(surplus: bool, notices: &mut Vec<String>) {
    if surplus {
        notices.push("WARNING: too many arguments".to_owned());
    }
}

fn bess(low: &LowArgs, notices: &mut Vec<String>) -> Result<Target, Stop> {
    let path = match low.positionals.as_slice() {
        [] => return Err(Stop::Usage(None)),
        [path] => path,
        _ => return usage("too many arguments"),
    };
    let conflicts = [
        (low.configure, "configure"),
        (low.netns_type.is_some(), "netns-type"),
        (low.userns_path.is_some(), "userns-path"),
    ];
    for (given, name) in conflicts {
        if given {
            return usage(format!("--{name} conflicts with --target-type=bess"));
        }
    }
    notices.push("WARNING: BESS mode is experimental".to_owned());
    Ok(Target::Bess(path.into()))
}

const DEFAULT_NETWORK: Ipv4Net = match Ipv4Net::new(Ipv4Addr::new(10, 0, 2, 0), 24) {
    Ok(network) => network,
    Err(_) => unreachable!(),
};

/// `a.b.c.d/nn` with up to two digits behind the slash; the address of the network itself; a prefix that leaves
/// room for network + 100.
fn network(text: &OsStr) -> Result<Ipv4Net, Stop> {
    let value = |diagnostic: String| Err(Stop::Value(diagnostic));
    let text = text.to_string_lossy();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let Some((address, prefix)) = text.split_once('/').filter(|(address, prefix)| {
        address.split('.').count() == 4
            && address.split('.').all(digits)
            && digits(prefix)
            && prefix.len() <= 2
    }) else {
        return value(format!("invalid CIDR: {text}"));
    };
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return value(format!("invalid network address: {address}"));
    };
    let Some(network) = prefix
        .parse()
        .ok()
        .filter(|prefix| (1..=25).contains(prefix))
        .and_then(|prefix| Ipv4Net::new(address, prefix).ok())
    else {
        return value("prefix length needs to be 1-25".to_owned());
    };
    if network.network() != address {
        return value(
            "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24".to_owned(),
        );
    }
    Ok(network)
}

fn ipv4(network: Ipv4Net, dns: bool) -> Ipv4Config {
    let v4 = Ipv4Config::slirp(network);
    // Under --disable-dns the address stays on the link, but connections to it time out (contract section 8).
    if dns { v4 } else { Ipv4Config { dns: None, silent: v4.dns, ..v4 } }
}

/// fd00::/64; the guest chooses its own address from the advertised prefix.
fn ipv6(dns: bool) -> Ipv6Config {
    let v6 = Ipv6Config::slirp(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64));
    Ipv6Config { dns: v6.dns.filter(|_| dns), ..v6 }
}

fn outbound_v4(text: &OsStr, world: &dyn World) -> Result<Ipv4Addr, Stop> {
    let text = text.to_string_lossy();
    let found = text.parse().ok().or_else(|| match world.interface_address(&text, false) {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    });
    found.ok_or_else(|| {
        Stop::Value("outbound-addr has to be valid ipv4 address or interface name.".to_owned())
    })
}

fn outbound_v6(text: &OsStr, world: &dyn World) -> Result<Ipv6Addr, Stop> {
    let text = text.to_string_lossy();
    let found = text.parse().ok().or_else(|| match world.interface_address(&text, true) {
        Some(IpAddr::V6(address)) => Some(address),
        _ => None,
    });
    // A source that is good for one link only would let no connection come about. The misspelling is what people find
    // when they search for the message.
    found
        .filter(|address: &Ipv6Addr| !address.is_unicast_link_local())
        .ok_or_else(|| Stop::Value("outbound-addr has to be valid ipv4 address or iterface name.".to_owned()))
}

fn mac_address(text: &OsStr) -> Result<MacAddr, Stop> {
    let text = text.to_string_lossy();
    text.parse().map_err(|_| {
        let hint = if text.split(':').count() > 6 { "  Is it too long?" } else { "" };
        Stop::Value(format!(
            "\"{text}\" is an invalid MAC address.{hint}\n\
             macaddress has to be a valid MAC address (hex string, 6 bytes, each byte separated by a ':')."
        ))
    })
}

#[cfg(test)]
mod tests;
