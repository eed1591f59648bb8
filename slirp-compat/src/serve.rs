//! Serving a link until something says that it is over: the loop that every command ends up in.
//!
//! A [`Session`] brings together what wants to be heard between two rounds of the event loop: forwarded ports, the
//! API socket, the host's resolver configuration, signals, the exit descriptor, the watched target. Each has its
//! token; nothing is polled (but a resolv.conf that cannot be watched), so an idle session is never woken.
//!
//! Tokens of [`Driver::watch`]: a few fixed ones, a run for the API, and the rest for the sockets of forwarded ports.

use crate::fds::ExitFd;
use crate::tuning;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use slipway_host::clock;
use slipway_host::driver::{Driver, Interest, Ready, raise_descriptor_limit};
use slipway_host::netns::Watch;
use slipway_host::resolver::{self, Resolver};
use slipway_host::signals::Signals;
use slipway_netstack::Instant;
use slipway_portfwd::api::slirp::{BindError, Notice, Server};
use slipway_portfwd::{AddError, Rule, RuleId, Table};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXIT: u32 = 0;
const SIGNALS: u32 = 1;
const RESOLVER: u32 = 2;
const TARGET: u32 = 3;
const API: u32 = 0x100;
const PORTS: std::ops::Range<u32> = 0x1_0000..0x100_0000;

/// How often a resolv.conf is looked at that cannot be watched.
const RESOLVER_POLL: Duration = Duration::from_secs(5);

/// Why a session ended, or paused to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side of the exit descriptor was closed.
    ExitFd,
    /// A signal arrived. The session may be run on.
    Signal(Signal),
    /// The watched target is gone.
    Target,
}

/// Why the API socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The path does not do.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It cannot be watched.
    #[error("cannot watch the API socket: {0}")]
    Watch(#[from] io::Error),
}

/// A link being served.
#[derive(Debug)]
pub struct Session {
    driver: Driver,
    table: Table,
    api: Option<Api>,
    names: Option<Names>,
    signals: Option<Signals>,
    exit: Option<ExitFd>,
    target: Option<Watch>,
    /// What the last round found; kept for its room.
    ready: Vec<Ready>,
}

/// The API socket; its file goes with it.
#[derive(Debug)]
struct Api {
    server: Server,
    path: PathBuf,
}

impl Drop for Api {
    fn drop(&mut self) {
        // In a sandbox the path may be out of reach; the next start removes what is left.
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("the API socket {} stays behind: {error}", self.path.display());
        }
    }
}

/// The host's resolver configuration.
#[derive(Debug)]
struct Names {
    resolver: Resolver,
    poll_at: Option<Instant>,
}

/// As many flows as there can be sockets: the limit of open descriptors is raised as far as it goes, and some are kept
/// for listeners and API clients.
#[must_use]
pub fn max_flows() -> u32 {
    const KEPT: u64 = 64;
    const MOST: u32 = 1 << 18;
    let limit = raise_descriptor_limit().unwrap_or_else(|error| {
        log::warn!("the limit of open descriptors stays as it is: {error}");
        1024
    });
    u32::try_from(limit.saturating_sub(KEPT)).unwrap_or(MOST).clamp(16, MOST)
}

impl Session {
    /// A session that serves the link of `driver` and nothing else yet.
    #[must_use]
    pub fn new(mut driver: Driver) -> Self {
        tuning::apply(&mut driver);
        Self {
            driver,
            table: Table::new(PORTS),
            api: None,
            names: None,
            signals: None,
            exit: None,
            target: None,
            ready: Vec::new(),
        }
    }

    /// The event loop, to look at its engine and link.
    #[must_use]
    pub const fn driver(&self) -> &Driver {
        &self.driver
    }

    /// The forwarding rules in force.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Puts a forwarding rule in force.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn publish(&mut self, rule: Rule) -> Result<RuleId, AddError> {
        self.table.add(rule, &mut self.driver)
    }

    /// Opens the API socket at `path`; whatever is there is removed first. Clients can connect from now on.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn open_api(&mut self, path: &Path, observer: fn(Notice<'_>)) -> Result<(), ApiError> {
        let server = Server::bind(path, API, observer)?;
        let api = self.api.insert(Api { server, path: path.to_owned() });
        api.server.start(&mut self.driver)?;
        Ok(())
    }

    /// Ends at these signals, except those that were ignored at the start.
    ///
    /// # Errors
    /// The kernel's.
    pub fn catch(&mut self, signals: &[Signal]) -> io::Result<()> {
        self.listen(Signals::catch(signals)?)
    }

    /// Pauses at these signals, which were caught before.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(&mut self, signals: Signals) -> io::Result<()> {
        self.driver.watch(signals.as_fd(), Interest::READ, SIGNALS)?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Uses these nameservers, and no others.
    pub fn use_nameservers(&mut self, servers: Vec<IpAddr>) {
        self.driver.engine().set_nameservers(servers);
    }

    /// Uses the nameservers of the host's resolv.conf, and follows its changes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn follow_host_nameservers(&mut self) -> io::Result<()> {
        let resolver = Resolver::open(Path::new(resolver::PATH));
        self.driver.engine().set_nameservers(resolver.nameservers());
        if let Some(fd) = resolver.fd() {
            self.driver.watch(fd, Interest::READ, RESOLVER)?;
        }
        let poll_at = resolver.needs_polling().then(|| clock::now() + RESOLVER_POLL);
        self.names = Some(Names { resolver, poll_at });
        Ok(())
    }

    /// Ends when the other side of `exit` is closed; at once if it is closed already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch_exit(&mut self, exit: ExitFd) -> io::Result<()> {
        if let ExitFd::Open(fd) = &exit {
            match self.driver.watch(fd.as_fd(), Interest::NONE, EXIT) {
                // A plain file: it never hangs up, which is no reason not to start.
                Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => {}
                result => result?,
            }
        }
        self.exit = Some(exit);
        Ok(())
    }

    /// Ends when `target` does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch_target(&mut self, target: Watch) -> io::Result<()> {
        self.driver.watch(target.as_fd(), Interest::READ, TARGET)?;
        self.target = Some(target);
        Ok(())
    }

    /// Serves until something says that it is over.
    ///
    /// # Errors
    /// The link is gone.
    pub fn run(&mut self) -> io::Result<End> {
        if matches!(self.exit, Some(ExitFd::Closed)) {
            return Ok(End::ExitFd);
        }
        loop {
            let deadline = self.next_deadline();
            self.ready.clear();
            self.ready.extend_from_slice(self.driver.turn(deadline)?);
            let now = clock::now();
            let mut end = None;
            for at in 0..self.ready.len() {
                let Some(&event) = self.ready.get(at) else { break };
                end = end.or(self.on_ready(event, now)?);
            }
            if let Some(end) = end {
                return Ok(end);
            }
            if deadline.is_some_and(|due| due <= now) {
                self.on_deadline(now);
            }
        }
    }

    /// Waits for the target's end or a signal when the link is gone and there is nothing left to serve.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait(&self) -> io::Result<End> {
        loop {
            let signals =
                self.signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN));
            let target = self.target.as_ref().map(|target| PollFd::new(target.as_fd(), PollFlags::POLLIN));
            let mut fds: Vec<_> = target.into_iter().chain(signals).collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = fds.first().and_then(PollFd::any).unwrap_or(false);
            match &self.target {
                // Without a target there is nothing to wait for.
                None => return Ok(End::Target),
                Some(target) if ready && target.ended() => return Ok(End::Target),
                Some(_) => {}
            }
            if let Some(signal) = self.signals.as_ref().map(Signals::next).transpose()?.flatten() {
                return Ok(End::Signal(signal));
            }
        }
    }

    fn on_ready(&mut self, event: Ready, now: Instant) -> io::Result<Option<End>> {
        match event.token {
            EXIT if event.hangup || event.error => return Ok(Some(End::ExitFd)),
            TARGET if self.target.as_ref().is_some_and(Watch::ended) => return Ok(Some(End::Target)),
            SIGNALS => {
                let signal = self.signals.as_ref().map(Signals::next).transpose()?.flatten();
                return Ok(signal.map(End::Signal));
            }
            RESOLVER => {
                let changed = self.names.as_mut().and_then(|names| names.resolver.on_ready());
                if let Some(fresh) = changed {
                    self.driver.engine().set_nameservers(fresh.nameservers.clone());
                }
            }
            token if self.table.owns(token) => self.table.on_ready(token, now, &mut self.driver),
            token => {
                if let Some(api) = self.api.as_mut().filter(|api| api.server.owns(token)) {
                    api.server.on_ready(token, now, &mut self.table, &mut self.driver);
                }
            }
        }
        Ok(None)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let api = self.api.as_ref().and_then(|api| api.server.next_deadline());
        let names = self.names.as_ref().and_then(|names| names.poll_at);
        [self.table.next_deadline(), api, names].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Instant) {
        self.table.on_deadline(now, &mut self.driver);
        if let Some(api) = &mut self.api {
            api.server.on_deadline(now, &mut self.table, &mut self.driver);
        }
        if let Some(names) = self.names.as_mut().filter(|names| names.poll_at.is_some_and(|at| at <= now)) {
            names.poll_at = Some(now + RESOLVER_POLL);
            if let Some(fresh) = names.resolver.refresh_if_changed() {
                self.driver.engine().set_nameservers(fresh.nameservers.clone());
            }
        }
    }
}
