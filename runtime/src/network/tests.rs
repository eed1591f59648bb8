//! A host and a guest in namespaces of this thread's making; ip(8) changes the one and looks at the other.

use super::*;
use crate::serve::{End, Session};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{geteuid, pipe, write};
use slipway_host::device::{Link, Tap};
use slipway_host::driver::Shortcut;
use slipway_host::inside::Inside;
use slipway_host::template::Device;
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Config;
use slipway_netstack::device::Capabilities;
use slipway_netstack::ip::plan::{Plan, pasta};
use std::cell::Cell;
use std::fs::File;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

fn ip(line: &str) -> String {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn own_namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn plan_of(following: &Following) -> Plan {
    let addresses = following.visible().0.into_iter().filter_map(|net| match net {
        ipnet::IpNet::V4(v4) => Some(v4),
        ipnet::IpNet::V6(_) => None,
    });
    let v4 = pasta::Half { addresses: addresses.collect(), pinned: true, ..pasta::Half::default() };
    Plan::pasta(&pasta::Pasta { v4: Some(v4), ..pasta::Pasta::default() })
}

/// Lets the session run for as long as everything needs that is to happen within a second.
fn run(session: &mut Session) {
    let (ours, theirs) = pipe().unwrap();
    session.attend(ours).unwrap();
    let waker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        write(&theirs, b"1").unwrap();
    });
    assert!(matches!(session.run().unwrap(), End::Asked));
    waker.join().unwrap();
}

#[test]
fn a_session_follows_the_host() {
    let name = "a_session_follows_the_host";
    if !geteuid().is_root() {
        println!("SKIP {name}: only root may make namespaces without more ado");
        return;
    }
    if unshare(CloneFlags::CLONE_NEWNET).is_err() || Command::new("ip").arg("-V").output().is_err() {
        println!("SKIP {name}: no namespace may be made here, or there is no ip(8)");
        return;
    }
    let host = own_namespace();
    for line in [
        "link add eth0 type veth peer name world",
        "link set world up",
        "link set eth0 up",
        "addr add 10.0.0.2/24 dev eth0",
        "route add default via 10.0.0.1",
    ] {
        ip(line);
    }
    let network = HostNetwork::open(Wishes { v6: None, ..Wishes::default() }).unwrap();
    let template = network.following().template();
    let (steps, ifname) =
        (template::plan(template, Device { mtu: None, mac: None }), template.ifname().to_owned());
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let guest = own_namespace();
    let tap = match Tap::open(&ifname) {
        Ok(tap) => tap,
        Err(error) => {
            println!("SKIP {name}: {error}");
            return;
        }
    };
    template::apply(&mut Netlink::open().unwrap(), &ifname, &steps).unwrap();
    setns(&host, CloneFlags::CLONE_NEWNET).unwrap();
    let mac = MacAddr([2, 0, 0, 0, 0, 2]);
    let mut config = Config::new(mac, slipway_host::random::keys().unwrap(), Capabilities::default());
    config.plan = plan_of(network.following());
    let mut driver = Driver::new(Engine::new(config), Link::from(tap)).unwrap();
    let inside = Inside::start(guest.try_clone().unwrap().into()).unwrap();
    driver.set_inside(inside, Shortcut::default()).unwrap();
    let mut session = Session::new(driver);
    let told = Rc::new(Cell::new(0));
    let count = Rc::clone(&told);
    let readdress = move |following: &Following, driver: &mut Driver| {
        count.set(count.get() + 1);
        driver.readdress(plan_of(following));
    };
    session.follow_host_network(network, true, readdress).unwrap();

    // A swarm of changes, then one look.
    ip("addr add 10.0.0.9/24 dev eth0");
    ip("addr del 10.0.0.2/24 dev eth0");
    ip("addr replace 10.0.0.9/24 dev eth0");
    ip("route replace default via 10.0.0.7");
    run(&mut session);
    assert_eq!(told.get(), 1);
    let guests = &session.driver().peek_engine().config().plan.v4.as_ref().unwrap().guests;
    assert_eq!(format!("{guests:?}"), "[10.0.0.9, 10.0.0.2]");
    setns(&guest, CloneFlags::CLONE_NEWNET).unwrap();
    let addresses = ip("addr show dev eth0");
    assert!(addresses.contains("10.0.0.9/24") && addresses.contains("deprecated"), "{addresses}");
    assert!(ip("route show default").contains("via 10.0.0.7"));
    setns(&host, CloneFlags::CLONE_NEWNET).unwrap();

    // What is nobody's business.
    ip("link add eth5 type veth peer name world5");
    ip("link set eth5 up");
    run(&mut session);
    assert_eq!(told.get(), 1);
}
