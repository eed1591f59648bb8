use super::*;

const CLIENT: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 89, 0, 2));
const MS: fn(u64) -> Duration = Duration::from_millis;

fn servers(n: u8) -> Vec<SocketAddr> {
    (1..=n).map(|last| SocketAddr::from(([198, 51, 100, last], 53))).collect()
}

/// A query for `name`, A, id 0x1234, RD.
fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&crate::zone::wire_name(name).unwrap());
    bytes.extend_from_slice(&[0, 1, 0, 1]);
    bytes
}

/// The answer to a query: flags, rcode, and one address with that TTL.
fn answer(query: &[u8], flags: u8, rcode: u8, ttl: u32) -> Vec<u8> {
    let mut bytes = query.to_vec();
    (bytes[2], bytes[3], bytes[7]) = (0x81 | flags, 0x80 | rcode, 1);
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&[0, 4, 203, 0, 113, 7]);
    bytes
}

struct Bench {
    forwarder: Forwarder<u32>,
    clients: u32,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self { forwarder: Forwarder::new(policy, [7; 16]), clients: 0 }
    }

    fn ask(&mut self, now: Duration, transport: Transport, message: &[u8], servers: &[SocketAddr]) {
        self.clients += 1;
        let client = self.clients;
        self.forwarder.ask(now, Question { client, source: CLIENT, transport, message, servers });
    }

    fn actions(&mut self) -> Vec<Action<u32>> {
        core::iter::from_fn(|| self.forwarder.action()).collect()
    }

    /// The only thing to do, which is to send.
    fn sent(&mut self) -> (AttemptId, SocketAddr, Vec<u8>) {
        let mut actions = self.actions();
        actions.retain(|action| !matches!(action, Action::Close { .. }));
        match actions.as_slice() {
            [Action::SendUdp { attempt, server, message } | Action::SendTcp { attempt, server, message }] => {
                (*attempt, *server, message.clone())
            }
            other => panic!("{other:?}"),
        }
    }

    /// The only thing to do, which is to reply.
    fn replied(&mut self) -> Vec<u8> {
        let mut actions = self.actions();
        actions.retain(|action| !matches!(action, Action::Close { .. }));
        match actions.as_slice() {
            [Action::Reply { message, .. }] => message.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_servers_share_five_seconds_and_then_there_is_silence() {
    let mut bench = Bench::new(Policy::aardvark());
    let (list, start) = (servers(2), MS(1000));
    bench.ask(start, Transport::Udp, &query("a.example"), &list);
    let (first, server, _) = bench.sent();
    assert_eq!((server, bench.forwarder.deadline()), (list[0], Some(MS(3500))));
    bench.forwarder.timeout(MS(3499));
    assert_eq!(bench.actions(), []);
    bench.forwarder.timeout(MS(3500));
    let actions = bench.actions();
    assert_eq!(actions[0], Action::Close { attempt: first });
    assert!(matches!(&actions[1], Action::SendUdp { server, .. } if *server == list[1]), "{actions:?}");
    bench.forwarder.timeout(MS(6000));
    assert!(matches!(bench.actions()[..], [Action::Close { .. }, Action::GiveUp { client: 1 }]));
    assert_eq!((bench.forwarder.deadline(), bench.forwarder.pending()), (None, 0));
    // Nothing is remembered: the first server is asked first again.
    bench.ask(MS(6000), Transport::Udp, &query("a.example"), &list);
    assert_eq!(bench.sent().1, list[0]);
}

#[test]
fn an_answer_is_relayed_with_the_clients_id() {
    let mut bench = Bench::new(Policy::aardvark());
    let asked = query("Mixed.Case.example");
    bench.ask(MS(0), Transport::Tcp, &asked, &servers(3));
    let (attempt, server, sent) = bench.sent();
    assert_eq!(sent[2..], asked[2..]);
    let reply = answer(&sent, 0, 5, 300);
    assert_eq!(bench.forwarder.received(MS(9), attempt, server, &reply), Received::Accepted);
    let relayed = bench.replied();
    assert_eq!((&relayed[..2], &relayed[2..]), (&asked[..2], &reply[2..]));
    assert_eq!(bench.forwarder.received(MS(9), attempt, server, &reply), Received::Stale);
}
