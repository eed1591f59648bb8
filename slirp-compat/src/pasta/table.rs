//! The options of `pasta` and `passt`: one table, for usage texts, man pages, completions and the parser.
//!
//! Both names have one list, in which each option says for whom it is: so an option of the other name is refused in
//! words of its own, and no prefix of a long name means one thing to `pasta` and another to `passt`. The order is that
//! in which an ambiguous prefix is answered, and scripts have seen that answer.

use crate::flags::table::{Complete, Flag};

/// The options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row of the table")]
pub enum Key {
    Debug,
    Quiet,
    Foreground,
    Stderr,
    Help,
    Socket,
    Fd,
    NsIfname,
    Pcap,
    Pid,
    Mtu,
    Address,
    Netmask,
    MacAddr,
    Gateway,
    Interface,
    Outbound,
    Dns,
    Search,
    Hostname,
    NoTcp,
    NoUdp,
    NoIcmp,
    NoDhcp,
    NoDhcpv6,
    NoNdp,
    NoRa,
    NoSplice,
    SpliceOnly,
    Freebind,
    NoMapGw,
    Ipv4Only,
    Ipv6Only,
    OneOff,
    TcpPorts,
    UdpPorts,
    TcpNs,
    UdpNs,
    Userns,
    Netns,
    NsMacAddr,
    DhcpDns,
    NoDhcpDns,
    DhcpSearch,
    NoDhcpSearch,
    DnsForward,
    DnsHost,
    NoNetnsQuit,
    Trace,
    Runas,
    LogFile,
    LogSize,
    Version,
    OutboundIf4,
    OutboundIf6,
    ConfigNet,
    NoCopyRoutes,
    NoCopyAddrs,
    NetnsOnly,
    MapHostLoopback,
    MapGuestAddr,
    HostLoToNsLo,
    Fqdn,
    RepairPath,
    MigrateExit,
    MigrateNoLinger,
    Stats,
    ConfPath,
    ChrootFallback,
    NoPidns,
    PrintCapabilities,
    VhostUser,
    Control,
}

/// For whom an option is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Everybody.
    All,
    /// A guest in a network namespace.
    Pasta,
    /// A virtual machine, whichever way.
    Passt,
    /// A virtual machine with shared memory.
    VhostUser,
}

impl Key {
    /// Who may use it.
    #[must_use]
    pub const fn audience(self) -> Audience {
        match self {
            Self::NsIfname
            | Self::SpliceOnly
            | Self::TcpNs
            | Self::UdpNs
            | Self::Userns
            | Self::Netns
            | Self::NsMacAddr
            | Self::DhcpDns
            | Self::DhcpSearch
            | Self::NoNetnsQuit
            | Self::ConfigNet
            | Self::NoCopyRoutes
            | Self::NoCopyAddrs
            | Self::NetnsOnly
            | Self::HostLoToNsLo
            | Self::NoPidns => Audience::Pasta,
            Self::Socket | Self::OneOff | Self::NoDhcpDns | Self::NoDhcpSearch => Audience::Passt,
            Self::RepairPath | Self::MigrateExit | Self::MigrateNoLinger => Audience::VhostUser,
            _ => Audience::All,
        }
    }

    /// The option as it is called where it is refused.
    #[must_use]
    pub const fn complaint(self) -> &'static str {
        match self {
            Self::Socket => "-s",
            Self::NsIfname => "-I",
            Self::TcpNs => "-T",
            Self::UdpNs => "-U",
            _ => "",
        }
    }
}

const fn flag(key: Key, long: &'static str, help: &'static str) -> Flag<Key> {
    Flag::new(key, long, help, "")
}

const fn long(key: Key, long: &'static str, help: &'static str, more: &'static str) -> Flag<Key> {
    Flag::new(key, long, help, more)
}

/// All options.
pub const FLAGS: &[Flag<Key>] = &[
    flag(Key::Debug, "debug", "say more").short(b'd'),
    flag(Key::Quiet, "quiet", "say nothing but warnings and errors").short(b'q'),
    flag(Key::Foreground, "foreground", "stay in the foreground, and log to standard error").short(b'f'),
    flag(Key::Stderr, "stderr", "no effect: standard error has the log until the start is over").short(b'e').hidden(),
    flag(Key::Help, "help", "show this text and exit").short(b'h'),
    long(
        Key::Socket,
        "socket",
        "listen for the virtual machine on this Unix socket",
        "Without it the first of /tmp/passt_1.socket to /tmp/passt_100.socket that is free. A path where somebody \
         answers is refused, a forgotten socket is replaced.",
    )
    .short(b's')
    .value("PATH", Complete::File),
    long(
        Key::Fd,
        "fd",
        "use this open descriptor, a connected socket, as the guest's link",
        "Ends with that connection, as with --one-off.",
    )
    .short(b'F')
    .value("FD", Complete::Nothing),
    flag(Key::NsIfname, "ns-ifname", "name of the interface in the namespace")
        .short(b'I')
        .value("NAME", Complete::Nothing)
        .default("that of the template interface, else tap0"),
    flag(Key::Pcap, "pcap", "record the guest's frames in this file")
        .short(b'p')
        .value("FILE", Complete::File),
    long(
        Key::Pid,
        "pid",
        "write the process id to this file",
        "It is that of the process that stays, and is there before the one in the foreground ends.",
    )
    .short(b'P')
    .value("FILE", Complete::File),
    long(
        Key::Mtu,
        "mtu",
        "largest packet on the guest's link, 0: assign none",
        "At most 65521. Below 68, what IPv4 needs at least, or 1280, what IPv6 needs, there is a warning.",
    )
    .short(b'm')
    .value("BYTES", Complete::Nothing)
    .default("65520"),
    long(
        Key::Address,
        "address",
        "the guest's address, once for IPv4 and once for IPv6",
        "A length of an IPv6 address is read, but the network is always a /64. The addresses of the template interface \
         are not copied then.",
    )
    .short(b'a')
    .value("ADDRESS[/BITS]", Complete::Nothing)
    .default("those of the template interface"),
    flag(Key::Netmask, "netmask", "length or mask of the guest's IPv4 network")
        .short(b'n')
        .value("MASK", Complete::Nothing)
        .default("that of the template interface"),
    flag(Key::MacAddr, "mac-addr", "our MAC address")
        .short(b'M')
        .value("MAC", Complete::Nothing)
        .default("9a:55:9a:55:9a:55"),
    long(
        Key::Gateway,
        "gateway",
        "the guest's default gateway, once for IPv4 and once for IPv6",
        "The routes of the template interface are not copied then.",
    )
    .short(b'g')
    .value("ADDRESS", Complete::Nothing)
    .default("that of the template interface"),
    flag(Key::Interface, "interface", "the host's interface from which addresses and routes are taken")
        .short(b'i')
        .value("NAME", Complete::Interface)
        .default("that of the first default route"),
    flag(Key::Outbound, "outbound", "source address of outgoing connections, once for IPv4 and once for IPv6")
        .short(b'o')
        .value("ADDRESS", Complete::Nothing),
    long(
        Key::Dns,
        "dns",
        "nameserver that the guest is told of; repeatable, none: no server",
        "Tells the guest by DHCP, DHCPv6 and router advertisement; pasta does so only with --dhcp-dns.",
    )
    .short(b'D')
    .value("ADDRESS", Complete::Nothing)
    .default("those of /etc/resolv.conf"),
    flag(Key::Search, "search", "search domain that the guest is told of; repeatable, none: no domain")
        .short(b'S')
        .value("DOMAIN", Complete::Nothing)
        .default("those of /etc/resolv.conf"),
    long(
        Key::Hostname,
        "hostname",
        "host name that DHCP tells the guest",
        "A command that pasta starts finds it as the name of its machine.",
    )
    .short(b'H')
    .value("NAME", Complete::Nothing),
    flag(Key::NoTcp, "no-tcp", "no TCP"),
    flag(Key::NoUdp, "no-udp", "no UDP"),
    flag(Key::NoIcmp, "no-icmp", "no echo requests, and no neighbour discovery"),
    flag(Key::NoDhcp, "no-dhcp", "no DHCP server"),
    flag(Key::NoDhcpv6, "no-dhcpv6", "no DHCPv6 server"),
    flag(Key::NoNdp, "no-ndp", "no answers to neighbour discovery"),
    flag(Key::NoRa, "no-ra", "no router advertisements"),
    long(
        Key::NoSplice,
        "no-splice",
        "connections from the host's loopback go through the guest's interface, too",
        "They are otherwise carried from socket to socket, without a packet.",
    ),
    long(
        Key::SpliceOnly,
        "splice-only",
        "nothing but forwarded ports between the loopback addresses of both sides",
        "The namespace gets no network: no DNS, DHCP or echo. Implies --host-lo-to-ns-lo.",
    ),
    flag(Key::Freebind, "freebind", "listen also on addresses that the host does not have (yet)"),
    flag(Key::NoMapGw, "no-map-gw", "the gateway's address does not lead to the host's loopback"),
    flag(Key::Ipv4Only, "ipv4-only", "IPv4 only").short(b'4'),
    flag(Key::Ipv6Only, "ipv6-only", "IPv6 only").short(b'6'),
    flag(Key::OneOff, "one-off", "end when the first client has gone").short(b'1'),
    long(Key::TcpPorts, "tcp-ports", "TCP ports of the host that lead to the guest", "Repeatable. See PORTS.")
        .short(b't')
        .value("SPEC", Complete::Nothing),
    long(Key::UdpPorts, "udp-ports", "UDP ports of the host that lead to the guest", "Repeatable. See PORTS.")
        .short(b'u')
        .value("SPEC", Complete::Nothing),
    long(
        Key::TcpNs,
        "tcp-ns",
        "TCP ports of the namespace's loopback that lead to the host's",
        "Repeatable. See PORTS.",
    )
    .short(b'T')
    .value("SPEC", Complete::Nothing),
    long(
        Key::UdpNs,
        "udp-ns",
        "UDP ports of the namespace's loopback that lead to the host's",
        "Repeatable. See PORTS.",
    )
    .short(b'U')
    .value("SPEC", Complete::Nothing),
    flag(Key::Userns, "userns", "user namespace to join first").value("PATH", Complete::File),
    flag(Key::Netns, "netns", "network namespace to join; a name stands for /run/netns/NAME")
        .value("PATH|NAME", Complete::File),
    flag(Key::NsMacAddr, "ns-mac-addr", "MAC address of the interface in the namespace")
        .value("MAC", Complete::Nothing)
        .default("the kernel's choice"),
    flag(Key::DhcpDns, "dhcp-dns", "tell the guest nameservers"),
    flag(Key::NoDhcpDns, "no-dhcp-dns", "do not tell the guest nameservers"),
    flag(Key::DhcpSearch, "dhcp-search", "tell the guest search domains"),
    flag(Key::NoDhcpSearch, "no-dhcp-search", "do not tell the guest search domains"),
    long(
        Key::DnsForward,
        "dns-forward",
        "address where we are the guest's nameserver, once for IPv4 and once for IPv6",
        "Port 53 is answered with the help of all nameservers of the host, whose changes are followed, or by those of \
         --dns-host. Port 853 goes to the first of them as it is.",
    )
    .value("ADDRESS", Complete::Nothing),
    flag(Key::DnsHost, "dns-host", "nameserver to ask for --dns-forward, once for IPv4 and once for IPv6")
        .value("ADDRESS", Complete::Nothing)
        .default("those of /etc/resolv.conf"),
    flag(Key::NoNetnsQuit, "no-netns-quit", "stay when the namespace's path is gone"),
    flag(Key::Trace, "trace", "say even more than with --debug"),
    long(
        Key::Runas,
        "runas",
        "user and group to become, by name or number",
        "Only root of the machine needs it, and becomes nobody otherwise.",
    )
    .value("USER[:GROUP]", Complete::Nothing),
    flag(Key::LogFile, "log-file", "log to this file in place of the system's log")
        .short(b'l')
        .value("FILE", Complete::File),
    long(
        Key::LogSize,
        "log-size",
        "how long the log file may get",
        "At least 40960. The oldest 30 percent are cut off when it is full.",
    )
    .value("BYTES", Complete::Nothing)
    .default("1048576"),
    flag(Key::Version, "version", "show the version and exit"),
    flag(Key::OutboundIf4, "outbound-if4", "interface that outgoing IPv4 connections take")
        .value("NAME", Complete::Interface),
    flag(Key::OutboundIf6, "outbound-if6", "interface that outgoing IPv6 connections take")
        .value("NAME", Complete::Interface),
    long(
        Key::ConfigNet,
        "config-net",
        "configure the namespace's interfaces, addresses and routes",
        "All of it can be used when the start is over. Without this option the guest does it by DHCP, DHCPv6 and router \
         advertisement.",
    ),
    flag(Key::NoCopyRoutes, "no-copy-routes", "with --config-net: no more routes than the default one").hidden(),
    flag(Key::NoCopyAddrs, "no-copy-addrs", "with --config-net: no more than one address of each family").hidden(),
    long(
        Key::NetnsOnly,
        "netns-only",
        "neither join nor make a user namespace",
        "Also when --netns is given without --userns.",
    ),
    long(
        Key::MapHostLoopback,
        "map-host-loopback",
        "address that leads to the host's loopback, once for IPv4 and once for IPv6; none: nothing does",
        "Connections from the host's 127.0.0.1 and ::1 seem to come from there.",
    )
    .value("ADDRESS", Complete::Nothing)
    .default("the gateway's"),
    long(
        Key::MapGuestAddr,
        "map-guest-addr",
        "address that leads to the host where the guest has the host's own, once for IPv4 and once for IPv6",
        "",
    )
    .value("ADDRESS", Complete::Nothing)
    .default("none"),
    flag(
        Key::HostLoToNsLo,
        "host-lo-to-ns-lo",
        "forwarded connections of the host's loopback reach the namespace's loopback",
    ),
    flag(Key::Fqdn, "fqdn", "full host name that DHCP tells the guest").value("NAME", Complete::Nothing),
    flag(Key::Socket, "socket-path", "alias of --socket").value("PATH", Complete::File).hidden(),
    long(
        Key::RepairPath,
        "repair-path",
        "socket of the helper for migrations",
        "Accepted: a migration is refused, and the guest stays.",
    )
    .value("PATH|none", Complete::File),
    flag(Key::MigrateExit, "migrate-exit", "accepted, without effect").hidden(),
    flag(Key::MigrateNoLinger, "migrate-no-linger", "accepted, without effect").hidden(),
    flag(Key::Stats, "stats", "show counters on standard error, so often; needs --foreground before it")
        .value("SECONDS", Complete::Nothing),
    flag(Key::ConfPath, "conf-path", "let pesto(1) change forwarded ports over this Unix socket")
        .short(b'c')
        .value("PATH", Complete::File),
    flag(Key::ChrootFallback, "chroot-fallback", "use chroot(2) where pivot_root(2) is refused"),
    flag(Key::NoPidns, "no-pidns", "the command stays in our PID namespace, and is left alone at the end"),
    flag(Key::PrintCapabilities, "print-capabilities", "show what the vhost-user back-end is, and exit"),
    flag(Key::VhostUser, "vhost-user", "speak vhost-user with the virtual machine"),
    long(
        Key::Control,
        "control",
        "take orders on this Unix socket: one JSON object in each packet",
        "Only slipway has this option. The orders are described in docs/control.md.",
    )
    .value("PATH", Complete::File),
];
