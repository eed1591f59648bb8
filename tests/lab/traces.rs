//! What system calls a program makes once its filter is on, as strace(1) sees them, and how that is held against a
//! list.
//!
//! Both ways: whatever is called is on the list (the filter itself sees to that: a call that is not would end the
//! process), and whatever is on the list is called, or is excused with a reason. So a list cannot grow stale.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::libc::{self, c_long};

/// What no run need call, whatever the program.
const RARE: &[(c_long, &str)] = &[
    (libc::SYS_epoll_pwait, "before Linux 5.11 there is no epoll_pwait2"),
    (libc::SYS_epoll_pwait2, "tokio does without"),
    (libc::SYS_fcntl, "the standard library's checks of descriptors, in builds with assertions"),
    (libc::SYS_newfstatat, "the C library's stat, where it is not statx"),
    (libc::SYS_fstat, "the C library's stat, where it is not statx"),
    (libc::SYS_statx, "the C library's stat, where it is one of the others"),
    (libc::SYS_lseek, "reading a file whose size is not told"),
    (libc::SYS_readlinkat, "a resolv.conf behind a symbolic link; x86-64 has readlink as well"),
    (libc::SYS_unlinkat, "a file that is removed; x86-64 has unlink as well"),
    (libc::SYS_inotify_rm_watch, "a resolv.conf whose directory changes"),
    (libc::SYS_clock_gettime, "where the clock needs a system call"),
    (libc::SYS_ppoll, "the C library's poll, off x86-64"),
    (libc::SYS_brk, "the allocator"),
    (libc::SYS_munmap, "the allocator"),
    (libc::SYS_mremap, "the allocator"),
    (libc::SYS_madvise, "the allocator"),
    (libc::SYS_mmap, "the allocator"),
    (libc::SYS_mprotect, "the allocator"),
    (libc::SYS_futex, "the C library's locks"),
    (libc::SYS_rseq, "the C library"),
    (libc::SYS_sched_yield, "the standard library's locks"),
    (libc::SYS_getrandom, "the keys of a hash table, with its first use"),
    (libc::SYS_restart_syscall, "the kernel, after a stop"),
    (libc::SYS_write, "what a panic says"),
    (libc::SYS_rt_sigaction, "abort(3), after a panic"),
    (libc::SYS_rt_sigprocmask, "abort(3), after a panic"),
    (libc::SYS_getpid, "abort(3), after a panic"),
    (libc::SYS_gettid, "abort(3), after a panic"),
    (libc::SYS_tgkill, "abort(3), after a panic"),
    (libc::SYS_rt_sigreturn, "the handler of a stack overflow"),
    (libc::SYS_sigaltstack, "the end of a thread that has a handler"),
];

/// What only x86-64 has, for C libraries that still call it.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// The words in front of a command that is to be traced into a file, with what it starts. The tracer stands aside: the
/// process is the command.
#[must_use]
pub fn traced(trace: &Path) -> Vec<String> {
    let mut words = traced_alone(trace);
    words.push("-f".to_owned());
    words
}

/// The same without what it starts.
#[must_use]
pub fn traced_alone(trace: &Path) -> Vec<String> {
    let trace = trace.to_string_lossy();
    ["strace", "-DD", "-n", "-qq", "-s", "0", "-o", &trace].map(str::to_owned).to_vec()
}

/// The calls that the traced processes made after each of them had put its filter on.
///
/// # Panics
///
/// When nobody put on a filter.
#[must_use]
pub fn under_filter(trace: &Path) -> BTreeSet<c_long> {
    under_filters(trace).into_values().flatten().collect()
}

/// The same, process by process: by the number of each, or 0 where there is only one.
///
/// # Panics
///
/// When nobody put on a filter.
#[must_use]
pub fn under_filters(trace: &Path) -> BTreeMap<u32, BTreeSet<c_long>> {
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    let mut filtered: BTreeMap<u32, BTreeSet<c_long>> = BTreeMap::new();
    for line in text.lines() {
        // PID [ NUMBER] name(arguments) = result; without the number of the process, if there is one only.
        let (pid, rest) = if line.starts_with('[') {
            (0, line)
        } else {
            let (pid, rest) = line.split_once(char::is_whitespace).unwrap_or_default();
            (pid.parse().unwrap_or(0), rest)
        };
        let Some((number, call)) = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("] "))
        else {
            continue;
        };
        // What another thread's line cut in two was counted where it began, perhaps before the filter.
        if call.starts_with("<... ") {
            continue;
        }
        if let Some(calls) = filtered.get_mut(&pid) {
            calls.extend(number.trim().parse::<c_long>());
        }
        if call.starts_with("seccomp(") {
            filtered.entry(pid).or_default();
        }
    }
    assert!(!filtered.is_empty(), "nobody put on a filter:\n{text}");
    filtered
}

/// Holds calls against a list; `rare` is what this program need not call in a run.
///
/// # Panics
///
/// With what is wrong.
pub fn hold(called: &BTreeSet<c_long>, list: impl IntoIterator<Item = c_long>, rare: &[(c_long, &str)]) {
    let list: BTreeSet<_> = list.into_iter().collect();
    let strangers: Vec<_> = called.difference(&list).collect();
    assert!(strangers.is_empty(), "called, and not on the list: {strangers:?}");
    let excused: BTreeSet<_> =
        RARE.iter().chain(rare).map(|(call, _)| *call).chain(OLD.iter().copied()).collect();
    let stale: Vec<_> = list.difference(called).filter(|call| !excused.contains(call)).collect();
    assert!(stale.is_empty(), "on the list, and called by nobody: {stale:?}");
    let idle: Vec<_> = rare.iter().filter(|(call, _)| !list.contains(call)).collect();
    assert!(idle.is_empty(), "excused, and not on the list: {idle:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_another_thread_cut_is_counted_where_it_began() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        let text = "7 [ 202] futex(0x1 <unfinished ...>\n\
                    7 [ 317] seccomp(SECCOMP_SET_MODE_FILTER, 0, {len=9} <unfinished ...>\n\
                    8 [   1] write(1, \"\", 1) = 1\n\
                    7 [ 317] <... seccomp resumed>) = 0\n\
                    7 [   0] read(3 <unfinished ...>\n\
                    7 [   0] <... read resumed>, \"\", 1) = 1\n";
        std::fs::write(&trace, text).unwrap();
        assert_eq!(under_filter(&trace), BTreeSet::from([libc::SYS_read]));
        assert_eq!(under_filters(&trace), BTreeMap::from([(7, BTreeSet::from([libc::SYS_read]))]));
    }
}
