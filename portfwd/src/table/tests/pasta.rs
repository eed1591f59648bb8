//! What rules in the manner of pasta have beyond others: limits, weakness, scanning, the shortcut, replacement.

use super::*;
use crate::fake::{own_address, own_port};
use crate::rule::passt::{Capabilities, Context, parse};
use slipway_host::inside::Side;

const ALL: Context = Context { can: Capabilities::ALL, ephemeral: (32_768, 60_999) };

fn spec(option: char, text: &str) -> Vec<Rule> {
    parse(option, text, &ALL).unwrap().rules
}

fn one(option: char, text: &str) -> Rule {
    spec(option, text)[0]
}

fn pasta(sockets: usize) -> (Table, FakeHost) {
    let mut table = Table::new(TOKENS);
    table.set_policy(Policy { checked: true, sockets, free: false });
    (table, FakeHost { inside: true, ..FakeHost::new() })
}

/// Three ports in a row of an address of this test's own.
fn three(address: &str, from: u16) -> u16 {
    let free =
        |port: u16| TcpListener::bind((address, port)).is_ok() && UdpSocket::bind((address, port)).is_ok();
    (from..from + 500).step_by(3).find(|first| (*first..first + 3).all(free)).unwrap()
}

fn connects(address: &str, port: u16) -> bool {
    TcpStream::connect((address, port)).is_ok()
}

#[test]
fn addresses_that_are_nobodys_can_be_listened_on_where_that_is_wanted() {
    // Of the networks for documentation (RFC 5737, RFC 3849): nobody's.
    let families = [("192.0.2.77", true), ("2001:db8::77", has_ipv6("addresses_that_are_nobodys"))];
    for (address, _) in families.into_iter().filter(|(_, there)| *there) {
        let (mut table, mut host) = pasta(99);
        for option in ['t', 'u'] {
            let rule = one(option, &format!("{address}/{}", own_port(90)));
            assert!(table.add(rule, &mut host).is_err(), "{address}");
            table.set_policy(Policy { free: true, ..Policy::passt(99) });
            assert!(table.add(rule, &mut host).is_ok(), "{address}");
            table.set_policy(Policy::passt(99));
        }
    }
}

#[test]
fn a_weak_rule_does_without_what_it_cannot_have() {
    let own = own_address(21);
    let at = own.as_str();
    let (mut table, mut host) = pasta(99);
    let first = three(at, own_port(1));
    let occupied = TcpListener::bind((at, first + 1)).unwrap();
    let weak = one('t', &format!("{at}/~1-{},~{}-65535", first - 1, first + 3));
    let id = table.add(weak, &mut host).unwrap();
    assert_eq!(table.get(id).unwrap().missing, 1);
    assert_eq!(table.get(id).unwrap().endpoints().count(), 2);
    assert!(connects(at, first) && connects(at, first + 2));
    table.remove(id, &mut host).unwrap();
    let alone = one('t', &format!("{at}/~1-{first},~{}-65535", first + 2));
    let error = table.add(alone, &mut host).unwrap_err();
    let text = format!("All listens failed for HOST TCP {at}/{0}-{0}", first + 1);
    assert_eq!(error.in_passts_words(&alone), text);
    drop(occupied);
    table.add(alone, &mut host).unwrap();
}

#[test]
fn listeners_take_no_more_than_their_share() {
    let own = own_address(22);
    let at = own.as_str();
    let (mut table, mut host) = pasta(2);
    let first = three(at, own_port(2));
    let strict = one('t', &format!("{at}/{first}-{}", first + 2));
    let error = table.add(strict, &mut host).unwrap_err();
    let text = format!("Listen failed for HOST TCP port {at}/{}: Too many open files", first + 2);
    assert_eq!((error.in_passts_words(&strict), table.in_use()), (text, 0));
    let weak = one('t', &format!("{at}/~1-{}", first - 1));
    let id = table.add(weak, &mut host).unwrap();
    assert_eq!(table.get(id).unwrap().endpoints().count(), 2);
    assert!(table.get(id).unwrap().missing > 1000);
    // Where nothing is left another weak rule has nothing, which is no failure; what fails is one that is strict.
    let both = [weak, one('u', &format!("{at}/~1-{}", first - 1))];
    let ids = table.replace(&both, &mut host).unwrap();
    assert_eq!((table.get(ids[1]).unwrap().endpoints().count(), ids[0]), (0, id));
    table.remove(ids[1], &mut host).unwrap();
    let id = table.add(both[1], &mut host).unwrap();
    assert!(table.get(id).unwrap().missing > 1000);
    assert!(table.add(one('t', &format!("{at}/1")), &mut host).is_err());
    assert_eq!(Policy::passt(1024).sockets, 512);
}

#[test]
fn eight_thousand_ports_are_opened_for_real() {
    let own = own_address(23);
    let at = own.as_str();
    const COUNT: u16 = 8000;
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    if limit < 17_000 {
        println!("SKIP eight_thousand_ports_are_opened_for_real: {limit} descriptors");
        return;
    }
    slipway_host::driver::raise_descriptor_limit().unwrap();
    let (mut table, mut host) = pasta(usize::MAX);
    table.tokens = 0..100_000;
    // The ephemeral ports are taken out of such a rule: without them in the way it has all of these.
    let context = Context { ephemeral: (1, 1), ..ALL };
    let all = parse('u', &format!("{at}/~1-40000,~{}-65535", 40_001 + COUNT), &context).unwrap().rules[0];
    let id = table.add(all, &mut host).unwrap();
    let info = table.get(id).unwrap();
    assert_eq!(info.endpoints().count() + info.missing, usize::from(COUNT));
    assert!(info.missing < 100, "{}", info.missing);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let last = info.endpoints().last().unwrap().0;
    client.send_to(b"there", last).unwrap();
    for token in host.ready(1000) {
        table.on_ready(token, Instant::ZERO, &mut host);
    }
    assert_eq!(host.datagrams[0].client.at, last);
}

#[test]
fn conflicts_and_limits_are_told_before_a_socket_is_tried() {
    let own = own_address(24);
    let at = own.as_str();
    let (mut table, mut host) = pasta(99);
    let port = three(at, own_port(3));
    table.add(one('t', &format!("{at}/{port}")), &mut host).unwrap();
    let again = one('t', &format!("0.0.0.0/{port}"));
    let error = table.add(again, &mut host).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EADDRINUSE as i32));
    assert!(error.to_string().starts_with("Forwarding configuration conflict: TCP [0.0.0.0]:"), "{error}");
    assert!(table.replace(&[again, again], &mut host).is_err());
    assert_eq!(table.list().count(), 1);
}

#[test]
fn an_interface_narrows_a_socket() {
    let (mut table, mut host) = pasta(99);
    let port = three("127.0.0.1", own_port(4));
    let id = table.add(one('t', &format!("%lo/{port}")), &mut host).unwrap();
    assert!(connects("127.0.0.1", port));
    table.remove(id, &mut host).unwrap();
    let nowhere = one('t', &format!("%nosuch/{port}"));
    let error = table.add(nowhere, &mut host).unwrap_err();
    let text = format!("Listen failed for HOST TCP port *%nosuch/{port}: No such device");
    assert_eq!(error.in_passts_words(&nowhere), text);
    let across = one('T', &port.to_string());
    host.inside = false;
    let error = table.add(across, &mut host).unwrap_err().in_passts_words(&across);
    assert!(error.starts_with(&format!("Listen failed for SPLICE TCP port *%lo/{port}: ")), "{error}");
}

#[test]
fn ports_that_scan_are_open_while_somebody_listens_across() {
    let own = own_address(25);
    let at = own.as_str();
    let (mut table, mut host) = pasta(99);
    let first = three(at, own_port(5));
    let rule = one('t', &format!("{at}/{first}-{}:90-92,auto", first + 2));
    let id = table.add(rule, &mut host).unwrap();
    assert!(table.scans() && !connects(at, first));
    let mut follow = |table: &mut Table, ports: &[u16]| {
        table.follow(Side::Host, Proto::Tcp, &ports.iter().copied().collect(), &mut host)
    };
    assert!(follow(&mut table, &[91, 92, 7]));
    assert!(!follow(&mut table, &[91, 92]), "nothing has changed");
    let open = |table: &Table| {
        table.get(id).unwrap().endpoints().map(|(at, to)| (at.port() - first, to.get())).collect::<Vec<_>>()
    };
    assert_eq!(open(&table), [(1, 91), (2, 92)]);
    assert_eq!(table.listening(Side::Host, Proto::Tcp).collect::<Vec<_>>(), [first + 1, first + 2]);
    assert_eq!(table.listening(Side::Namespace, Proto::Tcp).count(), 0);
    // Somebody else takes one first, and gives it back.
    let occupied = TcpListener::bind((at, first)).unwrap();
    assert!(follow(&mut table, &[90, 92]));
    assert_eq!(open(&table), [(2, 92)]);
    drop(occupied);
    assert!(follow(&mut table, &[90, 92]));
    assert_eq!(open(&table), [(0, 90), (2, 92)]);
    assert!(follow(&mut table, &[]));
    assert_eq!((open(&table), table.in_use()), (vec![], 0));
    assert!(!table.follow(Side::Namespace, Proto::Tcp, &(1..9999).collect(), &mut host));
    assert!(!table.follow(Side::Host, Proto::Udp, &(1..9999).collect(), &mut host));
}

#[test]
fn loopback_clients_take_the_shortcut() {
    let (mut table, mut host) = pasta(99);
    host.shortcut = true;
    let first = three("127.0.0.1", own_port(6));
    let plain = table.add(one('t', &format!("{first}:80")), &mut host).unwrap();
    let targeted = table.add(one('t', &format!("127.0.0.1/{}:10.0.2.100/80", first + 1)), &mut host).unwrap();
    let udp = table.add(one('u', &format!("127.0.0.1/{first}:53")), &mut host).unwrap();
    let client = TcpStream::connect(("127.0.0.1", first)).unwrap();
    let _other = TcpStream::connect(("127.0.0.1", first + 1)).unwrap();
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagram.send_to(b"question", ("127.0.0.1", first)).unwrap();
    for _ in 0..10 {
        if host.spliced.len() == 2 && host.connections.len() == 1 {
            break;
        }
        round(&mut table, &mut host);
    }
    let local = SocketAddr::from(([127, 0, 0, 1], first));
    host.spliced.sort_by_key(|spliced| spliced.3);
    let expected = [
        (Side::Host, datagram.local_addr().unwrap(), local, 53),
        (Side::Host, client.local_addr().unwrap(), local, 80),
    ];
    assert_eq!(host.spliced, expected);
    assert_eq!(host.connections[0].2.to_string(), "10.0.2.100:80", "to a target through the link");
    for id in [plain, targeted, udp] {
        assert_eq!(table.get(id).unwrap().counters.accepted, 1);
    }
}

#[test]
fn out_of_the_namespace_leads_nothing_but_the_shortcut() {
    let (mut table, mut host) = pasta(99);
    let port = three("127.0.0.1", own_port(7));
    let id = table.add(one('T', &format!("{port}:80")), &mut host).unwrap();
    let mut refused = TcpStream::connect(("127.0.0.1", port)).unwrap();
    round(&mut table, &mut host);
    assert_eq!(refused.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    host.shortcut = true;
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    round(&mut table, &mut host);
    let (side, from, local, to) = host.spliced[0];
    assert_eq!((side, from, local.port(), to), (Side::Namespace, client.local_addr().unwrap(), port, 80));
    assert_eq!(table.get(id).unwrap().counters, Counters { accepted: 1, refused: 1 });
    assert!(host.connections.is_empty());
}

#[test]
fn what_stays_is_never_closed() {
    let own = own_address(26);
    let at = own.as_str();
    let (mut table, mut host) = pasta(99);
    let first = three(at, own_port(8));
    let range = one('t', &format!("{at}/{first}-{}:80-82", first + 2));
    let udp = one('u', &format!("{at}/{first}"));
    let ids = table.replace(&[range, udp], &mut host).unwrap();
    // In the queue, not accepted yet.
    let _waiting = TcpStream::connect((at, first)).unwrap();
    let _gone = TcpStream::connect((at, first + 1)).unwrap();
    let socket = |table: &Table, at: u16| {
        let slot = table
            .slots
            .iter()
            .flatten()
            .find(|slot| slot.local.port() == at && slot.spot.proto == Proto::Tcp);
        std::os::fd::AsRawFd::as_raw_fd(&slot.unwrap().listener.as_fd())
    };
    let before = [socket(&table, first), socket(&table, first + 2)];
    let split = spec('t', &format!("{at}/{first}:90,{}:92", first + 2));
    let new = table.replace(&[split[1], udp, split[0]], &mut host).unwrap();
    assert_eq!([socket(&table, first), socket(&table, first + 2)], before);
    assert_eq!(new[1], ids[1], "the same rule has the same id");
    assert!(!ids.contains(&new[0]) && !ids.contains(&new[2]));
    assert!(!connects(at, first + 1));
    round(&mut table, &mut host);
    assert_eq!(host.connections[0].2.to_string(), "10.0.2.100:90", "by the rule of now");
    assert_eq!(table.get(new[2]).unwrap().counters.accepted, 1);
    assert_eq!((table.in_use(), host.watched), (3, 3));
    table.replace(&[], &mut host).unwrap();
    assert_eq!((table.in_use(), host.watched, table.list().count()), (0, 0, 0));
}

#[test]
fn a_replacement_is_whole_or_nothing() {
    let own = own_address(27);
    let at = own.as_str();
    let (mut table, mut host) = pasta(99);
    let first = three(at, own_port(9));
    let old = one('t', &format!("{at}/{first}"));
    let id = table.replace(&[old], &mut host).unwrap()[0];
    let _occupied = TcpListener::bind((at, first + 2)).unwrap();
    let wish = spec('t', &format!("{at}/{},{}", first + 1, first + 2));
    let error = table.replace(&wish, &mut host).unwrap_err();
    let text = format!("Listen failed for HOST TCP port {at}/{}: Address already in use", first + 2);
    assert_eq!((error.in_passts_words(), error.lost), (text, 0));
    assert_eq!(table.list().map(|info| info.id).collect::<Vec<_>>(), [id]);
    assert!(connects(at, first) && !connects(at, first + 1));
    assert_eq!((table.in_use(), host.watched), (1, 1));
}

#[test]
fn an_address_that_changes_on_its_port_comes_last_and_is_taken_back() {
    let own = own_address(28);
    let at = own.as_str();
    let others = own_address(29);
    let other = others.as_str();
    let (mut table, mut host) = pasta(99);
    let first = three("0.0.0.0", own_port(10));
    let (wide, narrow) = (one('t', &format!("0.0.0.0/{first}")), one('t', &format!("{at}/{first}")));
    let id = table.replace(&[wide], &mut host).unwrap()[0];
    table.replace(&[narrow], &mut host).unwrap();
    assert!(connects(at, first) && !connects(other, first));
    let again = table.replace(&[wide], &mut host).unwrap()[0];
    assert!(again > id && connects(other, first));
    // Now with another that fails only after the old socket was closed.
    let wish = [narrow, one('t', &format!("{at}%nosuch/{}", first + 1))];
    let error = table.replace(&wish, &mut host).unwrap_err();
    assert_eq!(error.lost, 0);
    let nosuch = one('t', &format!("%nosuch/{first}"));
    assert!(table.replace(&[nosuch], &mut host).is_err());
    assert!(connects(other, first), "{error}");
    assert_eq!(table.list().map(|info| info.id).collect::<Vec<_>>(), [again]);
    let both = spec('t', &format!("{at}/{first},{}", first + 1));
    let _occupied = TcpListener::bind((at, first + 1)).unwrap();
    assert!(table.replace(&both, &mut host).is_err());
    assert!(connects(other, first));
    assert_eq!(table.get(again).unwrap().endpoints().count(), 1);
}

#[test]
fn scanning_rules_keep_their_open_ports_through_a_replacement() {
    let own = own_address(30);
    let at = own.as_str();
    let (mut table, mut host) = pasta(99);
    let first = three(at, own_port(11));
    let scan = one('t', &format!("{at}/{first}-{},auto", first + 2));
    table.replace(&[scan], &mut host).unwrap();
    table.follow(Side::Host, Proto::Tcp, &[first].into_iter().collect(), &mut host);
    let _waiting = TcpStream::connect((at, first)).unwrap();
    let wider = one('t', &format!("{at}/{}-{},auto", first - 1, first + 2));
    let id = table.replace(&[wider], &mut host).unwrap()[0];
    round(&mut table, &mut host);
    assert_eq!(table.get(id).unwrap().counters.accepted, 1);
    assert!(!table.follow(Side::Host, Proto::Tcp, &[first].into_iter().collect(), &mut host));
}

#[test]
fn where_descriptors_are_short_the_old_make_way_and_come_back() {
    // The limit is the process's: under a runner that shares it between tests, this one runs in a child.
    const CHILD: &str = "SLIPWAY_TEST_FEW_FILES";
    if std::env::var_os(CHILD).is_none() {
        let name = "table::tests::pasta::where_descriptors_are_short_the_old_make_way_and_come_back";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (mut table, mut host) = pasta(99);
    let own = own_address(31);
    let at = own.as_str();
    let free = |port: &u16| TcpListener::bind((at, *port)).is_ok();
    let ports: Vec<u16> = (own_port(40)..31_999).filter(free).take(21).collect();
    let list = |ports: &[u16]| {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        spec('t', &format!("{at}/{}", ports.join(",")))
    };
    table.replace(&list(&ports[..10]), &mut host).unwrap();
    let next = std::fs::File::open("/dev/null").unwrap();
    let limit = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap() + 5;
    drop(next);
    let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    table.replace(&list(&ports[10..20]), &mut host).unwrap();
    assert!(!connects(at, ports[0]) && connects(at, ports[19]));
    // One that somebody else has: all is as it was.
    let occupied = TcpListener::bind((at, ports[20])).unwrap();
    let wish = [&ports[..9], &ports[20..]].concat();
    let error = table.replace(&list(&wish), &mut host).unwrap_err();
    assert_eq!(error.lost, 0, "{error}");
    assert!(!connects(at, ports[0]) && connects(at, ports[19]));
    assert_eq!((table.in_use(), host.watched), (10, 10));
    drop(occupied);
}
