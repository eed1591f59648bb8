//! Serving a link until something says that it is over: the loop that every command ends up in.
//!
//! A [`Session`] brings together what wants to be heard between two rounds of the event loop: forwarded ports, the
//! API socket, the host's resolver configuration, signals, the exit descriptor, the watched target. Each has its
//! token; nothing is polled (but a resolv.conf that cannot be watched), so an idle session is never woken.
//!
//! Tokens of [`Driver::watch`]: a few fixed ones, a run for the API, and the rest for the sockets of forwarded ports.

mod api;
mod ending;

use crate::fds::ExitFd;
use crate::logging::tell;
use crate::names::{self, Known, Names};
use crate::network::{Follower as NetworkFollower, HostNetwork};
use crate::pid_file::PidFile;
use crate::report;
use crate::scan::Scanner;
use crate::tuning;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use slipway_host::clock;
use slipway_host::device::{Link, Listener};
use slipway_host::driver::{Driver, Interest, Loss, Ready, Shortcut, raise_descriptor_limit};
use slipway_host::inside::{Inside, Side};
use slipway_host::netns::Watch;
use slipway_host::resolv_conf::{self, Follower, ResolvConf};
use slipway_host::scope::ZonedAddr;
use slipway_host::signals::{Caught, Signals};
use slipway_host::sys::{code, heap};
use slipway_host::template::Following;
use slipway_netstack::Instant;
use slipway_portfwd::api::slirp::Notice;
use slipway_portfwd::rule::passt::{Capabilities, Context};
use slipway_portfwd::table::{Policy, ReplaceError};
use slipway_portfwd::{AddError, Rule, RuleId, Table};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use api::Api;
pub use api::ApiError;
pub use ending::{Ending, PATIENCE, Rest};

const EXIT: u32 = 0;
const SIGNALS: u32 = 1;
const RESOLV_CONF: u32 = 2;
const TARGET: u32 = 3;
const DOOR: u32 = 4;
const CONTROL: u32 = 5;
const NETWORK: u32 = 6;
const API: u32 = 0x100;
const PESTO: u32 = 0x200;
const ORDERS: u32 = 0x300;
const PORTS: std::ops::Range<u32> = 0x1_0000..0x100_0000;
const NAMES: std::ops::Range<u32> = 0x100_0000..0x101_0000;

/// After the host could not let a guest in, for want of descriptors say, the door stays shut for so long.
const DOOR_REST: Duration = Duration::from_millis(100);
/// How often a resolv.conf is looked at that cannot be watched.
const RESOLV_CONF_POLL: Duration = Duration::from_secs(5);

/// Why a session ended, or paused to ask.
#[derive(Debug)]
pub enum End {
    /// The other side of the exit descriptor was closed.
    ExitFd,
    /// A signal arrived. The session may be run on.
    Signal(Caught),
    /// The watched target is gone.
    Target,
    /// The descriptor of [`Session::attend`] has something to read, or its other side is gone; or something has
    /// happened to guests, for whoever heeds that ([`Session::heed_guests`]). The session may be run on.
    Asked,
    /// The guest's link is gone, for this reason. The session may be run on: everything but the guest is still there,
    /// and the next guest is let in if there is a door for it ([`Session::readmit`]).
    Link(io::Error),
}

/// A link being served.
#[derive(Debug)]
pub struct Session {
    driver: Driver,
    table: Table,
    /// Sockets over which rules are changed.
    apis: Vec<Api>,
    names: Names,
    host_servers: Option<HostServers>,
    signals: Option<Signals>,
    exit: Option<ExitFd>,
    target: Option<Watch>,
    /// Where the next guest comes in when this one has hung up.
    door: Option<Listener>,
    /// The door is shut until then.
    door_opens: Option<Instant>,
    /// Whoever may interrupt.
    control: Option<OwnedFd>,
    /// What happens to guests is told.
    heeds: bool,
    /// The start is over.
    has_run: bool,
    pid_file: Option<PidFile>,
    network: Option<NetworkFollower>,
    /// Whoever looks which ports are listened on, for rules that scan.
    scanner: Option<Scanner>,
    /// How often counters are shown, and when next.
    shown: Option<(Duration, Instant)>,
    /// What was dropped, for whoever has asked for that much.
    drops: report::Drops,
    /// What the last round found; kept for its room.
    ready: Vec<Ready>,
}

/// The host's resolver configuration, followed while it changes.
#[derive(Debug)]
struct HostServers {
    conf: Follower,
    /// They are asked, and not only told.
    asked: bool,
    poll_at: Option<Instant>,
}

/// As many flows as there can be sockets: the limit of open descriptors is raised as far as it goes, and some are kept
/// for listeners, API clients and DNS queries under way.
#[must_use]
pub fn max_flows() -> u32 {
    const KEPT: usize = 64;
    const MOST: u32 = 1 << 18;
    let limit = descriptors();
    let kept = KEPT + names::policy(limit).max_pending;
    u32::try_from(limit.saturating_sub(kept)).unwrap_or(MOST).clamp(16, MOST)
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let limit = raise_descriptor_limit().unwrap_or_else(|error| {
        log::warn!("the limit of open descriptors stays as it is: {error}");
        1024
    });
    usize::try_from(limit).unwrap_or(usize::MAX)
}

impl Session {
    /// A session that serves the link of `driver` and nothing else yet.
    #[must_use]
    pub fn new(mut driver: Driver) -> Self {
        tuning::apply(&mut driver);
        Self {
            driver,
            table: Table::new(PORTS),
            apis: Vec::new(),
            names: Names::new(NAMES, descriptors()),
            host_servers: None,
            signals: None,
            exit: None,
            target: None,
            door: None,
            door_opens: None,
            control: None,
            heeds: false,
            has_run: false,
            pid_file: None,
            network: None,
            scanner: None,
            shown: None,
            drops: report::Drops::default(),
            ready: Vec::new(),
        }
    }

    /// Serves a guest's link.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub fn join(&mut self, link: Link) -> io::Result<()> {
        self.driver.join_link(link).map(drop)
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

    /// Opens the API socket of slirp4netns at `path`; whatever is there is removed first. Clients can connect from now
    /// on.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn open_api(&mut self, path: &Path, observer: fn(Notice<'_>)) -> Result<(), ApiError> {
        self.serve_rules(Api::slirp(path, API, observer)?)
    }

    /// Lets `pesto` change rules over a socket at `path`, those of the sides in `tables`, within what they are capable
    /// of.
    ///
    /// # Errors
    /// See [`ApiError`]; somebody answers there already.
    pub fn open_pesto(
        &mut self,
        path: &Path,
        tables: impl IntoIterator<Item = (Side, Capabilities)>,
    ) -> Result<(), ApiError> {
        self.serve_rules(Api::pesto(path, PESTO, tables)?)
    }

    /// Takes orders of our own kind over a socket at `path`.
    ///
    /// # Errors
    /// As [`Session::open_pesto`].
    pub fn open_control(&mut self, path: &Path, context: Context) -> Result<(), ApiError> {
        self.serve_rules(Api::control(path, ORDERS, context)?)
    }

    fn serve_rules(&mut self, api: Api) -> Result<(), ApiError> {
        api.start(&mut self.driver)?;
        self.apis.push(api);
        Ok(())
    }

    /// Puts these rules in force in the place of all others, with the limits that `policy` has.
    ///
    /// # Errors
    /// When one of them cannot be had; what was in force is so still.
    pub fn replace_rules(
        &mut self,
        rules: &[Rule],
        policy: impl FnOnce(usize) -> Policy,
    ) -> Result<(), Box<ReplaceError>> {
        self.table.set_policy(policy(descriptors()));
        self.table.replace(rules, &mut self.driver).map(drop)
    }

    /// Has a thread in the guest's namespace, which is shut in along with this one, and lets loopback traffic take the
    /// shortcut there.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub fn go_inside(&mut self, inside: Inside, shortcut: Shortcut) -> io::Result<()> {
        self.driver.set_inside(inside, shortcut)
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

    /// The next signal that has arrived and was not told yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal_so_far(&self) -> io::Result<Option<Caught>> {
        Ok(self.signals.as_ref().map(Signals::next_caught).transpose()?.flatten())
    }

    /// Uses these nameservers, and no others. What they have said is forgotten when the network of this process
    /// changes, for which the filter of system calls has to come later.
    pub fn use_nameservers(&mut self, servers: &[ZonedAddr]) {
        self.names.heed_network();
        self.names.set_servers(servers);
    }

    /// Uses the nameservers of the host's resolv.conf, and follows its changes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn follow_host_nameservers(&mut self) -> io::Result<()> {
        self.follow_resolv_conf(true)
    }

    /// Follows the host's resolv.conf for what the guest is told of it ([`Session::follow_host_network`]).
    ///
    /// # Errors
    /// The kernel's.
    pub fn tell_host_nameservers(&mut self) -> io::Result<()> {
        if self.host_servers.is_some() { Ok(()) } else { self.follow_resolv_conf(false) }
    }

    fn follow_resolv_conf(&mut self, asked: bool) -> io::Result<()> {
        let conf = Follower::open(Path::new(resolv_conf::PATH));
        if let Some(fd) = conf.fd() {
            self.driver.watch(fd, Interest::READ, RESOLV_CONF)?;
        }
        let poll_at = conf.needs_polling().then(|| clock::now() + RESOLV_CONF_POLL);
        let current = conf.current().clone();
        self.host_servers = Some(HostServers { conf, asked, poll_at });
        self.resolve(&current);
        Ok(())
    }

    /// The host's resolv.conf says this now.
    fn resolve(&mut self, fresh: &ResolvConf) {
        if self.host_servers.as_ref().is_some_and(|host| host.asked) {
            self.use_nameservers(&fresh.nameservers);
        }
        if let Some(network) = &mut self.network {
            network.resolve(fresh, &mut self.driver);
        }
    }

    /// Keeps the guest like the host. `readdress` tells the driver when the guest has other addresses or gateways
    /// ([`Driver::readdress`]), or the host other resolvers than `resolver`, if these are followed
    /// ([`Session::follow_host_nameservers`], [`Session::tell_host_nameservers`]). If `is_configured`, the guest's
    /// interface is changed by the thread inside, which the driver must have.
    ///
    /// # Errors
    /// The kernel's.
    pub fn follow_host_network(
        &mut self,
        network: HostNetwork,
        resolver: ResolvConf,
        is_configured: bool,
        readdress: impl FnMut(&Following, &ResolvConf, &mut Driver) + 'static,
    ) -> io::Result<()> {
        self.driver.watch(network.fd(), Interest::READ, NETWORK)?;
        self.network = Some(NetworkFollower::new(network, resolver, is_configured, readdress));
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

    /// Pauses when `control` has something to read, or its other side is gone. The caller reads, and keeps a copy for
    /// that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attend(&mut self, control: OwnedFd) -> io::Result<()> {
        self.driver.watch(control.as_fd(), Interest::READ, CONTROL)?;
        self.control = Some(control);
        Ok(())
    }

    /// Waits from now on for this of the descriptor of [`Session::attend`].
    ///
    /// # Errors
    /// The kernel's: nobody is attended.
    pub fn attend_for(&mut self, interest: Interest) -> io::Result<()> {
        match &self.control {
            Some(control) => self.driver.modify(control.as_fd(), interest, CONTROL),
            None => Err(Errno::EBADF.into()),
        }
    }

    /// Attends nobody any more.
    pub fn dismiss(&mut self) {
        if let Some(control) = self.control.take() {
            self.driver.unwatch(control.as_fd());
        }
    }

    /// Pauses when something has happened to guests, or when one has connected to a service: until the driver was asked
    /// for all of it ([`Driver::guest_news`], [`Driver::service_clients`]).
    pub const fn heed_guests(&mut self) {
        self.heeds = true;
    }

    /// The event loop, to change it.
    pub const fn driver_mut(&mut self) -> &mut Driver {
        &mut self.driver
    }

    /// Shows the counters on standard error, from now on, so often.
    pub fn show_counters(&mut self, every: Duration) {
        self.shown = Some((every, clock::now() + every));
    }

    /// Has ports of rules that scan follow those who listen across the border; it begins with a look at once. For a
    /// driver that has a thread inside, before the sandbox.
    ///
    /// # Errors
    /// Nobody tells who listens: neither sock_diag nor /proc/net.
    pub fn follow_listeners(&mut self) -> io::Result<()> {
        let scanner = self.scanner.insert(Scanner::open(&self.driver)?);
        scanner.look(clock::now(), &mut self.table, &mut self.driver);
        Ok(())
    }

    /// Removes this file at the end, among the first things.
    pub fn hold(&mut self, pid_file: PidFile) {
        self.pid_file = Some(pid_file);
    }

    /// The station that had the address `guest` has left.
    pub fn forget_guest(&mut self, guest: IpAddr) {
        self.driver.forget_guest(guest);
    }

    /// Another station may have the address `guest` now.
    pub fn forget_neighbour(&mut self, guest: IpAddr) {
        self.driver.forget_neighbour(guest);
    }

    /// Takes a forwarding rule out of force; nothing happens if there is none of that id.
    pub fn withdraw(&mut self, id: RuleId) {
        self.table.remove(id, &mut self.driver);
    }

    /// Answers these names at the DNS address, before any nameserver is asked.
    pub fn use_names(&mut self, known: impl Known + 'static) {
        self.names.set_local(Box::new(known));
    }

    /// When the guest has hung up, or there is none yet, lets in the next one that comes to `door`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn readmit(&mut self, door: Listener) -> io::Result<()> {
        door.set_nonblocking()?;
        if door.turns_away() || self.driver.links().is_empty() {
            self.driver.watch(door.as_fd(), Interest::READ, DOOR)?;
        }
        self.door = Some(door);
        Ok(())
    }

    /// Serves until something says that it is over.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub fn run(&mut self) -> io::Result<End> {
        if matches!(self.exit, Some(ExitFd::Closed)) {
            return Ok(End::ExitFd);
        }
        if !std::mem::replace(&mut self.has_run, true) {
            // What the start took goes back: one of these lives as long as any container.
            heap::trim();
            code::let_go();
        }
        loop {
            if let Some(Loss { link, reason, lost }) = self.driver.take_loss() {
                log::debug!("{link:?} has ended: {reason}; not carried: {lost:?}");
                if let Some(door) = self.door.as_ref().filter(|door| !door.turns_away()) {
                    self.driver.watch(door.as_fd(), Interest::READ, DOOR)?;
                }
                return Ok(End::Link(reason));
            }
            if self.heeds && (self.driver.has_guest_news() || self.driver.has_service_clients()) {
                return Ok(End::Asked);
            }
            let deadline = self.next_deadline();
            self.ready.clear();
            self.ready.extend_from_slice(self.driver.turn(deadline)?);
            let now = clock::now();
            let mut end = None;
            for at in 0..self.ready.len() {
                let Some(&event) = self.ready.get(at) else { break };
                end = end.or(self.on_ready(event, now)?);
            }
            self.names.serve(now, &mut self.driver);
            if log::log_enabled!(log::Level::Debug)
                && let Some(line) = self.drops.look(now, self.driver.peek_engine().counters())
            {
                log::debug!("{line}");
            }
            if let Some(end) = end {
                return Ok(end);
            }
            if deadline.is_some_and(|due| due <= now) {
                self.on_deadline(now);
            }
        }
    }

    fn on_ready(&mut self, event: Ready, now: Instant) -> io::Result<Option<End>> {
        match event.token {
            EXIT if event.hangup || event.error => return Ok(Some(End::ExitFd)),
            TARGET if self.target.as_ref().is_some_and(Watch::ended) => return Ok(Some(End::Target)),
            SIGNALS => {
                return Ok(self.signal_so_far()?.map(End::Signal));
            }
            RESOLV_CONF => {
                let host = self.host_servers.as_mut();
                if let Some(fresh) = host.and_then(|host| host.conf.on_ready()).cloned() {
                    self.resolve(&fresh);
                }
            }
            DOOR => self.admit(now)?,
            NETWORK => {
                if let Some(follower) = &mut self.network {
                    follower.network().on_ready(now);
                }
            }
            CONTROL => return Ok(Some(End::Asked)),
            token if self.names.owns(token) => self.names.on_ready(token, now, &mut self.driver),
            token if self.table.owns(token) => self.table.on_ready(token, now, &mut self.driver),
            token => {
                if let Some(api) = self.apis.iter_mut().find(|api| api.owns(token)) {
                    api.on_ready(token, now, &mut self.table, &mut self.driver);
                }
            }
        }
        Ok(None)
    }

    /// A guest is at the door. The door stays, and is watched again when this one has hung up; unless it is one where
    /// others are sent away meanwhile.
    fn admit(&mut self, now: Instant) -> io::Result<()> {
        let Some(door) = &self.door else { return Ok(()) };
        match door.accept() {
            Ok(_) if !self.driver.links().is_empty() => {
                log::info!("a second guest is turned away");
                Ok(())
            }
            Ok(guest) => {
                if !door.turns_away() {
                    self.driver.unwatch(door.as_fd());
                }
                self.driver.join_link(guest).map(drop)
            }
            // One that has gone away again is no reason to stop.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
                Ok(())
            }
            Err(error) => {
                log::warn!("a guest has to wait: {error}");
                self.door_opens = Some(now + DOOR_REST);
                self.driver.modify(door.as_fd(), Interest::NONE, DOOR)
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let api = self.apis.iter().filter_map(Api::next_deadline).min();
        let host = self.host_servers.as_ref().and_then(|host| host.poll_at);
        let network = self.network.as_ref().and_then(NetworkFollower::next_deadline);
        let scan = self.scanner.as_ref().and_then(|scanner| scanner.next_deadline(&self.table));
        let names = self.names.next_deadline();
        let shown = self.shown.map(|(_, next)| next);
        [self.table.next_deadline(), api, host, network, names, self.door_opens, scan, shown]
            .into_iter()
            .flatten()
            .min()
    }

    fn on_deadline(&mut self, now: Instant) {
        if let Some(door) = self.door.as_ref().filter(|_| self.door_opens.is_some_and(|at| at <= now)) {
            self.door_opens = None;
            if let Err(error) = self.driver.modify(door.as_fd(), Interest::READ, DOOR) {
                log::warn!("no guest is let in any more: {error}");
            }
        }
        if let Some((every, _)) = self.shown.filter(|(_, next)| *next <= now) {
            self.shown = Some((every, now + every));
            tell(&report::counters(&self.driver, &self.table));
        }
        self.table.on_deadline(now, &mut self.driver);
        if let Some(scanner) = &mut self.scanner {
            scanner.look(now, &mut self.table, &mut self.driver);
        }
        for api in &mut self.apis {
            api.on_deadline(now, &mut self.table, &mut self.driver);
        }
        self.names.on_deadline(now, &mut self.driver);
        if let Some(follower) = &mut self.network {
            follower.on_deadline(now, &mut self.driver);
        }
        if let Some(host) = self.host_servers.as_mut().filter(|host| host.poll_at.is_some_and(|at| at <= now))
        {
            host.poll_at = Some(now + RESOLV_CONF_POLL);
            if let Some(fresh) = host.conf.refresh_if_changed().cloned() {
                self.resolve(&fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests;
