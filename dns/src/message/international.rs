//! Names beyond ASCII (RFC 5890): on the wire they are A-labels, `xn--bcher-kva` for `bücher`.
//!
//! Programs that know about such names convert them before they ask (UTS 46); those that do not, ask for the UTF-8
//! bytes.

use hickory_proto::rr::Name;

/// The ASCII form of a name, lower-cased; `None` if it has none that differs, or none at all.
pub(crate) fn ascii_form(name: &str) -> Option<String> {
    if name.is_ascii() {
        return None;
    }
    let mut ascii = Name::from_utf8(name).ok()?.to_ascii();
    ascii.make_ascii_lowercase();
    // What cannot be written without escapes is no name that anybody asks for.
    (ascii.is_ascii() && !ascii.contains('\\')).then_some(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_ascii_have_an_ascii_form() {
        assert_eq!(ascii_form("bücher").as_deref(), Some("xn--bcher-kva"));
        assert_eq!(ascii_form("Bücher.例え").as_deref(), Some("xn--bcher-kva.xn--r8jz45g"));
        for name in ["web", "", "xn--bcher-kva", "a\u{0}ü", "\u{fffd}", &"ü".repeat(80), "ü..ü", "\u{202e}"]
        {
            let form = ascii_form(name);
            assert!(
                form.as_deref().is_none_or(|form| form.is_ascii() && form.starts_with("xn--")),
                "{name}: {form:?}"
            );
        }
        assert_eq!(ascii_form("web"), None);
    }
}
