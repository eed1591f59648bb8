//! Real TAPs, in network namespaces of their own.

use super::*;
use crate::device::{Link, MAX_FRAME};
use crate::netlink::Netlink;
use crate::netns::testing::with_tun;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_netstack::device::Gso;
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use std::os::fd::AsRawFd as _;
use std::process::Command;

/// Broadcast ARP request: the kernel counts it as received whatever it thinks of it.
fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 1, 10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 10, 0, 2, 100]);
    frame
}

fn readiness(tap: &Tap) -> PollFlags {
    let mut fds = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    fds[0].revents().unwrap()
}

fn up(name: &str) {
    let mut netlink = Netlink::open().unwrap();
    let interface = netlink.interface(name).unwrap();
    netlink.set_up(&interface).unwrap();
}

fn down(name: &str) {
    let mut netlink = Netlink::open().unwrap();
    let interface = netlink.interface(name).unwrap();
    netlink.set_down(&interface).unwrap();
}

/// Everything that waits in the TAP.
fn drain(tap: &mut Tap) -> Vec<(Offload, Vec<u8>)> {
    let mut buffer = vec![0; MAX_FRAME];
    let mut frames = Vec::new();
    for _ in 0..1000 {
        let Some((offload, len)) = tap.read_frame(&mut buffer).unwrap() else { return frames };
        frames.push((offload, buffer[..len].to_vec()));
    }
    panic!("it never ends");
}

/// `ip` with these words, or `false` where there is no such program.
fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success())
}

#[test]
fn a_new_one_has_the_header_and_announces_what_the_kernel_knows() {
    with_tun("a_new_one_has_the_header_and_announces_what_the_kernel_knows", || {
        let tap = Tap::open("tap0").unwrap();
        assert_eq!(tap.name(), "tap0");
        let can = tap.capabilities();
        assert!(can.checksum && can.tso4 && can.tso6);
        assert_eq!(can.uso, tap.offloads().contains(Offloads::USO4 | Offloads::USO6));
        assert_eq!(tun::header_len(tap.as_fd()).unwrap(), HEADER_LEN);
    });
}

#[test]
fn a_tap_made_by_ip_tuntap_is_attached_to_with_the_header() {
    let name = "a_tap_made_by_ip_tuntap_is_attached_to_with_the_header";
    with_tun(name, || {
        if !ip("tuntap add name tap0 mode tap") {
            println!("SKIP {name}: no working ip(8)");
            return;
        }
        assert!(Tap::open("tap0").unwrap().capabilities().tso4);
        // Once more: closing it has not taken it away.
        assert!(Tap::open("tap0").unwrap().capabilities().tso4);
        assert!(ip("tuntap add name tap1 mode tap multi_queue"));
        assert!(Tap::open("tap1").unwrap().capabilities().tso4, "several queues, of which we use one");
        assert!(ip("tuntap add name tun0 mode tun"));
        assert!(matches!(Tap::open("tun0"), Err(OpenError::Attach { .. })), "not a TAP");
    });
}

#[test]
fn what_the_last_owner_left_behind_is_put_right() {
    with_tun("what_the_last_owner_left_behind_is_put_right", || {
        let first = Tap::open("tap0").unwrap();
        tun::set_persistent(first.as_fd(), true).unwrap();
        tun::set_header_len(first.as_fd(), 12).unwrap();
        drop(first);
        let second = Tap::open("tap0").unwrap();
        assert_eq!(tun::header_len(second.as_fd()).unwrap(), HEADER_LEN);
    });
}

#[test]
fn a_foreign_descriptor_is_asked_what_it_is() {
    with_tun("a_foreign_descriptor_is_asked_what_it_is", || {
        let plain = Flags::TAP | Flags::NO_PI;
        for (flags, header) in
            [(plain, Some(false)), (plain | Flags::VNET_HDR, Some(true)), (Flags::TAP, None)]
        {
            let fd = tun::open_device(Path::new(tun::DEVICE)).unwrap();
            tun::attach(fd.as_fd(), "tap0", flags).unwrap();
            // As others leave it: blocking.
            fcntl(fd.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
            let number = fd.as_raw_fd();
            let tap = Tap::from_owned_fd(fd);
            let Some(header) = header else {
                assert_eq!(tap.unwrap_err().raw_os_error(), Some(Errno::EINVAL as i32));
                continue;
            };
            let mut tap = tap.unwrap();
            assert_eq!((tap.capabilities().checksum, tap.as_fd().as_raw_fd()), (header, number));
            assert!(header || tap.offloads().is_empty(), "nothing may be left undone without a header");
            assert!(drain(&mut tap).is_empty(), "it does not block");
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(Tap::from_owned_fd(null.into()).is_err());
    });
}

#[test]
fn frames_cross_both_ways() {
    with_tun("frames_cross_both_ways", || {
        for header in [true, false] {
            let name = if header { "tap0" } else { "tap1" };
            let mut tap = if header {
                Tap::open(name).unwrap()
            } else {
                let fd = tun::open_device(Path::new(tun::DEVICE)).unwrap();
                tun::attach(fd.as_fd(), name, Flags::TAP | Flags::NO_PI).unwrap();
                Tap::from_owned_fd(fd).unwrap()
            };
            let mut netlink = Netlink::open().unwrap();
            let interface = netlink.interface(name).unwrap();
            netlink.set_up(&interface).unwrap();
            let own = format!("10.{}.0.1/24", interface.index);
            netlink.add_address(&interface, own.parse().unwrap()).unwrap();
            drain(&mut tap);
            // The kernel asks for a neighbour, and we see the question.
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            let peer = format!("10.{}.0.9:9", interface.index);
            socket.send_to(b"x", &peer).unwrap();
            let asked = drain(&mut tap);
            assert!(asked.iter().any(|(_, frame)| frame.get(12..14) == Some(&[8, 6])), "{header}: {asked:?}");
            assert_eq!(tap.transmit(Offload::NONE, &arp()), Ok(()));
            assert_eq!(tap.lost(), Lost::default());
        }
    });
}

#[test]
fn what_leaves_undone_more_than_the_link_allows_is_rejected() {
    with_tun("what_leaves_undone_more_than_the_link_allows_is_rejected", || {
        let fd = tun::open_device(Path::new(tun::DEVICE)).unwrap();
        tun::attach(fd.as_fd(), "tap0", Flags::TAP | Flags::NO_PI).unwrap();
        let mut plain = Tap::from_owned_fd(fd).unwrap();
        let mut full = Tap::open("tap1").unwrap();
        up("tap0");
        up("tap1");
        let undone = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: None };
        assert_eq!(plain.transmit(undone, &arp()), Ok(()));
        assert_eq!(plain.lost(), Lost { rejected: 1, ..Lost::default() });
        // A checksum beyond the end of the frame.
        let beyond = Offload { checksum: Checksum::Partial { start: 9000, offset: 6 }, gso: None };
        assert_eq!(full.transmit(beyond, &arp()), Ok(()));
        assert_eq!(full.lost(), Lost { rejected: 1, ..Lost::default() });
        // No Ethernet header.
        assert_eq!(full.transmit(Offload::NONE, &[]), Ok(()));
        assert_eq!(full.lost(), Lost { rejected: 2, ..Lost::default() });
    });
}

#[test]
fn trains_may_be_sent_whatever_was_announced() {
    with_tun("trains_may_be_sent_whatever_was_announced", || {
        let mut tap = Tap::open("tap0").unwrap();
        up("tap0");
        tun::set_offloads(tap.as_fd(), Offloads::empty()).unwrap();
        // 54 bytes of headers and three segments. Only the kernel's view of the shape counts here.
        let mut frame = arp();
        frame[12..14].copy_from_slice(&[8, 0]);
        frame.truncate(14);
        frame.extend([0x45, 0, 0x11, 0xbc, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 2, 100]);
        frame.extend([0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        frame.resize(54 + 3 * 1460, 0);
        let checksum = Checksum::Partial { start: 34, offset: 16 };
        let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1460, header_len: 54 });
        assert_eq!(tap.transmit(Offload { checksum, gso }, &frame), Ok(()));
        assert_eq!(tap.lost(), Lost::default());
    });
}

#[test]
fn while_it_is_down_nothing_spins_and_frames_are_counted() {
    with_tun("while_it_is_down_nothing_spins_and_frames_are_counted", || {
        let mut tap = Tap::open("tap0").unwrap();
        let quiet = |tap: &mut Tap, when: &str| {
            drain(tap);
            // Nothing is announced that a read would not find: a level-triggered loop sleeps.
            assert_eq!(readiness(tap), PollFlags::empty(), "{when}");
            let before = tap.lost().down;
            assert_eq!(tap.transmit(Offload::NONE, &arp()), Ok(()), "{when}");
            assert_eq!(tap.lost().down, before + 1, "{when}");
        };
        quiet(&mut tap, "never up");
        up("tap0");
        drain(&mut tap);
        assert_eq!(tap.transmit(Offload::NONE, &arp()), Ok(()));
        assert_eq!(tap.lost().down, 1, "up: it is taken");
        down("tap0");
        quiet(&mut tap, "down again");
    });
}

#[test]
fn an_interface_that_was_deleted_is_the_end() {
    let name = "an_interface_that_was_deleted_is_the_end";
    with_tun(name, || {
        let mut tap = Tap::open("tap0").unwrap();
        if !ip("link del tap0") {
            println!("SKIP {name}: no working ip(8)");
            return;
        }
        assert!(readiness(&tap).contains(PollFlags::POLLERR), "the loop is woken");
        assert_eq!(tap.transmit(Offload::NONE, &arp()), Ok(()));
        let mut link = Link::from(tap);
        assert_eq!(link.lost().down, 1);
        assert!(link.read_frame(&mut vec![0; MAX_FRAME]).is_err());
    });
}

#[test]
fn errors_keep_the_words_that_people_search_for() {
    let text = |errno: Errno| OpenError::Device(errno.into()).to_string();
    assert!(
        text(Errno::ENOENT).starts_with(
            "open(\"/dev/net/tun\"): No such file or directory (load the module: `modprobe tun`"
        )
    );
    assert!(text(Errno::ENODEV).starts_with("open(\"/dev/net/tun\"): No such device (load"));
    assert!(
        text(Errno::EACCES)
            .starts_with("open(\"/dev/net/tun\"): Permission denied (allow its use: `chmod 0666")
    );
    assert!(text(Errno::EPERM).contains("--device /dev/net/tun"));
    let missing = Tap::open_at(Path::new("/dev/net/no-such-node"), "tap0").unwrap_err();
    assert!(matches!(missing, OpenError::Device(_)));
    // What stands in its place by mistake: a directory, an ordinary file, another device.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tun");
    std::fs::write(&file, "").unwrap();
    for path in [dir.path(), &file, Path::new("/dev/null")] {
        let error = Tap::open_at(path, "tap0").unwrap_err().to_string();
        assert!(error.contains("is not the TUN device; make it anew") && !error.contains('\n'), "{error}");
    }
    for errno in [Errno::EPERM, Errno::EBUSY, Errno::EINVAL] {
        assert!(OpenError::attach("tap0", errno.into()).to_string().contains(" ("), "{errno} has a hint");
    }
}
