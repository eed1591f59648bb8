//! How a question comes in: answered from what is kept, waiting with another, under way at once, or in the queue; and
//! how one of the queue gets its place.

use super::question::{Asker, Pending};
use super::queue::Queued;
use super::twins::{Twin, Waiter};
use super::verbs::{Action, Question};
use super::{ATTEMPTS, Forwarder, MAX_SERVERS, limit};
use crate::cache;
use crate::message::Query;
use core::net::IpAddr;
use core::time::Duration;

impl<C: Clone> Forwarder<C> {
    /// A client asks.
    pub fn ask(&mut self, now: Duration, question: Question<'_, C>) {
        self.counters.asked += 1;
        if Query::parse(question.message).is_err() {
            self.counters.failed += 1;
            self.actions.push_back(Action::GiveUp { client: question.client });
            return;
        }
        if self.is_known(now, &question) {
            return;
        }
        if question.servers.is_empty() {
            self.counters.failed += 1;
            return self.no_answer(question.client, question.message);
        }
        let at_once = self.queue.is_empty() && self.has_place();
        let queued = Queued {
            client: question.client,
            source: question.source,
            transport: question.transport,
            query: question.message.to_vec(),
            servers: question.servers.get(..MAX_SERVERS).unwrap_or(question.servers).to_vec(),
            since: now,
        };
        if at_once {
            self.begin(now, queued);
        } else {
            self.counters.queued += 1;
            self.queue.push(queued);
            self.shorten();
            self.admit(now);
        }
    }

    /// Answers from what is kept, or has the client wait for an answer that another one waits for.
    fn is_known(&mut self, now: Duration, question: &Question<'_, C>) -> bool {
        let Question { client, source, transport, message, servers } = question;
        let Some(cache) = &mut self.cache else { return false };
        let Ok(query) = Query::parse(message) else { return false };
        if !cache::key(&query, servers, &mut self.key) {
            return false;
        }
        let room = limit(&query, *transport);
        let mut reply = Vec::new();
        if cache.get(now, &self.key, &query, room, &mut reply) {
            self.counters.cached += 1;
            self.reply(message, client.clone(), reply);
            return true;
        }
        let twin = Twin { key: self.key.as_slice().into(), transport: *transport, room };
        let asked = self.twins.asked.get(&twin);
        let Some(pending) = asked.and_then(|index| self.pending.get_mut(*index)) else { return false };
        let waiter = Waiter { client: client.clone(), source: *source, query: message.to_vec() };
        self.counters.shared += 1;
        self.queue.held(*source, waiter.cost());
        pending.waiters.push(waiter);
        self.shorten();
        true
    }

    /// Whether another question may begin.
    fn has_place(&self) -> bool {
        self.under_way < self.policy.max_pending && self.open < self.policy.max_pending * ATTEMPTS
    }

    /// Begins a question.
    fn begin(&mut self, now: Duration, queued: Queued<C>) {
        let Queued { client, source, transport, query, servers, since } = queued;
        let Ok(parsed) = Query::parse(&query) else { return };
        let patience = self.policy.patience;
        let keeps = self.cache.is_some() && cache::key(&parsed, &servers, &mut self.key);
        let room = limit(&parsed, transport);
        let twin = keeps.then(|| Twin { key: self.key.as_slice().into(), transport, room });
        let servers = self.health.order(now, transport, &servers, patience.of(servers.len()).server);
        let asker = Asker { client, source, since };
        let pending = Pending::new(asker, transport, query, servers, twin.clone(), (now, patience));
        let index = self.pending.insert(pending);
        self.under_way += 1;
        self.queue.begun(source);
        self.twins.asked.extend(twin.map(|twin| (twin, index)));
        self.go_on(now, index);
    }

    /// Has questions begin for which there is a place now.
    pub(super) fn admit(&mut self, now: Duration) {
        let lasts = self.policy.patience.of(1).question;
        while let Some(first) = self.queue.peek() {
            // Whoever asked that long ago has given up.
            let late = now >= first.since + lasts;
            let source = first.source;
            if !late && !self.has_place() && !self.make_place(now, source) {
                return;
            }
            let Some(queued) = self.queue.pop() else { return };
            let question = Question {
                client: queued.client.clone(),
                source,
                transport: queued.transport,
                message: &queued.query,
                servers: &queued.servers,
            };
            if late {
                self.counters.refused += 1;
                self.actions.push_back(Action::GiveUp { client: question.client });
            } else if !self.is_known(now, &question) {
                self.begin(now, queued);
            }
        }
    }

    /// Makes a place for a question of `source`, at the cost of what nobody waits for, or of who has more.
    fn make_place(&mut self, now: Duration, source: IpAddr) -> bool {
        if self.under_way < self.policy.max_pending && self.end_lingering(now) {
            return true;
        }
        let Some(hog) = self.queue.hog(source) else { return false };
        let Some(index) = self.pending.oldest_of(hog) else { return false };
        let Some(ended) = self.end(index, false) else { return false };
        self.remove(index);
        self.queue.push(ended.into_queued());
        true
    }

    /// Ends an attempt that nobody waits for. Whether there was one.
    fn end_lingering(&mut self, now: Duration) -> bool {
        let Some((_, (index, attempt))) = self.lingering.first_key_value() else { return false };
        let (index, attempt) = (*index, *attempt);
        self.ended(index, &attempt);
        self.go_on(now, index);
        true
    }

    /// Drops what waits beyond the bound.
    fn shorten(&mut self) {
        while let Some(source) = self.queue.too_long(self.policy.max_queue) {
            let dropped = self.queue.drop_oldest(source).map(|queued| queued.client);
            let Some(client) = dropped.or_else(|| self.drop_waiter(source)) else { return };
            self.counters.refused += 1;
            self.actions.push_back(Action::GiveUp { client });
        }
    }

    /// One of `source` waits no longer for the answer that another waits for.
    fn drop_waiter(&mut self, source: IpAddr) -> Option<C> {
        let waiter = self.pending.iter_mut().find_map(|pending| {
            let place = pending.waiters.iter().position(|waiter| waiter.source == source)?;
            Some(pending.waiters.remove(place))
        })?;
        self.queue.released(source, waiter.cost());
        Some(waiter.client)
    }
}
