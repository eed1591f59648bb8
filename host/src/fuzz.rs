//! What a fuzzer may do to the readers of what the kernel tells, and hypervisors with their guests. The kernel is
//! believed, but names, kinds and numbers in what it tells are the choice of whoever made the interface, sent the
//! datagram or refused it: a container, a stranger.
//!
//! Each is a promise: no panic, no circle, and what is understood is what was there.

use crate::device::vhost_user;
use crate::{netlink, ports, template, upstream};

/// A datagram of route netlink.
pub fn route_netlink(datagram: &[u8]) {
    netlink::fuzz(datagram);
}

/// A datagram of sock_diag, or a text of /proc/net.
pub fn sock_diag(datagram: &[u8]) {
    netlink::fuzz_diag(datagram);
}

/// What a host has, as messages of route netlink, behind a byte that says what is wished of its copy.
pub fn route_replay(bytes: &[u8]) {
    template::fuzz(bytes);
}

/// A datagram of netfilter's netlink, with entries of the connection tracker.
pub fn netfilter(datagram: &[u8]) {
    netlink::netfilter::fuzz(datagram);
}

/// What arrives beside a datagram: a socket address and control messages, reports of errors among them.
pub fn control_messages(bytes: &[u8]) {
    upstream::fuzz(bytes);
}

/// A text of /proc/sys/net/ipv4: two settings, a line each.
pub fn settings(text: &str) {
    let (range, reserved) = text.split_once('\n').unwrap_or((text, ""));
    ports::fuzz(range, reserved);
}

/// Requests of a hypervisor, each behind a byte that says how many descriptors come with it.
pub fn vhost_msg(bytes: &[u8]) {
    vhost_user::fuzz_requests(bytes);
}

/// What a guest has in its rings: descriptors and *available* of the ring from it, then of the ring to it.
pub fn vhost_ring(bytes: &[u8]) {
    vhost_user::fuzz_rings(bytes);
}
