//! `gvproxy` and real virtual machines: kernels of their own behind QEMU's ways to a network of this kind, as they are
//! started by Podman, by Debian's `qemu-wrapper`, and by whoever has a pair of sockets.
//!
//! | test | QEMU's way |
//! |---|---|
//! | [`machines_on_one_socket_are_online_and_meet`] | `-netdev stream`, `-netdev socket,fd=` |
//! | [`machines_by_datagrams_come_and_go`] | `-netdev dgram` by paths, and by a descriptor that was handed over |
//! | [`user_mode_linux_is_online_over_packets`] | none: User Mode Linux, `transport=bess` |
//!
//! What needs no second kernel stands in `gvproxy`. The machines' *host* is the lab's.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use slipway_lab::{Image, LIMIT, Lab, Running, Vm, WORLD4, built, by_loader, hand_over, tree, vm_lab};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

/// The MAC address that hypervisors give the first machine, and another.
const FIRST: &str = "5a:94:ef:e4:0c:ee";
const SECOND: &str = "52:54:00:12:34:56";

/// What busybox's client runs, in the place of Debian's.
const UDHCPC: &str = "#!/bin/sh
[ $1 = bound ] || exit 0
ip link set mtu $mtu dev $interface
ifconfig $interface $ip netmask $subnet
route add default gw $router dev $interface
for server in $dns; do echo nameserver $server; done >/etc/resolv.conf
echo leased $ip, mtu $mtu
";

/// All that User Mode Linux does, from its first process to the end.
const UML: &str = "#!/usr/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/usr/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
echo it has booted
ip link set lo up
ip link set vec0 up
udhcpc -i vec0 -nqf -t 20 -T 1 -O mtu -s /etc/udhcpc.sh
ping -c 1 -W 5 192.168.127.1
wget -T 20 -qO- http://WORLD/index.html
nslookup -type=a host.containers.internal
poweroff -f
";

/// A lab with gvproxy, Debian's helper of it, and an image that serves a page; `None` after saying why not.
fn lab(test: &str) -> Option<(Lab, Image)> {
    let ours = match built("SLIPWAY_GVPROXY_BINARY", "slipway-gvproxy") {
        Ok(ours) => ours,
        Err(reason) => {
            println!("SKIP {test}: {reason}");
            return None;
        }
    };
    let (lab, mut image) = vm_lab(test, &["dnsmasq", "busybox", "curl"], |_| {
        let stock = tree("gvproxy").map(|tree| ("stock".to_owned(), tree));
        let uml = tree("uml").map(|tree| ("uml".to_owned(), tree));
        [("gvproxy".to_owned(), ours)].into_iter().chain(stock).chain(uml).collect()
    })?;
    image.script("/etc/udhcpc.sh", UDHCPC);
    image.text("/www/index.html", "of a machine\n");
    std::fs::write(lab.dir().join("www/index.html"), "of the world\n").unwrap();
    Some((lab, image))
}

/// A gvproxy at work on the lab's host.
struct Network {
    process: Running,
    api: PathBuf,
}

impl Network {
    /// Starts with these words, and waits for the socket `door`.
    fn start(lab: &Lab, door: &Path, words: &[&str]) -> Self {
        let api = lab.home().join("api.sock");
        let listen = format!("unix://{}", api.display());
        let line = lab.host([&lab.program("gvproxy"), "-mtu", "1500", "-listen", &listen]).args(words);
        let mut process = line.start().unwrap();
        process.until(LIMIT, |_| door.exists()).unwrap();
        Self { process, api }
    }

    fn curl(&self, lab: &Lab, words: &[&str], path: &str) -> String {
        let (socket, url) = (self.api.to_string_lossy(), format!("http://gvproxy{path}"));
        let line = lab.host(["curl", "-sS", "--max-time", "30", "--unix-socket", &socket]);
        line.args(words.iter().copied()).arg(url).run(LIMIT).unwrap().all()
    }

    /// A port of the host leads into the network.
    fn expose(&self, lab: &Lab, local: &str, remote: &str) {
        let body = format!(r#"{{"local":"{local}","remote":"{remote}","protocol":"tcp"}}"#);
        assert_eq!(self.curl(lab, &["-d", &body], "/services/forwarder/expose"), "");
    }

    /// It ends by itself, or has been told to.
    fn ends(mut self) {
        let output = self.process.finish(LIMIT).unwrap().expect("it ends");
        assert_eq!(output.code(), 0, "{output}");
        assert!(!self.api.exists());
    }
}

fn card(netdev: &str, mac: &str) -> [String; 4] {
    ["-netdev".into(), netdev.into(), "-device".into(), format!("virtio-net-pci,netdev=vlan,mac={mac}")]
}

/// Podman's words for QEMU.
fn over_stream(socket: &Path, mac: &str) -> [String; 4] {
    card(&format!("stream,id=vlan,server=off,addr.type=unix,addr.path={}", socket.display()), mac)
}

fn boot(lab: &Lab, image: &Image, starter: &[String], card: &[String; 4]) -> Vm {
    Vm::boot_by(lab, image, starter, &card.each_ref().map(String::as_str)).unwrap()
}

/// The machine asks for its address, and is given this one; then it serves its page.
fn settle(vm: &mut Vm, address: &str) {
    let udhcpc = "ip link set eth0 up; udhcpc -i eth0 -nqf -t 20 -T 1 -O mtu -s /etc/udhcpc.sh";
    let said = vm.ok(udhcpc).unwrap();
    assert!(said.contains(&format!("leased {address}, mtu 1500")), "{said}");
    vm.ok("httpd -p 80 -h /www").unwrap();
}

fn reaches_world(vm: &mut Vm) {
    let page = vm.ok(&format!("wget -T 20 -qO- http://{WORLD4}/index.html")).unwrap();
    assert_eq!(page, "of the world\n");
}

fn reaches(vm: &mut Vm, other: &str) {
    let said = vm.ok(&format!("ping -c 1 -W 5 {other}; wget -T 20 -qO- http://{other}/index.html")).unwrap();
    assert!(said.contains(" 0% packet loss") && said.ends_with("of a machine\n"), "{said}");
}

fn is_reached(lab: &Lab, at: &str) {
    let fetch = lab.host(["curl", "-sS", "--max-time", "20", at]);
    let page = fetch.run(LIMIT).unwrap();
    assert_eq!(page.out(), "of a machine\n", "{at}: {page}");
}

/// The words that start QEMU by Debian's `qemu-wrapper`, which connects and hands the connection on as number 3; none
/// after saying why not.
fn wrapper(test: &str, lab: &Lab, socket: &Path) -> Vec<String> {
    match tree("gvproxy") {
        Ok(_) => {
            let loader =
                by_loader(lab.program("vm").as_ref()).map(|word| word.to_string_lossy().into_owned());
            let wrapper = format!("{}/usr/bin/qemu-wrapper", lab.program("stock"));
            loader.into_iter().chain([wrapper, socket.to_string_lossy().into_owned()]).collect()
        }
        Err(reason) => {
            println!("SKIP {test}: by a descriptor: {reason}");
            Vec::new()
        }
    }
}

/// What the first machine can do, and what can be done with it; the port 41117 of the host leads to its port of SSH.
fn is_online(lab: &Lab, network: &Network, vm: &mut Vm) {
    reaches_world(vm);
    let names = vm.ok(
        "cat /etc/resolv.conf; for name in gateway.containers.internal host.containers.internal name.test; do
             nslookup -type=a $name; done",
    );
    let names = names.unwrap();
    for expected in ["nameserver 192.168.127.1", "Address: 192.168.127.254", &format!("Address: {WORLD4}")] {
        assert!(names.contains(expected), "{expected}: {names}");
    }
    let page = vm.ok("wget -T 20 -qO- http://name.test/index.html").unwrap();
    assert_eq!(page, "of the world\n", "by its name");
    let pings = format!("for at in 192.168.127.1 192.168.127.254 {WORLD4}; do ping -c 1 -W 5 $at; done");
    let pings = vm.ok(&pings).unwrap();
    assert_eq!(pings.matches(" 0% packet loss").count(), 3, "{pings}");
    // The host's loopback is at its alias; ports of the host lead in.
    let service = lab.host(["busybox", "httpd", "-f", "-p", "127.0.0.1:7007", "-h"]);
    let _service = Running::server(service.arg(lab.dir().join("www")), "tcp", 7007).unwrap();
    let page = vm.ok("wget -T 20 -qO- http://host.containers.internal:7007/index.html").unwrap();
    assert_eq!(page, "of the world\n", "of the host's loopback");
    let wait = |limit: u16| {
        network.curl(lab, &[], &format!("/extension/wait_port?ip=192.168.127.2&port=22&timeout={limit}"))
    };
    assert_eq!(wait(1), "timed out waiting for port to become available on 192.168.127.2:22\n");
    vm.ok("(sleep 1; httpd -p 22 -h /www) >/dev/null 2>&1 &").unwrap();
    assert_eq!(wait(60), "", "somebody listens there now");
    is_reached(lab, "http://127.0.0.1:41117/index.html");
    network.expose(lab, ":8080", "192.168.127.2:80");
    is_reached(lab, "http://127.0.0.1:8080/index.html");
}

#[test]
fn machines_on_one_socket_are_online_and_meet() {
    let test = "machines_on_one_socket_are_online_and_meet";
    let Some((lab, image)) = lab(test) else { return };
    let _world = (lab.dns().unwrap(), lab.http().unwrap());
    let socket = lab.home().join("qemu.sock");
    let address = format!("unix://{}", socket.display());
    let network = Network::start(&lab, &socket, &["-ssh-port", "41117", "-listen-qemu", &address]);
    let mut first = boot(&lab, &image, &[], &over_stream(&socket, FIRST));
    settle(&mut first, "192.168.127.2");
    is_online(&lab, &network, &mut first);

    // The next one by the descriptor that Debian's helper of gvproxy hands on.
    let starter = wrapper(test, &lab, &socket);
    let card =
        if starter.is_empty() { over_stream(&socket, SECOND) } else { card("socket,id=vlan,fd=3", SECOND) };
    let mut second = boot(&lab, &image, &starter, &card);
    settle(&mut second, "192.168.127.3");
    reaches_world(&mut second);
    reaches(&mut second, "192.168.127.2");
    reaches(&mut first, "192.168.127.3");
    let stations = network.curl(&lab, &[], "/cam");
    assert!(stations.contains(FIRST) && stations.contains(SECOND), "{stations}");

    // One ends and comes back, while the other stays.
    first.power_off().unwrap();
    reaches_world(&mut second);
    let mut first = boot(&lab, &image, &[], &over_stream(&socket, FIRST));
    settle(&mut first, "192.168.127.2");
    reaches(&mut second, "192.168.127.2");
    is_reached(&lab, "http://127.0.0.1:8080/index.html");
    first.power_off().unwrap();
    reaches_world(&mut second);
    second.power_off().unwrap();
    // Its last guest has taken it along, and the port of SSH with it.
    network.ends();
    assert!(!socket.exists());
    let free = lab.host(["busybox", "nc", "-z", "127.0.0.1", "41117"]).run(LIMIT).unwrap();
    assert!(!free.success(), "{free}");
}

#[test]
fn machines_by_datagrams_come_and_go() {
    let Some((lab, image)) = lab("machines_by_datagrams_come_and_go") else { return };
    let _world = (lab.dns().unwrap(), lab.http().unwrap());
    let at = |name: &str| lab.home().join(name);
    let (vfkit, handed) = (at("vfkit.sock"), at("fd.sock"));
    let urls = [format!("unixgram://{}", vfkit.display()), format!("unix://{}", handed.display())];
    let words = ["-ssh-port", "-1", "-stay", "-listen-vfkit", &urls[0], "-listen-fd", &urls[1]];
    let network = Network::start(&lab, &handed, &words);
    let by_path = |own: &str| {
        let netdev = format!(
            "dgram,id=vlan,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            at(own).display(),
            vfkit.display()
        );
        card(&netdev, FIRST)
    };
    let mut first = boot(&lab, &image, &[], &by_path("one"));
    settle(&mut first, "192.168.127.2");
    reaches_world(&mut first);

    // The other end of a pair goes to gvproxy, ours to QEMU, as its number.
    let by_number = || {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
        assert_eq!(hand_over(&handed, &[theirs.as_fd()]).unwrap(), "OK\n");
        fcntl(&ours, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let netdev = format!("dgram,id=vlan,local.type=fd,local.str={}", ours.as_raw_fd());
        let vm = boot(&lab, &image, &[], &card(&netdev, SECOND));
        fcntl(&ours, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        vm
    };
    let body = format!(r#"{{"ip":"192.168.127.77","mac":"{SECOND}"}}"#);
    assert_eq!(network.curl(&lab, &["-d", &body], "/services/dhcp/add"), "");
    let mut second = by_number();
    settle(&mut second, "192.168.127.77");
    reaches_world(&mut second);
    reaches(&mut second, "192.168.127.2");
    reaches(&mut first, "192.168.127.77");

    // It ends like a process, and comes back by another pair, though nothing has told of the end of the one before.
    drop(second);
    let mut second = by_number();
    settle(&mut second, "192.168.127.77");
    reaches(&mut first, "192.168.127.77");
    first.power_off().unwrap();
    reaches_world(&mut second);
    second.power_off().unwrap();
    network.process.signal(Signal::SIGTERM);
    network.ends();
    assert!(!vfkit.exists() && !handed.exists());
}

#[test]
fn user_mode_linux_is_online_over_packets() {
    let test = "user_mode_linux_is_online_over_packets";
    if let Err(reason) = tree("uml") {
        println!("SKIP {test}: {reason}");
        return;
    }
    let Some((lab, mut image)) = lab(test) else { return };
    let _world = lab.http().unwrap();
    image.script("/init", &UML.replace("WORLD", WORLD4));
    let initrd = lab.dir().join("initrd.uml");
    image.write(&initrd).unwrap();
    let socket = lab.home().join("bess.sock");
    let address = format!("unixpacket://{}", socket.display());
    let network = Network::start(&lab, &socket, &["-ssh-port", "-1", "-listen-bess", &address]);
    let own = lab.home().join("uml.sock");
    let card = format!("vec0:transport=bess,dst={},src={},mac={FIRST}", socket.display(), own.display());
    let line = lab.host([format!("{}/usr/bin/linux.uml", lab.program("uml"))]).args(["mem=96M", "quiet"]);
    let line =
        line.args([format!("initrd={}", initrd.display()), format!("uml_dir={}", lab.home().display())]);
    let said = line.args(["con=null", "con0=null,fd:1", &card]).run(4 * LIMIT).unwrap();
    let out = said.out().replace('\r', "");
    if !out.contains("it has booted") {
        // It needs ptrace(2), and memory that can be executed.
        println!("SKIP {test}: it does not boot here: {}", said.all().lines().last().unwrap_or_default());
        return;
    }
    for expected in
        ["leased 192.168.127.2, mtu 1500", " 0% packet loss", "of the world\n", "Address: 192.168.127.254"]
    {
        assert!(out.contains(expected), "{expected}: {said}");
    }
    network.ends();
    assert!(!socket.exists());
}
