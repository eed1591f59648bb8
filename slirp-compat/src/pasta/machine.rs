//! `passt` at work: a virtual machine at the other end of a stream socket ([`slipway_host::device::stream`]), or one
//! whose memory is shared with us ([`slipway_host::device::vhost_user`]).
//!
//! Who connects is the guest, one at a time: a second one is sent away, and when the first has gone the next may come,
//! unless one was all that was wanted. Until then nothing is carried; ports listen from the start, and what comes to
//! them is refused while nobody is there. The guest configures itself by DHCP, DHCPv6 and router advertisements, and
//! may have the host's own MAC address or ours. Contract: pasta A.4, F.6.
//!
//! A migration is never asked for over a stream, and not offered where memory is shared.

use super::begin::{Host, become_user, listen, not_open, promise, recorded, settle, system};
use super::config::{Config, Machine};
use nix::sys::socket::SockType;
use slipway_host::device::{Link, Listener, Stream, VhostUser};
use slipway_host::sandbox::mounts::Leave;
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::tracers;
use slipway_host::strerror::words;
use slipway_host::sys::fdpass::take_inherited;
use slipway_netstack::device::Capabilities;
use slipway_portfwd::api::socket::{Access, BindError, listen_at};
use slipway_runtime::background::Tell;
use slipway_runtime::serve::{End, Ending, Session};
use slipway_runtime::start::Rights;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// How many default paths there are.
const PATHS: usize = 100;

/// Where the machine is.
enum Door {
    /// It is there already.
    Open(Link),
    /// It will come.
    Listens(Listener),
}

/// Serves whoever comes, until the end; the exit code.
pub(super) fn serve(config: &Config, machine: &Machine, tell: &mut Tell) -> Result<u8, String> {
    if let Err(error) = tracers::keep_out() {
        log::debug!("{error}");
    }
    let host = Host::look(config, None)?;
    let addresses = host.addresses();
    let pid_file = config.pid_file.as_deref().map(promise).transpose()?;
    let door = door(config, machine)?;
    if let Some(ids) = config.run_as {
        become_user(ids)?;
    }
    let (best, calls) = if machine.vhost_user {
        (VhostUser::BEST, Profile::Memory)
    } else {
        (Capabilities::default(), Profile::Network)
    };
    let engine = |machine| host.engine(&addresses, &machine);
    let mut session = Session::open_idle(best, config.mac, engine).map_err(|error| error.to_string())?;
    match door {
        Door::Open(link) => session.join(link).map_err(system("watch the guest's link"))?,
        Door::Listens(listener) => session.readmit(listener).map_err(system("wait for a guest"))?,
    }
    host.follow(false, &mut session)?;
    listen(config, &mut session)?;
    let leave = if config.chroot_fallback { Leave::Chroot } else { Leave::Pivot };
    let rights = Rights::ApartAsPermitted(leave);
    settle(config, &mut session, &addresses, (rights, calls), pid_file, tell)?;
    let once = config.one_off || config.fd.is_some();
    loop {
        match session.run() {
            Ok(End::Link(reason)) => {
                // A guest that hangs up is an ordinary one.
                let orderly = reason.kind() == ErrorKind::UnexpectedEof;
                let level = if orderly { log::Level::Info } else { log::Level::Warn };
                log::log!(level, "the guest has gone: {}", words(&reason));
                if once {
                    break;
                }
            }
            Ok(End::Asked) => {}
            Ok(End::Signal(_) | End::Target | End::ExitFd) => break,
            Err(error) => return Err(format!("the network has ended: {}", words(&error))),
        }
    }
    session.end(Ending::AtOnce);
    Ok(0)
}

/// The machine, or where it will come to.
fn door(config: &Config, machine: &Machine) -> Result<Door, String> {
    if let Some(number) = config.fd {
        let socket = take_inherited(number).map_err(|error| not_open(&error))?;
        let mut link = if machine.vhost_user {
            VhostUser::from_owned_fd(socket).map_err(|error| not_open(&error))?.into()
        } else {
            Link::from(Stream::from_owned_fd(socket))
        };
        if let Some(path) = &config.pcap {
            link = recorded(path, |file| link.captured(file))?;
        }
        return Ok(Door::Open(link));
    }
    let (listener, path) = bind(machine)?;
    log::info!("UNIX domain socket bound at {}", path.display());
    let wait = if machine.vhost_user { Listener::vhost_user } else { Listener::stream };
    let mut listener = wait(listener);
    if let Some(path) = &config.pcap {
        listener = recorded(path, |file| listener.captured(file))?;
    }
    Ok(Door::Listens(listener))
}

/// The socket at the path that was named, or at the first default one that nobody answers at.
fn bind(machine: &Machine) -> Result<(UnixListener, PathBuf), String> {
    let at = |path: &Path| listen_at(path, SockType::Stream, Access::Umask);
    if let Some(path) = &machine.socket {
        return Ok((at(path).map_err(|error| error.to_string())?, path.clone()));
    }
    for number in 1..=PATHS {
        let path = PathBuf::from(format!("/tmp/passt_{number}.socket"));
        match at(&path) {
            Ok(listener) => return Ok((listener, path)),
            Err(BindError::InUse(_)) => {}
            // Somebody else's, whom we may not ask: the next one.
            Err(error) => log::debug!("{error}"),
        }
    }
    Err(format!("none of /tmp/passt_1.socket to /tmp/passt_{PATHS}.socket is free"))
}
