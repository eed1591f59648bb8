//! Stage: system calls. What the event loop does not need ends the process.
//!
//! An allow-list: a call that is not on it is answered by SIGSYS. Each entry names its caller. Lists are of numbers, which
//! differ by architecture, so names that one of them lacks are left out there. Source: seccomp(2); contract slirp4netns §7, whose
//! deny-list ([`DENIED`]) is what users see printed and what no entry here may contain. An entry that nobody calls any more
//! fails a test that traces real runs (`tests/e2e/filter.rs`).
//!
//! The filter is put on the calling thread: install it before any other is started.

use super::SandboxError;
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

/// Calls of every profile.
const ALLOWED: &[libc::c_long] = &[
    // The event loop: host::epoll.
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    // Flows: host::upstream. (socket is below, with its families.)
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    // Listeners and the API socket: portfwd.
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_unlinkat,
    // The link, and the ready byte: host::device.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fcntl,
    // The resolver: reads resolv.conf again when it changes. (openat is below: for reading only.)
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_readlinkat,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Time.
    libc::SYS_clock_gettime,
    // The allocator and the C library.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_ppoll,
    // Signals, and the end, in order or by panic.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit_group,
];

/// Calls that only x86-64 has; elsewhere the C library uses one of the above.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// Calls of a parent: its command ends. What it is told travels through a pipe (`netns/supervise.rs`), so nobody may be
/// sent a signal from here.
const ALLOWED_PARENT: &[libc::c_long] = &[libc::SYS_wait4];

/// Families that socket(2) may make: those of flows. The API listens before the filter, and accept4(2) makes its sockets;
/// without AF_UNIX nothing that listens in /run can be talked to.
const FAMILIES: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];

/// Calls that pass only while some bits of an argument are clear: the argument's place, and the bits.
const BITS_CLEAR: &[(libc::c_long, u8, libc::c_int)] = &[
    // The resolver reads files; nothing is written but what was opened before.
    (libc::SYS_openat, 2, NOT_FOR_READING),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, NOT_FOR_READING),
    // The allocator asks for memory; nobody asks for code.
    (libc::SYS_mmap, 2, libc::PROT_EXEC),
    (libc::SYS_mprotect, 2, libc::PROT_EXEC),
];
/// `O_RDONLY` is the access mode whose bits are clear.
const NOT_FOR_READING: libc::c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

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
    let parent = if profile == Profile::Parent { ALLOWED_PARENT } else { &[] };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).chain(parent).map(|call| (*call, Vec::new())).collect();
    let is = |argument, value: u64| {
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![is])
    };
    let families = FAMILIES
        .iter()
        .map(|family| is(0, u64::try_from(*family).unwrap_or(u64::MAX)))
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, families);
    // `set_nonblocking` of accepted sockets: std does it with ioctl. No other request passes.
    rules.insert(libc::SYS_ioctl, vec![is(1, libc::FIONBIO)?]);
    // abort() sends its signal to this very process; nobody else may be sent one.
    rules.insert(libc::SYS_tgkill, vec![is(0, u64::from(std::process::id()))?]);
    for &(call, argument, bits) in BITS_CLEAR {
        let clear = SeccompCmpOp::MaskedEq(u64::from(bits.cast_unsigned()));
        let clear = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, clear, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![clear])?]);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::Signal;
    use nix::sys::wait::WaitStatus;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn under_filter(profile: Profile, work: impl FnOnce()) -> WaitStatus {
        let child = fork_child(|| {
            install(profile, Mode::Enforce).unwrap();
            work();
            0
        });
        wait_for(child.unwrap()).unwrap()
    }

    #[test]
    fn what_the_loop_does_is_allowed() {
        let events = crate::epoll::EventSet::new().unwrap();
        let status = under_filter(Profile::Network, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).unwrap();
            assert!(std::fs::read("/etc/passwd").is_ok());
            let timeout = Some(std::time::Duration::ZERO);
            events.wait(&mut crate::epoll::Events::default(), timeout).unwrap();
            let big = vec![1u8; 64 << 20];
            assert_eq!(big.last(), Some(&1));
            println!("{:?}", crate::clock::now());
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }

    #[test]
    fn what_it_does_not_do_is_the_end() {
        let attempts: [(&str, fn()); 10] = [
            ("unshare", || {
                let _ = unshare(CloneFlags::CLONE_NEWUTS);
            }),
            ("execve", || {
                let _ = nix::unistd::execv(c"/bin/true", &[c"true"]);
            }),
            ("prctl", || {
                let _ = nix::sys::prctl::set_dumpable(false);
            }),
            ("chroot", || {
                let _ = nix::unistd::chroot("/");
            }),
            ("kill", || {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), None);
            }),
            ("other ioctl", || {
                let _ = crate::sys::tun::open_device(std::path::Path::new("/dev/null"))
                    .and_then(|fd| crate::sys::tun::attachment(std::os::fd::AsFd::as_fd(&fd)));
            }),
            ("unix socket", || {
                use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
                let _ = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None);
            }),
            ("opening for writing", || {
                let _ = std::fs::File::options().write(true).open("/dev/null");
            }),
            ("making a file", || {
                let _ = std::fs::File::options().append(true).create(true).open("/dev/null");
            }),
            ("packet socket", || {
                use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
                drop(socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None));
            }),
        ];
        for (name, attempt) in attempts {
            let status = under_filter(Profile::Network, attempt);
            assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{name}: {status:?}");
        }
        let status = under_filter(Profile::Parent, || {
            assert!(crate::sys::proc::reap().is_err(), "there is no child");
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "a parent may: {status:?}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn nothing_of_the_contracts_list_is_allowed() {
        let denied = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_init_module,
            libc::SYS_chroot,
            libc::SYS_mount,
            libc::SYS_pivot_root,
            libc::SYS_umount2,
            libc::SYS_open_by_handle_at,
            libc::SYS_prctl,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
        ];
        for call in denied {
            assert!(!ALLOWED.contains(&call) && !ALLOWED_HERE.contains(&call), "{call}");
        }
    }
}
