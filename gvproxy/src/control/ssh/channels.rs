//! Many streams over one connection, each to a socket of the guest. Pure.
//!
//! Source: RFC 4254 §5; OpenSSH, PROTOCOL §2.4 (`direct-streamlocal@openssh.com`). A stream has a window each way: so
//! many bytes may be sent that the other side has not asked for more. Ours is opened again only by what its client has
//! *taken*, so one that does not read costs [`WINDOW`] bytes and holds up nobody: all others go on beside it.
//!
//! A stream is over when both sides have said CLOSE. Until the server has, its number stays taken.

use super::packet::Outgoing;
use super::wire::{Malformed, Put as _, Reader};
use std::collections::{BTreeMap, VecDeque};

/// Bytes that the server may send before their client has taken them.
pub(super) const WINDOW: u32 = 256 << 10;
/// Bytes of one message.
pub(super) const CHUNK: u32 = 32 << 10;
/// A queue that is empty keeps no more room than this.
const KEPT: usize = 16 << 10;

const OPEN: u8 = 90;
const OPEN_CONFIRMATION: u8 = 91;
const OPEN_FAILURE: u8 = 92;
const WINDOW_ADJUST: u8 = 93;
const DATA: u8 = 94;
const EXTENDED_DATA: u8 = 95;
const EOF: u8 = 96;
const CLOSE: u8 = 97;
const REQUEST: u8 = 98;
const FAILURE: u8 = 100;

/// Messages of this layer that are about streams.
pub(super) const MESSAGES: core::ops::RangeInclusive<u8> = OPEN..=FAILURE;

/// The number of a stream, on our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u32);

/// How far a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The server has not answered yet.
    Asked,
    /// It will not have it, for this reason.
    Refused(String),
    /// Bytes go to and fro.
    Open,
    /// The server has closed it. What it had sent before may still be taken.
    Closed,
}

#[derive(Debug)]
struct Channel {
    state: State,
    /// Its number on the server's side.
    theirs: u32,
    /// Bytes that we may send, and how many at once.
    may_send: u32,
    at_once: u32,
    /// Bytes that the server may send.
    may_receive: u32,
    /// What it has sent.
    inbox: VecDeque<u8>,
    /// Nothing more will come.
    ended: bool,
    end_sent: bool,
    /// Nobody here is interested any more.
    left: bool,
}

/// All streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_number: BTreeMap<Id, Channel>,
    next: u32,
}

impl Channels {
    /// Asks for a stream to the socket at `path`.
    pub(super) fn open(&mut self, path: &str, out: &mut Outgoing) -> Id {
        while self.by_number.contains_key(&Id(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let id = Id(self.next);
        self.next = self.next.wrapping_add(1);
        let channel = Channel {
            state: State::Asked,
            theirs: 0,
            may_send: 0,
            at_once: 0,
            may_receive: WINDOW,
            inbox: VecDeque::new(),
            ended: false,
            end_sent: false,
            left: false,
        };
        self.by_number.insert(id, channel);
        out.send(|packet| {
            packet.push(OPEN);
            packet.string(b"direct-streamlocal@openssh.com");
            packet.number(id.0);
            packet.number(WINDOW);
            packet.number(CHUNK);
            packet.string(path.as_bytes());
            // Reserved.
            packet.string(b"");
            packet.number(0);
        });
        id
    }

    /// How many somebody here is interested in.
    pub(super) fn len(&self) -> usize {
        self.by_number.values().filter(|channel| !channel.left).count()
    }

    /// How far one is.
    pub(super) fn state(&self, id: Id) -> State {
        self.by_number.get(&id).map_or(State::Closed, |channel| channel.state.clone())
    }

    /// Bytes that may be sent on it at once.
    pub(super) fn room(&self, id: Id) -> usize {
        let open =
            self.by_number.get(&id).filter(|channel| channel.state == State::Open && !channel.end_sent);
        let room = open.map_or(0, |channel| channel.may_send.min(channel.at_once).min(CHUNK));
        usize::try_from(room).unwrap_or(0)
    }

    /// Sends bytes, of which there is room for.
    pub(super) fn send(&mut self, id: Id, bytes: &[u8], out: &mut Outgoing) {
        let Some(channel) = self.by_number.get_mut(&id) else { return };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        channel.may_send = channel.may_send.saturating_sub(len);
        let theirs = channel.theirs;
        out.send(|packet| {
            packet.push(DATA);
            packet.number(theirs);
            packet.string(bytes);
        });
    }

    /// Says that nothing more will be sent.
    pub(super) fn send_end(&mut self, id: Id, out: &mut Outgoing) {
        let Some(channel) = self.by_number.get_mut(&id) else { return };
        if channel.state == State::Open && !core::mem::replace(&mut channel.end_sent, true) {
            say(EOF, channel.theirs, out);
        }
    }

    /// Bytes that have come, as far as they lie together.
    pub(super) fn received(&self, id: Id) -> &[u8] {
        self.by_number.get(&id).map_or(&[], |channel| channel.inbox.as_slices().0)
    }

    /// Whether there is nothing to take, nor will be.
    pub(super) fn is_drained(&self, id: Id) -> bool {
        self.by_number.get(&id).is_none_or(|channel| channel.ended && channel.inbox.is_empty())
    }

    /// That so many of them have been taken. The server may send others when half of the window is free.
    pub(super) fn took(&mut self, id: Id, len: usize, out: &mut Outgoing) {
        let Some(channel) = self.by_number.get_mut(&id) else { return };
        channel.inbox.drain(..len.min(channel.inbox.len()));
        if channel.inbox.is_empty() && channel.inbox.capacity() > KEPT {
            channel.inbox = VecDeque::new();
        }
        channel.open_window(out);
    }

    /// Nobody here is interested any more: what comes is thrown away.
    pub(super) fn leave(&mut self, id: Id, out: &mut Outgoing) {
        let Some(channel) = self.by_number.get_mut(&id) else { return };
        channel.left = true;
        channel.inbox = VecDeque::new();
        match channel.state {
            // It is closed when the server has answered.
            State::Asked => {}
            State::Open => say(CLOSE, channel.theirs, out),
            State::Refused(_) | State::Closed => drop(self.by_number.remove(&id)),
        }
    }

    /// What the server says; which stream it is about.
    pub(super) fn heed(&mut self, payload: &[u8], out: &mut Outgoing) -> Result<Option<Id>, Malformed> {
        let mut reader = Reader::new(payload);
        let message = reader.byte()?;
        if message == OPEN {
            refuse(reader, out)?;
            return Ok(None);
        }
        let id = Id(reader.number()?);
        let channel = self.by_number.get_mut(&id).ok_or(Malformed)?;
        if channel.heed(message, reader, out)? {
            self.by_number.remove(&id);
            return Ok(None);
        }
        Ok(Some(id))
    }
}

impl Channel {
    /// Does as the message says. Whether the number is free again.
    fn heed(&mut self, message: u8, mut reader: Reader<'_>, out: &mut Outgoing) -> Result<bool, Malformed> {
        match (message, &self.state) {
            (OPEN_CONFIRMATION, State::Asked) => {
                self.theirs = reader.number()?;
                (self.may_send, self.at_once) = (reader.number()?, reader.number()?);
                self.state = State::Open;
                if self.left {
                    say(CLOSE, self.theirs, out);
                }
            }
            (OPEN_FAILURE, State::Asked) => {
                reader.number()?;
                self.state = State::Refused(reader.text()?);
                return Ok(self.left);
            }
            (WINDOW_ADJUST, State::Open) => self.may_send = self.may_send.saturating_add(reader.number()?),
            (DATA, State::Open) if !self.ended => self.receive(reader.string()?)?,
            (EXTENDED_DATA, State::Open) if !self.ended => {
                // A socket has no other stream beside its own; but it counts.
                reader.number()?;
                let len = reader.string()?.len();
                self.count(len)?;
                self.open_window(out);
            }
            (EOF, State::Open) => self.ended = true,
            (CLOSE, State::Open) => {
                (self.ended, self.state) = (true, State::Closed);
                if !self.left {
                    // RFC 4254 §5.3: to be answered.
                    say(CLOSE, self.theirs, out);
                }
                return Ok(self.left);
            }
            (REQUEST, State::Open) => {
                reader.string()?;
                if reader.truth()? {
                    say(FAILURE, self.theirs, out);
                }
            }
            _ => return Err(Malformed),
        }
        Ok(false)
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.count(bytes.len())?;
        if !self.left {
            self.inbox.extend(bytes);
        }
        Ok(())
    }

    /// RFC 4254 §5.2: nobody sends more than he may.
    fn count(&mut self, len: usize) -> Result<(), Malformed> {
        let left = u32::try_from(len).ok().and_then(|len| self.may_receive.checked_sub(len));
        self.may_receive = left.ok_or(Malformed)?;
        Ok(())
    }

    fn open_window(&mut self, out: &mut Outgoing) {
        let held = u32::try_from(self.inbox.len()).unwrap_or(WINDOW);
        let taken = WINDOW.saturating_sub(held).saturating_sub(self.may_receive);
        if self.state == State::Open && !self.ended && !self.left && taken >= WINDOW / 2 {
            self.may_receive += taken;
            let theirs = self.theirs;
            out.send(|packet| {
                packet.push(WINDOW_ADJUST);
                packet.number(theirs);
                packet.number(taken);
            });
        }
    }
}

/// A message that says nothing but what it is about.
fn say(message: u8, theirs: u32, out: &mut Outgoing) {
    out.send(|packet| {
        packet.push(message);
        packet.number(theirs);
    });
}

/// A server that asks for a stream to us gets none.
fn refuse(mut reader: Reader<'_>, out: &mut Outgoing) -> Result<(), Malformed> {
    const PROHIBITED: u32 = 1;
    reader.string()?;
    let theirs = reader.number()?;
    out.send(|packet| {
        packet.push(OPEN_FAILURE);
        packet.number(theirs);
        packet.number(PROHIBITED);
        packet.string(b"nothing is served here");
        packet.string(b"");
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::packet::Incoming;
    use super::*;

    /// Streams, and the server's view of what we say.
    #[derive(Default)]
    struct Pair {
        channels: Channels,
    }

    fn message(kind: u8, ours: u32, numbers: &[u32]) -> Vec<u8> {
        let mut payload = vec![kind];
        payload.number(ours);
        numbers.iter().for_each(|number| payload.number(*number));
        payload
    }

    fn data(ours: u32, bytes: &[u8]) -> Vec<u8> {
        let mut payload = message(DATA, ours, &[]);
        payload.string(bytes);
        payload
    }

    fn said(out: &mut Outgoing) -> Vec<Vec<u8>> {
        let mut into = Incoming::new();
        into.buffer().extend_from_slice(out.bytes());
        out.sent(out.bytes().len());
        let mut said = Vec::new();
        while let Some(payload) = into.next().unwrap() {
            said.push(payload.to_vec());
        }
        said
    }

    impl Pair {
        /// A stream that the server has as number 70.
        fn open(&mut self, out: &mut Outgoing) -> Id {
            let id = self.channels.open("/run/podman.sock", out);
            let asked = said(out);
            assert!(asked[0].starts_with(b"\x5a\0\0\0\x1edirect-streamlocal@openssh.com"), "{asked:?}");
            let confirmed = message(OPEN_CONFIRMATION, id.0, &[70, 1000, 600]);
            assert_eq!(self.channels.heed(&confirmed, out), Ok(Some(id)));
            id
        }
    }

    #[test]
    fn a_client_that_does_not_take_anything_costs_its_window() {
        let (mut pair, mut out) = (Pair::default(), Outgoing::new());
        let (slow, quick) = (pair.open(&mut out), pair.open(&mut out));
        let piece = vec![1; CHUNK as usize];
        for _ in 0..WINDOW / CHUNK {
            pair.channels.heed(&data(slow.0, &piece), &mut out).unwrap();
        }
        assert!(said(&mut out).is_empty(), "nothing is asked for");
        assert_eq!(pair.channels.heed(&data(slow.0, b"x"), &mut out), Err(Malformed));
        for _ in 0..40 {
            pair.channels.heed(&data(quick.0, &piece), &mut out).unwrap();
            let len = pair.channels.received(quick).len();
            pair.channels.took(quick, len, &mut out);
        }
        let adjusted = message(WINDOW_ADJUST, 70, &[WINDOW / 2]);
        assert_eq!(said(&mut out), vec![adjusted; 10]);
        let mut taken = 0;
        while !pair.channels.received(slow).is_empty() {
            let len = pair.channels.received(slow).len();
            taken += len;
            pair.channels.took(slow, len, &mut out);
        }
        assert_eq!(taken, WINDOW as usize);
    }

    #[test]
    fn nothing_is_sent_that_the_server_has_not_asked_for() {
        let (mut pair, mut out) = (Pair::default(), Outgoing::new());
        let id = pair.open(&mut out);
        assert_eq!(pair.channels.room(id), 600);
        pair.channels.send(id, &[0; 600], &mut out);
        assert_eq!(pair.channels.room(id), 400);
        pair.channels.send(id, &[0; 400], &mut out);
        assert_eq!(pair.channels.room(id), 0);
        pair.channels.heed(&message(WINDOW_ADJUST, id.0, &[u32::MAX]), &mut out).unwrap();
        pair.channels.heed(&message(WINDOW_ADJUST, id.0, &[5]), &mut out).unwrap();
        assert_eq!(pair.channels.room(id), 600);
        pair.channels.send_end(id, &mut out);
        pair.channels.send_end(id, &mut out);
        assert_eq!(pair.channels.room(id), 0);
        assert_eq!(said(&mut out).last().unwrap(), &message(EOF, 70, &[]));
    }

    #[test]
    fn halves_end_by_themselves_and_a_number_is_free_when_both_have_closed() {
        let (mut pair, mut out) = (Pair::default(), Outgoing::new());
        let id = pair.open(&mut out);
        pair.channels.heed(&data(id.0, b"last"), &mut out).unwrap();
        pair.channels.heed(&message(EOF, id.0, &[]), &mut out).unwrap();
        assert!(!pair.channels.is_drained(id) && pair.channels.room(id) > 0);
        assert_eq!(pair.channels.heed(&data(id.0, b"more"), &mut out), Err(Malformed));
        pair.channels.heed(&message(CLOSE, id.0, &[]), &mut out).unwrap();
        assert_eq!(pair.channels.state(id), State::Closed);
        assert_eq!(pair.channels.received(id), b"last");
        assert_eq!(said(&mut out), vec![message(CLOSE, 70, &[])]);
        pair.channels.leave(id, &mut out);
        assert!(said(&mut out).is_empty() && pair.channels.by_number.is_empty());

        let other = pair.open(&mut out);
        pair.channels.leave(other, &mut out);
        assert_eq!(said(&mut out), vec![message(CLOSE, 70, &[])]);
        assert_eq!((pair.channels.len(), pair.channels.by_number.len()), (0, 1));
        pair.channels.heed(&data(other.0, b"on its way"), &mut out).unwrap();
        assert_eq!(pair.channels.heed(&message(CLOSE, other.0, &[]), &mut out), Ok(None));
        assert!(said(&mut out).is_empty() && pair.channels.by_number.is_empty());
    }

    #[test]
    fn refusals_are_told_and_a_client_that_has_gone_meanwhile_leaves_nothing() {
        let (mut pair, mut out) = (Pair::default(), Outgoing::new());
        let refused = |id: Id| {
            let mut payload = message(OPEN_FAILURE, id.0, &[2]);
            payload.string(b"open failed");
            payload.string(b"");
            payload
        };
        let id = pair.channels.open("/x", &mut out);
        pair.channels.heed(&refused(id), &mut out).unwrap();
        assert_eq!(pair.channels.state(id), State::Refused("open failed".to_owned()));
        pair.channels.leave(id, &mut out);
        let gone = pair.channels.open("/x", &mut out);
        pair.channels.leave(gone, &mut out);
        assert_eq!(pair.channels.heed(&refused(gone), &mut out), Ok(None));
        let late = pair.channels.open("/x", &mut out);
        pair.channels.leave(late, &mut out);
        said(&mut out);
        pair.channels.heed(&message(OPEN_CONFIRMATION, late.0, &[9, 1, 1]), &mut out).unwrap();
        assert_eq!(said(&mut out), vec![message(CLOSE, 9, &[])]);
        pair.channels.heed(&message(CLOSE, late.0, &[]), &mut out).unwrap();
        assert!(pair.channels.by_number.is_empty());
    }

    #[test]
    fn a_server_that_wants_something_of_us_gets_nothing() {
        let (mut pair, mut out) = (Pair::default(), Outgoing::new());
        let mut asked = vec![OPEN];
        asked.string(b"forwarded-tcpip");
        [3, 1, 1].into_iter().for_each(|number| asked.number(number));
        assert_eq!(pair.channels.heed(&asked, &mut out), Ok(None));
        let id = pair.open(&mut Outgoing::new());
        let mut request = message(REQUEST, id.0, &[]);
        request.string(b"exit-status");
        request.push(1);
        pair.channels.heed(&request, &mut out).unwrap();
        let said = said(&mut out);
        assert!(said[0].starts_with(&message(OPEN_FAILURE, 3, &[1])));
        assert_eq!(said[1], message(FAILURE, 70, &[]));
        for nonsense in [message(DATA, 99, &[0]), message(CLOSE, 99, &[]), message(99, id.0, &[]), vec![DATA]]
        {
            assert_eq!(pair.channels.heed(&nonsense, &mut out), Err(Malformed), "{nonsense:?}");
        }
    }
}
