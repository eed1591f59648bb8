//! The command line, the handshake with the starter, and the ways a start can fail.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use slipway_lab::Output;

use crate::message::A;
use crate::place::{GATEWAY, PODMAN1};
use crate::{LIMIT, daemon};

#[test]
fn version_as_its_caller_reads_it() {
    let daemon = daemon!("version_as_its_caller_reads_it");
    let program = daemon.binary.to_string_lossy().into_owned();
    let short = daemon.version();
    let number = short.trim_end().strip_prefix("aardvark-dns ").unwrap_or_default();
    // What follows a plus sign names the build.
    let core = number.split('+').next().unwrap_or_default();
    assert_eq!(core.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{short}");
    let long = daemon.machine.cmd([&program, "version"]).ok(LIMIT).unwrap().out();
    let long: serde_json::Value = serde_json::from_str(&long).unwrap();
    let keys: Vec<&str> = long.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["version", "commit", "build_time", "target"] {
        assert!(keys.contains(&key), "{long}");
    }
    assert_eq!(long["version"], number);
}

#[test]
fn it_serves_when_its_starter_ends() {
    let daemon = daemon!("it_serves_when_its_starter_ends");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    // No second try: readiness is the launcher's end.
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
}

#[test]
fn it_closes_its_standard_error_when_ready() {
    let daemon = daemon!("it_closes_its_standard_error_when_ready");
    daemon.network("podman1", PODMAN1);
    // Its starter reads standard error to the end, and would wait for ever.
    let mut child = Command::new("nsenter")
        .args([&format!("--target={}", daemon.machine.pid()), "--net", "--mount"])
        .arg(&daemon.binary)
        .arg("--config")
        .arg(daemon.config())
        .args(["-p", "53", "run"])
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = pipe.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    assert_eq!(receiver.recv_timeout(LIMIT).expect("an end of standard error"), "");
    assert!(child.wait().unwrap().success());
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
}

#[test]
fn pid_file_and_command_line_are_found_by_others() {
    let daemon = daemon!("pid_file_and_command_line_are_found_by_others");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    // Daemon::pid demands digits and nothing else.
    let line = std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    assert_eq!(words[0], daemon.binary.as_os_str().as_encoded_bytes());
    let config = daemon.config().to_string_lossy();
    let expected = [&b"--config"[..], config.as_bytes(), b"-p", b"53", b"run"];
    assert_eq!(words[1..6], expected);
}

#[test]
fn it_is_a_session_of_its_own_on_dev_null() {
    let daemon = daemon!("it_is_a_session_of_its_own_on_dev_null");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let pid = daemon.pid();
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(target.to_string_lossy(), "/dev/null");
    }
    let pid = nix::unistd::Pid::from_raw(pid);
    assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);
}

#[test]
fn no_descriptor_of_its_starter_is_kept() {
    let daemon = daemon!("no_descriptor_of_its_starter_is_kept");
    if daemon.version().starts_with("aardvark-dns 1.") {
        println!("SKIP no_descriptor_of_its_starter_is_kept: versions before 2 keep them");
        return;
    }
    daemon.network("podman1", PODMAN1);
    let marker = daemon.machine.dir().join("marker");
    let script = format!(
        "exec 9>{} 77>&9; exec '{}' --config {} -p 53 run",
        marker.display(),
        daemon.binary.display(),
        daemon.config().display()
    );
    daemon.machine.cmd(["bash", "-c", &script]).ok(LIMIT).unwrap();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        assert_ne!(target, marker, "{}", entry.path().display());
    }
}

#[test]
fn a_taken_port_is_named() {
    let daemon = daemon!("a_taken_port_is_named");
    daemon.network("podman1", PODMAN1);
    let udp = daemon.machine.within(|| std::net::UdpSocket::bind("0.0.0.0:53")).unwrap();
    let output = daemon.fails();
    let text = "failed to bind udp listener on 10.89.0.1:53: IO error: Address already in use (os error 98)";
    assert!(output.err().contains(text), "{output}");
    drop(udp);
    let _tcp = daemon.machine.within(|| std::net::TcpListener::bind("0.0.0.0:53")).unwrap();
    let output = daemon.fails();
    let text = "failed to bind tcp listener on 10.89.0.1:53: IO error: Address already in use (os error 98)";
    assert!(output.err().contains(text), "{output}");
    assert!(output.err().contains("Error from child process"), "{output}");
}

#[test]
fn a_missing_address_is_named() {
    let daemon = daemon!("a_missing_address_is_named");
    daemon.network("podman1", "203.0.113.1\nida 203.0.113.2  one\n");
    let output = daemon.fails();
    let text = "failed to bind udp listener on 203.0.113.1:53: IO error: Cannot assign requested address (os error 99)";
    assert!(output.err().contains(text), "{output}");
}

#[test]
fn nothing_to_serve_is_a_failed_start() {
    let daemon = daemon!("nothing_to_serve_is_a_failed_start");
    let output = daemon.fails();
    assert!(output.err().contains("Error from child process"), "{output}");
    assert!(!daemon.pid_file().exists());
}

#[test]
fn a_config_directory_that_is_none_fails() {
    let daemon = daemon!("a_config_directory_that_is_none_fails");
    let program = daemon.binary.to_string_lossy();
    let run = |config: &str| -> Output {
        let words = [&*program, "--config", config, "-p", "53", "run"];
        daemon.machine.cmd(words).run(LIMIT).unwrap()
    };
    let file = daemon.machine.dir().join("file");
    std::fs::write(&file, "").unwrap();
    for config in ["/nowhere/at/all", &*file.to_string_lossy()] {
        let output = run(config);
        assert_eq!(output.code(), 1, "{output}");
        assert!(!output.err().is_empty());
    }
}

#[test]
fn resolv_conf_must_be_readable_at_the_start() {
    let daemon = daemon!("resolv_conf_must_be_readable_at_the_start");
    daemon.network("podman1", PODMAN1);
    let nested = |script: &str| -> Output {
        let run = format!(
            "mount -t tmpfs none /etc; {script}; exec '{}' --config {} -p 53 run",
            daemon.binary.display(),
            daemon.config().display()
        );
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &run];
        daemon.machine.cmd(words).run(LIMIT).unwrap()
    };
    let output = nested(":");
    assert_eq!(output.code(), 1, "{output}");
    let text = "failed to get upstream nameservers, dns forwarding will not work: open resolv.conf: IO error: \
                No such file or directory (os error 2)";
    assert!(output.err().contains(text), "{output}");
    let output = nested("echo nameserver not-an-address > /etc/resolv.conf");
    if daemon.is_ours() {
        // Passed over, as the C library does: containers have their names all the same.
        assert!(output.success(), "{output}");
        assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "two", A).addresses(), ["10.89.0.3"]);
        return;
    }
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.err().contains("failed to get upstream nameservers"), "{output}");
}

#[test]
fn a_strange_log_level_is_told_and_passed_over() {
    let daemon = daemon!("a_strange_log_level_is_told_and_passed_over");
    daemon.network("podman1", PODMAN1);
    let output = daemon.cmd().env("RUST_LOG", "netavark=debug").run(LIMIT).unwrap();
    assert!(output.success(), "{output}");
    assert!(output.all().contains("failed to parse RUST_LOG level"), "{output}");
}

#[test]
fn a_second_start_fails_and_the_first_goes_on() {
    let daemon = daemon!("a_second_start_fails_and_the_first_goes_on");
    daemon.network("podman1", PODMAN1);
    daemon.start();
    let first = daemon.pid();
    assert!(daemon.fails().err().contains("Address already in use"));
    assert_eq!(daemon.ask("10.89.0.2", GATEWAY, "one", A).addresses(), ["10.89.0.2"]);
    // The pid file was written before the bind failed; put it back for the one who ends the daemon.
    std::fs::write(daemon.pid_file(), first.to_string()).unwrap();
}

#[test]
fn other_ports_and_the_short_options() {
    let daemon = daemon!("other_ports_and_the_short_options");
    daemon.network("podman1", PODMAN1);
    let program = daemon.binary.to_string_lossy();
    let config = daemon.config().to_string_lossy();
    let words = [&*program, "-c", &config, "-p", "1153", "-f", ".lab.test", "run"];
    daemon.machine.cmd(words).ok(LIMIT).unwrap();
    let client = daemon.client("10.89.0.3");
    client.socket.send_to(&crate::message::query(1, "one.lab.test", A), (GATEWAY, 1153)).unwrap();
    let reply = client.receive(LIMIT).expect("a reply");
    assert_eq!(reply.addresses(), ["10.89.0.2"]);
}
