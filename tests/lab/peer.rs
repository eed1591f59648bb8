//! The small client and server whose request/response figures and half-closes the lab measures.
//!
//! The server is one thread on one epoll set, so that it costs both sides of a comparison the same. The first byte
//! of a connection says what it is for: `r` is answered and so is every later byte; `c` is answered and the
//! connection closed by the server, so that the client's side never waits in TIME-WAIT; `h` is counted to its end and
//! the count is sent back over the half-closed connection. Each datagram is sent back as it came.
//!
//! Limits: a client runs for the seconds it is told, 60 at most; no answer within two seconds, and no progress of
//! an upload within ten, is an error.

#![forbid(unsafe_code)]

mod datagrams;
mod load;
mod orders;
mod samples;

use std::collections::HashMap;
use std::io::{self, BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use slipway_lab::{now, starved};

use samples::Samples;

const PATIENCE: Duration = Duration::from_secs(2);
/// A stream that does not move for so long will not.
const STALLED: Duration = Duration::from_secs(10);
const USAGE: &str = "usage: slipway-lab-peer serve ADDR | rr ADDR SECONDS | crr ADDR SECONDS | udp-rr ADDR SECONDS | \
                     latency ADDR SECONDS PAUSE_MS | sink ADDR | slow-sink ADDR | send ADDR BYTES [hold] | \
                     flood ADDR SECONDS SIZE TRAIN | upload ADDR SECONDS | trickle ADDR COUNT MBIT SECONDS | \
                     rules PATH FIRST COUNT | expose PATH FIRST COUNT | listening PATH PROGRAM WORDS | \
                     knock ADDR SECONDS RATE | hold ADDR COUNT | half-close ADDR | \
                     old-kernel ERRNO PROGRAM WORDS | start-up PROGRAM WORDS | timed PROGRAM WORDS";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipway-lab-peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    let address = |text: &str| text.parse::<SocketAddr>().map_err(invalid);
    match words {
        ["serve", at] => serve(address(at)?),
        ["rr", to, seconds] => print_rate(rr(address(to)?, span(seconds)?)?),
        ["crr", to, seconds] => print_rate(crr(address(to)?, span(seconds)?)?),
        ["udp-rr", to, seconds] => print_rate(udp_rr(address(to)?, span(seconds)?)?),
        ["latency", to, seconds, pause] => {
            latency(address(to)?, span(seconds)?, Duration::from_millis(pause.parse().map_err(invalid)?))
        }
        ["sink", at] => datagrams::sink(address(at)?),
        ["flood", to, seconds, size, train] => {
            let (size, train) = (size.parse().map_err(invalid)?, train.parse().map_err(invalid)?);
            datagrams::flood(address(to)?, span(seconds)?, size, train)
        }
        ["upload", to, seconds] => upload(address(to)?, span(seconds)?),
        ["trickle", to, count, megabits, seconds] => {
            let (count, megabits) = (count.parse().map_err(invalid)?, megabits.parse().map_err(invalid)?);
            load::trickle(address(to)?, count, megabits, span(seconds)?)
        }
        ["rules", path, first, count] => {
            load::rules(path, first.parse().map_err(invalid)?, count.parse().map_err(invalid)?)
        }
        ["expose", path, first, count] => {
            orders::expose(path, first.parse().map_err(invalid)?, count.parse().map_err(invalid)?)
        }
        ["listening", path, program, words @ ..] => orders::listening(path, program, words),
        ["knock", to, seconds, rate] => {
            datagrams::knock(address(to)?, span(seconds)?, rate.parse().map_err(invalid)?)
        }
        ["slow-sink", at] => slow_sink(address(at)?),
        ["send", to, bytes] => send(address(to)?, bytes.parse().map_err(invalid)?, false),
        ["send", to, bytes, "hold"] => send(address(to)?, bytes.parse().map_err(invalid)?, true),
        ["hold", to, count] => hold(address(to)?, count.parse().map_err(invalid)?),
        ["half-close", to] => half_close(address(to)?),
        ["old-kernel", errno, program, words @ ..] => {
            old_kernel(errno.parse().map_err(invalid)?, program, words)
        }
        ["start-up", program @ ..] if !program.is_empty() => start_up(program),
        ["timed", program, words @ ..] => timed(program, words),
        _ => Err(invalid(USAGE)),
    }
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, error.to_string())
}

fn span(text: &str) -> io::Result<Duration> {
    let seconds: f64 = text.parse().map_err(invalid)?;
    Ok(Duration::from_secs_f64(seconds.clamp(0.05, 60.0)))
}

fn print_rate((count, took): (u32, Duration)) -> io::Result<()> {
    writeln!(io::stdout(), "{:.1}", f64::from(count) / took.as_secs_f64())
}

/// What a connection of the server is for, and the bytes seen so far.
struct Conversation {
    stream: TcpStream,
    purpose: Option<u8>,
    bytes: u64,
}

fn serve(at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    let datagrams = UdpSocket::bind(at)?;
    datagrams.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let watch = |fd: &dyn std::os::fd::AsFd, token: u64| {
        epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))
    };
    let (tcp, udp) = (token(&listener), token(&datagrams));
    watch(&listener, tcp)?;
    watch(&datagrams, udp)?;
    let mut conversations: HashMap<u64, Conversation> = HashMap::new();
    let mut events = vec![EpollEvent::empty(); 256];
    let mut buffer = vec![0_u8; 65536];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in events.iter().take(ready) {
            if event.data() == tcp {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let token = token(&stream);
                    watch(&stream, token)?;
                    conversations.insert(token, Conversation { stream, purpose: None, bytes: 0 });
                }
            } else if event.data() == udp {
                while let Ok((count, from)) = datagrams.recv_from(&mut buffer) {
                    let _ = datagrams.send_to(buffer.get(..count).unwrap_or_default(), from);
                }
            } else if let Some(conversation) = conversations.get_mut(&event.data())
                && !conversation.go_on(&mut buffer)
            {
                // Closing the descriptor also takes it out of the set.
                conversations.remove(&event.data());
            }
        }
    }
}

fn token(fd: &impl std::os::fd::AsRawFd) -> u64 {
    u64::try_from(fd.as_raw_fd()).unwrap_or_default()
}

impl Conversation {
    /// One readable event; false when the conversation is over.
    fn go_on(&mut self, buffer: &mut [u8]) -> bool {
        let count = match self.stream.read(buffer) {
            Ok(count) => count,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        self.purpose = self.purpose.or_else(|| bytes.first().copied());
        self.bytes += count as u64;
        match self.purpose {
            Some(b'h') if count > 0 => true,
            Some(b'h') => {
                let _ = writeln!(self.stream, "got {}", self.bytes);
                false
            }
            Some(b'c') => {
                let _ = self.stream.write_all(bytes);
                false
            }
            _ => count > 0 && self.stream.write_all(bytes).is_ok(),
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    let mut answer = [0_u8];
    stream.write_all(&[byte])?;
    stream.read_exact(&mut answer)
}

/// Repeats a step until the time is over; gives the count and the time it really took.
fn repeat(span: Duration, mut step: impl FnMut() -> io::Result<()>) -> io::Result<(u32, Duration)> {
    let start: Instant = now();
    let mut count = 0;
    while start.elapsed() < span {
        step()?;
        count += 1;
    }
    Ok((count, start.elapsed()))
}

fn rr(to: SocketAddr, span: Duration) -> io::Result<(u32, Duration)> {
    let mut stream = connect(to)?;
    repeat(span, || exchange(&mut stream, b'r'))
}

/// Asks on one connection once in every `pause`, or when the answer to the last came if that is later, and prints of
/// the times that took the middle, the 99th percentile and the worst, in milliseconds, and how many there were.
///
/// Without the pause, thousands of quick answers between two slow ones would make the slow ones look rare, however much
/// of the time they take.
fn latency(to: SocketAddr, span: Duration, pause: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, STALLED)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALLED))?;
    let mut samples = Samples::default();
    repeat(span, || {
        let asked = now();
        exchange(&mut stream, b'r')?;
        let took = asked.elapsed();
        samples.add(took);
        std::thread::sleep(pause.saturating_sub(took));
        Ok(())
    })?;
    let count = samples.count();
    let shown = samples.percentiles([50, 99, 100]).ok_or_else(|| invalid("nothing was answered"))?;
    let [median, p99, worst] = shown.map(|time| time.as_secs_f64() * 1e3);
    writeln!(io::stdout(), "{median:.4} {p99:.4} {worst:.4} {count}")
}

fn crr(to: SocketAddr, span: Duration) -> io::Result<(u32, Duration)> {
    repeat(span, || {
        let mut stream = connect(to)?;
        exchange(&mut stream, b'c')?;
        // The server closes first; wait for its end so that the next connection starts after it.
        match stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(invalid("more than the answer arrived")),
            Err(error) => Err(error),
        }
    })
}

fn udp_rr(to: SocketAddr, span: Duration) -> io::Result<(u32, Duration)> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut lost = 0;
    let mut answer = [0_u8; 16];
    repeat(span, || {
        loop {
            socket.send(b"u")?;
            match socket.recv(&mut answer) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock && lost < 10 => lost += 1,
                Err(error) => return Err(error),
            }
        }
    })
}

/// Sends as fast as it goes until the time is over, and waits for the count of what arrived. Prints that count, the
/// seconds it took, and how many of them this program was ready to run but no processor was free.
fn upload(to: SocketAddr, span: Duration) -> io::Result<()> {
    let mut stream = connect(to)?;
    stream.set_read_timeout(Some(STALLED))?;
    stream.set_write_timeout(Some(STALLED))?;
    let chunk = vec![b'h'; 128 << 10];
    let mut sent = 0;
    let (_, took) = repeat(span, || {
        sent += stream.write(&chunk)?;
        Ok(())
    })?;
    let start = now();
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let seconds = (took + start.elapsed()).as_secs_f64();
    if answer.trim() != format!("got {sent}") {
        return Err(invalid(format!("sent {sent}, the server says: {answer}")));
    }
    writeln!(io::stdout(), "{sent} {seconds:.4} {:.4}", starved(std::process::id()).as_secs_f64())
}

/// Accepts one connection, says so, and reads nothing before standard input says a line. Then it reads to the end, and
/// says how many bytes came and whether it was an end or a reset.
fn slow_sink(at: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    // Little room, also for what a connection has before it is accepted.
    setsockopt(&listener, sockopt::RcvBuf, &(64 << 10))?;
    let (mut stream, _) = listener.accept()?;
    writeln!(io::stdout(), "accepted")?;
    io::stdin().lock().read_line(&mut String::new())?;
    stream.set_read_timeout(Some(STALLED))?;
    let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "end",
            Ok(count) => bytes += count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break "reset",
            Err(error) => return Err(error),
        }
    };
    writeln!(io::stdout(), "{bytes} {end}")
}

/// Sends so many bytes, says so, and ends; with `hold` only when standard input does.
fn send(to: SocketAddr, bytes: usize, hold: bool) -> io::Result<()> {
    let mut stream = connect(to)?;
    stream.write_all(&vec![b's'; bytes])?;
    writeln!(io::stdout(), "sent")?;
    if hold {
        io::stdin().lock().read_line(&mut String::new())?;
    }
    Ok(())
}

/// Opens many connections, asks each once, and again for every line on standard input.
fn hold(to: SocketAddr, count: usize) -> io::Result<()> {
    let mut streams = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = connect(to).map_err(|error| invalid(format!("connection {number}: {error}")))?;
        exchange(&mut stream, b'r').map_err(|error| invalid(format!("connection {number}: {error}")))?;
        streams.push(stream);
    }
    writeln!(io::stdout(), "held {}", streams.len())?;
    for line in io::stdin().lock().lines() {
        let _ = line?;
        for (number, stream) in streams.iter_mut().enumerate() {
            exchange(stream, b'r').map_err(|error| invalid(format!("connection {number} again: {error}")))?;
        }
        writeln!(io::stdout(), "answered {}", streams.len())?;
    }
    Ok(())
}

fn half_close(to: SocketAddr) -> io::Result<()> {
    let mut stream = connect(to)?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    write!(io::stdout(), "{answer}")
}

/// Becomes a program for which every system call that came after Linux 5.0 fails with this errno: what a container's
/// filter of that age does to calls that it does not know. From number 424 on all architectures count alike.
fn old_kernel(errno: u32, program: &str, words: &[&str]) -> io::Result<()> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let rules = (424..=511).map(|call| (call, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| failed(&error))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch);
    let filter: BpfProgram =
        filter.and_then(TryInto::try_into).map_err(|error: BackendError| failed(&error))?;
    // Whatever this program itself needs of them, it needs no longer.
    let mut command = Command::new(program);
    command.args(words);
    seccompiler::apply_filter(&filter).map_err(|error| failed(&error))?;
    Err(command.exec())
}

/// Times a program from exec to the first byte on its descriptor 3, then ends it by closing its standard input.
fn start_up(words: &[&str]) -> io::Result<()> {
    // The shell says when it is about to become the program; its own start is not counted.
    let script = r#"exec 3>&1 1>/dev/null 2>&1; echo >&3; exec "$@""#;
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdout.take().ok_or_else(|| invalid("no pipe"))?;
    let mut byte = [0_u8];
    pipe.read_exact(&mut byte)?;
    let start = now();
    let ready = pipe.read_exact(&mut byte);
    let took = start.elapsed();
    drop(child.stdin.take());
    let status = child.wait()?;
    ready.map_err(|_| invalid(format!("ended before it was ready: {status}")))?;
    writeln!(io::stdout(), "{:.3}", took.as_secs_f64() * 1e3)
}

/// Runs a program to its end with this one's standard input: milliseconds, and the most memory (KiB) that it or
/// anything it waited for ever had resident. What it prints goes to standard error, so that a failure is explained.
fn timed(program: &str, words: &[&str]) -> io::Result<()> {
    let start = now();
    let status = Command::new(program).args(words).stdout(io::stderr()).status()?;
    let took = start.elapsed();
    if !status.success() {
        return Err(io::Error::other(format!("{program}: {status}")));
    }
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    writeln!(io::stdout(), "{:.3} {peak}", took.as_secs_f64() * 1e3)
}
