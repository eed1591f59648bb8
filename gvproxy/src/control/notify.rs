//! Notifications: whoever is told of guests that come and go, one object on one connection each.
//!
//! They are told in order, by a task of its own, from a queue of [`WAITING`]: a listener that does not accept or read
//! costs itself its news, and nobody else anything. What cannot be delivered is logged and gone, as in gvproxy.

use crate::orders::message::News;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// News that wait at the most.
const WAITING: usize = 100;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where news are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Notifier {
    queue: mpsc::Sender<News>,
}

impl Notifier {
    /// Tells `path`, from now on, by a task that ends when this is dropped and all is told.
    pub(crate) fn start(path: PathBuf) -> (Self, impl Future<Output = ()> + 'static) {
        let (queue, mut news) = mpsc::channel(WAITING);
        let tell = async move {
            while let Some(next) = news.recv().await {
                if let Err(error) = deliver(&path, &next).await {
                    log::error!("cannot send notification {}: {error}", object(&next));
                }
            }
        };
        (Self { queue }, tell)
    }

    /// Hands in what is to be told.
    pub(crate) fn tell(&self, news: News) {
        if self.queue.try_send(news).is_err() {
            log::error!("unable to send notification");
        }
    }
}

async fn deliver(path: &PathBuf, news: &News) -> io::Result<()> {
    let send = async {
        let mut socket = UnixStream::connect(path).await?;
        socket.write_all(format!("{}\n", object(news)).as_bytes()).await
    };
    timeout(PATIENCE, send).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// In the order that gvproxy's have.
fn object(news: &News) -> String {
    let (kind, mac) = match news {
        News::Ready => ("ready", None),
        News::Joined(mac) => ("connection_established", Some(mac)),
        News::Left(mac) => ("connection_closed", Some(mac)),
        News::Failed => ("hypervisor_error", None),
    };
    let mac = mac.map(|mac| format!(",\"mac_address\":\"{mac}\"")).unwrap_or_default();
    format!("{{\"notification_type\":\"{kind}\"{mac}}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;

    fn run(work: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn each_is_one_line_on_one_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let listening = std::thread::spawn(move || {
            let line = |_| {
                let (mut lines, mut rest) = (BufReader::new(listener.accept().unwrap().0), String::new());
                lines.read_line(&mut rest).unwrap();
                assert_eq!(lines.read_line(&mut rest).unwrap(), 0, "and then the end");
                rest
            };
            (0..4).map(line).collect::<String>()
        });
        let (notifier, task) = Notifier::start(path);
        let mac = "5a:94:ef:e4:0c:ee".to_owned();
        for news in [News::Ready, News::Joined(mac.clone()), News::Left(mac), News::Failed] {
            notifier.tell(news);
        }
        drop(notifier);
        run(task);
        assert_eq!(
            listening.join().unwrap(),
            "{\"notification_type\":\"ready\"}\n\
             {\"notification_type\":\"connection_established\",\"mac_address\":\"5a:94:ef:e4:0c:ee\"}\n\
             {\"notification_type\":\"connection_closed\",\"mac_address\":\"5a:94:ef:e4:0c:ee\"}\n\
             {\"notification_type\":\"hypervisor_error\"}\n"
        );
    }

    #[test]
    fn a_socket_that_hangs_or_is_missing_loses_its_own_news_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (notifier, task) = Notifier::start(path.clone());
        // Nobody takes them: the queue is full, and whoever tells does not wait.
        for _ in 0..1_000 {
            notifier.tell(News::Ready);
        }
        assert_eq!(notifier.queue.capacity(), 0);
        // Nobody listens; then somebody who never accepts.
        drop(notifier);
        run(task);
        let _hanging = UnixListener::bind(&path).unwrap();
        let (notifier, task) = Notifier::start(path);
        notifier.tell(News::Ready);
        drop(notifier);
        run(task);
    }
}
