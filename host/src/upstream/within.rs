//! Connections to the DNS address: streams that end in this process, at whoever resolves names for the guest.
//!
//! To the engine the flow is one like any other: bytes are sent, peeked at and consumed. At its other end is no socket
//! but a [`Stream`], which reads and writes without blocking like a TCP stream. Between them are two bounded buffers;
//! no descriptor and no system call.
//!
//! What one end has to tell the other waits in a queue of flows with news ([`Bell`]), one for each direction, in which
//! a flow stands once. So a round costs what has happened in it, and not what is open. A stream that is dropped ends
//! for the guest behind the last byte written.
//!
//! How many there may be at once, and whose gives way, is the engine's to say
//! (`netstack/src/transport/places.rs`); what one may hold, [`ROOM`] says.

use slipway_netstack::FlowId;
use slipway_netstack::surely::Surely;
use slipway_netstack::upstream::{Errno, Event, Peek, Sent};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

/// Bytes that wait in either direction: a message of any length.
pub(super) const ROOM: usize = 2 + 65_535;

/// Flows with news, for either end.
#[derive(Debug, Clone, Default)]
pub(super) struct Bell(Rc<RefCell<News>>);

#[derive(Debug, Default)]
struct News {
    engine: VecDeque<FlowId>,
    resolver: VecDeque<FlowId>,
}

impl Bell {
    /// A flow of which the engine is to be told something.
    pub(super) fn next_for_engine(&self) -> Option<FlowId> {
        self.0.borrow_mut().engine.pop_front()
    }

    /// A flow of which the resolver is to be told something.
    pub(super) fn next_for_resolver(&self) -> Option<FlowId> {
        self.0.borrow_mut().resolver.pop_front()
    }

    /// A stream between `flow` and a resolver that is told of it.
    pub(super) fn stream(&self, flow: FlowId) -> (Shared, Stream) {
        let mut pipe = Pipe::new(flow, self.clone());
        pipe.tell_engine(|news| news.connected = true);
        let shared = Shared(Rc::new(RefCell::new(pipe)));
        (shared.clone(), Stream(shared))
    }
}

/// What lies between the two ends.
#[derive(Debug)]
struct Pipe {
    flow: FlowId,
    bell: Bell,
    /// From the guest, not yet read.
    queries: VecDeque<u8>,
    /// For the guest, not yet acknowledged by it.
    answers: VecDeque<u8>,
    /// The guest has closed its half.
    guest_done: bool,
    /// The flow is gone.
    flow_gone: bool,
    /// The resolver has closed.
    resolver_gone: bool,
    /// The last send was short: the engine waits for room.
    short: bool,
    /// What the engine is to be told.
    untold: Untold,
    /// The resolver is to be told.
    rung: bool,
}

/// What the engine is to be told; nothing of it while the flow stands in no queue.
#[derive(Debug, Default, PartialEq, Eq)]
struct Untold {
    connected: bool,
    readable: bool,
    writable: bool,
}

impl Pipe {
    const fn new(flow: FlowId, bell: Bell) -> Self {
        Self {
            flow,
            bell,
            queries: VecDeque::new(),
            answers: VecDeque::new(),
            guest_done: false,
            flow_gone: false,
            resolver_gone: false,
            short: false,
            untold: Untold { connected: false, readable: false, writable: false },
            rung: false,
        }
    }

    /// Something is new to the engine.
    fn tell_engine(&mut self, note: impl FnOnce(&mut Untold)) {
        if self.untold == Untold::default() {
            self.bell.0.borrow_mut().engine.push_back(self.flow);
        }
        note(&mut self.untold);
    }

    /// Something is new to the resolver.
    fn tell_resolver(&mut self) {
        if !std::mem::replace(&mut self.rung, true) {
            self.bell.0.borrow_mut().resolver.push_back(self.flow);
        }
    }
}

/// The flow's end.
#[derive(Debug, Clone)]
pub(super) struct Shared(Rc<RefCell<Pipe>>);

/// The resolver's end.
#[derive(Debug)]
pub struct Stream(Shared);

impl Shared {
    pub(super) fn send(&self, pieces: &[&[u8]]) -> Sent {
        let mut pipe = self.0.borrow_mut();
        if pipe.resolver_gone {
            return Sent::Failed(Errno::Reset);
        }
        let before = pipe.queries.len();
        for part in pieces {
            let room = ROOM.saturating_sub(pipe.queries.len()).min(part.len());
            pipe.queries.extend(part.get(..room).surely());
        }
        let taken = pipe.queries.len() - before;
        pipe.short = taken < pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if taken > 0 {
            pipe.tell_resolver();
        }
        Sent::Taken(taken)
    }

    pub(super) fn peek(&self, offset: usize, into: &mut [u8]) -> Peek {
        let pipe = self.0.borrow();
        let (front, back) = pipe.answers.as_slices();
        let (first, second) = match offset.checked_sub(front.len()) {
            Some(within_back) => (back.get(within_back..).unwrap_or_default(), [].as_slice()),
            None => (front.get(offset..).surely(), back),
        };
        let count = copy(first, into);
        match count + copy(second, into.get_mut(count..).surely()) {
            0 if pipe.resolver_gone => Peek::End,
            0 => Peek::Empty,
            count => Peek::Data(count),
        }
    }

    pub(super) fn consume(&self, count: usize) {
        let mut pipe = self.0.borrow_mut();
        let count = count.min(pipe.answers.len());
        pipe.answers.drain(..count);
        if pipe.answers.is_empty() {
            pipe.answers = VecDeque::new(); // an idle connection keeps no buffer
        }
        pipe.tell_resolver();
    }

    pub(super) fn shutdown(&self) {
        let mut pipe = self.0.borrow_mut();
        pipe.guest_done = true;
        pipe.tell_resolver();
    }

    /// The flow is gone: nobody takes what waits for it.
    pub(super) fn close(&self) {
        let mut pipe = self.0.borrow_mut();
        pipe.flow_gone = true;
        (pipe.queries, pipe.answers) = (VecDeque::new(), VecDeque::new());
        pipe.tell_resolver();
    }

    /// What is new to the engine.
    pub(super) fn take_events(&self) -> impl Iterator<Item = Event> + use<> {
        let told = std::mem::take(&mut self.0.borrow_mut().untold);
        let told = [
            (told.connected, Event::Connected),
            (told.readable, Event::Readable),
            (told.writable, Event::Writable),
        ];
        told.into_iter().filter_map(|(is_so, event)| is_so.then_some(event))
    }
}

/// Copies what fits, and says how much that was.
fn copy(from: &[u8], into: &mut [u8]) -> usize {
    into.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    from.len().min(into.len())
}

impl Stream {
    /// The resolver has heard that there is news: what comes from now on is told anew.
    pub fn heard(&mut self) {
        self.0.0.borrow_mut().rung = false;
    }

    /// Whether bytes wait to be read.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.0.0.borrow().queries.is_empty()
    }

    /// Whether the guest's end is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.0.borrow().flow_gone
    }

    /// Bytes that wait in either direction.
    #[must_use]
    pub fn held(&self) -> usize {
        let pipe = self.0.0.borrow();
        pipe.queries.len() + pipe.answers.len()
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
        let count = pipe.queries.read(into)?;
        if pipe.queries.is_empty() {
            pipe.queries = VecDeque::new(); // an idle connection keeps no buffer
        }
        if std::mem::take(&mut pipe.short) {
            pipe.tell_engine(|news| news.writable = true);
        }
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
        pipe.answers.extend(bytes.get(..count).surely());
        pipe.tell_engine(|news| news.readable = true);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut pipe = self.0.0.borrow_mut();
        pipe.resolver_gone = true;
        pipe.queries = VecDeque::new();
        if !pipe.flow_gone {
            pipe.tell_engine(|news| news.readable = true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: FlowId = FlowId::new(3, 1);

    fn stream() -> (Bell, Shared, Stream) {
        let bell = Bell::default();
        let (flow, stream) = bell.stream(FLOW);
        (bell, flow, stream)
    }

    /// What the engine is told in a round.
    fn events(bell: &Bell, shared: &Shared) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(flow) = bell.next_for_engine() {
            assert_eq!(flow, FLOW);
            events.extend(shared.take_events());
        }
        events
    }

    /// Whether the resolver is told of the flow in a round. Never twice.
    fn told(bell: &Bell, stream: &mut Stream) -> bool {
        let told = bell.next_for_resolver() == Some(FLOW);
        assert_eq!(bell.next_for_resolver(), None);
        stream.heard();
        told
    }

    #[test]
    fn bytes_travel_both_ways_and_each_side_is_told_once() {
        let (bell, flow, mut stream) = stream();
        assert_eq!(events(&bell, &flow), [Event::Connected]);
        assert!(!told(&bell, &mut stream));
        assert_eq!(flow.send(&[b"que", b"ry"]), Sent::Taken(5));
        assert!(told(&bell, &mut stream) && !told(&bell, &mut stream));
        let mut buffer = [0; 9];
        assert_eq!(stream.read(&mut buffer).unwrap(), 5);
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.write_all(b"ans").unwrap();
        stream.write_all(b"wer").unwrap();
        assert_eq!(events(&bell, &flow), [Event::Readable]);
        assert_eq!(events(&bell, &flow), []);
        assert_eq!((flow.peek(0, &mut buffer), flow.peek(4, &mut buffer)), (Peek::Data(6), Peek::Data(2)));
        assert_eq!(&buffer[..2], b"er");
        assert_eq!(flow.peek(6, &mut buffer), Peek::Empty);
        flow.consume(6);
        assert!(told(&bell, &mut stream));
        flow.shutdown();
        assert!(told(&bell, &mut stream));
        assert_eq!(stream.read(&mut buffer).unwrap(), 0);
        stream.write_all(b"late").unwrap();
        drop(stream);
        assert_eq!(events(&bell, &flow), [Event::Readable]);
        assert_eq!((flow.peek(0, &mut buffer), flow.peek(4, &mut buffer)), (Peek::Data(4), Peek::End));
        assert_eq!(flow.send(&[b"more"]), Sent::Failed(Errno::Reset));
    }

    #[test]
    fn answers_are_peeked_at_over_the_end_of_the_ring() {
        let (_bell, flow, mut stream) = stream();
        let sent: Vec<u8> = (0..=255).cycle().take(3 * ROOM).collect();
        let (mut written, mut seen) = (0, 0);
        while seen < sent.len() {
            if written < sent.len() {
                written += stream.write(&sent[written..]).unwrap();
            }
            let mut chunk = [0; 4999];
            for offset in [60_000, 1000, 0] {
                let count = match flow.peek(offset, &mut chunk) {
                    Peek::Data(count) => count,
                    found => panic!("{found:?} at {seen}, {offset}"),
                };
                assert_eq!(chunk[..count], sent[seen + offset..][..count]);
            }
            flow.consume(4999);
            seen += 4999;
            if written == sent.len() {
                break;
            }
        }
    }

    #[test]
    fn what_waits_is_bounded_both_ways() {
        let (bell, flow, mut stream) = stream();
        assert_eq!(flow.send(&[&[1; ROOM], &[2; 9]]), Sent::Taken(ROOM));
        assert_eq!(flow.send(&[&[2; 9]]), Sent::Taken(0));
        let _ = events(&bell, &flow);
        assert_eq!(stream.read(&mut vec![0; ROOM]).unwrap(), ROOM);
        assert_eq!(events(&bell, &flow), [Event::Writable]);
        assert_eq!(stream.write(&[3; ROOM + 1]).unwrap(), ROOM);
        assert_eq!(stream.write(&[3]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(stream.held(), ROOM);
        let _ = told(&bell, &mut stream);
        flow.consume(10);
        assert!(told(&bell, &mut stream));
        assert_eq!(stream.write(&[3; 20]).unwrap(), 10);
    }

    #[test]
    fn a_flow_that_is_gone_is_told_and_keeps_nothing() {
        let (bell, flow, mut stream) = stream();
        let _ = events(&bell, &flow);
        flow.send(&[b"x"]);
        stream.write_all(b"y").unwrap();
        let _ = events(&bell, &flow);
        flow.close();
        assert!(told(&bell, &mut stream) && stream.is_gone());
        assert_eq!(stream.held(), 0);
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.write(&[0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(stream);
        assert_eq!(bell.next_for_engine(), None, "the engine is told nothing of a flow that it has ended");
    }

    #[test]
    fn a_round_costs_what_has_happened_in_it() {
        let bell = Bell::default();
        let mut all: Vec<_> = (0..1000).map(|n| bell.stream(FlowId::new(n, 0))).collect();
        assert_eq!(std::iter::from_fn(|| bell.next_for_engine()).count(), 1000);
        all.iter().for_each(|(flow, _)| drop(flow.take_events()));
        all[500].1.write_all(b"one").unwrap();
        all[500].1.write_all(b"more").unwrap();
        all[7].0.send(&[b"x"]);
        all[7].0.send(&[b"y"]);
        assert_eq!(std::iter::from_fn(|| bell.next_for_engine()).collect::<Vec<_>>(), [FlowId::new(500, 0)]);
        assert_eq!(std::iter::from_fn(|| bell.next_for_resolver()).collect::<Vec<_>>(), [FlowId::new(7, 0)]);
    }
}
