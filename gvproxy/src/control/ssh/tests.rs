//! The client beside a server, byte by byte.

use super::channels::{Id, State};
use super::client::{Client, Fault, Happened};
use super::fake::{Manner, Server};
use super::identity::Identity;
use super::kex::NoKeys;
use proptest::prelude::*;
use ring::signature::Ed25519KeyPair;

const COOKIE: [u8; 16] = [6; 16];

fn identity(seed: u8) -> Identity {
    Identity::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
}

/// Both ends, and what passes between them in pieces of `step` bytes.
struct Pair {
    client: Client,
    server: Server,
    key: Identity,
    step: usize,
    entered: bool,
}

impl Pair {
    fn new(manner: Manner, step: usize) -> Self {
        let key = identity(1);
        let client = Client::new("core", key.public(), COOKIE);
        Self { client, server: Server::new(manner), key, step, entered: false }
    }

    /// Until neither has anything to say.
    fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..10_000 {
            let said = self.client.outgoing().bytes().to_vec();
            self.client.outgoing().sent(said.len());
            let answer = self.server.turn(&said);
            if answer.is_empty() && said.is_empty() {
                return Ok(());
            }
            for piece in answer.chunks(self.step) {
                self.client.incoming().extend_from_slice(piece);
                while let Some(happened) = self.client.advance(|| COOKIE)? {
                    match happened {
                        Happened::Sign(message) => self.client.signed(&self.key.sign(&message).unwrap()),
                        Happened::LoggedIn => self.entered = true,
                        Happened::Nothing | Happened::Channel(_) => {}
                    }
                }
            }
        }
        panic!("they talk for ever");
    }

    fn open(&mut self, path: &str) -> Id {
        let (channels, out) = self.client.channels();
        let id = channels.open(path, out);
        self.settle().unwrap();
        id
    }

    /// Sends, and gives what comes back.
    fn echo(&mut self, id: Id, bytes: &[u8]) -> Vec<u8> {
        let (mut rest, mut back) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (channels, out) = self.client.channels();
            let (piece, later) = rest.split_at(channels.room(id).min(rest.len()));
            assert!(!piece.is_empty(), "the window stays shut");
            channels.send(id, piece, out);
            rest = later;
            self.settle().unwrap();
            loop {
                let (channels, out) = self.client.channels();
                let received = channels.received(id).to_vec();
                if received.is_empty() {
                    break;
                }
                back.extend_from_slice(&received);
                channels.took(id, received.len(), out);
            }
        }
        back
    }
}

#[test]
fn streams_are_opened_and_echo_by_every_cipher() {
    for cipher in ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com"] {
        for (step, strict) in [(1, true), (1000, false)] {
            let mut pair = Pair::new(Manner { cipher, strict, ..Manner::default() }, step);
            pair.settle().unwrap();
            assert!(pair.entered && pair.server.user == "core", "{cipher}");
            let (one, other) = (pair.open("/run/podman/podman.sock"), pair.open("/run/other"));
            assert_eq!(pair.server.paths, ["/run/podman/podman.sock", "/run/other"]);
            let bytes: Vec<u8> = (0..70_000_u32).map(|at| at.to_le_bytes()[1]).collect();
            assert_eq!(pair.echo(one, &bytes), bytes, "{cipher}");
            assert_eq!(pair.echo(other, b"beside"), b"beside");
            let (channels, out) = pair.client.channels();
            channels.send_end(one, out);
            pair.settle().unwrap();
            let (channels, _) = pair.client.channels();
            assert!(channels.state(one) == State::Closed && channels.is_drained(one));
            assert_eq!(pair.echo(other, b"goes on"), b"goes on");
        }
    }
}

#[test]
fn new_keys_are_made_in_the_middle() {
    for strict in [true, false] {
        let mut pair = Pair::new(Manner { strict, ..Manner::default() }, 700);
        pair.settle().unwrap();
        let id = pair.open("/x");
        for round in 0..5_u8 {
            pair.server.exchange();
            // What is sent before the client hears of it, and what it has to keep back.
            let (channels, out) = pair.client.channels();
            channels.send(id, &[round; 100], out);
            assert_eq!(pair.echo(id, &[round; 900]), [round; 1000]);
        }
    }
}

#[test]
fn a_key_that_is_not_let_in_is_told() {
    let mut pair = Pair::new(Manner { refuses: true, ..Manner::default() }, 100);
    assert_eq!(pair.settle(), Err(Fault::Refused("core".to_owned())));
    // A signature by another key than the one that was named.
    let mut pair = Pair::new(Manner::default(), 100);
    pair.key = identity(2);
    let told = pair.settle().unwrap_err().to_string();
    assert_eq!(told, "the server does not let core in with this key");
}

#[test]
fn a_server_that_does_not_have_its_host_key_is_told() {
    let mut pair = Pair::new(Manner { forges: true, ..Manner::default() }, 100);
    assert_eq!(pair.settle(), Err(Fault::NoKeys(NoKeys::Forged)));
}

#[test]
fn nothing_is_slipped_in_before_there_are_keys() {
    let mut pair = Pair::new(Manner { chats: true, strict: true, ..Manner::default() }, 100);
    assert_eq!(pair.settle(), Err(Fault::Disorder(20)));
    // One that does not promise it may.
    let mut pair = Pair::new(Manner { chats: true, strict: false, ..Manner::default() }, 100);
    pair.settle().unwrap();
    assert!(pair.entered);
}

#[test]
fn what_nobody_knows_is_answered_so() {
    let mut pair = Pair::new(Manner::default(), 100);
    pair.settle().unwrap();
    pair.server.babble();
    pair.settle().unwrap();
    pair.client.ask();
    pair.settle().unwrap();
    assert_eq!(pair.server.unimplemented, 1);
    let id = pair.open("/run/nobody");
    assert_eq!(pair.client.channels().0.state(id), State::Refused("open failed".to_owned()));
}

#[test]
fn what_is_no_server_is_told() {
    let told = |bytes: &[u8]| {
        let mut client = Client::new("core", identity(1).public(), COOKIE);
        client.incoming().extend_from_slice(bytes);
        client.advance(|| COOKIE).map(|happened| happened.is_some()).map_err(|fault| fault.to_string())
    };
    assert_eq!(told(b"SSH-1.5-old\n"), Err("there is no SSH server: \"SSH-1.5-old\"".to_owned()));
    assert_eq!(told(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Ok(false), "it may still come to it");
    assert!(told(&[b'x'; 9000]).unwrap_err().starts_with("there is no SSH server: \"xxx"));
    assert!(told(&b"line\n".repeat(2000)).unwrap_err().starts_with("there is no SSH server: \"line"));
    assert_eq!(told(b"SSH-2.0-x\r\n\0\0\0\0"), Err("the server sends what is no packet".to_owned()));
}

/// A server's bytes up to the login, and what may stand in their place.
fn transcript() -> Vec<u8> {
    let mut server = Server::new(Manner::default());
    let mut client = Client::new("core", identity(1).public(), COOKIE);
    let said = client.outgoing().bytes().to_vec();
    server.turn(&said)
}

proptest! {
    #[test]
    fn nothing_that_a_server_says_is_too_much(
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in any::<u16>(),
        more in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = transcript();
        for (at, byte) in changes {
            let len = bytes.len();
            bytes[usize::from(at) % len] = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(usize::from(cut) % 64));
        bytes.extend(more);
        let mut client = Client::new("core", identity(1).public(), COOKIE);
        client.incoming().extend_from_slice(&bytes);
        for _ in 0..100 {
            match client.advance(|| COOKIE) {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        prop_assert!(client.outgoing().len() < 1 << 16);
    }
}
