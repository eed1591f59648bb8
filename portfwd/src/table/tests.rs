use super::turn::ACCEPTS_PER_ROUND;
use super::*;
use crate::fake::FakeHost;
use crate::rule::{Ports, Proto};
use nix::errno::Errno;
use slipway_host::scope::Endpoint;
use slipway_netstack::upstream::Client;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};

const TOKENS: Range<u32> = 100..200;

fn table() -> Table {
    Table::new(TOKENS)
}

fn rule(text: &str) -> Rule {
    text.parse().unwrap()
}

fn endpoint(table: &Table, id: RuleId) -> SocketAddr {
    table.get(id).unwrap().endpoints().next().unwrap().0
}

/// The socket's port at the loopback address of a family.
fn loopback(table: &Table, id: RuleId, ipv6: bool) -> SocketAddr {
    let port = endpoint(table, id).port();
    let address: IpAddr = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    SocketAddr::new(address, port)
}

/// One round: everything that becomes ready within a second.
fn round(table: &mut Table, host: &mut FakeHost) {
    for token in host.ready(1000) {
        assert!(table.owns(token));
        table.on_ready(token, Instant::ZERO, host);
    }
}

/// Whether this machine has the IPv6 loopback address.
fn has_ipv6(test: &str) -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        println!("SKIP {test}: no IPv6 loopback");
    }
    has
}

#[test]
fn a_tcp_client_is_carried_to_the_guest() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let id = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let client = TcpStream::connect(endpoint(&table, id)).unwrap();
    round(&mut table, &mut host);
    let (_, from, guest) = &host.connections[0];
    assert_eq!(*from, client.local_addr().unwrap());
    assert_eq!(guest.to_string(), "10.0.2.100:80");
    assert_eq!(table.get(id).unwrap().counters, Counters { accepted: 1, refused: 0 });
}

#[test]
fn a_rule_without_address_serves_both_families() {
    if !has_ipv6("a_rule_without_address_serves_both_families") {
        return;
    }
    let (mut table, mut host) = (table(), FakeHost::new());
    let id = table.add(rule(":80"), &mut host).unwrap();
    assert_eq!(table.get(id).unwrap().endpoints().count(), 1);
    let v4 = TcpStream::connect(loopback(&table, id, false)).unwrap();
    round(&mut table, &mut host);
    let v6 = TcpStream::connect(loopback(&table, id, true)).unwrap();
    round(&mut table, &mut host);
    let seen: Vec<_> = host.connections.iter().map(|(_, from, guest)| (*from, guest.to_string())).collect();
    assert_eq!(seen[0], (v4.local_addr().unwrap(), "10.0.2.100:80".to_owned()));
    assert_eq!(seen[1], (v6.local_addr().unwrap(), "[fd00::100]:80".to_owned()));
}

#[test]
fn a_crossing_rule_leads_clients_of_either_family_to_its_target() {
    if !has_ipv6("a_crossing_rule_leads_clients_of_either_family_to_its_target") {
        return;
    }
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let target: IpAddr = "10.0.2.7".parse().unwrap();
    let port = Ports::single(None, NonZeroU16::new(80).unwrap());
    let everywhere = Rule::crossing(None::<IpAddr>, port, target).unwrap();
    let id = table.add(everywhere, &mut host).unwrap();
    let v4 = TcpStream::connect(loopback(&table, id, false)).unwrap();
    round(&mut table, &mut host);
    let v6 = TcpStream::connect(loopback(&table, id, true)).unwrap();
    round(&mut table, &mut host);
    let of_other = Rule::crossing(Some(IpAddr::V6(Ipv6Addr::LOCALHOST)), port, target).unwrap();
    let id = table.add(of_other, &mut host).unwrap();
    let near = TcpStream::connect(endpoint(&table, id)).unwrap();
    round(&mut table, &mut host);
    let seen: Vec<_> = host.connections.iter().map(|(_, from, guest)| (*from, guest.to_string())).collect();
    let guest = "10.0.2.7:80".to_owned();
    let as_loopback = |client: &TcpStream| {
        let port = client.local_addr().unwrap().port();
        (SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), guest.clone())
    };
    assert_eq!(seen, [(v4.local_addr().unwrap(), guest.clone()), as_loopback(&v6), as_loopback(&near)]);
    assert!(Rule::crossing(None::<IpAddr>, port, Ipv4Addr::BROADCAST.into()).is_err());
    let missing = Rule::crossing(None::<IpAddr>, port, "fd00::7".parse().unwrap()).unwrap();
    assert!(
        matches!(table.add(missing, &mut host), Err(AddError::FamilyOff(..))),
        "no IPv6 on the guest's link"
    );
}

#[test]
fn a_family_that_the_guest_lacks_is_not_listened_on() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let id = table.add(rule(":80"), &mut host).unwrap();
    assert!(endpoint(&table, id).is_ipv4());
    let error = table.add(rule("[::]:8080:80"), &mut host).unwrap_err();
    assert_eq!(error.to_string(), "cannot forward [::]:8080:80/tcp: the guest has no IPv6");
    host = FakeHost { v4: false, guest_v4: None, ..FakeHost::new() };
    let error = table.add(rule("127.0.0.1::80"), &mut host).unwrap_err();
    assert_eq!(error.to_string(), "cannot forward 127.0.0.1::80/tcp: the guest has no IPv4");
}

#[test]
fn an_ipv6_only_socket_leaves_the_ipv4_port_alone() {
    if !has_ipv6("an_ipv6_only_socket_leaves_the_ipv4_port_alone") {
        return;
    }
    let (mut table, mut host) = (table(), FakeHost::new());
    let id = table.add(rule("[::]::80"), &mut host).unwrap();
    TcpListener::bind(loopback(&table, id, false)).unwrap();
}

#[test]
fn a_client_whose_family_has_no_guest_address_is_reset() {
    let (mut table, mut host) = (table(), FakeHost { guest_v4: None, ..FakeHost::v4_only() });
    let id = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let mut client = TcpStream::connect(endpoint(&table, id)).unwrap();
    round(&mut table, &mut host);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(table.get(id).unwrap().counters, Counters { accepted: 0, refused: 1 });
}

#[test]
fn a_client_is_led_to_the_address_that_the_guest_has_for_it() {
    let near: IpAddr = [169, 254, 0, 7].into();
    let (mut table, mut host) = (table(), FakeHost { guest_near: Some(near), ..FakeHost::v4_only() });
    let id = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let _client = TcpStream::connect(endpoint(&table, id)).unwrap();
    round(&mut table, &mut host);
    assert_eq!(host.connections[0].2, SocketAddr::new(near, 80));
}

#[test]
fn what_the_engine_refuses_is_counted() {
    let (mut table, mut host) = (table(), FakeHost { refuse: true, ..FakeHost::v4_only() });
    let tcp = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let _client = TcpStream::connect(endpoint(&table, tcp)).unwrap();
    round(&mut table, &mut host);
    assert_eq!(table.get(tcp).unwrap().counters, Counters { accepted: 0, refused: 1 });
    let udp = table.add(rule("127.0.0.1::80/udp"), &mut host).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.send_to(b"lost", endpoint(&table, udp)).unwrap();
    round(&mut table, &mut host);
    assert_eq!(table.get(udp).unwrap().counters, Counters { accepted: 0, refused: 1 });
}

#[test]
fn datagrams_are_carried_to_the_guest_and_answered_through_the_listener() {
    let (mut table, mut host) = (table(), FakeHost::new());
    let families: &[bool] =
        if has_ipv6("the IPv6 half of datagrams_are_carried") { &[false, true] } else { &[false] };
    let id = table.add(rule(":53/udp"), &mut host).unwrap();
    for &ipv6 in families {
        let to = loopback(&table, id, ipv6);
        let client = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for payload in [&b"question"[..], b"", &[7; 9000]] {
            client.send_to(payload, to).unwrap();
            round(&mut table, &mut host);
            let got = host.datagrams.pop().unwrap();
            let (address, at) = (client.local_addr().unwrap(), to);
            assert_eq!((got.client, got.payload.as_slice()), (Client { address, at }, payload));
            assert_eq!(got.segment, payload.len());
            assert_eq!(got.guest.to_string(), if ipv6 { "[fd00::100]:53" } else { "10.0.2.100:53" });
            let listener = UdpSocket::from(got.listener.try_clone().unwrap());
            listener.send_to(b"answer", client.local_addr().unwrap()).unwrap();
            let mut answer = [0; 10];
            assert_eq!(client.recv_from(&mut answer).unwrap(), (6, to));
        }
    }
    let info = table.get(id).unwrap();
    assert_eq!(info.counters.accepted, 3 * u64::try_from(families.len()).unwrap());
}

/// Two addresses of ours on one socket, and two sockets: where a client sent to is told with each train.
#[test]
fn a_client_is_told_with_the_address_that_it_sent_to() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let all = table.add(rule(":53/udp"), &mut host).unwrap();
    let one = table.add(rule("127.0.0.5::53/udp"), &mut host).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = endpoint(&table, all).port();
    let to = [
        SocketAddr::from(([127, 0, 0, 1], port)),
        SocketAddr::from(([127, 0, 0, 5], port)),
        endpoint(&table, one),
    ];
    for at in to {
        for _ in 0..3 {
            client.send_to(b"question", at).unwrap();
        }
    }
    let accepted = |table: &Table| table.list().map(|rule| rule.counters.accepted).sum::<u64>();
    for _ in 0..20 {
        if accepted(&table) == 9 {
            break;
        }
        round(&mut table, &mut host);
    }
    for at in to {
        let here = host.datagrams.iter().filter(|got| got.client.at == at);
        assert_eq!(here.map(|got| got.payload.len()).sum::<usize>(), 3 * 8, "{at}: {:?}", host.datagrams);
    }
}

#[test]
fn datagrams_that_wait_together_travel_together() {
    let (mut table, mut host) = (table(), FakeHost::new());
    let id = table.add(rule(":53/udp"), &mut host).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.set_ttl(33).unwrap();
    for byte in 0..100 {
        client.send_to(&[byte; 700], loopback(&table, id, false)).unwrap();
    }
    for _ in 0..100 {
        if table.get(id).unwrap().counters.accepted == 100 {
            break;
        }
        round(&mut table, &mut host);
    }
    let payload: Vec<u8> = host.datagrams.iter().flat_map(|train| train.payload.clone()).collect();
    assert_eq!(payload, (0..100).flat_map(|byte| [byte; 700]).collect::<Vec<u8>>());
    assert!(host.datagrams.len() < 20, "{} trains", host.datagrams.len());
    assert!(host.datagrams.iter().all(|train| train.segment == 700 && train.meta.hops == 33));
    assert_eq!(host.ready(0), [0; 0]);
}

#[test]
fn a_burst_is_accepted_over_several_rounds() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let id = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let to = endpoint(&table, id);
    let clients: Vec<_> = (0..ACCEPTS_PER_ROUND + 1).map(|_| TcpStream::connect(to).unwrap()).collect();
    round(&mut table, &mut host);
    assert_eq!(host.connections.len(), ACCEPTS_PER_ROUND);
    round(&mut table, &mut host);
    assert_eq!(host.connections.len(), clients.len());
}

#[test]
fn the_kernel_decides_about_conflicts() {
    for proto in ["tcp", "udp"] {
        let (mut table, mut host) = (table(), FakeHost::v4_only());
        let id = table.add(rule(&format!("127.0.0.1::80/{proto}")), &mut host).unwrap();
        let port = endpoint(&table, id).port();
        for address in ["127.0.0.1", "0.0.0.0"] {
            let error = table.add(rule(&format!("{address}:{port}:81/{proto}")), &mut host).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::EADDRINUSE as i32));
            let text = error.to_string();
            let start = format!("cannot listen on {proto} {address}:{port}: Address already in use (");
            assert!(text.starts_with(&start), "{text}");
        }
        assert_eq!(table.list().count(), 1);
    }
}

/// The first of three ports in a row that are free now.
fn three_free_ports() -> u16 {
    for first in (20_000..30_000).step_by(7) {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if (first..first + 3).all(free) {
            return first;
        }
    }
    panic!("no three free ports in a row");
}

#[test]
fn a_range_is_bound_whole_or_not_at_all() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let first = three_free_ports();
    let range = rule(&format!("127.0.0.1:{first}-{}:80-82", first + 2));
    let occupied = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 2)).unwrap();
    let error = table.add(range, &mut host).unwrap_err();
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", first + 2)), "{error}");
    assert_eq!((table.list().count(), host.watched), (0, 0));
    TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
    drop(occupied);
    let id = table.add(range, &mut host).unwrap();
    assert_eq!(id, RuleId::FIRST);
    let pairs: Vec<_> = table.get(id).unwrap().endpoints().map(|(at, to)| (at.port(), to.get())).collect();
    assert_eq!(pairs, [(first, 80), (first + 1, 81), (first + 2, 82)]);
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
    round(&mut table, &mut host);
    assert_eq!(host.connections[0].2.to_string(), "10.0.2.100:81");
}

#[test]
fn a_range_that_cannot_be_watched_is_rolled_back() {
    let (mut table, mut host) = (table(), FakeHost { watch_limit: 2, ..FakeHost::v4_only() });
    let error = table.add(rule("127.0.0.1::80-82"), &mut host);
    assert_eq!(error.unwrap_err().raw_os_error(), Some(Errno::ENOSPC as i32));
    assert_eq!((table.list().count(), host.watched), (0, 0));
    host.watch_limit = 3;
    table.add(rule("127.0.0.1::80-82"), &mut host).unwrap();
    assert_eq!(table.slots.len(), 3);
}

#[test]
fn there_are_no_more_sockets_than_tokens() {
    let (mut table, mut host) = (Table::new(7..9), FakeHost::v4_only());
    assert!(matches!(table.add(rule("127.0.0.1::80-82"), &mut host), Err(AddError::Full(_, 0))));
    let id = table.add(rule("127.0.0.1::80-81"), &mut host).unwrap();
    assert!(matches!(table.add(rule("127.0.0.1::80"), &mut host), Err(AddError::Full(_, 2))));
    table.remove(id, &mut host).unwrap();
    table.add(rule("127.0.0.1::80"), &mut host).unwrap();
}

#[test]
fn ids_are_not_used_twice() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let first = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    assert_eq!(first.get(), 1);
    assert_eq!(table.remove(first, &mut host), Some(rule("127.0.0.1::80")));
    assert_eq!(table.remove(first, &mut host), None);
    assert_eq!(table.add(rule("127.0.0.1::80"), &mut host).unwrap().get(), 2);
}

#[test]
fn removing_closes_the_listener_and_nothing_else() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let gone = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let stays = table.add(rule("127.0.0.1::81"), &mut host).unwrap();
    let port = endpoint(&table, gone);
    let mut client = TcpStream::connect(port).unwrap();
    round(&mut table, &mut host);
    table.remove(gone, &mut host).unwrap();
    assert_eq!(TcpStream::connect(port).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let (accepted, ..) = host.connections.remove(0);
    TcpStream::from(accepted).write_all(b"still here").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    let _client = TcpStream::connect(endpoint(&table, stays)).unwrap();
    round(&mut table, &mut host);
    assert_eq!(host.connections.len(), 1);
}

#[test]
fn all_sockets_close_at_the_end_and_the_counters_stay() {
    let (mut table, mut host) = (table(), FakeHost::new());
    let tcp = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let udp = table.add(rule("127.0.0.1::53/udp"), &mut host).unwrap();
    let (tcp_at, udp_at) = (endpoint(&table, tcp), endpoint(&table, udp));
    let _client = TcpStream::connect(tcp_at).unwrap();
    round(&mut table, &mut host);
    table.close_all(&mut host);
    assert_eq!(TcpStream::connect(tcp_at).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert!(TcpListener::bind(tcp_at).is_ok() && UdpSocket::bind(udp_at).is_ok());
    let told: Vec<_> = table.list().map(|info| (info.id, info.counters.accepted)).collect();
    assert_eq!(told, [(tcp, 1), (udp, 0)]);
    assert!(table.remove(tcp, &mut host).is_some(), "nothing is closed twice");
}

#[test]
fn a_late_event_meets_the_next_tenant_without_harm() {
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let gone = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let _client = TcpStream::connect(endpoint(&table, gone)).unwrap();
    let ready = host.ready(1000);
    table.remove(gone, &mut host).unwrap();
    table.on_ready(ready[0], Instant::ZERO, &mut host);
    let next = table.add(rule("127.0.0.1::81"), &mut host).unwrap();
    table.on_ready(ready[0], Instant::ZERO, &mut host);
    assert_eq!(table.get(next).unwrap().counters, Counters::default());
    for token in [0, TOKENS.start - 1, TOKENS.end, u32::MAX] {
        assert!(!table.owns(token));
        table.on_ready(token, Instant::ZERO, &mut host);
    }
}

/// Lowers the limit of open files so that nothing more can be opened, as long as it lives.
struct NoFiles {
    soft: u64,
    hard: u64,
}

impl NoFiles {
    fn new() -> Self {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        Self { soft, hard }
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        use nix::sys::resource::{Resource, setrlimit};
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard).unwrap();
    }
}

#[test]
fn out_of_descriptors_a_listener_pauses_and_nobody_is_lost() {
    // The limit is the process's: under a runner that shares it between tests, this one runs in a child.
    const CHILD: &str = "SLIPWAY_TEST_NO_FILES";
    if std::env::var_os(CHILD).is_none() {
        let name = "table::tests::out_of_descriptors_a_listener_pauses_and_nobody_is_lost";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let (mut table, mut host) = (table(), FakeHost::v4_only());
    let id = table.add(rule("127.0.0.1::80"), &mut host).unwrap();
    let _client = TcpStream::connect(endpoint(&table, id)).unwrap();
    let limit = NoFiles::new();
    round(&mut table, &mut host);
    assert_eq!(table.next_deadline(), Some(Instant::ZERO + BACKOFF));
    assert_eq!(host.ready(0), [0; 0], "the loop would spin");
    let error = table.add(rule("127.0.0.1::81"), &mut host).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EMFILE as i32));
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    drop(limit);
    table.on_deadline(Instant::ZERO, &mut host);
    assert_eq!(host.ready(0), [0; 0], "it is not time yet");
    table.on_deadline(Instant::ZERO + BACKOFF, &mut host);
    assert_eq!(table.next_deadline(), None);
    round(&mut table, &mut host);
    assert_eq!(host.connections.len(), 1);
}

#[test]
fn errors_say_what_to_do() {
    let text = |errno: Errno, endpoint: &str| {
        let (address, port) = endpoint.rsplit_once(':').unwrap();
        let endpoint = Endpoint { address: address.parse().unwrap(), port: port.parse().unwrap() };
        AddError::Listen { proto: Proto::Tcp, endpoint, error: errno.into() }.to_string()
    };
    let privileged = text(Errno::EACCES, "0.0.0.0:80");
    assert!(privileged.contains("net.ipv4.ip_unprivileged_port_start=80,"), "{privileged}");
    assert!(privileged.contains("CAP_NET_BIND_SERVICE"), "{privileged}");
    assert!(!text(Errno::EACCES, "0.0.0.0:8080").contains("sysctl"));
    assert!(text(Errno::EADDRNOTAVAIL, "192.0.2.1:80").contains("an interface of this host"));
    assert_eq!(
        text(Errno::ENODEV, "fe80::1%eth9:80"),
        "cannot listen on tcp [fe80::1%eth9]:80: No such device (this host has no interface eth9)"
    );
    assert!(text(Errno::EPERM, "fe80::1%eth9:80").contains("the interface's number"));
}

mod pasta;
