//! The command line of `slipway` itself: `run`, `attach`, `uplink`, and the drop-in names as sub-commands.
//!
//! Made with clap. Values are parsed into valid types here (rules, prefixes, addresses); what depends on several
//! options or on the system is checked by [`crate::commands`]. Man pages and completions read [`command`] too.
//! Only the help text of an option and its behaviour are promised, not the wording of a complaint.

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueHint};
use ipnet::{Ipv4Net, Ipv6Net};
use slipway_host::scope::ZonedAddr;
use slipway_portfwd::rule::Rule;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// `slipway`.
#[derive(Debug, Parser)]
#[command(
    name = "slipway",
    version = concat!(env!("CARGO_PKG_VERSION")),
    about = "Networks for containers and virtual machines, without root",
    after_help = "Called by the name of a program that it replaces (slirp4netns, pasta, passt, pesto), it behaves as that \
                  program.",
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a network namespace of its own
    Run(Box<RunArgs>),
    /// Give an existing network namespace a network
    Attach(Box<AttachArgs>),
    /// Named networks by hand: bridges that network namespaces join
    #[command(disable_help_flag = true)]
    Net {
        /// up, down, show; `slipway net --help` tells more
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Carry the networks of containers that live in another network namespace
    Uplink(UplinkArgs),
    /// Behave as slirp4netns
    #[command(disable_help_flag = true)]
    Slirp4netns {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Behave as pasta
    #[command(disable_help_flag = true)]
    Pasta {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Behave as passt
    #[command(disable_help_flag = true)]
    Passt {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Behave as pesto
    #[command(disable_help_flag = true)]
    Pesto {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Show the version
    Version,
}

/// The clap command, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// `slipway run`.
#[derive(Debug, Args)]
#[command(about = "Run a command in a network namespace of its own")]
pub struct RunArgs {
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,

    /// Be root inside
    ///
    /// Maps your user and group to 0 in the new user namespace. Otherwise you stay who you are.
    #[arg(short = 'r', long)]
    pub map_root: bool,

    /// Host name inside
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// The command and its arguments; without it, $SHELL
    #[arg(trailing_var_arg = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    pub cmd: Vec<OsString>,
}

/// `slipway attach`.
#[derive(Debug, Args)]
#[command(about = "Give an existing network namespace a network")]
pub struct AttachArgs {
    /// The network.
    #[command(flatten)]
    pub network: NetworkArgs,

    /// User namespace to join before the network namespace
    ///
    /// With a process as target the default is its user namespace, with a path there is none.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub userns: Option<PathBuf>,

    /// Write "1" to this descriptor and close it when the network works
    #[arg(long, value_name = "FD")]
    pub ready_fd: Option<RawFd>,

    /// End when the other side of this descriptor is closed
    #[arg(long, value_name = "FD")]
    pub exit_fd: Option<RawFd>,

    /// Write the process id to this file
    ///
    /// Written when the network works, removed at the end.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pid_file: Option<PathBuf>,

    /// A process id, or the path of a network namespace
    #[arg(value_name = "PID|PATH", value_hint = ValueHint::AnyPath)]
    pub target: OsString,
}

/// `slipway uplink`.
#[derive(Debug, Args)]
#[command(about = "Carry the networks of containers that live in another network namespace")]
pub struct UplinkArgs {
    /// Where to listen
    ///
    /// Without it $SLIPWAY_UPLINK, else /run/slipway/uplink.sock for root and slipway/uplink.sock below
    /// $XDG_RUNTIME_DIR for others. A socket that systemd hands over goes before all of these.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,

    /// Show what a running uplink serves, and end
    #[arg(long)]
    pub show: bool,

    /// The gateway addresses lead to the host's loopback (127.0.0.1, ::1)
    ///
    /// Off by default: services on the host's loopback often trust everybody who reaches them.
    #[arg(long)]
    pub host_loopback: bool,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more; twice: much more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What `run` and `attach` have in common.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent switch of the command line")]
pub struct NetworkArgs {
    #[expect(rustdoc::broken_intra_doc_links, reason = "it is what --help prints")]
    /// Publish a port: [LISTEN:][HOSTPORT]:[GUEST:]PORT[/tcp|/udp]
    ///
    /// Repeatable. 8080:80, 127.0.0.1:8080:80, [::1]:8080:80/tcp, 5353:53/udp, 8000-8010:8000-8010. Without HOSTPORT
    /// the kernel chooses a port, which is then shown. Without LISTEN all addresses of the host are meant. A link-local
    /// one names its interface, [fe80::1%eth0]:8080:80.
    #[arg(short, long, value_name = "RULE")]
    pub publish: Vec<Rule>,

    /// Largest packet on the interface
    #[arg(short, long, value_name = "BYTES", default_value_t = 65520,
          value_parser = clap::value_parser!(u16).range(68..=65521))]
    pub mtu: u16,

    /// No IPv6
    #[arg(short = '4', long, conflicts_with = "no_ipv4")]
    pub no_ipv6: bool,

    /// No IPv4
    #[arg(short = '6', long)]
    pub no_ipv4: bool,

    /// IPv4 network of the interface
    ///
    /// The prefix is 1 to 25 bits long. Within the network, + 2 is the gateway, + 3 the nameserver, + 100 the guest.
    #[arg(long, value_name = "CIDR", default_value = "10.0.2.0/24", value_parser = ipv4_network)]
    pub network: Ipv4Net,

    /// IPv6 network of the interface
    ///
    /// A prefix of 64 bits. Within the network, ::2 is the gateway, ::3 the nameserver, ::100 the guest.
    #[arg(long, value_name = "CIDR", default_value = "fd00::/64", value_parser = ipv6_network)]
    pub ipv6_network: Ipv6Net,

    /// Nameserver that queries are sent on to
    ///
    /// Repeatable. Without it those of the host's /etc/resolv.conf are used, and changes of that file are followed.
    /// A link-local address names its interface, fe80::1%eth0.
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<ZonedAddr>,

    /// Domain in which short names are looked up
    ///
    /// Repeatable. Without it those of the host are used.
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,

    /// No nameserver inside
    #[arg(long, conflicts_with_all = ["dns", "dns_search"])]
    pub no_dns: bool,

    /// The gateway address leads to the host's loopback (127.0.0.1, ::1)
    ///
    /// Off by default: services on the host's loopback often trust everybody who reaches them.
    #[arg(long)]
    pub host_loopback: bool,

    /// Source of outgoing connections: an address or the name of an interface
    ///
    /// Repeatable, once for IPv4 and once for IPv6. The name of an interface stands for its first address of each.
    #[arg(long, value_name = "ADDRESS|IFACE")]
    pub outbound: Vec<String>,

    /// Name of the interface
    #[arg(long, value_name = "NAME", default_value = "tap0")]
    pub ifname: String,

    /// Record all frames in this file, in pcap format
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pcap: Option<PathBuf>,

    /// Take port-forwarding requests on this Unix socket
    ///
    /// The JSON interface of slirp4netns: add_hostfwd, list_hostfwd, remove_hostfwd.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub api_socket: Option<PathBuf>,

    /// Show counters at the end
    #[arg(long)]
    pub stats: bool,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more; twice: much more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The network's own address, with a prefix that leaves room for network + 100.
fn ipv4_network(text: &str) -> Result<Ipv4Net, String> {
    let network: Ipv4Net = text.parse().map_err(|_| "write it as 10.0.2.0/24".to_owned())?;
    if !(1..=25).contains(&network.prefix_len()) {
        return Err("the prefix must be 1 to 25 bits long".to_owned());
    }
    if network.addr() != network.network() {
        return Err(format!("bits beyond the prefix are set: write {}", network.trunc()));
    }
    let odd = network.addr().is_loopback()
        || network.contains(&Ipv4Addr::LOCALHOST)
        || network.contains(&Ipv4Addr::UNSPECIFIED)
        || network.broadcast() >= Ipv4Addr::new(224, 0, 0, 0);
    if odd {
        return Err(
            "no host can have these addresses: take a private network, 10.0.2.0/24 for instance".to_owned()
        );
    }
    Ok(network)
}

/// A prefix of 64 bits: what stateless autoconfiguration works with (RFC 4862 §5.5.3).
fn ipv6_network(text: &str) -> Result<Ipv6Net, String> {
    let network: Ipv6Net = text.parse().map_err(|_| "write it as fd00::/64".to_owned())?;
    if network.prefix_len() != 64 {
        return Err("the prefix must be 64 bits long".to_owned());
    }
    if network.addr() != network.network() {
        return Err(format!("bits beyond the prefix are set: write {}", network.trunc()));
    }
    let first = network.addr().octets()[0];
    if network.addr().is_multicast()
        || network.addr().is_unspecified()
        || (first == 0xfe && network.addr().is_unicast_link_local())
    {
        return Err("take a global or unique local prefix, fd00::/64 for instance".to_owned());
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("slipway").chain(words.iter().copied()))
    }

    fn run(words: &[&str]) -> RunArgs {
        match parse(&[&["run"], words].concat()).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn options_end_where_the_command_begins() {
        for words in [&["-r", "--", "ls", "-l", "--mtu"][..], &["-r", "ls", "-l", "--mtu"]] {
            let args = run(words);
            assert!(args.map_root);
            assert_eq!(args.cmd, ["ls", "-l", "--mtu"]);
            assert_eq!(args.network.mtu, 65520);
        }
        assert!(parse(&["run", "--bogus", "ls"]).is_err());
        assert!(run(&[]).cmd.is_empty());
    }

    #[test]
    fn values_are_checked() {
        let bad: &[&[&str]] = &[
            &["--mtu", "67"],
            &["--mtu", "65522"],
            &["--network", "10.0.2.1/24"],
            &["--network", "10.0.2.0/26"],
            &["--network", "0.0.0.0/0"],
            &["--network", "0.0.0.0/1"],
            &["--network", "127.1.0.0/16"],
            &["--network", "224.0.0.0/4"],
            &["--network", "192.0.0.0/2"],
            &["--ipv6-network", "fd00::/63"],
            &["--ipv6-network", "fd00::1/64"],
            &["--ipv6-network", "fe80::/64"],
            &["--ipv6-network", "::/64"],
            &["--ipv6-network", "ff02::/64"],
            &["--dns", "example.org"],
            &["-p", "0"],
            &["-p", "80:80:80:80"],
            &["-4", "-6"],
            &["--no-dns", "--dns", "192.0.2.1"],
        ];
        for words in bad {
            assert!(parse(&[&["run"], *words].concat()).is_err(), "{words:?}");
        }
        let args = run(&["-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "--dns", "192.0.2.1", "--dns", "::1"]);
        assert_eq!(args.network.publish.len(), 2);
        assert_eq!(args.network.dns.len(), 2);
    }

    #[test]
    fn drop_in_names_get_their_words_unread() {
        for name in ["slirp4netns", "pasta", "passt", "pesto"] {
            let words = [name, "--help", "-c", "--mtu=1", "x"];
            let (Command::Slirp4netns { args }
            | Command::Pasta { args }
            | Command::Passt { args }
            | Command::Pesto { args }) = parse(&words).unwrap().command
            else {
                panic!("{name}");
            };
            assert_eq!(args, words[1..]);
        }
    }
}
