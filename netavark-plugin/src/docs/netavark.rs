//! The man page of `netavark`.

use crate::cli::Cli;
use clap::CommandFactory as _;
use slipway_manual::model::{Block, Page, options_of_command};

use Block::{Code, Term, Text};

/// netavark(8).
pub(super) fn page() -> Page {
    Page {
        name: "netavark",
        section: 8,
        command: "netavark",
        about: "connects containers to networks",
        synopsis: vec![
            "[OPTION]... setup|teardown NETNS_PATH".into(),
            "[OPTION]... update NETWORK_NAME --network-dns-servers LIST".into(),
            "[OPTION]... create".into(),
            "[OPTION]... dhcp-proxy|firewall-reload|firewalld-reload|version".into(),
        ],
        description: &[
            Text(
                "Called by a container engine: makes bridges, interfaces, addresses, routes and firewall rules for one container, \
                 hands its names to aardvark-dns(8), and undoes all of it. What is wanted comes as JSON on standard input; the \
                 answer goes to standard output.",
            ),
            Text(
                "Command line, JSON, files and rules are those of netavark 1.17 and 2.1, so that it can take the place of either: \
                 containers.conf(5) names the directory in helper_binaries_dir. Containers that the original has set up are torn down by \
                 this one, and the other way round.",
            ),
            Term("netavark setup NETNS_PATH", "connects a container to all its networks, or to none."),
            Term(
                "netavark teardown NETNS_PATH",
                "disconnects it. What is gone already is passed over; all that failed is reported at the end. SIGTERM and SIGINT wait.",
            ),
            Term("netavark update NETWORK_NAME", "changes the DNS servers of a network in use."),
            Term("netavark create", "completes and checks the definition of a new network."),
            Term(
                "netavark dhcp-proxy [-d DIR] [-t SECS] [-a SECS]",
                "gets and renews leases of DHCP servers for containers; started by its socket. See DHCP PROXY.",
            ),
            Term("netavark firewall-reload", "makes all rules again after the rule set was flushed."),
            Term("netavark firewalld-reload", "does so now and whenever firewalld is reloaded, for ever."),
            Term("netavark version", "prints what this build is, as JSON."),
        ],
        options: options_of_command(&Cli::command()),
        // Those of dhcp-proxy have a section of their own; the others have none.
        commands: Vec::new(),
        sections: &[
            (
                "TWO CONTRACTS",
                &[
                    Text(
                        "Podman 5 sends the networks as an object and is served by the defaults of netavark 1.17; Podman 6 sends an array and is served by \
                         those of 2.1. They differ in three things:",
                    ),
                    Term(
                        "isolation of bridge networks",
                        "none in 1.17, strict in 2.1, unless the option isolate is given.",
                    ),
                    Term(
                        "metric of macvlan and ipvlan routes",
                        "100 in 1.17, 99 in 2.1, unless the option metric is given.",
                    ),
                    Term(
                        "static addresses",
                        "the first for the first subnet, and so on, in 1.17; each for the subnet that contains it in 2.1.",
                    ),
                ],
            ),
            ("DHCP PROXY", DHCP_PROXY),
            (
                "NETWORK DRIVER SLIPWAY",
                &[
                    Text(
                        "Called slipway, the program is a network driver that any netavark can use: engines find it when containers.conf(5) names \
                         its directory, PREFIX/libexec/netavark, in netavark_plugin_dirs. It makes a bridge without an address and hands a TAP of it \
                         to slipway-uplink(1), which is the gateway, answers names and publishes ports with the client's own address.",
                    ),
                    Term(
                        "slipway create",
                        "completes a definition; the options are mtu, metric and no_default_route.",
                    ),
                    Term("slipway setup NETNS_PATH", "connects a container to one network."),
                    Term(
                        "slipway teardown NETNS_PATH",
                        "disconnects it; what is gone already, the uplink included, is passed over.",
                    ),
                    Term("slipway info", "prints the version of the program and of the protocol."),
                    Text(
                        "SLIPWAY_UPLINK names the uplink's socket. Without it, that is /run/slipway/uplink.sock for root, and slipway/uplink.sock in \
                         XDG_RUNTIME_DIR for others. Records of who is on a network are in the directory networks beside it.",
                    ),
                ],
            ),
            (
                "ENVIRONMENT",
                &[
                    Term(
                        "NETAVARK_COMPAT",
                        "1 or 2: serve by that contract whatever the request looks like.",
                    ),
                    Term("NETAVARK_DNS_PORT", "the port of the DNS server, 53 if not set."),
                    Term(
                        "NETAVARK_FW",
                        "the firewall driver, if the option does not name one: nftables, firewalld or none. iptables, which 1.17 had, is not offered: \
                         hosts that have nothing else are out of scope.",
                    ),
                    Term("NETAVARK_PROXY_RUN_DIR_ENV", "dhcp-proxy: the run directory, whatever --dir says."),
                    Term(
                        "SLIPWAY_DHCP_PROXY_SOCKET",
                        "setup and teardown: the socket of the DHCP proxy, if it is not /run/podman/nv-proxy.sock.",
                    ),
                    Term(
                        "LISTEN_FDS",
                        "dhcp-proxy: set by systemd; 1 means that descriptor 3 is the socket.",
                    ),
                    Term(
                        "RUST_LOG",
                        "what is written to standard error: a level (error, warn, info, debug, trace), or parts such as \
                         netavark::firewall=debug. Errors only, if not set.",
                    ),
                ],
            ),
            (
                "FILES",
                &[
                    Term("DIR/aardvark-dns/", "what the DNS server serves; see aardvark-dns(8)."),
                    Term(
                        "DIR/firewall/",
                        "what the rules were made from, for firewall-reload. Not when rootless.",
                    ),
                    Term(
                        "/run/podman/nv-proxy.sock",
                        "where dhcp-proxy listens, below the run directory if there is another one.",
                    ),
                    Term(
                        "/run/podman/nv-proxy.lease",
                        "what dhcp-proxy holds: a JSON object from MAC address to a list of leases. It is emptied when it starts, and replaced whole when a \
                         lease comes or goes. For reading only.",
                    ),
                    Term(
                        "netavark-dhcp-proxy.socket, netavark-dhcp-proxy.service",
                        "units of systemd for dhcp-proxy; the socket is the one to enable.",
                    ),
                    Term(
                        "netavark-nftables-reload.service, netavark-firewalld-reload.service",
                        "units that make the rules again after nftables or firewalld has flushed them.",
                    ),
                    Term(
                        "/run/sysctl.d/10-netavark-BRIDGE.conf",
                        "settings of a bridge, where systemd runs.",
                    ),
                ],
            ),
            (
                "EXIT STATUS",
                &[
                    Term("0", "done;"),
                    Term(
                        "1",
                        "not done, and the reason is on standard output: an object with the one key error;",
                    ),
                    Term("2", "the command line makes no sense."),
                ],
            ),
        ],
        see_also: &[
            "aardvark-dns(8)",
            "slipway(1)",
            "slipway-uplink(1)",
            "podman-network(1)",
            "nft(8)",
            "systemd.socket(5)",
        ],
    }
}

/// About `netavark dhcp-proxy`.
const DHCP_PROXY: &[Block] = &[
    Text(
        "Containers of a macvlan network, or of a bridge network with the option mode=unmanaged, can have their addresses from a DHCP server of the \
         host's own network: the network's IPAM driver is then dhcp. setup asks this proxy for a lease over a Unix socket; the proxy obtains it, sets address and \
         default route in the container, and renews the lease for as long as the container lives; teardown has it given back.",
    ),
    Text("Options, behind the word dhcp-proxy:"),
    Term(
        "-d, --dir DIR",
        "the run directory, in which the socket and the lease file are. Default: /run/podman. It is made if it is not there.",
    ),
    Term(
        "-t, --timeout SECS",
        "how long a DHCP server may take to grant an address, before setup fails. Default: 8. IPv6 is waited for no longer than 4 seconds, \
         and setup goes on without it.",
    ),
    Term(
        "-a, --activity-timeout SECS",
        "end after so many seconds in which nobody asked for anything, and no lease is held. Default: 300; the unit has 30. 0 means never.",
    ),
    Term("-u, --uds UDS", "accepted and ignored, as by the original."),
    Text(
        "Started by systemd, the proxy listens on the one socket that it is handed, and leaves it there when it ends. Enable the socket; the first request starts the service:",
    ),
    Code("systemctl enable --now netavark-dhcp-proxy.socket"),
    Text(
        "Started by hand, it makes the socket and removes it when it ends. One that a killed proxy left behind is replaced; where another proxy \
         listens, it does not start. It must be able to open packet sockets and to enter the containers' network namespaces: CAP_NET_RAW, CAP_NET_ADMIN, \
         CAP_SYS_ADMIN.",
    ),
    Text(
        "IPv6: a network that was made with --ipv6 gets what the routers of the link announce: addresses of a DHCPv6 server, addresses of the announced prefixes, or both, a default \
         route, name servers and search domains. Routers are listened to by the container's kernel; the proxy keeps what a server granted. A link without \
         IPv6 costs a warning. The options no_default_route and metric hold for that route; for IPv4 the proxy does not know them.",
    ),
    Term(
        "SIGTERM, SIGINT",
        "end it, with exit status 0. Leases are not given back, since the containers live on with their addresses; but nobody renews them.",
    ),
    Text(
        "A container that is gone without a teardown is noticed at the next renewal, with IPv6 after a minute, and its lease given back. Servers know a container by its ID, \
         so that its address stays when its MAC address does not.",
    ),
];
