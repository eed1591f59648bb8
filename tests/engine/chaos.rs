//! Everything at once: several connections, both ways, over links and paths drawn at random. All bytes arrive, all
//! connections end, nothing is left over. Beside them a server says a few bytes now and then: between the moment at
//! which the engine hears of them and the frame that carries them, others get no more than [`AHEAD`]. And what flows
//! hold stays within its bound all the time. A seed that fails prints itself and can be run alone: `CHAOS_SEED=n`.

use core::time::Duration;
use slipway_netstack::Instant;
use slipway_netstack::config::Mtu;
use slipway_netstack::device::Capabilities;
use smoltcp::iface::SocketHandle;
use testkit::guest::{SmolConfig, SmolGuest, Task};
use testkit::link::LinkConfig;
use testkit::rng::Rng;
use testkit::upstream::tcp::{Script, Service};
use testkit::upstream::{Buffer, HostConfig};
use testkit::world::{World, WorldConfig};

/// The most of others that may leave between the moment that a sparse flow has something to send and its frame.
const AHEAD: u64 = 128 << 10;
/// Bytes of memory that a flow takes however little it holds.
const FLOW: usize = 1 << 10;
/// Networks in each of the tests, which run side by side.
const SEEDS: u64 = 250;

/// One of these.
fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    let count = u64::try_from(choices.len()).unwrap();
    choices[usize::try_from(rng.below(count)).unwrap()]
}

fn config(rng: &mut Rng, seed: u64) -> (WorldConfig, usize) {
    let mtu = pick(rng, &[1280, 1500, 1500, 9000, 65_520]);
    let link = LinkConfig {
        delay: Duration::from_micros(pick(rng, &[0, 0, 50, 1000, 20_000])),
        bandwidth: pick(rng, &[None, Some(125_000_000), Some(5_000_000)]),
        queue: None,
        loss: pick(rng, &[0, 0, 1, 10, 30]),
        duplicate: pick(rng, &[0, 0, 20]),
        reorder: pick(rng, &[0, 0, 30]),
        hold: Duration::from_micros(300),
    };
    let small = pick(rng, &[2048, 16 << 10, 128 << 10]);
    let host = HostConfig {
        delay: Duration::from_micros(pick(rng, &[0, 100, 5000, 50_000])),
        bandwidth: pick(rng, &[None, Some(50_000_000), Some(2_000_000)]),
        send_buffer: Buffer { initial: small, max: small * pick(rng, &[1, 32]) },
        receive_buffer: Buffer { initial: small, max: small * pick(rng, &[1, 32]) },
        peer_buffer: pick(rng, &[8 << 10, 1 << 20]),
        eager: rng.chance(500),
        gro: true,
        connects: pick(rng, &[None, Some(1)]),
    };
    let mut config = WorldConfig { host, link, seed, ..WorldConfig::default() };
    config.engine.mtu = Mtu::new(mtu).unwrap();
    config.engine.tcp.window_pool = pick(rng, &[0, 200_000, 128 << 20]);
    config.engine.tcp.max_held = pick(rng, &[64 << 10, 1 << 20, 384 << 20]);
    config.guest_offload = rng.chance(500);
    if rng.chance(500) {
        config.engine.device = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
    }
    (config, pick(rng, &[2048, 64 << 10, 1 << 20]))
}

/// A server that says a few bytes now and then.
struct Sparse {
    task: SocketHandle,
    said: u64,
    next: Instant,
}

impl Sparse {
    /// Connects, before anything else does.
    fn start(world: &mut World<SmolGuest>) -> Self {
        world.host.serve("192.0.2.2:22", Script::manual());
        let task = world.guest.connect("192.0.2.2:22".parse().unwrap(), Task::default());
        // The guest may believe it a second earlier, when its last segment of three was lost.
        let connected = world.run_until(Duration::from_secs(600), |world| {
            world.engine.flows().next().is_some_and(|flow| flow.state == "established")
        });
        assert!(connected, "no connection in ten minutes");
        let info = world.engine.flows().next().unwrap();
        world.watch.on(info.id, info.guest.port());
        Self { task, said: 0, next: world.now() }
    }

    /// Says something if it is time, and what was said before has arrived and is known to have.
    fn talk(&mut self, world: &mut World<SmolGuest>, rng: &mut Rng) {
        let quiet = world.guest.task(self.task).received == self.said && world.host.unacknowledged(0) == 0;
        if world.now() >= self.next && quiet {
            world.host.peer_send(0, b"answer", false);
            self.said += 6;
            self.next = world.now() + Duration::from_micros(500 + rng.below(50_000));
        }
    }
}

/// What a network showed, apart from having kept its promises.
struct Seen {
    /// Times that the sparse server was waited for.
    waits: u64,
    /// The bound of memory, in bytes.
    most: usize,
    /// The most that was held at once, in bytes.
    held: usize,
}

fn run(seed: u64) -> Seen {
    let mut rng = Rng::new(seed);
    let (config, buffer) = config(&mut rng, seed);
    let about = format!("seed {seed}: {config:?}, guest's buffers {buffer}");
    let mtu = config.engine.mtu.bytes().into();
    let cubic = rng.chance(500);
    let most = usize::try_from(config.engine.tcp.max_held).unwrap();
    let mut world = World::new(config, SmolGuest::new(SmolConfig { mtu, buffer, cubic }));
    let mut sparse = Sparse::start(&mut world);
    let (mut tasks, mut most_held) = (Vec::new(), 0);
    for n in 0..1 + rng.below(5) {
        let len = rng.below(400_000);
        let service = match rng.below(3) {
            0 => Script::sink(n),
            1 => Script::source(len, 100 + n),
            _ => Script::echo(),
        };
        let Service::Talk(script) = &service else { unreachable!() };
        let task = match (&script.expect, &script.source) {
            (Some(_), _) => Task::upload(len, n),
            (_, Some(_)) => Task::download(100 + n),
            _ => Task::round_trip(len, n),
        };
        let expected = if script.expect.is_some() { 0 } else { len };
        let port = 1000 + u16::try_from(n).unwrap();
        if rng.chance(300) {
            // The other way round: the peer is a client of a forwarded port.
            tasks.push((world.guest.listen(port, task), expected));
            world.accept_tcp(&format!("192.0.2.{n}:5000"), &format!("10.0.2.100:{port}"), service).unwrap();
        } else {
            let to =
                if rng.chance(500) { format!("192.0.2.1:{port}") } else { format!("[2001:db8::1]:{port}") };
            world.host.serve(&to, service);
            tasks.push((world.guest.connect(to.parse().unwrap(), task), expected));
        }
    }
    let done = world.run_until(Duration::from_secs(3600), |world| {
        sparse.talk(world, &mut rng);
        let (held, flows) = (world.engine.memory(), world.engine.flow_count());
        assert!(held <= most + flows * FLOW, "{flows} flows hold {held} bytes: {about}");
        most_held = most_held.max(held - flows * FLOW);
        let ahead = world.watch.worst;
        assert!(
            ahead <= AHEAD,
            "{ahead} bytes of others went ahead at {:?}: {about}\n{:#?}\n{:#?}",
            world.now(),
            world.engine.counters(),
            world.engine.flows().collect::<Vec<_>>()
        );
        tasks.iter().all(|(task, expected)| {
            let task = world.guest.task(*task);
            task.sent == task.send && task.received == *expected && task.finished
        }) && world.host.peers().count() == 1 + tasks.len()
            && world.host.peers().skip(1).all(|peer| peer.finished)
    });
    world.host.peer_send(0, b"", true);
    let state: Vec<_> =
        tasks.iter().map(|(task, expected)| (world.guest.task(*task).clone(), *expected)).collect();
    let peers: Vec<_> = world.host.peers().cloned().collect();
    assert!(
        done,
        "unfinished after an hour: {about}\n{state:#?}\n{peers:#?}\n{:#?}",
        world.engine.counters()
    );
    for (task, expected) in &state {
        assert_eq!((task.mismatch, task.received), (None, *expected), "{about}");
    }
    for peer in &peers {
        assert_eq!((peer.mismatch, peer.reset), (None, false), "{about}");
    }
    world.run_for(Duration::from_secs(1000));
    assert_eq!(world.guest.task(sparse.task).received, sparse.said, "{about}");
    let left = (world.engine.flow_count(), world.engine.memory(), world.host.open_sockets());
    assert_eq!(left, (0, 0, 0), "left over: {about}");
    // A server that said nothing was waited for by nobody; what it said was counted on its way.
    assert!(world.watch.waits > 0 || sparse.said == 0, "{} bytes unwatched: {about}", sparse.said);
    Seen { waits: world.watch.waits, most, held: most_held }
}

/// Says which network it was when one fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("CHAOS_SEED={} fails", self.0);
        }
    }
}

/// A part of the networks, or the one that was asked for.
fn part(number: u64) {
    let only = std::env::var("CHAOS_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let mine = number * SEEDS..(number + 1) * SEEDS;
    let seeds = match only {
        None => mine,
        Some(seed) if number == 0 => seed..seed + 1,
        Some(_) => 0..0,
    };
    let (mut waits, mut pressed) = (0, 0);
    for seed in seeds.clone() {
        let _named = Named(seed);
        let seen = run(seed);
        waits += seen.waits;
        pressed += u64::from(seen.held > seen.most / 4);
    }
    println!("{seeds:?}: {waits} waits, {pressed} networks near their bound of memory");
    // Neither bound means anything where nothing comes near it.
    if only.is_none() {
        assert!(waits >= SEEDS && pressed >= SEEDS / 25, "{waits} waits, {pressed} near the bound");
    }
}

#[test]
fn nothing_is_lost_whatever_the_weather() {
    part(0);
}

#[test]
fn nothing_is_lost_whatever_the_weather_2() {
    part(1);
}

#[test]
fn nothing_is_lost_whatever_the_weather_3() {
    part(2);
}

#[test]
fn nothing_is_lost_whatever_the_weather_4() {
    part(3);
}
