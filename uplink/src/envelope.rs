//! What is around every message of the uplink: how long it may be, and replies, either `{"return": ...}` or
//! `{"error": "..", "errno": n}`. Its workers reply to it in the same way.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_host::strerror::words;
use std::io;

/// A request has at most this many bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// A reply is not longer: the status of as many networks as there may be.
pub const MAX_REPLY: usize = 16 * MAX_REQUEST;

/// Why a client does not get what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// One line that says what to do.
    pub text: String,
    /// The kernel's number, where a system call failed.
    pub errno: Option<i32>,
}

impl Refusal {
    /// One that no system call is to blame for.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), errno: None }
    }

    /// For a system call that failed.
    #[must_use]
    pub fn system(doing: &str, error: &io::Error) -> Self {
        Self { text: format!("cannot {doing}: {}", words(error)), errno: error.raw_os_error() }
    }

    /// As a reply.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self.errno {
            Some(errno) => json!({ "error": self.text, "errno": errno }).to_string(),
            None => json!({ "error": self.text }).to_string(),
        }
    }
}

/// The reply to a request that was carried out.
#[must_use]
pub fn granted(value: &Value) -> String {
    json!({ "return": value }).to_string()
}

/// Why whoever asked has no reply to make use of.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The uplink does not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It does not answer.
    #[error("cannot speak with the uplink: {}", words(.0))]
    Lost(io::Error),
    /// The request has so many bytes, so it was not sent.
    #[error("the uplink takes {most} bytes at a time, not {0}", most = MAX_REQUEST)]
    TooLong(usize),
    /// What it says is no reply.
    #[error("the uplink's reply makes no sense: {0}")]
    Senseless(String),
}

impl Failure {
    /// The kernel's number, where a system call failed, here or there.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => refusal.errno,
            Self::Lost(error) => error.raw_os_error(),
            Self::TooLong(_) | Self::Senseless(_) => None,
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal,
            other => Self { errno: other.errno(), text: other.to_string() },
        }
    }
}

/// What a reply says, for those who asked.
///
/// # Errors
/// The refusal, or that it is no reply at all.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let senseless = |error: serde_json::Error| Failure::Senseless(error.to_string());
    let mut reply: Value = serde_json::from_slice(bytes).map_err(senseless)?;
    if let Some(text) = reply.get("error").and_then(Value::as_str) {
        let errno = reply.get("errno").and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
        return Err(Refusal { text: text.to_owned(), errno }.into());
    }
    match reply.get_mut("return").map(Value::take) {
        Some(value) => serde_json::from_value(value).map_err(senseless),
        None => Err(Failure::Senseless("neither return nor error".to_owned())),
    }
}

/// What is repeated of a wrong text.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_understood() {
        let value: Value = read(granted(&json!({ "a": 1 })).as_bytes()).unwrap();
        assert_eq!(value, json!({ "a": 1 }));
        for refusal in [Refusal { text: "no".into(), errno: Some(98) }, Refusal::new("no")] {
            let failure = read::<Value>(refusal.to_json().as_bytes()).unwrap_err();
            assert_eq!((failure.errno(), failure.to_string()), (refusal.errno, "no".into()));
            assert_eq!(Refusal::from(failure), refusal);
        }
        for bad in ["", "{}", "[]", "\"x\"", r#"{"error":1}"#, "\0"] {
            let failure = read::<Value>(bad.as_bytes()).unwrap_err();
            assert!(matches!(failure, Failure::Senseless(_)), "{bad}: {failure}");
        }
        let failure = read::<u8>(br#"{"return":-1}"#).unwrap_err();
        assert!(failure.to_string().starts_with("the uplink's reply makes no sense: "), "{failure}");
    }

    #[test]
    fn a_system_call_that_failed_is_told_with_its_number() {
        let system = Refusal::system("listen", &io::Error::from_raw_os_error(98));
        assert_eq!(system.to_json(), r#"{"errno":98,"error":"cannot listen: Address already in use"}"#);
        let lost = Failure::Lost(io::Error::from_raw_os_error(32));
        assert_eq!(
            (lost.errno(), lost.to_string()),
            (Some(32), "cannot speak with the uplink: Broken pipe".into())
        );
    }
}
