//! From a configuration to the end: everything that makes the network, in the order that launchers rely on, and the
//! loop around it.
//!
//! ```text
//! control process ─▶ PID file ─▶ engine ─▶ forwarded ports ─▶ -listen ─▶ -services
//!     ─▶ guests' sockets ─▶ -forward-sock ─▶ "ready" ─▶ sandbox ─▶ loop
//! ```
//! A launcher waits for the hypervisor's socket and for nothing else, so that comes when nearly everything else is
//! there. What fails on the way ends the process with a line, and takes along what was made before. Contract: gvproxy
//! §3, §11.

use crate::config::{Config, Stack};
use crate::control::{self, Settings, socket_file};
use crate::hub::{Hub, listen};
use crate::listen::{Endpoint, words};
use crate::logrus;
use crate::orders::message::{Door, Forward, News};
use crate::orders::{Desk, Standing};
use crate::own::Own;
use nix::sys::signal::Signal;
use slipway_host::device::GuestNews;
use slipway_host::signals::Signals;
use slipway_host::strerror;
use std::path::PathBuf;

/// Makes the network and serves it to its end.
///
/// # Errors
/// Why it has ended, in a line: it always has.
pub fn serve(config: &Config) -> Result<(), String> {
    // Before there is anything that it should not see. Without it there is a network all the same.
    let line = control::fork(Settings::from(config))
        .inspect_err(|error| log::error!("there is no API: {}", strerror::words(error)))
        .ok();
    // Before there is anything that would stay behind.
    let signals =
        Signals::catch(&[Signal::SIGTERM, Signal::SIGINT]).map_err(|error| words("signalfd", &error))?;
    let mut own = Own::default();
    if let Some(path) = &config.pid_file {
        own.write_pid(path).map_err(|error| words(&format!("open {}", path.display()), &error))?;
    }
    log::info!("waiting for clients...");
    let hub = Hub::open(config, signals).map_err(|why| exiting(&why))?;
    let mut running = Running { hub, desk: Desk::new(line) };
    let why = running.begin(config, &mut own).err().unwrap_or_else(|| running.attend());
    running.hub.end();
    Err(exiting(&why))
}

fn exiting(why: &str) -> String {
    format!("gvproxy exiting: {why}")
}

/// The network, and whoever gives it orders.
#[derive(Debug)]
struct Running {
    hub: Hub,
    desk: Desk,
}

impl Running {
    /// Everything up to the moment when guests are served.
    fn begin(&mut self, config: &Config, own: &mut Own) -> Result<(), String> {
        for forward in forwards(&config.stack) {
            let exposed = self.desk.forwards().expose(forward, &mut self.hub);
            exposed.map_err(|why| format!("cannot add network services: {why}"))?;
        }
        for address in &config.listen {
            log::info!("listening {address}");
            self.open(Door::Whole, address, own)?;
        }
        if let Some(address) = &config.services {
            log::info!("enabling services API. Listening {address}");
            self.open(Door::Services, address, own)?;
        }
        self.hub.listen_for_guests(config, own)?;
        if let Some(address) = &config.interfaces.fd {
            self.open(Door::Descriptors, address, own).map_err(|why| format!("fd listen error: {why}"))?;
        }
        for (at, forward) in config.forwards.iter().enumerate() {
            self.forward(at, &forward.socket, own)?;
        }
        self.hub.attend(&self.desk).map_err(|error| words("epoll_ctl", &error))?;
        let standing = self.desk.news(News::Ready);
        Self::heed(standing);
        self.hub.shut_in(own)?;
        logrus::settle();
        Ok(())
    }

    /// Serves until it is over; why it is.
    fn attend(&mut self) -> String {
        loop {
            if let Err(why) = self.hub.run() {
                return why;
            }
            let standing = self.desk.on_ready(&mut self.hub);
            Self::heed(standing);
            for news in self.hub.news() {
                self.tell(news);
            }
            for (guest, stream) in self.hub.clients() {
                Self::heed(self.desk.client(guest, stream));
            }
            self.hub.attend_again(&self.desk);
            if let Some(why) = self.hub.over() {
                return why;
            }
        }
    }

    /// Has whoever takes orders listen at an address.
    fn open(&mut self, door: Door, address: &str, own: &mut Own) -> Result<(), String> {
        let listener = listen(address, own).map_err(|why| format!("cannot listen: {why}"))?;
        let file = Endpoint::parse(address).ok().and_then(|endpoint| endpoint.path().map(PathBuf::from));
        Self::heed(self.desk.listen(door, listener, file));
        Ok(())
    }

    /// Has whoever takes orders lead clients of this socket into the guest. A socket that is there already is replaced.
    fn forward(&mut self, at: usize, socket: &str, own: &mut Own) -> Result<(), String> {
        let path = match socket.split_once("://") {
            None => PathBuf::from(socket),
            Some(("unix", path)) => PathBuf::from(path),
            Some((scheme, _)) => return Err(format!("URI scheme not supported: {scheme}")),
        };
        socket_file::make_way(&path).map_err(|refused| refused.to_string())?;
        let listener = Endpoint::Unix(path.clone()).listen()?;
        own.take(&path);
        Self::heed(self.desk.forward(at, listener, path));
        Ok(())
    }

    /// Hands on what may be of interest.
    fn tell(&mut self, news: GuestNews) {
        match news {
            GuestNews::Joined(link) => log::info!("guest {} has come", link.0),
            GuestNews::Seen { link, mac } => {
                log::debug!("{mac} is at guest {}", link.0);
                Self::heed(self.desk.news(News::Joined(mac.to_string())));
            }
            GuestNews::Left { link, macs } => {
                log::info!("guest {} has gone", link.0);
                for mac in macs {
                    Self::heed(self.desk.news(News::Left(mac.to_string())));
                }
            }
            GuestNews::Failed(_) => Self::heed(self.desk.news(News::Failed)),
        }
    }

    /// That nobody gives orders any more is said once; packets flow on.
    fn heed(standing: Standing) {
        if let Standing::Down(error) = standing {
            log::error!("the API is gone, and the network goes on without: {}", strerror::words(&error));
        }
    }
}

/// Ports that lead into the network from the start.
fn forwards(stack: &Stack) -> impl Iterator<Item = Forward> {
    stack.forwards.iter().map(|(local, remote)| {
        let (protocol, local) =
            local.strip_prefix("udp:").map_or(("tcp", local.as_str()), |local| ("udp", local));
        Forward { local: local.to_owned(), remote: remote.clone(), protocol: protocol.to_owned() }
    })
}
