//! The process: command line, start, readiness, end.

use crate::client::{A, AAAA, Client};
use crate::stage::{Daemon, PORT, Stage, eventually, program, stderr};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output};
use std::time::Duration;

const NETWORK: &str = "127.0.1.1\naaa 127.0.1.10  web\n";

fn run(words: &[&str]) -> Output {
    Command::new(program()).args(words).env_clear().output().unwrap()
}

#[test]
fn texts_and_exit_codes() {
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert!(version.stdout.starts_with(b"aardvark-dns 2.0.0+slipway."));
    assert_eq!(run(&["-V"]).stdout, version.stdout);
    let long = run(&["version"]);
    assert!(long.status.success() && long.stdout.starts_with(b"{\n  \"version\": \""));
    let help = run(&["--help"]);
    assert!(
        help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--filter-search-domain")
    );
    for words in [&[][..], &["start"], &["--bogus", "run"]] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(stderr(&output).starts_with("error: "), "{words:?}");
    }
    let complaint = Command::new(program()).arg("-V").env("RUST_LOG", "a=b").output().unwrap();
    assert!(complaint.status.success());
    assert!(stderr(&complaint).starts_with("failed to parse RUST_LOG level: "));
}

#[test]
fn the_default_configuration_is_not_usable() {
    let output = run(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("Error creating aardvark pid /dev/stdin/aardvark.pid: "), "{text}");
    assert!(text.ends_with("\nError from child process\n"), "{text}");
}

#[test]
fn ready_means_ready_and_nothing_is_held() {
    let Some(stage) = Stage::enter("ready_means_ready_and_nothing_is_held") else { return };
    stage.network("a", NETWORK);
    let marker = stage.dir().join("marker");
    let script = format!("exec 9>'{}'; exec \"$@\"", marker.display());
    let mut through_shell = Command::new("sh");
    through_shell.args(["-c", &script, "sh"]).arg(program()).arg("--config").arg(stage.config());
    // `output` returns at the end of standard error, not before.
    let output = through_shell.args(["-p", &PORT.to_string(), "run"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((output.stdout.as_slice(), stderr(&output).as_str()), (&b""[..], ""));
    let daemon = stage.daemon();
    assert_eq!(Client::new("127.0.1.10", "127.0.1.1").ask("web", A).count(), 1);

    let words = fs::read(daemon.proc("cmdline")).unwrap();
    let words: Vec<String> =
        words.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let config = stage.config().to_str().unwrap().to_owned();
    assert_eq!(words[1..], ["--config", &config, "-p", &PORT.to_string(), "run", ""]);

    let mut names = Vec::new();
    for entry in fs::read_dir(daemon.proc("fd")).unwrap() {
        names.push(fs::read_link(entry.unwrap().path()).unwrap().display().to_string());
    }
    assert_eq!(names.iter().filter(|name| *name == "/dev/null").count(), 3, "{names:?}");
    assert!(!names.iter().any(|name| name.contains("marker") || name.contains("pipe:")), "{names:?}");
    let stat = fs::read_to_string(daemon.proc("stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, fs::read_to_string(stage.pid_file()).unwrap(), "a session of its own");
}

/// What a failed start says.
fn failed_start(stage: &Stage) -> String {
    let output = stage.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.ends_with("Error from child process\n"), "{text}");
    text
}

#[test]
fn an_address_under_detection_is_waited_for() {
    let Some(stage) = Stage::enter_with_ipv6("an_address_under_detection_is_waited_for") else { return };
    stage.network("a", "fd89:7::1\naaa  fd89:7::2 web\n");
    let script = "ip link add near type veth peer name far && ip link set near up && ip link set far up &&
        ip address add fd89:7::2/64 dev near nodad && ip address add fd89:7::1/64 dev near";
    assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
    let _daemon = stage.start(&[]);
    assert_eq!(Client::new("fd89:7::2", "fd89:7::1").ask("web", AAAA).count(), 1);
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let Some(stage) = Stage::enter_with_ipv6("what_keeps_it_from_starting_is_said") else { return };
    assert_eq!(failed_start(&stage), "Error from child process\n", "an empty configuration");
    assert!(!stage.pid_file().exists());

    stage.network("a", NETWORK);
    let udp = UdpSocket::bind(("127.0.1.1", PORT)).unwrap();
    let text = failed_start(&stage);
    let expected = format!(
        "Error starting server failed to bind udp listener on 127.0.1.1:{PORT}: IO error: Address already in use (os error 98)\n"
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(stage.pid_file().exists(), "as the original leaves it");
    drop(udp);

    let tcp = TcpListener::bind(("127.0.1.1", PORT)).unwrap();
    stage.network("b", "203.0.113.1,2001:db8::1\n");
    let text = failed_start(&stage);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    for (line, start) in [
        (
            lines[0],
            format!("Error starting server failed to bind tcp listener on 127.0.1.1:{PORT}: IO error: "),
        ),
        (lines[1], format!("failed to bind udp listener on 203.0.113.1:{PORT}: IO error: Cannot assign ")),
        (lines[2], format!("failed to bind udp listener on [2001:db8::1]:{PORT}: IO error: Cannot assign ")),
    ] {
        assert!(line.starts_with(&start), "{line}");
    }
    drop(tcp);
    stage.remove("b");

    fs::remove_file("/etc/resolv.conf").unwrap();
    let text = failed_start(&stage);
    assert!(
        text.starts_with(
            "Error starting server failed to get upstream nameservers, dns forwarding will not work: \
             open resolv.conf: IO error: No such file or directory (os error 2)\n"
        ),
        "{text}"
    );
}

#[test]
fn the_last_network_takes_the_server_with_it() {
    let Some(stage) = Stage::enter("the_last_network_takes_the_server_with_it") else { return };
    stage.network("a", NETWORK);
    let daemon = stage.start(&[]);
    stage.remove("a");
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.ends_within(Duration::from_secs(5)));
    assert!(!stage.pid_file().exists());

    stage.network("a", NETWORK);
    let daemon = stage.start(&[]);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ends_within(Duration::from_secs(5)));
    assert!(stage.pid_file().exists(), "only the orderly end removes it");
}

#[test]
fn a_hangup_reloads_even_under_nohup() {
    let Some(stage) = Stage::enter("a_hangup_reloads_even_under_nohup") else { return };
    stage.network("a", NETWORK);
    let mut nohup = Command::new("sh");
    nohup
        .args(["-c", "trap '' HUP USR1; exec \"$@\"", "sh"])
        .arg(program())
        .arg("--config")
        .arg(stage.config());
    assert!(nohup.args(["-p", &PORT.to_string(), "run"]).status().unwrap().success());
    let daemon: Daemon = stage.daemon();
    stage.network("a", "127.0.1.1\naaa 127.0.1.10  web,fresh\n");
    daemon.signal(Signal::SIGHUP);
    let client = Client::new("127.0.1.10", "127.0.1.1");
    assert!(eventually(Duration::from_secs(5), || client.ask("fresh.dns.podman", A).count() == 1));
}

#[test]
fn counters_that_do_not_fit_leave_nothing_behind() {
    let Some(stage) = Stage::enter("counters_that_do_not_fit_leave_nothing_behind") else { return };
    stage.network("a", "127.0.1.1\n");
    let disk = stage.dir().join("disk");
    fs::create_dir(&disk).unwrap();
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=4k")).unwrap();
    fs::write(disk.join("full"), [0; 4096]).unwrap();
    let log = stage.log();
    let daemon = stage.start(&["--stats", disk.join("stats").to_str().unwrap()]);
    daemon.signal(Signal::SIGUSR1);
    let line = log.line(Duration::from_secs(5)).unwrap();
    assert!(line.contains("No space left on device"), "{line}");
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 1);
    fs::remove_file(disk.join("full")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    assert!(eventually(Duration::from_secs(5), || disk.join("stats").exists()));
}
