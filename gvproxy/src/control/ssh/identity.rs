//! Private keys: files as `ssh-keygen` and OpenSSL write them, and signatures. Pure but for randomness.
//!
//! | file | keys |
//! |---|---|
//! | `OPENSSH PRIVATE KEY` (OpenSSH, PROTOCOL.key) | ed25519, ECDSA by the curves P-256 and P-384, RSA |
//! | `PRIVATE KEY` (PKCS #8, RFC 5958) | the same |
//! | `EC PRIVATE KEY` (RFC 5915), `RSA PRIVATE KEY` (PKCS #1) | ECDSA; RSA |
//!
//! RSA is there with the feature `ssh-rsa` only. Keys with a passphrase are not: nobody is here to be asked for it.

use super::client::Public;
use super::pem::{self, BadKey};
use super::wire::{Put as _, Reader};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _,
};

/// What a key of OpenSSH's own format begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A curve, as either side calls it.
#[derive(Debug)]
struct Curve {
    /// What SSH calls it.
    name: &'static str,
    /// What SSH calls signatures.
    algorithm: &'static str,
    /// Bytes of a number.
    len: usize,
    signing: &'static EcdsaSigningAlgorithm,
    /// Its number, as DER has it (RFC 5480 §2.1.1.1).
    number: &'static [u8],
}

static CURVES: [Curve; 2] = [
    Curve {
        name: "nistp256",
        algorithm: "ecdsa-sha2-nistp256",
        len: 32,
        signing: &ECDSA_P256_SHA256_FIXED_SIGNING,
        number: &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    },
    Curve {
        name: "nistp384",
        algorithm: "ecdsa-sha2-nistp384",
        len: 48,
        signing: &ECDSA_P384_SHA384_FIXED_SIGNING,
        number: &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
    },
];

/// A private key.
#[derive(Debug)]
pub(crate) enum Identity {
    /// Ed25519 (RFC 8032).
    Ed25519(Ed25519KeyPair),
    /// ECDSA (FIPS 186).
    Ecdsa(Ecdsa),
    /// RSA (RFC 8017).
    #[cfg(feature = "ssh-rsa")]
    Rsa(ring::rsa::KeyPair),
}

/// A private key of ECDSA.
#[derive(Debug)]
pub(crate) struct Ecdsa {
    curve: &'static Curve,
    pair: EcdsaKeyPair,
}

impl Identity {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub(crate) fn parse(file: &[u8]) -> Result<Self, BadKey> {
        let (label, bytes) = pem::unwrap(file)?;
        match label {
            "OPENSSH PRIVATE KEY" => Self::openssh(&bytes),
            "PRIVATE KEY" => Self::pkcs8(&bytes),
            "EC PRIVATE KEY" => CURVES
                .iter()
                .find_map(|curve| Self::pkcs8(&wrapped(&bytes, curve)?).ok())
                .ok_or_else(|| BadKey::Unknown("EC of another curve than P-256 and P-384".to_owned())),
            "RSA PRIVATE KEY" => Self::rsa_der(&bytes),
            "ENCRYPTED PRIVATE KEY" => Err(BadKey::Encrypted),
            other if other.ends_with("PRIVATE KEY") => Err(BadKey::Unknown(other.to_owned())),
            _ => Err(BadKey::None),
        }
    }

    fn openssh(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut file = Reader::new(bytes.strip_prefix(MAGIC).ok_or(BadKey::Damaged)?);
        let (cipher, _kdf, _options) = (file.string()?, file.string()?, file.string()?);
        let (count, _public, private) = (file.number()?, file.string()?, file.string()?);
        if cipher != b"none" {
            return Err(BadKey::Encrypted);
        }
        let mut key = Reader::new(private);
        // The same number twice, by which a passphrase is told from others.
        if count != 1 || key.number()? != key.number()? {
            return Err(BadKey::Damaged);
        }
        let kind = key.text()?;
        match kind.as_str() {
            "ssh-ed25519" => {
                let (public, private) = (key.string()?, key.string()?);
                let seed = private.first_chunk::<32>().ok_or(BadKey::Damaged)?;
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
                pair.map(Self::Ed25519).map_err(|_| BadKey::Damaged)
            }
            "ssh-rsa" => Self::rsa_numbers(&mut key),
            _ => {
                let curve = CURVES.iter().find(|curve| curve.algorithm == kind);
                let curve = curve.ok_or(BadKey::Unknown(kind))?;
                if key.string()? != curve.name.as_bytes() {
                    return Err(BadKey::Damaged);
                }
                let (point, number) = (key.string()?, key.natural()?);
                let zeros = curve.len.checked_sub(number.len()).ok_or(BadKey::Damaged)?;
                let number = [[0; 48].get(..zeros).unwrap_or_default(), number].concat();
                let random = SystemRandom::new();
                EcdsaKeyPair::from_private_key_and_public_key(curve.signing, &number, point, &random)
                    .map(|pair| Self::Ecdsa(Ecdsa { curve, pair }))
                    .map_err(|_| BadKey::Damaged)
            }
        }
    }

    /// Whichever kind it is.
    fn pkcs8(bytes: &[u8]) -> Result<Self, BadKey> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
            return Ok(Self::Ed25519(pair));
        }
        let random = SystemRandom::new();
        for curve in &CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.signing, bytes, &random) {
                return Ok(Self::Ecdsa(Ecdsa { curve, pair }));
            }
        }
        #[cfg(feature = "ssh-rsa")]
        if let Ok(pair) = ring::rsa::KeyPair::from_pkcs8(bytes) {
            return Ok(Self::Rsa(pair));
        }
        Err(BadKey::Unknown(format!("PKCS #8 of another kind than ed25519, ECDSA{RSA}")))
    }

    /// The public half.
    #[must_use]
    pub(crate) fn public(&self) -> Public {
        let mut blob = Vec::new();
        let algorithm = match self {
            Self::Ed25519(pair) => {
                blob.string(b"ssh-ed25519");
                blob.string(pair.public_key().as_ref());
                "ssh-ed25519"
            }
            Self::Ecdsa(Ecdsa { curve, pair }) => {
                blob.string(curve.algorithm.as_bytes());
                blob.string(curve.name.as_bytes());
                blob.string(pair.public_key().as_ref());
                curve.algorithm
            }
            #[cfg(feature = "ssh-rsa")]
            Self::Rsa(pair) => {
                let numbers = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
                blob.string(b"ssh-rsa");
                blob.natural(&numbers.e);
                blob.natural(&numbers.n);
                // RFC 8332: SHA-2 for keys of the old name.
                "rsa-sha2-512"
            }
        };
        Public { algorithm: algorithm.to_owned(), blob }
    }

    /// Signs a message, as SSH writes it. `None`: the kernel gives no random numbers, or the key is damaged.
    #[must_use]
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let value = match self {
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Ecdsa(Ecdsa { curve, pair }) => {
                let made = pair.sign(&SystemRandom::new(), message).ok()?;
                let (r, s) = made.as_ref().split_at_checked(curve.len)?;
                // RFC 5656 §3.1.2.
                let mut value = Vec::new();
                value.natural(r);
                value.natural(s);
                value
            }
            #[cfg(feature = "ssh-rsa")]
            Self::Rsa(pair) => {
                let mut value = vec![0; pair.public().modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&ring::signature::RSA_PKCS1_SHA512, &random, message, &mut value).ok()?;
                value
            }
        };
        let mut signature = Vec::new();
        signature.string(self.public().algorithm.as_bytes());
        signature.string(&value);
        Some(signature)
    }
}

/// What is said of kinds beside the two that are always there.
#[cfg(feature = "ssh-rsa")]
const RSA: &str = " and RSA";
#[cfg(not(feature = "ssh-rsa"))]
const RSA: &str = "";

#[cfg(not(feature = "ssh-rsa"))]
impl Identity {
    fn rsa_numbers(_key: &mut Reader<'_>) -> Result<Self, BadKey> {
        Err(BadKey::Unknown("RSA (this program was built without ssh-rsa)".to_owned()))
    }

    fn rsa_der(_bytes: &[u8]) -> Result<Self, BadKey> {
        Self::rsa_numbers(&mut Reader::new(&[]))
    }
}

#[cfg(feature = "ssh-rsa")]
impl Identity {
    fn rsa_numbers(key: &mut Reader<'_>) -> Result<Self, BadKey> {
        let (n, e, d) = (key.natural()?, key.natural()?, key.natural()?);
        let (q_inverse, p, q) = (key.natural()?, key.natural()?, key.natural()?);
        let numbers = ring::rsa::KeyPairComponents {
            public_key: ring::rsa::PublicKeyComponents { n, e },
            d,
            p,
            q,
            dP: &super::remainder::modulo_predecessor(d, p)[..],
            dQ: &super::remainder::modulo_predecessor(d, q)[..],
            qInv: q_inverse,
        };
        ring::rsa::KeyPair::from_components(&numbers).map(Self::Rsa).map_err(|_| BadKey::Damaged)
    }

    fn rsa_der(bytes: &[u8]) -> Result<Self, BadKey> {
        ring::rsa::KeyPair::from_der(bytes).map(Self::Rsa).map_err(|_| BadKey::Damaged)
    }
}

/// A key of RFC 5915 as PKCS #8 has it, by this curve; `None`: it is longer than any is.
fn wrapped(key: &[u8], curve: &Curve) -> Option<Vec<u8>> {
    /// `id-ecPublicKey` (RFC 5480 §2.1.1).
    const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const VERSION: &[u8] = &[0x02, 0x01, 0x00];
    let algorithm = der(0x30, &[EC, curve.number].concat())?;
    der(0x30, &[VERSION, &algorithm, &der(0x04, key)?].concat())
}

/// A value of DER, of at most 255 bytes (X.690 §8.1.3).
fn der(tag: u8, value: &[u8]) -> Option<Vec<u8>> {
    let len = u8::try_from(value.len()).ok()?;
    let head: &[u8] = if len < 0x80 { &[tag, len] } else { &[tag, 0x81, len] };
    Some([head, value].concat())
}

#[cfg(test)]
mod tests;
