use super::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket, socketpair};
use slipway_host::device::Seqpacket;
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Config;
use slipway_netstack::device::Capabilities;
use std::os::fd::AsRawFd as _;

/// A link, and the guest's end of it.
fn link() -> (Link, OwnedFd) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (ours, guests) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (Link::from(Seqpacket::from_owned_fd(ours)), guests)
}

fn config() -> Config {
    Config::new(MacAddr([2, 0, 0, 0, 0, 2]), slipway_host::random::keys().unwrap(), Capabilities::default())
}

#[test]
fn out_of_descriptors_the_door_rests() {
    // The limit is the process's: under a runner that shares it between tests, this one runs in a child.
    const CHILD: &str = "SLIPWAY_TEST_NO_FILES";
    if std::env::var_os(CHILD).is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "serve::tests::out_of_descriptors_the_door_rests";
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("door");
    let (link, guest) = link();
    let mut session = Session::new(Driver::new(Engine::new(config()), link).unwrap());
    session.readmit(Listener::packets(&path).unwrap()).unwrap();
    drop(guest);
    assert!(matches!(session.run().unwrap(), End::Link(_)));
    let next = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(next.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let start = clock::now();
    let at_the_door = |session: &mut Session, now: Instant| {
        let ready = session.driver.turn(Some(clock::now())).unwrap();
        let found = ready.iter().any(|ready| ready.token == DOOR);
        if found {
            session.admit(now).unwrap();
        }
        found
    };
    assert!(at_the_door(&mut session, start));
    assert_eq!(session.next_deadline(), Some(start + DOOR_REST));
    assert!(!at_the_door(&mut session, start), "the loop would spin");
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    session.on_deadline(start + DOOR_REST);
    assert_eq!(session.next_deadline(), None);
    assert!(at_the_door(&mut session, start));
    assert!(!at_the_door(&mut session, start), "there is a guest now");
}
