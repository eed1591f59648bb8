//! The command line. Global options stand before the sub-command; texts that are paths may be any bytes.
//!
//! A complaint about usage is plain text on stderr and exit status 2; everything later is JSON on stdout and 1.

use crate::spec::Compat;
use crate::spec::options::COMPAT_VARIABLE;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use slipway_host::environment;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The version of the contract that is kept, which is what callers print.
pub const VERSION: &str = "2.1.0";

/// The same when the environment asks for the older contract.
pub const OLD_VERSION: &str = "1.17.2";

/// Where the DNS server is when nobody says.
pub const DNS_SERVER: &str = "/usr/libexec/podman/aardvark-dns";

/// `netavark`.
#[derive(Debug, Parser)]
#[command(name = "netavark", version = VERSION, about = "Container network set-up", max_term_width = 100)]
pub struct Cli {
    /// What applies to all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The version to show, given what [`COMPAT_VARIABLE`] says.
#[must_use]
pub fn version(compat: Option<&OsStr>) -> &'static str {
    if matches!(Compat::from_override(compat), Ok(Some(Compat::One))) { OLD_VERSION } else { VERSION }
}

impl Cli {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// The complaint, or the help or version that was asked for.
    pub fn read(argv: &[OsString]) -> Result<Self, clap::Error> {
        let compat = environment::variable(COMPAT_VARIABLE);
        let matches = Self::command().version(version(compat.as_deref())).try_get_matches_from(argv)?;
        Self::from_arg_matches(&matches)
    }
}

/// What applies to all commands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Read the request from this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<OsString>,
    /// nftables, firewalld or none; without it, what NETAVARK_FW says
    #[arg(long, value_name = "NAME")]
    pub firewall_driver: Option<String>,
    /// Run directory: DNS configuration and firewall state
    #[arg(short, long, value_name = "DIR")]
    pub config: Option<OsString>,
    /// Whether this runs inside a rootless network namespace
    #[arg(short, long, value_name = "BOOL", default_value = "false", action = ArgAction::Set)]
    pub rootless: bool,
    /// The DNS server; empty for none
    #[arg(short, long, value_name = "PATH", default_value = DNS_SERVER)]
    pub aardvark_binary: OsString,
    /// Where drivers of others are looked for; may be given several times
    #[arg(long = "plugin-directory", value_name = "DIR")]
    pub plugin_directories: Vec<OsString>,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connect a container to its networks
    Setup(Namespace),
    /// Disconnect a container from its networks
    Teardown(Namespace),
    /// Change the DNS servers of a network that is in use
    Update(Update),
    /// Complete and check the definition of a new network
    Create,
    /// Show the version
    Version,
    /// Hold leases of DHCP servers for containers
    DhcpProxy(DhcpProxy),
    /// Put the firewall rules back after the rule set was flushed
    FirewallReload,
    /// Put the firewall rules back now and after each reload of firewalld, for ever
    FirewalldReload,
}

/// The argument of setup and teardown.
#[derive(Debug, Args)]
pub struct Namespace {
    /// The container's network namespace
    #[arg(value_name = "NETNS_PATH")]
    pub netns_path: PathBuf,
}

/// The arguments of update.
#[derive(Debug, Args)]
pub struct Update {
    /// The network
    #[arg(value_name = "NETWORK_NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub network_name: String,
    /// Its DNS servers, with commas between them; empty for none
    #[arg(long, value_name = "LIST", required = true)]
    pub network_dns_servers: String,
}

/// The arguments of dhcp-proxy.
#[derive(Debug, Args)]
pub struct DhcpProxy {
    /// Run directory: socket and lease file
    #[arg(short, long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Accepted and ignored: the socket is always in the run directory
    #[arg(short, long, value_name = "UDS")]
    pub uds: Option<OsString>,
    /// How long a DHCP server may take to grant an address, in seconds
    #[arg(short, long, value_name = "SECS", default_value_t = 8)]
    pub timeout: u32,
    /// End after so many seconds without requests and leases; 0 for never
    #[arg(short, long, value_name = "SECS", default_value_t = 300)]
    pub activity_timeout: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use std::os::unix::ffi::OsStrExt as _;

    fn parse(words: &[&str]) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from([&["netavark"], words].concat()).map_err(|error| error.kind())
    }

    #[test]
    fn as_a_container_engine_calls_it() {
        let cli = parse(&[
            "--config",
            "/run/containers/networks",
            "--rootless=false",
            "--aardvark-binary=",
            "--plugin-directory",
            "/a",
            "--plugin-directory",
            "/b",
            "setup",
            "/run/netns/x",
        ])
        .unwrap();
        assert!(cli.global.aardvark_binary.is_empty() && !cli.global.rootless);
        assert_eq!(cli.global.plugin_directories, ["/a", "/b"]);
        assert!(
            matches!(cli.command, Command::Setup(Namespace { netns_path }) if netns_path.as_os_str() == "/run/netns/x")
        );
        let cli =
            parse(&["-r", "true", "-f", "-", "update", "n", "--network-dns-servers", "1.1.1.1,8.8.8.8"]);
        let cli = cli.unwrap();
        assert!(cli.global.rootless);
        assert_eq!(cli.global.file, Some("-".into()));
        assert_eq!(cli.global.aardvark_binary, DNS_SERVER);
        assert!(
            matches!(cli.command, Command::Update(update) if update.network_dns_servers == "1.1.1.1,8.8.8.8")
        );
        let cli = parse(&["update", "n", "--network-dns-servers", ""]).unwrap();
        assert!(matches!(cli.command, Command::Update(update) if update.network_dns_servers.is_empty()));
    }

    #[test]
    fn usage_is_checked() {
        for words in
            [&["setup"][..], &["setup", ""], &["update", "", "--network-dns-servers", ""], &["update", "n"]]
        {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert_eq!(parse(&["--rootless", "maybe", "version"]).unwrap_err(), ErrorKind::InvalidValue);
        assert_eq!(parse(&["--rootless=", "version"]).unwrap_err(), ErrorKind::InvalidValue);
        assert_eq!(parse(&["odd"]).unwrap_err(), ErrorKind::InvalidSubcommand);
        assert_eq!(parse(&["--version"]).unwrap_err(), ErrorKind::DisplayVersion);
    }

    #[test]
    fn the_version_is_that_of_the_contract() {
        assert_eq!(version(None), "2.1.0");
        assert_eq!(version(Some(OsStr::new("1"))), "1.17.2");
        assert_eq!(version(Some(OsStr::new("nonsense"))), "2.1.0");
    }

    #[test]
    fn paths_may_be_any_bytes() {
        let odd = OsStr::from_bytes(b"/tmp/\xff.test").to_owned();
        let words = ["netavark".into(), "--config".into(), odd.clone(), "version".into()];
        assert_eq!(Cli::try_parse_from(words).unwrap().global.config, Some(odd));
    }
}
