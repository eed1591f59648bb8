//! Both directions at once in bad weather: an honest guest behind a link that loses and reorders, with an application
//! that reads when it likes, and a socket that takes and gives when it likes. Whatever happens, both streams arrive
//! whole, no window is overrun, and in the end nothing is left.

use super::*;
use crate::config::Mtu;
use crate::device::Capabilities;
use crate::testing::config;
use crate::transport::lab::Send;
use std::collections::VecDeque;

/// A guest that knows no rules, on a few ports at once, with a host that does as it likes: nothing panics, and when all
/// is quiet nothing is left.
fn churn(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut config = config();
    config.max_flows = 12;
    config.tcp.window_pool = 1 << 20;
    let mut lab = Lab::with(config);
    let mut flows = Vec::new();
    // By port: what the engine is likely to accept.
    let mut seqs = [0_i64; 16];
    let mut acks = [0_u32; 16];
    for _ in 0..1500 {
        let port = usize::try_from(dice.roll(16)).unwrap();
        lab.guest.set_port(1000 + u16::try_from(port).unwrap());
        if dice.once_in(20) {
            lab.server = if dice.once_in(2) { "10.0.2.3:53" } else { "192.0.2.1:80" }.parse().unwrap();
        }
        lab.scaled = dice.once_in(2);
        lab.timestamps = dice.once_in(2);
        match dice.roll(12) {
            0 | 1 => lab.syn(),
            2 => {
                if let Ok(id) = lab.engine.accept_tcp(lab.now, lab.server, lab.guest) {
                    lab.host
                        .sockets
                        .insert(id, crate::transport::lab::Socket { room: 5000, ..Default::default() });
                }
            }
            3 => lab.datagram(&bytes(usize::try_from(dice.roll(3)).unwrap() * 700)),
            4..=8 => {
                let len = usize::try_from(dice.roll(5)).unwrap() * 300;
                let wobble = if dice.once_in(4) { i64::try_from(dice.roll(3000)).unwrap() - 1500 } else { 0 };
                let mut segment = lab.segment(seqs[port] + wobble, 0, &bytes(len));
                segment.ack = acks[port].wrapping_sub(u32::try_from(dice.roll(3)).unwrap() * 500);
                segment.window = [0, 1, 500, 65_535][usize::try_from(dice.roll(4)).unwrap()];
                segment.flags |= match dice.roll(12) {
                    0 => FIN,
                    1 => RST,
                    2 => SYN,
                    _ => 0,
                };
                if wobble == 0 && segment.flags & FIN == 0 {
                    seqs[port] += i64::try_from(len).unwrap();
                }
                if dice.once_in(5) {
                    segment.options.extend([1, 1, 5, 10]);
                    segment.options.extend(segment.ack.wrapping_add(1460).to_be_bytes());
                    segment.options.extend(segment.ack.wrapping_add(2920).to_be_bytes());
                }
                lab.send(&segment);
            }
            _ => {}
        }
        flows.clear();
        flows.extend(lab.host.sockets.keys().copied());
        if !flows.is_empty() {
            lab.id = flows[usize::try_from(dice.roll(flows.len() as u64)).unwrap()];
            match dice.roll(8) {
                0..=2 => lab.event(Event::Connected),
                3 => lab.event(Event::Failed(Errno::Refused)),
                4 => lab.make_room(usize::try_from(dice.roll(3000)).unwrap()),
                5 => lab.serve_end(),
                _ => lab.serve(&bytes(usize::try_from(dice.roll(20_000)).unwrap())),
            }
        }
        lab.link.lost = if dice.once_in(10) { 3 } else { 0 };
        lab.link.room = dice.once_in(10).then_some(1);
        for got in lab.pass(ms(dice.roll(4) * dice.roll(400))) {
            // The lab does not tell ports apart: the latest is as good as any.
            let len = u32::try_from(got.1.payload.len()).unwrap();
            acks[port] = got.1.seq.wrapping_add(len).wrapping_add(u32::from(got.1.flags & (SYN | FIN) != 0));
            if got.1.is(SYN | ACK) {
                seqs[port] = 0;
            }
        }
    }
    lab.link.room = None;
    // What is under way on the host's side ends there.
    let sockets: Vec<_> = lab.host.sockets.keys().copied().collect();
    for id in sockets {
        lab.engine.on_upstream(lab.now, id, Event::Failed(Errno::TimedOut), &mut lab.host);
    }
    lab.pass(ms(3 * 86_400_000));
    assert_eq!(lab.engine.flow_count(), 0, "seed {seed}: {:?}", lab.engine.flows().collect::<Vec<_>>());
    assert!(lab.host.sockets.is_empty(), "seed {seed}");
    assert_eq!(lab.engine.next_timeout(), None, "seed {seed}");
    assert_eq!((lab.engine.tcp.pool, lab.engine.tcp.held()), (1 << 20, 0), "seed {seed}");
}

#[test]
fn nothing_is_left_of_chaos() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 1..=seeds {
        churn(seed);
    }
}

/// Numbers as good as random (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn once_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

struct Guest {
    // What it receives.
    stream: Vec<u8>,
    ahead: Vec<(i64, Vec<u8>)>,
    end: Option<i64>,
    unread: usize,
    room: usize,
    edge: i64,
    // What it sends.
    sent: i64,
    acked: i64,
    /// Right edge of the window as told.
    limit: i64,
    quiet: u64,
    data: Vec<u8>,
    shift: u8,
}

impl Guest {
    fn total(&self) -> i64 {
        i64::try_from(self.data.len()).unwrap()
    }

    fn received(&self) -> i64 {
        i64::try_from(self.stream.len()).unwrap() + i64::from(self.finished())
    }

    fn finished(&self) -> bool {
        self.end == Some(i64::try_from(self.stream.len()).unwrap())
    }

    fn take(&mut self, lab: &Lab, got: &Got) {
        assert!(!got.is(RST | ACK) && !got.is(RST), "reset: {got:?}");
        let place = |seq: u32| i64::from(seq.wrapping_sub(lab.theirs(0)).cast_signed());
        let acked = i64::from(got.ack.wrapping_sub(Lab::ours(0)));
        assert!(acked <= self.total() + 1, "acknowledges {acked}");
        if acked > self.acked {
            (self.acked, self.quiet) = (acked, 0);
            self.sent = self.sent.max(acked);
        }
        if acked == self.acked {
            let limit = acked + (i64::from(got.window) << self.shift);
            assert!(limit + 128 > self.limit, "the window was taken back from {} to {limit}", self.limit);
            self.limit = self.limit.max(limit);
        }
        let from = place(got.seq);
        let to = from + i64::try_from(got.payload.len()).unwrap();
        assert!(to <= self.edge + 1, "{to} is beyond the window's edge {}", self.edge);
        if got.flags & FIN != 0 {
            self.end = Some(to);
        }
        let fits = to <= i64::try_from(self.stream.len() + self.room - self.unread).unwrap();
        if !got.payload.is_empty() && fits {
            self.ahead.push((from, got.payload.clone()));
            self.ahead.sort();
        }
        while let Some(n) = self.ahead.iter().position(|(from, bytes)| {
            let next = i64::try_from(self.stream.len()).unwrap();
            *from <= next && from + i64::try_from(bytes.len()).unwrap() > next
        }) {
            let (from, bytes) = self.ahead.remove(n);
            let old = self.stream.len() - usize::try_from(from).unwrap();
            self.stream.extend(&bytes[old..]);
            self.unread += bytes.len() - old;
        }
        self.ahead.retain(|(from, bytes)| {
            from + i64::try_from(bytes.len()).unwrap() > i64::try_from(self.stream.len()).unwrap()
        });
    }

    fn segment(&mut self, lab: &Lab, seq: i64, payload: &[u8]) -> Send {
        let mut segment = lab.segment(seq, self.received(), payload);
        let window = (self.room - self.unread).min(65_535);
        segment.window = u16::try_from(window).unwrap();
        self.edge = self.edge.max(i64::try_from(self.stream.len() + window).unwrap());
        if lab.scaled && !self.ahead.is_empty() {
            let blocks: Vec<_> = self.ahead.iter().rev().take(2).collect();
            let len = u8::try_from(2 + 8 * blocks.len()).unwrap();
            segment.options.extend([1, 1, 5, len]);
            for (from, bytes) in blocks {
                segment.options.extend(lab.theirs(*from).to_be_bytes());
                let to = from + i64::try_from(bytes.len()).unwrap();
                segment.options.extend(lab.theirs(to).to_be_bytes());
            }
        }
        segment
    }

    /// Something new to send, if the window permits.
    fn next(&mut self, lab: &Lab, dice: &mut Dice) -> Option<Send> {
        let total = self.total();
        let room = (self.limit - self.sent).min(1400).min(total - self.sent);
        if room > 0 {
            let len = 1 + i64::try_from(dice.roll(u64::try_from(room).unwrap())).unwrap();
            let from = self.sent;
            self.sent += len;
            let bytes =
                self.data[usize::try_from(from).unwrap()..usize::try_from(self.sent).unwrap()].to_vec();
            return Some(self.segment(lab, from, &bytes));
        }
        if self.sent == total && self.limit > total {
            self.sent += 1;
            let mut fin = self.segment(lab, total, &[]);
            fin.flags |= FIN;
            return Some(fin);
        }
        None
    }
}

fn weather(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut config = config();
    config.tcp.max_window = if dice.once_in(2) { 65_535 } else { 1 << 20 };
    config.mtu = Mtu::new(if dice.once_in(3) { 65_520 } else { 1500 }).unwrap();
    let capable = dice.once_in(2);
    config.device = Capabilities { checksum: capable, tso4: capable, tso6: capable, uso: capable };
    let mut lab = Lab::with(config);
    lab.scaled = !dice.once_in(3);
    lab.timestamps = dice.once_in(2);
    lab.mss = Some(lab.engine.config().mtu.bytes() - 40);
    lab.connect();
    lab.socket().room = 0;
    let shift = if lab.scaled { 7 } else { 0 };
    let (up, down) =
        (bytes(usize::try_from(dice.roll(300_000)).unwrap()), usize::try_from(dice.roll(600_000)).unwrap());
    let served = bytes(down);
    let mut guest = Guest {
        stream: Vec::new(),
        ahead: Vec::new(),
        end: None,
        unread: 0,
        room: usize::try_from(2_000 + dice.roll(60_000)).unwrap(),
        edge: 65_535,
        sent: 0,
        acked: 0,
        limit: 65_535,
        quiet: 0,
        data: up.clone(),
        shift,
    };
    let (loss, reorder) = (5 + dice.roll(60), 5 + dice.roll(60));
    let mut link: VecDeque<Send> = VecDeque::new();
    let mut given = 0;
    for step in 0..200_000 {
        let pause = [0, 0, 1, 1, 2, 30][usize::try_from(dice.roll(6)).unwrap()];
        let got: Vec<Got> = lab.pass(ms(pause)).into_iter().map(|(_, got)| got).collect();
        if !lab.lives() {
            // The last acknowledgement may be lost: what the guest repeats then is answered by RST.
            assert!(guest.finished(), "step {step}: gone too early");
            assert_eq!(guest.stream, served);
            assert_eq!((lab.host.closed.len(), lab.host.reset.len()), (1, 0));
            assert_eq!(lab.host.last.unwrap().taken, up);
            assert_eq!(lab.engine.tcp.pool, lab.engine.config().tcp.window_pool);
            return;
        }
        let news = !got.is_empty();
        for got in got {
            if !dice.once_in(loss) {
                guest.take(&lab, &got);
            }
        }
        guest.quiet += pause;
        // The application reads.
        if dice.once_in(3) {
            guest.unread -= usize::try_from(dice.roll(u64::try_from(guest.unread).unwrap() + 1)).unwrap();
        } else if dice.once_in(10) {
            guest.unread = 0;
        }
        for _ in 0..dice.roll(6) {
            link.extend(guest.next(&lab, &mut dice));
        }
        if guest.quiet > 250 && guest.acked <= guest.total() {
            // Its timeout: from the beginning, or a probe.
            guest.quiet = 0;
            guest.sent = guest.acked;
            let again = guest.next(&lab, &mut dice);
            let probe = guest.segment(&lab, guest.acked - 1, &[]);
            link.push_back(again.unwrap_or(probe));
        } else if news || dice.once_in(20) {
            let at = guest.sent;
            link.push_back(guest.segment(&lab, at, &[]));
        }
        while let Some(segment) = link.pop_front() {
            if dice.once_in(reorder) && !link.is_empty() {
                link.push_back(segment);
            } else if !dice.once_in(loss) {
                lab.send(&segment);
            }
        }
        if !lab.lives() {
            continue;
        }
        // The socket.
        if dice.once_in(4) {
            let room = usize::try_from(dice.roll(40_000)).unwrap();
            let socket = lab.socket();
            socket.room += room;
            lab.event(Event::Writable);
        }
        if given < down && dice.once_in(3) {
            let len = usize::try_from(dice.roll(80_000)).unwrap().min(down - given);
            lab.serve(&served[given..given + len]);
            given += len;
        } else if given == down && !lab.socket().end && dice.once_in(3) {
            lab.serve_end();
        }
        assert!(up.starts_with(&lab.socket().taken), "step {step}: wrong bytes");
    }
    panic!(
        "seed {seed}: stuck at {} of {} up, {} of {down} down: {:?}",
        guest.acked,
        guest.total(),
        guest.stream.len(),
        lab.engine.flows.iter().map(|(_, _, entry)| format!("{:?}", entry.body)).collect::<Vec<_>>()
    );
}

#[test]
fn both_streams_arrive_whatever_happens() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 1..=seeds {
        weather(seed);
    }
}
