//! The command line of `slirp4netns`, as typed.
//!
//! [`parse`] does what can be judged word by word, from left to right, so that the first mistake is the one that is
//! reported and `--help` works in front of rubbish. What depends on several options, or on the outside world, is
//! [`super::config`]'s. The one exception is `--userns-path`, which callers expect to be refused at its place in the
//! line; the question whether the path exists is an argument of [`parse`].

use crate::flags::getopt::{Getopt, Item, Order};
use crate::flags::table::{Complete, Flag, Table};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row of the table")]
pub enum Key {
    Configure,
    ExitFd,
    ReadyFd,
    Mtu,
    EnableIpv6,
    ApiSocket,
    Cidr,
    DisableHostLoopback,
    NoHostLoopback,
    NetnsType,
    UsernsPath,
    EnableSandbox,
    CreateSandbox,
    EnableSeccomp,
    OutboundAddr,
    OutboundAddr6,
    DisableDns,
    MacAddress,
    TargetType,
    Help,
    Version,
}

/// The largest MTU that is accepted.
pub const MTU_MAX: u16 = 65521;

/// The whole command line.
pub const TABLE: Table<Key> = Table {
    synopsis: &["[OPTION]... PID|PATH|FD [TAPNAME]", "--target-type=bess [OPTION]... SOCKETPATH"],
    summary: "User-mode networking for unprivileged network namespaces.",
    flags: &[
        Flag::new(
            Key::Configure,
            "configure",
            "bring the interface up with address and default route",
            "In the target namespace: bring up lo, create the TAP, set its MTU, its MAC address if one is given, \
             its IPv4 address (network + 100) and the default route. IPv6 configures itself by router advertisement. \
             Without this option the TAP is only created, or attached to if it exists.",
        )
        .short(b'c'),
        Flag::new(
            Key::ExitFd,
            "exit-fd",
            "end when the other side of this descriptor is closed",
            "Only the hang-up counts; bytes written to the other side are ignored. The API socket is removed.",
        )
        .short(b'e')
        .value("FD", Complete::Nothing),
        Flag::new(
            Key::ReadyFd,
            "ready-fd",
            "write \"1\" to this descriptor and close it when the network works",
            "The API socket accepts connections by then.",
        )
        .short(b'r')
        .value("FD", Complete::Nothing),
        Flag::new(Key::Mtu, "mtu", "largest packet on the interface", "Engines usually ask for 65520.")
            .short(b'm')
            .value("MTU", Complete::Nothing)
            .default("default=1500, max=65521"),
        Flag::new(
            Key::EnableIpv6,
            "enable-ipv6",
            "IPv6 beside IPv4, prefix fd00::/64",
            "The gateway is fd00::2 and the nameserver fd00::3; the guest gets its address by router advertisement.",
        )
        .short(b'6'),
        Flag::new(
            Key::ApiSocket,
            "api-socket",
            "take port-forwarding requests on this Unix socket",
            "The path has to be shorter than 108 bytes. See \"API SOCKET\".",
        )
        .short(b'a')
        .value("PATH", Complete::File),
        Flag::new(
            Key::Cidr,
            "cidr",
            "IPv4 network of the interface",
            "The prefix is 1 to 25 bits long. Within the network, + 2 is the gateway, + 3 the nameserver, \
             + 15 to + 30 are leased by DHCP, + 100 is set by --configure.",
        )
        .value("CIDR", Complete::Nothing)
        .default("default=10.0.2.0/24"),
        Flag::new(
            Key::DisableHostLoopback,
            "disable-host-loopback",
            "the gateway address does not lead to the host's 127.0.0.1",
            "Without it every service on the host's loopback can be reached at the gateway address (network + 2).",
        ),
        Flag::new(Key::NoHostLoopback, "no-host-loopback", "alias of --disable-host-loopback", "").hidden(),
        Flag::new(
            Key::NetnsType,
            "netns-type",
            "what the first argument is",
            "A process, a path such as /run/user/1000/netns/x, or an open TAP descriptor.",
        )
        .value("TYPE", Complete::Words(&["pid", "path", "tapfd"]))
        .default("[path|pid|tapfd], default=pid"),
        Flag::new(
            Key::UsernsPath,
            "userns-path",
            "user namespace to join before the network namespace",
            "With --netns-type=pid the default is the user namespace of that process, otherwise none.",
        )
        .value("PATH", Complete::File),
        Flag::new(
            Key::EnableSandbox,
            "enable-sandbox",
            "see only /etc and /run, keep only CAP_NET_BIND_SERVICE",
            "A mount namespace of its own, made when everything is open.",
        ),
        Flag::new(Key::CreateSandbox, "create-sandbox", "alias of --enable-sandbox", "").hidden(),
        Flag::new(
            Key::EnableSeccomp,
            "enable-seccomp",
            "refuse system calls that are not needed",
            "An allow-list; any other system call ends the process.",
        ),
        Flag::new(
            Key::OutboundAddr,
            "outbound-addr",
            "source address of outgoing IPv4 connections",
            "The name of an interface stands for its first IPv4 address, looked up once at the start.",
        )
        .value("IPv4|IFACE", Complete::Interface),
        Flag::new(
            Key::OutboundAddr6,
            "outbound-addr6",
            "source address of outgoing IPv6 connections",
            "The name of an interface stands for its first IPv6 address, looked up once at the start.",
        )
        .value("IPv6|IFACE", Complete::Interface),
        Flag::new(
            Key::DisableDns,
            "disable-dns",
            "no nameserver at network + 3",
            "That address is then an ordinary one.",
        ),
        Flag::new(
            Key::MacAddress,
            "macaddress",
            "MAC address of the interface, only with --configure",
            "Without it the kernel chooses one at random.",
        )
        .value("MAC", Complete::Nothing),
        Flag::new(
            Key::TargetType,
            "target-type",
            "what to connect to",
            "With bess, wait for one client on the Unix SEQPACKET socket SOCKETPATH, each message one Ethernet \
             frame, as User Mode Linux (vec0:transport=bess) sends them. When it hangs up, the next one is let in.",
        )
        .value("TYPE", Complete::Words(&["netns", "bess"]))
        .default("[netns|bess], default=netns"),
        Flag::new(Key::Help, "help", "show this text and exit", "").short(b'h'),
        Flag::new(Key::Version, "version", "show versions and exit", "").short(b'v'),
    ],
};

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowArgs {
    /// `-c`.
    pub configure: bool,
    /// `-e`, not negative.
    pub exit_fd: Option<RawFd>,
    /// `-r`, not negative.
    pub ready_fd: Option<RawFd>,
    /// `-m`, 1 to [`MTU_MAX`].
    pub mtu: u16,
    /// `-6`.
    pub ipv6: bool,
    /// `-a`.
    pub api_socket: Option<PathBuf>,
    /// `--cidr`.
    pub cidr: Option<OsString>,
    /// `--disable-host-loopback`.
    pub disable_host_loopback: bool,
    /// `--netns-type`.
    pub netns_type: Option<OsString>,
    /// `--userns-path`; it existed a moment ago.
    pub userns_path: Option<PathBuf>,
    /// `--enable-sandbox`.
    pub sandbox: bool,
    /// `--enable-seccomp`.
    pub seccomp: bool,
    /// `--outbound-addr`.
    pub outbound_addr: Option<OsString>,
    /// `--outbound-addr6`.
    pub outbound_addr6: Option<OsString>,
    /// `--disable-dns`.
    pub disable_dns: bool,
    /// `--macaddress`.
    pub mac_address: Option<OsString>,
    /// `--target-type`.
    pub target_type: Option<OsString>,
    /// All that was no option, in order.
    pub positionals: Vec<OsString>,
}

impl Default for LowArgs {
    fn default() -> Self {
        Self {
            configure: false,
            exit_fd: None,
            ready_fd: None,
            mtu: 1500,
            ipv6: false,
            api_socket: None,
            cidr: None,
            disable_host_loopback: false,
            netns_type: None,
            userns_path: None,
            sandbox: false,
            seccomp: false,
            outbound_addr: None,
            outbound_addr6: None,
            disable_dns: false,
            mac_address: None,
            target_type: None,
            positionals: Vec::new(),
        }
    }
}

/// Why there is nothing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A mistake: a diagnostic (there may be none) for stderr, then the usage text for stdout, exit code 1.
    Usage(Option<String>),
    /// A mistake in a value: a diagnostic for stderr only, exit code 1.
    Value(String),
}

/// Takes the command line apart. Lines for stdout (warnings) are pushed to `notices`, also when it fails.
///
/// `program` is `argv[0]`, for messages; `exists` tells whether there is a file at a path.
///
/// # Errors
/// [`Stop`].
pub fn parse(
    program: &str,
    args: &[OsString],
    notices: &mut Vec<String>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<LowArgs, Stop> {
    let mut low = LowArgs::default();
    for item in Getopt::new(TABLE.flags, Order::Permute, args) {
        match item {
            Ok(Item::Positional(word)) => low.positionals.push(word.to_owned()),
            // Only `None` for an option without argument.
            Ok(Item::Flag(flag, value)) => low.set(flag.key, value.unwrap_or_default(), notices, exists)?,
            Err(error) => return Err(Stop::Usage(Some(format!("{program}: {error}")))),
        }
    }
    Ok(low)
}

impl LowArgs {
    fn set(
        &mut self,
        key: Key,
        value: &OsStr,
        notices: &mut Vec<String>,
        exists: &dyn Fn(&Path) -> bool,
    ) -> Result<(), Stop> {
        let mut experimental =
            |what: &str| notices.push(format!("WARNING: Support for {what} is experimental"));
        let text = || Some(value.to_owned());
        match key {
            Key::Configure => self.configure = true,
            Key::ExitFd => self.exit_fd = Some(descriptor(value, "exit-fd")?),
            Key::ReadyFd => self.ready_fd = Some(descriptor(value, "ready-fd")?),
            Key::Mtu => self.mtu = mtu(value)?,
            Key::EnableIpv6 => {
                self.ipv6 = true;
                experimental("IPv6");
            }
            Key::ApiSocket => self.api_socket = Some(value.into()),
            Key::Cidr => self.cidr = text(),
            Key::DisableHostLoopback => self.disable_host_loopback = true,
            Key::NoHostLoopback => {
                self.disable_host_loopback = true;
                notices.push(deprecated("no-host-loopback", "disable-host-loopback"));
            }
            Key::NetnsType => self.netns_type = text(),
            Key::UsernsPath if exists(Path::new(value)) => self.userns_path = Some(value.into()),
            Key::UsernsPath => {
                return usage(format!("userns path doesn't exist: {}", value.to_string_lossy()));
            }
            Key::EnableSandbox => self.sandbox = true,
            Key::CreateSandbox => {
                self.sandbox = true;
                notices.push(deprecated("create-sandbox", "enable-sandbox"));
            }
            Key::EnableSeccomp => {
                self.seccomp = true;
                experimental("seccomp");
            }
            Key::OutboundAddr => {
                self.outbound_addr = text();
                experimental("--outbound-addr");
            }
            Key::OutboundAddr6 => {
                self.outbound_addr6 = text();
                experimental("--outbound-addr6");
            }
            Key::DisableDns => self.disable_dns = true,
            Key::MacAddress => self.mac_address = text(),
            Key::TargetType => self.target_type = text(),
            Key::Help => return Err(Stop::Help),
            Key::Version => return Err(Stop::Version),
        }
        Ok(())
    }
}

fn usage<T>(diagnostic: String) -> Result<T, Stop> {
    Err(Stop::Usage(Some(diagnostic)))
}

fn deprecated(old: &str, new: &str) -> String {
    format!("WARNING: --{old} is deprecated, use --{new} instead")
}

fn descriptor(value: &OsStr, option: &str) -> Result<RawFd, Stop> {
    let number = integer(value).and_then(|number| RawFd::try_from(number).ok()).filter(|fd| *fd >= 0);
    number.map_or_else(|| usage(format!("{option} must be a non-negative integer")), Ok)
}

fn mtu(value: &OsStr) -> Result<u16, Stop> {
    let number = integer(value).and_then(|number| u16::try_from(number).ok());
    match number {
        Some(mtu @ 1..=MTU_MAX) => Ok(mtu),
        _ => usage(format!("MTU must be a positive integer (< {})", MTU_MAX + 1)),
    }
}

/// A decimal number as `strtol` reads it, to the last byte: white space in front and a sign are allowed. Unlike there,
/// an empty text is no number.
pub(crate) fn integer(value: &OsStr) -> Option<i64> {
    let bytes = value.as_bytes();
    let blanks = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let text = std::str::from_utf8(bytes.get(blanks..)?).ok()?;
    text.parse().ok()
}

#[cfg(test)]
mod tests;
