//! Loads that a network has for a long time: many flows that say little, and rules that come and go.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, recv, send, socket};
use slipway_lab::now;

use super::samples::Samples;
use super::{PATIENCE, connect, exchange, invalid};

/// Bytes that a flow says at a time, a message rather than a part of a stream.
const MESSAGE: usize = 625;

/// One of many flows, and how many bytes of echo it still waits for.
struct Flow {
    stream: TcpStream,
    owed: usize,
}

impl Flow {
    /// Opens one and has the server take it for a conversation.
    fn open(to: SocketAddr, number: usize) -> io::Result<Self> {
        let failed = |error| invalid(format!("connection {number}: {error}"));
        let mut stream = connect(to).map_err(failed)?;
        exchange(&mut stream, b'r').map_err(failed)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, owed: 0 })
    }

    /// Sends a message, if there is room for all of it.
    fn say(&mut self, message: &[u8]) -> io::Result<usize> {
        match self.stream.write(message) {
            Ok(sent) => {
                self.owed += sent;
                Ok(sent)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn hear(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) => Err(invalid("a flow ended")),
            Ok(got) => {
                self.owed =
                    self.owed.checked_sub(got).ok_or_else(|| invalid("more came back than was said"))?;
                Ok(got)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Opens so many connections to a server that echoes, says so, and has each in turn say something, so much that
/// `megabits` a second cross, half of them each way. Prints the bytes sent, those that came back, and the seconds.
pub(crate) fn trickle(to: SocketAddr, count: usize, megabits: u32, span: Duration) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut flows = Vec::with_capacity(count);
    for number in 0..count {
        let flow = Flow::open(to, number)?;
        epoll.add(&flow.stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        flows.push(flow);
    }
    writeln!(io::stdout(), "held {}", flows.len())?;
    let (message, mut buffer) = ([b'r'; MESSAGE], vec![0; 64 << 10]);
    let (mut sent, mut back) = (0, 0);
    let mut turns = (0..count).cycle();
    let mut events = vec![EpollEvent::empty(); 1024];
    let begin = now();
    loop {
        let since = begin.elapsed();
        if since < span {
            // Of the bits a half, of the bytes an eighth: a megabit is a bit for each microsecond.
            let due = since.as_micros() * u128::from(megabits) / 2 / 8;
            while (sent as u128) < due {
                let Some(flow) = turns.next().and_then(|number| flows.get_mut(number)) else { break };
                match flow.say(&message)? {
                    0 => break,
                    count => sent += count,
                }
            }
        } else if back == sent {
            break;
        } else if since > span + PATIENCE {
            return Err(invalid(format!("of {sent} bytes {back} came back")));
        }
        let ready = epoll.wait(&mut events, EpollTimeout::from(1_u8))?;
        for event in events.iter().take(ready) {
            let flow = usize::try_from(event.data()).ok().and_then(|number| flows.get_mut(number));
            back += flow.map_or(Ok(0), |flow| flow.hear(&mut buffer))?;
        }
    }
    writeln!(io::stdout(), "{sent} {back} {:.4}", span.as_secs_f64())
}

/// Adds rules for so many TCP ports from `first` on by the control socket of a `pasta`, one by one, and removes them
/// again. Prints the middle, the 99th percentile and the worst of the times from request to reply, in milliseconds, and
/// how many there were.
pub(crate) fn rules(path: &str, first: u16, count: u16) -> io::Result<()> {
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    nix::sys::socket::connect(control.as_raw_fd(), &UnixAddr::new(path)?)?;
    let mut samples = Samples::default();
    let mut buffer = vec![0; 64 << 10];
    let mut ask = |request: String| -> io::Result<String> {
        let asked = now();
        send(control.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
        let got = recv(control.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        samples.add(asked.elapsed());
        let reply = String::from_utf8_lossy(buffer.get(..got).unwrap_or_default()).into_owned();
        if reply.contains("\"return\"") { Ok(reply) } else { Err(invalid(format!("{request}: {reply}"))) }
    };
    let mut ids = Vec::new();
    for port in first..first.saturating_add(count) {
        let reply = ask(format!(r#"{{"execute":"add","arguments":{{"rules":[{{"ports":{port}}}]}}}}"#))?;
        let id = reply.split_once("[[").and_then(|(_, rest)| rest.split_once("]]"));
        ids.push(id.ok_or_else(|| invalid(format!("no ids: {reply}")))?.0.to_owned());
    }
    for id in ids {
        ask(format!(r#"{{"execute":"remove","arguments":{{"ids":[{id}]}}}}"#))?;
    }
    let count = samples.count();
    let shown = samples.percentiles([50, 99, 100]).ok_or_else(|| invalid("no rules"))?;
    let [median, p99, worst] = shown.map(|time| time.as_secs_f64() * 1e3);
    writeln!(io::stdout(), "{median:.4} {p99:.4} {worst:.4} {count}")
}
