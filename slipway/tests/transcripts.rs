//! What `slirp4netns` answers to every kind of mistake: stream by stream, with the exit code.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

struct Answer {
    code: i32,
    out: String,
    err: String,
}

fn call(name: &str, args: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_slipway"))
        .arg0(name)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn slirp(args: &[&str]) -> Answer {
    call("slirp4netns", args)
}

const USAGE: &str = "Usage: slirp4netns [OPTION]... PID|PATH|FD [TAPNAME]\n";

/// A mistake in the command line: the diagnostic on stderr, the usage text on stdout, 1.
fn usage_error(args: &[&str], diagnostic: &str) {
    let answer = slirp(args);
    assert_eq!(answer.code, 1, "{args:?}");
    assert!(
        answer.out.starts_with(USAGE) || answer.out.contains(&format!("\n{USAGE}")),
        "{args:?}: {}",
        answer.out
    );
    assert!(answer.out.contains("--disable-host-loopback"), "{args:?}");
    let expected = if diagnostic.is_empty() { String::new() } else { format!("{diagnostic}\n") };
    assert_eq!(answer.err, expected, "{args:?}");
}

/// A mistake in a value: the diagnostic on stderr, no usage text, 1.
fn value_error(args: &[&str], diagnostic: &str) {
    let answer = slirp(args);
    assert_eq!((answer.code, answer.err), (1, format!("{diagnostic}\n")), "{args:?}");
    assert!(!answer.out.contains("Usage"), "{args:?}");
}

#[test]
fn options_that_do_not_exist() {
    usage_error(&["--bogus"], "slirp4netns: unrecognized option '--bogus'");
    usage_error(&["--bogus=3"], "slirp4netns: unrecognized option '--bogus=3'");
    usage_error(&["-x"], "slirp4netns: invalid option -- 'x'");
    usage_error(&["-6x"], "slirp4netns: invalid option -- 'x'");
    usage_error(
        &["--enable-s"],
        "slirp4netns: option '--enable-s' is ambiguous; possibilities: '--enable-sandbox' '--enable-seccomp'",
    );
    usage_error(&["--configure=1"], "slirp4netns: option '--configure' doesn't allow an argument");
    usage_error(&["--mtu"], "slirp4netns: option '--mtu' requires an argument");
    usage_error(&["-m"], "slirp4netns: option requires an argument -- 'm'");
    usage_error(&["1", "tap0", "--bogus"], "slirp4netns: unrecognized option '--bogus'");
}

#[test]
fn values_that_do_not_do_while_parsing() {
    usage_error(&["-e", "x"], "exit-fd must be a non-negative integer");
    usage_error(&["--exit-fd=-1"], "exit-fd must be a non-negative integer");
    usage_error(&["-r", "3x"], "ready-fd must be a non-negative integer");
    for mtu in ["0", "65522", "x", ""] {
        usage_error(&["--mtu", mtu], "MTU must be a positive integer (< 65522)");
    }
    usage_error(&["--userns-path=/not/there"], "userns path doesn't exist: /not/there");
}

#[test]
fn combinations_that_do_not_go() {
    usage_error(
        &["--macaddress=2:0:0:0:0:1", "1", "tap0"],
        "--macaddr cannot be specified when --configure or -c is not specified",
    );
    usage_error(&["--target-type=x", "1", "tap0"], "--target-type must be either \"netns\" or \"bess\"");
    usage_error(&["--target-type=bess", "-c", "s"], "--configure conflicts with --target-type=bess");
    usage_error(
        &["--target-type=bess", "--netns-type=pid", "s"],
        "--netns-type conflicts with --target-type=bess",
    );
    usage_error(
        &["--target-type=bess", "--userns-path=/", "s"],
        "--userns-path conflicts with --target-type=bess",
    );
    usage_error(&["--target-type=bess", "s", "t"], "too many arguments");
    usage_error(&["--target-type=bess"], "");
}

#[test]
fn positionals_that_do_not_do() {
    for args in [&[][..], &["1"], &["--netns-type=path", "/"], &["--netns-type=tapfd"]] {
        usage_error(args, "");
    }
    usage_error(&["0", "tap0"], "PID must be a positive integer");
    usage_error(&["--", "-1", "tap0"], "PID must be a positive integer");
    usage_error(&["x", "tap0"], "PID must be a positive integer");
    usage_error(
        &["--netns-type=path", "/not/there", "tap0"],
        "existing path expected when --netns-type=path: No such file or directory",
    );
    usage_error(&["--netns-type=tapfd", "x"], "TAPFD must a file descriptor");
}

#[test]
fn values_that_do_not_do_after_parsing() {
    let cidr = |text| [format!("--cidr={text}"), "1".to_owned(), "tap0".to_owned()];
    for (text, diagnostic) in [
        ("24", "invalid CIDR: 24"),
        ("foo", "invalid CIDR: foo"),
        ("10.0.2.0", "invalid CIDR: 10.0.2.0"),
        ("10.0.2.0/24/24", "invalid CIDR: 10.0.2.0/24/24"),
        ("10.0.2.300/24", "invalid network address: 10.0.2.300"),
        ("10.0.2.0/26", "prefix length needs to be 1-25"),
        ("10.0.2.0/0", "prefix length needs to be 1-25"),
        ("10.0.2.100/24", "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24"),
    ] {
        value_error(&cidr(text).each_ref().map(String::as_str), diagnostic);
    }
    value_error(
        &["--outbound-addr=nope", "1", "tap0"],
        "outbound-addr has to be valid ipv4 address or interface name.",
    );
    value_error(
        &["--outbound-addr6=192.0.2.1", "1", "tap0"],
        "outbound-addr has to be valid ipv4 address or iterface name.",
    );
    let second =
        "macaddress has to be a valid MAC address (hex string, 6 bytes, each byte separated by a ':').";
    value_error(
        &["-c", "--macaddress=x", "1", "tap0"],
        &format!("\"x\" is an invalid MAC address.\n{second}"),
    );
    value_error(
        &["-c", "--macaddress=0:1:2:3:4:5:6", "1", "tap0"],
        &format!("\"0:1:2:3:4:5:6\" is an invalid MAC address.  Is it too long?\n{second}"),
    );
}

#[test]
fn warnings_are_on_stdout() {
    let answer =
        slirp(&["-6", "--enable-seccomp", "--outbound-addr=127.0.0.1", "--cidr=x", "1", "tap0", "surplus"]);
    assert_eq!(
        answer.out,
        "WARNING: Support for IPv6 is experimental\n\
         WARNING: Support for seccomp is experimental\n\
         WARNING: Support for --outbound-addr is experimental\n\
         WARNING: too many arguments\n"
    );
    assert_eq!((answer.code, answer.err.as_str()), (1, "invalid CIDR: x\n"));
    let answer = slirp(&["--target-type=bess", "--cidr=x", "s"]);
    assert_eq!(answer.out, "WARNING: BESS mode is experimental\n");
}

#[test]
fn help_and_version_succeed_at_their_place_in_the_line() {
    let help = slirp(&["-c", "--help", "--bogus"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.starts_with(USAGE));
    for literal in [
        "--netns-type",
        "--enable-ipv6",
        "--cidr",
        "--disable-host-loopback",
        "--api-socket",
        "--enable-sandbox",
        "--enable-seccomp",
        "--outbound-addr",
        "--mtu",
    ] {
        assert!(help.out.contains(literal), "{literal}");
    }
    let version = slirp(&["-v", "-x"]);
    assert_eq!((version.code, version.err.as_str()), (0, ""));
    assert!(version.out.starts_with("slirp4netns version 1.3.3"));
    assert_eq!(slirp(&["--bogus", "--help"]).code, 1);
}

#[test]
fn the_personality_follows_from_the_last_part_of_the_name() {
    let direct = call("/usr/libexec/podman/slirp4netns", &["--help"]);
    assert!(direct.out.starts_with("Usage: /usr/libexec/podman/slirp4netns [OPTION]..."));
    let below = call("slipway", &["slirp4netns", "--help"]);
    assert_eq!(below.code, 0);
    assert!(below.out.starts_with("Usage: slipway slirp4netns [OPTION]..."));
    let wrong = call("slipway", &["slirp4netns", "--bogus"]);
    assert_eq!((wrong.code, wrong.err.as_str()), (1, "slipway slirp4netns: unrecognized option '--bogus'\n"));
}

#[test]
fn namespaces_that_cannot_be_joined() {
    let answer = slirp(&["-c", "2147483646", "tap0"]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("No such file or directory"), "{}", answer.err);
    assert!(answer.err.ends_with("child failed(1)\n"), "{}", answer.err);
    let answer = slirp(&["-c", "--netns-type=path", "/dev/null", "tap0"]);
    assert_eq!(answer.code, 1);
    assert!(
        answer.err.contains("Invalid argument") && answer.err.ends_with("child failed(1)\n"),
        "{}",
        answer.err
    );
}

#[test]
fn a_full_or_closed_stdout_is_survived() {
    let script = "\"$0\" slirp4netns --help >&-; echo $?; \"$0\" slirp4netns --help >/dev/full; echo $?";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_slipway")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n0\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
