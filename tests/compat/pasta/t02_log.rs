//! The log: what a file has that was asked for.

use super::ours;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Whoever starts a machine shows the file when it did not start.
#[test]
fn the_file_has_the_last_word() {
    let Some(program) = ours("the_file_has_the_last_word") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut command = Command::new(&program);
    command.arg0("pasta").args(["--log-file"]).arg(&path).args(["--netns", "/nosuch/namespace"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let head = text.lines().next().unwrap();
    let exe = program.canonicalize().unwrap();
    assert!(head.starts_with("pasta 2026_10_02.slipway-"), "{head}");
    assert!(head.contains(&format!(": {} (", exe.display())), "{head}");
    let (last, word) = (text.lines().last().unwrap(), said.lines().last().unwrap());
    assert!(word.contains("/nosuch/namespace"), "{said}");
    assert!(last.ends_with(&format!(" error: {word}")), "{text}");
}

/// In the foreground, and where it is asked for before.
#[test]
fn counters_are_shown_while_it_runs() {
    let test = "counters_are_shown_while_it_runs";
    let Some(program) = ours(test) else { return };
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        println!("SKIP {test}: /dev/net/tun: {error}");
        return;
    }
    let host = "exec -a pasta \"$0\" -f --stats 1 --config-net -t none -u none -T none -U none -- sleep 3";
    let mut command = Command::new("timeout");
    command.args(["30", "unshare", "-Urn", "bash", "-c", host]).arg(&program);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // Whatever the guest sends first: its link comes up.
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().any(|line| line.starts_with("frames ")), "{said}");
}
