//! The process: how it starts, what it listens on, when and how it ends.

use nix::sys::signal::Signal;
use serde_json::json;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::place::Place;
use crate::{LIMIT, fixture};
use slipway_lab::now;

#[test]
fn t04_a_signal_ends_it_and_its_socket() {
    let place = fixture!("t04_a_signal_ends_it_and_its_socket");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut proxy = place.proxy(&[]);
        let silent = UnixStream::connect(place.socket()).unwrap();
        let start = now();
        proxy.signal(signal);
        let output = proxy.finish(LIMIT).unwrap().unwrap();
        assert_eq!(output.code(), 0, "{output}");
        assert!(!place.socket().exists() && now() - start < Duration::from_secs(2));
        drop(silent);
    }
}

#[test]
fn t04_a_killed_one_does_not_stop_the_next() {
    let place = fixture!("t04_a_killed_one_does_not_stop_the_next");
    drop(place.proxy(&[]));
    assert!(place.socket().exists());
    let _proxy = place.proxy(&[]);
    let second = place.proxy_cmd(&[]).run(LIMIT).unwrap();
    assert_eq!(second.code(), 1, "{second}");
    let error: serde_json::Value = serde_json::from_str(&second.out()).unwrap();
    assert!(error["error"].as_str().unwrap().contains("Address already in use (os error 98)"), "{error}");
    assert!(place.socket().exists(), "the first one's is left alone");
}

#[test]
fn t04_it_ends_when_nobody_needs_it() {
    let place = fixture!("t04_it_ends_when_nobody_needs_it");
    let _server = place.server("198.51.100.50", &[]);
    let mut proxy = place.proxy(&["--activity-timeout", "1"]);
    place.lease("setup", &place.request());
    std::thread::sleep(Duration::from_millis(2500));
    assert!(proxy.ended().unwrap().is_none(), "a lease is held");
    place.lease("teardown", &place.request());
    let output = proxy.finish(LIMIT).unwrap().unwrap();
    assert_eq!((output.code(), place.socket().exists()), (0, false), "{output}");
}

#[test]
fn t04_a_caller_that_goes_away_is_not_served() {
    let place = fixture!("t04_a_caller_that_goes_away_is_not_served");
    let mut proxy = place.proxy(&["-t", "600", "-a", "1"]);
    let caller = place.client("setup", &place.request()).start().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(proxy.ended().unwrap().is_none(), "somebody waits");
    drop(caller);
    let output = proxy.finish(LIMIT).unwrap().unwrap();
    assert_eq!(output.code(), 0, "{output}");
}

#[test]
fn t04_the_environment_names_the_directory() {
    let place = fixture!("t04_the_environment_names_the_directory");
    let other = place.dir().join("made/here");
    let cmd = place.proxy_cmd(&["-u", "/nowhere"]).env("NETAVARK_PROXY_RUN_DIR_ENV", other.as_os_str());
    let mut proxy = cmd.start().unwrap();
    proxy.until(LIMIT, |_| other.join("nv-proxy.lease").exists()).unwrap();
    assert!(other.join("nv-proxy.sock").exists() && !place.socket().exists());
}

#[test]
fn t04_systemd_hands_over_the_socket() {
    let place = fixture!("t04_systemd_hands_over_the_socket");
    let socket = UnixListener::bind(place.socket()).unwrap();
    let binary = slipway_lab::built("SLIPWAY_NETAVARK_BINARY", "netavark").unwrap();
    let start_on = |socket: OwnedFd, count: &str| {
        Command::new("sh")
            .args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh"])
            .arg(&binary)
            .args(["dhcp-proxy", "-a", "1", "--dir"])
            .arg(place.dir())
            .env("LISTEN_FDS", count)
            .stdin(socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let start = |count: &str| start_on(socket.try_clone().unwrap().into(), count);
    let child = start("1");
    let answer = place.lease("teardown", &place.request());
    assert_eq!(answer["yiaddr"], json!(""));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(place.socket().exists(), "it is systemd's");
    let output = start("2").wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("systemd handed over 2 sockets"), "{said}");
    // One on which nobody can ever connect.
    let (pair, _other) = UnixStream::pair().unwrap();
    let output = start_on(pair.into(), "1").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && said.contains("one of ListenStream="), "{said}");
}

#[test]
fn t04_more_callers_than_descriptors_are_borne() {
    let place = fixture!("t04_more_callers_than_descriptors_are_borne");
    let _server = place.server("198.51.100.50", &[]);
    let mut shell = place.machine.cmd(["sh", "-c", "ulimit -n 40; exec \"$0\" dhcp-proxy --dir \"$1\""]);
    shell = shell.arg(&place.proxy).arg(place.dir());
    let mut proxy = shell.start().unwrap();
    proxy.until(LIMIT, |_| place.dir().join("nv-proxy.lease").exists()).unwrap();
    place.lease("setup", &place.request());
    let callers: Vec<_> = (0..80).map(|_| UnixStream::connect(place.socket()).unwrap()).collect();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks() - before;
    assert!(spent < 30, "{spent} hundredths of a second of processor time in one second");
    drop(callers);
    place.lease("teardown", &place.request());
    assert!(proxy.ended().unwrap().is_none());
}

#[test]
fn t04_leases_are_not_released_when_it_ends() {
    let place = fixture!("t04_leases_are_not_released_when_it_ends");
    let _server = place.server("198.51.100.50", &[]);
    let mut proxy = place.proxy(&[]);
    place.lease("setup", &place.request());
    proxy.signal(Signal::SIGTERM);
    proxy.finish(LIMIT).unwrap().unwrap();
    assert!(
        place.in_container("ip -4 address show dev eth0").contains("198.51.100.50"),
        "the container lives on"
    );
    assert_eq!(std::fs::read_to_string(place.server_leases()).unwrap().lines().count(), 1);
    // By contract the next one starts without leases.
    let _proxy = place.proxy(&[]);
    Place::until("the file is empty", || place.cache() == json!({}));
}
