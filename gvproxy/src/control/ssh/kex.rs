//! How both sides come by the same keys. Pure but for randomness, which ring takes from the kernel.
//!
//! ```text
//!   KEXINIT ──▶      what either can do, in the order of its wishes
//!           ◀── KEXINIT
//!   ECDH_INIT ──▶    half of a secret
//!           ◀── ECDH_REPLY   the other half, the host key, its signature of everything so far
//!   NEWKEYS ──▶ ◀── NEWKEYS  everything behind it is by the new keys
//! ```
//! Sources: RFC 4253 §7 and §8, RFC 5656 §4 (ECDH), RFC 8731 (curve25519); OpenSSH's "strict" exchange, by which nobody
//! in between can take messages away unseen: nothing but these messages during the first exchange, and numbers of
//! packets begin at zero with each set of keys.

use super::cipher::{Cipher, Opener, Sealer};
use super::host_key;
use super::wire::{Malformed, Put as _, Reader};
use ring::agreement::{
    self, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral,
};
use ring::digest::{self, SHA256, SHA384};
use ring::rand::SystemRandom;

pub(super) const KEXINIT: u8 = 20;
pub(super) const NEWKEYS: u8 = 21;
const ECDH_INIT: u8 = 30;
pub(super) const ECDH_REPLY: u8 = 31;

/// That we keep the strict order, and that the server does.
const STRICT: &str = "kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";

/// Why there are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoKeys {
    /// Nothing that both can do.
    #[error("the server knows none of our {0}")]
    NothingInCommon(&'static str),
    /// The host key did not sign this.
    #[error("the server's signature is not its host key's")]
    Forged,
    /// Not what is said at this point.
    #[error("the server says what makes no sense while keys are made")]
    Disorder,
    /// The kernel gives no random numbers.
    #[error("there are no random numbers")]
    NoRandomness,
}

impl From<Malformed> for NoKeys {
    fn from(_: Malformed) -> Self {
        Self::Disorder
    }
}

/// A way to a secret.
#[derive(Debug, Clone, Copy)]
struct Method {
    name: &'static str,
    agreement: &'static agreement::Algorithm,
    hash: &'static digest::Algorithm,
}

const METHODS: [Method; 4] = [
    Method { name: "curve25519-sha256", agreement: &X25519, hash: &SHA256 },
    Method { name: "curve25519-sha256@libssh.org", agreement: &X25519, hash: &SHA256 },
    Method { name: "ecdh-sha2-nistp256", agreement: &ECDH_P256, hash: &SHA256 },
    Method { name: "ecdh-sha2-nistp384", agreement: &ECDH_P384, hash: &SHA384 },
];

/// The first lines of both sides.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions {
    pub(super) ours: Vec<u8>,
    pub(super) theirs: Vec<u8>,
}

/// An exchange whose first message has gone.
#[derive(Debug)]
pub(super) struct Begun {
    ours: Vec<u8>,
}

/// One in which both know what is made how.
#[derive(Debug)]
pub(super) struct Agreed {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    method: Method,
    host_key: &'static str,
    /// To the server, and from it.
    ciphers: (Cipher, Cipher),
    private: EphemeralPrivateKey,
    public: Vec<u8>,
    /// The server guessed, and wrong: what it says next means nothing.
    pub(super) passes_next: bool,
    /// Both keep the strict order.
    pub(super) strict: bool,
}

/// New keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    /// The hash of the exchange: of the first one, it is the session's name.
    pub(super) hash: Vec<u8>,
}

fn write_names<'a>(out: &mut Vec<u8>, names: impl Iterator<Item = &'a str>) {
    let names: Vec<&str> = names.collect();
    out.string(names.join(",").as_bytes());
}

impl Begun {
    /// Begins one. `first`: there are no keys yet.
    pub(super) fn new(cookie: [u8; 16], first: bool) -> Self {
        let mut ours = vec![KEXINIT];
        ours.extend_from_slice(&cookie);
        let strict = first.then_some(STRICT);
        write_names(&mut ours, METHODS.iter().map(|method| method.name).chain(strict));
        write_names(&mut ours, host_key::ALGORITHMS.into_iter());
        for _ in 0..2 {
            write_names(&mut ours, Cipher::ALL.iter().map(|(name, _)| *name));
        }
        // Ciphers that need a code of their own for authentication are not among ours; a server without any in common
        // may still want to see a name.
        for _ in 0..2 {
            ours.string(b"hmac-sha2-256");
        }
        for _ in 0..2 {
            ours.string(b"none");
        }
        // Languages; no guess; reserved.
        ours.extend_from_slice(&[0; 4 + 4 + 1 + 4]);
        Self { ours }
    }

    /// What is to be sent.
    pub(super) fn message(&self) -> &[u8] {
        &self.ours
    }

    /// What follows from the server's message.
    pub(super) fn agree(self, theirs: &[u8]) -> Result<Agreed, NoKeys> {
        let mut reader = Reader::new(theirs);
        reader.take(1 + 16)?;
        let methods = reader.names()?;
        let host_keys = reader.names()?;
        let (out, into) = (reader.names()?, reader.names()?);
        let _codes = (reader.names()?, reader.names()?);
        let compressions = [reader.names()?, reader.names()?];
        let _languages = (reader.names()?, reader.names()?);
        let guesses = reader.truth()?;
        reader.number()?;
        reader.end()?;
        let (at, method) = METHODS
            .iter()
            .enumerate()
            .find(|(_, method)| has(methods, method.name))
            .ok_or(NoKeys::NothingInCommon("key exchanges"))?;
        let host_key = host_key::ALGORITHMS
            .into_iter()
            .find(|name| has(host_keys, name))
            .ok_or(NoKeys::NothingInCommon("host key algorithms"))?;
        let cipher = |names| {
            let found = Cipher::ALL.into_iter().find(|(name, _)| has(names, name));
            found.map(|(_, cipher)| cipher).ok_or(NoKeys::NothingInCommon("ciphers"))
        };
        if !compressions.iter().all(|names| has(names, "none")) {
            return Err(NoKeys::NothingInCommon("compressions"));
        }
        let private = EphemeralPrivateKey::generate(method.agreement, &SystemRandom::new())
            .map_err(|_| NoKeys::NoRandomness)?;
        let public = private.compute_public_key().map_err(|_| NoKeys::NoRandomness)?;
        // RFC 4253 §7: a guess is right if both would have chosen first what was chosen.
        let ours = host_key::ALGORITHMS.first() == Some(&host_key);
        let right = at == 0 && ours && is_first(methods, method.name) && is_first(host_keys, host_key);
        Ok(Agreed {
            method: *method,
            host_key,
            ciphers: (cipher(out)?, cipher(into)?),
            public: public.as_ref().to_vec(),
            private,
            passes_next: guesses && !right,
            strict: has(methods, STRICT_SERVER),
            ours: self.ours,
            theirs: theirs.to_vec(),
        })
    }
}

fn has(names: &str, name: &str) -> bool {
    names.split(',').any(|other| other == name)
}

fn is_first(names: &str, name: &str) -> bool {
    names.split(',').next() == Some(name)
}

impl Agreed {
    /// What is to be sent: our half.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(ECDH_INIT);
        out.string(&self.public);
    }

    /// The keys that follow from the server's half. `session`: its name, if it has one.
    pub(super) fn finish(
        self,
        reply: &[u8],
        versions: &Versions,
        session: Option<&[u8]>,
    ) -> Result<Keys, NoKeys> {
        let mut reader = Reader::new(reply);
        reader.byte()?;
        let (blob, half, signature) = (reader.string()?, reader.string()?, reader.string()?);
        reader.end()?;
        let peer = UnparsedPublicKey::new(self.method.agreement, half);
        let mut secret = Vec::new();
        // ring refuses halves by which the secret would be known: RFC 8731 §3, RFC 5656 §4.
        agree_ephemeral(self.private, &peer, |shared| secret.natural(shared))
            .map_err(|_| NoKeys::Disorder)?;
        // RFC 5656 §4, RFC 8731 §3.1: what is signed.
        let mut all = Vec::new();
        let before =
            [&versions.ours, &versions.theirs, &self.ours, &self.theirs].map(Vec::as_slice).into_iter();
        before.chain([blob, &self.public, half]).for_each(|part| all.string(part));
        all.extend_from_slice(&secret);
        let hash = digest::digest(self.method.hash, &all);
        let hash = hash.as_ref();
        if !host_key::verify(self.host_key, blob, hash, signature)? {
            return Err(NoKeys::Forged);
        }
        let session = session.unwrap_or(hash);
        let key = |letter: u8, len: usize| derive(self.method.hash, &[&secret, hash], letter, session, len);
        let (out, into) = self.ciphers;
        // RFC 4253 §7.2: A and B are the first nonces, C and D the keys, to the server and from it.
        let sealer = out.sealer(&key(b'C', out.key_len()), &key(b'A', out.nonce_len()));
        let opener = into.opener(&key(b'D', into.key_len()), &key(b'B', into.nonce_len()));
        let (Some(sealer), Some(opener)) = (sealer, opener) else { return Err(NoKeys::Disorder) };
        Ok(Keys { sealer, opener, hash: hash.to_vec() })
    }
}

/// RFC 4253 §7.2: hashes of the secret and the exchange's hash with something behind, each of all that came before it,
/// until there are enough bytes.
pub(super) fn derive(
    algorithm: &'static digest::Algorithm,
    common: &[&[u8]],
    letter: u8,
    session: &[u8],
    len: usize,
) -> Vec<u8> {
    let mut key: Vec<u8> = Vec::new();
    while key.len() < len {
        let mut context = digest::Context::new(algorithm);
        common.iter().for_each(|part| context.update(part));
        if key.is_empty() {
            context.update(&[letter]);
            context.update(session);
        } else {
            context.update(&key);
        }
        key.extend_from_slice(context.finish().as_ref());
    }
    key.truncate(len);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server with these says.
    fn offer(methods: &str, host_keys: &str, ciphers: &str, guesses: bool) -> Vec<u8> {
        let mut theirs = vec![KEXINIT];
        theirs.extend_from_slice(&[0; 16]);
        for names in [methods, host_keys, ciphers, ciphers, "", "", "none", "none,zlib", "", ""] {
            theirs.string(names.as_bytes());
        }
        theirs.push(guesses.into());
        theirs.number(0);
        theirs
    }

    fn agreed(methods: &str, host_keys: &str, ciphers: &str, guesses: bool) -> Result<Agreed, NoKeys> {
        Begun::new([1; 16], true).agree(&offer(methods, host_keys, ciphers, guesses))
    }

    #[test]
    fn our_first_wish_that_the_server_knows_counts() {
        let methods = "x,ecdh-sha2-nistp256,curve25519-sha256,kex-strict-s-v00@openssh.com";
        let ciphers = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com";
        let made = agreed(methods, "rsa-sha2-256,ssh-ed25519", ciphers, true).unwrap();
        assert_eq!((made.method.name, made.host_key), ("curve25519-sha256", "ssh-ed25519"));
        assert!(made.ciphers == (Cipher::ChaCha, Cipher::ChaCha) && made.strict && made.passes_next);
        let made = agreed("curve25519-sha256", "ssh-ed25519", ciphers, true).unwrap();
        assert!(!made.passes_next && !made.strict, "it guessed right");
    }

    #[test]
    fn nothing_in_common_is_told() {
        let gcm = "aes256-gcm@openssh.com";
        for (offer, lack) in [
            (["diffie-hellman-group1-sha1", "ssh-ed25519", gcm], "key exchanges"),
            (["curve25519-sha256", "ssh-dss", gcm], "host key algorithms"),
            (["curve25519-sha256", "ssh-ed25519", "3des-cbc"], "ciphers"),
        ] {
            let [methods, host_keys, ciphers] = offer;
            let made = agreed(methods, host_keys, ciphers, false);
            assert_eq!(made.map(drop), Err(NoKeys::NothingInCommon(lack)));
        }
        let short = offer("curve25519-sha256", "ssh-ed25519", gcm, false);
        let made = Begun::new([0; 16], false).agree(short.split_last().unwrap().1);
        assert_eq!(made.map(drop), Err(NoKeys::Disorder));
    }

    #[test]
    fn halves_by_which_the_secret_would_be_known_are_refused() {
        let made = agreed("curve25519-sha256", "ssh-ed25519", "aes256-gcm@openssh.com", false).unwrap();
        let mut reply = vec![ECDH_REPLY];
        for part in [&b"key"[..], &[0; 32], b"signature"] {
            reply.string(part);
        }
        assert_eq!(made.finish(&reply, &Versions::default(), None).map(drop), Err(NoKeys::Disorder));
    }
}
