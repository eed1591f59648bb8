//! Weather: what a link does to frames. It carries so many bits a second, has a queue and a length, and loses some.
//!
//! ```text
//!   host 192.0.2.1 ── link0 ══ slipway-lab-link ══ link0 ── world 192.0.2.2
//! ```
//!
//! [`Lane`] is one direction, as arithmetic on times that it is given. A frame leaves the queue when those before it
//! have and its own bits are sent; one that finds more in the queue than it holds is dropped; half the round-trip time
//! later it is at the other end. Whether it gets there depends on the seed and its number among the frames that were
//! sent, so a subject's thousandth frame meets the same fate as any other's, whenever it comes.
//!
//! [`Lab::weather`] puts a link in the place of the lab's veth. The link is a process of its own (`link.rs`) with a TAP
//! at each end, of 1500 bytes, whatever a container's device has: that is the world. The ends know each other's
//! hardware address and speak no IPv6, so that no frames but those of the work are numbered.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::command::Running;
use crate::namespaces::{HOST4, Lab, WORLD4};

/// The interface at both ends.
pub const LINK: &str = "link0";
/// A queue holds what the link carries in a round-trip time, and no less than in this.
const SHORTEST: Duration = Duration::from_millis(10);
/// More frames than a sender has under way at once: the device itself is to drop none.
const DEVICE_QUEUE: u32 = 60_000;
const START: Duration = Duration::from_secs(10);

/// A link's properties, the same both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Millions of bits a second, of Ethernet frames without preamble and checksum.
    pub mbit: u32,
    /// The round-trip time in milliseconds, without what waiting in queues adds.
    pub rtt: u32,
    /// How many of a million frames are lost.
    pub loss: u32,
    /// What decides which.
    pub seed: u64,
}

impl Weather {
    /// The words that tell the link's program.
    #[must_use]
    pub fn words(&self) -> [String; 4] {
        [self.mbit.to_string(), self.rtt.to_string(), self.loss.to_string(), self.seed.to_string()]
    }

    /// What [`Weather::words`] said; `None` for anything else, and for a link that carries nothing.
    #[must_use]
    pub fn read(words: [&str; 4]) -> Option<Self> {
        let [mbit, rtt, loss, seed] = words;
        let number = |word: &str| word.parse::<u32>().ok();
        let weather =
            Self { mbit: number(mbit)?, rtt: number(rtt)?, loss: number(loss)?, seed: seed.parse().ok()? };
        (weather.mbit > 0).then_some(weather)
    }

    /// How long the link sends at so many bytes.
    fn sends(&self, bytes: usize) -> Duration {
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
        Duration::from_nanos(bits.saturating_mul(1000) / u64::from(self.mbit.max(1)))
    }

    /// How long the link sends at a full queue.
    fn queue(&self) -> Duration {
        self.length().max(SHORTEST)
    }

    fn length(&self) -> Duration {
        Duration::from_millis(u64::from(self.rtt))
    }

    /// Whether the frame of this number is lost.
    fn loses(&self, number: u64) -> bool {
        mixed(self.seed.wrapping_add(mixed(number))) % 1_000_000 < u64::from(self.loss)
    }
}

/// A number whose bits all depend on all bits of the other: the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast
/// splittable pseudorandom number generators", 2014).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// One direction of a link.
#[derive(Debug)]
pub struct Lane {
    weather: Weather,
    /// When everything in the queue will have been sent.
    free: Option<Instant>,
    /// Frames that were sent or wait for it.
    number: u64,
    under_way: VecDeque<(Instant, Vec<u8>)>,
}

impl Lane {
    /// An empty one. The two of a link lose different frames.
    #[must_use]
    pub fn new(weather: Weather, back: bool) -> Self {
        let seed = if back { mixed(!weather.seed) } else { weather.seed };
        Self { weather: Weather { seed, ..weather }, free: None, number: 0, under_way: VecDeque::new() }
    }

    /// A frame comes to the queue.
    pub fn enter(&mut self, now: Instant, frame: &[u8]) {
        let free = self.free.map_or(now, |free| free.max(now));
        if free - now >= self.weather.queue() {
            return;
        }
        let sent = free + self.weather.sends(frame.len());
        self.free = Some(sent);
        let number = self.number;
        self.number += 1;
        if !self.weather.loses(number) {
            self.under_way.push_back((sent + self.weather.length() / 2, frame.to_vec()));
        }
    }

    /// When the next frame arrives.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.under_way.front().map(|(due, _)| *due)
    }

    /// A frame that has arrived.
    pub fn leave(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.due().filter(|due| *due <= now)?;
        self.under_way.pop_front().map(|(_, frame)| frame)
    }
}

/// A link that stands; its interfaces go when this does, and the lab is then without one.
#[derive(Debug)]
pub struct Link {
    _process: Running,
}

impl Lab {
    /// Joins host and world by a link instead of the veth, which goes for good. `program` is `slipway-lab-link`.
    ///
    /// # Errors
    /// When the link's program or one of the commands that set up its interfaces fails.
    pub fn weather(&self, program: &Path, weather: Weather) -> io::Result<Link> {
        self.host_root(["sh", "-c", "! ip link show veth0 2>/dev/null || ip link del veth0"]).ok(START)?;
        // It is to be on time while others keep the processors busy.
        let mut process = self
            .host_root(["nice", "-n", "-15"])
            .arg(program)
            .arg(self.world_pid().to_string())
            .args(weather.words())
            .start()?;
        process.until(START, |running| running.stdout().contains("ready"))?;
        self.host_root(end(1, HOST4, 2, WORLD4)).ok(START)?;
        self.world(end(2, WORLD4, 1, HOST4)).ok(START)?;
        self.host_root(["ip", "route", "replace", "default", "via", WORLD4]).ok(START)?;
        Ok(Link { _process: process })
    }

    /// How many frames the link's devices dropped because its program did not take them in time.
    ///
    /// # Errors
    /// When there is no link, or the kernel tells nothing.
    pub fn link_dropped(&self) -> io::Result<u64> {
        let show = ["cat", "/proc/net/dev"];
        let counts = [self.host_root(show).ok(START)?.out(), self.world(show).ok(START)?.out()];
        counts.iter().map(|text| dropped(text).ok_or_else(|| io::Error::other("no link0"))).sum()
    }
}

/// The command that sets up one end: its own number and address, and the other's.
fn end(own: u8, address: &str, other: u8, peer: &str) -> [String; 3] {
    let script = format!(
        "set -e
         echo 1 > /proc/sys/net/ipv6/conf/{LINK}/disable_ipv6
         ip link set {LINK} address 02:00:00:00:00:0{own} txqueuelen {DEVICE_QUEUE}
         ip address add {address}/24 dev {LINK}
         ip link set {LINK} up
         ip neigh replace {peer} lladdr 02:00:00:00:00:0{other} dev {LINK} nud permanent"
    );
    ["sh".to_owned(), "-c".to_owned(), script]
}

/// The frames that the link's device did not send, in a text like `/proc/net/dev`: the twelfth number.
fn dropped(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(LINK)?.strip_prefix(':'))?;
    line.split_whitespace().nth(11)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now;

    const FINE: Weather = Weather { mbit: 500, rtt: 0, loss: 0, seed: 7 };

    #[test]
    fn frames_leave_at_the_pace_of_the_link() {
        let start = now();
        let mut lane = Lane::new(FINE, false);
        for _ in 0..3 {
            lane.enter(start, &[0; 1250]);
        }
        // 10 000 bits at 500 Mbit/s are 20 µs.
        for micros in [20, 40, 60] {
            let due = start + Duration::from_micros(micros);
            assert_eq!(lane.due(), Some(due));
            assert_eq!(lane.leave(due - Duration::from_nanos(1)), None);
            assert_eq!(lane.leave(due).map(|frame| frame.len()), Some(1250));
        }
        // A link that was idle owes nothing.
        lane.enter(start + Duration::from_secs(1), &[0; 1250]);
        assert_eq!(lane.due(), Some(start + Duration::from_secs(1) + Duration::from_micros(20)));
    }

    #[test]
    fn the_other_end_is_half_a_round_trip_away() {
        let start = now();
        let mut lane = Lane::new(Weather { rtt: 100, ..FINE }, false);
        lane.enter(start, &[0; 1250]);
        assert_eq!(lane.due(), Some(start + Duration::from_micros(50_020)));
    }

    #[test]
    fn a_queue_holds_a_bandwidth_delay_product_and_not_less_than_ten_milliseconds() {
        for (rtt, held) in [(100, 5000), (0, 500)] {
            let start = now();
            let mut lane = Lane::new(Weather { rtt, ..FINE }, false);
            (0..2 * held).for_each(|_| lane.enter(start, &[0; 1250]));
            let end = start + Duration::from_secs(1);
            assert_eq!(std::iter::from_fn(|| lane.leave(end)).count(), held);
        }
    }

    #[test]
    fn the_same_numbers_are_lost_whenever_they_come() {
        let stormy = Weather { loss: 10_000, ..FINE };
        let survivors = |back, pause| {
            let mut lane = Lane::new(stormy, back);
            let start = now();
            (0..20_000_u32).for_each(|number| lane.enter(start + pause * number, &number.to_be_bytes()));
            std::iter::from_fn(|| lane.leave(start + Duration::from_secs(60))).collect::<Vec<_>>()
        };
        let there = survivors(false, Duration::from_micros(1));
        assert!((150..250).contains(&(20_000 - there.len())), "{}", there.len());
        assert_eq!(there, survivors(false, Duration::from_millis(2)));
        assert_ne!(there, survivors(true, Duration::from_micros(1)));
    }

    #[test]
    fn the_link_is_told_what_it_is() {
        let weather = Weather { mbit: 500, rtt: 100, loss: 10_000, seed: u64::MAX };
        let words = weather.words();
        let [mbit, rtt, loss, seed] = &words;
        assert_eq!(Weather::read([mbit, rtt, loss, seed]), Some(weather));
        assert_eq!(Weather::read(["0", "0", "0", "0"]), None);
        assert_eq!(Weather::read(["500", "-1", "0", "0"]), None);
    }

    #[test]
    fn what_a_device_dropped_is_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
                    link0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(dropped(text), Some(12));
        assert_eq!(dropped("lo: 1"), None);
    }
}
