//! Why the kernel refused a namespace, in one line that says what to do.
//!
//! The errno alone rarely tells: user namespaces can be used up, switched off by a sysctl of Debian or of AppArmor, or
//! forbidden by the seccomp profile of a container around us. The settings are readable by everybody, so they are looked at.

use nix::errno::Errno;
use std::io;

/// The words of strerror(3) alone, without Rust's "(os error 2)": people search for them.
pub(super) fn words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned())
}

/// What the system says about user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// `user.max_user_namespaces` is 0.
    none_allowed: bool,
    /// `kernel.unprivileged_userns_clone` (Debian) is 0.
    privileged_only: bool,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu) is 1.
    apparmor: bool,
}

impl Settings {
    pub(super) fn read() -> Self {
        let is = |name: &str, value: &str| {
            std::fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == value)
        };
        Self {
            none_allowed: is("user/max_user_namespaces", "0"),
            privileged_only: is("kernel/unprivileged_userns_clone", "0"),
            apparmor: is("kernel/apparmor_restrict_unprivileged_userns", "1"),
        }
    }

    /// One line about the failure to make, or to become master of, a user namespace.
    pub(super) fn explain(self, error: Errno) -> String {
        let advice = match error {
            Errno::ENOSPC | Errno::EPERM | Errno::EACCES if self.none_allowed => {
                "they are switched off; as root: sysctl -w user.max_user_namespaces=15000"
            }
            Errno::ENOSPC => {
                "there are too many, or they are switched off further out; as root: sysctl -w user.max_user_namespaces=15000"
            }
            Errno::EUSERS => "they are nested too deeply; start this further out",
            Errno::EINVAL | Errno::ENOSYS => "this kernel has none (CONFIG_USER_NS)",
            Errno::EPERM | Errno::EACCES if self.privileged_only => {
                "only root may make them; as root: sysctl -w kernel.unprivileged_userns_clone=1"
            }
            Errno::EPERM | Errno::EACCES if self.apparmor => {
                "AppArmor restricts them; as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give this \
                 program a profile that grants userns"
            }
            Errno::EPERM | Errno::EACCES => {
                "a container or a security module around this process forbids them; allow unshare(2) and mount(2) there"
            }
            _ => "see user_namespaces(7)",
        };
        format!("cannot make a user namespace: {}: {advice}", error.desc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Settings = Settings { none_allowed: false, privileged_only: false, apparmor: false };

    #[test]
    fn each_cause_has_its_advice() {
        let advice = |settings: Settings, errno: Errno| settings.explain(errno);
        assert!(
            advice(Settings { none_allowed: true, ..OPEN }, Errno::ENOSPC).contains("max_user_namespaces")
        );
        assert!(advice(OPEN, Errno::ENOSPC).contains("max_user_namespaces"));
        assert!(
            advice(Settings { privileged_only: true, ..OPEN }, Errno::EPERM)
                .contains("unprivileged_userns_clone=1")
        );
        assert!(advice(Settings { apparmor: true, ..OPEN }, Errno::EACCES).contains("AppArmor"));
        assert!(advice(OPEN, Errno::EPERM).contains("container"));
        assert!(advice(OPEN, Errno::EINVAL).contains("CONFIG_USER_NS"));
        for errno in [Errno::ENOSPC, Errno::EPERM, Errno::EIO, Errno::EUSERS] {
            assert_eq!(advice(OPEN, errno).lines().count(), 1);
        }
    }
}
