//! Errors of the system in the words of strerror(3), as C programs print them: people search for those words.

use nix::errno::Errno;
use std::io;

/// The text, without the "(os error 2)" that `io::Error` appends.
#[must_use]
pub fn words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_left_out() {
        assert_eq!(words(&io::Error::from_raw_os_error(2)), "No such file or directory");
        assert_eq!(words(&io::Error::other("x")), "x");
    }
}
