//! The event loop of the simulator: engine, guest, link and host under one virtual clock.
//!
//! [`World::turn`] is one round of the real driver: frames in a batch, events in a batch, what is due, then
//! [`Engine::drain`]. A round in which something happened takes [`TURN`] of virtual time, so nothing is infinitely
//! fast, and a loop that does nothing is found: [`FUTILE`] rounds in a row without a frame, an event or a byte end the
//! test. Between rounds the clock jumps to the next thing that is due; how often the engine asked to be woken is
//! counted in [`Stats::wakeups`].

use crate::link::{Link, LinkConfig};
use crate::offload;
use crate::packet::ETHERNET_LEN;
use crate::upstream::tcp::Service;
use crate::upstream::{Host, HostConfig};
use crate::watch::Watch;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Keys;
use slipway_netstack::device::{Capabilities, Device, Full, Offload};
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::ethernet::destination;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Ipv6Config, Slirp};
use slipway_netstack::upstream::{Client, Event, Forwarded, Meta};
use slipway_netstack::{Config, Engine, FlowId, Instant};

/// The guest's MAC address in all scenarios.
pub const GUEST_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x64]);
/// The engine's.
pub const ENGINE_MAC: MacAddr = MacAddr::of_gateway(IpAddr::V4(GATEWAY4));
/// The guest's IPv4 address.
pub const GUEST4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// The gateway's.
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The DNS address.
pub const DNS4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The guest's IPv6 address.
pub const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64);
/// The gateway's.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// The DNS address.
pub const DNS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);

/// The usual plan, MTU 1500, a device without offloads, fixed keys.
#[must_use]
pub fn engine_config() -> Config {
    Config {
        plan: plan(|_| {}),
        ..Config::new(
            ENGINE_MAC,
            Keys { flow_hash: [7; 16], isn: [9; 16], others: [11; 16] },
            Capabilities::default(),
        )
    }
}

/// The addresses of `slirp4netns --enable-ipv6`, host loopback allowed, with a difference.
#[must_use]
pub fn plan(change: impl FnOnce(&mut Slirp)) -> Plan {
    let mut slirp = Slirp {
        v4: Some(Ipv4Config::slirp("10.0.2.0/24".parse().expect("a prefix"))),
        v6: Some(Ipv6Config::slirp("fd00::/64".parse().expect("a prefix"))),
        host_loopback: true,
        internal: false,
    };
    change(&mut slirp);
    Plan::slirp(ENGINE_MAC, &slirp)
}

/// How a world is made.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// The engine.
    pub engine: Config,
    /// The host and the path behind it.
    pub host: HostConfig,
    /// The wire, both directions.
    pub link: LinkConfig,
    /// What the guest sends arrives as its kernel would send it through a TAP with offloads: as trains.
    pub guest_offload: bool,
    /// Decides everything that is random.
    pub seed: u64,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            engine: engine_config(),
            host: HostConfig::default(),
            link: LinkConfig::default(),
            guest_offload: false,
            seed: 1,
        }
    }
}

/// What lives behind the wire.
pub trait Guest {
    /// A complete frame arrived.
    fn deliver(&mut self, now: Instant, frame: &[u8]);

    /// Does what it has to do; what it sends goes through `send`.
    fn poll(&mut self, now: Instant, send: &mut dyn FnMut(Offload, Vec<u8>));

    /// When it wants [`Guest::poll`] to be called next.
    fn next_timeout(&mut self, now: Instant) -> Option<Instant>;
}

/// What has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rounds in which something happened.
    pub turns: u64,
    /// Calls of [`Engine::on_timeout`].
    pub wakeups: u64,
    /// The longest frame to the guest, Ethernet header included, before segmentation.
    pub longest: usize,
    /// Frames that the engine handed to the device.
    pub transmitted: u64,
}

/// Virtual time that a round takes in which something happened.
pub const TURN: Duration = Duration::from_micros(1);
/// Rounds in a row in which the engine wanted to do something and nothing happened.
const FUTILE: u32 = 64;
/// Frames or events in one batch, as in the driver.
const BATCH: usize = 64;

/// Everything together.
#[derive(Debug)]
pub struct World<G> {
    /// The engine under test.
    pub engine: Engine,
    /// What lives behind the wire.
    pub guest: G,
    /// Sockets and servers.
    pub host: Host,
    /// The wire from the guest.
    pub up: Link,
    /// The wire to the guest.
    pub down: Link,
    /// A station that there is no room for, as if it had a link of its own.
    pub blocked: Option<MacAddr>,
    /// How long a flow waits for others.
    pub watch: Watch,
    now: Instant,
    guest_offload: bool,
    futile: u32,
    more: bool,
    stats: Stats,
}

/// The wire to the guest as the engine's device.
struct Port<'a> {
    link: &'a mut Link,
    now: Instant,
    caps: Capabilities,
    mtu: usize,
    blocked: Option<MacAddr>,
    stats: &'a mut Stats,
    watch: &'a mut Watch,
}

impl<'a> Port<'a> {
    fn new(
        engine: &Engine,
        now: Instant,
        link: &'a mut Link,
        blocked: Option<MacAddr>,
        (stats, watch): (&'a mut Stats, &'a mut Watch),
    ) -> Self {
        let config = engine.config();
        Self { link, now, caps: config.device, mtu: config.mtu.bytes().into(), blocked, stats, watch }
    }
}

impl Device for Port<'_> {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        if self.blocked.is_some() && destination(frame) == self.blocked {
            return Err(Full);
        }
        self.stats.transmitted += 1;
        self.stats.longest = self.stats.longest.max(frame.len());
        if self.link.is_full() {
            return Err(Full);
        }
        self.watch.frame(frame);
        for frame in offload::finish(self.caps, offload, frame) {
            let most = self.mtu + ETHERNET_LEN;
            assert!(frame.len() <= most, "a frame of {} bytes on a link for {most}", frame.len());
            self.link.push(self.now, Offload::NONE, frame);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.link.is_full()
    }

    fn may_have_room(&self, station: MacAddr) -> bool {
        self.blocked != Some(station)
    }
}

impl<G: Guest> World<G> {
    /// A world at time zero.
    #[must_use]
    pub fn new(config: WorldConfig, guest: G) -> Self {
        Self {
            engine: Engine::new(config.engine),
            guest,
            host: Host::new(config.host, config.seed ^ 0x686f_7374),
            up: Link::new(config.link, config.seed ^ 0x7570),
            down: Link::new(config.link, config.seed ^ 0x646f_776e),
            blocked: None,
            watch: Watch::default(),
            now: Instant::ZERO,
            guest_offload: config.guest_offload,
            futile: 0,
            more: false,
            stats: Stats::default(),
        }
    }

    /// The virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// What has happened.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// One round of the event loop; whether something happened.
    ///
    /// # Panics
    /// When the engine goes round in circles.
    pub fn turn(&mut self) -> bool {
        let mut happened = self.guest_turn();
        let (now, before, flows) = (self.now, self.stats.transmitted, self.engine.flow_count());
        let mut asked = self.more;
        for (offload, frame) in self.frames() {
            self.engine.on_frame(now, offload, &frame, &mut self.host);
            happened = true;
        }
        self.host.advance(now);
        for _ in 0..BATCH {
            let Some((flow, event)) = self.host.next_event() else { break };
            if event == Event::Readable {
                self.watch.told(flow);
            }
            self.engine.on_upstream(now, flow, event, &mut self.host);
            happened = true;
        }
        if self.engine.next_timeout().is_some_and(|at| at <= now) {
            self.engine.on_timeout(now, &mut self.host);
            self.stats.wakeups += 1;
            asked = true;
        }
        let records = (&mut self.stats, &mut self.watch);
        let mut port = Port::new(&self.engine, now, &mut self.down, self.blocked, records);
        self.more = self.engine.drain(now, &mut self.host, &mut port);
        happened |= self.stats.transmitted > before || self.engine.flow_count() != flows;
        self.futile = if happened || !asked { 0 } else { self.futile + 1 };
        assert!(
            self.futile < FUTILE,
            "livelock at {now:?}: the engine asks for turns and does nothing; next timeout {:?}",
            self.engine.next_timeout()
        );
        if happened || asked || self.more {
            self.stats.turns += 1;
            self.now = now + TURN;
        }
        happened || asked || self.more
    }

    fn guest_turn(&mut self) -> bool {
        let now = self.now;
        let mut happened = false;
        while let Some((_, frame)) = self.down.pop(now) {
            self.guest.deliver(now, &frame);
            happened = true;
        }
        let up = &mut self.up;
        self.guest.poll(now, &mut |offload, frame| {
            up.push(now, offload, frame);
            happened = true;
        });
        happened
    }

    /// A batch of frames that have arrived from the guest.
    fn frames(&mut self) -> Vec<(Offload, Vec<u8>)> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Some(frame) = self.up.pop(self.now) else { break };
            batch.push(frame);
        }
        if self.guest_offload {
            offload::coalesce(batch.into_iter().map(|(_, f)| f).collect())
        } else {
            batch
        }
    }

    /// When something is due next.
    fn next_due(&mut self) -> Option<Instant> {
        if self.more {
            return Some(self.now);
        }
        [
            self.up.next_arrival(),
            self.down.next_arrival(),
            self.host.next_timeout(),
            self.engine.next_timeout(),
            self.guest.next_timeout(self.now),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Runs until `done` says so or `limit` has passed; whether `done` was reached.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.turn() && self.now < end {
                continue;
            }
            match self.next_due() {
                Some(at) if at < end && self.now < end => self.now = self.now.max(at),
                _ => {
                    self.now = self.now.max(end);
                    return done(self);
                }
            }
        }
    }

    /// Runs for so long.
    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Runs until nothing is due at once: for perfect wires, where an exchange takes no time but that of the rounds.
    ///
    /// # Panics
    /// When it does not come to rest within a second of virtual time.
    pub fn settle(&mut self) {
        let end = self.now + Duration::from_secs(1);
        loop {
            while self.turn() {
                assert!(self.now < end, "no rest within a second");
            }
            match self.next_due() {
                Some(at) if at <= self.now + TURN => self.now = self.now.max(at),
                _ => return,
            }
        }
    }

    /// A client at `from` connects to a forwarded port that leads to `guest`.
    ///
    /// # Errors
    /// As the engine says.
    pub fn accept_tcp(&mut self, from: &str, guest: &str, client: Service) -> Result<FlowId, DropReason> {
        let from: SocketAddr = from.parse().expect("an endpoint");
        let flow = self.engine.accept_tcp(self.now, from, guest.parse().expect("an endpoint"))?;
        self.host.attach(flow, from, client);
        Ok(flow)
    }

    /// A client at `from` sends `payload` to a forwarded UDP port that leads to `guest`.
    ///
    /// # Errors
    /// As the engine says.
    pub fn accept_udp(
        &mut self,
        from: &str,
        guest: &str,
        payload: &[u8],
        segment: usize,
    ) -> Result<FlowId, DropReason> {
        let address: SocketAddr = from.parse().expect("an endpoint");
        let guest: SocketAddr = guest.parse().expect("an endpoint");
        // The host's port is the guest's.
        let at = SocketAddr::new(address.ip(), guest.port());
        let client = Client { address, at };
        let datagrams = Forwarded { client, guest, payload, segment, meta: Meta::default() };
        let records = (&mut self.stats, &mut self.watch);
        let mut port = Port::new(&self.engine, self.now, &mut self.down, self.blocked, records);
        let inbound = self.engine.accept_udp(self.now, &datagrams, &mut port)?;
        if inbound.new {
            let like: IpAddr = address.ip();
            self.host.attach_udp(inbound.flow, like);
        }
        Ok(inbound.flow)
    }
}
