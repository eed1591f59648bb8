//! Whoever holds the keys: a process that signs with them and does nothing else.
//!
//! ```text
//!   control process                       keeper
//!   "the public half of FILE" ─────▶  reads FILE, each time anew
//!                             ◀─────  the public half, or why there is none
//!   "FILE, what to sign"      ─────▶  reads FILE
//!                             ◀─────  a signature
//! ```
//! The control process talks to strangers and to guests; it opens no file, and no private key is ever in its memory:
//! whoever takes it over can log in to guests for as long as he has it, and takes no key along. Which files are keys is
//! known only when somebody names one, so this process may read any, but what it gives out of them is a public half and
//! signatures. It ends when the control process does.
//!
//! One question at a time, each a packet with a number, which its answer has, too: whoever asked may have gone before
//! that came. A question that makes no sense ends the process.

use super::client::Public;
use super::identity::Identity;
use super::wire::{Malformed, Put as _, Reader};
use crate::control::stream::watch;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use slipway_host::sandbox::caps::Capability;
use slipway_host::sandbox::files::Place;
use slipway_host::sandbox::{Needs, seccomp};
use slipway_host::strerror;
use slipway_host::sys::proc::fork_child;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

/// Bytes of a question or an answer.
const LONGEST: usize = 16 << 10;
/// Bytes of a key's file.
const LONGEST_FILE: u64 = 64 << 10;
/// Tells the public half from a signature, and an answer from an excuse.
const NAME: u8 = 0;
const SIGN: u8 = 1;
const DONE: u8 = 0;
const FAILED: u8 = 1;

/// Starts a keeper: our end of the way to it. To be called before there is any thread. `forget` is run in it first:
/// what is open there and none of its business.
///
/// # Errors
/// The kernel's: out of processes or descriptors.
pub(crate) fn fork(forget: impl FnOnce()) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut ours = Some(ours);
    fork_child(|| {
        ours = None;
        forget();
        settle();
        serve(&theirs);
        0
    })?;
    ours.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))
}

/// What is left to it: to read files.
pub(super) fn settle() {
    slipway_host::sandbox::settle(&Needs {
        files: &[Place::read("/")],
        // A key may be another user's than root.
        capabilities: &[Capability::CAP_DAC_READ_SEARCH],
        calls: seccomp::Profile::Keys,
    });
}

fn serve(socket: &OwnedFd) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let len = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            Ok(0) | Err(_) => return,
            Ok(len) => len,
        };
        let Ok(answer) = answer(buffer.get(..len).unwrap_or_default()) else { return };
        if send(socket.as_raw_fd(), &answer, MsgFlags::MSG_NOSIGNAL).is_err() {
            return;
        }
    }
}

fn answer(question: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(question);
    let number = reader.number()?;
    let kind = reader.byte()?;
    let path = Path::new(OsStr::from_bytes(reader.string()?));
    let message = reader.string()?;
    reader.end()?;
    let answer = read(path).and_then(|key| match kind {
        NAME => {
            let Public { algorithm, blob } = key.public();
            Ok((algorithm.into_bytes(), blob))
        }
        _ => Ok((Vec::new(), key.sign(message).ok_or("there are no random numbers")?)),
    });
    let mut bytes = number.to_be_bytes().to_vec();
    match answer {
        Ok((first, second)) => {
            bytes.push(DONE);
            bytes.string(&first);
            bytes.string(&second);
        }
        Err(why) => {
            bytes.push(FAILED);
            bytes.string(why.as_bytes());
            bytes.string(b"");
        }
    }
    Ok(bytes)
}

/// The key in a file, or why there is none.
fn read(path: &Path) -> Result<Identity, String> {
    let failed =
        |call: &str, error: &io::Error| crate::listen::words(&format!("{call} {}", path.display()), error);
    // A pipe keeps nobody waiting.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.map_err(|error| failed("open", &error))?;
    let kind = file.metadata().map_err(|error| failed("stat", &error))?;
    if !kind.is_file() {
        let what = if kind.is_dir() { "is a directory" } else { "is no file" };
        return Err(format!("read {}: {what}", path.display()));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| failed("read", &error))?;
    if u64::try_from(bytes.len()).map_or(true, |len| len > LONGEST_FILE) {
        return Err(format!("{}: it is no private key", path.display()));
    }
    Identity::parse(&bytes).map_err(|why| format!("{}: {why}", path.display()))
}

/// The way to the keeper.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// One question at a time. `None`: there is no keeper.
    socket: Option<Mutex<AsyncFd<OwnedFd>>>,
    /// The number of the last question.
    last: Cell<u32>,
}

impl Keeper {
    /// The way by this socket.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub(crate) fn new(socket: Option<OwnedFd>) -> io::Result<Self> {
        let watched = socket.map(|socket| {
            nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            watch(socket, Interest::READABLE)
        });
        Ok(Self { socket: watched.transpose()?.map(Mutex::new), last: Cell::new(0) })
    }

    /// The public half of the key in this file.
    ///
    /// # Errors
    /// Why there is none, in a line.
    pub(super) async fn public(&self, path: &Path) -> Result<Public, String> {
        let (algorithm, blob) = self.ask(NAME, path, b"").await?;
        let algorithm = String::from_utf8(algorithm).map_err(|_| "no name".to_owned())?;
        Ok(Public { algorithm, blob })
    }

    /// A signature by the key in this file.
    ///
    /// # Errors
    /// Why there is none, in a line.
    pub(super) async fn sign(&self, path: &Path, message: &[u8]) -> Result<Vec<u8>, String> {
        self.ask(SIGN, path, message).await.map(|(_, signature)| signature)
    }

    async fn ask(&self, kind: u8, path: &Path, message: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let gone = || "nobody holds keys any more".to_owned();
        let socket = self.socket.as_ref().ok_or_else(gone)?.lock().await;
        let number = self.last.get().wrapping_add(1);
        self.last.set(number);
        let mut question = number.to_be_bytes().to_vec();
        question.push(kind);
        question.string(path.as_os_str().as_bytes());
        question.string(message);
        if question.len() > LONGEST {
            return Err("its path is too long".to_owned());
        }
        let sent = send(socket.as_raw_fd(), &question, MsgFlags::MSG_NOSIGNAL);
        sent.map_err(|_| gone())?;
        let mut answer = vec![0; LONGEST];
        loop {
            let mut ready = socket.readable().await.map_err(|error| strerror::words(&error))?;
            let len = match recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::EINTR) => continue,
                Ok(len) => len,
                Err(_) => return Err(gone()),
            };
            let mut reader = Reader::new(answer.get(..len).unwrap_or_default());
            let mut parts = || {
                Ok((reader.number()?, reader.byte()?, reader.string()?.to_vec(), reader.string()?.to_vec()))
            };
            match parts().map_err(|Malformed| gone())? {
                // Of a question that nobody waits for any more.
                (other, ..) if other != number => {}
                (_, DONE, first, second) => return Ok((first, second)),
                (_, _, why, _) => return Err(String::from_utf8_lossy(&why).into_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
