//! Connections to the DNS address: streams that end in this process, at whoever resolves names for the guest.
//!
//! To the engine the flow is one like any other: bytes are sent, peeked at and consumed. At its other end is no socket but
//! a [`Stream`], which reads and writes without blocking like a TCP stream. Between them are two bounded buffers and
//! what each side has yet to be told; no descriptor and no system call.
//!
//! What the engine is to be told is collected by [`Shared::take_events`] before a round; what the resolver is to be told,
//! [`Stream::has_news`] says after one. A stream that is dropped ends for the guest behind the last byte written.

use slipway_netstack::upstream::{Errno, Event, Peek, Sent};
use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

/// Bytes that wait in either direction: a message of any length.
const ROOM: usize = 2 + 65_535;

/// What lies between the two ends.
#[derive(Debug, Default)]
struct Pipe {
    /// From the guest, not yet read.
    queries: Vec<u8>,
    /// For the guest, not yet acknowledged by it.
    answers: Vec<u8>,
    /// The guest has closed its half.
    guest_done: bool,
    /// The flow is gone.
    flow_gone: bool,
    /// The resolver has closed.
    resolver_gone: bool,
    /// The last send was short: the engine waits for room.
    short: bool,
    /// What the engine is to be told.
    connected: bool,
    readable: bool,
    writable: bool,
    /// Something is new to the resolver.
    news: bool,
}

/// The flow's end.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Rc<RefCell<Pipe>>);

/// The resolver's end.
#[derive(Debug)]
pub struct Stream(Shared);

/// A stream between a flow and a resolver that is told of it.
pub(super) fn stream() -> (Shared, Stream) {
    let shared = Shared::default();
    shared.0.borrow_mut().connected = true;
    (shared.clone(), Stream(shared))
}

impl Shared {
    pub(super) fn send(&self, pieces: &[&[u8]]) -> Sent {
        let mut pipe = self.0.borrow_mut();
        if pipe.resolver_gone {
            return Sent::Failed(Errno::Reset);
        }
        let before = pipe.queries.len();
        for part in pieces {
            let room = ROOM.saturating_sub(pipe.queries.len()).min(part.len());
            pipe.queries.extend_from_slice(part.get(..room).unwrap_or_default());
        }
        let taken = pipe.queries.len() - before;
        pipe.short = taken < pieces.iter().map(|piece| piece.len()).sum::<usize>();
        pipe.news |= taken > 0;
        Sent::Taken(taken)
    }

    pub(super) fn peek(&self, offset: usize, into: &mut [u8]) -> Peek {
        let pipe = self.0.borrow();
        match pipe.answers.get(offset..).filter(|rest| !rest.is_empty()) {
            Some(rest) => {
                into.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                Peek::Data(rest.len().min(into.len()))
            }
            None if pipe.resolver_gone => Peek::End,
            None => Peek::Empty,
        }
    }

    pub(super) fn consume(&self, count: usize) {
        let mut pipe = self.0.borrow_mut();
        let count = count.min(pipe.answers.len());
        pipe.answers.drain(..count);
        pipe.news = true;
    }

    pub(super) fn shutdown(&self) {
        let mut pipe = self.0.borrow_mut();
        (pipe.guest_done, pipe.news) = (true, true);
    }

    pub(super) fn close(&self) {
        let mut pipe = self.0.borrow_mut();
        (pipe.flow_gone, pipe.news) = (true, true);
    }

    /// What is new to the engine.
    pub(super) fn take_events(&self) -> impl Iterator<Item = Event> + use<> {
        let mut pipe = self.0.borrow_mut();
        let told = [
            (std::mem::take(&mut pipe.connected), Event::Connected),
            (std::mem::take(&mut pipe.readable), Event::Readable),
            (std::mem::take(&mut pipe.writable), Event::Writable),
        ];
        told.into_iter().filter_map(|(is_so, event)| is_so.then_some(event))
    }
}

impl Stream {
    /// Whether the guest has sent, acknowledged or ended something since this was last asked.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.0.0.borrow_mut().news)
    }

    /// Whether bytes wait to be read.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.0.0.borrow().queries.is_empty()
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.0.borrow_mut();
        if pipe.flow_gone {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if pipe.queries.is_empty() {
            return if pipe.guest_done { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let count = pipe.queries.len().min(into.len());
        into.iter_mut().zip(pipe.queries.drain(..count)).for_each(|(to, from)| *to = from);
        let short = std::mem::take(&mut pipe.short);
        pipe.writable |= short;
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.0.borrow_mut();
        if pipe.flow_gone {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let count = ROOM.saturating_sub(pipe.answers.len()).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        pipe.answers.extend_from_slice(bytes.get(..count).unwrap_or_default());
        pipe.readable = true;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut pipe = self.0.0.borrow_mut();
        (pipe.resolver_gone, pipe.readable) = (true, true);
        pipe.queries = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(shared: &Shared) -> Vec<Event> {
        shared.take_events().collect()
    }

    #[test]
    fn bytes_travel_both_ways_and_each_side_is_told_once() {
        let (flow, mut stream) = stream();
        assert_eq!(events(&flow), [Event::Connected]);
        assert!(!stream.has_news());
        assert_eq!(flow.send(&[b"que", b"ry"]), Sent::Taken(5));
        assert!(stream.has_news() && !stream.has_news());
        let mut buffer = [0; 9];
        assert_eq!(stream.read(&mut buffer).unwrap(), 5);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.write_all(b"answer").unwrap();
        assert_eq!(events(&flow), [Event::Readable]);
        assert_eq!(events(&flow), []);
        assert_eq!((flow.peek(0, &mut buffer), flow.peek(4, &mut buffer)), (Peek::Data(6), Peek::Data(2)));
        assert_eq!(&buffer[..2], b"er");
        assert_eq!(flow.peek(6, &mut buffer), Peek::Empty);
        flow.consume(6);
        assert!(stream.has_news());
        flow.shutdown();
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
        stream.write_all(b"late").unwrap();
        drop(stream);
        assert_eq!(events(&flow), [Event::Readable]);
        assert_eq!((flow.peek(0, &mut buffer), flow.peek(4, &mut buffer)), (Peek::Data(4), Peek::End));
        assert_eq!(flow.send(&[b"more"]), Sent::Failed(Errno::Reset));
    }

    #[test]
    fn what_waits_is_bounded_both_ways() {
        let (flow, mut stream) = stream();
        assert_eq!(flow.send(&[&[1; ROOM], &[2; 9]]), Sent::Taken(ROOM));
        assert_eq!(flow.send(&[&[2; 9]]), Sent::Taken(0));
        let _ = events(&flow);
        assert_eq!(stream.read(&mut vec![0; ROOM]).unwrap(), ROOM);
        assert_eq!(events(&flow), [Event::Writable]);
        assert_eq!(stream.write(&[3; ROOM + 1]).unwrap(), ROOM);
        assert_eq!(stream.write(&[3]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let _ = stream.has_news();
        flow.consume(10);
        assert!(stream.has_news());
        assert_eq!(stream.write(&[3; 20]).unwrap(), 10);
    }

    #[test]
    fn a_flow_that_is_gone_is_told() {
        let (flow, mut stream) = stream();
        flow.send(&[b"x"]);
        flow.close();
        assert!(stream.has_news());
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.write(&[0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
