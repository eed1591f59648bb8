//! The man page of `slipway net`.

use slipway_manual::model::{Block, Page, commands_of_command, options_of_command};

use Block::{Code, Term, Text};

/// slipway-net(1), from the command line, complete with what clap adds.
pub(super) fn page(command: &clap::Command) -> Page {
    Page {
        name: "slipway-net",
        section: 1,
        command: "slipway net",
        about: "named networks by hand: bridges that network namespaces join",
        synopsis: vec![
            "up [OPTION]... NETWORK NAMESPACE".into(),
            "down [--dry-run] NETWORK [NAMESPACE]".into(),
            "show [--json] [NETWORK]".into(),
        ],
        description: &[
            Text(
                "Connects network namespaces by networks such as container engines have, without an engine: a bridge with subnets, an \
                 address for each member, names, published ports, and firewall rules that let the network out and others not in. What is done to \
                 the system is what netavark(8) does for a container.",
            ),
            Term(
                "slipway net up",
                "joins NAMESPACE to NETWORK, which is made if there is none of that name. The options of the definition hold for a new network only.",
            ),
            Term(
                "slipway net down",
                "takes NAMESPACE off the network, or all of them, which removes the network. What is gone already is passed over.",
            ),
            Term("slipway net show", "shows the networks, or one, and who is on them."),
            Text(
                "NAMESPACE is a name of ip-netns(8), a process id, or the path of a network namespace. With --dry-run the steps are printed instead of taken.",
            ),
            Text(
                "It is done by root, or by root of a user namespace, in whose network namespace the bridges are then made. The program is netavark, which is \
                 looked for beside slipway.",
            ),
        ],
        options: options_of_command(command),
        commands: commands_of_command(command),
        sections: &[
            (
                "FILES",
                &[
                    Term("/run/slipway/net", "the records of networks and members, when root calls;"),
                    Term("XDG_RUNTIME_DIR/slipway/net", "those of others."),
                ],
            ),
            (
                "ENVIRONMENT",
                &[
                    Term("NETAVARK_FW", "who keeps the firewall rules, if --firewall does not say it."),
                    Term("NETAVARK_DNS_PORT", "the port of the DNS server, 53 if not set."),
                    Term("RUST_LOG", "what is written to standard error; see netavark(8)."),
                ],
            ),
            (
                "EXIT STATUS",
                &[Term("0", "done;"), Term("1", "not done;"), Term("2", "the command line makes no sense.")],
            ),
            (
                "EXAMPLES",
                &[Code(
                    "ip netns add web; ip netns add db\n\
                     slipway net up blue web -p 8080:80\n\
                     slipway net up blue db\n\
                     slipway net show\n\
                     slipway net down blue",
                )],
            ),
        ],
        see_also: &["slipway(1)", "netavark(8)", "aardvark-dns(8)", "ip-netns(8)"],
    }
}
