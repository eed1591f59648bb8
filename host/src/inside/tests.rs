//! Orders, pools, confinement and the end of the thread inside.

use super::*;
use crate::netlink::Netlink;
use crate::netns::testing::in_new_namespace;
use nix::sys::wait::WaitStatus;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Mutex;

/// A thread inside a namespace that is made for it, whose loopback is up.
pub(crate) fn start_in_new_namespace() -> Inside {
    let made = thread::spawn(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        loopback_up();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    });
    Inside::start(made.join().unwrap()).unwrap()
}

/// Sets the loopback of the calling thread's namespace up.
pub(crate) fn loopback_up() {
    let mut netlink = Netlink::open().unwrap();
    let lo = netlink.interface("lo").unwrap();
    netlink.set_up(&lo).unwrap();
}

fn namespace() -> std::path::PathBuf {
    std::fs::read_link("/proc/thread-self/ns/net").unwrap()
}

/// Waits, for ten seconds at most, until it is so.
fn until(mut is_so: impl FnMut() -> bool) -> bool {
    (0..10_000).any(|_| {
        let so = is_so();
        if !so {
            thread::sleep(Duration::from_millis(1));
        }
        so
    })
}

#[test]
fn what_is_made_inside_is_of_that_namespace_and_used_outside() {
    in_new_namespace("what_is_made_inside_is_of_that_namespace_and_used_outside", || {
        loopback_up();
        let mut inside = start_in_new_namespace();
        let (here, there) = (namespace(), inside.ask(namespace).unwrap());
        assert_ne!(here, there);
        let listener = inside.ask(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        assert!(TcpStream::connect(address).is_err(), "nobody listens on this side");
        // The first of its kind has to be waited for.
        assert!(inside.take(Kind::TcpV4).unwrap().is_none());
        assert!(until(|| inside.bell.read().is_ok()), "the bell rings");
        let ours = inside.take(Kind::TcpV4).unwrap().expect("it has come");
        let connected =
            nix::sys::socket::connect(ours.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(address));
        assert!(matches!(connected, Ok(()) | Err(nix::errno::Errno::EINPROGRESS)), "{connected:?}");
        let (_accepted, _) = listener.accept().unwrap();
        // The second order is given before the first is used up.
        for nth in 2..100 {
            assert!(until(|| inside.take(Kind::TcpV4).unwrap().is_some()), "{nth}");
        }
        let lo = inside.ask(|| Netlink::open().unwrap().interface("lo").unwrap().index).unwrap();
        let net = "10.9.9.9/32".parse().unwrap();
        let results =
            inside.netlink(vec![Request::add_address(lo, net), Request::add_address(lo, net)]).unwrap();
        assert!(matches!(results.as_slice(), [Ok(()), Err(_)]), "each has its own result: {results:?}");
        assert!(UdpSocket::bind("10.9.9.9:0").is_err(), "it was not added here");
        assert!(inside.ask(|| UdpSocket::bind("10.9.9.9:0").is_ok()).unwrap());
    });
}

#[test]
fn a_thread_that_hangs_is_waited_for_once() {
    in_new_namespace("a_thread_that_hangs_is_waited_for_once", || {
        let mut inside = start_in_new_namespace();
        let hold = Arc::new(Mutex::new(()));
        let held = hold.lock().unwrap();
        let theirs = Arc::clone(&hold);
        inside.post(move || drop(theirs.lock())).unwrap();
        let began = crate::clock::now();
        let late = inside.ask(|| std::fs::File::open("/dev/null").map(OwnedFd::from)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(crate::clock::now() - began >= PATIENCE);
        let began = crate::clock::now();
        assert_eq!(inside.ask(|| ()).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(inside.take(Kind::UdpV6).unwrap().is_none(), "what is taken never waits");
        assert!(crate::clock::now() - began < PATIENCE, "who is known to hang is not waited for");
        drop(held);
        assert!(until(|| inside.ask(|| ()).is_ok()), "it is asked again once it has caught up");
        assert!(until(|| inside.take(Kind::UdpV6).unwrap().is_some()));
    });
}

#[test]
fn the_thread_ends_with_its_handle_and_its_end_is_noticed() {
    in_new_namespace("the_thread_ends_with_its_handle_and_its_end_is_noticed", || {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        let inside = start_in_new_namespace();
        assert_eq!(threads(), before + 1);
        drop(inside);
        assert!(until(|| threads() == before));
        // One that dies of an order.
        let mut inside = start_in_new_namespace();
        std::panic::set_hook(Box::new(|_| {}));
        assert_eq!(
            inside.ask(|| panic!("an order fails")).map(|()| 0).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        assert!(until(|| inside.take(Kind::TcpV4).is_err()), "who is gone makes nothing");
        assert_eq!(inside.ask(|| ()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = Inside::start(file.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EINVAL as i32));
}

/// How a process ends whose thread inside is confined and does this.
fn confined(work: impl FnOnce() + Send + 'static) -> Option<WaitStatus> {
    use crate::sys::proc::{fork_child, wait_for};
    let child = fork_child(|| {
        if nix::sched::unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return 77;
        }
        let mut inside = start_in_new_namespace();
        inside.confine(&[Capability::CAP_NET_BIND_SERVICE], Some(seccomp::Mode::Enforce)).unwrap();
        inside.ask(work).unwrap();
        // What it is for goes on.
        assert!(until(
            || inside.take(Kind::TcpV6).is_ok_and(|it| it.is_some()) || inside.take(Kind::TcpV6).is_err()
        ));
        assert!(until(|| inside.take(Kind::UdpV4).unwrap().is_some()));
        let low = inside.ask(|| TcpListener::bind("127.0.0.1:7")).unwrap();
        assert!(low.is_ok(), "{low:?}");
        drop(inside);
        let alone = until(|| std::fs::read_dir("/proc/self/task").unwrap().count() == 1);
        u8::from(!alone)
    });
    match wait_for(child.unwrap()).unwrap() {
        WaitStatus::Exited(_, 77) => None,
        status => Some(status),
    }
}

#[test]
fn without_a_filter_a_confined_thread_has_no_files_either() {
    let name = "without_a_filter_a_confined_thread_has_no_files_either";
    if crate::sys::landlock::version().is_err() {
        println!("SKIP {name}: no Landlock here");
        return;
    }
    in_new_namespace(name, || {
        let inside = start_in_new_namespace();
        inside.confine(&[], None).unwrap();
        assert!(inside.ask(|| std::fs::File::open("/etc/passwd").is_err()).unwrap());
        assert!(std::fs::File::open("/etc/passwd").is_ok(), "it is the thread's own");
        assert!(inside.ask(|| TcpListener::bind("127.0.0.1:0").is_ok()).unwrap());
    });
}

#[test]
fn a_confined_thread_makes_sockets_and_nothing_else() {
    use nix::sys::signal::Signal;
    let name = "a_confined_thread_makes_sockets_and_nothing_else";
    let Some(status) = confined(|| {
        netlink::Diag::open().unwrap().look().unwrap();
        // It may ask, but has not the right to change anything.
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap();
        assert!(netlink.set_down(&lo).is_err());
    }) else {
        println!("SKIP {name}: no namespace may be made here");
        return;
    };
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    let attempts: [(&str, fn()); 6] = [
        ("opens a file", || drop(std::fs::File::open("/etc/passwd"))),
        ("joins a namespace", || setns(io::stdin(), CloneFlags::CLONE_NEWNET).unwrap()),
        ("executes", || match nix::unistd::execv(c"/bin/true", &[c"true"]).unwrap() {}),
        ("starts a thread", || drop(thread::Builder::new().spawn(|| ()))),
        ("makes another socket", || drop(std::os::unix::net::UnixStream::pair())),
        ("accepts", || drop(TcpListener::bind("127.0.0.1:0").and_then(|it| it.accept()))),
    ];
    for (what, attempt) in attempts {
        let status = confined(attempt);
        assert!(matches!(status, Some(WaitStatus::Signaled(_, Signal::SIGSYS, _))), "{what}: {status:?}");
    }
}
