//! Orders to a gvproxy: how soon it takes them after its start, and how long it takes over them.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use slipway_lab::now;

use super::samples::Samples;
use super::{PATIENCE, invalid};

/// Starts a program and prints the milliseconds until somebody listens at `path`; then it is ended.
pub(crate) fn listening(path: &str, program: &str, words: &[&str]) -> io::Result<()> {
    let start = now();
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let found = loop {
        if UnixStream::connect(path).is_ok() {
            break Ok(start.elapsed());
        }
        if start.elapsed() > PATIENCE {
            break Err(invalid(format!("nobody listens at {path}")));
        }
        std::thread::sleep(Duration::from_micros(50));
    };
    child.kill()?;
    child.wait()?;
    writeln!(io::stdout(), "{:.3}", found?.as_secs_f64() * 1e3)
}

/// Exposes so many TCP ports from `first` on, over one connection, and takes them back. Prints the milliseconds that
/// all took to come, the middle of those of each, and how many there were.
pub(crate) fn expose(path: &str, first: u16, count: u16) -> io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut samples = Samples::default();
    let ports = first..first.saturating_add(count);
    let began = now();
    for port in ports.clone() {
        let asked = now();
        order(&mut stream, "expose", port)?;
        samples.add(asked.elapsed());
    }
    let all = began.elapsed();
    ports.clone().try_for_each(|port| order(&mut stream, "unexpose", port))?;
    let [median] = samples.percentiles([50]).ok_or_else(|| invalid("no ports"))?;
    let [all, median] = [all, median].map(|time| time.as_secs_f64() * 1e3);
    writeln!(io::stdout(), "{all:.4} {median:.4} {}", ports.len())
}

/// One order; what succeeds has no body.
fn order(stream: &mut UnixStream, verb: &str, port: u16) -> io::Result<()> {
    let body = format!(r#"{{"local":"127.0.0.1:{port}","remote":"192.168.127.2:{port}","protocol":"tcp"}}"#);
    let len = body.len();
    let request =
        format!("POST /services/forwarder/{verb} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(invalid(format!("{verb}: no answer"))),
            count => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(invalid(format!("{verb}: {}", String::from_utf8_lossy(&answer))))
}
