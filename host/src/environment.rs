//! Variables of the environment, as far as they may be believed.
//!
//! A program that was given more rights than whoever started it (set-user-ID, file capabilities) must not be steered by
//! him: the kernel marks such a start (AT_SECURE, getauxval(3)), and then there are no variables here, as with
//! secure_getenv(3). Everybody in this project asks here (`cargo xtask lint`), but for what becomes of a command that
//! runs as the caller.

use crate::sys::auxv;
use std::ffi::OsString;

/// The value of a variable; `None` when it is not set, or not to be believed.
#[must_use]
pub fn variable(name: &str) -> Option<OsString> {
    believed(auxv::is_secure(), std::env::var_os(name))
}

/// The same as text; `None` also when it is none.
#[must_use]
pub fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

fn believed(secure: bool, value: Option<OsString>) -> Option<OsString> {
    value.filter(|_| !secure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_more_rights_than_the_caller_there_are_no_variables() {
        let value = Some(OsString::from("x"));
        assert_eq!(believed(false, value.clone()), value);
        assert_eq!(believed(true, value), None);
        assert_eq!(variable("PATH"), std::env::var_os("PATH"), "the tests have no such rights");
        assert_eq!((variable("NO_SUCH_VARIABLE"), text("NO_SUCH_VARIABLE")), (None, None));
    }
}
