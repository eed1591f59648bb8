//! IPv6 for containers whose addresses come from the network: by router advertisements (RFC 4861, RFC 4862, RFC 8106),
//! by DHCPv6 (RFC 8415), or by both, as the routers of the link say.
//!
//! ```text
//!   service ──▶ keeper, one for each MAC address ──▶ container   what the interface has and is given
//!                 │
//!                 ├── autoconf  pure: asks routers, decides
//!                 │     ├── advert    what routers say
//!                 │     ├── client    pure: DHCPv6, from solicit to release
//!                 │     │     └── message
//!                 │     └── frame     Ethernet and IPv6 around both
//!                 └── lease     what was found, as the message for the caller
//! ```
//! **Who does what.** Addresses made of prefixes, routes and their lifetimes are the kernel's work in the container,
//! which does it well and goes on when this program does not: the set-up lets it listen to routers. This program asks
//! routers itself besides, which is sooner than the kernel would, and hears what the kernel does not act on: the flags
//! for DHCPv6 and the servers for names.
//!
//! **Limits.** Identities are made for one address association per interface. Changes of flags and of servers for names
//! after the start are not followed: the caller has been told once. Prefixes are not delegated (IA_PD), temporary
//! addresses not asked for.

mod advert;
mod autoconf;
mod client;
mod container;
mod frame;
mod keeper;
mod lease;
mod message;

pub(super) use keeper::Keeper;
pub(super) use message::Identity;

/// For the fuzzer: bytes as what servers and routers say to a client, in time.
pub fn fuzz_replies(data: &[u8]) {
    autoconf::fuzz(data);
}

/// For the fuzzer: bytes as a router's advertisement. What is taken of it is of use.
pub fn fuzz_advert(data: &[u8]) {
    advert::fuzz(data);
}
