//! Guests that come and go: what they say before frames, frames on a stream, and where frames lead.

use slipway_host::device::framing::LONGEST;
use slipway_host::device::vpnkit::Handshake;
use slipway_host::device::{Framing, MAX_FRAME, Stream};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::Switch;
use slipway_netstack::device::switch::Way;
use slipway_netstack::ethernet::{destination, source};
use std::io::{ErrorKind, Write};
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
    let piece = usize::from(how >> 1) * 8 + 1;
    let Ok((ours, mut guest)) = UnixStream::pair() else { return };
    let first = if how & 2 == 0 { 0 } else { sent.len() / 2 };
    let (first, rest) = sent.split_at(first);
    let mut stream = Stream::of_guest(ours.into(), framing, first.to_vec());
    let mut buffer = vec![0; MAX_FRAME];
    let (mut found, mut end) = (Vec::new(), None);
    let mut read = |stream: &mut Stream, found: &mut Vec<Vec<u8>>| {
        loop {
            match stream.read_frame(&mut buffer) {
                Ok(Some((_, len))) => found.push(buffer[..len].to_vec()),
                Ok(None) if stream.is_ahead() => panic!("a frame is there, and was not told"),
                Ok(None) => return None,
                Err(error) => return Some(error.kind()),
            }
        }
    };
    for piece in rest.chunks(piece) {
        if end.is_none() && guest.write_all(piece).is_ok() {
            end = read(&mut stream, &mut found);
        }
    }
    drop(guest);
    for _ in 0..4 {
        end = end.or_else(|| read(&mut stream, &mut found));
    }
    let (expected, refused) = frames_of(framing, sent);
    assert_eq!(found, expected);
    assert_eq!(end, Some(if refused { ErrorKind::InvalidData } else { ErrorKind::UnexpectedEof }));
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
