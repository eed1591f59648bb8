//! The beginning of a session, in the one order that all commands have.
//!
//! ```text
//!   take over   descriptors that the caller passes by number, before anything else is opened ([`crate::fds`])
//!   open        the link, then engine and event loop around it ([`Session::open`])
//!   listen      what the personality wants heard: ports, API socket, signals, whatever ends the session
//!   shut in     tracers, the host's files, capabilities; nameservers; system calls ([`Session::shut_in`])
//!   tell        the ready byte, or the reply: from here on the network works
//! ```
//! Why in this order: what takes privileges comes before they are gone. The host's resolv.conf is opened by the paths
//! that stay, those of the sandbox, so that its changes are followed; and before the filter of system calls, which lets
//! nothing be watched that was not watched before. How far a command is shut in is its own affair, and [`Confinement`]
//! says it.

use crate::serve::{Session, max_flows};
use slipway_host::device::Link;
use slipway_host::driver::Driver;
use slipway_host::sandbox::caps::Capability;
use slipway_host::sandbox::mounts::Leave;
use slipway_host::sandbox::seccomp::{self, Mode, Profile};
use slipway_host::sandbox::{self, SandboxError, caps, files, mounts, tracers};
use slipway_host::scope::ZonedAddr;
use slipway_host::strerror::words;
use slipway_host::{ports, random, resolv_conf};
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Config;
use slipway_netstack::device::Capabilities;
use std::io;
use std::path::Path;

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel does not let us.
    #[error("cannot {doing}: {}", words(source))]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A stage of the sandbox could not be taken.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl StartError {
    /// The kernel's number, where it is one call that failed.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            Self::Sandbox(_) => None,
        }
    }
}

fn cannot(doing: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { doing, source }
}

/// How far a process is shut in, before it meets its guest. Only for one with a single thread.
#[derive(Debug)]
pub struct Confinement<'a> {
    /// Its files and privileges.
    pub rights: Rights<'a>,
    /// Whom it asks for names.
    pub names: Nameservers<'a>,
    /// The system calls that are left to it; `None`: all.
    pub calls: Option<Profile>,
}

/// What becomes of files and privileges.
#[derive(Debug, Clone, Copy)]
pub enum Rights<'a> {
    /// They stay.
    Kept,
    /// Nobody may trace the process; of the capabilities the one for low ports is left.
    Dropped,
    /// The host's files go out of sight as well, in a user namespace of its own, where one may be made.
    Apart,
    /// They must, in the guest's user namespace if that is known ([`sandbox::enter`]).
    Sandboxed(Option<&'a Path>),
    /// They go as far as the system permits, for a process that may mount: a profile of AppArmor that was written for
    /// somebody else forbids some stages, and the program has to work under it. What is left out is told at debug.
    AsPermitted(Leave),
    /// The same for one that makes a user namespace to mount in, as [`Rights::Apart`].
    ApartAsPermitted(Leave),
}

/// Whom guests' queries go to.
#[derive(Debug, Clone, Copy)]
pub enum Nameservers<'a> {
    /// Nobody: there is no DNS address.
    Nobody,
    /// Those of the host's resolv.conf, whatever that says later.
    Hosts,
    /// These.
    These(&'a [ZonedAddr]),
}

impl Session {
    /// The engine at work on `link`, whose gateway has the address `mac`. `wishes` is given a configuration that has
    /// all that the machine decides: keys, the host's ephemeral ports, as many flows as there can be sockets.
    ///
    /// # Errors
    /// The kernel's: no randomness, no descriptors.
    pub fn open(link: Link, mac: MacAddr, wishes: impl FnOnce(Config) -> Config) -> Result<Self, StartError> {
        let mut session = Self::open_idle(link.capabilities(), mac, wishes)?;
        session.join(link).map_err(cannot("watch the guest's link"))?;
        Ok(session)
    }

    /// The same before there is a guest: a link that comes later can do `capabilities` at the best.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_idle(
        capabilities: Capabilities,
        mac: MacAddr,
        wishes: impl FnOnce(Config) -> Config,
    ) -> Result<Self, StartError> {
        let keys = random::keys().map_err(cannot("draw random keys"))?;
        let machine = Config {
            ports: ports::ephemeral(),
            max_flows: max_flows(),
            ..Config::new(mac, keys, capabilities)
        };
        let driver = Driver::idle(Engine::new(wishes(machine))).map_err(cannot("set up the event loop"))?;
        Ok(Self::new(driver))
    }

    /// Gives up what is not needed any more, and finds the nameservers on the way. Only this process is meant; a
    /// command that it started before keeps what it has.
    ///
    /// # Errors
    /// When a stage cannot be taken. The process should end then.
    pub fn shut_in(&mut self, confinement: &Confinement<'_>) -> Result<(), StartError> {
        self.drop_rights(confinement)?;
        self.forbid_calls(confinement)
    }

    /// The first half of [`Session::shut_in`]: files and privileges, and whom to ask for names. System calls are still
    /// to be had, for what has to be done at the very end of a start.
    ///
    /// # Errors
    /// As there.
    pub fn drop_rights(&mut self, confinement: &Confinement<'_>) -> Result<(), StartError> {
        confinement.rights.give_up()?;
        if let Some(inside) = self.driver().inside() {
            let filter = confinement.calls.map(|_| Mode::Enforce);
            inside.confine(&[Capability::CAP_NET_BIND_SERVICE, Capability::CAP_NET_ADMIN], filter)?;
        }
        match confinement.names {
            Nameservers::Nobody => {}
            Nameservers::Hosts => {
                self.follow_host_nameservers().map_err(cannot("follow the host's resolv.conf"))?;
            }
            Nameservers::These(servers) => self.use_nameservers(servers),
        }
        Ok(())
    }

    /// The second half: the system calls.
    ///
    /// # Errors
    /// As there.
    pub fn forbid_calls(&mut self, confinement: &Confinement<'_>) -> Result<(), StartError> {
        confinement.calls.map_or(Ok(()), |profile| Ok(seccomp::install(profile, Mode::Enforce)?))
    }
}

impl Rights<'_> {
    fn give_up(self) -> Result<(), SandboxError> {
        match self {
            Self::Kept => Ok(()),
            Self::Dropped => tracers::keep_out().and_then(|()| caps::drop_all()),
            Self::Apart => apart(),
            Self::Sandboxed(userns) => sandbox::enter(userns),
            Self::AsPermitted(leave) => {
                as_permitted(|| mounts::isolate(None, leave));
                Ok(())
            }
            Self::ApartAsPermitted(leave) => {
                as_permitted(|| sandbox::enter_own(leave));
                Ok(())
            }
        }
    }
}

fn apart() -> Result<(), SandboxError> {
    tracers::keep_out()?;
    // Without user namespaces the other stages have to do.
    if let Err(error) = sandbox::enter_own(Leave::Pivot) {
        log::info!("this process keeps sight of the host's files: {error}");
    }
    caps::drop_all()
}

/// The stages one after the other. Where nothing may be mounted, Landlock has to keep the files closed.
fn as_permitted(hide: impl FnOnce() -> Result<(), SandboxError>) {
    let left_out = |stage: Result<(), SandboxError>| {
        stage.inspect_err(|error| log::debug!("a stage of the sandbox is left out: {error}")).is_err()
    };
    left_out(tracers::keep_out());
    if left_out(hide()) {
        left_out(files::keep(&files::of_resolv_conf(Path::new(resolv_conf::PATH))));
    }
    left_out(caps::drop_all());
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::sys::wait::WaitStatus;
    use slipway_host::device::Seqpacket;
    use slipway_host::sys::proc::{fork_child, wait_for};
    use slipway_netstack::config::Mtu;
    use std::io::{Read as _, Write as _};

    fn session() -> Session {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (ours, _guests) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let link = Link::from(Seqpacket::from_owned_fd(ours));
        Session::open(link, MacAddr([2, 0, 0, 0, 0, 2]), |machine| Config { mtu: Mtu::MIN, ..machine })
            .unwrap()
    }

    #[test]
    fn a_session_opens_with_what_the_machine_decides_and_the_personality_wants() {
        let session = session();
        let config = session.driver().peek_engine().config();
        assert!(config.mtu == Mtu::MIN && config.max_flows >= 16);
        assert_eq!(config.mac, MacAddr([2, 0, 0, 0, 0, 2]));
    }

    /// Whether a process can be shut in so, and whether it can make namespaces afterwards.
    fn left(rights: Rights<'_>, calls: Option<Profile>) -> (bool, bool) {
        let (mut told, tell) = io::pipe().unwrap();
        let child = fork_child(|| {
            let mut session = session();
            let confinement = Confinement { rights, names: Nameservers::Hosts, calls };
            if session.shut_in(&confinement).is_err() || (&tell).write_all(b"1").is_err() {
                return 1;
            }
            // A filter may answer it, or end the process.
            u8::from(unshare(CloneFlags::CLONE_NEWUTS).is_err())
        });
        drop(tell);
        let mut word = Vec::new();
        told.read_to_end(&mut word).unwrap();
        (word == b"1", matches!(wait_for(child.unwrap()).unwrap(), WaitStatus::Exited(_, 0)))
    }

    #[test]
    fn nameservers_are_found_before_the_calls_for_it_are_gone() {
        // To follow resolv.conf takes an inotify and a netlink socket, which the filter does not let pass.
        assert_eq!(left(Rights::Dropped, Some(Profile::Network)), (true, false));
        assert_eq!(left(Rights::Kept, None), (true, nix::unistd::geteuid().is_root()));
    }
}
