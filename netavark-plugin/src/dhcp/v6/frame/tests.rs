use super::super::message::tests::MAC;
use super::*;
use crate::dhcp::link;
use proptest::prelude::*;
use smoltcp::wire::{Icmpv6Packet, Ipv6Packet, UdpPacket};

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn advertisement() -> Vec<u8> {
    from_router(OTHER, [&[advert::ADVERTISEMENT, 0, 0, 0, 64, 0, 0, 9][..], &[0; 8]].concat())
}

fn passes(mac: MacAddr, frame: &[u8]) -> bool {
    link::tests::passes(&filter(mac), frame)
}

#[test]
fn another_implementation_reads_what_is_sent() {
    for own in [None, Some(MAC.link_local())] {
        let frame = to_routers(MAC, own);
        assert_eq!(frame[..12], [&[0x33, 0x33, 0, 0, 0, 2][..], &MAC.0].concat());
        let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!((packet.hop_limit(), packet.dst_addr()), (255, ALL_ROUTERS));
        let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
    }
    let frame = to_servers(MAC, MAC.link_local(), b"odd message");
    assert_eq!(frame[..6], [0x33, 0x33, 0, 1, 0, 2]);
    let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!((packet.src_addr(), packet.dst_addr()), (MAC.link_local(), ALL_SERVERS));
    let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
    assert!(datagram.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
    assert_eq!(
        (datagram.src_port(), datagram.dst_port(), datagram.payload()),
        (546, 547, &b"odd message"[..])
    );
}

#[test]
fn only_answers_are_taken() {
    let good = from_server(OTHER, MAC.link_local(), b"hello");
    assert_eq!(read(&good, MAC), Some(Heard::Dhcp(b"hello")));
    assert_eq!(read(&[&good[..], &[0; 20]].concat(), MAC), Some(Heard::Dhcp(b"hello")), "padded");
    for (at, what) in [
        (12, "another EtherType"),
        (14, "no IPv6"),
        (18, "longer than the frame"),
        (20, "no UDP"),
        (55, "another source port"),
        (57, "another port"),
        (58, "longer than the packet"),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x1f;
        assert_eq!(read(&bad, MAC), None, "{what}");
    }
    let good = advertisement();
    assert!(matches!(read(&good, MAC), Some(Heard::Advert(from, _)) if from == OTHER.link_local()));
    for (at, what) in
        [(21, "from beyond the link"), (30, "a broken address"), (54, "another type"), (60, "broken")]
    {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(read(&bad, MAC), None, "{what}");
    }
}

#[test]
fn what_a_router_says_to_another_machine_is_not_for_us() {
    let mut frame = advertisement();
    frame[..6].copy_from_slice(&MAC.0);
    assert!(read(&frame, MAC).is_some());
    frame[5] ^= 8;
    assert_eq!(read(&frame, MAC), None);
    assert_eq!(read(&frame[..5], MAC), None);
}

#[test]
fn the_filter_takes_this_clients_answers_and_advertisements() {
    let mut answer = from_server(OTHER, MAC.link_local(), b"hello");
    answer[..6].copy_from_slice(&MAC.0);
    assert!(passes(MAC, &answer) && !passes(OTHER, &answer));
    for at in [0, 5, 12, 20, 55, 57] {
        let mut bad = answer.clone();
        bad[at] ^= 0x21;
        assert!(!passes(MAC, &bad), "{at}");
    }
    let good = advertisement();
    assert!(passes(MAC, &good) && passes(OTHER, &good));
    let mut other = good.clone();
    other[54] += 1;
    assert!(!passes(MAC, &other) && !passes(MAC, &good[..40]));
    assert!(!passes(MAC, &to_routers(MAC, None)) && !passes(MAC, &to_servers(MAC, MAC.link_local(), b"")));
}

proptest! {
    #[test]
    fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..300) {
        let _ = read(&bytes, MAC);
        for mut good in [from_server(OTHER, MAC.link_local(), &bytes), advertisement()] {
            good.truncate(cut);
            let _ = (read(&good, MAC), passes(MAC, &good));
        }
    }
}
