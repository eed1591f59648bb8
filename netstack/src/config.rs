//! What an engine is told at its birth: MTU, what the device can do, limits, keys, and the plan of addresses to begin
//! with.
//!
//! Everything here is already valid: texts are parsed and ranges checked by whoever builds it, so nothing
//! on the data path has to doubt it. What changes while running (addresses, nameservers, forwarding) is a verb instead.

use crate::addr::MacAddr;
use crate::device::Capabilities;
use crate::ethernet::neighbour::OnLink;
use crate::ip::plan::Plan;
use crate::upstream::{DeviceId, Source};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

/// The largest IP packet on the guest's link, in bytes, headers included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u16);

impl Mtu {
    /// The smallest that IPv4 permits (RFC 791 §3.2, "every internet module").
    pub const MIN: Self = Self(68);
    /// The default of Ethernet.
    pub const ETHERNET: Self = Self(1500);

    /// `bytes`, unless it is below [`Mtu::MIN`].
    #[must_use]
    pub const fn new(bytes: u16) -> Option<Self> {
        if bytes < Self::MIN.0 { None } else { Some(Self(bytes)) }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u16 {
        self.0
    }
}

/// Everything an engine needs to know before the first frame.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our own MAC address: the gateway, the DNS address and every remote host answer with it.
    pub mac: MacAddr,
    /// Who is on the guest's link.
    pub on_link: OnLink,
    /// The MTU of the guest's link.
    pub mtu: Mtu,
    /// What the device does for us.
    pub device: Capabilities,
    /// The addresses on the guest's link, and what they stand for: the plan that it begins with.
    pub plan: Plan,
    /// Source address of the sockets opened for the guest, one per family, if not the kernel's choice.
    pub outbound: Outbound,
    /// Search domains that DHCP and router advertisements tell.
    pub dns_search: Vec<String>,
    /// What DHCP tells the guest that it is called; `None`: nothing.
    pub names: GuestNames,
    /// Whether DHCP and router advertisements tell the MTU.
    pub tell_mtu: bool,
    /// TCP limits.
    pub tcp: TcpConfig,
    /// UDP limits.
    pub udp: UdpConfig,
    /// The host's ports.
    pub ports: PortConfig,
    /// Secrets, drawn at random by the caller.
    pub keys: Keys,
    /// How many flows may exist at once.
    pub max_flows: u32,
}

impl Config {
    /// An engine that calls itself `mac`, on a link that takes off its hands what `device` says: no addresses yet, and
    /// the limits are those of a small guest. Callers name what they have otherwise: `Config { plan, ..Config::new(..)
    /// }`.
    #[must_use]
    pub fn new(mac: MacAddr, keys: Keys, device: Capabilities) -> Self {
        Self {
            mac,
            on_link: OnLink::default(),
            mtu: Mtu::ETHERNET,
            device,
            plan: Plan::default(),
            outbound: Outbound::default(),
            dns_search: Vec::new(),
            names: GuestNames::default(),
            tell_mtu: true,
            tcp: TcpConfig::default(),
            udp: UdpConfig::default(),
            ports: PortConfig::default(),
            keys,
            max_flows: 1024,
        }
    }
}

/// What a guest is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestNames {
    /// Its name.
    pub host: Option<String>,
    /// Its name with the domain (RFC 4702, RFC 4704).
    pub full: Option<String>,
}

/// Where the sockets speak from that are opened for the guest. What is left out is the kernel's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outbound {
    /// The address, for IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6.
    pub v6: Option<Ipv6Addr>,
    /// The interface that all of IPv4 uses, whatever the host's routes say.
    pub device4: Option<DeviceId>,
    /// The same for IPv6.
    pub device6: Option<DeviceId>,
    /// Where addresses lie that mean something on one link only, unless an interface is given for all.
    pub zone: Option<DeviceId>,
    /// Whether datagrams should leave from the port that they have in the guest, and echo requests with its identifier.
    pub same_ports: bool,
    /// Whether datagrams may go to everybody on one of the host's networks.
    pub broadcast: bool,
}

impl Outbound {
    /// Where sockets speak from that talk to `remote`.
    #[must_use]
    pub fn toward(&self, remote: IpAddr) -> Source {
        let (address, device) = match remote {
            IpAddr::V4(_) => (self.v4.map(IpAddr::V4), self.device4),
            IpAddr::V6(_) => (self.v6.map(IpAddr::V6), self.device6),
        };
        Source { address, device, zone: self.zone, ..Source::default() }
    }

    /// Where the socket speaks from that carries what `guest` sends to whomever: datagrams from a port, or echo
    /// requests with an identifier.
    #[must_use]
    pub fn of(&self, guest: SocketAddr) -> Source {
        let port = if self.same_ports { guest.port() } else { 0 };
        Source { port, broadcast: self.broadcast, ..self.toward(guest.ip()) }
    }
}

/// TCP limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpConfig {
    /// The most that one flow may hold for a slow upstream, in bytes, and so the largest window it advertises.
    pub max_window: u32,
    /// What all flows together may hold or have advertised beyond their first window, in bytes.
    pub window_pool: u64,
    /// What all flows together may hold, in bytes of memory: first windows are not taken from the pool. A guest address
    /// may hold as much as is still free, one alone half of it. Nobody is reset: what finds no room is not
    /// acknowledged.
    pub max_held: u64,
    /// After this much silence both ends are probed.
    pub keepalive_idle: Duration,
    /// Between probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes before the flow is reset.
    pub keepalive_probes: u8,
    /// How long a connection whose one half is closed may stay silent.
    pub half_closed_timeout: Duration,
    /// How long the host may take to make a connection. `None`: as long as its kernel does.
    pub connect_timeout: Option<Duration>,
    /// How many connections the host may be making at once. What is over waits; SYNs that have waited too long get no
    /// answer, and come again. `None`: any number.
    pub max_in_flight: Option<u32>,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            max_window: 4 << 20,
            window_pool: 128 << 20,
            max_held: 384 << 20,
            // The kernel's own defaults: net.ipv4.tcp_keepalive_{time,intvl,probes}.
            keepalive_idle: Duration::from_secs(7200),
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 9,
            // conntrack's TIME for a half-closed connection is 2 minutes; a download after an early
            // shutdown(SHUT_WR) may pause far longer, so this is a day: bounded, yet no working flow is cut.
            half_closed_timeout: Duration::from_secs(86_400),
            connect_timeout: None,
            max_in_flight: None,
        }
    }
}

/// UDP limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpConfig {
    /// A flow that saw traffic in one direction only ends after this much silence.
    pub timeout: Duration,
    /// A flow that saw traffic both ways ends after this much silence.
    pub stream_timeout: Duration,
    /// Whether only those whom a guest endpoint has sent to get an answer to it. If not, everybody does.
    pub contacted_only: bool,
}

impl Default for UdpConfig {
    fn default() -> Self {
        // conntrack's defaults: nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream.
        Self {
            timeout: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(120),
            contacted_only: false,
        }
    }
}

/// How many ports the host has for those who ask for none in particular, of which flows may use a part. The rest is for
/// the host's other programs: without a port they cannot even ask for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortConfig {
    /// The host's ephemeral ports: net.ipv4.ip_local_port_range, less the reserved ones.
    pub ephemeral: u16,
    /// Echo flows. Each takes one of the host's 65 536 identifiers.
    pub echo: u16,
}

impl PortConfig {
    /// UDP flows with a socket of their own. Each takes a port of the whole host.
    #[must_use]
    pub fn udp(self) -> usize {
        usize::from(self.ephemeral / 4).max(1)
    }

    /// TCP connections to one destination. Each takes a port for that destination.
    #[must_use]
    pub fn tcp_to_one(self) -> u32 {
        u32::from(self.ephemeral - self.ephemeral / 4)
    }
}

impl Default for PortConfig {
    fn default() -> Self {
        // The kernel's default: 32768 to 60999.
        Self { ephemeral: 28_232, echo: 1 << 14 }
    }
}

/// Secrets, drawn at random by the caller; fixed in tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Key of the flow table's SipHash.
    pub flow_hash: [u8; 16],
    /// Key of initial sequence numbers (RFC 6528).
    pub isn: [u8; 16],
    /// Key of what else must not be guessed, or chosen for its hash: where the identification of fragments begins, the
    /// neighbour cache.
    pub others: [u8; 16],
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys(secret)")
    }
}
