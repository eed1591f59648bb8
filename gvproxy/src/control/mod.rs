//! The control process: it talks to whoever gives orders, and carries no packet.
//!
//! ```text
//!   -listen, -services ─┐                                   ┌─ exposed sockets ◀── clients
//!   gateway:80 ─────────┼▶ http ─▶ api ─▶ errands ─▶ line ──┤
//!                       │                     (the packets process)
//!   news ───────────────┴▶ notify ─▶ -notification
//!   -forward-sock ───────▶ ssh ─▶ a guest's SSH server, dialled by errands; the keeper signs
//! ```
//! A process of its own, not a thread, for it reads what strangers write: whoever takes it over finds none of the
//! engine's memory, keys or sockets in it, and what is left to it is small ([`settle`]). It is forked before the engine
//! is made and before there is any thread. Sockets to listen at are opened by the packets process, where a failure ends
//! the start in the right words and at the right place of its order, and come over the line.
//!
//! It ends when the line does: the packets process is gone then, however that came about. Signals are none of its
//! business; those of a terminal come to both. When it ends for a reason of its own, packets flow on, and ports that
//! are forwarded stay so; its API is gone.
//!
//! | module | what |
//! |---|---|
//! | [`http`] | requests and answers |
//! | [`api`] | what they do |
//! | [`json`] | bodies, as Go reads and writes them |
//! | [`errands`] | the way to the packets process |
//! | [`handed`] | guests whose sockets are handed over |
//! | [`wait`] | whoever waits for a guest's port |
//! | [`exposed`] | sockets that lead into the network; [`url`] says where, [`socket_file`] makes them |
//! | [`ssh`] | sockets that lead to sockets of guests |
//! | [`notify`] | who is told of guests |
//! | [`stream`] | sockets of any family on tokio |

mod api;
mod errands;
mod exposed;
mod handed;
pub(crate) mod http;
pub(crate) mod json;
mod notify;
pub(crate) mod socket_file;
pub(crate) mod ssh;
mod stream;
pub(crate) mod url;
pub(crate) mod wait;

#[cfg(test)]
mod tests;

use crate::config::{Config, SshForward};
use crate::orders::line::{Arrived, Line};
use crate::orders::message::{Door, News, Word};
use api::{Api, Caller};
use errands::Errands;
use exposed::Exposed;
use http::budget::Budget;
use http::serve::serve;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::WaitStatus;
use notify::Notifier;
use slipway_dns::config::gvproxy::Zone;
use slipway_dns::zone::suffix::{Manner, Zones};
use slipway_host::driver::raise_descriptor_limit;
use slipway_host::sandbox::files::Place;
use slipway_host::sandbox::{Needs, seccomp};
use slipway_host::sys::proc::{fork_child, wait_for};
use slipway_host::sys::{code, heap};
use socket_file::SocketFile;
use ssh::keeper::{self, Keeper};
use ssh::road::{self, Ways};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use stream::{Listener, Stream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;
use url::Tunnel;

/// Connections that one guest may have to gateway:80; further ones are closed.
const OF_ONE_GUEST: u32 = 256;
/// How long news may take that are left at the end.
const LAST_NEWS: Duration = Duration::from_millis(50);

/// What the control process has to know.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Names of the start.
    pub zones: Vec<Zone>,
    /// Whether guests may have sockets made on the host.
    pub all_protocols_inside: bool,
    /// Who is told of guests.
    pub notification: Option<PathBuf>,
    /// Where the sockets lead that the start asks for.
    pub(crate) tunnels: Vec<Tunnel>,
    /// Whether anybody could ask for a tunnel later.
    pub(crate) takes_tunnels: bool,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            zones: config.stack.dns.clone(),
            all_protocols_inside: config.expose_all_protocols,
            notification: config.notification.clone(),
            tunnels: config.forwards.iter().map(|forward| tunnel(forward, config.stack.device_ip)).collect(),
            takes_tunnels: !config.listen.is_empty()
                || config.services.is_some()
                || config.expose_all_protocols,
        }
    }
}

fn tunnel(forward: &SshForward, guest: Ipv4Addr) -> Tunnel {
    Tunnel {
        server: SocketAddr::new(guest.into(), url::SSH),
        user: forward.user.clone(),
        key: forward.identity.clone(),
        path: forward.dest.clone(),
    }
}

/// Starts the control process: our end of the line to it, for a [`crate::orders::Desk`]. To be called before there is
/// anything that it should not see, and before there is any thread.
///
/// It is nobody's child, so that nobody has to wait for it.
///
/// # Errors
/// The kernel's: out of processes or descriptors.
pub fn fork(settings: Settings) -> io::Result<Line> {
    let (ours, theirs) = Line::pair()?;
    let mut ours = Some(ours);
    let between = fork_child(|| {
        // The line has ended when the packets process has: nobody else holds its end.
        ours = None;
        u8::from(fork_child(move || u8::from(run(theirs, settings).is_err())).is_err())
    })?;
    match (wait_for(between)?, ours) {
        (WaitStatus::Exited(_, 0), Some(ours)) => Ok(ours),
        _ => Err(io::Error::other("the control process could not be started")),
    }
}

/// The whole life of it.
fn run(line: Line, settings: Settings) -> io::Result<()> {
    // Frames may go over the standard streams, and a guest waits for their end.
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::unistd::dup2_stdout(&nothing)?;
    drop(nothing);
    let mut left_to_the_other = SigSet::all();
    for signal in
        [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT, Signal::SIGSYS]
    {
        left_to_the_other.remove(signal);
    }
    left_to_the_other.thread_block()?;
    nix::sys::stat::umask(socket_file::MASK);
    if let Err(error) = raise_descriptor_limit() {
        log::debug!("the limit of open descriptors stays as it is: {error}");
    }
    let mut line = Some(line);
    let keys = if settings.takes_tunnels || !settings.tunnels.is_empty() {
        let keeper = keeper::fork(|| line = None);
        keeper.inspect_err(|error| log::warn!("nobody holds keys: {error}")).ok()
    } else {
        None
    };
    let Some(line) = line else { return Ok(()) };
    let runtime = runtime()?;
    settle();
    heap::trim();
    code::let_go();
    let local = LocalSet::new();
    let outcome = local.block_on(&runtime, attend(line, keys, settings));
    // Whoever is left is told no more, and their sockets' files go.
    drop(local);
    match outcome {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            log::warn!("the control process ends: {error}");
            Err(error)
        }
        _ => Ok(()),
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// What is left to this process: to make sockets and to remove them, to talk to whoever comes to one, and nothing
/// else. No file is opened, nothing executed, nobody traced. Private keys are the keeper's ([`keeper`]).
fn settle() {
    slipway_host::sandbox::settle(&Needs {
        files: &[Place::sockets("/")],
        capabilities: &[],
        calls: seccomp::Profile::Control,
    });
}

/// Does what the packets process says, until that is gone.
async fn attend(line: Line, keys: Option<OwnedFd>, settings: Settings) -> io::Result<()> {
    let errands = Rc::new(Errands::new(line)?);
    let ways = Ways { errands: Rc::clone(&errands), keeper: Rc::new(Keeper::new(keys)?) };
    let mut zones = Zones::new(Manner::Strict);
    for zone in settings.zones {
        if let Err(error) = zones.add(zone) {
            log::warn!("{error}");
        }
    }
    let api = Api {
        errands: Rc::clone(&errands),
        exposed: Exposed::new(ways.clone()),
        zones: zones.into(),
        all_protocols_inside: settings.all_protocols_inside,
        tries: Semaphore::new(wait::AT_ONCE),
    };
    let mut house = House {
        shared: Rc::new(Shared { api, outside: Budget::default(), inside: Budget::default() }),
        guests: Rc::default(),
        files: Vec::new(),
        ways,
        tunnels: settings.tunnels,
        notifier: settings.notification.map(|path| {
            let (notifier, task) = Notifier::start(path);
            (notifier, spawn_local(task))
        }),
    };
    let end = loop {
        match errands.next().await {
            Ok(word) => house.heed(word),
            Err(error) => break error,
        }
    };
    house.close().await;
    Err(end)
}

#[derive(Debug)]
struct Shared {
    api: Api,
    outside: Budget,
    inside: Budget,
}

/// Everything that is there while there is a network.
#[derive(Debug)]
struct House {
    shared: Rc<Shared>,
    /// How many connections each guest has.
    guests: Rc<RefCell<HashMap<IpAddr, u32>>>,
    files: Vec<SocketFile>,
    ways: Ways,
    tunnels: Vec<Tunnel>,
    notifier: Option<(Notifier, JoinHandle<()>)>,
}

impl House {
    fn heed(&mut self, Arrived { message, descriptor }: Arrived<Word>) {
        match (message, descriptor) {
            (Word::Listen { door, file }, Some(listener)) => self.listen(door, file, listener),
            (Word::Forward { at, file }, Some(listener)) => self.forward(at, &file, listener),
            (Word::Client(guest), Some(stream)) => self.admit(guest, stream),
            (Word::News(news), _) => self.tell(news),
            // A reply is nobody's here; a descriptor that was lost was one too many for this process.
            _ => log::warn!("a client is lost: no descriptor is left for it"),
        }
    }

    fn tell(&self, news: News) {
        if let Some((notifier, _)) = &self.notifier {
            notifier.tell(news);
        }
    }

    /// The socket at this path goes when this does.
    fn own(&mut self, path: &Path) {
        match SocketFile::at(path) {
            Ok(file) => self.files.push(file),
            Err(error) => log::debug!("the socket {} is not to be found: {error}", path.display()),
        }
    }

    fn forward(&mut self, at: usize, file: &Path, listener: OwnedFd) {
        self.own(file);
        let (Some(tunnel), Ok(listener)) = (self.tunnels.get(at).cloned(), Listener::new(listener)) else {
            return log::error!("nobody is heard at {}", file.display());
        };
        spawn_local(road::lead(listener, tunnel, self.ways.clone(), true));
    }

    fn listen(&mut self, door: Door, file: Option<PathBuf>, listener: OwnedFd) {
        if let Some(file) = file {
            self.own(&file);
        }
        let listener = match Listener::new(listener) {
            Ok(listener) => listener,
            Err(error) => return log::error!("nobody is heard at an API socket: {error}"),
        };
        let shared = Rc::clone(&self.shared);
        spawn_local(async move {
            loop {
                let client = listener.accept().await;
                let shared = Rc::clone(&shared);
                spawn_local(async move {
                    if door == Door::Descriptors {
                        return handed::take_over(client, &shared.api.errands).await;
                    }
                    let caller = Caller { api: &shared.api, door, address: client.peer() };
                    serve(client, &shared.outside, &caller).await;
                });
            }
        });
    }

    fn admit(&self, guest: SocketAddr, stream: OwnedFd) {
        let Some(place) = Seat::take(&self.guests, guest.ip()) else {
            log::warn!("{guest} has {OF_ONE_GUEST} connections to the gateway already");
            return;
        };
        let Ok(stream) = Stream::new(stream) else { return };
        let shared = Rc::clone(&self.shared);
        spawn_local(async move {
            let caller = Caller { api: &shared.api, door: Door::Inside, address: Some(guest) };
            serve(stream, &shared.inside, &caller).await;
            drop(place);
        });
    }

    /// Tells what there is to tell yet, and removes the sockets' files.
    async fn close(self) {
        drop(self.files);
        self.shared.api.exposed.close();
        if let Some((notifier, task)) = self.notifier {
            drop(notifier);
            // What is not told by then is told to nobody.
            let _ = timeout(LAST_NEWS, task).await;
        }
    }
}

/// One of a guest's connections.
struct Seat {
    guests: Rc<RefCell<HashMap<IpAddr, u32>>>,
    guest: IpAddr,
}

impl Seat {
    fn take(guests: &Rc<RefCell<HashMap<IpAddr, u32>>>, guest: IpAddr) -> Option<Self> {
        let mut counts = guests.borrow_mut();
        let count = counts.entry(guest).or_default();
        if *count >= OF_ONE_GUEST {
            return None;
        }
        *count += 1;
        Some(Self { guests: Rc::clone(guests), guest })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.guests.borrow_mut();
        if let Some(count) = counts.get_mut(&self.guest) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.guest);
            }
        }
    }
}
