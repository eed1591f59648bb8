use super::*;
use crate::device::{MAX_FRAME, Seqpacket};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use slipway_netstack::checksum;
use slipway_netstack::device::Gso;
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use std::os::fd::{AsRawFd as _, OwnedFd};

const ALL: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
const DATAGRAM: usize = 1000;
const HEADERS: usize = 14 + 20 + 8;

/// Links of a driver whose engine makes trains, with one that can do nothing, and the guest's end of that.
fn plain() -> (Links, EventSet, LinkId, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, guest) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let events = EventSet::new().unwrap();
    let mut links = Links::new(MacAddr([2, 0, 0, 0, 0, 2]), ALL, 1500).unwrap();
    let link = Link::from(Seqpacket::from_owned_fd(ours));
    let id = links.join(link, std::iter::empty(), &events).unwrap();
    (links, events, id, guest)
}

/// A train of UDP datagrams whose first bytes count on from `first`.
fn train(first: u8, count: u8) -> (Offload, Vec<u8>) {
    let len = u16::try_from(8 + DATAGRAM * usize::from(count)).unwrap();
    let mut frame = [2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0].to_vec();
    frame.extend((20 + len).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 2, 2, 10, 0, 2, 100]);
    frame.extend([0, 7, 0, 9]);
    frame.extend(len.to_be_bytes());
    let pseudo = [&frame[26..34], &[0, 17], &len.to_be_bytes()].concat();
    frame.extend((!checksum::finish(checksum::sum(&pseudo))).to_be_bytes());
    (first..first + count).for_each(|n| frame.extend([n; DATAGRAM]));
    let gso = Gso { kind: GsoKind::Udp, size: 1000, header_len: 42 };
    (Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: Some(gso) }, frame)
}

/// The datagrams that the guest reads, each whole and with the right checksum.
fn read(guest: &OwnedFd) -> Vec<u8> {
    let mut buffer = vec![0; MAX_FRAME];
    std::iter::from_fn(|| {
        let len = recv(guest.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok().filter(|len| *len > 0)?;
        let frame = &buffer[..len];
        assert_eq!(len, HEADERS + DATAGRAM);
        assert_eq!(checksum::finish(checksum::sum(&frame[14..34])), 0);
        let pseudo = [&frame[26..34], &[0, 17], &frame[38..40], &frame[34..]].concat();
        assert_eq!(checksum::finish(checksum::sum(&pseudo)), 0);
        Some(frame[HEADERS])
    })
    .collect()
}

#[test]
fn a_link_that_can_do_less_is_given_finished_frames() {
    let (mut links, _events, _, guest) = plain();
    let (offload, frame) = train(0, 40);
    assert_eq!(links.transmit(offload, &frame), Ok(()));
    assert_eq!(read(&guest), (0..40).collect::<Vec<_>>());
    // Nobody leaves the cutting who has not left the checksum.
    let senseless = Offload { checksum: Checksum::Complete, ..offload };
    assert_eq!(links.transmit(senseless, &frame), Ok(()));
    assert_eq!((read(&guest), links.lost()), (vec![], Lost { rejected: 1, ..Lost::default() }));
}

#[test]
fn a_train_that_was_begun_is_finished_before_anything_else() {
    let (mut links, events, id, guest) = plain();
    let mut given = 0;
    // The last one is cut off in the middle: it has been taken.
    while given < 6 && links.members[0].rest.is_empty() {
        let (offload, frame) = train(given * 40, 40);
        assert_eq!(links.transmit(offload, &frame), Ok(()));
        given += 1;
    }
    assert!(!links.members[0].rest.is_empty(), "{given} trains never fill it");
    let (offload, next) = train(0, 1);
    assert_eq!(links.transmit(offload, &next), Err(Full));
    links.flush();
    links.await_room(&events);
    assert!(links.is_full() && links.members[0].awaited);
    let mut found = read(&guest);
    links.has_room(id);
    links.flush();
    found.extend(read(&guest));
    assert_eq!(found, (0..given * 40).collect::<Vec<_>>(), "each once, in order");
    assert!(!links.is_full());
    assert_eq!(links.transmit(offload, &next), Ok(()));
    assert_eq!((read(&guest), links.lost()), (vec![0], Lost::default()));
}

#[test]
fn whoever_was_refused_is_told_of_room_though_others_found_some() {
    let (mut links, events, id, guest) = plain();
    let (offload, frame) = train(0, 1);
    let refused = (0..10_000).any(|_| links.transmit(offload, &frame).is_err());
    assert!(refused && links.is_full());
    // Room comes between two writes of one drain.
    read(&guest);
    assert_eq!(links.transmit(offload, &frame), Ok(()));
    links.await_room(&events);
    assert!(links.is_full() && links.members[0].awaited, "the one who was refused would wait for ever");
    links.has_room(id);
    links.await_room(&events);
    assert!(!links.is_full() && !links.members[0].awaited);
}

#[test]
fn what_is_left_of_a_train_when_the_link_ends_is_counted() {
    let (mut links, events, id, guest) = plain();
    let mut given = 0;
    while given < 6 && links.members[0].rest.is_empty() {
        let (offload, frame) = train(given * 40, 40);
        assert_eq!(links.transmit(offload, &frame), Ok(()));
        given += 1;
    }
    let remains = links.leave(id, &events).unwrap();
    let carried = u64::try_from(read(&guest).len()).unwrap();
    assert!(remains.lost.down > 0);
    assert_eq!(carried + remains.lost.down, u64::from(given) * 40);
    assert_eq!(links.lost(), remains.lost);
}
