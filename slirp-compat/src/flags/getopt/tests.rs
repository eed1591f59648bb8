use super::*;
use crate::flags::table::Complete;
use proptest::prelude::*;
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Configure,
    Conf,
    Exit,
    Mtu,
    Six,
    SandboxOn,
    Seccomp,
}

const FLAGS: &[Flag<Key>] = &[
    Flag::new(Key::Configure, "configure", "", "").short(b'c'),
    Flag::new(Key::Conf, "conf", "", ""),
    Flag::new(Key::Exit, "exit-fd", "", "").short(b'e').value("FD", Complete::Nothing),
    Flag::new(Key::Mtu, "mtu", "", "").short(b'm').value("MTU", Complete::Nothing),
    Flag::new(Key::Six, "enable-ipv6", "", "").short(b'6'),
    Flag::new(Key::SandboxOn, "enable-sandbox", "", ""),
    Flag::new(Key::Seccomp, "enable-seccomp", "", ""),
];

/// Two names of one option.
const ALIASES: &[Flag<Key>] = &[
    Flag::new(Key::SandboxOn, "enable-sandbox", "", ""),
    Flag::new(Key::SandboxOn, "enable-safety", "", ""),
    Flag::new(Key::Seccomp, "enable-seccomp", "", ""),
];

/// What util-linux's getopt(1) has to be told to have the same options.
const SHORT: &str = "ce:m:6";
const LONG: &str = "configure,conf,exit-fd:,mtu:,enable-ipv6,enable-sandbox,enable-seccomp";

fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

/// Options in the manner of getopt(1), positionals, and the first complaint.
fn read(order: Order, line: &[&str]) -> (Vec<String>, Vec<String>, Option<String>) {
    let (mut options, mut positionals) = (Vec::new(), Vec::new());
    let args = words(line);
    for item in Getopt::new(FLAGS, order, &args) {
        match item {
            Ok(Item::Positional(word)) => positionals.push(word.to_string_lossy().into_owned()),
            Ok(Item::Flag(flag, value)) => {
                options.push(flag.long.to_owned());
                options.extend(value.map(|value| value.to_string_lossy().into_owned()));
            }
            Err(error) => return (options, positionals, Some(error.to_string())),
        }
    }
    (options, positionals, None)
}

fn good(line: &[&str]) -> (Vec<String>, Vec<String>) {
    let (options, positionals, complaint) = read(Order::Permute, line);
    assert_eq!(complaint, None, "{line:?}");
    (options, positionals)
}

fn bad(line: &[&str]) -> String {
    read(Order::Permute, line).2.unwrap()
}

#[test]
fn values_are_attached_or_follow() {
    let expected = ["mtu", "65520", "exit-fd", "4"];
    for line in [
        &["-m65520", "-e4"][..],
        &["-m", "65520", "-e", "4"],
        &["--mtu=65520", "--exit-fd=4"],
        &["--mtu", "65520", "--exit-fd", "4"],
        &["--mt", "65520", "--ex=4"],
    ] {
        assert_eq!(good(line).0, expected, "{line:?}");
    }
    assert_eq!(good(&["-m=65520"]).0, ["mtu", "=65520"], "as glibc reads it");
    assert_eq!(good(&["--mtu", "-5"]).0, ["mtu", "-5"], "a value may look like an option");
    assert_eq!(good(&["-m", "--"]).0, ["mtu", "--"]);
    assert_eq!(good(&["--mtu=", "x"]), (vec!["mtu".into(), String::new()], vec!["x".into()]));
    assert_eq!(good(&["--mtu=a=b"]).0, ["mtu", "a=b"]);
}

#[test]
fn clusters_are_taken_apart() {
    assert_eq!(good(&["-6c"]).0, ["enable-ipv6", "configure"]);
    assert_eq!(good(&["-6ce3"]).0, ["enable-ipv6", "configure", "exit-fd", "3"]);
    assert_eq!(good(&["-6cm", "12", "-c"]).0, ["enable-ipv6", "configure", "mtu", "12", "configure"]);
    assert_eq!(good(&["-cmc"]).0, ["configure", "mtu", "c"]);
}

#[test]
fn options_may_follow_positionals_but_not_two_dashes() {
    let (options, positionals) = good(&["PID", "-c", "tap0", "--mtu=1", "--", "-6", "--", "--bogus"]);
    assert_eq!(options, ["configure", "mtu", "1"]);
    assert_eq!(positionals, ["PID", "tap0", "-6", "--", "--bogus"]);
    assert_eq!(good(&["--"]), (vec![], vec![]));
    assert_eq!(good(&["-", ""]).1, ["-", ""], "a lone dash and nothing at all are positionals");
}

#[test]
fn or_they_end_at_the_first_positional() {
    let (options, positionals, complaint) =
        read(Order::StopAtPositional, &["-c", "PID", "-6", "--", "--bogus"]);
    assert_eq!((options, complaint), (vec!["configure".to_owned()], None));
    assert_eq!(positionals, ["PID", "-6", "--", "--bogus"]);
}

#[test]
fn prefixes_do_if_they_are_unique() {
    assert_eq!(good(&["--conf"]).0, ["conf"], "an exact name wins over a longer one");
    assert_eq!(good(&["--confi"]).0, ["configure"]);
    assert_eq!(good(&["--enable-sa"]).0, ["enable-sandbox"]);
    assert_eq!(
        bad(&["--enable-s"]),
        "option '--enable-s' is ambiguous; possibilities: '--enable-sandbox' '--enable-seccomp'"
    );
    assert_eq!(bad(&["--con=3"]), "option '--con=3' is ambiguous; possibilities: '--configure' '--conf'");
}

#[test]
fn aliases_do_not_rival_each_other() {
    let args = words(&["--enable-sa", "--enable-s"]);
    let mut items = Getopt::new(ALIASES, Order::Permute, &args);
    assert!(matches!(items.next(), Some(Ok(Item::Flag(flag, None))) if flag.key == Key::SandboxOn));
    assert!(matches!(items.next(), Some(Err(Error::Ambiguous(..)))));
}

#[test]
fn complaints_are_worded_like_glibc() {
    assert_eq!(bad(&["--bogus"]), "unrecognized option '--bogus'");
    assert_eq!(bad(&["--bogus=3"]), "unrecognized option '--bogus=3'");
    assert_eq!(bad(&["-x"]), "invalid option -- 'x'");
    assert_eq!(bad(&["-6x"]), "invalid option -- 'x'");
    assert_eq!(bad(&["-:"]), "invalid option -- ':'");
    assert_eq!(bad(&["--mtu"]), "option '--mtu' requires an argument");
    assert_eq!(bad(&["--mt"]), "option '--mtu' requires an argument");
    assert_eq!(bad(&["-m"]), "option requires an argument -- 'm'");
    assert_eq!(bad(&["--configur=3"]), "option '--configure' doesn't allow an argument");
    assert_eq!(bad(&["-\u{e9}"]), "invalid option -- '\u{fffd}'", "a byte of a longer character");
}

#[test]
fn what_follows_a_mistake_can_still_be_read() {
    let args = words(&["--bogus", "-xc", "-m"]);
    let items: Vec<_> = Getopt::new(FLAGS, Order::Permute, &args).collect();
    assert_eq!(items.len(), 4);
    assert!(matches!(items[2], Ok(Item::Flag(flag, None)) if flag.key == Key::Configure));
}

/// A word that has a chance to mean something.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "-[ce6mx]{1,4}",
        2 => "--(conf|configure|config|exit-fd|exit|mtu|m|enable|enable-s|enable-se|enable-i|bogus|)(=[a-c]{0,2})?",
        1 => Just("-".to_owned()),
        1 => Just("--".to_owned()),
        3 => "[a-z0-9]{1,3}",
    ]
}

/// What getopt(1), which is glibc's getopt_long with an exit, makes of `line`: options, positionals, complaints.
fn original(order: Order, line: &[String]) -> Option<(Vec<String>, Vec<String>, String)> {
    let lead = if order == Order::StopAtPositional { "+" } else { "" };
    let output = Command::new("getopt")
        .env("LC_ALL", "C")
        .env_remove("POSIXLY_CORRECT")
        .args(["-u", "-n", "P", "-o", &format!("{lead}{SHORT}"), "-l", LONG, "--"])
        .args(line)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    // `-u` joins with single blanks behind a leading one; our words contain none, but a value may be empty.
    let all: Vec<String> = text.trim_end_matches('\n').split(' ').skip(1).map(str::to_owned).collect();
    let end = all.iter().position(|word| word == "--")?;
    let complaint = String::from_utf8(output.stderr).unwrap().lines().next().unwrap_or_default().to_owned();
    Some((all[..end].to_vec(), all[end + 1..].to_vec(), complaint))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The real getopt_long is the judge, where it is installed.
    #[test]
    fn glibc_reads_the_same(line in prop::collection::vec(word(), 0..6), plus: bool) {
        let order = if plus { Order::StopAtPositional } else { Order::Permute };
        let Some((options, positionals, complaint)) = original(order, &line) else { return Ok(()) };
        let typed: Vec<&str> = line.iter().map(String::as_str).collect();
        let (ours, our_positionals, our_complaint) = read(order, &typed);
        if ours.iter().any(|word| word == "--") {
            return Ok(()); // Unquoted, a value of two dashes looks like the end of the options.
        }
        prop_assert_eq!(our_complaint.map(|text| format!("P: {text}")).unwrap_or_default(), complaint.clone());
        if complaint.is_empty() {
            // getopt(1) prints the short name where one was typed; give each its long name.
            let long = |word: &String| match word.as_str() {
                "-c" => "configure".to_owned(),
                "-e" => "exit-fd".to_owned(),
                "-m" => "mtu".to_owned(),
                "-6" => "enable-ipv6".to_owned(),
                other => other.trim_start_matches("--").to_owned(),
            };
            // Values that look like options would be renamed too: compare both sides after renaming.
            prop_assert_eq!(
                ours.iter().map(long).collect::<Vec<_>>(),
                options.iter().map(long).collect::<Vec<_>>()
            );
            prop_assert_eq!(our_positionals, positionals);
        }
    }
}
