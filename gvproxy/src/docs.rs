//! The man pages and completions of `gvproxy` and `gvforwarder`, from the tables of their flags.

use crate::args::{FLAGS, Key};
use crate::flags::{Flag, Kind};
use crate::forwarder;
use slipway_manual::Manual;
use slipway_manual::complete::Completion;
use slipway_manual::model::{Block, Offer, Opt, Page};

use Block::{Code, Term, Text};

/// What this program has to say of itself.
#[must_use]
pub fn manual() -> Manual {
    let pages = vec![page(), forwarder_page()];
    Manual { completions: pages.iter().map(Completion::of_page).collect(), pages }
}

fn page() -> Page {
    Page {
        name: "gvproxy",
        section: 1,
        command: "gvproxy",
        about: "the network of virtual machines, without root",
        synopsis: vec!["[FLAG]...".into()],
        description: &[
            Text(
                "Gives virtual machines a network of their own behind a gateway that serves DHCP and names, and leads to the world \
                 through ordinary sockets of this user. Guests come to a socket that a hypervisor connects to; several may, and they \
                 reach each other.",
            ),
            Text(
                "Command line, configuration file and exit codes are those of gvproxy 0.8, so that it can take the place of that program: \
                 podman machine looks for it in the directories of helper_binaries_dir (containers.conf(5)).",
            ),
            Text(
                "The network is 192.168.127.0/24 unless told otherwise: .1 is the gateway and the name server, .2 the first guest, .254 stands \
                 for the loopback of the host. The names gateway and host exist below containers.internal and docker.internal.",
            ),
            Text(
                "The process ends when its last guest has gone, unless -stay, HyperKit or the HTTP API ask for more.",
            ),
        ],
        options: FLAGS.iter().map(option).collect(),
        commands: Vec::new(),
        sections: &[
            (
                "FLAGS",
                &[Text(
                    "One dash is as good as two, and a space as good as the equals sign, but for flags without an argument: -debug=false. The first word \
                     that is no flag ends them.",
                )],
            ),
            (
                "ADDRESSES",
                &[
                    Term("unix:///path", "a stream socket. Nothing may be there yet."),
                    Term("unixpacket:///path", "a socket of packets, for -listen-bess."),
                    Term("unixgram:///path", "a socket of datagrams, for -listen-vfkit."),
                    Term("tcp://host:port", "TCP; without a host, all addresses."),
                    Term("vsock://cid:port", "vsock; without a CID, any of this machine's."),
                    Text("Sockets have the mode 0600."),
                ],
            ),
            (
                "CONFIGURATION",
                &[
                    Text(
                        "A file named by -config is YAML. Keys that nobody knows are passed over; every one may be left out:",
                    ),
                    Code(
                        "listen: [unix:///run/net.sock]\n\
                         log-level: info\n\
                         stack:\n  \
                           mtu: 1500\n  \
                           subnet: 192.168.127.0/24\n  \
                           gatewayIP: 192.168.127.1\n  \
                           deviceIP: 192.168.127.2\n  \
                           hostIP: 192.168.127.254\n  \
                           gatewayMacAddress: 5a:94:ef:e4:0c:dd\n  \
                           dns:\n  \
                           - name: containers.internal.\n    \
                             records:\n    \
                             - {name: gateway, ip: 192.168.127.1}\n    \
                             - {regexp: \"^web[0-9]+$\", ip: 192.168.127.3}\n    \
                             defaultIP: 192.168.127.254\n  \
                           dnsSearchDomains: [example.org]\n  \
                           forwards: {\"127.0.0.1:2222\": \"192.168.127.2:22\", \"udp:127.0.0.1:53\": \"192.168.127.2:53\"}\n  \
                           nat: {192.168.127.254: 127.0.0.1}\n  \
                           gatewayVirtualIPs: [192.168.127.254]\n  \
                           dhcpStaticLeases: {192.168.127.2: 5a:94:ef:e4:0c:ee}\n  \
                           ec2MetadataAccess: false\n  \
                           tcpMaxInFlight: 128\n  \
                           tcpConnectTimeout: 30s\n  \
                           capture-file: /tmp/gateway.pcap\n\
                         interfaces: {qemu: \"unix:///run/qemu.sock\"}\n\
                         pid-file: /run/gvproxy.pid\n\
                         log-file: /run/gvproxy.log\n\
                         services: unix:///run/api.sock\n\
                         notification: /run/events.sock",
                    ),
                    Text(
                        "With a file there are no zones, search domains, leases or forwarded ports but those that it names. Of subnet and addresses the file counts more than \
                         the command line, of everything else the command line. stay, ipv6, preserve-source and gateway-expose-all-protocols are keys, too.",
                    ),
                ],
            ),
            (
                "FRONTS",
                &[
                    Text("For programs that start machines in a way of their own:"),
                    Term(
                        "-listen-fd",
                        "A client connects, sends at least one byte with one descriptor (SCM_RIGHTS, unix(7)), and reads OK, or what is wrong, and the end. The descriptor is \
                         a socket of AF_UNIX with datagrams or packets that has another end: socketpair(2). A packet is a frame of the guest. The guest does not end the process.",
                    ),
                    Term(
                        "GET /extension/wait_port?ip=ADDRESS&port=PORT&timeout=SECONDS",
                        "The HTTP API answers 200 as soon as the guest takes a connection there, 408 after so many seconds (10 unless given; 65535 at most).",
                    ),
                    Term(
                        "POST /services/dhcp/add",
                        "The HTTP API keeps an address for a guest from now on: {\"ip\":\"192.168.127.7\",\"mac\":\"52:54:00:12:34:56\"}.",
                    ),
                ],
            ),
            (
                "SIGNALS",
                &[Term(
                    "SIGTERM, SIGINT",
                    "end the network at once: connections are reset, sockets and PID file removed.",
                )],
            ),
            (
                "EXIT STATUS",
                &[
                    Term(
                        "0",
                        "the network has ended, for whatever reason: the log has it behind gvproxy exiting;",
                    ),
                    Term("1", "file or values make no sense;"),
                    Term("2", "the command line makes none."),
                ],
            ),
            (
                "EXAMPLES",
                &[
                    Text("A machine of QEMU, whose port 22 is port 2222 of the host:"),
                    Code(
                        "gvproxy -listen-qemu unix:///tmp/net.sock &\n\
                         qemu-system-x86_64 ... -netdev stream,id=n,addr.type=unix,addr.path=/tmp/net.sock \\\n    \
                             -device virtio-net-pci,netdev=n,mac=5a:94:ef:e4:0c:ee",
                    ),
                ],
            ),
        ],
        see_also: &["podman-machine(1)", "containers.conf(5)", "pasta(1)"],
    }
}

fn forwarder_page() -> Page {
    Page {
        name: "gvforwarder",
        section: 1,
        command: "gvforwarder",
        about: "a virtual machine's end of a gvproxy network",
        synopsis: vec!["[FLAG]...".into()],
        description: &[
            Text(
                "Runs as root in a virtual machine, makes a network interface there, and carries its frames to gvproxy(1) on the \
                 host, mostly over vsock: for machines whose hypervisor gives them no network card.",
            ),
            Text(
                "An address is obtained by udhcpc(8) or dhclient(8), whichever is installed, and without either by a client of its \
                 own: that sets address, routes and MTU, writes /etc/resolv.conf, and keeps the lease.",
            ),
            Text(
                "What fails is logged and tried again after a second, for ever. The interface and its address stay while the host \
                 is away.",
            ),
            Text(
                "It asks the host for the fast link, by which segments of 64 KiB cross whole. A gvproxy that knows nothing of it is \
                 spoken to as ever.",
            ),
        ],
        options: forwarder::FLAGS.iter().map(forwarder_option).collect(),
        commands: Vec::new(),
        sections: &[
            (
                "FLAGS",
                &[Text(
                    "One dash is as good as two, and a space as good as the equals sign, but for flags without an argument: \
                     -debug=false. The first word that is no flag ends them.",
                )],
            ),
            (
                "ADDRESSES",
                &[
                    Term(
                        "vsock://CID:PORT/connect",
                        "vsock; the CID of the host is 2. gvproxy listens by -listen vsock://:PORT.",
                    ),
                    Term("unix:///path", "a stream socket, where gvproxy listens by -listen."),
                    Term(
                        "stdio:/program?key=value&...",
                        "the program is started with -key=value ..., and carries frames on its standard input and output: gvproxy \
                         with listen-stdio=accept.",
                    ),
                ],
            ),
            (
                "SIGNALS",
                &[Term("SIGTERM, SIGINT", "end it; its interface goes, unless that was there before.")],
            ),
            (
                "EXIT STATUS",
                &[
                    Term("0", "a signal has ended it, or an interface of -stop-if-exist is there;"),
                    Term("1", "it could not begin;"),
                    Term("2", "the command line makes no sense."),
                ],
            ),
            (
                "EXAMPLES",
                &[
                    Text("On the host, and in the machine:"),
                    Code("gvproxy -listen vsock://:1024 -listen unix:///run/gvproxy.sock &\ngvforwarder"),
                    Text("An interface that NetworkManager has made and sets up:"),
                    Code("gvforwarder -preexisting -iface vsock0 -url vsock://2:1024/connect"),
                ],
            ),
        ],
        see_also: &["gvproxy(1)", "podman-machine(1)", "vsock(7)"],
    }
}

fn forwarder_option(flag: &Flag<forwarder::Key>) -> Opt {
    let (value, offer) = match flag.key {
        forwarder::Key::Url => (Some("URL"), Offer::Nothing),
        forwarder::Key::Iface => (Some("NAME"), Offer::Interface),
        forwarder::Key::StopIfExist => (Some("NAME,..."), Offer::Nothing),
        forwarder::Key::Mac => (Some("ADDRESS"), Offer::Nothing),
        forwarder::Key::Mtu => (Some("BYTES"), Offer::Nothing),
        _ => (None, Offer::Nothing),
    };
    described(flag, value, offer)
}

fn option(flag: &Flag<Key>) -> Opt {
    let value = match flag.key {
        Key::Listen | Key::Services | Key::Notification => Some("URL"),
        Key::Vpnkit | Key::Qemu | Key::Bess | Key::Vfkit | Key::Fd => Some("URL"),
        Key::Config | Key::PidFile | Key::LogFile | Key::Pcap | Key::ForwardIdentity => Some("FILE"),
        Key::ForwardSock | Key::ForwardDest => Some("PATH"),
        Key::ForwardUser => Some("USER"),
        Key::Mtu => Some("BYTES"),
        Key::SshPort => Some("PORT"),
        Key::Subnet => Some("NETWORK"),
        Key::GatewayIp | Key::DeviceIp | Key::HostIp => Some("ADDRESS"),
        Key::Stdio => Some("WORD"),
        _ => None,
    };
    let is_file = value.is_some_and(|value| matches!(value, "FILE" | "PATH"));
    described(flag, value, if is_file { Offer::File } else { Offer::Nothing })
}

/// A flag as the manual has it; `value` is the name of its argument.
fn described<K>(flag: &Flag<K>, value: Option<&str>, offer: Offer) -> Opt {
    Opt {
        short: None,
        long: Some(flag.name.to_owned()),
        value: value.map(str::to_owned),
        offer,
        help: flag.help.to_owned(),
        default: match flag.kind {
            Kind::Number(number) if number != 0 => Some(format!("default: {number}")),
            Kind::Text(text) if !text.is_empty() => Some(format!("default: {text}")),
            _ => None,
        },
        more: flag.more.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_on_the_page_with_what_it_takes() {
        let (_, text) = manual().files().swap_remove(0);
        for flag in FLAGS {
            assert!(text.contains(&format!("\\-\\-{}", flag.name.replace('-', "\\-"))), "{}", flag.name);
            assert_eq!(option(flag).value.is_none(), flag.kind == Kind::Truth, "{}", flag.name);
        }
        let (_, text) = manual().files().swap_remove(1);
        for flag in forwarder::FLAGS {
            assert!(text.contains(&format!("\\-\\-{}", flag.name.replace('-', "\\-"))), "{}", flag.name);
            assert_eq!(forwarder_option(flag).value.is_none(), flag.kind == Kind::Truth, "{}", flag.name);
        }
    }

    #[test]
    fn the_file_on_the_page_is_one() {
        let (_, blocks) = page().sections[2];
        let Code(text) = blocks[1] else { panic!("an example") };
        let document = crate::yaml::parse(text.as_bytes()).unwrap();
        let stack = document.stack.unwrap();
        assert!(stack.capture_file.is_some() && stack.tcp_connect_timeout.is_some());
        assert_eq!(stack.forwards.unwrap().0.len(), 2);
        assert!(document.notification.is_some() && document.interfaces.unwrap().qemu.is_some());
    }
}
