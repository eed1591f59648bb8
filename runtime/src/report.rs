//! What `run` and `attach` tell people, on stderr: published ports, API requests, counters.

use crate::logging::tell;
use slipway_host::driver::Driver;
use slipway_netstack::Instant;
use slipway_netstack::counters::Counters;
use slipway_netstack::drop_reason::DropReason;
use slipway_portfwd::Table;
use slipway_portfwd::api::slirp::Notice;
use std::fmt::Write as _;
use std::time::Duration;

/// Says where ports are published: all of them, or only those whose number the kernel chose.
pub fn ports(table: &Table, all: bool) {
    let mut out = String::new();
    for info in table.list() {
        if all || info.rule.ports().first_listen().is_none() {
            for (endpoint, port) in info.endpoints() {
                let _ = writeln!(out, "slipway: {endpoint} leads to port {port}/{}", info.rule.proto());
            }
        }
    }
    tell(&out);
}

/// Logs what happens at the API socket.
pub fn api(notice: Notice<'_>) {
    match notice {
        Notice::Connected => {}
        Notice::Request(bytes) => log::debug!("API request: {}", String::from_utf8_lossy(bytes).trim_end()),
        Notice::Refused(reason) => log::info!("API: {reason}"),
    }
}

/// The counters of a session, one a line; those that are zero are left out.
#[must_use]
pub fn counters(driver: &Driver, table: &Table) -> String {
    let engine = driver.peek_engine().counters();
    let lost = driver.links().lost();
    let mut out = String::new();
    let named = [
        ("frames from the guest", engine.frames_in),
        ("bytes from the guest", engine.bytes_in),
        ("frames to the guest", engine.frames_out),
        ("bytes to the guest", engine.bytes_out),
        ("TCP connections opened", engine.tcp_opened),
        ("TCP connections accepted", engine.tcp_accepted),
        ("TCP connections refused", engine.tcp_refused),
        ("TCP connections reset", engine.tcp_reset),
        ("TCP connections closed", engine.tcp_closed),
        ("TCP segments sent again", engine.tcp_retransmits),
        ("UDP flows", engine.udp_flows),
        ("UDP datagrams from the guest", engine.udp_in),
        ("UDP datagrams to the guest", engine.udp_out),
        ("echo flows", engine.echo_flows),
        ("ICMP errors to the guest", engine.icmp_errors_out),
        ("fragments from the guest", engine.fragments_in),
        ("fragments to the guest", engine.fragments_out),
        ("lost: no memory", lost.no_memory),
        ("lost: interface down", lost.down),
        ("lost: refused by the kernel", lost.rejected),
        ("lost: no room for one of several", lost.no_room),
        ("lost: in another guest's name", lost.forged),
        ("lost: for a station that nobody knows", lost.astray),
        ("lost: no frame by its length", lost.misshapen),
        ("lost: malformed offload header", lost.malformed),
    ];
    for (name, count) in named {
        line(&mut out, name, count);
    }
    for reason in DropReason::ALL {
        line(&mut out, &format!("dropped: {}", reason.name()), engine.dropped(reason));
    }
    for info in table.list() {
        line(&mut out, &format!("published {}: carried", info.rule), info.counters.accepted);
        line(&mut out, &format!("published {}: turned away", info.rule), info.counters.refused);
    }
    out
}

/// What was dropped meanwhile, and why, for whoever looks for the reason: a line in ten seconds at most, and none while
/// nothing is dropped. It never wakes anybody.
#[derive(Debug, Default)]
pub struct Drops {
    told: [u64; DropReason::ALL.len()],
    next: Option<Instant>,
}

/// Time between two lines of [`Drops`].
const BETWEEN_DROPS: Duration = Duration::from_secs(10);

impl Drops {
    /// The next line, if it is time for one.
    pub fn look(&mut self, now: Instant, counters: &Counters) -> Option<String> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        let counts = DropReason::ALL.map(|reason| counters.dropped(reason));
        let mut out = String::new();
        for ((reason, count), told) in DropReason::ALL.iter().zip(counts).zip(self.told) {
            if count > told {
                let comma = if out.is_empty() { "" } else { ", " };
                let _ = write!(out, "{comma}{} {}", count - told, reason.name());
            }
        }
        if out.is_empty() {
            return None;
        }
        (self.told, self.next) = (counts, Some(now + BETWEEN_DROPS));
        Some(format!("dropped: {out}"))
    }
}

fn line(out: &mut String, name: &str, count: u64) {
    if count > 0 {
        let _ = writeln!(out, "{name:<40} {count}");
    }
}
