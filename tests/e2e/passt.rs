//! `passt` and real virtual machines: another kernel behind its own driver, DHCP clients of two makers, QEMU's three
//! ways to a network of this kind.
//!
//! | test | QEMU's way | who starts `passt` |
//! |---|---|---|
//! | [`a_machine_over_a_socket_is_served_and_so_is_the_next`] | `-netdev stream` | the test, as libvirt 9 does |
//! | [`one_machine_is_enough_with_one_off`] | `-netdev stream` | the test |
//! | [`qemu_starts_it_and_starts_it_again`] | `-netdev passt` | QEMU |
//!
//! Hostile frames and what needs no second kernel stand in `pasta`, machines that share their memory in `vhost_user`.
//! The machine's *host* is the lab's.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::{Cmd, HOST4, HOST6, Image, LIMIT, Lab, Running, Vm, WORLD4, WORLD6, now, qemu, vm_fixture};

/// The card's own address. libvirt 9 gives it to `passt` as well.
pub(super) const MAC: &str = "52:54:00:12:34:56";
/// What the host's network is when the guest's own addresses come from it by SLAAC.
const SLAAC: &str = "2001:db8:1:0:5054:ff:fe12:3456";

/// What busybox's client runs, in the place of Debian's.
const UDHCPC: &str = "#!/bin/sh
case $1 in bound|renew)
    ip link set mtu $mtu dev $interface
    ifconfig $interface $ip netmask $subnet
    route add default gw $router dev $interface
    for server in $dns; do echo nameserver $server; done >/etc/resolv.conf
esac
";

/// What ISC's client runs, for both families.
const DHCLIENT: &str = "#!/bin/sh
case $reason in
BOUND)
    ifconfig $interface $new_ip_address netmask $new_subnet_mask
    route add default gw $new_routers dev $interface ;;
BOUND6)
    ip -6 address add $new_ip6_address/$new_ip6_prefixlen dev $interface ;;
esac
";

/// A shell function: waits until an address is there and nobody else may have it.
const SETTLED: &str = "settled() {
    for i in $(seq 100); do
        ip -o address show dev eth0 | grep -v tentative | grep -q \"$1\" && return
        sleep 0.1
    done
    ip address show dev eth0; return 1
}
";

/// What the machines of these tests boot.
pub(super) fn furnish(image: &mut Image) {
    image.program_of_tree("/usr/sbin/dhclient").unwrap();
    image.script("/etc/udhcpc.sh", UDHCPC);
    image.script("/etc/dhclient.sh", DHCLIENT);
    image.text("/www/index.html", "of the machine\n");
}

/// The card on `netdev`.
fn card(netdev: &str) -> [String; 4] {
    let device = format!("virtio-net-pci,netdev=net,mac={MAC}");
    ["-netdev".into(), netdev.into(), "-device".into(), device]
}

fn boot(lab: &Lab, image: &Image, netdev: &str) -> Vm {
    let words = card(netdev);
    Vm::boot(lab, image, &words.each_ref().map(String::as_str)).unwrap()
}

fn over_stream(socket: &Path) -> String {
    format!("stream,id=net,server=off,addr.type=unix,addr.path={}", socket.display())
}

/// The processes that were started by this path, which is the lab's own.
pub(super) fn processes(program: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let words = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| words(pid).split(|byte| *byte == 0).next() == Some(program.as_bytes())).collect()
}

/// Waits until these processes are there, and no others.
pub(super) fn until_processes(program: &str, right: impl Fn(&[i32]) -> bool) -> Vec<i32> {
    let until = now() + LIMIT;
    loop {
        let there = processes(program);
        if right(&there) || now() >= until {
            assert!(right(&there), "{there:?}");
            return there;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `passt` in the background; its process.
pub(super) fn passt(lab: &Lab, words: &[&str]) -> i32 {
    let file = lab.home().join("passt.pid");
    let start = lab.host([lab.program("passt")]).args(["--quiet", "--no-map-gw", "--pid"]).arg(&file);
    let done = start.args(words.iter().copied()).run(LIMIT).unwrap();
    assert!(done.success() && done.all().is_empty(), "{done}");
    std::fs::read_to_string(&file).unwrap().trim().parse().unwrap()
}

/// World has a page, names, and somebody who answers.
pub(super) fn world(lab: &Lab) -> [Running; 2] {
    std::fs::write(lab.dir().join("www/index.html"), "of the world\n").unwrap();
    [lab.dns().unwrap(), lab.http().unwrap()]
}

/// The guest is given its addresses of both families, and uses them.
pub(super) fn lease(vm: &mut Vm) {
    let udhcpc = "ip link set eth0 up; udhcpc -i eth0 -nqf -t 20 -T 1 -O mtu -s /etc/udhcpc.sh";
    let said = vm.ok(udhcpc).unwrap();
    assert!(said.contains(HOST4), "{said}");
    vm.ok(&format!("{SETTLED} settled {SLAAC}")).unwrap();
}

pub(super) fn reaches_world(vm: &mut Vm) {
    for at in [WORLD4.to_owned(), format!("[{WORLD6}]")] {
        let page = vm.ok(&format!("wget -qO- http://{at}/index.html")).unwrap();
        assert_eq!(page, "of the world\n", "{at}");
    }
}

pub(super) fn is_reached(lab: &Lab, address: &str) {
    let fetch = |at: &str| -> Cmd { lab.world(["busybox", "wget", "-qO-", at]) };
    let page = fetch(&format!("http://{address}:8080/index.html")).run(LIMIT).unwrap();
    assert_eq!(page.out(), "of the machine\n", "{address}: {page}");
}

#[test]
fn a_machine_over_a_socket_is_served_and_so_is_the_next() {
    let test = "a_machine_over_a_socket_is_served_and_so_is_the_next";
    let Some((lab, mut image)) = vm_fixture(test, &["dnsmasq", "busybox"], &["passt"]) else { return };
    furnish(&mut image);
    let _world = world(&lab);
    let socket = lab.home().join("machine.socket");
    let at = socket.to_string_lossy();
    // The card's own address is ours, too: the first libvirt to know passt says so.
    let pid = passt(&lab, &["--socket", &at, "--mac-addr", MAC, "-t", "8080:80"]);

    let mut vm = boot(&lab, &image, &over_stream(&socket));
    lease(&mut vm);
    let network = vm.ok("ip link show eth0; ip route; cat /etc/resolv.conf").unwrap();
    for expected in ["mtu 65520", &format!("default via {WORLD4}"), &format!("nameserver {WORLD4}")] {
        assert!(network.contains(expected), "{expected}: {network}");
    }
    reaches_world(&mut vm);
    let pings = format!("ping -c 1 -W 5 {WORLD4} && ping -6 -c 1 -W 5 {WORLD6}");
    assert_eq!(vm.ok(&pings).unwrap().matches(" 0% packet loss").count(), 2);
    for (kind, address) in [("a", WORLD4), ("aaaa", WORLD6)] {
        let answer = vm.ok(&format!("nslookup -type={kind} name.test")).unwrap();
        assert!(answer.matches(address).count() >= 1, "{answer}");
    }
    let page = vm.ok("wget -qO- http://name.test/index.html").unwrap();
    assert_eq!(page, "of the world\n", "by its name");

    vm.ok("httpd -p 80 -h /www").unwrap();
    is_reached(&lab, HOST4);
    is_reached(&lab, &format!("[{HOST6}]"));

    // The other client asks for the lease anew, and then for an address of IPv6.
    let dhclient =
        "-1 -sf /etc/dhclient.sh -cf /dev/null -lf /tmp/leases -pf /tmp/pid eth0; kill $(cat /tmp/pid)";
    vm.ok(&format!("ip -4 address flush dev eth0; dhclient -4 {dhclient}; {SETTLED} settled {HOST4}"))
        .unwrap();
    vm.ok(&format!("dhclient -6 {dhclient}; {SETTLED} settled {HOST6}/128")).unwrap();
    reaches_world(&mut vm);
    is_reached(&lab, &format!("[{HOST6}]"));
    drop(vm);

    // A machine that was ended like a process leaves a socket at which the next one is welcome.
    let mut vm = boot(&lab, &image, &over_stream(&socket));
    lease(&mut vm);
    reaches_world(&mut vm);
    assert_eq!(processes(&lab.program("passt")), [pid]);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    until_processes(&lab.program("passt"), <[i32]>::is_empty);
}

#[test]
fn one_machine_is_enough_with_one_off() {
    let test = "one_machine_is_enough_with_one_off";
    let Some((lab, _)) = vm_fixture(test, &[], &["passt"]) else { return };
    let socket = lab.home().join("machine.socket");
    let pid = passt(&lab, &["--one-off", "--socket", &socket.to_string_lossy()]);
    // Its processor stands still; the card is connected all the same.
    let mut machine = qemu(&lab).arg("-S").args(card(&over_stream(&socket))).start().unwrap();
    let connected = |_: &Running| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
        let at = socket.to_string_lossy();
        // Flags of a connected socket are not those of one that listens; state 03 is connected.
        table.lines().any(|line| line.ends_with(&*at) && line.split_whitespace().nth(5) == Some("03"))
    };
    machine.until(LIMIT, connected).unwrap();
    assert_eq!(processes(&lab.program("passt")), [pid]);
    drop(machine);
    until_processes(&lab.program("passt"), <[i32]>::is_empty);
}

#[test]
fn qemu_starts_it_and_starts_it_again() {
    let test = "qemu_starts_it_and_starts_it_again";
    let Some((lab, mut image)) = vm_fixture(test, &["dnsmasq", "busybox"], &["passt"]) else { return };
    furnish(&mut image);
    let _world = world(&lab);
    let program = lab.program("passt");
    let netdev = format!("passt,id=net,path={program},tcp-ports=8080:80,param=--no-map-gw");
    let mut vm = boot(&lab, &image, &netdev);
    let first = until_processes(&program, |there| there.len() == 1);
    lease(&mut vm);
    reaches_world(&mut vm);
    vm.ok("httpd -p 80 -h /www").unwrap();
    is_reached(&lab, HOST4);
    // It is lost: QEMU makes another socket pair, and starts it with that.
    kill(Pid::from_raw(first[0]), Signal::SIGKILL).unwrap();
    until_processes(&program, |there| there.len() == 1 && there != first);
    reaches_world(&mut vm);
    is_reached(&lab, HOST4);
    // QEMU's end is its end, by a signal.
    vm.power_off().unwrap();
    until_processes(&program, <[i32]>::is_empty);
}
