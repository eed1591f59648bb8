//! Start, ready, end; the ways to name a target.

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use slipway_host::sys::tun;
use slipway_lab::{LIMIT, Running, lab};

#[test]
fn exit_fd_ends_it_and_bytes_do_not() {
    let (lab, _) = lab!("exit_fd_ends_it_and_bytes_do_not", []);
    let container = lab.container().unwrap();
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    slirp.process.stdin.as_mut().unwrap().write_all(b"stay").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(slirp.process.ended().unwrap().is_none(), "{}", slirp.process.stderr());
    assert!(container.cmd(["ping", "-c1", "-W5", "10.0.2.2"]).run(LIMIT).unwrap().success());
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn ready_fd_gets_exactly_one_byte() {
    let (lab, _) = lab!("ready_fd_gets_exactly_one_byte", []);
    let container = lab.container().unwrap();
    // Lab::slirp compares the whole file with "1"; look again after a while.
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let ready: Vec<_> = std::fs::read_dir(lab.home())
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("ready-"))
        .collect();
    assert_eq!(ready.len(), 1);
    assert_eq!(std::fs::read(ready[0].path()).unwrap(), b"1");
}

#[test]
fn failure_writes_no_ready_byte() {
    let (lab, _) = lab!("failure_writes_no_ready_byte", []);
    let container = lab.container().unwrap();
    let long = "a".repeat(108);
    assert!(lab.slirp(&container, &["-c", &format!("--api-socket={long}")]).is_err());
    for entry in std::fs::read_dir(lab.home()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(std::fs::read(&path).unwrap(), b"", "{}", path.display());
    }
}

#[test]
fn netns_by_path_with_a_user_namespace() {
    let (lab, _) = lab!("netns_by_path_with_a_user_namespace", []);
    let container = lab.container().unwrap();
    let pid = container.pid();
    let slirp = lab
        .slirp_at(
            &["-c", &format!("--userns-path=/proc/{pid}/ns/user"), "--netns-type=path"],
            &[&format!("/proc/{pid}/ns/net"), "tap0"],
        )
        .unwrap();
    let shown = container.cmd(["ip", "-o", "-4", "address", "show", "tap0"]).ok(LIMIT).unwrap().out();
    assert!(shown.contains("10.0.2.100/24"), "{shown}");
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn netns_by_path_from_inside_the_user_namespace() {
    let (lab, _) = lab!("netns_by_path_from_inside_the_user_namespace", []);
    let container = lab.container().unwrap();
    let pid = container.pid();
    // Podman's way: the program already is in the user namespace, and only the network namespace is joined.
    let mut process = lab
        .host(["nsenter", "--target", &pid.to_string(), "--user", "--preserve-credentials"])
        .args([&lab.program("slirp4netns"), "-c", "-e", "0", "-r", "1", "--netns-type=path"])
        .args([&format!("/proc/{pid}/ns/net"), "tap0"])
        .start()
        .unwrap();
    process
        .until(LIMIT, |running| running.stdout().contains('1') && running.stdout().ends_with('1'))
        .unwrap();
    let shown = container.cmd(["ip", "-o", "-4", "address", "show", "tap0"]).ok(LIMIT).unwrap().out();
    assert!(shown.contains("10.0.2.100/24"), "{shown}");
}

#[test]
fn an_existing_persistent_tap_is_taken_over() {
    let (lab, _) = lab!("an_existing_persistent_tap_is_taken_over", []);
    let container = lab.container().unwrap();
    container.sh("ip tuntap add name tap0 mode tap && ip link set tap0 up").unwrap();
    let _slirp = lab.slirp(&container, &["--mtu=65520"]).unwrap();
    let set_up = container
        .sh("ip link set tap0 up && ip link set tap0 mtu 65520 && ip address add 10.0.2.100/24 dev tap0 \
             && ip route add default via 10.0.2.2 dev tap0 && ping -c1 -W5 10.0.2.2")
        .unwrap();
    assert!(set_up.success(), "{set_up}");
}

#[test]
fn it_outlives_the_processes_of_the_namespace() {
    let (lab, _) = lab!("it_outlives_the_processes_of_the_namespace", []);
    let mut container = lab.container().unwrap();
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    container.end();
    std::thread::sleep(Duration::from_millis(200));
    assert!(slirp.process.ended().unwrap().is_none(), "{}", slirp.process.stderr());
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn sigterm_ends_it_at_once() {
    let (lab, _) = lab!("sigterm_ends_it_at_once", []);
    let container = lab.container().unwrap();
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    // The promise is 100 ms, which a machine that does other things may not keep: what is seen is that it ends.
    slirp.process.signal(Signal::SIGTERM);
    assert!(slirp.process.finish(LIMIT).unwrap().is_some());
}

#[test]
fn a_kill_leaves_nothing_that_stops_the_next_start() {
    let (lab, _) = lab!("a_kill_leaves_nothing_that_stops_the_next_start", []);
    let container = lab.container().unwrap();
    for _ in 0..2 {
        let mut slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
        slirp.publish("tcp", 8080, 80).unwrap();
        slirp.process.signal(Signal::SIGKILL);
        slirp.process.finish(LIMIT).unwrap();
        assert!(slirp.api_path().unwrap().exists());
    }
}

#[test]
fn a_missing_tun_device_is_explained() {
    let (lab, subject) = lab!("a_missing_tun_device_is_explained", []);
    if !lab.has_own_tun() {
        println!("SKIP a_missing_tun_device_is_explained: needs a device of its own (CAP_MKNOD)");
        return;
    }
    let container = lab.container().unwrap();
    let pid = container.pid().to_string();
    lab.host_root(["chmod", "600", "/dev/net/tun"]).ok(LIMIT).unwrap();
    let output = lab.host([&lab.program("slirp4netns"), "-c", &pid, "tap0"]).run(LIMIT).unwrap();
    lab.host_root(["chmod", "666", "/dev/net/tun"]).ok(LIMIT).unwrap();
    assert_eq!(output.code(), 1, "{output}");
    let said = output.err();
    assert!(said.contains("/dev/net/tun"), "{output}");
    assert!(said.contains("Permission denied"), "{output}");
    if subject.is_slipway() {
        assert!(said.contains("child failed(1)"), "{output}");
    }
}

#[test]
fn a_tap_descriptor_can_be_handed_over() {
    let (lab, _) = lab!(ours "a_tap_descriptor_can_be_handed_over", ["ping"]);
    if !lab.by_root() {
        println!("SKIP a_tap_descriptor_can_be_handed_over: needs root to open the device");
        return;
    }
    let container = lab.container().unwrap();
    let net = std::fs::File::open(format!("/proc/{}/ns/net", container.pid())).unwrap();
    // A thread of its own enters the namespace and ends there.
    let opened = std::thread::spawn(move || {
        nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let device = tun::open_device("/dev/net/tun".as_ref()).unwrap();
        tun::attach(device.as_fd(), "tap0", tun::Flags::TAP | tun::Flags::NO_PI).unwrap();
        device
    });
    let device = opened.join().unwrap();
    nix::fcntl::fcntl(&device, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let slirp = lab.slirp_at(&["--netns-type=tapfd"], &[&device.as_raw_fd().to_string()]).unwrap();
    drop(device);
    let set_up = container
        .sh("ip address add 10.0.2.100/24 dev tap0 && ip link set tap0 up \
             && ip route add default via 10.0.2.2 && ping -c1 -W5 10.0.2.2")
        .unwrap();
    assert!(set_up.success(), "{set_up} {}", slirp.process.stderr());
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn bess_speaks_frames_over_a_socket() {
    let (lab, _) = lab!("bess_speaks_frames_over_a_socket", []);
    let path = lab.home().join("bess.sock");
    let mut process = lab
        .host([&lab.program("slirp4netns"), "--target-type=bess", "--exit-fd=0"])
        .arg(path.clone().into_os_string())
        .start()
        .unwrap();
    let reply = bess_gateway(&mut process, &path);
    assert_eq!(reply[22..28], [0x52, 0x55, 10, 0, 2, 2]);
    assert_eq!(reply[28..32], [10, 0, 2, 2]);
    process.stdin.take();
    assert_eq!(process.finish(LIMIT).unwrap().expect("it ends").code(), 0);
}

/// A virtual machine that starts again connects again. The original stays, too, but spins and hears nobody.
#[test]
fn bess_lets_the_next_guest_in_when_one_has_hung_up() {
    let (lab, _) = lab!(ours "bess_lets_the_next_guest_in_when_one_has_hung_up", []);
    let path = lab.home().join("bess.sock");
    let mut process = lab
        .host([&lab.program("slirp4netns"), "--target-type=bess", "--exit-fd=0", "--enable-seccomp"])
        .arg(path.clone().into_os_string())
        .start()
        .unwrap();
    for guest in 0..3 {
        let reply = bess_gateway(&mut process, &path);
        assert_eq!(reply[28..32], [10, 0, 2, 2], "guest {guest}");
    }
    process.until(LIMIT, |process| process.stderr().matches("do_slirp: read:").count() == 3).unwrap();
    process.stdin.take();
    assert_eq!(process.finish(LIMIT).unwrap().expect("it ends").code(), 0);
}

#[test]
fn a_deleted_interface_ends_nothing() {
    let (lab, _) = lab!("a_deleted_interface_ends_nothing", []);
    let container = lab.container().unwrap();
    let mut slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
    assert!(container.sh("ip link delete tap0").unwrap().success());
    slirp.process.until(LIMIT, |process| process.stderr().contains("do_slirp: read:")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(slirp.process.ended().unwrap().is_none(), "{}", slirp.process.stderr());
    let reply = slirp.api(r#"{"execute":"list_hostfwd"}"#).unwrap();
    assert!(reply.contains("entries"), "{reply}");
    assert_eq!(slirp.exit().unwrap(), 0);
}

/// A guest that connects, asks for the gateway's MAC address, and hangs up; gives the answer.
fn bess_gateway(process: &mut Running, path: &Path) -> Vec<u8> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    let address = UnixAddr::new(path).unwrap();
    process.until(LIMIT, |_| connect(client.as_raw_fd(), &address).is_ok()).unwrap();
    setsockopt(&client, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).unwrap();
    // Who has 10.0.2.2? Tell 10.0.2.15.
    let mut frame =
        [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[2, 0, 0, 0, 0, 1]].concat();
    frame.extend_from_slice(&[10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    frame.resize(60, 0);
    send(client.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
    let mut answer = [0_u8; 2048];
    // Other frames may come first, such as advertisements.
    let reply = (0..20).find_map(|_| {
        let count = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
        let frame = &answer[..count];
        (count >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2]).then(|| frame[..42].to_vec())
    });
    reply.unwrap_or_else(|| panic!("no ARP reply: {}", process.stderr()))
}
