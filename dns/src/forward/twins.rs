//! Questions that are being asked already: whoever asks the same waits for the same answer.
//!
//! Not to save messages. If the same question is under way many times at once, each time with another id and port, a
//! forger who guesses any of them has his answer kept for all (RFC 5452 §5, the birthday attack). So a question whose
//! answer would be kept is asked once at a time, for all who ask it over the same transport with the same room.

use crate::message::{self, HEADER_LEN, Transport};
use core::net::IpAddr;
use std::collections::BTreeMap;

/// What has to be equal: the cache's key, the transport, and how long an answer may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Twin {
    pub(super) key: Box<[u8]>,
    pub(super) transport: Transport,
    pub(super) room: usize,
}

/// One who waits with another.
#[derive(Debug)]
pub(super) struct Waiter<C> {
    pub(super) client: C,
    pub(super) source: IpAddr,
    pub(super) query: Vec<u8>,
}

impl<C> Waiter<C> {
    /// In bytes.
    pub(super) fn cost(&self) -> usize {
        size_of::<Self>() + self.query.len()
    }
}

/// The questions under way, by what they ask.
#[derive(Debug, Default)]
pub(super) struct Twins {
    pub(super) asked: BTreeMap<Twin, usize>,
}

/// The answer to one question as the answer to its twin, which may be spelt otherwise.
pub(super) fn for_twin(answer: &[u8], query: &[u8]) -> Vec<u8> {
    let mut answer = answer.to_vec();
    if let Ok(query) = message::Query::parse(query) {
        let words = query.question_section();
        let place = answer.get_mut(HEADER_LEN..HEADER_LEN + words.len());
        // A server that could not read the question may have left it out.
        if let Some(place) = place.filter(|place| place.eq_ignore_ascii_case(words)) {
            place.copy_from_slice(words);
        }
    }
    answer
}
