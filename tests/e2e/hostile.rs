//! Front ends of vhost-user that do everything wrong, one after the other, to one real `passt`: it hangs up on each,
//! takes the next, and serves a good machine in the end as if there had been nobody.
//!
//! What each request and each ring may hold stands with the device (`host/src/device/vhost_user`); here is what a
//! process makes of it, behind its sandbox and its filter, whose answer to a surprise would be its end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use slipway_host::device::vhost_user::front::{GUEST, USER};
use slipway_host::device::vhost_user::message::{HEADER_LEN, Header, number};
use slipway_host::device::vhost_user::{Front, Wish};
use slipway_host::sys::fdpass;
use slipway_lab::{HOST4, Lab, WORLD4, lab, now};
use slipway_netstack::device::Offload;

use super::pasta::{Guarded, card, connected, lives, shown, started};

/// `passt` in the background; its process, which the handle keeps.
fn passt(lab: &Lab, socket: &Path) -> Guarded {
    let words = ["--vhost-user", "--quiet", "--no-map-gw", "-s", &socket.to_string_lossy(), "-t", "none"];
    let (done, pid) = started(lab, "passt", &words, &[]);
    assert!(done.success() && done.err().is_empty() && lives(pid), "{done}");
    Guarded(pid)
}

/// Waits until it hangs up, whatever it still has to say.
fn hangs_up(name: &str, mut stream: &UnixStream) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    loop {
        match stream.read(&mut [0; 512]) {
            Ok(0) => return,
            Ok(_) => {}
            // A reset, if it had not read all that was said.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{name}: it goes on: {error}"),
        }
    }
}

fn region(guest: u64, len: u64, user: u64, offset: u64) -> Vec<u8> {
    [guest, len, user, offset].iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// A table of regions, all of one file.
fn table(front: &Front, regions: &[Vec<u8>]) {
    let count = u32::try_from(regions.len()).unwrap();
    let payload = [&count.to_ne_bytes()[..], &[0; 4], &regions.concat()].concat();
    let fds = vec![front.file().as_fd(); regions.len()];
    front.request(number::SET_MEM_TABLE, &payload, &fds).unwrap();
}

fn alone(front: &Front, request: u32, region: &[u8]) {
    let payload = [&[0; 8][..], region].concat();
    let file = [front.file().as_fd()];
    let fds = if request == number::ADD_MEM_REG { &file[..] } else { &[] };
    front.request(request, &payload, fds).unwrap();
}

fn state(ring: u32, number: u32) -> Vec<u8> {
    [ring.to_ne_bytes(), number.to_ne_bytes()].concat()
}

fn addresses(ring: u32, at: [u64; 3]) -> Vec<u8> {
    let [descriptors, used, available] = at.map(u64::to_ne_bytes);
    [&state(ring, 0)[..], &descriptors, &used, &available, &[0; 8]].concat()
}

/// A descriptor, to be the first of the ring from the guest, with one chain to be taken.
fn describe(front: &Front, at: u64, len: u32, flags: u16, next: u16) {
    let [descriptors, available, _] = front.ring(false);
    let bytes =
        [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
    front.memory().write(descriptors, &bytes).unwrap();
    front.memory().store(available + 4, 0).unwrap();
    front.memory().store(available + 2, 1).unwrap();
}

type Wrong = fn(&mut Front);

/// What ends the connection, whoever says it.
const WRONG: &[(&str, Wrong)] =
    &[
        ("regions that overlap for the guest", |front| {
            table(front, &[region(GUEST, 8192, USER, 0), region(GUEST + 4096, 8192, USER + (1 << 30), 0)]);
        }),
        ("regions that overlap for the front end", |front| {
            table(front, &[region(GUEST, 8192, USER, 0), region(GUEST + (1 << 30), 8192, USER + 4096, 0)]);
        }),
        ("the same region once more", |front| {
            let all = region(GUEST, front.memory().len() as u64, USER, 0);
            alone(front, number::ADD_MEM_REG, &all);
        }),
        ("a region that ends nowhere", |front| {
            table(front, &[region(u64::MAX - 4095, 8192, USER, 0)]);
        }),
        ("a region of nothing", |front| table(front, &[region(GUEST, 0, USER, 0)])),
        ("more than the file has", |front| {
            table(front, &[region(GUEST, front.memory().len() as u64 + 4096, USER, 0)]);
        }),
        ("an offset beyond all", |front| table(front, &[region(GUEST, 4096, USER, u64::MAX - 4095)])),
        ("a region that was never there", |front| {
            alone(front, number::REM_MEM_REG, &region(GUEST, 4096, USER, 0));
        }),
        ("a table without descriptors", |front| {
            let payload = [&state(1, 0)[..], &region(GUEST, 4096, USER, 0)].concat();
            front.request(number::SET_MEM_TABLE, &payload, &[]).unwrap();
        }),
        ("memory that is no memory", |front| {
            let payload = [&state(1, 0)[..], &region(GUEST, 4096, USER, 0)].concat();
            front.request(number::SET_MEM_TABLE, &payload, &[front.socket().as_fd()]).unwrap();
        }),
        ("nine regions", |front| {
            let regions: Vec<_> =
                (0..9).map(|n| region(GUEST + n * 4096, 4096, USER + n * 4096, 0)).collect();
            let payload = [&state(9, 0)[..], &regions.concat()].concat();
            let _ = front.request(number::SET_MEM_TABLE, &payload, &[front.file().as_fd(); 8]);
        }),
        ("a ring of 3", |front| front.request(number::SET_VRING_NUM, &state(0, 3), &[]).unwrap()),
        ("a ring of 2^16", |front| front.request(number::SET_VRING_NUM, &state(0, 1 << 16), &[]).unwrap()),
        ("a third ring", |front| front.request(number::SET_VRING_NUM, &state(2, 256), &[]).unwrap()),
        ("a ring outside", |front| {
            front.request(number::SET_VRING_ADDR, &addresses(0, [0, 0, 0]), &[]).unwrap();
        }),
        ("a ring that is not aligned", |front| {
            let at = [USER + 1, USER + (48 << 10), USER + (32 << 10)];
            front.request(number::SET_VRING_ADDR, &addresses(0, at), &[]).unwrap();
        }),
        ("a ring at the end of the memory", |front| {
            let end = USER + front.memory().len() as u64 - 16;
            front.request(number::SET_VRING_ADDR, &addresses(0, [end, end, end]), &[]).unwrap();
        }),
        ("a beginning beyond 2^16", |front| {
            front.request(number::SET_VRING_BASE, &state(1, u32::MAX), &[]).unwrap();
        }),
        ("a kick that is a socket", |front| {
            front.request(number::SET_VRING_KICK, &1u64.to_ne_bytes(), &[front.socket().as_fd()]).unwrap();
        }),
        ("a kick without a descriptor", |front| {
            front.request(number::SET_VRING_KICK, &0x101u64.to_ne_bytes(), &[]).unwrap();
        }),
        ("eight descriptors for nothing", |front| {
            front.request(number::SET_OWNER, &[], &[front.file().as_fd(); 8]).unwrap();
        }),
        ("a payload of 4 GiB", |front| {
            let mut header = Header { request: 1, need_reply: false, size: 0 }.emit();
            header[8..].copy_from_slice(&u32::MAX.to_ne_bytes());
            front.socket().write_all(&header).unwrap();
        }),
        ("an answer", |front| front.socket().write_all(&[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]).unwrap()),
        ("another protocol", |front| front.socket().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap()),
        ("a buffer outside", |front| describe(front, 0, 100, 0, 0)),
        ("a buffer beyond the end", |front| {
            describe(front, GUEST + front.memory().len() as u64 - 50, 100, 0, 0);
        }),
        ("a buffer around the end of all", |front| describe(front, u64::MAX - 3, 100, 0, 0)),
        ("a buffer to be written, to be read", |front| describe(front, GUEST, 100, 2, 0)),
        ("a table of descriptors in a descriptor", |front| describe(front, GUEST, 160, 4, 0)),
        ("a circle", |front| describe(front, GUEST, 1, 1, 0)),
        ("on to nowhere", |front| describe(front, GUEST, 1, 1, 9999)),
        ("an index far ahead", |front| {
            front.memory().store(front.ring(false)[1] + 2, 40_000).unwrap();
        }),
        ("the file is cut", |front| {
            let frame = [0; 60];
            (0..100).for_each(|_| assert!(front.send(&Offload::NONE.emit_le(0), &frame).unwrap()));
            let _ = front.kick();
            front.file().set_len(0).unwrap();
            // It may have noticed already.
            let _ = front.request(number::SET_VRING_ENABLE, &state(1, 1), &[]);
        }),
        ("asks and asks, and reads no answer", |front| {
            while front.request(number::GET_FEATURES, &[], &[]).is_ok() {}
        }),
    ];

/// The requests with which a front end begins, each with its descriptors.
fn beginning() -> Vec<(Vec<u8>, Vec<OwnedFd>)> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let front = Front::start(theirs, Wish::all()).unwrap();
    drop(front);
    let mut requests = Vec::new();
    loop {
        let mut header = [0; HEADER_LEN];
        let (len, fds) = fdpass::receive_all(ours.as_fd(), &mut header).unwrap();
        if len == 0 {
            return requests;
        }
        assert_eq!(len, HEADER_LEN);
        let size = Header::parse(&header).unwrap().size;
        let mut payload = vec![0; size];
        (&ours).read_exact(&mut payload).unwrap();
        requests.push(([&header[..], &payload].concat(), fds));
    }
}

/// A front end that stops in the middle of a request, whichever it is: it keeps the place as long as it is there, and
/// leaves nothing.
fn stop_in_the_middle_of_each(socket: &Path) {
    for stop in 0..beginning().len() {
        let stream = connected(socket);
        let requests = beginning();
        for (at, (bytes, fds)) in requests.iter().enumerate().take(stop + 1) {
            let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
            let half = if at == stop { bytes.len() / 2 } else { bytes.len() };
            fdpass::send_all(stream.as_fd(), &bytes[..half], &fds).unwrap();
        }
        let mut second = UnixStream::connect(socket).unwrap();
        second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(second.read(&mut [0; 1]).unwrap(), 0, "after {stop}: somebody is there");
    }
}

#[test]
fn whatever_a_front_end_does_the_next_is_welcome() {
    let test = "whatever_a_front_end_does_the_next_is_welcome";
    let (lab, _) = lab!(ours "whatever_a_front_end_does_the_next_is_welcome", ["busybox", "ping"]);
    if !lab.by_root() {
        println!("SKIP {test}: only root opens a TAP in the container for it");
        return;
    }
    let socket = lab.home().join("machine");
    let passt = passt(&lab, &socket);
    for (name, wrong) in WRONG {
        let mut front = Front::start(connected(&socket), Wish::all()).unwrap();
        wrong(&mut front);
        let _ = front.kick();
        hangs_up(name, front.socket());
        assert!(lives(passt.0), "{name}");
    }
    stop_in_the_middle_of_each(&socket);
    // Nobody hears a card that is called without end.
    let front = Front::start(connected(&socket), Wish::all()).unwrap();
    let text = || std::fs::read_to_string(format!("/proc/{}/schedstat", passt.0)).unwrap();
    let busy = || text().split(' ').next().unwrap().parse::<u64>().unwrap();
    let (before, began) = (busy(), now());
    while began.elapsed() < Duration::from_millis(200) {
        for kick in front.kicks() {
            // EAGAIN: the counter is at its end.
            let _ = nix::unistd::write(kick, &(1u64 << 32).to_ne_bytes());
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = busy();
    std::thread::sleep(Duration::from_millis(500));
    assert!(busy() - after < 100_000_000, "{before} {after}: it has come to rest");
    drop(front);
    let container = lab.container().unwrap();
    let (pump, stream) = card(&container, connected(&socket), Wish::all());
    shown(&container, &format!("ip address add {HOST4}/24 dev vm0; ip route add default via {WORLD4}"));
    let pinged = shown(&container, &format!("ping -c 1 -W 5 {WORLD4}"));
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    pump.join().unwrap();
    assert!(lives(passt.0));
}
