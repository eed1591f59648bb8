//! Why the kernel refused a namespace, in one line that says what to do.
//!
//! The errno alone rarely tells: user namespaces can be used up, switched off by a sysctl of Debian or of AppArmor, or
//! forbidden by the seccomp profile of a container around us. The settings are readable by everybody, so they are
//! looked at.

use crate::strerror::strerror;
use nix::errno::Errno;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Making the user namespace.
    User,
    /// Mapping our user and group into it.
    Ids,
    /// Making the network namespace and those that go with it.
    Network,
    /// Keeping mounts from the host.
    Mounts,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::User => "make a user namespace",
            Self::Ids => "map our user into a new user namespace",
            Self::Network => "make a network namespace",
            Self::Mounts => "keep mounts to ourselves",
        }
    }
}

/// What the system says about namespaces.
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

    /// One line about the failure to make, or to become master of, a namespace.
    pub(super) fn explain(self, step: Step, error: Errno) -> String {
        let advice = match error {
            Errno::ENOSPC if matches!(step, Step::Network | Step::Mounts) => {
                "there are too many, or they are switched off; as root, raise user.max_net_namespaces, \
                 user.max_mnt_namespaces and user.max_uts_namespaces"
            }
            Errno::ENOSPC | Errno::EPERM | Errno::EACCES if self.none_allowed => {
                "they are switched off; as root: sysctl -w user.max_user_namespaces=15000"
            }
            Errno::ENOSPC => {
                "there are too many, or they are switched off further out; as root: sysctl -w user.max_user_namespaces=15000"
            }
            Errno::EUSERS => "they are nested too deeply; start this further out",
            Errno::EINVAL | Errno::ENOSYS => "this kernel has none (CONFIG_USER_NS, CONFIG_NET_NS)",
            Errno::EPERM | Errno::EACCES if self.privileged_only => {
                "only root may make them; as root: sysctl -w kernel.unprivileged_userns_clone=1"
            }
            // It lets the namespace be made, and refuses what comes next.
            Errno::EPERM | Errno::EACCES if self.apparmor => {
                "AppArmor restricts them; as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give this \
                 program a profile that grants userns"
            }
            Errno::EPERM | Errno::EACCES => {
                "a container, a chroot or a security module around this process forbids it; allow unshare(2) and mount(2) \
                 there (Docker, Podman: --security-opt seccomp=unconfined)"
            }
            _ => "see user_namespaces(7)",
        };
        format!("cannot {}: {}: {advice}", step.name(), strerror(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Settings = Settings { none_allowed: false, privileged_only: false, apparmor: false };

    #[test]
    fn each_cause_has_its_advice() {
        let advice = |settings: Settings, errno: Errno| settings.explain(Step::User, errno);
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
        let refused = Settings { apparmor: true, ..OPEN };
        assert!(refused.explain(Step::Ids, Errno::EPERM).contains("AppArmor"));
        assert!(OPEN.explain(Step::Network, Errno::ENOSPC).contains("max_net_namespaces"));
        for errno in [Errno::ENOSPC, Errno::EPERM, Errno::EIO, Errno::EUSERS] {
            for step in [Step::User, Step::Ids, Step::Network, Step::Mounts] {
                let line = OPEN.explain(step, errno);
                assert!(line.starts_with("cannot ") && line.lines().count() == 1, "{line}");
            }
        }
    }
}
