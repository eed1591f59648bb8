//! A socket of the host that leads to one of the guest's: its clients, and the one connection that they share.
//!
//! **The connection** comes about by itself for the sockets of the start, and with the first client for those that were
//! exposed later. When it breaks it is made again. A try that fails is followed by another after [`REST`] if a client
//! waits, and after twice as long as before, up to [`LONG_REST`], if nobody does: sshd counts those who come and are
//! refused (PerSourcePenalties), and all that it sees of the host is the gateway. What went wrong is said once, and
//! again when it is something else.
//!
//! **A client** waits for the connection up to [`WAIT`], then it is hung up on; at once, if the guest refuses the key
//! or there is none, for waiting would not help. A socket that nobody listens at yet is tried [`TRIES`] times. Beyond
//! [`CLIENTS`] at once the next ones wait to be accepted, where the kernel keeps them.

use super::client::Fault;
use super::keeper::Keeper;
use super::link::{End, Link, Unopened};
use crate::control::errands::Errands;
use crate::control::stream::{Listener, Stream};
use crate::control::url::Tunnel;
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};

/// Clients of one socket at once.
const CLIENTS: usize = 128;
/// How long a client waits for a connection.
const WAIT: Duration = Duration::from_secs(60);
/// How long a server may take until it says anything, and until it lets us in. A guest that has just begun to be there
/// would otherwise be found late: to its kernel we knock more and more seldom.
const FIRST: Duration = Duration::from_secs(8);
const LOGIN: Duration = Duration::from_secs(25);
/// Between two tries to connect.
const REST: Duration = Duration::from_secs(1);
const LONG_REST: Duration = Duration::from_secs(16);
/// Tries to reach the guest's socket, and the time between two.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What tunnels need of the rest of the process.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    /// To the packets process.
    pub(crate) errands: Rc<Errands>,
    /// To whoever holds keys.
    pub(crate) keeper: Rc<Keeper>,
}

/// How it stands with the connection.
#[derive(Debug, Clone)]
enum Standing {
    /// There is none yet, or none any more.
    Down,
    /// There is none, and waiting is no use: this is why.
    Hopeless(Rc<str>),
    Up(Rc<Link>),
}

#[derive(Debug)]
struct Inner {
    tunnel: Tunnel,
    ways: Ways,
    standing: RefCell<Standing>,
    changed: Notify,
    /// Clients that wait for the connection.
    waiting: Cell<usize>,
    wanted: Notify,
}

/// A tunnel. Its connection ends with it.
#[derive(Debug)]
struct Road {
    inner: Rc<Inner>,
    connecting: AbortHandle,
}

impl Drop for Road {
    fn drop(&mut self) {
        self.connecting.abort();
        if let Standing::Up(link) = &*self.inner.standing.borrow() {
            link.finish();
        }
    }
}

/// Leads every client of `listener` through `tunnel`. `at_once`: nobody has to come first. Those clients that have come
/// live on when this is ended.
pub(crate) async fn lead(listener: Listener, tunnel: Tunnel, ways: Ways, at_once: bool) {
    let inner = Rc::new(Inner {
        tunnel,
        ways,
        standing: Standing::Down.into(),
        changed: Notify::new(),
        waiting: Cell::new(0),
        wanted: Notify::new(),
    });
    let connecting = spawn_local(connect(Rc::clone(&inner), at_once)).abort_handle();
    let road = Rc::new(Road { inner, connecting });
    let seats = Arc::new(Semaphore::new(CLIENTS));
    loop {
        // Nobody closes it.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let client = listener.accept().await;
        let road = Rc::clone(&road);
        spawn_local(async move {
            if let Err(why) = road.inner.serve(client).await {
                log::warn!("couldn't reestablish ssh tunnel on path: {}: {why}", road.inner.tunnel.path);
            }
            drop(seat);
        });
    }
}

/// Counts a client while it waits.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.waiting.set(inner.waiting.get() + 1);
        inner.wanted.notify_one();
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Inner {
    /// Serves a client to its end.
    async fn serve(&self, client: Stream) -> Result<(), Rc<str>> {
        let mut why: Rc<str> = "the connection breaks".into();
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            let link = match timeout(WAIT, self.link()).await {
                Ok(link) => link?,
                Err(_) => return Err("there is no connection".into()),
            };
            match link.open(&self.tunnel.path).await {
                Ok(channel) => {
                    channel.relay(client).await;
                    return Ok(());
                }
                Err(Unopened::Refused(words)) => why = words.into(),
                Err(Unopened::Over) => {}
            }
        }
        Err(why)
    }

    /// The connection, as soon as there is one.
    async fn link(&self) -> Result<Rc<Link>, Rc<str>> {
        let mut waiting = None;
        loop {
            match &*self.standing.borrow() {
                Standing::Up(link) => return Ok(Rc::clone(link)),
                // Whoever comes has it tried once more.
                Standing::Hopeless(why) if waiting.is_some() => return Err(Rc::clone(why)),
                Standing::Hopeless(_) | Standing::Down => {}
            }
            waiting.get_or_insert_with(|| Waiting::new(self));
            self.changed.notified().await;
        }
    }

    fn stand(&self, standing: Standing) {
        *self.standing.borrow_mut() = standing;
        self.changed.notify_waiters();
    }

    /// Rests between two tries: `rest`, or [`REST`] if a client waits or comes.
    async fn rest(&self, rest: Duration) {
        sleep(REST).await;
        if self.waiting.get() == 0 && rest > REST {
            // A word of one that has gone again means nothing.
            tokio::select! {
                () = sleep(rest - REST) => {}
                () = self.somebody() => {}
            }
        }
    }

    async fn somebody(&self) {
        while self.waiting.get() == 0 {
            self.wanted.notified().await;
        }
    }

    /// One connection, from its beginning to its end.
    async fn connection(&self) -> End {
        let Tunnel { server, user, key, .. } = &self.tunnel;
        let keeper = &self.ways.keeper;
        let public = match keeper.public(key).await {
            Ok(public) => public,
            Err(why) => return End::Key(why),
        };
        let Some(stream) = self.ways.errands.dial(*server).await else {
            return End::Lost("nobody is dialled".to_owned());
        };
        let link = Rc::new(Link::new(user, public));
        let mut carried = pin!(link.carry(stream, keeper, key));
        tokio::select! {
            end = &mut carried => return end,
            () = link.entered() => {}
            () = late(&link) => return End::Silent,
        }
        log::info!("an SSH connection leads to {} of {user} at {server}", self.tunnel.path);
        self.stand(Standing::Up(Rc::clone(&link)));
        carried.await
    }
}

/// Until a server has taken too long.
async fn late(link: &Link) {
    sleep(FIRST).await;
    if link.has_heard() {
        sleep(LOGIN.saturating_sub(FIRST)).await;
    }
}

/// Keeps a connection, as often as it takes.
async fn connect(inner: Rc<Inner>, at_once: bool) {
    let (mut rest, mut said) = (REST, String::new());
    if !at_once {
        inner.somebody().await;
    }
    loop {
        let end = inner.connection().await;
        let was_up = matches!(*inner.standing.borrow(), Standing::Up(_));
        let words = end.to_string();
        inner.stand(match end {
            End::Key(why) => Standing::Hopeless(format!("identity {why}").into()),
            End::Said(fault @ Fault::Refused(_)) => Standing::Hopeless(fault.to_string().into()),
            End::Said(_) | End::Lost(_) | End::Silent => Standing::Down,
        });
        // When the whole network ends, there is nothing to be said of it.
        sleep(PAUSE).await;
        if was_up || words != said {
            let server = inner.tunnel.server;
            log::warn!("couldn't reestablish ssh connection: {server}: {words}");
        }
        // An end after it was up is no failed try.
        rest = if was_up { REST } else { (rest * 2).min(LONG_REST) };
        said = words;
        inner.rest(rest).await;
        if !at_once {
            inner.somebody().await;
        }
    }
}
