//! Search domains in the form that DHCP (RFC 3397 §2), DHCPv6 (RFC 8415 §10) and router advertisements (RFC 8106 §5.2)
//! share: labels with a length byte before each, a zero byte behind the last, one name after the other, without
//! compression.

/// `domains` one after the other in at most `limit` bytes; names that DNS could not carry, or that no longer fit, are
/// left out.
#[must_use]
pub fn encode(domains: &[String], limit: usize) -> Vec<u8> {
    fitting(domains, limit).concat()
}

/// The same, each by itself.
#[must_use]
pub fn fitting(domains: &[String], limit: usize) -> Vec<Vec<u8>> {
    let (mut list, mut len) = (Vec::new(), 0);
    for name in domains.iter().filter_map(|domain| encode_one(domain)) {
        if len + name.len() <= limit {
            len += name.len();
            list.push(name);
        }
    }
    list
}

/// One name. RFC 1035 §3.1 and §2.3.4: labels of 1 to 63 bytes, the whole at most 255. A dot at the end is of no
/// account.
#[must_use]
pub fn encode_one(domain: &str) -> Option<Vec<u8>> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let mut name = Vec::with_capacity(domain.len() + 2);
    for label in domain.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        name.push(len);
        name.extend_from_slice(label.as_bytes());
    }
    name.push(0);
    (name.len() <= 255).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str], limit: usize) -> Vec<u8> {
        encode(&names.iter().map(ToString::to_string).collect::<Vec<_>>(), limit)
    }

    #[test]
    fn names_follow_one_another() {
        assert_eq!(list(&["a.bc", "d."], 255), b"\x01a\x02bc\0\x01d\0");
        assert_eq!(list(&[], 255), b"");
    }

    #[test]
    fn names_that_dns_cannot_carry_are_left_out() {
        let (label, long) = ("x".repeat(64), "y.".repeat(127) + "yy");
        assert_eq!(list(&["", ".", "a..b", ".a", &label, &long, "ok"], 255), b"\x02ok\0");
        assert_eq!(list(&[&"x".repeat(63), &"y.".repeat(127)], 400).len(), 65 + 255);
    }

    #[test]
    fn a_list_ends_at_a_whole_name() {
        assert_eq!(list(&["abc", "defgh", "i"], 9), b"\x03abc\0\x01i\0");
    }
}
