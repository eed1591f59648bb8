//! Frames finished for links that can do less, and a link whose addresses change.

use super::frames::FrameSpec;
use crate::offload;
use crate::packet::{Options, Tcp, Udp, ethernet};
use crate::raw_guest::RawGuest;
use crate::raw_guest::RawTcp;
use crate::upstream::HostConfig;
use crate::upstream::datagram::{EchoService, UdpService};
use crate::upstream::tcp::Script;
use crate::world::{ENGINE_MAC, GUEST_MAC, World, WorldConfig, plan};
use arbitrary::{Arbitrary, Unstructured};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use ipnet::Ipv4Net;
use slipway_netstack::device::vnet::{Checksum, GsoKind, HEADER_LEN};
use slipway_netstack::device::{Capabilities, Gso, Offload, segment};
use slipway_netstack::ip::plan::gvproxy::{Gvproxy, HTTP, Ipv6};
use slipway_netstack::ip::plan::pasta::{Half, Loopback, Pasta};
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Slirp};
use slipway_netstack::ip::plan::{Case, Family, Leads, Learn, Plan, Prefix, Route, ServiceId, View};

/// What a card does that can do everything.
const ALL: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
/// Linux's TCP_MIN_GSO_SIZE and UDP_MAX_SEGMENTS: what is cut finer is refused.
const FINEST: (u16, usize) = (8, 128);

/// A virtio-net header, a byte of capabilities, and a frame: finished as it is; and, made from the same bytes, a good
/// train, of which the simulator's card must make the very same frames.
pub fn frame_finish(data: &[u8]) {
    let Some((header, rest)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Some((&how, rest)) = rest.split_first() else { return };
    let bit = |n: u8| how >> n & 1 == 1;
    let caps = Capabilities { checksum: bit(0), tso4: bit(1), tso6: bit(2), uso: bit(3) };
    if let Some(offload) = Offload::parse(header) {
        let frames = finished(offload, rest, caps).unwrap_or_default();
        // A segment of TCP carries eight bytes at least; a datagram may carry one, and they are bounded by their
        // number.
        let most = (rest.len() / usize::from(FINEST.0) + 1).max(FINEST.1);
        assert!(frames.len() <= most, "{} frames", frames.len());
        assert!(frames.iter().all(|(_, frame)| frame.len() <= rest.len()));
    }
    let (offload, frame) = good_train(*header, (bit(4), bit(5)), rest);
    let expected = offload::finish(ALL, offload, &frame);
    let ours = finished(offload, &frame, caps).expect("a good train");
    let found: Vec<_> = ours.iter().flat_map(|(left, one)| offload::finish(caps, *left, one)).collect();
    let plain = |frames: Vec<Vec<u8>>| {
        frames.into_iter().map(|one| if bit(5) { one_zero(one, offload.checksum) } else { one }).collect()
    };
    let (found, expected): (Vec<_>, Vec<_>) = (plain(found), plain(expected));
    assert!(found == expected, "{} frames instead of {}", found.len(), expected.len());
}

/// All ones and zero are one number (RFC 1071 §2), and to TCP the same (to UDP zero means that there is none): a frame
/// in which only the latter is.
fn one_zero(mut frame: Vec<u8>, checksum: Checksum) -> Vec<u8> {
    if let Checksum::Partial { start, offset } = checksum
        && let Some(field) = frame.get_mut(usize::from(start) + usize::from(offset)..)
        && let Some(field @ [0xff, 0xff]) = field.first_chunk_mut::<2>()
    {
        *field = [0, 0];
    }
    frame
}

/// What comes of a frame, and what is left to do in each.
fn finished(offload: Offload, frame: &[u8], caps: Capabilities) -> Option<Vec<(Offload, Vec<u8>)>> {
    let mut frames = Vec::new();
    segment::finish(offload, frame, caps, &mut |left, one| {
        assert!(caps.checksum || left == Offload::NONE, "the link cannot do {left:?}");
        frames.push((left, one.to_vec()));
    })
    .ok()
    .map(|()| frames)
}

/// A train, or a packet that is none, whose payload is `seed` again and again.
fn good_train(header: [u8; HEADER_LEN], (v6, tcp): (bool, bool), seed: &[u8]) -> (Offload, Vec<u8>) {
    let [flags, options, a, b, c, d, ..] = header;
    let (size, len) = (u16::from_le_bytes([a, b]), usize::from(u16::from_le_bytes([c, d])).min(60_000));
    let payload: Vec<u8> = seed.iter().copied().chain([0]).cycle().take(len).collect();
    let ends = if v6 { ("[fd00::2]:53", "[fd00::64]:999") } else { ("10.0.2.2:53", "10.0.2.100:999") };
    let ends: (SocketAddr, SocketAddr) = (ends.0.parse().expect("one"), ends.1.parse().expect("another"));
    let packet = if tcp {
        let timestamps = (options & 1 == 1).then_some((1, 2));
        let options = Options { timestamps, ..Options::default() };
        let segment = Tcp { seq: u32::MAX - u32::from(size), flags, options, ..Tcp::default() };
        segment.data(payload).packet(ends.0, ends.1)
    } else {
        Udp::packet(ends.0, ends.1, &payload)
    };
    let whole = ethernet(ENGINE_MAC, GUEST_MAC, &packet.emit());
    let (offload, frame) = offload::coalesce(vec![whole]).pop().expect("a frame");
    let size = if tcp { size.max(FINEST.0) } else { size.max(crate::packet::len16(len / FINEST.1 + 1)) };
    let kind = match (tcp, v6) {
        (true, false) => GsoKind::Tcp4,
        (true, true) => GsoKind::Tcp6,
        (false, _) => GsoKind::Udp,
    };
    let header_len = crate::packet::len16(frame.len() - len);
    let is_train = len > usize::from(size) && matches!(offload.checksum, Checksum::Partial { .. });
    (Offload { gso: is_train.then_some(Gso { kind, size, header_len }), ..offload }, frame)
}

/// What happens to a link whose addresses change.
#[derive(Debug, Arbitrary)]
enum Change {
    /// Addresses as slirp4netns has them: network and prefix length, what is on, and a destination to look at.
    Slirp { network: u32, len: u8, on: u8, to: (bool, u32), port: u16 },
    /// A table of anything: guests, gateway, ours, rows.
    Table { network: (u32, u8), guests: Vec<u32>, gateway: Option<u32>, ours: Vec<u32>, rows: Vec<Row> },
    /// The guest sends something.
    Frame(Box<FrameSpec>),
    /// A client comes from the host's side, over TCP or UDP.
    Client { udp: bool, from: u32, guest: u32 },
    /// Time passes.
    Wait(u16),
    /// IPv4 as pasta has it: addresses and prefix lengths, the gateway; map-host-loopback, map-guest-addr, dns-forward
    /// and dns-host; what is on, and a destination to look at.
    Pasta {
        addresses: Vec<(u32, u8)>,
        gateway: Option<u32>,
        special: [Option<u32>; 4],
        on: u8,
        to: u32,
        port: u16,
    },
    /// IPv4 as gvproxy has it: network and prefix length, the gateway, aliases, what stands for what, for whom an
    /// address is kept; what is on, and a destination to look at.
    Gvproxy {
        network: (u32, u8),
        gateway: u32,
        aliases: [Option<u32>; 2],
        nat: [Option<(u32, u32)>; 2],
        reserved: [Option<u32>; 2],
        on: u8,
        to: u32,
        port: u16,
    },
}

/// A row of one of the tables.
#[derive(Debug, Arbitrary)]
struct Row {
    at: (u32, u8),
    port: Option<u16>,
    leads: u8,
    to: u32,
    view: bool,
}

/// Plans that replace one another while frames and clients come. One connection, over IPv6, can live through them all
/// but for those that shut the network in, and none of its bytes is lost; it is reset by just these.
pub fn address_plan(data: &[u8]) {
    let mut config = WorldConfig::default();
    config.engine.max_flows = 16;
    config.host = HostConfig { eager: true, ..HostConfig::default() };
    let mut world = World::raw(config);
    world.host.serve("[2001:db8::9]:9", Script::manual());
    world.host.serve_otherwise(Script::echo());
    world.host.serve_udp_otherwise(UdpService::Echo);
    world.host.serve_echo_otherwise(EchoService::Reply);
    let mut end = RawTcp::open(&mut world, "[2001:db8::9]:9");
    let (mut said, mut lives) = (0, true);
    let mut u = Unstructured::new(data);
    for _ in 0..32 {
        let Ok(change) = Change::arbitrary(&mut u) else { break };
        lives &= apply(&mut world, change);
        if lives {
            world.guest.send(&end.segment().data(vec![b'x'; 10]).packet(end.local, end.remote));
            (end.seq, said) = (end.seq.wrapping_add(10), said + 10);
        }
        world.run_for(Duration::from_millis(20));
        world.guest.take();
        let peer = world.host.peer(0);
        assert_eq!(peer.reset, !lives, "reset by what ends it and by nothing else");
        assert!(!lives || peer.data.len() == said, "no byte is lost");
    }
    super::run(&mut world);
}

/// Whether the connection lives through it.
fn apply(world: &mut World<RawGuest>, change: Change) -> bool {
    let now = world.now();
    match change {
        Change::Slirp { network, len, on, to, port } => {
            let bit = |n: u8| on >> n & 1 == 1;
            let network = Ipv4Net::new(network.into(), len % 26).expect("a prefix");
            let v4 = Ipv4Config::slirp(network);
            let dns = if bit(0) { v4.dns } else { bit(1).then_some(v4.gateway) };
            let v4 = bit(2).then_some(Ipv4Config { dns, ..v4 });
            let (host_loopback, internal) = (bit(3), bit(4) && bit(5));
            let change = |slirp: &mut Slirp| {
                *slirp = Slirp { v4, host_loopback, internal, ..*slirp };
            };
            let new = plan(change);
            let to = if to.0 { network.network().to_bits() | to.1 & 0xff } else { to.1 };
            let dst = SocketAddr::new(Ipv4Addr::from(to).into(), port);
            let expected =
                v4.map_or(Route::Nobody, |v4| by_hand(&v4, (host_loopback, internal), to.into(), port));
            assert_eq!(new.outbound(dst), expected, "{dst} of {v4:?}");
            world.engine.readdress(now, new, &mut world.host);
            !internal
        }
        Change::Table { network, guests, gateway, ours, rows } => {
            let new = table(network, &guests, gateway, &ours, &rows);
            world.engine.readdress(now, new, &mut world.host);
            true
        }
        Change::Pasta { addresses, gateway, special, on, to, port } => {
            let bit = |n: u8| on >> n & 1 == 1;
            let nets = addresses.iter().take(4);
            let nets = nets.map(|&(bits, len)| Ipv4Net::new(bits.into(), len % 33).expect("a prefix"));
            let [host, map_guest_addr, dns_forward, dns_host] = special.map(|bits| bits.map(Ipv4Addr::from));
            let half = Half {
                addresses: nets.collect(),
                pinned: bit(0),
                gateway: gateway.map(Ipv4Addr::from),
                map_host_loopback: match host {
                    Some(host) => Loopback::At(host),
                    None if bit(1) => Loopback::Nowhere,
                    None => Loopback::Gateway,
                },
                map_guest_addr,
                dns_forward,
                dns_host,
                dns: Vec::new(),
            };
            let near = [host, map_guest_addr, dns_forward, half.gateway];
            let to = near.get(usize::from(on >> 2)).copied().flatten().unwrap_or_else(|| to.into());
            let port = [53, 853].get(usize::from(port)).copied().unwrap_or(port);
            let pasta = Plan::pasta(&Pasta { v4: Some(half.clone()), ..Pasta::default() });
            let found = pasta.outbound(SocketAddr::new(to.into(), port));
            assert_eq!(found, pasta_by_hand(&half, to, port), "{to} port {port} of {half:?}");
            world.engine.readdress(now, Plan { v4: pasta.v4, ..plan(|_| {}) }, &mut world.host);
            true
        }
        Change::Gvproxy { network: (bits, len), gateway, aliases, nat, reserved, on, to, port } => {
            let bit = |n: u8| on >> n & 1 == 1;
            let subnet = Ipv4Net::new(bits.into(), len % 33).expect("a prefix").trunc();
            let pair = |(at, of): (u32, u32)| (Ipv4Addr::from(at), Ipv4Addr::from(of));
            let of = Gvproxy {
                subnet,
                gateway: gateway.into(),
                aliases: aliases.into_iter().flatten().map(Ipv4Addr::from).collect(),
                nat: nat.into_iter().flatten().map(pair).collect(),
                reserved: reserved.into_iter().flatten().map(|at| (at.into(), GUEST_MAC)).collect(),
                link_local: bit(0),
                preserve_source: bit(1),
                v6: None,
            };
            let near = [Some(of.gateway), of.aliases.first().copied(), of.nat.first().map(|(at, _)| *at)];
            let near = near.into_iter().chain([Some(subnet.broadcast())]).nth(usize::from(on >> 2)).flatten();
            let to = near.unwrap_or_else(|| to.into());
            let port = [53, 80].get(usize::from(port)).copied().unwrap_or(port);
            let new = Plan::gvproxy(&of);
            let found = new.outbound(SocketAddr::new(to.into(), port));
            assert_eq!(found, gvproxy_by_hand(&of, to, port), "{to} port {port} of {of:?}");
            let Plan { v4, dhcp, dhcp_manner, .. } = new;
            let new = Plan { v4, dhcp, dhcp_manner, ..plan(|_| {}) };
            world.engine.readdress(now, new, &mut world.host);
            true
        }
        Change::Frame(frame) => {
            let (offload, frame) = frame.build();
            world.guest.send_frame(offload, frame);
            true
        }
        Change::Client { udp, from, guest } => {
            let from = SocketAddr::new(Ipv4Addr::from(from).into(), 5000).to_string();
            let guest = SocketAddr::new(Ipv4Addr::from(guest).into(), 80).to_string();
            // That there is no room, or no IPv4 at all, is an answer, too.
            let _ = if udp {
                world.accept_udp(&from, &guest, b"hello", 5)
            } else {
                world.accept_tcp(&from, &guest, Script::echo())
            };
            true
        }
        Change::Wait(time) => {
            world.run_for(Duration::from_millis(time.into()));
            true
        }
    }
}

/// Where slirp4netns's contract (§8) says that a destination leads, in words instead of rows.
fn by_hand(v4: &Ipv4Config, (host_loopback, internal): (bool, bool), dst: Ipv4Addr, port: u16) -> Route {
    let world = |to: Ipv4Addr, allowed: bool| {
        if allowed && !internal { Route::Upstream(IpAddr::V4(to)) } else { Route::Forbidden }
    };
    if v4.dns == Some(dst) && (port == 53 || dst != v4.gateway) {
        return if port == 53 { Route::Dns } else { Route::Closed };
    }
    if dst == v4.gateway || dst.is_broadcast() {
        return world(Ipv4Addr::LOCALHOST, host_loopback);
    }
    if dst.is_multicast() || dst == v4.network.broadcast() {
        return Route::Group;
    }
    if v4.network.contains(&dst) || dst.is_unspecified() || dst.is_loopback() {
        return Route::Nobody;
    }
    world(dst, true)
}

/// Where pasta's contract (E.4) says that a destination leads, in words instead of rows.
fn pasta_by_hand(half: &Half<Ipv4Addr>, dst: Ipv4Addr, port: u16) -> Route {
    let upstream = |to: Ipv4Addr| Route::Upstream(to.into());
    let Some(first) = half.addresses.first() else { return Route::Nobody };
    if half.dns_forward == Some(dst) && port == 53 {
        return Route::Dns;
    }
    if half.dns_forward == Some(dst) && port == 853 {
        return half.dns_host.map_or(Route::Closed, upstream);
    }
    let host = match half.map_host_loopback {
        Loopback::Gateway => half.gateway,
        Loopback::At(host) => Some(host),
        Loopback::Nowhere => None,
    };
    if host == Some(dst) {
        return upstream(Ipv4Addr::LOCALHOST);
    }
    if half.map_guest_addr == Some(dst) {
        return upstream(first.addr());
    }
    if dst.is_unspecified() || dst.is_loopback() {
        return Route::Nobody;
    }
    let all = |net: &Ipv4Net| net.prefix_len() < 31 && net.broadcast() == dst;
    if dst.is_broadcast() || dst.is_multicast() || half.addresses.iter().any(all) {
        return Route::Members(dst.into());
    }
    upstream(dst)
}

/// Where gvproxy's contract (§6) says that a destination leads, in words instead of rows.
fn gvproxy_by_hand(of: &Gvproxy, dst: Ipv4Addr, port: u16) -> Route {
    if dst == of.gateway {
        return match port {
            53 => Route::Dns,
            80 => Route::Service(HTTP),
            _ => Route::Closed,
        };
    }
    if dst.is_loopback() || dst.is_unspecified() {
        return Route::Nobody;
    }
    if dst.is_link_local() && !of.link_local {
        return Route::Blocked;
    }
    if let Some((_, to)) = of.nat.iter().find(|(at, _)| *at == dst) {
        return Route::Upstream((*to).into());
    }
    if of.aliases.contains(&dst) {
        return Route::Closed;
    }
    let all = of.subnet.prefix_len() < 31 && of.subnet.broadcast() == dst;
    if all || dst.is_broadcast() || dst.is_multicast() {
        return Route::Group;
    }
    if of.subnet.contains(&dst) { Route::Nobody } else { Route::Upstream(dst.into()) }
}

/// A network of gvproxy's as it is without any option, with IPv6.
pub(super) fn machines() -> Gvproxy {
    let host = Ipv4Addr::new(192, 168, 127, 254);
    Gvproxy {
        subnet: Ipv4Net::new(Ipv4Addr::new(192, 168, 127, 0), 24).expect("a prefix"),
        gateway: Ipv4Addr::new(192, 168, 127, 1),
        aliases: vec![host],
        nat: vec![(host, Ipv4Addr::LOCALHOST)],
        reserved: vec![(Ipv4Addr::new(192, 168, 127, 2), GUEST_MAC)],
        link_local: false,
        preserve_source: false,
        v6: Some(Ipv6::of(ENGINE_MAC)),
    }
}

fn table(network: (u32, u8), guests: &[u32], gateway: Option<u32>, ours: &[u32], rows: &[Row]) -> Plan {
    let addr = |bits: &u32| Ipv4Addr::from(*bits);
    let prefix = |(bits, len): (u32, u8)| Prefix::new(Ipv4Addr::from(bits), len % 33);
    let leads = |row: &Row| match row.leads % 10 {
        0 => Leads::There,
        1 => Leads::To(addr(&row.to)),
        2 => Leads::Dns,
        3 => Leads::Closed,
        4 => Leads::Forbidden,
        5 => Leads::Group,
        6 => Leads::Members,
        7 => Leads::Nobody,
        8 => Leads::Blocked,
        _ => Leads::Service(ServiceId(80)),
    };
    let (views, cases): (Vec<&Row>, Vec<&Row>) = rows.iter().take(16).partition(|row| row.view);
    let family = Family {
        network: Ipv4Net::new(network.0.into(), network.1 % 33).expect("a prefix"),
        guests: guests.iter().take(8).map(addr).collect(),
        gateway: gateway.map(Ipv4Addr::from),
        learn: Learn::Pinned,
        alone: false,
        beyond: true,
        dns: Vec::new(),
        ours: ours.iter().take(4).map(addr).collect(),
        link: views.iter().map(|row| prefix(row.at)).collect(),
        cases: cases
            .iter()
            .map(|row| Case { to: prefix(row.at), port: row.port, leads: leads(row) })
            .collect(),
        inbound: views
            .iter()
            .map(|row| View {
                from: prefix(row.at),
                toward: prefix((row.to, 0)),
                seen: row.port.is_none().then(|| addr(&row.to)),
            })
            .collect(),
        answers: None,
    };
    Plan { v4: Some(family), ..plan(|_| {}) }
}
