//! The text of `pasta(1)`, `passt(1)` and `pesto(1)` that is not made from tables.

use super::pages::ENVIRONMENT;
use super::{options_of, options_of_table};
use Block::{Code, Term, Text};
use slipway_manual::model::{Block, Page};
use slirp_compat::pasta::{Mode, usage};
use slirp_compat::pesto::args::TABLE;

/// The grammar of the port options, which all three have.
const PORTS: &[Block] = &[
    Text("What -t, -u, -T and -U take:"),
    Code(
        "none | [ADDRESS[%INTERFACE]/]CHUNK[,CHUNK]...\n\
         CHUNK: all[:ADDRESS] | auto | ~PORTS | PORTS[:PORTS|:ADDRESS|:ADDRESS/PORTS]\n\
         PORTS: NUMBER | NUMBER-NUMBER",
    ),
    Term("8080:80", "port 8080, which leads to port 80; without the second it leads to the same number."),
    Term("8000-8010:9000-9010", "a range; both are of one length."),
    Term(
        "192.0.2.1%eth0/80, [2001:db8::1]/80, %eth0/80",
        "where it listens; otherwise on every address of both families.",
    ),
    Term("8080:10.89.0.2/80", "leads to a host behind the guest. Listens on addresses of that family only."),
    Term(
        "all, ~25, ~1-1023",
        "all ports but those that the kernel gives away to clients (net.ipv4.ip_local_port_range) and those behind ~. A \
         port that somebody else has is left out.",
    ),
    Term(
        "auto",
        "of the ports named beside it, or of all, those on which somebody listens at the other side, within a second.",
    ),
    Term("none", "no port. It stands before any other of its option."),
    Text(
        "-T and -U listen on the loopback of the namespace and lead to that of the host; they name no address.",
    ),
];

/// What translation there is.
const ADDRESSES: &[Block] = &[
    Text(
        "The guest has the host's own addresses, those of the template interface, unless --address gives it others. It \
         reaches every other address as the host does. These lead elsewhere:",
    ),
    Term("the gateway, or --map-host-loopback", "to the host's 127.0.0.1 and ::1, unless --no-map-gw;"),
    Term("--map-guest-addr", "to the address that host and guest share, at the host;"),
    Term("--dns-forward", "to the host's nameservers, on ports 53 and 853."),
    Text(
        "Clients of forwarded ports keep their addresses, but those of the host itself, which seem to come from the gateway.",
    ),
];

pub(super) fn pasta() -> Page {
    Page {
        name: "pasta",
        section: 1,
        command: "pasta",
        about: "the host's network for a network namespace, without privileges",
        synopsis: usage::PASTA_SYNOPSIS.iter().map(|line| (*line).to_owned()).collect(),
        description: &[
            Text(
                "Connects a network namespace to the world: that of process PID, the one that is bound to PATH (or to \
                 /run/netns/NAME), or a new one in which COMMAND or a shell is started. The namespace looks like the host: the \
                 same addresses, routes and names of interfaces, as far as its options ask for it. This is slipway under the name \
                 that container engines start; command line and addresses are those of pasta 2026_10_02.",
            ),
            Text(
                "With a PID or --netns it goes to the background when the network works: exit status 0 says that addresses \
                 can be used, ports are open and the file of --pid is complete. It ends when the namespace is gone. With a command it \
                 stays in the foreground and ends with it.",
            ),
            Text("An option that is given twice counts as given last; --dns, --search and ports add up."),
        ],
        options: options_of(usage::options(Mode::Pasta)),
        commands: Vec::new(),
        sections: &[
            ("PORTS", PORTS),
            ("DEFAULT PORTS", &[Text("auto for each of -t, -u, -T and -U that is not given.")]),
            (
                "LOOPBACK",
                &[Text(
                    "Connections between the loopback addresses of both sides are carried from socket to socket, which is \
                     faster than packets. From the host's side they reach the guest's public address, so that what listens on \
                     the guest's loopback only stays hidden, or that loopback with --host-lo-to-ns-lo.",
                )],
            ),
            ("ADDRESSES", ADDRESSES),
            (
                "SIGNALS",
                &[Term("SIGTERM, SIGQUIT", "end it with exit status 0. The file of --pid and sockets stay.")],
            ),
            (
                "EXIT STATUS",
                &[
                    Term("0", "the network works; the namespace is gone; --help; --version;"),
                    Term("1", "it could not be started, for which standard error has the reason;"),
                    Term(
                        "that of the command",
                        "with a command; 128 and the signal's number if one ended it.",
                    ),
                ],
            ),
            (
                "EXAMPLES",
                &[
                    Code("pasta --config-net -- curl -s https://example.org"),
                    Code("unshare -rn sleep 1000 &\npasta --config-net -t 8080:80 $!"),
                    Code("pasta --config-net -t none -u none -T none -U none --netns web"),
                ],
            ),
            ENVIRONMENT,
        ],
        see_also: &["slipway(1)", "passt(1)", "pesto(1)", "network_namespaces(7)", "user_namespaces(7)"],
    }
}

pub(super) fn passt() -> Page {
    Page {
        name: "passt",
        section: 1,
        command: "passt",
        about: "the host's network for a virtual machine, without privileges",
        synopsis: usage::PASST_SYNOPSIS.iter().map(|line| (*line).to_owned()).collect(),
        description: &[
            Text(
                "Connects a virtual machine to the world over a Unix socket. The machine configures itself by DHCP, DHCPv6 \
                 and router advertisement, and gets the host's own addresses, unless --address gives it others. This is slipway \
                 under the name that QEMU and libvirt start; the command line is that of passt 2026_10_02.",
            ),
            Text(
                "It goes to the background when it listens: exit status 0 says that, and that the file of --pid is complete. \
                 When the machine hangs up, the next one is let in, unless --one-off or --fd.",
            ),
            Text(
                "With --vhost-user the machine shares its memory, and frames pass by the rings of its network card: the \
                 socket is for that of vhost-user, and checksums and segments are left to whoever is at the other end, both \
                 ways. A machine that breaks the rules is hung up on.",
            ),
        ],
        options: options_of(usage::options(Mode::Passt { vhost_user: false })),
        commands: Vec::new(),
        sections: &[
            ("PORTS", PORTS),
            ("DEFAULT PORTS", &[Text("none. auto is for pasta only.")]),
            ("ADDRESSES", ADDRESSES),
            (
                "MIGRATION",
                &[Text(
                    "Options about it are accepted. A migration that is asked for is refused, and the machine stays where it is.",
                )],
            ),
            (
                "EXIT STATUS",
                &[
                    Term("0", "it listens; the only machine hung up; --help; --version;"),
                    Term("1", "it could not be started, for which standard error has the reason."),
                ],
            ),
            (
                "EXAMPLES",
                &[
                    Code(
                        "passt --socket /tmp/vm.socket -t 2222:22\n\
                     qemu-system-x86_64 -netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/vm.socket \\\n    \
                     -device virtio-net,netdev=n ...",
                    ),
                    Code(
                        "passt --vhost-user --socket /tmp/vm.socket\n\
                     qemu-system-x86_64 -m 1G -object memory-backend-memfd,id=m,size=1G,share=on \\\n    \
                     -numa node,memdev=m -chardev socket,id=c,path=/tmp/vm.socket \\\n    \
                     -netdev vhost-user,id=n,chardev=c -device virtio-net,netdev=n ...",
                    ),
                ],
            ),
            ENVIRONMENT,
        ],
        see_also: &["slipway(1)", "pasta(1)", "pesto(1)"],
    }
}

pub(super) fn pesto() -> Page {
    Page {
        name: "pesto",
        section: 1,
        command: "pesto",
        about: "show and change the forwarded ports of a running pasta or passt",
        synopsis: TABLE.synopsis.iter().map(|line| (*line).to_owned()).collect(),
        description: &[
            Text(
                "Speaks with the pasta or passt that was started with --conf-path PATH, ours or the original. Without options \
                 that change something it shows the rules.",
            ),
            Text(
                "Rules without --add or --delete take the place of those of their side. It waits until the other side has \
                 done what was asked; ours says what it could not do, and then nothing has changed.",
            ),
        ],
        options: options_of_table(&TABLE),
        commands: Vec::new(),
        sections: &[
            ("PORTS", PORTS),
            (
                "EXIT STATUS",
                &[Term("0", "done;"), Term("1", "refused, for which standard error has the reason.")],
            ),
            (
                "EXAMPLES",
                &[Code(
                    "pasta --config-net -c /tmp/ports.socket --netns web\n\
                     pesto --add -t 127.0.0.1/8080:80 /tmp/ports.socket\n\
                     pesto --show --delete -t 127.0.0.1/8080:80 /tmp/ports.socket",
                )],
            ),
        ],
        see_also: &["pasta(1)", "passt(1)"],
    }
}
