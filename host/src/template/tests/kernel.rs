//! Against the kernel: a host in a namespace, set up by ip(8), and a guest in another; ip(8) says whether they are
//! alike.

use crate::device::Tap;
use crate::netlink::Netlink;
use crate::netns::testing::with_tun;
use crate::template::{Device, Following, Op, Snapshot, Template, Wish, Wishes, apply, plan};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;
use serde_json::{Map, Value, json};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::clock::Instant;
use slipway_netstack::config::Mtu;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

const MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 9]);

/// Runs `work` in a namespace that is the host; passes over where ip(8) cannot set one up.
fn on_a_host(name: &str, work: impl FnOnce()) {
    if !geteuid().is_root() {
        println!("SKIP {name}: ip(8) needs root to set up a host");
    } else if Command::new("ip").arg("-V").output().is_err() {
        println!("SKIP {name}: there is no ip(8) here");
    } else {
        with_tun(name, work);
    }
}

/// A host set up by lines of ip(8)'s, those with `-6` last; `false`: it, or the kernel, knows one of them not.
fn can(lines: &str) -> bool {
    let (v6, others): (Vec<&str>, Vec<&str>) =
        lines.lines().map(str::trim).partition(|line| line.starts_with("-6 "));
    let v6: Vec<&str> = v6.iter().filter_map(|line| line.strip_prefix("-6 ")).collect();
    batch(None, &others) && batch(Some("-6"), &v6)
}

fn batch(family: Option<&str>, lines: &[&str]) -> bool {
    let piped = Stdio::piped;
    let mut ip =
        Command::new("ip").args(family).args(["-batch", "-"]).stdin(piped()).stderr(piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let output = ip.wait_with_output().unwrap();
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

fn host(lines: &str) {
    assert!(can(lines), "{lines}");
}

fn json_of(words: &str) -> Vec<Value> {
    let output = Command::new("ip").arg("-j").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip -j {words}: {}", String::from_utf8_lossy(&output.stderr));
    match serde_json::from_slice(&output.stdout) {
        Ok(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The routes through `name`, as they are to be found on the other side.
fn routes(name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for family in ["-4", "-6"] {
        all.extend(json_of(&format!("{family} route show table main")));
    }
    let mut lines: Vec<String> =
        all.into_iter().filter_map(|route| alike(route, name)).map(|it| it.to_string()).collect();
    lines.sort();
    lines
}

/// A route without what the two sides differ in; `None`: not through `name`, or the kernel's for link-local addresses.
fn alike(route: Value, name: &str) -> Option<Value> {
    let Value::Object(mut route) = route else { return None };
    let dev = Value::from(name);
    if route.get("dst") == Some(&json!("fe80::/64")) {
        return None;
    }
    let hops = route.remove("nexthops");
    if let Some(Value::Array(hops)) = hops {
        let ours: Vec<Map<String, Value>> = hops
            .into_iter()
            .filter_map(|hop| match hop {
                Value::Object(hop) if hop.get("dev") == Some(&dev) => Some(hop),
                _ => None,
            })
            .collect();
        route.insert("nexthops".to_owned(), ours.into_iter().map(without_differences).collect());
        return Some(Value::Object(without_differences(route)));
    }
    (route.get("dev") == Some(&dev)).then(|| Value::Object(without_differences(route)))
}

fn without_differences(mut route: Map<String, Value>) -> Map<String, Value> {
    for key in ["dev", "prefsrc", "nhid", "expires"] {
        route.remove(key);
    }
    let flags = route.get("flags").and_then(Value::as_array).cloned().unwrap_or_default();
    let flags: Vec<Value> = flags.into_iter().filter(|flag| flag == "onlink").collect();
    route.insert("flags".to_owned(), flags.into());
    route
}

/// The addresses of `name` that are copied.
fn addresses(name: &str) -> Vec<String> {
    let interface = json_of(&format!("addr show dev {name}")).remove(0);
    let list = interface["addr_info"].as_array().unwrap().clone();
    let kept = list.into_iter().filter(|it| it["scope"] != "link" && it["deprecated"] != true);
    let mut lines: Vec<String> = kept
        .map(|it| {
            let keys = ["family", "local", "prefixlen", "scope", "address", "broadcast", "noprefixroute"];
            keys.map(|key| format!("{key}={}", it[key])).join(" ")
        })
        .collect();
    lines.sort();
    lines
}

fn device() -> Device {
    Device { mtu: Mtu::new(65520), mac: Some(MAC) }
}

fn template(wishes: &Wishes) -> Template {
    Template::choose(&Snapshot::take(&mut Netlink::open().unwrap()).unwrap(), wishes).unwrap()
}

/// From here on the process is in the guest's namespace, whose interface was configured by the template.
fn guest(template: &Template) -> Tap {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let tap = Tap::open(template.ifname()).unwrap();
    apply(&mut Netlink::open().unwrap(), template.ifname(), &plan(template, device())).unwrap();
    nothing_is_tentative(template.ifname());
    tap
}

fn nothing_is_tentative(name: &str) {
    let interface = json_of(&format!("addr show dev {name}")).remove(0);
    for address in interface["addr_info"].as_array().unwrap() {
        assert_eq!(address["tentative"], Value::Null, "{address}");
        assert_eq!(address["valid_life_time"], u32::MAX, "{address}");
    }
    let flags = interface["flags"].to_string();
    assert!(flags.contains("UP") && !flags.contains("NOARP"), "{flags}");
}

#[test]
fn addresses_and_routes_are_the_hosts() {
    on_a_host("addresses_and_routes_are_the_hosts", || {
        host(
            "link add eth0 type veth peer name world
             link add eth1 type veth peer name other
             link set lo up
             link set world up
             link set other up
             link set eth0 up
             link set eth1 up
             addr add 10.0.0.2/24 brd + dev eth0
             addr add 10.0.0.3/24 dev eth0 valid_lft 600 preferred_lft 300
             addr add 10.3.0.2/28 dev eth0 noprefixroute
             addr add 10.3.0.9/24 dev eth0 valid_lft 600 preferred_lft 0
             addr add 10.4.0.2 peer 10.4.0.9/32 dev eth0
             addr add 169.254.7.7/16 dev eth0 scope link
             addr add 10.1.0.2/24 dev eth1
             -6 addr add 2001:db8::2/64 dev eth0 nodad
             -6 addr add 2001:db8:1::2/128 dev eth0 nodad valid_lft 600 preferred_lft 300
             -6 addr add 2001:db8:2::2/64 dev eth0 nodad noprefixroute
             route add 10.3.0.0/28 dev eth0 scope link metric 100
             route add default via 10.0.0.1 dev eth0 src 10.0.0.3 metric 50
             route add default via 10.0.0.4 dev eth0 metric 200
             route append default via 10.0.0.5 dev eth0 metric 200
             route add 10.9.0.0/16 via 10.7.7.7 dev eth0 onlink
             route add 10.10.0.0/16 dev eth0 scope link mtu 1400 advmss 1300
             route add 10.11.0.0/16 nexthop via 10.0.0.6 dev eth0 weight 3 nexthop via 10.0.0.7 dev eth0
             route add 10.12.0.0/16 via 10.1.0.1 dev eth1
             route add 10.13.0.0/16 via 10.0.0.1 dev eth0 table 100
             route add 10.14.0.0/16 via 10.4.0.9 dev eth0 tos 0x10
             route add blackhole 10.15.0.0/16
             -6 route add default via fe80::9 dev eth0 metric 60 expires 600
             -6 route add default via 2001:db8::1 dev eth0 metric 70 pref high
             -6 route add 2001:db8:2::/64 dev eth0 metric 90
             -6 route add 2001:db8:9::/48 nexthop via 2001:db8::7 dev eth0 weight 2 nexthop via 2001:db8::8 dev eth0
             -6 route add 2001:db8:a::/48 via fe80::7 dev eth0 from 2001:db8::/64
             rule add from 10.0.0.3 table 100
             ",
        );
        let (wanted_routes, wanted_addresses) = (routes("eth0"), addresses("eth0"));
        let template = template(&Wishes::default());
        assert_eq!(template.ifname(), "eth0");
        assert_eq!(template.v4.as_ref().unwrap().gateway, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(template.v6.as_ref().unwrap().gateway, Some("fe80::9".parse().unwrap()));
        let _tap = guest(&template);
        assert_eq!(addresses("eth0"), wanted_addresses);
        assert_eq!(wanted_addresses.len(), 7);
        assert_eq!(routes("eth0"), wanted_routes);
        let link = json_of("link show dev eth0").remove(0);
        assert_eq!((&link["mtu"], &link["address"]), (&json!(65520), &json!(MAC.to_string())));
        assert!(json_of("link show dev lo").remove(0)["flags"].to_string().contains("UP"));
    });
}

#[test]
fn a_route_over_two_links_keeps_the_hops_of_one() {
    on_a_host("a_route_over_two_links_keeps_the_hops_of_one", || {
        host(
            "link add eth0 type veth peer name world
             link add eth1 type veth peer name other
             link set world up
             link set other up
             link set eth0 up
             link set eth1 up
             addr add 10.0.0.2/24 dev eth0
             addr add 10.1.0.2/24 dev eth1
             route add default nexthop via 10.0.0.1 dev eth0 nexthop via 10.1.0.1 dev eth1
             ",
        );
        let _tap = guest(&template(&Wishes { v6: None, ..Wishes::default() }));
        let found = json_of("-4 route show default").remove(0);
        assert_eq!((&found["gateway"], &found["dev"]), (&json!("10.0.0.1"), &json!("eth0")));
    });
}

#[test]
fn objects_are_looked_up_where_routes_say_nothing_else() {
    on_a_host("objects_are_looked_up_where_routes_say_nothing_else", || {
        let lines = "link add eth0 type veth peer name world
                     link set world up
                     link set eth0 up
                     addr add 10.0.0.2/24 dev eth0
                     nexthop add id 5 via 10.0.0.1 dev eth0
                     nexthop add id 6 via 10.0.0.3 dev eth0
                     nexthop add id 7 group 5,3/6
                     route add default nhid 5
                     route add 10.2.0.0/16 nhid 7
                     ";
        if !can(lines) {
            println!("SKIP objects_are_looked_up_where_routes_say_nothing_else: no next hop objects here");
            return;
        }
        host("-6 nexthop add id 8 via fe80::9 dev eth0\n");
        host("route add 10.3.0.0/16 nhid 8\n");
        let wanted = routes("eth0");
        // Then routes name the object, and tell no more.
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").unwrap();
        let template = template(&Wishes { v6: None, ..Wishes::default() });
        assert_eq!(template.v4.as_ref().unwrap().gateway, Some("10.0.0.1".parse().unwrap()));
        let _tap = guest(&template);
        assert_eq!(routes("eth0"), wanted);
    });
}

#[test]
fn a_tunnel_is_a_template() {
    on_a_host("a_tunnel_is_a_template", || {
        host(
            "tuntap add dev tun0 mode tun
             link set tun0 up
             addr add 10.8.0.6 peer 10.8.0.5/32 dev tun0
             -6 addr add 2001:db8::6/64 dev tun0
             route add default dev tun0
             route add 10.9.0.0/16 via 10.8.0.5 dev tun0
             -6 route add default dev tun0
             ",
        );
        let (wanted_routes, wanted_addresses) = (routes("tun0"), addresses("tun0"));
        let template = template(&Wishes::default());
        assert_eq!(template.v4.as_ref().unwrap().gateway, None);
        let _tap = guest(&template);
        assert_eq!((routes("tun0"), addresses("tun0")), (wanted_routes, wanted_addresses));
    });
}

#[test]
fn wireguard_is_a_template() {
    on_a_host("wireguard_is_a_template", || {
        if !can("link add wg0 type wireguard\n") {
            println!("SKIP wireguard_is_a_template: no wireguard in this kernel");
            return;
        }
        host(
            "link set wg0 up
             addr add 10.8.0.6/32 dev wg0
             -6 addr add 2001:db8::6/128 dev wg0
             route add default dev wg0
             -6 route add ::/1 dev wg0
             -6 route add 8000::/1 dev wg0
             ",
        );
        let (wanted_routes, wanted_addresses) = (routes("wg0"), addresses("wg0"));
        let template = template(&Wishes::default());
        assert_eq!(template.v6.as_ref().unwrap().interface.as_ref().unwrap().name, "wg0");
        let _tap = guest(&template);
        assert_eq!((routes("wg0"), addresses("wg0")), (wanted_routes, wanted_addresses));
    });
}

#[test]
fn local_mode_has_a_network_of_its_own() {
    on_a_host("local_mode_has_a_network_of_its_own", || {
        let template = template(&Wishes::default());
        let _tap = guest(&template);
        let addresses = addresses("tap0");
        assert_eq!(addresses.len(), 1, "{addresses:?}");
        assert!(addresses[0].contains("169.254.2.1") && addresses[0].contains("prefixlen=16"));
        let gateways: Vec<Value> = ["-4", "-6"]
            .map(|it| json_of(&format!("{it} route show default")).remove(0)["gateway"].clone())
            .to_vec();
        assert_eq!(gateways, ["169.254.2.2", "fe80::1"]);
    });
}

#[test]
fn what_is_wished_is_configured() {
    on_a_host("what_is_wished_is_configured", || {
        host(
            "link add eth0 type veth peer name world\nlink set world up\nlink set eth0 up\naddr add 10.0.0.2/24 dev eth0\nroute add default via 10.0.0.1\n",
        );
        let wishes = Wishes {
            v4: Some(Wish {
                address: Some("10.0.2.100".parse().unwrap()),
                prefix: Some(32),
                gateway: Some("10.0.2.2".parse().unwrap()),
                ..Wish::default()
            }),
            v6: Some(Wish {
                address: Some("fc00::3".parse().unwrap()),
                prefix: None,
                gateway: Some("fc00::1".parse().unwrap()),
                ..Wish::default()
            }),
            ..Wishes::default()
        };
        let template = template(&wishes);
        let _tap = guest(&template);
        let [v4, v6] = ["-4", "-6"].map(|it| json_of(&format!("{it} route show default")).remove(0));
        assert_eq!((&v4["gateway"], &v4["flags"]), (&json!("10.0.2.2"), &json!(["onlink"])));
        assert_eq!((&v6["gateway"], &v6["flags"]), (&json!("fc00::1"), &json!([])));
        assert_eq!(addresses("eth0").len(), 2);
        // Again, on an interface that has it all: nothing is twice, nothing is refused.
        apply(&mut Netlink::open().unwrap(), "eth0", &plan(&template, device())).unwrap();
        assert_eq!((addresses("eth0").len(), json_of("-4 route show default").len()), (2, 1));
        let bad = Wishes {
            v4: Some(Wish { gateway: Some("224.0.0.9".parse().unwrap()), ..wishes.v4.clone().unwrap() }),
            ..wishes
        };
        let template = Template::choose(&Snapshot::default(), &bad).unwrap();
        let error = apply(&mut Netlink::open().unwrap(), "eth0", &plan(&template, device())).unwrap_err();
        assert_eq!(error.to_string(), "cannot add the default route via 224.0.0.9: Invalid argument");
    });
}

/// The addresses can be bound in the moment the guest has them, its link-local one too.
#[test]
fn no_address_waits_for_duplicates() {
    on_a_host("no_address_waits_for_duplicates", || {
        host(
            "link add eth0 type veth peer name world\nlink set world up\nlink set eth0 up\n-6 addr add 2001:db8::2/64 dev eth0 nodad\n-6 route add default via fe80::9 dev eth0\n",
        );
        let template = template(&Wishes { v4: None, ..Wishes::default() });
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let _tap = Tap::open("eth0").unwrap();
        let mut netlink = Netlink::open().unwrap();
        apply(&mut netlink, "eth0", &plan(&template, device())).unwrap();
        let index = netlink.interface("eth0").unwrap().index;
        let addresses = netlink.addresses_of(index).unwrap();
        let v6: Vec<Ipv6Addr> = addresses
            .iter()
            .filter_map(|it| match it.net.addr() {
                IpAddr::V6(v6) => Some(v6),
                IpAddr::V4(_) => None,
            })
            .collect();
        assert_eq!(v6.len(), 2, "{v6:?}");
        // It is the one that the kernel would make, and will when somebody takes the link down and up.
        assert!(v6.contains(&"fe80::ff:fe00:9".parse().unwrap()), "{v6:?}");
        let link = json_of("-d link show dev eth0").remove(0);
        assert_eq!(link["inet6_addr_gen_mode"], "eui64");
        for address in v6 {
            let zone = if address.is_unicast_link_local() { index } else { 0 };
            UdpSocket::bind(SocketAddrV6::new(address, 0, 0, zone)).unwrap();
        }
        nothing_is_tentative("eth0");
    });
}

#[test]
fn a_namespace_without_ipv6_has_ipv4_alone() {
    on_a_host("a_namespace_without_ipv6_has_ipv4_alone", || {
        host(
            "link add eth0 type veth peer name world\nlink set world up\nlink set eth0 up\naddr add 10.0.0.2/24 dev eth0\n-6 addr add 2001:db8::2/64 dev eth0 nodad\nroute add default via 10.0.0.1\n-6 route add default via fe80::9 dev eth0\n",
        );
        let template = template(&Wishes::default());
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let _tap = Tap::open("eth0").unwrap();
        apply(&mut Netlink::open().unwrap(), "eth0", &plan(&template, device())).unwrap();
        assert_eq!(addresses("eth0").len(), 1);
        assert_eq!(json_of("-4 route show default").len(), 1);
    });
}

/// Source of packets to somewhere.
fn source(family: &str, to: &str) -> Value {
    json_of(&format!("{family} route get {to}")).remove(0)["prefsrc"].clone()
}

fn all_addresses(name: &str) -> Vec<String> {
    let interface = json_of(&format!("addr show dev {name}")).remove(0);
    let list = interface["addr_info"].as_array().unwrap().clone();
    let kept = list.into_iter().filter(|it| it["scope"] != "link");
    let told = |it: &Value| if it["deprecated"] == true { "old ".to_owned() } else { String::new() };
    let mut lines: Vec<String> = kept.map(|it| told(&it) + it["local"].as_str().unwrap()).collect();
    lines.sort();
    lines
}

/// A renewal with another address, then another network; and the old addresses go without taking the new ones along.
#[test]
fn the_guest_follows_the_host() {
    on_a_host("the_guest_follows_the_host", || {
        host(
            "link add eth0 type veth peer name world
             link set world up
             link set eth0 up
             addr add 10.0.0.2/24 brd + dev eth0
             route add default via 10.0.0.1
             route add 10.9.0.0/16 via 10.0.0.7
             -6 addr add 2001:db8:1::2/64 dev eth0 nodad
             -6 route add default via fe80::9 dev eth0
             ",
        );
        let own = || File::open("/proc/thread-self/ns/net").unwrap();
        let here = own();
        let mut following = Following::new(template(&Wishes::default()));
        let _tap = guest(following.template());
        let there = own();
        let turn = |following: &mut Following, seconds: u64, lines: &str| {
            setns(&here, CloneFlags::CLONE_NEWNET).unwrap();
            host(lines);
            let (fresh, wanted) = (template(&Wishes::default()), routes("eth0"));
            let steps = following.turn_to(Instant::ZERO + Duration::from_secs(seconds), fresh);
            setns(&there, CloneFlags::CLONE_NEWNET).unwrap();
            apply(&mut Netlink::open().unwrap(), "eth0", &steps).unwrap();
            // A host without routes has lost its network, which changes nothing here.
            assert!(wanted.is_empty() || routes("eth0") == wanted, "{wanted:?} {:?}", routes("eth0"));
        };
        let retire = |following: &mut Following, seconds: u64| {
            let steps = following.retire(Instant::ZERO + Duration::from_secs(seconds), |_| false);
            let wanted = routes("eth0");
            apply(&mut Netlink::open().unwrap(), "eth0", &steps).unwrap();
            assert_eq!(routes("eth0"), wanted, "routes stay");
        };
        turn(
            &mut following,
            1,
            "addr add 10.0.0.3/24 brd + dev eth0
             addr del 10.0.0.2/24 dev eth0
             addr add 10.0.0.3/24 brd + dev eth0
             route add default via 10.0.0.1
             route add 10.8.0.0/16 via 10.0.0.7
             -6 addr add 2001:db8:2::2/64 dev eth0 nodad
             -6 addr del 2001:db8:1::2/64 dev eth0
             ",
        );
        assert_eq!(all_addresses("eth0"), ["10.0.0.3", "2001:db8:2::2", "old 10.0.0.2", "old 2001:db8:1::2"]);
        assert_eq!(source("-4", "192.0.2.1"), "10.0.0.3");
        assert_eq!(source("-4", "10.0.0.77"), "10.0.0.3");
        assert_eq!(source("-6", "2001:db8:f::1"), "2001:db8:2::2");
        retire(&mut following, 3602);
        assert_eq!(all_addresses("eth0"), ["10.0.0.3", "2001:db8:2::2"]);
        turn(
            &mut following,
            4000,
            "addr del 10.0.0.3/24 dev eth0
             addr add 10.5.0.3/24 dev eth0
             route add default via 10.5.0.1 metric 7
             -6 route del default via fe80::9 dev eth0
             -6 route add default via fe80::8 dev eth0 metric 9
             ",
        );
        assert_eq!(all_addresses("eth0"), ["10.5.0.3", "2001:db8:2::2", "old 10.0.0.3"]);
        assert_eq!(source("-4", "192.0.2.1"), "10.5.0.3");
        turn(&mut following, 4001, "link set eth0 down\n");
        assert_eq!(all_addresses("eth0"), ["10.5.0.3", "2001:db8:2::2", "old 10.0.0.3"]);
    });
}

#[test]
fn local_mode_gives_way_to_the_first_network() {
    on_a_host("local_mode_gives_way_to_the_first_network", || {
        let here = File::open("/proc/thread-self/ns/net").unwrap();
        let mut following = Following::new(template(&Wishes::default()));
        let _tap = guest(following.template());
        let there = File::open("/proc/thread-self/ns/net").unwrap();
        setns(&here, CloneFlags::CLONE_NEWNET).unwrap();
        host(
            "link add eth0 type veth peer name world
             link set world up
             link set eth0 up
             addr add 10.0.0.2/24 brd + dev eth0
             route add default via 10.0.0.1
             -6 addr add 2001:db8::2/64 dev eth0 nodad
             -6 route add default via fe80::9 dev eth0
             ",
        );
        let (wanted, steps) =
            (routes("eth0"), following.turn_to(Instant::ZERO, template(&Wishes::default())));
        setns(&there, CloneFlags::CLONE_NEWNET).unwrap();
        apply(&mut Netlink::open().unwrap(), "tap0", &steps).unwrap();
        assert_eq!(all_addresses("tap0"), ["10.0.0.2", "2001:db8::2", "old 169.254.2.1"]);
        assert_eq!(source("-4", "192.0.2.1"), "10.0.0.2");
        // The old address has its network still.
        let mut found = routes("tap0");
        found.retain(|route| !route.contains("169.254.0.0/16"));
        assert_eq!(found, wanted);
    });
}

#[test]
fn ten_thousand_routes_come_over() {
    on_a_host("ten_thousand_routes_come_over", || {
        let mut lines = "link add eth0 type veth peer name world
                         link set world up
                         link set eth0 up
                         addr add 10.0.0.2/24 dev eth0
                         -6 addr add 2001:db8::2/64 dev eth0 nodad
                         route add default via 10.0.0.1
                         -6 route add default via fe80::9 dev eth0
                         "
        .to_owned();
        for number in 0..5000_u16 {
            let [high, low] = number.to_be_bytes();
            lines += &format!("route add 172.{high}.{low}.0/24 via 10.0.0.1\n");
            lines += &format!("-6 route add 2001:db8:{:x}::/48 via fe80::9 dev eth0\n", number + 1);
        }
        host(&lines);
        let wanted = routes("eth0");
        let template = template(&Wishes::default());
        assert!(wanted.len() > 10_000 && template.left_out() == 0);
        let _tap = guest(&template);
        assert_eq!(routes("eth0").len(), wanted.len());
        assert!(routes("eth0") == wanted);
    });
}

#[test]
fn an_empty_plan_leaves_the_interface_as_it_is() {
    on_a_host("an_empty_plan_leaves_the_interface_as_it_is", || {
        let _tap = Tap::open("tap0").unwrap();
        apply(&mut Netlink::open().unwrap(), "tap0", &[]).unwrap();
        assert!(!json_of("link show dev tap0").remove(0)["flags"].to_string().contains("\"UP\""));
        let error = apply(&mut Netlink::open().unwrap(), "tap9", &[Op::Up]).unwrap_err();
        assert_eq!(error.to_string(), "cannot find the interface tap9: No such device");
    });
}
