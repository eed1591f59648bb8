//! Announcements: everybody on the link is told where a container's addresses are now.
//!
//! A container that comes back has its addresses again, but another MAC address. Whoever spoke with the one before it
//! (the host, which carries published ports; neighbours; the machines of a LAN, for a macvlan) keeps the old MAC
//! address until it finds out by itself, which takes half a minute; a switch sends on where it saw an address last. So
//! the addresses are announced: IPv4 by a gratuitous ARP request (RFC 5227 §2.3), IPv6 by an unsolicited neighbour
//! advertisement (RFC 4861 §7.2.6).
//!
//! The kernel could do that itself (`arp_notify`, `ndisc_notify`), but does it as the interface goes up. A bridge's
//! port passes frames only when a worker of the kernel has noticed its link, a moment later, and nobody hears it. Here
//! the port is looked at first, and then the kernel is asked to announce everything once more. That comes last in a
//! setup, when the port passes frames already, nearly always.
//!
//! Where the kernel looks for duplicates of an IPv6 address (a LAN), the address cannot be used before it is done, and
//! the kernel announces it then. What fails here is only told: everything is connected, and caches come to an end.

use crate::apply::Links;
use crate::error::{Context as _, Result};
use crate::ipv6_frame::{ALL_NODES, neighbour_discovery};
use crate::namespaces::{Place, Places};
use slipway_host::netlink::{Interface, Passage, Request};
use slipway_host::sys::packet;
use slipway_netstack::addr::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How often the port is looked at, and the time between. The kernel's worker takes less than a millisecond on a
/// machine that is not overloaded.
const GLANCES: usize = 250;
const GLANCE: Duration = Duration::from_millis(2);

/// Announces all addresses of a container's interface that has just been connected. `at_once`: nobody looks for
/// duplicates of its IPv6 addresses, so they count even if the kernel's worker has not got to them yet.
pub(crate) fn connected(places: &mut Places, links: &Links, at_once: bool) {
    if let Err(error) = announce(places, links, at_once) {
        log::warn!("neighbours are not told of the container's addresses: {error}");
    }
}

fn announce(places: &mut Places, links: &Links, at_once: bool) -> Result<()> {
    let (Places { host, container: Some(container) }, Some(inside)) = (places, &links.inside) else {
        return Ok(());
    };
    let all = container.netlink.addresses().context("list the addresses of the container")?;
    let ours = all.iter().filter(|address| address.interface == inside.index && !address.duplicate);
    let ours: Vec<_> = ours.filter(|it| at_once || !it.tentative).map(|it| it.net.addr()).collect();
    if ours.is_empty() {
        return Ok(());
    }
    if let Some(port) = &links.port {
        await_passage(host, port)?;
    }
    if by_the_kernel(container, inside)? { Ok(()) } else { tell(container, inside, &ours) }
}

/// Has the kernel announce all addresses, which it does when the interface is given a MAC address, the one that it has,
/// too (NETDEV_CHANGEADDR; Linux `net/ipv4/devinet.c`, `net/ipv6/ndisc.c`). Closing a packet socket takes an RCU grace
/// period, more than the rest of a setup. Whether it could be told to: not where `/proc/sys` is read-only, nor for an
/// ipvlan.
fn by_the_kernel(container: &mut Place, inside: &Interface) -> Result<bool> {
    let Some(mac) = inside.mac else { return Ok(false) };
    let name = &inside.name;
    let set = |key: &str| std::fs::write(format!("/proc/sys/net/{key}"), "1").is_ok();
    let asked = container.enter(|| {
        let ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
        set(&format!("ipv4/conf/{name}/arp_notify"))
            && (!ipv6 || set(&format!("ipv6/conf/{name}/ndisc_notify")))
    })?;
    Ok(asked && container.netlink.run_one(&Request::set_mac(inside.index, mac)).is_ok())
}

/// Waits until frames pass the port, unless that will take too long: with a spanning tree (a bridge of somebody else's;
/// ours have none) twice the forward delay, in which nothing at all passes.
fn await_passage(host: &mut Place, port: &Interface) -> Result<()> {
    for _ in 0..GLANCES {
        let seen = host.netlink.interface_at(port.index).context("look at the bridge's port")?;
        if seen.passage != Some(Passage::Closed) {
            return Ok(());
        }
        std::thread::sleep(GLANCE);
    }
    log::debug!("the bridge's port {} lets nothing through", port.name);
    Ok(())
}

/// Announces the address of a lease. The link is up: the lease came over it.
pub(crate) fn leased(place: &Place, interface: &Interface, address: Ipv4Addr) {
    if let Err(error) = tell(place, interface, &[address.into()]) {
        log::warn!("neighbours are not told of {address}: {error}");
    }
}

fn tell(place: &Place, interface: &Interface, addresses: &[IpAddr]) -> Result<()> {
    let Some(mac) = interface.mac else { return Ok(()) };
    place.enter(|| {
        let is_router = is_router(&interface.name);
        let socket = packet::sender(interface.index).context("open a packet socket")?;
        for address in addresses {
            let frame = match address {
                IpAddr::V4(address) => arp(mac, *address),
                IpAddr::V6(address) => to_neighbours(mac, *address, is_router),
            };
            packet::send(socket.as_fd(), &frame).context("send")?;
        }
        Ok(())
    })?
}

/// Whether the interface forwards IPv6, in the namespace of the thread.
fn is_router(interface: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/forwarding"))
        .is_ok_and(|value| value.trim_end() != "0")
}

/// RFC 5227 §2.3: an ARP request whose sender and target are both the address that is announced, for all.
fn arp(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    // RFC 826: Ethernet (6 bytes) and IPv4 (4 bytes), request.
    const REQUEST: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    let (own, nobody) = (address.octets(), [0; 6]);
    [&MacAddr::BROADCAST.0[..], &mac.0, &REQUEST, &mac.0, &own, &nobody, &own].concat()
}

/// The frame that tells all neighbours that `address` is at `mac`, unasked, and that this overrides what they know.
fn to_neighbours(mac: MacAddr, address: Ipv6Addr, is_router: bool) -> Vec<u8> {
    // RFC 4861 §4.4 and §7.2.6: type 136; the flag O, and R for a router, which would lose its place as one without it;
    // the target, and its link-layer address as an option.
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    let flags = OVERRIDE | if is_router { 0x80 } else { 0 };
    let head = [ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    let message = [&head[..], &address.octets(), &[2, 1], &mac.0].concat();
    neighbour_discovery(mac, address, ALL_NODES, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{driver, has_ipv6, no_firewall, on_a_machine, options};
    use nix::libc;
    use slipway_host::sys::packet::Instruction;

    #[test]
    fn frames_are_as_the_rfcs_say() {
        let mac = MacAddr([2, 0, 0, 0, 0, 7]);
        let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let request = "ffffffffffff02000000000708060001080006040001020000000007";
        let wanted = format!("{request}0a5800020000000000000a580002");
        assert_eq!(text(&arp(mac, Ipv4Addr::new(10, 88, 0, 2))), wanted);
        let frame = to_neighbours(mac, "fd10::2".parse().unwrap(), true);
        let address = "fd100000000000000000000000000002";
        let to = "ff020000000000000000000000000001";
        assert!(text(&frame).starts_with(&format!(
            "33330000000102000000000786dd60000000{:04x}3aff{address}{to}8800",
            frame.len() - 54
        )));
        assert!(text(&frame).ends_with(&format!("a0000000{address}0201020000000007")));
        assert_eq!(to_neighbours(mac, "fd10::2".parse().unwrap(), false)[58], 0x20);
    }

    /// What the bridge has heard by now of a container that was connected: sender's MAC address and address.
    fn hear(bridge: &std::os::fd::OwnedFd, list: &mut Vec<(MacAddr, IpAddr)>) {
        let mut buffer = [0; 200];
        while let Ok(len) = packet::receive(bridge.as_fd(), &mut buffer) {
            let frame = &buffer[..len];
            let mac = MacAddr(frame[6..12].try_into().unwrap());
            match u16::from_be_bytes([frame[12], frame[13]]) {
                0x0806 if frame[28..32] == frame[38..42] => {
                    list.push((mac, IpAddr::from(<[u8; 4]>::try_from(&frame[28..32]).unwrap())));
                }
                0x86dd if frame[54] == 136 => {
                    list.push((mac, IpAddr::from(<[u8; 16]>::try_from(&frame[62..78]).unwrap())));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_bridge_hears_of_every_address() {
        let name = "the_bridge_hears_of_every_address";
        on_a_machine(name, |places| {
            let subnets = r#","network_interface":"br7","subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"},
                {"subnet":"fd10:88::/64","gateway":"fd10:88::1"}]"#;
            let options = options("bridge", r#""10.88.0.2","fd10:88::2""#, subnets, "");
            let mut ours = driver(&options).unwrap();
            ours.setup(places, &no_firewall()).unwrap();
            let bridge = places.host.netlink.interface("br7").unwrap();
            let all = Instruction {
                code: u16::try_from(libc::BPF_RET).unwrap(),
                if_true: 0,
                if_false: 0,
                operand: 0xffff,
            };
            let listener = packet::open(bridge.index, &[all]).unwrap();
            ours.announce(places);
            let inside = places.container.as_mut().unwrap().netlink.interface("eth0").unwrap();
            let addresses = if has_ipv6(name) { &["10.88.0.2", "fd10:88::2"][..] } else { &["10.88.0.2"] };
            let wanted = addresses.iter().map(|it| (inside.mac.unwrap(), it.parse().unwrap()));
            let wanted: Vec<_> = wanted.collect();
            let mut heard = Vec::new();
            // An IPv6 address that the kernel's worker has not got to yet is announced when it has.
            for _ in 0..500 {
                hear(&listener, &mut heard);
                if wanted.iter().all(|one| heard.contains(one)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("{wanted:?}: {heard:?}");
        });
    }
}
