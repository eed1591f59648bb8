//! Commands in namespaces of their own, as root and as nobody.

use super::super::Configure;
use super::super::testing::{NOBODY, ended, unprivileged};
use super::*;
use crate::sys::proc::wait_for;
use nix::sys::signal::kill;
use nix::sys::wait::WaitStatus;
use nix::unistd::pipe2;
use slipway_netstack::config::Mtu;
use std::time::Duration;

fn command(words: &[&str]) -> Command {
    Command {
        words: words.iter().map(OsString::from).collect(),
        identity: Identity::Root,
        hostname: Some("inside".to_owned()),
        resolv_conf: Some("nameserver 192.0.2.3\n".to_owned()),
        resolv_conf_needed: true,
        argv0: None,
        apart: false,
        inheritance: Inheritance::current().unwrap(),
    }
}

fn start(command: &Command) -> Result<(Opened, Running), NetnsError> {
    spawn(command, "tap3", &Setup::Configure(Configure { mtu: Mtu::ETHERNET, mac: None, v4: None, v6: None }))
}

/// Namespaces for `words`, unless the machine cannot.
fn ready(name: &str, words: &[&str]) -> Option<(Opened, Running)> {
    skipping(name, start(&command(words)))
}

fn skipping(name: &str, result: Result<(Opened, Running), NetnsError>) -> Option<(Opened, Running)> {
    match result {
        Err(error) if ["/dev/net/tun", "namespace"].iter().any(|word| error.to_string().contains(word)) => {
            println!("SKIP {name}: {error}");
            None
        }
        result => Some(result.unwrap()),
    }
}

#[test]
fn a_command_finds_what_was_prepared() {
    let script = "test \"$(id -u)\" = 0 && test \"$(cat /proc/sys/kernel/hostname)\" = inside \
                  && grep -q 192.0.2.3 /etc/resolv.conf && test -e /sys/class/net && grep -q tap3 /proc/net/dev \
                  && ls /tmp >/dev/null && exit 7";
    let Some((opened, mut running)) = ready("a_command_finds_what_was_prepared", &["sh", "-c", script])
    else {
        return;
    };
    assert_eq!(opened.tap.name(), "tap3");
    running.start().unwrap();
    assert_eq!(running.wait().unwrap(), Outcome::Exited(7));
}

#[test]
fn what_cannot_be_executed_is_told() {
    for (program, expected) in [("/no/such/program", Errno::ENOENT), ("/etc/passwd", Errno::EACCES)] {
        let Some((_, mut running)) = ready("what_cannot_be_executed_is_told", &[program]) else { return };
        match running.start() {
            Err(StartError::Exec { program: named, errno }) => {
                assert_eq!((named.as_str(), errno), (program, expected));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn signals_reach_it_and_dropping_kills() {
    let name = "signals_reach_it_and_dropping_kills";
    let Some((_, mut running)) = ready(name, &["sleep", "30"]) else { return };
    running.start().unwrap();
    running.signal(Signal::SIGTERM as i32);
    assert_eq!(running.wait().unwrap(), Outcome::Signaled(Signal::SIGTERM as i32));
    let Some((_, running)) = ready(name, &["sleep", "30"]) else { return };
    let child = running.keeper;
    drop(running);
    assert_eq!(kill(child, None), Err(Errno::ESRCH), "even before it was started");
}

/// A shell that waits for its own child: killing the shell alone would leave `sleep` behind.
#[test]
fn nothing_outlives_a_parent_that_is_killed() {
    let name = "nothing_outlives_a_parent_that_is_killed";
    let (reader, writer) = pipe2(OFlag::empty()).unwrap();
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).unwrap();
    let parent = fork_child(|| {
        let Some((_, mut running)) = ready(name, &["sh", "-c", "sleep 30; true"]) else { return 0 };
        running.start().unwrap();
        std::thread::sleep(Duration::from_secs(30));
        0
    })
    .unwrap();
    // Whoever lives has inherited it.
    drop(writer);
    std::thread::sleep(Duration::from_millis(300));
    kill(parent, Signal::SIGKILL).unwrap();
    wait_for(parent).unwrap();
    assert!(ended(reader.as_fd()));
}

#[test]
fn the_parents_own_namespaces_stay() {
    let before = fs::read_link("/proc/self/ns/net").unwrap();
    let Some((_, running)) = ready("the_parents_own_namespaces_stay", &["true"]) else { return };
    let inside = fs::read_link(format!("/proc/{}/ns/net", running.keeper)).unwrap();
    assert_ne!(inside, before);
    assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), before);
}

#[test]
fn one_that_is_apart_sees_itself_alone() {
    let name = "one_that_is_apart_sees_itself_alone";
    // The kernel shows what it was executed as: a login shell.
    let script =
        "cd /proc && set -- [0-9]* && test $$ = 1 && test \"$*\" = 1 && grep -qz '^-sh$' 1/cmdline && exit 9";
    let wanted = Command { argv0: Some("-sh".into()), apart: true, ..command(&["sh", "-c", script]) };
    unprivileged(name, || {
        let Some((_, mut running)) = skipping(name, start(&wanted)) else { return };
        running.start().unwrap();
        assert_eq!(running.wait().unwrap(), Outcome::Exited(9));
    });
}

#[test]
fn the_namespaces_alone_are_those_of_the_command() {
    let made = match spawn_in_namespaces(&command(&["sleep", "30"])) {
        Err(error) if error.to_string().contains("namespace") => {
            println!("SKIP the_namespaces_alone_are_those_of_the_command: {error}");
            return;
        }
        made => made.unwrap(),
    };
    let (Namespaces { user, net }, mut running) = made;
    running.start().unwrap();
    for (fd, kind) in [(user, "user"), (net, "net")] {
        let held = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let its = fs::read_link(format!("/proc/{}/ns/{kind}", running.keeper)).unwrap();
        assert_eq!(held, its, "{kind}");
    }
}

#[test]
fn what_stays_in_the_background_is_ended() {
    let name = "what_stays_in_the_background_is_ended";
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = "(sleep 30 & echo $! >\"$0\"; sleep 30) & while ! test -s \"$0\"; do :; done; exit 4";
    let path = file.path().to_str().unwrap();
    // In a process of its own: the other tests of this one have children too.
    let parent = fork_child(|| {
        let Some((_, mut running)) = ready(name, &["sh", "-c", script, path]) else { return 0 };
        running.start().unwrap();
        assert_eq!(running.wait().unwrap(), Outcome::Exited(4));
        let grandchild: i32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
        assert_eq!(kill(Pid::from_raw(grandchild), None), Err(Errno::ESRCH));
        0
    })
    .unwrap();
    assert!(matches!(wait_for(parent).unwrap(), WaitStatus::Exited(_, 0)));
}

#[test]
fn a_failed_start_leaves_nobody() {
    let name = "a_failed_start_leaves_nobody";
    let parent = fork_child(|| {
        let Some((_, mut running)) = ready(name, &["/no/such/program"]) else { return 0 };
        assert!(running.start().is_err());
        drop(running);
        assert_eq!(signal::reap().unwrap_err().raw_os_error(), Some(Errno::ECHILD as i32));
        0
    })
    .unwrap();
    assert!(matches!(wait_for(parent).unwrap(), WaitStatus::Exited(_, 0)));
}

#[test]
fn the_command_has_the_usual_signals() {
    // Blocked and ignored signals as bit masks: none may be left over from keeper or parent.
    let script = "grep -q 'SigBlk:.0000000000000000' /proc/self/status && \
                  ! grep 'SigIgn:.*1[0-9a-f]\\{3\\}$' /proc/self/status && kill -PIPE $$";
    let Some((_, mut running)) = ready("the_command_has_the_usual_signals", &["sh", "-c", script]) else {
        return;
    };
    running.start().unwrap();
    assert_eq!(running.wait().unwrap(), Outcome::Signaled(Signal::SIGPIPE as i32));
}

#[test]
fn without_privileges_one_is_root_inside() {
    let name = "without_privileges_one_is_root_inside";
    unprivileged(name, || {
        let script = "test $(id -u) = 0 && grep -q 192.0.2.3 /etc/resolv.conf && test $(hostname) = inside && \
                      ping -c 1 -W 2 127.0.0.1 >/dev/null && \
                      test \"$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start)\" = 0 && exit 5";
        let Some((opened, mut running)) = ready(name, &["sh", "-c", script]) else { return };
        assert_eq!(opened.tap.name(), "tap3");
        running.start().unwrap();
        assert_eq!(running.wait().unwrap(), Outcome::Exited(5));
    });
}

#[test]
fn without_privileges_one_stays_oneself_if_wanted() {
    let name = "without_privileges_one_stays_oneself_if_wanted";
    unprivileged(name, || {
        let uid = geteuid();
        let script = format!("test $(id -u) = {uid} && grep -q 'CapEff:.0000000000000000' /proc/self/status");
        let wanted = Command { identity: Identity::Unchanged, ..command(&["sh", "-c", &script]) };
        let Some((_, mut running)) = skipping(name, start(&wanted)) else { return };
        running.start().unwrap();
        assert_eq!(running.wait().unwrap(), Outcome::Exited(0));
    });
}

#[test]
fn a_user_without_namespaces_learns_why() {
    let name = "a_user_without_namespaces_learns_why";
    unprivileged(name, || {
        // The limit counts for what is made below the namespace that it is set in.
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        map_ids(Identity::Unchanged, NOBODY.0, NOBODY.1).unwrap();
        fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        let line = start(&command(&["true"])).unwrap_err().to_string();
        assert_eq!(
            line,
            "cannot make a user namespace: No space left on device: they are switched off; \
             as root: sysctl -w user.max_user_namespaces=15000"
        );
    });
}

#[test]
fn a_container_that_forbids_namespaces_is_told_apart() {
    let name = "a_container_that_forbids_namespaces_is_told_apart";
    unprivileged(name, || {
        forbid_unshare();
        let line = start(&command(&["true"])).unwrap_err().to_string();
        assert!(line.starts_with("cannot make a user namespace: Operation not permitted: "), "{line}");
        assert!(line.contains("seccomp") || line.contains("sysctl"), "{line}");
    });
}

/// What the seccomp profile of a container engine does.
fn forbid_unshare() {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
    let refuse = SeccompAction::Errno(Errno::EPERM as u32);
    let rules = [(libc::SYS_unshare, Vec::new())].into_iter().collect();
    let arch: TargetArch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
