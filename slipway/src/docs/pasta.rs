//! The text of `pesto(1)` that is not made from its table.

use super::options_of_table;
use Block::{Code, Term, Text};
use slipway_manual::model::{Block, Page};
use slirp_compat::pesto::args::TABLE;

/// The grammar of the port options.
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
