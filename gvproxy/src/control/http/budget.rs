//! Memory for requests that are large: so many of each size at once, and who comes later waits.
//!
//! A request takes of one size only while it is read, which lasts [`super::serve::PATIENCE`] at the most, and whoever
//! holds one of a size waits for a larger one but never for another of the same: nobody waits in a circle. Guests have
//! a budget of their own, so that none of them makes the host's users wait.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of middle size at once: a head of 16 KiB each.
const MIDDLE: usize = 128;
/// Large ones: a body of 1 MiB each.
const LARGE: usize = 3;

/// What is left of it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    middle: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// What a request holds of it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    middle: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { middle: Arc::new(Semaphore::new(MIDDLE)), large: Arc::new(Semaphore::new(LARGE)) }
    }
}

impl Budget {
    /// Waits for room for a head.
    pub(crate) async fn middle(&self, held: &mut Held) {
        if held.middle.is_none() {
            // Nobody closes it.
            held.middle = Arc::clone(&self.middle).acquire_owned().await.ok();
        }
    }

    /// Waits for room for a body.
    pub(crate) async fn large(&self, held: &mut Held) {
        if held.large.is_none() {
            held.large = Arc::clone(&self.large).acquire_owned().await.ok();
        }
    }
}
