//! Where gvproxy is, and the way there.
//!
//! | URL | what |
//! |---|---|
//! | `vsock://CID:port/path` | a vsock stream, mostly to the host, whose CID is 2; the path is the one of the request |
//! | `unix:///path` | a Unix stream socket; the request is for `/connect` |
//! | `stdio:/program?k=v&…` | the program is started with `-k=v …`, and carries frames on its standard streams, without any request |
//!
//! A connection is waited for within bounds, and signals meanwhile. Contract: gvproxy §12; the words of errors are
//! those of Go's package `net`, and of its `vsock` for that.

use super::program::Program;
use crate::flags::quote;
use crate::listen::{Url, unescape, words};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, UnixAddr, VsockAddr, connect, getsockopt, socket,
    sockopt,
};
use slipway_host::device::fast;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How long a connection may take to come about: the kernel itself waits for 2 s (vsock(7)).
const PATIENCE: u16 = 10_000;

/// Where gvproxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Vsock { cid: u32, port: u32, path: String },
    Unix(PathBuf),
    Stdio { program: PathBuf, words: Vec<String> },
}

/// A connection: what it is read from and written to, and what is to be said on it before any frame.
///
/// Its fields go in this order: a program finds its streams closed before it is told to end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) input: OwnedFd,
    /// Another descriptor for what is sent, if it is one.
    pub(crate) output: Option<OwnedFd>,
    pub(crate) greeting: Vec<u8>,
    /// The program at the other end, if it is ours.
    pub(crate) program: Option<Program>,
}

impl Place {
    /// Reads a URL.
    ///
    /// # Errors
    /// In the words of Go.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|why| format!("parse {}: {why}", quote(text)))?;
        match url.scheme.as_str() {
            "vsock" => {
                let (cid, port) = url.host.rsplit_once(':').unwrap_or((&url.host, ""));
                Ok(Self::Vsock { cid: number(cid)?, port: number(port)?, path: url.path })
            }
            "unix" => Ok(Self::Unix(url.path.into())),
            "stdio" => Ok(Self::Stdio { program: url.path.into(), words: arguments(&url.query) }),
            _ => Err("unexpected scheme".to_owned()),
        }
    }

    /// Connects. `until` becomes readable when nobody wants that any more.
    ///
    /// # Errors
    /// In the words of Go.
    pub(crate) fn dial(&self, until: BorrowedFd<'_>) -> Result<Connection, String> {
        match self {
            Self::Vsock { cid, port, path } => {
                let address = VsockAddr::new(*cid, *port);
                let stream = stream(AddressFamily::Vsock, &address, until).map_err(|error| {
                    format!("dial vsock {}:{port}: {}", host(*cid), words("connect", &error))
                })?;
                Ok(Connection::new(stream, path))
            }
            Self::Unix(path) => {
                let failed =
                    |error: io::Error| format!("dial unix {}: {}", path.display(), words("connect", &error));
                let address = UnixAddr::new(path).map_err(|_| failed(Errno::EINVAL.into()))?;
                let stream = stream(AddressFamily::Unix, &address, until).map_err(failed)?;
                Ok(Connection::new(stream, "/connect"))
            }
            Self::Stdio { program, words: arguments } => {
                let failed = |error| words(&format!("fork/exec {}", program.display()), &error);
                spawned(Command::new(program).args(arguments)).map_err(failed)
            }
        }
    }
}

impl Connection {
    fn new(stream: OwnedFd, path: &str) -> Self {
        let greeting = if path.is_empty() { Vec::new() } else { request(path).into_bytes() };
        Self { input: stream, output: None, greeting, program: None }
    }

    /// Has the greeting ask for the fast link; whether there is a greeting.
    pub(crate) fn ask_for_fast_link(&mut self) -> bool {
        let Some(fields) = self.greeting.strip_suffix(b"\r\n") else { return false };
        let field = format!("{}: {}\r\n\r\n", fast::FIELD, fast::VERSION);
        self.greeting = [fields, field.as_bytes()].concat();
        true
    }
}

/// The request that turns the connection into a link. Nothing comes back but frames.
fn request(path: &str) -> String {
    // What would end the line, or the request, is no part of a path.
    let path: String =
        path.chars().filter(|letter| !letter.is_whitespace() && !letter.is_control()).collect();
    format!("POST {path} HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n")
}

fn stream(family: AddressFamily, address: &dyn SockaddrLike, until: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), address) {
        Ok(()) => return Ok(fd),
        Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut wait = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT), PollFd::new(until, PollFlags::POLLIN)];
    let ready = poll(&mut wait, PollTimeout::from(PATIENCE))?;
    if ready == 0 {
        return Err(Errno::ETIMEDOUT.into());
    }
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(fd),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// A program whose standard streams are the connection.
fn spawned(command: &mut Command) -> io::Result<Connection> {
    let mut program = Program::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let (input, output) = program.streams().ok_or(Errno::EPIPE)?;
    for fd in [&output, &input] {
        let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        fcntl(fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
    }
    Ok(Connection { input, output: Some(output), greeting: Vec::new(), program: Some(program) })
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", quote(text)))
}

/// How Go's `vsock` shows a CID (vsock(7) has the names).
fn host(cid: u32) -> String {
    let name = match cid {
        0 => "hypervisor",
        1 => "local",
        2 => "host",
        _ => "vm",
    };
    format!("{name}({cid})")
}

/// `k=v&…` as `-k=v …`, in that order.
fn arguments(query: &str) -> Vec<String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |text: &str| unescape(&text.replace('+', " ")).ok();
            Some(format!("-{}={}", plain(key)?, plain(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn urls_of_all_schemes_are_read() {
        let vsock = |cid, port, path: &str| Place::Vsock { cid, port, path: path.to_owned() };
        let stdio = |program: &str, words: &[&str]| Place::Stdio {
            program: program.into(),
            words: words.iter().map(ToString::to_string).collect(),
        };
        let cases = [
            ("vsock://2:1024/connect", vsock(2, 1024, "/connect")),
            ("vsock://3:9", vsock(3, 9, "")),
            ("unix:///run/api.sock", Place::Unix("/run/api.sock".into())),
            ("unix:///run/a%20b", Place::Unix("/run/a b".into())),
            (
                "stdio:/bin/gvproxy?listen-stdio=accept&ssh-port=-1",
                stdio("/bin/gvproxy", &["-listen-stdio=accept", "-ssh-port=-1"]),
            ),
            ("stdio:/mnt/c/a%20b.exe?x=1+2%2F3&debug", stdio("/mnt/c/a b.exe", &["-x=1 2/3", "-debug="])),
        ];
        for (text, place) in cases {
            assert_eq!(Place::parse(text), Ok(place), "{text}");
        }
        for (text, said) in [
            ("tcp://1.2.3.4:5", "unexpected scheme"),
            ("", "unexpected scheme"),
            ("vsock://:1024/connect", "strconv.Atoi: parsing \"\": invalid syntax"),
            ("vsock://2/connect", "strconv.Atoi: parsing \"\": invalid syntax"),
            ("vsock://null:1024/x", "strconv.Atoi: parsing \"null\": invalid syntax"),
            (":x", "parse \":x\": missing protocol scheme"),
        ] {
            assert_eq!(Place::parse(text), Err(said.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_socket_is_connected_to_with_a_request_before_frames() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let (never, _held) = UnixStream::pair().unwrap();
        let place = Place::Unix(path.clone());
        let said = place.dial(never.as_fd()).unwrap_err();
        assert_eq!(said, format!("dial unix {}: connect: no such file or directory", path.display()));
        let listener = UnixListener::bind(&path).unwrap();
        let connection = place.dial(never.as_fd()).unwrap();
        let mut asking = place.dial(never.as_fd()).unwrap();
        assert!(asking.ask_for_fast_link());
        assert!(asking.greeting.ends_with(b"Content-Length: 0\r\nSlipway-Fast-Link: 1\r\n\r\n"));
        assert!(connection.greeting.starts_with(b"POST /connect HTTP/1.1\r\nHost: \r\n"));
        assert!(connection.greeting.ends_with(b"\r\n\r\n") && connection.output.is_none());
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn a_path_cannot_say_more_than_a_path() {
        let request = request("/x y\r\nHost: z\n");
        assert_eq!(request.lines().count(), 4, "{request:?}");
        assert!(request.starts_with("POST /xyHost:z HTTP/1.1\r\n"));
    }

    #[test]
    fn a_program_is_started_and_told_to_end() {
        let (never, _held) = UnixStream::pair().unwrap();
        let place = Place::Stdio { program: "/bin/cat".into(), words: Vec::new() };
        let mut connection = place.dial(never.as_fd()).unwrap();
        assert!(!connection.ask_for_fast_link(), "there is no request");
        let output = connection.output.unwrap();
        nix::unistd::write(&output, b"frames").unwrap();
        let mut wait = [PollFd::new(connection.input.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut wait, PollTimeout::from(20_000_u16)), Ok(1));
        let mut back = [0; 6];
        assert_eq!(nix::unistd::read(&connection.input, &mut back), Ok(6));
        assert_eq!(&back, b"frames");
        let said = Place::Stdio { program: "/no/such".into(), words: Vec::new() };
        assert_eq!(said.dial(never.as_fd()).unwrap_err(), "fork/exec /no/such: no such file or directory");
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "(vsock|unix|stdio):[a-z:/%0-9?#&=+é\n]{0,40}") {
            let _ = Place::parse(&text);
        }
    }
}
