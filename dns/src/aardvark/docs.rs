//! The man page and the completion of `aardvark-dns`, from the table of its options.

use super::args::{FLAGS, Flag, Key};
use slipway_manual::Manual;
use slipway_manual::complete::Completion;
use slipway_manual::model::{Block, Offer, Opt, Page};

use Block::{Code, Term, Text};

/// What this program has to say of itself.
#[must_use]
pub fn manual() -> Manual {
    let page = page();
    Manual { completions: vec![Completion::of_page(&page)], pages: vec![page] }
}

fn page() -> Page {
    Page {
        name: "aardvark-dns",
        section: 8,
        command: "aardvark-dns",
        about: "names for the containers of netavark's networks",
        synopsis: vec!["[OPTION]... run".into(), "version".into()],
        description: &[
            Text(
                "Answers the DNS queries of containers: names of their own networks from the configuration, everything else by \
                 asking other servers. netavark starts it when the first container with DNS starts, tells it of changes by \
                 SIGHUP, and it ends with the last one.",
            ),
            Text(
                "Command line, files, signals and answers are those of aardvark-dns 2.0, so that it can take the place of \
                 that program under any netavark: containers.conf(5) names the directory in helper_binaries_dir.",
            ),
            Term(
                "aardvark-dns run",
                "serves, in the background. The command ends when everything is bound; what prevents that is said on \
                 standard error.",
            ),
            Term("aardvark-dns version", "prints what this build is, as JSON."),
        ],
        options: FLAGS.iter().map(option).collect(),
        commands: Vec::new(),
        sections: &[
            (
                "CONFIGURATION",
                &[
                    Text(
                        "The directory holds one file for each network, of its name; %int behind the name marks an internal network, \
                         whose containers are not helped to names of the world. The first line has the addresses to serve and, \
                         behind a space, the network's DNS servers; each other line a container:",
                    ),
                    Code("10.89.0.1,fd00::1\n4f2d.. 10.89.0.2 fd00::2 web,alias 192.0.2.53"),
                    Text(
                        "that is: id, IPv4 addresses, IPv6 addresses, names, and the container's DNS servers if it has its own. Lists are \
                         separated by commas and may be empty. A file that cannot be understood leaves its network as it was before.",
                    ),
                ],
            ),
            (
                "ANSWERS",
                &[
                    Text(
                        "Who asks is known by the source address: a container sees the names of all its networks, through the gateway of any of \
                         them; anybody else sees those of the network it asks on. A, AAAA and PTR questions are answered with TTL 0.",
                    ),
                    Text(
                        "Everything else goes to the container's DNS servers, else to those of its networks, else to the first three of \
                         /etc/resolv.conf, which is followed while it changes; over the transport by which it came, one server after the other, which \
                         share five seconds; a datagram without answer is sent again twice. If no server answers, nothing is said.",
                    ),
                    Text(
                        "Beyond the original: a server whose port is closed, or that no route leads to, costs no time; an answer that belongs to \
                         another question, or ends early, is not relayed; a message that is itself an answer is not answered; the mark of authentic data is \
                         not copied into our own answers; a name beyond ASCII is found as it is written and in its ASCII form (xn--..), \
                         which is what reverse answers give.",
                    ),
                ],
            ),
            (
                "SIGNALS",
                &[
                    Term(
                        "SIGHUP",
                        "reads configuration and /etc/resolv.conf again. No query is lost. An address that cannot be bound is said in the log and tried again.",
                    ),
                    Term("SIGUSR1", "writes counters by network and response code; see --stats."),
                    Term("SIGUSR2", "switches the query log on or off."),
                ],
            ),
            (
                "ENVIRONMENT",
                &[
                    Term(
                        "AARDVARK_NO_PROXY",
                        "when set, nothing is asked upstream: names that are not ours do not exist.",
                    ),
                    Term(
                        "RUST_LOG",
                        "how much is written to the system's log: error, warn, info (the default), debug or trace.",
                    ),
                ],
            ),
            (
                "FILES",
                &[Term(
                    "DIR/aardvark.pid",
                    "the process to be signalled, as a decimal number without newline.",
                )],
            ),
            (
                "EXIT STATUS",
                &[
                    Term("0", "everything is bound and served;"),
                    Term("1", "it could not start;"),
                    Term("2", "the command line makes no sense."),
                ],
            ),
            (
                "LIMITS",
                &[Text(
                    "256 connections, 32 from one address, each dropped when it gets no further for 3 seconds; queries under way upstream are bounded \
                     in all and by address.",
                )],
            ),
            (
                "EXAMPLES",
                &[
                    Text("Options for a server that an engine starts, and what it has counted:"),
                    Code(
                        "AARDVARK_STRICT_NAMES=1 AARDVARK_CACHE=1 podman start web\n\
                         kill -USR1 $(cat /run/containers/networks/aardvark-dns/aardvark.pid)\n\
                         journalctl -t aardvark-dns",
                    ),
                ],
            ),
        ],
        see_also: &["podman-network(1)", "containers.conf(5)", "resolv.conf(5)"],
    }
}

fn option(flag: &Flag) -> Opt {
    let variable = flag.variable.map(|name| format!("The environment variable {name} does the same."));
    let sentences: Vec<String> =
        [flag.more.to_owned()].into_iter().chain(variable).filter(|text| !text.is_empty()).collect();
    Opt {
        short: flag.short.map(char::from),
        long: Some(flag.long.to_owned()),
        value: flag.value.map(str::to_owned),
        offer: match flag.key {
            Key::Config | Key::Stats => Offer::File,
            _ => Offer::Nothing,
        },
        help: flag.help.to_owned(),
        default: flag.default.map(|text| format!("default: {text}")),
        more: sentences.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_and_variable_is_on_the_page() {
        let (_, text) = manual().files().swap_remove(0);
        for flag in FLAGS {
            assert!(text.contains(&format!("\\-\\-{}", flag.long.replace('-', "\\-"))), "{}", flag.long);
            assert!(flag.variable.is_none_or(|variable| text.contains(variable)), "{}", flag.long);
        }
    }
}
