//! Orders to the packets process, and its words to this one: the line between the two on tokio.
//!
//! Whoever asks waits for the reply; a caller that has gone away meanwhile leaves a reply that nobody takes, and a
//! descriptor that came with it is closed. The packets process answers every order, and in bounded time, so nobody is
//! timed here.

use super::stream::{Stream, watch};
use crate::orders::line::{Arrived, Line};
use crate::orders::message::{Order, Reply, Request, Word};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

/// Bytes of words that are read at once.
const READ: usize = 16 << 10;

type Answer = (Reply, Option<OwnedFd>);

/// The way to the packets process.
#[derive(Debug)]
pub(crate) struct Errands {
    line: RefCell<Line>,
    /// The same socket once more, to wait for it while others use the line.
    socket: AsyncFd<OwnedFd>,
    waiting: RefCell<Waiting>,
    /// Something is left to be sent.
    stuck: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    callers: HashMap<u64, oneshot::Sender<Answer>>,
}

impl Errands {
    /// The way that leads over `line`.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or watches.
    pub(crate) fn new(line: Line) -> io::Result<Self> {
        let socket = watch(line.as_fd().try_clone_to_owned()?, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { line: line.into(), socket, waiting: RefCell::default(), stuck: Notify::new() })
    }

    /// Has an order carried out: what came of it, and a descriptor if there is one.
    pub(crate) async fn ask(&self, order: Order, descriptor: Option<OwnedFd>) -> Answer {
        let (tell, told) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.last += 1;
            let number = waiting.last;
            waiting.callers.insert(number, tell);
            number
        };
        // A line that is broken is found out by `next`.
        let sent = {
            let mut line = self.line.borrow_mut();
            line.push(&Request { number, order }, descriptor).and_then(|()| line.flush())
        };
        if let Err(error) = sent {
            self.waiting.borrow_mut().callers.remove(&number);
            return (Reply::Failed(error.to_string()), None);
        }
        self.stuck.notify_one();
        told.await.unwrap_or_else(|_| (Reply::Failed("the network is gone".to_owned()), None))
    }

    /// A connection to a guest, which comes about or ends later.
    pub(crate) async fn dial(&self, guest: SocketAddr) -> Option<Stream> {
        let (reply, stream) = self.ask(Order::Dial(guest), None).await;
        let opened = stream.and_then(|stream| Stream::new(stream).ok());
        if opened.is_none() {
            log::warn!("cannot dial {guest}: {reply:?}");
        }
        opened
    }

    /// The next word that is no reply. Replies are given to those who wait for them.
    ///
    /// # Errors
    /// The packets process is gone.
    pub(crate) async fn next(&self) -> io::Result<Arrived<Word>> {
        loop {
            // No borrow outlives a line here: others use them while this waits.
            let arrived = self.line.borrow_mut().receive::<Word>()?;
            match arrived {
                Some(Arrived { message: Word::Reply { number, reply }, descriptor }) => {
                    if let Some(caller) = self.waiting.borrow_mut().callers.remove(&number) {
                        // It may have gone away.
                        let _ = caller.send((reply, descriptor));
                    }
                }
                Some(other) => return Ok(other),
                None => self.progress().await?,
            }
        }
    }

    /// Sends what is left, and reads what there is.
    async fn progress(&self) -> io::Result<()> {
        let sending = self.line.borrow().is_sending();
        tokio::select! {
            ready = self.socket.readable() => {
                let mut guard = ready?;
                if !self.line.borrow_mut().fill(READ)? {
                    guard.clear_ready();
                }
            }
            ready = self.socket.writable(), if sending => {
                let mut guard = ready?;
                let mut line = self.line.borrow_mut();
                line.flush()?;
                if line.is_sending() {
                    guard.clear_ready();
                }
            }
            () = self.stuck.notified(), if !sending => {}
        }
        Ok(())
    }
}
