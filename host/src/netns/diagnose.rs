//! What an error of the kernel's means to a person.

use std::io;

/// The error in words, without the number that `io::Error` appends.
pub(super) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}
