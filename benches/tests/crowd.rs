//! A hundred thousand connections at once: all answer, and none costs more than a kibibyte.
//!
//! One test in a program of its own, because it asks the kernel how much memory this process has. The host side is the
//! bench's null host: what grows is the engine.

use slipway_benches::Crowd;

const FLOWS: u32 = 100_000;
/// What one connection may cost, all told.
const EACH: usize = 1024;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_hundred_thousand_connections_answer_and_cost_a_kibibyte_each() {
    let count = usize::try_from(FLOWS).unwrap();
    let mut crowd = Crowd::new(FLOWS);
    crowd.open();
    let before = resident();
    for _ in 1..count {
        crowd.open();
    }
    let each = (resident() - before) / count;
    println!("{each} bytes each");
    assert_eq!(crowd.engine.flow_count(), count);
    assert!(each <= EACH, "{each} bytes each");
    for at in 0..count {
        crowd.say(at, 1001);
    }
    assert!((resident() - before) / count <= EACH, "after a second byte");

    for at in (0..count).rev() {
        crowd.reset(at);
    }
    assert_eq!(crowd.engine.flow_count(), 0);
}
