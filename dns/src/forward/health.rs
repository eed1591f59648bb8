//! Which servers answer: one that did not is asked last for a while, and then by one question first.
//!
//! A server that is silent over UDP is dead. One that is silent over TCP may only be behind a firewall that knows no
//! better, so it is dead to questions over TCP alone.

use super::{Patience, Policy};
use crate::answer::Transport;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

/// Servers remembered. Beyond, dead ones are simply asked.
const MAX_REMEMBERED: usize = 256;
/// A server that stays dead is left alone for up to this many times as long.
const MAX_FACTOR: u32 = 8;

/// Servers that did not answer.
#[derive(Debug, Default)]
pub(super) struct Health {
    dead: BTreeMap<(SocketAddr, Transport), Dead>,
}

#[derive(Debug)]
struct Dead {
    until: Duration,
    factor: u32,
}

impl Health {
    /// The servers in the order to ask them: those thought dead last.
    ///
    /// One whose time is over is on trial: this question asks it in its place, others wait for what becomes of it.
    pub(super) fn order(
        &mut self,
        now: Duration,
        transport: Transport,
        servers: &[SocketAddr],
        policy: &Policy,
    ) -> Vec<SocketAddr> {
        let mut order = Vec::with_capacity(servers.len());
        let mut dead = Vec::new();
        for server in servers {
            let list = if self.answers(now, transport, *server, policy) { &mut order } else { &mut dead };
            list.push(*server);
        }
        order.append(&mut dead);
        order
    }

    /// Whether a server may be expected to answer.
    pub(super) fn answers(
        &mut self,
        now: Duration,
        transport: Transport,
        server: SocketAddr,
        policy: &Policy,
    ) -> bool {
        let needed: &[_] = match transport {
            Transport::Udp => &[Transport::Udp],
            Transport::Tcp => &[Transport::Udp, Transport::Tcp],
        };
        let mut answers = true;
        for transport in needed {
            if let Some(state) = self.dead.get_mut(&(server, *transport)) {
                if state.until > now {
                    answers = false;
                } else {
                    state.until = now + trial(policy);
                }
            }
        }
        answers
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.dead.len()
    }

    /// It answered.
    pub(super) fn alive(&mut self, server: SocketAddr, transport: Transport) {
        self.dead.remove(&(server, Transport::Udp));
        if transport == Transport::Tcp {
            self.dead.remove(&(server, Transport::Tcp));
        }
    }

    /// It did not.
    pub(super) fn dead(&mut self, now: Duration, server: SocketAddr, transport: Transport, policy: &Policy) {
        let server = (server, transport);
        if policy.dead_for.is_zero() {
            return;
        }
        if self.dead.len() >= MAX_REMEMBERED && !self.dead.contains_key(&server) {
            self.dead.retain(|_, state| state.until > now);
            if self.dead.len() >= MAX_REMEMBERED {
                return;
            }
        }
        let state = self.dead.entry(server).or_insert(Dead { until: Duration::ZERO, factor: 0 });
        // Questions that were under way together fail together: that is one failure.
        if state.factor > 0 && state.until > now + trial(policy) {
            return;
        }
        state.factor = (state.factor * 2).clamp(1, MAX_FACTOR);
        state.until = now + policy.dead_for * state.factor;
    }
}

/// How long a trial takes.
fn trial(policy: &Policy) -> Duration {
    match policy.patience {
        Patience::Shared(time) | Patience::Each(time, _) => time,
    }
}
