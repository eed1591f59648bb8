//! getauxval(3): what the kernel told this program when it was executed.

/// Whether it was given rights that its caller has not (AT_SECURE).
pub(crate) fn is_secure() -> bool {
    // SAFETY: getauxval takes a number, reads a table that the kernel has made, and returns a number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_has_no_such_rights() {
        assert!(!is_secure());
    }
}
