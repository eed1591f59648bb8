//! Errors, in the words that callers of `netavark` have learnt to read.
//!
//! One error is a chain: what was being done, and why it failed, joined by `: `. The reason at the end of the chain has
//! a fixed opening for its kind (`IO error: `, `Netlink error: `, ...), because callers look for kernel messages behind
//! it. Several errors (teardown collects them) print as a list; a list of one prints as that one.
//!
//! On standard output a failure is exactly one object with exactly one key, `{"error":"..."}`: the caller refuses
//! others.

use nix::errno::Errno;
use std::fmt::{self, Write as _};
use std::io;

/// What most functions here return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed.
#[derive(Debug)]
pub enum Error {
    /// A text of its own.
    Message(String),
    /// What was being done, around why it failed.
    Context {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: Box<Self>,
    },
    /// A file or socket.
    Io(io::Error),
    /// The kernel refused a netlink request.
    Netlink(Errno),
    /// The bus, or a service on it.
    Dbus(String),
    /// An answer of a bus service that is not of the promised type.
    DbusVariant(String),
    /// JSON that cannot be understood.
    Json(serde_json::Error),
    /// Not a subnet.
    Subnet(ipnet::AddrParseError),
    /// Not an address.
    Address(std::net::AddrParseError),
    /// Several things failed, and the work went on.
    Several(Vec<Self>),
}

impl Error {
    /// An error with a text of its own.
    pub fn msg(text: impl Into<String>) -> Self {
        Self::Message(text.into())
    }

    /// The errno at the end of the chain, if it ends in one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Context { source, .. } => source.errno(),
            Self::Io(error) => error.raw_os_error().map(Errno::from_raw),
            Self::Netlink(errno) => Some(*errno),
            Self::Several(list) => match list.as_slice() {
                [one] => one.errno(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The line for standard output, without its end of line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!({ "error": self.to_string() }).to_string()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(text) => f.write_str(text),
            Self::Context { doing, source } => write!(f, "{doing}: {source}"),
            Self::Io(error) => write!(f, "IO error: {error}"),
            Self::Netlink(errno) => {
                write!(f, "Netlink error: {}", io::Error::from_raw_os_error(*errno as i32))
            }
            Self::Dbus(text) => write!(f, "DBus error: {text}"),
            Self::DbusVariant(text) => write!(f, "DBus Variant Error: {text}"),
            Self::Json(error) => write!(f, "JSON Decoding error: {error}"),
            Self::Subnet(error) => write!(f, "parsing IP subnet error: {error}"),
            Self::Address(error) => write!(f, "parsing IP address error: {error}"),
            Self::Several(list) => match list.as_slice() {
                [one] => fmt::Display::fmt(one, f),
                list => {
                    f.write_str("netavark encountered multiple errors:")?;
                    list.iter().try_for_each(|error| write!(f, "\n\t- {error}"))
                }
            },
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Context { source, .. } => Some(source),
            Self::Io(error) => Some(error),
            Self::Json(error) => Some(error),
            Self::Subnet(error) => Some(error),
            Self::Address(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// An errno from anywhere but netlink is an I/O error.
impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The kernel's answer alone: what was being done is said by our own context, in the contracted words.
impl From<slipway_host::netlink::Error> for Error {
    fn from(error: slipway_host::netlink::Error) -> Self {
        error.errno().map_or_else(|| Self::Message(format!("Netlink error: {error}")), Self::Netlink)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl From<ipnet::AddrParseError> for Error {
    fn from(error: ipnet::AddrParseError) -> Self {
        Self::Subnet(error)
    }
}

impl From<std::net::AddrParseError> for Error {
    fn from(error: std::net::AddrParseError) -> Self {
        Self::Address(error)
    }
}

/// Says what was being done.
pub trait Context<T> {
    /// Puts `doing: ` before the error.
    ///
    /// # Errors
    /// The same, with the context.
    fn context(self, doing: impl Into<String>) -> Result<T>;

    /// The same, for a text that costs something to make.
    ///
    /// # Errors
    /// The same, with the context.
    fn with_context(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, doing: impl Into<String>) -> Result<T> {
        self.with_context(|| doing.into())
    }

    fn with_context(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Context { doing: doing(), source: Box::new(error.into()) })
    }
}

/// Collects what failed while the work goes on.
#[derive(Debug, Default)]
pub struct Errors(Vec<Error>);

impl Errors {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers an error; a list is taken apart, so that lists do not nest.
    pub fn push(&mut self, error: impl Into<Error>) {
        match error.into() {
            Error::Several(list) => self.0.extend(list),
            error => self.0.push(error),
        }
    }

    /// Remembers the error of `result`, if it is one; otherwise hands out its value.
    pub fn note<T, E: Into<Error>>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that failed, as one result.
    ///
    /// # Errors
    /// [`Error::Several`] if there were any.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Several(self.0)) }
    }

    /// All that failed on one line, for the log; `None` if nothing did.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let mut line = String::new();
        for error in &self.0 {
            let separator = if line.is_empty() { "" } else { "; " };
            // Writing to a string cannot fail.
            let _ = write!(line, "{separator}{error}");
        }
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_words() {
        let missing = || io::Error::from_raw_os_error(2);
        let cases = [
            (Error::msg("no static ips provided"), "no static ips provided"),
            (Error::from(missing()), "IO error: No such file or directory (os error 2)"),
            (Error::Netlink(Errno::ENODEV), "Netlink error: No such device (os error 19)"),
            (Error::Dbus("gone".into()), "DBus error: gone"),
            (Error::DbusVariant("odd".into()), "DBus Variant Error: odd"),
            (
                serde_json::from_str::<u8>("").unwrap_err().into(),
                "JSON Decoding error: EOF while parsing a value at line 1 column 0",
            ),
            (
                "x".parse::<ipnet::IpNet>().unwrap_err().into(),
                "parsing IP subnet error: invalid IP address syntax",
            ),
            (
                "x".parse::<std::net::IpAddr>().unwrap_err().into(),
                "parsing IP address error: invalid IP address syntax",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn context_goes_in_front_and_the_errno_is_found_behind_it() {
        let error = Err::<(), _>(io::Error::from_raw_os_error(30))
            .context("set sysctl net/ipv4/ip_forward")
            .with_context(|| "bridge".to_owned())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "bridge: set sysctl net/ipv4/ip_forward: IO error: Read-only file system (os error 30)"
        );
        assert_eq!(error.errno(), Some(Errno::EROFS));
    }

    #[test]
    fn several_print_as_a_list_and_one_as_itself() {
        let mut errors = Errors::new();
        assert!(errors.is_empty() && errors.line().is_none());
        errors.push(Error::msg("one"));
        assert_eq!(errors.note(Ok::<_, Error>(7)), Some(7));
        let single = Error::Several(vec![Error::msg("one")]);
        assert_eq!(single.to_string(), "one");
        let mut inner = Errors::new();
        inner.push(Error::msg("two"));
        inner.push(Error::msg("three"));
        errors.note(inner.finish());
        assert_eq!(errors.line().unwrap(), "one; two; three");
        assert_eq!(
            errors.finish().unwrap_err().to_string(),
            "netavark encountered multiple errors:\n\t- one\n\t- two\n\t- three"
        );
    }

    #[test]
    fn the_object_has_one_key() {
        let error = Error::msg("a \"quoted\" word\nand a line");
        assert_eq!(error.to_json(), r#"{"error":"a \"quoted\" word\nand a line"}"#);
    }
}
