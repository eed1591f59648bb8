//! What passes the filter: each call beside whoever makes it.
//!
//! A list of plain numbers passes whatever the arguments are. Calls that are doors to more than one room are [`Call`]s,
//! and pass only as they are written down here. What every program needs stands first, then a section for each profile.

use super::Profile;
use crate::sys::sockopt::Opt;
use nix::libc::{self, c_int, c_long};

/// A call that passes when its arguments are such. Of several entries of one call any will do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call(pub(super) c_long, pub(super) &'static [Arg]);

/// What an argument must be, in these bits; the kernel takes an int here and looks at no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arg {
    pub(super) place: u8,
    pub(super) bits: u32,
    pub(super) value: u32,
}

/// The argument is this number.
pub(super) const fn is(place: u8, value: c_int) -> Arg {
    Arg { place, bits: u32::MAX, value: value.cast_unsigned() }
}

/// None of these bits is set.
const fn clear(place: u8, bits: c_int) -> Arg {
    Arg { place, bits: bits.cast_unsigned(), value: 0 }
}

/// What a profile lets pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lists {
    pub(super) plain: &'static [&'static [c_long]],
    pub(super) closed: &'static [&'static [Call]],
    pub(super) sockets: &'static [Socket],
    /// Whether every option passes that a network sets.
    pub(super) options: bool,
}

/// The lists of a profile.
pub(super) const fn of(profile: Profile) -> Lists {
    match profile {
        Profile::Network => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NETWORK, FILES, FILES_HERE],
            closed: &[MEMORY, COMMON_CLOSED, READING, NETWORK_CLOSED],
            sockets: FLOWS,
            options: true,
        },
        Profile::Parent => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NETWORK, FILES, FILES_HERE, PARENT],
            ..of(Profile::Network)
        },
        Profile::Memory => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NETWORK, FILES, FILES_HERE, SHARED],
            ..of(Profile::Network)
        },
        Profile::Shortcut => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NETWORK, FILES, FILES_HERE, SHORTCUT],
            closed: &[MEMORY, COMMON_CLOSED, READING, NETWORK_CLOSED, SHORTCUT_CLOSED],
            ..of(Profile::Network)
        },
        Profile::ShortcutParent => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NETWORK, FILES, FILES_HERE, SHORTCUT, PARENT],
            ..of(Profile::Shortcut)
        },
        Profile::Machines => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NETWORK, FILES, FILES_HERE, MACHINES],
            closed: &[MEMORY, COMMON_CLOSED, READING, NETWORK_CLOSED, MACHINES_CLOSED],
            ..of(Profile::Network)
        },
        Profile::Inside => Lists {
            plain: &[THREAD, INSIDE],
            closed: &[MEMORY, INSIDE_CLOSED],
            sockets: BORDER,
            options: true,
        },
        Profile::Names { report: false } => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NAMES, FILES, FILES_HERE],
            closed: &[MEMORY, COMMON_CLOSED, READING, NAMES_CLOSED],
            sockets: QUERIES,
            options: false,
        },
        Profile::Names { report: true } => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, NAMES, FILES, FILES_HERE, REPLACING],
            closed: &[MEMORY, COMMON_CLOSED, NAMES_CLOSED],
            ..of(Profile::Names { report: false })
        },
        Profile::Uplink => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, UPLINK, UPLINK_HERE],
            closed: &[MEMORY, COMMON_CLOSED, READING, UPLINK_CLOSED],
            sockets: &[],
            options: false,
        },
        Profile::Control => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, CONTROL],
            closed: &[MEMORY, COMMON_CLOSED, READING],
            sockets: &[(libc::AF_UNIX, libc::SOCK_STREAM, 0)],
            options: false,
        },
        Profile::Forwarder => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, FORWARDER, FILES, FILES_HERE, REPLACING],
            closed: &[MEMORY, COMMON_CLOSED, FORWARDER_CLOSED],
            sockets: ENDS,
            options: false,
        },
        Profile::Keys => Lists {
            plain: &[THREAD, KEYS],
            closed: &[MEMORY, COMMON_CLOSED, READING],
            sockets: &[],
            options: false,
        },
        Profile::Leases => Lists {
            plain: &[THREAD, COMMON, COMMON_HERE, LEASES, FILES, FILES_HERE, REPLACING],
            closed: &[MEMORY, COMMON_CLOSED, LEASES_CLOSED],
            sockets: LINKS,
            options: false,
        },
    }
}

/// A socket that may be made: family, type, protocol.
pub(super) type Socket = (c_int, c_int, c_int);

/// The arguments of socket(2) that make it. How the descriptor behaves is no matter.
pub(super) const fn makes((family, kind, protocol): Socket) -> [Arg; 3] {
    let kind = Arg { bits: !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned(), ..is(1, kind) };
    [is(0, family), kind, is(2, protocol)]
}

/// The arguments of setsockopt(2) that set it.
pub(super) const fn sets(opt: Opt) -> [Arg; 2] {
    let (level, name) = opt.number();
    [is(1, level), is(2, name)]
}

/// Calls of every program.
const COMMON: &[c_long] = &[
    // The event loop: host::epoll, tokio.
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    // Sockets of all kinds. (socket and setsockopt are in other lists, with their arguments.)
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    // The C library.
    libc::SYS_ppoll,
];

/// Calls of every thread.
const THREAD: &[c_long] = &[
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
const COMMON_HERE: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const COMMON_HERE: &[c_long] = &[];

/// The allocator asks for memory; nobody asks for code.
const MEMORY: &[Call] = &[
    Call(libc::SYS_mmap, &[clear(2, libc::PROT_EXEC)]),
    Call(libc::SYS_mprotect, &[clear(2, libc::PROT_EXEC)]),
];

/// Calls of every program whose arguments count.
const COMMON_CLOSED: &[Call] = &[
    // `set_nonblocking` of accepted sockets: std does it with ioctl.
    Call(libc::SYS_ioctl, &[is(1, FIONBIO)]),
    // Descriptors: std's checks, copies, and the TAP that became non-blocking. Neither F_SETOWN, F_SETSIG nor O_ASYNC:
    // by those the kernel would send any signal to any process of this user.
    Call(libc::SYS_fcntl, &[is(1, libc::F_GETFD)]),
    Call(libc::SYS_fcntl, &[is(1, libc::F_SETFD)]),
    Call(libc::SYS_fcntl, &[is(1, libc::F_GETFL)]),
    Call(libc::SYS_fcntl, &[is(1, libc::F_SETFL), clear(2, libc::O_ASYNC)]),
    Call(libc::SYS_fcntl, &[is(1, libc::F_DUPFD_CLOEXEC)]),
];

/// Calls of a network's process whose arguments count: how much is queued, by which urgent data is found.
const NETWORK_CLOSED: &[Call] = &[Call(libc::SYS_ioctl, &[is(1, FIONREAD)])];

/// The requests' numbers, which are no int everywhere.
const FIONBIO: c_int = 0x5421;
const FIONREAD: c_int = 0x541b;

/// Files that are read: the resolver's, which follows resolv.conf. And files that are removed: the API socket's, the
/// PID file.
const FILES: &[c_long] = &[
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_readlinkat,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_unlinkat,
];
/// The same by names that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const FILES_HERE: &[c_long] = &[libc::SYS_stat, libc::SYS_lstat, libc::SYS_readlink, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const FILES_HERE: &[c_long] = &[];

/// Files are opened to be read; nothing is written but what was opened before.
const READING: &[Call] = &[
    Call(libc::SYS_openat, &[clear(2, NOT_FOR_READING)]),
    #[cfg(target_arch = "x86_64")]
    Call(libc::SYS_open, &[clear(1, NOT_FOR_READING)]),
];
/// `O_RDONLY` is the access mode whose bits are clear.
const NOT_FOR_READING: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

/// Files are replaced whole: opened, written, renamed. Where, is for Landlock to say ([`super::super::files`]).
const REPLACING: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(not(target_arch = "riscv64"))]
    libc::SYS_renameat,
];

/// A network: what it does beyond all others.
const NETWORK: &[c_long] = &[
    // Flows: host::upstream.
    libc::SYS_shutdown,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    // Listeners and the API socket: portfwd.
    libc::SYS_listen,
    libc::SYS_getsockname,
    // The link, and the ready byte: host::device.
    libc::SYS_readv,
    libc::SYS_writev,
    // The end of a capture on a full disk: host::device::pcap.
    libc::SYS_ftruncate,
];

/// Whether a guest's socket that was handed over has another end: host::device::seqpacket.
const MACHINES: &[c_long] = &[libc::SYS_getpeername];

/// Connections with a service of the program's own: host::driver::services. The room that a guest's socket has.
const MACHINES_CLOSED: &[Call] = &[
    Call(libc::SYS_socketpair, &[is(0, libc::AF_UNIX)]),
    Call(libc::SYS_setsockopt, &sets(Opt::SEND_BUFFER)),
];

/// A machine that shares its memory (`host/src/device/vhost_user`). What it passes is mapped, which [`MEMORY`] lets
/// pass already, and never to be run; each one that comes has an epoll set of its own.
const SHARED: &[c_long] = &[libc::SYS_epoll_create1];

/// The shortcut between host and namespace (`host/src/splice`): from one socket to the other by way of a pipe.
const SHORTCUT: &[c_long] = &[libc::SYS_splice, libc::SYS_pipe2];

/// How much a pipe holds.
const SHORTCUT_CLOSED: &[Call] = &[
    Call(libc::SYS_fcntl, &[is(1, libc::F_SETPIPE_SZ)]),
    Call(libc::SYS_fcntl, &[is(1, libc::F_GETPIPE_SZ)]),
];

/// The thread in the guest's namespace (`host/src/inside`), which makes sockets for the event loop. No call here
/// takes a path or accepts a connection.
const INSIDE: &[c_long] = &[
    // Listeners: portfwd. What they are asked about is how they are bound.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_getsockname,
    // Requests: host::netlink, whose sockets are connected with the kernel.
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    // The bell; a line of the log, whose file is bounded.
    libc::SYS_write,
    libc::SYS_lseek,
    libc::SYS_read,
    libc::SYS_ftruncate,
    libc::SYS_close,
    // The end of the thread alone.
    libc::SYS_exit,
];

/// What the thread inside does with certain arguments only.
const INSIDE_CLOSED: &[Call] = &[
    // std's checks before it closes.
    Call(libc::SYS_fcntl, &[is(1, libc::F_GETFD)]),
    // host::netlink
    Call(libc::SYS_setsockopt, &sets(Opt::STRICT_CHECKING)),
    Call(libc::SYS_setsockopt, &sets(Opt::SHORT_ACKNOWLEDGEMENTS)),
];

/// Sockets of the guest's namespace: pools, listeners, netlink.
const BORDER: &[Socket] = &[
    (libc::AF_INET, libc::SOCK_STREAM, 0),
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_DGRAM, 0),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::AF_INET6, libc::SOCK_STREAM, 0),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET6, libc::SOCK_DGRAM, 0),
    (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
    (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG),
];

/// A parent: its command ends. What it is told travels through a pipe (`netns/supervise.rs`), so nobody may be sent a
/// signal from here.
const PARENT: &[c_long] = &[libc::SYS_wait4];

/// Sockets of flows: host::upstream. The API listens before the filter, and accept4(2) makes its sockets; without
/// AF_UNIX nothing that listens in /run can be talked to, and a protocol that is not named here has its module loaded
/// by nobody.
const FLOWS: &[Socket] = &[
    (libc::AF_INET, libc::SOCK_STREAM, 0),
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_DGRAM, 0),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
    (libc::AF_INET6, libc::SOCK_STREAM, 0),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET6, libc::SOCK_DGRAM, 0),
    (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
];

/// The DNS server (`dns/src/aardvark`).
const NAMES: &[c_long] = &[
    // Listeners of networks that come later: listener.
    libc::SYS_listen,
    // Questions and answers in trains: udp.
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    // What has changed of the host's network: host::netlink::monitor.
    libc::SYS_recvmsg,
    // The directory of the configuration: reload.
    libc::SYS_getdents64,
];

/// Options of the DNS server's sockets.
const NAMES_CLOSED: &[Call] = &[
    // listener
    Call(libc::SYS_setsockopt, &sets(Opt::RECEIVE_BUFFER)),
    Call(libc::SYS_setsockopt, &sets(Opt::REUSE_ADDRESS)),
    // tcp
    Call(libc::SYS_setsockopt, &sets(Opt::NO_DELAY)),
    // A nameserver's interface: host::scope.
    Call(libc::SYS_setsockopt, &sets(Opt::DEVICE)),
];

/// Sockets of the DNS server: listener, exchange. The one to the system's log is made before.
const QUERIES: &[Socket] = &[
    (libc::AF_INET, libc::SOCK_STREAM, 0),
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_DGRAM, 0),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::AF_INET6, libc::SOCK_STREAM, 0),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET6, libc::SOCK_DGRAM, 0),
    (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
];

/// The DHCP proxy (`netavark-plugin/src/dhcp`).
const LEASES: &[c_long] = &[
    // Callers: tokio, tonic.
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_writev,
    // The opener: opener. Answers of the kernel: host::netlink.
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    // The ends of leases: timer.
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

/// What the DHCP proxy does with certain arguments only.
const LEASES_CLOSED: &[Call] = &[
    // Into a container's network and back: namespaces. Into no namespace of another kind.
    Call(libc::SYS_setns, &[is(1, libc::CLONE_NEWNET)]),
    // host::netlink
    Call(libc::SYS_setsockopt, &sets(Opt::STRICT_CHECKING)),
    Call(libc::SYS_setsockopt, &sets(Opt::SHORT_ACKNOWLEDGEMENTS)),
    // host::sys::packet
    Call(libc::SYS_setsockopt, &[is(1, libc::SOL_SOCKET), is(2, libc::SO_ATTACH_FILTER)]),
    Call(libc::SYS_setsockopt, &[is(1, libc::SOL_PACKET), is(2, libc::PACKET_ADD_MEMBERSHIP)]),
];

/// Sockets of the DHCP proxy: host::netlink, host::sys::packet.
const LINKS: &[Socket] =
    &[(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE), (libc::AF_PACKET, libc::SOCK_RAW, 0)];

/// The end of a network in a virtual machine (`gvproxy/src/forwarder`).
const FORWARDER: &[c_long] = &[
    // The TAP: host::device.
    libc::SYS_readv,
    libc::SYS_writev,
    // What the lease makes of the interface: host::netlink.
    libc::SYS_recvmsg,
    // When it is to be renewed: dhcp::lessee.
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

/// What it does with certain arguments only.
const FORWARDER_CLOSED: &[Call] = &[
    // An interface that somebody has deleted is made anew, and what is asked of one changes: host::sys::tun.
    Call(libc::SYS_ioctl, &[request(TUNSETIFF)]),
    Call(libc::SYS_ioctl, &[request(TUNGETIFF)]),
    Call(libc::SYS_ioctl, &[request(TUNSETOFFLOAD)]),
    Call(libc::SYS_ioctl, &[request(TUNSETVNETHDRSZ)]),
    // host::netlink
    Call(libc::SYS_setsockopt, &sets(Opt::STRICT_CHECKING)),
    Call(libc::SYS_setsockopt, &sets(Opt::SHORT_ACKNOWLEDGEMENTS)),
    // host::sys::packet
    Call(libc::SYS_setsockopt, &[is(1, libc::SOL_SOCKET), is(2, libc::SO_ATTACH_FILTER)]),
];

/// A request of ioctl(2).
const fn request(number: u32) -> Arg {
    Arg { place: 1, bits: u32::MAX, value: number }
}

const TUNSETIFF: u32 = 0x4004_54ca;
const TUNGETIFF: u32 = 0x8004_54d2;
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;

/// Sockets of it: to the network, netlink, DHCP.
const ENDS: &[Socket] = &[
    (libc::AF_UNIX, libc::SOCK_STREAM, 0),
    (libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
    (libc::AF_PACKET, libc::SOCK_RAW, 0),
];

/// The supervisor of the uplink (`slipway/src/uplink`).
const UPLINK: &[c_long] = &[
    // Requests, orders to workers and to their starter, and what goes with them: host::sys::fdpass.
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    // Nothing more is said to a worker, whose last word is waited for: orders.
    libc::SYS_shutdown,
    // Whether a client is of our user: socket.
    libc::SYS_geteuid,
    // What kind of descriptor came with a request: publications. Which socket is to be removed: supervisor.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_getsockname,
    // Sockets that nobody answers behind any more: supervisor.
    libc::SYS_unlinkat,
];
/// The same by names that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const UPLINK_HERE: &[c_long] = &[libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const UPLINK_HERE: &[c_long] = &[];

/// A line to a worker is a pair of sockets, on which the supervisor does not wait for ever: processes, orders. It makes
/// no others.
const UPLINK_CLOSED: &[Call] = &[
    Call(libc::SYS_socketpair, &[is(0, libc::AF_UNIX)]),
    Call(libc::SYS_setsockopt, &sets(Opt::RECEIVE_PATIENCE)),
    Call(libc::SYS_setsockopt, &sets(Opt::SEND_PATIENCE)),
];

/// The control process of a network of virtual machines (`gvproxy/src/control`). It makes and removes sockets of
/// files, and talks to who comes to them; where in the file system, is for Landlock to say.
const CONTROL: &[c_long] = &[
    // Orders, and the descriptors that go with them: host::sys::fdpass.
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    // Clients: stream.
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_writev,
    // Sockets that are exposed: socket_file.
    libc::SYS_listen,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_unlinkat,
];

/// Whoever holds keys: questions and answers by one socket, and files that are read.
const KEYS: &[c_long] = &[
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_read,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_statx,
    // A line of the log.
    libc::SYS_write,
];
