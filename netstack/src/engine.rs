//! The engine: five verbs around everything else in this crate.
//!
//! | verb | when |
//! |---|---|
//! | [`Engine::on_frame`] | the device delivered a frame |
//! | [`Engine::on_upstream`] | a host socket has news |
//! | [`Engine::on_timeout`] | the moment of [`Engine::next_timeout`] has come |
//! | [`Engine::next_timeout`] | how long the caller may sleep |
//! | [`Engine::drain`] | after a batch of the others: send what is to be sent |
//!
//! Beside them stand the doors for connections that come from the host's side ([`Engine::accept_tcp`],
//! [`Engine::accept_udp`]) and the few settings that change while running.

use crate::clock::Instant;
use crate::config::Config;
use crate::counters::Counters;
use crate::device::{Device, Offload};
use crate::drop_reason::DropReason;
use crate::transport::flow::FlowId;
use crate::upstream::{Event, Meta, Upstream};
use core::net::{IpAddr, SocketAddr};

/// The stack of one guest link.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    counters: Counters,
}

/// Where a datagram from the host's side went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inbound {
    /// Its flow.
    pub flow: FlowId,
    /// Whether the flow was made for it: the caller then attaches the listener's socket to the id.
    pub new: bool,
}

impl Engine {
    /// An engine with no flows.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, counters: Counters::default() }
    }

    /// The device delivered `frame`, of which `offload` was left to us.
    pub fn on_frame<U: Upstream>(&mut self, _now: Instant, _offload: Offload, _frame: &[u8], _up: &mut U) {
        self.counters.drop(DropReason::UnknownProtocol);
    }

    /// The socket of `flow` has news.
    pub fn on_upstream<U: Upstream>(&mut self, _now: Instant, _flow: FlowId, _event: Event, _up: &mut U) {}

    /// Does what was due at or before `now`.
    pub fn on_timeout<U: Upstream>(&mut self, _now: Instant, _up: &mut U) {}

    /// When [`Engine::on_timeout`] wants to be called next; `None`: not before something else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Sends what the earlier verbs left to send: acknowledgements, replies, data waiting in host sockets.
    ///
    /// Returns whether more is left than one fair turn allows; the caller then looks for new frames and events without
    /// sleeping and calls again.
    pub fn drain<U: Upstream, D: Device>(&mut self, _now: Instant, _up: &mut U, _dev: &mut D) -> bool {
        false
    }

    /// A client at `from` connected to a forwarded port that leads to `guest`; the connection is established on the
    /// host. On success the caller attaches the accepted socket to the id; the engine connects to the guest and resets
    /// the socket if the guest refuses. `from` is the real address: the engine shows a loopback client to the guest
    /// as the gateway.
    ///
    /// # Errors
    /// When the flow cannot be made; the caller closes the socket.
    pub fn accept_tcp(
        &mut self,
        _now: Instant,
        _from: SocketAddr,
        _guest: SocketAddr,
    ) -> Result<FlowId, DropReason> {
        Err(DropReason::NoRoom)
    }

    /// A forwarded UDP port that leads to `guest` received `payload` from `from`: one datagram, or a train of datagrams
    /// of `segment` bytes. Answers of the guest leave through the socket that the caller attaches to a new flow.
    ///
    /// # Errors
    /// When the flow cannot be made; the datagrams are dropped and counted.
    pub fn accept_udp(
        &mut self,
        _now: Instant,
        _from: SocketAddr,
        _guest: SocketAddr,
        _payload: &[u8],
        _segment: usize,
        _meta: Meta,
    ) -> Result<Inbound, DropReason> {
        Err(DropReason::NoRoom)
    }

    /// The host's nameservers, most preferred first. Takes effect with the next query.
    pub fn set_nameservers(&mut self, _servers: Vec<IpAddr>) {}

    /// Where a rule without guest address leads: the configured address, or for IPv6 the one that the guest was last
    /// seen to use.
    #[must_use]
    pub fn guest_address(&self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 {
            self.config.v6.and_then(|v6| v6.guest).map(IpAddr::V6)
        } else {
            self.config.v4.map(|v4| IpAddr::V4(v4.guest))
        }
    }

    /// What the engine was told at its birth.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
