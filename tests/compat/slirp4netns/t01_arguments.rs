//! Arguments: what is probed, what is refused and how.

use slipway_lab::{LIMIT, Lab, Output, lab};

fn run(lab: &Lab, words: &[&str]) -> Output {
    lab.host([lab.program("slirp4netns")]).args(words).run(LIMIT).unwrap()
}

#[test]
fn help_holds_what_engines_probe_for() {
    let (lab, _) = lab!("help_holds_what_engines_probe_for", []);
    let help = run(&lab, &["--help"]);
    assert_eq!(help.code(), 0, "{help}");
    let text = help.out();
    for option in [
        "--disable-host-loopback",
        "--mtu",
        "--enable-sandbox",
        "--enable-seccomp",
        "--cidr",
        "--outbound-addr",
        "--enable-ipv6",
        "--netns-type",
        "--api-socket",
    ] {
        assert!(text.contains(option), "no {option} in:\n{text}");
    }
    assert!(text.starts_with("Usage: "), "{text}");
}

#[test]
fn version_is_the_machine_readable_block() {
    let (lab, _) = lab!("version_is_the_machine_readable_block", []);
    let version = run(&lab, &["--version"]);
    assert_eq!(version.code(), 0, "{version}");
    let text = version.out();
    let names: Vec<&str> = text.lines().map(|line| line.split([':', ' ']).next().unwrap_or("")).collect();
    assert_eq!(names.first(), Some(&"slirp4netns"), "{text}");
    for name in ["commit", "libslirp", "SLIRP_CONFIG_VERSION_MAX", "libseccomp"] {
        assert!(names.contains(&name), "no {name} in:\n{text}");
    }
}

#[test]
fn bad_arguments_end_with_1_and_the_right_words() {
    let (lab, _) = lab!("bad_arguments_end_with_1_and_the_right_words", []);
    for (words, expected) in [
        (&["--mtu=0", "1", "tap0"][..], "MTU must be a positive integer (< 65522)"),
        (&["--mtu=65522", "1", "tap0"], "MTU must be a positive integer (< 65522)"),
        (&["--exit-fd=-1", "1", "tap0"], "exit-fd must be a non-negative integer"),
        (&["--ready-fd=-1", "1", "tap0"], "ready-fd must be a non-negative integer"),
        (&["--target-type=vm", "1", "tap0"], "--target-type must be either \"netns\" or \"bess\""),
        (&["--macaddress=02:00:00:00:00:01", "1", "tap0"], "--macaddr cannot be specified"),
        (&["--userns-path=/does/not/exist", "1", "tap0"], "userns path doesn't exist: /does/not/exist"),
        (&["--netns-type=path", "/does/not/exist", "tap0"], "existing path expected when --netns-type=path"),
        (&["zero", "tap0"], "PID must be a positive integer"),
        (&["0", "tap0"], "PID must be a positive integer"),
        (&["--no-such-option"], "unrecognized option '--no-such-option'"),
    ] {
        let output = run(&lab, words);
        assert_eq!(output.code(), 1, "{words:?}: {output}");
        assert!(output.err().contains(expected), "{words:?}: {output}");
    }
}

#[test]
fn parse_errors_put_usage_on_stdout() {
    let (lab, _) = lab!("parse_errors_put_usage_on_stdout", []);
    for words in [&["--no-such-option"][..], &["1"], &[]] {
        let output = run(&lab, words);
        assert_eq!(output.code(), 1, "{words:?}: {output}");
        assert!(output.out().contains("Usage: "), "{words:?}: {output}");
    }
}

#[test]
fn options_may_follow_positionals_and_be_shortened() {
    let (lab, _) = lab!("options_may_follow_positionals_and_be_shortened", []);
    let container = lab.container().unwrap();
    let pid = container.pid().to_string();
    let _slirp = lab.slirp_at(&[], &[&pid, "tap0", "--conf", "--mtu", "1400", "-m", "4000"]).unwrap();
    let link = container.cmd(["ip", "-o", "link", "show", "tap0"]).ok(LIMIT).unwrap();
    assert!(link.out().contains("mtu 4000"), "{link}");
}

#[test]
fn a_dead_pid_is_an_error() {
    let (lab, _) = lab!("a_dead_pid_is_an_error", []);
    let output = run(&lab, &["-c", "4194304", "tap0"]);
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.err().contains("child failed(1)"), "{output}");
}
