//! Files of letters around bytes, with a line in front that says what they are (RFC 7468). Pure.

use super::wire::Malformed;

/// Why a file is no key that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    /// It is locked.
    #[error("it has a passphrase, and nobody is here to be asked for it")]
    Encrypted,
    /// It is something else.
    #[error("it is no private key")]
    None,
    /// It is one of these.
    #[error("keys of this kind are not served: {0}")]
    Unknown(String),
    /// It begins as one.
    #[error("it is damaged")]
    Damaged,
}

impl From<Malformed> for BadKey {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// What the first such text of a file is, and its bytes.
///
/// # Errors
/// There is none, or it is locked, or damaged.
pub(super) fn unwrap(file: &[u8]) -> Result<(&str, Vec<u8>), BadKey> {
    let text = str::from_utf8(file).map_err(|_| BadKey::None)?;
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(BadKey::None)?;
    let (label, rest) = rest.split_once("-----").ok_or(BadKey::None)?;
    let (body, _) = rest.split_once("-----END ").ok_or(BadKey::Damaged)?;
    // RFC 1421 §4.6.1.1: how a key of OpenSSL's old form says that it has a passphrase.
    if body.contains("ENCRYPTED") {
        return Err(BadKey::Encrypted);
    }
    Ok((label, decode(body).ok_or(BadKey::Damaged)?))
}

/// Base 64 (RFC 4648 §4), with white space anywhere.
fn decode(text: &str) -> Option<Vec<u8>> {
    let letters = text.bytes().filter(|letter| !letter.is_ascii_whitespace());
    let (mut bytes, mut held, mut bits, mut padded) = (Vec::new(), 0_u32, 0, false);
    for letter in letters {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padded = true;
                continue;
            }
            _ => return None,
        };
        if padded {
            return None;
        }
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            let [_, _, _, byte] = (held >> bits).to_be_bytes();
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_bytes() {
        // RFC 4648 §10.
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9v\nYmFy", "foobar")]
        {
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode("+/+/").unwrap(), [0xfb, 0xff, 0xbf]);
        assert_eq!(decode("Zg==Zg"), None);
        assert_eq!(decode("Z!"), None);
    }

    #[test]
    fn texts_are_found_and_locked_ones_told() {
        let file = b"a comment\n-----BEGIN X Y-----\nZm9v\n-----END X Y-----\n";
        assert_eq!(unwrap(file), Ok(("X Y", b"foo".to_vec())));
        let locked =
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nZm9v\n-----END RSA PRIVATE KEY-----";
        assert_eq!(unwrap(locked), Err(BadKey::Encrypted));
        assert_eq!(unwrap(b"ssh-ed25519 AAAA user@host"), Err(BadKey::None));
        assert_eq!(unwrap(b"-----BEGIN X-----\nZm9v"), Err(BadKey::Damaged));
        assert_eq!(unwrap(b"\xff"), Err(BadKey::None));
    }
}
