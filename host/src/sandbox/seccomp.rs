//! Stage: system calls. What the event loop does not need ends the process.
//!
//! An allow-list (`seccomp/lists.rs`): a call that is not on it is answered by SIGSYS. Each entry names its caller.
//! Lists are of numbers, which differ by architecture, so names that one of them lacks are left out there. Source:
//! seccomp(2); contract slirp4netns §7, whose deny-list ([`DENIED`]) is what users see printed and what no entry here
//! may contain. An entry that nobody calls any more fails a test that traces real runs (`tests/e2e/filter.rs`).
//!
//! Calls that lead to much of the kernel pass with certain arguments only. Options of sockets are those that
//! `host/src/sys/sockopt.rs` says a network sets: a new one there is a new one here.
//!
//! The filter is put on the calling thread: install it before any other is started.

mod lists;

#[cfg(test)]
mod tests;

use super::SandboxError;
use crate::sys::sockopt::Opt;
use lists::{Arg, Call, is, makes, sets};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use std::io;

/// Whose filter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// A network for somebody else's namespace.
    Network,
    /// The same, and the parent of the command that runs in the namespace: it may wait for it.
    Parent,
    /// A network for a virtual machine whose memory is shared.
    Memory,
    /// A network whose loopback traffic with the namespace goes from socket to socket.
    Shortcut,
    /// The same, and the parent of the command that runs in the namespace.
    ShortcutParent,
    /// A network of machines, of which some connections lead to another process of the same program.
    Machines,
    /// Its thread in that namespace. Each thread has a filter of its own.
    Inside,
    /// A server of names for containers.
    Names {
        /// Whether it writes its counters to a file.
        report: bool,
    },
    /// A proxy that obtains addresses for containers.
    Leases,
    /// The supervisor of the networks' processes.
    Uplink,
    /// Whoever takes orders for a network of virtual machines, beside the process that carries its packets.
    Control,
    /// A virtual machine's end of such a network, in the machine.
    Forwarder,
    /// Whoever holds private keys and signs with them.
    Keys,
}

/// What becomes of a call that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The process is killed by SIGSYS.
    Enforce,
    /// It is carried out, and the kernel's audit log names it: how the list is checked against real runs.
    Log,
}

/// The calls that slirp4netns lists as blocked (contract §7).
pub const DENIED: [&str; 31] = [
    "execve",
    "execveat",
    "lookup_dcookie",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "delete_module",
    "finit_module",
    "init_module",
    "chroot",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "move_mount",
    "open_tree",
    "pivot_root",
    "umount",
    "umount2",
    "open_by_handle_at",
    "name_to_handle_at",
    "prctl",
    "setns",
    "unshare",
    "kexec_file_load",
    "kexec_load",
    "reboot",
];

/// Puts the filter on this thread.
///
/// # Errors
/// When the kernel has no seccomp, or the architecture is none of x86-64, aarch64, riscv64.
pub fn install(profile: Profile, mode: Mode) -> Result<(), SandboxError> {
    let failed = |error: &dyn std::fmt::Display| {
        SandboxError::new("install the system call filter", io::Error::other(error.to_string()))
    };
    let program = compile(profile, mode).map_err(|e| failed(&e))?;
    // seccompiler sets no-new-privileges first, which the kernel asks of the unprivileged.
    seccompiler::apply_filter(&program).map_err(|e| failed(&e))
}

/// The numbers of all calls that pass, be it with certain arguments only: what traces of real runs are held against.
///
/// # Errors
/// When the architecture is none of those that [`install`] knows.
pub fn allowed(profile: Profile) -> Result<Vec<libc::c_long>, SandboxError> {
    let rules = rules(profile)
        .map_err(|error| SandboxError::new("list the system calls", io::Error::other(error.to_string())))?;
    Ok(rules.into_keys().collect())
}

fn compile(profile: Profile, mode: Mode) -> Result<BpfProgram, seccompiler::BackendError> {
    let otherwise = match mode {
        Mode::Enforce => SeccompAction::KillProcess,
        Mode::Log => SeccompAction::Log,
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules(profile)?, otherwise, SeccompAction::Allow, arch)?.try_into()
}

fn rules(profile: Profile) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let lists = lists::of(profile);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        lists.plain.iter().copied().flatten().map(|call| (*call, Vec::new())).collect();
    let mut admit =
        |call, arguments: &[Arg]| rule(arguments).map(|rule| rules.entry(call).or_default().push(rule));
    for Call(call, arguments) in lists.closed.iter().copied().flatten() {
        admit(*call, arguments)?;
    }
    for socket in lists.sockets {
        admit(libc::SYS_socket, &makes(*socket))?;
    }
    for opt in Opt::ALL.iter().filter(|opt| lists.options && opt.is_for_networks()) {
        admit(libc::SYS_setsockopt, &sets(*opt))?;
    }
    // abort() sends its signal to this very process; nobody else may be sent one.
    admit(libc::SYS_tgkill, &[is(0, std::process::id().cast_signed())])?;
    Ok(rules)
}

fn rule(arguments: &[Arg]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = arguments.iter().map(|argument| {
        let bits = SeccompCmpOp::MaskedEq(argument.bits.into());
        SeccompCondition::new(argument.place, SeccompCmpArgLen::Dword, bits, argument.value.into())
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
