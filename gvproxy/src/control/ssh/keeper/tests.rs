//! The keeper itself, a process as in earnest.

use super::*;
use crate::control::ssh::host_key;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use slipway_host::sys::proc::wait_for;
use std::process::{Command, Stdio};

fn run<T>(work: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(work())
}

#[test]
fn it_signs_with_keys_that_are_read_anew_and_says_why_not() {
    let test = "it_signs_with_keys_that_are_read_anew_and_says_why_not";
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for kind in ["ed25519", "ecdsa"] {
        let mut made = Command::new("ssh-keygen");
        made.args(["-q", "-N", "", "-t", kind, "-f"]).arg(at(kind)).stdin(Stdio::null());
        if let Err(error) = made.status() {
            println!("SKIP {test}: ssh-keygen: {error}");
            return;
        }
    }
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    std::fs::write(at("large"), vec![b'x'; 100_000]).unwrap();
    let socket = fork(|| ()).unwrap();
    run(async || {
        let keeper = Keeper::new(Some(socket)).unwrap();
        for kind in ["ed25519", "ecdsa"] {
            let Public { algorithm, blob } = keeper.public(&at(kind)).await.unwrap();
            let signature = keeper.sign(&at(kind), b"message").await.unwrap();
            assert_eq!(host_key::verify(&algorithm, &blob, b"message", &signature), Ok(true), "{kind}");
        }
        let shown = |name: &str| at(name).display().to_string();
        for (name, why) in [
            ("missing", format!("open {}: no such file or directory", shown("missing"))),
            ("pipe", format!("read {}: is no file", shown("pipe"))),
            ("", format!("read {}: is a directory", shown(""))),
            ("large", format!("{}: it is no private key", shown("large"))),
            ("ed25519.pub", format!("{}: it is no private key", shown("ed25519.pub"))),
        ] {
            assert_eq!(keeper.public(&at(name)).await.map(drop), Err(why.clone()));
            assert_eq!(keeper.sign(&at(name), b"x").await.map(drop), Err(why));
        }
        std::fs::rename(at("ecdsa"), at("missing")).unwrap();
        assert!(keeper.public(&at("missing")).await.unwrap().algorithm.starts_with("ecdsa-"));
        // Whoever asks and goes leaves nothing to the next one.
        assert!(!is_done(keeper.sign(&at("ed25519"), b"forgotten")));
        assert!(keeper.public(&at("large")).await.is_err());
    });
}

/// Lets a future begin, and nothing more.
fn is_done<T>(work: impl Future<Output = T>) -> bool {
    let mut work = std::pin::pin!(work);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    work.as_mut().poll(&mut context).is_ready()
}

#[test]
fn nonsense_ends_it() {
    let socket = fork(|| ()).unwrap();
    let other = socket.try_clone().unwrap();
    run(async || {
        let keeper = Keeper::new(Some(socket)).unwrap();
        assert!(keeper.public(Path::new("/no/such/key")).await.unwrap_err().starts_with("open "));
        send(other.as_raw_fd(), b"nonsense", MsgFlags::MSG_NOSIGNAL).unwrap();
        // It may still take the next question, or not.
        let _ = keeper.public(Path::new("/no/such/key")).await;
        let gone = keeper.public(Path::new("/no/such/key")).await;
        assert_eq!(gone, Err("nobody holds keys any more".to_owned()));
        let nobody = Keeper::new(None).unwrap().sign(Path::new("/x"), b"").await;
        assert_eq!(nobody, Err("nobody holds keys any more".to_owned()));
    });
}

#[test]
fn nothing_is_left_to_it_but_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "readable").unwrap();
    let is_refused = |what: &str, work: &dyn Fn() -> bool| {
        let child = fork_child(|| {
            settle();
            u8::from(work())
        });
        let status = wait_for(child.unwrap()).unwrap();
        let refused = matches!(status, WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, Signal::SIGSYS, _));
        assert!(refused, "{what}: {status:?}");
    };
    is_refused("executes", &|| nix::unistd::execv(c"/bin/true", &[c"true"]).is_ok());
    is_refused("writes", &|| std::fs::write(&path, "x").is_ok());
    is_refused("removes", &|| std::fs::remove_file(&path).is_ok());
    is_refused("connects", &|| std::os::unix::net::UnixStream::connect("/run/x").is_err());
    is_refused("signals", &|| nix::sys::signal::kill(nix::unistd::getppid(), None).is_ok());
    is_refused("traces", &|| nix::sys::ptrace::attach(nix::unistd::getppid()).is_ok());
    is_refused("makes a process", &|| fork_child(|| 0).is_ok());
    let child = fork_child(|| {
        settle();
        u8::from(std::fs::read(&path).is_ok_and(|text| text == b"readable"))
    });
    let status = wait_for(child.unwrap()).unwrap();
    assert!(matches!(status, WaitStatus::Exited(_, 1)), "it reads: {status:?}");
}
