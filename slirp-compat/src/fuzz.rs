//! What a fuzzer may do to command lines: the parser of all drop-in names, over the table of one of them.
//!
//! It stands beside both, so that the parser need not know who uses it.

use crate::flags::getopt::{Getopt, Item, Order};
use crate::slirp4netns::args::TABLE;
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
        fn bytes_that_look_like_options_are_survived(input in "(-|--)?[a-z=\\-\\x00]{0,40}") {
            command_line(input.as_bytes());
        }
    }
}
