//! From what was typed and what the file says to a [`Config`]: who counts more, what holds where both are silent, and
//! whether it makes sense.
//!
//! The order of checks is part of the contract, as are their words: a launcher shows the first complaint. Three files
//! share it: here is who counts more, [`addresses`] has the network's own rules, [`texts`] what single values look
//! like. Whatever is looked up outside goes by [`World`].
//!
//! | | command line | file |
//! |---|---|---|
//! | sockets, files, `mtu`, `debug`, `services` | counts more | |
//! | `listen` | replaces the list | |
//! | forwards by SSH | come after those of the file | |
//! | `subnet`, the three addresses | | counts more |
//! | `ssh-port`, `pcap` | only without a file | by `stack.forwards`, `stack.capture-file` |
//!
//! Zones, search domains, the SSH port, the first guest's lease and HyperKit's MAC address are there without being
//! asked for only if there is no file: one that is there starts empty. Contract: gvproxy §1.1, §2.

mod addresses;
mod texts;

use crate::args::{Args, SSH_PORT};
use crate::config::{Config, DEVICE_MAC, GATEWAY_MAC, Interfaces, SshForward, Stack};
use crate::flags::quote;
use crate::listen::{BadUrl, Endpoint};
use crate::logrus;
use crate::yaml::{Document, Stack as FileStack};
use addresses::Addresses;
use log::LevelFilter;
use slipway_dns::config::gvproxy::default_zones;
use slipway_netstack::config::Mtu;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The UUID that HyperKit's first guest has.
const HYPERKIT: &str = "c3d68012-0208-11ea-9fd7-f2189899ab08";
/// Connections of guests that may be on their way to being made.
const IN_FLIGHT: u32 = 128;
/// How long making one may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What is looked up outside.
pub trait World {
    /// Whether something has this path.
    fn is_there(&self, path: &Path) -> bool;
    /// What stat(2) says of it, if it cannot be had.
    ///
    /// # Errors
    /// Those of stat(2).
    fn stat(&self, path: &Path) -> io::Result<()>;
    /// The host's search domains.
    fn search_domains(&self) -> Vec<String>;
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A word at level fatal, and exit code 1.
    Fatal(String),
    /// What the original finds out after its start only: a word at level error, and exit code 0.
    Late(String),
}

fn fatal(text: impl Into<String>) -> Failure {
    Failure::Fatal(text.into())
}

/// What is logged and where, which has to be known before anything is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Lines of this level and above.
    pub level: LevelFilter,
    /// The file, if not stderr.
    pub file: Option<PathBuf>,
    /// A level that there is not.
    pub unknown: Option<String>,
}

impl Journal {
    /// What both say of it.
    #[must_use]
    pub fn new(args: &Args, document: Option<&Document>) -> Self {
        let named = document.and_then(|document| chosen("", document.log_level.as_ref()));
        let known = named.as_deref().map(logrus::level);
        let level =
            if args.debug { LevelFilter::Debug } else { known.flatten().unwrap_or(LevelFilter::Info) };
        let file = chosen(&args.log_file, document.and_then(|document| document.log_file.as_ref()));
        let unknown = named.filter(|_| known == Some(None));
        Self { level, file: file.map(PathBuf::from), unknown }
    }
}

/// The word of the command line, else that of the file; an empty one is none.
fn chosen(typed: &str, written: Option<&String>) -> Option<String> {
    Some(typed)
        .filter(|typed| !typed.is_empty())
        .or_else(|| written.map(String::as_str))
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
}

/// Both together, checked. `document`: the file, if one was named.
///
/// # Errors
/// The first thing that is wrong.
pub fn config(args: &Args, document: Option<&Document>, world: &impl World) -> Result<Config, Failure> {
    let none = Document::default();
    let file = document.unwrap_or(&none);
    let nothing = FileStack::default();
    let stack = file.stack.as_ref().unwrap_or(&nothing);
    let addresses = Addresses::choose(args, stack)?;
    let notification = notification(args, file)?;
    let interfaces = interfaces(args, file);
    check_interfaces(&interfaces, world)?;
    if document.is_none() {
        check_ssh_port(args)?;
    } else if args.ssh_port.is_some() {
        log::warn!(
            "-ssh-port means nothing beside -config: stack.forwards in the file says where ports lead"
        );
    }
    let forwards = forwards(args, file, world)?;
    let level = Journal::new(args, document).level;
    let stack = self::stack(args, document.is_some(), file, stack, &addresses, world)?;
    let truth = |typed: bool, written: Option<bool>| typed || written.unwrap_or(false);
    Ok(Config {
        listen: if args.listen.is_empty() {
            file.listen.clone().unwrap_or_default()
        } else {
            args.listen.clone()
        },
        services: chosen(&args.services, file.services.as_ref()),
        stack: Stack { debug: stack.debug || level == LevelFilter::Debug, ..stack },
        interfaces,
        forwards,
        pid_file: chosen(&args.pid_file, file.pid_file.as_ref()).map(PathBuf::from),
        log_file: chosen(&args.log_file, file.log_file.as_ref()).map(PathBuf::from),
        notification,
        log_level: level,
        stay: truth(args.stay, file.stay),
        expose_all_protocols: truth(args.expose_all, file.gateway_expose_all_protocols),
        preserve_source: truth(args.preserve_source, file.preserve_source),
        ipv6: truth(args.ipv6, file.ipv6),
    })
}

/// The command line has a URL. The file's is a path for the original; a URL is no path that anybody has, and taken
/// for what it is.
fn notification(args: &Args, file: &Document) -> Result<Option<PathBuf>, Failure> {
    if args.notification.is_empty() {
        let written = chosen("", file.notification.as_ref());
        return Ok(written.map(|text| match Endpoint::parse(&text) {
            Ok(Endpoint::Unix(path)) => path,
            _ => text.into(),
        }));
    }
    match Endpoint::parse(&args.notification) {
        Ok(Endpoint::Unix(path)) => Ok(Some(path)),
        Err(BadUrl::Syntax(why)) => {
            Err(fatal(format!("invalid value for notification listen address: {why}")))
        }
        Ok(_) | Err(BadUrl::Scheme(_)) => Err(fatal("notification listen address must be unix:// address")),
    }
}

fn interfaces(args: &Args, file: &Document) -> Interfaces {
    let none = crate::yaml::Interfaces::default();
    let file = file.interfaces.as_ref().unwrap_or(&none);
    Interfaces {
        vpnkit: chosen(&args.vpnkit, file.vpnkit.as_ref()),
        qemu: chosen(&args.qemu, file.qemu.as_ref()),
        bess: chosen(&args.bess, file.bess.as_ref()),
        stdio: chosen(&args.stdio, file.stdio.as_ref()).is_some(),
        vfkit: chosen(&args.vfkit, file.vfkit.as_ref()),
        fd: chosen(&args.fd, file.fd.as_ref()),
    }
}

fn check_interfaces(interfaces: &Interfaces, world: &impl World) -> Result<(), Failure> {
    let checks: [(&str, &Option<String>, Option<&str>); 4] = [
        ("qemu", &interfaces.qemu, None),
        ("bess", &interfaces.bess, Some("unixpacket")),
        ("vfkit", &interfaces.vfkit, Some("unixgram")),
        ("fd", &interfaces.fd, Some("unix")),
    ];
    for (name, address, wanted) in checks {
        let Some(address) = address else { continue };
        let endpoint = Endpoint::parse(address);
        let fits = match (&endpoint, wanted) {
            (Err(BadUrl::Syntax(why)), _) => {
                return Err(fatal(format!("invalid value for {name} listen address: {why}")));
            }
            (_, None) | (Ok(Endpoint::UnixPacket(_)), Some("unixpacket")) => true,
            (Ok(Endpoint::Unixgram(_)), Some("unixgram")) => true,
            (Ok(Endpoint::Unix(_)), Some("unix")) => true,
            _ => false,
        };
        if let Some(wanted) = wanted.filter(|_| !fits) {
            return Err(fatal(format!("{name} listen address must be {wanted}:// address")));
        }
        if let Some(path) = endpoint.as_ref().ok().and_then(Endpoint::path)
            && world.is_there(path)
        {
            return Err(fatal(format!("{} already exists", quote(&path.to_string_lossy()))));
        }
    }
    let pairs = [
        ("qemu", interfaces.qemu.is_some(), "vpnkit", interfaces.vpnkit.is_some()),
        ("bess", interfaces.bess.is_some(), "vpnkit", interfaces.vpnkit.is_some()),
        ("qemu", interfaces.qemu.is_some(), "bess", interfaces.bess.is_some()),
    ];
    match pairs.into_iter().find(|(_, one, _, other)| *one && *other) {
        Some((one, _, other, _)) => {
            Err(fatal(format!("cannot use {one} and {other} protocol at the same time")))
        }
        None => Ok(()),
    }
}

fn check_ssh_port(args: &Args) -> Result<(), Failure> {
    match args.ssh_port.unwrap_or(SSH_PORT) {
        -1 | 1024..=65535 => Ok(()),
        _ => Err(fatal("ssh-port value must be between 1024 and 65535")),
    }
}

/// Those of the file, then those that were typed.
fn forwards(args: &Args, file: &Document, world: &impl World) -> Result<Vec<SshForward>, Failure> {
    let count = args.forward_sock.len();
    if [&args.forward_dest, &args.forward_user, &args.forward_identity].iter().any(|list| list.len() != count)
    {
        return Err(fatal(
            "--forward-sock, --forward-dest, --forward-user, and --forward-identity must all be specified together, \
             the same number of times, or not at all",
        ));
    }
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let written = file.forwards.iter().flatten().map(|forward| SshForward {
        socket: text(&forward.socket),
        dest: text(&forward.dest),
        user: text(&forward.user),
        identity: text(&forward.identity).into(),
    });
    let first = args.forward_sock.iter().zip(&args.forward_dest);
    let second = args.forward_user.iter().zip(&args.forward_identity);
    let typed = first.zip(second).map(|((socket, dest), (user, identity))| SshForward {
        socket: socket.clone(),
        dest: dest.clone(),
        user: user.clone(),
        identity: identity.into(),
    });
    let all: Vec<_> = written.chain(typed).collect();
    for forward in &all {
        world.stat(&forward.identity).map_err(|error| {
            let shown = forward.identity.to_string_lossy();
            let why = crate::listen::words(&format!("stat {shown}"), &error);
            fatal(format!("identity file {} can't be loaded: {why}", quote(&shown)))
        })?;
    }
    Ok(all)
}

/// The virtual network; `has_file`: it starts empty.
fn stack(
    args: &Args,
    has_file: bool,
    file: &Document,
    stack: &FileStack,
    addresses: &Addresses,
    world: &impl World,
) -> Result<Stack, Failure> {
    let Addresses { subnet, gateway, device, host } = *addresses;
    let mtu = if args.mtu == 0 { stack.mtu.filter(|mtu| *mtu != 0).unwrap_or(1500) } else { args.mtu };
    let mtu = u16::try_from(mtu).ok().filter(|mtu| Mtu::new(*mtu).is_some());
    let mtu = mtu.ok_or_else(|| Failure::Late("gvproxy exiting: mtu is out of range".to_owned()))?;
    let mac = chosen("", stack.gateway_mac_address.as_ref());
    let gateway_mac = mac.map_or(Ok(GATEWAY_MAC), |mac| texts::mac("gatewayMacAddress", &mac))?;
    let nat = texts::pairs("nat", &stack.nat, texts::ip, texts::ip)?;
    let virtual_ips = texts::all("gatewayVirtualIPs", &stack.gateway_virtual_ips, texts::ip)?;
    let ec2 = [stack.ec2_metadata_access, file.ec2_metadata_access].contains(&Some(true));
    let common = Stack {
        mtu,
        subnet,
        gateway_ip: gateway,
        device_ip: device,
        host_ip: host,
        gateway_mac,
        dns: texts::zones(stack.dns.iter().flatten())?,
        search: stack.dns_search_domains.clone().unwrap_or_default(),
        forwards: stack.forwards.clone().unwrap_or_default().0,
        nat: if nat.is_empty() { vec![(host, Ipv4Addr::LOCALHOST)] } else { nat },
        virtual_ips: if virtual_ips.is_empty() { vec![host] } else { virtual_ips },
        static_leases: texts::pairs("dhcpStaticLeases", &stack.dhcp_static_leases, texts::ip, texts::mac)?,
        vpnkit_macs: texts::pairs(
            "vpnKitUUIDMacAddresses",
            &stack.vpnkit_uuid_mac_addresses,
            texts::any,
            texts::mac,
        )?,
        ec2_metadata: args.ec2_metadata || ec2,
        tcp_max_in_flight: texts::in_flight(stack.tcp_max_in_flight)?.unwrap_or(IN_FLIGHT),
        tcp_connect_timeout: texts::timeout(stack.tcp_connect_timeout.as_deref())?.unwrap_or(CONNECT_TIMEOUT),
        capture_file: chosen("", stack.capture_file.as_ref()).map(PathBuf::from),
        debug: stack.debug.unwrap_or(false),
    };
    if has_file {
        return Ok(common);
    }
    let port = args.ssh_port.unwrap_or(SSH_PORT);
    let ssh = (port != -1).then(|| (format!("127.0.0.1:{port}"), format!("{device}:22")));
    Ok(Stack {
        dns: default_zones(gateway.into(), host.into()),
        search: world.search_domains(),
        forwards: ssh.into_iter().collect(),
        static_leases: vec![(device, DEVICE_MAC)],
        vpnkit_macs: vec![(HYPERKIT.to_owned(), DEVICE_MAC)],
        capture_file: chosen(&args.pcap, None).map(PathBuf::from),
        ..common
    })
}

#[cfg(test)]
mod tests;
