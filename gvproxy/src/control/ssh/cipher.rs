//! How packets are made unreadable and unalterable. Pure.
//!
//! Three ciphers, each of which is its own authentication; without one, at the beginning, a packet is what it is.
//!
//! | name | length | tag | counted by | source |
//! |---|---|---|---|---|
//! | `aes256-gcm@openssh.com`, `aes128-gcm@openssh.com` | in the open, under the tag | 16 bytes | a counter of its own | RFC 5647 |
//! | `chacha20-poly1305@openssh.com` | encrypted by a key of its own | 16 bytes | the packet's number | OpenSSH, PROTOCOL.chacha20poly1305 |
//!
//! ring does all of it; here is what stands where.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use ring::aead::{NONCE_LEN, chacha20_poly1305_openssh as chacha};

/// The bytes of a packet that say how long the rest is.
pub(super) const HEAD: usize = 4;
/// The bytes behind a packet that say that nobody has altered it.
pub(super) const TAG: usize = 16;

/// A cipher's name, in the order in which they are preferred: machines that run guests have AES in hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes256,
    ChaCha,
    Aes128,
}

impl Cipher {
    pub(super) const ALL: [(&'static str, Self); 3] = [
        ("aes256-gcm@openssh.com", Self::Aes256),
        ("chacha20-poly1305@openssh.com", Self::ChaCha),
        ("aes128-gcm@openssh.com", Self::Aes128),
    ];

    /// Bytes of a key.
    pub(super) const fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes256 => 32,
            Self::ChaCha => chacha::KEY_LEN,
        }
    }

    /// Bytes of the first nonce.
    pub(super) const fn nonce_len(self) -> usize {
        match self {
            Self::Aes128 | Self::Aes256 => NONCE_LEN,
            Self::ChaCha => 0,
        }
    }

    /// The key and first nonce for one direction; `None`: they are of other lengths.
    fn gcm(self, key: &[u8], nonce: &[u8]) -> Option<Box<Gcm>> {
        let algorithm: &'static Algorithm = if self == Self::Aes128 { &AES_128_GCM } else { &AES_256_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        let (fixed, counter) = nonce.split_first_chunk()?;
        Some(Box::new(Gcm { key, fixed: *fixed, counter: u64::from_be_bytes(counter.try_into().ok()?) }))
    }

    pub(super) fn sealer(self, key: &[u8], nonce: &[u8]) -> Option<Sealer> {
        Some(match self {
            Self::Aes128 | Self::Aes256 => Sealer::Gcm(self.gcm(key, nonce)?),
            Self::ChaCha => Sealer::ChaCha(Box::new(chacha::SealingKey::new(key.try_into().ok()?))),
        })
    }

    pub(super) fn opener(self, key: &[u8], nonce: &[u8]) -> Option<Opener> {
        Some(match self {
            Self::Aes128 | Self::Aes256 => Opener::Gcm(self.gcm(key, nonce)?),
            Self::ChaCha => Opener::ChaCha(Box::new(chacha::OpeningKey::new(key.try_into().ok()?))),
        })
    }
}

/// AES in Galois counter mode, with its counter.
#[derive(Debug)]
pub(super) struct Gcm {
    key: LessSafeKey,
    fixed: [u8; 4],
    counter: u64,
}

impl Gcm {
    /// The next nonce. RFC 5647 §7.1: the last eight bytes are counted up.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let bytes = self.fixed.into_iter().chain(self.counter.to_be_bytes());
        nonce.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// For what we send.
pub(super) enum Sealer {
    Plain,
    Gcm(Box<Gcm>),
    ChaCha(Box<chacha::SealingKey>),
}

/// For what we receive.
pub(super) enum Opener {
    Plain,
    Gcm(Box<Gcm>),
    ChaCha(Box<chacha::OpeningKey>),
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::Plain => "Plain",
            Self::Gcm(_) => "Gcm",
            Self::ChaCha(_) => "ChaCha",
        })
    }
}

impl core::fmt::Debug for Opener {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::Plain => "Plain",
            Self::Gcm(_) => "Gcm",
            Self::ChaCha(_) => "ChaCha",
        })
    }
}

impl Sealer {
    /// How many bytes of padding go behind a payload of this length. RFC 4253 §6: at least four, up to a whole number
    /// of blocks; ciphers that keep the length apart do not count it.
    pub(super) const fn padding(&self, payload: usize) -> u8 {
        let (block, counted) = match self {
            Self::Plain => (8, HEAD + 1 + payload),
            Self::ChaCha(_) => (8, 1 + payload),
            Self::Gcm(_) => (16, 1 + payload),
        };
        // At most 19.
        let missing = match counted % block {
            0 => block,
            over => block - over,
        };
        #[expect(clippy::cast_possible_truncation, reason = "it is below 20")]
        let padding = if missing < 4 { missing + block } else { missing } as u8;
        padding
    }

    /// Seals the packet that begins at `from`, and puts its tag behind it. `false`: there is none, or it is too long
    /// for the cipher, which no packet is.
    pub(super) fn seal(&mut self, sequence: u32, buffer: &mut Vec<u8>, from: usize) -> bool {
        let packet = buffer.get_mut(from..).unwrap_or_default();
        let mut tag = [0; TAG];
        match self {
            Self::Plain => return true,
            Self::ChaCha(_) if packet.len() < HEAD => return false,
            Self::ChaCha(key) => key.seal_in_place(sequence, packet, &mut tag),
            Self::Gcm(gcm) => {
                let Some((head, rest)) = packet.split_first_chunk_mut::<HEAD>() else { return false };
                let nonce = gcm.nonce();
                let Ok(made) = gcm.key.seal_in_place_separate_tag(nonce, Aad::from(*head), rest) else {
                    return false;
                };
                tag.copy_from_slice(made.as_ref());
            }
        }
        buffer.extend_from_slice(&tag);
        true
    }
}

impl Opener {
    /// What the first bytes of a packet say of its length, which nothing vouches for yet.
    pub(super) fn length(&self, sequence: u32, head: [u8; HEAD]) -> u32 {
        u32::from_be_bytes(match self {
            Self::Plain | Self::Gcm(_) => head,
            Self::ChaCha(key) => key.decrypt_packet_length(sequence, head),
        })
    }

    /// Bytes behind a packet.
    pub(super) const fn tag_len(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Gcm(_) | Self::ChaCha(_) => TAG,
        }
    }

    /// What a packet says: what stands behind its head, before its tag. `None`: somebody has altered it.
    pub(super) fn open<'a>(&mut self, sequence: u32, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Plain => packet.get(HEAD..),
            Self::ChaCha(key) => {
                let (packet, tag) = packet.split_last_chunk_mut::<TAG>()?;
                key.open_in_place(sequence, packet, tag).ok()
            }
            Self::Gcm(gcm) => {
                let (head, rest) = packet.split_first_chunk_mut::<HEAD>()?;
                let nonce = gcm.nonce();
                let opened = gcm.key.open_in_place(nonce, Aad::from(*head), rest);
                opened.ok().map(|opened| &*opened)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_once_and_unaltered() {
        for (name, cipher) in Cipher::ALL {
            let (key, nonce) = (vec![7; cipher.key_len()], vec![9; cipher.nonce_len()]);
            let mut sealer = cipher.sealer(&key, &nonce).unwrap();
            let mut opener = cipher.opener(&key, &nonce).unwrap();
            for sequence in [3, 4] {
                let mut packet = vec![0xee, 0, 0, 0, 16];
                packet.extend(*b"\x04sixteen byt\0\0\0\0");
                assert!(sealer.seal(sequence, &mut packet, 1));
                assert_eq!((packet.len(), packet[0]), (1 + HEAD + 16 + TAG, 0xee), "{name}");
                let packet = &mut packet[1..];
                assert_eq!(opener.length(sequence, *packet.first_chunk().unwrap()), 16, "{name}");
                let mut altered = packet.to_vec();
                altered[6] ^= 1;
                let mut other = cipher.opener(&key, &nonce).unwrap();
                assert!(other.open(sequence, &mut altered).is_none(), "{name}");
                assert_eq!(opener.open(sequence, packet).unwrap(), b"\x04sixteen byt\0\0\0\0", "{name}");
            }
            assert!(cipher.sealer(&[0; 3], &nonce).is_none());
        }
        assert!(Opener::Plain.open(0, &mut [0; 3]).is_none());
    }

    #[test]
    fn padding_fills_blocks() {
        let gcm = Cipher::Aes256.sealer(&[0; 32], &[0; 12]).unwrap();
        let chacha = Cipher::ChaCha.sealer(&[0; 64], &[]).unwrap();
        for payload in 0..100 {
            for (sealer, block, head) in [(&Sealer::Plain, 8, HEAD), (&gcm, 16, 0), (&chacha, 8, 0)] {
                let padding = usize::from(sealer.padding(payload));
                assert!((4..20).contains(&padding));
                assert_eq!((head + 1 + payload + padding) % block, 0);
            }
        }
    }
}
