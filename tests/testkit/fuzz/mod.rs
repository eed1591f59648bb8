//! The bodies of the fuzz targets: what to do with bytes that anybody could have sent.
//!
//! They live here, as plain functions, so that `cargo test` can replay every file of `fuzz/corpus/` through them
//! without a fuzzer (`tests/fuzz_corpus.rs`); the targets in `fuzz/` only call them. Each is a promise: no panic,
//! no circle, no growth without bound. Those that run the engine run it inside the simulator, so the host's contract
//! checker and the strict parser of outgoing frames watch as well.
//!
//! | function | input |
//! |---|---|
//! | [`frame`] | any frames, each with a virtio-net header |
//! | [`frame_finish`] | a frame and what is left to do in it, for links of every ability; a good train, cut twice |
//! | [`address_plan`] | address plans that replace one another under frames and clients |
//! | [`engine_actions`] | a list of things that can happen: frames built layer by layer, host events, rules, time |
//! | [`tcp_actions`] | one open connection, and both ends doing anything; the streams must stay intact |
//! | [`reassembly`] | pieces of one datagram, cut and sent in any way |
//! | [`dhcp4`], [`dhcp6`], [`ndp`] | any message, correctly wrapped; the first two on a link of one guest, and on one of many |
//! | [`uplink_request`], [`rootlessport`] | what a network plugin or a port helper asks of the uplink; what Podman tells the latter |
//! | [`uplink_order`] | what the uplink's supervisor and its workers tell each other |
//! | [`pesto_wire`], [`control_json`] | what programs that change forwarding rules send, or a server of theirs |
//! | [`ssh_server`] | what a guest's SSH server says, and key files |
//! | [`switch_frames`] | frames of several guests, which come and go |
//! | [`vpnkit_handshake`], [`frame_stream`] | what a guest's stream begins with; its frames, in any pieces |
//! | [`fast_link`] | a forwarder's stream that changes to trains with a header |
//! | [`http_head`], [`expose_json`], [`dns_json`] | what clients of gvproxy's API send |
//! | [`vnet`] | any virtio-net header in front of a good frame |
//! | [`dns_query`], [`dns_forward_reply`], [`dns_stream`] | a question of anybody; answers of servers; a connection with questions |
//! | [`aardvark_config`], [`resolv_conf`], [`slirp_json`], [`port_rule`], [`port_spec`], [`getopt_argv`], [`pasta_argv`], [`goflag_argv`], [`yaml_config`] | texts |
//! | [`dns_zone`] | zones with regular expressions, and questions about them |
//! | [`nft_rule`], [`netfilter`], [`route_netlink`] | what the kernel tells: a firewall rule, connections, links, addresses, routes |
//! | [`route_replay`] | dumps of a host that the guest is to look like |
//! | [`sock_diag`] | the same: who listens |
//! | [`vhost_msg`], [`vhost_ring`] | what a hypervisor asks of a link by shared memory; what its guest has in the rings |
//! | [`control_messages`], [`proc_text`] | what it tells beside datagrams, errors among it; its texts |
//! | [`firewall_state`], [`dbus_answer`] | a state file of the firewall; what the system bus sends |
//! | [`dhcp_client`], [`dhcpv6_reply`] | what DHCP servers tell the proxy that holds leases for containers, and time |
//! | [`router_advert`] | what routers tell it |
//! | [`netavark_options`] | a container engine's request, a network's definition, a file of the DNS server |
//! | [`plugin_request`] | a request to the network driver, an answer of the uplink, a record of a network |

mod actions;
mod dns;
mod frames;
mod ground;
mod guests;
mod tcp;
mod texts;

use crate::packet::{Icmp, Ip, Tcp, Udp, ethernet, flag};
use crate::raw_guest::RawGuest;
use crate::upstream::HostConfig;
use crate::upstream::datagram::{EchoService, UdpService};
use crate::upstream::tcp::Script;
use crate::world::{ENGINE_MAC, GUEST_MAC, GUEST4, World, WorldConfig};
use arbitrary::{Arbitrary, Unstructured};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use slipway_netstack::device::vnet::HEADER_LEN;
use slipway_netstack::device::{Capabilities, Offload};
use slipway_netstack::ip::plan::Plan;

pub use actions::engine_actions;
pub use dns::{aardvark_config, dns_forward_reply, dns_query, dns_stream, dns_zone};
pub use ground::{address_plan, frame_finish};
pub use guests::{fast_link, frame_stream, switch_frames, vpnkit_handshake};
pub use tcp::tcp_actions;
pub use texts::{
    control_json, control_messages, dbus_answer, dhcp_client, dhcpv6_reply, dns_json, expose_json,
    firewall_state, getopt_argv, goflag_argv, http_head, netavark_options, netfilter, nft_rule, pasta_argv,
    pesto_wire, plugin_request, port_rule, port_spec, proc_text, resolv_conf, rootlessport, route_netlink,
    route_replay, router_advert, slirp_json, sock_diag, ssh_server, uplink_order, uplink_request, vhost_msg,
    vhost_ring, yaml_config,
};

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name in `fuzz/fuzz_targets/` and `fuzz/corpus/`.
    pub name: &'static str,
    /// What to do with an input.
    pub body: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 52] = [
    Target { name: "aardvark_config", body: aardvark_config },
    Target { name: "address_plan", body: address_plan },
    Target { name: "control_json", body: control_json },
    Target { name: "control_messages", body: control_messages },
    Target { name: "dbus_answer", body: dbus_answer },
    Target { name: "dhcp4", body: dhcp4 },
    Target { name: "dhcp6", body: dhcp6 },
    Target { name: "dhcp_client", body: dhcp_client },
    Target { name: "dhcpv6_reply", body: dhcpv6_reply },
    Target { name: "dns_forward_reply", body: dns_forward_reply },
    Target { name: "dns_json", body: dns_json },
    Target { name: "dns_query", body: dns_query },
    Target { name: "dns_stream", body: dns_stream },
    Target { name: "dns_zone", body: dns_zone },
    Target { name: "engine_actions", body: engine_actions },
    Target { name: "expose_json", body: expose_json },
    Target { name: "fast_link", body: fast_link },
    Target { name: "firewall_state", body: firewall_state },
    Target { name: "frame", body: frame },
    Target { name: "frame_finish", body: frame_finish },
    Target { name: "frame_stream", body: frame_stream },
    Target { name: "getopt_argv", body: getopt_argv },
    Target { name: "goflag_argv", body: goflag_argv },
    Target { name: "http_head", body: http_head },
    Target { name: "ndp", body: ndp },
    Target { name: "netavark_options", body: netavark_options },
    Target { name: "netfilter", body: netfilter },
    Target { name: "nft_rule", body: nft_rule },
    Target { name: "pasta_argv", body: pasta_argv },
    Target { name: "pesto_wire", body: pesto_wire },
    Target { name: "plugin_request", body: plugin_request },
    Target { name: "port_rule", body: port_rule },
    Target { name: "port_spec", body: port_spec },
    Target { name: "proc_text", body: proc_text },
    Target { name: "reassembly", body: reassembly },
    Target { name: "resolv_conf", body: resolv_conf },
    Target { name: "rootlessport", body: rootlessport },
    Target { name: "route_netlink", body: route_netlink },
    Target { name: "route_replay", body: route_replay },
    Target { name: "router_advert", body: router_advert },
    Target { name: "slirp_json", body: slirp_json },
    Target { name: "sock_diag", body: sock_diag },
    Target { name: "ssh_server", body: ssh_server },
    Target { name: "switch_frames", body: switch_frames },
    Target { name: "tcp_actions", body: tcp_actions },
    Target { name: "uplink_order", body: uplink_order },
    Target { name: "uplink_request", body: uplink_request },
    Target { name: "vhost_msg", body: vhost_msg },
    Target { name: "vhost_ring", body: vhost_ring },
    Target { name: "vnet", body: vnet },
    Target { name: "vpnkit_handshake", body: vpnkit_handshake },
    Target { name: "yaml_config", body: yaml_config },
];

/// What one input may have others send, in bytes. It is more than first windows and buffers hold, so that they fill up
/// and grow; without an end, inputs of nothing but long data would be most of what the fuzzer does, at a hundredth of
/// the speed.
const BUDGET: usize = 256 << 10;

/// So many of `wanted` bytes as are left.
fn afford(budget: &mut usize, wanted: u16) -> usize {
    let len = usize::from(wanted).min(*budget);
    *budget -= len;
    len
}

/// A world in which everybody answers, on a device that takes every offload.
fn world() -> World<RawGuest> {
    let mut config = WorldConfig::default();
    config.engine.device = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
    config.engine.max_flows = 16;
    config.host = HostConfig { eager: true, ..HostConfig::default() };
    let mut world = World::raw(config);
    world.host.serve_otherwise(Script::echo());
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.host.serve_echo_otherwise(EchoService::Reply);
    world
}

/// Lets a second pass, with everything that it brings; what the guest gets is parsed and thrown away.
fn run(world: &mut World<RawGuest>) {
    world.run_for(Duration::from_secs(1));
    world.guest.take();
}

/// Any frames: two bytes of length (little-endian), a virtio-net header and the frame, again and again.
pub fn frame(mut data: &[u8]) {
    let mut world = world();
    while let [a, b, rest @ ..] = data {
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_LEN>() else { break };
        let (frame, rest) = rest.split_at(usize::from(u16::from_le_bytes([*a, *b])).min(rest.len()));
        if let Some(offload) = Offload::parse(header) {
            world.guest.send_frame(offload, frame.to_vec());
            world.run_for(Duration::from_millis(1));
        }
        data = rest;
    }
    run(&mut world);
}

/// A virtio-net header, and behind it bytes that decide how long the frame is to which it belongs.
pub fn vnet(data: &[u8]) {
    let Some((header, rest)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Some(offload) = Offload::parse(header) else { return };
    let again = Offload::parse(&offload.emit());
    assert_eq!(again, Some(offload), "what was understood is written down as it was understood");
    let len = rest.first_chunk::<2>().map_or(0, |len| usize::from(u16::from_le_bytes(*len)).min(60_000));
    let from = SocketAddr::new(GUEST4.into(), 1024);
    let to = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 80);
    let tcp = Tcp { seq: 1, window: 1000, ..Tcp::default() };
    let mut world = world();
    for packet in [
        tcp.clone().with(flag::SYN).packet(from, to),
        tcp.seq_plus(1).with(flag::ACK).data(vec![0; len]).packet(from, to),
        Udp::packet(from, to, &vec![0; len]),
    ] {
        let mut bytes = packet.emit();
        bytes.truncate(bytes.len().saturating_sub(rest.get(2).map_or(0, |cut| usize::from(*cut))));
        world.guest.send_frame(offload, ethernet(ENGINE_MAC, GUEST_MAC, &bytes));
        run(&mut world);
    }
}

fn messages(mut world: World<RawGuest>, data: &[u8], wrap: impl Fn(&[u8]) -> Ip) -> World<RawGuest> {
    // Messages are told apart by a four-byte mark that no well-formed one contains by chance.
    for message in split(data, &[0xfe, 0xed, 0xfa, 0xce]) {
        world.guest.send(&wrap(&message[..message.len().min(1400)]));
        run(&mut world);
    }
    world
}

/// The same with the network of gvproxy, in which leases are many stations'.
fn world_of_machines() -> World<RawGuest> {
    let mut world = world();
    let plan = Plan::gvproxy(&ground::machines());
    let now = world.now();
    world.engine.readdress(now, plan, &mut world.host);
    world
}

/// Whatever was said, nobody has an address that is ours, or one of another network.
fn leases_are_sound(world: &World<RawGuest>) {
    let of = ground::machines();
    let v6 = of.v6.expect("it has IPv6");
    for (addr, mac) in world.engine.leases(world.now()) {
        let sound = match addr {
            IpAddr::V4(addr) if addr == of.gateway => mac == ENGINE_MAC,
            IpAddr::V4(addr) => of.subnet.contains(&addr) && !of.aliases.contains(&addr),
            IpAddr::V6(addr) if addr == v6.gateway => mac == ENGINE_MAC,
            IpAddr::V6(addr) => v6.network.contains(&addr) && addr != v6.host,
        };
        assert!(sound, "{addr} is {mac}'s");
    }
}

fn split<'a>(data: &'a [u8], mark: &[u8]) -> Vec<&'a [u8]> {
    let mut out = Vec::new();
    let mut rest = data;
    while out.len() < 32 {
        let Some(at) = rest.windows(mark.len()).position(|window| window == mark) else { break };
        out.push(&rest[..at]);
        rest = &rest[at + mark.len()..];
    }
    out.push(rest);
    out
}

/// DHCP messages, as broadcasts from a client without address.
pub fn dhcp4(data: &[u8]) {
    let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 68);
    let to = SocketAddr::new(Ipv4Addr::BROADCAST.into(), 67);
    messages(world(), data, |message| Udp::packet(from, to, message));
    leases_are_sound(&messages(world_of_machines(), data, |message| Udp::packet(from, to, message)));
}

/// DHCPv6 messages, to all servers and relay agents.
pub fn dhcp6(data: &[u8]) {
    let from = SocketAddr::new(GUEST_MAC.link_local().into(), 546);
    let to = SocketAddr::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into(), 547);
    messages(world(), data, |message| Udp::packet(from, to, message));
    leases_are_sound(&messages(world_of_machines(), data, |message| Udp::packet(from, to, message)));
}

/// ICMPv6 messages with hop limit 255; the first byte decides where to, the second is the type.
pub fn ndp(data: &[u8]) {
    messages(world(), data, |message| {
        let (to, message) = message.split_first().unwrap_or((&0, &[]));
        let to = match to % 4 {
            0 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
            1 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2),
            2 => ENGINE_MAC.link_local(),
            _ => crate::world::GATEWAY6,
        };
        let mut bytes = message.to_vec();
        bytes.resize(bytes.len().max(8), 0);
        let word = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let icmp = Icmp { kind: bytes[0], code: bytes[1], word, body: bytes[8..].to_vec() };
        let mut packet = icmp.packet(GUEST_MAC.link_local().into(), to.into());
        packet.hops = 255;
        packet
    });
}

/// Pieces of a datagram.
#[derive(Debug, Arbitrary)]
struct Pieces {
    v6: bool,
    len: u16,
    pieces: Vec<Piece>,
}

#[derive(Debug, Arbitrary)]
struct Piece {
    id: u8,
    at: u16,
    len: u16,
    /// Says "more" where there is no more, or the reverse.
    lie: bool,
    /// Other bytes than the datagram has there.
    wrong: bool,
    pause: u8,
}

/// Pieces of one datagram, cut and sent in any way. If one comes out, and no piece had other bytes, it is the one.
pub fn reassembly(data: &[u8]) {
    let Ok(input) = Pieces::arbitrary(&mut Unstructured::new(data)) else { return };
    let mut world = world();
    let (from, to): (SocketAddr, SocketAddr) = if input.v6 {
        (SocketAddr::new(crate::world::GUEST6.into(), 7), "[2001:db8::1]:7".parse().expect("an endpoint"))
    } else {
        (SocketAddr::new(GUEST4.into(), 7), "192.0.2.1:7".parse().expect("an endpoint"))
    };
    let payload = crate::pattern::bytes(3, 0, usize::from(input.len).min(65_000));
    let whole = Udp::packet(from, to, &payload);
    let mut honest = true;
    for piece in input.pieces.iter().take(256) {
        let begin = (usize::from(piece.at) * 8).min(whole.payload.len() / 8 * 8).min(65_528);
        let end = (begin + usize::from(piece.len).min(1480)).min(whole.payload.len());
        let mut bytes = whole.payload[begin..end].to_vec();
        if piece.wrong {
            bytes.iter_mut().for_each(|b| *b ^= 0x55);
        }
        honest &= !piece.wrong && !piece.lie;
        let more = (end < whole.payload.len()) != piece.lie;
        let offset = u16::try_from(begin).expect("below 64 KiB");
        let fragment = crate::packet::Fragment { id: u32::from(piece.id % 8), offset, more };
        world.guest.send(&Ip { fragment: Some(fragment), payload: bytes, ..whole.clone() });
        world.run_for(Duration::from_millis(u64::from(piece.pause) * 10 + 1));
        world.guest.take();
    }
    for datagram in world.host.take_datagrams() {
        assert!(!honest || datagram.payload == payload, "a datagram that nobody sent");
    }
    run(&mut world);
}
