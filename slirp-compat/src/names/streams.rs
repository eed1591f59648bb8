//! Connections that the guest made to the DNS address: a conversation on each, within bounds.
//!
//! There are [`PLACES`]; whoever opens one more loses the connection that has been idle longest.

use slipway_dns::server::conversation::{Conversation, Scratch, Verdict};
use slipway_host::upstream::Stream;
use slipway_netstack::FlowId;
use std::net::IpAddr;
use std::time::Duration;

/// Connections.
const PLACES: usize = 64;

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
    all: Vec<(Peer, Conversation<Stream>)>,
    scratch: Scratch,
}

impl Streams {
    /// Takes a connection in.
    pub(super) fn accept(&mut self, peer: Peer, stream: Stream, now: Duration) {
        if self.all.len() >= PLACES {
            let all = self.all.iter().enumerate();
            if let Some((oldest, _)) = all.min_by_key(|(_, (_, c))| c.dispensable()) {
                self.all.swap_remove(oldest);
            }
        }
        self.all.push((peer, Conversation::new(stream, now)));
    }

    /// Reads what has come on all of them since the last time, and hands each query to `ask`.
    pub(super) fn serve(&mut self, now: Duration, mut ask: impl FnMut(Peer, &[u8], &mut Vec<u8>) -> Verdict) {
        let Self { all, scratch } = self;
        all.retain_mut(|(peer, conversation)| {
            !conversation.stream_mut().has_news() || read(*peer, conversation, scratch, now, &mut ask)
        });
    }

    /// The answer to a query of a connection; `None`: there is none. Queries that had too many before them go to `ask`.
    pub(super) fn answer(
        &mut self,
        flow: FlowId,
        reply: Option<&[u8]>,
        now: Duration,
        mut ask: impl FnMut(Peer, &[u8], &mut Vec<u8>) -> Verdict,
    ) {
        let Self { all, scratch } = self;
        let Some(place) = all.iter().position(|(peer, _)| peer.flow == flow) else { return };
        let Some((peer, conversation)) = all.get_mut(place) else { return };
        if !(conversation.answer(reply, now) && read(*peer, conversation, scratch, now, &mut ask)) {
            all.swap_remove(place);
        }
    }

    /// When the first connection has stood still too long.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.all.iter().filter_map(|(_, conversation)| conversation.deadline()).min()
    }

    /// Time has passed.
    pub(super) fn on_deadline(&mut self, now: Duration) {
        self.all.retain(|(_, conversation)| conversation.deadline().is_none_or(|deadline| deadline > now));
    }
}

/// Reads all that there is. `false`: the connection is to be closed.
fn read(
    peer: Peer,
    conversation: &mut Conversation<Stream>,
    scratch: &mut Scratch,
    now: Duration,
    ask: &mut impl FnMut(Peer, &[u8], &mut Vec<u8>) -> Verdict,
) -> bool {
    loop {
        let alive = conversation.go_on(scratch, now, |message, out| ask(peer, message, out));
        if !alive || !conversation.wants_read() || !conversation.stream().has_unread() {
            return alive;
        }
    }
}
