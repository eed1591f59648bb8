//! One connection to a server, at work: a [`Client`] on tokio, and those who have streams in it.
//!
//! ```text
//!   Link::carry ─┬─ reads  ─▶ client ─▶ bells of streams
//!                ├─ writes ◀─ client ◀─ bells of clients
//!                └─ looks now and then whether anybody is there, as long as there are streams
//!   Stream (one for each client) ─┬─ from the client, as far as the server's window and the room here go
//!                                 └─ to the client, and only then is the window opened again
//! ```
//! **Bounds.** A stream holds at most a window of what has come for its client; what goes out shares [`ROOM`] bytes, of
//! which whoever has something to send gets a piece in turn. A server that asks for more than it takes is not read any
//! more.
//!
//! **Who is dead.** A server from which nothing has come for [`SILENCE`], while there are streams, is asked whether it
//! is there, and has [`PATIENCE`] to say anything at all. Without streams nobody asks, and nothing wakes up.

use super::channels::{Id, State};
use super::client::{Client, Fault, Happened, Public};
use super::keeper::Keeper;
use crate::control::stream::Stream;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{
    AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf,
    split,
};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

/// Bytes that may wait to be sent before nobody adds to them.
const ROOM: usize = 256 << 10;
/// Bytes that may, before the server's own questions are not read any more.
const MOST: usize = 1 << 20;
/// So much is read at once.
const READ: usize = 32 << 10;
/// How long a server may be silent, and how long when it was asked.
const SILENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// By what was said.
    #[error(transparent)]
    Said(#[from] Fault),
    /// The stream below it has ended.
    #[error("the connection ends: {0}")]
    Lost(String),
    /// There is no key.
    #[error("identity {0}")]
    Key(String),
    /// It does not answer.
    #[error("the server does not answer")]
    Silent,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Lost("end of file".to_owned()),
            _ => {
                Self::Lost(crate::orders::endpoint::in_small_letters(&slipway_host::strerror::words(&error)))
            }
        }
    }
}

/// Why there is no stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// The server will not have it, for this reason.
    Refused(String),
    /// The connection is over.
    Over,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    client: RefCell<Client>,
    /// One for each stream: something has happened to it.
    bells: RefCell<HashMap<Id, Rc<Notify>>>,
    /// There is something to send.
    dirty: Notify,
    /// There is room for more.
    room: Notify,
    /// We are in.
    entered: Notify,
    /// A stream was opened.
    busy: Notify,
    /// What has come in so far, in pieces.
    heard: Cell<u64>,
    over: Cell<bool>,
    /// What is on its way from a client, for the moment in which it is.
    scratch: RefCell<Vec<u8>>,
}

impl Link {
    /// One that wants to be `user`, by this key.
    pub(super) fn new(user: &str, public: Public) -> Self {
        Self {
            client: Client::new(user, public, cookie()).into(),
            bells: RefCell::default(),
            dirty: Notify::new(),
            room: Notify::new(),
            entered: Notify::new(),
            busy: Notify::new(),
            heard: Cell::new(0),
            over: Cell::new(false),
            scratch: RefCell::default(),
        }
    }

    /// Whether the server has said anything.
    pub(super) const fn has_heard(&self) -> bool {
        self.heard.get() > 0
    }

    /// Waits until we are in. One waits.
    pub(super) async fn entered(&self) {
        self.entered.notified().await;
    }

    /// Carries bytes by this stream until it is over, and tells everybody. The key is in this file.
    pub(super) async fn carry(&self, stream: Stream, keeper: &Keeper, key: &Path) -> End {
        let (reader, writer) = split(stream);
        let end = tokio::select! {
            end = self.read(reader, keeper, key) => end,
            end = self.write(writer) => end,
            end = self.watch() => end,
        };
        self.finish();
        end.err().unwrap_or(End::Silent)
    }

    /// Nothing more comes of it.
    pub(super) fn finish(&self) {
        self.over.set(true);
        self.room.notify_waiters();
        for bell in self.bells.borrow().values() {
            bell.notify_waiters();
        }
    }

    async fn read(&self, mut from: ReadHalf<Stream>, keeper: &Keeper, key: &Path) -> Result<(), End> {
        loop {
            while self.client.borrow_mut().outgoing().len() > MOST {
                self.room.notified().await;
            }
            let len = poll_fn(|context| {
                let mut client = self.client.borrow_mut();
                let buffer = client.incoming();
                buffer.reserve(READ);
                pin!(from.read_buf(buffer)).poll(context)
            });
            if len.await? == 0 {
                return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            self.heard.set(self.heard.get().wrapping_add(1));
            loop {
                // No borrow outlives the line.
                let happened = self.client.borrow_mut().advance(cookie)?;
                match happened {
                    None => break,
                    Some(Happened::Nothing) => {}
                    Some(Happened::LoggedIn) => self.entered.notify_one(),
                    Some(Happened::Channel(id)) => {
                        if let Some(bell) = self.bells.borrow().get(&id) {
                            bell.notify_waiters();
                        }
                    }
                    Some(Happened::Sign(message)) => {
                        let signature = keeper.sign(key, &message).await.map_err(End::Key)?;
                        self.client.borrow_mut().signed(&signature);
                    }
                }
            }
            self.dirty.notify_one();
            // Others have their turn, however much comes.
            yield_now().await;
        }
    }

    async fn write(&self, mut to: WriteHalf<Stream>) -> Result<(), End> {
        loop {
            let sent = poll_fn(|context| {
                let mut client = self.client.borrow_mut();
                let out = client.outgoing();
                if out.bytes().is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let sent = ready!(Pin::new(&mut to).poll_write(context, out.bytes()))?;
                out.sent(sent);
                Poll::Ready(Ok::<_, io::Error>(sent))
            });
            if sent.await? == 0 {
                self.dirty.notified().await;
            } else if self.client.borrow_mut().outgoing().len() < ROOM / 2 {
                self.room.notify_waiters();
            }
        }
    }

    /// Looks whether the server is there, as long as there are streams.
    async fn watch(&self) -> Result<(), End> {
        loop {
            while self.client.borrow_mut().channels().0.len() == 0 {
                self.busy.notified().await;
            }
            let heard = self.heard.get();
            sleep(SILENCE).await;
            if self.heard.get() != heard || self.client.borrow_mut().channels().0.len() == 0 {
                continue;
            }
            self.client.borrow_mut().ask();
            self.dirty.notify_one();
            sleep(PATIENCE).await;
            if self.heard.get() == heard {
                return Err(End::Silent);
            }
        }
    }

    /// A stream to the socket at `path` of the guest.
    ///
    /// # Errors
    /// See [`Unopened`].
    pub(super) async fn open(self: &Rc<Self>, path: &str) -> Result<Channel, Unopened> {
        if self.over.get() {
            return Err(Unopened::Over);
        }
        let id = {
            let mut client = self.client.borrow_mut();
            let (channels, out) = client.channels();
            channels.open(path, out)
        };
        let bell = Rc::new(Notify::new());
        self.bells.borrow_mut().insert(id, Rc::clone(&bell));
        let channel = Channel { link: Rc::clone(self), id, bell };
        self.dirty.notify_one();
        self.busy.notify_one();
        loop {
            let state = self.client.borrow_mut().channels().0.state(id);
            match state {
                _ if self.over.get() => return Err(Unopened::Over),
                State::Open | State::Closed => return Ok(channel),
                State::Refused(why) => return Err(Unopened::Refused(why)),
                State::Asked => channel.bell.notified().await,
            }
        }
    }
}

fn cookie() -> [u8; 16] {
    // The kernel has always some. What the server has of its own makes the session what it is.
    slipway_host::random::bytes().unwrap_or_default()
}

/// A stream, which ends when this goes.
#[derive(Debug)]
pub(super) struct Channel {
    link: Rc<Link>,
    id: Id,
    bell: Rc<Notify>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.link.bells.borrow_mut().remove(&self.id);
        let mut client = self.link.client.borrow_mut();
        let (channels, out) = client.channels();
        channels.leave(self.id, out);
        self.link.dirty.notify_one();
    }
}

/// What a try to take something from a client has come to.
enum Taken {
    /// So many bytes; none at its end.
    Bytes(usize),
    /// There is no room for any.
    NoRoom,
}

impl Channel {
    /// Carries bytes to and fro until both ways have ended, or one is broken. An end is passed on.
    pub(super) async fn relay(&self, client: Stream) {
        let (from, to) = split(client);
        let both = async { tokio::try_join!(self.upload(from), self.download(to)) };
        tokio::select! {
            // What is broken is closed by that; there is nobody to tell.
            _ = both => {}
            () = self.is_over() => {}
        }
    }

    /// Waits until nothing can come of it any more.
    async fn is_over(&self) {
        loop {
            let closed = {
                let mut client = self.link.client.borrow_mut();
                let (channels, _) = client.channels();
                channels.state(self.id) == State::Closed && channels.is_drained(self.id)
            };
            if closed || self.link.over.get() {
                return;
            }
            self.bell.notified().await;
        }
    }

    async fn upload(&self, mut from: ReadHalf<Stream>) -> io::Result<()> {
        loop {
            self.has_room().await;
            match poll_fn(|context| self.poll_take(&mut from, context)).await? {
                Taken::NoRoom => {}
                Taken::Bytes(len) => {
                    self.link.dirty.notify_one();
                    if len == 0 {
                        return Ok(());
                    }
                    // A piece each, in turn.
                    yield_now().await;
                }
            }
        }
    }

    /// Takes what a client has, as much as there is room for, and puts it among what goes out.
    fn poll_take(&self, from: &mut ReadHalf<Stream>, context: &mut Context<'_>) -> Poll<io::Result<Taken>> {
        let mut client = self.link.client.borrow_mut();
        let full = client.outgoing().len() >= ROOM;
        let (channels, out) = client.channels();
        let room = channels.room(self.id);
        if full || room == 0 {
            return Poll::Ready(Ok(Taken::NoRoom));
        }
        let mut scratch = self.link.scratch.borrow_mut();
        scratch.resize(READ, 0);
        let mut buffer = ReadBuf::new(scratch.get_mut(..room.min(READ)).unwrap_or_default());
        ready!(Pin::new(from).poll_read(context, &mut buffer))?;
        let taken = buffer.filled();
        if taken.is_empty() {
            channels.send_end(self.id, out);
        } else {
            channels.send(self.id, taken, out);
        }
        Poll::Ready(Ok(Taken::Bytes(taken.len())))
    }

    /// Waits until something may be sent.
    async fn has_room(&self) {
        loop {
            let (full, room) = {
                let mut client = self.link.client.borrow_mut();
                (client.outgoing().len() >= ROOM, client.channels().0.room(self.id))
            };
            if full {
                self.link.room.notified().await;
            } else if room == 0 {
                self.bell.notified().await;
            } else {
                return;
            }
        }
    }

    async fn download(&self, mut to: WriteHalf<Stream>) -> io::Result<()> {
        loop {
            let written = poll_fn(|context| {
                let mut client = self.link.client.borrow_mut();
                let (channels, out) = client.channels();
                let bytes = channels.received(self.id);
                if bytes.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let written = ready!(Pin::new(&mut to).poll_write(context, bytes))?;
                channels.took(self.id, written, out);
                Poll::Ready(Ok::<_, io::Error>(written))
            });
            if written.await? > 0 {
                self.link.dirty.notify_one();
                continue;
            }
            let drained = self.link.client.borrow_mut().channels().0.is_drained(self.id);
            if drained {
                to.shutdown().await?;
                // Whoever waits for the whole end may look again.
                self.bell.notify_waiters();
                return Ok(());
            }
            self.bell.notified().await;
        }
    }
}
