//! The slirp4netns contract, seen from outside: real namespaces, real programs, the binary under its drop-in name.
//!
//! Numbered by area as in the contract: arguments, addressing, life cycle, API socket, isolation. The same tests run
//! against the original (`SLIPWAY_E2E_BINARY=/usr/bin/slirp4netns`), which proves the tests; what the original does
//! not do, or does wrong, is tested with ours only and says so.

mod t01_arguments;
mod t02_addressing;
mod t03_life_cycle;
mod t04_api_socket;
mod t05_isolation;
