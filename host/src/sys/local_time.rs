//! localtime_r: the calendar of the place where the machine stands, which only the C library knows.

use std::mem::MaybeUninit;

/// Month (0 to 11), day of the month, hour, minute and second of the moment `seconds` after 1970; `None` when the C
/// library cannot tell (a year that does not fit).
pub(crate) fn split(seconds: i64) -> Option<[i32; 5]> {
    let mut calendar = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are those of live objects of the right types; on success the second one is filled.
    let done = unsafe { libc::localtime_r(&raw const seconds, calendar.as_mut_ptr()) };
    if done.is_null() {
        return None;
    }
    // SAFETY: localtime_r has succeeded, so it has filled the structure.
    let calendar = unsafe { calendar.assume_init() };
    Some([calendar.tm_mon, calendar.tm_mday, calendar.tm_hour, calendar.tm_min, calendar.tm_sec])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_moment_is_split() {
        // Noon of 15 June 2001, UTC: the 15th or a neighbour, wherever this runs.
        let [month, day, hour, minute, second] = split(992_606_400).unwrap();
        assert_eq!((month, second), (5, 0));
        assert!((14..=16).contains(&day) && (0..24).contains(&hour) && (0..60).contains(&minute));
        assert_eq!(split(i64::MAX), None);
    }
}
