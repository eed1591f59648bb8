//! Outside judges: programs that others wrote to attack, probe or measure network stacks, run by the guest.
//!
//! | file | judge (Debian's package) |
//! |---|---|
//! | `implementation` | `implementation6` of thc-ipv6: 59 packets that an IPv6 node must answer, refuse or ignore |
//! | `attacks` | `fuzz_ip6` and `denial6` of thc-ipv6: what must not hurt |
//! | `toolkit` | SI6's ipv6toolkit: single forged packets, and what is guessable about the answers |
//! | `nat` | coturn's `turnutils_natdiscovery`: RFC 5780, what kind of translator this is |
//! | `nmap` | nmap: port scans of every kind, operating system and version detection |
//!
//! Each judge hears a list of questions. Of each the test knows the verdict that the RFCs ask for ([`Must`]), with the
//! reason where the judge's own word for it is another one, or where its question does not concern a translator.
//! Slipway must say exactly that; and after each judge it must be there, carry TCP, DNS and ping as before, and be as
//! small as before. The original hears the same questions; what it says is printed beside, and nothing is asked of it.
//! The table is in `docs/judges.md`.
//!
//! A suite of its own, since one run is enough: what it looks at does not depend on how the program was built. The
//! judges need raw sockets and accounts of the machine, so the lab must be made by root. Each has a bound in time, for
//! some never end by themselves.

mod attacks;
mod court;
mod implementation;
mod nat;
mod nmap;
mod toolkit;

pub(crate) use court::{Court, Must, Row, judge};
