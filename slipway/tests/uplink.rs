//! `slipway uplink` as a program: where it listens, what it says, what is refused. Networks are tested end to end
//! elsewhere.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the verdict")]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slipway_host::sys::fdpass;
use slipway_uplink::client::Client;
use slipway_uplink::envelope::{Failure, read};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_slipway");

/// A program that is killed when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn uplink(words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("uplink").args(words).env_remove("XDG_RUNTIME_DIR").env_remove("SLIPWAY_UPLINK");
    command.stdin(Stdio::null());
    command
}

fn show(path: &Path) -> Output {
    uplink(&["--show", "--socket"]).arg(path).output().unwrap()
}

fn eventually(mut probe: impl FnMut() -> bool) {
    for _ in 0..500 {
        if probe() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("that takes too long");
}

#[test]
fn it_listens_where_it_is_told_shows_itself_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("slipway/uplink.sock");
    let mut running =
        Running(uplink(&[]).env("XDG_RUNTIME_DIR", dir.path()).env("SLIPWAY_UPLINK", &path).spawn().unwrap());
    eventually(|| show(&path).status.success());
    assert_eq!(String::from_utf8_lossy(&show(&path).stdout), "no networks\n");
    let second = uplink(&["--socket"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("an uplink runs there already"), "{said}");
    kill(Pid::from_raw(running.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert!(!path.exists());
    let none = show(&path);
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(!none.status.success() && said.contains("no uplink answers at"), "{said}");
}

#[test]
fn a_descriptor_that_is_no_tap_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uplink.sock");
    let _running = Running(uplink(&["--socket"]).arg(&path).spawn().unwrap());
    eventually(|| path.exists() && Client::connect(&path).is_ok());
    let client = Client::connect(&path).unwrap();
    let network =
        json!({ "id": "n", "name": "n", "subnets": [{ "subnet": "10.0.0.0/24", "gateway": "10.0.0.1" }] });
    let container = json!({ "id": "c", "name": "c", "addresses": ["10.0.0.2"] });
    let join = json!({ "execute": "join", "arguments": { "network": network, "container": container } });
    assert_eq!(client.ask::<Value>(&join, &[]).unwrap(), json!({ "attached": false }));
    let attach = json!({ "execute": "attach", "arguments": { "network_id": "n" } });
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let refused = |request: &Value, fds: &[BorrowedFd<'_>]| client.ask::<Value>(request, fds).unwrap_err();
    let refusal = refused(&attach, &[file.as_fd()]);
    assert!(
        refusal.to_string().contains("use the descriptor as a TAP") && refusal.errno().is_some(),
        "{refusal}"
    );
    let publish = json!({ "execute": "publish", "arguments": { "container_id": "c", "ports": [{ "host_port": 9, "container_port": 9 }] } });
    let refusal = refused(&publish, &[]).to_string();
    assert!(refusal.contains("no address on any network that the uplink serves"), "{refusal}");
    // Too much at once, and the conversation goes on.
    let refusal = refused(&attach, &[file.as_fd(); 9]).to_string();
    assert!(refusal.contains("too many descriptors"), "{refusal}");
    let long = json!({ "execute": "x".repeat(70_000) });
    assert!(matches!(refused(&long, &[]), Failure::TooLong(_)));
    // Somebody else's client may send it.
    fdpass::send(client.as_fd(), long.to_string().as_bytes(), None).unwrap();
    let mut reply = [0; 4096];
    let (len, _) = fdpass::receive(client.as_fd(), &mut reply).unwrap();
    let refusal = read::<Value>(&reply[..len]).unwrap_err().to_string();
    assert!(refusal.contains("longer than 65536 bytes"), "{refusal}");
    let leave = json!({ "execute": "leave", "arguments": { "network_id": "n", "container_id": "c" } });
    assert_eq!(client.ask::<Value>(&leave, &[]).unwrap(), json!({ "containers": 0 }));
    // A crowd of silent clients shuts nobody out.
    let crowd: Vec<_> = (0..100).map(|_| Client::connect(&path).unwrap()).collect();
    assert!(show(&path).status.success());
    drop(crowd);
}

#[test]
fn systemd_may_open_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uplink.sock");
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(8).unwrap()).unwrap();
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = fd.as_raw_fd();
    let start = |redirection: &str| {
        let script = format!("export LISTEN_PID=$$ LISTEN_FDS=1; exec '{PROGRAM}' uplink {redirection}");
        Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut running = Running(start(&format!("3<&{number}")));
    eventually(|| show(&path).status.success());
    kill(Pid::from_raw(running.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert!(path.exists(), "it is systemd's");
    // Of the wrong kind.
    let wrong = start("3</dev/null").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("the socket of systemd"), "{said}");
}
