//! The flags of `gvproxy`, and what was typed.
//!
//! The table is what the parser, the usage text and the man page are made from. Nothing is checked here beyond what a
//! flag's kind says: what values mean, and which of them a file may still change, is [`crate::validate`]'s.

use crate::flags::{self, Flag, Kind, Stop, Value};
use std::ffi::OsString;

/// A flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table says what each is")]
pub enum Key {
    Config,
    Listen,
    Services,
    Debug,
    Mtu,
    SshPort,
    Subnet,
    GatewayIp,
    DeviceIp,
    HostIp,
    Vpnkit,
    Qemu,
    Bess,
    Stdio,
    Vfkit,
    Fd,
    ForwardSock,
    ForwardDest,
    ForwardUser,
    ForwardIdentity,
    PidFile,
    LogFile,
    Pcap,
    Ec2Metadata,
    Notification,
    Stay,
    Ipv6,
    PreserveSource,
    ExposeAll,
    Version,
}

/// The port of SSH where none is named.
pub const SSH_PORT: i64 = 2222;

const NONE: Kind = Kind::Text("");

/// All flags.
pub const FLAGS: &[Flag<Key>] = &[
    Flag::new(Key::Config, "config", NONE, "read the configuration from this YAML file")
        .more("Flags count more than the file, but for -subnet, -gatewayIP, -deviceIP and -hostIP, which fill what it leaves \
               out; -ssh-port and -pcap mean nothing beside it (CONFIGURATION)."),
    Flag::new(Key::Listen, "listen", Kind::Texts, "serve the HTTP API here (unix://, tcp://, vsock://); may be repeated")
        .more("A guest comes in by /connect there (gvforwarder(1))."),
    Flag::new(Key::Services, "services", NONE, "serve the HTTP API without /connect here as well"),
    Flag::new(Key::Debug, "debug", Kind::Truth, "log everything"),
    Flag::new(Key::Mtu, "mtu", Kind::Number(0), "MTU of the guests' network, in bytes (0: 1500)"),
    Flag::new(
        Key::SshPort,
        "ssh-port",
        Kind::Number(SSH_PORT),
        "port of 127.0.0.1 that leads to port 22 of the first guest; -1: none",
    ),
    Flag::new(Key::Subnet, "subnet", NONE, "network of the guests (192.168.127.0/24 unless given)"),
    Flag::new(Key::GatewayIp, "gatewayIP", NONE, "address of the gateway (the first of the network)"),
    Flag::new(Key::DeviceIp, "deviceIP", NONE, "address of the guest that SSH leads to (the second)"),
    Flag::new(Key::HostIp, "hostIP", NONE, "address that stands for the host's loopback (the last)"),
    Flag::new(Key::Vpnkit, "listen-vpnkit", NONE, "wait for guests of HyperKit here"),
    Flag::new(Key::Qemu, "listen-qemu", NONE, "wait for guests of QEMU's -netdev stream or socket here"),
    Flag::new(Key::Bess, "listen-bess", NONE, "wait for guests of User Mode Linux here (unixpacket://)"),
    Flag::new(Key::Stdio, "listen-stdio", NONE, "a guest is on standard input and output; any word means yes"),
    Flag::new(Key::Vfkit, "listen-vfkit", NONE, "wait for guests of vfkit and libkrun here (unixgram://)"),
    Flag::new(Key::Fd, "listen-fd", NONE, "take guests' sockets that are handed over here (unix://, SCM_RIGHTS)")
        .more("A client sends one connected socket of datagrams or packets whose packets are Ethernet frames (FRONTS)."),
    Flag::new(Key::ForwardSock, "forward-sock", Kind::Texts, "make a Unix socket here that leads into the guest by SSH")
        .more("The four -forward flags are given the same number of times; the first of each belong together."),
    Flag::new(Key::ForwardDest, "forward-dest", Kind::Texts, "path of the socket in the guest that it leads to"),
    Flag::new(Key::ForwardUser, "forward-user", Kind::Texts, "user that SSH logs in as"),
    Flag::new(Key::ForwardIdentity, "forward-identity", Kind::Texts, "file with the user's private key")
        .more("Ed25519 and ECDSA, without a passphrase. It is read each time that it is needed."),
    Flag::new(Key::PidFile, "pid-file", NONE, "write the process id to this file"),
    Flag::new(Key::LogFile, "log-file", NONE, "write the log to this file instead of standard error"),
    Flag::new(Key::Pcap, "pcap", NONE, "write IP packets at the gateway to this file"),
    Flag::new(Key::Ec2Metadata, "ec2-metadata-access", Kind::Truth, "let guests reach 169.254.0.0/16"),
    Flag::new(Key::Notification, "notification", NONE, "tell this socket (unix://) of guests that come and go"),
    Flag::new(Key::Stay, "stay", Kind::Truth, "stay when the last guest has gone, for the next one"),
    Flag::new(Key::Ipv6, "ipv6", Kind::Truth, "give guests IPv6 as well"),
    Flag::new(
        Key::PreserveSource,
        "preserve-source",
        Kind::Truth,
        "show guests the real clients of forwarded ports",
    ),
    Flag::new(
        Key::ExposeAll,
        "gateway-expose-all-protocols",
        Kind::Truth,
        "let guests expose sockets and SSH forwards of the host, not ports alone",
    ),
    Flag::new(Key::Version, "version", Kind::Truth, "print the version"),
];

/// What was typed; a text that is empty was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table says what each is")]
pub struct Args {
    pub config: String,
    pub listen: Vec<String>,
    pub services: String,
    pub debug: bool,
    pub mtu: i64,
    /// `None`: not typed.
    pub ssh_port: Option<i64>,
    pub subnet: String,
    pub gateway_ip: String,
    pub device_ip: String,
    pub host_ip: String,
    pub vpnkit: String,
    pub qemu: String,
    pub bess: String,
    pub stdio: String,
    pub vfkit: String,
    pub fd: String,
    pub forward_sock: Vec<String>,
    pub forward_dest: Vec<String>,
    pub forward_user: Vec<String>,
    pub forward_identity: Vec<String>,
    pub pid_file: String,
    pub log_file: String,
    pub pcap: String,
    pub ec2_metadata: bool,
    pub notification: String,
    pub stay: bool,
    pub ipv6: bool,
    pub preserve_source: bool,
    pub expose_all: bool,
    pub version: bool,
}

impl Args {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// See [`Stop`].
    pub fn parse(words: &[OsString]) -> Result<Self, Stop> {
        let mut args = Self::default();
        flags::parse(FLAGS, words, |key, value| args.set(key, value))?;
        Ok(args)
    }

    fn set(&mut self, key: Key, value: Value) {
        match value {
            Value::Truth(truth) => {
                if let Some(place) = self.truth(key) {
                    *place = truth;
                }
            }
            Value::Number(number) if key == Key::Mtu => self.mtu = number,
            Value::Number(number) => self.ssh_port = Some(number),
            Value::Text(text) => {
                if let Some(place) = self.texts(key) {
                    place.push(text);
                } else if let Some(place) = self.text(key) {
                    *place = text;
                }
            }
        }
    }

    const fn truth(&mut self, key: Key) -> Option<&mut bool> {
        Some(match key {
            Key::Debug => &mut self.debug,
            Key::Ec2Metadata => &mut self.ec2_metadata,
            Key::Stay => &mut self.stay,
            Key::Ipv6 => &mut self.ipv6,
            Key::PreserveSource => &mut self.preserve_source,
            Key::ExposeAll => &mut self.expose_all,
            Key::Version => &mut self.version,
            _ => return None,
        })
    }

    const fn texts(&mut self, key: Key) -> Option<&mut Vec<String>> {
        Some(match key {
            Key::Listen => &mut self.listen,
            Key::ForwardSock => &mut self.forward_sock,
            Key::ForwardDest => &mut self.forward_dest,
            Key::ForwardUser => &mut self.forward_user,
            Key::ForwardIdentity => &mut self.forward_identity,
            _ => return None,
        })
    }

    const fn text(&mut self, key: Key) -> Option<&mut String> {
        Some(match key {
            Key::Config => &mut self.config,
            Key::Services => &mut self.services,
            Key::Subnet => &mut self.subnet,
            Key::GatewayIp => &mut self.gateway_ip,
            Key::DeviceIp => &mut self.device_ip,
            Key::HostIp => &mut self.host_ip,
            Key::Vpnkit => &mut self.vpnkit,
            Key::Qemu => &mut self.qemu,
            Key::Bess => &mut self.bess,
            Key::Stdio => &mut self.stdio,
            Key::Vfkit => &mut self.vfkit,
            Key::Fd => &mut self.fd,
            Key::PidFile => &mut self.pid_file,
            Key::LogFile => &mut self.log_file,
            Key::Pcap => &mut self.pcap,
            Key::Notification => &mut self.notification,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_place_of_its_kind() {
        let mut args = Args::default();
        for flag in FLAGS {
            match flag.kind {
                Kind::Truth => assert!(args.truth(flag.key).is_some(), "{}", flag.name),
                Kind::Texts => assert!(args.texts(flag.key).is_some(), "{}", flag.name),
                Kind::Text(_) => assert!(args.text(flag.key).is_some(), "{}", flag.name),
                Kind::Number(_) => assert!(matches!(flag.key, Key::Mtu | Key::SshPort), "{}", flag.name),
            }
        }
    }

    #[test]
    fn the_command_line_of_podman_is_read() {
        let words = "-mtu 1500 -ssh-port 41117 -listen-qemu unix:///run/q.sock -forward-sock /run/api.sock \
                     -forward-dest /run/podman.sock -forward-user core -forward-identity /key \
                     -pid-file /run/gvproxy.pid -log-file /run/gvproxy.log";
        let words: Vec<_> = words.split_whitespace().map(OsString::from).collect();
        let args = Args::parse(&words).unwrap();
        let expected = Args {
            mtu: 1500,
            ssh_port: Some(41117),
            qemu: "unix:///run/q.sock".into(),
            forward_sock: vec!["/run/api.sock".into()],
            forward_dest: vec!["/run/podman.sock".into()],
            forward_user: vec!["core".into()],
            forward_identity: vec!["/key".into()],
            pid_file: "/run/gvproxy.pid".into(),
            log_file: "/run/gvproxy.log".into(),
            ..Args::default()
        };
        assert_eq!(args, expected);
    }
}
