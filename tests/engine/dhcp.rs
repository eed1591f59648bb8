//! DHCP, DHCPv6 and router advertisements through the engine; smoltcp's client is the judge of the first.

use crate::raw;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use testkit::guest::{SmolConfig, SmolGuest};
use testkit::packet::{Body, Icmp, Udp, ethernet};
use testkit::world::{DNS4, DNS6, ENGINE_MAC, GATEWAY4, GUEST_MAC, World, WorldConfig};

#[test]
fn smoltcp_gets_a_lease() {
    let mut world = World::new(WorldConfig::default(), SmolGuest::new(SmolConfig::default()));
    let client = world.guest.dhcp();
    let mut lease = None;
    world.run_until(Duration::from_secs(30), |world| {
        lease = lease.take().or_else(|| world.guest.dhcp_lease(client));
        lease.is_some()
    });
    let lease = lease.expect("a lease within half a minute");
    assert_eq!(lease.address, "10.0.2.15/24");
    assert_eq!(lease.router, Some(GATEWAY4));
    assert_eq!(lease.dns, [DNS4]);
}

fn discover(transaction: u8, kind: u8, more: &[u8]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 9, 9, 9, transaction, 0, 0, 0x80, 0];
    message.extend_from_slice(&[0; 16]);
    message.extend_from_slice(&GUEST_MAC.0);
    message.extend_from_slice(&[0; 10 + 192]);
    message.extend_from_slice(&[99, 130, 83, 99, 53, 1, kind, 55, 5, 1, 3, 6, 26, 51]);
    message.extend_from_slice(more);
    message.push(255);
    message
}

fn option(message: &[u8], wanted: u8) -> Option<Vec<u8>> {
    let mut rest = &message[240..];
    while let [kind, len, body @ ..] = rest {
        if *kind == wanted {
            return Some(body[..usize::from(*len)].to_vec());
        }
        if *kind == 255 {
            break;
        }
        rest = &body[usize::from(*len)..];
    }
    None
}

#[test]
fn an_offer_says_what_the_contract_says() {
    let mut world = raw();
    let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 68);
    let to = SocketAddr::new(Ipv4Addr::BROADCAST.into(), 67);
    let packet = Udp::packet(from, to, &discover(1, 1, &[]));
    let frame = ethernet(slipway_netstack::addr::MacAddr::BROADCAST, GUEST_MAC, &packet.emit());
    world.guest.send_frame(slipway_netstack::device::Offload::NONE, frame);
    let (ip, udp) = world.expect_udp();
    assert_eq!((ip.src, udp.src, udp.dst), (GATEWAY4.into(), 67, 68));
    let message = udp.payload;
    assert_eq!((message[0], &message[4..8]), (2, &[9, 9, 9, 1][..]), "a reply to this transaction");
    assert_eq!(message[16..20], [10, 0, 2, 15], "the first of the pool");
    assert_eq!(option(&message, 53), Some(vec![2]), "an offer");
    assert_eq!(option(&message, 1), Some(vec![255, 255, 255, 0]));
    assert_eq!(option(&message, 3), Some(GATEWAY4.octets().to_vec()));
    assert_eq!(option(&message, 6), Some(DNS4.octets().to_vec()));
    assert_eq!(option(&message, 54), Some(GATEWAY4.octets().to_vec()), "server identifier");
    assert_eq!(option(&message, 51), Some(86_400u32.to_be_bytes().to_vec()));
}

#[test]
fn a_pool_that_is_used_up_offers_nothing_and_forgets_nobody() {
    let mut world = raw();
    let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 68);
    let to = SocketAddr::new(Ipv4Addr::BROADCAST.into(), 67);
    let mut addresses = Vec::new();
    for n in 0..20u8 {
        let mut message = discover(n, 3, &[50, 4, 10, 0, 2, 15 + n, 54, 4, 10, 0, 2, 2]);
        message[33] = n;
        for answer in world.exchange(&Udp::packet(from, to, &message)) {
            let Body::Udp(_, udp) = answer.body else { panic!("{answer:?}") };
            if option(&udp.payload, 53) == Some(vec![5]) {
                addresses.push(udp.payload[19]);
            }
        }
    }
    assert_eq!(addresses, (15..31).collect::<Vec<u8>>(), "sixteen leases, each once");
}

#[test]
fn a_router_solicitation_is_answered_with_prefix_and_dns() {
    let mut world = raw();
    let own = GUEST_MAC.link_local();
    let mut body = vec![1, 1];
    body.extend_from_slice(&GUEST_MAC.0);
    let all_routers: Ipv6Addr = "ff02::2".parse().unwrap();
    let mut packet = Icmp { kind: 133, code: 0, word: 0, body }.packet(own.into(), all_routers.into());
    packet.hops = 255;
    let early = world.guest.advertisements.len();
    world.send(&packet);
    world.run_for(Duration::from_millis(600));
    let mut frames = world.take();
    frames.extend(world.guest.advertisements.drain(early..));
    assert!(!frames.is_empty(), "an answer within MAX_RA_DELAY_TIME");
    let Body::Icmp(ip, icmp) = &frames[0].body else { panic!("{frames:?}") };
    assert_eq!((icmp.kind, ip.src, ip.hops), (134, ENGINE_MAC.link_local().into(), 255));
    let prefix = ra_option(&icmp.body[8..], 3).expect("a prefix");
    assert_eq!((prefix[0], &prefix[14..]), (64, &"fd00::".parse::<Ipv6Addr>().unwrap().octets()[..]));
    let dns = ra_option(&icmp.body[8..], 25).expect("RDNSS");
    assert_eq!(dns[6..22], DNS6.octets());
    let mtu = ra_option(&icmp.body[8..], 5).expect("the MTU");
    assert_eq!(mtu[2..6], 1500u32.to_be_bytes());
}

/// The body of an NDP option, without type and length.
fn ra_option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [kind, units, ..] = options {
        let len = usize::from(*units) * 8;
        if *kind == wanted {
            return Some(&options[2..len]);
        }
        options = &options[len..];
    }
    None
}

#[test]
fn dhcpv6_tells_the_nameserver() {
    let mut world = raw();
    let from = SocketAddr::new(GUEST_MAC.link_local().into(), 546);
    let to = SocketAddr::new("ff02::1:2".parse::<IpAddr>().unwrap(), 547);
    // Information-request, option request: nameservers.
    let message = [11, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 100, 0, 6, 0, 2, 0, 23];
    world.send(&Udp::packet(from, to, &message));
    let (_, udp) = world.expect_udp();
    assert_eq!((udp.src, udp.dst, &udp.payload[..4]), (547, 546, &[7, 1, 2, 3][..]));
    let wanted = [&[0, 23, 0, 16][..], &DNS6.octets()].concat();
    assert!(udp.payload.windows(20).any(|w| w == wanted), "{:02x?}", udp.payload);
}
