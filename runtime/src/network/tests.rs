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
use slipway_netstack::ethernet::neighbour::OnLink;
use slipway_netstack::ip::plan::{Plan, pasta};
use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
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

/// A host, and a guest that is served.
struct Served {
    host: File,
    guest: File,
    session: Session,
    /// How often the driver was told of other addresses.
    told: Rc<Cell<u32>>,
}

/// A host set up by these lines of ip(8)'s, and its guest; `None` where the machine cannot.
fn served(name: &str, lines: &[&str]) -> Option<Served> {
    if !geteuid().is_root() {
        println!("SKIP {name}: only root may make namespaces without more ado");
        return None;
    }
    if unshare(CloneFlags::CLONE_NEWNET).is_err() || Command::new("ip").arg("-V").output().is_err() {
        println!("SKIP {name}: no namespace may be made here, or there is no ip(8)");
        return None;
    }
    let host = own_namespace();
    lines.iter().for_each(|line| drop(ip(line)));
    let network = HostNetwork::open(Wishes { v6: None, ..Wishes::default() }).unwrap();
    let template = network.following().template();
    let steps = template::plan(template, Device { mtu: None, mac: None });
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let guest = own_namespace();
    let tap = match Tap::open(template.ifname()) {
        Ok(tap) => tap,
        Err(error) => {
            println!("SKIP {name}: {error}");
            return None;
        }
    };
    template::apply(&mut Netlink::open().unwrap(), template.ifname(), &steps).unwrap();
    setns(&host, CloneFlags::CLONE_NEWNET).unwrap();
    let config = Config {
        plan: plan_of(network.following()),
        on_link: OnLink::One { mac: None },
        ..Config::new(MacAddr([2, 0, 0, 0, 0, 2]), slipway_host::random::keys().unwrap(), tap.capabilities())
    };
    let mut driver = Driver::new(Engine::new(config), Link::from(tap)).unwrap();
    let inside = Inside::start(guest.try_clone().unwrap().into()).unwrap();
    driver.set_inside(inside, Shortcut::default()).unwrap();
    let mut session = Session::new(driver);
    let told = Rc::new(Cell::new(0));
    let count = Rc::clone(&told);
    let readdress = move |following: &Following, _: &ResolvConf, driver: &mut Driver| {
        count.set(count.get() + 1);
        driver.readdress(plan_of(following));
    };
    session.follow_host_network(network, ResolvConf::default(), true, readdress).unwrap();
    Some(Served { host, guest, session, told })
}

#[test]
fn a_session_follows_the_host() {
    let lines = [
        "link add eth0 type veth peer name world",
        "link set world up",
        "link set eth0 up",
        "addr add 10.0.0.2/24 dev eth0",
        "route add default via 10.0.0.1",
    ];
    let Some(mut served) = served("a_session_follows_the_host", &lines) else { return };
    // A swarm of changes, then one look.
    ip("addr add 10.0.0.9/24 dev eth0");
    ip("addr del 10.0.0.2/24 dev eth0");
    ip("addr replace 10.0.0.9/24 dev eth0");
    ip("route replace default via 10.0.0.7");
    run(&mut served.session);
    assert_eq!(served.told.get(), 1);
    let guests = &served.session.driver().peek_engine().config().plan.v4.as_ref().unwrap().guests;
    assert_eq!(format!("{guests:?}"), "[10.0.0.9, 10.0.0.2]");
    setns(&served.guest, CloneFlags::CLONE_NEWNET).unwrap();
    let addresses = ip("addr show dev eth0");
    assert!(addresses.contains("10.0.0.9/24") && addresses.contains("deprecated"), "{addresses}");
    assert!(ip("route show default").contains("via 10.0.0.7"));
    setns(&served.host, CloneFlags::CLONE_NEWNET).unwrap();

    // What is nobody's business.
    ip("link add eth5 type veth peer name world5");
    ip("link set eth5 up");
    run(&mut served.session);
    assert_eq!(served.told.get(), 1);
}

/// Where a server sends back what it gets, until its client has closed.
fn echo(listener: &TcpListener) {
    let (mut client, _) = listener.accept().unwrap();
    let mut bytes = [0; 1024];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        if client.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
}

fn exchange(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, word);
}

/// The guest has a connection by each of the host's links when one link loses its address: the connection that spoke
/// from there is reset, and the other one goes on, though the guest looks like the other link by then.
#[test]
fn connections_from_an_address_that_is_lost_are_reset_and_others_go_on() {
    let name = "connections_from_an_address_that_is_lost_are_reset_and_others_go_on";
    let lines = [
        "link add eth0 type veth peer name world0",
        "link add eth1 type veth peer name world1",
        "link set eth0 up",
        "link set eth1 up",
        "addr add 10.0.0.2/24 dev eth0",
        "addr add 10.1.0.2/24 dev eth1",
        "link set world0 up",
        "link set world1 up",
        "route add default via 10.0.0.1",
    ];
    let Some(mut served) = served(name, &lines) else { return };
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let world = own_namespace();
    setns(&served.host, CloneFlags::CLONE_NEWNET).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), world.as_fd().as_raw_fd());
    for end in ["world0", "world1"] {
        ip(&format!("link set {end} netns {path}"));
    }
    setns(&world, CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set world0 up");
    ip("link set world1 up");
    ip("addr add 10.0.0.1/24 dev world0");
    ip("addr add 10.1.0.1/24 dev world1");
    let servers = ["10.0.0.1:7", "10.1.0.1:7"].map(|at| TcpListener::bind(at).unwrap());
    setns(&served.host, CloneFlags::CLONE_NEWNET).unwrap();
    let servers = servers.map(|server| std::thread::spawn(move || echo(&server)));

    let (ours, theirs) = pipe().unwrap();
    served.session.attend(ours).unwrap();
    let (host, guest) = (served.host.try_clone().unwrap(), served.guest.try_clone().unwrap());
    let people = std::thread::spawn(move || {
        setns(&guest, CloneFlags::CLONE_NEWNET).unwrap();
        let [mut lost, mut kept] = ["10.0.0.1:7", "10.1.0.1:7"].map(|to| TcpStream::connect(to).unwrap());
        for stream in [&mut lost, &mut kept] {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            exchange(stream, b"before");
        }
        setns(&host, CloneFlags::CLONE_NEWNET).unwrap();
        ip("addr del 10.0.0.2/24 dev eth0");
        assert_eq!(lost.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        exchange(&mut kept, b"after");
        setns(&guest, CloneFlags::CLONE_NEWNET).unwrap();
        // It is reset at once; the guest hears of it when changes have been gathered.
        let both = |shown: &str| shown.contains("10.1.0.2/24") && shown.contains("10.0.0.2/24");
        let mut addresses = ip("addr show dev eth0");
        for _ in 0..200 {
            if both(&addresses) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            addresses = ip("addr show dev eth0");
        }
        assert!(both(&addresses), "{addresses}");
        exchange(&mut kept, b"and ever");
        drop(theirs);
    });
    assert!(matches!(served.session.run().unwrap(), End::Asked));
    people.join().unwrap();
    drop(served);
    // The other one waits on: nobody can tell it that an address is gone, for from where?
    let [_, server] = servers;
    server.join().unwrap();
}
