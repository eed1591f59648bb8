//! Errors of the system in the words of strerror(3), as C programs print them: people search for those words.

use nix::errno::Errno;
use std::io;

/// The text, without the "(os error 2)" that [`io::Error`] appends.
#[must_use]
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let number = error.raw_os_error().map(|number| format!(" (os error {number})"));
    number.and_then(|number| text.strip_suffix(&number)).map_or_else(|| text.clone(), str::to_owned)
}

/// The same of a bare number.
#[must_use]
pub fn strerror(errno: Errno) -> String {
    words(&errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_left_out() {
        assert_eq!(words(&io::Error::from_raw_os_error(2)), "No such file or directory");
        assert_eq!(words(&io::Error::other("x")), "x");
    }

    #[test]
    fn the_words_are_those_of_the_c_library() {
        assert_eq!(strerror(Errno::EBADF), "Bad file descriptor");
        assert_eq!(strerror(Errno::ENOTTY), "Inappropriate ioctl for device");
        assert_eq!(strerror(Errno::ENODEV), "No such device");
    }
}
