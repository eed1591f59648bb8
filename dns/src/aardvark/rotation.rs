//! Whose turn it is to come first in an answer, when answers rotate.
//!
//! One count for all questions would not do: a C library asks for both families each time, so that of two addresses
//! the same one would always be first. So there are many counts, and a name with a type has one of them. Names that
//! share one by chance rotate together.

use crate::message::Query;
use core::hash::{BuildHasher as _, BuildHasherDefault};
use std::collections::hash_map::DefaultHasher;

/// Counts. More names than this rotating at a time is rare.
const COUNTS: usize = 512;

/// The counts.
#[derive(Debug)]
pub(super) struct Rotation([u16; COUNTS]);

impl Default for Rotation {
    fn default() -> Self {
        Self([0; COUNTS])
    }
}

impl Rotation {
    /// A number for the answer to this query, another one each time.
    pub(super) fn next(&mut self, query: &Query<'_>) -> u32 {
        let asked = (query.name().text(), query.record_type());
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(asked);
        let place = usize::try_from(hash).unwrap_or_default() % COUNTS;
        let Some(count) = self.0.get_mut(place) else { return 0 };
        *count = count.wrapping_add(1);
        (*count).into()
    }
}
