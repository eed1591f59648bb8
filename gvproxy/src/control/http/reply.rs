//! An answer, with the fields that Go's net/http gives it, in its order. Pure.

use super::head::{Head, Refusal};
use std::time::{Duration, SystemTime};

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is done.
    Done,
    /// JSON, which Go's handlers send without saying so.
    Json(Vec<u8>),
    /// What went wrong, in one line.
    Error(u16, String),
    /// It is elsewhere.
    Moved(String),
}

impl Reply {
    /// There is no such thing.
    #[must_use]
    pub(crate) fn not_found() -> Self {
        Self::Error(404, "404 page not found".to_owned())
    }

    /// This as JSON.
    #[must_use]
    pub(crate) fn json(value: &impl serde::Serialize) -> Self {
        // Go's encoder ends each value with a line.
        serde_json::to_vec(value).map_or_else(
            |error| Self::Error(500, error.to_string()),
            |mut text| {
                text.push(b'\n');
                Self::Json(text)
            },
        )
    }

    /// The bytes that answer `head`, at this time since 1970. `last`: the connection ends with them.
    #[must_use]
    pub(crate) fn bytes(self, head: &Head, last: bool, time: Duration) -> Vec<u8> {
        let is_plain = matches!(head.method.as_str(), "GET" | "HEAD");
        let (status, own, body, kind) = match self {
            Self::Done => (200, String::new(), Vec::new(), ""),
            Self::Json(text) => (200, String::new(), text, "Content-Type: text/plain; charset=utf-8\r\n"),
            Self::Error(status, why) => {
                let own = "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n";
                (status, own.to_owned(), format!("{why}\n").into_bytes(), "")
            }
            Self::Moved(to) if is_plain => {
                let body = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", escaped(&to));
                let own = format!("Content-Type: text/html; charset=utf-8\r\nLocation: {to}\r\n");
                (301, own, body.into_bytes(), "")
            }
            Self::Moved(to) => (301, format!("Location: {to}\r\n"), Vec::new(), ""),
        };
        let version = if head.current { "1.1" } else { "1.0" };
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + time);
        let connection = match (last, head.current) {
            (true, true) => "Connection: close\r\n",
            (false, false) => "Connection: keep-alive\r\n",
            _ => "",
        };
        let length = body.len();
        let mut bytes = format!(
            "HTTP/{version} {status} {}\r\n{own}Date: {date}\r\nContent-Length: {length}\r\n{kind}{connection}\r\n",
            reason(status)
        )
        .into_bytes();
        if head.method != "HEAD" {
            bytes.extend(body);
        }
        bytes
    }
}

impl Refusal {
    /// The bytes that it is said with.
    #[must_use]
    pub(crate) fn bytes(self) -> Vec<u8> {
        let Self { status, why } = self;
        let reason = reason(status);
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
             {status} {reason}{why}"
        )
        .into_bytes()
    }
}

/// A path within HTML.
fn escaped(path: &str) -> String {
    path.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// RFC 9110 §15.
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::{Parsed, parse};
    use super::*;

    fn answer(request: &str, reply: Reply, last: bool) -> String {
        let Parsed::Whole(head, _) = parse(request.as_bytes()) else { panic!("{request:?}") };
        String::from_utf8(reply.bytes(&head, last, Duration::from_secs(784_111_777))).unwrap()
    }

    #[test]
    fn answers_have_the_fields_that_go_gives_them() {
        let get = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(
            answer(get, Reply::Done, false),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            answer(get, Reply::json(&["a"]), false),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 6\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\r\n[\"a\"]\n"
        );
        assert_eq!(
            answer(get, Reply::Error(500, "proxy not found".into()), true),
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 16\r\n\
             Connection: close\r\n\r\nproxy not found\n"
        );
        let head = answer("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", Reply::not_found(), false);
        assert!(
            head.contains("404 Not Found")
                && head.contains("Content-Length: 19\r\n")
                && head.ends_with("\r\n\r\n")
        );
        let old = answer("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Reply::Done, false);
        assert!(old.starts_with("HTTP/1.0 200 OK\r\n") && old.contains("Connection: keep-alive\r\n"));
        let moved = answer(get, Reply::Moved("/services/".into()), false);
        assert!(moved.contains("Location: /services/\r\n"));
        assert!(moved.ends_with("\r\n\r\n<a href=\"/services/\">Moved Permanently</a>.\n\n"));
        assert_eq!(
            String::from_utf8(Refusal { status: 400, why: "missing required Host header" }.bytes()).unwrap(),
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
             400 Bad Request: missing required Host header"
        );
    }
}
