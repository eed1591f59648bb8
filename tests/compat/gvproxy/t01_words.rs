//! Words: what is said about a command line or a file, where, and with which exit code. Each ends before anything is
//! made.

use super::{Subject, lines};
use std::process::Output;

fn answer(subject: &Subject, line: &[&str]) -> Output {
    subject.cmd().args(line).output().unwrap()
}

/// What is said on standard error before the usage text.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.split("Usage of ").next().unwrap_or_default().to_owned()
}

#[test]
fn words_that_make_no_sense_are_told_as_by_the_original() {
    let Some(subjects) = Subject::both("words_that_make_no_sense_are_told_as_by_the_original") else {
        return;
    };
    let cases: [(&[&str], &str); 8] = [
        (&["-nosuch"], "flag provided but not defined: -nosuch\n"),
        (&["--nosuch=1"], "flag provided but not defined: -nosuch\n"),
        (&["-listen"], "flag needs an argument: -listen\n"),
        (&["---debug"], "bad flag syntax: ---debug\n"),
        (&["-=1"], "bad flag syntax: -=1\n"),
        (&["-mtu", "x"], "invalid value \"x\" for flag -mtu: parse error\n"),
        (
            &["-ssh-port=99999999999999999999"],
            "invalid value \"99999999999999999999\" for flag -ssh-port: value out of range\n",
        ),
        (&["-debug=perhaps"], "invalid boolean value \"perhaps\" for -debug: parse error\n"),
    ];
    for subject in &subjects {
        for (line, said) in cases {
            let output = answer(subject, line);
            assert_eq!((complaint(&output).as_str(), output.status.code()), (said, Some(2)), "{line:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("Usage of gvproxy:\n"), "{line:?}");
        }
        for help in [&["-h"][..], &["--help"], &["-debug", "-help", "-nosuch"]] {
            let output = answer(subject, help);
            assert_eq!((complaint(&output).as_str(), output.status.code()), ("", Some(0)), "{help:?}");
        }
        let version = answer(subject, &["-version", "-ssh-port", "1"]);
        let said = String::from_utf8(version.stdout).unwrap();
        assert!(said.starts_with("gvproxy version v0.8.") && said.ends_with('\n'), "{said}");
        assert_eq!((version.status.code(), version.stderr.len()), (Some(0), 0));
    }
}

#[test]
fn every_flag_of_the_original_is_taken() {
    let test = "every_flag_of_the_original_is_taken";
    let (Some(ours), Some(original)) = (Subject::ours(test), Subject::original(test)) else { return };
    let flags = |subject: &Subject| {
        let output = answer(subject, &["-h"]);
        let text = String::from_utf8(output.stderr).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("  -"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (here, there) = (flags(&ours), flags(&original));
    assert!(there.len() > 10, "{there:?}");
    for flag in there {
        // Name and kind of argument.
        assert!(here.contains(&flag), "{flag}: {here:?}");
    }
}

/// What is wrong with a line of the command line, as the contract words it, and the exit code.
const MISTAKES: &[(&[&str], &str, i32)] = &[
    (&["-subnet", "x"], "fatal msg=\"failed to parse subnet: invalid CIDR address: x\"", 1),
    (
        &["-subnet", "10.0.0.0/30"],
        "fatal msg=\"failed to identify usable gateway IP address in subnet: subnet too small\"",
        1,
    ),
    (
        &["-hostIP", "10.0.0.1"],
        "fatal msg=\"failed to validate configuration IPs: IP (10.0.0.1) not in subnet (192.168.127.0/24)\"",
        1,
    ),
    (&["-notification", "tcp://:1"], "fatal msg=\"notification listen address must be unix:// address\"", 1),
    (&["-listen-qemu", "unix:///dev/null"], "fatal msg=\"\\\"/dev/null\\\" already exists\"", 1),
    (&["-listen-bess", "unix:///b"], "fatal msg=\"bess listen address must be unixpacket:// address\"", 1),
    (&["-listen-vfkit", "unix:///b"], "fatal msg=\"vfkit listen address must be unixgram:// address\"", 1),
    (
        &["-listen-qemu", "unix:///q", "-listen-vpnkit", "unix:///v"],
        "fatal msg=\"cannot use qemu and vpnkit protocol at the same time\"",
        1,
    ),
    (&["-ssh-port", "22"], "fatal msg=\"ssh-port value must be between 1024 and 65535\"", 1),
    (
        &["-forward-sock", "/s", "-forward-dest", "/d", "-forward-user", "u", "-forward-identity", "/no/key"],
        "fatal msg=\"identity file \\\"/no/key\\\" can't be loaded: stat /no/key: no such file or directory\"",
        1,
    ),
    (
        &["-config", "/no/file"],
        "fatal msg=\"failed to read config file: open /no/file: no such file or directory\"",
        1,
    ),
    (&["-log-file", "/no/file"], "fatal msg=\"unable to open log file /no/file\"", 1),
    (&["-mtu", "65536"], "error msg=\"gvproxy exiting: mtu is out of range\"", 0),
];

#[test]
fn mistakes_have_the_words_and_exit_codes_of_the_contract() {
    let Some(ours) = Subject::ours("mistakes_have_the_words_and_exit_codes_of_the_contract") else { return };
    for (line, said, code) in MISTAKES {
        let output = answer(&ours, line);
        let last = lines(&output.stderr).pop().unwrap_or_default();
        assert_eq!((last.as_str(), output.status.code()), (*said, Some(*code)), "{line:?}");
        assert!(output.stdout.is_empty(), "{line:?}");
    }
}

#[test]
fn a_file_that_makes_no_sense_is_told_in_a_line() {
    let Some(ours) = Subject::ours("a_file_that_makes_no_sense_is_told_in_a_line") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let path = file.to_str().unwrap();
    let bomb: String =
        (1..40).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "))).collect();
    let cases = [
        "stack:\n\tmtu: 1\n".to_owned(),
        "stack: [1]\n".to_owned(),
        "stack: {mtu: many}\n".to_owned(),
        format!("a0: &a0 [x]\n{bomb}"),
        "[".repeat(100_000),
        "stack: {dns: [{name: a., records: [{regexp: '('}]}]}\n".to_owned(),
        "stack: {dhcpStaticLeases: {192.168.127.2: nobody}}\n".to_owned(),
    ];
    for text in cases {
        std::fs::write(&file, &text).unwrap();
        let output = answer(&ours, &["-config", path]);
        let said = lines(&output.stderr);
        let last = said.last().cloned().unwrap_or_default();
        let start: String = text.chars().take(60).collect();
        assert!(last.starts_with("fatal msg=\"failed to parse configuration: "), "{start}: {said:?}");
        assert_eq!((output.status.code(), said.len() <= 2), (Some(1), true), "{start}: {said:?}");
    }
    // A directory, and a file that never ends.
    for (path, why) in [("/", "read /: is a directory"), ("/dev/zero", "/dev/zero: more than 1048576 bytes")]
    {
        let output = answer(&ours, &["-config", path]);
        let said = format!("fatal msg=\"failed to read config file: {why}\"");
        assert_eq!((lines(&output.stderr).pop().unwrap(), output.status.code()), (said, Some(1)));
    }
}

#[test]
fn the_log_goes_to_its_file_and_a_level_that_there_is_not_is_a_warning() {
    let Some(ours) = Subject::ours("the_log_goes_to_its_file") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("config.yaml"), dir.path().join("log"));
    std::fs::write(&log, "from before\n").unwrap();
    std::fs::write(&file, format!("log-level: loud\nlog-file: {}\nstack: {{mtu: -1}}\n", log.display()))
        .unwrap();
    let output = answer(&ours, &["-config", file.to_str().unwrap(), "-ssh-port", "3000"]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    let said = lines(&std::fs::read(&log).unwrap());
    assert!(said[0].starts_with("info msg=\"gvproxy version v0.8."), "{said:?}");
    assert_eq!(said[1], "warning msg=\"bad log level \\\"loud\\\", falling back to \\\"info\\\"\"");
    assert!(said[2].starts_with("warning msg=\"-ssh-port means nothing beside -config"), "{said:?}");
    assert_eq!(said[3..], ["error msg=\"gvproxy exiting: mtu is out of range\""]);
}
