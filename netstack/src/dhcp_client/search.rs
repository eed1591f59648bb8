//! Search domains as a DHCP server sends them (RFC 3397): names of DNS one after the other, which may point back into
//! the list.
//!
//! They end up in a file that every program reads, so a name is taken if it has nothing in it but letters, digits, `-`
//! and `_`; others are passed over.

/// RFC 1035 §2.3.4, and what resolv.conf(5) bears: 32 names.
const MAX_NAME: usize = 255;
const MAX_NAMES: usize = 32;

/// The names of a list. What follows bytes that make no sense is left out.
pub(super) fn decode(list: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < list.len() && names.len() < MAX_NAMES {
        let Some((name, next)) = name(list, at) else { break };
        if is_plain(&name) {
            names.push(name);
        }
        at = next;
    }
    names
}

/// The name at `start`, and where the next one begins.
fn name(list: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name: Vec<u8> = Vec::new();
    // Where a pointer has left the row of names, and how far back the next one has to lead: each leads farther back, so
    // there is an end to them.
    let (mut at, mut next, mut before) = (start, None, start);
    loop {
        match *list.get(at..)? {
            [0, ..] => break,
            [high @ 0xc0..=0xff, low, ..] => {
                next = next.or(Some(at + 2));
                at = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                if at >= before {
                    return None;
                }
                before = at;
            }
            [len @ 1..=63, ref rest @ ..] => {
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(rest.get(..usize::from(len))?);
                at += 1 + usize::from(len);
                if name.len() > MAX_NAME {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some((String::from_utf8_lossy(&name).into_owned(), next.unwrap_or(at + 1)))
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::within::names::encode;
    use proptest::prelude::*;

    #[test]
    fn names_that_point_back_are_whole() {
        let list = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
        assert_eq!(decode(list), ["eng.apple.com", "marketing.apple.com"], "RFC 3397 §2");
        assert_eq!(decode(b"\x01a\0\xc0\0"), ["a", "a"]);
    }

    #[test]
    fn what_makes_no_sense_ends_the_list() {
        for (list, names) in [
            (&b"\x01a\0\x02b"[..], &["a"][..]),
            (b"\x01a\0\xc0\x03", &["a"]),
            (b"\x01a\0\x01b\xc0\x03", &["a"]),
            (b"\x01a\0\xc0", &["a"]),
            (b"\x01a\0\x80\0", &["a"]),
            (b"\0\x01a\0", &["a"]),
            (b"", &[]),
        ] {
            assert_eq!(decode(list), names, "{list:?}");
        }
        assert_eq!(decode(b"\x04a\nb \0\x02ok\0"), ["ok"], "nothing but names gets into a file");
        assert_eq!(decode(&b"\x01a\0".repeat(100)).len(), MAX_NAMES);
        let long = [&b"\x3f"[..], &[b'x'; 63]].concat().repeat(5);
        assert_eq!(decode(&[&long[..], b"\0"].concat()), [""; 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(list in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(decode(&list).iter().all(|name| is_plain(name) && name.len() <= MAX_NAME));
        }

        #[test]
        fn what_a_server_writes_is_read(names in proptest::collection::vec("[a-z0-9]{1,9}(\\.[a-z0-9-]{1,9}){0,3}", 0..6)) {
            prop_assert_eq!(decode(&encode(&names, 255)), names);
        }
    }
}
