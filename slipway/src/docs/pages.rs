//! The text of the man pages that is not made from tables.

use super::options_of_table;
use crate::cli;
use Block::{Code, Term, Text};
use slipway_manual::model::{Block, Page, options_of_command};
use slirp_compat::slirp4netns::args::TABLE;

fn sub_command(name: &str) -> Option<clap::Command> {
    let mut command = cli::command();
    command.build();
    command.find_subcommand(name).cloned()
}

pub(super) fn slipway() -> Page {
    Page {
        name: "slipway",
        section: 1,
        command: "slipway",
        about: "networks for containers and virtual machines, without root",
        synopsis: vec![
            "run [OPTION]... [--] [CMD [ARG]...]".into(),
            "attach [OPTION]... PID|PATH".into(),
            "uplink [OPTION]...".into(),
            "net [OPTION]... up|down|show [ARG]...".into(),
            "slirp4netns|pasta|passt|pesto [ARG]...".into(),
            "version".into(),
        ],
        description: &[
            Text(
                "slipway connects a network namespace to the world without privileges. It opens a TAP interface in the \
                 namespace, is everything that the namespace sees behind it (gateway, DHCP server, nameserver), and \
                 carries each connection over an ordinary socket of the host.",
            ),
            Term("slipway run", "starts a command in a namespace of its own; see slipway-run(1)."),
            Term("slipway attach", "gives an existing namespace a network; see slipway-attach(1)."),
            Term(
                "slipway uplink",
                "is the way out for networks of rootless containers; see slipway-uplink(1).",
            ),
            Term(
                "slipway net",
                "connects namespaces by named networks, as container engines do; see slipway-net(1).",
            ),
            Term(
                "slipway slirp4netns",
                "is what the program does when it is called slirp4netns; see slirp4netns(1).",
            ),
            Term(
                "slipway pasta, slipway passt, slipway pesto",
                "are what it does under those names, and under every name with pasta or passt in it; see pasta(1), \
                 passt(1) and pesto(1).",
            ),
            Term("slipway version", "shows the version."),
        ],
        options: options_of_command(&{
            let mut command = cli::command();
            command.build();
            command
        }),
        commands: Vec::new(),
        sections: &[(
            "EXAMPLES",
            &[
                Text("A shell with a network of its own:"),
                Code("slipway run"),
                Text("A web server, reachable at port 8080 of the host:"),
                Code("slipway run -p 8080:80 -r -- busybox httpd -f -p 80"),
            ],
        )],
        see_also: &[
            "slipway-run(1)",
            "slipway-attach(1)",
            "slipway-uplink(1)",
            "slipway-net(1)",
            "slirp4netns(1)",
            "pasta(1)",
            "passt(1)",
            "pesto(1)",
            "network_namespaces(7)",
            "user_namespaces(7)",
        ],
    }
}

/// What the guest sees, for run and attach.
const ADDRESSES: &[Block] = &[
    Text("With the default networks the namespace has:"),
    Term("10.0.2.100, fd00::100", "its own addresses;"),
    Term("10.0.2.2, fd00::2", "the gateway, which leads to the host's loopback with --host-loopback;"),
    Term("10.0.2.3, fd00::3", "the nameserver, whose queries go on to those of the host."),
];

/// Settings of the environment, the same for all personalities.
pub(super) const ENVIRONMENT: (&str, &[Block]) = (
    "ENVIRONMENT",
    &[Term(
        "SLIPWAY_BUSY_POLL",
        "Microseconds (0 to 1000, normally 50) for which the program looks for news before it sleeps, while packets follow each \
         other closely. It makes short exchanges faster by a third or more, for processor time while they last. 0 \
         switches it off; on a single core it is off.",
    )],
);

const PROBLEMS: &[Block] = &[
    Term(
        "/dev/net/tun is missing or must not be opened",
        "As root: modprobe tun; chmod 0666 /dev/net/tun. In a container: pass the device, --device /dev/net/tun.",
    ),
    Term(
        "user namespaces are not permitted",
        "As root, whichever the system has: sysctl -w user.max_user_namespaces=15000, \
         kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0. Instead of the last, an \
         AppArmor profile that grants userns to this program.",
    ),
    Term(
        "a port below 1024 must not be published",
        "As root: sysctl -w net.ipv4.ip_unprivileged_port_start=80, or publish a higher port.",
    ),
    Term("ping does not work", "As root, on the host: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"."),
];

pub(super) fn run() -> Page {
    Page {
        name: "slipway-run",
        section: 1,
        command: "slipway run",
        about: "run a command in a network namespace of its own",
        synopsis: vec!["[OPTION]... [--] [CMD [ARG]...]".into()],
        description: &[Text(
            "Makes a user, a mount and a network namespace, gives it a network, runs CMD in it and returns its exit \
             status. When CMD ends, everything is gone. Without CMD, $SHELL is started. The file system is the host's, but \
             /etc/resolv.conf names the nameserver inside.",
        )],
        options: sub_command("run").map(|command| options_of_command(&command)).unwrap_or_default(),
        commands: Vec::new(),
        sections: &[
            ("ADDRESSES", ADDRESSES),
            (
                "EXIT STATUS",
                &[
                    Text("That of CMD, 128 + N if signal N ended it. Otherwise:"),
                    Term("125", "slipway itself failed;"),
                    Term("126", "CMD cannot be executed;"),
                    Term("127", "CMD was not found."),
                ],
            ),
            ("PROBLEMS", PROBLEMS),
            ENVIRONMENT,
            (
                "EXAMPLES",
                &[
                    Code("slipway run -- curl -s https://example.org"),
                    Code("slipway run -p 127.0.0.1:8080:80 -r -- busybox httpd -f -p 80"),
                    Code("slipway run --pcap frames.pcap -4 -- ping -c 1 10.0.2.2"),
                ],
            ),
        ],
        see_also: &["slipway(1)", "slipway-attach(1)", "unshare(1)"],
    }
}

pub(super) fn attach() -> Page {
    Page {
        name: "slipway-attach",
        section: 1,
        command: "slipway attach",
        about: "give an existing network namespace a network",
        synopsis: vec!["[OPTION]... PID|PATH".into()],
        description: &[
            Text(
                "Joins the network namespace of process PID, or the one that is bound to PATH, makes a TAP interface in it, \
                 configures it and serves it until the process ends, the path is gone, or SIGTERM arrives. \
                 Runs in the foreground.",
            ),
            Text(
                "/etc/resolv.conf of the target is not touched: write the nameserver's address into it, or into \
                 /etc/netns/NAME/resolv.conf for ip-netns(8).",
            ),
        ],
        options: sub_command("attach").map(|command| options_of_command(&command)).unwrap_or_default(),
        commands: Vec::new(),
        sections: &[
            ("ADDRESSES", ADDRESSES),
            (
                "EXIT STATUS",
                &[
                    Term("0", "the target ended, or SIGTERM, SIGINT or SIGHUP arrived;"),
                    Term("1", "anything else."),
                ],
            ),
            ("PROBLEMS", PROBLEMS),
            ENVIRONMENT,
            (
                "EXAMPLES",
                &[
                    Code("unshare -rn sleep 1000 &\nslipway attach $!"),
                    Code("slipway attach --publish 8080:80 /run/user/1000/netns/web"),
                ],
            ),
        ],
        see_also: &["slipway(1)", "slipway-run(1)", "nsenter(1)", "ip-netns(8)"],
    }
}

pub(super) fn uplink() -> Page {
    Page {
        name: "slipway-uplink",
        section: 1,
        command: "slipway uplink",
        about: "carry the networks of containers that live in another network namespace",
        synopsis: vec!["[OPTION]...".into()],
        description: &[
            Text(
                "Runs in the host's network namespace, once for a user, and is the way out for networks of containers in another one: the network plugin slipway of netavark hands it a TAP of each network's bridge. It is the gateway of these networks, answers the names of containers, and listens on the ports that they publish, for which clients keep their addresses. Each network has a process of its own, shut in.",
            ),
            Text(
                "It stays in the foreground. As a rule the user's systemd starts it when the first container needs it: systemctl --user \
                 enable --now slipway-uplink.socket. The protocol and the set-up of Podman are in docs/uplink.md.",
            ),
            Text(
                "Under the name rootlessport the program is the port helper of Podman: it hands ports of containers that the uplink knows to it, and for others becomes the rootlessport of the directories where container engines look for their helpers, or that of SLIPWAY_ROOTLESSPORT.",
            ),
        ],
        options: sub_command("uplink").map(|command| options_of_command(&command)).unwrap_or_default(),
        commands: Vec::new(),
        sections: &[
            (
                "SIGNALS",
                &[Term(
                    "SIGTERM, SIGINT, SIGHUP",
                    "end it and all networks. Running containers have no way out until they are started again.",
                )],
            ),
            (
                "ENVIRONMENT",
                &[
                    Term(
                        "SLIPWAY_UPLINK",
                        "the path of the socket, for the uplink and for those who ask it.",
                    ),
                    Term("XDG_RUNTIME_DIR", "has the socket otherwise, at slipway/uplink.sock."),
                    Term("SLIPWAY_BUSY_POLL", "see slipway-run(1)."),
                ],
            ),
            ("EXIT STATUS", &[Term("0", "a signal ended it; --show;"), Term("1", "anything else.")]),
            ("EXAMPLES", &[Code("slipway uplink &\nslipway uplink --show")]),
        ],
        see_also: &["slipway(1)", "netavark(8)", "podman-network(1)", "containers.conf(5)"],
    }
}

pub(super) fn slirp4netns() -> Page {
    Page {
        name: "slirp4netns",
        section: 1,
        command: "slirp4netns",
        about: "user-mode networking for unprivileged network namespaces",
        synopsis: TABLE.synopsis.iter().map(|line| (*line).to_owned()).collect(),
        description: &[
            Text(
                "Connects the network namespace of process PID, or the one bound to PATH, to the world through the TAP \
                 interface TAPNAME, without privileges. This is slipway under the name that container engines \
                 start; command line, API and addresses are those of slirp4netns 1.3.3.",
            ),
            Text(
                "It stays in the foreground and does not end with the processes of the namespace: close the other side of \
                 --exit-fd, or send SIGTERM.",
            ),
        ],
        options: options_of_table(&TABLE),
        commands: Vec::new(),
        sections: &[
            (
                "ADDRESSES",
                &[
                    Text("Within the network of --cidr:"),
                    Term(
                        "network + 2",
                        "(10.0.2.2) the gateway; leads to the host's 127.0.0.1 unless forbidden;",
                    ),
                    Term("network + 3", "(10.0.2.3) the nameserver;"),
                    Term("network + 15 to + 30", "(10.0.2.15 to 10.0.2.30) leased by DHCP;"),
                    Term(
                        "network + 100",
                        "(10.0.2.100) set by --configure, and the target of forwarded ports.",
                    ),
                    Text("With --enable-ipv6: prefix fd00::/64, gateway fd00::2, nameserver fd00::3."),
                ],
            ),
            (
                "API SOCKET",
                &[
                    Text(
                        "One JSON object per connection; the answer is one JSON object, then the end of the connection.",
                    ),
                    Code(
                        "{\"execute\": \"add_hostfwd\", \"arguments\": {\"proto\": \"tcp\", \"host_addr\": \"0.0.0.0\",\n \
                         \"host_port\": 8080, \"guest_addr\": \"10.0.2.100\", \"guest_port\": 80}}\n\
                         {\"return\": {\"id\": 1}}",
                    ),
                    Code("{\"execute\": \"list_hostfwd\"}"),
                    Code("{\"execute\": \"remove_hostfwd\", \"arguments\": {\"id\": 1}}\n{\"return\": {}}"),
                    Text(
                        "On failure the answer is {\"error\": {\"desc\": \"...\"}}. Addresses may be IPv6; a link-local \
                         host_addr names its interface, fe80::1%eth0.",
                    ),
                ],
            ),
            (
                "EXIT STATUS",
                &[Term("0", "--exit-fd was closed; --help; --version;"), Term("1", "anything else.")],
            ),
            (
                "EXAMPLES",
                &[Code(
                    "unshare -rn sleep 1000 &\nslirp4netns --configure --mtu=65520 --disable-host-loopback $! tap0",
                )],
            ),
            ENVIRONMENT,
        ],
        see_also: &["slipway(1)", "network_namespaces(7)", "user_namespaces(7)"],
    }
}
