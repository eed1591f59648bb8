//! What can be told of an engine's flows: how many, what they hold, and each by itself.

use crate::addr::MacAddr;
use crate::engine::{Body, Engine};
use crate::flow::FlowId;
use crate::transport::udp::Udp;
use core::net::SocketAddr;

/// What a flow costs beside the bytes it holds, its socket's place included.
const FLOW_MEMORY: usize = 1 << 10;

/// One flow, for listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowInfo {
    /// Its id.
    pub id: FlowId,
    /// "tcp", "udp" or "icmp".
    pub protocol: &'static str,
    /// The guest's end. For ICMP the port is the echo identifier.
    pub guest: SocketAddr,
    /// The other end as the guest sees it; the wildcard for UDP that talks to anybody.
    pub peer: SocketAddr,
    /// TCP only: the connection's state.
    pub state: &'static str,
    /// Bytes of memory that it holds.
    pub memory: usize,
    /// TCP only: bytes of window that the guest may still use.
    pub window: u32,
}

impl Engine {
    /// How many flows there are.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// About how much memory flows take, in bytes: what they hold for others, and a place for each.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.tcp.held() + self.flow_count() * FLOW_MEMORY
    }

    /// The stations that flows lead to, one as often as there are flows.
    pub fn stations(&self) -> impl Iterator<Item = MacAddr> + '_ {
        self.flows.iter().filter_map(|(.., entry)| entry.body.station())
    }

    /// Whether both ends of a TCP flow are connected.
    #[must_use]
    pub fn is_open(&mut self, flow: FlowId) -> bool {
        let entry = self.flows.get_mut(flow).map(|(_, entry)| &entry.body);
        matches!(entry, Some(Body::Tcp(tcp)) if tcp.is_open())
    }

    /// All flows, for listings.
    pub fn flows(&self) -> impl Iterator<Item = FlowInfo> + '_ {
        self.flows.iter().map(|(id, key, entry)| {
            let (protocol, state, memory, window) = match &entry.body {
                Body::Tcp(tcp) => ("tcp", tcp.state_name(), tcp.held(), tcp.window()),
                Body::Udp(udp) => ("udp", "", size_of_val::<Udp>(udp), 0),
                Body::Echo(_) => ("icmp", "", 0, 0),
            };
            FlowInfo { id, protocol, guest: key.guest, peer: key.peer, state, memory, window }
        })
    }
}
