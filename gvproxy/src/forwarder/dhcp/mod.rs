//! How the interface gets its address: by a DHCP client that is installed, or else by one of our own.
//!
//! ```text
//!   udhcpc, or dhclient, if there is one        sets everything by its own script
//!   lessee      our client: a socket and a timer around slipway_netstack::dhcp_client
//!     ├── holding      address, routes, MTU: what a lease makes of the interface
//!     └── resolv_conf  where names are asked for
//! ```
//! An installed one goes first, as with the original: it may have been set up for this machine. udhcpc is started
//! without the `-q` that the original gives it, which would have it end with the first lease and never renew that.
//!
//! Contract: gvproxy §12.

mod holding;
mod lessee;
mod resolv_conf;

pub(crate) use lessee::{ANSWERS, TIMER};
pub(crate) use resolv_conf::directories;

use super::interface::Interface;
use super::program::{self, Program};
use lessee::Lessee;
use slipway_host::epoll::EventSet;
use std::io;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

/// Who sees to the address.
#[derive(Debug)]
pub(crate) enum Dhcp {
    /// A program.
    Program(Program),
    /// We do.
    Own(Box<Lessee>),
    /// Nobody, or not any more: the program has ended with success.
    Nobody,
}

impl Dhcp {
    /// Asks for an address. What `before` holds of an earlier connection is kept until the answer.
    ///
    /// # Errors
    /// In a line.
    pub(crate) fn start(interface: &Interface, before: Self, set: &EventSet) -> Result<Self, String> {
        let name = interface.tap.name();
        if matches!(before, Self::Own(_)) {
            // Once there was none, and by now we may be shut in.
            return Self::own(interface, before, set).map_err(|error| format!("dhcp error: {error}"));
        }
        let installed: [(&str, &[&str]); 2] =
            [("udhcpc", &["-f", "-i", name, "-v"]), ("dhclient", &["-4", "-d", "-v", name])];
        for (program, words) in installed {
            match start(program, words) {
                Ok(started) => return Ok(Self::Program(started)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("dhcp error: {program}: {error}")),
            }
        }
        Self::own(interface, before, set).map_err(|error| format!("dhcp error: {error}"))
    }

    fn own(interface: &Interface, before: Self, set: &EventSet) -> io::Result<Self> {
        let mut lessee = match before {
            Self::Own(lessee) if lessee.is_of(interface) => lessee,
            _ => Box::new(Lessee::new(interface, set)?),
        };
        lessee.begin(set)?;
        Ok(Self::Own(lessee))
    }

    /// The connection is over: nobody need ask until the next one.
    pub(crate) fn rest(self) -> Self {
        match self {
            Self::Program(_) | Self::Nobody => Self::Nobody,
            Self::Own(mut lessee) => {
                lessee.rest();
                Self::Own(lessee)
            }
        }
    }

    /// A program of ours may have ended.
    ///
    /// # Errors
    /// It has failed.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        let Self::Program(program) = self else { return Ok(()) };
        let Some(status) = program.ended() else { return Ok(()) };
        *self = Self::Nobody;
        if status.success() { Ok(()) } else { Err(format!("dhcp error: {}", program::words(status))) }
    }

    /// Something has happened to our own client.
    pub(crate) fn turn(&mut self, set: &EventSet) {
        if let Self::Own(lessee) = self {
            lessee.turn(set);
        }
    }
}

/// What it says goes where our log does.
fn start(program: &str, words: &[&str]) -> io::Result<Program> {
    let log = io::stderr().as_fd().try_clone_to_owned()?;
    Program::start(Command::new(program).args(words).stdin(Stdio::null()).stdout(Stdio::from(log)))
}
