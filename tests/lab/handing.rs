//! Descriptors that are handed over at a socket (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

const LIMIT: Duration = Duration::from_secs(20);

/// Hands descriptors over at the socket `at`, with a byte of zero, as Go's programs do; what is answered until the
/// other end closes.
pub fn hand_over(at: &Path, descriptors: &[BorrowedFd<'_>]) -> io::Result<String> {
    let mut stream = UnixStream::connect(at)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let numbers: Vec<_> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&[0])], control, MsgFlags::empty(), None)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
