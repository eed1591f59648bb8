//! Interfaces of all kinds that we make, in namespaces of their own.

use super::*;
use crate::netns::testing::has_ipv6;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;

fn link<'a>(name: &'a str, kind: Kind<'a>) -> NewLink<'a> {
    NewLink { name, mtu: None, mac: None, master: None, netns: None, kind }
}

/// A second namespace: its descriptor, and a socket in it.
fn second_namespace() -> (File, Netlink) {
    let home = File::open("/proc/self/ns/net").unwrap();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let there = File::open("/proc/self/ns/net").unwrap();
    let netlink = Netlink::open().unwrap();
    setns(&home, CloneFlags::CLONE_NEWNET).unwrap();
    (there, netlink)
}

/// Makes a kind of interface that this kernel may lack.
fn made(test: &str, netlink: &mut Netlink, new: &NewLink<'_>) -> bool {
    match netlink.run_one(&Request::create(new)) {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
            println!("SKIP {test}: this kernel cannot make {:?}", new.kind);
            false
        }
        result => {
            result.unwrap();
            true
        }
    }
}

/// The near end of a pair within one namespace.
fn pair<'a>(near: &'a str, far: &'a str) -> NewLink<'a> {
    link(near, Kind::Veth { peer: Box::new(link(far, Kind::Dummy)) })
}

fn all(results: Vec<Result<(), Error>>) {
    results.into_iter().for_each(|result| result.unwrap());
}

#[test]
fn a_bridge_and_a_pair_into_another_namespace() {
    in_new_namespace("a_bridge_and_a_pair_into_another_namespace", || {
        let mut host = Netlink::open().unwrap();
        let (namespace, mut container) = second_namespace();
        host.run_one(&Request::create(&link("br7", Kind::Bridge { vlan_filtering: false }))).unwrap();
        let bridge = host.interface("br7").unwrap();
        assert_eq!(bridge.kind.as_deref(), Some("bridge"));
        assert!(!bridge.vlan_filtering && !bridge.up);
        assert_eq!(host.interface_at(bridge.index).unwrap(), bridge);

        let mac = MacAddr([0x02, 0, 0, 0, 0, 9]);
        let far = NewLink {
            mtu: Some(1400),
            mac: Some(mac),
            netns: Some(namespace.as_fd()),
            ..link("eth0", Kind::Dummy)
        };
        let pair = NewLink {
            mtu: Some(1400),
            master: Some(bridge.index),
            ..link("", Kind::Veth { peer: Box::new(far) })
        };
        host.run_one(&Request::create(&pair)).unwrap();
        let near = host.interface("veth0").unwrap();
        let far = container.interface("eth0").unwrap();
        assert_eq!((far.mac, far.mtu, far.linked), (Some(mac), 1400, Some(near.index)));
        assert_eq!((near.master, near.mtu), (Some(bridge.index), 1400));
        assert_eq!(host.ports(bridge.index).unwrap(), std::slice::from_ref(&near));
        assert_eq!(host.run_one(&Request::create(&pair)).unwrap_err().errno(), Some(Errno::EEXIST));

        all(host.run(&[
            Request::set_mac(bridge.index, bridge.mac.unwrap()),
            Request::set_up(near.index, true),
            Request::set_up(bridge.index, true),
            Request::add_address(bridge.index, net("10.7.0.1/24")),
        ]));
        assert!(host.interface("br7").unwrap().up);
        assert_eq!(host.first_address("br7", false).unwrap(), net("10.7.0.1/24").addr());
        all(host.run(&[Request::delete_address(bridge.index, net("10.7.0.1/24"))]));

        all(host.run(&[
            Request::set_group(near.index, 7_000_001),
            Request::set_group(bridge.index, 7_000_001),
            Request::delete_group(7_000_001),
        ]));
        assert_eq!(host.interface("br7").unwrap_err().errno(), Some(Errno::ENODEV));
        assert_eq!(container.interface("eth0").unwrap_err().errno(), Some(Errno::ENODEV));
        let none = host.run_one(&Request::delete_group(7_000_001)).unwrap_err();
        assert_eq!(none.errno(), Some(Errno::ENODEV));
    });
}

#[test]
fn an_interface_becomes_a_port_and_gets_another_mtu() {
    let test = "an_interface_becomes_a_port_and_gets_another_mtu";
    in_new_namespace(test, || {
        let mut netlink = Netlink::open().unwrap();
        if !made(test, &mut netlink, &link("br0", Kind::Bridge { vlan_filtering: false })) {
            return;
        }
        all(netlink.run(&[Request::create(&pair("near", "far"))]));
        let (bridge, near) = (netlink.interface("br0").unwrap(), netlink.interface("near").unwrap());
        all(netlink.run(&[Request::set_mtu(near.index, 9000), Request::set_master(near.index, bridge.index)]));
        let ports = netlink.ports(bridge.index).unwrap();
        assert_eq!(ports.iter().map(|port| (port.index, port.mtu)).collect::<Vec<_>>(), [(near.index, 9000)]);
        let error = netlink.run_one(&Request::set_mtu(near.index, 1 << 30)).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL));
    });
}

#[test]
fn a_port_of_a_bridge_that_keeps_vlans_apart() {
    let test = "a_port_of_a_bridge_that_keeps_vlans_apart";
    in_new_namespace(test, || {
        let mut netlink = Netlink::open().unwrap();
        if !made(test, &mut netlink, &link("br7", Kind::Bridge { vlan_filtering: true })) {
            return;
        }
        let bridge = netlink.interface("br7").unwrap();
        assert!(bridge.vlan_filtering);
        let port = NewLink { master: Some(bridge.index), ..pair("near", "far") };
        netlink.run_one(&Request::create(&port)).unwrap();
        let port = netlink.interface("near").unwrap();
        all(netlink.run(&[
            Request::set_port_vlan(port.index, 42),
            Request::set_vlan_filtering(bridge.index, false),
        ]));
        assert!(!netlink.interface("br7").unwrap().vlan_filtering);
    });
}

#[test]
fn children_appear_in_the_other_namespace() {
    let test = "children_appear_in_the_other_namespace";
    in_new_namespace(test, || {
        let mut host = Netlink::open().unwrap();
        let (namespace, mut container) = second_namespace();
        host.run_one(&Request::create(&pair("parent", "peer"))).unwrap();
        let parent = host.interface("parent").unwrap();
        let modes = [MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Bridge, MacvlanMode::Source];
        for (number, mode) in modes.into_iter().enumerate() {
            let name = format!("mac{number}");
            let kind = Kind::Macvlan { parent: parent.index, mode, broadcast_cutoff: Some(3) };
            let child = NewLink { netns: Some(namespace.as_fd()), ..link(&name, kind) };
            host.run_one(&Request::create(&child)).unwrap();
            let found = container.interface(&name).unwrap();
            assert_eq!((found.kind.as_deref(), found.linked), (Some("macvlan"), Some(parent.index)));
            all(container.run(&[Request::rename(found.index, "other"), Request::delete(found.index)]));
        }
        for mode in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s] {
            let kind = Kind::Ipvlan { parent: parent.index, mode };
            let child = NewLink { netns: Some(namespace.as_fd()), ..link("ip0", kind) };
            if !made(test, &mut host, &child) {
                return;
            }
            let found = container.interface("ip0").unwrap();
            assert_eq!(found.kind.as_deref(), Some("ipvlan"));
            container.run_one(&Request::delete(found.index)).unwrap();
        }
    });
}

#[test]
fn a_port_in_hairpin_mode() {
    in_new_namespace("a_port_in_hairpin_mode", || {
        let mut netlink = Netlink::open().unwrap();
        netlink.run_one(&Request::create(&link("br7", Kind::Bridge { vlan_filtering: false }))).unwrap();
        let bridge = netlink.interface("br7").unwrap();
        let port = NewLink { master: Some(bridge.index), ..pair("p0", "p1") };
        netlink.run_one(&Request::create(&port)).unwrap();
        let port = netlink.interface("p0").unwrap();
        let mode = || std::fs::read_to_string("/sys/class/net/p0/brport/hairpin_mode");
        netlink.run_one(&Request::set_hairpin(port.index, true)).unwrap();
        // Where /sys shows this namespace at all.
        if let Ok(mode) = mode() {
            assert_eq!(mode.trim(), "1");
        }
        netlink.run_one(&Request::set_hairpin(port.index, false)).unwrap();
        assert!(netlink.run_one(&Request::set_hairpin(bridge.index, true)).is_err(), "it is no port");
    });
}

#[test]
fn routes_of_every_kind() {
    in_new_namespace("routes_of_every_kind", || {
        let mut netlink = Netlink::open().unwrap();
        netlink.run_one(&Request::create(&pair("d0", "d1"))).unwrap();
        let d0 = netlink.interface("d0").unwrap();
        let d1 = netlink.interface("d1").unwrap();
        let route = |to: &str, gateway: Option<&str>, kind| NewRoute {
            destination: net(to),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            priority: 100,
            kind,
        };
        let routes = [
            route("0.0.0.0/0", Some("10.7.0.1"), RouteKind::Unicast),
            route("::/0", Some("fd00::1"), RouteKind::Unicast),
            route("10.8.0.3/24", Some("10.7.0.1"), RouteKind::Unicast),
            route("10.9.0.0/24", None, RouteKind::Blackhole),
            route("10.10.0.0/24", None, RouteKind::Unreachable),
            route("fd10::/64", None, RouteKind::Prohibit),
        ];
        let mut requests = vec![
            Request::set_up(d0.index, true),
            Request::set_up(d1.index, true),
            Request::add_address(d0.index, net("10.7.0.2/24")),
            Request::add_address(d0.index, net("fd00::2/64")),
        ];
        requests.extend(routes.iter().map(Request::add_route));
        all(netlink.run(&requests));
        let out = netlink.ways_out(MAIN_TABLE, false).unwrap();
        assert_eq!(out.iter().map(|way| way.interface.index).collect::<Vec<_>>(), [d0.index]);
        let listed = netlink.routes().unwrap();
        assert!(listed.iter().any(|r| r.destination == net("10.8.0.0/24") && r.priority == 100));
        all(netlink.run(&routes.iter().map(Request::delete_route).collect::<Vec<_>>()));
        let gone = netlink.run_one(&Request::delete_route(&routes[3])).unwrap_err();
        assert_eq!(gone.errno(), Some(Errno::ESRCH));
    });
}

#[test]
fn an_address_can_be_bound_at_once_or_after_detection() {
    let test = "an_address_can_be_bound_at_once_or_after_detection";
    if !has_ipv6(test) {
        return;
    }
    in_new_namespace(test, || {
        let mut netlink = Netlink::open().unwrap();
        all(netlink.run(&[Request::create(&pair("near", "far"))]));
        let (near, far) = (netlink.interface("near").unwrap(), netlink.interface("far").unwrap());
        all(netlink.run(&[Request::set_up(near.index, true), Request::set_up(far.index, true)]));
        all(netlink.run(&[
            Request::add_address(near.index, net("fd00::1/64")),
            Request::add_address_at_once(near.index, net("fd00::2/64")),
        ]));
        let listed = netlink.addresses().unwrap();
        let tentative = |wanted| listed.iter().find(|found| found.net == net(wanted)).unwrap().tentative;
        assert!(tentative("fd00::1/64") && !tentative("fd00::2/64"), "{listed:?}");
        assert!(std::net::UdpSocket::bind("[fd00::2]:53").is_ok());
    });
}

#[test]
fn a_failure_in_the_middle_stops_nothing() {
    in_new_namespace("a_failure_in_the_middle_stops_nothing", || {
        let mut netlink = Netlink::open().unwrap();
        // More than go in one system call.
        let names: Vec<String> = (0..40).map(|number| format!("d{number}")).collect();
        let mut requests: Vec<_> = names
            .iter()
            .map(|name| Request::create(&link(name, Kind::Bridge { vlan_filtering: false })))
            .collect();
        requests.insert(20, Request::delete(0x7fff_ffff));
        let results = netlink.run(&requests);
        let failed: Vec<_> = results.iter().enumerate().filter(|(_, result)| result.is_err()).collect();
        let [(20, Err(error))] = failed.as_slice() else { panic!("{failed:?}") };
        assert_eq!(error.to_string(), "cannot delete the interface 2147483647: No such device");
        assert_eq!(netlink.interfaces().unwrap().iter().filter(|i| i.name.starts_with('d')).count(), 40);
        assert_eq!(netlink.interface("").unwrap_err().errno(), Some(Errno::ENODEV));
        assert_eq!(netlink.interface("a-name-of-16-byte").unwrap_err().errno(), Some(Errno::ENODEV));
        assert!(netlink.run(&[]).is_empty());
    });
}

#[test]
fn a_vrf_has_a_table_of_its_own() {
    let test = "a_vrf_has_a_table_of_its_own";
    in_new_namespace(test, || {
        let mut netlink = Netlink::open().unwrap();
        if made(test, &mut netlink, &link("v0", Kind::Vrf { table: 1000 })) {
            let vrf = netlink.interface("v0").unwrap();
            assert_eq!((vrf.kind.as_deref(), vrf.table), (Some("vrf"), Some(1000)));
        }
        if made(test, &mut netlink, &link("d0", Kind::Dummy)) {
            assert_eq!(netlink.interface("d0").unwrap().kind.as_deref(), Some("dummy"));
        }
    });
}

/// Attributes as ip(8) and bridge(8) send them, for kernels that cannot tell us whether ours are right.
#[test]
fn what_a_kernel_may_lack_is_encoded_as_others_do() {
    let vlan = Kind::Bridge { vlan_filtering: true };
    let child = Kind::Ipvlan { parent: 3, mode: IpvlanMode::L3s };
    // IFLA_INFO_DATA of each: VLAN filtering 1; table 1000; mode 2. Then IFLA_AF_SPEC: PVID and untagged, 42.
    let cases: [(Request, &[u8]); 5] = [
        (Request::create(&link("br7", vlan)), &[12, 0, 2, 0, 5, 0, 7, 0, 1, 0, 0, 0]),
        (Request::set_vlan_filtering(4, true), &[12, 0, 2, 0, 5, 0, 7, 0, 1, 0, 0, 0]),
        (Request::create(&link("v0", Kind::Vrf { table: 1000 })), &[12, 0, 2, 0, 8, 0, 1, 0, 0xe8, 3, 0, 0]),
        (Request::create(&link("i0", child)), &[12, 0, 2, 0, 6, 0, 1, 0, 2, 0, 0, 0]),
        (Request::set_port_vlan(3, 42), &[12, 0, 26, 0, 8, 0, 2, 0, 6, 0, 42, 0]),
    ];
    if cfg!(target_endian = "big") {
        return;
    }
    for (request, wanted) in cases {
        let bytes = request.to_bytes();
        assert!(bytes.windows(wanted.len()).any(|window| window == wanted), "{request:?}: {bytes:?}");
    }
    assert_eq!(Request::set_port_vlan(3, 42).to_bytes()[16], 7, "of the family AF_BRIDGE");
}
