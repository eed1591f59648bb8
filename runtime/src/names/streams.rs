//! Connections that the guest made to the DNS address: a conversation on each, within bounds.
//!
//! How many there are, and whose gives way, the engine decides (`netstack/src/transport/places.rs`); what all of them
//! hold, answers that nobody reads above all, [`HELD`] bounds. Whoever holds most when that is reached is reset, which
//! concerns a client that asked for answers of at least [`HELD`] divided by the number of places and reads none of
//! them.
//!
//! A turn costs the conversations with news, not all.

use slipway_dns::io::conversation::{Conversation, Scratch, Verdict};
use slipway_host::upstream::Stream;
use slipway_netstack::FlowId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Bytes that all conversations together may hold.
const HELD: usize = 8 << 20;

/// Who asks on a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// The connection.
    pub(super) flow: FlowId,
    /// The address it comes from.
    pub(super) source: IpAddr,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: BTreeMap<FlowId, Client>,
    /// Bytes that all hold.
    held: usize,
    scratch: Scratch,
}

#[derive(Debug)]
struct Client {
    peer: Peer,
    conversation: Conversation<Stream>,
    /// What it held when it was last looked at.
    held: usize,
}

impl Streams {
    /// Bytes that all connections hold.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes a connection in.
    pub(super) fn accept(&mut self, peer: Peer, stream: Stream, now: Duration) {
        let client = Client { peer, conversation: Conversation::new(stream, now), held: 0 };
        self.all.insert(peer.flow, client);
    }

    /// There is news of a connection: reads what has come on it, and hands each query to `ask`.
    pub(super) fn serve(
        &mut self,
        flow: FlowId,
        now: Duration,
        ask: impl FnMut(Peer, &[u8], &mut Vec<u8>) -> Verdict,
    ) {
        let Some(client) = self.all.get_mut(&flow) else { return };
        client.conversation.stream_mut().heard();
        let alive = !client.conversation.stream().is_gone() && client.read(&mut self.scratch, now, ask);
        self.settle(flow, alive);
    }

    /// The answer to a query of a connection; `None`: there is none. Queries that had too many before them go to `ask`.
    pub(super) fn answer(
        &mut self,
        flow: FlowId,
        reply: Option<&[u8]>,
        now: Duration,
        ask: impl FnMut(Peer, &[u8], &mut Vec<u8>) -> Verdict,
    ) {
        let Some(client) = self.all.get_mut(&flow) else { return };
        let alive = client.conversation.answer(reply, now) && client.read(&mut self.scratch, now, ask);
        self.settle(flow, alive);
    }

    /// The connection to be reset because all together hold too much. It is forgotten.
    pub(super) fn excess(&mut self) -> Option<FlowId> {
        if self.held <= HELD {
            return None;
        }
        let flow = *self.all.iter().max_by_key(|(_, client)| client.held)?.0;
        self.settle(flow, false);
        Some(flow)
    }

    /// A message of an answer that has more of them. Returns whether more are wanted; `None`: the connection is gone.
    pub(super) fn part(&mut self, flow: FlowId, message: &[u8], now: Duration) -> Option<bool> {
        let alive = self.all.get_mut(&flow)?.conversation.part(message, now);
        self.settle(flow, alive);
        self.has_room(flow)
    }

    /// Whether more of an answer that comes in parts is wanted; `None`: the connection is gone.
    pub(super) fn has_room(&self, flow: FlowId) -> Option<bool> {
        self.all.get(&flow).map(|client| client.conversation.has_room())
    }

    /// When the first connection has stood still too long.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.all.values().filter_map(|client| client.conversation.deadline()).min()
    }

    /// Time has passed.
    pub(super) fn on_deadline(&mut self, now: Duration) {
        let late = |client: &Client| client.conversation.deadline().is_some_and(|deadline| deadline <= now);
        let gone: Vec<_> =
            self.all.iter().filter(|(_, client)| late(client)).map(|(flow, _)| *flow).collect();
        for flow in gone {
            self.settle(flow, false);
        }
    }

    /// After a look at a connection: counts what it holds, or closes it.
    fn settle(&mut self, flow: FlowId, alive: bool) {
        let Some(client) = self.all.get_mut(&flow) else { return };
        let before = client.held;
        client.held =
            if alive { client.conversation.held() + client.conversation.stream().held() } else { 0 };
        self.held = (self.held + client.held).saturating_sub(before);
        if !alive {
            self.all.remove(&flow);
        }
    }
}

impl Client {
    /// Reads all that there is. `false`: the connection is to be closed.
    fn read(
        &mut self,
        scratch: &mut Scratch,
        now: Duration,
        mut ask: impl FnMut(Peer, &[u8], &mut Vec<u8>) -> Verdict,
    ) -> bool {
        let Self { peer, conversation, .. } = self;
        loop {
            let alive = conversation.go_on(scratch, now, |message, out| ask(*peer, message, out));
            if !alive || !conversation.wants_read() || !conversation.stream().has_unread() {
                return alive;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_host::upstream::Sockets;
    use slipway_netstack::upstream::Upstream as _;
    use std::net::Ipv4Addr;

    /// As many connections as there are places; of those that ask for much nobody reads the answers.
    #[test]
    fn who_holds_most_goes_when_all_together_hold_too_much() {
        const MODEST: u32 = 10;
        let (mut sockets, mut streams, mut lost) = (Sockets::new().unwrap(), Streams::default(), Vec::new());
        let (now, source) = (Duration::ZERO, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let query = [&[0, 12][..], &[0; 12]].concat();
        for number in 0..64 {
            let flow = FlowId::new(number, 1);
            sockets.tcp_connect_dns(flow).unwrap();
            let (_, stream) = sockets.take_stream().unwrap();
            streams.accept(Peer { flow, source }, stream, now);
            let queries = query.repeat(if number < MODEST { 1 } else { 10 });
            let _ = sockets.tcp_send(flow, &[&queries]);
            streams.serve(flow, now, |_, _, answer| {
                answer.resize(60_000, 0);
                Verdict::Answered
            });
            while let Some(flow) = streams.excess() {
                lost.push(flow);
            }
            assert!(streams.held <= HELD, "{} bytes", streams.held);
        }
        assert!(!lost.is_empty(), "{} bytes are held", streams.held);
        assert!((0..MODEST).all(|number| streams.has_room(FlowId::new(number, 1)).is_some()));
        assert_eq!(streams.all.len() + lost.len(), 64);
        assert!(lost.iter().all(|flow| streams.has_room(*flow).is_none()));
    }
}
