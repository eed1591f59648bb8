//! How a network ends: its ports at once, its last bytes as promised, and nobody takes a part for the whole.
//!
//! A receiver in world reads nothing until it is told, and the sockets on the way have little room: so it is certain
//! where an upload lies when the end comes. What the host's kernel cannot take lies in slipway, acknowledged.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::{Cmd, Container, LIMIT, Lab, Running, WORLD4, lab, now};
use std::io::Write as _;
use std::time::Duration;

const PORT: u16 = 9000;
/// What slipway has room for, but sockets of the host's have not.
const UPLOAD: usize = 256 << 10;
/// What only the guest's kernel has room for.
const LARGE: usize = 6 << 20;
/// The published port, as `/proc/net/tcp` has a listener on it.
const LISTENS: &str = ":1F90 0*:0000 0A";
/// Less than the two seconds that a drain without a reader takes, far more than anything that is done at once.
const SOON: Duration = Duration::from_millis(1500);

/// Whether it is done in less than that, which a busy machine must only manage once of three times.
fn is_soon(mut attempt: impl FnMut() -> Duration) -> bool {
    (0..3).any(|_| attempt() < SOON)
}

/// A receiver that waits, on a host whose sockets have little room.
fn slow_sink(lab: &Lab) -> Running {
    let small = "echo 4096 16384 65536 > /proc/sys/net/ipv4/tcp_wmem";
    lab.host_root(["sh", "-c", small]).ok(LIMIT).unwrap();
    let peer = lab.program("slipway-lab-peer");
    Running::server(lab.world([&peer, "slow-sink", &format!("{WORLD4}:{PORT}")]), "tcp", PORT).unwrap()
}

/// Lets it read; what it has got in the end.
fn told(sink: &mut Running) -> String {
    sink.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let said = sink.finish(LIMIT).unwrap().expect("it ends").out();
    said.lines().last().unwrap_or_default().to_owned()
}

fn send(lab: &Lab, bytes: usize) -> Vec<String> {
    vec![lab.program("slipway-lab-peer"), "send".to_owned(), format!("{WORLD4}:{PORT}"), bytes.to_string()]
}

/// A complete upload of a container: its program has ended, and the guest's kernel has sent everything.
fn upload(lab: &Lab, container: &Container, bytes: usize) {
    container.cmd(send(lab, bytes)).ok(LIMIT).unwrap();
    // FIN-WAIT-2 or later: acknowledged to the last byte.
    let acknowledged = "for i in $(seq 500); do
        ss -Htn state fin-wait-1 | grep -q . || ss -Htn state established | grep -q . || exit 0; sleep 0.01; done; exit 1";
    assert!(container.sh(acknowledged).unwrap().success());
}

/// Waits until the port is free, while `process` is still there.
fn port_is_free_while(lab: &Lab, process: &mut Running) {
    let listens = || lab.host(["grep", "-qs", LISTENS, "/proc/net/tcp", "/proc/net/tcp6"]);
    process.until(LIMIT, |_| !listens().run(LIMIT).unwrap().success()).unwrap();
}

fn signal(process: &Running, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(process.pid()).unwrap()), signal).unwrap();
}

/// `slipway run` with a published port, whose command sends more than slipway takes and has ended.
fn run_to_the_end(lab: &Lab) -> (Running, Running) {
    let sink = slow_sink(lab);
    // The guest's own kernel has room for it all.
    let script = r#"echo 4096 16777216 16777216 > /proc/sys/net/ipv4/tcp_wmem && exec "$@""#;
    let mut run = lab
        .host([&lab.program("slipway"), "run", "-q", "--map-root", "-p", "8080:80", "--", "sh", "-c", script])
        .arg("sh")
        .args(send(lab, LARGE))
        .start()
        .unwrap();
    run.until(LIMIT, |run| run.stdout().contains("sent")).unwrap();
    port_is_free_while(lab, &mut run);
    (run, sink)
}

#[test]
fn the_last_bytes_of_a_command_arrive_and_its_ports_are_free_meanwhile() {
    let (lab, _) = lab!(ours "the_last_bytes_of_a_command_arrive_and_its_ports_are_free_meanwhile", []);
    let (mut run, mut sink) = run_to_the_end(&lab);
    assert!(run.ended().unwrap().is_none(), "there is something to deliver");
    assert_eq!(told(&mut sink), format!("{} end", LARGE));
    let ended = run.finish(LIMIT).unwrap().expect("it ends");
    assert_eq!(ended.code(), 0, "{ended}");
}

#[test]
fn a_command_that_nobody_reads_ends_with_a_reset() {
    let (lab, _) = lab!(ours "a_command_that_nobody_reads_ends_with_a_reset", []);
    let (mut run, mut sink) = run_to_the_end(&lab);
    let ended = run.finish(LIMIT).unwrap().expect("it does not wait for ever");
    assert_eq!(ended.code(), 0, "{ended}");
    assert!(told(&mut sink).ends_with(" reset"));
}

#[test]
fn a_second_signal_ends_the_waiting() {
    let (lab, _) = lab!(ours "a_second_signal_ends_the_waiting", []);
    assert!(is_soon(|| {
        let (mut run, mut sink) = run_to_the_end(&lab);
        let start = now();
        signal(&run, Signal::SIGTERM);
        let ended = run.finish(LIMIT).unwrap().expect("it ends");
        let took = start.elapsed();
        assert_eq!(ended.code(), 0, "the command's own status: {ended}");
        assert!(told(&mut sink).ends_with(" reset"));
        took
    }));
}

#[test]
fn a_closed_exit_fd_frees_the_ports_and_delivers() {
    let (lab, _) = lab!(ours "a_closed_exit_fd_frees_the_ports_and_delivers", ["ss"]);
    let (container, mut sink) = (lab.container().unwrap(), slow_sink(&lab));
    let mut slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock", "--enable-seccomp"]).unwrap();
    slirp.publish("tcp", 8080, 80).unwrap();
    upload(&lab, &container, UPLOAD);
    slirp.process.stdin.take();
    port_is_free_while(&lab, &mut slirp.process);
    assert!(!slirp.api_path().unwrap().exists(), "the socket's file goes first");
    container.sh("while ip link show tap0; do sleep 0.01; done").unwrap();
    assert!(slirp.process.ended().unwrap().is_none(), "there is something to deliver");
    assert_eq!(told(&mut sink), format!("{UPLOAD} end"));
    assert_eq!(slirp.process.finish(LIMIT).unwrap().expect("it ends").code(), 0);
}

#[test]
fn a_signal_ends_slirp4netns_at_once_and_a_part_is_not_taken_for_the_whole() {
    let (lab, _) =
        lab!(ours "a_signal_ends_slirp4netns_at_once_and_a_part_is_not_taken_for_the_whole", ["ss"]);
    assert!(is_soon(|| {
        let (container, mut sink) = (lab.container().unwrap(), slow_sink(&lab));
        let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
        upload(&lab, &container, UPLOAD);
        let start = now();
        slirp.process.signal(Signal::SIGTERM);
        slirp.process.finish(LIMIT).unwrap().expect("it ends");
        let took = start.elapsed();
        assert!(told(&mut sink).ends_with(" reset"));
        took
    }));
}

#[test]
fn what_is_complete_at_the_end_stays_complete() {
    let (lab, _) = lab!(ours "what_is_complete_at_the_end_stays_complete", ["ss"]);
    let (container, mut sink) = (lab.container().unwrap(), slow_sink(&lab));
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    upload(&lab, &container, 1000);
    slirp.process.signal(Signal::SIGTERM);
    slirp.process.finish(LIMIT).unwrap().expect("it ends");
    assert_eq!(told(&mut sink), "1000 end");
}

/// A connection that the guest has not closed when `end` comes is reset, by whatever process is left.
fn open_connection(lab: &Lab, end: impl FnOnce(&Container, &mut slipway_lab::Slirp)) {
    let (container, mut sink) = (lab.container().unwrap(), slow_sink(lab));
    let mut slirp = lab.slirp(&container, &["-c"]).unwrap();
    let hold: Cmd = container.cmd(send(lab, 1000)).arg("hold");
    let mut sender = hold.start().unwrap();
    sender.until(LIMIT, |sender| sender.stdout().contains("sent")).unwrap();
    // The receiver is the one to tell that all has arrived.
    let arrived = format!(
        "for i in $(seq 500); do ss -Htn sport = :{PORT} | grep -q 'ESTAB *1000 ' && exit; sleep 0.01; done"
    );
    lab.world(["sh", "-c", &arrived]).run(LIMIT).unwrap();
    end(&container, &mut slirp);
    assert_eq!(told(&mut sink), "1000 reset");
}

#[test]
fn what_the_guest_has_not_closed_is_reset_at_the_end() {
    let (lab, _) = lab!(ours "what_the_guest_has_not_closed_is_reset_at_the_end", ["ss"]);
    open_connection(&lab, |_, slirp| {
        slirp.process.stdin.take();
        slirp.process.finish(LIMIT).unwrap().expect("it ends");
    });
}

#[test]
fn an_interface_that_vanishes_resets_its_connections() {
    let (lab, _) = lab!(ours "an_interface_that_vanishes_resets_its_connections", ["ss"]);
    open_connection(&lab, |container, slirp| {
        assert!(container.sh("ip link delete tap0").unwrap().success());
        slirp.process.until(LIMIT, |slirp| slirp.stderr().contains("do_slirp: read:")).unwrap();
        assert!(slirp.process.ended().unwrap().is_none(), "it lives on");
    });
}
