//! The texts of `--help`, `--version` and `--print-capabilities`.
//!
//! Programs that start us look into the first line of the version for the name, and newer ones for a date behind it;
//! that line has the date of the release whose command line this is. What follows is for people.

use super::Mode;
use super::table::{Audience, FLAGS, Key};
use crate::flags::table::Flag;
use crate::flags::usage::line;
use std::fmt::Write as _;

/// What `--version` says behind the name: the date of the release whose command line, sockets and texts these
/// personalities have, and our own version.
pub const VERSION: &str = concat!("2026_10_02.slipway-", env!("CARGO_PKG_VERSION"));

/// What `--print-capabilities` prints: the description of a vhost-user back-end (QEMU's `vhost-user.json`).
pub const CAPABILITIES: &str = "{\n  \"type\": \"net\"\n}\n";

/// What may stand behind the name of the program.
pub const PASTA_SYNOPSIS: &[&str] =
    &["[OPTION]... [COMMAND [ARG]...]", "[OPTION]... PID", "[OPTION]... --netns PATH|NAME"];
/// The same of `passt`.
pub const PASST_SYNOPSIS: &[&str] = &["[OPTION]..."];

/// What `pasta` is for, in one sentence.
pub const PASTA_SUMMARY: &str = "Gives a network namespace the host's network, without privileges. Without PID and --netns, a command (or a shell) is\n\
     started in a namespace of its own.";
/// The same of `passt`.
pub const PASST_SUMMARY: &str = "Gives a virtual machine the host's network, without privileges.";

/// The options that go with a name, without those that are there for old callers only.
pub fn options(mode: Mode) -> impl Iterator<Item = &'static Flag<Key>> {
    FLAGS.iter().filter(move |flag| !flag.hidden && fits(flag.key.audience(), mode))
}

const fn fits(audience: Audience, mode: Mode) -> bool {
    match audience {
        Audience::All => true,
        Audience::Pasta => matches!(mode, Mode::Pasta),
        Audience::Passt | Audience::VhostUser => matches!(mode, Mode::Passt { .. }),
    }
}

/// What `--help` prints.
#[must_use]
pub fn help(program: &str, mode: Mode) -> String {
    let (synopsis, summary) = match mode {
        Mode::Pasta => (PASTA_SYNOPSIS, PASTA_SUMMARY),
        Mode::Passt { .. } => (PASST_SYNOPSIS, PASST_SUMMARY),
    };
    let mut out = String::with_capacity(8192);
    for (number, form) in synopsis.iter().enumerate() {
        let head = if number == 0 { "Usage:" } else { "      " };
        let _ = writeln!(out, "{head} {program} {form}");
    }
    let _ = writeln!(out, "{summary}\n");
    options(mode).for_each(|flag| out.push_str(&line(flag)));
    let _ = writeln!(out, "\n{PORTS}{}", default_ports(mode));
    out
}

/// The grammar of the port options.
const PORTS: &str = "\
SPEC: none | [ADDRESS[%INTERFACE]/]CHUNK[,CHUNK]...
CHUNK: all[:ADDRESS] | auto | ~PORT[-PORT] | PORT[-PORT][:[ADDRESS/]PORT[-PORT]] | PORT[-PORT]:ADDRESS
  22               port 22, to the same port of the guest
  8080:80          port 8080, to port 80
  127.0.0.1/80-89  ports 80 to 89 of one address
  %eth0/22         port 22 of one interface
  all,~25          all ports but 25 and those that the kernel gives away
  auto             the ports that are listened on at the other side, while they are
";

const fn default_ports(mode: Mode) -> &'static str {
    match mode {
        Mode::Pasta => "Without the option: auto.",
        Mode::Passt { .. } => "Without the option: none. auto is for pasta only.",
    }
}

/// What `--version` prints.
#[must_use]
pub fn version(mode: Mode) -> String {
    let (name, own, commit) = (mode.name(), env!("CARGO_PKG_VERSION"), slipway_runtime::COMMIT);
    format!("{name} {VERSION}\nslipway {own} in the place of {name}, commit {commit}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Whether `text` begins with `YYYY_MM_DD`.
    fn date(text: &str) -> bool {
        let fits =
            |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'_' } else { byte.is_ascii_digit() };
        text.len() > 10 && text.bytes().take(10).enumerate().all(fits)
    }

    #[test]
    fn the_version_begins_with_a_name_and_a_date() {
        for (mode, name) in [(Mode::Pasta, "pasta"), (Mode::Passt { vhost_user: true }, "passt")] {
            let text = version(mode);
            let (first, second) = text.lines().next().unwrap().split_once(' ').unwrap();
            assert_eq!(first, name);
            assert!(date(second), "{second}");
            assert!(second.ends_with(&format!(".slipway-{}", env!("CARGO_PKG_VERSION"))), "{second}");
        }
    }

    #[test]
    fn each_name_shows_its_own_options() {
        let (pasta, passt) =
            (help("/usr/bin/pasta", Mode::Pasta), help("passt", Mode::Passt { vhost_user: false }));
        assert!(pasta.starts_with(
            "Usage: /usr/bin/pasta [OPTION]... [COMMAND [ARG]...]\n       /usr/bin/pasta [OPTION]... PID\n"
        ));
        assert!(passt.starts_with("Usage: passt [OPTION]...\n"));
        for option in ["--config-net", "--netns", "--tcp-ns", "--dhcp-dns", "--splice-only"] {
            assert!(pasta.contains(option) && !passt.contains(option), "{option}");
        }
        for option in ["--socket=", "--one-off", "--no-dhcp-dns", "--repair-path"] {
            assert!(passt.contains(option) && !pasta.contains(option), "{option}");
        }
        for option in
            ["--map-guest-addr", "--dns-forward", "--conf-path", "--control", "--vhost-user", "--pid"]
        {
            assert!(passt.contains(option) && pasta.contains(option), "{option}");
        }
        assert!(!pasta.contains("--stderr") && !pasta.contains("--no-copy-routes"), "for old callers only");
    }
}
