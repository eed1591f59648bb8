//! The command line of `slipway net`. Values are parsed into valid types here.

use super::ports::Publish;
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use slipway_netstack::addr::MacAddr;
use std::ffi::OsString;
use std::net::IpAddr;

/// `slipway net`.
#[derive(Debug, Parser)]
#[command(
    name = "slipway net",
    bin_name = "slipway net",
    about = "Named networks: bridges that network namespaces join",
    max_term_width = 100
)]
pub struct Cli {
    /// Directory of the records; /run/slipway/net, or in $XDG_RUNTIME_DIR inside a user namespace
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<OsString>,
    /// Who keeps the firewall rules: nftables, firewalld or none
    #[arg(long, value_name = "NAME", global = true)]
    pub firewall: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a namespace to a network, which is made if there is none of that name
    Up(Box<Up>),
    /// Take a namespace off a network, or remove the network with all of them
    Down(Down),
    /// Show the networks and who is on them
    Show {
        /// Only this network
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Print the steps instead of taking them
    #[arg(long)]
    pub dry_run: bool,

    /// How a new network is made.
    #[command(flatten)]
    pub definition: Definition,

    #[expect(rustdoc::broken_intra_doc_links, reason = "it is what --help prints")]
    /// Publish a port: [HOSTIP:]HOSTPORT:PORT[/tcp|/udp|/sctp]; both may be ranges of the same length
    #[arg(short, long, value_name = "RULE")]
    pub publish: Vec<Publish>,

    /// The address to take; without it the next free one of each subnet
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,

    /// The MAC address to take
    #[arg(long, value_name = "MAC")]
    pub mac: Option<MacAddr>,

    /// The name of the interface inside; without it the first ethN that is free
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// The name that others on the network know it by; without it the namespace's
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// One more name
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,

    /// The network
    #[arg(value_name = "NETWORK")]
    pub network: String,

    /// A name of ip-netns(8), a process id, or the path of a network namespace
    #[arg(value_name = "NAMESPACE")]
    pub namespace: OsString,
}

/// What counts only when the network is new.
#[derive(Debug, Args, Default, PartialEq, Eq)]
#[command(next_help_heading = "Options for a new network")]
pub struct Definition {
    /// A subnet; without one, a free one is chosen
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<IpNet>,

    /// The network's own address in the subnet of the same place; without it the first one
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<IpAddr>,

    /// Have an IPv6 subnet, too
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// No way out
    #[arg(long)]
    pub internal: bool,

    /// Names are not served
    #[arg(long)]
    pub no_dns: bool,

    /// The bridge's name; without it the first slipN that is free
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,

    /// An option of the bridge driver: mtu, vlan, isolate, metric, vrf, no_default_route, mode, outbound_addr4,
    /// outbound_addr6
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub option: Vec<(String, String)>,
}

/// `down`.
#[derive(Debug, Args)]
pub struct Down {
    /// Print the steps instead of taking them
    #[arg(long)]
    pub dry_run: bool,

    /// The network
    #[arg(value_name = "NETWORK")]
    pub network: String,

    /// The namespace to take off; without one all of them, and the network is forgotten
    #[arg(value_name = "NAMESPACE")]
    pub namespace: Option<OsString>,
}

fn key_value(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_parse() {
        let up = Cli::try_parse_from([
            "slipway net",
            "up",
            "blue",
            "web",
            "-6",
            "--subnet",
            "198.51.100.0/24",
            "-p",
            "8080:80",
            "-o",
            "mtu=1400",
        ])
        .unwrap();
        let Command::Up(up) = up.command else { panic!("not up") };
        assert_eq!((up.network.as_str(), up.namespace.to_str()), ("blue", Some("web")));
        assert_eq!(up.definition.option, [("mtu".to_owned(), "1400".to_owned())]);
        assert!(up.definition.ipv6 && !up.dry_run);
        for bad in [
            &["up", "blue"][..],
            &["up", "blue", "web", "-o", "mtu"],
            &["down"],
            &["up", "b", "w", "--ip", "x"],
        ] {
            assert!(Cli::try_parse_from(["slipway net"].iter().chain(bad)).is_err(), "{bad:?}");
        }
        assert!(Cli::try_parse_from(["slipway net", "show", "--json", "--state", "/tmp/x"]).is_ok());
    }
}
