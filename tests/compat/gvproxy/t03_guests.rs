//! Guests: every way in which a hypervisor attaches one, by the bytes. Each asks for the gateway's hardware address and
//! is answered.

use super::Subject;
use super::life::{LIMIT, Life, until};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Stdio;

pub(super) const GUEST: [u8; 6] = [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee];
pub(super) const GATEWAY: [u8; 6] = [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd];
const NO_SSH: [&str; 2] = ["-ssh-port", "-1"];

/// Who has 192.168.127.1?
pub(super) fn question() -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(GUEST);
    frame.extend([192, 168, 127, 2, 0, 0, 0, 0, 0, 0, 192, 168, 127, 1]);
    frame
}

pub(super) fn is_answer(frame: &[u8]) -> bool {
    let head =
        [&GUEST[..], &GATEWAY, &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2], &GATEWAY, &[192, 168, 127, 1]].concat();
    frame.starts_with(&head)
}

/// How long a frame is, before it.
#[derive(Clone, Copy)]
pub(super) enum Lengths {
    Be32,
    Le16,
}

/// Asks over a stream until an answer comes.
pub(super) fn ask(mut to: impl Write, mut from: impl Read, lengths: Lengths) {
    let frame = question();
    let len = u16::try_from(frame.len()).unwrap();
    match lengths {
        Lengths::Be32 => to.write_all(&u32::from(len).to_be_bytes()).unwrap(),
        Lengths::Le16 => to.write_all(&len.to_le_bytes()).unwrap(),
    }
    to.write_all(&frame).unwrap();
    to.flush().unwrap();
    for _ in 0..20 {
        let len = match lengths {
            Lengths::Be32 => {
                let mut len = [0; 4];
                from.read_exact(&mut len).unwrap();
                usize::try_from(u32::from_be_bytes(len)).unwrap()
            }
            Lengths::Le16 => {
                let mut len = [0; 2];
                from.read_exact(&mut len).unwrap();
                u16::from_le_bytes(len).into()
            }
        };
        let mut frame = vec![0; len];
        from.read_exact(&mut frame).unwrap();
        if is_answer(&frame) {
            return;
        }
    }
    panic!("no answer among 20 frames");
}

fn patient(stream: &UnixStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
}

/// Asks over a socket of packets.
pub(super) fn ask_packets(fd: &OwnedFd) {
    setsockopt(fd, ReceiveTimeout, &TimeVal::seconds(1)).unwrap();
    let mut frame = vec![0; 2000];
    // Somebody else may have had this address a moment ago, and nobody has noticed that it has gone.
    for _ in 0..20 {
        send(fd.as_raw_fd(), &question(), MsgFlags::empty()).unwrap();
        while let Ok(len) = recv(fd.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            if is_answer(&frame[..len]) {
                return;
            }
        }
    }
    panic!("no answer to 20 questions");
}

fn is_there(life: &Life, name: &str) {
    assert!(until(|| life.at(name).exists()), "{:?}", life.said());
}

#[test]
fn qemu_has_four_bytes_before_a_frame() {
    let Some(subjects) = Subject::both("qemu_has_four_bytes_before_a_frame") else { return };
    for subject in &subjects {
        let life = Life::start(subject, &[&["-listen-qemu", "unix://@/qemu"][..], &NO_SSH].concat());
        let guest = life.guest();
        patient(&guest);
        ask(&guest, &guest, Lengths::Be32);
    }
}

#[test]
fn user_mode_linux_has_packets() {
    let Some(subjects) = Subject::both("user_mode_linux_has_packets") else { return };
    for subject in &subjects {
        let life = Life::begin(subject, &[&["-listen-bess", "unixpacket://@/bess"][..], &NO_SSH].concat());
        is_there(&life, "bess");
        let guest = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(guest.as_raw_fd(), &UnixAddr::new(&life.at("bess")).unwrap()).unwrap();
        ask_packets(&guest);
    }
}

/// The command line that Podman's helper in WSL starts.
#[test]
fn standard_streams_have_two_bytes_before_a_frame() {
    let Some(subjects) = Subject::both("standard_streams_have_two_bytes_before_a_frame") else { return };
    for subject in &subjects {
        let mut command = subject.cmd();
        command.args(["-listen-stdio=accept", "-ssh-port=-1"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        ask(&mut to, &mut from, Lengths::Le16);
        drop((to, from));
        if subject.is_ours() {
            assert!(until(|| child.try_wait().unwrap().is_some()), "its only guest has gone");
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
}

#[test]
fn hyperkit_is_greeted_and_may_come_again() {
    let Some(subjects) = Subject::both("hyperkit_is_greeted_and_may_come_again") else { return };
    for subject in &subjects {
        let mut life = Life::begin(subject, &[&["-listen-vpnkit", "unix://@/vpnkit"][..], &NO_SSH].concat());
        is_there(&life, "vpnkit");
        for _ in 0..2 {
            let mut guest = UnixStream::connect(life.at("vpnkit")).unwrap();
            patient(&guest);
            let hello: Vec<u8> = (0..49).collect();
            guest.write_all(&hello).unwrap();
            let mut echo = [0; 49];
            guest.read_exact(&mut echo).unwrap();
            assert_eq!(echo[..], hello);
            let mut command = vec![1];
            command.extend(b"c3d68012-0208-11ea-9fd7-f2189899ab08");
            command.resize(41, 0);
            guest.write_all(&command).unwrap();
            let mut told = [0; 258];
            guest.read_exact(&mut told).unwrap();
            let head = [&[1][..], &1500_u16.to_le_bytes(), &1514_u16.to_le_bytes(), &GUEST].concat();
            assert_eq!(told[..11], head);
            ask(&guest, &guest, Lengths::Le16);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(life.child.try_wait().unwrap().is_none(), "it stays: {:?}", life.said());
    }
}

/// The command lines of `podman machine` for vfkit and libkrun.
#[test]
fn vfkit_has_datagrams_with_its_greeting_or_without() {
    let Some(ours) = Subject::ours("vfkit_has_datagrams_with_its_greeting_or_without") else { return };
    let words = ["-mtu", "1500", "-listen-vfkit", "unixgram://@/vfkit", "-pid-file", "@/pid"];
    let mut life = Life::begin(&ours, &[&words[..], &NO_SSH, &["-stay"]].concat());
    is_there(&life, "vfkit");
    let guest = |name: &str| {
        let guest = UnixDatagram::bind(life.at(name)).unwrap();
        guest.connect(life.at("vfkit")).unwrap();
        guest
    };
    let plain = guest("plain");
    ask_packets(&plain.into());
    let greeted = guest("greeted");
    greeted.send(b"VFKT").unwrap();
    ask_packets(&greeted.into());
    // Their ends are noticed.
    assert!(
        until(|| life.said().iter().filter(|line| line.contains("has gone")).count() == 2),
        "{:?}",
        life.said()
    );
    life.tell(Signal::SIGTERM);
    assert_eq!(life.ended(), Some(0));
    assert!(!life.at("vfkit").exists());
}

#[test]
fn packets_at_the_gateway_are_written_down_and_nothing_else() {
    let Some(ours) = Subject::ours("packets_at_the_gateway_are_written_down_and_nothing_else") else {
        return;
    };
    let words = ["-listen-qemu", "unix://@/qemu", "-pcap", "@/pcap"];
    let mut life = Life::start(&ours, &[&words[..], &NO_SSH].concat());
    let mut guest = life.guest();
    patient(&guest);
    ask(&guest, &guest, Lengths::Be32);
    // An echo request, for the gateway; the answer comes.
    let mut ping = [&GATEWAY[..], &GUEST, &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0]].concat();
    ping.extend([192, 168, 127, 2, 192, 168, 127, 1]);
    ping.extend([8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    // RFC 1071: what the header adds up to, complemented.
    let sum: u32 = ping[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ping[24..26].copy_from_slice(&sum.to_be_bytes());
    guest.write_all(&u32::try_from(ping.len()).unwrap().to_be_bytes()).unwrap();
    guest.write_all(&ping).unwrap();
    let of_both = |path: &Path| std::fs::read(path).unwrap().len() == 24 + 2 * (16 + 28);
    assert!(until(|| of_both(&life.at("pcap"))), "{:?}", std::fs::read(life.at("pcap")));
    let written = std::fs::read(life.at("pcap")).unwrap();
    assert_eq!(written[20..24], 101_u32.to_ne_bytes(), "IP, and nothing before it");
    assert_eq!(written[40..68], ping[14..], "the request");
    drop(guest);
    assert_eq!(life.ended(), Some(0));
}

/// Puts a frame on a guest's stream.
fn put(mut guest: &UnixStream, frame: &[u8]) {
    guest.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).unwrap();
    guest.write_all(frame).unwrap();
}

/// Reads frames until one is this.
fn crosses(mut guest: &UnixStream, frame: &[u8]) {
    for _ in 0..20 {
        let mut len = [0; 4];
        guest.read_exact(&mut len).unwrap();
        let mut found = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        guest.read_exact(&mut found).unwrap();
        if found == frame {
            return;
        }
    }
    panic!("it is not among 20 frames");
}

#[test]
fn what_is_no_frame_harms_whoever_sends_it_and_nobody_else() {
    let Some(ours) = Subject::ours("what_is_no_frame_harms_whoever_sends_it_and_nobody_else") else { return };
    let mut life = Life::start(&ours, &[&["-listen-qemu", "unix://@/qemu", "-stay"][..], &NO_SSH].concat());
    let guest = || {
        let guest = life.guest();
        patient(&guest);
        guest
    };
    let good = guest();
    ask(&good, &good, Lengths::Be32);
    let bad = guest();
    for len in 0..14 {
        put(&bad, &vec![0xff; len]);
    }
    // From the gateway's address, with a lie about its own.
    let lie: Vec<u8> = [&[0xff; 6][..], &GATEWAY, &question()[12..]].concat();
    put(&bad, &lie);
    // A tag is nobody's business but the machines'.
    let tagged = [&GUEST[..], &[2, 0, 0, 0, 0, 9], &[0x81, 0, 0, 5, 8, 0], &[7; 60]].concat();
    put(&bad, &tagged);
    crosses(&good, &tagged);
    let half = guest();
    (&half).write_all(&[0, 0, 4, 0, 1, 2, 3]).unwrap();
    let long = guest();
    (&long).write_all(&[0xff; 100]).unwrap();
    let mut rest = Vec::new();
    // It is closed with what it has sent unread.
    let _ = (&long).read_to_end(&mut rest);
    assert!(until(|| life.said().iter().any(|line| line.contains("has gone"))), "{:?}", life.said());
    ask(&good, &good, Lengths::Be32);
    drop(half);
    ask(&good, &good, Lengths::Be32);
    assert!(life.child.try_wait().unwrap().is_none(), "{:?}", life.said());
}
