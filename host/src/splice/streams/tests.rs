//! Connections between sockets of one machine: what crosses, and what is left behind.

use super::super::lane::BORDER;
use super::*;
use crate::epoll::Events;
use crate::inside::Kind;
use crate::sys::proc::{fork_child, wait_for};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{SockaddrStorage, connect};
use nix::sys::wait::WaitStatus;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

/// A shortcut from one listener to another.
struct Rig {
    streams: Streams,
    events: EventSet,
    found: Events,
    door: TcpListener,
    service: TcpListener,
}

impl Rig {
    fn new() -> Self {
        Self {
            streams: Streams::default(),
            events: EventSet::new().unwrap(),
            found: Events::default(),
            door: TcpListener::bind("127.0.0.1:0").unwrap(),
            service: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    /// A client, whose connection leads to `server`.
    fn client_of(&mut self, server: SocketAddr) -> TcpStream {
        let client = TcpStream::connect(self.door.local_addr().unwrap()).unwrap();
        let (accepted, from) = self.door.accept().unwrap();
        self.join(accepted, from, server);
        client
    }

    /// Leads a client that was accepted to `server`.
    fn join(&mut self, accepted: TcpStream, from: SocketAddr, server: SocketAddr) {
        let across = Kind::TcpV4.open().unwrap();
        match connect(across.as_raw_fd(), &SockaddrStorage::from(server)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => panic!("{errno}"),
        }
        let parties = Parties { side: Side::Host, client: from, server };
        self.streams.join(accepted.into(), across, parties, &self.events).unwrap();
    }

    /// A client and a server that are connected by the shortcut. Neither blocks.
    fn pair(&mut self) -> (TcpStream, TcpStream) {
        let client = self.client_of(self.service.local_addr().unwrap());
        let (server, _) = self.service.accept().unwrap();
        for end in [&client, &server] {
            end.set_nonblocking(true).unwrap();
        }
        (client, server)
    }

    /// One look for events: on which side there is something to read, and what the kernel said.
    fn listen(&mut self) -> Vec<(Option<Side>, EpollFlags)> {
        let patience = if self.streams.is_busy() { Duration::ZERO } else { Duration::from_millis(1) };
        self.events.wait(&mut self.found, Some(patience)).unwrap();
        let found = (0..).map_while(|at| self.found.get(at));
        let heard = found.map(|(token, flags)| match token {
            Some(Token::Splice { place, generation, server }) => {
                (self.streams.on_event(place, generation, server, flags, &self.events), flags)
            }
            other => panic!("{other:?}"),
        });
        heard.collect()
    }

    /// One round; whether there was anything.
    fn turn(&mut self) -> bool {
        let heard = self.listen();
        let busy = self.streams.is_busy();
        self.streams.work(&self.events);
        !heard.is_empty() || busy
    }

    /// Rounds until it is so, twenty seconds at most.
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = clock::now();
        while !is_so(self) {
            self.turn();
            assert!(clock::now() - began < Duration::from_secs(20), "{what}: {:?}", self.streams);
        }
    }

    /// Rounds until a hundred in a row had nothing to do.
    fn settle(&mut self) {
        let mut calm = 0;
        self.until("it comes to rest", |rig| {
            calm = if rig.turn() { 0 } else { calm + 1 };
            calm == 100
        });
    }

    /// Reads to the end.
    fn read_all(&mut self, mut from: &TcpStream) -> Result<Vec<u8>, (Vec<u8>, ErrorKind)> {
        let (mut all, mut piece, mut end) = (Vec::new(), vec![0; 1 << 16], None);
        self.until("the stream ends", |_| {
            match from.read(&mut piece) {
                Ok(0) => end = Some(None),
                Ok(count) => all.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => end = Some(Some(error.kind())),
            }
            end.is_some()
        });
        match end.unwrap() {
            None => Ok(all),
            Some(error) => Err((all, error)),
        }
    }

    /// Writes until nobody takes anything any more; how much went.
    fn write_until_full(&mut self, mut to: &TcpStream, bytes: &[u8]) -> usize {
        let mut sent = 0;
        loop {
            match to.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.settle();
                    match to.write(&bytes[sent..]) {
                        Ok(count) => sent += count,
                        Err(_) => return sent,
                    }
                }
                Err(error) => panic!("{error}"),
            }
            assert!(sent < bytes.len(), "somebody swallows everything");
        }
    }
}

/// Bytes of which no two pieces are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 31) ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect()
}

#[test]
fn a_question_its_end_and_the_answer_cross() {
    let mut rig = Rig::new();
    let (mut client, mut server) = rig.pair();
    client.write_all(b"ask").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.read_all(&server), Ok(b"ask".to_vec()));
    assert_eq!(rig.streams.len(), 1, "half of it is still open");
    rig.settle();
    server.write_all(b"answer").unwrap();
    drop(server);
    assert_eq!(rig.read_all(&client), Ok(b"answer".to_vec()));
    rig.until("both sockets are closed", |rig| rig.streams.len() == 0);
    assert!(!rig.streams.tools.has_pipes(), "so little needs no pipe");
}

#[test]
fn a_question_that_is_there_already_crosses_at_once() {
    let mut rig = Rig::new();
    let mut client = TcpStream::connect(rig.door.local_addr().unwrap()).unwrap();
    client.write_all(b"ask").unwrap();
    let (accepted, from) = rig.door.accept().unwrap();
    rig.join(accepted, from, rig.service.local_addr().unwrap());
    let (mut server, _) = rig.service.accept().unwrap();
    let mut got = [0; 3];
    server.set_nonblocking(true).unwrap();
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ask", "before any event was looked at");
}

#[test]
fn a_short_exchange_is_told_of_words_alone_and_by_whom() {
    let mut rig = Rig::new();
    let (mut client, mut server) = rig.pair();
    rig.settle();
    client.write_all(b"ask").unwrap();
    assert_eq!(rig.listen(), [(Some(Side::Host), EpollFlags::EPOLLIN)]);
    let mut got = [0; 16];
    rig.until("the question", |_| server.read(&mut got).is_ok_and(|count| count == 3));
    server.write_all(b"answer").unwrap();
    assert_eq!(rig.listen(), [(Some(Side::Namespace), EpollFlags::EPOLLIN)]);
    rig.until("the answer", |_| client.read(&mut got).is_ok_and(|count| count == 6));
}

#[test]
fn room_is_told_of_once_it_was_missing_and_is_nobodys_word() {
    let mut rig = Rig::new();
    let (client, server) = rig.pair();
    rig.write_until_full(&client, &pattern(64 << 20));
    let (mut piece, mut told) = (vec![0; 1 << 20], Vec::new());
    for _ in 0..1000 {
        let _ = (&server).read(&mut piece);
        told.extend(rig.listen());
        if !told.is_empty() {
            break;
        }
    }
    assert_eq!(told, [(None, EpollFlags::EPOLLOUT)]);
}

#[test]
fn around_the_border_not_a_byte_is_lost() {
    for len in [1, BORDER - 1, BORDER, BORDER + 1, 3 * BORDER, 20 << 20] {
        let mut rig = Rig::new();
        let (client, server) = rig.pair();
        let (up, down) = (pattern(len), pattern(len));
        // Both at once, each in pieces of its own.
        let (mut sent, mut got) = ([0; 2], [Vec::new(), Vec::new()]);
        rig.until("all of it", |_| {
            for (way, (mut from, mut to), bytes) in
                [(0, (&client, &server), &up), (1, (&server, &client), &down)]
            {
                let end = bytes.len().min(sent[way] + 300_007);
                sent[way] += from.write(&bytes[sent[way]..end]).unwrap_or(0);
                let mut piece = [0; 70_001];
                if let Ok(count) = to.read(&mut piece) {
                    got[way].extend_from_slice(&piece[..count]);
                }
            }
            got[0].len() == up.len() && got[1].len() == down.len()
        });
        assert!(got == [up, down], "{len}");
        let has_pipes = rig.streams.tools.has_pipes();
        assert!(if len < BORDER { !has_pipes } else { has_pipes || len < 16 * BORDER }, "{len}");
        let conversation = rig.streams.list().next().unwrap();
        let carried = u64::try_from(len).unwrap();
        assert_eq!((conversation.up, conversation.down), (carried, carried));
        drop(client);
        assert_eq!(rig.read_all(&server), Ok(Vec::new()));
    }
}

/// A receiver that is slow holds up its sender and nothing else, and then gets everything.
fn back_pressure_crosses(mut rig: Rig) {
    let (client, server) = rig.pair();
    let bytes = pattern(64 << 20);
    let sent = rig.write_until_full(&client, &bytes);
    assert!(!rig.streams.is_busy(), "nothing to do, so nothing is done");
    // The other direction, and another connection, go on.
    (&server).write_all(b"up here").unwrap();
    let mut piece = [0; 16];
    rig.until("the other direction", |_| (&client).read(&mut piece).is_ok_and(|count| count == 7));
    let (mut other, other_server) = rig.pair();
    other.write_all(b"hello").unwrap();
    drop(other);
    assert_eq!(rig.read_all(&other_server), Ok(b"hello".to_vec()));
    client.shutdown(Shutdown::Write).unwrap();
    let got = rig.read_all(&server).unwrap();
    assert!(got == bytes[..sent], "{} of {sent}", got.len());
}

#[test]
fn what_arrives_for_a_full_receiver_wakes_nobody() {
    let mut rig = Rig::new();
    let (client, server) = rig.pair();
    let bytes = pattern(64 << 20);
    let mut sent = 0;
    rig.until("the receiver is full", |rig| {
        sent += (&client).write(&bytes[sent..sent + 100_000]).unwrap_or(0);
        rig.streams.slab.iter().any(|(_, stream)| !stream.server.has_room())
    });
    rig.settle();
    // There is room on the way to us still.
    let mut wakes = 0;
    for _ in 0..20 {
        let taken = (&client).write(&bytes[sent..sent + 1000]).unwrap();
        assert_eq!(taken, 1000);
        sent += taken;
        wakes += usize::from(rig.turn());
    }
    assert!(wakes <= 1, "{wakes}");
    client.shutdown(Shutdown::Write).unwrap();
    let got = rig.read_all(&server).unwrap();
    assert!(got == bytes[..sent], "and it is heard again: {} of {sent}", got.len());
}

#[test]
fn a_slow_receiver_holds_up_its_sender_alone() {
    back_pressure_crosses(Rig::new());
}

/// Runs `work` in a process that may open no more descriptors than it takes to begin, and no pipes behind them.
fn without_pipes(work: impl FnOnce(Rig)) {
    let child = fork_child(|| {
        let mut rig = Rig::new();
        rig.streams.tools.forbid_pipes();
        work(rig);
        0
    });
    assert!(matches!(wait_for(child.unwrap()).unwrap(), WaitStatus::Exited(_, 0)));
}

#[test]
fn without_pipes_everything_works() {
    without_pipes(back_pressure_crosses);
    // Without descriptors there are none; the connection is there already.
    let child = fork_child(|| {
        let mut rig = Rig::new();
        let (client, server) = rig.pair();
        let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
        let limit = u64::try_from(next).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
        let bytes = pattern(30 << 20);
        let sent = rig.write_until_full(&client, &bytes);
        client.shutdown(Shutdown::Write).unwrap();
        let got = rig.read_all(&server).unwrap();
        assert!(got == bytes[..sent] && !rig.streams.tools.has_pipes());
        0
    });
    assert!(matches!(wait_for(child.unwrap()).unwrap(), WaitStatus::Exited(_, 0)));
}

fn reset(stream: TcpStream) {
    sockopt::reset_on_close(stream.as_fd()).unwrap();
    drop(stream);
}

#[test]
fn a_reset_crosses_both_ways() {
    let mut rig = Rig::new();
    let (client, server) = rig.pair();
    rig.settle();
    reset(client);
    assert_eq!(rig.read_all(&server), Err((Vec::new(), ErrorKind::ConnectionReset)));
    let (client, server) = rig.pair();
    rig.settle();
    reset(server);
    assert_eq!(rig.read_all(&client), Err((Vec::new(), ErrorKind::ConnectionReset)));
    assert_eq!(rig.streams.len(), 0);
}

#[test]
fn a_reset_is_heard_while_the_other_end_is_slow() {
    let mut rig = Rig::new();
    let (client, server) = rig.pair();
    rig.write_until_full(&client, &pattern(64 << 20));
    reset(client);
    rig.until("it is over", |rig| rig.streams.len() == 0);
    let (_, error) = rig.read_all(&server).unwrap_err();
    assert_eq!(error, ErrorKind::ConnectionReset, "a part is not taken for the whole");
}

#[test]
fn what_came_before_a_reset_is_delivered() {
    let mut rig = Rig::new();
    let (mut client, mut server) = rig.pair();
    client.write_all(b"a question that nobody reads").unwrap();
    rig.settle();
    server.write_all(b"go away").unwrap();
    // Closing with something unread is a reset (RFC 2525 §2.17).
    drop(server);
    rig.until("it is over", |rig| rig.streams.len() == 0);
    assert_eq!(rig.read_all(&client), Err((b"go away".to_vec(), ErrorKind::ConnectionReset)));
}

#[test]
fn a_server_that_closes_ends_an_upload() {
    let mut rig = Rig::new();
    let (mut client, server) = rig.pair();
    client.write_all(b"x").unwrap();
    let mut piece = [0; 4];
    rig.until("it is there", |_| (&server).read(&mut piece).is_ok());
    drop(server);
    // The end alone is no error: the client may still want to send. Then it learns that nobody listens.
    assert_eq!(rig.read_all(&client), Ok(Vec::new()));
    assert_eq!(rig.streams.len(), 1);
    let mut failed = None;
    rig.until("sending fails", |_| {
        failed = client.write(b"more").err().filter(|error| error.kind() != ErrorKind::WouldBlock);
        failed.is_some()
    });
    assert_eq!(rig.streams.len(), 0);
}

#[test]
fn where_nobody_listens_the_client_is_reset() {
    let mut rig = Rig::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = rig.client_of(nobody);
    client.set_nonblocking(true).unwrap();
    assert_eq!(rig.read_all(&client), Err((Vec::new(), ErrorKind::ConnectionReset)));
    assert_eq!(rig.streams.len(), 0);
}

#[test]
fn many_short_connections_leave_nothing() {
    let mut rig = Rig::new();
    for nth in 0..300_u32 {
        let (mut client, mut server) = rig.pair();
        client.write_all(&nth.to_le_bytes()).unwrap();
        let mut got = [0; 4];
        rig.until("the question", |_| (&server).read_exact(&mut got).is_ok());
        server.write_all(&got).unwrap();
        drop(server);
        assert_eq!(rig.read_all(&client), Ok(nth.to_le_bytes().to_vec()));
        drop(client);
        rig.until("it is over", |rig| rig.streams.len() == 0);
    }
    assert!(rig.streams.slab.next().unwrap().generation >= 299, "one place has served them all");
    assert!(!rig.streams.is_busy());
}

#[test]
fn late_events_meet_nobody() {
    let mut rig = Rig::new();
    let (client, server) = rig.pair();
    let id = rig.streams.slab.iter().next().unwrap().0;
    reset(client);
    rig.until("it is over", |rig| rig.streams.len() == 0);
    let (_next, next_server) = rig.pair();
    rig.settle();
    let everything = EpollFlags::all();
    rig.streams.on_event(id.place, id.generation, true, everything, &rig.events);
    rig.streams.on_event(u32::MAX, 0, false, everything, &rig.events);
    assert!(!rig.streams.is_busy());
    drop((server, next_server));
}

#[test]
fn who_is_left_at_the_end_is_reset() {
    let mut rig = Rig::new();
    let (client, server) = rig.pair();
    rig.settle();
    drop(std::mem::take(&mut rig.streams));
    for end in [&client, &server] {
        assert_eq!(rig.read_all(end), Err((Vec::new(), ErrorKind::ConnectionReset)));
    }
}
