//! The socket that systemd has opened for this process (sd_listen_fds(3)): `LISTEN_FDS` says how many there are, from
//! descriptor 3 on, and `LISTEN_PID` for whom.
//!
//! Whether it is a socket of the right kind is for the caller to say, who knows the kind.

use crate::environment;
use crate::sys::fdpass::take_inherited;
use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

const PID: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const FIRST: RawFd = 3;

/// Whom the variables have to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// This very process: they are inherited by children, for whom the descriptors are not.
    ThisProcess,
    /// Whoever finds them. That is so by contract for programs whose original does not look at `LISTEN_PID`.
    Whoever,
}

/// Why there is no socket although systemd has opened one.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// As many as this; one is wanted.
    #[error("systemd handed over {0} sockets, but there must be exactly one")]
    Count(String),
    /// It is not there.
    #[error(transparent)]
    Take(#[from] io::Error),
}

/// Takes the one socket over; `None` if there is none for us.
///
/// # Errors
/// See [`ActivationError`].
pub fn socket(to: Addressee) -> Result<Option<OwnedFd>, ActivationError> {
    if is_told(to, environment::text(PID).as_deref(), environment::variable(COUNT))? {
        Ok(Some(take_inherited(FIRST)?))
    } else {
        Ok(None)
    }
}

fn is_told(to: Addressee, pid: Option<&str>, count: Option<OsString>) -> Result<bool, ActivationError> {
    let meant = match to {
        Addressee::ThisProcess => pid.and_then(|pid| pid.parse().ok()) == Some(std::process::id()),
        Addressee::Whoever => count.is_some(),
    };
    if !meant {
        return Ok(false);
    }
    match count {
        Some(count) if count == "1" => Ok(true),
        count => {
            let count = count.map_or_else(|| "no".into(), |count| count.to_string_lossy().into_owned());
            Err(ActivationError::Count(count))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_is_taken_by_whom_it_is_meant_for() {
        let own = std::process::id().to_string();
        let told = |to, pid: Option<&str>, count: Option<&str>| {
            is_told(to, pid, count.map(OsString::from)).map_err(|error| error.to_string())
        };
        use Addressee::{ThisProcess, Whoever};
        for (to, pid, count, expected) in [
            (ThisProcess, None, None, Ok(false)),
            (ThisProcess, None, Some("1"), Ok(false)),
            (ThisProcess, Some("1"), Some("1"), Ok(false)),
            (ThisProcess, Some("x"), Some("2"), Ok(false)),
            (ThisProcess, Some(&*own), Some("1"), Ok(true)),
            (ThisProcess, Some(&*own), Some("2"), Err("2")),
            (ThisProcess, Some(&*own), None, Err("no")),
            (Whoever, None, None, Ok(false)),
            (Whoever, Some("1"), Some("1"), Ok(true)),
            (Whoever, None, Some("0"), Err("0")),
            (Whoever, None, Some(""), Err("")),
        ] {
            let expected = expected.map_err(|count| {
                format!("systemd handed over {count} sockets, but there must be exactly one")
            });
            assert_eq!(told(to, pid, count), expected, "{to:?} {pid:?} {count:?}");
        }
    }
}
