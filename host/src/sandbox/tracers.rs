//! Stage: tracers. Nobody looks or reaches into this process but who may do so on the whole machine.
//!
//! ptrace(2), process_vm_writev(2), pidfd_getfd(2) and `/proc/PID/mem` are one question to the kernel: is it the same
//! user, or somebody with CAP_SYS_PTRACE in the process's user namespace? Once we are in the guest's user namespace,
//! that is the guest's root, who would make our sockets do what the network does not let him: reach the host's
//! loopback, for instance. About a process that is not *dumpable*, the kernel asks in the user namespace that it was
//! executed in, which is the host's (ptrace(2), "Ptrace access mode checking").
//!
//! So this comes before that namespace is joined; and once more behind it, for a change of ids puts the setting of the
//! machine (`fs.suid_dumpable`) in its place. execve(2) takes it back, so a command that we start is as any other.
//!
//! The price: no core file, no debugger but root's, and `/proc/PID` belongs to root.
//!
//! Limit: a process that was executed in the guest's user namespace, as some container engines do, is asked about
//! there. It is safe from all others of that user, but not from a guest with CAP_SYS_PTRACE; containers do not get that
//! unless asked for.

use super::SandboxError;

/// Keeps them out. Asking twice is no error.
///
/// # Errors
/// The kernel never refuses; a filter of system calls around us may.
pub fn keep_out() -> Result<(), SandboxError> {
    nix::sys::prctl::set_dumpable(false).map_err(|error| SandboxError::new("keep tracers out", error))
}

/// Lets the same user in again: for a process in a user namespace of its own, where nobody has a hold on it but who has
/// one on the whole user. A guest's root in another namespace is refused for that alone.
///
/// # Errors
/// As [`keep_out`].
pub fn let_the_user_in() -> Result<(), SandboxError> {
    nix::sys::prctl::set_dumpable(true).map_err(|error| SandboxError::new("let the user look in", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::errno::Errno;
    use nix::sys::prctl::set_dumpable;
    use nix::sys::ptrace;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Gid, Pid, Uid, geteuid, pipe, read, setgid, setuid, write};

    /// What ptrace(2) says to a process of the same user, about one that has done `work`.
    fn tracing_one_that(work: fn()) -> Result<(), Errno> {
        let (ready, told) = pipe().unwrap();
        let become_user = || {
            if geteuid().is_root() {
                setgid(Gid::from_raw(65534)).unwrap();
                setuid(Uid::from_raw(65534)).unwrap();
            }
            set_dumpable(true).unwrap();
        };
        let traced = fork_child(|| {
            become_user();
            work();
            write(&told, b"1").unwrap();
            std::thread::sleep(std::time::Duration::from_secs(30));
            0
        });
        let traced = traced.unwrap();
        read(&ready, &mut [0]).unwrap();
        let tracer = fork_child(|| {
            become_user();
            match ptrace::attach(traced) {
                Ok(()) => 0,
                Err(errno) => u8::try_from(errno as i32).unwrap(),
            }
        });
        let status = wait_for(tracer.unwrap()).unwrap();
        kill(traced, Signal::SIGKILL).unwrap();
        wait_for(traced).unwrap();
        match status {
            nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
            nix::sys::wait::WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn not_even_the_same_user_traces_it() {
        if tracing_one_that(|| ()) != Ok(()) {
            println!("SKIP not_even_the_same_user_traces_it: this machine refuses tracing anyway (Yama)");
            return;
        }
        assert_eq!(tracing_one_that(|| keep_out().unwrap()), Err(Errno::EPERM));
        // What we need of /proc is there all the same.
        let status = fork_child(|| {
            keep_out().unwrap();
            let fds = std::fs::read_dir("/proc/self/fd").is_ok();
            let program = std::fs::read_link("/proc/self/exe").is_ok();
            let namespace = std::fs::File::open("/proc/self/ns/net").is_ok();
            u8::from(!(fds && program && namespace && Pid::this().as_raw() > 1))
        });
        assert!(matches!(wait_for(status.unwrap()).unwrap(), nix::sys::wait::WaitStatus::Exited(_, 0)));
    }
}
