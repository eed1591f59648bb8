//! What a start was asked for: command line and file together, with every default filled in and everything checked.
//!
//! Plain data without a way to be invalid that anybody below had to look for: addresses are addresses, of the subnet
//! and distinct; sockets have a scheme that fits them. What is text here still (`listen`, `stack.forwards`) is text in
//! the HTTP API, too, where it is listed as it was given.

use ipnet::Ipv4Net;
use log::LevelFilter;
use slipway_dns::config::gvproxy::Zone;
use slipway_netstack::addr::MacAddr;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// A network with an address in it as it was written: `10.0.0.7/24` is not `10.0.0.0/24`, for no guest may have the
/// address that was written either.
pub type Subnet = Ipv4Net;

/// The MAC address of the gateway where none is named.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd]);
/// The one that hypervisors give the first guest.
pub const DEVICE_MAC: MacAddr = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]);

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the HTTP API is, whole; in words as they were given.
    pub listen: Vec<String>,
    /// Where it is once more, without `/connect`.
    pub services: Option<String>,
    /// The virtual network.
    pub stack: Stack,
    /// Where guests come to.
    pub interfaces: Interfaces,
    /// Sockets of the host that lead into the guest by SSH.
    pub forwards: Vec<SshForward>,
    /// Where the process id is written, and where the log.
    pub pid_file: Option<PathBuf>,
    /// Where lines of the log go, if not to stderr.
    pub log_file: Option<PathBuf>,
    /// A socket that hears of guests that come and go.
    pub notification: Option<PathBuf>,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Whether the process stays for the next guest when its last one has gone.
    pub stay: bool,
    /// Whether guests may expose sockets and SSH forwards, too.
    pub expose_all_protocols: bool,
    /// Whether guests see the real clients of forwarded ports.
    pub preserve_source: bool,
    /// Whether guests have IPv6.
    pub ipv6: bool,
}

/// The virtual network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Of the gateway's link, in bytes; guests are told by DHCP.
    pub mtu: u16,
    /// The guests' network.
    pub subnet: Subnet,
    /// Ours in it.
    pub gateway_ip: Ipv4Addr,
    /// That of the guest that SSH leads to.
    pub device_ip: Ipv4Addr,
    /// The one that stands for the host.
    pub host_ip: Ipv4Addr,
    /// The gateway's.
    pub gateway_mac: MacAddr,
    /// Names that are answered here; the first zone that fits counts.
    pub dns: Vec<Zone>,
    /// Search domains that guests are told.
    pub search: Vec<String>,
    /// Ports of the host (`HOST:PORT`, `udp:HOST:PORT`), and where they lead (`IP:PORT`), in order.
    pub forwards: Vec<(String, String)>,
    /// Destinations that lead elsewhere, and where.
    pub nat: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Further addresses that the gateway answers for.
    pub virtual_ips: Vec<Ipv4Addr>,
    /// Who gets which address.
    pub static_leases: Vec<(Ipv4Addr, MacAddr)>,
    /// The MAC addresses of HyperKit's guests, by UUID.
    pub vpnkit_macs: Vec<(String, MacAddr)>,
    /// Whether guests reach 169.254.0.0/16.
    pub ec2_metadata: bool,
    /// How many connections of guests may be on their way to being made.
    pub tcp_max_in_flight: u32,
    /// How long making one may take.
    pub tcp_connect_timeout: Duration,
    /// Where IP packets at the gateway are written down.
    pub capture_file: Option<PathBuf>,
    /// Whether frames are described in the log.
    pub debug: bool,
}

/// Where guests come to: addresses in words as they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// HyperKit and VPNKit: `unix://`, `tcp://`, `vsock://`.
    pub vpnkit: Option<String>,
    /// QEMU's streams: the same.
    pub qemu: Option<String>,
    /// User Mode Linux: `unixpacket://`.
    pub bess: Option<String>,
    /// Whether standard input and output are a guest.
    pub stdio: bool,
    /// vfkit and libkrun: `unixgram://`.
    pub vfkit: Option<String>,
    /// Guests' descriptors are handed over there: `unix://`.
    pub fd: Option<String>,
}

/// A socket of the host that leads to one in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshForward {
    /// On the host: a path, or `unix://`.
    pub socket: String,
    /// In the guest: a path.
    pub dest: String,
    /// The user there.
    pub user: String,
    /// The file with the private key.
    pub identity: PathBuf,
}
