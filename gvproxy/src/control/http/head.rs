//! The head of a request: what of it counts here, or how it is refused. Pure.
//!
//! Source: RFC 9112 §3 and §6; texts and cases of refusal are those of Go's net/http, of which gvproxy is made. Its
//! limit for a head is 1 MiB; here it is [`LONGEST`], so that ten thousand clients cost little.

use slipway_host::device::fast;

/// The longest head, in bytes.
pub(crate) const LONGEST: usize = 16 << 10;
/// Fields that one head may have.
const MOST_FIELDS: usize = 100;
/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// GET, POST and so on, as it was written.
    pub(crate) method: String,
    /// What is asked for, decoded, without what follows a `?`.
    pub(crate) path: String,
    /// What follows the `?`, as it was written.
    pub(crate) query: String,
    /// Whether the client speaks HTTP/1.1, not 1.0.
    pub(crate) current: bool,
    /// How the body comes.
    pub(crate) body: Body,
    /// Whether the connection ends with the answer.
    pub(crate) last: bool,
    /// Whether the client waits for a word before it sends the body.
    pub(crate) expects_word: bool,
    /// Whether the fast link is asked for, in a version that is spoken here.
    pub(crate) fast: bool,
}

/// How a body comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes.
    Length(u64),
    /// In pieces (RFC 9112 §7.1).
    Chunked,
}

/// Why a request is not answered but by this, after which the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: u16,
    /// What is said beside it.
    pub(crate) why: &'static str,
}

impl Refusal {
    /// It is no HTTP.
    pub(crate) const BAD: Self = Self { status: 400, why: "" };

    const fn new(status: u16, why: &'static str) -> Self {
        Self { status, why }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not all of a head yet.
    Partial,
    /// A head, and its length.
    Whole(Box<Head>, usize),
    /// None that is answered.
    Refused(Refusal),
}

/// Reads the head of a request.
#[must_use]
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) if len <= LONGEST => match whole(&request) {
            Ok(head) => Parsed::Whole(Box::new(head), len),
            Err(refusal) => Parsed::Refused(refusal),
        },
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Parsed::Refused(Refusal::new(431, "")),
        Err(httparse::Error::Version) => Parsed::Refused(Refusal::new(505, "unsupported protocol version")),
        Err(_) => Parsed::Refused(Refusal::BAD),
    }
}

fn whole(request: &httparse::Request<'_, '_>) -> Result<Head, Refusal> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::BAD);
    };
    let (path, query) = target_of(target).ok_or(Refusal::BAD)?;
    let current = minor >= 1;
    let mut head = Head {
        method: method.to_owned(),
        path,
        query,
        current,
        body: Body::Length(0),
        last: !current,
        expects_word: false,
        fast: false,
    };
    let mut hosts = 0;
    let mut length = None;
    for field in request.headers.iter() {
        let value = field.value.trim_ascii();
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("host") {
            hosts += 1;
        } else if is("content-length") {
            let number = digits(value).ok_or(Refusal::BAD)?;
            // RFC 9112 §6.3: several that agree are one.
            if length.replace(number).is_some_and(|other| other != number) {
                return Err(Refusal::BAD);
            }
        } else if is("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || head.body == Body::Chunked {
                return Err(Refusal::new(501, "Unsupported transfer encoding"));
            }
            head.body = Body::Chunked;
        } else if is("connection") {
            head.last = head.last && !has_word(value, "keep-alive") || has_word(value, "close");
        } else if is("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(417, ""));
            }
            head.expects_word = current;
        } else if is(fast::FIELD) {
            head.fast = fast::is_offered(value);
        }
    }
    if current && hosts != 1 {
        let why = if hosts == 0 { "missing required Host header" } else { "too many Host headers" };
        return Err(Refusal::new(400, why));
    }
    // RFC 9112 §6.3: pieces count more than a length.
    if let (Body::Length(_), Some(length)) = (head.body, length) {
        head.body = Body::Length(length);
    }
    Ok(head)
}

fn digits(value: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(value).ok()?;
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Whether a list of words, parted by commas, has this one.
fn has_word(list: &[u8], word: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// Path, decoded, and query of a request's target: `/path?query`, or that behind `http://host`.
fn target_of(target: &str) -> Option<(String, String)> {
    let behind = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => target,
    };
    let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
    if !path.is_empty() && !path.starts_with('/') {
        return None;
    }
    Some((decoded(path, false)?, query.to_owned()))
}

/// Text in which `%41` stands for a byte, and in a form `+` for a space. `None`: a `%` that stands for none.
fn decoded(text: &str, is_form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |byte: Option<u8>| {
        byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next())? << 4 | digit(rest.next())?,
            b'+' if is_form => b' ',
            byte => byte,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first value of `name` in a query; empty if there is none. What cannot be decoded is passed over.
#[must_use]
pub(crate) fn parameter(query: &str, name: &str) -> String {
    let mut pairs = query.split('&').filter(|pair| !pair.contains(';'));
    pairs
        .find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value, true)?;
            (decoded(key, true)? == name).then_some(value)
        })
        .unwrap_or_default()
}

/// A path without empty parts, `.` and `..`: where it is another, that is where a client is sent.
#[must_use]
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        match parse(text.as_bytes()) {
            Parsed::Whole(head, len) if len == text.len() => *head,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refused(text: &str) -> (u16, &'static str) {
        match parse(text.as_bytes()) {
            Parsed::Refused(Refusal { status, why }) => (status, why),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn heads_as_clients_write_them() {
        let forwarder = head("POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n");
        assert!(forwarder.path == "/connect" && forwarder.method == "POST" && !forwarder.last);
        let podman = head(
            "POST /services/forwarder/expose HTTP/1.1\r\nHost: gateway.containers.internal\r\n\
             User-Agent: Go-http-client/1.1\r\nContent-Length: 60\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
        );
        assert_eq!(podman.body, Body::Length(60));
        let curl = head(
            "GET http://unix/tunnel?ip=1.2.3.4&port=22 HTTP/1.1\r\nhost: x\r\nExpect: 100-continue\r\n\r\n",
        );
        assert!(curl.path == "/tunnel" && curl.expects_word);
        assert_eq!(
            (parameter(&curl.query, "ip").as_str(), parameter(&curl.query, "port").as_str()),
            ("1.2.3.4", "22")
        );
        let old = head("GET / HTTP/1.0\r\n\r\n");
        assert!(old.last && !old.current);
        assert!(!head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").last);
        assert!(head("GET / HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n\r\n").last);
        let chunked = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(head(chunked).body, Body::Chunked);
        let asks = |field: &str| head(&format!("POST /connect HTTP/1.1\r\nHost: \r\n{field}\r\n\r\n")).fast;
        assert!(asks("Slipway-Fast-Link: 1") && asks("slipway-fast-link:2, 1"));
        assert!(!asks("Slipway-Fast-Link: 2") && !asks("Fast-Link: 1"));
    }

    #[test]
    fn what_is_no_request_is_refused_as_go_does() {
        for (text, status, why) in [
            ("GET / HTTP/1.1\r\n\r\n", 400, "missing required Host header"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "too many Host headers"),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported protocol version"),
            ("GET leases HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
            ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, ""),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, ""),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
                501,
                "Unsupported transfer encoding",
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417, ""),
        ] {
            assert_eq!(refused(text), (status, why), "{text:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(1 << 20));
        assert_eq!(refused(&long).0, 431);
        let whole = format!("{long}\r\n\r\n");
        assert_eq!(refused(&whole).0, 431);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
        assert_eq!(refused(&many).0, 431);
    }

    #[test]
    fn a_head_is_waited_for_byte_by_byte() {
        let text = b"GET /leases HTTP/1.1\r\nHost: a\r\n\r\nbehind";
        for len in 0..text.len() - 6 {
            assert_eq!(parse(&text[..len]), Parsed::Partial, "{len}");
        }
        assert!(matches!(parse(text), Parsed::Whole(_, len) if len == text.len() - 6));
    }

    #[test]
    fn paths_are_cleaned_and_decoded() {
        for (path, to) in [
            ("/", "/"),
            ("", "/"),
            ("/a/b", "/a/b"),
            ("//a///b/", "/a/b/"),
            ("/a/./b/../../..", "/"),
            ("/../a", "/a"),
        ] {
            assert_eq!(clean(path), to);
        }
        assert_eq!(head("GET /%6ceases?x HTTP/1.1\r\nHost: a\r\n\r\n").path, "/leases");
        assert_eq!(parameter("ip=%31&ip=2", "ip"), "1");
        assert_eq!(parameter("a;ip=3&ip=a+b", "ip"), "a b");
        assert_eq!(parameter("ip=%zz&ip", "ip"), "");
    }
}
