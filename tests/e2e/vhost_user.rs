//! `passt` and virtual machines that share their memory with it: QEMU as the front end, another kernel's driver in
//! front of our rings.
//!
//! | test | QEMU's way | who starts `passt` |
//! |---|---|---|
//! | [`a_machine_that_shares_its_memory_is_served_whatever_becomes_of_it`] | `-netdev vhost-user` | the test |
//! | [`qemu_starts_it_for_memory_that_is_shared`] | `-netdev passt,vhost-user=on` | QEMU |
//!
//! Hostile front ends, and what needs no second kernel, stand in `pasta` and `hostile`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::{HOST4, HOST6, Image, LIMIT, Lab, Running, Vm, WORLD4, WORLD6, peer, vm_fixture};

use super::passt::{
    MAC, furnish, is_reached, lease, passt, processes, reaches_world, until_processes, world,
};
use super::pasta::Guarded;
use super::{digest, payload, receiver};

/// What QEMU calls a machine's memory that another process can map.
const SHARED: [&str; 4] =
    ["-object", "memory-backend-memfd,id=memory,size=256M,share=on", "-machine", "memory-backend=memory"];
/// A MiB often enough to go around each ring many times.
const MEBIBYTES: usize = 8;

/// The card at a socket, and whatever else QEMU is told.
fn boot(lab: &Lab, image: &Image, socket: &Path, more: &[&str]) -> Vm {
    let chardev = format!("socket,id=card,path={}", socket.display());
    let device = format!("virtio-net-pci,netdev=net,mac={MAC}");
    let card = ["-chardev", &chardev, "-netdev", "vhost-user,id=net,chardev=card", "-device", &device];
    Vm::boot(lab, image, &[&SHARED, &card[..], more].concat()).unwrap()
}

/// The monitor of a QEMU: one order, and what it answers.
fn order(monitor: &Path, order: &str) -> String {
    let stream = UnixStream::connect(monitor).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("QMP"));
    let mut answer = |order: &str| {
        writeln!(&stream, "{order}").unwrap();
        loop {
            let line = next();
            if !line.contains("\"event\"") {
                break line;
            }
        }
    };
    answer(r#"{"execute":"qmp_capabilities"}"#);
    answer(order)
}

/// Megabytes cross both ways, whoever began, and come as they were sent.
fn carries_megabytes(lab: &Lab, vm: &mut Vm) {
    let (path, sent) = payload(lab, MEBIBYTES);
    std::fs::copy(path, lab.dir().join("www/payload")).unwrap();
    let fetched = format!("wget -qO /www/payload http://{WORLD4}/payload && sha256sum /www/payload");
    assert!(vm.ok(&fetched).unwrap().starts_with(&sent), "from the world, and the guest asked");
    let fetch = format!("busybox wget -qO- http://{HOST4}:8080/payload | sha256sum");
    let taken = lab.world(["sh", "-c", &fetch]).ok(LIMIT).unwrap();
    assert_eq!(digest(&taken), sent, "from the guest, and the world asked");
    let mut taken = receiver(lab.world(["sh", "-c"]), 9002);
    vm.ok(&format!("nc {WORLD4} 9002 </www/payload")).unwrap();
    let taken = taken.finish(LIMIT).unwrap().expect("it ends");
    assert_eq!(digest(&taken), sent, "from the guest, which began");
}

/// Datagrams have their answers, whoever asks.
fn carries_datagrams(lab: &Lab, vm: &mut Vm) {
    let peer = lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9003");
    let echo = Running::server(lab.world([&peer, "serve", &at]), "udp", 9003).unwrap();
    let asked = vm.ok(&format!("peer udp-rr {at} 0.5")).unwrap();
    assert!(asked.trim().parse::<f64>().unwrap() > 2.0, "{asked}");
    drop(echo);
    vm.ok("peer serve 0.0.0.0:9005 >/dev/null 2>&1 & echo $! >/tmp/echo; sleep 0.5").unwrap();
    let asked = lab.world([&peer, "udp-rr", &format!("{HOST4}:9005"), "0.5"]).run(LIMIT).unwrap();
    assert!(asked.success(), "a published port: {asked}");
    vm.ok("kill $(cat /tmp/echo)").unwrap();
}

/// What the card and its driver have agreed on: the bits of virtio 1.2 §5.1.3.
fn agreed(vm: &mut Vm) -> Vec<usize> {
    let text = vm.ok("cat $(readlink -f /sys/class/net/eth0/device)/features").unwrap();
    text.trim().bytes().enumerate().filter(|(_, bit)| *bit == b'1').map(|(at, _)| at).collect()
}

#[test]
fn a_machine_that_shares_its_memory_is_served_whatever_becomes_of_it() {
    let test = "a_machine_that_shares_its_memory_is_served_whatever_becomes_of_it";
    let Some((lab, mut image)) = vm_fixture(test, &["dnsmasq", "busybox", "ncat"], &["passt"]) else {
        return;
    };
    let Some(peer) = peer() else {
        println!("SKIP {test}: slipway-lab-peer is not built");
        return;
    };
    furnish(&mut image);
    image.program("/usr/bin/peer", &peer).unwrap();
    let _world = world(&lab);
    let [socket, monitor] = ["machine.socket", "monitor"].map(|name| lab.home().join(name));
    let pid =
        passt(&lab, &["--vhost-user", "--socket", &socket.to_string_lossy(), "-t", "8080:80", "-u", "9005"]);
    let _passt = Guarded(pid);
    let program = lab.program("passt");
    let more = ["-action", "reboot=reset", "-qmp", &format!("unix:{},server=on,wait=off", monitor.display())];
    let mut vm = boot(&lab, &image, &socket, &more);

    lease(&mut vm);
    reaches_world(&mut vm);
    let pings = format!("ping -c 1 -W 5 {WORLD4} && ping -6 -c 1 -W 5 {WORLD6}");
    assert_eq!(vm.ok(&pings).unwrap().matches(" 0% packet loss").count(), 2);
    let page = vm.ok("wget -qO- http://name.test/index.html").unwrap();
    assert_eq!(page, "of the world\n", "by its name");
    let bits = agreed(&mut vm);
    let (checksums, segments, mergeable) = ([0, 1], [7, 8, 11, 12], 15);
    let wanted = checksums.iter().chain(&segments).chain([&mergeable]);
    assert!(wanted.clone().all(|bit| bits.contains(bit)), "{bits:?}");
    vm.ok("httpd -p 80 -h /www").unwrap();
    is_reached(&lab, HOST4);
    is_reached(&lab, &format!("[{HOST6}]"));
    carries_megabytes(&lab, &mut vm);
    carries_datagrams(&lab, &mut vm);

    // A migration is refused, and the guest stays.
    let answer = order(&monitor, r#"{"execute":"migrate","arguments":{"uri":"exec:cat >/dev/null"}}"#);
    assert!(answer.contains("\"error\"") && answer.contains("igration"), "{answer}");
    reaches_world(&mut vm);

    let sink = lab.world(["ncat", "-lk", "9004", "--recv-only"]);
    let _sink = Running::server(sink, "tcp", 9004).unwrap();
    // The driver goes and comes, and begins anew in the middle of whatever there was.
    let again =
        "at=$(basename $(readlink -f /sys/class/net/eth0/device)); cd /sys/bus/virtio/drivers/virtio_net
         (cat /dev/zero | nc 192.0.2.2 9004) >/dev/null 2>&1 &
         for i in 1 2 3; do sleep 0.1; echo $at >unbind; echo $at >bind; done";
    vm.ok(again).unwrap();
    lease(&mut vm);
    reaches_world(&mut vm);
    is_reached(&lab, HOST4);

    // So does the whole machine, while QEMU and its connection stay.
    vm.reboot().unwrap();
    lease(&mut vm);
    reaches_world(&mut vm);
    vm.ok("httpd -p 80 -h /www").unwrap();
    is_reached(&lab, HOST4);

    // QEMU is killed in the middle of a transfer: the next one is welcome.
    vm.ok(&format!("(cat /dev/zero | nc {WORLD4} 9004) >/dev/null 2>&1 & sleep 0.3")).unwrap();
    drop(vm);
    let mut vm = boot(&lab, &image, &socket, &[]);
    lease(&mut vm);
    reaches_world(&mut vm);
    assert_eq!(processes(&program), [pid], "it is the same that began");
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    until_processes(&program, <[i32]>::is_empty);
}

#[test]
fn qemu_starts_it_for_memory_that_is_shared() {
    let test = "qemu_starts_it_for_memory_that_is_shared";
    let Some((lab, mut image)) = vm_fixture(test, &["dnsmasq", "busybox"], &["passt"]) else { return };
    furnish(&mut image);
    let _world = world(&lab);
    let program = lab.program("passt");
    let netdev = format!("passt,id=net,path={program},vhost-user=on,tcp-ports=8080:80,param=--no-map-gw");
    // Told to do without eventfds, QEMU has them all the same for a card of another process's: a ring without one to be
    // called by, which we refuse, is no case of its own.
    let device = format!("virtio-net-pci,netdev=net,mac={MAC},ioeventfd=off");
    let words = [&SHARED[..], &["-netdev", &netdev, "-device", &device]].concat();
    let mut vm = Vm::boot(&lab, &image, &words).unwrap();
    let there = until_processes(&program, |there| there.len() == 1);
    let words = std::fs::read(format!("/proc/{}/cmdline", there[0])).unwrap();
    let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    assert!(["--vhost-user", "--fd"].iter().all(|word| words.contains(&(*word).into())), "{words:?}");
    lease(&mut vm);
    reaches_world(&mut vm);
    vm.ok("httpd -p 80 -h /www").unwrap();
    is_reached(&lab, HOST4);
    // QEMU's end is its end, by a signal.
    vm.power_off().unwrap();
    until_processes(&program, <[i32]>::is_empty);
}
