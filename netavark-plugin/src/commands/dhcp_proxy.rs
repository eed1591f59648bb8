//! `dhcp-proxy`: serves leases on a Unix socket until a signal, or until nobody needs it.
//!
//! The socket comes from systemd, or is made here; one that was made here is removed at the end. Leases are not
//! released then: the containers live on with their addresses.

use crate::cli::DhcpProxy;
use crate::dhcp::proxy::service::Service;
use crate::dhcp::{async_fd, opener};
use crate::error::{Context as _, Error, Result};
use crate::proto::NetavarkProxyServer;
use nix::sys::signal::Signal;
use nix::sys::socket::SockType;
use slipway_host::activation::{self, ActivationError, Addressee};
use slipway_host::driver::raise_descriptor_limit;
use slipway_host::environment;
use slipway_host::sandbox::caps::Capability;
use slipway_host::sandbox::files::Place;
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::{self, Needs};
use slipway_host::signals::Signals;
use slipway_host::sys::fdpass;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;

/// The run directory when nobody says; `$NETAVARK_PROXY_RUN_DIR_ENV` beats the option, by contract.
const DIR: &str = "/run/podman";
const DIR_VARIABLE: &str = "NETAVARK_PROXY_RUN_DIR_ENV";
/// The socket in it.
const SOCKET: &str = "nv-proxy.sock";
/// How long callers wait when there is no descriptor for them.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves.
///
/// # Errors
/// What keeps it from serving.
pub(super) fn run(options: &DhcpProxy) -> Result<()> {
    crate::logging::never_wait();
    let given = environment::variable(DIR_VARIABLE).map(PathBuf::from);
    let dir = given.or_else(|| options.dir.clone()).unwrap_or_else(|| DIR.into());
    // Before the socket exists, so that no signal finds it and leaves it behind.
    let signals = Signals::catch(&[Signal::SIGTERM, Signal::SIGINT]).context("catch signals")?;
    opener::start().context("start the process that opens namespaces")?;
    let (listener, made) = listener(&dir)?;
    // Each lease has a timer.
    if let Err(error) = raise_descriptor_limit() {
        log::info!("the limit of open descriptors stays as it is: {error}");
    }
    let service = Service::new(&dir, Duration::from_secs(options.timeout.into()));
    let served =
        service.and_then(|service| serve(&service, listener, &signals, (&dir, options.activity_timeout)));
    if let Some(path) = made
        && let Err(error) = fs::remove_file(&path)
    {
        log::warn!("cannot remove the socket {}: {error}", path.display());
    }
    served
}

fn serve(
    service: &Service,
    listener: UnixListener,
    signals: &Signals,
    (dir, patience): (&Path, u64),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    settle(dir);
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        // Without descriptors to accept with the socket stays ready, and would be tried again and again.
        let incoming = UnixListenerStream::new(listener).then(async |accepted| {
            if accepted.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            accepted
        });
        let server = tonic::transport::Server::builder()
            .serve_with_incoming(NetavarkProxyServer::new(service.clone()), incoming);
        tokio::select! {
            served = server => served.map_err(|error| Error::msg(format!("serve leases: {error}"))),
            caught = caught(signals) => {
                log::warn!("received {}, ending", caught?);
                Ok(())
            }
            () = service.idle(Duration::from_secs(patience)), if patience > 0 => {
                log::info!("nobody wanted anything for {patience} seconds, ending");
                Ok(())
            }
        }
    })
}

/// Gives up what leases do not take: packet sockets on the host's interfaces, netlink sockets in the containers'
/// namespaces, and the run directory.
fn settle(dir: &Path) {
    sandbox::settle(&Needs {
        files: &[Place::write(dir), Place::read("/proc/sys/net")],
        capabilities: &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_SYS_ADMIN],
        calls: Profile::Leases,
    });
}

/// The socket to listen on, and its path when it was made here.
fn listener(dir: &Path) -> Result<(UnixListener, Option<PathBuf>)> {
    // Like netavark it does not look for whom the socket was opened.
    let handed_over = match activation::socket(Addressee::Whoever) {
        Err(ActivationError::Take(error)) => Err(error).context("take the socket from systemd")?,
        handed_over => handed_over.map_err(|error| Error::msg(error.to_string()))?,
    };
    match handed_over {
        Some(fd) => {
            let listener = fdpass::unix_listener(fd, SockType::Stream)
                .ok_or_else(|| io::Error::other("it must be one of ListenStream="));
            Ok((listener.context("take the socket from systemd")?, None))
        }
        None => {
            let path = dir.join(SOCKET);
            let listener = bind(&path).with_context(|| format!("listen on {}", path.display()))?;
            Ok((listener, Some(path)))
        }
    }
}

/// Makes the socket. One that a killed proxy left behind makes way; one on which somebody listens does not.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match UnixStream::connect(path) {
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {}
                _ => return Err(error),
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

/// Waits for a signal.
async fn caught(signals: &Signals) -> io::Result<Signal> {
    let ready = async_fd::watch(signals.as_fd().try_clone_to_owned()?)?;
    loop {
        let mut guard = ready.readable().await?;
        if let Some(signal) = signals.next()? {
            return Ok(signal);
        }
        guard.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_on_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made").join(SOCKET);
        drop(bind(&path).unwrap());
        let second = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(second);
    }

    #[test]
    fn its_files_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lease"), "").unwrap();
        let own = dir.path().join("lease");
        let others = ["/etc/passwd", "/usr/bin/env", "/proc/self/environ", "/dev/null"].map(Path::new);
        let all: Vec<_> = others.into_iter().chain([own.as_path()]).collect();
        match sandbox::trial::opened(|| settle(dir.path()), &all).unwrap() {
            Some(opened) => assert_eq!(opened, [own.as_path()]),
            None => println!("SKIP its_files_are_its_own: this kernel has no Landlock"),
        }
    }
}
