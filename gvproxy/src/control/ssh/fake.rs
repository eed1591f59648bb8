//! A server for tests: as much of one as a client of ours meets, from bytes to bytes. It echoes what a stream sends.

use super::cipher::Cipher;
use super::cipher::Opener;
use super::host_key;
use super::kex::{ECDH_REPLY, KEXINIT, NEWKEYS, derive};
use super::packet::{Incoming, Outgoing};
use super::wire::{Put as _, Reader};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::collections::HashMap;

/// Bytes that a stream may send before it was echoed.
const WINDOW: u32 = 100_000;
const VERSION: &[u8] = b"SSH-2.0-fake";

/// How it behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    pub(crate) cipher: &'static str,
    pub(crate) refuses: bool,
    pub(crate) forges: bool,
    pub(crate) strict: bool,
    /// Says something before keys are made.
    pub(crate) chats: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            cipher: "chacha20-poly1305@openssh.com",
            refuses: false,
            forges: false,
            strict: true,
            chats: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    manner: Manner,
    into: Incoming,
    out: Outgoing,
    host: Ed25519KeyPair,
    client_version: Vec<u8>,
    ours: Vec<u8>,
    theirs: Vec<u8>,
    session: Vec<u8>,
    next: Option<Opener>,
    /// What each of our numbers is called there, and how many bytes we may send.
    streams: HashMap<u32, u32>,
    /// Who has logged in, and where streams led.
    pub(crate) user: String,
    pub(crate) paths: Vec<String>,
    /// Messages that were not understood, as the client says.
    pub(crate) unimplemented: usize,
}

impl Server {
    pub(crate) fn new(manner: Manner) -> Self {
        let mut server = Self {
            manner,
            into: Incoming::new(),
            out: Outgoing::new(),
            host: Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap(),
            client_version: Vec::new(),
            ours: Vec::new(),
            theirs: Vec::new(),
            session: Vec::new(),
            next: None,
            streams: HashMap::new(),
            user: String::new(),
            paths: Vec::new(),
            unimplemented: 0,
        };
        server.out.raw(b"a line before\r\n");
        server.out.raw(VERSION);
        server.out.raw(b"\r\n");
        if server.manner.chats {
            server.out.send(|packet| packet.push(2));
        }
        server.exchange();
        server
    }

    /// Begins an exchange of keys.
    pub(crate) fn exchange(&mut self) {
        let mut ours = vec![KEXINIT];
        ours.extend([8; 16]);
        let strict = if self.manner.strict { ",kex-strict-s-v00@openssh.com" } else { "" };
        let methods = format!("curve25519-sha256{strict}");
        let cipher = self.manner.cipher;
        for names in [&methods, "ssh-ed25519", cipher, cipher, "x", "x", "none", "none", "", ""] {
            ours.string(names.as_bytes());
        }
        ours.extend([0; 5]);
        self.out.send_now(|packet| packet.extend(&ours));
        self.out.hold();
        self.ours = ours;
    }

    /// A message that nobody knows.
    pub(crate) fn babble(&mut self) {
        self.out.send(|packet| packet.extend([199, 1, 2]));
    }

    /// Takes what the client has sent, and gives what is to be sent.
    pub(crate) fn turn(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.into.buffer().extend_from_slice(bytes);
        if self.client_version.is_empty()
            && let Some(end) = self.into.rest().iter().position(|byte| *byte == b'\n')
        {
            self.client_version = self.into.rest()[..end - 1].to_vec();
            self.into.pass(end + 1);
        }
        while let Some(payload) = self.into.next().unwrap().map(<[u8]>::to_vec) {
            self.heed(&payload);
            if payload[0] == NEWKEYS {
                self.into.change(self.next.take().unwrap(), self.manner.strict);
            }
        }
        let said = self.out.bytes().to_vec();
        self.out.sent(said.len());
        said
    }

    fn heed(&mut self, payload: &[u8]) {
        let mut reader = Reader::new(payload);
        match reader.byte().unwrap() {
            KEXINIT => {
                self.theirs = payload.to_vec();
                if self.next.is_none() && self.ours.is_empty() {
                    self.exchange();
                }
            }
            30 => self.agree(reader.string().unwrap()),
            NEWKEYS => {}
            3 => self.unimplemented += 1,
            5 => self.out.send(|packet| {
                packet.push(6);
                packet.string(b"ssh-userauth");
            }),
            50 => self.log_in(payload),
            80 => self.out.send(|packet| packet.push(82)),
            90 => self.open(reader),
            93 => {
                let (ours, more) = (reader.number().unwrap(), reader.number().unwrap());
                assert!(self.streams.contains_key(&ours) && more > 0);
            }
            94 => self.echo(reader),
            kind @ (96 | 97) => {
                let ours = reader.number().unwrap();
                let theirs = self.streams[&ours];
                let answers: &[u8] = if kind == 96 { &[96, 97] } else { &[] };
                for answer in answers {
                    self.out.send(|packet| {
                        packet.push(*answer);
                        packet.number(theirs);
                    });
                }
            }
            other => panic!("the client says {other}"),
        }
    }

    fn agree(&mut self, half: &[u8]) {
        let random = SystemRandom::new();
        let private = EphemeralPrivateKey::generate(&X25519, &random).unwrap();
        let public = private.compute_public_key().unwrap();
        let mut secret = Vec::new();
        agree_ephemeral(private, &UnparsedPublicKey::new(&X25519, half), |shared| secret.natural(shared))
            .unwrap();
        let mut blob = Vec::new();
        blob.string(b"ssh-ed25519");
        blob.string(self.host.public_key().as_ref());
        let mut all = Vec::new();
        for part in [&self.client_version, VERSION, &self.theirs, &self.ours, &blob, half, public.as_ref()] {
            all.string(part);
        }
        all.extend(&secret);
        let hash = digest(&SHA256, &all);
        let signed: &[u8] = if self.manner.forges { b"something else" } else { hash.as_ref() };
        let mut signature = Vec::new();
        signature.string(b"ssh-ed25519");
        signature.string(self.host.sign(signed).as_ref());
        self.out.send_now(|packet| {
            packet.push(ECDH_REPLY);
            [&blob[..], public.as_ref(), &signature].iter().for_each(|part| packet.string(part));
        });
        self.out.send_now(|packet| packet.push(NEWKEYS));
        if self.session.is_empty() {
            self.session = hash.as_ref().to_vec();
        }
        let (_, cipher) = Cipher::ALL.into_iter().find(|(name, _)| *name == self.manner.cipher).unwrap();
        let key = |letter, len| derive(&SHA256, &[&secret, hash.as_ref()], letter, &self.session, len);
        let (key_len, nonce_len) = (cipher.key_len(), cipher.nonce_len());
        self.next = cipher.opener(&key(b'C', key_len), &key(b'A', nonce_len));
        let sealer = cipher.sealer(&key(b'D', key_len), &key(b'B', nonce_len)).unwrap();
        self.out.change(sealer, self.manner.strict);
        self.ours.clear();
    }

    fn log_in(&mut self, payload: &[u8]) {
        let mut reader = Reader::new(payload);
        reader.byte().unwrap();
        let user = reader.text().unwrap();
        assert_eq!(reader.string().unwrap(), b"ssh-connection");
        assert_eq!(reader.string().unwrap(), b"publickey");
        assert!(reader.truth().unwrap());
        let algorithm = reader.text().unwrap();
        let blob = reader.string().unwrap();
        let len = payload.len() - reader.rest().len();
        let signature = reader.string().unwrap();
        let mut signed = Vec::new();
        signed.string(&self.session);
        signed.extend_from_slice(&payload[..len]);
        let valid = host_key::verify(&algorithm, blob, &signed, signature).unwrap();
        if valid && !self.manner.refuses {
            self.user = user;
            self.out.send(|packet| packet.push(52));
        } else {
            self.out.send(|packet| {
                packet.push(51);
                packet.string(b"publickey");
                packet.push(0);
            });
        }
    }

    fn open(&mut self, mut reader: Reader<'_>) {
        assert_eq!(reader.string().unwrap(), b"direct-streamlocal@openssh.com");
        let theirs = reader.number().unwrap();
        let (_window, _chunk) = (reader.number().unwrap(), reader.number().unwrap());
        let path = reader.text().unwrap();
        let nobody = path.contains("nobody");
        self.paths.push(path);
        if nobody {
            return self.out.send(|packet| {
                packet.push(92);
                packet.number(theirs);
                packet.number(2);
                packet.string(b"open failed");
                packet.string(b"");
            });
        }
        let ours = u32::try_from(self.paths.len()).unwrap() + 1000;
        self.streams.insert(ours, theirs);
        self.out.send(|packet| {
            packet.push(91);
            [theirs, ours, WINDOW, 30_000].into_iter().for_each(|number| packet.number(number));
        });
    }

    fn echo(&mut self, mut reader: Reader<'_>) {
        let theirs = self.streams[&reader.number().unwrap()];
        let bytes = reader.string().unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        assert!(len <= 30_000);
        self.out.send(|packet| {
            packet.push(93);
            packet.number(theirs);
            packet.number(len);
        });
        self.out.send(|packet| {
            packet.push(94);
            packet.number(theirs);
            packet.string(bytes);
        });
    }
}
