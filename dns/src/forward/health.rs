//! Which servers answer. A slow server is not a dead one:
//!
//! * *slow* is one that has said nothing for as long as the next server is held back. It is asked in its place all the
//!   same, and the next one along with it;
//! * *dead* is one that refused, or said nothing for a whole patience (RFC 1035 §7.2 speaks of batting averages; this
//!   is the least that is one). It is asked last, and nobody waits for it who has anything else in hand. When it has
//!   been left alone long enough it is on *trial*: one question asks it beside the others.
//!
//! Any answer clears both, however late, and to whatever question: a resolver that says nothing about one name, because
//! that name's own servers are silent, but goes on answering others meanwhile, is neither.
//!
//! A server that is silent over UDP is dead. One that is silent over TCP may only be behind a firewall that knows no
//! better, so it is dead to questions over TCP alone.

use super::Policy;
use crate::message::Transport;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

/// Servers remembered. Beyond, nothing is held against others.
const MAX_REMEMBERED: usize = 256;
/// A server that stays dead is left alone for up to this many times as long.
const MAX_FACTOR: u32 = 8;

/// What is to be expected of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// An answer.
    Fine,
    /// An answer, some time.
    Slow,
    /// Nothing, but this question is to find out.
    Trial,
    /// Nothing.
    Dead,
}

impl Standing {
    /// Whether nobody should wait for it.
    pub(super) const fn is_dead(self) -> bool {
        matches!(self, Self::Trial | Self::Dead)
    }
}

/// A server of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// Its place in the list: the first is preferred.
    pub(super) place: usize,
    pub(super) standing: Standing,
}

/// What is known of servers.
#[derive(Debug, Default)]
pub(super) struct Health {
    known: BTreeMap<(SocketAddr, Transport), State>,
}

#[derive(Debug, Default)]
struct State {
    heard: Option<Duration>,
    slow: bool,
    dead: Option<Dead>,
}

#[derive(Debug)]
struct Dead {
    /// For how long it is left alone.
    until: Duration,
    factor: u32,
}

/// How a server has to answer for questions over a transport.
const fn needed(transport: Transport) -> &'static [Transport] {
    match transport {
        Transport::Udp => &[Transport::Udp],
        Transport::Tcp => &[Transport::Udp, Transport::Tcp],
    }
}

impl Health {
    /// The servers in the order to ask them: those on trial, which cost no time, those that should answer, the dead.
    /// A trial lasts for `trial`: nobody else tries that server meanwhile.
    pub(super) fn order(
        &mut self,
        now: Duration,
        transport: Transport,
        servers: &[SocketAddr],
        trial: Duration,
    ) -> Vec<Server> {
        let standing = |(place, address): (usize, &SocketAddr)| Server {
            address: *address,
            place,
            standing: self.enlist(now, transport, *address, trial),
        };
        let mut order: Vec<Server> = servers.iter().enumerate().map(standing).collect();
        order.sort_by_key(|server| match server.standing {
            Standing::Trial => 0,
            Standing::Fine | Standing::Slow => 1,
            Standing::Dead => 2,
        });
        order
    }

    fn enlist(
        &mut self,
        now: Duration,
        transport: Transport,
        server: SocketAddr,
        trial: Duration,
    ) -> Standing {
        let mut standing = match self.known.get(&(server, transport)) {
            Some(state) if state.slow => Standing::Slow,
            _ => Standing::Fine,
        };
        for transport in needed(transport) {
            let Some(state) = self.known.get_mut(&(server, *transport)) else { continue };
            let Some(dead) = &mut state.dead else { continue };
            if dead.until > now {
                return Standing::Dead;
            }
            dead.until = now + trial;
            standing = Standing::Trial;
        }
        standing
    }

    /// Whether a server is known to be dead.
    pub(super) fn is_dead(&self, transport: Transport, server: SocketAddr) -> bool {
        let dead = |transport| self.known.get(&(server, transport)).is_some_and(|state| state.dead.is_some());
        needed(transport).iter().copied().any(dead)
    }

    /// Whether it may be expected to answer at once.
    pub(super) fn is_fine(&self, transport: Transport, server: SocketAddr) -> bool {
        let slow = self.known.get(&(server, transport)).is_some_and(|state| state.slow);
        !slow && !self.is_dead(transport, server)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.known.len()
    }

    /// It answered; `quick`: before anybody thought it slow.
    pub(super) fn alive(
        &mut self,
        now: Duration,
        (server, transport): (SocketAddr, Transport),
        quick: bool,
        policy: &Policy,
    ) {
        // Whoever speaks over TCP is not dead to datagrams either.
        for transport in needed(transport) {
            if let Some(state) = self.known.get_mut(&(server, *transport)) {
                state.dead = None;
            }
        }
        if let Some(state) = self.entry((server, transport), policy) {
            state.heard = Some(now);
            state.slow &= !quick;
        }
    }

    /// It has said nothing since `sent`, for as long as the next server is held back.
    pub(super) fn slow(&mut self, server: (SocketAddr, Transport), sent: Duration, policy: &Policy) {
        if let Some(state) = self.entry(server, policy)
            && state.heard.is_none_or(|heard| heard < sent)
        {
            state.slow = true;
        }
    }

    /// It has said nothing since `sent`, for a whole patience.
    pub(super) fn missed(
        &mut self,
        now: Duration,
        server: (SocketAddr, Transport),
        sent: Duration,
        policy: &Policy,
    ) {
        if self.known.get(&server).and_then(|state| state.heard).is_none_or(|heard| heard < sent) {
            self.refused(now, server, policy);
        }
    }

    /// It is not there, or there is no way to it.
    pub(super) fn refused(&mut self, now: Duration, server: (SocketAddr, Transport), policy: &Policy) {
        let trial = policy.patience.of(1).server;
        let Some(state) = self.entry(server, policy) else { return };
        match &mut state.dead {
            // Questions that were under way together fail together: that is one failure.
            Some(dead) if dead.until > now + trial => {}
            Some(dead) => {
                dead.factor = (dead.factor * 2).min(MAX_FACTOR);
                dead.until = now + policy.dead_for * dead.factor;
            }
            None => state.dead = Some(Dead { until: now + policy.dead_for, factor: 1 }),
        }
    }

    /// What is known of a server, if anything is to be remembered and there is room.
    fn entry(&mut self, server: (SocketAddr, Transport), policy: &Policy) -> Option<&mut State> {
        if !policy.remembers() {
            return None;
        }
        if self.known.len() >= MAX_REMEMBERED && !self.known.contains_key(&server) {
            self.known.retain(|_, state| state.slow || state.dead.is_some());
            if self.known.len() >= MAX_REMEMBERED {
                return None;
            }
        }
        Some(self.known.entry(server).or_default())
    }
}
