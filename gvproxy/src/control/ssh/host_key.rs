//! Whether a signature is that of a host key. Pure.
//!
//! Whose key it is nobody here knows (`mod.rs` says why): what is checked is that whoever holds it has made these keys
//! with us. Sources: RFC 8709 (ed25519), RFC 5656 §3.1 (ECDSA), RFC 8332 (RSA with SHA-2).

use super::wire::{Malformed, Reader};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// Names of algorithms, those first that are preferred.
pub(super) const ALGORITHMS: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "rsa-sha2-512", "rsa-sha2-256"];

/// Whether `signature` is one of `message`, by the algorithm that was agreed upon and the key in `blob`.
pub(super) fn verify(
    algorithm: &str,
    blob: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Malformed> {
    let mut key = Reader::new(blob);
    let mut signed = Reader::new(signature);
    // RFC 8332 §3: the key's own name is the old one.
    let named = if algorithm.starts_with("rsa-") { "ssh-rsa" } else { algorithm };
    if key.string()? != named.as_bytes() || signed.string()? != algorithm.as_bytes() {
        return Ok(false);
    }
    let value = signed.string()?;
    signed.end()?;
    let valid = match algorithm {
        "ssh-ed25519" => UnparsedPublicKey::new(&ED25519, key.string()?).verify(message, value),
        "ecdsa-sha2-nistp256" => {
            let point = point(&mut key)?;
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &pair(value, 32)?)
        }
        "ecdsa-sha2-nistp384" => {
            let point = point(&mut key)?;
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, &pair(value, 48)?)
        }
        "rsa-sha2-256" => rsa(&mut key)?.verify(&RSA_PKCS1_2048_8192_SHA256, message, value),
        "rsa-sha2-512" => rsa(&mut key)?.verify(&RSA_PKCS1_2048_8192_SHA512, message, value),
        _ => return Ok(false),
    };
    Ok(valid.is_ok())
}

/// The curve's name, which the algorithm says already, and the point.
fn point<'a>(key: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    key.string()?;
    key.string()
}

fn rsa<'a>(key: &mut Reader<'a>) -> Result<RsaPublicKeyComponents<&'a [u8]>, Malformed> {
    let e = key.natural()?;
    let n = key.natural()?;
    Ok(RsaPublicKeyComponents { n, e })
}

/// Two numbers behind each other, each with all its bytes (RFC 5656 §3.1.2 has them without zeros in front).
fn pair(value: &[u8], len: usize) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(value);
    let mut pair = Vec::with_capacity(2 * len);
    for _ in 0..2 {
        let number = reader.natural()?;
        let zeros = len.checked_sub(number.len()).ok_or(Malformed)?;
        pair.resize(pair.len() + zeros, 0);
        pair.extend_from_slice(number);
    }
    reader.end()?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::super::wire::Put as _;
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    fn strings(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| bytes.string(part));
        bytes
    }

    #[test]
    fn signatures_are_told_from_others() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
        let name: &[u8] = b"ssh-ed25519";
        let blob = strings(&[name, pair.public_key().as_ref()]);
        let signature = strings(&[name, pair.sign(b"hash").as_ref()]);
        assert_eq!(verify("ssh-ed25519", &blob, b"hash", &signature), Ok(true));
        assert_eq!(verify("ssh-ed25519", &blob, b"cash", &signature), Ok(false));
        assert_eq!(verify("rsa-sha2-512", &blob, b"hash", &signature), Ok(false));
        assert_eq!(verify("ssh-ed25519", &blob, b"hash", &signature[..20]), Err(Malformed));
    }

    #[test]
    fn numbers_of_ecdsa_have_their_zeros_back() {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let name: &[u8] = b"ecdsa-sha2-nistp256";
        let blob = strings(&[name, b"nistp256", pair.public_key().as_ref()]);
        // One in 128 has a number with a zero in front.
        for message in 0..300_u32 {
            let made = pair.sign(&random, &message.to_be_bytes()).unwrap();
            let mut numbers = Vec::new();
            let (r, s) = made.as_ref().split_at(32);
            numbers.natural(r);
            numbers.natural(s);
            let signature = strings(&[name, &numbers]);
            let valid = verify("ecdsa-sha2-nistp256", &blob, &message.to_be_bytes(), &signature);
            assert_eq!(valid, Ok(true), "{message}");
        }
        let long = strings(&[name, &strings(&[&[1; 33], &[1; 32]])]);
        assert_eq!(verify("ecdsa-sha2-nistp256", &blob, b"", &long), Err(Malformed));
    }
}
