//! Waiting for a guest's port: a connection is tried again and again until the guest takes one, or time is up. The
//! request is lima's, and so are the words of its answers:
//!
//! ```text
//!   GET /extension/wait_port?ip=192.168.127.2&port=22&timeout=60
//!   200                           it takes connections
//!   408 timed out waiting for …   it has not within so many seconds
//!   400                           there is no such place
//! ```
//! The packets process makes the connections, and tells neither of them when the guest has answered, for that is no
//! event of a socket: so it is asked, every [`PAUSE`] while somebody waits. At most [`AT_ONCE`] tries are on their way;
//! who comes later waits for one of them to end, within the own time. A client that hangs up waits no longer.

use super::errands::Errands;
use super::http::head::parameter;
use super::http::reply::Reply;
use super::stream::Stream;
use crate::orders::message::{Order, Reply as Answer};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// How long somebody waits who says nothing of it, in seconds.
const UNSAID: u16 = 10;
/// Tries at once.
pub(crate) const AT_ONCE: usize = 16;
/// How long one may take.
const TRY: Duration = Duration::from_secs(3);
/// How often is looked what has become of one.
const PAUSE: Duration = Duration::from_millis(20);
/// How long after one that has failed the next one comes.
const REST: Duration = Duration::from_millis(500);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    guest: SocketAddr,
    limit: Duration,
}

impl Wanted {
    /// Reads a request's query.
    ///
    /// # Errors
    /// In lima's words.
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let address = parameter(query, "ip");
        let ip: IpAddr = address.parse().map_err(|_| format!("invalid ip address: {address}"))?;
        let port = number(&parameter(query, "port"))?;
        let limit = match parameter(query, "timeout") {
            text if text.is_empty() => UNSAID,
            text => number(&text)?,
        };
        Ok(Self { guest: SocketAddr::new(ip, port), limit: Duration::from_secs(limit.into()) })
    }

    /// Waits.
    pub(crate) async fn wait(self, errands: &Errands, tries: &Semaphore) -> Reply {
        let open = async {
            loop {
                // Nobody closes it.
                let place = tries.acquire().await;
                if answers(errands, self.guest).await {
                    return;
                }
                drop(place);
                sleep(REST).await;
            }
        };
        match timeout(self.limit, open).await {
            Ok(()) => Reply::Done,
            Err(_) => {
                Reply::Error(408, format!("timed out waiting for port to become available on {}", self.guest))
            }
        }
    }
}

/// As Go's `strconv.ParseUint` reads a number of 16 bits.
fn number(text: &str) -> Result<u16, String> {
    let wrong = |what: &str| format!("strconv.ParseUint: parsing {text:?}: {what}");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("invalid syntax"));
    }
    text.parse().map_err(|_| wrong("value out of range"))
}

/// Whether the guest takes a connection, which is closed at once.
async fn answers(errands: &Errands, guest: SocketAddr) -> bool {
    let (Answer::Dialled(number), Some(stream)) = errands.ask(Order::Dial(guest), None).await else {
        return false;
    };
    let Ok(stream) = Stream::new(stream) else { return false };
    let decided = async {
        loop {
            // It has an end, or the guest speaks first.
            let told = timeout(PAUSE, stream.readable()).await.is_ok();
            match errands.ask(Order::IsOpen(number), None).await.0 {
                Answer::Open(true) => return true,
                _ if told => return false,
                _ => {}
            }
        }
    };
    timeout(TRY, decided).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_read_as_lima_writes_it() {
        let read = Wanted::parse("ip=192.168.5.15&port=22&timeout=599").unwrap();
        assert_eq!((read.guest.to_string().as_str(), read.limit.as_secs()), ("192.168.5.15:22", 599));
        assert_eq!(Wanted::parse("ip=fd00::2&port=1").unwrap().limit.as_secs(), 10);
        for (query, why) in [
            ("", "invalid ip address: "),
            ("ip=guest&port=22", "invalid ip address: guest"),
            ("ip=10.0.0.2", "strconv.ParseUint: parsing \"\": invalid syntax"),
            ("ip=10.0.0.2&port=65536", "strconv.ParseUint: parsing \"65536\": value out of range"),
            ("ip=10.0.0.2&port=22&timeout=-1", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
        ] {
            assert_eq!(Wanted::parse(query), Err(why.to_owned()), "{query}");
        }
    }
}
