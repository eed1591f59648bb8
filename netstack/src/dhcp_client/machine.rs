//! What clients of every version have in common: a machine that is fed frames and time, and says what to do.

use crate::clock::Instant;

/// What is to be done after something came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<E> {
    /// A frame to send.
    pub send: Option<Vec<u8>>,
    /// Something to know.
    pub event: Option<E>,
}

impl<E> Default for Step<E> {
    fn default() -> Self {
        Self { send: None, event: None }
    }
}

impl<E> Step<E> {
    /// A frame to send.
    #[must_use]
    pub fn send(frame: Vec<u8>) -> Self {
        Self { send: Some(frame), event: None }
    }

    /// Something to know.
    #[must_use]
    pub fn event(event: E) -> Self {
        Self { send: None, event: Some(event) }
    }
}

/// A machine of one client.
pub trait Machine {
    /// What it says.
    type Event;

    /// When [`Machine::timeout`] is to be called; `None`: not without a frame before.
    fn deadline(&self) -> Option<Instant>;

    /// Whether an answer may come.
    fn listening(&self) -> bool;

    /// Time has passed.
    fn timeout(&mut self, now: Instant) -> Step<Self::Event>;

    /// A frame has come in.
    fn received(&mut self, now: Instant, frame: &[u8]) -> Step<Self::Event>;
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A server said so.
    Refused,
    /// No server prolonged it.
    Expired,
}
