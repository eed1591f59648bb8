//! Plans carried out on a machine of their own: whole, up to any step, and with a failure at any step.

use super::*;
use crate::namespaces::Place;
use crate::spec::NetworkOptions;
use crate::testing::{
    another_namespace, driver, no_firewall, on_a_machine, options, state, teardown as disconnect,
};
use nix::errno::Errno;
use slipway_host::netlink::{NewRoute, RouteKind};

const TWO: &str = r#","subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"},{"subnet":"fd10:88::/64","gateway":"fd10:88::1"}],
    "routes":[{"destination":"10.99.0.0/24","route_type":"blackhole"},{"destination":"10.98.0.0/24","gateway":"10.88.0.9","metric":7}]"#;
const IPS: &str = r#""10.88.0.2","fd10:88::2""#;

fn bridge() -> NetworkOptions {
    options("bridge", IPS, &format!(r#","network_interface":"br7"{TWO}"#), "")
}

fn plan(options: &NetworkOptions, places: &mut Places) -> Vec<Op> {
    driver(options).unwrap().plan(places, &no_firewall()).unwrap()
}

#[test]
fn a_container_comes_and_goes() {
    on_a_machine("a_container_comes_and_goes", |places| {
        let (options, before) = (bridge(), state(places));
        let mut ours = driver(&options).unwrap();
        let outcome = ours.setup(places, &no_firewall()).unwrap();
        let inside = places.container.as_mut().unwrap().netlink.interface("eth0").unwrap();
        assert!(inside.up);
        let interfaces = outcome.status.interfaces.unwrap();
        assert_eq!(interfaces["eth0"].mac_address, inside.mac.unwrap().to_string());
        assert_eq!(interfaces["eth0"].subnets.as_ref().unwrap().len(), 2);
        let host = &mut places.host.netlink;
        let bridge = host.interface("br7").unwrap();
        assert!(bridge.up);
        let port = host.ports(bridge.index).unwrap().pop().unwrap();
        assert_eq!((port.name.as_str(), Some(port.index)), ("veth0", inside.linked));
        assert_ne!(bridge.mac, port.mac, "the bridge has an address of its own");
        assert!(Path::new("/run/sysctl.d/10-netavark-br7.conf").exists());
        let routes = places.container.as_mut().unwrap().netlink.routes().unwrap();
        let metrics: Vec<_> = routes.iter().filter(|r| r.gateway.is_some()).map(|r| r.priority).collect();
        assert_eq!(metrics, [100, 7, 100], "IPv4 first: default, static; then IPv6");
        // Whoever asks twice is refused, and disturbs nothing.
        let again = driver(&options).unwrap().setup(places, &no_firewall()).unwrap_err();
        assert_eq!(
            again.to_string(),
            "create veth pair: interface eth0 already exists on container namespace: Netlink error: File exists \
             (os error 17)"
        );
        // Teardown knows nothing but the request.
        disconnect(&options, places).unwrap();
        let after = state(places);
        assert_eq!(
            after.replace("[\"1\\n\", \"1\\n\"]", "[\"0\\n\", \"0\\n\"]"),
            before,
            "but for forwarding"
        );
    });
}

#[test]
fn the_bridge_goes_with_the_last_container() {
    on_a_machine("the_bridge_goes_with_the_last_container", |places| {
        let (options, firewall) = (bridge(), no_firewall());
        driver(&options).unwrap().setup(places, &firewall).unwrap();
        let mut other = Place::at(another_namespace().unwrap()).ok();
        std::mem::swap(&mut places.container, &mut other);
        driver(&options).unwrap().setup(places, &firewall).unwrap();
        disconnect(&options, places).unwrap();
        let bridge = places.host.netlink.interface("br7").unwrap();
        assert_eq!(places.host.netlink.ports(bridge.index).unwrap().len(), 1);
        assert!(Path::new("/run/sysctl.d/10-netavark-br7.conf").exists());
        // What is gone already is told, and the rest goes on.
        let error = disconnect(&options, places).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to delete container veth eth0: Netlink error: No such device (os error 19)"
        );
        std::mem::swap(&mut places.container, &mut other);
        disconnect(&options, places).unwrap();
        assert!(places.host.netlink.interface("br7").is_err());
        assert!(!Path::new("/run/sysctl.d/10-netavark-br7.conf").exists());
        let error = disconnect(&options, places).unwrap_err();
        assert!(error.to_string().contains("failed to get bridge interface: Netlink error: "), "{error}");
    });
}

#[test]
fn a_bridge_outlives_a_namespace_that_went_first() {
    on_a_machine("a_bridge_outlives_a_namespace_that_went_first", |places| {
        let (options, firewall) = (bridge(), no_firewall());
        driver(&options).unwrap().setup(places, &firewall).unwrap();
        let bridge = places.host.netlink.interface("br7").unwrap();
        places.container = None;
        // The kernel takes its time over a namespace.
        for _ in 0..500 {
            if places.host.netlink.ports(bridge.index).unwrap().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        disconnect(&options, places).unwrap();
        assert!(places.host.netlink.interface("br7").is_err());
    });
}

#[test]
fn a_setup_that_was_killed_is_torn_down_from_the_request() {
    on_a_machine("a_setup_that_was_killed_is_torn_down_from_the_request", |places| {
        let options = bridge();
        let whole = plan(&options, places);
        let mut before = String::new();
        for steps in 0..=whole.len() {
            let mut links = Links::default();
            setup(&whole[..steps], places, &mut links).unwrap();
            let result = disconnect(&options, places);
            if let Err(error) = &result {
                assert_eq!(error.errno().or(Some(Errno::ENODEV)), Some(Errno::ENODEV), "{error}");
            }
            let after = state(places).replace("\"1\\n\"", "\"0\\n\"");
            if steps == 0 {
                before.clone_from(&after);
            }
            assert_eq!(after, before, "after {steps} steps");
        }
    });
}

#[test]
fn a_setup_that_fails_leaves_nothing() {
    on_a_machine("a_setup_that_fails_leaves_nothing", |places| {
        let (options, before) = (bridge(), state(places));
        let whole = plan(&options, places);
        let impossible = Op::Route(NewRoute {
            destination: "10.77.0.0/24".parse().unwrap(),
            gateway: Some("203.0.113.7".parse().unwrap()),
            priority: 1,
            kind: RouteKind::Unicast,
        });
        for steps in 0..=whole.len() {
            let mut plan = whole[..steps].to_vec();
            plan.push(impossible.clone());
            let error = setup(&plan, places, &mut Links::default()).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ENETUNREACH), "{error}");
            assert_eq!(state(places), before, "after {steps} steps");
            let left = places.container.as_mut().unwrap().netlink.routes().unwrap();
            assert!(left.is_empty(), "{left:?}");
        }
        // And so does a network that is undone because another one failed.
        let mut ours = driver(&options).unwrap();
        ours.setup(places, &no_firewall()).unwrap();
        ours.rollback(places, &no_firewall()).unwrap();
        assert_eq!(state(places), before);
    });
}

#[test]
fn children_of_an_interface() {
    on_a_machine("children_of_an_interface", |places| {
        use slipway_host::netlink::{Kind, NewLink, Request};
        let link = |name, kind| NewLink { name, mtu: None, mac: None, master: None, netns: None, kind };
        // The host has an interface of the name that the container's is to have.
        let pair = link("eth0", Kind::Veth { peer: Box::new(link("peer0", Kind::Dummy)) });
        places.host.netlink.run_one(&Request::create(&pair)).unwrap();
        let before = state(places);
        let rest = format!(r#","network_interface":"eth0"{TWO}"#);
        for (driver_name, mode) in [
            ("macvlan", ""),
            ("macvlan", "private"),
            ("macvlan", "vepa"),
            ("macvlan", "source"),
            ("macvlan", "passthru"),
            ("ipvlan", "l2"),
            ("ipvlan", "l3"),
            ("ipvlan", "l3s"),
        ] {
            let rest = format!(r#"{rest},"options":{{"mode":"{mode}"}}"#);
            let options = options(driver_name, IPS, &rest, "");
            let mut ours = driver(&options).unwrap();
            match ours.setup(places, &no_firewall()) {
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                    println!("SKIP children_of_an_interface: this kernel has no {driver_name}");
                    continue;
                }
                result => result.unwrap(),
            };
            let netlink = &mut places.container.as_mut().unwrap().netlink;
            assert_eq!(netlink.interface("eth0").unwrap().kind.as_deref(), Some(driver_name));
            let default = netlink.routes().unwrap().into_iter().find(|r| r.destination.prefix_len() == 0);
            assert_eq!(default.unwrap().priority, 99);
            let error = driver(&options).unwrap().setup(places, &no_firewall()).unwrap_err();
            if mode == "passthru" {
                assert_eq!(error.errno(), Some(Errno::EINVAL), "one child alone: {error}");
                disconnect(&options, places).unwrap();
                continue;
            }
            assert_eq!(
                error.to_string(),
                format!("rename tmp {driver_name} interface: Netlink error: File exists (os error 17)")
            );
            disconnect(&options, places).unwrap();
            assert_eq!(state(places), before);
        }
        let error = driver(&options("macvlan", IPS, &rest, ""))
            .unwrap()
            .teardown(places, &no_firewall())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to delete container interface eth0: Netlink error: No such device (os error 19)"
        );
    });
}

#[test]
fn settings_that_are_right_are_not_written() {
    on_a_machine("settings_that_are_right_are_not_written", |places| {
        use nix::mount::{MsFlags, mount};
        const NONE: Option<&str> = None;
        let op = [Op::Sysctl {
            key: crate::plan::Key::Host("net/ipv4/ip_forward"),
            value: "1".into(),
            optional: false,
        }];
        let mut links = Links::default();
        setup(&op, places, &mut links).unwrap();
        mount(Some("/proc/sys"), "/proc/sys", NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).unwrap();
        mount(NONE, "/proc/sys", NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE)
            .unwrap();
        setup(&op, places, &mut links).unwrap();
        let other = [Op::Sysctl {
            key: crate::plan::Key::Host("net/ipv4/ip_forward"),
            value: "0".into(),
            optional: false,
        }];
        assert_eq!(
            setup(&other, places, &mut links).unwrap_err().to_string(),
            "set sysctl net/ipv4/ip_forward: IO error: Read-only file system (os error 30)"
        );
    });
}

#[test]
fn several_networks_go_together() {
    on_a_machine("several_networks_go_together", |places| {
        let before = state(places).replace("\"0\\n\"", "\"1\\n\"");
        let list = ["br7", "br8"].map(|name| {
            let text = TWO
                .replace("10.88", &format!("10.{}", &name[2..]))
                .replace("fd10", &format!("fd{}", &name[2..]));
            let ips = IPS
                .replace("10.88", &format!("10.{}", &name[2..]))
                .replace("fd10", &format!("fd{}", &name[2..]));
            let mut options = options("bridge", &ips, &format!(r#","network_interface":"{name}"{text}"#), "");
            options.networks.list[0].1.interface_name = format!("eth{}", &name[2..]);
            if let Some(routes) = &mut options.network_info[0].routes {
                routes.clear();
            }
            options
        });
        for options in &list {
            driver(options).unwrap().setup(places, &no_firewall()).unwrap();
        }
        for options in &list {
            driver(options).unwrap().teardown(places, &no_firewall()).unwrap();
        }
        // One that is gone by then keeps nobody else.
        let lo = places.host.netlink.interface("lo").unwrap();
        places.host.delete_later(&Interface { index: 0x7fff_ffff, ..lo.clone() });
        places.delete_leaving().unwrap();
        // One that stays is told by the name that people know it by.
        places.host.delete_later(&lo);
        let error = places.delete_leaving().unwrap_err().to_string();
        assert!(error.starts_with("failed to delete interface lo: Netlink error: "), "{error}");
        assert_eq!(state(places).replace("\"0\\n\"", "\"1\\n\""), before);
    });
}
