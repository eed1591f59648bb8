//! What a fuzzer may do to command lines: the parser of all drop-in names, over the table of one of them; and a whole
//! start of `pasta` or `passt`.
//!
//! It stands beside them, so that the parser need not know who uses it.

use crate::flags::getopt::{Getopt, Item, Order};
use crate::pasta::config::{Config, Guest, Ids, World};
use crate::pasta::{args, read};
use crate::slirp4netns::args::TABLE;
use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// Any bytes as a command line (words end at NUL), taken apart over a table that has every kind of option, in both
/// orders.
///
/// # Panics
/// When an invariant is broken: that is the finding.
#[expect(clippy::panic, reason = "a broken invariant is what the fuzzer looks for")]
pub fn command_line(input: &[u8]) {
    let args: Vec<OsString> =
        input.split(|&byte| byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect();
    for order in [Order::Permute, Order::StopAtPositional] {
        let mut words = 0_usize;
        let mut positional_seen = false;
        for item in Getopt::new(TABLE.flags, order, &args) {
            match item {
                Ok(Item::Flag(flag, value)) => {
                    if flag.value.is_some() != value.is_some() {
                        panic!("--{} has {value:?}", flag.long);
                    }
                    if positional_seen && order == Order::StopAtPositional {
                        panic!("an option behind a positional");
                    }
                }
                Ok(Item::Positional(_)) => {
                    positional_seen = true;
                    words += 1;
                }
                Err(error) => drop(error.to_string()),
            }
        }
        if words > args.len() {
            panic!("more positionals than words");
        }
    }
}

/// Any bytes as the command line of `pasta` or `passt`: the first one decides which, and what the machine has; words
/// end at NUL. What is accepted is coherent.
///
/// # Panics
/// When an invariant is broken: that is the finding.
pub fn start_of_pasta(input: &[u8]) {
    let (seed, line) = input.split_first().map_or((0, input), |(seed, line)| (*seed, line));
    let words: Vec<OsString> =
        line.split(|&byte| byte == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect();
    let program = if seed & 1 == 0 { "pasta" } else { "passt" };
    let mut notices = Vec::new();
    if let Ok(config) = read(program, &words, &mut notices, &Machine(seed)) {
        coherent(&config);
    }
}

/// A machine that has what the bits say.
struct Machine(u8);

impl World for Machine {
    fn interface(&self, _: &OsStr) -> Result<(), Errno> {
        if self.0 & 2 == 0 { Ok(()) } else { Err(Errno::ENODEV) }
    }

    fn family(&self, ipv6: bool) -> bool {
        // One of both at least.
        self.0 & 4 == 0 || ipv6 == (self.0 & 8 == 0)
    }

    fn user(&self, _: &str) -> Option<Ids> {
        (self.0 & 16 == 0).then_some(Ids { user: 1, group: 1 })
    }

    fn group(&self, _: &str) -> Option<u32> {
        (self.0 & 32 == 0).then_some(1)
    }

    fn is_root_of_the_machine(&self) -> bool {
        self.0 & 64 == 0
    }

    fn binds_to_interfaces(&self) -> bool {
        self.0 & 128 == 0
    }

    fn ephemeral(&self) -> (u16, u16) {
        (32_768, 60_999)
    }
}

/// What holds for every configuration.
pub(crate) fn coherent(config: &Config) {
    let prefix = config.prefix;
    let laws = [
        ("a family", config.families.contains(&true)),
        ("a length with an address", prefix.is_some() || config.address.v4.is_none()),
        ("the length", prefix.is_none_or(|bits| (1..=32).contains(&bits))),
        ("the MTU", config.mtu.is_none_or(|bytes| (1..=args::MTU_MAX).contains(&bytes))),
        ("advertisements", !config.handlers.advertisements || config.handlers.ndp),
        ("one connection", config.fd.is_none() || config.one_off),
        ("the shortcut", !config.splice.only || config.splice.to_loopback && config.splice.inbound),
        ("a machine's loopback", !config.splice.inbound || matches!(config.guest, Guest::Namespace(_))),
        ("rules of a machine", config.abilities.scan || config.forwards.namespace.rules().is_empty()),
        ("a log file's room", config.log_file.as_ref().is_none_or(|file| file.size >= args::LOG_SIZE_MIN)),
    ];
    for (law, holds) in laws {
        assert!(holds, "{law}: {config:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_survived(input: Vec<u8>) {
            command_line(&input);
        }

        #[test]
        fn any_start_is_survived(input: Vec<u8>, line in "(-|--)?[a-zA-Z0-9:./=\\-\\x00]{0,60}") {
            start_of_pasta(&input);
            start_of_pasta(line.as_bytes());
        }

        #[test]
        fn bytes_that_look_like_options_are_survived(input in "(-|--)?[a-z=\\-\\x00]{0,40}") {
            command_line(input.as_bytes());
        }
    }
}
