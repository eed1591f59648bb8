//! What cannot happen, and what becomes of it if it does.
//!
//! Nothing on the data path may panic, so a conversion that cannot fail still needs an answer for the case that it
//! fails. But a silent zero hides the mistake: a sequence number that does not move is sent again for ever, and no test
//! fails. [`Surely`] has both: in a debug build, in which all tests and fuzzers run, it is an assertion; in a release
//! the connection goes on with the fallback as best it can.
//!
//! It is for what the lines above rule out, never for what a guest, a peer or the kernel decides: that is no mistake of
//! ours, and has an answer of its own.

/// A value that is there, whatever its type says.
pub trait Surely<T> {
    /// The value; in a release, if it is missing, the default.
    #[track_caller]
    fn surely(self) -> T
    where
        T: Default;

    /// The value; in a release, if it is missing, `fallback`.
    #[track_caller]
    fn surely_or(self, fallback: T) -> T;
}

impl<T> Surely<T> for Option<T> {
    #[inline]
    fn surely(self) -> T
    where
        T: Default,
    {
        debug_assert!(self.is_some(), "what cannot be missing is missing");
        self.unwrap_or_default()
    }

    #[inline]
    fn surely_or(self, fallback: T) -> T {
        debug_assert!(self.is_some(), "what cannot be missing is missing");
        self.unwrap_or(fallback)
    }
}

impl<T, E> Surely<T> for Result<T, E> {
    #[inline]
    fn surely(self) -> T
    where
        T: Default,
    {
        self.ok().surely()
    }

    #[inline]
    fn surely_or(self, fallback: T) -> T {
        self.ok().surely_or(fallback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_given() {
        assert_eq!((Some(5).surely(), u8::try_from(7_u32).surely_or(9)), (5, 7));
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "cannot be missing"))]
    fn what_is_missing_is_found_in_a_debug_build_and_survived_in_a_release() {
        assert_eq!(u8::try_from(300_u32).surely_or(9), 9);
    }
}
