//! What a server says, and what a key's file is, for the fuzzer. Promise: no panic, and nothing grows beyond its bound.

use super::channels::{Channels, WINDOW};
use super::client::{Client, Public};
use super::identity::Identity;
use super::packet::Outgoing;

/// The first byte says which of them the rest is.
pub(crate) fn server(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => stream(rest),
        1 => messages(rest),
        _ => drop(Identity::parse(rest)),
    }
}

/// The bytes of a server from its first line on, in two pieces.
fn stream(data: &[u8]) {
    let public = Public { algorithm: "ssh-ed25519".to_owned(), blob: vec![1; 51] };
    let mut client = Client::new("core", public, [7; 16]);
    let (first, second) = data.split_at(data.len() / 2);
    for piece in [first, second] {
        client.incoming().extend_from_slice(piece);
        // Each message is a byte at least.
        for _ in 0..=data.len() {
            match client.advance(|| [8; 16]) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(client.outgoing().len() <= 4096 + 64 * data.len());
    }
}

/// Messages about streams, each behind two bytes for its length; there are three, of which nobody takes anything.
fn messages(mut data: &[u8]) {
    let (mut channels, mut out) = (Channels::default(), Outgoing::new());
    let ids = [(); 3].map(|()| channels.open("/run/podman/podman.sock", &mut out));
    while let Some((len, rest)) = data.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (message, later) = rest.split_at(len);
        data = later;
        if channels.heed(message, &mut out).is_err() {
            break;
        }
        for id in ids {
            assert!(u32::try_from(channels.received(id).len()).is_ok_and(|len| len <= WINDOW));
            if channels.room(id) > 0 {
                channels.send(id, b"x", &mut out);
            }
        }
        let sent = out.len();
        out.sent(sent);
    }
    for id in ids {
        channels.leave(id, &mut out);
    }
}
