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

/// Two namespaces, for which `work` gets a session whose guest is in the other one: on the loopback of each side what
/// listens is reached from the other.
fn between_two_namespaces(name: &str, work: impl FnOnce(&mut Session)) {
    use nix::sched::{CloneFlags, unshare};
    use slipway_host::driver::Shortcut;
    use slipway_host::inside::Inside;
    use slipway_host::netlink::Netlink;
    use slipway_host::sys::proc::{fork_child, wait_for};
    use slipway_netstack::addr::MacAddr;
    use slipway_netstack::ip::plan::Plan;
    use slipway_netstack::ip::plan::slirp::{Ipv4Config, Slirp};
    const NO_NAMESPACE: i32 = 77;
    let loopback_up = || {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap();
        netlink.set_up(&lo).unwrap();
    };
    let child = fork_child(|| {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return u8::try_from(NO_NAMESPACE).unwrap();
        }
        loopback_up();
        let guests = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            loopback_up();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
        });
        let inside = Inside::start(guests.join().unwrap()).unwrap();
        let v4 = Ipv4Config::slirp("10.0.2.0/24".parse().unwrap());
        let mac = MacAddr::of_gateway(v4.gateway.into());
        let slirp = Slirp { v4: Some(v4), v6: None, host_loopback: true, internal: false };
        let (link, _guest) = link();
        let config = Config { plan: Plan::slirp(mac, &slirp), ..config() };
        let mut driver = Driver::new(Engine::new(config), link).unwrap();
        let shortcut = Shortcut { tcp: true, udp: true, loopback_destination: true, guest: [None; 2] };
        driver.set_inside(inside, shortcut).unwrap();
        work(&mut Session::new(driver));
        0
    });
    match wait_for(child.unwrap()).unwrap() {
        nix::sys::wait::WaitStatus::Exited(_, 0) => {}
        nix::sys::wait::WaitStatus::Exited(_, NO_NAMESPACE) => {
            println!("SKIP {name}: no namespace may be made here");
        }
        status => panic!("{name}: {status:?}"),
    }
}

/// One round of the loop, at a moment of the test's choice.
fn round(session: &mut Session, now: Instant) {
    session.on_deadline(now);
    for event in session.driver.turn(Some(clock::now() + Duration::from_millis(1))).unwrap().to_vec() {
        assert!(session.on_ready(event, now).unwrap().is_none());
    }
}

#[test]
fn ports_follow_those_who_listen_on_either_side() {
    use slipway_host::inside::Side;
    use slipway_portfwd::rule::{Manner, Ports, Proto};
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    let local = |port: u16| (Ipv4Addr::LOCALHOST, port);
    let name = "ports_follow_those_who_listen_on_either_side";
    between_two_namespaces(name, |session| {
        let (first, count) = (7000_u16.try_into().unwrap(), 10_u16.try_into().unwrap());
        let ports = Ports::run(Some(first), first, count).unwrap();
        let here = Some(IpAddr::from(Ipv4Addr::LOCALHOST));
        session.follow_listeners().unwrap();
        assert_eq!(session.next_deadline(), None, "without a rule nobody looks");
        for (side, proto) in
            [(Side::Host, Proto::Tcp), (Side::Host, Proto::Udp), (Side::Namespace, Proto::Tcp)]
        {
            let rule = Rule::new(proto, here, ports, None).unwrap();
            session.publish(rule.served(Manner { side, scan: true, weak: true, ..Manner::PLAIN })).unwrap();
        }
        let open = |session: &Session| -> Vec<Vec<u16>> {
            session.table().list().map(|rule| rule.endpoints().map(|(at, _)| at.port()).collect()).collect()
        };
        let mut now = clock::now();
        let later = |session: &mut Session, now: &mut Instant| {
            *now = *now + Duration::from_secs(1);
            round(session, *now);
        };
        let nothing: Vec<u16> = Vec::new();
        later(session, &mut now);
        assert_eq!(open(session), vec![nothing.clone(); 3]);
        let inside = move |session: &Session, port: u16| {
            session.driver().inside().unwrap().ask(move || TcpListener::bind(local(port))).unwrap().unwrap()
        };
        let guests = inside(session, 7001);
        let hosts = TcpListener::bind(local(7002)).unwrap();
        let both = (inside(session, 7003), TcpListener::bind(local(7003)).unwrap());
        for _ in 0..4 {
            later(session, &mut now);
            assert_eq!(session.next_deadline(), Some(now + Duration::from_secs(1)));
            // 7003 is taken on either side, but nobody has its UDP.
            assert_eq!(
                open(session),
                [vec![7001], vec![7001, 7003], vec![7002]],
                "and nothing leads in a circle"
            );
        }
        let at = |session: &Session, port| {
            session.driver().inside().unwrap().ask(move || TcpStream::connect(local(port))).unwrap().unwrap()
        };
        let clients = [TcpStream::connect(local(7001)).unwrap(), at(session, 7002)];
        for (mut client, service) in clients.into_iter().zip([&guests, &hosts]) {
            service.set_nonblocking(true).unwrap();
            let mut server = (0..5000)
                .find_map(|_| {
                    round(session, now);
                    service.accept().ok()
                })
                .expect("it is led across")
                .0;
            client.write_all(b"ask").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            server.set_nonblocking(true).unwrap();
            let mut got = Vec::new();
            let ended = (0..5000).any(|_| {
                round(session, now);
                server.read_to_end(&mut got).is_ok()
            });
            assert!(ended && got == b"ask");
        }
        drop((guests, both.0));
        later(session, &mut now);
        assert_eq!(
            open(session),
            [nothing.clone(), nothing, vec![7002, 7003]],
            "the host's own 7003 is free inside now"
        );
    });
}
