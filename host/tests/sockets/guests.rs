//! Guests that come and go, by every door, and what they are to each other.

mod fast;
mod house;

use crate::driver::config;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socket, socketpair};
use slipway_host::clock;
use slipway_host::device::{Framing, GuestNews, Lost};
use slipway_host::driver::{Driver, GuestListener};
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use house::*;

#[test]
fn guests_of_every_kind_reach_each_other_and_the_engine_hears_nothing_of_it() {
    let mut house = House::with_all_doors();
    let guests = guests(&mut house);
    let before = house.frames_in();
    for from in &guests {
        for to in guests.iter().filter(|to| to.number != from.number) {
            from.send(to.mac(), &[from.number, to.number]);
        }
    }
    let mut heard: Vec<Vec<Vec<u8>>> = guests.iter().map(|_| Vec::new()).collect();
    house.until("everybody hears all others", |_| {
        for (guest, heard) in guests.iter().zip(&mut heard) {
            heard.extend(guest.heard());
        }
        heard.iter().all(|heard| heard.len() >= guests.len() - 1).then_some(())
    });
    for (guest, mut heard) in guests.iter().zip(heard) {
        heard.sort_unstable();
        let others = guests.iter().filter(|other| other.number != guest.number);
        assert_eq!(heard, others.map(|other| vec![other.number, guest.number]).collect::<Vec<_>>());
    }
    assert_eq!(house.frames_in(), before);
    assert_eq!(house.driver.links().lost(), Lost::default());
}

#[test]
fn what_is_for_all_reaches_all_and_what_is_for_nobody_reaches_nobody() {
    let mut house = House::with_all_doors();
    let guests = guests(&mut house);
    let before = house.frames_in();
    for group in [EVERYBODY, ALL_NODES, [1, 0, 0x5e, 0, 0, 0xfb]] {
        guests[0].send(group, &group);
        house.rounds(5);
        assert!(guests[0].heard().is_empty(), "not its own");
        assert!(guests[1..].iter().all(|guest| guest.heard() == [group]), "{group:?}");
    }
    assert_eq!(house.frames_in(), before + 3);
    guests[0].send([2, 0, 0, 0, 0, 99], b"nobody");
    guests[0].send([1, 0x80, 0xc2, 0, 0, 0], b"a bridge's own");
    house.rounds(5);
    assert!(guests.iter().all(|guest| guest.frames().is_empty()));
    assert_eq!((house.frames_in(), house.lost_by(&guests[0]).astray), (before + 3, 2));
}

#[test]
fn frames_that_are_none_or_in_others_names_are_lost_and_counted() {
    let mut house = House::with_all_doors();
    for (door, number) in DOORS.iter().chain(&["pair"]).zip(1..) {
        let (guest, other) = (house.guest(door, number), house.guest("qemu", number + 100));
        let before = house.frames_in();
        // An empty packet is the end of a connection of packets.
        let shortest = usize::from(["bess", "handed"].contains(door));
        for len in shortest..14 {
            guest.send_frame(&vec![2; len]);
            // A datagram socket has room for ten.
            house.rounds(1);
        }
        let tagged = [&other.mac()[..], &guest.mac(), &[0x81, 0, 0, 5, 0x88, 0xb5, 1, 2]].concat();
        guest.send_frame(&tagged);
        for source in [GATEWAY, other.mac()] {
            guest.send_frame(&[&EVERYBODY[..], &source, &[0x88, 0xb5, 9]].concat());
        }
        house.rounds(8);
        let got: Vec<_> = other.frames();
        assert_eq!(got.last(), Some(&tagged), "{door}: tags cross as they are");
        let expected =
            Lost { misshapen: 14 - u64::try_from(shortest).unwrap(), forged: 2, ..Lost::default() };
        assert_eq!((house.lost_by(&guest), house.frames_in()), (expected, before), "{door}");
    }
}

#[test]
fn half_a_frame_holds_up_nobody_and_may_become_whole() {
    let mut house = House::with_all_doors();
    let (slow, other, third) = (house.guest("qemu", 1), house.guest("qemu", 2), house.guest("connect", 3));
    let frame = [&other.mac()[..], &slow.mac(), &[0x88, 0xb5], &[7; 100]].concat();
    let bytes = behind_length(Framing::Be32, &frame);
    house.rounds(3);
    other.frames();
    third.frames();
    for at in 0..bytes.len() - 1 {
        slow.send_bytes(&bytes[at..=at]);
        third.send(other.mac(), &[1]);
        house.rounds(2);
    }
    assert_eq!(other.heard(), vec![vec![1]; bytes.len() - 1]);
    slow.send_bytes(&bytes[bytes.len() - 1..]);
    house.rounds(3);
    assert_eq!(other.heard(), [[7; 100]]);
}

#[test]
fn a_length_that_no_frame_has_ends_that_guests_link_only() {
    let mut house = House::with_all_doors();
    let other = house.guest("qemu", 200);
    for (length, number) in [131_073, u32::MAX].into_iter().zip(1..) {
        let guest = house.guest("qemu", number);
        house.news();
        let link = house.link_of(&guest);
        guest.send_bytes(&length.to_be_bytes());
        let loss = house.until("it ends", Driver::take_loss);
        assert_eq!((loss.link, loss.reason.kind()), (link, ErrorKind::InvalidData));
        let expected = format!("invalid packet size: {length} is negative or exceeds maximum 131072");
        assert_eq!(loss.reason.to_string(), expected);
        let news = house.news();
        let left = |news: &GuestNews| {
            matches!(news, GuestNews::Left { link: gone, macs }
                if *gone == link && *macs == [MacAddr(guest.mac())])
        };
        assert!(matches!(&news[..], [one] if left(one)), "{news:?}");
    }
    // What is longer than any frame but not too long is passed over.
    let guest = house.guest("qemu", 3);
    guest.send_bytes(&131_072_u32.to_be_bytes());
    for _ in 0..4 {
        guest.send_bytes(&[2; 32_768]);
        house.rounds(2);
    }
    guest.send(other.mac(), b"and on");
    house.rounds(3);
    assert_eq!(other.heard().last().unwrap(), b"and on");
    assert_eq!(house.lost_by(&guest), Lost { misshapen: 1, ..Lost::default() });
}

#[test]
fn who_comes_is_seen_and_goes_is_told_in_order() {
    let mut house = House::with_all_doors();
    assert!(!house.driver.has_guest_news());
    for (door, number) in DOORS.iter().zip(1..) {
        let guest = house.guest(door, number);
        let (link, mac) = (house.link_of(&guest), MacAddr(guest.mac()));
        assert_eq!(house.driver.cam(), [(mac, link)]);
        drop(guest);
        house.until("it leaves", |driver| driver.links().is_empty().then_some(()));
        let news = house.news();
        let [GuestNews::Joined(joined), GuestNews::Seen { link: seen, mac: who }, left] = &news[..] else {
            panic!("{door}: {news:?}")
        };
        assert_eq!((*joined, *seen, *who), (link, link, mac), "{door}");
        assert!(matches!(left, GuestNews::Left { link: gone, macs } if *gone == link && *macs == [mac]));
        assert!(house.driver.cam().is_empty());
        assert_eq!(house.until("its end is told", Driver::take_loss).link, link);
    }
}

/// Rounds, not time: how fast a machine is has no part in it.
#[test]
fn who_floods_one_link_leaves_others_their_turns() {
    let mut house = House::with_all_doors();
    let (flooder, other, third) = (house.guest("qemu", 1), house.guest("qemu", 2), house.guest("qemu", 3));
    house.rounds(3);
    other.frames();
    third.frames();
    let Wire::Stream(fd, _) = &flooder.wire else { panic!("a stream") };
    let frame =
        behind_length(Framing::Be32, &[&EVERYBODY[..], &flooder.mac(), &[0x88, 0xb5], &[7; 46]].concat());
    let pile = frame.repeat(1000);
    let mut begun = 0;
    for n in 0..200_u8 {
        while let Ok(sent) = send(fd.as_raw_fd(), &pile[begun..], MsgFlags::MSG_DONTWAIT) {
            begun = (begun + sent) % pile.len();
        }
        other.send(third.mac(), &[n]);
        let mut turns = 0;
        while !third.heard().contains(&vec![n]) {
            assert!(turns < 4, "{turns} rounds");
            house.driver.turn(Some(clock::now() + Duration::from_millis(100))).unwrap();
            turns += 1;
        }
        other.frames();
    }
}

#[test]
fn a_guest_that_does_not_read_loses_what_others_send_and_holds_up_nobody() {
    for door in DOORS.into_iter().chain(["pair"]) {
        let mut house = House::with_all_doors();
        // Of those who share a socket, another one.
        let neighbour = if door == "vfkit" { door } else { "qemu" };
        let (silent, sender, third) =
            (house.guest(door, 1), house.guest("qemu", 2), house.guest(neighbour, 3));
        house.rounds(3);
        silent.frames();
        third.frames();
        let mut sent = 0_u32;
        while house.lost_by(&silent).no_room < 20 {
            assert!(sent < 20_000, "{door} never fills");
            sender.send(silent.mac(), &[&sent.to_be_bytes()[..], &[0; 1400]].concat());
            sent += 1;
            if sent.is_multiple_of(50) {
                sender.send(third.mac(), &sent.to_be_bytes());
                let heard =
                    house.until("the third hears", |_| Some(third.heard()).filter(|all| !all.is_empty()));
                assert_eq!(heard, [sent.to_be_bytes()], "{door}");
            }
        }
        let mut numbers: Vec<u32> = Vec::new();
        while numbers.len() as u64 + house.lost_by(&silent).no_room < u64::from(sent) {
            let heard =
                house.until("each is lost or there", |_| Some(silent.heard()).filter(|all| !all.is_empty()));
            numbers.extend(heard.iter().map(|payload| u32::from_be_bytes(payload[..4].try_into().unwrap())));
        }
        assert!(numbers.is_sorted(), "{door}: in order, each whole");
        let lost = house.lost_by(&silent);
        assert_eq!(numbers.len() as u64 + lost.no_room, u64::from(sent), "{door}: lost or there");
        // There is room again.
        sender.send(silent.mac(), &sent.to_be_bytes());
        house.until("it hears again", |_| (!silent.heard().is_empty()).then_some(()));
    }
}

#[test]
fn neighbours_never_take_all_of_a_links_room() {
    let mut house = House::with_all_doors();
    let (silent, sender) = (house.guest("qemu", 1), house.guest("qemu", 2));
    while house.lost_by(&silent).no_room == 0 {
        sender.send(silent.mac(), &[0; 1400]);
        house.rounds(1);
    }
    // The engine's question to everybody finds room: nothing more is lost by it.
    let before = house.lost_by(&silent);
    let guest = std::net::SocketAddr::from(([10, 0, 2, 200], 80));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, from) = listener.accept().unwrap();
    house.driver.accept_tcp(socket.into(), from, guest).unwrap();
    house.until("the other is asked", |_| {
        sender.frames().iter().any(|frame| frame[12..14] == [8, 6]).then_some(())
    });
    assert_eq!(house.lost_by(&silent), before);
}

#[test]
fn ten_thousand_stations_of_one_guest_are_its_own_affair() {
    let mut house = House::with_all_doors();
    let (bridge, other) = (house.guest("qemu", 1), house.guest("qemu", 2));
    house.news();
    for n in 0..10_000_u16 {
        let [high, low] = n.to_be_bytes();
        let frame = [&GATEWAY[..], &[2, 1, 0, 0, high, low], &[0x88, 0xb5]].concat();
        house.until("there is room", |_| bridge.sends_frame(&frame).then_some(()));
    }
    bridge.send(other.mac(), b"all of them");
    house.until("they are read", |_| other.heard().contains(&b"all of them".to_vec()).then_some(()));
    let known = house.driver.cam();
    assert!(known.len() <= 1100, "{}", known.len());
    assert!(known.contains(&(MacAddr(other.mac()), house.link_of(&other))));
    assert!(house.news().len() <= 1024, "unheard news are bounded");
    bridge.send(other.mac(), b"still there");
    house.until("it is heard", |_| other.heard().contains(&b"still there".to_vec()).then_some(()));
}

/// What libkrun's guests send: 64 KiB at once, with the checksum's field holding the pseudo-header's sum.
#[test]
fn what_one_guest_left_undone_is_done_before_another_gets_it() {
    let mut house = House::with_all_doors();
    let (krun, others) = (house.guest("vfkit", 1), [house.guest("qemu", 2), house.guest("bess", 3)]);
    for other in &others {
        house.rounds(3);
        other.frames();
        let payload: Vec<u8> = (0..60_000_u32).map(|n| n.to_be_bytes()[2] ^ n.to_be_bytes()[3]).collect();
        for payload in [&payload[..], &payload[..100]] {
            krun.send_frame(&undone(&krun, other, payload));
            let mut bytes: Vec<u8> = Vec::new();
            house.until("all of it", |_| {
                for frame in other.frames() {
                    assert!(frame.len() <= 1514);
                    assert!(fits(&frame), "its checksum");
                    bytes.extend(&frame[54..]);
                }
                (bytes.len() >= payload.len()).then_some(())
            });
            assert_eq!(bytes, payload);
        }
    }
    assert_eq!(house.driver.links().lost(), Lost::default());
}

/// A segment of TCP whose checksum is left open.
fn undone(from: &Guest, to: &Guest, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(40 + payload.len()).unwrap().to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 7, 0x40, 0, 64, 6, 0, 0];
    ip.extend([10, 0, 2, from.number, 10, 0, 2, to.number]);
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let mut tcp = vec![0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    tcp[16..18].copy_from_slice(&(!checksum(&pseudo(&ip, 20 + payload.len()))).to_be_bytes());
    [&to.mac()[..], &from.mac(), &[8, 0], &ip, &tcp, payload].concat()
}

fn pseudo(ip: &[u8], len: usize) -> Vec<u8> {
    [&ip[12..20], &[0, 6], &u16::try_from(len).unwrap().to_be_bytes()].concat()
}

fn fits(frame: &[u8]) -> bool {
    let (ip, tcp) = (&frame[14..34], &frame[34..]);
    checksum(ip) == 0 && checksum(&[&pseudo(ip, tcp.len())[..], tcp].concat()) == 0
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

#[test]
fn a_guest_of_datagrams_may_greet_or_not_and_one_without_address_is_nobody() {
    let mut house = House::with_all_doors();
    let door = house.path("vfkit");
    let hears = house.guest("qemu", 9);
    for (number, greets) in [(1, true), (2, false)] {
        let wire = UnixDatagram::bind(house.path(&format!("own{number}"))).unwrap();
        wire.connect(&door).unwrap();
        if greets {
            wire.send(b"VFKT").unwrap();
        }
        let guest = Guest { wire: Wire::Packets(wire.into()), number, inbox: RefCell::default() };
        guest.send(hears.mac(), b"first");
        house.until("its first frame", |_| hears.heard().contains(&b"first".to_vec()).then_some(()));
        assert_eq!(house.lost_by(&guest), Lost::default());
    }
    house.news();
    let nobody = UnixDatagram::unbound().unwrap();
    nobody.connect(&door).unwrap();
    for _ in 0..5 {
        nobody.send(&[0xff; 60]).unwrap();
        house.rounds(2);
    }
    let news = house.news();
    assert!(
        matches!(&news[..], [GuestNews::Failed(error)] if error.to_string() == "vfkit socket address is empty"),
        "told once: {news:?}"
    );
    assert_eq!(house.driver.links().lost().forged, 5);
}

/// Nothing is sent to find that out, and it costs a wake in two seconds.
#[test]
fn the_end_of_a_guest_of_datagrams_is_noticed() {
    let mut house = House::with_all_doors();
    let (guest, stays) = (house.guest("vfkit", 1), house.guest("vfkit", 2));
    house.rounds(5);
    guest.frames();
    stays.frames();
    let link = house.link_of(&guest);
    drop(guest);
    let (began, mut wakes) = (clock::now(), 0);
    let loss = loop {
        if let Some(loss) = house.driver.take_loss() {
            break loss;
        }
        assert!(clock::now() - began < Duration::from_secs(20), "nobody notices");
        house.driver.turn(Some(began + Duration::from_secs(20))).unwrap();
        wakes += 1;
    };
    assert_eq!((loss.link, loss.reason.kind()), (link, ErrorKind::UnexpectedEof));
    assert!(wakes <= 5, "{wakes} wakes");
    assert!(stays.frames().is_empty(), "and nothing is sent");
    assert_eq!(house.driver.links().len(), 1);
}

/// Nothing tells that its queue, of ten datagrams or so, has room again.
#[test]
fn a_guest_of_datagrams_that_pauses_hears_again_and_costs_few_wakes() {
    let mut house = House::with_all_doors();
    let guest = house.guest("vfkit", 100);
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_nonblocking(true).unwrap();
    let port = peer.local_addr().unwrap().port().to_be_bytes();
    let mut ip = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 2, 100, 10, 0, 2, 2];
    let sum = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let udp = [19, 136, port[0], port[1], 0, 9, 0, 0, b'?'];
    guest.send_frame(&[&GATEWAY[..], &guest.mac(), &[8, 0], &ip, &udp].concat());
    let flow = house.until("the host hears it", |_| peer.recv_from(&mut [0; 9]).ok()).1;
    // Far more than there is room for in the guest's queue.
    for n in 0..60_u8 {
        peer.send_to(&[n; 1000], flow).unwrap();
    }
    let (began, mut wakes) = (clock::now(), 0);
    let while_silent = Duration::from_millis(500);
    while clock::now() - began < while_silent {
        house.driver.turn(Some(began + while_silent)).unwrap();
        wakes += 1;
    }
    assert!(wakes < 100, "{wakes} wakes");
    let mut heard: Vec<u8> = Vec::new();
    let hear = |heard: &mut Vec<u8>| {
        heard.extend(guest.frames().iter().filter(|frame| frame[12..14] == [8, 0]).map(|frame| frame[42]));
    };
    hear(&mut heard);
    assert!(!heard.is_empty() && heard.is_sorted());
    peer.send_to(&[99; 1000], flow).unwrap();
    while heard.last() != Some(&99) {
        assert!(clock::now() - began < Duration::from_secs(20), "{heard:?}");
        // Its own clock ends the wait.
        house.driver.turn(Some(began + Duration::from_secs(20))).unwrap();
        hear(&mut heard);
    }
}

/// Whoever comes back by another address does not wait until its old self is missed.
#[test]
fn a_guest_of_datagrams_that_comes_back_elsewhere_has_its_station_again() {
    let mut house = House::with_all_doors();
    let guest = house.guest("vfkit", 1);
    drop(guest);
    let wire = UnixDatagram::bind(house.path("elsewhere")).unwrap();
    wire.connect(house.path("vfkit")).unwrap();
    let guest = Guest { wire: Wire::Packets(wire.into()), number: 1, inbox: RefCell::default() };
    let before = clock::now();
    guest.send(EVERYBODY, b"again");
    let old = house.link_of(&guest);
    house.until("the old link ends", Driver::take_loss);
    assert!(clock::now() - before < Duration::from_millis(1500), "by the frame, not by the clock");
    guest.send(EVERYBODY, b"and again");
    house.until("it is where it is", |driver| (!driver.cam().is_empty()).then_some(()));
    assert_ne!(house.link_of(&guest), old);
}

/// Of a pair of datagram sockets nothing tells that the other end has gone, until something is sent there.
#[test]
fn a_pair_of_datagram_sockets_ends_when_it_is_missed() {
    let mut house = House::with_all_doors();
    let (guest, other) = (house.guest("pair", 1), house.guest("qemu", 2));
    guest.send_frame(&[]);
    guest.send(other.mac(), b"on it goes");
    house.until("what follows nothing", |_| other.heard().contains(&b"on it goes".to_vec()).then_some(()));
    drop(guest);
    house.rounds(5);
    assert_eq!(house.driver.links().len(), 2, "nothing tells");
    other.send(EVERYBODY, b"is anybody there?");
    house.until("its end", Driver::take_loss);
    // Or somebody else speaks for its station, as whoever is started again does.
    let old = house.guest("pair", 3);
    let kept = house.link_of(&old);
    drop(old);
    let (ours, guest) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
    house.driver.adopt(ours).unwrap();
    let guest = Guest { wire: Wire::Packets(guest), number: 3, inbox: RefCell::default() };
    guest.send(other.mac(), b"lost");
    house.until("the old link ends", |driver| driver.take_loss().filter(|loss| loss.link == kept));
    guest.send(other.mac(), b"again");
    house.until("it is heard", |_| other.heard().contains(&b"again".to_vec()).then_some(()));
    // One that is there still hears of it, and that is all.
    let claims = house.guest("pair", 4);
    let claim = [&EVERYBODY[..], &guest.mac(), &[0x88, 0xb5], b"mine"].concat();
    house.until("it is looked after", |_| {
        claims.send_frame(&claim);
        guest.frames().iter().any(|frame| frame[..12] == [GATEWAY, GATEWAY].concat()).then_some(())
    });
    house.rounds(5);
    assert_eq!(house.driver.links().len(), 3);
}

#[test]
fn what_is_no_guests_socket_is_not_adopted() {
    let mut house = House::with_all_doors();
    let unix = |kind| socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    for (socket, errno) in [
        (UnixStream::pair().unwrap().0.into(), Errno::ESOCKTNOSUPPORT),
        (unix(SockType::Datagram), Errno::ENOTCONN),
        (unix(SockType::SeqPacket), Errno::ENOTCONN),
        (udp.into(), Errno::EAFNOSUPPORT),
        (tempfile::tempfile().unwrap().into(), Errno::ENOTSOCK),
    ] {
        let error = house.driver.adopt(socket).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno as i32), "{errno}");
    }
    assert!(house.driver.links().is_empty());
}

#[test]
fn frames_may_follow_the_handshake_or_the_request_at_once() {
    let mut house = House::with_all_doors();
    let hears = house.guest("qemu", 9);
    let frame = |number: u8| [&hears.mac()[..], &[2, 0, 0, 0, 0, number, 0x88, 0xb5], b"at once"].concat();
    let mut client = UnixStream::connect(house.path("vpnkit")).unwrap();
    let request = [&[1][..], b"c3d68012-0208-11ea-9fd7-f2189899ab08", &[0; 4]].concat();
    client.write_all(&[&[3; 49][..], &request, &behind_length(Framing::Le16, &frame(1))].concat()).unwrap();
    house.until("its frame", |_| hears.heard().contains(&b"at once".to_vec()).then_some(()));
    let mut answer = [0; 49 + 258];
    client.read_exact(&mut answer).unwrap();
    assert_eq!((&answer[..49], &answer[54..60]), (&[3; 49][..], &[2, 0, 0, 0, 0, 9][..]));
    let (ours, _guest) = UnixStream::pair().unwrap();
    let first = behind_length(Framing::Le16, &frame(2)).repeat(2);
    house.driver.join(ours.into(), Framing::Le16, first).unwrap();
    // No event tells of what was there before.
    for _ in 0..3 {
        house.driver.turn(Some(clock::now() + Duration::from_millis(50))).unwrap();
    }
    assert_eq!(hears.heard(), [b"at once"; 2]);
}

#[test]
fn who_never_finishes_its_handshake_is_nobodys_neighbour() {
    let mut house = House::with_all_doors();
    let mut client = UnixStream::connect(house.path("vpnkit")).unwrap();
    client.write_all(&[3; 60]).unwrap();
    house.rounds(5);
    let other = house.guest("qemu", 1);
    client.read_exact(&mut [0; 49]).unwrap();
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "no broadcast");
    house.news();
    drop(client);
    house.until("it is missed", |driver| (driver.links().len() == 1).then_some(()));
    let news = house.news();
    assert!(matches!(&news[..], [GuestNews::Failed(_)]), "{news:?}");
    assert!(house.driver.take_loss().is_none());
    drop(other);
}

/// Two questions in one write: the second is answered though no event tells of it.
#[test]
fn what_was_read_ahead_does_not_wait_for_an_event() {
    for doors in [vec!["qemu"], vec!["qemu", "bess"]] {
        let mut house = House::with_all_doors();
        let guests: Vec<_> = doors.iter().zip(1..).map(|(door, number)| house.guest(door, number)).collect();
        house.rounds(5);
        guests[0].frames();
        let arp = |last: u8| {
            let mut frame = [&EVERYBODY[..], &guests[0].mac(), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
            frame.extend([&guests[0].mac()[..], &[10, 0, 2, 100 + last], &[0; 6], &[10, 0, 2, 2]].concat());
            behind_length(Framing::Be32, &frame)
        };
        guests[0].send_bytes(&[arp(1), arp(2), arp(3)].concat());
        let mut answers = 0;
        for _ in 0..8 {
            let before = clock::now();
            house.driver.turn(Some(before + Duration::from_millis(500))).unwrap();
            answers += guests[0].frames().iter().filter(|frame| frame[12..14] == [8, 6]).count();
            if answers == 3 {
                break;
            }
            assert!(clock::now() - before < Duration::from_millis(400), "it slept, {answers} answers");
        }
        assert_eq!(answers, 3, "{doors:?}");
    }
}

#[test]
fn either_end_of_two_descriptors_is_the_end() {
    for ours_first in [true, false] {
        let mut house = House::new();
        let guest = house.guest("stdio", 1);
        let Wire::Pipes(from_us, to_us) = guest.wire else { panic!("pipes") };
        let kind = if ours_first {
            drop(to_us);
            house.until("it ends", Driver::take_loss).reason.kind()
        } else {
            drop(from_us);
            // The end of what nobody reads shows when something is sent there.
            let frame = [&EVERYBODY[..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]]
                .concat();
            let frame = [&frame[..], &[10, 0, 2, 100], &[0; 6], &[10, 0, 2, 2]].concat();
            let bytes = behind_length(Framing::Le16, &frame);
            assert_eq!(nix::unistd::write(&to_us, &bytes), Ok(bytes.len()));
            house.until("it ends", Driver::take_loss).reason.kind()
        };
        let expected = if ours_first { ErrorKind::UnexpectedEof } else { ErrorKind::BrokenPipe };
        assert_eq!(kind, expected);
    }
}

#[test]
fn a_plain_file_is_no_guest() {
    let mut driver = Driver::idle(Engine::new(config())).unwrap();
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let refused = driver.listen_for_guests(GuestListener::Stdio { input: file(), output: file() });
    assert!(refused.is_err());
    assert!(driver.links().is_empty());
    let (ours, _theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    driver.join(ours, Framing::Be32, Vec::new()).unwrap();
}
