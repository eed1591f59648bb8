//! `gvforwarder`: its words. The original is not packaged, so ours is on its own. What it does is in the end-to-end
//! tests.

use super::lines;
use slipway_lab::{Cmd, LIMIT, built};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

/// The program, or a word about its absence.
fn program(test: &str) -> Option<PathBuf> {
    let found = built("SLIPWAY_GVPROXY_BINARY", "slipway-gvproxy");
    found.map_err(|reason| println!("SKIP {test}: {reason}")).ok()
}

fn answer(program: &PathBuf, name: &str, words: &[&str]) -> Output {
    Command::new(program).arg0(name).args(words).output().unwrap()
}

#[test]
fn it_answers_to_both_of_its_names() {
    let Some(program) = program("it_answers_to_both_of_its_names") else { return };
    for name in ["gvforwarder", "/usr/libexec/podman/gvforwarder", "vm"] {
        let output = answer(&program, name, &["-version"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("gvforwarder version v0.8.") && output.status.success(), "{said}");
        let output = answer(&program, name, &["-nosuch"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("flag provided but not defined: -nosuch\nUsage of {name}:\n");
        assert!(said.starts_with(&expected) && output.status.code() == Some(2), "{said}");
        for flag in [
            "-debug\n",
            "-iface string\n",
            "-mac string\n",
            "-mtu int\n",
            "-preexisting\n",
            "-stop-if-exist string\n",
            "-url string\n",
            "-version\n",
        ] {
            assert!(said.contains(&format!("  {flag}")), "{flag}: {said}");
        }
        assert!(said.contains("(default \"vsock://2:1024/connect\")"), "{said}");
        assert!(said.contains("(default 4000)"), "{said}");
    }
    let output = answer(&program, "gvproxy", &["-version"]);
    assert!(output.stdout.starts_with(b"gvproxy version "));
}

#[test]
fn an_interface_of_that_name_keeps_it_from_running() {
    let Some(program) = program("an_interface_of_that_name_keeps_it_from_running") else { return };
    let output = answer(&program, "gvforwarder", &["-stop-if-exist", "nosuch,lo", "-url", "nonsense"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(lines(&output.stderr), ["info msg=\"interface lo prevented this program to run\""]);
}

#[test]
fn an_address_that_is_none_is_told_and_tried_again() {
    let Some(program) = program("an_address_that_is_none_is_told_and_tried_again") else { return };
    for (url, why) in [
        ("tcp://192.0.2.1:1024", "unexpected scheme"),
        ("vsock://host:1024", "strconv.Atoi: parsing \\\"host\\\": invalid syntax"),
        ("unix:///nonexistent/api", "dial unix /nonexistent/api: connect: no such file or directory"),
        ("stdio:/nonexistent", "fork/exec /nonexistent: no such file or directory"),
    ] {
        let name = tempfile::tempdir().unwrap();
        let link = name.path().join("gvforwarder");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let line = Cmd::new([link.as_os_str()]).args(["-stop-if-exist", "", "-url", url]);
        let mut running = line.start().unwrap();
        let said = format!("error msg=\"cannot connect to host: {why}\"");
        let twice = running.until(LIMIT, |running| running.stderr().matches(&said).count() == 2);
        twice.unwrap();
        assert!(
            running.stderr().contains(&format!("info msg=\"Dialing to {url}…\"")),
            "{}",
            running.stderr()
        );
        running.signal(nix::sys::signal::Signal::SIGINT);
        assert_eq!(running.finish(LIMIT).unwrap().expect("it ends").code(), 0);
    }
}
