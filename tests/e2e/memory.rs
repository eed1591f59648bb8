//! Memory that a guest made us hold goes back to the system when it is over. The resident size is looked at, as the
//! system's administrator would: what the allocator keeps counts.

use slipway_host::driver::raise_descriptor_limit;
use slipway_lab::{Container, LIMIT, Lab, WORLD4, lab};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Uploads at a time, and those with a hole, which hold less.
const COUNT: usize = 300;
const HOLES: usize = 800;
/// How much larger a process may be afterwards: what it keeps for the next upload, and tables that have grown.
pub(crate) const KEPT: u64 = 8 << 20;
/// Buffers of thousands of sockets pass by on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of memory that a process has for itself. Parts of its program that were read from the file meanwhile are no
/// memory that it could give back, and a program with symbols has megabytes of them.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Waits until the process is no larger than that; returns how large it is in the end.
pub(crate) fn falls_to(pid: u32, bound: u64) -> u64 {
    let start: Instant = slipway_lab::now();
    while resident(pid) > bound && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    resident(pid)
}

/// The same, the other way.
fn rises_to(pid: u32, bound: u64) -> u64 {
    let start: Instant = slipway_lab::now();
    while resident(pid) <= bound && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    resident(pid)
}

/// What a segment begins with that never arrives.
const MARK: &[u8; 4] = b"HOLE";

/// Connections from the container that each send `first` and then what they can, to a server that never reads.
fn unread(container: &Container, to: SocketAddr, count: usize, first: &[u8]) -> io::Result<Vec<TcpStream>> {
    container.within(|| {
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
            stream.set_nodelay(true)?;
            stream.write_all(first)?;
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
        let (block, start) = (vec![7; 96 << 10], slipway_lab::now());
        while start.elapsed() < Duration::from_secs(4) {
            let mut idle = true;
            for stream in &mut streams {
                idle &= stream.write(&block).is_err();
            }
            if idle {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(streams)
    })
}

/// Resets them, so that nothing is left to deliver.
fn reset(streams: Vec<TcpStream>) {
    for stream in streams {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    }
}

/// Two rounds of `count` uploads that each begin with `first`: what the process grew by goes back.
fn goes_back(name: &str, lab: &Lab, container: &Container, (count, first): (usize, &[u8])) {
    let slirp = lab.slirp(container, &["-c", "--mtu=65520", "--enable-seccomp"]).unwrap();
    let pid = slirp.process.pid();
    let to = SocketAddr::from((WORLD4.parse::<Ipv4Addr>().unwrap(), 9000));
    let listener = lab.within_world(|| TcpListener::bind(to)).unwrap();
    // It holds what it accepts, and never reads.
    let server = std::thread::spawn(move || listener.incoming().take(2 * count).collect::<Vec<_>>());
    let before = resident(pid);
    for round in 1..=2 {
        let streams = unread(container, to, count, first).unwrap();
        let full = rises_to(pid, before + KEPT + KEPT / 4);
        // Senders that lose their first segment have less under way on a busy machine. More than may stay is enough.
        assert!(full > before + KEPT + KEPT / 4, "round {round}: nothing was held: {before}, {full}");
        reset(streams);
        let after = falls_to(pid, before + KEPT);
        println!("{name}: {before} bytes resident, {full} while nobody reads, {after} afterwards");
        assert!(
            after <= before + KEPT,
            "round {round}: {after} of {full} bytes stay, it began with {before}"
        );
    }
    assert_eq!(server.join().unwrap().len(), 2 * count);
}

#[test]
fn memory_of_uploads_that_nobody_read_goes_back() {
    let name = "memory_of_uploads_that_nobody_read_goes_back";
    let (lab, _) = lab!(ours "memory_of_uploads_that_nobody_read_goes_back", []);
    if !lab.by_root() {
        println!("SKIP {name}: the lab is not made by root");
        return;
    }
    goes_back(name, &lab, &lab.container().unwrap(), (COUNT, &[]));
}

/// Everything but the first segment arrives, however often that is repeated.
#[test]
fn memory_of_holes_goes_back() {
    let name = "memory_of_holes_goes_back";
    let (lab, _) = lab!(ours "memory_of_holes_goes_back", ["nft"]);
    if !lab.by_root() || raise_descriptor_limit().is_ok_and(|limit| limit < 4096) {
        println!("SKIP {name}: needs root, and 4096 descriptors");
        return;
    }
    let container = lab.container().unwrap();
    // The payload begins behind 20 bytes of header and 12 of timestamps. Sent elsewhere, for of a segment that is
    // dropped here the sender would hear.
    let rules = "nft add table ip hole && nft add chain ip hole out '{ type filter hook output priority 0; }' \
        && nft add rule ip hole out tcp dport 9000 @th,256,32 0x484f4c45 counter tcp dport set 1";
    let made = container.sh(rules).unwrap();
    if !made.success() {
        println!("SKIP {name}: no such rule on this kernel: {}", made.err());
        return;
    }
    goes_back(name, &lab, &container, (HOLES, MARK));
    let counted = container.sh("nft list chain ip hole out").unwrap().out();
    assert!(!counted.contains("packets 0 "), "{counted}");
}
