//! The path as a program in the container sees it: sizes, errors, traffic classes.
//!
//! ```text
//!   container ── slipway on host ── world, a router ──(MTU 1300)── far 198.51.100.2
//! ```

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use slipway_host::sys::message::{Control, Name};
use slipway_host::sys::mmsg;
use slipway_host::sys::sockopt::{self, Opt};
use slipway_lab::{Container, GATEWAY4, GATEWAY6, LIMIT, Lab, WORLD4, WORLD6, lab};
use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::ipv6;

const FAR4: &str = "198.51.100.2";
const FAR6: &str = "2001:db8:9::2";
const HOP: i32 = 1300;
/// IP_PMTUDISC_DONT, IP_PMTUDISC_DO; the same for IPv6.
const FRAGMENT: i32 = 0;
const DONT_FRAGMENT: i32 = 2;

/// Makes a router of world, with a container of another user behind a narrow link.
fn narrow(lab: &Lab) -> Container {
    let far = lab.container().unwrap();
    let script = format!(
        "set -e
         echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         echo 0 > /proc/sys/net/ipv4/icmp_ratelimit; echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
         ip link add r0 type veth peer name r1 netns {}
         ip address add 198.51.100.1/24 dev r0; ip address add 2001:db8:9::1/64 dev r0 nodad
         ip link set r0 mtu {HOP} up",
        far.pid()
    );
    lab.world(["sh", "-c", &script]).ok(LIMIT).unwrap();
    let script = format!(
        "set -e
         ip address add {FAR4}/24 dev r1; ip address add {FAR6}/64 dev r1 nodad; ip link set r1 mtu {HOP} up
         ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:9::1"
    );
    assert!(far.sh(&script).unwrap().success());
    lab.world(["sh", "-c", &carries("r0", FAR6)]).ok(LIMIT).unwrap();
    far
}

/// A script that waits until the kernel has noticed that a link's other end is up, and routes over it: up to a second.
fn carries(link: &str, to: &str) -> String {
    format!(
        "for i in $(seq 100); do
             ip link show {link} | grep -q 'state UP' && ip -6 route get {to} | grep -q 'dev {link}' && exit 0
             sleep 0.05
         done; exit 1"
    )
}

/// Sends `count` datagrams of `payload` in one train, or one alone.
fn send(socket: &UdpSocket, to: SocketAddr, payload: &[u8], count: usize) -> io::Result<()> {
    let mut control = Control::EMPTY;
    if count > 1 {
        let size = u16::try_from(payload.len()).unwrap();
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }
    mmsg::send_one(socket.as_fd(), &Name::from(to), &control, &[IoSlice::new(&payload.repeat(count))])?;
    Ok(())
}

/// What a program learns that sends what must not be fragmented: the path MTU, or 0.
fn discover(to: SocketAddr, payload: &[u8], count: usize) -> io::Result<i32> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let (discover, path) = match to {
        SocketAddr::V4(_) => (Opt::MTU_DISCOVER_V4, Opt::PATH_MTU_V4),
        SocketAddr::V6(_) => (Opt::MTU_DISCOVER_V6, Opt::PATH_MTU_V6),
    };
    let socket = UdpSocket::bind(any)?;
    sockopt::set(socket.as_fd(), discover, DONT_FRAGMENT)?;
    socket.connect(to)?;
    for _ in 0..250 {
        match send(&socket, to, payload, count) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                return Ok(sockopt::get(socket.as_fd(), path)?);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && count > 1 => {
                // A train whose segments do not fit the path that the kernel knows of by now.
                return Ok(sockopt::get(socket.as_fd(), path)?);
            }
            // It has arrived where nobody listens.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(0),
            Err(error) => return Err(error),
            Ok(()) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    Ok(0)
}

#[test]
fn a_narrow_hop_tells_its_size_to_who_forbids_fragments() {
    let (lab, _) = lab!(ours "a_narrow_hop_tells_its_size_to_who_forbids_fragments", []);
    if !lab.by_root() {
        println!("SKIP a_narrow_hop_tells_its_size_to_who_forbids_fragments: needs root");
        return;
    }
    let far = narrow(&lab);
    for (mtu, port) in [("1500", 7000), ("65520", 7100)] {
        let container = lab.container().unwrap();
        let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6", &format!("--mtu={mtu}")]).unwrap();
        ipv6(&container);
        for (address, count, port) in
            [(FAR4, 1, port), (FAR6, 1, port + 1), (FAR4, 10, port + 2), (FAR6, 10, port + 3)]
        {
            let to = SocketAddr::new(address.parse().unwrap(), port);
            // 1400 bytes with both headers.
            let payload = vec![7; 1372];
            // Each asks anew: what the container's kernel has learnt is forgotten.
            container.sh("ip route flush cache; ip -6 route flush cache").unwrap();
            let learnt = container.within(|| discover(to, &payload, count)).unwrap();
            assert_eq!(learnt, HOP, "{to} MTU {mtu}, {count} at once");
            let socket = far.within(|| UdpSocket::bind(SocketAddr::new(to.ip(), port))).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            container
                .within(|| {
                    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    let here = UdpSocket::bind(any)?;
                    let opt = if to.is_ipv4() { Opt::MTU_DISCOVER_V4 } else { Opt::MTU_DISCOVER_V6 };
                    sockopt::set(here.as_fd(), opt, FRAGMENT)?;
                    send(&here, to, &payload, 1)
                })
                .unwrap();
            let mut into = [0; 2000];
            assert_eq!(socket.recv(&mut into).unwrap(), 1372, "{to}: whoever permits it is fragmented");
        }
    }
    let snmp = far.sh("cat /proc/net/snmp /proc/net/snmp6").unwrap().out();
    assert!(snmp.contains("Ip6ReasmOKs") && !snmp.contains("Ip6ReasmOKs                     \t0"), "{snmp}");
}

/// Behind a VPN, say: the kernel refuses on the spot, and its own error does not tell the port.
#[test]
fn a_narrow_way_out_tells_its_size() {
    let (lab, _) = lab!(ours "a_narrow_way_out_tells_its_size", []);
    if !lab.by_root() {
        println!("SKIP a_narrow_way_out_tells_its_size: needs root");
        return;
    }
    lab.host_root(["ip", "link", "set", "veth0", "mtu", "1400"]).ok(LIMIT).unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    for (address, count, port) in
        [(WORLD4, 1, 7500), (WORLD6, 1, 7501), (WORLD4, 10, 7502), (WORLD6, 10, 7503)]
    {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        container.sh("ip route flush cache; ip -6 route flush cache").unwrap();
        let learnt = container.within(|| discover(to, &[7; 1420], count)).unwrap();
        assert_eq!(learnt, 1400, "{to}, {count} at once");
        assert_eq!(container.within(|| discover(to, &[7; 1352], count)).unwrap(), 0, "{to}: what fits");
    }
}

#[test]
fn what_only_our_link_is_wide_enough_for_arrives() {
    let (lab, _) = lab!("what_only_our_link_is_wide_enough_for_arrives", []);
    if !lab.by_root() {
        println!("SKIP what_only_our_link_is_wide_enough_for_arrives: needs root");
        return;
    }
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--mtu=65520"]).unwrap();
    let at: SocketAddr = format!("{}:7200", WORLD4).parse().unwrap();
    let there = lab.within_world(|| UdpSocket::bind(at)).unwrap();
    there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // An ordinary program, whose kernel sets "don't fragment" on what fits its link.
    container.within(|| UdpSocket::bind("0.0.0.0:0")?.send_to(&[7; 8000], at)).unwrap();
    assert_eq!(there.recv(&mut [0; 9000]).unwrap(), 8000, "the first one");
}

#[test]
fn a_ping_that_is_too_large_hears_the_size() {
    let (lab, _) = lab!(ours "a_ping_that_is_too_large_hears_the_size", ["ping"]);
    let far = narrow(&lab);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    for (version, address) in [("-4", FAR4), ("-6", FAR6)] {
        let words = ["ping", version, "-M", "do", "-c2", "-i0.3", "-W5", "-s1340", address];
        let reply = container.cmd(words).run(LIMIT).unwrap();
        let said = reply.all();
        assert!(said.contains("mtu = 1300") || said.contains("mtu=1300"), "{reply}");
        let words = ["ping", version, "-M", "dont", "-c1", "-W5", "-s1340", address];
        let reply = container.cmd(words).run(LIMIT).unwrap();
        assert!(reply.success(), "{reply}");
    }
    drop(far);
}

/// With several requests under way, each error names its own.
#[test]
fn an_error_names_the_ping_that_it_is_about() {
    let (lab, _) = lab!(ours "an_error_names_the_ping_that_it_is_about", ["ping"]);
    let _far = narrow(&lab);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    for (version, gateway, address) in [("-4", GATEWAY4, FAR4), ("-6", GATEWAY6, FAR6)] {
        // The container knows its gateway, so the requests lie in the link's queue while we sleep. All of them have
        // left before the first error is looked at.
        container.cmd(["ping", version, "-c1", "-W5", gateway]).ok(LIMIT).unwrap();
        slirp.process.signal(Signal::SIGSTOP);
        let words = ["ping", version, "-t1", "-c5", "-i0.05", "-W3", address];
        let mut ping = container.cmd(words).start().unwrap();
        std::thread::sleep(Duration::from_millis(600));
        slirp.process.signal(Signal::SIGCONT);
        let said = ping.finish(LIMIT).unwrap().expect("ping ends").all();
        for sequence in 1..=5 {
            assert!(said.contains(&format!("icmp_seq={sequence} ")), "{sequence}: {said}");
        }
    }
}

/// A server that tells the class of what arrives cannot be had without a packet socket; the kernel shows that of its
/// own.
#[test]
fn the_class_of_a_connection_is_that_of_the_guests() {
    let (lab, _) = lab!(ours "the_class_of_a_connection_is_that_of_the_guests", ["tcpdump", "ncat"]);
    if !lab.by_root() {
        println!("SKIP the_class_of_a_connection_is_that_of_the_guests: needs root");
        return;
    }
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    for (address, opt) in [(WORLD4, Opt::TOS), (WORLD6, Opt::TRAFFIC_CLASS)] {
        let at = SocketAddr::new(address.parse().unwrap(), 9000);
        let listener = lab.within_world(|| std::net::TcpListener::bind(at)).unwrap();
        let filter = format!("tcp and dst port 9000 and dst host {address}");
        let mut dump =
            lab.world(["tcpdump", "-v", "-n", "-l", "-c8", "-i", "veth0", &filter]).start().unwrap();
        dump.until(LIMIT, |running| running.stderr().contains("listening on")).unwrap();
        let stream = container
            .within(|| {
                let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                let fd = socket(family, SockType::Stream, SockFlag::empty(), None)?;
                sockopt::set(fd.as_fd(), opt, 0xb8)?;
                connect(fd.as_raw_fd(), &SockaddrStorage::from(at))?;
                sockopt::set(fd.as_fd(), opt, 0x48)?;
                Ok(std::net::TcpStream::from(fd))
            })
            .unwrap();
        let (mut there, _) = listener.accept().unwrap();
        there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut here = stream;
        for _ in 0..6 {
            io::Write::write_all(&mut here, b"x").unwrap();
            io::Read::read_exact(&mut there, &mut [0]).unwrap();
        }
        drop((here, there));
        let seen = dump.finish(LIMIT).unwrap().expect("tcpdump has seen enough").out();
        let (syn, later) = ("0xb8", "0x48");
        assert!(seen.contains(syn) && seen.contains(later), "{address}: {seen}");
    }
}

/// The container is itself a router, as with Docker inside RootlessKit: behind it is a narrower link than ours.
#[test]
fn a_router_behind_the_guest_is_heard() {
    let (lab, _) = lab!(ours "a_router_behind_the_guest_is_heard", ["ncat"]);
    if !lab.by_root() {
        println!("SKIP a_router_behind_the_guest_is_heard: needs root");
        return;
    }
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6", "--mtu=65520"]).unwrap();
    ipv6(&container);
    let mut inner = container.cmd(["unshare", "--net", "sh", "-c", "echo ready; exec cat"]).start().unwrap();
    inner.until(LIMIT, |running| running.stdout().contains("ready")).unwrap();
    // The station behind it does not know of the narrow side, so that its own sizes do not give it away.
    let script = format!(
        "set -e
         echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         ip link add v0 type veth peer name v1 netns {0}
         ip address add 172.30.0.1/24 dev v0; ip address add fd30::1/64 dev v0 nodad; ip link set v0 mtu {HOP} up
         nsenter --net=/proc/{0}/ns/net sh -c '
             set -e
             ip address add 172.30.0.2/24 dev v1; ip address add fd30::2/64 dev v1 nodad
             ip link set v1 mtu 9000 up
             ip route add default via 172.30.0.1; ip -6 route add default via fd30::1'",
        inner.pid()
    );
    let made = container.sh(&script).unwrap();
    assert!(made.success(), "{made}");
    assert!(container.sh(&carries("v0", "fd30::2")).unwrap().success());
    let inside = |script: String| {
        let net = format!("--net=/proc/{}/ns/net", inner.pid());
        container.cmd(["nsenter", &net, "sh", "-c", &script]).run(LIMIT).unwrap()
    };
    for (version, address) in [("-4", WORLD4), ("-6", WORLD6)] {
        // UDP: 3000 bytes for each question. Over IPv6 the first answer tells the size.
        let at = SocketAddr::new(address.parse().unwrap(), 7300);
        let there = lab.within_world(|| UdpSocket::bind(at)).unwrap();
        there.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                while let Ok((len, from)) = there.recv_from(&mut [0; 9]) {
                    if len == 3 {
                        break;
                    }
                    let _ = there.send_to(&[7; 3000], from);
                }
            });
            let tries = if version == "-4" { 1 } else { 5 };
            let ask = format!("(printf go; sleep 1) | ncat {version} -u -w 2 {address} 7300 | wc -c");
            let got = (0..tries).find_map(|_| {
                let output = inside(ask.clone());
                (output.out().trim() == "3000").then_some(())
            });
            let end = inside(format!("printf end | ncat {version} -u -w 1 {address} 7300"));
            assert!(got.is_some(), "{address}: {end}");
            server.join().unwrap();
        });
        // TCP, downwards.
        let server = format!("head -c 2000000 /dev/zero | ncat {version} -l 7400 --send-only");
        let _server = slipway_lab::Running::server(lab.world(["sh", "-c", &server]), "tcp", 7400).unwrap();
        let output = inside(format!("ncat {version} --recv-only {address} 7400 </dev/null | wc -c"));
        assert_eq!(output.out().trim(), "2000000", "{address}: {output}");
    }
}
