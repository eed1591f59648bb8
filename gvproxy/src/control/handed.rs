//! Guests whose sockets are handed over (`-listen-fd`): a client connects, sends one descriptor with at least one byte,
//! and reads how that ended. lima's driver for Virtualization.framework does so, and takes no notice of the answer.
//!
//! ```text
//!   socketpair(2) ─┬─ one end ──▶ hypervisor
//!                  └─ the other ─ SCM_RIGHTS ─▶ here ─▶ line ─▶ the packets process
//! ```
//! What was handed over is judged where it is used, by the packets process; here it is only passed on.

use super::errands::Errands;
use super::http::serve::PATIENCE;
use super::stream::Stream;
use crate::orders::message::{Order, Reply};
use std::os::fd::OwnedFd;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

/// Serves one client, for no longer than [`PATIENCE`] each way.
pub(crate) async fn take_over(mut client: Stream, errands: &Errands) {
    let Ok(received) = timeout(PATIENCE, client.receive_descriptors()).await else { return };
    let answer = match received.map(only) {
        Ok(Ok(descriptor)) => match errands.ask(Order::Adopt, Some(descriptor)).await.0 {
            Reply::Done => "OK".to_owned(),
            Reply::Failed(why) => why,
            _ => return,
        },
        Ok(Err(why)) => why,
        // It has gone again.
        Err(_) => return,
    };
    if answer != "OK" {
        log::warn!("a guest cannot join: {answer}");
    }
    // Whoever does not want to know hangs up.
    let _ = timeout(PATIENCE, client.write_all(format!("{answer}\n").as_bytes())).await;
}

/// The one descriptor of a message.
fn only(mut descriptors: Vec<OwnedFd>) -> Result<OwnedFd, String> {
    match (descriptors.pop(), descriptors.len()) {
        (Some(descriptor), 0) => Ok(descriptor),
        (None, _) => Err("a descriptor is wanted".to_owned()),
        (Some(_), more) => Err(format!("one descriptor is wanted, not {}", more + 1)),
    }
}
