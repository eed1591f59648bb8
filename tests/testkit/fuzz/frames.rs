//! Frames built layer by layer from arbitrary choices: mostly right, so that they get past the first check, with room
//! for anything to be wrong.

use crate::packet::{Arp, ETHERTYPE_ARP, Fragment, Icmp, Ip, Options, Tcp, Udp, ethernet, ethernet_of};
use crate::world::{DNS4, DNS6, ENGINE_MAC, GATEWAY4, GATEWAY6, GUEST_MAC, GUEST4, GUEST6};
use arbitrary::Arbitrary;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use slipway_netstack::device::{Gso, Offload};

/// A frame.
#[derive(Debug, Arbitrary)]
pub(super) struct FrameSpec {
    to: Station,
    body: BodySpec,
    /// Overwrites a byte.
    damage: Option<(u16, u8)>,
    /// Cuts the end off.
    cut: Option<u16>,
    train: Option<(u8, u16)>,
}

#[derive(Debug, Arbitrary)]
enum Station {
    Engine,
    Broadcast,
    Group([u8; 4]),
    Other([u8; 6]),
}

#[derive(Debug, Arbitrary)]
enum BodySpec {
    Arp { operation: u8, sender: Place, target: Place },
    Packet(PacketSpec),
    Bytes { kind: u16, bytes: Vec<u8> },
}

#[derive(Debug, Arbitrary)]
struct PacketSpec {
    v6: bool,
    from: Place,
    to: Place,
    hops: u8,
    traffic_class: u8,
    fragment: Option<(u8, u16, bool)>,
    options: Vec<u8>,
    body: Transport,
}

#[derive(Debug, Arbitrary)]
enum Transport {
    Tcp {
        ports: (u8, u8),
        seq: u32,
        ack: u32,
        flags: u8,
        window: u16,
        options: Vec<u8>,
        len: u16,
    },
    Udp {
        ports: (u8, u8),
        payload: Vec<u8>,
    },
    Icmp {
        kind: u8,
        code: u8,
        word: u32,
        body: Vec<u8>,
    },
    /// An ICMP error about a packet that this guest might have received.
    IcmpError {
        kind: u8,
        code: u8,
        mtu: u16,
        about: Box<Quote>,
    },
    Bytes {
        protocol: u8,
        bytes: Vec<u8>,
    },
}

#[derive(Debug, Arbitrary)]
struct Quote {
    from: Place,
    to: Place,
    tcp: bool,
    ports: (u8, u8),
    cut: u8,
}

/// An address worth trying.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Place {
    Guest,
    Gateway,
    Dns,
    Remote(u8),
    Neighbour(u8),
    LinkLocal,
    EngineLinkLocal,
    Broadcast,
    Group(u8),
    Loopback,
    Nowhere,
    Any([u8; 16]),
}

impl Place {
    const fn v4(self) -> Ipv4Addr {
        match self {
            Self::Guest | Self::LinkLocal => GUEST4,
            Self::Gateway | Self::EngineLinkLocal => GATEWAY4,
            Self::Dns => DNS4,
            Self::Remote(n) => Ipv4Addr::new(192, 0, 2, n),
            Self::Neighbour(n) => Ipv4Addr::new(10, 0, 2, n),
            Self::Broadcast => Ipv4Addr::BROADCAST,
            Self::Group(n) => Ipv4Addr::new(224, 0, 0, n),
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Nowhere => Ipv4Addr::UNSPECIFIED,
            Self::Any([a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d),
        }
    }

    fn v6(self) -> Ipv6Addr {
        match self {
            Self::Guest => GUEST6,
            Self::Gateway => GATEWAY6,
            Self::Dns => DNS6,
            Self::Remote(n) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)),
            Self::Neighbour(n) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n)),
            Self::LinkLocal => GUEST_MAC.link_local(),
            Self::EngineLinkLocal => ENGINE_MAC.link_local(),
            Self::Broadcast => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            Self::Group(n) => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, u16::from(n)),
            Self::Loopback => Ipv6Addr::LOCALHOST,
            Self::Nowhere => Ipv6Addr::UNSPECIFIED,
            Self::Any(bytes) => Ipv6Addr::from(bytes),
        }
    }

    fn of(self, v6: bool) -> IpAddr {
        if v6 { self.v6().into() } else { self.v4().into() }
    }
}

/// Few ports, so that flows are met again; the well-known ones among them.
const fn port(n: u8) -> u16 {
    match n % 16 {
        0 => 53,
        1 => 67,
        2 => 68,
        3 => 546,
        4 => 547,
        5 => 80,
        6 => 0,
        7 => 7,
        n => 40_000 + n as u16,
    }
}

impl FrameSpec {
    /// The frame.
    pub(super) fn build(self) -> (Offload, Vec<u8>) {
        let to = match self.to {
            Station::Engine => ENGINE_MAC,
            Station::Broadcast => MacAddr::BROADCAST,
            Station::Group([a, b, c, d]) => MacAddr([0x33, 0x33, a, b, c, d]),
            Station::Other(mac) => MacAddr(mac),
        };
        let mut offload = Offload::NONE;
        let mut frame = match self.body {
            BodySpec::Arp { operation, sender, target } => {
                let sender = (GUEST_MAC, sender.v4());
                let arp = Arp { operation: u16::from(operation), ..Arp::request(sender, target.v4()) };
                ethernet_of(to, GUEST_MAC, ETHERTYPE_ARP, &arp.emit())
            }
            BodySpec::Bytes { kind, bytes } => ethernet_of(to, GUEST_MAC, kind, &bytes),
            BodySpec::Packet(spec) => {
                let packet = spec.build();
                offload = self.train.map_or(Offload::NONE, |(kind, size)| train(&packet, kind, size));
                ethernet(to, GUEST_MAC, &packet.emit())
            }
        };
        if let Some((at, value)) = self.damage {
            let at = usize::from(at) % frame.len();
            frame[at] = value;
        }
        if let Some(cut) = self.cut {
            frame.truncate(frame.len() - usize::from(cut) % frame.len());
        }
        (offload, frame)
    }
}

fn train(packet: &Ip, kind: u8, size: u16) -> Offload {
    let header = if packet.src.is_ipv4() { 20 + crate::packet::len16(packet.options.len()) } else { 40 };
    let (kind, own, offset) = match kind % 3 {
        0 => (GsoKind::Tcp4, 20, 16),
        1 => (GsoKind::Tcp6, 20, 16),
        _ => (GsoKind::Udp, 8, 6),
    };
    let start = 14 + header;
    let gso = (size != 0).then_some(Gso { kind, size, header_len: start + own });
    Offload { checksum: Checksum::Partial { start, offset }, gso }
}

impl PacketSpec {
    fn build(self) -> Ip {
        let (from, to) = (self.from.of(self.v6), self.to.of(self.v6));
        let mut packet = match self.body {
            Transport::Tcp { ports, seq, ack, flags, window, mut options, len } => {
                options.truncate(40);
                options.resize(options.len().next_multiple_of(4), 0);
                let options = Options { raw: options, ..Options::default() };
                let payload = crate::pattern::bytes(0, u64::from(seq), usize::from(len % 8192));
                Tcp { seq, ack, flags, window, options, payload, ..Tcp::default() }
                    .packet(SocketAddr::new(from, port(ports.0)), SocketAddr::new(to, port(ports.1)))
            }
            Transport::Udp { ports, payload } => {
                let payload = &payload[..payload.len().min(9000)];
                let (from, to) = (SocketAddr::new(from, port(ports.0)), SocketAddr::new(to, port(ports.1)));
                Udp::packet(from, to, payload)
            }
            Transport::Icmp { kind, code, word, mut body } => {
                body.truncate(9000);
                Icmp { kind, code, word, body }.packet(from, to)
            }
            Transport::IcmpError { kind, code, mtu, about } => {
                let body = about.build(self.v6);
                Icmp { kind, code, word: u32::from(mtu), body }.packet(from, to)
            }
            Transport::Bytes { protocol, mut bytes } => {
                bytes.truncate(9000);
                Ip::new(from, to, protocol, bytes)
            }
        };
        packet.hops = self.hops;
        packet.traffic_class = self.traffic_class;
        packet.fragment = self.fragment.map(|(id, offset, more)| Fragment {
            id: u32::from(id),
            offset: offset & 0xfff8,
            more,
        });
        if !self.v6 {
            packet.options = self.options;
            packet.options.truncate(40);
            packet.options.resize(packet.options.len().next_multiple_of(4), 0);
        }
        packet
    }
}

impl Quote {
    fn build(self, v6: bool) -> Vec<u8> {
        let from = SocketAddr::new(self.from.of(v6), port(self.ports.0));
        let to = SocketAddr::new(self.to.of(v6), port(self.ports.1));
        let packet =
            if self.tcp { Tcp::default().packet(from, to) } else { Udp::packet(from, to, b"quoted") };
        let mut bytes = packet.emit();
        bytes.truncate(usize::from(self.cut).max(1));
        bytes
    }
}
