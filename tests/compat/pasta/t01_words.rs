//! Words: what is said about a command line, on which stream, and with which exit code.
//!
//! The same lines go to the original, and both answers have to be the same; so a text is compared, not remembered. Each
//! line ends before anything is made.

use super::{Original, ours};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What the original says of the machine, whatever the line.
const MACHINE: [&str; 4] =
    ["Can't run AVX2 build", "No interfaces with usable", "Started as root", "Couldn't get any nameserver"];

fn answer(command: &mut Command, line: &[&str]) -> Output {
    command.args(line).stdin(Stdio::null()).output().unwrap()
}

fn by_us(program: &Path, name: &str, line: &[&str]) -> Output {
    answer(Command::new(program).arg0(name), line)
}

fn by_the_original(original: &Original, name: &str, line: &[&str]) -> Output {
    let words = original.words(name);
    let (loader, rest) = words.split_first().unwrap();
    answer(Command::new(loader).args(rest), line)
}

/// What was said on standard error of the line; the usage text is everybody's own.
fn complaint(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text.lines().filter(|line| !MACHINE.iter().any(|words| line.starts_with(words)));
    let lines = lines.filter(|line| !line.ends_with("use local mode"));
    lines.take_while(|line| !line.starts_with("Usage:")).map(str::to_owned).collect()
}

const LINES: &[(&str, &[&str])] = &[
    ("pasta", &["--bogus"]),
    ("pasta", &["--map-guest-addrs", "169.254.1.2"]),
    ("pasta", &["-Z"]),
    ("pasta", &["--mtu"]),
    ("pasta", &["-m"]),
    ("pasta", &["--no-d"]),
    ("pasta", &["--config-net=1"]),
    ("pasta", &["--bogus", "--help"]),
    ("passt", &["--print-capabilities=1"]),
    ("pasta", &["--mtu=99999"]),
    ("pasta", &["--mtu=x"]),
    ("pasta", &["-a", "127.0.0.1"]),
    ("pasta", &["-a", "1.2.3.4/33"]),
    ("pasta", &["-a", "1.2.3.4/24", "-n", "24"]),
    ("pasta", &["-n", "255.0.255.0"]),
    ("pasta", &["-M", "x"]),
    ("pasta", &["-g", "0.0.0.0"]),
    ("pasta", &["-i", "nosuch0"]),
    ("pasta", &["-o", "x"]),
    ("pasta", &["--outbound-if4", "aaaaaaaaaaaaaaaa"]),
    ("pasta", &["-D", "x"]),
    ("pasta", &["-S", ""]),
    ("pasta", &["--dns-forward", "127.0.0.1"]),
    ("pasta", &["--dns-host", "x"]),
    ("pasta", &["--map-host-loopback", "127.0.0.1"]),
    ("pasta", &["--map-guest-addr", "x"]),
    ("pasta", &["--runas", "nosuch-user"]),
    ("pasta", &["--log-size", "40959"]),
    ("pasta", &["-F", "x"]),
    ("pasta", &["--fd", "77", "true"]),
    ("passt", &["--fd", "77"]),
    ("pasta", &["-l", "/nosuch/x"]),
    ("pasta", &["-P", ""]),
    ("pasta", &["-c", ""]),
    ("pasta", &["--stats", "1"]),
    ("pasta", &["-s", "x"]),
    ("pasta", &["-1"]),
    ("pasta", &["--repair-path", "x"]),
    ("pasta", &["--migrate-exit"]),
    ("pasta", &["--no-dhcp-dns"]),
    ("passt", &["--dhcp-dns"]),
    ("passt", &["-I", "x"]),
    ("passt", &["--netns", "x"]),
    ("passt", &["-T", "1"]),
    ("passt", &["--no-pidns"]),
    ("passt", &["foo"]),
    ("pasta", &["--netns", "foo", "123"]),
    ("pasta", &["9999999999999"]),
    ("pasta", &["--no-pidns", "1"]),
    ("pasta", &["--no-copy-routes", "true"]),
    ("pasta", &["--host-lo-to-ns-lo", "--no-splice", "true"]),
    ("pasta", &["--splice-only", "--no-splice", "true"]),
    ("pasta", &["-t", "80", "-t", "none", "true"]),
    ("pasta", &["-t", "xx", "true"]),
    ("pasta", &["-t", "0", "true"]),
    ("pasta", &["-u", "80:0", "true"]),
    ("pasta", &["-T", "65536", "true"]),
    ("pasta", &["-t", "80-70", "true"]),
    ("pasta", &["-t", "80-81:80", "true"]),
    ("pasta", &["-t", "80-81:90-93", "true"]),
    ("pasta", &["-t", "%nosuch0/80-79", "true"]),
    ("pasta", &["-t", "80", "-t", "80", "true"]),
    ("pasta", &["-T", "1.2.3.4/80", "true"]),
    ("pasta", &["-4", "-t", "::1/80", "true"]),
    ("passt", &["-t", "auto"]),
];

#[test]
fn mistakes_are_told_as_by_the_original() {
    let test = "mistakes_are_told_as_by_the_original";
    let Some(program) = ours(test) else { return };
    let original = Original::find(test);
    for (name, line) in LINES {
        let here = by_us(&program, name, line);
        assert_eq!(here.status.code(), Some(1), "{name} {line:?}: {here:?}");
        assert!(here.stdout.is_empty() && !complaint(&here).is_empty(), "{name} {line:?}: {here:?}");
        let Some(there) = original.as_ref().map(|original| by_the_original(original, name, line)) else {
            continue;
        };
        assert_eq!(there.status.code(), Some(1), "{name} {line:?}: {there:?}");
        assert_eq!(complaint(&here), complaint(&there), "{name} {line:?}");
    }
}

#[test]
fn usage_follows_what_cannot_be_understood_and_nothing_else() {
    let Some(program) = ours("usage_follows_what_cannot_be_understood_and_nothing_else") else { return };
    let usage = |line: &[&str]| {
        let output = by_us(&program, "pasta", line);
        String::from_utf8(output.stderr).unwrap().contains("Usage: pasta [OPTION]...")
    };
    assert!(usage(&["--bogus"]) && usage(&["-m"]) && usage(&["--no-d"]));
    assert!(!usage(&["--mtu=x"]) && !usage(&["-t", "xx"]));
}

#[test]
fn what_was_asked_for_is_on_standard_output() {
    let test = "what_was_asked_for_is_on_standard_output";
    let Some(program) = ours(test) else { return };
    let original = Original::find(test);
    for (name, line, head) in [
        ("pasta", &["--help", "--bogus"][..], "Usage: pasta [OPTION]..."),
        ("passt", &["-h"], "Usage: passt [OPTION]..."),
        ("pasta", &["--version"], "pasta "),
        ("passt", &["--version"], "passt "),
        ("pasta", &["--host-lo-to-ns-lo", "--version"], "pasta "),
        ("pasta", &["-t", "none", "-t", "80", "--config-net", "--version"], "pasta "),
        ("pasta", &["--vhost-user", "--version"], "passt "),
    ] {
        let here = by_us(&program, name, line);
        let there = original.as_ref().map(|original| by_the_original(original, name, line));
        for output in [Some(&here), there.as_ref()].into_iter().flatten() {
            assert_eq!(output.status.code(), Some(0), "{name} {line:?}: {output:?}");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.starts_with(head), "{name} {line:?}: {text}");
        }
        assert!(here.stderr.is_empty(), "{name} {line:?}: {here:?}");
    }
    let here = by_us(&program, "passt", &["--vhost-user", "--print-capabilities"]);
    assert_eq!(String::from_utf8(here.stdout).unwrap(), "{\n  \"type\": \"net\"\n}\n");
}

/// RootlessKit asks so whether there is an option; Podman so what is too old for one.
#[test]
fn an_option_that_there_is_not_can_be_told() {
    let Some(program) = ours("an_option_that_there_is_not_can_be_told") else { return };
    let missing = by_us(&program, "/usr/bin/pasta", &["--no-such-option", "--version"]);
    assert_eq!(missing.status.code(), Some(1));
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(text.starts_with("/usr/bin/pasta: unrecognized option '--no-such-option'\n"), "{text}");
}

#[test]
fn any_name_with_the_word_in_it_will_do() {
    let Some(program) = ours("any_name_with_the_word_in_it_will_do") else { return };
    for (name, head) in [
        ("pasta.avx2", "pasta "),
        ("/opt/my-pasta-2", "pasta "),
        ("passt.old", "passt "),
        ("pesto", "pesto "),
    ] {
        let output = by_us(&program, name, &["--version"]);
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(head), "{name}");
    }
    for (word, head) in [("pasta", "pasta "), ("passt", "passt "), ("pesto", "pesto ")] {
        let output = by_us(&program, "slipway", &[word, "--version"]);
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(head), "slipway {word}");
    }
}
