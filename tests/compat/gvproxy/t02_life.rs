//! Life: files and sockets that come and go, who ends the process, and what it says.

use super::life::{Life, mode, until};
use super::{Subject, lines};
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A port of the loopback that nobody has just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

const QEMU: [&str; 2] = ["-listen-qemu", "unix://@/qemu"];
const NO_SSH: [&str; 2] = ["-ssh-port", "-1"];

#[test]
fn files_and_sockets_come_and_go_with_it() {
    let Some(subjects) = Subject::both("files_and_sockets_come_and_go_with_it") else { return };
    for subject in &subjects {
        let port = free_port();
        let ssh = ["-ssh-port".to_owned(), port.to_string()];
        let words: Vec<&str> = [&["-listen", "unix://@/api", "-pid-file", "@/pid"][..], &QEMU].concat();
        let words: Vec<&str> = words.into_iter().chain(ssh.iter().map(String::as_str)).collect();
        let mut life = Life::start(subject, &words);
        assert_eq!(life.files(), ["api", "log", "pid", "qemu"]);
        // Digits and nothing else: Podman's reader takes a newline for one.
        let pid = std::fs::read_to_string(life.at("pid")).unwrap();
        assert_eq!(pid, life.child.id().to_string());
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if subject.is_ours() {
            assert_eq!((mode(&life.at("api")), mode(&life.at("qemu"))), (0o600, 0o600));
        }
        life.tell(Signal::SIGTERM);
        // The original waits for a guest that never came.
        if !subject.is_ours() {
            continue;
        }
        assert_eq!(life.ended(), Some(0));
        assert!(until(|| life.files() == ["log"]), "{:?}", life.files());
        let said = life.said();
        assert!(said[0].starts_with("info msg=\"gvproxy version v0.8."), "{said:?}");
        let rest = [
            "info msg=\"waiting for clients...\"",
            "info msg=\"listening unix://@/api\"",
            "error msg=\"gvproxy exiting: signal caught\"",
        ];
        assert_eq!(said[1..], rest, "{said:?}");
    }
}

#[test]
fn a_signal_ends_it_whatever_is_attached() {
    let Some(ours) = Subject::ours("a_signal_ends_it_whatever_is_attached") else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut life = Life::start(&ours, &[&QEMU[..], &NO_SSH, &["-stay"]].concat());
        // One that is silent, and one in the middle of a frame.
        let (_silent, mut half) = (life.guest(), life.guest());
        half.write_all(&[0, 0, 5, 0, 1, 2, 3]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        life.tell(signal);
        assert_eq!(life.ended(), Some(0));
        assert!(life.said().contains(&"error msg=\"gvproxy exiting: signal caught\"".to_owned()));
        assert!(!life.at("qemu").exists());
    }
}

#[test]
fn the_last_guest_takes_it_along() {
    let Some(subjects) = Subject::both("the_last_guest_takes_it_along") else { return };
    for subject in &subjects {
        let mut life = Life::start(subject, &[&QEMU[..], &NO_SSH, &["-pid-file", "@/pid"]].concat());
        drop(life.guest());
        assert_eq!(life.ended(), Some(0));
        assert!(until(|| life.files() == ["log"]), "{:?}", life.files());
        let said = life.said();
        // Older ones said it in two lines.
        let why = "cannot receive packets from @, disconnecting: cannot read size from socket: EOF";
        let exits = format!("error msg=\"gvproxy exiting: {why}\"");
        let both = [
            format!("error msg=\"{why}\""),
            "error msg=\"gvproxy exiting: cannot read size from socket: EOF\"".into(),
        ];
        let last = said.last().cloned().unwrap_or_default();
        assert!(last == exits || (!subject.is_ours() && said.ends_with(&both)), "{said:?}");
    }
}

#[test]
fn it_stays_for_the_next_guest_when_told_to() {
    let Some(ours) = Subject::ours("it_stays_for_the_next_guest_when_told_to") else { return };
    let mut life = Life::start(&ours, &[&QEMU[..], &NO_SSH, &["-stay"]].concat());
    for _ in 0..3 {
        drop(life.guest());
    }
    // A guest whose frames make no sense harms itself alone.
    let mut hostile = life.guest();
    hostile.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert!(matches!(hostile.read(&mut [0; 1]), Ok(0) | Err(_)), "its link has ended");
    std::thread::sleep(Duration::from_millis(100));
    assert!(life.child.try_wait().unwrap().is_none(), "{:?}", life.said());
    life.tell(Signal::SIGTERM);
    assert_eq!(life.ended(), Some(0));
}

#[test]
fn a_path_that_is_taken_is_told_and_somebody_elses_file_stays() {
    let Some(ours) = Subject::ours("a_path_that_is_taken_is_told") else { return };
    let mut life = Life::start(&ours, &[&QEMU[..], &NO_SSH, &["-stay"]].concat());
    let address = format!("unix://{}", life.at("qemu").display());
    let output = ours.cmd().args(["-ssh-port", "-1", "-listen-qemu", &address]).output().unwrap();
    let said = lines(&output.stderr).pop().unwrap();
    assert!(said.ends_with("/qemu\\\" already exists\"") && output.status.code() == Some(1), "{said}");
    // Ours now, theirs later.
    std::fs::remove_file(life.at("qemu")).unwrap();
    std::fs::write(life.at("qemu"), "somebody's").unwrap();
    life.tell(Signal::SIGTERM);
    assert_eq!(life.ended(), Some(0));
    assert_eq!(std::fs::read_to_string(life.at("qemu")).unwrap(), "somebody's");
}

#[test]
fn a_port_that_is_taken_is_told_as_by_the_original() {
    let Some(subjects) = Subject::both("a_port_that_is_taken_is_told_as_by_the_original") else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for subject in &subjects {
        let output = subject.cmd().args(["-ssh-port", &port.to_string()]).output().unwrap();
        let said = format!(
            "error msg=\"gvproxy exiting: cannot add network services: listen tcp 127.0.0.1:{port}: bind: address already in use\""
        );
        assert_eq!((lines(&output.stderr).pop().unwrap(), output.status.code()), (said, Some(0)));
    }
}

/// What the original of Debian words alike but for the level: what fails after the start, exit code 0.
#[test]
fn what_fails_after_the_start_is_told_as_by_the_original() {
    let Some(subjects) = Subject::both("what_fails_after_the_start_is_told_as_by_the_original") else {
        return;
    };
    let cases: [(&[&str], &str); 7] = [
        (
            &["-listen", "unix:///no/x"],
            "error msg=\"gvproxy exiting: cannot listen: listen unix /no/x: bind: no such file or directory\"",
        ),
        (&["-listen", "foo:///x"], "error msg=\"gvproxy exiting: cannot listen: unexpected scheme\""),
        (
            &["-listen", "tcp://127.0.0.1"],
            "error msg=\"gvproxy exiting: cannot listen: listen tcp: address 127.0.0.1: missing port in address\"",
        ),
        (
            &["-listen-qemu", "foo:///x"],
            "error msg=\"gvproxy exiting: qemu listen error: unexpected scheme\"",
        ),
        (
            &["-listen-qemu", "unix:///no/x"],
            "error msg=\"gvproxy exiting: qemu listen error: listen unix /no/x: bind: no such file or directory\"",
        ),
        (
            &["-listen-bess", "unixpacket:///no/x"],
            "error msg=\"gvproxy exiting: bess listen error: listen unixpacket /no/x: bind: no such file or directory\"",
        ),
        (&["-pid-file", "/no/x"], "error msg=\"open /no/x: no such file or directory\""),
    ];
    for subject in &subjects {
        for (line, said) in cases {
            let output = subject.cmd().args(["-ssh-port", "-1"]).args(line).output().unwrap();
            let last = lines(&output.stderr).pop().unwrap_or_default();
            assert_eq!(last, said, "{line:?}");
            // Of the PID file 0.8.1 made more.
            let code = if !subject.is_ours() && line.contains(&"-pid-file") { 1 } else { 0 };
            assert_eq!(output.status.code(), Some(code), "{line:?}");
        }
    }
}

#[test]
fn the_process_with_the_packets_is_shut_in() {
    let Some(ours) = Subject::ours("the_process_with_the_packets_is_shut_in") else { return };
    let life = Life::start(&ours, &[&QEMU[..], &NO_SSH].concat());
    let status = || std::fs::read_to_string(format!("/proc/{}/status", life.child.id())).unwrap();
    // The socket is there a moment before.
    assert!(until(|| status().contains("\nSeccomp:\t2\n")), "{}", status());
    // Low ports may be asked for at any time; an ordinary user has not even that.
    let few = ["CapEff:\t0000000000000400", "CapEff:\t0000000000000000"];
    for lines in [&["NoNewPrivs:\t1"][..], &["Threads:\t1"], &few] {
        assert!(status().lines().any(|found| lines.contains(&found)), "{lines:?}: {}", status());
    }
}

/// The command lines of `podman machine` and of macadam, but for those that need SSH or another system, and what they
/// wait for.
#[test]
fn launchers_find_what_they_wait_for() {
    let test = "launchers_find_what_they_wait_for";
    let Some(ours) = Subject::ours(test) else { return };
    let port = free_port().to_string();
    let common = ["-mtu", "1500", "-ssh-port", &port, "-pid-file", "@/pid", "-log-file", "@/said"];
    let all: [(&[&str], &str); 4] = [
        (&["-listen-qemu", "unix://@/qemu"], "qemu"),
        (&["-listen-vfkit", "unixgram://@/vfkit"], "vfkit"),
        (&["-services", "unix://@/services", "-listen-vfkit", "unixgram://@/vfkit"], "services"),
        // For a guest of Hyper-V: the same transport, another spelling.
        (&["-debug", "-listen", "vsock://:40177"], "pid"),
    ];
    for (line, file) in all {
        let mut life = Life::begin(&ours, &[line, &common].concat());
        let said = || std::fs::read_to_string(life.at("said")).unwrap_or_default();
        let port: u16 = port.parse().unwrap();
        let answers = || life.at(file).exists() && TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(until(|| answers() || said().contains("exiting")), "{line:?}: {}", said());
        if said().contains("address family not supported") {
            println!("SKIP {test}: no vsock on this machine");
            continue;
        }
        life.tell(Signal::SIGTERM);
        assert_eq!(life.ended(), Some(0), "{line:?}");
        assert!(until(|| life.files() == ["log", "said"]), "{line:?}: {:?}", life.files());
        let said = std::fs::read(life.at("said")).unwrap();
        assert!(lines(&said).last().unwrap().ends_with("gvproxy exiting: signal caught\""), "{line:?}");
    }
}
