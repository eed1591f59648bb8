//! Where somebody listens: URLs of the command line, and the sockets that they become.
//!
//! | URL | socket |
//! |---|---|
//! | `unix:///path` | stream |
//! | `unixpacket:///path` | packets (`SOCK_SEQPACKET`) |
//! | `unixgram:///path` | datagrams |
//! | `tcp://host:port` | TCP; without a host, all addresses of both families |
//! | `vsock://cid:port` | vsock; without a CID, whatever this machine's are |
//!
//! A path is taken as it is: what a process that was killed has left behind is in the way (EADDRINUSE), as for the
//! original. Sockets are for their owner alone from the first moment on. Windows' and macOS' addresses have no scheme
//! here, or no number where one is wanted.
//!
//! Contract: gvproxy §4; words of errors are those of Go's packages `net` and `net/url`.

use crate::flags::quote;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, VsockAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, umask};
use slipway_host::strerror::strerror;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// As many clients as the system allows may wait to be accepted (`net.core.somaxconn`), as with Go.
const QUEUE: Backlog = Backlog::MAXALLOWABLE;
/// Any CID of this machine (vsock(7)).
const VMADDR_CID_ANY: u32 = u32::MAX;

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A stream.
    Unix(PathBuf),
    /// Packets, in order.
    UnixPacket(PathBuf),
    /// Datagrams.
    Unixgram(PathBuf),
    /// TCP: host, which may be empty, and port.
    Tcp(String, u16),
    /// vsock: CID and port.
    Vsock(Option<u32>, u32),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadUrl {
    /// It is no URL; the words of Go.
    Syntax(String),
    /// It is one, of no scheme that is served here, or without what that needs.
    Scheme(String),
}

/// A URL, taken apart.
#[derive(Debug)]
pub(crate) struct Url {
    /// In small letters.
    pub(crate) scheme: String,
    pub(crate) host: String,
    /// Without its `%20`s.
    pub(crate) path: String,
    /// As it was written.
    pub(crate) query: String,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// See [`BadUrl`].
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let url = Url::parse(text).map_err(|why| BadUrl::Syntax(format!("parse {}: {why}", quote(text))))?;
        // A path that does not begin with a slash lies where a host would.
        let path = || PathBuf::from(format!("{}{}", url.host, url.path));
        match url.scheme.as_str() {
            "unix" => Ok(Self::Unix(path())),
            "unixpacket" => Ok(Self::UnixPacket(path())),
            "unixgram" => Ok(Self::Unixgram(path())),
            "tcp" => {
                let missing =
                    || BadUrl::Scheme(format!("listen tcp: address {}: missing port in address", url.host));
                let (host, port) = url.host.rsplit_once(':').ok_or_else(missing)?;
                let port = port
                    .parse()
                    .map_err(|_| BadUrl::Scheme(format!("listen tcp: lookup tcp/{port}: unknown port")))?;
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                Ok(Self::Tcp(host.to_owned(), port))
            }
            "vsock" => {
                let (cid, port) = url.host.rsplit_once(':').unwrap_or(("", &url.host));
                let cid = if cid.is_empty() { None } else { Some(number(cid)?) };
                Ok(Self::Vsock(cid, number(port)?))
            }
            _ => Err(BadUrl::Scheme("unexpected scheme".to_owned())),
        }
    }

    /// Where in the file system it is.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) | Self::UnixPacket(path) | Self::Unixgram(path) => Some(path),
            Self::Tcp(..) | Self::Vsock(..) => None,
        }
    }

    /// Listens there, with a socket that does not block. For a process with one thread: the file mode of new files is
    /// the process's.
    ///
    /// # Errors
    /// One line, in the words of Go.
    pub fn listen(&self) -> Result<OwnedFd, String> {
        let failed = |network: &str, what: &str, error: io::Error| {
            format!("listen {network} {what}: {}", words("bind", &error))
        };
        match self {
            Self::Unix(path) => unix(path, SockType::Stream)
                .map_err(|errno| failed("unix", &path.to_string_lossy(), errno.into())),
            Self::UnixPacket(path) => unix(path, SockType::SeqPacket)
                .map_err(|errno| failed("unixpacket", &path.to_string_lossy(), errno.into())),
            Self::Unixgram(path) => unix(path, SockType::Datagram)
                .map_err(|errno| failed("unixgram", &path.to_string_lossy(), errno.into())),
            Self::Tcp(host, port) => {
                let shown =
                    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                tcp(host, *port).map_err(|error| failed("tcp", &shown, error))
            }
            Self::Vsock(cid, port) => vsock(*cid, *port).map_err(|errno| {
                let shown = cid.map_or_else(|| format!(":{port}"), |cid| format!("{cid}:{port}"));
                failed("vsock", &shown, errno.into())
            }),
        }
    }
}

/// A kernel's refusal of `call` in Go's words: the call, and strerror(3) in small letters.
#[must_use]
pub fn words(call: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{call}: {}", strerror(Errno::from_raw(code)).to_lowercase()),
        None => error.to_string(),
    }
}

fn number(text: &str) -> Result<u32, BadUrl> {
    text.parse()
        .map_err(|_| BadUrl::Scheme(format!("strconv.ParseUint: parsing {}: invalid syntax", quote(text))))
}

fn unix(path: &Path, kind: SockType) -> Result<OwnedFd, Errno> {
    let address = UnixAddr::new(path).map_err(|_| Errno::EINVAL)?;
    if address.path().is_none() {
        // The kernel would choose a name of its own for it.
        return Err(Errno::EINVAL);
    }
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(fd.as_raw_fd(), &address);
    umask(before);
    bound?;
    if kind != SockType::Datagram {
        listen(&fd, QUEUE)?;
    }
    Ok(fd)
}

fn tcp(host: &str, port: u16) -> io::Result<OwnedFd> {
    let listener = if host.is_empty() {
        // Both families by one socket, where there are both.
        let both = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        both.or_else(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            }
            _ => Err(error),
        })?
    } else {
        let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
        TcpListener::bind(addresses.as_slice())?
    };
    listener.set_nonblocking(true)?;
    // Its own queue has 128 places; a second listen(2) changes that.
    listen(&listener, QUEUE)?;
    Ok(listener.into())
}

fn vsock(cid: Option<u32>, port: u32) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    bind(fd.as_raw_fd(), &VsockAddr::new(cid.unwrap_or(VMADDR_CID_ANY), port))?;
    listen(&fd, QUEUE)?;
    Ok(fd)
}

impl Url {
    /// As `net/url.Parse` takes it apart, as far as an address of ours has parts.
    ///
    /// # Errors
    /// In the words of Go.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = match text.split_once(':') {
            Some(("", _)) => return Err("missing protocol scheme".to_owned()),
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            Some((first, _)) if !first.contains('/') => {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
            _ => (String::new(), text),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, "")),
            None => ("", rest),
        };
        Ok(Self { scheme, host: host.to_owned(), path: unescape(path)?, query: query.to_owned() })
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// A path without its `%20`s.
///
/// # Errors
/// In the words of Go.
pub(crate) fn unescape(path: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let bad = || {
            let shown: String = after.chars().take(2).collect();
            format!("invalid URL escape {}", quote(&format!("%{shown}")))
        };
        let code =
            after.get(..2).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit())).ok_or_else(bad)?;
        bytes.push(u8::from_str_radix(code, 16).map_err(|_| bad())?);
        rest = after.get(2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| "path is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn urls_of_all_schemes_are_read() {
        let cases = [
            ("unix:///run/a b", Endpoint::Unix("/run/a b".into())),
            ("unix:///run/a%20b?x#y", Endpoint::Unix("/run/a b".into())),
            ("UNIX://here/q.sock", Endpoint::Unix("here/q.sock".into())),
            ("unixpacket:///p", Endpoint::UnixPacket("/p".into())),
            ("unixgram:///p", Endpoint::Unixgram("/p".into())),
            ("tcp://127.0.0.1:80", Endpoint::Tcp("127.0.0.1".into(), 80)),
            ("tcp://[::1]:80", Endpoint::Tcp("::1".into(), 80)),
            ("tcp://:80", Endpoint::Tcp(String::new(), 80)),
            ("vsock://:1024", Endpoint::Vsock(None, 1024)),
            ("vsock://2:1024/connect", Endpoint::Vsock(Some(2), 1024)),
        ];
        for (text, endpoint) in cases {
            assert_eq!(Endpoint::parse(text), Ok(endpoint), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_here_is_said_in_go_s_words() {
        let scheme = |text: &str| BadUrl::Scheme(text.to_owned());
        let syntax = |text: &str| BadUrl::Syntax(text.to_owned());
        let cases = [
            ("npipe:////./pipe/x", scheme("unexpected scheme")),
            ("/run/x.sock", scheme("unexpected scheme")),
            ("", scheme("unexpected scheme")),
            ("vsock://null:1024/dir", scheme("strconv.ParseUint: parsing \"null\": invalid syntax")),
            (
                "vsock://0400-facb-11e6",
                scheme("strconv.ParseUint: parsing \"0400-facb-11e6\": invalid syntax"),
            ),
            ("tcp://127.0.0.1", scheme("listen tcp: address 127.0.0.1: missing port in address")),
            (":x", syntax("parse \":x\": missing protocol scheme")),
            ("1:x", syntax("parse \"1:x\": first path segment in URL cannot contain colon")),
            ("unix:///a%2", syntax("parse \"unix:///a%2\": invalid URL escape \"%2\"")),
            ("unix:///a\n", syntax("parse \"unix:///a\\n\": net/url: invalid control character in URL")),
        ];
        for (text, error) in cases {
            assert_eq!(Endpoint::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sockets_are_their_owner_s_and_what_is_there_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for endpoint in [Endpoint::Unix(at("a")), Endpoint::UnixPacket(at("b")), Endpoint::Unixgram(at("c"))]
        {
            let path = endpoint.path().unwrap().to_owned();
            let _socket = endpoint.listen().unwrap();
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            let said = endpoint.listen().unwrap_err();
            assert!(said.ends_with(&format!(" {}: bind: address already in use", path.display())), "{said}");
        }
        let said = Endpoint::Unix(at("no/where")).listen().unwrap_err();
        assert!(said.ends_with("bind: no such file or directory"), "{said}");
        let said = Endpoint::Unix(at(&"x".repeat(120))).listen().unwrap_err();
        assert!(said.ends_with("bind: invalid argument"), "{said}");
        assert!(Endpoint::Unix(PathBuf::new()).listen().is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_said() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let said = Endpoint::Tcp("127.0.0.1".into(), port).listen().unwrap_err();
        assert_eq!(said, format!("listen tcp 127.0.0.1:{port}: bind: address already in use"));
        assert!(Endpoint::Tcp(String::new(), 0).listen().is_ok());
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "[a-z:/%0-9?#\\[\\]é\n]{0,40}") {
            let _ = Endpoint::parse(&text);
        }
    }
}
