//! Sockets of any family on tokio: TCP, Unix, vsock, and what the packets process hands over. tokio's own types know
//! one family each.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, SockaddrLike as _, SockaddrStorage, getpeername, send, shutdown};
use slipway_host::sys::fdpass;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// How long nobody is accepted after descriptors or memory have run out.
const REST: Duration = Duration::from_millis(100);

/// Has the runtime wait for `fd`, which does not block.
///
/// # Errors
/// The kernel's: out of watches or memory.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for what does not own its descriptor; this one is owned"
)]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// A connected stream.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: AsyncFd<OwnedFd>,
}

impl Stream {
    /// The stream that is `fd`, which does not block.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: watch(fd, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// The descriptor, which nobody waits for any more.
    #[must_use]
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd.into_inner()
    }

    /// The other end's address and port, of TCP.
    #[must_use]
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        let address: SockaddrStorage = getpeername(self.fd.as_raw_fd()).ok()?;
        match address.family()? {
            nix::sys::socket::AddressFamily::Inet => {
                address.as_sockaddr_in().map(|a| SocketAddr::V4((*a).into()))
            }
            nix::sys::socket::AddressFamily::Inet6 => {
                address.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into()))
            }
            _ => None,
        }
    }

    /// Receives what comes with the next bytes: descriptors, or none.
    ///
    /// # Errors
    /// The end; those of recvmsg(2); `InvalidData`: too many came.
    pub(crate) async fn receive_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        loop {
            let mut guard = self.fd.readable().await?;
            let received = guard.try_io(|fd| fdpass::receive_all(fd.get_ref().as_fd(), &mut [0; 64]));
            match received {
                Ok(Ok((0, _))) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => return received.map(|(_, descriptors)| descriptors),
                Err(_) => {}
            }
        }
    }

    /// Waits until the other end has closed; for ever, if it sends something.
    pub(crate) async fn closed(&self) {
        if self.readable().await.is_ok() {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            if !matches!(nix::sys::socket::recv(self.fd.as_raw_fd(), &mut [0], flags), Ok(0) | Err(_)) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until there is something to read, or the end.
    ///
    /// # Errors
    /// When the runtime ends.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        loop {
            let mut guard = self.fd.readable().await?;
            // What was known of it may be old: look.
            let seen = nix::sys::socket::recv(
                self.fd.as_raw_fd(),
                &mut [0],
                MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
            );
            if seen == Err(Errno::EAGAIN) {
                guard.clear_ready();
            } else {
                return Ok(());
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            let read = guard.try_io(|fd| nix::unistd::read(fd.get_ref(), space).map_err(io::Error::from));
            match read {
                Ok(Ok(len)) => {
                    buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(context))?;
            let sent = guard
                .try_io(|fd| send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map_err(io::Error::from));
            if let Ok(sent) = sent {
                return Poll::Ready(sent);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The other end may have gone away already.
        match shutdown(self.fd.as_raw_fd(), Shutdown::Write) {
            Ok(()) | Err(Errno::ENOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}

/// Where clients come to.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: AsyncFd<OwnedFd>,
}

impl Listener {
    /// The listener that is `fd`, which does not block.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: watch(fd, Interest::READABLE)? })
    }

    /// Waits for the next client, however many of them go away meanwhile, and until there are descriptors for it.
    pub(crate) async fn accept(&self) -> Stream {
        loop {
            match self.next().await {
                Ok(stream) => return stream,
                Err(error) => {
                    log::warn!("clients have to wait: {error}");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    async fn next(&self) -> io::Result<Stream> {
        loop {
            let mut guard = self.fd.readable().await?;
            match guard.try_io(|fd| fdpass::accept(fd.get_ref().as_fd())) {
                Ok(Ok(client)) => return Stream::new(client),
                // accept(2): the error of a client that is gone.
                Ok(Err(error)) if is_exhausted(&error) => return Err(error),
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EINVAL | Errno::EBADF)
    )
}

/// Carries bytes both ways until both have ended, or one is broken. An end is passed on.
pub(crate) async fn relay(
    mut one: impl AsyncRead + AsyncWrite + Unpin,
    mut other: impl AsyncRead + AsyncWrite + Unpin,
) {
    const ROOM: usize = 8 << 10;
    // What is broken is closed by that; there is nobody to tell.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut one, &mut other, ROOM, ROOM).await;
}
