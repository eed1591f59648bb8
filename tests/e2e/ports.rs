//! A guest that takes all the ports it can get: what the host's other programs, and its neighbours, still have.
//!
//! The host has 4000 ephemeral ports here. The guest's frames are made by hand and bear the address of a station that
//! its kernel knows nothing of, so that nobody answers what comes back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, socket,
};
use slipway_host::driver::raise_descriptor_limit;
use slipway_host::sys::packet::{self, Instruction};
use slipway_lab::{Container, LIMIT, WORLD4, lab, within};
use slipway_netstack::addr::MacAddr;
use testkit::packet::{Tcp, Udp, ethernet, flag};

use crate::memory::{KEPT, falls_to, resident};

const RANGE: &str = "40000 43999";
const PORT: u16 = 9000;
/// What another program of the host wants, and what is left for it at the least.
const WANTED: usize = 1000;
const GATEWAY_MAC: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);

fn server() -> SocketAddr {
    SocketAddr::new(WORLD4.parse().unwrap(), PORT)
}

fn stranger(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 2, 101).into(), port)
}

/// Sends frames on the container's tap0, not much faster than they are carried.
fn send(container: &Container, frames: &[Vec<u8>]) {
    let send = || {
        let index = nix::net::if_::if_nametoindex("tap0")?;
        // Lets nothing in.
        let nothing = Instruction { code: 0x06, if_true: 0, if_false: 0, operand: 0 };
        let socket = packet::open(index, &[nothing])?;
        for burst in frames.chunks(100) {
            for frame in burst {
                // A full queue loses one, as any link does.
                let _ = packet::send(socket.as_fd(), frame);
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    };
    container.within(send).unwrap();
}

/// The stranger's frame from `mac`.
fn frame(mac: MacAddr, packet: &testkit::packet::Ip) -> Vec<u8> {
    ethernet(GATEWAY_MAC, mac, &packet.emit())
}

/// Sockets of a process in the network namespace of `pid`, as its kernel lists them.
fn listed(pid: u32, table: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap();
    text.lines().skip(1).filter(|line| line.split_whitespace().nth(1).is_some_and(in_range)).count()
}

fn in_range(local: &str) -> bool {
    let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    port.is_some_and(|port| (40_000..44_000).contains(&port))
}

/// As many sockets as another program wants, all at once; `open` makes one.
fn all_at_once<T>(open: impl Fn() -> io::Result<T>) -> io::Result<usize> {
    let sockets = (0..WANTED).map(|_| open()).collect::<io::Result<Vec<T>>>()?;
    Ok(sockets.len())
}

/// A socket that has begun to connect to the server.
fn connecting() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(server())) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn the_hosts_other_programs_get_their_sockets_during_a_flood() {
    let (lab, _) = lab!(ours "the_hosts_other_programs_get_their_sockets_during_a_flood", ["ping"]);
    if !lab.by_root() || raise_descriptor_limit().is_ok_and(|limit| limit < 8192) {
        println!(
            "SKIP the_hosts_other_programs_get_their_sockets_during_a_flood: needs root, and 8192 descriptors"
        );
        return;
    }
    let range = format!("echo {RANGE} > /proc/sys/net/ipv4/ip_local_port_range");
    lab.host_root(["sh", "-c", &range]).ok(LIMIT).unwrap();
    let backlog =
        "echo 8192 > /proc/sys/net/core/somaxconn; echo 8192 > /proc/sys/net/ipv4/tcp_max_syn_backlog";
    lab.world(["sh", "-c", backlog]).ok(LIMIT).unwrap();
    let listener = within(lab.world_pid(), || {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(server()))?;
        listen(&fd, Backlog::MAXALLOWABLE)?;
        Ok(fd)
    });
    let _listener = listener.unwrap();
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--mtu=1500"]).unwrap();
    container.sh("ping -c 1 10.0.2.2").unwrap();
    let before = resident(slirp.process.pid());
    let mac = MacAddr([2, 0, 0, 0, 0, 0x65]);

    // A datagram from each of many ports, to nobody.
    let nobody = SocketAddr::new(WORLD4.parse().unwrap(), 9);
    send(
        &container,
        &(10_000..16_000)
            .map(|port| frame(mac, &Udp::packet(stranger(port), nobody, b"x")))
            .collect::<Vec<_>>(),
    );
    let taken = listed(lab.host_pid(), "udp");
    assert!((WANTED * 9 / 10..=WANTED).contains(&taken), "{taken} ports are taken");
    let host = within(lab.host_pid(), || {
        all_at_once(|| {
            UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect(nobody).map(|()| socket))
        })
    });
    assert_eq!(host.unwrap(), WANTED);

    // A SYN from each of many ports to one destination. What is answered is never acknowledged.
    let syn = |port| {
        Tcp { seq: 1, window: 1000, ..Tcp::default() }.with(flag::SYN).packet(stranger(port), server())
    };
    send(&container, &(10_000..16_000).map(|port| frame(mac, &syn(port))).collect::<Vec<_>>());
    let taken = listed(lab.host_pid(), "tcp");
    assert!((2000..=3000).contains(&taken), "{taken} ports are taken");
    let host = within(lab.host_pid(), || all_at_once(connecting));
    assert_eq!(host.unwrap(), WANTED, "to the same destination");
    let neighbour =
        container.within(|| TcpStream::connect_timeout(&server(), Duration::from_secs(8)).map(drop));
    neighbour.expect("a neighbour gets there, too");
    let after = falls_to(slirp.process.pid(), before + KEPT);
    assert!(after <= before + KEPT, "{before} bytes resident, {after} after the floods");
}
