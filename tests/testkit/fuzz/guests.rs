//! Guests that come and go: what they say before frames, frames on a stream, and where frames lead.

use slipway_host::device::framing::LONGEST;
use slipway_host::device::vpnkit::Handshake;
use slipway_host::device::{Framing, MAX_FRAME, Stream, fast};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::switch::Way;
use slipway_netstack::device::vnet::Checksum;
use slipway_netstack::device::{Capabilities, Device as _, Offload, Switch, segment};
use slipway_netstack::ethernet::{destination, source};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// Frames by several ports: a byte of port, one of length, the frame; a port without frame is gone. Whatever is
/// decided, a frame leads to nobody who must not have it.
pub fn switch_frames(mut data: &[u8]) {
    let ours = MacAddr([2, 0, 0, 0, 0, 1]);
    let mut switch = Switch::new(ours);
    while let [port, len, rest @ ..] = data {
        let (frame, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        let port = u32::from(*port);
        if frame.is_empty() {
            switch.stations_mut().forget(port);
            assert!(switch.stations().iter().all(|(_, known)| known != port));
            continue;
        }
        let (to, from) = (destination(frame), source(frame));
        let before = from.and_then(|from| switch.stations().port_of(from));
        let decision = switch.decide(port, frame);
        match decision.way {
            Way::Us => assert_eq!(to, Some(ours)),
            Way::Port(other) => {
                assert_ne!(other, port, "back to where it came from");
                assert_eq!(to.and_then(|to| switch.stations().port_of(to)), Some(other));
            }
            Way::Everybody => assert!(to.is_some_and(MacAddr::is_multicast)),
            Way::Nobody(_) => {}
        }
        if !matches!(decision.way, Way::Nobody(_)) {
            assert!(before.is_none_or(|before| before == port), "in a neighbour's name");
        }
        assert_eq!(switch.stations().port_of(ours), None, "nobody is us");
        if let Some(new) = decision.new {
            assert_eq!((Some(new), before), (from, None));
        }
        if let Some(crowded) = switch.stations().crowded() {
            switch.stations_mut().thin_out(crowded, |_| false);
        }
    }
}

/// A client of VPNKit, whose messages come in pieces of a size: however they are cut, it hears the same.
pub fn vpnkit_handshake(data: &[u8]) {
    let Some((&size, sent)) = data.split_first() else { return };
    let known = MacAddr([2, 0, 0, 0, 0, 9]);
    let macs = [(String::from_utf8_lossy(sent.get(50..86).unwrap_or_default()).into_owned(), known)];
    let shake = |size: usize| {
        let mut handshake = Handshake::new(macs.to_vec().into(), [7; 6], 1500);
        let (mut said, mut taken, mut done) = (Vec::new(), 0, false);
        for end in (0..sent.len()).step_by(size).skip(1).chain([sent.len()]) {
            while !done && let Some(step) = handshake.step(&sent[taken..end]) {
                taken += step.taken;
                done = step.done;
                said.extend(step.reply);
            }
        }
        (said, taken, done)
    };
    let (said, taken, done) = shake(sent.len().max(1));
    assert_eq!(shake(usize::from(size).max(1)), (said.clone(), taken, done));
    let expected = match sent.len() {
        ..49 => (0, 0, false),
        49..90 => (49, 49, false),
        90.. => (49 + 258, 90, true),
    };
    assert_eq!((said.len(), taken, done), expected);
    assert!(said.iter().take(49).eq(sent.iter().take(said.len().min(49))), "its own greeting");
    if done && sent[50..86].is_ascii() {
        assert_eq!(said[54..60], known.0);
    }
}

/// A stream of a guest: a byte that says what framing, and how long the pieces are that it comes in. The frames that
/// are read are those that a reader finds who has all of it at once.
pub fn frame_stream(data: &[u8]) {
    let Some((&how, sent)) = data.split_first() else { return };
    let framing = if how & 1 == 0 { Framing::Be32 } else { Framing::Le16 };
    let Ok((ours, guest)) = UnixStream::pair() else { return };
    let first = if how & 2 == 0 { 0 } else { sent.len() / 2 };
    let (first, rest) = sent.split_at(first);
    let mut stream = Stream::of_guest(ours.into(), framing, first.to_vec());
    let (found, end) = read_in_pieces(&mut stream, guest, rest, usize::from(how >> 1) * 8 + 1);
    let (expected, refused) = frames_of(framing, sent);
    assert!(found.iter().map(|(_, frame)| frame).eq(&expected));
    assert_eq!(end, Some(if refused { ErrorKind::InvalidData } else { ErrorKind::UnexpectedEof }));
}

/// A stream of a forwarder that has asked for the fast link: a byte that says whether it begins behind the marker, and
/// how long the pieces are. What is read is what a reader finds who has all of it at once; each frame can be finished
/// for others, and crosses another such link as it is.
pub fn fast_link(data: &[u8]) {
    let Some((&how, sent)) = data.split_first() else { return };
    let (gateway, forwarder) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 9]));
    let begun = if how & 1 == 0 { marker(forwarder) } else { Vec::new() };
    let sent = [&begun, sent].concat();
    let Ok((ours, mut guest)) = UnixStream::pair() else { return };
    let mut stream = Stream::fast(ours.into(), gateway, Vec::new());
    let mut heard = vec![0; marker(gateway).len()];
    assert!(guest.read_exact(&mut heard).is_ok() && heard == marker(gateway), "the first thing");
    let (found, end) = read_in_pieces(&mut stream, guest, &sent, usize::from(how >> 1) * 8 + 1);
    let (expected, refused, malformed) = fast_frames_of(&sent);
    assert_eq!((&found, stream.lost().malformed), (&expected, malformed));
    assert_eq!(end, Some(if refused { ErrorKind::InvalidData } else { ErrorKind::UnexpectedEof }));
    let Ok((ours, guest)) = UnixStream::pair() else { return };
    let mut there = Stream::fast(ours.into(), gateway, marker(forwarder));
    let mut back = Stream::asking(guest.into(), forwarder);
    let mut buffer = vec![0; MAX_FRAME];
    for (offload, frame) in found {
        let _ = segment::finish(offload, &frame, Capabilities::default(), &mut |left, one| {
            assert!(left == Offload::NONE && one.len() <= frame.len(), "more than there was");
        });
        assert_eq!(there.transmit(offload, &frame).and_then(|()| there.flush()), Ok(()));
        // A call that brought all there was is followed by one that asks nobody.
        let crossed = (0..2).find_map(|_| back.read_frame(&mut buffer).ok().flatten());
        assert_eq!(crossed.map(|(offload, len)| (offload, &buffer[..len])), Some((offload, &frame[..])));
    }
}

/// A marker of the fast link behind its length.
fn marker(from: MacAddr) -> Vec<u8> {
    [&[60, 0][..], &fast::marker(from)].concat()
}

/// What is read of what a guest sends in pieces before it hangs up, and how that ends.
fn read_in_pieces(
    stream: &mut Stream,
    mut guest: UnixStream,
    sent: &[u8],
    piece: usize,
) -> (Vec<(Offload, Vec<u8>)>, Option<ErrorKind>) {
    let mut buffer = vec![0; MAX_FRAME];
    let (mut found, mut end, mut skipped) = (Vec::new(), None, 0);
    let mut read = |stream: &mut Stream, found: &mut Vec<(Offload, Vec<u8>)>| {
        loop {
            match stream.read_frame(&mut buffer) {
                Ok(Some((offload, len))) => found.push((offload, buffer[..len].to_vec())),
                Ok(None) if stream.is_ahead() => {
                    let before = std::mem::replace(&mut skipped, stream.lost().malformed);
                    assert!(skipped > before, "a frame is there, and was not told");
                }
                Ok(None) => return None,
                Err(error) => return Some(error.kind()),
            }
        }
    };
    for piece in sent.chunks(piece) {
        if end.is_none() && guest.write_all(piece).is_ok() {
            end = read(stream, &mut found);
        }
    }
    drop(guest);
    for _ in 0..4 {
        end = end.or_else(|| read(stream, &mut found));
    }
    (found, end)
}

/// The frames in what a forwarder sends, whether a length or version among them is refused, and how many headers make
/// no sense.
fn fast_frames_of(mut bytes: &[u8]) -> (Vec<(Offload, Vec<u8>)>, bool, u64) {
    let open = Offload { checksum: Checksum::Verified, gso: None };
    let (mut frames, mut is_fast, mut malformed) = (Vec::new(), false, 0);
    loop {
        let (len, behind) = match (is_fast, bytes) {
            (false, [a, b, rest @ ..]) => (usize::from(u16::from_le_bytes([*a, *b])), rest),
            (true, [a, b, c, d, rest @ ..]) => {
                (usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX), rest)
            }
            _ => return (frames, false, malformed),
        };
        if is_fast && !(10..=10 + MAX_FRAME).contains(&len) {
            return (frames, true, malformed);
        }
        let Some((body, rest)) = behind.split_at_checked(len) else { return (frames, false, malformed) };
        bytes = rest;
        if !is_fast {
            match fast::announced(body) {
                Some(1) => is_fast = true,
                Some(_) => return (frames, true, malformed),
                None => frames.push((open, if len > MAX_FRAME { Vec::new() } else { body.to_vec() })),
            }
            continue;
        }
        let (header, frame) = body.split_first_chunk().expect("that long");
        let end = |start: u16, offset: u16| usize::from(start) + usize::from(offset) + 2;
        match Offload::parse_short_le(header) {
            Some(Offload { checksum: Checksum::Complete | Checksum::Verified, gso: None }) => {
                frames.push((open, frame.to_vec()));
            }
            Some(offload @ Offload { checksum: Checksum::Partial { start, offset }, gso })
                if end(start, offset) <= frame.len()
                    && gso.is_none_or(|gso| usize::from(gso.header_len) <= frame.len()) =>
            {
                frames.push((offload, frame.to_vec()));
            }
            _ => malformed += 1,
        }
    }
}

/// The frames in `bytes`, and whether a length among them is refused.
fn frames_of(framing: Framing, mut bytes: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut frames = Vec::new();
    loop {
        let (len, header) = match (framing, bytes) {
            (Framing::Be32, [a, b, c, d, ..]) => (u32::from_be_bytes([*a, *b, *c, *d]), 4),
            (Framing::Le16, [a, b, ..]) => (u32::from(u16::from_le_bytes([*a, *b])), 2),
            _ => return (frames, false),
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > LONGEST {
            return (frames, true);
        }
        let Some(frame) = bytes.get(header..header + len) else { return (frames, false) };
        frames.push(if len > MAX_FRAME { Vec::new() } else { frame.to_vec() });
        bytes = &bytes[header + len..];
    }
}
