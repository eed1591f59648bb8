//! What the filter lets through, and what ends the process.

use super::*;
use crate::sys::proc::{fork_child, wait_for};
use crate::sys::testing::{fcntl, set_option, socket};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;

const PROFILES: [Profile; 14] = [
    Profile::Network,
    Profile::Parent,
    Profile::Memory,
    Profile::Shortcut,
    Profile::ShortcutParent,
    Profile::Machines,
    Profile::Inside,
    Profile::Names { report: false },
    Profile::Names { report: true },
    Profile::Leases,
    Profile::Uplink,
    Profile::Control,
    Profile::Forwarder,
    Profile::Keys,
];

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

/// Every attempt ends a process of its own.
fn all_end(attempts: &[(&str, fn())]) {
    for (name, attempt) in attempts {
        let status = under_filter(Profile::Network, attempt);
        assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{name}: {status:?}");
    }
}

#[test]
fn what_it_does_not_do_is_the_end() {
    all_end(&[
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
        ("opening for writing", || {
            let _ = std::fs::File::options().write(true).open("/dev/null");
        }),
        ("making a file", || {
            let _ = std::fs::File::options().append(true).create(true).open("/dev/null");
        }),
    ]);
    let status = under_filter(Profile::Parent, || {
        assert!(crate::sys::signal::reap().is_err(), "there is no child");
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "a parent may: {status:?}");
}

/// By SIGIO the kernel sends whatever signal to whomever a descriptor's owner says.
#[test]
fn no_signal_is_sent_by_way_of_a_descriptor() {
    const F_SETSIG: i32 = 10;
    fn on_a_socket(command: i32, argument: i32) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _ = fcntl(socket.as_fd(), command, argument);
    }
    all_end(&[
        ("F_SETOWN", || on_a_socket(libc::F_SETOWN, nix::unistd::getppid().as_raw())),
        ("F_SETSIG", || on_a_socket(F_SETSIG, libc::SIGKILL)),
        ("O_ASYNC", || on_a_socket(libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC)),
        ("F_NOTIFY", || on_a_socket(libc::F_NOTIFY, 1)),
        ("F_SETLEASE", || on_a_socket(libc::F_SETLEASE, libc::F_WRLCK)),
    ]);
    let status = under_filter(Profile::Network, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.try_clone().unwrap();
        for (command, argument) in
            [(libc::F_GETFL, 0), (libc::F_SETFL, libc::O_NONBLOCK), (libc::F_GETFD, 0), (libc::F_SETFD, 1)]
        {
            fcntl(socket.as_fd(), command, argument).unwrap();
        }
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
}

#[test]
fn only_sockets_of_flows_are_made() {
    const SCTP: i32 = libc::IPPROTO_SCTP;
    const FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    for (family, kind, protocol) in [
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, 0),
        (libc::AF_PACKET, libc::SOCK_RAW, 0),
        (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        (libc::AF_INET, libc::SOCK_STREAM, SCTP),
        (libc::AF_INET6, libc::SOCK_SEQPACKET, SCTP),
        (libc::AF_INET, libc::SOCK_DCCP, libc::IPPROTO_DCCP),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
    ] {
        let status = under_filter(Profile::Network, || drop(socket(family, kind | FLAGS, protocol)));
        assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{family} {kind} {protocol}");
    }
    let status = under_filter(Profile::Network, || {
        for (family, kind, protocol) in lists::of(Profile::Network).sockets {
            // Whatever the kernel says: no IPv6 here, no ping for this group.
            drop(socket(*family, kind | FLAGS, *protocol));
            drop(socket(*family, *kind, *protocol));
        }
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
}

#[test]
fn only_options_that_a_network_sets_are_set() {
    let tcp = || socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let others = [
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
        (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
        (libc::SOL_SOCKET, libc::SO_MARK),
        (libc::IPPROTO_TCP, libc::TCP_ULP),
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
        (libc::IPPROTO_TCP, libc::TCP_REPAIR),
    ];
    let refused = Opt::ALL.iter().filter(|opt| !opt.is_for_networks()).map(|opt| opt.number());
    for option in others.into_iter().chain(refused) {
        let status = under_filter(Profile::Network, || {
            let _ = set_option(tcp().as_fd(), option, 1);
        });
        assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{option:?}: {status:?}");
    }
    let status = under_filter(Profile::Network, || {
        for opt in Opt::ALL.iter().filter(|opt| opt.is_for_networks()) {
            // Whatever the kernel says: it is the wrong kind of socket for some.
            let _ = set_option(tcp().as_fd(), opt.number(), 1);
        }
    });
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
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
        for profile in PROFILES {
            // Into networks, and nowhere else: `lists.rs`.
            if profile == Profile::Leases && call == libc::SYS_setns {
                continue;
            }
            assert!(!allowed(profile).unwrap().contains(&call), "{profile:?} {call}");
        }
    }
}
