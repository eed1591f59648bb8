//! The sockets of flows and the event loop, over loopback, without an engine's judgement in between.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers fail by panicking")]

mod driver;
#[path = "../../src/families.rs"]
mod families;
mod guests;
mod links;
mod local;
mod ping;
mod tcp;
mod udp;

use slipway_host::epoll::Events;
use slipway_host::token::Token;
use slipway_host::upstream::{Peeking, Sockets, Ways};
use slipway_netstack::FlowId;
use slipway_netstack::upstream::Event;
use std::time::Duration;

const FLOW: FlowId = FlowId::new(3, 7);

struct World {
    sockets: Sockets,
    events: Events,
}

impl World {
    fn new() -> Self {
        Self::with_ways(Ways::probe())
    }

    fn with_peeking(peeking: Peeking) -> Self {
        Self::with_ways(Ways::both(peeking))
    }

    fn with_ways(ways: Ways) -> Self {
        Self { sockets: Sockets::with_peeking(ways).unwrap(), events: Events::default() }
    }

    /// The events of one round, after at most `millis`.
    fn round(&mut self, millis: u64) -> Vec<(FlowId, Event)> {
        self.sockets.events().wait(&mut self.events, Some(Duration::from_millis(millis))).unwrap();
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((token, flags)) = self.events.get(at) {
            at += 1;
            let Some(Token::Flow(flow)) = token else { panic!("not a flow: {token:?}") };
            found.extend(self.sockets.decode(flow, flags).map(|event| (flow, event)));
        }
        found
    }

    /// Waits for one of the events that `wanted` accepts; what comes before it is dropped.
    fn until(&mut self, wanted: impl Fn(Event) -> bool) -> Event {
        for _ in 0..100 {
            for (flow, event) in self.round(50) {
                assert_eq!(flow, FLOW);
                if wanted(event) {
                    return event;
                }
            }
        }
        panic!("it never came");
    }
}
