//! `slipway run`: what it keeps of its privileges while a command runs, what the command keeps, and what remains of it
//! when the command has deleted its interface.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the verdict")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A field of /proc/PID/status.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(name)).expect("a field of every Linux");
    line.split_once(':').expect("name and value").1.trim().to_owned()
}

/// `slipway run` of a script, and the first line that the script printed; nothing where the machine cannot.
fn start(test: &str, options: &[&str], script: &str) -> Option<(Child, String)> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_slipway"))
        .arg("run")
        .args(options)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let output = child.wait_with_output().unwrap();
        println!("SKIP {test}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        return None;
    }
    Some((child, line.trim_end().to_owned()))
}

#[test]
fn the_program_gives_up_what_it_does_not_need() {
    let Some((mut child, _)) =
        start("the_program_gives_up_what_it_does_not_need", &[], "echo up; exec sleep 20")
    else {
        return;
    };
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(field(&status, "Seccomp:"), "2", "a filter is on");
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    const NET_BIND_SERVICE: u64 = 1 << 10;
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        let held = u64::from_str_radix(&field(&status, set), 16).unwrap();
        assert_eq!(held & !NET_BIND_SERVICE, 0, "{set}");
    }
    assert_eq!(field(&status, "Threads:"), "1");
}

#[test]
fn the_command_keeps_what_it_had() {
    let script = "grep -E '^(Seccomp|NoNewPrivs|SigBlk):' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    let own = Command::new("sh").args(["-c", script]).output().unwrap();
    let Some((mut child, line)) = start("the_command_keeps_what_it_had", &[], script) else { return };
    child.wait().unwrap();
    assert_eq!(line.trim(), String::from_utf8_lossy(&own.stdout).trim());
}

#[test]
fn a_command_that_deletes_its_interface_keeps_its_signals_and_status() {
    let name = "a_command_that_deletes_its_interface_keeps_its_signals_and_status";
    let script = "trap 'exit 9' TERM; ip link delete tap0 && echo deleted; while :; do sleep 0.05; done";
    let Some((mut child, line)) = start(name, &["-r"], script) else { return };
    assert_eq!(line, "deleted");
    // Time for the program to notice.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}
